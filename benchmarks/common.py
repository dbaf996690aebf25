"""What the benchmarks share: figures, peers, and a server in a process of its own.

A benchmark is a module with ``measure() -> Iterator[Figure]``. Only ratios taken in one run mean
anything: what is compared runs in turns, round after round, and the medians are compared.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import attrs


@attrs.frozen
class Figure:
    """One measured number, and the number that it should reach where there is one."""

    name: str
    value: float
    unit: str
    reach: str = ""

    def __str__(self) -> str:
        line = f"{self.name:<58}{self.value:>14,.4g} {self.unit}"
        return f"{line}  (reach {self.reach})" if self.reach else line


Measure = Callable[[], Iterator[Figure]]


def show(measure: Measure) -> list[Figure]:
    """Measure; print each figure as it comes."""
    figures = []
    for figure in measure():
        print(figure, flush=True)
        figures.append(figure)
    return figures


def main(*measures: Measure) -> None:
    """Run measures; one line a figure, and the whole as JSON in the last line."""
    figures = [figure for measure in measures for figure in show(measure)]
    print(json.dumps([attrs.asdict(figure) for figure in figures]))


def skip(what: str, why: str) -> None:
    """Say what is not measured."""
    print(f"{what:<58}{'left out':>14}: {why}", flush=True)


def peer() -> str | None:
    """Path of the reference Rust client, or ``None``."""
    return os.environ.get("BACKTEST_SYNC_RUST_PEER") or None


def run_peer(mode: str, url: str, *args: object) -> dict[str, Any]:
    """One run of the reference Rust client; its answer."""
    path = peer()
    assert path is not None, "ask peer() first"
    command = [path, mode, url, *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@contextlib.contextmanager
def burst_server(*args: object) -> Iterator[str]:
    """A burst server in a process of its own; gives its control URL."""
    other = os.environ.get("BACKTEST_SYNC_BURST_SERVER")
    program = [other] if other else ["-m", "benchmarks.burst_server"]
    process = subprocess.Popen(
        [sys.executable, *program, *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        try:
            yield f"ws://127.0.0.1:{int(process.stdout.readline())}/backtest"
        finally:
            process.terminate()


def interleaved(rounds: int, *measures: Callable[[], float]) -> list[float]:
    """Each measure in turn, ``rounds`` times; the median of each."""
    taken: list[list[float]] = [[] for _ in measures]
    for _ in range(rounds):
        for results, measure in zip(taken, measures, strict=True):
            results.append(measure())
    return [statistics.median(results) for results in taken]
