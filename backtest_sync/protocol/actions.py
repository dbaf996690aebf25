"""What a session does by itself at fixed places: scheduled actions and diagnostic probes.

protocol/reroute.md §1 and §2.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from backtest_sync.errors import InvalidParamsError
from backtest_sync.protocol.accounts import MODIFICATIONS, AccountModifications
from backtest_sync.protocol.fields import U64_MAX, WireEnum
from backtest_sync.protocol.filters import FILTER, DiscoveryFilter
from backtest_sync.protocol.kinds import (
    ADDRESS,
    BOOL,
    TEXT,
    TRANSACTION,
    U8,
    U32,
    U64,
    blob,
    choice,
    integer,
    list_of,
    optional,
)
from backtest_sync.protocol.shape import (
    Value,
    custom,
    expect_object,
    member,
    value_class,
    wire,
)

if TYPE_CHECKING:
    from backtest_sync.protocol.fields import AddressLike, ModificationsLike, TransactionLike

MAX_PROBE_MARKETS = 64
MAX_PROBE_USD_VALUES = 16


class AnchorAt(WireEnum):
    """Where an action or a probe fires."""

    BEFORE_SLOT = "beforeSlot"
    AFTER_SLOT = "afterSlot"
    BEFORE_EVERY_SLOT = "beforeEverySlot"
    AFTER_EVERY_SLOT = "afterEverySlot"
    BEFORE_MATCH = "beforeMatch"
    AFTER_MATCH = "afterMatch"


_SLOTS = (AnchorAt.BEFORE_SLOT, AnchorAt.AFTER_SLOT)
_EVERY = (AnchorAt.BEFORE_EVERY_SLOT, AnchorAt.AFTER_EVERY_SLOT)

_AT = choice(AnchorAt)
_SLOT_BLOB = blob(list_of(U64))
_STEP = integer(U64_MAX, 1)


@value_class
class ActionAnchor(Value):
    """Where something fires. Made by its class methods.

    ``slots`` belongs to the slot anchors, ``every_n_slots`` to those of every slot, ``filter`` to
    the match anchors.
    """

    at: AnchorAt = wire(_AT)
    slots: tuple[int, ...] = wire(list_of(U64), default=())
    every_n_slots: int | None = wire(optional(_STEP), default=None)
    filter: DiscoveryFilter | None = wire(optional(FILTER), default=None)

    if TYPE_CHECKING:

        def __init__(
            self,
            at: AnchorAt | str,
            slots: Iterable[int] = (),
            every_n_slots: int | None = None,
            filter: DiscoveryFilter | None = None,  # noqa: A002 - the protocol's word
        ) -> None: ...

    @classmethod
    def before_slot(cls, slots: Iterable[int]) -> ActionAnchor:
        """At the start of each of ``slots``; its n-th transaction runs at the n-th slot."""
        return cls(AnchorAt.BEFORE_SLOT, slots)

    @classmethod
    def after_slot(cls, slots: Iterable[int]) -> ActionAnchor:
        """At the end of each of ``slots``, before it is finalised."""
        return cls(AnchorAt.AFTER_SLOT, slots)

    @classmethod
    def before_every_slot(cls, every_n_slots: int = 1) -> ActionAnchor:
        """At the start of each slot with a block that is a multiple of ``every_n_slots``."""
        return cls(AnchorAt.BEFORE_EVERY_SLOT, every_n_slots=every_n_slots)

    @classmethod
    def after_every_slot(cls, every_n_slots: int = 1) -> ActionAnchor:
        """At the end of each slot with a block that is a multiple of ``every_n_slots``."""
        return cls(AnchorAt.AFTER_EVERY_SLOT, every_n_slots=every_n_slots)

    @classmethod
    def before_match(cls, filter: DiscoveryFilter) -> ActionAnchor:  # noqa: A002
        """Before each batch that ``filter`` matches."""
        return cls(AnchorAt.BEFORE_MATCH, filter=filter)

    @classmethod
    def after_match(cls, filter: DiscoveryFilter) -> ActionAnchor:  # noqa: A002
        """After each batch that ``filter`` matches."""
        return cls(AnchorAt.AFTER_MATCH, filter=filter)

    def _check(self) -> None:
        foreign = [
            name
            for name, own in (
                ("slots", self.at in _SLOTS or self.slots == ()),
                ("every_n_slots", self.at in _EVERY or self.every_n_slots is None),
                ("filter", (self.at in _SLOTS + _EVERY) == (self.filter is None)),
            )
            if not own
        ]
        if foreign:
            raise InvalidParamsError(f"{foreign[0]}: does not go with an anchor {self.at.value}")
        if self.at in _EVERY and self.every_n_slots is None:
            object.__setattr__(self, "every_n_slots", 1)


_ANCHOR_KEYS = frozenset(("at", "slots", "everyNSlots", "filter"))


def _read_anchor(json: Any) -> ActionAnchor:
    expect_object(json, _ANCHOR_KEYS)
    at = member(json, "at", _AT)
    if at in _SLOTS:
        return ActionAnchor(at, member(json, "slots", _SLOT_BLOB, ()))
    if at in _EVERY:
        return ActionAnchor(at, every_n_slots=member(json, "everyNSlots", _STEP, 1))
    return ActionAnchor(at, filter=member(json, "filter", FILTER))


def _write_anchor(anchor: ActionAnchor) -> Any:
    json: dict[str, Any] = {"at": anchor.at.value}
    if anchor.at in _SLOTS:
        json["slots"] = _write(_SLOT_BLOB, anchor.slots)
    elif anchor.at in _EVERY:
        json["everyNSlots"] = anchor.every_n_slots
    else:
        json["filter"] = _write(FILTER, anchor.filter)
    return json


def _write(kind: Any, value: Any) -> Any:
    return kind.write(value)


_ANCHOR = custom(ActionAnchor, _read_anchor, _write_anchor)


class ResolverType(WireEnum):
    """What the server fills into an action's transactions before they run."""

    LIQUIDITY_ARRAYS = "liquidityArrays"
    QUOTE_STAMP = "quoteStamp"


