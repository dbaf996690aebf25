"""Random and damaged frame streams, cut at random places, through three parsers.

``python -m tests.soak.frames [--streams 1000000] [--seed 1]``; a failure prints the seed that repeats it.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections import Counter
from random import Random

from tests.support.parsers import check_damaged, check_valid, cut, damaged_stream, valid_stream


def soak(streams: int, seed: int) -> dict[str, object]:
    """Every fourth stream is valid and goes through all parsers; the others are damaged."""
    outcomes: Counter[str] = Counter()
    started = time.monotonic()
    for number in range(seed, seed + streams):
        rng = Random(number)
        try:
            if number % 4 == 0:
                stream = valid_stream(rng)
                check_valid(stream, cut(rng, stream))
                outcomes["valid"] += 1
            else:
                stream = damaged_stream(rng)
                code = check_damaged(stream, cut(rng, stream))
                outcomes["damaged, read to its end" if code is None else f"close {code}"] += 1
        except BaseException:
            print(f"failed with --seed {number} --streams 1")
            raise
    return {
        "streams": streams,
        "seconds": round(time.monotonic() - started, 1),
        "max_rss_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "outcomes": dict(sorted(outcomes.items())),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    print(json.dumps(soak(args.streams, args.seed)))
