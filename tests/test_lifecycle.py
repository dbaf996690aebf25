"""A connection in a process that exits, forks, or is interrupted: each in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import threading
from contextlib import AbstractContextManager

import pytest

from tests.support import processes
from tests.support.certificates import server_tls
from tests.support.connections import BIG, SOON, close_frame_of, echo, narrow, quiet
from tests.support.processes import ends_well, posix, says
from tests.support.scripted import CLOSE, Peer, ScriptedServer, frame

PRELUDE = """
import os, sys, threading
from backtest_sync.connection import Connection
from backtest_sync.errors import SessionClosedError
from backtest_sync.limits import Deadline

URL = sys.argv[1]
FOREVER, SOON = Deadline(None), Deadline(20)

def connect(**options):
    return Connection.open(URL, name="reader", headers={}, **options)
"""


def program(code: str, url: str) -> AbstractContextManager[subprocess.Popen[str]]:
    return processes.program(processes.PRELUDE + PRELUDE + code, url)


# --- the interpreter's exit


def flood(peer: Peer) -> None:
    """Send until the client leaves, and read what it says meanwhile."""
    peer.accept()
    data = b"".join(frame(b"x" * 1000) for _ in range(100))
    reader = threading.Thread(target=lambda: keep_close_frame(peer), daemon=True)
    reader.start()
    try:
        while True:
            peer.send_raw(data)
    finally:
        reader.join(SOON)


def keep_close_frame(peer: Peer) -> None:
    while peer.close_frame is None:
        opcode, data = peer.recv_frame()
        if opcode == CLOSE:
            peer.close_frame = data


STATES = {
    "idle": "connection = connect()",
    "in a function that failed": "def main():\n    c = connect()\n    1 / 0\nmain()",
    "many": "connections = [connect() for _ in range(20)]",
    "a thread in receive": (
        "connection = connect()\nin_thread(quietly, connection.receive, FOREVER)"
    ),
    "in a cycle": "box = [connect()]\nbox.append(box)",
    "sent just before": "connection = connect()\nconnection.send('{}', SOON)",
    "half closed by a thread": ("connection = connect()\nin_thread(connection.close)"),
}


@pytest.mark.parametrize("state", STATES)
def test_exit_without_close_says_goodbye(state: str) -> None:
    with ScriptedServer(quiet) as server, program(STATES[state], server.url) as process:
        if "failed" in state:
            ends_well(process, 1, "ZeroDivisionError: division by zero")
        else:
            ends_well(process)
    assert len(server.peers) == (20 if state == "many" else 1)
    for peer in server.peers:
        assert close_frame_of(peer.close_frame)[0] in (None, 1000)


def test_exit_with_a_full_queue() -> None:
    code = """
connection = connect(max_queue_bytes=100_000)
assert connection.receive(SOON)
while not connection._inbox.full:
    connection._inbox.wait(lambda: connection._inbox.full, Deadline(0.05))
"""
    with ScriptedServer(flood) as server, program(code, server.url) as process:
        ends_well(process)
    assert server.peers[0].close_frame == b""


def test_exit_with_a_thread_in_send() -> None:
    release = threading.Event()

    def script(peer: Peer) -> None:
        narrow(peer)
        release.wait(SOON)

    code = f"""
connection = connect()
in_thread(quietly, connection.send, "x" * {BIG}, FOREVER)
while not connection._core.link._writer._stuck:
    connection.receive(Deadline(0.01))
"""
    with ScriptedServer(script) as server, program(code, server.url) as process:
        ends_well(process)
        release.set()


def test_exit_after_the_peer_has_left() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.send_close(1012, "management handoff")
        peer.until_gone()

    code = "connection = connect()\nassert not connection.receive(SOON)\nassert connection.end"
    with ScriptedServer(script) as server, program(code, server.url) as process:
        ends_well(process)


def test_exit_over_tls() -> None:
    code = """
import ssl
context = ssl._create_unverified_context()
connection = connect(ssl_context=context)
"""
    with ScriptedServer(quiet, tls=server_tls()) as server, program(code, server.url) as process:
        ends_well(process)
    assert server.peers[0].close_frame == b""


def test_exit_while_a_thread_is_still_opening() -> None:
    reached, release = threading.Event(), threading.Event()

    def script(peer: Peer) -> None:
        peer.read_head()
        reached.set()
        release.wait(SOON)

    code = "in_thread(connect)\nsys.stdin.read()"
    with ScriptedServer(script) as server, program(code, server.url) as process:
        assert reached.wait(SOON)
        ends_well(process)  # which closes its input
        release.set()


# --- fork


@posix
@pytest.mark.parametrize("child", ["uses it", "closes it", "forgets it", "just exits"])
def test_a_forked_process_leaves_the_connection_alone(child: str) -> None:
    code = """
