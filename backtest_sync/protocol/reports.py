"""Notifications of what a session was asked to do besides: scheduled actions and diagnostic probes.

Unlike the streams of `notifications`, these are read whole when they arrive: they are few and say much.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from backtest_sync.errors import DeserializeError
from backtest_sync.protocol import jsontext
from backtest_sync.protocol.accounts import Account, EncodedBinary
from backtest_sync.protocol.kinds import ADDRESS, BOOL, JSON, TEXT, U32, U64, list_of, optional
from backtest_sync.protocol.notifications import Context
from backtest_sync.protocol.shape import Kind, Mismatch, Value, kind_of, struct, value_class, wire

R = TypeVar("R", bound="Report")


def _read_context(json: Any) -> Context:
    if not isinstance(json, dict) or "slot" not in json:
        raise Mismatch("expected an object with a slot")
    return Context(U64.read(json["slot"]))


#: ``context``: an object of which the slot counts.
CONTEXT = Kind(lambda value, _: value, _read_context, lambda context: {"slot": context.slot})


class Report(Value):
    """A notification that is read whole. ``raw``: the ``result`` that the server sent."""

    __slots__ = ("raw",)

    raw: Any

    @classmethod
    def from_json(cls: type[R], raw: Any) -> R:
        """The notification of a ``result``; `DeserializeError` where it is none."""
        try:
            report = kind_of(cls).read(raw)
        except Mismatch as error:
            reason = f"{cls.__name__}: {error.path()}: {error.reason}"
            raise DeserializeError(reason, jsontext.dumps(raw)) from None
        _set_raw(report, raw)
        return cast("R", report)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        _set_raw(self, self.to_json())

    def to_json(self) -> Any:
        """Its JSON as the protocol's own types write it: known keys alone, defaults filled in."""
        return cast("Any", kind_of(type(self)).write)(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).from_json, (self.raw,)


# values are frozen: the slot itself is the way in
_set_raw: Callable[[Report, Any], None] = Report.__dict__["raw"].__set__


@value_class
class TransactionOutcome(Value):
    """How one transaction of an action went. ``fee``: lamports; ``return_data``: Solana's JSON form."""

    units_consumed: int = wire(U64)
    err: str | None = wire(optional(TEXT), default=None)
    logs: tuple[str, ...] = wire(list_of(TEXT), default=())
    fee: int | None = wire(optional(U64), default=None)
    return_data: Any = wire(JSON, default=None)


@value_class
class ActionResultNotification(Report):
    """A scheduled action fired (``actionNotification``, protocol/subscriptions.md §5.2).

    ``batch_index`` is ``None`` at slot boundaries, ``tx_index`` (the matched transaction's) there and from
    older servers. ``action_index`` counts in the session's ``actions``, ``label`` is its own.
    ``transaction_outcomes``: a failing transaction is the last, later ones did not run. ``matched``: the
    transaction that fired it.
    """

    context: Context = wire(CONTEXT)
    slot: int = wire(U64)
    action_index: int = wire(U32)
    committed: bool = wire(BOOL)
    batch_index: int | None = wire(optional(U32), default=None)
    tx_index: int | None = wire(optional(U32), default=None)
    label: str | None = wire(optional(TEXT), default=None)
    transaction_outcomes: tuple[TransactionOutcome, ...] = wire(
        list_of(struct(TransactionOutcome)), default=()
    )
    _accounts: tuple[Any, ...] = wire(list_of(JSON), default=(), name="accounts")
    matched: EncodedBinary | None = wire(optional(struct(EncodedBinary)), default=None)

    @property
    def accounts(self) -> tuple[Account | None, ...]:
        """The action's ``return_accounts`` after its last transaction, in their order.

        ``None`` for one that does not exist. `DeserializeError` where one is no account.
        """
        return tuple(None if value is None else Account.from_ui(value) for value in self._accounts)


@value_class
class DiagnosticNotification(Report):
    """A diagnostic probe fired (``diagnosticNotification``, protocol/subscriptions.md §5.3).

    ``slot`` is the replayed slot at whose end it fired; ``router_slot`` the router's own, which lags behind:
    compare the two before aligning. ``results``: the router's answer as it is, for ``usd_value`` both ways.
    ``err``: why there is none.
    """

    context: Context = wire(CONTEXT)
    slot: int = wire(U64)
    probe_index: int = wire(U32)
    market: str = wire(ADDRESS)
    usd_value: int = wire(U32)
    label: str | None = wire(optional(TEXT), default=None)
    router_slot: int | None = wire(optional(U64), default=None)
    results: Any = wire(JSON, default=None)
    account_hashes: tuple[str, ...] = wire(list_of(TEXT), default=())
    err: str | None = wire(optional(TEXT), default=None)
