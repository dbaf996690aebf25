"""Threads that wait for messages and receive them themselves, beside the link's own thread."""

from __future__ import annotations

import errno
import gc
import random
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import pytest

from backtest_sync import (
    connection as connection_module,
    frames as frames_module,
    inbox as inbox_module,
    link as link_module,
    stream as stream_module,
)
from backtest_sync.connection import Connection, End
from backtest_sync.errors import RequestTimeoutError, SessionClosedError
from backtest_sync.frames import Binary
from backtest_sync.limits import Deadline
from backtest_sync.stream import Lookout, SelectPoll
from tests.support.certificates import client_tls, server_tls
from tests.support.connections import (
    BIG,
    SOON,
    close_frame_of,
    connect,
    ended,
    flood,
    in_thread,
    link_of,
    narrow,
    outcome,
    receive,
    until,
)
from tests.support.duplex import check_duplex, duplex_server
from tests.support.processes import posix
from tests.support.scripted import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Peer,
    Script,
    ScriptedServer,
    frame,
)

FOREVER = Deadline(None)
USUAL = link_module._MOMENT

Conversation = Callable[[Peer], None]


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody gives up waiting: a bell that is not rung is seen, and who receives is known."""
    monkeypatch.setattr(link_module, "_MOMENT", 1000.0)


def greeting(then: Conversation) -> Script:
    """Accept, answer each knock, and go on as told after the first other message."""

    def script(peer: Peer) -> None:
        peer.accept()
        while peer.recv_text() == "knock":
            peer.send_raw(frame(b"come in"))
        then(peer)

    return script


def until_gone(peer: Peer) -> None:
    peer.until_gone()


def pieces(*data: bytes) -> Script:
    """Send each of these when asked for it."""

    def talk(peer: Peer) -> None:
        for piece in data:
            peer.send_raw(piece)
            assert peer.recv_text() == "go on"
        peer.until_gone()

    return greeting(talk)


@contextmanager
def opened(script: Script, *, tls: bool = False, **options: Any) -> Iterator[Connection]:
    with ScriptedServer(script, tls=server_tls() if tls else None) as server:
        if tls:
            options["ssl_context"] = client_tls()
        connection = connect(server, **options)
        try:
            yield connection
        finally:
            connection.close()


def stands_by(connection: Connection) -> bool:
    """Whether the own thread waits for its bell alone, and has not been rung."""
    if select.select([connection._core.bell], [], [], 0)[0]:
        return False
    at = sys._current_frames().get(connection._core.thread.ident or 0)
    names = []
    while at is not None and len(names) < 2:
        names.append(at.f_code.co_name)
        at = at.f_back
    return names == ["wait", "_run"]


def come_in(connection: Connection) -> None:
    """Visit, until it is this thread that receives what comes next."""
    soon = threading.Event()
    for _ in range(1000):
        connection.send("knock", Deadline(SOON))
        assert receive(connection, 1) == [b"come in"]
        for _ in range(5):
            if stands_by(connection):
                return
            soon.wait(0.002)
    pytest.fail("the own thread does not leave the socket to others")


def go_on(connection: Connection) -> None:
    connection.send("go on", Deadline(SOON))


def arrived(connection: Connection) -> None:
    """Wait until there is something to receive."""
    assert select.select([link_of(connection)._stream._sock], [], [], SOON)[0]


Waiter = tuple[threading.Thread, list[Any]]


def visiting(connection: Connection, *works: Callable[[], object]) -> list[Waiter]:
    """Run each of ``works``, which begin to wait, in a thread that visits; the peer goes on before."""
    assert outcome(*in_thread(lambda: come_in(connection))) is None
    go_on(connection)
    waiters = [in_thread(work) for work in works]
    inbox = link_of(connection)._inbox
    until(lambda: len(inbox._waiters) == len(works) or any(result for _, result in waiters))
    return waiters


def receivers_of(connection: Connection) -> set[threading.Thread]:
    """Where the threads will be that receive something from its socket."""
    stream = link_of(connection)._stream
    receive, threads = stream.receive, set()

    def recorded(into: list[bytes]) -> bool:
        came = receive(into)
        if came:
            threads.add(threading.current_thread())
        return came

    stream.receive = recorded  # type: ignore[method-assign]
    return threads


def answers_pings(peer: Peer) -> None:
    peer.send_raw(frame(b"are you there", PING))
    assert peer.recv_frame() == (PONG, b"are you there")


class Spy:
    """A decoder that knows which threads fed it."""

    def __init__(self, connection: Connection) -> None:
        self._decoder = link_of(connection)._decoder
        self.peek, self.give_back = self._decoder.peek, self._decoder.give_back
        self.fed_by: set[threading.Thread] = set()
        link_of(connection)._decoder = self  # type: ignore[assignment]

    @property
    def idle(self) -> bool:
        return self._decoder.idle

    def feed(self, chunk: bytes) -> Any:
        self.fed_by.add(threading.current_thread())
        return self._decoder.feed(chunk)


# --- who receives


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_thread_that_waits_receives(tls: bool) -> None:
    go = threading.Event()

    def talk(peer: Peer) -> None:
        assert go.wait(SOON)
        peer.send_raw(frame(b"one"))
        assert peer.recv_text() == "next"
        peer.send_raw(frame(b"two"))
        peer.until_gone()

    with opened(greeting(talk), tls=tls) as connection:

        def work() -> list[bytes]:
            messages = receive(connection, 1)
            connection.send("next", Deadline(SOON))
            return messages + receive(connection, 1)

        (waiter,) = visiting(connection, work)
        receivers, spy = receivers_of(connection), Spy(connection)
        go.set()
        assert outcome(*waiter) == [b"one", b"two"]
        assert receivers == {waiter[0]}
        assert not spy.fed_by


def test_the_main_thread_receives() -> None:
    with opened(greeting(until_gone)) as connection:
        come_in(connection)
        receivers = receivers_of(connection)
        for _ in range(10):
            connection.send("knock", Deadline(SOON))
            assert receive(connection, 1) == [b"come in"]
        assert receivers == {threading.current_thread()}


def test_the_main_thread_does_not_receive_over_tls() -> None:
    with opened(greeting(until_gone), tls=True) as connection:
        receivers = receivers_of(connection)
        for _ in range(10):
            connection.send("knock", Deadline(SOON))
            assert receive(connection, 1) == [b"come in"]
        assert connection.receive(Deadline(0.01)) == []
        assert receivers == {connection._core.thread}
        assert not link_of(connection)._visits


def test_the_main_thread_calls_the_own_thread_back_over_tls() -> None:
    with opened(greeting(until_gone), tls=True) as connection:
        assert outcome(*in_thread(lambda: come_in(connection))) is None
        receivers = receivers_of(connection)
        connection.send("knock", Deadline(SOON))
        assert receive(connection, 1) == [b"come in"]
        assert receivers == {connection._core.thread}


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_the_own_thread_receives_when_nobody_waits(
    tls: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, answered = threading.Event(), threading.Event()

    def talk(peer: Peer) -> None:
        assert go.wait(SOON)
        answers_pings(peer)
        answered.set()
        peer.send_raw(frame(b"one"))
        peer.until_gone()

    monkeypatch.setattr(link_module, "_MOMENT", 0.01)
    with opened(greeting(talk), tls=tls) as connection:
        assert outcome(*in_thread(lambda: come_in(connection))) is None
        go_on(connection)
        receivers = receivers_of(connection)
        go.set()
        assert answered.wait(SOON)
        until(lambda: connection.queued_bytes)
        assert connection.receive(Deadline(0)) == [b"one"]
        assert receivers == {connection._core.thread}


def test_the_own_thread_finishes_what_a_sender_began() -> None:
    go = threading.Event()

    def script(peer: Peer) -> None:
        narrow(peer)
        while peer.recv_text() == "knock":
            peer.send_raw(frame(b"come in"))
        assert go.wait(SOON)
        peer.send_raw(frame(b"%d" % len(peer.recv_text())))
        peer.until_gone()

    with opened(script) as connection:
        (waiter,) = visiting(connection, lambda: receive(connection, 1))
        with pytest.raises(RequestTimeoutError):
            connection.send("x" * BIG, Deadline(0.05))
        go.set()
        assert outcome(*waiter) == [b"%d" % BIG]


# --- what a visitor leaves to the own thread

OTHERS = {
    "a ping": (frame(b"hello", PING), []),
    "a pong": (frame(b"hello", PONG), []),
    "fragments": (frame(b"so ", fin=False) + frame(b"long", 0), [b"so long"]),
    "fragments of nothing": (frame(b"", fin=False) + frame(b"", 0), [b""]),
    "a ping between fragments": (
        frame(b"so ", fin=False) + frame(b"hello", PING) + frame(b"long", 0),
        [b"so long"],
    ),
    "a long message": (frame(b"x" * 70_000), [b"x" * 70_000]),
    "many messages": (frame(b"x" * 1000) * 600, [b"x" * 1000] * 600),
}


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("where", ["main", "worker"])
def test_what_else_comes_is_left_to_the_own_thread(where: str, other: str) -> None:
    stream, messages = OTHERS[other]
    go, ponged = threading.Event(), threading.Event()

    def talk(peer: Peer) -> None:
        assert go.wait(SOON)
        peer.send_raw(frame(b"before") + stream + frame(b"after"))
        if b"\x89\x05hello" in stream:
            assert peer.recv_frame() == (PONG, b"hello")
            ponged.set()
        peer.until_gone()

    with opened(greeting(talk)) as connection:
        wanted = [b"before", *messages, b"after"]

        def work() -> list[bytes]:
            return receive(connection, len(wanted))

        if where == "worker":
            (waiter,) = visiting(connection, work)
            go.set()
            assert outcome(*waiter) == wanted
        else:
            come_in(connection)
            go_on(connection)
            go.set()
            assert work() == wanted
        if b"\x89\x05hello" in stream:
            assert ponged.wait(SOON)
        assert connection.end is None


def test_only_the_own_thread_feeds_the_decoder() -> None:
    stream = b"".join(data for data, _ in OTHERS.values())
    wanted = [message for _, messages in OTHERS.values() for message in messages]
    with opened(pieces(frame(b"first"), stream)) as connection:
        come_in(connection)
        spy = Spy(connection)
        go_on(connection)
        assert receive(connection, 1) == [b"first"]
        assert not spy.fed_by
        go_on(connection)
        assert receive(connection, len(wanted)) == wanted
        assert spy.fed_by == {connection._core.thread}


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("size", [0, 1, 2, 125, 126, 65_535, 65_536])
def test_messages_of_every_length(size: int, opcode: int) -> None:
    data = frame(b"a" * size, opcode)
    with opened(pieces(data, data + data, frame(b"last") + data)) as connection:
        come_in(connection)
        for count in (1, 2, 2):
            go_on(connection)
            messages = receive(connection, count)
            if messages[0] == b"last":
                del messages[0]
            assert set(messages) == {b"a" * size}
            assert {type(m) for m in messages} == {bytes if opcode == TEXT else Binary}


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_frame_that_a_visit_leaves_in_pieces(cut: int) -> None:
    stream = frame(b"12345") + frame(b"67890")
    with opened(pieces(stream[:cut], stream[cut:])) as connection:
        come_in(connection)
        go_on(connection)
        waiter = in_thread(lambda: receive(connection, 2))
        link = link_of(connection)
        # it looks at the first piece, and waits again
        until(lambda: (link._received or cut == 7) and link._inbox.awaited)
        go_on(connection)
        assert outcome(*waiter) == [b"12345", b"67890"]


@pytest.mark.parametrize("comes_back", [True, False])
@pytest.mark.parametrize("cut", [1, 2, 5, 8, 9, 13])
def test_a_frame_in_pieces_is_the_own_threads_when_the_visitor_goes(
    cut: int, comes_back: bool
) -> None:
    stream = frame(b"12345") + frame(b"67890")
    with opened(pieces(stream[:cut], stream[cut:])) as connection:
        come_in(connection)
        go_on(connection)
        arrived(connection)
        messages = connection.receive(Deadline(0))  # rings, unless there is a message
        messages += connection.receive(Deadline(0))
        until(lambda: link_of(connection)._received and link_of(connection)._decoder.idle)
        go_on(connection)
        if not comes_back:
            until(lambda: connection.queued_bytes)
        messages += receive(connection, 2 - len(messages))
        assert messages == [b"12345", b"67890"]


def test_a_visitor_reads_again_after_something_else() -> None:
    """Though the stream is never between two messages when it is looked at."""
    stream = frame(b"one") + frame(b"?", PING) + frame(b"two")
    with opened(pieces(stream[:-2], stream[-2:] + frame(b"three")[:-1])) as connection:
        come_in(connection)
        spy = Spy(connection)
        go_on(connection)
        assert receive(connection, 1) == [b"one"]
        assert spy.fed_by
        until(lambda: link_of(connection)._received)
        spy.fed_by.clear()
        go_on(connection)
        assert receive(connection, 1) == [b"two"]
        assert not spy.fed_by


def close_frame(peer: Peer) -> None:
    peer.send_close(1012, "management handoff")
    assert peer.recv_frame() == (CLOSE, b"\x03\xf4")


def violation(peer: Peer) -> None:
    peer.send_raw(b"\xc1\x00")
    opcode, payload = peer.recv_frame()
    assert (opcode, close_frame_of(payload)[0]) == (CLOSE, 1002)


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize(
    ("manner", "code", "reason"),
    [
        (close_frame, 1012, "Restart: management handoff"),
        (violation, 1002, "Protocol: reserved bits are set"),
        (lambda peer: None, None, "connection reset without closing handshake"),
        (Peer.reset, None, "connection reset without closing handshake"),
    ],
    ids=["close frame", "violation", "end of stream", "reset"],
)
def test_an_end_that_a_visitor_finds(
    manner: Conversation, code: int | None, reason: str, apart: bool
) -> None:
    go = threading.Event()

    def talk(peer: Peer) -> None:
        assert go.wait(SOON)
        peer.send_raw(frame(b"last words"))
        if apart:
            assert peer.recv_text() == "I see"
        manner(peer)

    with opened(greeting(talk)) as connection:

        def work() -> list[bytes]:
            messages = receive(connection, 1)
            if apart:
                connection.send("I see", Deadline(SOON))
            return messages + connection.receive(FOREVER)

        (waiter,) = visiting(connection, work)
        go.set()
        got = outcome(*waiter)
        if not (manner is Peer.reset and not apart):  # which may overtake what was sent before
            assert got == [b"last words"]
        assert connection.end is not None
        assert (connection.end.code, connection.end.ours) == (code, False)
        assert connection.end.reason.startswith(reason)
        connection._core.thread.join(SOON)
        assert not connection._core.thread.is_alive()
        assert connection._core.farewell is None


# --- several


def test_waiting_threads_share_the_messages() -> None:
    total = 20_000
    go = threading.Event()

    def talk(peer: Peer) -> None:
        assert go.wait(SOON)
        numbers = [frame(b"%d" % n) for n in range(total)]
        for at in range(0, total, 37):
            peer.send_raw(b"".join(numbers[at : at + 37]))
        peer.send_close(1000)
        peer.until_gone()

    with opened(greeting(talk)) as connection:

        def consume() -> list[int]:
            mine: list[int] = []
            while chunk := connection.receive(Deadline(SOON)):
                mine += [int(m) for m in chunk]
            return mine

        waiters = visiting(connection, consume, consume, consume)
        go.set()
        taken = [consume(), *(outcome(*w) for w in waiters)]
        assert all(numbers == sorted(numbers) for numbers in taken)
        assert sorted(n for numbers in taken for n in numbers) == list(range(total))
        assert connection.end == End(1000, "Normal")


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_all_are_served_one_after_another(tls: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who receives leaves: the next message is another's, the main thread's too."""
    go = threading.Event()
    if tls:
        monkeypatch.setattr(link_module, "_MOMENT", USUAL)  # after which the main thread is served

    def talk(peer: Peer) -> None:
        assert go.wait(SOON)
        for n in range(4):
            peer.send_raw(frame(b"number %d" % n))
            assert peer.recv_text() == "thanks"
        peer.until_gone()

    with opened(greeting(talk), tls=tls) as connection:

        def one() -> bytes:
            (message,) = receive(connection, 1)
            connection.send("thanks", Deadline(SOON))
            return message

        waiters = visiting(connection, one, one, one)
        go.set()
        served = {one(), *(outcome(*w) for w in waiters)}
        assert served == {b"number %d" % n for n in range(4)}


