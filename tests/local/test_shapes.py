"""Accounts and transactions in Solana's JSON shapes, held against solders' own reading of them."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from solders.account import Account
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.message import Message
from solders.pubkey import Pubkey
from solders.rpc.responses import GetAccountInfoMaybeJsonParsedResp, GetAccountInfoResp
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction
from solders.transaction_status import EncodedConfirmedTransactionWithStatusMeta

from backtest_sync.local import demo, shapes
from backtest_sync.local.bundle import Bundle
from backtest_sync.local.endpoint.jsonrpc import CallError
from backtest_sync.local.endpoint.parsed import (
    LOOKUP_TABLE,
    TOKEN,
    TOKEN_2022,
    UPGRADEABLE_LOADER,
    token_amount,
)
from backtest_sync.local.endpoint.parsed_instructions import parse_instruction
from backtest_sync.local.engine import Engine
from backtest_sync.local.executed import Capture, Executed
from backtest_sync.local.shapes import AccountView
from backtest_sync.local.txerrors import sentence

SYSTEM = Pubkey.default()
MINT = Pubkey.from_bytes(bytes([9] * 32))
PERSON = Pubkey.from_bytes(bytes([7] * 32))
OTHER = Pubkey.from_bytes(bytes([5] * 32))


def no_account(_: str) -> Account | None:
    return None


def the_mint(address: str) -> Account | None:
    assert address == str(MINT)
    return mint()


def option(key: Pubkey | None) -> bytes:
    return struct.pack("<I32s", key is not None, bytes(key or SYSTEM))


def mint(*, decimals: int = 6, supply: int = 5, frozen_by: Pubkey | None = None) -> Account:
    data = option(PERSON) + struct.pack("<QB?", supply, decimals, True) + option(frozen_by)
    return Account(1, data, Pubkey.from_string(TOKEN))


def token_account(
    *,
    amount: int = 1_500_000,
    state: int = 1,
    delegate: Pubkey | None = None,
    native: int | None = None,
    closer: Pubkey | None = None,
    program: str = TOKEN,
    extensions: bytes = b"",
) -> Account:
    data = (
        bytes(MINT)
        + bytes(PERSON)
        + struct.pack("<Q", amount)
        + option(delegate)
        + struct.pack("<BIQQ", state, native is not None, native or 0, 3)
        + option(closer)
        + extensions
    )
    return Account(2_039_280, data, Pubkey.from_string(program))


def in_answer(value: Any) -> str:
    return json.dumps(
        {"jsonrpc": "2.0", "id": 1, "result": {"context": {"slot": 1}, "value": value}}
    )


# --- accounts


@pytest.mark.parametrize("encoding", ["base58", "base64", "base64+zstd", "binary"])
@pytest.mark.parametrize("data", [b"", b"\0\0abc", bytes(range(128))])
def test_solders_reads_an_account_in_every_encoding(encoding: str, data: bytes) -> None:
    account = Account(2**64 - 1, data, MINT, True, 2**64 - 1)
    value = AccountView(encoding).value(account, no_account)
    read = GetAccountInfoResp.from_json(in_answer(value))
    assert isinstance(read, GetAccountInfoResp)
    assert read.value == account
    assert value["space"] == len(data)


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [
        (0, 4, b"0123"),
        (8, 4, b"89"),
        (10, 1, b""),
        (99, 5, b""),
        (3, 0, b""),
        (0, 2**63, b"0123456789"),
    ],
)
def test_data_slice(offset: int, length: int, expected: bytes) -> None:
    account = Account(1, b"0123456789", MINT)
    value = AccountView("base64", (offset, length)).value(account, no_account)
    assert base64.b64decode(value["data"][0]) == expected
    assert value["space"] == 10


def test_base58_is_for_little_data() -> None:
    account = Account(1, bytes(129), MINT)
    with pytest.raises(CallError) as caught:
        AccountView("base58").value(account, no_account)
    assert caught.value.code == -32600
    assert caught.value.message == (
        "Encoded binary (base 58) data should be less than 128 bytes, please use Base64 encoding."
    )
    value = AccountView("base58").value(account, no_account, strict=False)
    assert value["data"] == ["error: data too large for bs58 encoding", "base58"]
    value = AccountView("base58", (1, 128)).value(account, no_account)
    assert value["data"] == ["1" * 128, "base58"]


def test_parsed_token_account() -> None:
    account = token_account(delegate=OTHER, native=7, closer=PERSON, state=2)
    value = AccountView("jsonParsed").value(account, the_mint)
    assert value["data"] == {
        "program": "spl-token",
        "space": 165,
        "parsed": {
            "type": "account",
            "info": {
                "mint": str(MINT),
                "owner": str(PERSON),
                "tokenAmount": amount("1500000", 6, 1.5, "1.5"),
                "delegate": str(OTHER),
                "delegatedAmount": amount("3", 6, 0.000003, "0.000003"),
                "state": "frozen",
                "isNative": True,
                "rentExemptReserve": amount("7", 6, 0.000007, "0.000007"),
                "closeAuthority": str(PERSON),
            },
        },
    }
    read = GetAccountInfoMaybeJsonParsedResp.from_json(in_answer(value))
    assert isinstance(read, GetAccountInfoMaybeJsonParsedResp)
    assert read.value is not None
    assert read.value.data.program == "spl-token"


def amount(text: str, decimals: int, ui: float | None, ui_text: str) -> dict[str, Any]:
    return {"amount": text, "decimals": decimals, "uiAmount": ui, "uiAmountString": ui_text}


def test_parsed_plain_token_account_leaves_out_what_it_lacks() -> None:
    value = AccountView("jsonParsed").value(token_account(amount=0), the_mint)
    assert value["data"]["parsed"]["info"] == {
        "mint": str(MINT),
        "owner": str(PERSON),
        "tokenAmount": amount("0", 6, 0.0, "0"),
        "state": "initialized",
        "isNative": False,
    }


def test_parsed_token_2022_account_names_its_extensions() -> None:
    extensions = b"\2" + struct.pack("<HH", 7, 0) + struct.pack("<HH8s", 2, 8, b"")
    account = token_account(program=TOKEN_2022, extensions=extensions)
    value = AccountView("jsonParsed").value(account, the_mint)
    assert value["data"]["program"] == "spl-token-2022"
    assert value["data"]["space"] == 165 + len(extensions)
    assert value["data"]["parsed"]["info"]["extensions"] == [
        {"extension": "immutableOwner"},
        {"extension": "unparseableExtension"},
    ]


def test_parsed_mint() -> None:
    value = AccountView("jsonParsed").value(mint(frozen_by=OTHER), no_account)
    assert value["data"]["parsed"] == {
        "type": "mint",
        "info": {
            "mintAuthority": str(PERSON),
            "supply": "5",
            "decimals": 6,
            "isInitialized": True,
            "freezeAuthority": str(OTHER),
        },
    }


def test_parsed_multisig() -> None:
    data = bytes([2, 3, 1]) + b"".join(map(bytes, (MINT, PERSON, OTHER))) + bytes(8 * 32)
    value = AccountView("jsonParsed").value(Account(1, data, Pubkey.from_string(TOKEN)), no_account)
    assert value["data"]["parsed"] == {
        "type": "multisig",
        "info": {
            "numRequiredSigners": 2,
            "numValidSigners": 3,
            "isInitialized": True,
            "signers": [str(MINT), str(PERSON), str(OTHER)],
        },
    }


def test_parsed_lookup_table() -> None:
    data = (
        struct.pack("<IQQBB32s2x", 1, 2**64 - 1, 40, 1, 1, bytes(PERSON))
        + bytes(MINT)
        + bytes(OTHER)
    )
    value = AccountView("jsonParsed").value(
        Account(1, data, Pubkey.from_string(LOOKUP_TABLE)), no_account
    )
    assert value["data"]["program"] == "address-lookup-table"
    assert value["data"]["parsed"] == {
        "type": "lookupTable",
        "info": {
            "deactivationSlot": "18446744073709551615",
            "lastExtendedSlot": "40",
            "lastExtendedSlotStartIndex": 1,
            "authority": str(PERSON),
            "addresses": [str(MINT), str(OTHER)],
        },
    }


@pytest.mark.parametrize(
    ("data", "parsed"),
    [
        (struct.pack("<I", 0), {"type": "uninitialized"}),
        (
            struct.pack("<I32s", 2, bytes(MINT)),
            {"type": "program", "info": {"programData": str(MINT)}},
        ),
        (
            struct.pack("<IQB32s", 3, 12, 1, bytes(PERSON)) + b"elf",
            {
                "type": "programData",
                "info": {"slot": 12, "authority": str(PERSON), "data": ["ZWxm", "base64"]},
            },
        ),
        (
            struct.pack("<IB32s", 1, 0, b"") + b"elf",
            {"type": "buffer", "info": {"authority": None, "data": ["ZWxm", "base64"]}},
        ),
    ],
    ids=["uninitialized", "program", "program data", "buffer"],
)
def test_parsed_accounts_of_the_upgradeable_loader(data: bytes, parsed: dict[str, Any]) -> None:
    account = Account(1, data, Pubkey.from_string(UPGRADEABLE_LOADER))
    value = AccountView("jsonParsed").value(account, no_account)
    assert value["data"]["program"] == "bpf-upgradeable-loader"
    assert value["data"]["parsed"] == parsed


@pytest.mark.parametrize(
    "account",
    [
        Account(1, b"abc", MINT),
        Account(1, b"", SYSTEM),
        Account(1, bytes(165), Pubkey.from_string(TOKEN)),
        Account(1, bytes(82), Pubkey.from_string(TOKEN)),
        Account(1, bytes(17), Pubkey.from_string(TOKEN)),
        Account(1, b"\3\0\0\0", Pubkey.from_string(UPGRADEABLE_LOADER)),
        Account(1, b"\1", Pubkey.from_string(LOOKUP_TABLE)),
        token_account(),  # its mint is not there
    ],
)
def test_what_is_not_known_is_shown_as_base64(account: Account) -> None:
    value = AccountView("jsonParsed").value(account, no_account)
    assert value["data"] == [base64.b64encode(account.data).decode(), "base64"]


@pytest.mark.parametrize(
    ("units", "decimals", "ui", "text"),
    [
        (0, 0, 0.0, "0"),
        (0, 9, 0.0, "0"),
        (7, 0, 7.0, "7"),
        (70, 0, 70.0, "70"),
        (1_000_000, 6, 1.0, "1"),
        (1_230_000, 6, 1.23, "1.23"),
        (1, 9, 1e-9, "0.000000001"),
        (2**64 - 1, 9, 18446744073.709551615, "18446744073.709551615"),
    ],
)
def test_token_amounts(units: int, decimals: int, ui: float, text: str) -> None:
    assert token_amount(units, decimals) == amount(str(units), decimals, ui, text)


# --- transactions


@pytest.fixture(scope="module")
def executed() -> Iterator[dict[str, Executed]]:
    """Transactions of the demo by what they are."""
    found: dict[str, Executed] = {}
    with Bundle.open("demo") as bundle:
        engine = Engine(bundle, bundle.first_slot)
        for block in bundle.blocks(bundle.first_slot, bundle.first_slot + 20):
            engine.open_slot(block)
            while batch := engine.run_batch(Capture.ALL):
                for done in batch:
                    kind = "legacy" if done.transaction.version() != 0 else "v0"
                    if demo.POOL_PROGRAM in done.keys:
                        found.setdefault(f"{kind} {'failed' if done.err else 'swap'}", done)
                    elif str(TOKEN) in done.keys and not done.err:
                        found.setdefault("payment", done)
            engine.close_slot()
        yield found


@pytest.mark.parametrize("encoding", ["json", "jsonParsed", "base64", "base58", "binary"])
@pytest.mark.parametrize("kind", ["legacy swap", "v0 swap", "v0 failed", "payment"])
def test_solders_reads_a_transaction_in_every_encoding(
    executed: dict[str, Executed], kind: str, encoding: str
) -> None:
    done = executed[kind]
    value = shapes.transaction_value(done, encoding, 0)
    read = EncodedConfirmedTransactionWithStatusMeta.from_json(json.dumps(value))
    assert read.slot == done.slot
    assert read.block_time == done.block_time
    meta = read.transaction.meta
    assert meta is not None
    assert (meta.err is None) == (done.err is None)
    assert meta.log_messages == done.logs
    assert meta.compute_units_consumed == done.units
    assert meta.pre_balances == done.pre_balances
    assert meta.post_balances == done.post_balances
    assert sum(meta.pre_balances) - sum(meta.post_balances) == meta.fee == done.fee
    assert value["version"] == (0 if kind.startswith("v0") else "legacy")
    assert value["source"] == "executed"
    assert value["transactionIndex"] == done.index
    if encoding in ("base64", "base58", "binary"):
        assert read.transaction.transaction == done.transaction


def test_a_raw_message_holds_the_whole_transaction(executed: dict[str, Executed]) -> None:
    done = executed["v0 swap"]
    value = shapes.encode_transaction(done, "json")
    message: Any = done.transaction.message
    shown = value["message"]
    assert value["signatures"] == [done.signature]
    assert shown["accountKeys"] == [str(key) for key in message.account_keys]
    assert shown["recentBlockhash"] == str(message.recent_blockhash)
    assert len(shown["instructions"]) == len(message.instructions)
    (lookup,) = shown["addressTableLookups"]
    assert lookup["accountKey"] == demo.LOOKUP_TABLE
    loaded = len(lookup["writableIndexes"]) + len(lookup["readonlyIndexes"])
    assert len(done.keys) == len(shown["accountKeys"]) + loaded
    legacy = shapes.encode_transaction(executed["legacy swap"], "json")
    assert "addressTableLookups" not in legacy["message"]


def test_a_parsed_message_names_accounts_and_instructions(executed: dict[str, Executed]) -> None:
    done = executed["v0 swap"]
    value = shapes.transaction_value(done, "jsonParsed", 0)
    message = value["transaction"]["message"]
    keys = {key["pubkey"]: key for key in message["accountKeys"]}
    assert keys[done.keys[0]] == {
        "pubkey": done.keys[0],
        "signer": True,
        "writable": True,
        "source": "transaction",
    }
    assert keys[demo.POOL]["source"] == "lookupTable"
    assert keys[demo.POOL]["writable"] is True
    assert keys[TOKEN]["writable"] is False
    swap = message["instructions"][-1]
    assert swap["programId"] == demo.POOL_PROGRAM
    assert demo.BASE_VAULT in swap["accounts"]
    (inner,) = value["meta"]["innerInstructions"]
    assert [i["parsed"]["type"] for i in inner["instructions"]] == ["transfer", "transfer"]
    assert all(i["stackHeight"] == 2 for i in inner["instructions"])


def test_a_version_that_the_caller_does_not_know_is_refused(executed: dict[str, Executed]) -> None:
    with pytest.raises(CallError) as caught:
        shapes.transaction_value(executed["v0 swap"], "json", None)
    assert caught.value.code == -32015
    assert caught.value.message == (
        "Transaction version (0) is not supported by the requesting client. Please try the request "
        'again with the following configuration parameter: "maxSupportedTransactionVersion": 0'
    )
    assert "version" not in shapes.transaction_value(executed["legacy swap"], "json", None)


# --- instructions

KEYS = [str(Pubkey.from_bytes(bytes([i] * 32))) for i in range(1, 7)]
MEMO = "MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr"
ASSOCIATED = "ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL"
A, B, C, D, E, F = KEYS


@pytest.mark.parametrize(
    ("program", "accounts", "data", "name", "parsed"),
    [
        (
            str(SYSTEM),
            [A, B],
            struct.pack("<IQ", 2, 99),
            "system",
            {"type": "transfer", "info": {"source": A, "destination": B, "lamports": 99}},
        ),
        (
            str(SYSTEM),
            [A, B],
            struct.pack("<IQQ32s", 0, 1, 2, bytes(MINT)),
            "system",
            {
                "type": "createAccount",
                "info": {
                    "source": A,
                    "newAccount": B,
                    "lamports": 1,
                    "space": 2,
                    "owner": str(MINT),
                },
            },
        ),
        (
            TOKEN,
            [A, B, C],
            struct.pack("<BQ", 3, 99),
            "spl-token",
            {
                "type": "transfer",
                "info": {"source": A, "destination": B, "amount": "99", "authority": C},
            },
        ),
        (
            TOKEN,
            [A, B, C, D, E],
            struct.pack("<BQ", 3, 99),
            "spl-token",
            {
                "type": "transfer",
                "info": {
                    "source": A,
                    "destination": B,
                    "amount": "99",
                    "multisigAuthority": C,
                    "signers": [D, E],
                },
            },
        ),
        (
            TOKEN_2022,
            [A, B, C, D],
            struct.pack("<BQB", 12, 1500, 3),
            "spl-token-2022",
            {
                "type": "transferChecked",
                "info": {
                    "source": A,
                    "mint": B,
                    "destination": C,
                    "tokenAmount": amount("1500", 3, 1.5, "1.5"),
                    "authority": D,
                },
            },
        ),
        (
            TOKEN,
            [A],
            struct.pack("<BB32sB32s", 20, 6, bytes(MINT), 1, bytes(OTHER)),
            "spl-token",
            {
                "type": "initializeMint2",
                "info": {
                    "mint": A,
                    "decimals": 6,
                    "mintAuthority": str(MINT),
                    "freezeAuthority": str(OTHER),
                },
            },
        ),
        (
            TOKEN,
            [A, B],
            b"\x05",
            "spl-token",
            {"type": "revoke", "info": {"source": A, "owner": B}},
        ),
        (
            ASSOCIATED,
            KEYS,
            b"\x01",
            "spl-associated-token-account",
            {
                "type": "createIdempotent",
                "info": {
                    "source": A,
                    "account": B,
                    "wallet": C,
                    "mint": D,
                    "systemProgram": E,
                    "tokenProgram": F,
                },
            },
        ),
        (MEMO, [A], "grüß".encode(), "spl-memo", "grüß"),
    ],
)
def test_known_instructions(
    program: str, accounts: list[str], data: bytes, name: str, parsed: Any
) -> None:
    keys = [*KEYS, program]
    indexes = [keys.index(account) for account in accounts]
    assert parse_instruction(6, indexes, data, 1, keys) == {
        "program": name,
        "programId": program,
        "parsed": parsed,
        "stackHeight": 1,
    }


@pytest.mark.parametrize(
    ("program", "data"),
    [
        (str(MINT), b"abc"),
        (str(SYSTEM), b""),
        (str(SYSTEM), struct.pack("<IQ", 77, 1)),
        (TOKEN, b""),
        (TOKEN, b"\x03\x01"),
        (TOKEN, b"\xfe"),
        (MEMO, b"\xff"),
        (ASSOCIATED, b"\x00"),  # too few accounts
    ],
)
def test_other_instructions_are_shown_as_they_are(program: str, data: bytes) -> None:
    shown = parse_instruction(1, [0], data, None, [A, program])
    assert set(shown) == {"programId", "accounts", "data", "stackHeight"}
    assert shown["accounts"] == [A]
    assert shown["programId"] == program


# --- errors


@pytest.mark.parametrize(
    ("err", "text"),
    [
        ("BlockhashNotFound", "Blockhash not found"),
        ("NewName", "NewName"),
        (
            {"InstructionError": [0, {"Custom": 6001}]},
            "Error processing Instruction 0: custom program error: 0x1771",
        ),
        (
            {"InstructionError": [2, "MissingRequiredSignature"]},
            "Error processing Instruction 2: missing required signature for instruction",
        ),
        (
            {"InstructionError": [2, {"BorshIoError": "x"}]},
            "Error processing Instruction 2: Failed to serialize or deserialize account data",
        ),
        (
            {"InsufficientFundsForRent": {"account_index": 3}},
            "Transaction results in an account (3) with insufficient funds for rent",
        ),
        (
            {"DuplicateInstruction": 4},
            "Transaction contains a duplicate instruction (4) that is not allowed",
        ),
        (
            {"ProgramExecutionTemporarilyRestricted": {"account_index": 1}},
            "Execution of the program referenced by account at index 1 is temporarily restricted.",
        ),
    ],
)
def test_sentences(err: Any, text: str) -> None:
    assert sentence(err) == text


def test_an_instruction_made_by_solders_parses() -> None:
    payer = Keypair.from_seed(bytes(32))
    pay = transfer(TransferParams(from_pubkey=payer.pubkey(), to_pubkey=OTHER, lamports=5))
    odd = Instruction(MINT, b"\0\1", [AccountMeta(OTHER, False, True)])
    message = Message.new_with_blockhash([pay, odd], payer.pubkey(), Hash.default())
    transaction = VersionedTransaction(message, [payer])
    keys = [str(key) for key in message.account_keys]
    first, second = (
        parse_instruction(i.program_id_index, i.accounts, bytes(i.data), 1, keys)
        for i in transaction.message.instructions
    )
    assert first["parsed"]["info"]["destination"] == str(OTHER)
    assert second["data"] == "12"
