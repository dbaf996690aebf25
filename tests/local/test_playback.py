"""What can't be executed is played back: shown as recorded, and never passed off as executed."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from solders.account import Account
from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey

from backtest_sync.local import programs
from backtest_sync.local.bundle import Bundle
from backtest_sync.local.engine import Engine
from backtest_sync.local.executed import Capture, Executed, PlayedBack, Source
from tests.local import worlds
from tests.local.worlds import meta, payment, purse, where

TOKEN = Pubkey.from_string("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA")
LOADER_2 = Pubkey.from_string("BPFLoader2111111111111111111111111111111111")


def run(bundle: Bundle, slot: int, engine: Engine | None = None) -> tuple[Engine, list[Executed]]:
    engine = engine or Engine(bundle, slot)
    engine.open_slot(bundle.block(slot))
    done = [
        executed for _ in bundle.block(slot).batches for executed in engine.run_batch(Capture.ALL)
    ]
    return engine, done


def test_a_mainnet_block_without_accounts_is_all_playback() -> None:
    recorded = worlds.mainnet_block()["result"]["transactions"]
    with Bundle.of_block(worlds.mainnet_block()) as bundle:
        engine, done = run(bundle, 147078735)
    assert engine.summary.played_back == 25
    assert sum([engine.summary.correct_simulation, engine.summary.execution_errors]) == 0
    for executed, entry in zip(done, recorded, strict=True):
        assert isinstance(executed, PlayedBack)
        assert executed.source is Source.PLAYED_BACK
        assert executed.source.value == "playedBack"
        assert executed.meta() == entry["meta"]
        assert executed.err == entry["meta"]["err"]
        assert executed.logs == entry["meta"]["logMessages"]
        assert executed.fee == entry["meta"]["fee"]
        assert executed.units is None  # not recorded in its day
        assert executed.return_data is None
        assert executed.pre_balances == entry["meta"]["preBalances"]
        assert executed.post_balances == entry["meta"]["postBalances"]
        assert executed.pre_token_balances == entry["meta"]["preTokenBalances"]
        assert executed.post_token_balances == entry["meta"]["postTokenBalances"]
        assert executed.inner_instructions == entry["meta"]["innerInstructions"]
        assert executed.changes == ()
        assert executed.slot == 147078735
        assert executed.block_time == 1657486664
    crank = done[1]
    assert "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA" in crank.invoked


def test_what_has_its_accounts_is_executed_beside_what_lacks_them(tmp_path: Path) -> None:
    here = (payment("a", "b", 10**6), meta([10**9, 0, 1], [10**9 - 10**6 - 5000, 10**6, 1]))
    gone = (payment("x", "y", 10**6), meta([10**9, 0, 1], [10**9 - 10**6 - 5000, 10**6, 1]))
    with worlds.open_world(tmp_path, [here, gone], {where("a"): purse(10**9)}) as bundle:
        engine, done = run(bundle, 1000)
        assert [executed.source for executed in done] == [Source.EXECUTED, Source.PLAYED_BACK]
        assert engine.summary.played_back == 1
        assert engine.account(where("y")) is None
        paid = engine.account(where("b"))
        assert paid is not None
        assert paid.lamports == 10**6


def test_without_a_record_everything_is_executed(tmp_path: Path) -> None:
    with worlds.open_world(tmp_path, [(payment("x", "y", 1), None)], {}) as bundle:
        engine, (executed,) = run(bundle, 1000)
        assert executed.source is Source.EXECUTED
        assert executed.err == "AccountNotFound"
        assert engine.summary.played_back == 0


def test_an_account_that_was_new_on_chain_is_the_chains_own_doing_from_then_on(
    tmp_path: Path,
) -> None:
    # b is created by the first payment, which a user's change makes fail: the second one is
    # executed all the same (and fails), rather than taken from the record.
    first = payment("a", "b", 10**8), meta([10**9, 0, 1], [10**9 - 10**8 - 5000, 10**8, 1])
    second = payment("b", "c", 10**7), meta([10**8, 0, 1], [10**8 - 10**7 - 5000, 10**7, 1])
    with worlds.open_world(tmp_path, [first, second], {where("a"): purse(10**9)}) as bundle:
        _, done = run(bundle, 1000)
        assert [(e.source, e.err) for e in done] == [(Source.EXECUTED, None)] * 2
        from backtest_sync.protocol import AccountData

        engine = Engine(bundle, 1000)
        engine.set_accounts({where("a"): AccountData(b"", 10**6, str(worlds.SYSTEM))})
        _, done = run(bundle, 1000, engine)
        assert [e.source for e in done] == [Source.EXECUTED] * 2
        assert done[1].err == "AccountNotFound"
        assert engine.summary.execution_errors == 2


def unknown_program(*touched: str) -> Any:
    program = worlds.somebody("unknown program").pubkey()
    accounts = [AccountMeta(Pubkey.from_string(key), False, True) for key in touched]
    return worlds.signed(worlds.somebody("a"), Instruction(program, b"", accounts))


def token_account(amount: int) -> Account:
    mint, owner = (bytes(worlds.somebody(name).pubkey()) for name in ("mint", "owner"))
    data = struct.pack("<32s32sQ36xB56x", mint, owner, amount, 1)
    return Account(2_039_280, data, TOKEN)


def tokens(index: int, amount: int) -> dict[str, Any]:
    shown = {"amount": str(amount), "decimals": 6, "uiAmount": None, "uiAmountString": ""}
    return {"accountIndex": index, "mint": where("mint"), "uiTokenAmount": shown}


def test_playback_moves_lamports_and_tokens_by_what_was_recorded(tmp_path: Path) -> None:
    transaction = unknown_program(where("t"), where("elsewhere"))
    keys = [str(key) for key in transaction.message.account_keys]
    pre, post = [0] * len(keys), [0] * len(keys)
    index = {name: keys.index(where(name)) for name in ("a", "t", "elsewhere", "unknown program")}
    pre[index["a"]], post[index["a"]] = 10**9, 10**9 - 5000
    pre[index["t"]] = post[index["t"]] = 2_039_280
    pre[index["elsewhere"]], post[index["elsewhere"]] = 500, 600
    pre[index["unknown program"]] = post[index["unknown program"]] = 1
    recorded = meta(
        pre,
        post,
        preTokenBalances=[tokens(index["t"], 100)],
        postTokenBalances=[tokens(index["t"], 130)],
    )
    # The token account holds 7 more than on chain: a change of the user's that must stay.
    accounts = {where("a"): purse(10**9), where("t"): token_account(107)}
    with worlds.open_world(tmp_path, [(transaction, recorded)], accounts) as bundle:
        engine, (executed,) = run(bundle, 1000)
        assert executed.source is Source.PLAYED_BACK
        payer, token = engine.account(where("a")), engine.account(where("t"))
        assert payer is not None
        assert token is not None
        assert payer.lamports == 10**9 - 5000
        assert int.from_bytes(token.data[64:72], "little") == 137
        assert token.data[:64] + token.data[72:] == (
            accounts[where("t")].data[:64] + accounts[where("t")].data[72:]
        )
        assert engine.account(where("elsewhere")) is None
        assert {change.address for change in executed.changes} == {where("a"), where("t")}
        assert executed.meta() == recorded


def test_playback_stops_at_nothing_left(tmp_path: Path) -> None:
    transaction = unknown_program()
    recorded = meta([10**9, 1], [5, 1])
    with worlds.open_world(
        tmp_path, [(transaction, recorded)], {where("a"): purse(10**6)}
    ) as bundle:
        engine, _ = run(bundle, 1000)
        payer = engine.account(where("a"))
        assert payer is None or payer.lamports == 0


def test_code_that_the_machine_can_not_load_is_played_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    transaction = unknown_program()
    recorded = meta([10**9, 1], [10**9 - 5000, 1])
    for name, code, source in (
        ("bad", b"no program", Source.PLAYED_BACK),
        ("good", programs.elf("maker"), Source.EXECUTED),
    ):
        folder = tmp_path / name
        folder.mkdir()
        accounts = {
            where("a"): purse(10**9),
            where("unknown program"): Account(10**9, code, LOADER_2, True),
        }
        with worlds.open_world(folder, [(transaction, recorded)], accounts) as bundle:
            engine, (executed,) = run(bundle, 1000)
            assert executed.source is source
            assert [str(e.address) for e in engine.refused] == (
                [where("unknown program")] if name == "bad" else []
            )
    assert "accounts that can't be loaded: 1; what needs them is played back" in caplog.text
    assert where("unknown program") in caplog.text


def test_an_unresolved_lookup_table_is_played_back(tmp_path: Path) -> None:
    from solders.hash import Hash
    from solders.message import MessageAddressTableLookup, MessageHeader, MessageV0
    from solders.transaction import VersionedTransaction

    payer = worlds.somebody("a")
    message = MessageV0(
        MessageHeader(1, 0, 0),
        [payer.pubkey()],
        Hash.default(),
        [],
        [MessageAddressTableLookup(worlds.somebody("table").pubkey(), b"\x00", b"")],
    )
    recorded = meta([10**9, 7], [10**9 - 5000, 7])
    del recorded["loadedAddresses"]
    with worlds.open_world(
        tmp_path,
        [(VersionedTransaction(message, [payer]), recorded), (payment("a", "b", 10**6), None)],
        {where("a"): purse(10**9)},
    ) as bundle:
        assert len(bundle.block(1000).batches) == 2
        engine, (executed, paid) = run(bundle, 1000)
        assert executed.source is Source.PLAYED_BACK
        assert executed.meta() == recorded
        assert paid.err is None
        assert engine.summary.unsanitizable == 0


@pytest.mark.parametrize("fields", [{"logMessages": None}, {"innerInstructions": None}])
def test_what_was_not_recorded_is_shown_as_none(tmp_path: Path, fields: dict[str, Any]) -> None:
    recorded = meta([10**9, 0, 1], [10**9 - 6000, 1000, 1], **fields)
    with worlds.open_world(tmp_path, [(payment("x", "y", 1000), recorded)], {}) as bundle:
        _, (executed,) = run(bundle, 1000)
        assert executed.meta() == recorded
        assert executed.invoked == {str(worlds.SYSTEM)}
        assert (executed.logs is None) == ("logMessages" in fields)