_RESOLVER_TYPE = choice(ResolverType)
_INDICES = list_of(U8)


@value_class
class TxResolver(Value):
    """What the server fills into an action's transactions. Made by its class methods.

    ``pool``, ``input_mint`` and ``array_key_indices`` belong to liquidity arrays alone.
    """

    type: ResolverType = wire(_RESOLVER_TYPE)
    pool: str | None = wire(optional(ADDRESS), default=None)
    input_mint: str | None = wire(optional(ADDRESS), default=None)
    array_key_indices: tuple[int, ...] = wire(_INDICES, default=())

    if TYPE_CHECKING:

        def __init__(
            self,
            type: ResolverType | str,  # noqa: A002 - the protocol's word
            pool: AddressLike | None = None,
            input_mint: AddressLike | None = None,
            array_key_indices: Iterable[int] = (),
        ) -> None: ...

    @classmethod
    def liquidity_arrays(
        cls, pool: AddressLike, input_mint: AddressLike, array_key_indices: Iterable[int]
    ) -> TxResolver:
        """Put the pool's current liquidity arrays at these account keys (0 to 255, no repeats)."""
        return cls(ResolverType.LIQUIDITY_ARRAYS, pool, input_mint, array_key_indices)

    @classmethod
    def quote_stamp(cls) -> TxResolver:
        """Put the current quote's stamp in."""
        return cls(ResolverType.QUOTE_STAMP)

    def _check(self) -> None:
        arrays = self.type is ResolverType.LIQUIDITY_ARRAYS
        for name in ("pool", "input_mint"):
            if (getattr(self, name) is not None) != arrays:
                raise InvalidParamsError(
                    f"{name}: {'missing for' if arrays else 'does not go with'} {self.type.value}"
                )
        if not arrays:
            if self.array_key_indices:
                raise InvalidParamsError(f"array_key_indices: do not go with {self.type.value}")
            return
        if not self.array_key_indices:
            raise InvalidParamsError("no arrayKeyIndices")
        seen: set[int] = set()
        for index in self.array_key_indices:
            if index in seen:
                raise InvalidParamsError(f"arrayKeyIndex {index} repeated")
            seen.add(index)


_RESOLVER_KEYS = frozenset(("type", "pool", "inputMint", "arrayKeyIndices"))


def _read_resolver(json: Any) -> TxResolver:
    expect_object(json, _RESOLVER_KEYS)
    if member(json, "type", _RESOLVER_TYPE) is ResolverType.QUOTE_STAMP:
        return TxResolver.quote_stamp()
    return TxResolver.liquidity_arrays(
        member(json, "pool", ADDRESS),
        member(json, "inputMint", ADDRESS),
        member(json, "arrayKeyIndices", _INDICES),
    )


