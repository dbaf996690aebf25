"""Run every benchmark, or those named on the command line: ``python -m benchmarks round_trip``."""

from __future__ import annotations

import importlib
import sys

from benchmarks import common

ALL = (
    "control_stream",
    "round_trip",
    "subscriptions",
    "local_engine",
    "program",
    "import_time",
    "memory",
    "idle",
)


def main() -> None:
    names = sys.argv[1:] or ALL
    unknown = set(names) - set(ALL)
    if unknown:
        sys.exit(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(ALL)}")
    common.main(*(importlib.import_module(f"benchmarks.{name}").measure for name in names))


if __name__ == "__main__":
    main()
