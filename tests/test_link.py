"""One socket's life: back pressure, keepalive, and sending beside a reader."""

from __future__ import annotations

import threading

import pytest

from backtest_sync.connection import Connection, End
from backtest_sync.errors import RequestTimeoutError, SessionClosedError
from backtest_sync.limits import Deadline
from tests.support.connections import (
    BIG,
    SOON,
    connect,
    connected,
    echo,
    ended,
    flood,
    in_thread,
    link_of,
    narrow,
    outcome,
    quiet,
    receive,
    swallow,
    until,
)
from tests.support.scripted import (
    PING,
    PONG,
    Peer,
    ScriptedServer,
    frame,
)

# --- back pressure


def test_a_slow_consumer_makes_the_server_wait() -> None:
    size, count = 1000, 40_000
    limit = 1 << 20
    held = threading.Event()

    def script(peer: Peer) -> None:
        peer.accept()
        flood(peer, size, count, held)

    with connected(script, max_queue_bytes=limit) as connection:
        assert held.wait(SOON), "the server could send everything to a consumer that took nothing"
        # what came in the last turn is over the limit, and nothing more
        assert limit < connection.queued_bytes < limit + 2 * 256 * 1024
        messages = receive(connection, count)
        assert [int(m) for m in messages] == list(range(count))
        assert connection.queued_bytes == 0


def test_large_messages_count_with_all_their_bytes() -> None:
    size, count = 700_000, 20

    def script(peer: Peer) -> None:
        peer.accept()
        for n in range(count):
            peer.send_raw(frame(b"%0*d" % (size, n)))
        peer.until_gone()

    with connected(script, max_queue_bytes=3 * size) as connection:
        until(lambda: connection.queued_bytes > 3 * size)
        for n in range(count):
            assert connection.queued_bytes < 5 * size
            assert int(receive(connection, 1)[0][-4:]) == n


def test_a_full_queue_is_not_silence_of_the_peer() -> None:
    pinged = threading.Event()
    count = 3000

    def script(peer: Peer) -> None:
        peer.accept()
        flood = b"".join(frame(b"%01000d" % n) for n in range(count))
        sender, sent = in_thread(lambda: peer.sock.sendall(flood))
        # pings go out, their answers are not read: for longer than the deadline
        for _ in range(10):
            while peer.recv_frame()[0] != PING:
                pass
        pinged.set()
        try:
            peer.until_gone()
        finally:
            outcome(sender, sent)

    with connected(
        script, max_queue_bytes=100_000, ping_interval=0.02, ping_deadline=0.1
    ) as connection:
        assert pinged.wait(SOON)
        assert connection.end is None
        assert [int(m) for m in receive(connection, count)] == list(range(count))


def test_pings_are_answered_once_there_is_room() -> None:
    answered = threading.Event()

    def script(peer: Peer) -> None:
        peer.accept()
        peer.sock.sendall(frame(b"x" * 1000) + frame(b"y" * 1000) + frame(b"are you there", PING))
        assert peer.recv_frame() == (PONG, b"are you there")
        answered.set()
        peer.until_gone()

    with connected(script, max_queue_bytes=100) as connection:
        receive(connection, 2)
        assert answered.wait(SOON)


# --- keepalive


def test_pings_are_answered_with_their_payload() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        for payload in (b"", b"abc", b"x" * 125):
            peer.send_raw(frame(payload, PING))
            assert peer.recv_frame() == (PONG, payload)
        peer.send_raw(frame(b"done"))
        peer.until_gone()

    with connected(script) as connection:
        assert receive(connection, 1) == [b"done"]


def test_an_idle_connection_is_pinged_and_lives_on_the_answers() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        for _ in range(12):  # longer than the deadline in all
            opcode, data = peer.recv_frame()
            assert opcode == PING
            peer.send_raw(frame(data, PONG))
        peer.send_raw(frame(b"done"))
        peer.until_gone()

    with connected(script, ping_interval=0.01, ping_deadline=0.06) as connection:
        assert receive(connection, 1) == [b"done"]


def test_any_frame_counts_as_an_answer() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        for _ in range(12):
            assert peer.recv_frame()[0] == PING
            peer.send_raw(frame(b"busy"))
        peer.until_gone()

    with connected(script, ping_interval=0.01, ping_deadline=0.06) as connection:
        receive(connection, 12)
        assert connection.end is None


def test_a_peer_that_stays_silent_is_lost() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.send_raw(frame(b"last words"))
        while True:
            peer.recv_frame()

    with connected(script, ping_interval=0.02, ping_deadline=0.08) as connection:
        assert receive(connection, 1) == [b"last words"]
        assert ended(connection) == End(None, "no traffic for 0.08 s")
        with pytest.raises(SessionClosedError, match=r"no traffic for 0\.08 s"):
            connection.send("x", Deadline(SOON))


def test_a_long_send_that_makes_progress_is_no_silence() -> None:
    sent = threading.Event()

    def script(peer: Peer) -> None:
        narrow(peer)
        # a slow peer that says nothing, for longer than the deadline
        swallow(peer, BIG, pace=lambda: sent.wait(0.01))
        peer.send_raw(frame(b"thanks"))
        peer._need(1 << 30)

    with connected(script, ping_interval=0.2, ping_deadline=1.0) as connection:
        connection.send("x" * BIG, Deadline(SOON))
        sent.set()
        assert receive(connection, 1) == [b"thanks"]


# --- sending


