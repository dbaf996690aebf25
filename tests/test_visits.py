"""Threads that wait for messages and read the socket themselves, beside the link's own thread."""

from __future__ import annotations

import gc
import random
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from backtest_sync import (
    connection as connection_module,
    link as link_module,
    stream as stream_module,
)
from backtest_sync.connection import Connection, End
from backtest_sync.errors import RequestTimeoutError, SessionClosedError
from backtest_sync.limits import Deadline
from backtest_sync.stream import SelectPoll
from tests.support.certificates import client_tls, server_tls
from tests.support.connections import (
    BIG,
    SOON,
    close_frame_of,
    connect,
    ended,
    in_thread,
    link_of,
    narrow,
    outcome,
    receive,
    until,
)
from tests.support.duplex import check_duplex, duplex_server
from tests.support.scripted import CLOSE, PING, PONG, Peer, Script, ScriptedServer, frame

FOREVER = Deadline(None)

Conversation = Callable[[Peer], None]


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The own thread waits for its bell: a call that does not come is seen, and who reads is known."""
    monkeypatch.setattr(link_module, "_LEASE", 1000.0)


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


@contextmanager
def opened(script: Script, **options: Any) -> Iterator[Connection]:
    with ScriptedServer(script) as server:
        connection = connect(server, waiters_read=True, **options)
        try:
            yield connection
        finally:
            connection.close()


def come_in(connection: Connection) -> None:
    """Become the reader: the next wait of this thread reads."""
    link = link_of(connection)
    until(lambda: link._visits or link._reading.locked())  # the own thread has begun
    while not link._visits:
        connection.send("knock", Deadline(SOON))
        assert receive(connection, 1) == [b"come in"]


def reading(
    connection: Connection, work: Callable[[], object]
) -> tuple[threading.Thread, list[Any]]:
    """Run ``work`` in a thread that reads when it waits, and return when it does so."""
    link = link_of(connection)
    inside = threading.Event()

    def run() -> object:
        come_in(connection)
        connection.send("go on", Deadline(SOON))
        inside.visits = link._visits  # type: ignore[attr-defined]
        inside.set()
        return work()

    waiter = in_thread(run)
    assert inside.wait(SOON), waiter[1]
    until(lambda: link._visits > inside.visits)  # type: ignore[attr-defined]
    return waiter


def readers_of(connection: Connection) -> set[threading.Thread]:
    """Where the threads will be that read its socket."""
    stream = link_of(connection)._stream
    receive, threads = stream.receive, set()

    def recorded() -> bytes | None:
        threads.add(threading.current_thread())
        return receive()

    stream.receive = recorded  # type: ignore[method-assign]
    return threads


def answers_pings(peer: Peer) -> None:
    peer.send_raw(frame(b"are you there", PING))
    assert peer.recv_frame() == (PONG, b"are you there")


# --- who reads


def test_a_thread_that_waits_reads() -> None:
    go = threading.Event()

    def talk(peer: Peer) -> None:
        assert go.wait(SOON)
        answers_pings(peer)
        peer.send_raw(frame(b"one"))
        assert peer.recv_text() == "next"
        peer.send_raw(frame(b"two"))
        peer.until_gone()

    with opened(greeting(talk)) as connection:

        def work() -> list[bytes]:
            messages = receive(connection, 1)
            connection.send("next", Deadline(SOON))
            return messages + receive(connection, 1)

        waiter = reading(connection, work)
        readers = readers_of(connection)
        go.set()
        assert outcome(*waiter) == [b"one", b"two"]
        assert readers == {waiter[0]}


def test_the_main_thread_does_not_read() -> None:
    with opened(greeting(until_gone)) as connection:
        readers = readers_of(connection)
        for _ in range(10):
            connection.send("knock", Deadline(SOON))
            assert receive(connection, 1) == [b"come in"]
        assert connection.receive(Deadline(0.01)) == []
        assert readers == {connection._core.thread}


def test_the_main_thread_calls_the_own_thread_back() -> None:
    with opened(greeting(until_gone)) as connection:
        assert outcome(*in_thread(lambda: come_in(connection))) is None
        readers = readers_of(connection)
        connection.send("knock", Deadline(SOON))
        assert receive(connection, 1) == [b"come in"]
        assert readers == {connection._core.thread}


def test_the_own_thread_reads_when_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "_LEASE", 0.001)
    go, answered = threading.Event(), threading.Event()

    def talk(peer: Peer) -> None:
        assert go.wait(SOON)
        answers_pings(peer)
        answered.set()
        peer.send_raw(frame(b"one"))
        peer.until_gone()

    with opened(greeting(talk)) as connection:

        def work() -> None:
            come_in(connection)
            connection.send("go on", Deadline(SOON))

        assert outcome(*in_thread(work)) is None
        readers = readers_of(connection)
        go.set()
        assert answered.wait(SOON)
        until(lambda: connection.queued_bytes)
        assert connection.receive(Deadline(0)) == [b"one"]
        assert readers == {connection._core.thread}


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
        waiter = reading(connection, lambda: receive(connection, 1))
        with pytest.raises(RequestTimeoutError):
            connection.send("x" * BIG, Deadline(0.05))
        go.set()
        assert outcome(*waiter) == [b"%d" % BIG]


# --- nobody waits in vain


def test_one_who_comes_back_while_the_own_thread_leaves_is_served() -> None:
    with opened(greeting(until_gone)) as connection:
        assert outcome(*in_thread(lambda: come_in(connection))) is None
        link = link_of(connection)
        read_on, late = link._read_on, threading.Event()

        def leave_late() -> None:
            read_on()
            until(lambda: late.is_set() or connection.end or link._inbox.awaited)
            late.set()

        link._read_on = leave_late  # type: ignore[method-assign]
        connection.wake()

        def work() -> None:
            while not late.is_set():
                connection.send("knock", Deadline(SOON))
                assert receive(connection, 1) == [b"come in"]

        assert outcome(*in_thread(work)) is None


def one_and_two(go: threading.Event) -> Script:
    """Two messages; the second when the first was received."""

    def talk(peer: Peer) -> None:
        assert go.wait(SOON)
        peer.send_raw(frame(b"one"))
        assert peer.recv_text() == "1"
        peer.send_raw(frame(b"two"))
        peer.until_gone()

    return greeting(talk)


def receive_one(connection: Connection) -> bytes:
    (message,) = receive(connection, 1)
    connection.send("1", Deadline(SOON))
    return message


def test_one_who_begins_to_wait_while_the_reader_leaves_is_served() -> None:
    go = threading.Event()
    with opened(one_and_two(go)) as connection:
        first = reading(connection, lambda: receive_one(connection))
        inbox = link_of(connection)._inbox
        wait = inbox.wait

        def begin_late(*args: Any) -> bool:
            if threading.current_thread() is not first[0]:
                go.set()
                first[0].join(SOON)
            return wait(*args)

        inbox.wait = begin_late  # type: ignore[assignment, method-assign]
        assert outcome(*in_thread(lambda: receive_one(connection))) == b"two"
        assert outcome(*first) == b"one"


def test_one_whom_the_reader_leaves_is_served() -> None:
    go = threading.Event()
    with opened(one_and_two(go)) as connection:
        waiters = [reading(connection, lambda: receive_one(connection))]
        waiters += [in_thread(lambda: receive_one(connection))]
        until(lambda: link_of(connection)._inbox.awaited)
        go.set()
        assert {outcome(*w) for w in waiters} == {b"one", b"two"}


def test_the_main_thread_that_the_reader_leaves_is_served() -> None:
    go = threading.Event()
    with opened(one_and_two(go)) as connection:
        waiter = reading(connection, lambda: receive_one(connection))
        go.set()
        assert {receive_one(connection), outcome(*waiter)} == {b"one", b"two"}


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

        waiters = [reading(connection, consume), in_thread(consume)]
        go.set()
        taken = [consume(), *(outcome(*w) for w in waiters)]
        assert all(numbers == sorted(numbers) for numbers in taken)
        assert sorted(n for numbers in taken for n in numbers) == list(range(total))
        assert connection.end == End(1000, "Normal")


# --- how a wait ends


def test_a_wait_ends_at_its_deadline_and_the_own_thread_reads() -> None:
    go, answered = threading.Event(), threading.Event()

    def talk(peer: Peer) -> None:
        assert go.wait(SOON)
        answers_pings(peer)
        answered.set()
        peer.until_gone()

    with opened(greeting(talk)) as connection:
        waiter = reading(connection, lambda: connection.receive(Deadline(0.01)))
        assert outcome(*waiter) == []
        go.set()
        assert answered.wait(SOON)


def test_a_wait_without_patience_takes_what_has_arrived() -> None:
    with opened(greeting(until_gone)) as connection:
        sock = link_of(connection)._stream._sock

        def work() -> list[bytes]:
            come_in(connection)
            connection.send("knock", Deadline(SOON))
            assert select.select([sock], [], [], SOON)[0]
            return connection.receive(Deadline(0))

        assert outcome(*in_thread(work)) == [b"come in"]


def test_waking_the_reader_makes_it_look_whether_it_is_stopped() -> None:
    stop = threading.Event()
    looked = threading.Semaphore(0)

    def stopped() -> bool:
        looked.release()
        return stop.is_set()

    with opened(greeting(until_gone)) as connection:
        waiter = reading(connection, lambda: connection.receive(FOREVER, stopped))
        stop.set()
        connection.wake()
        assert outcome(*waiter) == []
        assert connection.end is None

        stop.clear()
        waiter = in_thread(lambda: connection.receive(FOREVER, stopped))
        while looked.acquire(blocking=False):
            pass
        connection.wake()
        assert looked.acquire(timeout=SOON)
        assert waiter[0].is_alive()  # it waits on
        stop.set()
        connection.wake()
        assert outcome(*waiter) == []


@pytest.mark.parametrize("manner", ["close", "abort"])
def test_an_end_from_another_thread_releases_the_reader(manner: str) -> None:
    frames: list[bytes] = []

    def talk(peer: Peer) -> None:
        peer.until_gone()
        if peer.close_frame is not None:
            frames.append(peer.close_frame)

    with opened(greeting(talk)) as connection:
        waiter = reading(connection, lambda: connection.receive(FOREVER))
        beside = in_thread(lambda: connection.receive(FOREVER))
        getattr(connection, manner)()
        assert outcome(*waiter) == outcome(*beside) == []
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
            connection = connect(server, waiters_read=True)
            come_in(connection)
            connection.send("go on", Deadline(SOON))

        assert outcome(*in_thread(work)) is None
        gc.collect()
        assert said.wait(SOON)


def test_closing_in_the_middle_of_reading_waits_for_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a finaliser may: the own thread can't close before the reader, which this is, has left."""
    monkeypatch.setattr(connection_module, "_JOIN_LIMIT", 2 * SOON)

    def talk(peer: Peer) -> None:
        assert peer.recv() == "say something"
        peer.send_raw(frame(b"something"))
        peer.until_gone()

    with opened(greeting(talk)) as connection:
        waiter = reading(connection, lambda: connection.receive(FOREVER))
        decoder = link_of(connection)._decoder

        class Finalised:
            def feed(self, chunk: bytes) -> Any:
                connection.close()
                return decoder.feed(chunk)

        monkeypatch.setattr(link_of(connection), "_decoder", Finalised())
        connection.send('"say something"', Deadline(SOON))
        assert outcome(*waiter) == []
        assert connection.end == End(1000, "closed", ours=True)
        connection._core.thread.join(SOON)
        assert not connection._core.thread.is_alive()


