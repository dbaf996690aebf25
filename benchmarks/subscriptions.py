"""Callbacks a second on notifications of 400 bytes of data, and memory behind a callback that is slow."""

from __future__ import annotations

import functools
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from backtest_sync.subscriptions import (
    Subscription,
    subscribe_account_diffs,
    subscribe_program_logs,
)
from benchmarks import common
from benchmarks.memory import MIB, resident

NOTES = 200_000
ROUNDS = 5
SYSTEM_PROGRAM = "1" * 32

#: Each stream by the name that the Rust client's command knows.
STREAMS: dict[str, Callable[..., Subscription[Any]]] = {
    "diffs": subscribe_account_diffs,
    "logs": subscribe_program_logs,
}


def endpoint_of(url: str) -> str:
    """The session endpoint beside a control URL."""
    return url.replace("ws://", "http://", 1) + "/session"


def callbacks(url: str, stream: str) -> float:
    """Typed notifications handed to a callback, a second, connecting included."""
    seen = 0

    def count(notification: object) -> None:
        nonlocal seen
        seen += 1

    start = time.perf_counter()
    handle = STREAMS[stream](
        endpoint_of(url), SYSTEM_PROGRAM, on_notification=count, compression=False
    )
    handle.join(60)
    taken = time.perf_counter() - start
    assert seen == NOTES
    return NOTES / taken


def iterated(url: str, stream: str) -> float:
    """The same, by iterating over the handle."""
    start = time.perf_counter()
    handle = STREAMS[stream](endpoint_of(url), SYSTEM_PROGRAM, compression=False)
    assert sum(1 for _ in handle) == NOTES
    return NOTES / (time.perf_counter() - start)


def of_the_peer(url: str, stream: str) -> float:
    """The same with the reference Rust client."""
    return float(common.run_peer(stream, url, NOTES)["per_second"])


def growth(url: str) -> float:
    """MiB that the process grows by while the first callback takes 3 seconds."""
    peak = seen = 0

    def watch(notification: object) -> None:
        nonlocal peak, seen
        if seen == 0:
            time.sleep(3)
        if seen % 1024 == 0:
            peak = max(peak, resident())
        seen += 1

    # what is loaded on first use is not growth
    subscribe_account_diffs(endpoint_of(url), SYSTEM_PROGRAM).stop(drain=False)
    before = resident()
    subscribe_account_diffs(endpoint_of(url), SYSTEM_PROGRAM, watch, compression=False).join(60)
    assert seen == NOTES
    return (max(peak, resident()) - before) / MIB


def in_a_fresh_process(url: str) -> float:
    """`growth` where nothing else has grown before."""
    command = [sys.executable, "-m", "benchmarks.subscriptions", url]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure() -> Iterator[common.Figure]:
    """The figures of this page."""
    with common.burst_server("--notes", NOTES) as url:
        for stream in STREAMS:
            sides = [functools.partial(side, url, stream) for side in (callbacks, iterated)]
            if common.peer():
                sides.append(functools.partial(of_the_peer, url, stream))
            mine, iterator, *peer = common.interleaved(ROUNDS, *sides)
            yield common.Figure(f"subscriptions: {stream} by callback", mine, "1/s")
            yield common.Figure(f"subscriptions: {stream} by iteration", iterator, "1/s")
            for theirs in peer:
                yield common.Figure(f"subscriptions: {stream}, the Rust client", theirs, "1/s")
                name = f"subscriptions: {stream}, ratio to the Rust client"
                yield common.Figure(name, mine / theirs, "x", ">= 1")
            if not peer:
                common.skip(f"subscriptions: {stream}, ratio", "BACKTEST_SYNC_RUST_PEER is not set")
        if sys.platform.startswith("linux"):
            grown = in_a_fresh_process(url)
            yield common.Figure("subscriptions: memory, callback asleep", grown, "MiB", "<= 80")
        else:
            common.skip("subscriptions: memory", "reads /proc, which only Linux has")


if __name__ == "__main__":
    if len(sys.argv) == 2:
        print(growth(sys.argv[1]))
    else:
        common.main(measure)