def _write_resolver(resolver: TxResolver) -> Any:
    json: dict[str, Any] = {"type": resolver.type.value}
    if resolver.type is ResolverType.LIQUIDITY_ARRAYS:
        json["pool"] = resolver.pool
        json["inputMint"] = resolver.input_mint
        json["arrayKeyIndices"] = list(resolver.array_key_indices)
    return json


_RESOLVER = custom(TxResolver, _read_resolver, _write_resolver)


class ActionKind(WireEnum):
    """Whether an action's transactions are committed to the replayed world."""

    SIMULATE = "simulate"
    SEND = "send"


@value_class
class ScheduledAction(Value):
    """Transactions or account states that the session plays in at an anchor.

    Without ``transactions``, ``account_overrides`` are the whole payload. ``return_accounts``:
    whose states come back with each result. ``label`` is echoed.
    """

    anchor: ActionAnchor = wire(_ANCHOR)
    kind: ActionKind = wire(choice(ActionKind), default=ActionKind.SIMULATE)
    transactions: tuple[str, ...] = wire(blob(list_of(TRANSACTION)), default=())
    account_overrides: AccountModifications = wire(MODIFICATIONS, default=AccountModifications())
    feeds_reroute: bool = wire(BOOL, default=False, omit=False)
    return_accounts: tuple[str, ...] = wire(list_of(ADDRESS), default=())
    label: str | None = wire(optional(TEXT), default=None)
    resolve: TxResolver | None = wire(optional(_RESOLVER), default=None, omit=None)

    if TYPE_CHECKING:

        def __init__(
            self,
            anchor: ActionAnchor,
            kind: ActionKind | str = ActionKind.SIMULATE,
            transactions: Iterable[TransactionLike] = (),
            account_overrides: ModificationsLike = ...,
            feeds_reroute: bool = False,
            return_accounts: Iterable[AddressLike] = (),
            label: str | None = None,
            resolve: TxResolver | None = None,
        ) -> None: ...

    def resolve_error(self) -> str | None:
        """Why the server would refuse this action's resolver; ``None`` where it would not."""
        if self.resolve is None:
            return None
        count = len(self.transactions)
        if self.kind is ActionKind.SEND:
            return "resolve is not valid for kind: send"
        if self.resolve.type is ResolverType.LIQUIDITY_ARRAYS and count != 1:
            return f"resolve rewrites exactly one transaction, and the action carries {count}"
        if count == 0:
            return "resolve needs a transaction to rewrite"
        if self.feeds_reroute:
            return "resolve cannot be combined with feedsReroute"
        return None


@value_class
class DiagnosticProbe(Value):
    """Router quotes for markets × sizes at an anchor; ``usd_values`` are whole dollars."""

    anchor: ActionAnchor = wire(_ANCHOR)
    markets: tuple[str, ...] = wire(list_of(ADDRESS))
    usd_values: tuple[int, ...] = wire(list_of(U32))
    label: str | None = wire(optional(TEXT), default=None)

    if TYPE_CHECKING:

        def __init__(
            self,
            anchor: ActionAnchor,
            markets: Iterable[AddressLike],
            usd_values: Iterable[int],
            label: str | None = None,
        ) -> None: ...

    @property
    def fires(self) -> int:
        """How many quotes one firing asks for."""
        return len(self.markets) * len(self.usd_values)

    def error(self) -> str | None:
        """Why the server would refuse this probe; ``None`` where it would not."""
        counts = (
            ("markets", len(self.markets), MAX_PROBE_MARKETS),
            ("usdValues", len(self.usd_values), MAX_PROBE_USD_VALUES),
        )
        for what, count, _ in counts:
            if count == 0:
                return f"a diagnostic probe names no {what}"
        for what, count, ceiling in counts:
            if count > ceiling:
                return f"a diagnostic probe names {count} {what}, over the ceiling of {ceiling}"
        if 0 in self.usd_values:
            return "a diagnostic probe names usdValue 0, which the router reads as no size at all"
        seen: set[str] = set()
        for market in self.markets:
            if market in seen:
                return f"a diagnostic probe names market {market} more than once"
            seen.add(market)
        if self.anchor.at not in (AnchorAt.AFTER_SLOT, AnchorAt.AFTER_EVERY_SLOT):
            return (
                f"a diagnostic probe anchors at {self.anchor.at.value}; probing the router is an "
                "await, and only the slot-end hook has a point for one, so only afterSlot and "
                "afterEverySlot are supported"
            )
        return None
