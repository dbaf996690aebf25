"""Calls about the chain: slot, blockhash, epoch, health, version."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from backtest_sync.local import svm
from backtest_sync.local.endpoint.jsonrpc import (
    MIN_CONTEXT_SLOT,
    CallError,
    config,
    count,
    invalid,
    strings,
    unsigned,
)

if TYPE_CHECKING:
    from backtest_sync.local.session import SimSession

#: The version of Solana's RPC whose shapes are served.
API_VERSION = "2.2.0"
#: How many blocks a cluster takes a blockhash for.
BLOCKHASH_LIFETIME = 150

_CLOCK = "SysvarC1ock11111111111111111111111111111111"
_CLOCK_DATA = struct.Struct("<QqQQq")
_EPOCH_SCHEDULE = "SysvarEpochSchedu1e111111111111111111111111"
_EPOCH_SCHEDULE_DATA = struct.Struct("<QQ?QQ")


def options(session: SimSession, params: list[Any], index: int) -> dict[str, Any]:
    """A call's options; ``minContextSlot`` is checked."""
    found = config(params, index)
    least = found.get("minContextSlot")
    if least is not None and unsigned(least) > session.slot:
        raise CallError(
            MIN_CONTEXT_SLOT,
            "Minimum context slot has not been reached",
            {"contextSlot": session.slot},
        )
    return found


def with_context(session: SimSession, value: Any) -> dict[str, Any]:
    """A result that says for which slot it holds."""
    return {"context": {"slot": session.slot, "apiVersion": API_VERSION}, "value": value}


def blockhash_value(session: SimSession) -> dict[str, Any]:
    """The current blockhash, and the block height until which a cluster would take it."""
    engine = session.engine
    return {
        "blockhash": engine.blockhash,
        "lastValidBlockHeight": engine.block_height + BLOCKHASH_LIFETIME,
    }


def get_slot(session: SimSession, params: list[Any]) -> int:
    """``getSlot``"""
    count(params, 0, 1)
    options(session, params, 0)
    return session.slot


def get_block_height(session: SimSession, params: list[Any]) -> int:
    """``getBlockHeight``"""
    count(params, 0, 1)
    options(session, params, 0)
    return session.engine.block_height


def get_latest_blockhash(session: SimSession, params: list[Any]) -> Any:
    """``getLatestBlockhash``"""
    count(params, 0, 1)
    options(session, params, 0)
    return with_context(session, blockhash_value(session))


def is_blockhash_valid(session: SimSession, params: list[Any]) -> Any:
    """``isBlockhashValid``: true for any, since a session takes transactions with whatever one."""
    count(params, 1, 2)
    options(session, params, 1)
    (text,) = strings(params[:1])
    try:
        svm.checked_hash(text, "blockhash")
    except ValueError as error:
        raise invalid(f"Invalid param: {error}") from error
    return with_context(session, True)


def get_epoch_info(session: SimSession, params: list[Any]) -> Any:
    """``getEpochInfo``, out of the sysvars that programs see."""
    count(params, 0, 1)
    options(session, params, 0)
    (_, _, epoch, _, _) = _sysvar(session, _CLOCK, _CLOCK_DATA)
    (length, _, _, _, first_slot) = _sysvar(session, _EPOCH_SCHEDULE, _EPOCH_SCHEDULE_DATA)
    return {
        "absoluteSlot": session.slot,
        "blockHeight": session.engine.block_height,
        "epoch": epoch,
        "slotIndex": (session.slot - first_slot) % length,
        "slotsInEpoch": length,
        "transactionCount": None,
    }


def _sysvar(session: SimSession, address: str, layout: struct.Struct) -> tuple[Any, ...]:
    account = session.engine.account(address)
    if account is None or len(account.data) < layout.size:
        raise LookupError(f"sysvar {address} is missing")
    return layout.unpack_from(account.data)


def get_block_time(session: SimSession, params: list[Any]) -> int | None:
    """``getBlockTime`` of the current slot; null for any other."""
    count(params, 1, 1)
    return session.engine.block_time if unsigned(params[0]) == session.slot else None


def get_health(_session: SimSession, params: list[Any]) -> str:
    """``getHealth``"""
    count(params, 0, 0)
    return "ok"


def get_version(_session: SimSession, params: list[Any]) -> dict[str, Any]:
    """``getVersion``"""
    count(params, 0, 0)
    return {"solana-core": API_VERSION, "feature-set": None}


METHODS: dict[str, Callable[[SimSession, list[Any]], Any]] = {
    "getSlot": get_slot,
    "getBlockHeight": get_block_height,
    "getLatestBlockhash": get_latest_blockhash,
    "isBlockhashValid": is_blockhash_valid,
    "getEpochInfo": get_epoch_info,
    "getBlockTime": get_block_time,
    "getHealth": get_health,
    "getVersion": get_version,
}
