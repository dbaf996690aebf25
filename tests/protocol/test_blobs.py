"""zstd blobs and streams, in bounds."""

from __future__ import annotations

import base64
import sys

import pytest
from hypothesis import given, strategies as st

from backtest_sync.errors import BacktestClientError
from backtest_sync.protocol import blobs
from backtest_sync.protocol.blobs import StreamCompressor, StreamDecompressor, compress, decompress
from tests.protocol.vectors import Case, cases

_EMPTY_LIST = base64.b64decode("KLUv/QBYEQAAW10=")  # as the reference writes it


@given(st.binary(max_size=5000), st.integers(1, 300))
def test_what_is_compressed_comes_back(data: bytes, times: int) -> None:
    data *= times
    assert decompress(compress(data), len(data)) == data


def test_frames_are_those_of_the_reference() -> None:
    assert compress(b"[]") == _EMPTY_LIST
    assert decompress(_EMPTY_LIST) == b"[]"


def test_frames_one_after_the_other_are_one_blob() -> None:
    assert (
        decompress(compress(b"ab") + compress(b"") + compress(b"c" * 1000)) == b"ab" + b"c" * 1000
    )


def test_a_bomb_is_stopped_early() -> None:
    bomb = compress(bytes(200 * 2**20))
    assert len(bomb) < 10_000
    with pytest.raises(ValueError, match="holds more than 1000 bytes"):
        decompress(bomb, 1000)
    with pytest.raises(ValueError, match="holds more than 9 bytes"):
        decompress(compress(b"12345") + compress(b"67890"), 9)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"W10=",
        _EMPTY_LIST[:-1],
        _EMPTY_LIST + b"x",
        _EMPTY_LIST + _EMPTY_LIST[:5],
        _EMPTY_LIST[:6] + b"\xff" * 20,
    ],
)
def test_what_is_no_zstd_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="corrupt zstd data"):
        decompress(data)


def test_a_stream_keeps_its_window() -> None:
    sender, receiver = StreamCompressor(), StreamDecompressor()
    message = bytes(range(256)) * 4
    frames = [sender.feed(message) for _ in range(5)]
    assert [receiver.feed(frame) for frame in frames] == [message] * 5
    assert len(frames[1]) < 50
    with pytest.raises(ValueError, match="corrupt zstd data"):
        StreamDecompressor().feed(frames[1])


def test_an_empty_message_is_one_too() -> None:
    sender, receiver = StreamCompressor(), StreamDecompressor()
    assert [receiver.feed(sender.feed(text)) for text in (b"a", b"", b"b")] == [b"a", b"", b"b"]


def test_the_limit_of_a_stream_is_that_of_a_message() -> None:
    sender, receiver = StreamCompressor(), StreamDecompressor(limit=1000)
    for _ in range(5):
        assert receiver.feed(sender.feed(bytes(1000))) == bytes(1000)
    with pytest.raises(ValueError, match="holds more than 1000 bytes"):
        receiver.feed(sender.feed(bytes(1001)))


def test_frames_may_end_and_begin_anew() -> None:
    receiver = StreamDecompressor()
    assert [receiver.feed(_EMPTY_LIST) for _ in range(3)] == [b"[]"] * 3
    assert receiver.at_end_of_frame
    receiver.feed(StreamCompressor().feed(b"x"))
    assert not receiver.at_end_of_frame


def _streams(function: str) -> list[Case]:
    return [case for case in cases("subscriptions") if case["function"] == function]


@pytest.mark.parametrize("case", _streams("compression"), ids=lambda case: case["name"])
def test_streams_of_the_reference_are_read(case: Case) -> None:
    receiver = StreamDecompressor()
    messages = [receiver.feed(base64.b64decode(frame)).decode() for frame in case["frames_base64"]]
    assert messages == case["messages"]


@pytest.mark.parametrize("case", _streams("compression_broken"), ids=lambda case: case["name"])
def test_broken_streams_give_what_they_give_the_reference(case: Case) -> None:
    receiver = StreamDecompressor()
    results = zip(case["frames_base64"], case["results_until_first_error"], strict=False)
    for frame, result in results:
        if result["ok"]:
            assert receiver.feed(base64.b64decode(frame)) == base64.b64decode(
                result["bytes_base64"]
            )
            continue
        with pytest.raises(ValueError, match="corrupt zstd data"):
            receiver.feed(base64.b64decode(frame))


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    assert blobs.is_available()
    monkeypatch.setitem(sys.modules, "zstandard", None)
    assert not blobs.is_available()
    for use in (lambda: compress(b""), lambda: decompress(b""), StreamCompressor):
        with pytest.raises(BacktestClientError, match=r"pip install 'backtest-sync\[zstd\]'"):
            use()
