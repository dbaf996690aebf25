"""What ``import backtest_sync`` takes, against ``import requests``."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Iterator

from benchmarks import common

ROUNDS = 15
CLOCK = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"


def seconds(module: str) -> float:
    """One import in a fresh interpreter."""
    command = [sys.executable, "-c", CLOCK.format(module)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure() -> Iterator[common.Figure]:
    """The figures of this page."""
    ours, theirs = common.interleaved(
        ROUNDS,
        functools.partial(seconds, "backtest_sync"),
        functools.partial(seconds, "requests"),
    )
    yield common.Figure("import: backtest_sync", ours * 1e3, "ms")
    yield common.Figure("import: requests", theirs * 1e3, "ms")
    yield common.Figure("import: ratio", ours / theirs, "x", "<= 0.7")


if __name__ == "__main__":
    common.main(measure)
