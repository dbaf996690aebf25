"""Programs in a process of their own: to be interrupted, to fork, to end without closing anything."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SOON = 20.0  # what a test waits for a process to do what it does at once

posix = pytest.mark.skipif(os.name != "posix", reason="signals and fork are POSIX'")

#: What the programs share; they import threading and SessionClosedError.
PRELUDE = """
def say(word):
    print(word, flush=True)

def in_thread(work, *args):
    thread = threading.Thread(target=work, args=args, daemon=True)
    thread.start()

def quietly(work, *args):
    try:
        work(*args)
    except SessionClosedError:
        pass
"""


@contextmanager
def program(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run ``code`` as a program of its own; warnings are errors, and it must end by itself."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        watchdog = threading.Timer(SOON, process.kill)
        watchdog.start()
        try:
            yield process
        finally:
            watchdog.cancel()
            process.kill()


def says(process: subprocess.Popen[str], word: str) -> None:
    """Wait for the next line of its output, which must be ``word``."""
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    if line != word:
        _, errors = process.communicate()
        pytest.fail(f"expected {word!r}, got {line!r}\n{errors}")


def interrupt(process: subprocess.Popen[str], number: signal.Signals = signal.SIGINT) -> None:
    """Send a signal, by default that of Ctrl-C, once the main thread of the process waits for something."""
    state = Path(f"/proc/{process.pid}/task/{process.pid}/stat")
    limit = time.monotonic() + SOON
    if state.exists():  # elsewhere than on Linux it may come a little early
        while state.read_text().rpartition(")")[2].split()[0] != "S":
            assert time.monotonic() < limit, "it waits for nothing"
            time.sleep(0.002)
    process.send_signal(number)


def ends_well(process: subprocess.Popen[str], code: int = 0, complaint: str = "") -> None:
    """Wait for its end, with this exit status and nothing else on its standard error."""
    _, errors = process.communicate()
    assert process.returncode == code, errors or "it had to be killed"
    assert errors.strip().endswith(complaint) if complaint else errors == ""
