"""Ctrl-C in each blocking call, forks, and ends without a close: each in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import threading
from contextlib import AbstractContextManager
from typing import Any

import pytest

from tests.support import processes
from tests.support.processes import SOON, ends_well, interrupt, posix, says
from tests.support.scripted import Gone, Peer, ScriptedServer
from tests.support.sessions import COMPLETED, READY, SUCCESS, discovery, slot
from tests.support.streams import PROGRAM, ack, diff, endpoint

PRELUDE = f"""
import os, signal, sys, threading, warnings
from backtest_sync import AdvanceState, BacktestClient, SessionClosedError
from backtest_sync.limits import Deadline

CONTROL, DATA, PROGRAM = sys.argv[1], sys.argv[2], {PROGRAM!r}
client = BacktestClient(CONTROL)

def create():
    return client.create_session(start_slot=100, end_slot=200)

def watch(session, on_notification=None):
    return session.subscribe_program_diffs(PROGRAM, on_notification)
"""


class Service:
    """A control server and an endpoint that do as they are told, and say what they were asked."""

    def __init__(self, *events: Any, mute: str = "", answers: dict[str, list[Any]] | None = None):
        self.events = events  # that a session begins with
        self.mute = mute  # a method that is not answered the first time; "upgrade": nothing is
        self.answers = answers or {}
        self.asked = threading.Semaphore(0)  # released for each request
        self.close_frames: list[bytes | None] = []
        self.messages: list[str] = []

    def __enter__(self) -> Service:
        self._control = ScriptedServer(self._serve_control).__enter__()
        self._data = ScriptedServer(self._serve_data).__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            self._data.__exit__(*error)
        finally:
            self._control.__exit__(*error)

    def program(self, code: str) -> AbstractContextManager[subprocess.Popen[str]]:
        """``code`` as a program that knows where both are."""
        return processes.program(
            processes.PRELUDE + PRELUDE + code, self._control.url, endpoint(self._data)
        )

    def _refuses(self, method: str) -> bool:
        self.messages.append(method)
        self.asked.release()
        if method == self.mute:
            self.mute = ""
            return True
        return False

    def _serve_control(self, peer: Peer) -> None:
        head = peer.read_head()
        if self._refuses("upgrade"):
            peer.until_gone()
        if "Upgrade: websocket" not in head:
            if not self._refuses("GET"):
                peer.respond("200 OK", "[]")
            peer._need(1)
        peer.upgrade()
        try:
            while True:
                method = peer.recv()["method"]
                if not self._refuses(method):
                    self._answer(peer, method)
        except Gone:
            self.close_frames.append(peer.close_frame)

    def _answer(self, peer: Peer, method: str) -> None:
        if method == "createBacktestSession":
            peer.created(rpc_endpoint=endpoint(self._data))
            peer.send(*self.events)
        elif method == "closeBacktestSession":
            peer.send(SUCCESS)
        else:
            peer.send(*self.answers.get(method, []))

    def _serve_data(self, peer: Peer) -> None:
        head = peer.read_head()
        if "Upgrade: websocket" not in head:
            self._refuses("POST")
            peer._need(1 << 20)  # nobody sends that much: until the client leaves
        if self._refuses("upgrade data"):
            peer._need(1 << 20)
        if self._refuses("subscribe"):
            peer.upgrade()
            peer.until_gone()
        peer.upgrade()
        peer.send(ack(peer.recv(), 1), diff(1, 0))
        peer.until_gone()


# --- Ctrl-C

# what blocks, by what the server does about it; each in a session of its own
IN_A_SESSION: dict[str, tuple[dict[str, Any], list[str]]] = {
    "a server that says nothing": (
        {},
        [
            "session.next_response()",
            "session.next_event()",
            "for _ in session: pass",
            "for _ in session.responses(): pass",
            "session.ensure_ready()",
            "session.wait_for_status('decodedTransactions')",
            "session.advance_step(AdvanceState(), False)",
            "session.advance()",
            "session.advance_to_discovery()",
            "for _ in session.discoveries(): pass",
            "session.resume_attached_session()",
            "handle = watch(session); handle.get(); handle.get()",
            "for _ in watch(session): pass",
            "watch(session).join()",
            "watch(session, lambda _: None).join()",
            "watch(session, lambda _: None); session.drain()",
            "watch(session, lambda _: threading.Event().wait()).stop()",
        ],
    ),
    "a server that gets ready and no further": (
        {"events": (READY,)},
        [
            "session.advance()",
            "session.continue_until_ready(5)",
            "session.continue_()",
            "session.continue_to(105)",
            "session.advance_to_discovery()",
            "session.run()",
        ],
    ),
    "a server that finds something": (
        {"events": (discovery(101), READY)},
        ["session.advance_to_discovery()"],
    ),
    "a stream that does not end": (
        {"events": (READY,), "answers": {"continue": [slot(101), COMPLETED]}},
        ["watch(session, lambda _: None); session.run()"],
    ),
    "a server that does not close": (
        {"mute": "closeBacktestSession"},
        ["session.close()"],
    ),
    "an endpoint that does not answer": (
        {},
        [
            "session.rpc.get_slot()",
            "session.modify_accounts({})",
            "session.modify_program(PROGRAM, b'\\x7fELF' + bytes(100))",
        ],
    ),
    "an endpoint that does not connect": ({"mute": "upgrade data"}, ["watch(session)"]),
    "an endpoint that acknowledges nothing": ({"mute": "subscribe"}, ["watch(session)"]),
}


@posix
@pytest.mark.parametrize("kind", IN_A_SESSION)
def test_ctrl_c_in_a_session(kind: str) -> None:
    options, calls = IN_A_SESSION[kind]
    code = f"""