# --- how a wait ends


def test_a_wait_ends_at_its_deadline_and_the_own_thread_goes_on() -> None:
    go, answered = threading.Event(), threading.Event()

    def talk(peer: Peer) -> None:
        assert go.wait(SOON)
        answers_pings(peer)
        answered.set()
        peer.until_gone()

    with opened(greeting(talk)) as connection:
        (waiter,) = visiting(connection, lambda: connection.receive(Deadline(0.01)))
        assert outcome(*waiter) == []
        go.set()
        assert answered.wait(SOON)


def test_a_wait_without_patience_takes_what_has_arrived() -> None:
    with opened(greeting(until_gone)) as connection:
        come_in(connection)
        connection.send("knock", Deadline(SOON))
        arrived(connection)
        assert connection.receive(Deadline(0)) == [b"come in"]
        assert connection.receive(Deadline(0)) == []


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_there_is_more_when_nobody_received_it_yet(tls: bool) -> None:
    with opened(greeting(until_gone), tls=tls) as connection:

        def work() -> None:
            come_in(connection)
            assert tls or not connection.has_more
            connection.send("knock", Deadline(SOON))
            arrived(connection)
            assert connection.has_more
            assert not connection.queued_bytes
            assert connection.receive(Deadline(0)) == [b"come in"]
            assert connection.receive(Deadline(0)) == []  # TLS tells only who looks again
            assert not connection.has_more

        assert outcome(*in_thread(work)) is None


