"""A subscription in a process that is interrupted, exits or forks: each in a process of its own."""

from __future__ import annotations

import signal
import subprocess
from contextlib import AbstractContextManager

import pytest

from tests.support import processes
from tests.support.processes import ends_well, interrupt, posix, says
from tests.support.scripted import ScriptedServer
from tests.support.streams import PROGRAM, diff, diffs, end, endpoint, stream

PRELUDE = f"""
import os, sys, threading
from backtest_sync.errors import SubscriptionError
from backtest_sync.subscriptions import subscribe_program_diffs

def subscribe(on_notification=None):
    return subscribe_program_diffs(sys.argv[1], {PROGRAM!r}, on_notification)

def say(*words):
    print(*words, flush=True)
"""


def program(code: str, server: ScriptedServer) -> AbstractContextManager[subprocess.Popen[str]]:
    return processes.program(PRELUDE + code, endpoint(server))


@posix
@pytest.mark.parametrize(
    ("callback", "wait"),
    [
        ("None", "handle.get()"),
        ("None", "next(handle)"),
        ("None", "handle.join()"),
        ("print_slot", "handle.join()"),
        ("print_slot", "handle.wait()"),
    ],
)
def test_ctrl_c_leaves_the_handle_usable(callback: str, wait: str) -> None:
    code = f"""
def print_slot(notification):
    say("slot", notification.context.slot)

handle = subscribe({callback})
try:
    say("waiting")
    {wait}
except KeyboardInterrupt:
    say("interrupted", handle.is_alive)
    handle.stop(drain=False)
    say("stopped", handle.is_alive)
"""
    with ScriptedServer(stream()) as server, program(code, server) as process:
        says(process, "waiting")
        process.send_signal(signal.SIGINT)
        says(process, "interrupted True")
        says(process, "stopped False")
        ends_well(process)


@posix
def test_ctrl_c_while_a_callback_hangs_leaves_it_running() -> None:
    code = """
begun, go = threading.Event(), threading.Event()

def hang(notification):
    begun.set()
    go.wait()

handle = subscribe(hang)
begun.wait()
try:
    say("waiting")
    handle.stop()
except KeyboardInterrupt:
    say("interrupted", handle.is_alive, handle.wait(0))
    go.set()
    handle.join()
    say("stopped", handle.is_alive)
"""
    with ScriptedServer(stream(diff(1, 0))) as server, program(code, server) as process:
        says(process, "waiting")
        interrupt(process)
        says(process, "interrupted True False")
        says(process, "stopped False")
        ends_well(process)


@pytest.mark.parametrize("callback", ["None", "lambda notification: None", "hang"])
def test_the_interpreter_ends_with_a_subscription_running(callback: str) -> None:
    code = f"""
hung = threading.Event()

def hang(notification):
    hung.set()
    threading.Event().wait()

handle = subscribe({callback})
if {callback == "hang"}:
    hung.wait()
"""
    with ScriptedServer(stream(diff(1, 0))) as server:
        with program(code, server) as process:
            ends_well(process)
    assert server.peers[0].close_frame is not None  # the exit said good-bye


def test_a_callback_runs_on_when_its_handle_is_forgotten() -> None:
    code = """
done = threading.Event()

def count(notification):
    if notification.context.slot == 2:
        done.set()

subscribe(count)
done.wait()
"""
    with ScriptedServer(stream(*diffs(1, 0, 1, 2), end(1))) as server:
        with program(code, server) as process:
            ends_well(process)


@posix
@pytest.mark.parametrize("callback", ["None", "slots.append"])
def test_a_forked_process_says_that_the_handle_is_not_its_own(callback: str) -> None:
    code = f"""
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads
slots = []
handle = subscribe({callback})
pid = os.fork()
if pid == 0:
    uses = [handle.join, handle.wait, handle.stop]
    if {callback} is None:
        uses += [handle.get, lambda: next(handle)]
    for use in uses:
        try:
            use()
        except SubscriptionError as error:
            assert f"belongs to process {{os.getppid()}}" in str(error), error
        else:
            os._exit(1)
    with handle:
        pass
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
handle.stop(drain=False)
assert handle.failure is None
"""
    with ScriptedServer(stream()) as server, program(code, server) as process:
        ends_well(process)
