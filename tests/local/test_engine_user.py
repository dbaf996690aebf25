"""What a user does on the engine: sends, simulates, writes accounts, replaces programs."""

from __future__ import annotations

import random
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from solders.account import Account
from solders.compute_budget import set_compute_unit_price
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.message import MessageAddressTableLookup, MessageHeader, MessageV0
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from backtest_sync.errors import InvalidParamsError
from backtest_sync.local import demo, programs
from backtest_sync.local.bundle import Bundle
from backtest_sync.local.engine import Engine
from backtest_sync.local.executed import Capture, Source
from backtest_sync.protocol import AccountData
from tests.local import worlds
from tests.local.worlds import payment, where

LOADER = "BPFLoaderUpgradeab1e11111111111111111111111"
SYSTEM = str(Pubkey.default())


@pytest.fixture(scope="module")
def bundle() -> Iterator[Bundle]:
    with Bundle.open("demo") as opened:
        yield opened


@pytest.fixture
def engine(bundle: Bundle) -> Engine:
    """In the middle of the first block of the demo."""
    made = Engine(bundle, bundle.first_slot)
    made.open_slot(bundle.block(bundle.first_slot))
    made.run_batch()
    return made


def swap(amount: int, *, sells_base: bool = True, least: int = 0) -> VersionedTransaction:
    raw = demo.swap_transaction(
        demo.ALICE, sells_base=sells_base, amount_in=amount, least_out=least
    )
    return VersionedTransaction.from_bytes(raw)


def amount(engine: Engine, address: str) -> int:
    account = engine.account(address)
    assert account is not None
    return demo.token_amount(account.data)


def reserves(engine: Engine) -> tuple[int, int]:
    return amount(engine, demo.BASE_VAULT), amount(engine, demo.QUOTE_VAULT)


def everything(engine: Engine, bundle: Bundle) -> dict[str, Any]:
    keys = set(bundle.accounts_at(bundle.first_slot))
    for transaction in bundle.block(bundle.first_slot).transactions:
        keys.update(transaction.keys)
    return {key: engine.account(key) for key in keys}


def code(name: str, slot: int = demo.FIRST_SLOT - 1) -> AccountData:
    """A ProgramData account of the pool, as program replacement builds it."""
    data = struct.pack("<IQ?32s", 3, slot, True, bytes(32)) + programs.elf(name)
    return AccountData(data, 10**9, LOADER)


# --- sending -----------------------------------------------------------------------------------


def test_a_sent_transaction_is_committed(engine: Engine, bundle: Bundle) -> None:
    base, quote = reserves(engine)
    before = amount(engine, demo.ALICE.quote)
    executed = engine.send(swap(10**9), Capture.ALL)
    out = demo.amount_out(10**9, base, quote, 30)
    assert executed.err is None
    assert executed.source is Source.USER
    assert executed.batch_index is None
    assert executed.index == len(bundle.block(bundle.first_slot).transactions)
    assert engine.send(swap(10**9)).index == executed.index + 1
    assert executed.slot == bundle.first_slot
    assert amount(engine, demo.ALICE.quote) - before == out + demo.amount_out(
        10**9, base + 10**9, quote - out, 30
    )
    (logged,) = demo.pool_swaps(executed.logs or [])
    assert logged == demo.Swap(True, 10**9, out, base + 10**9, quote - out)
    assert executed.return_data is not None
    assert executed.return_data["programId"] == demo.POOL_PROGRAM
    changed = {change.address for change in executed.changes}
    assert changed == {
        demo.ALICE.address,
        demo.ALICE.base,
        demo.ALICE.quote,
        demo.BASE_VAULT,
        demo.QUOTE_VAULT,
        demo.POOL,
    }
    assert engine.summary.correct_simulation == 0