def test_there_is_no_more_where_the_connection_is_over() -> None:
    with opened(greeting(until_gone)) as connection:
        come_in(connection)
        connection.close()
        assert not connection.has_more


def test_waking_makes_each_visitor_look_whether_it_is_stopped() -> None:
    stop = threading.Event()
    looked = threading.Semaphore(0)

    def stopped() -> bool:
        looked.release()
        return stop.is_set()

    def work() -> list[bytes]:
        return connection.receive(FOREVER, stopped)

    with opened(greeting(until_gone)) as connection:
        waiters = visiting(connection, work, work)
        while looked.acquire(blocking=False):
            pass
        connection.wake()
        assert looked.acquire(timeout=SOON)
        assert looked.acquire(timeout=SOON)
        assert all(thread.is_alive() for thread, _ in waiters)  # they wait on
        stop.set()
        connection.wake()
        assert [outcome(*w) for w in waiters] == [[], []]
        assert connection.end is None


def test_a_visitor_that_is_woken_late_waits_on() -> None:
    """By one who saw it wait before, and has released it only now."""
    with opened(greeting(until_gone)) as connection:
        come_in(connection)
        receivers = receivers_of(connection)
        link = link_of(connection)
        for _ in range(3):
            link._lookouts[0].release()
            assert connection.receive(Deadline(0.001)) == []
            assert not link._inbox.awaited
        come_in(connection)
        receivers.clear()
        link._lookouts[0].release()
        connection.send("knock", Deadline(SOON))
        assert receive(connection, 1) == [b"come in"]
        assert stands_by(connection)
        assert receivers == {threading.current_thread()}


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("manner", ["close", "abort"])
def test_an_end_from_another_thread_releases_each_visitor(manner: str, tls: bool) -> None:
    frames: list[bytes] = []

    def talk(peer: Peer) -> None:
        peer.until_gone()
        if peer.close_frame is not None:
            frames.append(peer.close_frame)

    with opened(greeting(talk), tls=tls) as connection:
        waiters = visiting(connection, *[lambda: connection.receive(FOREVER)] * 3)
        getattr(connection, manner)()
        assert [outcome(*w) for w in waiters] == [[]] * 3
        assert connection.end is not None
        assert connection.end.ours
        assert not connection._core.thread.is_alive()
    assert [close_frame_of(f) for f in frames] == ([(1000, "")] if manner == "close" else [])


