"""What 50 idle sessions in one process cost: processor time and threads."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from backtest_sync import BacktestClient
from benchmarks import common

SESSIONS = 50
SECONDS = 10.0


def measure() -> Iterator[common.Figure]:
    """The figures of this page."""
    with common.burst_server("--notes", 1) as url, contextlib.ExitStack() as stack:
        before = threading.active_count()
        client = stack.enter_context(BacktestClient(url, "k", request_timeout=60))
        for _ in range(SESSIONS):
            stack.enter_context(client.create_session(start_slot=100, slot_count=5)).ensure_ready()
        threads = threading.active_count() - before
        start = time.process_time()
        time.sleep(SECONDS)
        share = (time.process_time() - start) / SECONDS
    yield common.Figure(f"idle: {SESSIONS} sessions, share of a core", share * 100, "%", "<= 1")
    yield common.Figure("idle: threads a session", threads / SESSIONS, "", "<= 1")


if __name__ == "__main__":
    common.main(measure)
