"""What rerouting did to historical swaps: one notification for each attempt (protocol/reroute.md §5).

Amounts are in base units of their mint, *bps* are 1/100 %. Scores compare within one kind only.
"""

# ruff: noqa: RUF009 - wire() declares a field

from __future__ import annotations

from typing import Any, TypeVar

from attrs import define, frozen

from backtest_sync.errors import DeserializeError
from backtest_sync.protocol import jsontext
from backtest_sync.protocol.accounts import EncodedBinary
from backtest_sync.protocol.fields import b58decode, to_text
from backtest_sync.protocol.kinds import (
    ADDRESS,
    BOOL,
    I64,
    TEXT,
    U8,
    U32,
    U64,
    list_of,
    optional,
    text_of,
)
from backtest_sync.protocol.notifications import Context
from backtest_sync.protocol.reports import CONTEXT, Report
from backtest_sync.protocol.shape import Value, struct, value_class, wire

R = TypeVar("R", bound="ReplacementNotification")

#: Scores are clamped to this, either way.
MAX_CHANGE_BPS = 100_000
_BPS = 10_000


def _check_signature(text: str) -> None:
    if len(b58decode(text)) != 64:
        raise ValueError(f"{text!r} is not a transaction's signature")


_SIGNATURE = text_of(to_text, _check_signature)


# --- routes


@value_class
class SwapInfo(Value):
    """One pool crossing of a route. Amounts are text, as on the wire; what is not known is ``None``.

    ``label``: the venue; ``amm_key``: the pool, named by the router alone.
    """

    label: str | None = wire(optional(TEXT), default=None)
    amm_key: str | None = wire(optional(TEXT), default=None)
    input_mint: str | None = wire(optional(TEXT), default=None)
    in_amount: str | None = wire(optional(TEXT), default=None)
    output_mint: str | None = wire(optional(TEXT), default=None)
    out_amount: str | None = wire(optional(TEXT), default=None)


@value_class
class RouteHop(Value):
    """One hop of a route plan. ``percent`` below 100: the flow is split here.

    ``program`` is known of decoded transactions alone.
    """

    swap_info: SwapInfo = wire(struct(SwapInfo))
    leg: int | None = wire(optional(U32), default=None)
    percent: int = wire(U8, default=100)
    program: str | None = wire(optional(TEXT), default=None)
    bps: int | None = wire(optional(U32), default=None)


RoutePlan = tuple[RouteHop, ...]
_PLAN = optional(list_of(struct(RouteHop)))


@value_class
class SwapLeg(Value):
    """One swap of a rerouted transaction: quotes, and the route that each side took.

    ``route_plan`` is the router's quote, ``original_route_plan`` what happened on chain,
    ``realized_route_plan`` what the simulation filled.
    """

    input_mint: str = wire(ADDRESS)
    output_mint: str = wire(ADDRESS)
    amount: int = wire(U64)
    swap_mode: str = wire(TEXT)
    original_quoted_out: int = wire(U64)
    metis_quoted_out: int = wire(U64)
    route_summary: str = wire(TEXT)
    route_plan: RoutePlan | None = wire(_PLAN, default=None, omit=None)
    original_route_plan: RoutePlan | None = wire(_PLAN, default=None, omit=None)
    realized_route_plan: RoutePlan | None = wire(_PLAN, default=None, omit=None)


@value_class
class ProbeHop(Value):
    """The historical pool crossing that a direct fill is compared with."""

    slot: int = wire(U64)
    block_time: int = wire(I64)
    tx_index: int = wire(U32)
    ix_index: int = wire(U32)
    leg_index: int = wire(U32)
    input_amount: int = wire(U64)
    output_amount: int = wire(U64)
    program: str | None = wire(optional(ADDRESS), default=None)
    replay_input_amount: int | None = wire(optional(U64), default=None)
    replay_output_amount: int | None = wire(optional(U64), default=None)


# --- scores