import logging
logging.disable()  # of a callback that hangs
for call in {calls!r}:
    session = create()
    exec(f"def act(session):\\n    {{call}}")
    try:
        say(call)  # the signal may come in the middle of saying so
        act(session)
    except KeyboardInterrupt:
        say("interrupted")
    session.close(1)
    assert session.is_closed
"""
    with Service(*options.pop("events", ()), **options) as served, served.program(code) as process:
        for call in calls:
            says(process, call)
            interrupt(process)
            says(process, "interrupted")
        ends_well(process)
    assert served.close_frames == [b""] * len(calls)


OF_A_CLIENT: dict[str, tuple[str, str]] = {
    "create_session, connecting": ("create()", "upgrade"),
    "create_session": ("create()", "createBacktestSession"),
    "create_sessions": (
        "client.create_sessions(start_slot=1, end_slot=2, parallel=True)",
        "createBacktestSession",
    ),
    "attach_session": (
        "client.attach_session('backtest_' + '0' * 32)",
        "attachBacktestSession",
    ),
    "available_ranges": ("client.available_ranges()", "GET"),
    "usage_sessions": ("client.usage_sessions()", "GET"),
    "close": ("create(); session = create(); client.close()", "closeBacktestSession"),
}


@posix
@pytest.mark.parametrize("call", OF_A_CLIENT)
def test_ctrl_c_in_a_client(call: str) -> None:
    code, mute = OF_A_CLIENT[call]
    with (
        Service(mute=mute) as served,
        served.program(
            f"""
say("waiting")
try:
    {code}
except KeyboardInterrupt:
    say("interrupted")
client.close()
for thread in threading.enumerate():
    if thread is not threading.main_thread():
        thread.join()
"""
        ) as process,
    ):
        says(process, "waiting")
        while mute not in served.messages:
            assert served.asked.acquire(timeout=SOON)
        interrupt(process)
        says(process, "interrupted")
        ends_well(process)


@posix
def test_after_ctrl_c_a_step_can_be_waited_for_again() -> None:
    asked, go = threading.Event(), threading.Event()

    def script(peer: Peer) -> None:
        peer.accept()
        peer.expect("createBacktestSession")
        peer.created()
        peer.send(READY)
        peer.expect("continue")
        asked.set()
        assert go.wait(SOON)
        peer.send(slot(101), READY)
        peer.expect("continue")
        peer.send(slot(102), READY)
        peer.serve_close()

    code = """
session = create()
try:
    say("waiting")
    session.advance()
except KeyboardInterrupt:
    say("interrupted")
session.ensure_ready()
assert session.coverage.highest_slot_seen == 101
assert session.advance().last_slot == 102
session.close(10)
"""
    with ScriptedServer(script) as server:
        with processes.program(processes.PRELUDE + PRELUDE + code, server.url, "") as process:
            says(process, "waiting")
            assert asked.wait(SOON)
            interrupt(process)
            says(process, "interrupted")
            go.set()
            ends_well(process)


# --- other signals


@posix
@pytest.mark.parametrize(
    ("call", "mute"),
    [
        ("session.next_event()", ""),
        ("session.ensure_ready()", ""),
        ("session.close()", "closeBacktestSession"),
        ("list(watch(session))", ""),
    ],
)
def test_a_signal_handler_may_close_the_session(call: str, mute: str) -> None:
    code = f"""
