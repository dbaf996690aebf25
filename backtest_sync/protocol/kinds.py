"""The kinds of field that the protocol's values are made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from functools import partial
from typing import Any, TypeVar

from backtest_sync.errors import InvalidParamsError
from backtest_sync.protocol import blobs, jsontext
from backtest_sync.protocol.fields import (
    U8_MAX,
    U16_MAX,
    U32_MAX,
    U64_MAX,
    address_bytes,
    b64decode,
    b64encode,
    shown,
    to_address,
    to_base64,
    to_bool,
    to_text,
    to_transaction,
    to_uint,
)
from backtest_sync.protocol.ids import (
    parse_control_session_id,
    parse_session_id,
    parse_session_name,
)
from backtest_sync.protocol.shape import Kind, Mismatch, described

K = TypeVar("K")
V = TypeVar("V")
E = TypeVar("E", bound=Enum)


class FrozenMap(Mapping[K, V]):
    """An immutable mapping: equal to any mapping of the same items, hashable where they are."""

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[K, V] | Iterable[tuple[K, V]] = ()) -> None:
        self._items: dict[K, V] = dict(items)

    def __getitem__(self, key: K) -> V:
        return self._items[key]

    def __iter__(self) -> Iterator[K]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __eq__(self, other: object) -> bool:
        return self._items == dict(other) if isinstance(other, Mapping) else NotImplemented

    def __hash__(self) -> int:
        return hash(frozenset(self._items.items()))

    def __repr__(self) -> str:
        return repr(self._items)


# --- numbers


def integer(maximum: int, minimum: int = 0) -> Kind:
    """A whole number in a range. A bool, or a float however whole, is none."""
    due = f"an integer from {minimum} to {maximum}"

    def read(json: Any) -> int:
        if type(json) is int and minimum <= json <= maximum:
            return json
        raise Mismatch(f"expected {due}, got {described(json)}")

    return Kind(partial(to_uint, maximum=maximum, minimum=minimum), read)


U8 = integer(U8_MAX)
U16 = integer(U16_MAX)
U32 = integer(U32_MAX)
U64 = integer(U64_MAX)
I64 = integer(2**63 - 1, -(2**63))


def _accept_float(value: Any, field: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidParamsError(f"{field}: expected a number, got {shown(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise InvalidParamsError(f"{field}: expected a finite number, got {shown(value)}")
    return number


def _read_float(json: Any) -> float:
    if isinstance(json, bool) or not isinstance(json, (int, float)):
        raise Mismatch(f"expected a number, got {described(json)}")
    return float(json)


F64 = Kind(_accept_float, _read_float)


# --- the other JSON scalars


def _read_bool(json: Any) -> bool:
    if isinstance(json, bool):
        return json
    raise Mismatch(f"expected true or false, got {described(json)}")


def _read_text(json: Any) -> str:
    if isinstance(json, str):
        return json
    raise Mismatch(f"expected a string, got {described(json)}")


def _accept_json(value: Any, field: str) -> Any:
    try:
        jsontext.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidParamsError(f"{field}: {shown(value)} is no JSON value: {error}") from error
    return value


BOOL = Kind(to_bool, _read_bool)
TEXT = Kind(to_text, _read_text)
#: Any JSON value, as it is.
JSON = Kind(_accept_json, lambda json: json)


def text_of(accept: Callable[[Any, str], str], parse: Callable[[str], object]) -> Kind:
    """Text with a rule: ``parse`` raises ``ValueError`` for what breaks it."""

    def read(json: Any) -> str:
        text = _read_text(json)
        try:
            parse(text)
        except ValueError as error:
            raise Mismatch(str(error)) from error
        return text

    return Kind(accept, read)


def canonical(parse: Callable[[str], str]) -> Kind:
    """Text that is stored in the canonical form that ``parse`` gives it."""

    def accept(value: Any, field: str) -> str:
        return parse(to_text(value, field))

    def read(json: Any) -> str:
        try:
            return parse(_read_text(json))
        except InvalidParamsError as error:
            raise Mismatch(str(error)) from error

    return Kind(accept, read)


ADDRESS = text_of(to_address, address_bytes)
SESSION_ID = canonical(parse_session_id)
CONTROL_SESSION_ID = canonical(parse_control_session_id)
SESSION_NAME = canonical(parse_session_name)
#: base64 of a transaction. Checked where a caller passes it; what is read is kept as it came.
TRANSACTION = Kind(to_transaction, _read_text)
#: base64 of bytes, checked both ways.
BASE64 = text_of(to_base64, b64decode)


# --- names


def choice(enum: type[E]) -> Kind:
    """One of the spellings of a ``str`` enum."""
    spellings: dict[Any, Any] = {member.value: member for member in enum}
    due = ", ".join(spellings)

    def accept(value: Any, field: str) -> E:
        if isinstance(value, str) and value in spellings:
            member: E = spellings[value]
            return member
        raise InvalidParamsError(f"{field}: expected one of {due}, got {shown(value)}")

    def read(json: Any) -> E:
        name = spelling(json)
        if name in spellings:
            member: E = spellings[name]
            return member
        raise Mismatch(f"unknown name {described(name)}, expected one of {due}")

    return Kind(accept, read, _spelled)


def open_choice(enum: type[E]) -> Kind:
    """The same, to which a newer server may add: its names stay the text they are."""
    spellings: dict[Any, Any] = {member.value: member for member in enum}

    def accept(value: Any, field: str) -> E | str:
        text = to_text(value, field)
        found: E | str = spellings.get(text, text)
        return found

    def read(json: Any) -> E | str:
        name = spelling(json)
        found: E | str = spellings.get(name, name)
        return found

    return Kind(accept, read, _spelled)


def spelling(json: Any) -> str:
    """The name that stands for a unit variant: bare, or as the one key of an object with null."""
    if isinstance(json, dict) and len(json) == 1:
        ((name, payload),) = json.items()
        if payload is None:
            return str(name)
    return _read_text(json)


def _spelled(value: str) -> str:
    return str(value.value) if isinstance(value, Enum) else value


def _accept_encoding(value: Any, field: str) -> str:
    if value != "base64":
        raise InvalidParamsError(f"{field}: the protocol knows base64 alone, got {shown(value)}")
    return "base64"


def _read_encoding(json: Any) -> str:
    if spelling(json) != "base64":
        raise Mismatch(f"unknown encoding {described(json)}, expected base64")
    return "base64"


#: How bytes are written: there is one way.
ENCODING = Kind(_accept_encoding, _read_encoding)


# --- containers


def optional(kind: Kind) -> Kind:
    """``None`` (null), or a value of ``kind``."""
    accept, read, write = kind.accept, kind.read, kind.write
    return Kind(
        lambda value, field: None if value is None else accept(value, field),
        lambda json: None if json is None else read(json),
        None if write is None else lambda value: None if value is None else write(value),
    )


def list_of(kind: Kind) -> Kind:
    """A list; stored as a tuple."""
    accept_item, read_item, write_item = kind.accept, kind.read, kind.write

    def accept(value: Any, field: str) -> tuple[Any, ...]:
        if type(value) is tuple and not value:
            return value
        if isinstance(value, (str, bytes, bytearray, Mapping)) or not isinstance(value, Iterable):
            raise InvalidParamsError(f"{field}: expected a list, got {shown(value)}")
        return tuple(accept_item(item, f"{field}[{i}]") for i, item in enumerate(value))

    def read(json: Any) -> tuple[Any, ...]:
        if not isinstance(json, list):
            raise Mismatch(f"expected a list, got {described(json)}")
        items: list[Any] = []
        try:
            items.extend(map(read_item, json))  # keeps those before one that is refused
        except Mismatch as error:
            raise error.under(f"[{len(items)}]") from None
        return tuple(items)

    if write_item is None:
        return Kind(accept, read, list)
    return Kind(accept, read, lambda value: [write_item(item) for item in value])


def map_of(kind: Kind, key: Kind = TEXT) -> Kind:
    """An object whose keys are not fixed; stored as a ``FrozenMap``."""

    def accept(value: Any, field: str) -> FrozenMap[Any, Any]:
        if not isinstance(value, Mapping):
            raise InvalidParamsError(f"{field}: expected a mapping, got {shown(value)}")
        return FrozenMap(
            (key.accept(k, f"{field} key"), kind.accept(v, f"{field}[{k!r}]"))
            for k, v in value.items()
        )

    def read(json: Any) -> FrozenMap[Any, Any]:
        if not isinstance(json, dict):
            raise Mismatch(f"expected an object, got {described(json)}")
        items = {}
        for name, item in json.items():
            try:
                items[key.read(name)] = kind.read(item)
            except Mismatch as error:
                raise error.under(f"[{name!r}]") from None
        return FrozenMap(items)

    write = kind.write
    if write is None:
        return Kind(accept, read, dict)
    return Kind(accept, read, lambda value: {k: write(v) for k, v in value.items()})


def _sort_addresses(addresses: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(dict.fromkeys(addresses), key=address_bytes))


_ADDRESSES = list_of(ADDRESS)
#: A set of addresses, in the order of their bytes (protocol/control.md §4.8).
ADDRESS_SET = Kind(
    lambda value, field: _sort_addresses(_ADDRESSES.accept(value, field)),
    lambda json: _sort_addresses(_ADDRESSES.read(json)),
    list,
)


def blob(kind: Kind) -> Kind:
    """JSON of ``kind``, compressed with zstd, in base64 (protocol/reroute.md §1)."""
    write_inner = kind.write

    def read(json: Any) -> Any:
        text = _read_text(json)
        try:
            inner = jsontext.loads_marking(blobs.decompress(b64decode(text)))
        except ValueError as error:
            raise Mismatch(f"bad blob: {error}") from error
        return kind.read(inner)

    def write(value: Any) -> str:
        inner = value if write_inner is None else write_inner(value)
        return b64encode(blobs.compress(jsontext.dumps(inner).encode()))

    return Kind(kind.accept, read, write)