def test_nothing_is_read_from_a_socket_that_was_shut_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left unread resets the connection; or a peer in the middle of a flood waits on for room."""
    go, shut = threading.Event(), threading.Event()
    seen: list[bool] = []

    def talk(peer: Peer) -> None:
        assert go.wait(SOON)
        peer.send_raw(frame(b"one"))
        peer.until_gone()

    with opened(greeting(talk)) as connection:
        waiter = reading(connection, lambda: connection.receive(FOREVER))
        stream = link_of(connection)._stream
        receive, shutdown = stream.receive, stream.shutdown
        reads = threading.Event()

        def read_late() -> bytes | None:
            reads.set()
            seen.append(shut.wait(0.2))
            return receive()

        def told_shutdown() -> None:
            shutdown()
            shut.set()

        monkeypatch.setattr(stream, "receive", read_late)
        monkeypatch.setattr(stream, "shutdown", told_shutdown)
        go.set()
        assert reads.wait(SOON)
        connection.close()
        assert outcome(*waiter) == []
        assert seen == [False]


def close_frame(peer: Peer) -> None:
    peer.send_close(1012, "management handoff")
    assert peer.recv_frame() == (CLOSE, b"\x03\xf4")


def violation(peer: Peer) -> None:
    peer.send_raw(b"\xc1\x00")
    opcode, payload = peer.recv_frame()
    assert (opcode, close_frame_of(payload)[0]) == (CLOSE, 1002)


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
def test_an_end_that_the_reader_finds(manner: Conversation, code: int | None, reason: str) -> None:
    go = threading.Event()

    def talk(peer: Peer) -> None:
        assert go.wait(SOON)
        peer.send_raw(frame(b"last words"))
        manner(peer)

    with opened(greeting(talk)) as connection:
        waiter = reading(connection, lambda: [receive(connection, 1), connection.receive(FOREVER)])
        go.set()
        assert outcome(*waiter) == [[b"last words"], []]
        assert connection.end is not None
        assert (connection.end.code, connection.end.ours) == (code, False)
        assert connection.end.reason.startswith(reason)
        connection._core.thread.join(SOON)
        assert not connection._core.thread.is_alive()
        assert connection._core.farewell is None


def test_a_failing_writer_releases_the_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(greeting(until_gone)) as connection:
        waiter = reading(connection, lambda: connection.receive(FOREVER))
        stream = link_of(connection)._stream

        def fail(data: memoryview) -> int:
            raise OSError("the cable is cut")

        monkeypatch.setattr(stream, "send", fail)
        with pytest.raises(SessionClosedError, match="connection lost: the cable is cut"):
            connection.send("x", Deadline(SOON))
        assert outcome(*waiter) == []


def test_a_failure_of_the_reader_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()

    def talk(peer: Peer) -> None:
        assert go.wait(SOON)
        peer.send_raw(frame(b"one"))
        peer.until_gone()

    class Faulty:
        def feed(self, chunk: bytes) -> Any:
            raise ValueError("a bug")

    with opened(greeting(talk)) as connection:
        waiter = reading(connection, lambda: connection.receive(FOREVER))
        monkeypatch.setattr(link_of(connection), "_decoder", Faulty())
        go.set()
        assert outcome(*waiter) == []
        assert ended(connection).reason == "the reader failed: ValueError('a bug')"


# --- back pressure and keepalive


@pytest.mark.parametrize("lease", [0.001, 1000.0])
def test_a_slow_consumer_makes_the_server_wait(
    lease: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    size, count, limit = 1000, 20_000, 1 << 18
    held, go = threading.Event(), threading.Event()

    def talk(peer: Peer) -> None:
        # what the system buffers on the way, the test need not fill
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        peer.sock.settimeout(0.2)
        view = memoryview(b"".join(frame(b"%0*d" % (size, n)) for n in range(count)))
        try:
            while view:
                view = view[peer.sock.send(view) :]
        except TimeoutError:
            held.set()
        peer.sock.settimeout(None)
        peer.send_raw(bytes(view))
        peer.until_gone()

    monkeypatch.setattr(link_module, "_LEASE", lease)
    with opened(greeting(talk), max_queue_bytes=limit) as connection:
        most = 0

        def work() -> list[int]:
            nonlocal most
            numbers: list[int] = []
            assert go.wait(SOON)
            while len(numbers) < count:
                numbers += [int(m) for m in receive(connection, 1)]
                most = max(most, connection.queued_bytes)
            return numbers

        def come_and_stay_away() -> list[int]:
            come_in(connection)
            connection.send("go on", Deadline(SOON))
            return work()

        waiter = in_thread(come_and_stay_away)
        assert held.wait(SOON), "the server could send everything to a consumer that took nothing"
        assert connection.queued_bytes < limit + 2 * 256 * 1024
        go.set()
        assert outcome(*waiter) == list(range(count))
        assert most < limit + 2 * 256 * 1024
        assert connection.queued_bytes == 0


def test_a_reader_keeps_the_connection_alive() -> None:
    def talk(peer: Peer) -> None:
        for _ in range(12):  # longer than the deadline in all
            opcode, data = peer.recv_frame()
            assert opcode == PING
            peer.send_raw(frame(data, PONG))
        peer.send_raw(frame(b"done"))
        peer.until_gone()

    with opened(greeting(talk), ping_interval=0.05, ping_deadline=0.5) as connection:
        readers = readers_of(connection)
        waiter = reading(connection, lambda: receive(connection, 1))
        readers.clear()
        assert outcome(*waiter) == [b"done"]
        assert readers == {waiter[0]}


def test_a_reader_gives_up_a_peer_that_stays_silent() -> None:
    pings: list[int] = []

    def talk(peer: Peer) -> None:
        while True:
            pings.append(peer.recv_frame()[0])

    with opened(greeting(talk), ping_interval=0.1, ping_deadline=0.5) as connection:
        waiter = reading(connection, lambda: connection.receive(FOREVER))
        assert outcome(*waiter) == []
        assert connection.end == End(None, "no traffic for 0.5 s")
    assert PING in pings


# --- TLS


def test_full_duplex_over_tls_breaks_no_connection() -> None:
    tls = client_tls()
    with duplex_server() as url:
        for _ in range(10):
            assert (
                outcome(*in_thread(lambda: check_duplex(url, 400, tls, waiters_read=True))) is None
            )


def test_the_main_thread_sends_beside_a_reader_over_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    """With more in a record than is read at once, and a queue that is full at times."""
    monkeypatch.setattr(link_module, "_LEASE", 0.001)
    count = 30_000

    def talk(peer: Peer) -> None:
        sender = in_thread(lambda: peer.send_raw(b"".join(frame(b"%d" % n) for n in range(count))))
        got = [peer.recv_text() for _ in range(300)]
        assert got == [str(n) * 300 for n in range(300)]
        assert outcome(*sender) is None
        peer.send_raw(frame(b"done"))
        peer.until_gone()

    with ScriptedServer(greeting(talk), tls=server_tls()) as server:
        connection = connect(
            server, ssl_context=client_tls(), waiters_read=True, max_queue_bytes=100_000
        )
        try:
            waiter = reading(connection, lambda: receive(connection, count + 1))
            for n in range(300):
                connection.send(str(n) * 300, Deadline(SOON))
            assert outcome(*waiter) == [b"%d" % n for n in range(count)] + [b"done"]
        finally:
            connection.close()


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
    ("lease", "poll"),
    [(1000.0, None), (0.001, None), (0.05, SelectPoll)],
    ids=["patient", "hasty", "select"],
)
def test_a_storm(
    lease: float, poll: type | None, tls: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "_LEASE", lease)
    if poll is not None:
        monkeypatch.setattr(stream_module, "_Poll", poll)
    storm = Storm(seed=7, rounds=300)
    with ScriptedServer(storm.script, tls=server_tls() if tls else None) as server:
        connection = connect(
            server,
            ssl_context=client_tls() if tls else None,
            waiters_read=True,
            max_queue_bytes=50_000,
        )
        try:
            storm.drive(connection)
        finally:
            connection.close()
