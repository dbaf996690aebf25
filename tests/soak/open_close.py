"""Opening and closing again and again, in every manner: what is left of it.

``python -m tests.soak.open_close [connections|sessions] [--times 2000]``
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import threading
import time
from collections.abc import Callable

from backtest_sync import BacktestClient
from backtest_sync.errors import BacktestClientError
from backtest_sync.limits import Deadline
from tests.support.connections import SOON, connect, receive
from tests.support.scripted import CLOSE, Peer, ScriptedServer, frame
from tests.support.sessions import COMPLETED, READY, error, slot
from tests.support.streams import PROGRAM, ack, diff, end


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def soak(what: str, times: int) -> dict[str, object]:
    """Threads and descriptors before and after."""
    play, once = KINDS[what]
    with ScriptedServer(play) as server:
        before = (threading.active_count(), _descriptors())
        started = time.monotonic()
        well = sum(once(server, number) for number in range(times))
        seconds = time.monotonic() - started
        gc.collect()
        limit = time.monotonic() + SOON
        while _left(before) != (0, 0) and time.monotonic() < limit:
            time.sleep(0.01)
        threads, descriptors = _left(before)
    return {
        "what": what,
        "times": times,
        "went_well": well,
        "threads_left": threads,
        "descriptors_left": descriptors,
        "seconds": round(seconds, 1),
    }


def _left(before: tuple[int, int]) -> tuple[int, int]:
    return threading.active_count() - before[0], _descriptors() - before[1]


# --- connections


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


def _connect_once(server: ScriptedServer, number: int) -> bool:
    try:
        connection = connect(server)
    except BacktestClientError:
        return False
    echoed = True
    try:
        connection.send("{}", Deadline(SOON))
        receive(connection, 1)
    except (BacktestClientError, AssertionError):
        echoed = False  # the peer left
    if number % 3 == 0:
        connection.close()
    elif number % 3 == 1:
        connection.abort()  # and the third is forgotten
    return echoed


# --- sessions


def _serve(peer: Peer) -> None:
    """By turns, after the create request: a run and its close, an error, a handoff, a reset. And streams."""
    peer.read_head()
    if peer.path == "/stream":
        peer.upgrade()
        peer.send(ack(peer.recv(), 1), diff(1, 0), end(1))
        peer.until_gone()
        return
    peer.upgrade()
    kind = int(peer.expect("createBacktestSession")["startSlot"]) % 6
    if kind == 5:
        peer.send(error("noMoreBlocks"))
        peer.until_gone()
    peer.created(rpc_endpoint="/stream")
    peer.send(slot(100), READY)
    peer.expect("continue")
    if kind == 3:
        peer.send_close(1012, "management handoff")
        peer.until_gone()
    elif kind == 4:
        peer.reset()
    peer.send(slot(101), COMPLETED)
    peer.serve_close()


def _session_once(server: ScriptedServer, number: int) -> bool:
    client = BacktestClient(server.url, request_timeout=SOON)
    completed = False
    try:
        session = client.create_session(start_slot=number, slot_count=1)
        if number % 2:
            session.subscribe_program_diffs(PROGRAM, lambda _: None)
        completed = session.run().completed
    except BacktestClientError:
        pass  # an error, or a peer that left
    if number % 4 == 0:
        client.close()
    elif number % 4 == 1:
        with client:
            pass
    elif number % 4 == 2:
        for left in client._sessions:
            left.abort()  # and the fourth is forgotten
    return completed


KINDS: dict[str, tuple[Callable[[Peer], None], Callable[[ScriptedServer, int], bool]]] = {
    "connections": (_play, _connect_once),
    "sessions": (_serve, _session_once),
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=KINDS, nargs="?", help="by default both")
    parser.add_argument("--times", type=int, default=2000)
    args = parser.parse_args()
    for chosen in [args.what] if args.what else KINDS:
        print(json.dumps(soak(chosen, args.times)))
