"""The connection over real sockets: opening, receiving, and every way to end; and the values beside it."""

from __future__ import annotations

import gc
import socket
import struct
import threading
from typing import Any

import pytest

from backtest_sync.connection import End, ReconnectPolicy
from backtest_sync.errors import InvalidParamsError, RequestTimeoutError, SessionClosedError
from backtest_sync.frames import Binary
from backtest_sync.limits import Deadline
from tests.support.connections import (
    BIG,
    SOON,
    close_frame_of,
    connect,
    connected,
    echo,
    ended,
    in_thread,
    link_of,
    narrow,
    outcome,
    quiet,
    receive,
    until,
)
from tests.support.scripted import (
    BINARY,
    CLOSE,
    PING,
    Gone,
    Peer,
    ScriptedServer,
    frame,
)

# --- messages


def test_messages_come_in_order_with_their_kind() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.send_raw(frame(b"one") + frame(b"\x00\xff", BINARY) + frame("zwölf".encode()))
        peer.send_raw(frame(b"fo", fin=False) + frame(b"", PING) + frame(b"ur", 0))
        peer.until_gone()

    with connected(script) as connection:
        messages = receive(connection, 4)
        assert messages == [b"one", b"\x00\xff", "zwölf".encode(), b"four"]
        assert [type(m) for m in messages] == [bytes, Binary, bytes, bytes]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 1_000_000])