def test_a_forgotten_connection_says_goodbye() -> None:
    said = threading.Event()

    def talk(peer: Peer) -> None:
        peer.until_gone()
        if peer.close_frame == b"":
            said.set()

    with ScriptedServer(greeting(talk)) as server:

        def work() -> None:
            connection = connect(server)
            come_in(connection)
            go_on(connection)

        work()
        gc.collect()
        assert said.wait(SOON)


def test_nothing_is_received_from_a_socket_that_was_shut_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is left unread resets the connection; or a peer in the middle of a flood waits on for room."""
    go, shut, begun = threading.Event(), threading.Event(), threading.Event()
    seen: list[bool] = []

    def talk(peer: Peer) -> None:
        assert go.wait(SOON)
        peer.send_raw(frame(b"one"))
        peer.until_gone()

    with opened(greeting(talk)) as connection:
        (waiter,) = visiting(connection, lambda: connection.receive(FOREVER))
        stream = link_of(connection)._stream
        receive, shutdown = stream.receive, stream.shutdown

        def receive_late(into: list[bytes]) -> bool:
            begun.set()
            seen.append(shut.wait(0.2))
            return receive(into)

        def told_shutdown() -> None:
            shutdown()
            shut.set()

        monkeypatch.setattr(stream, "receive", receive_late)
        monkeypatch.setattr(stream, "shutdown", told_shutdown)
        go.set()
        assert begun.wait(SOON)
        connection.close()
        outcome(*waiter)
        assert not any(seen)


def test_a_failing_writer_releases_the_visitor(monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(greeting(until_gone)) as connection:
        (waiter,) = visiting(connection, lambda: connection.receive(FOREVER))

        def fail(*args: Any) -> int:
            raise OSError(errno.EIO, "the cable is cut")

        monkeypatch.setattr(link_of(connection)._stream, "send", fail)
        with pytest.raises(SessionClosedError, match="the cable is cut"):
            connection.send("x", Deadline(SOON))
        assert outcome(*waiter) == []


def test_a_failing_socket_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()

    def talk(peer: Peer) -> None:
        assert go.wait(SOON)
        peer.send_raw(frame(b"one"))
        peer.until_gone()

    def fail(into: list[bytes]) -> bool:
        raise OSError(errno.EHOSTUNREACH, "the cable is cut")

    with opened(greeting(talk)) as connection:
        (waiter,) = visiting(connection, lambda: connection.receive(FOREVER))
        monkeypatch.setattr(link_of(connection)._stream, "receive", fail)
        go.set()
        assert outcome(*waiter) == []
        assert "the cable is cut" in ended(connection).reason


def test_a_failure_of_the_own_thread_is_told() -> None:
    go = threading.Event()

    def talk(peer: Peer) -> None:
        assert go.wait(SOON)
        peer.send_raw(frame(b"one"))
        peer.until_gone()

    class Faulty:
        idle = False

        def feed(self, chunk: bytes) -> Any:
            raise ValueError("a bug")

    with opened(greeting(talk)) as connection:
        (waiter,) = visiting(connection, lambda: connection.receive(FOREVER))
        link_of(connection)._decoder = Faulty()  # type: ignore[assignment]
        go.set()
        assert outcome(*waiter) == []
        assert ended(connection).reason == "the reader failed: ValueError('a bug')"


# --- descriptors


def test_without_descriptors_the_own_thread_receives(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(descriptor: int) -> Lookout:
        raise OSError(errno.EMFILE, "too many open files")

    with opened(greeting(until_gone)) as connection:
        come_in(connection)
        link = link_of(connection)
        kept = link._lookouts.pop()
        monkeypatch.setattr(link_module, "Lookout", none_left)
        receivers = receivers_of(connection)
        for _ in range(3):
            connection.send("knock", Deadline(SOON))
            assert receive(connection, 1) == [b"come in"]
        assert receivers == {connection._core.thread}
        assert not connection.has_more
        link._lookouts.append(kept)
        come_in(connection)
        receivers.clear()
        connection.send("knock", Deadline(SOON))
        assert receive(connection, 1) == [b"come in"]
        assert receivers == {threading.current_thread()}


@pytest.mark.parametrize("in_use", [0, 1, 3])
def test_the_end_gives_descriptors_back(in_use: int, monkeypatch: pytest.MonkeyPatch) -> None:
    lookouts: list[Lookout] = []

    def made(descriptor: int) -> Lookout:
        lookouts.append(Lookout(descriptor))
        return lookouts[-1]

    monkeypatch.setattr(link_module, "Lookout", made)
    with opened(greeting(until_gone)) as connection:
        waiters = visiting(connection, *[lambda: connection.receive(FOREVER)] * in_use)
        assert len(lookouts) == max(in_use, 1)
        connection.close()
        assert [outcome(*w) for w in waiters] == [[]] * in_use
        assert [lookout._bell.fileno() for lookout in lookouts] == [-1] * len(lookouts)
        assert not link_of(connection)._lookouts


# --- back pressure and keepalive


@pytest.mark.parametrize("moment", [0.001, 1000.0])
def test_a_slow_consumer_makes_the_server_wait(
    moment: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    size, count, limit = 1000, 20_000, 1 << 18
    held = threading.Event()

    def talk(peer: Peer) -> None:
        flood(peer, size, count, held)

    monkeypatch.setattr(link_module, "_MOMENT", moment)
    with opened(greeting(talk), max_queue_bytes=limit) as connection:
        come_in(connection)
        go_on(connection)
        assert held.wait(SOON), "the server could send everything to a consumer that took nothing"
        most = connection.queued_bytes
        numbers: list[int] = []
        while len(numbers) < count:
            numbers += [int(m) for m in receive(connection, 1)]
            most = max(most, connection.queued_bytes)
        assert numbers == list(range(count))
        assert most < limit + 2 * 256 * 1024
        assert connection.queued_bytes == 0


def test_the_own_thread_keeps_the_connection_alive_beside_a_visitor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def talk(peer: Peer) -> None:
        for _ in range(12):  # longer than the deadline in all
            opcode, data = peer.recv_frame()
            assert opcode == PING
            peer.send_raw(frame(data, PONG))
        peer.send_raw(frame(b"done"))
        peer.until_gone()

    monkeypatch.setattr(link_module, "_MOMENT", 0.02)
    with opened(greeting(talk), ping_interval=0.05, ping_deadline=0.5) as connection:
        (waiter,) = visiting(connection, lambda: receive(connection, 1))
        assert outcome(*waiter) == [b"done"]


@pytest.mark.parametrize("moment", [0.001, USUAL])
def test_a_peer_that_stays_silent_is_given_up(
    moment: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    pings: list[int] = []

    def talk(peer: Peer) -> None:
        while True:
            pings.append(peer.recv_frame()[0])

    monkeypatch.setattr(link_module, "_MOMENT", moment)
    with opened(greeting(talk), ping_interval=0.05, ping_deadline=0.2) as connection:
        (waiter,) = visiting(connection, lambda: connection.receive(FOREVER))
        assert outcome(*waiter) == []
        assert connection.end == End(None, "no traffic for 0.2 s")
    assert PING in pings


def test_what_visitors_receive_is_a_sign_of_life() -> None:
    """Pings that are never answered matter nothing while messages come."""

    def talk(peer: Peer) -> None:
        pause = threading.Event()
        for _ in range(40):
            peer.send_raw(frame(b"busy"))
            pause.wait(0.01)
        peer.send_raw(frame(b"done"))
        peer.until_gone()

    with opened(greeting(talk), ping_interval=0.1, ping_deadline=0.3) as connection:
        come_in(connection)
        go_on(connection)
        while receive(connection, 1)[-1] != b"done":
            pass
        assert connection.end is None


# --- signal handlers, which may come after each call that the main thread makes

PACKAGE = {module.__file__ for module in (link_module, inbox_module, stream_module, frames_module)}


def in_package(at: FrameType | None, function: str = "") -> bool:
    """Whether the package's reading half is at work, in that function or one that it called."""
    if at is None or at.f_code.co_filename not in PACKAGE:
        return False
    while function and at is not None and at.f_code.co_name != function:
        at = at.f_back
    return at is not None


