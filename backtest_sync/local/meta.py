"""The recorded ``meta`` of a transaction: checked as it is read, so that nothing fails on it later."""

from __future__ import annotations

import re
from typing import Any

_BASE58 = re.compile(r"[1-9A-HJ-NP-Za-km-z]*").fullmatch
_DIGITS = re.compile(r"[0-9]{1,20}").fullmatch
_MAX_U64 = 2**64 - 1


def check_meta(meta: dict[str, Any], keys: int, *, at_least: bool = False) -> None:
    """ValueError or KeyError where what is read of a recorded ``meta`` is not of Solana's shape.

    ``keys``: how many the transaction has; ``at_least``: there may be more that are not known.
    """
    for name in ("preBalances", "postBalances"):
        balances = meta.get(name)
        if not isinstance(balances, list) or (
            len(balances) < keys if at_least else len(balances) != keys
        ):
            raise ValueError(f"meta.{name} is not a list of {keys} balances")
        for balance in balances:
            _number(balance, f"meta.{name}", _MAX_U64)
    for name in ("preTokenBalances", "postTokenBalances"):
        for entry in _list(meta.get(name), f"meta.{name}"):
            _check_token_balance(entry, f"meta.{name}")
    for group in _list(meta.get("innerInstructions"), "meta.innerInstructions"):
        _check_inner(group)
    for line in _list(meta.get("logMessages"), "meta.logMessages"):
        _text(line, "meta.logMessages")
    _number(meta.get("fee", 0), "meta.fee", _MAX_U64)
    if meta.get("computeUnitsConsumed") is not None:
        _number(meta["computeUnitsConsumed"], "meta.computeUnitsConsumed", _MAX_U64)
    err = meta.get("err")
    if not (err is None or isinstance(err, str) or (isinstance(err, dict) and len(err) == 1)):
        raise ValueError(f"meta.err is {err!r}, not a transaction's error")


def _check_token_balance(entry: dict[str, Any], name: str) -> None:
    _number(entry["accountIndex"], f"{name}.accountIndex")
    _text(entry["mint"], f"{name}.mint")
    amount = entry["uiTokenAmount"]
    if not (isinstance(amount["amount"], str) and _DIGITS(amount["amount"])):
        raise ValueError(f"{name}.amount is {amount['amount']!r}, not a number in a text")
    _number(amount["decimals"], f"{name}.decimals")
    shown = amount.get("uiAmount")
    if not (shown is None or type(shown) in (int, float)):
        raise ValueError(f"{name}.uiAmount is {shown!r}, not a number")
    for value in (amount.get("uiAmountString"), entry.get("owner"), entry.get("programId")):
        if value is not None:
            _text(value, name)


def _check_inner(group: dict[str, Any]) -> None:
    name = "meta.innerInstructions"
    _number(group["index"], f"{name}.index")
    for inner in _list(group["instructions"], name):
        _number(inner["programIdIndex"], f"{name}.programIdIndex")
        for account in _list(inner["accounts"], f"{name}.accounts"):
            _number(account, f"{name}.accounts")
        if not (isinstance(inner["data"], str) and _BASE58(inner["data"])):
            raise ValueError(f"{name}.data is {inner['data']!r:.40}, not base58")
        if inner.get("stackHeight") is not None:
            _number(inner["stackHeight"], f"{name}.stackHeight")


def _list(value: Any, name: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise ValueError(f"{name} is {value!r:.40}, not a list")
    return value


def _number(value: Any, name: str, most: int = 255) -> None:
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"{name}: {value!r:.40} is not a number up to {most}")


def _text(value: Any, name: str) -> None:
    if not isinstance(value, str):
        raise ValueError(f"{name}: {value!r:.40} is not a text")
