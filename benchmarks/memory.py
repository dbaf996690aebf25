"""Growth of the process over a long ``advance`` (nothing kept), and with a consumer that does not read."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

from backtest_sync import BacktestClient, Continue
from benchmarks import common

SLOTS = 1_000_000
MIB = 2**20


def resident() -> int:
    """Bytes of this process that are in memory (Linux)."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def growth(url: str, *, pause: float) -> float:
    """MiB that an ``advance`` of `SLOTS` adds, the first event held up for ``pause`` seconds."""
    peak = 0
    seen = 0

    def watch(event: object) -> None:
        nonlocal peak, seen
        if seen == 0:
            time.sleep(pause)
        if seen % 4096 == 0:
            peak = max(peak, resident())
        seen += 1

    with (
        BacktestClient(url, "k", request_timeout=60) as client,
        client.create_session(start_slot=100, slot_count=SLOTS) as session,
    ):
        session.ensure_ready()
        session.advance(1_000)  # what is loaded on first use is not growth
        before = resident()
        seen = 0
        session.advance(Continue(advance_count=SLOTS), on_event=watch)
        return (max(peak, resident()) - before) / MIB


def in_a_fresh_process(url: str, pause: float) -> float:
    """`growth` where nothing else has grown before."""
    command = [sys.executable, "-m", "benchmarks.memory", url, str(pause)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure() -> Iterator[common.Figure]:
    """The figures of this page."""
    if not sys.platform.startswith("linux"):
        common.skip("memory", "reads /proc, which only Linux has")
        return
    with common.burst_server("--notes", 1) as url:
        steady = in_a_fresh_process(url, 0)
        yield common.Figure(f"memory: advance({SLOTS:_})", steady, "MiB", "<= 16")
        slow = in_a_fresh_process(url, 3)
        yield common.Figure("memory: the same, consumer asleep at first", slow, "MiB", "<= 80")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(growth(sys.argv[1], pause=float(sys.argv[2])))
    else:
        common.main(measure)
