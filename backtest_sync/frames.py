"""WebSocket messages out of bytes that arrive in any pieces (RFC 6455, the receiving side of a client).

Pure: no socket, no clock, no thread. What a stream means does not depend on where it is cut::

    decoder = FrameDecoder()
    messages, controls = decoder.feed(chunk)
"""

from __future__ import annotations

import struct

from attrs import frozen

#: The longest message that a decoder accepts, and so the longest frame, in bytes.
MAX_MESSAGE_BYTES = 64 * 1024 * 1024

# the first byte of a frame: 0x80 ends a message, 0x70 are reserved bits, 0x0F is the opcode
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_FINAL = 0x80
_RESERVED = 0x70
_OPCODES = frozenset((CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG))
_WHOLE_TEXT = _FINAL | TEXT
_WHOLE_BINARY = _FINAL | BINARY
_CONTROL = 0x08
_SIZE = struct.Struct(">H")  # in its longer form

#: The longest reason that fits a close frame, in bytes.
MAX_REASON_BYTES = 123

PROTOCOL_ERROR, INVALID_DATA, TOO_BIG = 1002, 1007, 1009


class Binary(bytes):
    """The payload of a binary message; that of a text message is plain ``bytes``."""

    __slots__ = ()


@frozen
class Ping:
    """A ping, to be answered by a pong with the same payload."""

    payload: bytes


@frozen
class Pong:
    """A pong."""

    payload: bytes


@frozen
class Close:
    """The peer's close frame; ``code`` is ``None`` where it has no payload."""

    code: int | None
    reason: str


@frozen
class Violation:
    """The peer broke the protocol: the connection ends with close code ``code``."""

    code: int
    reason: str


Control = Ping | Pong | Close | Violation


class _ViolationError(Exception):
    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.violation = Violation(code, reason)


def is_close_code(code: int) -> bool:
    """Whether a close frame may carry ``code`` (RFC 6455 §7.4 and the IANA registry)."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


class FrameDecoder:
    """Reads a server's frames, many at a time or byte by byte.

    A `Close` or a `Violation` is the last thing that comes out; all that arrives after it is ignored.
    """

    __slots__ = ("_body", "_head", "_limit", "_message", "_missing", "_opcode", "_over", "_rest")

    def __init__(self, max_message_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._limit = max_message_bytes
        self._over = False
        # a frame's head of which bytes are missing
        self._rest = b""
        # a frame's payload of which `_missing` bytes are missing, and its first byte
        self._body = bytearray()
        self._missing = 0
        self._head = 0
        # a message of which fragments are missing, and its opcode (0: there is none)
        self._message = bytearray()
        self._opcode = 0

    @property
    def idle(self) -> bool:
        """Whether it is between two messages, with nothing kept of what it was fed."""
        return not (self._missing or self._rest or self._opcode or self._over)

    def peek(self, data: bytes) -> tuple[list[bytes], bytes] | None:
        """The messages in ``data`` and the beginning of the next, where `feed` would give these while `idle`.

        Nothing changes. ``None`` where there is anything but short messages of one frame each.
        """
        messages: list[bytes] = []
        try:
            end = _take_whole(data, 0, self._limit, messages)
        except _ViolationError:  # for `feed` to tell
            return None
        rest = data[end:]
        return None if rest and not _is_begun(rest, self._limit) else (messages, rest)

    def give_back(self) -> bytes:
        """What it was fed of a short message of one frame, if that is all that it keeps; then it is `idle`."""
        if self._opcode or self._over:
            return b""
        begun = self._rest
        if self._missing:
            size = len(self._body) + self._missing
            if size >= 1 << 16:
                return b""
            long = size >= 126
            begun = (
                bytes((self._head, 126)) + size.to_bytes(2, "big")
                if long
                else bytes((self._head, size))
            )
            begun += self._body
        if not begun or not _is_begun(begun, self._limit):
            return b""
        self._rest, self._body, self._missing = b"", bytearray(), 0
        return begun

    def feed(self, chunk: bytes) -> tuple[list[bytes], list[Control]]:
        """The messages that ``chunk`` completes, and the control frames in it, each in order.

        A text message is ``bytes`` (valid UTF-8), a binary one `Binary`. A `Close` or `Violation` comes
        last among the control frames, behind every message that is given with it.
        """
        messages: list[bytes] = []
        controls: list[Control] = []
        if not self._over:
            try:
                self._read(chunk, messages, controls)
            except _ViolationError as error:
                self._over = True
                controls.append(error.violation)
        return messages, controls

    def _read(self, chunk: bytes, messages: list[bytes], controls: list[Control]) -> None:
        start = 0
        if self._missing:
            start = min(self._missing, len(chunk))
            self._body += chunk if start == len(chunk) else chunk[:start]
            self._missing -= start
            if self._missing:
                return
            payload, self._body = bytes(self._body), bytearray()
            self._finish(self._head, payload, messages, controls)
            if self._over:
                return
        elif self._rest:
            chunk, self._rest = self._rest + chunk, b""
        end = len(chunk)
        while True:
            if not self._opcode:
                start = _take_whole(chunk, start, self._limit, messages)
            if end - start < 2:
                break
            head, size = chunk[start], chunk[start + 1]
            self._check(head, size)
            body = start + (2 if size < 126 else 4 if size == 126 else 10)
            if body > end:
                break
            if size >= 126:
                size = _long_size(chunk[start + 2 : body])
            self._check_size(head, size)
            start = body + size
            if start > end:
                self._head = head
                self._missing = start - end
                self._body += chunk[body:]
                return
            self._finish(head, chunk[body:start], messages, controls)
            if self._over:
                return
        self._rest = chunk[start:]

    def _check(self, head: int, size: int) -> None:
        """Refuse what a frame's first two bytes already show to be wrong."""
        opcode = head & 0x0F
        if head & _RESERVED:
            raise _ViolationError(PROTOCOL_ERROR, f"reserved bits are set (first byte {head:#04x})")
        if opcode not in _OPCODES:
            raise _ViolationError(PROTOCOL_ERROR, f"unknown opcode {opcode:#x}")
        if size & 0x80:
            raise _ViolationError(PROTOCOL_ERROR, "a server's frame is masked")
        if opcode & _CONTROL:
            if not head & _FINAL:
                raise _ViolationError(PROTOCOL_ERROR, "a control frame is fragmented")
            if size > 125:
                raise _ViolationError(PROTOCOL_ERROR, "a control frame is longer than 125 bytes")

    def _check_size(self, head: int, size: int) -> None:
        """Refuse a frame that has no place here, or no room, before its payload is read."""
        opcode = head & 0x0F
        if opcode & _CONTROL:
            return
        if opcode == CONTINUATION:
            if not self._opcode:
                raise _ViolationError(PROTOCOL_ERROR, "a continuation frame continues nothing")
            size += len(self._message)
        elif self._opcode:
            raise _ViolationError(PROTOCOL_ERROR, "a message begins inside another")
        if size > self._limit:
            raise self._too_big(size)

    def _too_big(self, size: int) -> _ViolationError:
        return _ViolationError(
            TOO_BIG, f"a message of {size} bytes or more; the limit is {self._limit}"
        )

    def _finish(
        self, head: int, payload: bytes, messages: list[bytes], controls: list[Control]
    ) -> None:
        """Act on a frame that is complete and in its place."""
        opcode = head & 0x0F
        if opcode & _CONTROL:
            if opcode == PING:
                controls.append(Ping(payload))
            elif opcode == PONG:
                controls.append(Pong(payload))
            else:
                close = _parse_close(payload)
                self._over = True
                controls.append(close)
            return
        if opcode != CONTINUATION:
            self._opcode = opcode
        if head & _FINAL:
            if self._message:
                self._message += payload
                payload, self._message = bytes(self._message), bytearray()
            opcode, self._opcode = self._opcode, 0
            if opcode == BINARY:
                payload = Binary(payload)
            else:
                _check_text(payload)
            messages.append(payload)
        else:
            self._message += payload


