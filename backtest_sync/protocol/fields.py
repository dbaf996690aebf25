"""Normalisers of what a caller passes: each gives the stored form, or ``InvalidParamsError``.

An error names the field, the value and what is due. base58 is used here and nowhere else.
"""

from __future__ import annotations

import base64
import binascii
import operator
import re
from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol, SupportsIndex

import base58

from backtest_sync.errors import InvalidParamsError

if TYPE_CHECKING:
    from typing import SupportsBytes, TypeAlias

    from backtest_sync.protocol.accounts import AccountData, AccountModifications, EncodedBinary

    #: An address: base58 text, 32 bytes, or anything whose ``str()`` is base58.
    AddressLike: TypeAlias = "str | bytes | SupportsStr"
    #: A transaction: base64 text, bytes, or anything with ``__bytes__``.
    TransactionLike: TypeAlias = "str | bytes | SupportsBytes"
    #: Account data: bytes, base64 text, an ``EncodedBinary``, or anything with ``__bytes__``.
    BinaryLike: TypeAlias = "str | bytes | EncodedBinary | SupportsBytes"
    #: A map of address to account.
    ModificationsLike: TypeAlias = "Mapping[Any, AccountData]"


class WireEnum(str, Enum):
    """Names of the protocol, each equal to its wire spelling, and so with its hash (which is faster, too)."""

    __hash__ = str.__hash__


U8_MAX = 2**8 - 1
U16_MAX = 2**16 - 1
U32_MAX = 2**32 - 1
U64_MAX = 2**64 - 1

_BASE58 = re.compile("[1-9A-HJ-NP-Za-km-z]{32,44}")
_SHOWN = 80


class SupportsStr(Protocol):
    """Anything whose text is base58, such as a ``Pubkey`` of solders."""

    def __str__(self) -> str: ...


def shown(value: object) -> str:
    """``value`` as an error message shows it: its repr, cut where it is long."""
    if isinstance(value, (str, bytes, bytearray)) and len(value) > _SHOWN:
        return f"{value[:_SHOWN]!r}… ({len(value)} long)"
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - an integer of thousands of digits, or whatever an object does
        return f"<{type(value).__name__}>"
    return text if len(text) <= 2 * _SHOWN else f"{text[: 2 * _SHOWN]}…"


def to_uint(value: object, field: str, maximum: int, minimum: int = 0) -> int:
    """An integer from ``minimum`` to ``maximum``; a bool or a float is none."""
    if type(value) is int:  # what nearly all callers pass, at no cost
        number = value
    else:
        if isinstance(value, bool) or not isinstance(value, SupportsIndex):
            raise InvalidParamsError(f"{field}: expected an integer, got {shown(value)}")
        try:
            number = operator.index(value)
        except Exception as error:
            raise InvalidParamsError(f"{field}: expected an integer, got {shown(value)}") from error
    if not minimum <= number <= maximum:
        raise InvalidParamsError(f"{field}: expected {minimum} to {maximum}, got {shown(number)}")
    return number


def to_u64(value: object, field: str) -> int:
    """An unsigned 64-bit integer: slots, lamports, sequences, amounts."""
    return to_uint(value, field, U64_MAX)


def to_bool(value: object, field: str) -> bool:
    """``True`` or ``False``, nothing that merely behaves like one."""
    if not isinstance(value, bool):
        raise InvalidParamsError(f"{field}: expected True or False, got {shown(value)}")
    return value


def to_text(value: object, field: str) -> str:
    """A ``str`` that UTF-8 can carry."""
    if not isinstance(value, str):
        raise InvalidParamsError(f"{field}: expected text, got {shown(value)}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InvalidParamsError(
                f"{field}: {shown(value)} holds a lone surrogate, which JSON text cannot carry"
            ) from error
    return str.__str__(value)  # of a str enum, the spelling; of any other subclass, the text


def b58encode(data: bytes) -> str:
    """base58 of ``data``."""
    return base58.b58encode(data).decode("ascii")


def b58decode(text: str) -> bytes:
    """The bytes of base58 ``text``; ``ValueError`` where it is none."""
    # the library ignores white space at the end
    if text != text.rstrip():
        raise ValueError(f"white space after base58 text {shown(text)}")
    return base58.b58decode(text)


def address_bytes(text: str) -> bytes:
    """The 32 bytes of a base58 address; ``ValueError`` where it is none."""
    if not _BASE58.fullmatch(text):
        raise ValueError(f"{shown(text)} is not a base58 address")
    data = base58.b58decode(text)
    if len(data) != 32:
        raise ValueError(f"{shown(text)} holds {len(data)} bytes where an address has 32")
    return data


def to_address(value: object, field: str) -> str:
    """A base58 address of 32 bytes, from base58 text, the bytes, or a ``Pubkey``."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        data = bytes(value)
        if len(data) != 32:
            raise InvalidParamsError(f"{field}: an address has 32 bytes, got {len(data)}")
        return b58encode(data)
    try:
        text = str.__str__(value) if isinstance(value, str) else str(value)
        address_bytes(text)
    except Exception as error:
        raise InvalidParamsError(f"{field}: {error}; expected 32 bytes in base58") from error
    return text


def b64encode(data: bytes) -> str:
    """Standard base64 of ``data``, padded."""
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def b64decode(text: str) -> bytes:
    """The bytes of standard, padded base64; ``ValueError`` where it is none."""
    data = base64.b64decode(text, validate=True)
    # Python drops bits at the end that make no byte; the service refuses the text
    if text.endswith("=") and b64encode(data[len(data) // 3 * 3 :]) != text[-4:]:
        raise ValueError("bits are left over at its end")
    return data


def to_bytes(value: object, field: str) -> bytes:
    """Bytes, from bytes, base64 text, an ``EncodedBinary`` or anything with ``__bytes__``."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, str):
        try:
            return b64decode(value)
        except ValueError as error:
            raise InvalidParamsError(
                f"{field}: {shown(value)} is not valid base64: {error}"
            ) from error
    if hasattr(value, "__bytes__"):
        try:
            return bytes(value)
        except Exception as error:
            raise InvalidParamsError(f"{field}: {shown(value)} gives no bytes: {error}") from error
    raise InvalidParamsError(
        f"{field}: expected bytes, base64 text or an object with __bytes__, got {shown(value)}"
    )


def to_base64(value: object, field: str) -> str:
    """base64 text of what :func:`to_bytes` takes; text is checked and kept."""
    if isinstance(value, str):
        to_bytes(value, field)
        return str.__str__(value)
    return b64encode(to_bytes(value, field))


def to_transaction(value: object, field: str) -> str:
    """base64 of a transaction, from base64 text, bytes or anything with ``__bytes__``."""
    text = to_base64(value, field)
    if not text:
        raise InvalidParamsError(f"{field}: a transaction can't be empty")
    return text


def to_modifications(value: object, field: str) -> AccountModifications:
    """Accounts by address (protocol/programs.md §2), from any mapping of them."""
    from backtest_sync.protocol.accounts import MODIFICATIONS

    accepted: AccountModifications = MODIFICATIONS.accept(value, field)
    return accepted
