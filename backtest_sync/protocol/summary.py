"""What a run amounted to (protocol/control.md §5.2 and §7, protocol/reroute.md §3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from backtest_sync.protocol.fields import to_bool, to_u64
from backtest_sync.protocol.kinds import I64, TEXT, U64, FrozenMap, map_of, optional
from backtest_sync.protocol.shape import Value, struct, value_class, wire

if TYPE_CHECKING:
    from backtest_sync.protocol.responses import Response


@value_class
class TemplateStats(Value):
    """How the probes of one direct-fill template went. ``bps_total`` sums 1/100 %."""

    matched: int = wire(U64)
    outcomes: Mapping[str, int] = wire(map_of(U64))
    scored: int = wire(U64)
    bps_total: int = wire(I64)


@value_class
class RerouteStats(Value):
    """What rerouting did in a session. Totals are in 1/100 %; a mean is total ÷ scored."""

    swaps_detected: int = wire(U64, default=0)
    swaps_filtered: int = wire(U64, default=0)
    swaps_rerouted: int = wire(U64, default=0)
    swaps_simulated: int = wire(U64, default=0)
    swaps_succeeded: int = wire(U64, default=0)
    requote_failures: int = wire(U64, default=0)
    override_setup_failures: int = wire(U64, default=0)
    metis_unavailable_blocks: int = wire(U64, default=0)
    quote_attempts_unavailable: int = wire(U64, default=0)
    direct_fill_matched: int = wire(U64, default=0)
    direct_fill_outcomes: Mapping[str, int] = wire(map_of(U64), default=FrozenMap())
    direct_fill_scored: int = wire(U64, default=0)
    direct_fill_bps_total: int = wire(I64, default=0)
    direct_fill_templates: Mapping[str, TemplateStats] = wire(
        map_of(struct(TemplateStats)), default=FrozenMap()
    )
    originals_scored: int = wire(U64, default=0)
    originals_bps_total: int = wire(I64, default=0)
    originals_replayed: int = wire(U64, default=0)
    dataset_uri: str | None = wire(optional(TEXT), default=None, omit=None)


@value_class
class SessionSummary(Value):
    """How the replayed transactions compare with the chain, in transactions.

    ``played_back``: not executed but shown as recorded, and so not compared. The local simulator
    alone counts them; they are in no total.
    """

    correct_simulation: int = wire(U64)
    incorrect_simulation: int = wire(U64)
    execution_errors: int = wire(U64)
    balance_diff: int = wire(U64)
    log_diff: int = wire(U64)
    unsanitizable: int = wire(U64, default=0)
    reroute_stats: RerouteStats | None = wire(
        optional(struct(RerouteStats)), default=None, omit=None
    )
    played_back: int = wire(U64, default=0, omit=0)

    @property
    def has_deviations(self) -> bool:
        """Whether an outcome, an execution or a balance differs; logs do not count."""
        return bool(self.incorrect_simulation or self.execution_errors or self.balance_diff)

    @property
    def total_transactions(self) -> int:
        """All but those that could not be sanitised."""
        return (
            self.correct_simulation
            + self.incorrect_simulation
            + self.execution_errors
            + self.balance_diff
            + self.log_diff
        )

    def deviation_details(
        self, balance_label: str = "balance diffs", log_label: str = "log diffs"
    ) -> str:
        """The deviations in one line."""
        return (
            f"{self.incorrect_simulation} incorrect simulations, "
            f"{self.execution_errors} execution errors, "
            f"{self.balance_diff} {balance_label}, {self.log_diff} {log_label}"
        )

    def __str__(self) -> str:
        return (
            f"Session summary: {self.total_transactions} transactions\n"
            f"   - {self.correct_simulation} correct simulation\n"
            f"   - {self.incorrect_simulation} incorrect simulation\n"
            f"   - {self.execution_errors} execution errors\n"
            f"   - {self.unsanitizable} unsanitizable\n"
            f"   - {self.balance_diff} balance diffs\n"
            f"   - {self.log_diff} log diffs"
            + (f"\n   - {self.played_back} played back, not executed" if self.played_back else "")
        )


@attrs.frozen
class SessionCoverage:
    """What was seen of a range: the highest slot announced, and whether the run completed."""

    highest_slot_seen: int | None = None
    completed: bool = False

    def __attrs_post_init__(self) -> None:
        if self.highest_slot_seen is not None:
            to_u64(self.highest_slot_seen, "highest_slot_seen")
        to_bool(self.completed, "completed")

    def observe(self, response: Response) -> SessionCoverage:
        """The coverage once ``response`` is seen too. Only slots and completion count."""
        from backtest_sync.protocol.responses import Completed, SlotNotification

        if isinstance(response, Completed):
            return attrs.evolve(self, completed=True)
        if isinstance(response, SlotNotification):
            highest = self.highest_slot_seen
            if highest is None or response.slot > highest:
                return attrs.evolve(self, highest_slot_seen=response.slot)
        return self

    def check(self, expected_end_slot: int) -> str | None:
        """What is wrong with a run that was to end at this slot; ``None`` where nothing is.

        A lower highest slot is fine: the last slots of a range may have no block.
        """
        to_u64(expected_end_slot, "expected_end_slot")
        if not self.completed:
            return "ended before completion"
        if self.highest_slot_seen is None:
            return "completed without slot notifications"
        if self.highest_slot_seen > expected_end_slot:
            return (
                f"observed slot {self.highest_slot_seen} "
                f"beyond the requested end slot {expected_end_slot}"
            )
        return None