def test_messages_of_many_senders_stay_whole() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.got = peer.until_gone()  # type: ignore[attr-defined]

    with ScriptedServer(script) as server:
        connection = connect(server)
        texts = [f'"{name * n}"' for name in "abcdef" for n in (1, 100, 70_000, 300_000)]

        def send(mine: list[str]) -> None:
            for text in mine:
                connection.send(text, Deadline(SOON))

        senders = [in_thread(lambda part=texts[i::6]: send(part)) for i in range(6)]  # type: ignore[misc]
        assert [outcome(*s) for s in senders] == [None] * 6
        connection.close()
    got = server.peers[0].got  # type: ignore[attr-defined]
    assert sorted(got) == sorted(t.strip('"') for t in texts)


def test_a_large_send_does_not_stop_the_reader() -> None:
    size = 16 << 20
    received = threading.Event()

    def script(peer: Peer) -> None:
        narrow(peer)
        peer.send_raw(b"".join(frame(b"%d" % n) for n in range(5000)))
        assert received.wait(SOON), "nothing was received while a message was being sent"
        swallow(peer, size + 14)
        peer.until_gone()

    with connected(script) as connection:
        sender = in_thread(lambda: connection.send("x" * size, Deadline(SOON)))
        until(lambda: link_of(connection)._writer._stuck)
        assert [int(m) for m in receive(connection, 5000)] == list(range(5000))
        assert sender[0].is_alive()
        received.set()
        assert outcome(*sender) is None


def test_a_send_that_was_begun_is_finished_before_the_next() -> None:
    go = threading.Event()

    def script(peer: Peer) -> None:
        narrow(peer)
        go.wait(SOON)
        peer.texts = [peer.recv_text() for _ in range(2)]  # type: ignore[attr-defined]
        peer.send_raw(frame(b"got them"))
        peer.until_gone()

    with ScriptedServer(script) as server:
        connection = connect(server)
        text = "x" * BIG
        with pytest.raises(RequestTimeoutError, match=r"timeout while sending after 0\.05 s"):
            connection.send(text, Deadline(0.05))
        # nothing of this one was sent: it never will be
        with pytest.raises(RequestTimeoutError, match="sending"):
            connection.send("lost", Deadline(0.01))
        go.set()
        connection.send("next", Deadline(SOON))
        assert receive(connection, 1) == [b"got them"]
        connection.close()
    assert server.peers[0].texts == [text, "next"]  # type: ignore[attr-defined]


def test_a_send_that_was_begun_is_finished_with_nobody_sending() -> None:
    go = threading.Event()

    def script(peer: Peer) -> None:
        narrow(peer)
        go.wait(SOON)
        peer.send_raw(frame(b"%d" % len(peer.recv_text())))
        peer.until_gone()

    with connected(script) as connection:
        with pytest.raises(RequestTimeoutError):
            connection.send("x" * BIG, Deadline(0.05))
        go.set()
        assert receive(connection, 1) == [b"%d" % BIG]


def test_a_send_waits_for_its_turn_no_longer_than_its_deadline() -> None:
    release = threading.Event()

    def script(peer: Peer) -> None:
        narrow(peer)
        release.wait(SOON)

    with connected(script) as connection:
        sender = in_thread(lambda: connection.send("x" * BIG, Deadline(None)))
        until(lambda: link_of(connection)._writer._stuck)
        with pytest.raises(RequestTimeoutError, match=r"sending after 0\.02 s"):
            connection.send("me too", Deadline(0.02))
        connection.close()
        assert isinstance(outcome(*sender), SessionClosedError)
        release.set()


def test_a_failing_send_tells_what_the_peer_said_last() -> None:
    closed = threading.Event()

    def script(peer: Peer) -> None:
        peer.accept()
        peer.send_close(1012, "management handoff")
        peer.sock.close()
        closed.set()

    with connected(script) as connection:
        assert closed.wait(SOON)
        with pytest.raises(SessionClosedError, match="Restart: management handoff") as caught:
            send_on(connection)
        assert caught.value.code == 1012


def send_on(connection: Connection) -> None:
    for _ in range(1000):
        connection.send("x" * 100_000, Deadline(SOON))


def interrupt_a_write(connection: Connection, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Send 100 bytes, with Ctrl-C when ``size`` bytes of the frame have gone."""
    stream = link_of(connection)._stream
    send = stream.send

    def interrupted(data: memoryview, gone: list[int]) -> bool:
        if threading.current_thread() is not threading.main_thread():
            return send(data, gone)
        if size:
            send(data[:size], gone)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(stream, "send", interrupted)
        with pytest.raises(KeyboardInterrupt):
            connection.send("x" * 100, Deadline(SOON))


@pytest.mark.parametrize(("size", "arrives"), [(0, False), (3, True), (106, True)])
def test_an_interrupt_inside_a_write_tears_nothing(
    size: int, arrives: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connected(echo) as connection:
        interrupt_a_write(connection, monkeypatch, size)
        connection.send("y", Deadline(SOON))
        expected = [b"x" * 100] * arrives + [b"y"]
        assert receive(connection, len(expected)) == expected


def test_an_interrupt_inside_a_write_over_tls_ends_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There it can't be told how much of the frame has gone: nothing may follow it."""
    with ScriptedServer(quiet) as server:
        connection = connect(server)
        monkeypatch.setattr(link_of(connection)._stream, "tls", True)
        interrupt_a_write(connection, monkeypatch, 3)
        assert ended(connection).reason == "connection lost: a write was interrupted"
        with pytest.raises(SessionClosedError):
            connection.send("y", Deadline(SOON))
        connection.close()
    assert server.peers[0].close_frame is None
