"""Identifiers and names (protocol/control.md §3.2)."""

from __future__ import annotations

import os
import re

from backtest_sync.errors import InvalidParamsError
from backtest_sync.protocol.fields import shown, to_uint

_SESSION = "backtest_"
_CONTROL = "parallel_"
_HYPHENATED = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
#: The spellings of a UUID: simple, hyphenated, in braces, as a URN.
_UUID = re.compile(
    rf"[0-9a-f]{{32}}|{_HYPHENATED}|\{{{_HYPHENATED}\}}|urn:uuid:{_HYPHENATED}", re.IGNORECASE
)
_CANONICAL = re.compile("(?:backtest|parallel)_[0-9a-f]{32}")
_URN = re.compile("urn:uuid:")
_NAME = re.compile("[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?")
_MAX_NAME = 100


def _parse(text: str, prefix: str, what: str) -> str:
    if not isinstance(text, str):
        raise InvalidParamsError(f"invalid {what} {shown(text)}: expected text")
    if _CANONICAL.fullmatch(text) and text.startswith(prefix):
        return text
    bare = text[len(prefix) :] if text.startswith(prefix) else text
    # the URN's prefix is the one part that has no second spelling
    if not _UUID.fullmatch(bare) or (bare[:1] in "uU" and not _URN.match(bare)):
        raise InvalidParamsError(f"invalid {what} {shown(text)}: expected {prefix}<uuid> or a UUID")
    return prefix + re.sub("urn:uuid:|[-{}]", "", bare).lower()


def parse_session_id(text: str) -> str:
    """The canonical form of a session id: ``backtest_`` and 32 lower-case hex digits.

    The prefix is optional and any spelling of a UUID is understood; ``InvalidParamsError`` else.
    """
    return _parse(text, _SESSION, "session id")


def parse_control_session_id(text: str) -> str:
    """The canonical form of a control session id: ``parallel_`` and 32 lower-case hex digits."""
    return _parse(text, _CONTROL, "control session id")


def parse_session_name(text: str) -> str:
    """A session name in its canonical form: lower case."""
    if not isinstance(text, str):
        raise InvalidParamsError(f"invalid session name {shown(text)}: expected text")
    name = text.lower() if text.isascii() else ""
    if len(name) > _MAX_NAME or not _NAME.fullmatch(name):
        raise InvalidParamsError(
            f"invalid session name '{text}': use 1-100 letters, digits, '-', '_' or '.', "
            "starting and ending with a letter or digit"
        )
    return name


def _milliseconds(unix_ms: int) -> bytes:
    return to_uint(unix_ms, "unix_ms", 2**48 - 1).to_bytes(6, "big")


def _uuid(version: int, high: bytes) -> str:
    raw = bytearray(high + os.urandom(16 - len(high)))
    raw[6] = raw[6] & 0x0F | version << 4
    raw[8] = raw[8] & 0x3F | 0x80
    return raw.hex()


def new_session_id(unix_ms: int) -> str:
    """A fresh session id: ids made later sort later (a UUID of version 7)."""
    return _SESSION + _uuid(7, _milliseconds(unix_ms))


def new_control_session_id(unix_ms: int) -> str:
    """A fresh control session id."""
    return _CONTROL + _uuid(7, _milliseconds(unix_ms))


def new_create_token() -> str:
    """A fresh create token: 32 lower-case hex digits (a UUID of version 4)."""
    return _uuid(4, b"")
