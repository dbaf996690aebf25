"""Frames out of chunks: agreement with two other parsers, and each violation with its code."""

from __future__ import annotations

import struct
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from backtest_sync.frames import (
    Binary,
    Close,
    FrameDecoder,
    Ping,
    Pong,
    Violation,
    is_close_code,
)
from tests.support.parsers import check_damaged, check_valid, cut, damaged_stream, valid_stream
from tests.support.scripted import BINARY, CLOSE, PING, PONG, TEXT, frame

CONT = 0
relaxed = settings(
    deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


def feed(*chunks: bytes, limit: int = 1 << 26) -> tuple[list[bytes], list[Any]]:
    decoder = FrameDecoder(limit)
    messages, controls = [], []
    for chunk in chunks:
        some, others = decoder.feed(chunk)
        messages += some
        controls += others
    return messages, controls


def bytewise(stream: bytes) -> list[bytes]:
    return [stream[i : i + 1] for i in range(len(stream))]


# --- against other parsers


@settings(relaxed, max_examples=1500)
@given(st.randoms(use_true_random=True))
def test_agrees_with_two_parsers_wherever_the_stream_is_cut(rng: Random) -> None:
    stream = valid_stream(rng)
    check_valid(stream, cut(rng, stream))


@settings(relaxed, max_examples=1500)
@given(st.randoms(use_true_random=True))
def test_a_damaged_stream_has_one_documented_outcome(rng: Random) -> None:
    stream = damaged_stream(rng)
    check_damaged(stream, cut(rng, stream))


# --- what can be taken without a change

SHORT_TEXT = st.text(max_size=130).map(lambda text: frame(text.encode()))
SHORT_BINARY = st.binary(max_size=130).map(lambda data: frame(data, BINARY))
MIDDLING = st.sampled_from([125, 126, 127, 300, 65_535]).map(lambda n: frame(b"m" * n))
OTHER = st.sampled_from(
    [
        frame(b"p", PING),
        frame(b"", PONG),
        frame(struct.pack(">H", 1000), CLOSE),
        frame(b"begun", fin=False),
        frame(b"", fin=False),
        frame(b"continued", CONT),
        frame(b"l" * 65_536),
        frame(b"\xff"),
        b"\x81\x85mask",
        b"\x81\x7e\0\x7d",
        b"\x82\x7e\0\x7e",
        b"\xc1\0",
    ]
)
SHORTS = st.lists(SHORT_TEXT | SHORT_BINARY | MIDDLING, max_size=6).map(b"".join)
STREAMS = (
    SHORTS
    | st.tuples(SHORTS, OTHER, SHORTS).map(b"".join)
    | st.binary(max_size=40)
    | st.tuples(SHORTS, st.binary(max_size=6)).map(b"".join)
)


def kinds(messages: list[bytes]) -> list[tuple[type, bytes]]:
    return [(type(m), m) for m in messages]


def state(decoder: FrameDecoder) -> list[Any]:
    return [getattr(decoder, name) for name in FrameDecoder.__slots__]


@settings(relaxed, max_examples=1500)
@given(STREAMS, st.data(), st.sampled_from([0, 100, 126, 1000, 1 << 26]))
def test_a_peek_gives_what_feeding_gives_or_nothing(
    stream: bytes, data: st.DataObject, limit: int
) -> None:
    at = data.draw(st.integers(0, len(stream)))
    first, second = stream[:at], stream[at:]
    decoder, other = FrameDecoder(limit), FrameDecoder(limit)
    assert decoder.idle
    before = state(decoder)
    seen = decoder.peek(first)
    assert state(decoder) == before
    messages, controls = other.feed(first)
    if seen is None:
        return
    assert kinds(seen[0]) == kinds(messages)
    assert not controls
    assert first.endswith(seen[1])
    assert other.idle == (not seen[1])
    # what is fed from there on, in one piece or in two, is read as if all had been fed
    for chunks in ([seen[1] + second], [seen[1], second]):
        decoder, after = FrameDecoder(limit), FrameDecoder(limit)
        after.feed(first)
        messages, controls = [], []
        for chunk in chunks:
            some, others = decoder.feed(chunk)
            messages += some
            controls += others
        wanted = after.feed(second)
        assert (kinds(messages), controls) == (kinds(wanted[0]), wanted[1])
        assert decoder.idle == after.idle


@settings(relaxed, max_examples=1500)
@given(STREAMS, st.data(), st.sampled_from([0, 100, 126, 1000, 1 << 26]))
def test_what_is_given_back_can_be_fed_again(
    stream: bytes, data: st.DataObject, limit: int
) -> None:
    at = data.draw(st.integers(0, len(stream)))
    decoder, other = FrameDecoder(limit), FrameDecoder(limit)
    decoder.feed(stream[:at])
    other.feed(stream[:at])
    begun = decoder.give_back()
    if begun:
        assert decoder.idle
        assert stream[:at].endswith(begun)
        assert decoder.peek(begun) == ([], begun)
    else:
        assert state(decoder) == state(other)
    some, wanted = decoder.feed(begun + stream[at:]), other.feed(stream[at:])
    assert (kinds(some[0]), some[1]) == (kinds(wanted[0]), wanted[1])


@settings(relaxed, max_examples=300)
@given(st.lists(SHORT_TEXT | SHORT_BINARY | MIDDLING, min_size=1, max_size=6), st.data())
def test_short_messages_are_seen_wherever_they_are_cut(
    frames: list[bytes], data: st.DataObject
) -> None:
    """But for one of two or three bytes within the last three, which `feed` may have."""
    stream = b"".join(frames)
    at = data.draw(st.integers(0, len(stream)))
    seen = FrameDecoder().peek(stream[:at])
    ends = [sum(map(len, frames[: n + 1])) for n in range(len(frames))]
    tiny = any(at - 3 <= end - len(f) and end <= at for f, end in zip(frames, ends, strict=True))
    if tiny:
        assert seen is None
    else:
        whole = max([0, *(end for end in ends if end <= at)])
        assert seen == (feed(stream[:at])[0], stream[whole:at])


@pytest.mark.parametrize(
    "beginning",
    [b"\x81\x7d", frame(b"x" * 101)[:-1], frame(b"x" * 200)[:4], frame(b"x" * 200)[:-1]],
)
def test_a_message_that_will_be_too_long_is_not_passed_over(beginning: bytes) -> None:
    before = frame(b"before")
    assert FrameDecoder(100).peek(before + beginning) is None
    assert feed(before + beginning, limit=100)[1][0].code == 1009


@pytest.mark.parametrize(
    "begun",
    [
        frame(b"x", PING)[:2],
        frame(b"kept")[:3],
        frame(b"kept")[:1],
        frame(b"", fin=False),
        frame(b"x", CLOSE),
    ],
)
def test_a_decoder_that_keeps_something_is_not_idle(begun: bytes) -> None:
    decoder = FrameDecoder()
    decoder.feed(frame(b"whole"))
    assert decoder.idle
    decoder.feed(begun)
    assert not decoder.idle


# --- messages


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 100_000])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_all_three_length_forms(size: int, opcode: int) -> None:
    stream = frame(b"a" * size, opcode) * 2
    for chunks in ([stream], bytewise(stream)):
        messages, controls = feed(*chunks)
        assert messages == [b"a" * size] * 2
        assert controls == []
        assert {type(m) for m in messages} == {bytes if opcode == TEXT else Binary}


