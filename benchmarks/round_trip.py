"""One ``Continue`` and back to ready: median and 99th percentile, against the Rust client."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

from backtest_sync import BacktestClient
from benchmarks import common

ROUND_TRIPS = 3_000
ROUNDS = 5


def ours(url: str) -> tuple[float, float]:
    """Microseconds: median and 99th percentile."""
    times = []
    with (
        BacktestClient(url, "k", request_timeout=60) as client,
        client.create_session(start_slot=100, slot_count=ROUND_TRIPS) as session,
    ):
        session.ensure_ready()
        for _ in range(ROUND_TRIPS):
            start = time.perf_counter()
            session.continue_until_ready()
            times.append((time.perf_counter() - start) * 1e6)
    times.sort()
    return times[len(times) // 2], times[len(times) * 99 // 100]


def the_peers(url: str) -> tuple[float, float]:
    """The same by the reference Rust client."""
    answer = common.run_peer("rtt", url, ROUND_TRIPS)
    return answer["p50_us"], answer["p99_us"]


def measure() -> Iterator[common.Figure]:
    """The figures of this page."""
    mine, theirs = [], []
    with common.burst_server("--notes", 1) as url:
        for _ in range(ROUNDS):
            mine.append(ours(url))
            if common.peer():
                theirs.append(the_peers(url))
    for index, name, reach in ((0, "p50", "<= 1.0"), (1, "p99", "<= 1.5")):
        median = statistics.median(times[index] for times in mine)
        yield common.Figure(f"round trip: {name}", median, "us")
        if theirs:
            peer = statistics.median(times[index] for times in theirs)
            yield common.Figure(f"round trip: {name} of the Rust client", peer, "us")
            yield common.Figure(f"round trip: {name}, ratio", median / peer, "x", reach)
        else:
            common.skip(f"round trip: {name}, ratio", "BACKTEST_SYNC_RUST_PEER is not set")


if __name__ == "__main__":
    common.main(measure)
