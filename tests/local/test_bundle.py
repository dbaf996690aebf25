"""Bundles: round trips, ranges, damage, getBlock answers, large blocks."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from solders.account import Account
from solders.pubkey import Pubkey

from backtest_sync.local import store as store_module, svm
from backtest_sync.local.bundle import (
    Bundle,
    BundleError,
    BundleRange,
)
from backtest_sync.local.bundle_writer import BundleWriter
from backtest_sync.local.store import BlockStore
from tests.local import worlds
from tests.local.worlds import purse, where

TOKEN = Pubkey.from_string("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA")


def some_block(slot: int, count: int = 2, parent: int | None = None) -> dict[str, Any]:
    entries = [
        worlds.entry(worlds.payment(f"p{i}", "q", slot), worlds.meta([9, 0, 1], [4, 4, 1]))
        for i in range(count)
    ]
    return worlds.block(slot, entries, parent=parent)


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
def test_a_round_trip(tmp_path: Path, suffix: str) -> None:
    accounts = {where("p0"): purse(5), where("t"): Account(7, b"\x00\xff" * 50, TOKEN, False, 3)}
    blocks = [some_block(slot) for slot in (10, 11, 12)]
    path = worlds.write(tmp_path / f"b{suffix}", blocks, accounts)
    with Bundle.open(path) as bundle:
        assert (bundle.first_slot, bundle.last_slot, bundle.source) == (10, 12, "a test")
        assert bundle.ranges == (BundleRange(10, 12),)
        assert list(bundle.slots) == [10, 11, 12]
        assert bundle.accounts_at(10) == accounts
        for slot, value in zip((10, 11, 12), blocks, strict=True):
            block = bundle.block(slot)
            assert block.blockhash == value["blockhash"]
            assert [svm.decode_base64(e["transaction"][0]) for e in value["transactions"]] == [
                t.raw for t in block.transactions
            ]
            assert [e["meta"] for e in value["transactions"]] == [
                t.meta for t in block.transactions
            ]


def test_blocks_of_a_range_of_slots_skip_what_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "b.jsonl"
    with BundleWriter(path, source="", first_slot=10, last_slot=20) as writer:
        for slot, parent in ((11, 9), (14, 11), (18, 14)):
            writer.add_block(slot, some_block(slot, parent=parent))
    with Bundle.open(path) as bundle:
        for (start, end), expected in {
            (10, 20): [11, 14, 18],
            (11, 18): [11, 14, 18],
            (12, 17): [14],
            (15, 17): [],
            (0, 2**64): [11, 14, 18],
            (18, 11): [],
        }.items():
            assert [block.slot for block in bundle.blocks(start, end)] == expected
        with pytest.raises(KeyError):
            bundle.block(12)


def test_a_range_starts_from_what_the_ranges_before_it_left(tmp_path: Path) -> None:
    path = tmp_path / "b.jsonl"
    ranges = [BundleRange(10, 11), BundleRange(12, 14), BundleRange(15, 15)]
    show = svm.account_to_json
    with BundleWriter(path, source="", first_slot=10, last_slot=15, ranges=ranges) as writer:
        for name in "abc":
            writer.add_account(where(name), show(purse(1)))
        writer.add_block(11, some_block(11))
        writer.add_account(where("b"), show(purse(2)))
        writer.add_account(where("c"), None)
        writer.add_block(12, some_block(12))
        writer.add_account(where("c"), show(purse(3)))
        writer.add_account(where("d"), show(purse(3)))
    with Bundle.open(path) as bundle:
        lamports = {
            start: {key: account.lamports for key, account in bundle.accounts_at(start).items()}
            for start in (10, 12, 15)
        }
        assert lamports[10] == {where("a"): 1, where("b"): 1, where("c"): 1}
        assert lamports[12] == {where("a"): 1, where("b"): 2}
        assert lamports[15] == {where("a"): 1, where("b"): 2, where("c"): 3, where("d"): 3}
        with pytest.raises(BundleError, match="no range begins at slot 11; ranges begin at 10, 12"):
            bundle.accounts_at(11)


def test_recorded_state_belongs_to_its_slot(tmp_path: Path) -> None:
    path = tmp_path / "b.jsonl"
    ranges = [BundleRange(10, 12), BundleRange(10, 12, "account_state")]
    with BundleWriter(path, source="", first_slot=10, last_slot=12, ranges=ranges) as writer:
        writer.add_block(10, some_block(10))
        writer.add_state(10, {where("a"): svm.account_to_json(purse(5)), where("b"): None})
        writer.add_block(12, some_block(12, parent=10))
    with Bundle.open(path) as bundle:
        assert bundle.ranges[1].kind == "account_state"
        assert bundle.recorded_state(10) == {where("a"): purse(5), where("b"): None}
        assert bundle.recorded_state(12) == {}


# --- damage ----------------------------------------------------------------------------------


def good_lines(tmp_path: Path) -> list[Any]:
    path = worlds.write(
        tmp_path / "good.jsonl", [some_block(10), some_block(11)], {where("a"): purse(5)}
    )
    return [json.loads(line) for line in path.read_text().splitlines()]


def with_lines(tmp_path: Path, lines: list[Any]) -> Path:
    path = tmp_path / "bad.jsonl"
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts) + "\n")
    return path


def header(**fields: Any) -> Any:
    return lambda lines: lines[0].update(fields)


def at(index: int, value: Any) -> Any:
    return lambda lines: lines.__setitem__(index, value)


def between(index: int, value: Any) -> Any:
    return lambda lines: lines.insert(index, value)


ACCOUNT = {"data": ["", "base64"], "lamports": 1, "owner": str(Pubkey.default())}
RANGE = {"startSlot": 10, "endSlot": 11, "kind": "blocks"}


@pytest.mark.parametrize(
    ("change", "line", "reason"),
    [
        (header(format="parquet"), 1, "of another format: 'parquet'"),
        (header(version=2), 1, "of version 2, where this release reads version 1"),
        (header(version=None), 1, "of version None"),
        (lambda v: v[0].pop("ranges"), 1, "ranges is missing"),
        (lambda v: v[0].pop("firstSlot"), 1, "firstSlot is missing"),
        (header(firstSlot=-1), 1, "firstSlot is -1, not a slot"),
        (header(lastSlot=True), 1, "lastSlot is True, not a slot"),
        (header(ranges=[]), 1, "the ranges end at slot 9, the bundle at 11"),
        (header(ranges=[{**RANGE, "startSlot": 11}]), 1, "begins at slot 10 is missing"),
        (header(ranges=[{**RANGE, "endSlot": 10}]), 1, "the ranges end at slot 10"),
        (header(ranges=[RANGE, {**RANGE, "kind": "x"}]), 1, "of the unknown kind 'x'"),
        (
            header(ranges=[RANGE, {**RANGE, "startSlot": 11, "kind": "account_state"}]),
            1,
            "the account_state range at slot 11 fits no range of blocks",
        ),
        (header(ranges=5), 1, "int"),
        (at(1, "{"), 2, "not JSON: "),
        (at(1, "[]"), 2, "not a JSON object"),
        (at(1, {"what": 1}), 2, "neither an account, nor a block, nor the end"),
        (at(1, {"pubkey": "x", "account": ACCOUNT}), 2, "'x' is not an address"),
        (at(1, {"pubkey": where("a")}), 2, "account is missing"),
        (
            at(1, {"pubkey": where("a"), "account": {**ACCOUNT, "data": ["!", "base64"]}}),
            2,
            f"account {where('a')}: bad base64",
        ),
        (
            at(1, {"pubkey": where("a"), "account": {**ACCOUNT, "data": "AQ=="}}),
            2,
            'account data is not of the form [text, "base64"]',
        ),
        (
            at(1, {"pubkey": where("a"), "account": {**ACCOUNT, "lamports": -1}}),
            2,
            "account with a wrong value",
        ),
        (
            at(1, {"pubkey": where("a"), "account": {"data": ["", "base64"], "lamports": 1}}),
            2,
            "account without owner",
        ),
        (at(2, {"slot": 9, "block": {}}), 3, "block of slot 9 where one of 10 to 11 is due"),
        (at(3, {"slot": 10, "block": {}}), 4, "block of slot 10 where one of 11 to 11 is due"),
        (at(2, {"slot": 10, "block": {}}), 3, "block 10: no transactions"),
        (between(4, {"pubkey": where("a"), "account": ACCOUNT}), 5, "of the last range"),
        (between(3, {"slot": 11, "accounts": []}), 4, "does not follow its block"),
        (lambda v: v.pop(), 4, "cut off: the end line is missing"),
        (at(4, {"end": {"blocks": 3}}), 5, "2 blocks, where the end line says 3"),
        (at(4, {"end": {}}), 5, "blocks is missing"),
        (lambda v: v.append({"end": {"blocks": 2}}), 6, "more follows the end line"),
    ],
)
def test_damage_is_named_with_file_line_and_reason(
    tmp_path: Path, change: Any, line: int, reason: str
) -> None:
    lines = good_lines(tmp_path)
    change(lines)
    path = with_lines(tmp_path, lines)
    with pytest.raises(BundleError) as caught:
        Bundle.open(path)
    assert (caught.value.path, caught.value.line) == (str(path), line)
    assert reason in caught.value.reason
    assert f"{path}, line {line}: " in str(caught.value)


def test_an_undamaged_one_opens(tmp_path: Path) -> None:
    with Bundle.open(with_lines(tmp_path, good_lines(tmp_path))) as bundle:
        assert list(bundle.slots) == [10, 11]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "neither a bundle nor a getBlock answer"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "neither a bundle nor a getBlock answer"),
        (b"slot,signature\n1,2\n", "neither a bundle nor a getBlock answer"),
        (b"5\n", "neither a bundle nor a getBlock answer"),
        (b"{}\n", "neither a bundle nor a getBlock answer"),
        (
            b'{"jsonrpc":"2.0","error":{"code":-32009,"message":"skipped"},"id":1}',
            "holds an error, not a block: {'code': -32009",
        ),
        (b'{"result": {"blockhash": "x", "parentSlot": 1, "transactions": []}}', "not a base58"),
        (b'{"result": {"blockhash": "x"}}', "parentSlot"),
    ],
)
def test_a_foreign_file_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "foreign"
    path.write_bytes(content)
    with pytest.raises(BundleError) as caught:
        Bundle.open(path)
    assert reason in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="No such file") as caught:
        Bundle.open(tmp_path / "none.jsonl.gz")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize(
    ("written", "read"), [(7, 7), (2**64 - 1, 2**64 - 1), (18446744073709552000, 2**64 - 1)]
)
def test_a_rent_epoch_that_was_rounded_up_is_the_largest(written: int, read: int) -> None:
    assert svm.account_from_json({**ACCOUNT, "rentEpoch": written}).rent_epoch == read


def test_account_data_is_capped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backtest_sync.local.bundle.MAX_ACCOUNT_BYTES", 100)
    accounts = {where(name): Account(1, bytes(60), TOKEN) for name in "ab"}
    path = worlds.write(tmp_path / "b.jsonl", [some_block(10)], accounts)
    with pytest.raises(BundleError, match="accounts of more than 100 bytes"):
        Bundle.open(path)


# --- getBlock answers ------------------------------------------------------------------------


@pytest.mark.parametrize("envelope", [True, False])
@pytest.mark.parametrize("indent", [None, 2])
def test_a_get_block_answer_is_a_bundle_of_one_block(
    tmp_path: Path, envelope: bool, indent: int | None
) -> None:
    answer = worlds.mainnet_block()
    path = tmp_path / "block.json"
    path.write_text(json.dumps(answer if envelope else answer["result"], indent=indent))
    with Bundle.open(path) as bundle:
        assert list(bundle.slots) == [147078735]
        assert bundle.ranges == (BundleRange(147078735, 147078735),)
        assert bundle.accounts_at(147078735) == {}
        assert len(bundle.block(147078735).transactions) == 25


def test_its_slot_can_be_told() -> None:
    with Bundle.of_block(worlds.mainnet_block(), 147078740) as bundle:
        assert bundle.first_slot == bundle.last_slot == 147078740
        assert bundle.block(147078740).parent_slot == 147078734


def test_one_in_json_form_is_refused_with_what_to_ask_for() -> None:
    answer = worlds.mainnet_block()
    answer["result"]["transactions"][3]["transaction"] = {"message": {}, "signatures": []}
    with pytest.raises(BundleError, match=r'transaction 3 of block .*encoding "base64"'):
        Bundle.of_block(answer)


def test_a_much_larger_block_is_read(tmp_path: Path) -> None:
    value = worlds.mainnet_block()["result"]
    value["transactions"] *= 80  # 2,000 transactions, 10 MB
    path = worlds.write(tmp_path / "large.jsonl.gz", [value])
    with Bundle.open(path) as bundle:
        block = bundle.block(147078735)
        assert len(block.transactions) == 2000
        assert [t.index for t in block.transactions] == list(range(2000))
        assert sum(map(len, block.batches)) == 2000


# --- what is kept in memory --------------------------------------------------------------------


def filled(kept: int, slots: range) -> BlockStore:
    store = BlockStore(lambda _: None, kept)
    for slot in slots:
        store.put(slot, some_block(slot, count=5))
    return store


def in_memory(store: BlockStore) -> int:
    return sum(len(b.transactions) for b in [*store._first.values(), *store._recent.values()])


def test_blocks_beyond_the_first_are_read_back_from_the_spool() -> None:
    slots = range(1, 30)
    store = filled(24, slots)
    try:
        for slot in [*slots, *reversed(slots)]:
            block = store.get(slot)
            assert (block.slot, len(block.transactions)) == (slot, 5)
            assert in_memory(store) <= 24
        for slot in (1, 29, 28):
            assert store.get(slot) is store.get(slot)
        assert sorted(store._first) == [1, 2]
    finally:
        store.close()


def test_what_fits_needs_no_spool() -> None:
    store = filled(1000, range(1, 30))
    assert store._spool is None
    with pytest.raises(KeyError):
        store.get(30)
    store.close()


def test_a_block_larger_than_what_is_kept_is_still_kept_while_in_use() -> None:
    store = filled(3, range(1, 4))
    try:
        assert store.get(2) is store.get(2)
        assert list(store._recent) == [2]
    finally:
        store.close()


def test_a_large_spool_goes_to_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_SPOOL_BYTES", 1000)
    store = filled(5, range(1, 30))
    try:
        assert [store.get(slot).slot for slot in range(1, 30)] == list(range(1, 30))
    finally:
        store.close()


def test_a_writer_without_blocks_refuses_wrong_ranges(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the ranges end at slot 5"):
        BundleWriter(
            tmp_path / "b", source="", first_slot=1, last_slot=9, ranges=[BundleRange(1, 5)]
        )
    assert not list(tmp_path.iterdir())
