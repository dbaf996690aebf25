"""Streams of WebSocket frames at random, and what two independent parsers make of them.

The outcome of a stream is the messages (``("text" | "binary", payload)``), the control frames
(``("ping" | "pong" | "close", …)``) and the close code that a violation deserves, or ``None``.
"""

from __future__ import annotations

import struct
from random import Random
from typing import Any

import websocket
from websocket._abnf import continuous_frame, frame_buffer
from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.frames import Close as PeerClose, Opcode
from websockets.protocol import CLIENT, OPEN, Protocol

from backtest_sync.frames import Binary, Close, FrameDecoder, Ping, Pong, Violation
from tests.support.scripted import BINARY, CLOSE, PING, PONG, TEXT, frame

CONT = 0
Outcome = tuple[list[Any], list[Any], "int | None"]


# --- streams


def _payload(rng: Random, opcode: int) -> bytes:
    kind = rng.randrange(8)
    if kind < 3:
        return b'{"method":"slotNotification","params":%d}' % rng.randrange(1 << 32)
    if kind == 3:
        return "".join(rng.choices("ab\0é漢🎈", k=rng.randrange(60))).encode()
    if kind == 4:
        return b""
    if kind == 5:
        return b"x" * rng.choice([1, 124, 125, 126, 127, 128, rng.randrange(120, 600)])
    if opcode == BINARY:
        # the longest form of a length stays with binary messages: one parser checks UTF-8 byte by byte
        if rng.randrange(20) == 0:
            return b"z" * rng.choice([65535, 65536])
        return rng.randbytes(rng.randrange(200))
    return rng.randbytes(rng.randrange(60)).hex().encode()


def _control(rng: Random) -> bytes:
    return frame(
        rng.randbytes(rng.choice([0, 4, rng.randrange(126), 125])), rng.choice([PING, PONG])
    )


def _message(rng: Random) -> bytes:
    """One message in one or several frames, with control frames between them."""
    opcode = rng.choice([TEXT, TEXT, BINARY])
    payload = _payload(rng, opcode)
    cuts = sorted(rng.randrange(len(payload) + 1) for _ in range(rng.choice([0, 0, 0, 1, 2, 3])))
    stream = b""
    for i, (a, b) in enumerate(zip([0, *cuts], [*cuts, len(payload)], strict=True)):
        last = i == len(cuts)
        stream += frame(payload[a:b], CONT if i else opcode, fin=last)
        if not last and rng.randrange(2):
            stream += _control(rng)
    return stream


def _close(rng: Random) -> bytes:
    reason = "".join(rng.choices("managemt hdofé", k=rng.randrange(40))).encode()
    code = rng.choice([1000, 1001, 1011, 1012, 3000, 4999])
    return frame(rng.choice([b"", struct.pack(">H", code) + reason]), CLOSE)


def valid_stream(rng: Random) -> bytes:
    """Messages and control frames, and at times a close frame at the end."""
    parts = [_message(rng) if rng.randrange(4) else _control(rng) for _ in range(rng.randrange(9))]
    if rng.randrange(3) == 0:
        parts.append(_close(rng))
    return b"".join(parts)