def test_fragments_with_control_frames_between_them() -> None:
    stream = (
        frame(b"one ", TEXT, fin=False)
        + frame(b"p", PING)
        + frame(b"two ", CONT, fin=False)
        + frame(b"q", PONG)
        + frame(b"", CONT, fin=False)
        + frame(b"three", CONT)
        + frame(b"\xff", BINARY, fin=False)
        + frame(b"\xfe", CONT)
    )
    for chunks in ([stream], bytewise(stream)):
        messages, controls = feed(*chunks)
        assert messages == [b"one two three", b"\xff\xfe"]
        assert [type(m) for m in messages] == [bytes, Binary]
        assert controls == [Ping(b"p"), Pong(b"q")]


def test_fragments_that_are_empty_up_to_the_last() -> None:
    assert feed(frame(b"", TEXT, fin=False) + frame(b"x", CONT))[0] == [b"x"]
    assert feed(frame(b"", BINARY, fin=False) + frame(b"", CONT)) == ([Binary(b"")], [])


def test_text_may_be_cut_inside_a_character() -> None:
    text = "añ漢🎈".encode()
    for at in range(len(text)):
        stream = frame(text[:at], TEXT, fin=False) + frame(text[at:], CONT)
        assert feed(stream) == ([text], [])


def test_a_partial_frame_says_nothing_yet() -> None:
    stream = frame(b"hello")
    for n in range(len(stream)):
        assert feed(stream[:n]) == ([], [])
    assert feed(b"") == ([], [])


def test_a_close_frame_is_the_last_thing() -> None:
    stream = frame(b"before") + frame(struct.pack(">H", 1012) + b"management handoff", CLOSE)
    stream += frame(b"after") + b"\xff\xff"
    for chunks in ([stream], bytewise(stream)):
        assert feed(*chunks) == ([b"before"], [Close(1012, "management handoff")])


def test_a_close_frame_inside_a_message() -> None:
    # `websockets` refuses this; RFC 6455 §5.4 lets control frames stand between fragments
    assert feed(frame(b"x", TEXT, fin=False) + frame(b"", CLOSE)) == ([], [Close(None, "")])


# --- violations


def head(first: int, second: int, extra: bytes = b"") -> bytes:
    return bytes([first, second]) + extra