def test_the_meta_of_a_swap_has_solanas_shapes(engine: Engine) -> None:
    executed = engine.send(swap(10**9))
    meta = executed.meta()
    keys = executed.keys
    assert meta["err"] is None
    assert meta["status"] == {"Ok": None}
    assert meta["fee"] == 5000
    assert len(meta["preBalances"]) == len(meta["postBalances"]) == len(keys)
    payer = keys.index(demo.ALICE.address)
    assert meta["preBalances"][payer] - meta["postBalances"][payer] == 5000
    (inner,) = meta["innerInstructions"]
    assert inner["index"] == 0
    assert [i["stackHeight"] for i in inner["instructions"]] == [2, 2]
    token = keys.index(demo.TOKEN_PROGRAM)
    assert [i["programIdIndex"] for i in inner["instructions"]] == [token, token]
    assert [keys[i] for i in inner["instructions"][0]["accounts"]] == [
        demo.ALICE.base,
        demo.BASE_VAULT,
        demo.ALICE.address,
    ]
    accounts = {demo.ALICE.base, demo.ALICE.quote, demo.BASE_VAULT, demo.QUOTE_VAULT}
    assert {keys[b["accountIndex"]] for b in meta["preTokenBalances"]} == accounts
    for name in ("preTokenBalances", "postTokenBalances"):
        for balance in meta[name]:
            shown = balance["uiTokenAmount"]
            assert shown["decimals"] == (9 if balance["mint"] == demo.BASE_MINT else 6)
            assert float(shown["uiAmountString"]) == shown["uiAmount"]
            assert int(shown["amount"]) / 10 ** shown["decimals"] == shown["uiAmount"]
            assert balance["programId"] == demo.TOKEN_PROGRAM
            assert balance["owner"] in (demo.ALICE.address, demo.POOL)
    assert meta["computeUnitsConsumed"] == executed.units > 0


@pytest.mark.parametrize(
    ("transaction", "err"),
    [
        (swap(10**9, least=10**18), {"InstructionError": [0, {"Custom": 6001}]}),
        (swap(0), {"InstructionError": [0, {"Custom": 6002}]}),
        (swap(10**17), {"InstructionError": [0, {"Custom": 1}]}),
        (payment("nobody at all", "b", 1), "AccountNotFound"),
        (
            payment("backtest-sync demo: bob", "b", 1),
            {"InsufficientFundsForRent": {"account_index": 1}},
        ),
    ],
)
def test_a_failure_is_shown_as_solana_shows_it(
    engine: Engine, transaction: VersionedTransaction, err: Any
) -> None:
    executed = engine.send(transaction, Capture.ALL)
    assert executed.err == err
    assert executed.meta()["status"] == {"Err": err}
    moved = {change.address for change in executed.changes}
    assert moved <= {demo.ALICE.address, demo.BOB.address}  # the fee's payer at most


def test_a_table_that_is_not_there_is_the_machines_error(engine: Engine) -> None:
    message = MessageV0(
        MessageHeader(1, 0, 0),
        [Pubkey.from_string(demo.ALICE.address)],
        Hash.default(),
        [],
        [MessageAddressTableLookup(worlds.somebody("no table").pubkey(), b"\x00", b"")],
    )
    executed = engine.send(VersionedTransaction.populate(message, [Signature.default()]))
    assert executed.err == "AddressLookupTableNotFound"
    assert executed.keys == (demo.ALICE.address,)


def test_no_mutation_of_a_transaction_breaks_the_engine(engine: Engine) -> None:
    dice = random.Random(7)
    outcomes: Counter[str] = Counter()
    for _ in range(3000):
        raw = bytearray(bytes(swap(10**9)))
        for _ in range(dice.randint(1, 4)):
            raw[dice.randrange(len(raw))] = dice.randrange(256)
        try:
            transaction = VersionedTransaction.from_bytes(bytes(raw))
        except ValueError:
            continue
        if not transaction.signatures:
            with pytest.raises(InvalidParamsError, match="no signature"):
                engine.send(transaction)
            continue
        simulated = engine.simulate([transaction]).outcomes[0]
        executed = engine.send(transaction, Capture.ALL)
        assert executed.err == simulated.err == executed.meta()["err"]
        assert executed.invoked <= set(executed.keys)
        outcomes[str(executed.err)] += 1
    assert {"None", "SanitizeFailure", "AccountNotFound"} < set(outcomes)


# --- simulating --------------------------------------------------------------------------------


def test_a_simulation_commits_nothing(engine: Engine, bundle: Bundle) -> None:
    before = everything(engine, bundle)
    base, quote = reserves(engine)
    simulation = engine.simulate([swap(10**9)], accounts=[demo.ALICE.quote, where("nobody")])
    (outcome,) = simulation.outcomes
    assert outcome.err is None
    assert outcome.fee == 5000
    assert outcome.units > 0
    assert [i["stackHeight"] for i in outcome.inner_instructions[0]["instructions"]] == [2, 2]
    held, nobody = simulation.accounts
    assert held is not None
    assert nobody is None
    gained = demo.token_amount(held.data) - amount(engine, demo.ALICE.quote)
    assert gained == demo.amount_out(10**9, base, quote, 30)
    assert everything(engine, bundle) == before


