"""Opening and closing again and again, in every manner: what is left of it.

``python -m tests.soak.open_close [--times 2000]``
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import threading
import time

from backtest_sync.errors import BacktestClientError
from backtest_sync.limits import Deadline
from tests.support.connections import SOON, connect, receive
from tests.support.scripted import CLOSE, Peer, ScriptedServer, frame


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def _play(peer: Peer) -> None:
    """By turns: echo until the client closes, close at once, end, reset, refuse."""
    kind = peer.index % 8
    if kind == 7:
        peer.read_head()
        peer.respond("503 Service Unavailable")
        return
    peer.accept()
    if kind == 4:
        peer.send_close(1012, "management handoff")
        peer.until_gone()
    elif kind == 5:
        peer.reset()
    elif kind != 6:
        while (got := peer.recv_frame())[0] != CLOSE:
            peer.send_raw(frame(got[1], got[0]))


def _once(server: ScriptedServer, number: int) -> None:
    try:
        connection = connect(server)
    except BacktestClientError:
        return
    try:
        connection.send("{}", Deadline(SOON))
        receive(connection, 1)
    except (BacktestClientError, AssertionError):
        pass  # a peer that left
    if number % 3 == 0:
        connection.close()
    elif number % 3 == 1:
        connection.abort()  # and the third is forgotten


def soak(times: int) -> dict[str, object]:
    """Threads and descriptors before and after."""
    with ScriptedServer(_play) as server:
        before = (threading.active_count(), _descriptors())
        started = time.monotonic()
        for number in range(times):
            _once(server, number)
        seconds = time.monotonic() - started
        gc.collect()
        limit = time.monotonic() + SOON
        while _left(before) != (0, 0) and time.monotonic() < limit:
            time.sleep(0.01)
        threads, descriptors = _left(before)
    return {
        "times": times,
        "threads_left": threads,
        "descriptors_left": descriptors,
        "seconds": round(seconds, 1),
    }


def _left(before: tuple[int, int]) -> tuple[int, int]:
    return threading.active_count() - before[0], _descriptors() - before[1]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=2000)
    args = parser.parse_args()
    print(json.dumps(soak(args.times)))