class Step:
    """At the n-th point of this thread where a handler may run, act as one."""

    def __init__(self, number: int, act: Callable[[], object], function: str = "") -> None:
        self.left = number
        self._act = act
        self._function = function

    def __enter__(self) -> Step:
        sys.setprofile(self._look)
        return self

    def __exit__(self, *error: object) -> None:
        sys.setprofile(None)

    @property
    def reached(self) -> bool:
        return self.left <= 0

    def _look(self, at: FrameType, event: str, arg: object) -> None:
        # what is raised here is raised by the call that has just returned, as a handler's exception is
        if event in ("call", "c_return") and in_package(at, self._function):
            self.left -= 1
            if self.left == 0:
                sys.setprofile(None)
                self._act()


class Interrupted(Exception):
    """What a handler raises."""


def interrupt() -> None:
    raise Interrupted


def number(n: int) -> bytes:
    return frame(b"%06d" % n)


def rounds(peer: Peer) -> None:
    """Two messages and a half at once, then the other half and one more: four to a round."""
    n = 0
    while True:
        third = number(n + 2)
        word = peer.recv_text()
        if word == "knock":
            peer.send_raw(frame(b"come in"))
        elif word == "begin":
            peer.send_raw(number(n) + number(n + 1) + third[:4])
        else:
            assert word == "finish"
            peer.send_raw(third[4:] + number(n + 3))
            n += 4