def test_each_simulated_transaction_sees_those_before_it(engine: Engine, bundle: Bundle) -> None:
    before = everything(engine, bundle)
    base, quote = reserves(engine)
    simulation = engine.simulate([swap(10**9), swap(10**9)], accounts=[demo.QUOTE_VAULT])
    first = demo.amount_out(10**9, base, quote, 30)
    second = demo.amount_out(10**9, base + 10**9, quote - first, 30)
    assert [demo.pool_swaps(o.logs)[0].amount_out for o in simulation.outcomes] == [first, second]
    (vault,) = simulation.accounts
    assert vault is not None
    assert demo.token_amount(vault.data) == quote - first - second
    assert everything(engine, bundle) == before


def test_a_failing_one_is_the_last(engine: Engine) -> None:
    simulation = engine.simulate(
        [swap(10**9), swap(10**9, least=10**18), swap(10**9)], accounts=[demo.BASE_VAULT]
    )
    assert [outcome.err for outcome in simulation.outcomes] == [
        None,
        {"InstructionError": [0, {"Custom": 6001}]},
    ]
    (vault,) = simulation.accounts
    assert vault is not None
    assert demo.token_amount(vault.data) == reserves(engine)[0] + 10**9


def test_overrides_count_for_the_simulation_alone(engine: Engine, bundle: Bundle) -> None:
    before = everything(engine, bundle)
    account = engine.account(demo.BASE_VAULT)
    assert account is not None
    data = bytearray(account.data)
    data[64:72] = (10**13).to_bytes(8, "little")
    rich = AccountData(bytes(data), account.lamports, str(account.owner))
    newcomer = AccountData(b"", 10**9, SYSTEM)
    overrides = {demo.BASE_VAULT: rich, where("newcomer"): newcomer}
    simulation = engine.simulate(
        [swap(10**9), payment("newcomer", "other", 10**8)],
        overrides=overrides,
        accounts=[where("other"), where("newcomer")],
    )
    assert [outcome.err for outcome in simulation.outcomes] == [None, None]
    out = demo.pool_swaps(simulation.outcomes[0].logs)[0].amount_out
    assert out == demo.amount_out(10**9, 10**13, reserves(engine)[1], 30)
    assert [a.lamports for a in simulation.accounts if a] == [10**8, 10**9 - 10**8 - 5000]
    assert everything(engine, bundle) == before
    assert engine.account(where("newcomer")) is engine.account(where("other")) is None


def test_overrides_without_transactions_are_what_accounts_show(engine: Engine) -> None:
    simulation = engine.simulate(
        [], overrides={where("n"): AccountData(b"x", 7, SYSTEM)}, accounts=[where("n")]
    )
    assert simulation.outcomes == []
    assert simulation.accounts == [Account(7, b"x", Pubkey.default())]
    assert engine.account(where("n")) is None


def test_an_override_of_code_counts_for_the_simulation_alone(engine: Engine) -> None:
    base, quote = reserves(engine)

    def out(**config: Any) -> int:
        (outcome,) = engine.simulate([swap(10**9)], **config).outcomes
        return demo.pool_swaps(outcome.logs)[0].amount_out

    assert out() == demo.amount_out(10**9, base, quote, 30)
    replaced = {demo.POOL_PROGRAM_DATA: code("pool_v2")}
    assert out(overrides=replaced) == demo.amount_out(10**9, base, quote, 5)
    assert out() == demo.amount_out(10**9, base, quote, 30)


def test_a_refused_override_leaves_everything_as_it_was(engine: Engine, bundle: Bundle) -> None:
    before = everything(engine, bundle)
    overrides = {
        demo.ALICE.address: AccountData(b"", 5, SYSTEM),
        demo.POOL_PROGRAM_DATA: AccountData(bytes(100), 5, LOADER),
    }
    with pytest.raises(InvalidParamsError, match=f"account {demo.POOL_PROGRAM}"):
        engine.simulate([swap(10**9)], overrides=overrides)
    assert everything(engine, bundle) == before
    assert engine.send(swap(10**9)).err is None


def test_the_fee_of_a_message_is_what_is_paid(engine: Engine) -> None:
    payer = worlds.somebody("backtest-sync demo: alice")
    memo = Instruction(Pubkey.from_string("MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr"), b"x", [])
    dear = worlds.signed(payer, set_compute_unit_price(123_456), memo)
    for transaction in (swap(10**9), dear):
        fee = engine.fee_for_message(transaction.message)
        assert fee == engine.send(transaction).fee
    assert fee > 5000