def test_what_is_sent_arrives(size: int) -> None:
    text = "é" * (size // 2) + "x" * (size % 2)
    with connected(echo) as connection:
        connection.send(text, Deadline(SOON))
        assert receive(connection, 1) == [text.encode()]


def test_the_handshake_carries_the_headers_and_offers_no_extension() -> None:
    with ScriptedServer(quiet) as server:
        connection = connect(server, headers={"X-API-Key": "the key", "User-Agent": "tests/1"})
        peer = server.peers[0]
        assert peer.path == "/backtest"
        assert peer.header("x-api-key") == "the key"
        assert peer.header("user-agent") == "tests/1"
        assert peer.header("sec-websocket-extensions") is None
        assert peer.header("origin") is None
        connection.close()


def test_small_messages_are_not_held_back() -> None:
    with connected(quiet) as connection:
        assert link_of(connection)._stream._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_the_reader_is_a_daemon_with_the_given_name() -> None:
    with connected(quiet, name="backtest session 7"):
        (thread,) = [t for t in threading.enumerate() if t.name == "backtest session 7"]
        assert thread.daemon


# --- receiving


def test_receive_gives_up_at_the_deadline() -> None:
    with connected(quiet) as connection:
        assert connection.receive(Deadline(0)) == []
        assert connection.receive(Deadline(0.01)) == []
        assert connection.end is None


def test_receive_without_patience_gives_what_is_there() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.send_raw(frame(b"here"))
        peer.until_gone()

    with connected(script) as connection:
        until(lambda: connection.queued_bytes)
        assert connection.receive(Deadline(0)) == [b"here"]
        assert connection.queued_bytes == 0


def test_wake_makes_waiters_look_whether_they_are_stopped() -> None:
    stop = threading.Event()
    looked = threading.Semaphore(0)

    def stopped() -> bool:
        looked.release()
        return stop.is_set()

    with connected(quiet) as connection:
        waiter = in_thread(lambda: connection.receive(Deadline(None), stopped))
        assert looked.acquire(timeout=SOON)
        connection.wake()
        assert looked.acquire(timeout=SOON)  # it looked, and waits on
        assert waiter[0].is_alive()
        stop.set()
        connection.wake()
        assert outcome(*waiter) == []


def test_several_consumers_get_each_message_once() -> None:
    total = 20_000
    go = threading.Event()

    def script(peer: Peer) -> None:
        peer.accept()
        go.wait(SOON)
        numbers = [frame(b"%d" % n) for n in range(total)]
        for at in range(0, total, 37):
            peer.send_raw(b"".join(numbers[at : at + 37]))
        peer.send_close(1000)
        peer.until_gone()

    with connected(script) as connection:

        def consume() -> list[int]:
            mine: list[int] = []
            while chunk := connection.receive(Deadline(SOON)):
                mine += [int(m) for m in chunk]
            return mine

        consumers = [in_thread(consume) for _ in range(4)]
        go.set()
        taken = [outcome(*c) for c in consumers]
        assert all(numbers == sorted(numbers) for numbers in taken)
        assert sorted(n for numbers in taken for n in numbers) == list(range(total))


# --- the peer ends it


@pytest.mark.parametrize(
    ("code", "reason", "text"),
    [
        (1012, "management handoff", "Restart: management handoff"),
        (1000, "", "Normal"),
        (1011, "oops", "Error: oops"),
        (4001, "mine", "Library(4001): mine"),
        (3001, "", "Iana(3001)"),
        (None, "", "no close frame"),
    ],
)
def test_a_close_frame_is_answered_and_told(code: int | None, reason: str, text: str) -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.send_raw(frame(b"before"))
        peer.send_close(code, reason)
        opcode, peer.close_frame = peer.recv_frame()
        assert opcode == CLOSE
        with pytest.raises(Gone):
            peer.recv_frame()

    with ScriptedServer(script) as server:
        connection = connect(server)
        assert receive(connection, 1) == [b"before"]
        assert ended(connection) == End(code, text)
        assert connection.receive(Deadline(None)) == []
        with pytest.raises(SessionClosedError) as caught:
            connection.send("x", Deadline(SOON))
        assert caught.value.code == code
        connection.close(1000, "too late")
        assert connection.end == End(code, text)
    assert close_frame_of(server.peers[0].close_frame) == (code, "")


def test_what_came_before_the_end_is_still_given() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.send_raw(b"".join(frame(b"%d" % n) for n in range(1000)))
        peer.sock.sendall(frame(struct.pack(">H", 1012), CLOSE))

    with connected(script) as connection:
        until(lambda: connection.end)
        assert [int(m) for m in receive(connection, 1000)] == list(range(1000))
        assert connection.receive(Deadline(None)) == []


def test_the_end_of_the_stream() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.send_raw(frame(b"bye") + frame(b"half")[:-1])

    with connected(script) as connection:
        assert receive(connection, 1) == [b"bye"]
        assert ended(connection) == End(None, "connection reset without closing handshake")


def test_a_reset() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.recv_text()
        peer.reset()

    with connected(script) as connection:
        connection.send("go", Deadline(SOON))
        end = ended(connection)
        assert end.reason == "connection reset without closing handshake"
        assert isinstance(end.cause, ConnectionResetError)
        assert (end.code, end.ours) == (None, False)
        with pytest.raises(SessionClosedError) as caught:
            connection.send("x", Deadline(SOON))
        assert caught.value.__cause__ is end.cause


@pytest.mark.parametrize(
    ("data", "code", "text"),
    [
        (b"\xc1\x00", 1002, "Protocol: reserved bits are set"),
        (frame(b"\xff"), 1007, "Invalid: a text message is not UTF-8"),
        (frame(b"x" * 2000), 1009, "Size: a message of 2000 bytes or more; the limit is 1000"),
    ],
)
def test_a_violation_closes_with_its_code(data: bytes, code: int, text: str) -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.sock.sendall(frame(b"right") + data)
        opcode, peer.close_frame = peer.recv_frame()
        assert opcode == CLOSE

    with ScriptedServer(script) as server:
        connection = connect(server, max_message_bytes=1000)
        assert receive(connection, 1) == [b"right"]
        end = ended(connection)
        assert end.code == code
        assert end.reason.startswith(text)
        assert not end.ours
        connection.close()
    told, reason = close_frame_of(server.peers[0].close_frame)
    assert told == code
    assert reason in end.reason


def test_the_end_wakes_a_waiter() -> None:
    go = threading.Event()

    def script(peer: Peer) -> None:
        peer.accept()
        go.wait(SOON)

    with connected(script) as connection:
        waiters = [in_thread(lambda: connection.receive(Deadline(None))) for _ in range(3)]
        go.set()
        assert [outcome(*w) for w in waiters] == [[], [], []]


# --- this side ends it


@pytest.mark.parametrize(
    ("code", "reason"), [(1000, ""), (1001, "going"), (4999, "é" * 61), (None, "")]
)
def test_close_sends_a_close_frame(code: int | None, reason: str) -> None:
    with ScriptedServer(quiet) as server:
        connection = connect(server)
        connection.close(code, reason)
        connection.close(1011, "again")
        assert connection.end == End(code, reason or "closed", ours=True)
        with pytest.raises(SessionClosedError, match=reason or "closed"):
            connection.send("x", Deadline(SOON))
        assert connection.receive(Deadline(None)) == []
    assert close_frame_of(server.peers[0].close_frame) == (code, reason)


@pytest.mark.parametrize("code", [0, 999, 1005, 1006, 1015, 2000, 5000])
def test_close_refuses_a_code_that_can_not_be_sent(code: int) -> None:
    with connected(quiet) as connection:
        with pytest.raises(InvalidParamsError, match=str(code)):
            connection.close(code)
        with pytest.raises(InvalidParamsError, match="at most 123 bytes, not 124"):
            connection.close(1000, "é" * 62)
        assert connection.end is None


def test_abort_sends_nothing() -> None:
    with ScriptedServer(quiet) as server:
        connection = connect(server)
        connection.abort()
        assert connection.end == End(None, "aborted", ours=True)
    assert server.peers[0].close_frame is None


def test_close_from_another_thread_wakes_everybody() -> None:
    def script(peer: Peer) -> None:
        narrow(peer)
        peer.server.release.wait(SOON)  # type: ignore[attr-defined]

    server = ScriptedServer(script)
    server.release = threading.Event()  # type: ignore[attr-defined]
    with server:
        connection = connect(server)
        receivers = [in_thread(lambda: connection.receive(Deadline(None))) for _ in range(2)]
        sender = in_thread(lambda: connection.send("x" * BIG, Deadline(None)))
        until(lambda: link_of(connection)._writer._stuck)
        queued = in_thread(lambda: connection.send("y", Deadline(None)))
        connection.close()
        server.release.set()  # type: ignore[attr-defined]
        assert [outcome(*r) for r in receivers] == [[], []]
        assert isinstance(outcome(*sender), SessionClosedError)
        assert isinstance(outcome(*queued), SessionClosedError)


def test_close_drops_what_was_not_received() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.send_raw(frame(b"never taken"))
        peer.until_gone()

    with connected(script) as connection:
        until(lambda: connection.queued_bytes)
        connection.close()
        assert connection.queued_bytes == 0
        assert connection.receive(Deadline(0)) == []


def test_close_gives_up_on_a_peer_that_does_not_read() -> None:
    release = threading.Event()

    def script(peer: Peer) -> None:
        narrow(peer)
        release.wait(SOON)

    with connected(script) as connection:
        with pytest.raises(RequestTimeoutError):
            connection.send("x" * BIG, Deadline(0.05))
        connection.close(timeout=0.01)
        assert connection.end == End(1000, "closed", ours=True)
        release.set()


def test_closing_from_many_threads_at_once() -> None:
    with connected(quiet) as connection:
        closers = [in_thread(lambda: connection.close(timeout=SOON)) for _ in range(8)]
        assert [outcome(*c) for c in closers] == [None] * 8


def test_a_forgotten_connection_says_goodbye() -> None:
    gone = threading.Event()

    def script(peer: Peer) -> None:
        peer.accept()
        try:
            peer.until_gone()
        finally:
            gone.set()

    with ScriptedServer(script) as server:
        connection = connect(server)
        del connection
        gc.collect()
        assert gone.wait(SOON)
    assert close_frame_of(server.peers[0].close_frame) == (None, "")


def test_opening_and_closing_leaves_nothing(request: pytest.FixtureRequest) -> None:
    # threads and sockets are counted by the fixture that surrounds every test
    with ScriptedServer(echo) as server:
        for n in range(100):
            connection = connect(server)
            connection.send(str(n), Deadline(SOON))
            assert receive(connection, 1) == [b"%d" % n]
            connection.close() if n % 3 else connection.abort()
        assert not [t for t in threading.enumerate() if t.name == "test reader"]


# --- values


def test_reconnect_policy_defaults() -> None:
    policy = ReconnectPolicy()
    assert (policy.max_attempts, policy.max_total) == (20, 300.0)
    assert (policy.initial_backoff, policy.max_backoff, policy.multiplier) == (1.0, 30.0, 2.0)
    assert (policy.jitter, policy.uptime_reset) == (0.2, 30.0)
    assert ReconnectPolicy(max_attempts=3) == ReconnectPolicy(max_attempts=3) != policy


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_attempts", -1),
        ("max_attempts", 2.5),
        ("max_total", "long"),
        ("initial_backoff", float("nan")),
        ("max_backoff", -0.1),
        ("multiplier", 0.5),
        ("jitter", 1.5),
        ("uptime_reset", True),
        ("max_total", float("inf")),
        ("max_total", 10**400),
        ("jitter", 10**400),
    ],
)
def test_reconnect_policy_refuses(field: str, value: Any) -> None:
    with pytest.raises(InvalidParamsError, match=field):
        ReconnectPolicy(**{field: value})