import gc, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads
connection = connect()
connection.send('"before"', SOON)
assert connection.receive(SOON) == [b'"before"']
pid = os.fork()
if pid == 0:
    CHILD
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
connection.send('"after"', SOON)
assert connection.receive(SOON) == [b'"after"']
connection.close(1000, "the parent")
"""
    actions = {
        "uses it": """
    for use in (lambda: connection.send("x", SOON), lambda: connection.receive(SOON),
                connection.wake):
        try:
            use()
        except SessionClosedError as error:
            assert f"belongs to process {os.getppid()}" in str(error)
        else:
            sys.exit(1)
""",
        "closes it": "    connection.close()\n    connection.abort()\n",
        "forgets it": "    del connection\n    gc.collect()\n",
        "just exits": "    pass\n",
    }
    code = code.replace("    CHILD\n", actions[child])
    with ScriptedServer(echo) as server, program(code, server.url) as process:
        ends_well(process)
    assert close_frame_of(server.peers[0].close_frame) == (1000, "the parent")


# --- Ctrl-C


@posix
def test_ctrl_c_in_receive() -> None:
    code = """
connection = connect()
try:
    say("ready")
    connection.receive(FOREVER)
except KeyboardInterrupt:
    connection.send('"still here"', SOON)
    assert connection.receive(SOON) == [b'"still here"']
    connection.close()
    say("closed")
"""
    with ScriptedServer(echo) as server, program(code, server.url) as process:
        says(process, "ready")
        process.send_signal(signal.SIGINT)
        says(process, "closed")
        ends_well(process)
    assert close_frame_of(server.peers[0].close_frame)[0] == 1000


@posix
def test_ctrl_c_in_send() -> None:
    go = threading.Event()

    def script(peer: Peer) -> None:
        narrow(peer)
        go.wait(SOON)
        peer.lengths = [len(peer.recv_text()) for _ in range(2)]  # type: ignore[attr-defined]
        peer.until_gone()

    code = f"""
connection = connect()
def tell():
    while not connection._core.link._writer._stuck:
        connection.receive(Deadline(0.01))
    say("ready")
in_thread(tell)
try:
    connection.send("x" * {BIG}, FOREVER)
except KeyboardInterrupt:
    say("interrupted")
    connection.send("next", SOON)  # behind the rest of the first
    connection.close()
"""
    with ScriptedServer(script) as server, program(code, server.url) as process:
        says(process, "ready")
        process.send_signal(signal.SIGINT)
        says(process, "interrupted")
        go.set()
        ends_well(process)
    assert server.peers[0].lengths == [BIG, 4]  # type: ignore[attr-defined]


@posix
def test_ctrl_c_while_waiting_for_another_sender() -> None:
    release = threading.Event()

    def script(peer: Peer) -> None:
        narrow(peer)
        release.wait(SOON)

    code = f"""
connection = connect()
in_thread(quietly, connection.send, "x" * {BIG}, FOREVER)
while not connection._core.link._writer._stuck:
    connection.receive(Deadline(0.01))
try:
    say("ready")
    connection.send("next", FOREVER)
except KeyboardInterrupt:
    connection.close()
    say("closed")
"""
    with ScriptedServer(script) as server, program(code, server.url) as process:
        says(process, "ready")
        process.send_signal(signal.SIGINT)
        says(process, "closed")
        ends_well(process)
        release.set()


@posix
def test_ctrl_c_while_opening() -> None:
    reached, release = threading.Event(), threading.Event()

    def script(peer: Peer) -> None:
        peer.read_head()
        reached.set()
        release.wait(SOON)

    code = """
try:
    connect(connect_timeout=60)
except KeyboardInterrupt:
    for thread in threading.enumerate():
        if thread.name == "reader":
            thread.join()
    say("interrupted")
"""
    with ScriptedServer(script) as server, program(code, server.url) as process:
        assert reached.wait(SOON)
        process.send_signal(signal.SIGINT)
        says(process, "interrupted")
        ends_well(process)
        release.set()
