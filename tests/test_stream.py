"""The byte stream's dealings with a TLS layer that has wishes of its own, and the bell."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from typing import Any

import pytest

from backtest_sync import stream
from backtest_sync.limits import Deadline
from backtest_sync.stream import READ, WRITE, Bell, ByteStream, Poller, SelectPoll
from tests.support.connections import SOON, in_thread, outcome


class Moody(socket.socket):
    """A socket that first does what it is told to: raises, one thing a call."""

    moods: list[Exception]

    def _mood(self) -> None:
        if self.moods:
            raise self.moods.pop(0)

    def send(self, *args: Any) -> int:
        self._mood()
        return super().send(*args)

    def recv(self, *args: Any) -> bytes:
        self._mood()
        return super().recv(*args)


@pytest.fixture
def pair() -> Iterator[tuple[Moody, socket.socket]]:
    ours, theirs = socket.socketpair()
    moody = Moody(fileno=ours.detach())
    with moody, theirs:
        yield moody, theirs


def received(stream: ByteStream) -> bytes | None:
    """What one read gave; ``None`` where there was nothing."""
    into: list[bytes] = []
    return into[0] if stream.receive(into) else None


def test_a_write_that_has_to_read_first(pair: tuple[Moody, socket.socket]) -> None:
    ours, theirs = pair
    ours.moods = [ssl.SSLWantReadError(), ssl.SSLWantWriteError()]
    stream = ByteStream(ours)
    data = memoryview(b"data")
    gone: list[int] = []
    assert not stream.send(data, gone)
    assert (stream.write_event, stream.must_repeat) == (READ, True)
    # nothing comes to be read, since another thread may have read it: it looks again all the same
    assert stream.wait(Deadline(SOON))
    assert not stream.send(data, gone)
    assert (stream.write_event, stream.must_repeat) == (WRITE, True)
    assert stream.wait(Deadline(SOON))
    assert gone == []
    assert stream.send(data, gone)
    assert gone == [4]
    assert (stream.write_event, stream.must_repeat) == (WRITE, False)
    assert theirs.recv(10) == b"data"


def test_a_wait_to_read_ends_at_its_deadline(pair: tuple[Moody, socket.socket]) -> None:
    ours, _ = pair
    ours.moods = [ssl.SSLWantReadError()]
    stream = ByteStream(ours)
    stream.send(memoryview(b"data"), [])
    assert not stream.wait(Deadline(0.001))


def test_a_read_that_has_to_write_first(pair: tuple[Moody, socket.socket]) -> None:
    ours, theirs = pair
    theirs.send(b"data")
    ours.moods = [ssl.SSLWantWriteError(), ssl.SSLWantReadError()]
    stream = ByteStream(ours)
    assert received(stream) is None
    assert stream.read_event == WRITE
    assert received(stream) is None
    assert stream.read_event == READ
    assert received(stream) == b"data"
    assert stream.drained
    assert received(stream) is None
    theirs.close()
    assert received(stream) == b""


@pytest.mark.parametrize("end", [ssl.SSLZeroReturnError(), ssl.SSLEOFError()])
def test_the_end_of_a_tls_stream(pair: tuple[Moody, socket.socket], end: Exception) -> None:
    ours, _ = pair
    ours.moods = [end]
    assert received(ByteStream(ours)) == b""


def test_nothing_touches_a_descriptor_that_was_given_back(
    pair: tuple[Moody, socket.socket],
) -> None:
    ours, _ = pair
    ours.moods = []
    stream = ByteStream(ours)
    stream.shutdown()
    stream.close()
    stream.shutdown()
    with pytest.raises(OSError, match="the socket is closed"):
        stream.send(memoryview(b"x"), [])
    with pytest.raises(OSError, match="the socket is closed"):
        stream.receive([])


def test_an_answer_is_read_before_the_question_has_returned() -> None:
    class Slow(socket.socket):
        def send(self, *args: Any) -> int:
            sent = super().send(*args)
            theirs.send(theirs.recv(10).upper())
            answers.append(outcome(*in_thread(lambda: received(ours))))
            return sent

    answers: list[bytes | None] = []
    sock, theirs = socket.socketpair()
    with Slow(fileno=sock.detach()) as slow, theirs:
        ours = ByteStream(slow)
        ours.send(memoryview(b"question"), [])
    assert answers == [b"QUESTION"]


@pytest.mark.parametrize("poll", [stream._Poll, SelectPoll])
@pytest.mark.parametrize("seconds", [None, 1e9, 2**63])
def test_a_wait_may_be_longer_than_the_system_can_wait(
    seconds: float | None, poll: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "_Poll", poll)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.send(b"x")
        poller = Poller()
        poller.watch(ours.fileno(), READ)
        assert [fd for fd, _ in poller.wait(seconds)] == [ours.fileno()]
        poller.watch(ours.fileno(), READ | WRITE)
        assert [fd for fd, _ in poller.wait(seconds)] == [ours.fileno()]
        poller.unwatch(ours.fileno())
        assert not poller.wait(0)


def test_a_bell_wakes_until_it_is_quiet() -> None:
    bell = Bell()
    poller = Poller()
    poller.watch(bell.fileno(), READ)
    assert not poller.wait(0)
    for _ in range(100_000):  # more than the system holds
        bell.ring()
    assert poller.wait(SOON)
    bell.quiet()
    assert not poller.wait(0)
    bell.ring()
    assert poller.wait(SOON)
    bell.close()
    bell.ring()
    bell.close()