def a_round(connection: Connection) -> None:
    """Begin one, with this thread to receive it."""
    come_in(connection)
    connection.send("begin", Deadline(SOON))
    arrived(connection)


# what it takes away is a lookout at times, whose descriptors the interpreter gives back then
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_a_handler_that_raises_anywhere_tears_no_stream() -> None:
    lost = spared = 0
    with opened(greeting(rounds)) as connection:
        come_in(connection)
        go_on(connection)
        for step in range(1, 1000):
            first = 4 * (step - 1)
            a_round(connection)
            taken: list[bytes] = []
            with Step(step, interrupt) as handler:
                with suppress(Interrupted):
                    taken += connection.receive(Deadline(SOON))
            connection.send("finish", Deadline(SOON))
            while not taken or int(taken[-1]) < first + 3:
                taken += receive(connection, 1)
            assert connection.end is None
            wanted = [first, first + 1, first + 2, first + 3]
            if len(taken) == 4:
                spared += handler.reached
            else:
                lost += 1
                wanted = wanted[2:]
            assert [int(m) for m in taken] == wanted
            if not handler.reached:
                break
        assert not connection.has_more
    assert spared > 20
    assert 0 < lost < 10  # it had left the connection already


def test_what_a_raising_handler_leaves_is_seen_to() -> None:
    """A ping is answered, though nobody comes to receive any more."""
    answered = threading.Semaphore(0)

    def talk(peer: Peer) -> None:
        while True:
            if peer.recv_text() == "knock":
                peer.send_raw(frame(b"come in"))
            else:
                peer.send_raw(frame(b"one") + frame(b"hello", PING) + frame(b"two"))
                assert peer.recv_frame() == (PONG, b"hello")
                answered.release()

    with opened(greeting(talk)) as connection:
        come_in(connection)
        go_on(connection)
        for step in range(1, 1000):
            a_round(connection)
            taken: list[bytes] = []
            with Step(step, interrupt, "_visit") as handler:
                with suppress(Interrupted):
                    taken += connection.receive(Deadline(SOON))
            assert answered.acquire(timeout=SOON)
            taken += receive(connection, 2 - len(taken))
            assert taken == [b"one", b"two"]
            if not handler.reached:
                break
    assert step > 10