@frozen
class L1Score:
    """A fill beside what really happened on chain (L1). Positive is better, whatever the swap mode.

    ``change_vs_l1_bps`` is ``None`` where either side is missing or zero; ``l1_fill`` where L1 is.
    """

    l1_fill: int | None
    change_vs_l1_bps: int | None

    @classmethod
    def of(cls, measured: int | None, l1_fill: int, swap_mode: str) -> L1Score:
        """The score of a measured fill, rounded toward zero and clamped to ± `MAX_CHANGE_BPS`.

        ``swap_mode``: ``ExactOut`` counts input, so that less is better; all else is ``ExactIn``.
        """
        if not l1_fill:
            return cls(None, None)
        if not measured:
            return cls(l1_fill, None)
        better = l1_fill - measured if swap_mode == "ExactOut" else measured - l1_fill
        size = min(abs(better) * _BPS // l1_fill, MAX_CHANGE_BPS)
        return cls(l1_fill, size if better >= 0 else -size)


# --- notifications


@define(frozen=True, repr=False, kw_only=True)
class ReplacementNotification(Report):
    """What all kinds share. ``kind`` is ``requote``, ``directFill`` or ``original``.

    ``slot`` is the replay position, ``original_signature`` the historical transaction, ``outcome`` one of
    ``filled``, ``reverted``, ``unattributed``, ``unsimulatable`` or a newer server's word.
    """

    kind: str = wire(TEXT)
    context: Context = wire(CONTEXT)
    slot: int = wire(U64)
    batch_index: int = wire(U32)
    original_signature: str = wire(_SIGNATURE)
    original_failed: bool = wire(BOOL, default=False)
    outcome: str = wire(TEXT)
    category: str | None = wire(optional(TEXT), default=None, omit=None)
    err: str | None = wire(optional(TEXT), default=None, omit=None)
    l1_fill: int | None = wire(optional(U64), default=None, omit=None)
    change_vs_l1_bps: int | None = wire(optional(I64), default=None, omit=None)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(slot={self.slot}, "
            f"original_signature={self.original_signature!r}, outcome={self.outcome!r}, "
            f"change_vs_l1_bps={self.change_vs_l1_bps})"
        )

    @property
    def score(self) -> L1Score:
        """``l1_fill`` and ``change_vs_l1_bps`` as one value."""
        return L1Score(self.l1_fill, self.change_vs_l1_bps)

    @classmethod
    def from_json(cls: type[R], raw: Any) -> R:
        """The notification of a ``result``, of the class that its ``kind`` names."""
        if cls is not ReplacementNotification:
            return super().from_json(raw)
        kind = raw.get("kind") if isinstance(raw, dict) else None
        known = _KINDS.get(kind) if isinstance(kind, str) else None
        if known is None:
            due = ", ".join(_KINDS)
            reason = f"ReplacementNotification: expected a kind of {due}, got {kind!r}"
            raise DeserializeError(reason, jsontext.dumps(raw))
        return known.from_json(raw)  # type: ignore[return-value]


@define(frozen=True, repr=False, kw_only=True)
class RequoteReplacement(ReplacementNotification):
    """The whole transaction, re-quoted through the router and simulated in the original's place.

    ``legs``: one for each swap. ``fee``: lamports. ``routed_transaction``: what was simulated.
    """

    compute_units_consumed: int = wire(U64)
    fee: int | None = wire(optional(U64), default=None, omit=None)
    legs: tuple[SwapLeg, ...] = wire(list_of(struct(SwapLeg)))
    routed_transaction: EncodedBinary = wire(struct(EncodedBinary))
    logs: tuple[str, ...] = wire(list_of(TEXT))
    realized_output_amount: int | None = wire(optional(U64), default=None, omit=None)
    original_realized_output_amount: int | None = wire(optional(U64), default=None, omit=None)


@define(frozen=True, repr=False, kw_only=True)
class DirectFillReplacement(ReplacementNotification):
    """One hop of a swap, filled through an instruction template instead.

    ``template``: its label; ``hop``: what is compared with; ``template_fill``: what it gave.
    """

    template: str = wire(TEXT)
    program: str = wire(ADDRESS)
    hop: ProbeHop = wire(struct(ProbeHop))
    quote_tx_index: int = wire(U32)
    quote_lag_blocks: int = wire(U64)
    input_mint: str = wire(ADDRESS)
    output_mint: str = wire(ADDRESS)
    amount: int = wire(U64)
    swap_mode: str = wire(TEXT)
    template_fill: int | None = wire(optional(U64), default=None, omit=None)


@define(frozen=True, repr=False, kw_only=True)
class OriginalReplacement(ReplacementNotification):
    """The original itself, replayed: ``route_plan`` is what it took here, ``l1_route_plan`` on chain."""

    compute_units_consumed: int = wire(U64)
    fee: int | None = wire(optional(U64), default=None, omit=None)
    route_plan: RoutePlan | None = wire(_PLAN, default=None, omit=None)
    l1_route_plan: RoutePlan | None = wire(_PLAN, default=None, omit=None)
    simulated_output_amount: int | None = wire(optional(U64), default=None, omit=None)


_KINDS: dict[str, type[ReplacementNotification]] = {
    "requote": RequoteReplacement,
    "directFill": DirectFillReplacement,
    "original": OriginalReplacement,
}