def test_the_rent_of_accounts(engine: Engine) -> None:
    assert engine.minimum_balance(0) == 890_880
    assert engine.minimum_balance(165) == 2_039_280


# --- writing accounts --------------------------------------------------------------------------


def test_modifications_take_effect_in_the_middle_of_a_slot(engine: Engine, bundle: Bundle) -> None:
    account = engine.account(demo.QUOTE_VAULT)
    assert account is not None
    data = bytearray(account.data)
    data[64:72] = (5 * 10**12).to_bytes(8, "little")
    changes = engine.set_accounts(
        {
            demo.QUOTE_VAULT: AccountData(bytes(data), account.lamports, str(account.owner)),
            where("new"): AccountData(b"", 10**9, SYSTEM),
            demo.ALICE.address: AccountData(b"", 50 * 10**9, SYSTEM),  # as it is already
        }
    )
    assert {change.address for change in changes} == {demo.QUOTE_VAULT, where("new")}
    by_address = {change.address: change for change in changes}
    assert by_address[where("new")].pre is None
    assert by_address[demo.QUOTE_VAULT].pre == account
    assert by_address[demo.QUOTE_VAULT].post == engine.account(demo.QUOTE_VAULT)
    swaps = [
        executed
        for _ in bundle.block(bundle.first_slot).batches[1:]
        for executed in engine.run_batch(Capture.SUMMARY)
        if demo.POOL_PROGRAM in executed.keys
    ]
    paid = engine.send(payment("new", "b", 10**8))
    assert paid.err is None
    assert paid.meta()["preBalances"][0] == 10**9
    assert swaps
    assert engine.summary.balance_diff + engine.summary.execution_errors >= 1
    later = swaps[0].meta()
    index = swaps[0].keys.index(demo.QUOTE_VAULT)
    (shown,) = [b for b in later["preTokenBalances"] if b["accountIndex"] == index]
    assert shown["uiTokenAmount"]["amount"] == str(5 * 10**12)


def test_an_account_without_lamports_is_removed(engine: Engine) -> None:
    (change,) = engine.set_accounts({demo.BOB.address: AccountData(b"", 0, SYSTEM)})
    assert change.post is None
    assert engine.account(demo.BOB.address) is None
    executed = engine.send(payment("backtest-sync demo: bob", "b", 10**6))
    assert executed.err == "AccountNotFound"
    engine.set_accounts({demo.BOB.address: AccountData(b"", 10**9, SYSTEM)})
    assert engine.send(payment("backtest-sync demo: bob", "b", 10**6)).err is None


@pytest.mark.parametrize("deployed", [demo.FIRST_SLOT - 1, demo.FIRST_SLOT])
def test_replacing_a_program_changes_outputs_as_computed_by_hand(
    engine: Engine, deployed: int
) -> None:
    for version, name in ((1, None), (2, "pool_v2"), (1, "pool_v1")):
        if name is not None:
            (change,) = engine.set_accounts({demo.POOL_PROGRAM_DATA: code(name, deployed)})
            assert change.address == demo.POOL_PROGRAM_DATA
        for sells_base in (True, False):
            given = reserves(engine) if sells_base else tuple(reversed(reserves(engine)))
            executed = engine.send(swap(10**9, sells_base=sells_base))
            (logged,) = demo.pool_swaps(executed.logs or [])
            assert logged.amount_out == demo.amount_out(10**9, *given, demo.FEE_BPS[version])


@pytest.mark.parametrize("elf", [b"", b"junk" * 40, programs.elf("pool_v1")[:700]])
def test_code_that_does_not_load_is_refused_and_the_old_one_stays(
    engine: Engine, bundle: Bundle, elf: bytes
) -> None:
    before = everything(engine, bundle)
    header = struct.pack("<IQ?32s", 3, demo.FIRST_SLOT - 1, True, bytes(32))
    modifications = {
        demo.POOL_PROGRAM_DATA: AccountData(header + elf, 10**9, LOADER),
        demo.ALICE.address: AccountData(b"", 5, SYSTEM),
    }
    with pytest.raises(InvalidParamsError, match=f"account {demo.POOL_PROGRAM}"):
        engine.set_accounts(modifications)
    assert everything(engine, bundle) == before
    base, quote = reserves(engine)
    (logged,) = demo.pool_swaps(engine.send(swap(10**9)).logs or [])
    assert logged.amount_out == demo.amount_out(10**9, base, quote, 30)


