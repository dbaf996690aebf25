"""The same connection over TLS: one thread reads beside others that write, and nothing breaks."""

from __future__ import annotations

import os
import socket
import ssl
import threading

import pytest

from backtest_sync.connection import Connection, End
from backtest_sync.errors import RequestTimeoutError
from backtest_sync.limits import Deadline
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
    quiet,
    receive,
    swallow,
    until,
)
from tests.support.duplex import check_duplex, duplex_server
from tests.support.scripted import CLOSE, Peer, Script, ScriptedServer, frame


def serve(script: Script) -> ScriptedServer:
    return ScriptedServer(script, tls=server_tls())


def secure(server: ScriptedServer, **options: object) -> Connection:
    return connect(server, ssl_context=client_tls(), **options)


def test_full_duplex_breaks_no_connection() -> None:
    tls = client_tls()
    with duplex_server() as url:
        assert [check_duplex(url, 400, tls) for _ in range(20)] == [None] * 20


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_round_trips(version: ssl.TLSVersion) -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        assert isinstance(peer.sock, ssl.SSLSocket)
        peer.version = peer.sock.version()  # type: ignore[attr-defined]
        while True:
            opcode, data = peer.recv_frame()
            peer.send_raw(frame(data, opcode))
            if opcode == CLOSE:
                return

    context = client_tls()
    context.maximum_version = version
    with serve(script) as server:
        connection = connect(server, ssl_context=context)
        for size in (0, 1, 100, 16_384, 16_385, 1_000_000):
            connection.send("x" * size, Deadline(SOON))
            assert receive(connection, 1) == [b"x" * size]
        connection.close()
    assert server.peers[0].version == version.name.replace("_", ".")  # type: ignore[attr-defined]


def test_what_the_tls_layer_holds_back_is_not_forgotten() -> None:
    """Many messages in one record: the socket has nothing more to show after the first read."""
    count = 100_000

    def script(peer: Peer) -> None:
        peer.accept()
        peer.send_raw(b"".join(frame(b"%d" % n) for n in range(count)))
        peer.until_gone()

    # a queue that is soon full makes the reader stop, and go on, in the middle of records
    with serve(script) as server:
        connection = secure(server, max_queue_bytes=300_000)
        until(lambda: connection.queued_bytes > 300_000)
        assert [int(m) for m in receive(connection, count)] == list(range(count))
        connection.close()


def test_a_large_send_does_not_stop_the_reader() -> None:
    received = threading.Event()

    def script(peer: Peer) -> None:
        narrow(peer)
        peer.send_raw(b"".join(frame(b"%d" % n) for n in range(5000)))
        assert received.wait(SOON)
        swallow(peer, 2 * BIG + 14)
        peer.until_gone()

    with serve(script) as server:
        connection = secure(server)
        sender = in_thread(lambda: connection.send("x" * (2 * BIG), Deadline(SOON)))
        until(lambda: link_of(connection)._writer._stuck)
        assert [int(m) for m in receive(connection, 5000)] == list(range(5000))
        assert sender[0].is_alive()
        received.set()
        assert outcome(*sender) is None
        connection.close()


def test_a_send_that_ran_out_of_time_is_finished_before_the_next() -> None:
    go = threading.Event()

    def script(peer: Peer) -> None:
        narrow(peer)
        go.wait(SOON)
        lengths = [len(peer.recv_text()) for _ in range(2)]
        peer.send_raw(frame(str(lengths).encode()))
        peer.until_gone()

    with serve(script) as server:
        connection = secure(server)
        with pytest.raises(RequestTimeoutError, match="sending"):
            connection.send("x" * BIG, Deadline(0.05))
        with pytest.raises(RequestTimeoutError, match="sending"):
            connection.send("lost", Deadline(0.01))
        go.set()
        connection.send("next", Deadline(SOON))
        assert receive(connection, 1) == [f"[{BIG}, 4]".encode()]
        connection.close()


@pytest.mark.parametrize("orderly", [True, False])
def test_the_end_of_the_stream(orderly: bool) -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.send_raw(frame(b"bye"))
        assert isinstance(peer.sock, ssl.SSLSocket)
        if orderly:
            peer.sock.setblocking(False)
            with pytest.raises(ssl.SSLWantReadError):
                peer.sock.unwrap()  # says goodbye, and does not wait for the answer

    with serve(script) as server:
        connection = secure(server)
        assert receive(connection, 1) == [b"bye"]
        assert ended(connection) == End(None, "connection reset without closing handshake")
        connection.close()


def test_a_reset() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.recv_text()
        peer.reset()

    with serve(script) as server:
        connection = secure(server)
        connection.send("go", Deadline(SOON))
        assert ended(connection).reason == "connection reset without closing handshake"
        connection.close()


def test_bytes_that_are_no_tls() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        with socket.socket(fileno=os.dup(peer.sock.fileno())) as raw:
            raw.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        peer.until_gone()

    with serve(script) as server:
        connection = secure(server)
        end = ended(connection)
        assert end.reason.startswith("connection lost: ")
        assert isinstance(end.cause, ssl.SSLError)
        connection.close()


def test_close_wakes_everybody_and_sends_a_close_frame() -> None:
    with serve(quiet) as server:
        connection = secure(server)
        receivers = [in_thread(lambda: connection.receive(Deadline(None))) for _ in range(2)]
        connection.close(1001, "going")
        assert [outcome(*r) for r in receivers] == [[], []]
    assert close_frame_of(server.peers[0].close_frame) == (1001, "going")


def test_opening_and_closing_leaves_nothing() -> None:
    tls = client_tls()
    with serve(quiet) as server:
        for n in range(30):
            connection = connect(server, ssl_context=tls)
            connection.close() if n % 3 else connection.abort()