VIOLATIONS = {
    "masked": (head(0x81, 0x85, b"\0\0\0\0hello"), 1002, "masked"),
    "masked and long": (head(0x82, 0xFE, b"\1\0"), 1002, "masked"),
    "rsv1": (head(0xC1, 1, b"x"), 1002, "reserved bits"),
    "rsv2": (head(0xA1, 1, b"x"), 1002, "reserved bits"),
    "rsv3": (head(0x91, 1, b"x"), 1002, "reserved bits"),
    **{f"opcode {n:#x}": (head(0x80 | n, 0), 1002, "unknown opcode") for n in (3, 4, 5, 6, 7)},
    **{f"opcode {n:#x}": (head(0x80 | n, 0), 1002, "unknown opcode") for n in range(11, 16)},
    "continues nothing": (frame(b"x", CONT), 1002, "continues nothing"),
    "continues nothing, not final": (frame(b"x", CONT, fin=False), 1002, "continues nothing"),
    "text inside text": (frame(b"a", TEXT, fin=False) + frame(b"b"), 1002, "inside another"),
    "binary inside text": (
        frame(b"a", TEXT, fin=False) + frame(b"b", BINARY, fin=False), 1002, "inside another"),
    "text inside an empty one": (frame(b"", TEXT, fin=False) + frame(b""), 1002, "inside another"),
    "fragmented ping": (frame(b"", PING, fin=False), 1002, "control frame is fragmented"),
    "fragmented pong": (frame(b"", PONG, fin=False), 1002, "control frame is fragmented"),
    "fragmented close": (frame(b"", CLOSE, fin=False), 1002, "control frame is fragmented"),
    "long ping": (frame(b"x" * 126, PING), 1002, "longer than 125"),
    "long close": (head(0x88, 127), 1002, "longer than 125"),
    "two bytes for 125": (head(0x81, 126, b"\0\x7d"), 1002, "a length of 125"),
    "two bytes for 0": (head(0x82, 126, b"\0\0"), 1002, "a length of 0"),
    "eight bytes for 65535": (head(0x81, 127, b"\0" * 6 + b"\xff\xff"), 1002, "length of 65535"),
    "highest bit": (head(0x81, 127, b"\x80" + b"\0" * 7), 1002, "highest bit"),
    "half a close code": (frame(b"\3", CLOSE), 1002, "half a code"),
    **{
        f"close code {code}": (frame(struct.pack(">H", code), CLOSE), 1002, "reserved code")
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)
    },
    "close reason": (frame(struct.pack(">H", 1000) + b"\xff", CLOSE), 1007, "not UTF-8"),
    "text": (frame(b"ok\xff"), 1007, "not UTF-8 at byte 2"),
    "cut character": (frame("é".encode()[:1]), 1007, "not UTF-8"),
    "surrogate": (frame(b"\xed\xa0\x80"), 1007, "not UTF-8"),
    "overlong": (frame(b"\xc0\x80"), 1007, "not UTF-8"),
    "fragments of text": (
        frame(b"a", TEXT, fin=False) + frame(b"\xc3", CONT), 1007, "not UTF-8 at byte 1"),
    "long text": (frame(b"a" * 200 + b"\xff" + b"b" * 70_000), 1007, "not UTF-8 at byte 200"),
}  # fmt: skip


@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_violation_has_its_code_and_comes_after_what_was_right(name: str) -> None:
    stream, code, words = VIOLATIONS[name]
    before = frame(b"first") + frame(b"p", PING)
    for chunks in ([before + stream + frame(b"after")], bytewise(before + stream)):
        messages, controls = feed(*chunks)
        assert messages == [b"first"]
        ping, violation = controls
        assert ping == Ping(b"p")
        assert isinstance(violation, Violation)
        assert violation.code == code
        assert words in violation.reason


def test_a_message_that_is_complete_can_not_be_continued() -> None:
    messages, (violation,) = feed(
        frame(b"a", TEXT, fin=False) + frame(b"b", CONT) + frame(b"c", CONT)
    )
    assert messages == [b"ab"]
    assert violation == Violation(1002, "a continuation frame continues nothing")


@pytest.mark.parametrize(
    "stream",
    [
        frame(b"x" * 101),
        frame(b"x" * 101, BINARY),
        frame(b"x" * 200)[:4],  # its length alone tells
        head(0x82, 127, b"\0\0\0\x40\0\0\0\0"),
        frame(b"x" * 60, TEXT, fin=False) + frame(b"x" * 41, CONT)[:2],
        frame(b"x" * 60, TEXT, fin=False) + frame(b"x" * 40, CONT, fin=False) + frame(b"x", CONT),
    ],
)
def test_a_message_over_the_limit(stream: bytes) -> None:
    for chunks in ([stream], bytewise(stream)):
        messages, controls = feed(*chunks, limit=100)
        assert messages == []
        (violation,) = controls
        assert violation.code == 1009
        assert "the limit is 100" in violation.reason


def test_a_message_at_the_limit() -> None:
    whole = frame(b"x" * 100)
    pieces = frame(b"x" * 60, TEXT, fin=False) + frame(b"p" * 125, PING) + frame(b"x" * 40, CONT)
    assert feed(whole + pieces, limit=100) == ([b"x" * 100] * 2, [Ping(b"p" * 125)])


def test_close_codes() -> None:
    allowed = {n for n in range(66000) if is_close_code(n)}
    registered = {1000, 1001, 1002, 1003, *range(1007, 1015)}
    assert allowed == registered | set(range(3000, 5000))
