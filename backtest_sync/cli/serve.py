"""run the local simulator for other programs

It serves this machine alone, unless --host says otherwise, and until it is interrupted.
"""

from __future__ import annotations

import argparse
import os

from backtest_sync.local import serve
from backtest_sync.local.launcher import MAX_SESSIONS

#: The port of a simulator on one's own machine (protocol/control.md §1).
PORT = 8900


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument(
        "--bundle", metavar="FILE", default="demo", help="what to replay (default: the demo)"
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: %(default)s)"
    )
    parser.add_argument(
        "--port", type=int, default=PORT, help="port to listen on, 0 for any (default: %(default)s)"
    )
    parser.add_argument(
        "--api-key",
        default=os.environ.get("SIMULATOR_API_KEY"),
        help="the key that clients must send (default: SIMULATOR_API_KEY, else any key will do)",
    )
    parser.add_argument(
        "--max-sessions",
        metavar="N",
        type=int,
        default=MAX_SESSIONS,
        help="sessions that may be open at a time (default: %(default)s)",
    )
    parser.add_argument(
        "--allow-origin",
        metavar="ORIGIN",
        action="append",
        default=[],
        help="a web page's origin that may connect; can be repeated (default: none)",
    )
    parser.add_argument(
        "--chaos", metavar="SEED", type=int, help="break connections on a schedule made from SEED"
    )


def run(args: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM."""
    serve(
        args.bundle,
        host=args.host,
        port=args.port,
        api_key=args.api_key,
        max_sessions=args.max_sessions,
        allowed_origins=args.allow_origin,
        chaos_seed=args.chaos,
        on_ready=lambda url: announce(args, url),
    )
    return 0


def announce(args: argparse.Namespace, url: str) -> None:
    """Where it is and how to reach it."""
    key = "BacktestClient(url, api_key)" if args.api_key else "BacktestClient(url)"
    print(f"> {url}  ({args.bundle}; {key}; Ctrl-C ends it)", flush=True)
