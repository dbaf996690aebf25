"""Filters of accounts: ``memcmp``, ``dataSize``, ``tokenAccountState`` of getProgramAccounts."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from backtest_sync.local.endpoint.jsonrpc import invalid, unsigned
from backtest_sync.local.endpoint.parsed import token_kind
from backtest_sync.protocol.fields import b58decode

if TYPE_CHECKING:
    from solders.account import Account

#: A node takes no more filters in a call.
MAX_FILTERS = 4
#: Nor longer bytes to compare.
MAX_COMPARED = 128

Filter = Callable[["Account"], bool]


def read_filters(config: dict[str, Any]) -> list[Filter]:
    """The filters of a call's options; an account must pass all of them."""
    found = config.get("filters")
    if found is None:
        return []
    if not isinstance(found, list):
        raise invalid("Invalid params: filters: expected a sequence.")
    if len(found) > MAX_FILTERS:
        raise invalid(f"Too many filters provided; max {MAX_FILTERS}")
    return [_read(value) for value in found]


def _read(value: object) -> Filter:
    if value == "tokenAccountState":
        return lambda account: token_kind(account) == "account"
    if isinstance(value, dict) and len(value) == 1:
        if "dataSize" in value:
            size = unsigned(value["dataSize"])
            return lambda account: len(account.data) == size
        if isinstance(value.get("memcmp"), dict):
            return _memcmp(value["memcmp"])
    raise invalid(
        "Invalid params: a filter is one of `memcmp`, `dataSize`, `tokenAccountState`, "
        f"not {str(value)[:80]}."
    )


def _memcmp(value: dict[str, Any]) -> Filter:
    offset = unsigned(value.get("offset"), "an offset")
    wanted = _compared(value.get("bytes"), value.get("encoding") or "base58")
    if len(wanted) > MAX_COMPARED:
        raise invalid(f"Invalid param: {len(wanted)} bytes to compare; max {MAX_COMPARED}")
    end = offset + len(wanted)
    return lambda account: account.data[offset:end] == wanted


def _compared(value: object, encoding: object) -> bytes:
    """The bytes to compare: base58 or base64 text, or a list of numbers."""
    try:
        if isinstance(value, list):
            return bytes(value)
        if isinstance(value, str) and encoding == "base58":
            return b58decode(value)
        if isinstance(value, str) and encoding == "base64":
            return base64.b64decode(value, validate=True)
    except (ValueError, TypeError, binascii.Error) as error:
        raise invalid(f"Invalid param: bytes to compare: {error}") from None
    raise invalid("Invalid param: bytes to compare: expected base58 or base64 text, or a list")
