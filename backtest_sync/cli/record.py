"""make a bundle for the local simulator from a Solana RPC endpoint

Blocks are the chain's; the accounts that they touch are as of the recording, which is said when it is done.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any
from urllib.parse import urlsplit

from backtest_sync.errors import BacktestClientError
from backtest_sync.rpc import RpcClient

#: A block of a busy slot is large and may take its time, seconds.
TIMEOUT = 120.0
#: Whether anybody answers at all is known sooner, seconds.
REACH = 10.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("--rpc", metavar="URL", required=True, help="a Solana RPC endpoint")
    parser.add_argument("--start-slot", metavar="N", type=int, required=True)
    parser.add_argument("--end-slot", metavar="N", type=int, required=True, help="inclusive")
    parser.add_argument(
        "-o", "--output", metavar="FILE", required=True, help="*.jsonl, *.jsonl.gz or *.jsonl.zst"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace FILE where there is one already"
    )


def run(args: argparse.Namespace) -> int:
    """Record, and say what was recorded and what can't be known."""
    try:
        from backtest_sync.local.record import record
    except ModuleNotFoundError as error:
        raise BacktestClientError(
            f"recording needs {error.name}: pip install 'backtest-sync[local]'"
        ) from None

    watched = sys.stderr.isatty()

    def show(slot: int, _: object) -> None:
        if watched:
            done, wanted = slot - args.start_slot + 1, args.end_slot - args.start_slot + 1
            print(f"\r{done:,}/{wanted:,} slots", end="", file=sys.stderr, flush=True)

    with RpcClient(args.rpc, timeout=TIMEOUT) as rpc:
        reached = False

        def call(method: str, params: list[Any]) -> Any:
            nonlocal reached
            if not reached:
                with RpcClient(args.rpc, timeout=REACH) as probe:
                    probe.get_slot()
                reached = True
            return rpc.call(method, params)

        try:
            made = record(
                call,
                args.start_slot,
                args.end_slot,
                args.output,
                source=urlsplit(args.rpc).hostname or "an RPC endpoint",
                overwrite=args.overwrite,
                on_slot=show,
            )
        finally:
            if watched:
                print(file=sys.stderr)
    print(f"✔ {made.path}")
    print(f"  Blocks       : {made.blocks:,} ({made.skipped:,} slots without a block)")
    print(f"  Transactions : {made.transactions:,}")
    print(f"  Accounts     : {made.accounts:,}, as of slot {made.accounts_slot:,}")
    print(f"  Missing      : {made.missing:,} accounts that are gone by now")
    print(
        "! The accounts are as of now, not as of the first slot: what the blocks do on them may differ from "
        "what happened. Transactions that touch a missing account are played back, not executed."
    )
    return 0
