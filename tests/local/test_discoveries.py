"""Discoveries: which batches are announced, when, and how a client walks from one to the next."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backtest_sync.local import LocalSimulator, demo, drive
from backtest_sync.local.bundle import Bundle
from backtest_sync.local.discovery import LOOKAHEAD_SLOTS
from tests.local import worlds
from tests.local.peer import Peer

START = demo.FIRST_SLOT
END = START + 63
ALL = 2**64 - 1

POOL = {"kind": "programExecuted", "value": demo.POOL_PROGRAM}
NEVER = {"kind": "programExecuted", "value": "4vJ9JU1bJJE96FWSJKvHsmmFADCg4gpZQff4P3bkLKi"}


def oracle(*accounts: str, programs: tuple[str, ...] = (demo.MAKER_PROGRAM,)) -> dict[str, Any]:
    value: dict[str, Any] = {"programs": list(programs)}
    if accounts:
        value["accounts"] = list(accounts)
    return {"kind": "oracleUpdate", "value": value}


@pytest.fixture(scope="module")
def bundle() -> Iterator[Bundle]:
    opened = Bundle.open("demo")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def simulator() -> Iterator[LocalSimulator]:
    with LocalSimulator() as running:
        yield running


@pytest.fixture
def peer(simulator: LocalSimulator) -> Iterator[Peer]:
    with Peer(simulator.url) as connected:
        yield connected


def batches_with(bundle: Bundle, program: str, start: int, end: int) -> list[tuple[int, int]]:
    return [
        (block.slot, index)
        for block in bundle.blocks(start, end)
        for index, batch in enumerate(block.batches)
        if any(program in transaction.programs for transaction in batch)
    ]


def announced(messages: list[dict[str, Any]]) -> list[tuple[int, int]]:
    return [
        (m["params"]["slot"], m["params"]["batchIndex"])
        for m in messages
        if m["method"] == "discoveryBatch"
    ]


def test_every_batch_that_invokes_the_program_is_announced_before_it_runs(
    peer: Peer, bundle: Bundle
) -> None:
    peer.create(START, END, discoveries=[POOL])
    peer.advance(ALL)
    assert announced(peer.seen) == batches_with(bundle, demo.POOL_PROGRAM, START, END)
    reached = START
    for message in peer.seen:
        if message["method"] == "slotNotification":
            reached = message["params"]
        elif message["method"] == "discoveryBatch":
            assert message["params"]["slot"] >= reached


def test_the_first_ones_come_before_readiness(peer: Peer, bundle: Bundle) -> None:
    peer.create(START, END, discoveries=[POOL])
    due = batches_with(bundle, demo.POOL_PROGRAM, START, START + LOOKAHEAD_SLOTS)
    assert announced(peer.seen)[: len(due)] == due


def test_the_next_one_is_announced_however_far_ahead_it_is(tmp_path: Path) -> None:
    """Whenever the session waits: else a client that walks would have to run on blindly."""
    far = 1000 + 2 * LOOKAHEAD_SLOTS
    blocks = [worlds.block(slot) for slot in range(1000, far)]
    entries = [worlds.entry(worlds.payment("ann", "bob", 1), None)]
    blocks += [worlds.block(far, entries), worlds.block(far + 1)]
    accounts = {worlds.where("ann"): worlds.purse(10**10)}
    path = worlds.write(tmp_path / "far.jsonl", blocks, accounts)
    transfers = {"kind": "programExecuted", "value": str(worlds.SYSTEM)}
    with LocalSimulator(path) as simulator, Peer(simulator.url) as peer:
        peer.create(1000, far + 1, discoveries=[transfers])
        assert announced(peer.seen) == [(far, 0)]
        assert peer.pause(far, 0) == {"slot": far, "batchIndex": 0}


def test_what_is_announced_says_what_matched(peer: Peer, bundle: Bundle) -> None:
    peer.create(START, END, discoveries=[POOL, oracle(demo.PRICE_ACCOUNT)])
    for message in peer.seen:
        if message["method"] != "discoveryBatch":
            continue
        params = message["params"]
        batch = bundle.block(params["slot"]).batches[params["batchIndex"]]
        found = [t for t in batch if t.index in params["transactionIndices"]]
        assert params["matched"]
        for matched in params["matched"]:
            programs = [demo.POOL_PROGRAM] if matched == POOL else [demo.MAKER_PROGRAM]
            assert any(not t.programs.isdisjoint(programs) for t in found)
        for transaction, blob in zip(found, params["transactions"], strict=True):
            assert base64.b64decode(blob["data"]).startswith(transaction.raw)


@pytest.mark.parametrize(
    ("wanted", "matches"),
    [
        (oracle(), True),
        (oracle(demo.PRICE_ACCOUNT), True),
        (oracle(demo.POOL), False),
        (NEVER, False),
    ],
)
def test_oracle_updates_write_a_price_and_move_no_tokens(
    peer: Peer, bundle: Bundle, wanted: dict[str, Any], matches: bool
) -> None:
    peer.create(START, END, discoveries=[wanted])
    peer.advance(ALL)
    due = batches_with(bundle, demo.MAKER_PROGRAM, START, END) if matches else []
    assert announced(peer.seen) == due


def test_a_swap_is_an_oracle_update_only_where_it_failed(peer: Peer, bundle: Bundle) -> None:
    """It moves no tokens then."""
    peer.create(START, END, discoveries=[oracle(programs=(demo.POOL_PROGRAM,))])
    peer.advance(ALL)
    failed = [
        (block.slot, index)
        for block in bundle.blocks(START, END)
        for index, batch in enumerate(block.batches)
        if any(demo.POOL_PROGRAM in t.programs and t.meta["err"] is not None for t in batch)
    ]
    assert announced(peer.seen) == failed


def test_walking_from_discovery_to_discovery(
    peer: Peer, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the reference does (protocol/control.md §8.6), to the end of the range."""
    monkeypatch.setattr(drive, "IDLE_AFTER_LAST_DISCOVERY", 0.01)
    peer.send(
        "createBacktestSession", {"startSlot": START, "endSlot": START + 9, "discoveries": [POOL]}
    )
    queue: list[dict[str, Any]] = []
    pauses = []
    while True:
        message = queue.pop(0) if queue else peer.next()
        if message["method"] == "readyForContinue":
            peer.send("continue", {"advanceCount": ALL})
        elif message["method"] == "discoveryBatch":
            found = message["params"]
            target = {"slot": found["slot"], "batchIndex": found["batchIndex"]}
            peer.send("continueTo", target)
            messages = peer.until("paused")
            assert messages[-1]["params"] == target
            queue.extend(m for m in messages if m["method"] == "discoveryBatch")
            pauses.append((found["slot"], found["batchIndex"]))
        elif message["method"] == "completed":
            break
    assert pauses == batches_with(bundle, demo.POOL_PROGRAM, START, START + 9)


def test_a_filter_that_is_none_is_refused(peer: Peer) -> None:
    create = {"startSlot": START, "endSlot": END, "discoveries": [{"kind": "volume", "value": 1}]}
    peer.send("createBacktestSession", create)
    assert "volume" in peer.error()["invalidRequest"]["error"]
