"""The byte stream's dealings with a TLS layer that has wishes of its own, and the bell."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from typing import Any

import pytest

from backtest_sync.limits import Deadline
from backtest_sync.stream import READ, WRITE, Bell, ByteStream, Selector
from tests.support.connections import SOON


class Moody(socket.socket):
    """A socket that first does what it is told to: raises, one thing a call."""

    moods: list[Exception]

    def _mood(self) -> None:
        if self.moods:
            raise self.moods.pop(0)

    def send(self, *args: Any) -> int:
        self._mood()
        return super().send(*args)

    def recv_into(self, *args: Any) -> int:
        self._mood()
        return super().recv_into(*args)


@pytest.fixture
def pair() -> Iterator[tuple[Moody, socket.socket]]:
    ours, theirs = socket.socketpair()
    moody = Moody(fileno=ours.detach())
    with moody, theirs:
        yield moody, theirs


def test_a_write_that_has_to_read_first(pair: tuple[Moody, socket.socket]) -> None:
    ours, theirs = pair
    ours.moods = [ssl.SSLWantReadError(), ssl.SSLWantWriteError()]
    stream = ByteStream(ours)
    data = memoryview(b"data")
    assert stream.send(data) == 0
    assert (stream.write_event, stream.must_repeat) == (READ, True)
    # nothing comes to be read, since another thread may have read it: it looks again all the same
    assert stream.wait(Deadline(SOON))
    assert stream.send(data) == 0
    assert (stream.write_event, stream.must_repeat) == (WRITE, True)
    assert stream.wait(Deadline(SOON))
    assert stream.send(data) == 4
    assert (stream.write_event, stream.must_repeat) == (WRITE, False)
    assert theirs.recv(10) == b"data"


def test_a_wait_to_read_ends_at_its_deadline(pair: tuple[Moody, socket.socket]) -> None:
    ours, _ = pair
    ours.moods = [ssl.SSLWantReadError()]
    stream = ByteStream(ours)
    stream.send(memoryview(b"data"))
    assert not stream.wait(Deadline(0.001))


def test_a_read_that_has_to_write_first(pair: tuple[Moody, socket.socket]) -> None:
    ours, theirs = pair
    theirs.send(b"data")
    ours.moods = [ssl.SSLWantWriteError(), ssl.SSLWantReadError()]
    stream = ByteStream(ours)
    assert stream.receive() is None
    assert stream.read_event == WRITE
    assert stream.receive() is None
    assert stream.read_event == READ
    assert stream.receive() == b"data"
    assert stream.drained
    assert stream.receive() is None
    theirs.close()
    assert stream.receive() == b""


@pytest.mark.parametrize("end", [ssl.SSLZeroReturnError(), ssl.SSLEOFError()])
def test_the_end_of_a_tls_stream(pair: tuple[Moody, socket.socket], end: Exception) -> None:
    ours, _ = pair
    ours.moods = [end]
    assert ByteStream(ours).receive() == b""


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
        stream.send(memoryview(b"x"))
    with pytest.raises(OSError, match="the socket is closed"):
        stream.receive()


def test_a_bell_wakes_until_it_is_quiet() -> None:
    bell = Bell()
    with Selector() as selector:
        selector.register(bell, READ)
        assert not selector.select(0)
        for _ in range(100_000):  # more than the system holds
            bell.ring()
        assert selector.select(SOON)
        bell.quiet()
        assert not selector.select(0)
        bell.ring()
        assert selector.select(SOON)
    bell.close()
    bell.ring()
    bell.close()
