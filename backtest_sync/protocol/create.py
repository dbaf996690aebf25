"""The friendly form of a create request (protocol/control.md §9)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import attrs

from backtest_sync.errors import InvalidParamsError
from backtest_sync.protocol.actions import (
    ActionAnchor,
    ActionKind,
    DiagnosticProbe,
    ScheduledAction,
)
from backtest_sync.protocol.directfill import DirectFillTemplate
from backtest_sync.protocol.fields import U64_MAX, to_modifications
from backtest_sync.protocol.filters import FILTER, DiscoveryFilter
from backtest_sync.protocol.ids import new_create_token
from backtest_sync.protocol.kinds import (
    ADDRESS,
    BOOL,
    SESSION_NAME,
    U16,
    U32,
    U64,
    list_of,
    optional,
)
from backtest_sync.protocol.requests import CreateBacktestSession
from backtest_sync.protocol.reroute import (
    AGGREGATORS,
    RerouteFilter,
    RerouteParams,
    SwapAggregator,
)
from backtest_sync.protocol.shape import Value, struct, value_class, wire

if TYPE_CHECKING:
    from backtest_sync.protocol.fields import AddressLike, ModificationsLike

_SEND_UNDER_REPLAY = (
    "A scheduled action with kind: send is not supported while account state replay is enabled: "
    "replay reconstructs account state from the recorded delta bundle instead of executing "
    "transactions, so this session never executes or persists any. Use kind: simulate, which runs "
    "against the replayed state without committing, post state directly with an action carrying "
    "accountOverrides and no transactions, or create the session without replayAccountState."
)


@value_class
class CreateSession(Value):
    """What session to create: ``start_slot``, one of ``end_slot`` or ``slot_count``, and options.

    ``slot_count`` is added to the start: 5 replays six slots. Timeouts in seconds. Rerouting is
    switched on by ``reroute_order_flow``; without it the other options of rerouting mean nothing.
    A ``name`` can never be used again.
    """

    start_slot: int = wire(U64)
    end_slot: int | None = wire(optional(U64), default=None)
    slot_count: int | None = wire(optional(U64), default=None)
    send_summary: bool = wire(BOOL, default=False)
    capacity_wait_timeout_secs: int | None = wire(optional(U16), default=None)
    disconnect_timeout_secs: int | None = wire(optional(U16), default=None)
    extra_compute_units: int | None = wire(optional(U32), default=None)
    discoveries: tuple[DiscoveryFilter, ...] = wire(list_of(FILTER), default=())
    actions: tuple[ScheduledAction, ...] = wire(list_of(struct(ScheduledAction)), default=())
    replay_account_state: bool = wire(BOOL, default=False)
    diagnostic_probes: tuple[DiagnosticProbe, ...] = wire(
        list_of(struct(DiagnosticProbe)), default=()
    )
    parallel: bool = wire(BOOL, default=False)
    name: str | None = wire(optional(SESSION_NAME), default=None)
    reroute_order_flow: bool = wire(BOOL, default=False)
    reroute_aggregators: tuple[SwapAggregator, ...] = wire(
        AGGREGATORS, default=(SwapAggregator.JUPITER,)
    )
    reroute_filter: RerouteFilter | None = wire(optional(struct(RerouteFilter)), default=None)
    detect_failed_l1_swaps: bool = wire(BOOL, default=False)
    reroute_circular_arbs: bool = wire(BOOL, default=False)
    reroute_requote: bool = wire(BOOL, default=True)
    reroute_direct_fill: tuple[DirectFillTemplate, ...] = wire(
        list_of(struct(DirectFillTemplate)), default=()
    )
    reroute_extra_markets: tuple[str, ...] = wire(list_of(ADDRESS), default=())

    if TYPE_CHECKING:

        def __init__(
            self,
            start_slot: int,
            end_slot: int | None = None,
            slot_count: int | None = None,
            send_summary: bool = False,
            capacity_wait_timeout_secs: int | None = None,
            disconnect_timeout_secs: int | None = None,
            extra_compute_units: int | None = None,
            discoveries: Iterable[DiscoveryFilter] = (),
            actions: Iterable[ScheduledAction] = (),
            replay_account_state: bool = False,
            diagnostic_probes: Iterable[DiagnosticProbe] = (),
            parallel: bool = False,
            name: str | None = None,
            reroute_order_flow: bool = False,
            reroute_aggregators: Iterable[SwapAggregator | str] = ...,
            reroute_filter: RerouteFilter | None = None,
            detect_failed_l1_swaps: bool = False,
            reroute_circular_arbs: bool = False,
            reroute_requote: bool = True,
            reroute_direct_fill: Iterable[DirectFillTemplate] = (),
            reroute_extra_markets: Iterable[AddressLike] = (),
        ) -> None: ...

    def add_override(self, slot: int, accounts: ModificationsLike) -> CreateSession:
        """The same with one more action: from ``slot`` on, counterfactual reads see ``accounts``."""
        action = ScheduledAction(
            ActionAnchor.before_slot([slot]),
            account_overrides=to_modifications(accounts, "accounts"),
            feeds_reroute=True,
        )
        return attrs.evolve(self, actions=(*self.actions, action))  # type: ignore[misc]

    def to_request(self) -> CreateBacktestSession:
        """The wire's form, checked as the server would (``InvalidParamsError``).

        A named request gets a create token of its own: send the same request again, not a new one,
        to reclaim the name.
        """
        end_slot = self._end_slot()
        self._check_parts()
        versioned = self.parallel or self.name is not None
        return CreateBacktestSession(
            start_slot=self.start_slot,
            end_slot=end_slot,
            send_summary=self.send_summary,
            reroute=self._reroute(),
            capacity_wait_timeout_secs=self.capacity_wait_timeout_secs,
            disconnect_timeout_secs=self.disconnect_timeout_secs,
            extra_compute_units=self.extra_compute_units,
            discoveries=self.discoveries,
            actions=self.actions,
            replay_account_state=self.replay_account_state,
            diagnostic_probes=self.diagnostic_probes,
            parallel=self.parallel if versioned else None,
            name=self.name,
            create_token=None if self.name is None else new_create_token(),
        )

    def _end_slot(self) -> int:
        if self.end_slot is not None and self.slot_count is not None:
            raise InvalidParamsError("CreateSession: set only one of end_slot or slot_count")
        if self.slot_count is not None:
            end = self.start_slot + self.slot_count
            if end > U64_MAX:
                raise InvalidParamsError("CreateSession: start_slot + slot_count overflow")
            return end
        if self.end_slot is None:
            raise InvalidParamsError("CreateSession: must set end_slot or slot_count")
        if self.end_slot < self.start_slot:
            raise InvalidParamsError(
                f"CreateSession: end_slot ({self.end_slot}) must be >= "
                f"start_slot ({self.start_slot})"
            )
        return self.end_slot

    def _check_parts(self) -> None:
        for probe in self.diagnostic_probes:
            reason = probe.error()
            if reason is not None:
                raise InvalidParamsError(reason)
        for index, action in enumerate(self.actions):
            reason = action.resolve_error()
            if reason is not None:
                raise InvalidParamsError(f"action {index}: {reason}")
        if self.replay_account_state and any(a.kind is ActionKind.SEND for a in self.actions):
            raise InvalidParamsError(_SEND_UNDER_REPLAY)

    def _reroute(self) -> RerouteParams | None:
        if not self.reroute_order_flow:
            return None
        return RerouteParams(
            aggregators=self.reroute_aggregators,
            filter=self.reroute_filter,
            detect_failed_l1_swaps=self.detect_failed_l1_swaps,
            circular_arbs=self.reroute_circular_arbs,
            requote=self.reroute_requote,
            direct_fill=self.reroute_direct_fill,
            extra_markets=self.reroute_extra_markets,
        )
