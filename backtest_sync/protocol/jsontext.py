"""JSON text: ``orjson`` where it is installed (extra ``fast``), else ``json``, the same results.

Stricter than either alone: no NaN, no lone surrogates, no invalid UTF-8, nesting capped. An integer
outside 64 bits is read as a float, as orjson does, and so is refused where an integer is due.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from backtest_sync.protocol.fields import shown

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

try:
    import orjson
except ImportError:  # the extra is not installed
    orjson = None  # type: ignore[assignment]

#: How deep a JSON text may nest. orjson alone would take 1,024, ``json`` what is left of the stack.
MAX_DEPTH = 512
#: A text of no more characters can't nest too deep, since what opens must close.
SHORT = 2 * MAX_DEPTH

_I64_MIN = -(2**63)
_U64_MAX = 2**64 - 1
_U64_DIGITS = 20
_BLANK = " \t\n\r"
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is not JSON")


def _number(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"number out of range: {text[:40]}")
    return number


def _integer(text: str) -> int | float:
    if len(text) > _U64_DIGITS:
        return _number(text)
    number = int(text)
    return number if _I64_MIN <= number <= _U64_MAX else float(number)


class Marked(dict[str, Any]):
    """A JSON object that remembers which of its keys the text repeats."""

    __slots__ = ("repeated",)

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.repeated: frozenset[str] = frozenset()
        if len(self) != len(pairs):
            keys = [key for key, _ in pairs]
            self.repeated = frozenset(key for key in self if keys.count(key) > 1)


_HOOKS: dict[str, Any] = {
    "parse_constant": _refuse_constant,
    "parse_int": _integer,
    "parse_float": _number,
}
# The scanners themselves: decode() spends more on white space than they on a short message.
_Scan: TypeAlias = "Callable[[str, int], tuple[Any, int]]"
_scan: _Scan = json.JSONDecoder(**_HOOKS).scan_once  # type: ignore[attr-defined]
_scan_marking: _Scan = json.JSONDecoder(  # type: ignore[attr-defined]
    **_HOOKS, object_pairs_hook=Marked
).scan_once


def _depth(text: bytes) -> int:
    depth = deepest = 0
    for match in _TOKENS.finditer(text):
        bracket = match[0]
        if bracket in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif bracket in b"]}":
            depth -= 1
    return deepest


def check_depth(text: str | bytes) -> None:
    """``ValueError`` where ``text`` nests too deep; nearly all are too short, or have too few brackets."""
    if len(text) <= SHORT:
        return
    raw = text.encode("utf-8", "replace") if isinstance(text, str) else text
    if raw.count(b"[") + raw.count(b"{") <= MAX_DEPTH:
        return
    if _depth(raw) > MAX_DEPTH:
        raise ValueError(f"JSON nests deeper than {MAX_DEPTH} levels")


def _parse(text: str | bytes, scan: _Scan = _scan) -> Any:
    if not isinstance(text, str):
        text = str(text, "utf-8")
    elif not text.isascii():
        text.encode()  # UnicodeEncodeError is a ValueError
    text = text.strip(_BLANK)
    try:
        value, end = scan(text, 0)
    except StopIteration as stop:
        raise ValueError(f"expected a JSON value at character {stop.value}") from None
    except RecursionError:
        raise ValueError("JSON nests too deep") from None
    if end != len(text):
        raise ValueError(f"more text after the JSON value, at character {end}")
    if "\\u" in text and _SURROGATE.search(text):
        # json takes a lone surrogate and makes text of it that can't be encoded
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _standard_dumps(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    if not text.isascii():
        text.encode()
    return text


def _fast_dumps(value: Any) -> str:
    try:
        text = orjson.dumps(value)
    except TypeError:
        # an integer beyond 64 bits, a key that is no text: json knows them or words the error
        return _standard_dumps(value)
    if b"null" in text and _holds_nan(value):
        raise ValueError("Out of range float values are not JSON compliant")
    return text.decode()


def _fast_dumps_finite(value: Any) -> str:
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        return _standard_dumps(value)


def _holds_nan(value: Any) -> bool:
    """Whether a float that JSON lacks is in there: orjson writes it as null."""
    if isinstance(value, float):
        return value != value or value in (float("inf"), float("-inf"))
    if isinstance(value, dict):
        return any(map(_holds_nan, value.values()))
    return isinstance(value, (list, tuple)) and any(map(_holds_nan, value))


#: :func:`loads` that leaves :func:`check_depth` to its caller.
parse: Callable[[str | bytes], Any] = _parse if orjson is None else orjson.loads


def loads(text: str | bytes) -> Any:
    """The value of a JSON text (UTF-8 where it is bytes); ``ValueError`` where it is none."""
    check_depth(text)
    return parse(text)


def loads_marking(text: str | bytes) -> Any:
    """:func:`loads` that gives each object as a :class:`Marked`; slower, for what looks odd."""
    check_depth(text)
    return _parse(text, _scan_marking)


#: Compact JSON text of a value. ``ValueError`` or ``TypeError`` where JSON has no form for it.
dumps: Callable[[Any], str] = _standard_dumps if orjson is None else _fast_dumps
#: :func:`dumps` of a value that is known to hold finite numbers alone: no search for others.
dumps_finite: Callable[[Any], str] = _standard_dumps if orjson is None else _fast_dumps_finite


def json_shown(value: Any) -> str:
    """``value`` as an error's raw text: JSON, or what Python calls it where it is none."""
    try:
        return dumps(value)
    except (TypeError, ValueError, RecursionError):
        return shown(value)
