"""Typed events a second through one ``advance``: against the Rust client, a plain loop, and itself."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Iterator

import websocket

from backtest_sync import BacktestClient, Continue
from benchmarks import common

SLOTS = 300_000
ROUNDS = 5
#: A plain loop takes long; it is measured over fewer slots.
PLAIN_SLOTS = 30_000


def through_advance(url: str, slots: int) -> float:
    """Events a second from the first event to the last, typed and counted."""
    first: list[float] = []

    def note(event: object) -> None:
        if not first:
            first.append(time.perf_counter())

    with (
        BacktestClient(url, "k", request_timeout=60) as client,
        client.create_session(start_slot=100, slot_count=slots) as session,
    ):
        session.ensure_ready()
        result = session.advance(Continue(advance_count=slots), on_event=note)
        taken = time.perf_counter() - first[0]
        assert result.slot_notifications == slots
    return slots / taken


def through_a_plain_loop(url: str, slots: int) -> float:
    """The same with ``websocket-client``'s ``recv`` and ``json.loads``, untyped."""
    create = {"startSlot": 100, "endSlot": 100 + slots}
    advance = {"advanceCount": slots, "transactions": [], "modifyAccountStates": {}}
    connection = websocket.create_connection(url, header=["X-API-Key: k"])
    connection.send(json.dumps({"method": "createBacktestSession", "params": create}))
    while json.loads(connection.recv())["method"] != "readyForContinue":
        pass
    connection.send(json.dumps({"method": "continue", "params": advance}))
    seen = 0
    json.loads(connection.recv())
    start = time.perf_counter()
    while (message := json.loads(connection.recv()))["method"] != "readyForContinue":
        seen += message["method"] == "slotNotification"
    taken = time.perf_counter() - start
    connection.close()
    assert seen == slots
    return slots / taken


def through_the_peer(url: str, slots: int) -> float:
    """The same with the reference Rust client."""
    return float(common.run_peer("throughput", url, slots)["per_second"])


def measure() -> Iterator[common.Figure]:
    """The figures of this page."""
    with common.burst_server("--notes", 1) as url:
        ours = functools.partial(through_advance, url, SLOTS)
        plain = functools.partial(through_a_plain_loop, url, PLAIN_SLOTS)
        mine, loop = common.interleaved(ROUNDS, ours, plain)
        yield common.Figure("control stream: events through advance", mine, "events/s")
        yield common.Figure("control stream: a plain recv + json loop", loop, "events/s")
        yield common.Figure("control stream: ratio to the plain loop", mine / loop, "x", ">= 15")
        if common.peer():
            mine, peer = common.interleaved(
                ROUNDS, ours, functools.partial(through_the_peer, url, SLOTS)
            )
            yield common.Figure("control stream: the Rust client", peer, "events/s")
            yield common.Figure(
                "control stream: ratio to the Rust client", mine / peer, "x", ">= 0.5"
            )
        else:
            common.skip(
                "control stream: ratio to the Rust client", "BACKTEST_SYNC_RUST_PEER is not set"
            )
        counts = (10_000, 100_000, 1_000_000)
        speeds = common.interleaved(
            3, *(functools.partial(through_advance, url, count) for count in counts)
        )
        for count, speed in zip(counts, speeds, strict=True):
            yield common.Figure(f"control stream: advance({count:_})", speed, "events/s")
        spread = max(speeds) / min(speeds) - 1
        yield common.Figure("control stream: spread over these sizes", spread * 100, "%", "<= 20")


if __name__ == "__main__":
    common.main(measure)
