"""Recorded blocks: parsing, locks, batches."""

from __future__ import annotations

import copy
from itertools import combinations, pairwise
from typing import Any

import pytest
from hypothesis import given, strategies as st
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from backtest_sync.local.blocks import (
    Block,
    BlockTransaction,
    parse_block,
    prepare,
    split_batches,
    writable_positions,
)
from tests.local import worlds

NOTHING: Any = lambda _: None  # noqa: E731


def locks(reads: frozenset[str], writes: frozenset[str], *, unresolved: bool) -> BlockTransaction:
    """A transaction of which nothing but its locks matters."""
    keys = (*sorted(writes), *sorted(reads - writes))
    any_transaction: Any = None
    return BlockTransaction(
        index=0,
        raw=b"",
        transaction=any_transaction,
        signature="",
        keys=keys,
        pubkeys=(),
        writable=tuple(range(len(writes))),
        loaded_writable=(),
        loaded_readonly=(),
        unresolved=unresolved,
        meta=None,
    )


names = st.frozensets(st.sampled_from("abcdef"), max_size=3)
transactions = st.lists(
    st.builds(locks, names, names, unresolved=st.sampled_from([False] * 9 + [True])), max_size=25
)


def in_conflict(one: BlockTransaction, other: BlockTransaction) -> bool:
    if one.unresolved or other.unresolved:
        return True
    shared = set(one.keys) & set(other.keys)
    return any(key in one.written or key in other.written for key in shared)


@given(transactions)
def test_a_batch_is_a_maximal_run_without_conflict(given: list[BlockTransaction]) -> None:
    batches = split_batches(given)
    assert [t for batch in batches for t in batch] == given
    for batch in batches:
        assert batch
        assert not any(in_conflict(a, b) for a, b in combinations(batch, 2))
    for batch, following in pairwise(batches):
        assert any(in_conflict(transaction, following[0]) for transaction in batch)


def test_readers_of_one_account_share_a_batch_and_its_writer_does_not() -> None:
    read = [locks(frozenset("a"), frozenset(writer), unresolved=False) for writer in "bcd"]
    write = locks(frozenset(), frozenset("a"), unresolved=False)
    assert [len(batch) for batch in split_batches([*read, write, *read])] == [3, 1, 3]


def test_batches_of_a_block_are_computed_once() -> None:
    block = parse_block(147078735, worlds.mainnet_block()["result"], NOTHING)
    assert block.batches is block.batches
    assert [t for batch in block.batches for t in batch] == list(block.transactions)


keys = [worlds.somebody(f"key {i}").pubkey() for i in range(6)]
metas = st.builds(AccountMeta, st.sampled_from(keys), st.booleans(), st.booleans())


@given(st.lists(st.tuples(st.sampled_from(keys), st.lists(metas, max_size=5)), max_size=4))
def test_writable_positions_are_those_of_solders(
    instructions: list[tuple[Pubkey, list[AccountMeta]]],
) -> None:
    message = MessageV0.try_compile(
        worlds.somebody("payer").pubkey(),
        [Instruction(program, b"", list(accounts)) for program, accounts in instructions],
        [],
        Hash.default(),
    )
    expected = [i for i in range(len(message.account_keys)) if message.is_maybe_writable(i)]
    assert writable_positions(message) == expected


def test_a_sysvar_is_never_written() -> None:
    clock = Pubkey.from_string("SysvarC1ock11111111111111111111111111111111")
    instruction = Instruction(keys[0], b"", [AccountMeta(clock, False, True)])
    message = MessageV0.try_compile(
        worlds.somebody("payer").pubkey(), [instruction], [], Hash.default()
    )
    assert [message.account_keys[i] for i in writable_positions(message)] == [
        worlds.somebody("payer").pubkey()
    ]


