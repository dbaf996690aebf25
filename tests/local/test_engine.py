"""The engine's history: what a bundle's blocks do, checked against LiteSVM run directly."""

from __future__ import annotations

import copy
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from solders.clock import Clock
from solders.compute_budget import set_compute_unit_limit
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction
from solders.transaction_metadata import FailedTransactionMetadata

from backtest_sync.local import demo
from backtest_sync.local.bundle import Bundle, BundleError
from backtest_sync.local.engine import Engine
from backtest_sync.local.executed import Capture, Executed, Source
from tests.local import worlds
from tests.local.worlds import payment, purse, where


@pytest.fixture(scope="module")
def bundle() -> Iterator[Bundle]:
    with Bundle.open("demo") as opened:
        yield opened


def run(
    engine: Engine, bundle: Bundle, first: int, last: int, capture: Capture = Capture.BALANCES
) -> Iterator[tuple[int, list[Executed]]]:
    """Runs slots to their ends and gives each slot's results."""
    for block in bundle.blocks(first, last):
        engine.open_slot(block)
        done: list[Executed] = []
        while engine.next_batch < len(block.batches):
            done += engine.run_batch(capture)
        engine.close_slot()
        yield block.slot, done


def states(engine: Engine, addresses: set[str]) -> dict[str, Any]:
    return {address: engine.account(address) for address in addresses}


