"""What ``import backtest_sync`` takes, and its client's with it, against ``import requests``."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Iterator

from benchmarks import common

ROUNDS = 15
CLOCK = "import time; t = time.perf_counter(); {}; print(time.perf_counter() - t)"


def seconds(statement: str) -> float:
    """One import in a fresh interpreter."""
    command = [sys.executable, "-c", CLOCK.format(statement)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure() -> Iterator[common.Figure]:
    """The figures of this page."""
    package, client, requests = common.interleaved(
        ROUNDS,
        functools.partial(seconds, "import backtest_sync"),
        functools.partial(seconds, "from backtest_sync import BacktestClient, CreateSession"),
        functools.partial(seconds, "import requests"),
    )
    yield common.Figure("import: backtest_sync", package * 1e3, "ms")
    yield common.Figure("import: BacktestClient and CreateSession", client * 1e3, "ms")
    yield common.Figure("import: requests", requests * 1e3, "ms")
    yield common.Figure("import: ratio of the package", package / requests, "x", "<= 0.7")
    yield common.Figure("import: ratio of the client", client / requests, "x", "<= 0.7")


if __name__ == "__main__":
    common.main(measure)