@pytest.mark.parametrize("more", [False, True], ids=["what is there", "what comes later too"])
def test_a_handler_that_receives_in_the_middle_of_a_visit(more: bool) -> None:
    """Each message comes once, to the handler or to whom it interrupted."""
    got: list[bytes] = []
    handled = 0

    def handle() -> None:
        nonlocal handled
        if more:
            connection.send("finish", Deadline(SOON))
            arrived(connection)
        messages = connection.receive(Deadline(0))
        handled += bool(messages)
        got.extend(messages)
        if not more:
            connection.send("finish", Deadline(SOON))

    with opened(greeting(rounds)) as connection:
        come_in(connection)
        go_on(connection)
        for step in range(1, 1000):
            first = 4 * (step - 1)
            a_round(connection)
            got.clear()
            with Step(step, handle, "_visit") as handler:
                mine = connection.receive(Deadline(0))
            if not handler.reached:
                connection.send("finish", Deadline(SOON))
            while len(mine) + len(got) < 4:
                mine += receive(connection, 1)
            assert sorted(mine) == mine
            assert sorted(got) == got
            assert sorted(int(m) for m in mine + got) == list(range(first, first + 4))
            if not handler.reached:
                break
        assert not connection.has_more
    assert step > 10
    assert handled > 5


@pytest.mark.parametrize("manner", ["close", "abort"])
@pytest.mark.parametrize("before", ["nothing", "receives"])
def test_a_handler_that_ends_the_connection_in_the_middle_of_a_visit(
    before: str, manner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The own thread can't come to its end before the visit does: nothing may wait for it."""
    monkeypatch.setattr(connection_module, "_JOIN_LIMIT", 2 * SOON)

    def handle(connection: Connection) -> None:
        if before == "receives":
            connection.receive(Deadline(0))
        getattr(connection, manner)()

    def visit(connection: Connection, step: int) -> bool:
        with Step(step, lambda: handle(connection), "_visit") as handler:
            connection.receive(Deadline(SOON))
        return handler.reached

    with ScriptedServer(greeting(rounds)) as server:
        for step in range(1, 1000):
            connection = connect(server)
            try:
                come_in(connection)
                go_on(connection)
                a_round(connection)
                reached = outcome(*in_thread(lambda: visit(connection, step)))  # noqa: B023
                if not reached:
                    break
                assert connection.receive(FOREVER) == []
                assert connection.end is not None
                assert connection.end.ours
            finally:
                connection.close()
            connection._core.thread.join(SOON)
            assert not connection._core.thread.is_alive()
    assert step > 10


@contextmanager
def alarms(handle: Callable[[FrameType | None], None]) -> Iterator[None]:
    """Real signals, many of them, wherever they come."""
    before = signal.signal(signal.SIGALRM, lambda _, at: handle(at))
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0005)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def numbers_in_pieces(peer: Peer) -> None:
    """Numbered messages in pieces that cut frames, as fast as they are received."""
    data = b"".join(number(n) + (frame(b"x", PING) if n % 10 == 0 else b"") for n in range(3000))
    reader = in_thread(peer.until_gone)
    for at in range(0, len(data), 101):
        peer.send_raw(data[at : at + 101])
    peer.send_raw(frame(b"over"))
    reader[0].join()


@posix
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_real_signals_whose_handler_raises_tear_no_stream() -> None:
    """What was in hand may be lost; nothing else is, and nothing comes twice."""
    interrupted = 0

    def handle(at: FrameType | None) -> None:
        if in_package(at):
            raise Interrupted

    with opened(greeting(numbers_in_pieces)) as connection:
        come_in(connection)
        go_on(connection)
        taken: list[bytes] = []
        with alarms(handle):
            while not taken or taken[-1] != b"over":
                try:
                    some = connection.receive(Deadline(SOON))
                except Interrupted:
                    interrupted += 1
                else:
                    assert some, connection.end
                    taken += some
        numbers = [int(m) for m in taken[:-1]]
        assert numbers == sorted(set(numbers))
        assert connection.end is None
    assert interrupted


