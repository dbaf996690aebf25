"""JSON text: ``orjson`` where it is installed (extra ``fast``), else ``json``, the same results.

Stricter than either alone: no NaN, no lone surrogates, no invalid UTF-8, nesting capped. An integer
outside 64 bits is read as a float, as orjson does, and so is refused where an integer is due.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

try:
    import orjson
except ImportError:  # the extra is not installed
    orjson = None  # type: ignore[assignment]

#: How deep a JSON text may nest. orjson alone would take 1,024, ``json`` what is left of the stack.
MAX_DEPTH = 512

_I64_MIN = -(2**63)
_U64_MAX = 2**64 - 1
_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is not JSON")


def _integer(text: str) -> int | float:
    number = int(text)
    return number if _I64_MIN <= number <= _U64_MAX else float(number)


def _number(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"number out of range: {text[:40]}")
    return number


class Marked(dict[str, Any]):
    """A JSON object that remembers which of its keys the text repeats."""

    __slots__ = ("repeated",)

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.repeated: frozenset[str] = frozenset()
        if len(self) != len(pairs):
            keys = [key for key, _ in pairs]
            self.repeated = frozenset(key for key in self if keys.count(key) > 1)


_PLAIN = json.JSONDecoder(parse_constant=_refuse_constant, parse_int=_integer, parse_float=_number)
_MARKING = json.JSONDecoder(
    parse_constant=_refuse_constant,
    parse_int=_integer,
    parse_float=_number,
    object_pairs_hook=Marked,
)


def _depth(text: str) -> int:
    depth = deepest = 0
    for match in _TOKENS.finditer(text):
        token = match[0]
        if token in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif token in "]}":
            depth -= 1
    return deepest


def _check_depth(text: str | bytes) -> None:
    """``ValueError`` where ``text`` nests too deep. Most texts are too short to, or have too few."""
    if isinstance(text, str):
        openings = text.count("[") + text.count("{")
    else:
        openings = text.count(b"[") + text.count(b"{")
    if openings <= MAX_DEPTH:
        return
    if not isinstance(text, str):
        text = text.decode("utf-8", "replace")
    if _depth(text) > MAX_DEPTH:
        raise ValueError(f"JSON nests deeper than {MAX_DEPTH} levels")


def _standard_loads(text: str | bytes, decoder: json.JSONDecoder = _PLAIN) -> Any:
    if len(text) > 2 * MAX_DEPTH:
        _check_depth(text)
    if not isinstance(text, str):
        text = str(text, "utf-8")
    elif not text.isascii():
        text.encode()  # UnicodeEncodeError is a ValueError
    try:
        value = decoder.decode(text)
    except RecursionError as error:
        raise ValueError("JSON nests too deep") from error
    if "\\u" in text and re.search(r"\\u[dD][89a-fA-F]", text):
        # json takes a lone surrogate and makes text of it that can't be encoded
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _standard_dumps(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    if not text.isascii():
        text.encode()
    return text


def _fast_loads(text: str | bytes) -> Any:
    if len(text) > 2 * MAX_DEPTH:
        _check_depth(text)
    return orjson.loads(text)


def _fast_dumps(value: Any) -> str:
    try:
        text = orjson.dumps(value)
    except TypeError:
        # an integer beyond 64 bits, a key that is no text: json knows them or words the error
        return _standard_dumps(value)
    if b"null" in text and _holds_nan(value):
        raise ValueError("Out of range float values are not JSON compliant")
    return text.decode()


def _holds_nan(value: Any) -> bool:
    """Whether a float that JSON lacks is in there: orjson writes it as null."""
    if isinstance(value, float):
        return value != value or value in (float("inf"), float("-inf"))
    if isinstance(value, dict):
        return any(map(_holds_nan, value.values()))
    return isinstance(value, (list, tuple)) and any(map(_holds_nan, value))


def loads_marking(text: str | bytes) -> Any:
    """:func:`loads` that gives each object as a :class:`Marked`; slower, for what looks odd."""
    return _standard_loads(text, _MARKING)


#: The value of a JSON text (UTF-8 where it is bytes). ``ValueError`` where it is none.
loads: Callable[[str | bytes], Any] = _standard_loads if orjson is None else _fast_loads
#: Compact JSON text of a value. ``ValueError`` or ``TypeError`` where JSON has no form for it.
dumps: Callable[[Any], str] = _standard_dumps if orjson is None else _fast_dumps
