"""Ctrl-C again and again in a loop of quick steps: whether the session can be used afterwards.

``python -m tests.soak.ctrl_c [--times 3000]``

Signals come from another process, at random: most find the main thread at work, since no step takes long. ``torn``
counts connections that were lost by it, ``stuck`` sessions that got no readiness any more.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys

from backtest_sync import BacktestClient, BacktestSession, RequestTimeoutError, SessionClosedError
from benchmarks.common import burst_server

_SENDER = """
import os, random, signal, sys, time
chance = random.Random(7)
while True:
    time.sleep(0.0005 + chance.random() * 0.002)
    os.kill(int(sys.argv[1]), signal.SIGUSR1)
"""


class _Pressed(Exception):
    """What the handler raises, as Ctrl-C raises KeyboardInterrupt."""


def soak(times: int) -> dict[str, int]:
    """How often the session was torn or stuck, of ``times`` interrupts."""
    found = {"times": 0, "steps": 0, "torn": 0, "stuck": 0}
    armed = False

    def press(*_: object) -> None:
        nonlocal armed
        if armed:
            armed = False
            raise _Pressed

    def steps(session: BacktestSession) -> None:
        nonlocal armed
        try:
            armed = True
            while True:
                session.advance(3)
                found["steps"] += 1
        except _Pressed:
            found["times"] += 1
        session.ensure_ready(2.0)

    before = signal.signal(signal.SIGUSR1, press)
    sender = None
    try:
        with burst_server() as url, BacktestClient(url, "k") as client:
            session = _new(client)
            sender = subprocess.Popen([sys.executable, "-c", _SENDER, str(os.getpid())])
            while found["times"] < times:
                try:
                    steps(session)
                    continue
                except SessionClosedError:
                    found["torn"] += 1
                except RequestTimeoutError:
                    found["stuck"] += 1
                session.abort()
                session = _new(client)
            session.abort()
    finally:
        if sender is not None:
            sender.kill()
            sender.wait()
        signal.signal(signal.SIGUSR1, before)
    return found


def _new(client: BacktestClient) -> BacktestSession:
    session = client.create_session(start_slot=1, end_slot=10**9)
    session.ensure_ready(10.0)
    return session


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=3000)
    print(json.dumps(soak(parser.parse_args().times)))
