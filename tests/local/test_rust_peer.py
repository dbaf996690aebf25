"""The reference's own client, unmodified, against the simulator.

Runs where the environment variable ``BACKTEST_SYNC_RUST_PEER`` names its binary.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from backtest_sync.local import LocalSimulator, demo
from backtest_sync.local.bundle import Bundle
from tests.local.peer import Peer

PEER = os.environ.get("BACKTEST_SYNC_RUST_PEER")
pytestmark = pytest.mark.skipif(
    not PEER, reason="BACKTEST_SYNC_RUST_PEER does not name the reference client's binary"
)

START, END = demo.FIRST_SLOT, demo.LAST_SLOT


@pytest.fixture(scope="module")
def simulator() -> Iterator[LocalSimulator]:
    with LocalSimulator(process=True) as running:
        yield running


@pytest.fixture(scope="module")
def bundle() -> Iterator[Bundle]:
    opened = Bundle.open("demo")
    yield opened
    opened.close()


def rust(*arguments: object) -> dict[str, Any]:
    done = subprocess.run(
        [str(PEER), *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_a_whole_life(simulator: LocalSimulator, bundle: Bundle) -> None:
    answer = rust("lifecycle", simulator.url, START, END)
    assert answer["completed"]
    assert answer["ranges"] == 3
    assert answer["rpc_slot"] == START
    assert answer["slots"] == len(bundle.slots) - 1
    assert answer["rounds"] == len(bundle.slots)


def test_a_managed_session(simulator: LocalSimulator, bundle: Bundle) -> None:
    assert rust("managed", simulator.url, START, END)["slots"] == list(bundle.slots)


@pytest.mark.parametrize("drop", ["close", "reset", "end"])
def test_a_managed_session_that_is_interrupted(
    simulator: LocalSimulator, bundle: Bundle, drop: Any
) -> None:
    simulator.faults.drop(drop, after=200)
    slots = rust("managed", simulator.url, START, END)["slots"]
    assert slots == list(bundle.slots)


def test_walking_from_discovery_to_discovery(simulator: LocalSimulator, bundle: Bundle) -> None:
    end = START + 9
    pauses = rust("discover", simulator.url, START, end, demo.POOL_PROGRAM)["pauses"]
    due = [
        [block.slot, index, len(found)]
        for block in bundle.blocks(START, end)
        for index, batch in enumerate(block.batches)
        if (found := [t for t in batch if demo.POOL_PROGRAM in t.programs])
    ]
    assert pauses == due


@pytest.mark.parametrize("missed", [0, 5])
def test_attaching_from_another_process(
    simulator: LocalSimulator, bundle: Bundle, missed: int
) -> None:
    with Peer(simulator.url) as peer:
        session_id = peer.create(START, END, disconnectTimeoutSecs=60)
        peer.advance(10)
        cursor = peer.seen[-1 - missed]["seqId"]
    slots = rust("attach", simulator.url, session_id, cursor)["slots"]
    seen = [
        m["params"] for m in peer.seen if m["method"] == "slotNotification" and m["seqId"] <= cursor
    ]
    assert seen + slots == list(bundle.slots)