def test_every_state_and_result_is_what_litesvm_gives_directly(bundle: Bundle) -> None:
    machine = worlds.bare_machine(bundle.accounts_at(bundle.first_slot))
    engine = Engine(bundle, bundle.first_slot)
    touched: set[str] = set(bundle.accounts_at(bundle.first_slot))
    slots = 0
    for slot, done in run(engine, bundle, bundle.first_slot, bundle.last_slot):
        block = bundle.block(slot)
        slots += 1
        machine.set_clock(Clock(slot, 0, slot // 432_000, slot // 432_000 + 1, block.block_time))
        assert [executed.index for executed in done] == list(range(len(block.transactions)))
        for transaction, executed in zip(block.transactions, done, strict=True):
            result: Any = machine.send_transaction(transaction.transaction)
            failed = isinstance(result, FailedTransactionMetadata)
            assert (executed.err is not None) == failed
            meta = result.meta() if failed else result
            assert executed.logs == meta.logs()
            assert executed.units == meta.compute_units_consumed()
            assert executed.fee == meta.fee()
            assert executed.signature == str(meta.signature())
            touched.update(transaction.keys)
        for address in touched:
            assert engine.account(address) == machine.get_account(Pubkey.from_string(address)), (
                f"{address} after slot {slot}"
            )
    assert slots == len(bundle.slots)


def test_what_was_recorded_comes_out_again(bundle: Bundle) -> None:
    engine = Engine(bundle, bundle.first_slot)
    for slot, done in run(engine, bundle, bundle.first_slot, bundle.last_slot, Capture.ALL):
        for transaction, executed in zip(bundle.block(slot).transactions, done, strict=True):
            assert executed.meta() == transaction.meta
            assert executed.source is Source.EXECUTED
            assert executed.invoked == transaction.programs
    counted = engine.summary
    assert counted.correct_simulation == sum(
        len(bundle.block(s).transactions) for s in bundle.slots
    )
    assert counted.incorrect_simulation == counted.execution_errors == counted.balance_diff == 0
    assert counted.log_diff == counted.unsanitizable == counted.played_back == 0


def test_a_range_begins_where_the_one_before_it_ended(bundle: Bundle) -> None:
    engine = Engine(bundle, bundle.first_slot)
    for first, last in zip(demo.RANGE_STARTS, demo.RANGE_STARTS[1:], strict=False):
        for _ in run(engine, bundle, first, last - 1):
            pass
        there = Engine(bundle, last)
        there.open_slot(bundle.block(last))
        accounts = bundle.accounts_at(last)
        assert states(there, set(accounts)) == states(engine, set(accounts))


def test_batches_carry_their_index_and_run_one_at_a_time(bundle: Bundle) -> None:
    block = bundle.block(bundle.first_slot)
    engine = Engine(bundle, bundle.first_slot)
    engine.open_slot(block)
    for index, batch in enumerate(block.batches):
        assert engine.next_batch == index
        done = engine.run_batch()
        assert [executed.batch_index for executed in done] == [index] * len(batch)
        assert [executed.signature for executed in done] == [t.signature for t in batch]
    assert engine.run_batch() == []
    assert engine.next_batch == len(block.batches)


def test_reads_in_the_middle_of_a_slot_show_the_batches_before(bundle: Bundle) -> None:
    block = bundle.block(bundle.first_slot)
    engine = Engine(bundle, bundle.first_slot)
    engine.open_slot(block)
    accounts = bundle.accounts_at(bundle.first_slot)
    for batch in block.batches:
        for transaction in batch:
            for address in transaction.written:
                assert engine.account(address) == accounts.get(address)
        for executed in engine.run_batch(Capture.DIFFS):
            for change in executed.changes:
                assert accounts.get(change.address) == change.pre
                accounts[change.address] = change.post


def test_diffs_are_every_account_that_changed(bundle: Bundle) -> None:
    engine = Engine(bundle, bundle.first_slot)
    last = bundle.first_slot + 20
    before = bundle.accounts_at(bundle.first_slot)
    after: dict[str, Any] = dict(before)
    for _, done in run(engine, bundle, bundle.first_slot, last, Capture.DIFFS):
        for executed in done:
            for change in executed.changes:
                assert change.pre != change.post
                assert after.get(change.address) == change.pre
                after[change.address] = change.post
    assert states(engine, set(after)) == after
    assert set(after) - set(before), "nobody new came in"


def test_nothing_is_captured_that_was_not_asked_for(bundle: Bundle) -> None:
    engine = Engine(bundle, bundle.first_slot)
    slots = run(engine, bundle, bundle.first_slot, bundle.last_slot, Capture.NONE)
    _, done = next(slots)
    assert all(executed.changes == () for executed in done)
    assert all(executed.pre_balances == executed.post_balances == [] for executed in done)
    assert engine.summary.correct_simulation == 0
    # Balances that were not captured for a while are right once they are captured again.
    block = bundle.block(bundle.slots[1])
    engine.open_slot(block)
    for batch in block.batches:
        for executed in engine.run_batch(Capture.SUMMARY):
            assert executed.meta() == batch[executed.index - batch[0].index].meta
    assert engine.summary.correct_simulation == len(block.transactions)


def test_a_lookup_table_is_resolved(bundle: Bundle) -> None:
    engine = Engine(bundle, bundle.first_slot)
    for _, done in run(engine, bundle, bundle.first_slot, bundle.first_slot + 10):
        for executed in done:
            if executed.loaded_writable:
                assert demo.POOL in executed.loaded_writable
                assert demo.TOKEN_PROGRAM in executed.loaded_readonly
                assert executed.keys[-len(executed.loaded_readonly) :] == executed.loaded_readonly
                return
    pytest.fail("no transaction with a lookup table")


def test_a_range_that_is_none_is_refused(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="no range begins at slot 400000001"):
        Engine(bundle, bundle.first_slot + 1)


def test_before_a_slot_is_open_there_is_no_position(bundle: Bundle) -> None:
    with pytest.raises(RuntimeError, match="no slot was opened"):
        _ = Engine(bundle, bundle.first_slot).slot


# --- sysvars ---------------------------------------------------------------------------------


def sysvar(engine: Engine, name: str) -> bytes:
    account = engine.account(name)
    assert account is not None
    return account.data


def test_sysvars_are_those_of_the_block(bundle: Bundle) -> None:
    engine = Engine(bundle, bundle.first_slot)
    parents: list[tuple[int, str]] = []
    for slot, _ in run(engine, bundle, bundle.first_slot, bundle.first_slot + 40):
        block = bundle.block(slot)
        parents.insert(0, (block.parent_slot, block.previous_blockhash))
        clock = struct.unpack(
            "<QqQQq", sysvar(engine, "SysvarC1ock11111111111111111111111111111111")
        )
        epoch = slot // 432_000
        start = block.block_time - int(slot % 432_000 * 0.4)  # type: ignore[operator]
        assert clock == (slot, start, epoch, epoch + 1, block.block_time)
        data = sysvar(engine, "SysvarS1otHashes111111111111111111111111111")
        assert int.from_bytes(data[:8], "little") == len(parents)
        listed = [
            (int.from_bytes(data[at : at + 8], "little"), str(Hash(data[at + 8 : at + 40])))
            for at in range(8, 8 + 40 * len(parents), 40)
        ]
        assert listed == parents
        recent = sysvar(engine, "SysvarRecentB1ockHashes11111111111111111111")
        assert str(Hash(recent[8:40])) == block.previous_blockhash
        history = engine._svm.get_slot_history()
        assert str(history.check(block.parent_slot)) == "SlotHistoryCheck.Found"
        assert str(history.check(slot)) == "SlotHistoryCheck.Future"
        skipped = set(range(block.parent_slot + 1, slot))
        assert all(str(history.check(s)) != "SlotHistoryCheck.Found" for s in skipped)
        assert (engine.blockhash, engine.block_time) == (block.blockhash, block.block_time)
        assert engine.block_height == block.block_height
    schedule = engine._svm.get_epoch_schedule()
    assert (schedule.slots_per_epoch, schedule.warmup) == (432_000, False)


def test_slot_hashes_hold_512_entries_and_no_more(tmp_path: Path) -> None:
    blocks = [worlds.block(slot) for slot in range(1000, 1520)]
    with Bundle.open(worlds.write(tmp_path / "b.jsonl", blocks)) as bundle:
        engine = Engine(bundle, 1000)
        for block in bundle.blocks(1000, 1519):
            engine.open_slot(block)
        data = sysvar(engine, "SysvarS1otHashes111111111111111111111111111")
        assert len(data) == 8 + 512 * 40
        assert int.from_bytes(data[8:16], "little") == 1518


def test_a_block_without_time_keeps_the_last_one_and_without_height_its_slot(
    tmp_path: Path,
) -> None:
    blocks = [worlds.block(1000), {**worlds.block(1001), "blockTime": None, "blockHeight": None}]
    with Bundle.open(worlds.write(tmp_path / "b.jsonl", blocks)) as bundle:
        engine = Engine(bundle, 1000)
        for block in bundle.blocks(1000, 1001):
            engine.open_slot(block)
        clock = sysvar(engine, "SysvarC1ock11111111111111111111111111111111")
        assert int.from_bytes(clock[32:], "little") == 1_700_000_000 + 1000
        assert engine.block_time is None
        assert engine.block_height == 1001


# --- comparison with what was recorded ---------------------------------------------------------


def outcome(tmp_path: Path, **changed: Any) -> Any:
    """The summary of one payment whose record was changed."""
    pre, post = [10**9, 0, 1], [10**9 - 5000 - 10**6, 10**6, 1]
    system = str(worlds.SYSTEM)
    logs = [f"Program {system} invoke [1]", f"Program {system} success"]
    recorded = worlds.meta(pre, post, **{"logMessages": logs, **changed})
    accounts = {where("a"): purse(10**9)}
    with worlds.open_world(tmp_path, [(payment("a", "b", 10**6), recorded)], accounts) as bundle:
        engine = Engine(bundle, 1000)
        engine.open_slot(bundle.block(1000))
        engine.run_batch(Capture.SUMMARY)
        return {name: count for name, count in attrs.asdict(engine.summary).items() if count}


def test_each_transaction_is_counted_once(tmp_path: Path) -> None:
    def of(name: str, **changed: Any) -> Any:
        folder = tmp_path / name
        folder.mkdir()
        return outcome(folder, **changed)

    err = {"InstructionError": [0, {"Custom": 1}]}
    assert of("same") == {"correct_simulation": 1}
    assert of("no-logs", logMessages=None) == {"correct_simulation": 1}
    assert of("no-token-balances", postTokenBalances=None) == {"correct_simulation": 1}
    assert of("failed-on-chain", err=err) == {"incorrect_simulation": 1}
    assert of("balances", postBalances=[5, 10**6, 1]) == {"balance_diff": 1}
    five = {"amount": "5", "decimals": 0}
    tokens = [{"accountIndex": 1, "mint": where("m"), "uiTokenAmount": five}]
    assert of("tokens", postTokenBalances=tokens) == {"balance_diff": 1}
    assert of("logs", logMessages=["other"]) == {"log_diff": 1}


def test_an_error_that_the_chain_did_not_have_is_an_execution_error(tmp_path: Path) -> None:
    recorded = worlds.meta([10**6, 0, 1], [1, 1, 1])
    with worlds.open_world(
        tmp_path, [(payment("a", "b", 10**7), recorded)], {where("a"): purse(10**6)}
    ) as bundle:
        engine = Engine(bundle, 1000)
        engine.open_slot(bundle.block(1000))
        (executed,) = engine.run_batch(Capture.SUMMARY)
        assert executed.err == {"InstructionError": [0, {"Custom": 1}]}
        assert engine.summary.execution_errors == 1


def test_what_can_not_be_sanitized_is_skipped_and_counted(tmp_path: Path) -> None:
    good = payment("a", "b", 10**6)
    message = copy.copy(good.message)
    raw = bytearray(bytes(good))
    raw[raw.rindex(b"\x02\x02\x00\x01") + 3] = 77  # an account index that is out of bounds
    bad = VersionedTransaction.from_bytes(bytes(raw))
    assert bad.message != message
    with worlds.open_world(tmp_path, [(bad, None), (good, None)], {where("a"): purse(10**9)}) as b:
        engine = Engine(b, 1000)
        engine.open_slot(b.block(1000))
        done = [executed for _ in b.block(1000).batches for executed in engine.run_batch()]
        assert [executed.signature for executed in done] == [str(good.signatures[0])]
        assert engine.summary.unsanitizable == 1


# --- extra compute units -----------------------------------------------------------------------


def swap_with_limit(limit: int, *, versioned: bool = False) -> VersionedTransaction:
    swap = demo.swap_instruction(demo.ALICE, sells_base=True, amount_in=10**9)
    payer = worlds.somebody("backtest-sync demo: alice")
    instructions = [set_compute_unit_limit(limit), swap]
    if versioned:
        message = MessageV0.try_compile(payer.pubkey(), instructions, [], Hash.default())
        return VersionedTransaction(message, [payer])
    return worlds.signed(payer, *instructions)


@pytest.mark.parametrize("versioned", [False, True])
def test_extra_units_are_added_where_a_limit_is_set(
    tmp_path: Path, bundle: Bundle, versioned: bool
) -> None:
    tight = swap_with_limit(1_000, versioned=versioned)
    plain = payment("backtest-sync demo: bob", "b", 10**6)
    accounts = bundle.accounts_at(bundle.first_slot)
    with worlds.open_world(tmp_path, [(tight, None), (plain, None)], accounts) as small:
        outcomes = {}
        for extra in (0, 100_000, 2**32 - 1):
            engine = Engine(small, 1000, extra_compute_units=extra)
            engine.open_slot(small.block(1000))
            swapped, paid = engine.run_batch()
            outcomes[extra] = swapped.err
            assert paid.err is None
            assert paid.logs == engine_logs(small, 1)
            assert bytes(swapped.transaction) == swapped.raw == bytes(tight)
    assert outcomes[0] == {"InstructionError": [1, "ProgramFailedToComplete"]}
    assert outcomes[100_000] is None
    assert outcomes[2**32 - 1] is None  # the runtime's own bound of 1.4 million counts


def engine_logs(bundle: Bundle, index: int) -> list[str] | None:
    engine = Engine(bundle, 1000)
    engine.open_slot(bundle.block(1000))
    return engine.run_batch()[index].logs


# --- recorded state ----------------------------------------------------------------------------


def test_replayed_state_is_the_executed_one_and_nothing_executes(bundle: Bundle) -> None:
    start = demo.RANGE_STARTS[-1]
    engine = Engine(bundle, start, replay_account_state=True)
    executed = Engine(bundle, start)
    executing = run(executed, bundle, start, bundle.last_slot, Capture.DIFFS)
    for block in bundle.blocks(start, bundle.last_slot):
        engine.open_slot(block)
        while engine.next_batch < len(block.batches):
            assert engine.run_batch(Capture.ALL) == []
        changes = engine.close_slot()
        _, done = next(executing)
        changed = {change.address for e in done for change in e.changes}
        assert states(engine, changed) == states(executed, changed)
        assert {change.address for change in changes} <= changed
        for change in changes:
            assert change.post == engine.account(change.address)


def test_state_is_replayed_only_where_it_was_recorded(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="no recorded account state begins at slot 400000000"):
        Engine(bundle, bundle.first_slot, replay_account_state=True)


# --- shapes ------------------------------------------------------------------------------------


def test_a_program_that_is_called_but_not_there(tmp_path: Path) -> None:
    nowhere = worlds.somebody("nowhere").pubkey()
    transaction = worlds.signed(
        worlds.somebody("a"), Instruction(nowhere, b"", [AccountMeta(nowhere, False, False)])
    )
    with worlds.open_world(tmp_path, [(transaction, None)], {where("a"): purse(10**9)}) as b:
        engine = Engine(b, 1000)
        engine.open_slot(b.block(1000))
        (executed,) = engine.run_batch()
        assert executed.err == "InvalidProgramForExecution"
        assert executed.meta()["status"] == {"Err": "InvalidProgramForExecution"}


def test_reprs_are_short(bundle: Bundle) -> None:
    engine = Engine(bundle, bundle.first_slot)
    _, done = next(run(engine, bundle, bundle.first_slot, bundle.last_slot))
    assert repr(done[0]).startswith("Ran(")
    assert all(len(repr(executed)) < 250 for executed in done)
