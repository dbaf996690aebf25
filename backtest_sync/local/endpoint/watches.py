"""Subscribe calls: what each kind takes, and the watch that it makes (protocol/subscriptions.md §2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from attrs import frozen

from backtest_sync.local import shapes
from backtest_sync.local.endpoint import jsonrpc
from backtest_sync.local.endpoint.account_watches import AccountWatch, DiffWatch, ProgramWatch
from backtest_sync.local.endpoint.filters import read_filters
from backtest_sync.local.endpoint.transaction_watches import (
    ActionWatch,
    LogsWatch,
    Mentions,
    SignatureWatch,
    SlotWatch,
    TransactionWatch,
)
from backtest_sync.local.endpoint.watch import Watch

if TYPE_CHECKING:
    from backtest_sync.local.session import SimSession

_I64_MAX = (1 << 63) - 1


@frozen
class Options:
    """The protocol's own options of a subscription (protocol/subscriptions.md §2.1)."""

    replay_from: int | None = None
    compressed: bool = False
    intra_slot: bool = False


def read_options(params: list[Any]) -> Options:
    """The options in the second positional parameter; a malformed object means none at all."""
    value = params[1] if len(params) > 1 else None
    if not isinstance(value, dict):
        return Options()
    replay_from = value.get("replayFromSlot")
    compression = value.get("compression")
    intra_slot = value.get("intraSlotUpdates", False)
    well_formed = (
        (replay_from is None or (type(replay_from) is int and abs(replay_from) <= _I64_MAX))
        and compression in (None, "zstd")
        and isinstance(intra_slot, bool)
    )
    if not well_formed:
        return Options()
    return Options(replay_from, compression == "zstd", intra_slot)


def _read_mentions(value: object) -> Mentions:
    if value == "all":
        return Mentions(None)
    if value == "allWithVotes":
        return Mentions(None, votes=True)
    if not isinstance(value, dict) or set(value) != {"mentions"}:
        raise jsonrpc.invalid(
            'Invalid params: expected "all", "allWithVotes" or {"mentions": [address]}.'
        )
    addresses = jsonrpc.addresses(value["mentions"])
    if len(addresses) != 1:
        raise jsonrpc.invalid("Invalid Request: Only 1 address supported")
    return Mentions(addresses[0])


def _slot(_session: SimSession, _params: list[Any]) -> Watch:
    return SlotWatch()


def _signature(_session: SimSession, params: list[Any]) -> Watch:
    jsonrpc.count(params, 1, 2)
    return SignatureWatch(jsonrpc.signature(params[0]))


def _logs(_session: SimSession, params: list[Any]) -> Watch:
    jsonrpc.count(params, 1, 2)
    return LogsWatch(_read_mentions(params[0]))


def _transaction(_session: SimSession, params: list[Any]) -> Watch:
    jsonrpc.count(params, 1, 2)
    encoding = jsonrpc.choice(_config(params), "encoding", shapes.TRANSACTION_ENCODINGS, "json")
    return TransactionWatch(_read_mentions(params[0]), encoding)


def _config(params: list[Any]) -> dict[str, Any]:
    """The option object; what is none never fails a subscription (protocol/subscriptions.md §2.1)."""
    found = params[1] if len(params) > 1 else None
    return found if isinstance(found, dict) else {}


def _diff(_session: SimSession, params: list[Any]) -> Watch:
    jsonrpc.count(params, 1, 2)
    address = jsonrpc.address(params[0])
    if _config(params).get("address_type") == "program":
        return DiffWatch(program=address)
    return DiffWatch(address)


def _account(session: SimSession, params: list[Any]) -> Watch:
    jsonrpc.count(params, 1, 2)
    address = jsonrpc.address(params[0])
    view = shapes.read_view(_config(params), "binary")
    return AccountWatch(session, address, view, read_options(params).intra_slot)


def _program(session: SimSession, params: list[Any]) -> Watch:
    jsonrpc.count(params, 1, 2)
    address = jsonrpc.address(params[0])
    config = _config(params)
    view = shapes.read_view(config, "binary")
    filters = read_filters(config)
    return ProgramWatch(session, address, filters, view, read_options(params).intra_slot)


def _action(_session: SimSession, _params: list[Any]) -> Watch:
    return ActionWatch()


#: What makes the watch of a subscribe method.
WATCHES: dict[str, Callable[[SimSession, list[Any]], Watch]] = {
    "slotSubscribe": _slot,
    "signatureSubscribe": _signature,
    "logsSubscribe": _logs,
    "transactionSubscribe": _transaction,
    "accountDiffSubscribe": _diff,
    "accountSubscribe": _account,
    "programSubscribe": _program,
    "actionSubscribe": _action,
}