def with_table(indexes: bytes) -> VersionedTransaction:
    from solders.message import MessageAddressTableLookup, MessageHeader

    message = MessageV0(
        MessageHeader(1, 0, 0),
        [worlds.somebody("payer").pubkey()],
        Hash.default(),
        [],
        [MessageAddressTableLookup(keys[0], indexes, b"")],
    )
    return VersionedTransaction.populate(message, [Signature.default()])


def test_loaded_addresses_come_from_the_record_else_from_the_table() -> None:
    from solders.account import Account

    table = Account(1, bytes(56) + bytes(keys[1]) + bytes(keys[2]), keys[5])
    transaction = with_table(b"\x01")
    by_table = prepare(transaction, b"", index=0, read=lambda _: table)
    assert by_table.loaded_writable == (str(keys[2]),)
    assert by_table.writable == (0, 1)
    recorded = {"loadedAddresses": {"writable": [str(keys[3])], "readonly": []}}
    by_record = prepare(transaction, b"", index=0, read=NOTHING, meta=recorded)
    assert by_record.loaded_writable == (str(keys[3]),)


@pytest.mark.parametrize("index", [0, 2, 255])
def test_a_table_that_is_missing_or_too_short_leaves_it_unresolved(index: int) -> None:
    from solders.account import Account

    short = Account(1, bytes(56) + bytes(keys[1])[: 31 if index == 0 else 32], keys[5])
    transaction = with_table(bytes([index]))
    for read in (NOTHING, lambda _: short):
        prepared = prepare(transaction, b"", index=0, read=read)
        assert prepared.unresolved
        assert prepared.keys == (worlds.where("payer"),)


def test_a_mainnet_block_is_read_as_it_is() -> None:
    answer = worlds.mainnet_block()["result"]
    block = parse_block(147078735, answer, NOTHING)
    assert len(block.transactions) == 25
    assert block.block_time == 1657486664
    assert block.block_height == 139015678
    for transaction, recorded in zip(block.transactions, answer["transactions"], strict=True):
        assert transaction.meta == recorded["meta"]
        assert len(transaction.keys) == len(recorded["meta"]["preBalances"])
    crank = block.transactions[1]
    assert "2TfB33aLaneQb5TNVwyDz3jSZXS6jdW2ARw1Dgf84XCG" in crank.programs
    assert "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA" in crank.programs  # by CPI
    assert crank.names_token_program
    assert crank.changes_token_balance
    assert not block.transactions[0].names_token_program
    assert not block.transactions[0].changes_token_balance


def damaged(change: Any) -> Any:
    value = copy.deepcopy(worlds.block(7, [worlds.entry(worlds.payment("a", "b", 1), None)]))
    change(value)
    return value


def set_entry(**fields: Any) -> Any:
    return lambda value: value["transactions"][0].update(fields)


def set_meta(**fields: Any) -> Any:
    return set_entry(meta=worlds.meta([1, 2, 3], [1, 2, 3], **fields))


def token_balance(**fields: Any) -> Any:
    amount = {"amount": "5", "decimals": 0, "uiAmount": 5.0, "uiAmountString": "5"}
    entry = {"accountIndex": 0, "mint": "m", "uiTokenAmount": amount, **fields}
    return set_meta(preTokenBalances=[entry], postTokenBalances=[])