def _take_whole(chunk: bytes, start: int, limit: int, messages: list[bytes]) -> int:
    """Take short messages of one frame each, which nearly all are; gives where something else begins."""
    if limit < 1 << 16:
        return start  # each size would have to be looked at, as it is in general
    end = len(chunk)
    last, add = end - 3, messages.append
    while start < last:
        head = chunk[start]
        if head != _WHOLE_TEXT and head != _WHOLE_BINARY:
            break
        size = chunk[start + 1]
        body = start + 2
        if size >= 126:
            if size != 126:
                break
            (size,) = _SIZE.unpack_from(chunk, body)
            if size < 126:
                break
            body = start + 4
        after = body + size
        if after > end:
            break
        payload = chunk[body:after]
        if head == _WHOLE_BINARY:
            payload = Binary(payload)
        elif not payload.isascii():
            _check_text(payload)
        add(payload)
        start = after
    return start


def _is_begun(rest: bytes, limit: int) -> bool:
    """Whether ``rest`` is the beginning of a short message of one frame, but not the whole of it."""
    if rest[0] != _WHOLE_TEXT and rest[0] != _WHOLE_BINARY:
        return False
    if len(rest) < 2:
        return True
    size = rest[1]
    if size == 126:
        return len(rest) < 4 or max(126, len(rest) - 3) <= (rest[2] << 8 | rest[3]) <= limit
    return len(rest) - 2 < size < 126 and size <= limit


def _long_size(encoded: bytes) -> int:
    size = int.from_bytes(encoded, "big")
    if len(encoded) == 2:
        if size < 126:
            raise _ViolationError(PROTOCOL_ERROR, f"a length of {size} in three bytes, not one")
    elif size < 65536:
        raise _ViolationError(PROTOCOL_ERROR, f"a length of {size} in nine bytes, not fewer")
    elif size >> 63:
        raise _ViolationError(PROTOCOL_ERROR, "a length with its highest bit set")
    return size


def _check_text(payload: bytes) -> None:
    if not payload.isascii():
        try:
            payload.decode()
        except UnicodeDecodeError as error:
            raise _ViolationError(
                INVALID_DATA, f"a text message is not UTF-8 at byte {error.start}"
            ) from None


def _parse_close(payload: bytes) -> Close:
    if not payload:
        return Close(None, "")
    if len(payload) == 1:
        raise _ViolationError(PROTOCOL_ERROR, "a close frame with half a code")
    code = int.from_bytes(payload[:2], "big")
    if not is_close_code(code):
        raise _ViolationError(PROTOCOL_ERROR, f"a close frame with the reserved code {code}")
    try:
        return Close(code, payload[2:].decode())
    except UnicodeDecodeError:
        raise _ViolationError(INVALID_DATA, "the reason of a close frame is not UTF-8") from None