import logging
logging.disable()  # of a stream that could not be read to its end
session = create()
signal.signal(signal.SIGTERM, lambda *_: session.close(1))
say("waiting")
quietly(lambda: {call})
assert session.is_closed
"""
    with Service(mute=mute) as served, served.program(code) as process:
        says(process, "waiting")
        while mute and mute not in served.messages:
            assert served.asked.acquire(timeout=SOON)
        interrupt(process, signal.SIGTERM)
        ends_well(process)
    assert served.close_frames == [b""]


# --- the interpreter's exit

STATES: dict[str, tuple[str, tuple[Any, ...]]] = {
    "created": ("session = create()", ()),
    "ready": ("session = create()\nsession.ensure_ready()", (READY,)),
    "a Continue is under way": (
        "session = create()\nsession.ensure_ready()\nsession.send_continue()",
        (READY,),
    ),
    "a thread waits": ("session = create()\nin_thread(quietly, session.advance)", (READY,)),
    "completed": ("session = create()\nassert session.run().completed", (COMPLETED,)),
    "a handle": ("session = create()\nhandle = watch(session)", ()),
    "a callback": (
        "done = threading.Event()\nsession = create()\n"
        "handle = watch(session, lambda _: done.set())\ndone.wait()",
        (),
    ),
    "a callback hangs": (
        "begun = threading.Event()\nsession = create()\n"
        "handle = watch(session, lambda _: (begun.set(), threading.Event().wait()))\nbegun.wait()",
        (),
    ),
    "in a cycle": ("box = [create()]\nbox.append(box)", ()),
    "many": ("sessions = [create() for _ in range(10)]", ()),
}


@pytest.mark.parametrize("state", STATES)
def test_exit_without_a_close(state: str) -> None:
    code, events = STATES[state]
    with Service(*events) as served, served.program(code) as process:
        ends_well(process)
    assert served.close_frames == [b""] * (10 if state == "many" else 1)
    assert "closeBacktestSession" not in served.messages


def test_exit_by_an_error_in_a_with_block_closes() -> None:
    code = "with create() as session:\n    1 / 0"
    with Service() as served, served.program(code) as process:
        ends_well(process, 1, "ZeroDivisionError: division by zero")
    assert "closeBacktestSession" in served.messages


def test_exit_while_a_thread_creates() -> None:
    with Service(mute="createBacktestSession") as served:
        with served.program("in_thread(quietly, create)\nsys.stdin.read()") as process:
            while "createBacktestSession" not in served.messages:
                assert served.asked.acquire(timeout=SOON)
            ends_well(process)  # which closes its input


# --- fork

FORK = """
warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads

def use():
    for use in (
        session.next_event, session.ensure_ready, session.send_continue, session.advance,
        session.run, session.resume_attached_session, session.advance_to_discovery,
        lambda: next(session), lambda: next(session.responses()), lambda: session.continue_to(105),
        lambda: session.wait_for_status("x"),
    ):
        try:
            use()
        except SessionClosedError as error:
            assert f"belongs to process {os.getppid()}" in str(error), error
        else:
            raise AssertionError("a session that is not its own was of use")

def close():
    session.close()
    assert session.is_closed
    session.abort()

def leave():
    with session:
        pass

session = create()
session.ensure_ready()
BEFORE
for child in (use, close, leave, client.close, sys.exit):
    pid = os.fork()
    if pid == 0:
        child()
        sys.exit()
    assert os.waitpid(pid, 0)[1] == 0, child
AFTER
session.close(10)
"""


@posix
def test_a_forked_process_leaves_the_session_alone() -> None:
    code = FORK.replace("BEFORE", "")
    code = code.replace("AFTER", "assert session.advance().last_slot == 101")
    answers = {"continue": [slot(101), READY]}
    with Service(READY, answers=answers) as served, served.program(code) as process:
        ends_well(process)
    assert served.messages.count("closeBacktestSession") == 1
    assert served.messages.count("continue") == 1


@posix
def test_a_fork_while_threads_use_the_session() -> None:
    """The copies of their locks are held by nobody who could let them go."""
    before = """
handle = watch(session, lambda _: None)
in_thread(quietly, session.next_event)
while session._channel._turn.acquire(blocking=False):
    session._channel._turn.release()
"""
    code = FORK.replace("BEFORE", before).replace("AFTER", "")
    with Service(READY) as served, served.program(code) as process:
        ends_well(process)
    assert served.messages.count("closeBacktestSession") == 1