def inner(**fields: Any) -> Any:
    instruction = {"programIdIndex": 0, "accounts": [1], "data": "3Bxs", **fields}
    return set_meta(innerInstructions=[{"index": 0, "instructions": [instruction]}])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda v: v.pop("transactions"), 'transactionDetails "full"'),
        (lambda v: v.pop("blockhash"), "blockhash is None"),
        (lambda v: v.update(blockhash="0OIl"), "not a base58 hash"),
        (lambda v: v.update(previousBlockhash="abc"), "previousBlockhash is 'abc'"),
        (lambda v: v.update(parentSlot="6"), "parentSlot is '6', not a number"),
        (lambda v: v.update(parentSlot=7), "its parent, slot 7, is not before it"),
        (lambda v: v.update(blockTime=1.5), "blockTime is 1.5"),
        (lambda v: v.update(transactions=[5]), "transaction 0 of block 7: not an object"),
        (set_entry(transaction={"message": {}}), 'ask getBlock for encoding "base64"'),
        (set_entry(transaction=["AQ==", "base58"]), 'ask getBlock for encoding "base64"'),
        (set_entry(transaction=["A$==", "base64"]), "bad base64"),
        (set_entry(transaction=["AQ==", "base64"]), "not a transaction"),
        (set_entry(transaction=["", "base64"]), "not a transaction"),
        (set_entry(meta=[]), "meta is neither an object nor null"),
        (set_entry(meta={}), "meta.preBalances is not a list of 3 balances"),
        (set_entry(meta=worlds.meta([1, 2, 3], [1])), "meta.postBalances"),
        (
            set_entry(meta=worlds.meta([1, 2, 3], [1, 2, 3], preTokenBalances=[{}])),
            "accountIndex is missing",
        ),
        (set_entry(meta=worlds.meta(["1", 2, 3], [1, 2, 3])), "'1' is not a number"),
        (set_entry(meta=worlds.meta([1, 2, 3], [1, -2, 3])), "-2 is not a number"),
        (token_balance(accountIndex=256), "accountIndex: 256 is not a number up to 255"),
        (token_balance(mint=None), "mint: None is not a text"),
        (token_balance(owner=7), "7 is not a text"),
        (
            token_balance(uiTokenAmount={"amount": "-1", "decimals": 0}),
            "amount is '-1', not a number in a text",
        ),
        (
            token_balance(uiTokenAmount={"amount": "1", "decimals": 0, "uiAmount": "1"}),
            "uiAmount is '1'",
        ),
        (set_meta(innerInstructions=5), "meta.innerInstructions is 5, not a list"),
        (set_meta(innerInstructions=[{"index": 0}]), "instructions is missing"),
        (inner(programIdIndex="0"), "programIdIndex: '0' is not a number"),
        (inner(accounts=[1, 300]), "accounts: 300 is not a number"),
        (inner(data="0OIl"), "not base58"),
        (inner(stackHeight="2"), "stackHeight: '2'"),
        (set_meta(logMessages="Program log"), "logMessages is 'Program log', not a list"),
        (set_meta(logMessages=[None]), "logMessages: None is not a text"),
        (set_meta(fee="5000"), "fee: '5000'"),
        (set_meta(computeUnitsConsumed=1.5), "computeUnitsConsumed: 1.5"),
        (set_meta(err=5), "meta.err is 5"),
        (
            set_entry(
                meta=worlds.meta(
                    [1] * 4, [1] * 4, loadedAddresses={"writable": ["x"], "readonly": []}
                )
            ),
            "'x' is not an address",
        ),
    ],
)
def test_a_damaged_block_is_refused_with_the_reason(change: Any, reason: str) -> None:
    with pytest.raises(ValueError, match="block 7") as caught:
        parse_block(7, damaged(change), NOTHING)
    assert reason in str(caught.value)


def test_bytes_behind_a_transaction_are_refused() -> None:
    import base64

    raw = bytes(worlds.payment("a", "b", 1)) + b"\0"
    value = damaged(set_entry(transaction=[base64.b64encode(raw).decode(), "base64"]))
    with pytest.raises(ValueError, match="bytes left over"):
        parse_block(7, value, NOTHING)


@given(st.binary(max_size=300))
def test_whatever_bytes_a_transaction_has_it_is_one_or_refused(raw: bytes) -> None:
    from backtest_sync.local.svm import parse_transaction

    try:
        transaction = parse_transaction(raw)
    except ValueError:
        return
    assert bytes(transaction) == raw


def test_reprs_are_short() -> None:
    block = parse_block(147078735, worlds.mainnet_block()["result"], NOTHING)
    assert isinstance(block, Block)
    assert repr(block) == "Block(147078735, 25 transactions)"
    assert len(repr(block.transactions[0])) < 120
