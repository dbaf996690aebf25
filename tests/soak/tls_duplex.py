"""TLS under full duplex load: small records both ways, a sending thread against the reader.

``python -m tests.soak.tls_duplex [--connections 400] [--messages 1000] [--at-once 2] [--naive]``

``--naive`` shows what it is about: a client that uses one TLS socket from two threads.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from tests.support.certificates import client_tls
from tests.support.duplex import check_duplex, check_naively, duplex_server


def soak(connections: int, messages: int, at_once: int, naive: bool) -> dict[str, object]:
    """How many connections broke, and how."""
    check = check_naively if naive else check_duplex
    tls = client_tls()
    with duplex_server() as url, ThreadPoolExecutor(at_once) as pool:
        started = time.monotonic()
        results = list(pool.map(lambda _: check(url, messages, tls), range(connections)))
    failures = Counter(result for result in results if result is not None)
    return {
        "connections": connections,
        "broken": failures.total(),
        "messages_each_way": connections * messages,
        "seconds": round(time.monotonic() - started, 1),
        "failures": dict(failures.most_common(10)),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=400)
    parser.add_argument("--messages", type=int, default=1000)
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument("--naive", action="store_true")
    args = parser.parse_args()
    result = soak(args.connections, args.messages, args.at_once, args.naive)
    print(json.dumps(result))
    raise SystemExit(1 if result["broken"] and not args.naive else 0)