def damaged_stream(rng: Random) -> bytes:
    """A valid stream of which some bytes were changed, lost, doubled or added."""
    stream = bytearray(valid_stream(rng) or b"\x81\0")
    for _ in range(rng.choice([1, 1, 2, 3])):
        # half of the damage is done near the beginning, where heads are hit more often
        end = min(len(stream), rng.choice([20, 1 << 20]))
        at = rng.randrange(end + 1)
        kind = rng.randrange(6)
        if kind == 0:
            stream[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            stream[at:at] = rng.randbytes(rng.randrange(1, 12))
        elif kind == 2:
            del stream[at : at + rng.randrange(1, 4)]
        elif kind == 3 and at < len(stream):
            stream[at] ^= 1 << rng.randrange(8)
        elif kind == 4:
            stream[at:at] = stream[at : at + rng.randrange(1, 40)]
        else:
            del stream[at:]
    return bytes(stream)


def cut(rng: Random, stream: bytes) -> list[bytes]:
    """The stream in pieces: of random sizes, or all of one small size."""
    size = rng.randrange(1, 40)
    if rng.randrange(2) and len(stream) // size < 1000:
        at = list(range(size, len(stream), size))
    else:
        at = sorted(rng.randrange(len(stream) + 1) for _ in range(rng.randrange(12)))
    return [stream[a:b] for a, b in zip([0, *at], [*at, len(stream)], strict=True)]


# --- parsers


def parse(chunks: list[bytes], limit: int = 1 << 26) -> Outcome:
    """What `FrameDecoder` makes of a stream."""
    decoder = FrameDecoder(limit)
    messages, controls, code = [], [], None
    for chunk in chunks:
        arrived, control = decoder.feed(chunk)
        assert code is None or not (arrived or control), "something after a violation"
        for payload in arrived:
            assert type(payload) in (bytes, Binary)
            messages.append(("binary" if type(payload) is Binary else "text", bytes(payload)))
        for item in control:
            if isinstance(item, Violation):
                code = item.code
            elif isinstance(item, Close):
                controls.append(("close", item.code, item.reason))
            else:
                assert isinstance(item, (Ping, Pong))
                controls.append(("ping" if isinstance(item, Ping) else "pong", item.payload))
    return messages, controls, code


def parse_with_websockets(stream: bytes) -> Outcome:
    """What `websockets`' protocol makes of it (it leaves fragments and UTF-8 to its caller)."""
    protocol = Protocol(CLIENT, state=OPEN, max_size=1 << 26)
    protocol.receive_data(stream)
    messages: list[Any] = []
    controls: list[Any] = []
    opcode, parts = Opcode.CONT, b""
    for event in protocol.events_received():
        data = bytes(event.data)
        if event.opcode is Opcode.CLOSE:
            close = PeerClose.parse(data)
            controls.append(("close", close.code if data else None, close.reason))
        elif event.opcode in (Opcode.PING, Opcode.PONG):
            controls.append((event.opcode.name.lower(), data))
        else:
            if event.opcode is not Opcode.CONT:
                opcode, parts = event.opcode, b""
            parts += data
            if event.fin:
                if opcode is Opcode.TEXT and not _is_utf8(parts):
                    return messages, controls, 1007
                messages.append((opcode.name.lower(), parts))
    codes = {ProtocolError: 1002, UnicodeDecodeError: 1007, PayloadTooBig: 1009}
    error = protocol.parser_exc
    return messages, controls, None if error is None else codes[type(error)]


class _Dry(Exception):
    pass


def parse_with_websocket_client(stream: bytes) -> Outcome:
    """What `websocket-client` makes of it; it has one kind of error, told as 1002."""
    rest = memoryview(stream)

    def receive(size: int) -> bytes:
        nonlocal rest
        if not rest:
            raise _Dry
        data, rest = bytes(rest[:size]), rest[size:]
        return data

    frames = frame_buffer(receive, skip_utf8_validation=False)
    pieces = continuous_frame(fire_cont_frame=False, skip_utf8_validation=False)
    messages: list[Any] = []
    controls: list[Any] = []
    try:
        while True:
            got = frames.recv_frame()
            data = bytes(got.data)
            if got.opcode == CLOSE:
                code = struct.unpack(">H", data[:2])[0] if data else None
                controls.append(("close", code, data[2:].decode()))
                break
            if got.opcode in (PING, PONG):
                controls.append(("ping" if got.opcode == PING else "pong", data))
            else:
                pieces.validate(got)
                pieces.add(got)
                if pieces.is_fire(got):
                    opcode, whole = pieces.extract(got)
                    messages.append(("text" if opcode == TEXT else "binary", bytes(whole.data)))
    except _Dry:
        pass
    except websocket.WebSocketException:
        return messages, controls, 1002
    return messages, controls, None


def check_valid(stream: bytes, chunks: list[bytes]) -> None:
    """A valid stream, in whatever pieces, is the same messages to all parsers."""
    outcome = parse(chunks)
    assert outcome[2] is None
    assert outcome == parse([stream])
    assert outcome == parse_with_websockets(stream)
    assert outcome == parse_with_websocket_client(stream)


def check_damaged(stream: bytes, chunks: list[bytes]) -> int | None:
    """A damaged stream has one documented outcome, and nothing in it is read differently; the code."""
    ours = parse([stream])
    assert parse(chunks) == ours
    code = ours[2]
    assert code in (None, 1002, 1007, 1009)
    theirs = parse_with_websockets(stream)
    # The other parser stops earlier at a close frame between fragments, and later where a length has more
    # bytes than it needs or where the end of a wrong frame is missing; it never reads something else.
    for mine, other in zip(ours[:2], theirs[:2], strict=True):
        n = min(len(mine), len(other))
        assert mine[:n] == other[:n]
    if code is None and theirs[2] is None:
        assert ours == theirs
    return code


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