def test_a_sysvar_that_the_machine_can_not_read_is_refused(engine: Engine) -> None:
    clock = "SysvarC1ock11111111111111111111111111111111"
    before = engine.account(clock)
    with pytest.raises(InvalidParamsError, match=clock):
        engine.set_accounts({clock: AccountData(b"??", 1, SYSTEM)})
    assert engine.account(clock) == before


def test_a_new_program_can_be_brought_in(engine: Engine) -> None:
    program = worlds.somebody("my program").pubkey()
    data_address, _ = Pubkey.find_program_address([bytes(program)], Pubkey.from_string(LOADER))
    account = AccountData(b"\x02\x00\x00\x00" + bytes(data_address), 10**9, LOADER, True)
    engine.set_accounts({str(program): account, str(data_address): code("maker")})
    executed = engine.send(
        worlds.signed(worlds.somebody("backtest-sync demo: bob"), Instruction(program, b"", []))
    )
    assert executed.err == {"InstructionError": [0, {"Custom": 6100}]}


def test_an_upgrade_by_the_loader_itself_takes_effect(engine: Engine) -> None:
    authority = worlds.somebody("backtest-sync demo: upgrade authority")
    buffer = worlds.somebody("buffer").pubkey()
    data = struct.pack("<I?32s", 1, True, bytes(authority.pubkey())) + programs.elf("pool_v2")
    engine.set_accounts(
        {
            str(buffer): AccountData(data, 10**9, LOADER),
            str(authority.pubkey()): AccountData(b"", 10**10, SYSTEM),
        }
    )
    rent = Pubkey.from_string("SysvarRent111111111111111111111111111111111")
    clock = Pubkey.from_string("SysvarC1ock11111111111111111111111111111111")
    upgrade = Instruction(
        Pubkey.from_string(LOADER),
        struct.pack("<I", 3),
        [
            AccountMeta(Pubkey.from_string(demo.POOL_PROGRAM_DATA), False, True),
            AccountMeta(Pubkey.from_string(demo.POOL_PROGRAM), False, True),
            AccountMeta(buffer, False, True),
            AccountMeta(authority.pubkey(), False, True),
            AccountMeta(rent, False, False),
            AccountMeta(clock, False, False),
            AccountMeta(authority.pubkey(), True, False),
        ],
    )
    executed = engine.send(worlds.signed(authority, upgrade), Capture.DIFFS)
    assert executed.err is None
    assert demo.POOL_PROGRAM_DATA in {change.address for change in executed.changes}
    given = reserves(engine)
    (logged,) = demo.pool_swaps(engine.send(swap(10**9)).logs or [])
    assert logged.amount_out == demo.amount_out(10**9, *given, demo.FEE_BPS[2])


# --- reads -------------------------------------------------------------------------------------


def test_program_accounts_are_all_that_it_owns_in_order(engine: Engine, bundle: Bundle) -> None:
    owned = engine.program_accounts(demo.TOKEN_PROGRAM)
    expected = {
        key: account
        for key, account in everything(engine, bundle).items()
        if account is not None and str(account.owner) == demo.TOKEN_PROGRAM
    }
    assert dict(owned) == expected
    raw = [bytes(Pubkey.from_string(key)) for key, _ in owned]
    assert raw == sorted(raw)
    assert [key for key, _ in engine.program_accounts(demo.POOL_PROGRAM)] == [demo.POOL]


def test_what_is_no_address_is_refused(engine: Engine) -> None:
    for read in (engine.account, engine.program_accounts):
        with pytest.raises(ValueError, match="'x' is not an address"):
            read("x")


def test_a_world_of_its_own_for_each_engine(bundle: Bundle, tmp_path: Path) -> None:
    engines = [Engine(bundle, bundle.first_slot) for _ in range(3)]
    for one in engines:
        one.open_slot(bundle.block(bundle.first_slot))
    engines[0].send(swap(10**9))
    engines[1].set_accounts({demo.POOL_PROGRAM_DATA: code("pool_v2")})
    assert reserves(engines[0]) != reserves(engines[2])
    assert reserves(engines[1]) == reserves(engines[2])
    outs = [demo.pool_swaps(e.send(swap(10**9)).logs or [])[0].amount_out for e in engines]
    assert len(set(outs)) == 3
