"""Connections for tests: to scripts, in threads, and waits for what has to happen."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from backtest_sync.connection import Connection, End
from backtest_sync.limits import Deadline
from backtest_sync.link import Link
from tests.support.scripted import (
    CLOSE,
    Gone,
    Peer,
    Script,
    ScriptedServer,
    frame,
)

BIG = 8 << 20  # more than the system buffers between a client and a `narrow` peer
SOON = 10.0  # what a test waits for something that happens at once


def connect(server: ScriptedServer, **options: Any) -> Connection:
    options = {"name": "test reader", "headers": {"X-API-Key": "k"}, **options}
    return Connection.open(server.url, **options)


@contextmanager
def connected(*scripts: Script, **options: Any) -> Iterator[Connection]:
    with ScriptedServer(*scripts) as server:
        connection = connect(server, **options)
        try:
            yield connection
        finally:
            connection.close()


def receive(connection: Connection, count: int) -> list[bytes]:
    """The next ``count`` messages."""
    messages: list[bytes] = []
    while len(messages) < count:
        some = connection.receive(Deadline(SOON))
        assert some, f"{len(messages)} of {count} messages, then {connection.end}"
        messages += some
    return messages


def link_of(connection: Connection) -> Link:
    link = connection._core.link
    assert link is not None
    return link


def ended(connection: Connection) -> End:
    """How the connection ends, once everything before it was received."""
    while connection.receive(Deadline(SOON)):
        pass
    assert connection.end is not None
    return connection.end


def until(condition: Callable[[], object]) -> None:
    """Wait for what has no event of its own."""
    limit = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < limit, "it did not come true"
        time.sleep(0.002)


def in_thread(work: Callable[[], object]) -> tuple[threading.Thread, list[Any]]:
    """Run ``work`` in a thread; gives the thread and where its result or exception will be."""
    result: list[Any] = []

    def run() -> None:
        try:
            result.append(work())
        except BaseException as error:
            result.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, result


def outcome(thread: threading.Thread, result: list[Any]) -> Any:
    thread.join(SOON)
    assert not thread.is_alive(), "it is still waiting"
    return result[0]


def quiet(peer: Peer) -> None:
    """Accept, and do nothing until the client leaves."""
    peer.accept()
    peer.until_gone()


def echo(peer: Peer) -> None:
    peer.accept()
    while True:
        opcode, data = peer.recv_frame()
        if opcode == CLOSE:
            peer.close_frame = data
            return
        peer.send_raw(frame(data, opcode))


def narrow(peer: Peer) -> None:
    """Accept, and let little lie on the way to this peer."""
    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    peer.accept()


def swallow(peer: Peer, count: int, pace: Callable[[], object] = lambda: None) -> None:
    """Read that many bytes."""
    count -= len(peer._buffer)
    peer._buffer = b""
    while count > 0:
        chunk = peer.sock.recv(min(count, 256 * 1024))
        if not chunk:
            raise Gone("end of stream")
        count -= len(chunk)
        pace()


def close_frame_of(data: bytes | None) -> tuple[int | None, str]:
    assert data is not None, "no close frame came"
    return (struct.unpack(">H", data[:2])[0], data[2:].decode()) if data else (None, "")


def flood(peer: Peer, size: int, count: int, stuck: threading.Event) -> None:
    """Send ``count`` numbered messages of ``size`` bytes; ``stuck`` is set when there is no room for more."""
    # what the system buffers on the way, the test need not fill
    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
    peer.sock.settimeout(0.2)
    view = memoryview(b"".join(frame(b"%0*d" % (size, n)) for n in range(count)))
    try:
        while view:
            view = view[peer.sock.send(view) :]
    except TimeoutError:
        stuck.set()
    peer.sock.settimeout(None)
    peer.send_raw(bytes(view))
    peer.until_gone()