@posix
def test_real_signals_whose_handler_receives() -> None:
    """Each message comes once, to the handler or to whom it interrupted."""
    mine: list[bytes] = []
    handled: list[bytes] = []

    def handle(at: FrameType | None) -> None:
        if in_package(at):
            handled.extend(connection.receive(Deadline(0)))

    with opened(greeting(numbers_in_pieces)) as connection:
        come_in(connection)
        go_on(connection)
        with alarms(handle):
            while len(mine) + len(handled) < 3001:
                mine += connection.receive(Deadline(0.01))
        mine.sort()
        assert sorted(mine + handled) == [*(b"%06d" % n for n in range(3000)), b"over"]
        assert connection.end is None


# --- TLS


def test_full_duplex_over_tls_breaks_no_connection() -> None:
    tls = client_tls()
    with duplex_server() as url:
        for _ in range(10):
            assert outcome(*in_thread(lambda: check_duplex(url, 400, tls))) is None


def test_the_main_thread_sends_beside_a_visitor_over_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    """With more in a record than is read at once, and a queue that is full at times."""
    monkeypatch.setattr(link_module, "_MOMENT", 0.001)
    count = 30_000

    def talk(peer: Peer) -> None:
        sender = in_thread(lambda: peer.send_raw(b"".join(frame(b"%d" % n) for n in range(count))))
        got = [peer.recv_text() for _ in range(300)]
        assert got == [str(n) * 300 for n in range(300)]
        assert outcome(*sender) is None
        peer.send_raw(frame(b"done"))
        peer.until_gone()

    with opened(greeting(talk), tls=True, max_queue_bytes=100_000) as connection:
        (waiter,) = visiting(connection, lambda: receive(connection, count + 1))
        for n in range(300):
            connection.send(str(n) * 300, Deadline(SOON))
        assert outcome(*waiter) == [b"%d" % n for n in range(count)] + [b"done"]


# --- everything at once


class Storm:
    """Rounds of numbered messages in random pieces, for threads that come and go as a seed says."""

    WORKERS = 3

    def __init__(self, seed: int, rounds: int) -> None:
        self.seed, self.rounds = seed, rounds
        self.sent = 0
        self.taken: list[list[int]] = [[] for _ in range(self.WORKERS + 1)]
        self.complete = threading.Condition()

    # the server's side

    def script(self, peer: Peer) -> None:
        dice = random.Random(self.seed)
        peer.accept()
        for number in range(self.rounds):
            assert peer.recv_text().split()[0] == str(number)
            data = b""
            for _ in range(dice.choice((0, 1, 1, 2, 5, 50))):
                data += frame(b"%0*d" % (dice.choice((1, 1, 8, 300, 4000)), self.sent))
                self.sent += 1
                if dice.random() < 0.1:
                    data += frame(b"%d" % number, PING)
            while data:
                size = dice.choice((1, 3, 100, 1000, 30_000))
                peer.send_raw(data[:size])
                data = data[size:]
        assert peer.recv_text() == "that is all"
        peer.send_close(1000)
        peer.until_gone()

    # the client's side

    def receive(self, connection: Connection, who: int, deadline: Deadline) -> list[bytes]:
        messages = connection.receive(deadline)
        if messages:
            with self.complete:
                self.taken[who] += [int(m) for m in messages]
                self.complete.notify_all()
        return messages

    def work(self, connection: Connection, who: int) -> None:
        dice = random.Random(self.seed + who)
        elsewhere = threading.Event()
        while True:
            end = connection.end
            patience = dice.choice((0, 0, 0.0005, 0.002, 0.01, SOON, SOON, SOON))
            if not self.receive(connection, who, Deadline(patience)):
                if end is not None:
                    return
                assert patience < SOON or connection.end, "what was sent did not arrive"
            if dice.random() < 0.1:
                elsewhere.wait(dice.random() * 0.003)

    def drive(self, connection: Connection) -> None:
        dice = random.Random(-self.seed)
        workers = [in_thread(lambda n=n: self.work(connection, n)) for n in range(1, 4)]  # type: ignore[misc]
        for number in range(self.rounds):
            connection.send(f"{number} {'x' * dice.choice((1, 1, 1, 100_000))}", Deadline(SOON))
            if dice.random() < 0.5:
                self.receive(connection, 0, Deadline(dice.choice((0, 0.001, 0.005))))
            if dice.random() < 0.1:
                connection.wake()
            if dice.random() < 0.1:
                self.until_all_came(connection)
        connection.send("that is all", Deadline(SOON))
        assert [outcome(*w) for w in workers] == [None] * self.WORKERS
        assert all(numbers == sorted(numbers) for numbers in self.taken)
        assert sorted(n for numbers in self.taken for n in numbers) == list(range(self.sent))
        assert connection.end == End(1000, "Normal")

    def until_all_came(self, connection: Connection) -> None:
        with self.complete:
            assert self.complete.wait_for(
                lambda: sum(map(len, self.taken)) >= self.sent or connection.end, SOON
            )


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize(
    ("moment", "poll"),
    [(USUAL, None), (0.001, None), (USUAL, SelectPoll)],
    ids=["usual", "hasty", "select"],
)
def test_a_storm(
    moment: float, poll: type | None, tls: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "_MOMENT", moment)
    if poll is not None:
        monkeypatch.setattr(stream_module, "_Poll", poll)
    storm = Storm(seed=7, rounds=200)
    with opened(storm.script, tls=tls, max_queue_bytes=50_000) as connection:
        storm.drive(connection)
