"""Historical transactions a second on the local simulator: against a bare LiteSVM loop over the same."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from typing import Any

from solders.pubkey import Pubkey

from backtest_sync import connect_local
from backtest_sync.client import BacktestClient
from backtest_sync.local import demo, svm
from backtest_sync.local.bundle import Bundle
from backtest_sync.local.engine import Engine
from backtest_sync.local.executed import Capture
from backtest_sync.subscriptions import Subscription
from benchmarks import common

ROUNDS = 7
FIRST, LAST = demo.FIRST_SLOT, demo.LAST_SLOT


def opening() -> float:
    """Milliseconds that opening and checking the demo bundle takes."""
    start = time.perf_counter()
    with Bundle.open("demo"):
        return (time.perf_counter() - start) * 1e3


def starting(bundle: Bundle) -> float:
    """Milliseconds that a session's engine takes to start beyond that."""
    start = time.perf_counter()
    Engine(bundle, FIRST)
    return (time.perf_counter() - start) * 1e3


def bare(bundle: Bundle) -> float:
    """Transactions a second of LiteSVM alone: nothing is set between them, nothing looked at."""
    machine = svm.new_svm()
    for address, account in sorted(
        bundle.accounts_at(FIRST).items(), key=lambda entry: entry[1].executable
    ):
        machine.set_account(Pubkey.from_string(address), account)
    transactions = [
        t.transaction for block in bundle.blocks(FIRST, LAST) for t in block.transactions
    ]
    start = time.perf_counter()
    for transaction in transactions:
        machine.send_transaction(transaction)
    return len(transactions) / (time.perf_counter() - start)


def through_the_engine(bundle: Bundle, capture: Capture) -> float:
    """Transactions a second of the engine: sysvars, batches, and what is captured."""
    engine = Engine(bundle, FIRST)
    done = 0
    start = time.perf_counter()
    for block in bundle.blocks(FIRST, LAST):
        engine.open_slot(block)
        for _ in block.batches:
            done += len(engine.run_batch(capture))
        engine.close_slot()
    return done / (time.perf_counter() - start)


def through_a_session(client: BacktestClient, count: int, *, subscribed: bool = False) -> float:
    """Transactions a second of a whole session, from its ``Continue`` to its completion.

    ``subscribed``: with the pool's diffs, logs and transactions streamed to this process.
    """
    with client.create_session(start_slot=FIRST, end_slot=LAST) as session:
        session.ensure_ready()
        streams: list[Subscription[Any]] = []
        if subscribed:
            program = demo.POOL_PROGRAM
            streams = [
                session.subscribe_program_diffs(program, lambda _: None),
                session.subscribe_program_logs(program, on_notification=lambda _: None),
                session.subscribe_transactions(program, lambda _: None),
            ]
        start = time.perf_counter()
        result = session.run()
        taken = time.perf_counter() - start
        assert result.completed
        for stream in streams:
            stream.stop()
    return count / taken


def measure() -> Iterator[common.Figure]:
    """The figures of this page."""
    with Bundle.open("demo") as bundle, connect_local(request_timeout=60) as client:
        count = sum(len(block.transactions) for block in bundle.blocks(FIRST, LAST))
        (opened, started) = common.interleaved(ROUNDS, opening, functools.partial(starting, bundle))
        yield common.Figure("local simulator: opening the demo bundle", opened, "ms")
        yield common.Figure("local simulator: starting a session's engine", started, "ms", "<= 100")
        alone, noting, all_of_it, session, subscribed = common.interleaved(
            ROUNDS,
            functools.partial(bare, bundle),
            functools.partial(through_the_engine, bundle, Capture.BALANCES),
            functools.partial(through_the_engine, bundle, Capture.ALL),
            functools.partial(through_a_session, client, count),
            functools.partial(through_a_session, client, count, subscribed=True),
        )
        yield common.Figure("local simulator: bare LiteSVM loop", alone, "tx/s")
        yield common.Figure("local simulator: engine, ratio to it", noting / alone, "x")
        yield common.Figure("local simulator: engine, all captured", all_of_it / alone, "x")
        yield common.Figure("local simulator: session", session / alone, "x", ">= 0.25")
        yield common.Figure(
            "local simulator: session, diffs, logs, transactions",
            subscribed / alone,
            "x",
            ">= 0.1",
        )


if __name__ == "__main__":
    common.main(measure)
