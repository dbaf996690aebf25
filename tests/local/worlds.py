"""Small worlds for the tests of the local simulator: people, transactions, recorded blocks."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from solders.account import Account
from solders.hash import Hash
from solders.instruction import CompiledInstruction, Instruction
from solders.keypair import Keypair
from solders.litesvm import LiteSVM
from solders.message import Message
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction

from backtest_sync.local import svm
from backtest_sync.local.bundle import Bundle, BundleRange
from backtest_sync.local.bundle_writer import BundleWriter

MAINNET_BLOCK = Path(__file__).parent.parent / "data" / "mainnet_block.json"
SYSTEM = Pubkey.default()


def somebody(name: str) -> Keypair:
    return Keypair.from_seed(hashlib.sha256(name.encode()).digest())


def where(name: str) -> str:
    return str(somebody(name).pubkey())


def purse(lamports: int) -> Account:
    return Account(lamports, b"", SYSTEM)


def signed(payer: Keypair, *instructions: Instruction, others: Sequence[Keypair] = ()) -> Any:
    message = Message.new_with_blockhash(instructions, payer.pubkey(), Hash.default())
    return VersionedTransaction(message, [payer, *others])


def payment(source: str, target: str, lamports: int) -> VersionedTransaction:
    """A plain transfer between two people named."""
    payer = somebody(source)
    to = somebody(target).pubkey()
    return signed(
        payer, transfer(TransferParams(from_pubkey=payer.pubkey(), to_pubkey=to, lamports=lamports))
    )


def insane() -> str:
    """A transaction that calls a program which is not among its accounts."""
    message = Message.new_with_compiled_instructions(
        1, 0, 0, [Pubkey.default()], Hash.default(), [CompiledInstruction(9, b"", b"")]
    )
    transaction = VersionedTransaction.populate(message, [Signature.default()])
    return base64.b64encode(bytes(transaction)).decode()


def blockhash(slot: int) -> str:
    return str(Hash(hashlib.sha256(f"slot {slot}".encode()).digest()))


def entry(transaction: VersionedTransaction, meta: Mapping[str, Any] | None) -> dict[str, Any]:
    version = transaction.version()
    return {
        "transaction": [base64.b64encode(bytes(transaction)).decode(), "base64"],
        "meta": meta,
        "version": version if isinstance(version, int) else "legacy",
    }


def block(slot: int, entries: Iterable[Any] = (), *, parent: int | None = None) -> dict[str, Any]:
    """A ``getBlock`` result."""
    parent = slot - 1 if parent is None else parent
    return {
        "blockHeight": slot // 2,
        "blockTime": 1_700_000_000 + slot,
        "blockhash": blockhash(slot),
        "parentSlot": parent,
        "previousBlockhash": blockhash(parent),
        "transactions": list(entries),
    }


def meta(pre: Sequence[int], post: Sequence[int], **fields: Any) -> dict[str, Any]:
    """A recorded ``meta``, of a success unless ``err`` is given."""
    return {
        "err": None,
        "fee": 5000,
        "preBalances": list(pre),
        "postBalances": list(post),
        "innerInstructions": [],
        "logMessages": [],
        "preTokenBalances": [],
        "postTokenBalances": [],
        "loadedAddresses": {"writable": [], "readonly": []},
        **fields,
    }


def write(
    path: Path,
    blocks: Sequence[dict[str, Any]],
    accounts: Mapping[str, Account] | None = None,
    *,
    last_slot: int | None = None,
    ranges: Sequence[BundleRange] = (),
) -> Path:
    """A bundle of ``getBlock`` results whose slots are those after their parents."""
    slots = [value["parentSlot"] + 1 for value in blocks]
    with BundleWriter(
        path,
        source="a test",
        first_slot=slots[0],
        last_slot=slots[-1] if last_slot is None else last_slot,
        ranges=ranges,
    ) as writer:
        for address, account in (accounts or {}).items():
            writer.add_account(address, svm.account_to_json(account))
        for slot, value in zip(slots, blocks, strict=True):
            writer.add_block(slot, value)
    return path


def open_world(
    path: Path,
    transactions: Sequence[tuple[VersionedTransaction, dict[str, Any] | None]],
    accounts: Mapping[str, Account],
    *,
    slot: int = 1000,
) -> Bundle:
    """A bundle of one block with these transactions."""
    entries = [entry(transaction, recorded) for transaction, recorded in transactions]
    return Bundle.open(write(path / "world.jsonl", [block(slot, entries)], accounts))


def mainnet_block() -> Any:
    return json.loads(MAINNET_BLOCK.read_text())


def bare_machine(accounts: Mapping[str, Account]) -> LiteSVM:
    """LiteSVM alone with these accounts: what the engine is checked against."""
    machine = (
        LiteSVM()
        .with_mainnet_features()
        .with_sigverify(False)
        .with_blockhash_check(False)
        .with_transaction_history(0)
    )
    for address, account in sorted(accounts.items(), key=lambda item: item[1].executable):
        machine.set_account(Pubkey.from_string(address), account)
    return machine
