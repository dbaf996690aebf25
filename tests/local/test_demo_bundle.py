"""The demo bundle: the same each time, and with what examples and journeys need."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from solders.pubkey import Pubkey

from backtest_sync.local import demo, demo_world
from backtest_sync.local.bundle import Bundle, demo_path
from backtest_sync.local.demo_bundle import write_demo_bundle
from backtest_sync.local.lines import read_lines

TOKEN = demo.TOKEN_PROGRAM
MEMO = "MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr"
ASSOCIATED = "ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL"
BUDGET = "ComputeBudget111111111111111111111111111111"


@pytest.fixture(scope="module")
def bundle() -> Iterator[Bundle]:
    with Bundle.open("demo") as opened:
        yield opened


@pytest.fixture(scope="module")
def transactions(bundle: Bundle) -> list[Any]:
    return [t for slot in bundle.slots for t in bundle.block(slot).transactions]


def test_its_maker_gives_the_same_lines_again(tmp_path: Path) -> None:
    made = tmp_path / "demo.jsonl.zst"
    write_demo_bundle(made)
    for (number, packaged), (_, fresh) in zip(
        read_lines(demo_path()), read_lines(str(made)), strict=True
    ):
        assert packaged == fresh, f"line {number} differs"
    again = tmp_path / "again.jsonl.zst"
    write_demo_bundle(again)
    assert again.read_bytes() == made.read_bytes()


def test_it_is_small_enough_to_ship() -> None:
    assert Path(demo_path()).stat().st_size < 1_000_000


def test_it_is_large_enough_to_try_things_on(bundle: Bundle, transactions: list[Any]) -> None:
    assert len(bundle.slots) >= 150
    assert len(transactions) >= 3000
    skipped = bundle.last_slot - bundle.first_slot + 1 - len(bundle.slots)
    assert skipped >= 5
    assert max(len(bundle.block(slot).batches) for slot in bundle.slots) >= 4
    assert len({t.signature for t in transactions}) == len(transactions)


def test_three_ranges_follow_each_other_and_begin_with_a_block(bundle: Bundle) -> None:
    plain = [r for r in bundle.ranges if r.kind == "blocks"]
    assert [r.start_slot for r in plain] == list(demo.RANGE_STARTS)
    assert plain[-1].end_slot == bundle.last_slot == demo.LAST_SLOT
    assert all(a.end_slot + 1 == b.start_slot for a, b in pairwise(plain))
    assert {r.start_slot for r in plain} <= set(bundle.slots)
    (recorded,) = [r for r in bundle.ranges if r.kind == "account_state"]
    assert (recorded.start_slot, recorded.end_slot) == (plain[-1].start_slot, bundle.last_slot)
    assert all(bundle.recorded_state(s) for s in bundle.slots if s >= recorded.start_slot)


def test_blocks_hang_together(bundle: Bundle) -> None:
    blocks = [bundle.block(slot) for slot in bundle.slots]
    for before, after in pairwise(blocks):
        assert after.parent_slot == before.slot
        assert after.previous_blockhash == before.blockhash
        assert after.block_height == (before.block_height or 0) + 1
        assert (after.block_time or 0) >= (before.block_time or 0)
    for block in blocks:
        for transaction in block.transactions:
            recent = str(transaction.transaction.message.recent_blockhash)
            assert recent == block.previous_blockhash


def test_signatures_are_real(transactions: list[Any]) -> None:
    for transaction in transactions[::50]:
        assert all(transaction.transaction.verify_with_results())


def test_the_constants_are_what_the_seeds_give() -> None:
    def of(name: str) -> str:
        return str(demo_world.address(name))

    loader = Pubkey.from_string("BPFLoaderUpgradeab1e11111111111111111111111")
    program = Pubkey.from_string(demo.POOL_PROGRAM)
    pool, _ = Pubkey.find_program_address([b"pool"], program)
    data_address, _ = Pubkey.find_program_address([bytes(program)], loader)
    assert of("pool program") == demo.POOL_PROGRAM
    assert str(data_address) == demo.POOL_PROGRAM_DATA
    assert str(pool) == demo.POOL
    assert of("maker program") == demo.MAKER_PROGRAM
    assert of("maker") == demo.MAKER
    assert of("price account") == demo.PRICE_ACCOUNT
    assert of("base mint") == demo.BASE_MINT
    assert of("quote mint") == demo.QUOTE_MINT
    assert of("lookup table") == demo.LOOKUP_TABLE
    assert of("upgrade authority") == demo.UPGRADE_AUTHORITY
    for name, trader in (("alice", demo.ALICE), ("bob", demo.BOB)):
        owner = demo_world.address(name)
        assert trader == demo.Trader(
            str(owner),
            str(demo_world.token_address(owner, demo_world.BASE_MINT)),
            str(demo_world.token_address(owner, demo_world.QUOTE_MINT)),
        )
    assert str(demo_world.token_address(pool, demo_world.BASE_MINT)) == demo.BASE_VAULT
    assert str(demo_world.token_address(pool, demo_world.QUOTE_MINT)) == demo.QUOTE_VAULT


def test_both_traders_trade_in_both_directions(transactions: list[Any]) -> None:
    seen: Counter[tuple[str, bool]] = Counter()
    for transaction in transactions:
        for swap in demo.pool_swaps(transaction.meta["logMessages"]):
            seen[transaction.keys[0], swap.sells_base] += 1
            assert demo.POOL_PROGRAM in transaction.programs
            assert TOKEN in transaction.programs
    for trader in (demo.ALICE.address, demo.BOB.address):
        assert min(seen[trader, True], seen[trader, False]) >= 20


def test_swaps_chain_up_by_the_formula(transactions: list[Any]) -> None:
    base, quote = 20_000 * 10**9, 3_000_000 * 10**6
    for transaction in transactions:
        for swap in demo.pool_swaps(transaction.meta["logMessages"]):
            given = (base, quote) if swap.sells_base else (quote, base)
            assert swap.amount_out == demo.amount_out(swap.amount_in, *given, demo.FEE_BPS[1])
            after = (given[0] + swap.amount_in, given[1] - swap.amount_out)
            assert (swap.reserve_in, swap.reserve_out) == after
            base, quote = after if swap.sells_base else after[::-1]


def test_a_price_is_published_in_every_block(bundle: Bundle) -> None:
    for slot in bundle.slots:
        makers = [t for t in bundle.block(slot).transactions if demo.MAKER_PROGRAM in t.programs]
        assert len(makers) == 1
        assert not makers[0].changes_token_balance
        assert demo.PRICE_ACCOUNT in makers[0].written


def test_there_is_something_of_everything(transactions: list[Any]) -> None:
    programs: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    for transaction in transactions:
        programs.update(transaction.programs)
        if transaction.meta["err"] is not None:
            errors[str(transaction.meta["err"]["InstructionError"][1])] += 1
    for program in (TOKEN, MEMO, ASSOCIATED, BUDGET, str(Pubkey.default())):
        assert programs[program] >= 20, program
    assert errors["{'Custom': 6001}"] >= 20
    assert errors["{'Custom': 1}"] >= 20
    assert 0.01 < sum(errors.values()) / len(transactions) < 0.2
    versions = Counter(str(t.transaction.version()) for t in transactions)
    assert versions["0"] >= 100
    assert sum(bool(t.loaded_writable) for t in transactions) >= 100
    assert sum(bool(t.meta["innerInstructions"]) for t in transactions) >= 100
    assert sum("returnData" in t.meta for t in transactions) >= 100
    assert sum(t.meta["fee"] > 5000 for t in transactions) >= 100


def test_accounts_come_and_go(bundle: Bundle, transactions: list[Any]) -> None:
    at_starts = [set(bundle.accounts_at(start)) for start in demo.RANGE_STARTS]
    assert at_starts[1] - at_starts[0]
    assert at_starts[1] - at_starts[2], "nobody closed an account in the second range"
    closed = [
        t
        for t in transactions
        if any(
            before and not after
            for before, after in zip(t.meta["preBalances"], t.meta["postBalances"], strict=True)
        )
    ]
    assert len(closed) >= 5


def test_ready_made_transactions_are_those_of_the_pool() -> None:
    from solders.transaction import VersionedTransaction

    raw = demo.swap_transaction(demo.BOB, sells_base=False, amount_in=7, least_out=3)
    transaction = VersionedTransaction.from_bytes(raw)
    (instruction,) = transaction.message.instructions
    assert bytes(instruction.data) == demo.swap_data(7, 3)
    assert str(transaction.message.account_keys[0]) == demo.BOB.address
