"""Recording a bundle from an RPC endpoint: a stub on loopback, asked through the package's client."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from backtest_sync.errors import (
    DeserializeError,
    HttpStatusError,
    InvalidParamsError,
    RpcError,
)
from backtest_sync.local import demo, record as record_module, svm
from backtest_sync.local.blocks import RESERVED
from backtest_sync.local.bundle import Bundle, BundleError
from backtest_sync.local.engine import Engine
from backtest_sync.local.executed import Capture, Source
from backtest_sync.local.record import Recorded, record
from backtest_sync.rpc import RpcClient
from tests.local import worlds
from tests.support.scripted import Peer, ScriptedServer

SKIPPED = {"code": -32007, "message": "Slot 12 was skipped, or missing due to ledger jump"}
NOT_STORED = {"code": -32009, "message": "Slot 13 was skipped, or missing in long-term storage"}


class Node:
    """A Solana node with these blocks and accounts; it remembers what it was asked."""

    def __init__(self, blocks: dict[int, Any], accounts: dict[str, Any]) -> None:
        self.blocks = blocks
        self.accounts = accounts
        self.errors: dict[int, Any] = {}
        self.asked: list[tuple[str, list[Any]]] = []

    def answer(self, method: str, params: list[Any]) -> dict[str, Any]:
        self.asked.append((method, params))
        if method == "getBlock":
            if params[0] in self.errors:
                return {"error": self.errors[params[0]]}
            return {"result": self.blocks.get(params[0])}
        assert method == "getMultipleAccounts"
        values = [self.accounts.get(address) for address in params[0]]
        return {"result": {"context": {"slot": 777}, "value": values}}

    def play(self, peer: Peer) -> None:
        peer.read_head()
        request = json.loads(peer.read_body())
        reply = self.answer(request["method"], request["params"])
        peer.respond("200 OK", json.dumps({"jsonrpc": "2.0", "id": request["id"], **reply}))

    @contextmanager
    def call(self) -> Iterator[Callable[[str, list[Any]], Any]]:
        with ScriptedServer(self.play) as server, RpcClient(server.http_url) as client:
            yield client.call

    def record(self, path: Path, first: int, last: int, **options: Any) -> Recorded:
        with self.call() as call:
            return record(call, first, last, path, source="a stub", **options)


def demo_node(slots: int = 3) -> Node:
    """A node that has the first blocks of the demo, and its accounts as they were before them."""
    with Bundle.open("demo") as bundle:
        blocks = {}
        for slot in bundle.slots[:slots]:
            block = bundle.block(slot)
            entries = [worlds.entry(t.transaction, t.meta) for t in block.transactions]
            blocks[slot] = {
                "blockHeight": block.block_height,
                "blockTime": block.block_time,
                "blockhash": block.blockhash,
                "parentSlot": block.parent_slot,
                "previousBlockhash": block.previous_blockhash,
                "transactions": entries,
            }
        accounts = bundle.accounts_at(bundle.first_slot)
    return Node(blocks, {key: svm.account_to_json(value) for key, value in accounts.items()})


def test_a_recorded_bundle_replays_as_it_was(tmp_path: Path) -> None:
    node = demo_node()
    first, last = min(node.blocks), max(node.blocks)
    made = node.record(tmp_path / "r.jsonl.gz", first, last)
    assert made.path == str(tmp_path / "r.jsonl.gz")
    assert made.blocks == 3
    assert made.skipped == last - first + 1 - 3
    assert made.accounts_slot == 777
    with Bundle.open(made.path) as bundle:
        assert (bundle.first_slot, bundle.last_slot) == (first, last)
        assert bundle.source == "recorded from a stub; accounts as of the recording"
        assert made.transactions == sum(len(bundle.block(s).transactions) for s in bundle.slots)
        assert made.accounts == len(bundle.accounts_at(first))
        engine = Engine(bundle, first)
        for block in bundle.blocks(first, last):
            engine.open_slot(block)
            for _ in block.batches:
                done = engine.run_batch(Capture.SUMMARY)
                assert all(executed.source is Source.EXECUTED for executed in done)
        assert engine.summary.correct_simulation == made.transactions


def test_what_is_fetched(tmp_path: Path) -> None:
    node = demo_node()
    node.record(tmp_path / "r.jsonl", min(node.blocks), max(node.blocks))
    (_, [_, config]) = node.asked[0]
    assert config == {
        "encoding": "base64",
        "transactionDetails": "full",
        "rewards": False,
        "maxSupportedTransactionVersion": 0,
        "commitment": "confirmed",
    }
    fetched = [
        address
        for method, params in node.asked
        if method == "getMultipleAccounts"
        for address in params[0]
    ]
    assert len(fetched) == len(set(fetched))
    wanted = {demo.POOL_PROGRAM, demo.POOL_PROGRAM_DATA, demo.LOOKUP_TABLE, demo.BASE_MINT}
    assert wanted <= set(fetched)
    assert not RESERVED & set(fetched)


def test_many_accounts_are_fetched_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_module, "_ACCOUNTS_AT_ONCE", 7)
    node = demo_node()
    made = node.record(tmp_path / "r.jsonl", min(node.blocks), max(node.blocks))
    sizes = [len(params[0]) for method, params in node.asked if method == "getMultipleAccounts"]
    assert max(sizes) == 7
    assert sum(sizes) == made.accounts + made.missing


def test_skipped_slots_are_left_out_however_they_are_told(tmp_path: Path) -> None:
    node = Node({11: worlds.block(11), 15: worlds.block(15, parent=11)}, {})
    node.errors = {12: SKIPPED, 13: NOT_STORED}  # and 10, 14 and 16 are told by null
    seen: list[tuple[int, bool]] = []
    made = node.record(
        tmp_path / "r.jsonl",
        10,
        16,
        on_slot=lambda slot, block: seen.append((slot, block is not None)),
    )
    assert seen == [(slot, slot in (11, 15)) for slot in range(10, 17)]
    assert (made.blocks, made.skipped) == (2, 5)
    with Bundle.open(made.path) as bundle:
        assert list(bundle.slots) == [11, 15]
        assert bundle.ranges[0].start_slot == 10


def test_accounts_that_are_gone_are_counted_and_their_transactions_played_back(
    tmp_path: Path,
) -> None:
    node = Node({147078735: worlds.mainnet_block()["result"]}, {})
    made = node.record(tmp_path / "r.jsonl.zst", 147078735, 147078735)
    assert made.accounts == 0
    assert made.missing > 50
    with Bundle.open(made.path) as bundle:
        engine = Engine(bundle, 147078735)
        engine.open_slot(bundle.block(147078735))
        for _ in engine.block.batches:
            engine.run_batch()
        assert engine.summary.played_back == 25


# --- when it goes wrong ------------------------------------------------------------------------


def nothing_written(folder: Path) -> bool:
    return os.listdir(folder) == []


def test_a_range_without_blocks_is_said(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no slot from 10 to 12 has a block"):
        Node({}, {}).record(tmp_path / "r.jsonl", 10, 12)
    assert nothing_written(tmp_path)


@pytest.mark.parametrize(("first", "last"), [(5, 4), (-1, 4)])
def test_a_range_that_is_none_is_refused_before_anything_is_asked(
    tmp_path: Path, first: int, last: int
) -> None:
    def never(method: str, params: list[Any]) -> Any:
        raise AssertionError(f"{method} was asked")

    with pytest.raises(InvalidParamsError, match="is no range"):
        record(never, first, last, tmp_path / "r.jsonl", source="")


def test_an_existing_file_is_kept_and_nothing_asked(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text("mine")
    node = Node({10: worlds.block(10)}, {})
    with pytest.raises(BundleError, match="exists already"):
        node.record(path, 10, 10)
    assert node.asked == []
    assert path.read_text() == "mine"
    node.record(path, 10, 10, overwrite=True)
    with Bundle.open(path) as bundle:
        assert list(bundle.slots) == [10]


def test_an_error_of_the_node_is_raised_and_nothing_left(tmp_path: Path) -> None:
    node = Node({10: worlds.block(10)}, {})
    node.errors = {11: {"code": -32001, "message": "Block 11 cleaned up"}}
    with pytest.raises(RpcError, match="cleaned up") as caught:
        node.record(tmp_path / "r.jsonl.gz", 10, 12)
    assert caught.value.code == -32001
    assert nothing_written(tmp_path)


def test_a_node_that_answers_with_an_http_error(tmp_path: Path) -> None:
    def refuse(peer: Peer) -> None:
        peer.read_head()
        peer.read_body()
        peer.respond("403 Forbidden", "no key")

    with ScriptedServer(refuse) as server, RpcClient(server.http_url) as client:
        with pytest.raises(HttpStatusError, match="403"):
            record(client.call, 10, 12, tmp_path / "r.jsonl", source="a stub")
    assert nothing_written(tmp_path)


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        ("nonsense", "block 10: not an object"),
        ({**worlds.block(10), "transactions": None}, "no transactions"),
        ({**worlds.block(10), "parentSlot": 10}, "is not before it"),
        ({**worlds.block(10), "transactions": [{"transaction": {}}]}, "transaction 0 of block 10"),
    ],
)
def test_a_block_of_another_shape_is_refused(tmp_path: Path, block: Any, reason: str) -> None:
    with pytest.raises(DeserializeError, match="getBlock") as caught:
        Node({10: block}, {}).record(tmp_path / "r.jsonl", 10, 10)
    assert reason in str(caught.value)
    assert nothing_written(tmp_path)


@pytest.mark.parametrize(
    "result",
    [
        None,
        [],
        {"value": []},
        {"context": {"slot": 1}, "value": []},
        {"context": {"slot": 1}, "value": [5, None, None]},
        {"context": {"slot": 1}, "value": [{"lamports": 1}, None, None]},
    ],
)
def test_accounts_of_another_shape_are_refused(tmp_path: Path, result: Any) -> None:
    paid = worlds.meta([9, 0, 1], [4, 4, 1])
    block = worlds.block(10, [worlds.entry(worlds.payment("a", "b", 1), paid)])

    def call(method: str, params: list[Any]) -> Any:
        return block if method == "getBlock" else result

    with pytest.raises(DeserializeError, match="getMultipleAccounts"):
        record(call, 10, 10, tmp_path / "r.jsonl", source="")
    assert nothing_written(tmp_path)


def test_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(slot: int, block: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Node({10: worlds.block(10)}, {}).record(tmp_path / "r.jsonl", 10, 12, on_slot=interrupt)
    assert nothing_written(tmp_path)
