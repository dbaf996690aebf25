"""The session endpoint's calls, against what LiteSVM gives directly."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from solders.account import Account
from solders.clock import Clock
from solders.hash import Hash
from solders.keypair import Keypair
from solders.litesvm import LiteSVM
from solders.message import Message
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction

from backtest_sync.local import demo, programs, svm
from backtest_sync.local.accounts import write_accounts
from backtest_sync.local.bundle import Bundle
from backtest_sync.local.endpoint.parsed import TOKEN
from backtest_sync.programs import build_programdata_bytes
from backtest_sync.protocol import AccountData, AccountModifications, CreateSession
from backtest_sync.protocol.accounts import MODIFICATIONS
from tests.local import worlds
from tests.support.endpoint import CallFailedError, Desk, play

FIRST = demo.FIRST_SLOT
BASE64 = {"encoding": "base64"}


@pytest.fixture(scope="module")
def bundle() -> Iterator[Bundle]:
    with Bundle.open("demo") as opened:
        yield opened


@contextlib.contextmanager
def faults(code: int, words: str = "") -> Iterator[None]:
    """Expects a call to fail."""
    with pytest.raises(CallFailedError) as caught:
        yield
    assert caught.value.code == code, caught.value
    assert words in caught.value.message, caught.value


def modifications(**accounts: Any) -> Any:
    return MODIFICATIONS.write(AccountModifications(accounts))


def by_hand(bundle: Bundle, last_slot: int, batches: int | None = None) -> LiteSVM:
    """A bare machine that ran the history up to a slot, or to some batches of it."""
    machine = svm.new_svm()
    write_accounts(
        machine, {svm.to_pubkey(k): a for k, a in bundle.accounts_at(bundle.first_slot).items()}
    )
    for block in bundle.blocks(bundle.first_slot, last_slot):
        # what programs see of the chain: epochs of 432,000 slots, as on mainnet
        epoch = block.slot // 432_000
        machine.set_clock(Clock(block.slot, 0, epoch, epoch + 1, block.block_time or 0))
        stop = batches if block.slot == last_slot else None
        for batch in block.batches[:stop]:
            for transaction in batch:
                machine.send_transaction(transaction.transaction)
    return machine


def swap(amount: int = 10**9, least_out: int = 0) -> bytes:
    """An unsigned swap of Alice's."""
    return demo.swap_transaction(demo.ALICE, sells_base=True, amount_in=amount, least_out=least_out)


def text(transaction: bytes) -> str:
    return base64.b64encode(transaction).decode()


# --- framing


@pytest.mark.parametrize(
    ("body", "code", "id_"),
    [
        (b"{", -32700, None),
        (b"", -32700, None),
        (b"\xff", -32700, None),
        (b"[]", -32600, None),
        (b"7", -32600, None),
        (b'{"jsonrpc":"2.0","id":4}', -32600, 4),
        (b'{"id":4,"method":"getSlot"}', -32600, 4),
        (b'{"jsonrpc":"2.0","id":"a","method":"getSlot","params":{"a":1}}', -32602, "a"),
        (b'{"jsonrpc":"2.0","id":4,"method":"getLeaderSchedule"}', -32601, 4),
        (b"[" * 600 + b"]" * 600, -32700, None),
    ],
)
def test_what_is_no_call(bundle: Bundle, body: bytes, code: int, id_: Any) -> None:
    async def scenario(desk: Desk) -> None:
        answer = await desk.post(body)
        assert answer["jsonrpc"] == "2.0"
        assert answer["id"] == id_
        assert answer["error"]["code"] == code
        assert answer["error"]["message"]

    play(bundle, scenario)


def test_batches_and_notifications(bundle: Bundle) -> None:
    async def scenario(desk: Desk) -> None:
        call = {"jsonrpc": "2.0", "method": "getSlot"}
        answers = await desk.post([{**call, "id": 1}, call, 5, {**call, "id": "x", "method": "no"}])
        assert answers[0] == {"jsonrpc": "2.0", "id": 1, "result": FIRST}
        assert [a["id"] for a in answers] == [1, None, "x"]
        assert [a["error"]["code"] for a in answers[1:]] == [-32600, -32601]
        assert await desk.post(call) is None
        assert await desk.post([call, call]) is None

    play(bundle, scenario)


@pytest.mark.parametrize(
    ("method", "params", "words"),
    [
        ("getAccountInfo", [], "at least 1 argument"),
        ("getAccountInfo", [demo.POOL, {}, 1], "from 1 to 2 parameters"),
        ("getAccountInfo", [5], "invalid type: integer `5`, expected a string"),
        ("getAccountInfo", ["short"], "WrongSize"),
        ("getAccountInfo", ["0" * 44], "Invalid param: Invalid"),
        ("getAccountInfo", ["1" * 10_000], "WrongSize"),
        ("getAccountInfo", [demo.POOL, 5], "expected a map"),
        ("getAccountInfo", [demo.POOL, {"encoding": "hex"}], "unknown variant"),
        ("getAccountInfo", [demo.POOL, {"commitment": "soon"}], "commitment"),
        ("getAccountInfo", [demo.POOL, {"dataSlice": {"offset": -1, "length": 1}}], "offset"),
        ("getAccountInfo", [demo.POOL, {"dataSlice": 1}], "dataSlice"),
        ("getMultipleAccounts", [[demo.POOL] * 101], "Too many inputs provided; max 100"),
        ("getMultipleAccounts", [demo.POOL], "expected a sequence"),
        ("getProgramAccounts", [TOKEN, {"filters": [{"dataSize": 1}] * 5}], "Too many filters"),
        (
            "getProgramAccounts",
            [TOKEN, {"filters": [{"dataSize": 1, "memcmp": {}}]}],
            "filter is one",
        ),
        (
            "getProgramAccounts",
            [TOKEN, {"filters": [{"memcmp": {"offset": 0}}]}],
            "bytes to compare",
        ),
        (
            "getProgramAccounts",
            [TOKEN, {"filters": [{"memcmp": {"offset": 0, "bytes": "1" * 129}}]}],
            "max 128",
        ),
        ("getProgramAccounts", [TOKEN, {"withContext": 1}], "expected a boolean"),
        ("getMinimumBalanceForRentExemption", [-1], "expected u64"),
        ("getMinimumBalanceForRentExemption", [2**40], "at most"),
        ("getTokenAccountBalance", [demo.POOL], "not a Token account"),
        ("getTokenAccountBalance", [str(Pubkey.new_unique())], "could not find account"),
        ("getTokenSupply", [demo.BASE_VAULT], "not a Token mint"),
        ("getTokenAccountsByOwner", [demo.POOL, {}], "expected `mint` or `programId`"),
        ("getTokenAccountsByOwner", [demo.POOL, {"mint": demo.POOL}], "could not find mint"),
        ("getTokenAccountsByOwner", [demo.POOL, {"programId": demo.POOL}], "unrecognized Token"),
        ("getAddressLookupTable", [demo.POOL], "not an address lookup table"),
        ("isBlockhashValid", ["x"], "blockhash"),
        ("getTransaction", ["x"], "WrongSize"),
        ("getSignatureStatuses", [["1" * 64] * 257], "Too many inputs provided; max 256"),
        ("getFeeForMessage", ["AAAA"], "failed to deserialize message"),
        ("simulateTransaction", ["AAAA", BASE64], "failed to deserialize transaction"),
        ("simulateTransaction", ["***", BASE64], "invalid base64 encoding"),
        ("simulateTransaction", ["0"], "invalid base58 encoding"),
        ("simulateTransaction", ["AA==", {"encoding": "json"}], "unknown variant"),
        ("simulateTransaction", [text(bytes(1233)), BASE64], "too large: 1233 bytes (max: 1232"),
        ("sendTransaction", ["AAAA", BASE64], "failed to deserialize transaction"),
        ("simulateTransaction", [worlds.insane(), BASE64], "Transaction failed to sanitize"),
        (
            "sendTransaction",
            [worlds.insane(), {**BASE64, "skipPreflight": True}],
            "failed to sanitize",
        ),
        ("modifyAccounts", [], "at least 1 argument"),
        ("modifyAccounts", [[]], "modifyAccounts"),
    ],
)
def test_wrong_parameters(bundle: Bundle, method: str, params: list[Any], words: str) -> None:
    async def scenario(desk: Desk) -> None:
        with faults(-32602, words):
            await desk.call(method, *params)

    play(bundle, scenario)


# --- the chain


def test_the_chain(bundle: Bundle) -> None:
    async def scenario(desk: Desk) -> None:
        await desk.advance(3)
        block = desk.session.engine.block
        assert await desk.call("getSlot", {"commitment": "processed"}) == block.slot > FIRST
        assert await desk.call("getBlockHeight") == block.block_height
        assert await desk.value("getLatestBlockhash") == {
            "blockhash": block.blockhash,
            "lastValidBlockHeight": block.block_height + 150,
        }
        assert await desk.value("isBlockhashValid", block.blockhash) is True
        assert await desk.call("getBlockTime", block.slot) == block.block_time
        assert await desk.call("getBlockTime", 5) is None
        assert await desk.call("getHealth") == "ok"
        assert (await desk.call("getVersion"))["solana-core"]
        epoch = await desk.call("getEpochInfo")
        assert epoch["absoluteSlot"] == block.slot
        assert epoch["epoch"] * epoch["slotsInEpoch"] + epoch["slotIndex"] == block.slot
        result = await desk.call("getBalance", demo.POOL)
        assert result["context"] == {"slot": block.slot, "apiVersion": "2.2.0"}
        with faults(-32016, "Minimum context slot has not been reached"):
            await desk.call("getSlot", {"minContextSlot": block.slot + 1})
        assert await desk.call("getSlot", {"minContextSlot": block.slot}) == block.slot

    play(bundle, scenario)


# --- accounts


def test_accounts_are_those_of_a_bare_machine(bundle: Bundle) -> None:
    """Every account of the bundle after each of some slots, and in the middle of one."""
    addresses = sorted(bundle.accounts_at(FIRST))

    async def same(desk: Desk, machine: LiteSVM) -> None:
        for start in range(0, len(addresses), 100):
            part = addresses[start : start + 100]
            values = await desk.value("getMultipleAccounts", part)
            for address, value in zip(part, values, strict=True):
                expected = machine.get_account(Pubkey.from_string(address))
                assert value == (None if expected is None else svm.account_to_json(expected))

    async def scenario(desk: Desk) -> None:
        await desk.advance(1)
        for _ in range(3):
            await desk.advance(2)
            await same(desk, by_hand(bundle, desk.session.slot))
        slots = list(bundle.slots)
        coming = slots[slots.index(desk.session.slot) + 2]
        count = len(bundle.block(coming).batches)
        assert count > 2
        await desk.pause(coming, count - 1)
        assert await desk.call("getSlot") == coming
        await same(desk, by_hand(bundle, coming, count - 1))

    play(bundle, scenario)


def test_one_account(bundle: Bundle) -> None:
    async def scenario(desk: Desk) -> None:
        value = await desk.value("getAccountInfo", demo.BASE_VAULT, {"encoding": "jsonParsed"})
        assert value["data"]["parsed"]["info"]["mint"] == demo.BASE_MINT
        value = await desk.value(
            "getAccountInfo",
            demo.BASE_VAULT,
            {"encoding": "base64", "dataSlice": {"offset": 64, "length": 8}},
        )
        held = int.from_bytes(base64.b64decode(value["data"][0]), "little")
        assert (await desk.value("getTokenAccountBalance", demo.BASE_VAULT))["amount"] == str(held)
        nobody = str(Pubkey.from_bytes(bytes([200] * 32)))
        assert await desk.value("getAccountInfo", nobody) is None
        assert await desk.value("getBalance", nobody) == 0
        assert await desk.value("getBalance", demo.ALICE.address) == 50 * 10**9
        small = await desk.value("getAccountInfo", demo.POOL)  # bare base58: a node's own default
        assert isinstance(small["data"], str)
        with faults(-32600, "please use Base64 encoding"):
            await desk.call("getAccountInfo", demo.BASE_VAULT)
        assert await desk.call("getMinimumBalanceForRentExemption", 165) == 2_039_280
        table = await desk.value("getAddressLookupTable", demo.LOOKUP_TABLE)
        assert table["key"] == demo.LOOKUP_TABLE
        assert demo.POOL in table["state"]["addresses"]
        assert await desk.value("getAddressLookupTable", nobody) is None

    play(bundle, scenario)


def test_accounts_of_a_program(bundle: Bundle) -> None:
    async def scenario(desk: Desk) -> None:
        everything = await desk.call("getProgramAccounts", TOKEN, BASE64)
        keys = [entry["pubkey"] for entry in everything]
        assert keys == sorted(keys, key=lambda key: bytes(Pubkey.from_string(key)))
        data = {e["pubkey"]: base64.b64decode(e["account"]["data"][0]) for e in everything}

        async def found(*filters: Any) -> set[str]:
            config = {"encoding": "base64", "filters": list(filters)}
            return {e["pubkey"] for e in await desk.call("getProgramAccounts", TOKEN, config)}

        assert await found({"dataSize": 82}) == {demo.BASE_MINT, demo.QUOTE_MINT}
        accounts = await found("tokenAccountState")
        assert accounts == {key for key in data if len(data[key]) == 165}
        of_pool = {"memcmp": {"offset": 32, "bytes": demo.POOL}}
        assert await found(of_pool, {"dataSize": 165}) == {demo.BASE_VAULT, demo.QUOTE_VAULT}
        raw = bytes(Pubkey.from_string(demo.POOL))
        for form in ({"bytes": list(raw)}, {"bytes": text(raw), "encoding": "base64"}):
            assert await found({"memcmp": {"offset": 32, **form}}) == {
                demo.BASE_VAULT,
                demo.QUOTE_VAULT,
            }
        assert await found({"memcmp": {"offset": 9999, "bytes": "2"}}) == set()
        result = await desk.value(
            "getProgramAccounts", demo.POOL_PROGRAM, {"withContext": True, "encoding": "base64"}
        )
        assert [entry["pubkey"] for entry in result] == [demo.POOL]

    play(bundle, scenario)


def test_tokens(bundle: Bundle) -> None:
    async def scenario(desk: Desk) -> None:
        alice = demo.ALICE
        by_program = await desk.value(
            "getTokenAccountsByOwner", alice.address, {"programId": TOKEN}, BASE64
        )
        assert {entry["pubkey"] for entry in by_program} == {alice.base, alice.quote}
        by_mint = await desk.value(
            "getTokenAccountsByOwner",
            alice.address,
            {"mint": demo.BASE_MINT},
            {"encoding": "jsonParsed"},
        )
        assert [entry["pubkey"] for entry in by_mint] == [alice.base]
        assert by_mint[0]["account"]["data"]["parsed"]["info"]["owner"] == alice.address
        supply = await desk.value("getTokenSupply", demo.QUOTE_MINT)
        assert supply["decimals"] == 6
        assert supply["amount"] == "6000000000000000"

    play(bundle, scenario)


# --- simulating


def test_a_simulation_shows_what_the_machine_says_and_commits_nothing(bundle: Bundle) -> None:
    async def scenario(desk: Desk) -> None:
        await desk.advance(2)
        before = await desk.value("getAccountInfo", demo.BASE_VAULT, BASE64)
        watched = [demo.BASE_VAULT, demo.POOL_PROGRAM, str(Pubkey.from_bytes(bytes([1] * 32)))]
        value = await desk.value(
            "simulateTransaction",
            text(swap()),
            {
                **BASE64,
                "replaceRecentBlockhash": True,
                "innerInstructions": True,
                "accounts": {"encoding": "base64", "addresses": watched},
            },
        )
        machine = by_hand(bundle, desk.session.slot)
        expected: Any = machine.simulate_transaction(VersionedTransaction.from_bytes(swap()))
        meta = expected.meta()
        assert value["err"] is None
        assert value["logs"] == meta.logs()
        assert value["unitsConsumed"] == meta.compute_units_consumed()
        assert value["fee"] == meta.fee()
        assert value["returnData"]["programId"] == demo.POOL_PROGRAM
        assert base64.b64decode(value["returnData"]["data"][0]) == meta.return_data().data
        assert value["replacementBlockhash"] == await desk.value("getLatestBlockhash")
        after = {str(key): account for key, account in expected.post_accounts()}
        vault, program, nobody = value["accounts"]
        assert vault == svm.account_to_json(after[demo.BASE_VAULT]) != before
        assert program == await desk.value("getAccountInfo", demo.POOL_PROGRAM, BASE64)
        assert nobody is None
        (inner,) = value["innerInstructions"]
        assert [i["parsed"]["type"] for i in inner["instructions"]] == ["transfer", "transfer"]
        assert await desk.value("getAccountInfo", demo.BASE_VAULT, BASE64) == before

    play(bundle, scenario)


def test_a_failed_simulation_is_a_result(bundle: Bundle) -> None:
    async def scenario(desk: Desk) -> None:
        value = await desk.value(
            "simulateTransaction",
            text(swap(least_out=2**63)),
            {**BASE64, "accounts": {"addresses": [demo.POOL]}},
        )
        assert value["err"] == {"InstructionError": [0, {"Custom": 6001}]}
        assert any("failed" in line for line in value["logs"])
        assert value["accounts"] == [None]
        assert value["replacementBlockhash"] is None
        assert value["innerInstructions"] is None

    play(bundle, scenario)


def test_a_simulation_on_other_accounts(bundle: Bundle) -> None:
    """Halve what the pool holds of the quote token: the swap gives about half."""

    async def scenario(desk: Desk) -> None:
        shown = await desk.value("getAccountInfo", demo.QUOTE_VAULT, BASE64)
        data = bytearray(base64.b64decode(shown["data"][0]))
        reserve_out = demo.token_amount(bytes(data))
        reserve_in = int((await desk.value("getTokenAccountBalance", demo.BASE_VAULT))["amount"])
        data[64:72] = (reserve_out // 2).to_bytes(8, "little")
        halved = AccountData(bytes(data), shown["lamports"], shown["owner"])

        async def paid(**extra: Any) -> int:
            value = await desk.value("simulateTransaction", text(swap()), {**BASE64, **extra})
            (done,) = demo.pool_swaps(value["logs"])
            return done.amount_out

        assert await paid() == demo.amount_out(10**9, reserve_in, reserve_out, demo.FEE_BPS[1])
        override = modifications(**{demo.QUOTE_VAULT: halved})
        expected = demo.amount_out(10**9, reserve_in, reserve_out // 2, demo.FEE_BPS[1])
        assert await paid(modifyAccountStates=override) == expected
        assert await desk.value("getAccountInfo", demo.QUOTE_VAULT, BASE64) == shown
        assert await paid() != expected
        with faults(-32602, "modifyAccountStates"):
            await paid(modifyAccountStates={demo.QUOTE_VAULT: {"lamports": 1}})

    play(bundle, scenario)


def signed_payment(payer: Keypair, blockhash: str, lamports: int = 5) -> VersionedTransaction:
    pay = transfer(
        TransferParams(
            from_pubkey=payer.pubkey(),
            to_pubkey=Pubkey.from_string(demo.ALICE.address),
            lamports=lamports,
        )
    )
    message = Message.new_with_blockhash([pay], payer.pubkey(), Hash.from_string(blockhash))
    return VersionedTransaction(message, [payer])


def test_signatures_are_checked_where_asked_for(bundle: Bundle) -> None:
    async def scenario(desk: Desk) -> None:
        payer = Keypair.from_seed(bytes(32))
        rich = AccountData(b"", 10**9, str(Pubkey.default()))
        assert await desk.call("modifyAccounts", modifications(**{str(payer.pubkey()): rich})) == 1
        blockhash = (await desk.value("getLatestBlockhash"))["blockhash"]
        good = bytes(signed_payment(payer, blockhash))
        config = {**BASE64, "sigVerify": True}
        assert (await desk.value("simulateTransaction", text(good), config))["err"] is None
        spoofed = good[:1] + bytes([good[1] ^ 1]) + good[2:]
        with faults(-32003, "signature verification failure"):
            await desk.call("simulateTransaction", text(spoofed), config)
        assert (await desk.value("simulateTransaction", text(spoofed), BASE64))["err"] is None
        with faults(-32602, "sigVerify may not be used with replaceRecentBlockhash"):
            await desk.call(
                "simulateTransaction", text(good), {**config, "replaceRecentBlockhash": True}
            )
        with faults(-32602, "base58 encoding not supported"):
            accounts = {"encoding": "base58", "addresses": []}
            await desk.call("simulateTransaction", text(good), {**BASE64, "accounts": accounts})
        with faults(-32602, "Too many accounts provided; max 3"):
            accounts = {"addresses": [demo.POOL] * 4}
            await desk.call("simulateTransaction", text(good), {**BASE64, "accounts": accounts})

    play(bundle, scenario)


def test_the_fee_of_a_message_is_what_its_transaction_pays(bundle: Bundle) -> None:
    async def scenario(desk: Desk) -> None:
        seen: set[int] = set()
        for block in bundle.blocks(FIRST, FIRST + 8):
            for recorded in block.transactions:
                raw = recorded.raw[1 + 64 * len(recorded.transaction.signatures) :]
                fee = await desk.value("getFeeForMessage", text(raw))
                assert recorded.meta is not None
                assert fee == recorded.meta["fee"]
                seen.add(fee)
        assert len(seen) > 2

    play(bundle, scenario)


# --- sending


def test_what_is_sent_runs_at_once(bundle: Bundle) -> None:
    async def scenario(desk: Desk) -> None:
        await desk.advance(2)
        slot = desk.session.slot
        machine = by_hand(bundle, slot)
        signature = await desk.call("sendTransaction", text(swap()), BASE64)
        assert signature == str(Signature.default())  # unsigned: anybody's swap may be played
        expected: Any = machine.send_transaction(VersionedTransaction.from_bytes(swap()))
        for address in (demo.BASE_VAULT, demo.QUOTE_VAULT, demo.ALICE.base, demo.ALICE.address):
            account = machine.get_account(Pubkey.from_string(address))
            assert account is not None
            assert await desk.value("getAccountInfo", address, BASE64) == svm.account_to_json(
                account
            )

        config = {"encoding": "json", "maxSupportedTransactionVersion": 0}
        value = await desk.call("getTransaction", signature, config)
        assert value["slot"] == slot
        assert value["blockTime"] == desk.session.engine.block_time
        assert value["source"] == "user"
        assert value["meta"]["logMessages"] == expected.logs()
        assert value["meta"]["computeUnitsConsumed"] == expected.compute_units_consumed()
        assert value["transactionIndex"] == len(desk.session.engine.block.transactions)
        raw = await desk.call(
            "getTransaction", signature, {"encoding": "base64", "maxSupportedTransactionVersion": 0}
        )
        assert raw["transaction"] == [text(swap()), "base64"]
        with faults(-32015, "maxSupportedTransactionVersion"):
            await desk.call("getTransaction", signature)
        unknown = str(Signature.new_unique())
        assert await desk.call("getTransaction", unknown) is None
        assert await desk.value("getSignatureStatuses", [signature, unknown]) == [
            {
                "slot": slot,
                "confirmations": None,
                "err": None,
                "status": {"Ok": None},
                "confirmationStatus": "finalized",
            },
            None,
        ]

    play(bundle, scenario)


def test_a_failing_preflight_and_going_without_one(bundle: Bundle) -> None:
    async def scenario(desk: Desk) -> None:
        await desk.advance(1)
        bad = swap(least_out=2**63)
        before = await desk.value("getBalance", demo.ALICE.address)
        with pytest.raises(CallFailedError) as caught:
            await desk.call("sendTransaction", text(bad), BASE64)
        error = caught.value
        assert error.code == -32002
        assert error.message == (
            "Transaction simulation failed: Error processing Instruction 0: "
            "custom program error: 0x1771"
        )
        assert error.data["err"] == {"InstructionError": [0, {"Custom": 6001}]}
        assert any("Program log" in line for line in error.data["logs"])
        assert error.data["unitsConsumed"] > 0
        assert error.data["accounts"] is None
        assert await desk.value("getBalance", demo.ALICE.address) == before
        signature = await desk.call(
            "sendTransaction", text(bad), {**BASE64, "skipPreflight": True, "maxRetries": 0}
        )
        assert await desk.value("getBalance", demo.ALICE.address) == before - 5000
        (status,) = await desk.value(
            "getSignatureStatuses", [signature], {"searchTransactionHistory": True}
        )
        assert status["err"] == {"InstructionError": [0, {"Custom": 6001}]}
        assert status["status"] == {"Err": status["err"]}

    play(bundle, scenario)


def test_history_by_signature(bundle: Bundle) -> None:
    async def scenario(desk: Desk) -> None:
        await desk.advance(3)
        for recorded in bundle.block(desk.session.slot).transactions:
            config = {"encoding": "base64", "maxSupportedTransactionVersion": 0}
            value = await desk.call("getTransaction", recorded.signature, config)
            assert value["transaction"][0] == text(recorded.raw)
            assert value["meta"] == recorded.meta
            assert value["source"] == "executed"

    play(bundle, scenario)


def test_calls_in_the_middle_of_a_paused_slot(bundle: Bundle) -> None:
    async def scenario(desk: Desk) -> None:
        slot = list(bundle.slots)[4]
        block = bundle.block(slot)
        count = len(block.batches) // 2
        await desk.pause(slot, count)
        ran = [t for batch in block.batches[:count] for t in batch]
        due = [t for batch in block.batches[count:] for t in batch]
        statuses = await desk.value("getSignatureStatuses", [t.signature for t in (*ran, *due)])
        assert [s is not None for s in statuses] == [True] * len(ran) + [False] * len(due)
        assert (await desk.value("simulateTransaction", text(swap()), BASE64))["err"] is None
        machine = by_hand(bundle, slot, count)
        machine.send_transaction(VersionedTransaction.from_bytes(swap()))
        await desk.call("sendTransaction", text(swap()), BASE64)
        (entry,) = await desk.call("getProgramAccounts", demo.POOL_PROGRAM, BASE64)
        account = machine.get_account(Pubkey.from_string(demo.POOL))
        assert account is not None
        assert entry["account"] == svm.account_to_json(account)

    play(bundle, scenario)


# --- modifying


def test_accounts_are_modified_at_once(bundle: Bundle) -> None:
    async def scenario(desk: Desk) -> None:
        new = str(Pubkey.from_bytes(bytes([3] * 32)))
        account = AccountData(b"abc", 123, demo.POOL_PROGRAM)
        gone = AccountData(b"", 0, str(Pubkey.default()))
        changes = modifications(**{new: account, demo.PRICE_ACCOUNT: gone})
        assert await desk.call("modifyAccounts", changes) == 2
        assert await desk.value("getAccountInfo", new, BASE64) == {
            "data": ["YWJj", "base64"],
            "executable": False,
            "lamports": 123,
            "owner": demo.POOL_PROGRAM,
            "rentEpoch": 0,
            "space": 3,
        }
        assert await desk.value("getAccountInfo", demo.PRICE_ACCOUNT, BASE64) is None
        pair = {**changes[new], "data": ["YWI=", "base64"]}  # the other form of the same
        assert await desk.call("modifyAccounts", {new: pair}) == 1
        assert (await desk.value("getAccountInfo", new, BASE64))["data"] == ["YWI=", "base64"]
        assert await desk.call("modifyAccounts", {}) == 0

    play(bundle, scenario)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda account: {**account, "lamports": -1},
        lambda account: {**account, "owner": "x"},
        lambda account: {**account, "data": {"data": "***", "encoding": "base64"}},
        lambda account: {**account, "data": "AAAA"},
        lambda account: {key: account[key] for key in account if key != "space"},
        lambda account: None,
    ],
)
def test_a_wrong_modification_changes_nothing(bundle: Bundle, spoil: Callable[[Any], Any]) -> None:
    async def scenario(desk: Desk) -> None:
        new = str(Pubkey.from_bytes(bytes([3] * 32)))
        good = modifications(**{demo.POOL: AccountData(b"", 5, demo.POOL_PROGRAM)})
        before = await desk.value("getAccountInfo", demo.POOL, BASE64)
        with faults(-32602, f"modifyAccounts['{new}']"):
            await desk.call("modifyAccounts", {**good, new: spoil(good[demo.POOL])})
        assert await desk.value("getAccountInfo", demo.POOL, BASE64) == before

    play(bundle, scenario)


def test_a_replaced_program_takes_effect(bundle: Bundle) -> None:
    async def scenario(desk: Desk) -> None:
        async def paid() -> int:
            value = await desk.value("simulateTransaction", text(swap()), BASE64)
            (done,) = demo.pool_swaps(value["logs"])
            return done.amount_out

        shown = await desk.value("getAccountInfo", demo.POOL_PROGRAM_DATA, BASE64)
        reserves = [
            int((await desk.value("getTokenAccountBalance", vault))["amount"])
            for vault in (demo.BASE_VAULT, demo.QUOTE_VAULT)
        ]
        assert await paid() == demo.amount_out(10**9, reserves[0], reserves[1], demo.FEE_BPS[1])
        elf = programs.elf("pool_v2")
        data = build_programdata_bytes(elf, FIRST - 1, demo.UPGRADE_AUTHORITY)
        account = AccountData(data, 10**10, shown["owner"])
        await desk.call("modifyAccounts", modifications(**{demo.POOL_PROGRAM_DATA: account}))
        assert await paid() == demo.amount_out(10**9, reserves[0], reserves[1], demo.FEE_BPS[2])
        broken = AccountData(data[:45] + b"no elf", 10**10, shown["owner"])
        with faults(-32602):
            await desk.call("modifyAccounts", modifications(**{demo.POOL_PROGRAM_DATA: broken}))
        assert await paid() == demo.amount_out(10**9, reserves[0], reserves[1], demo.FEE_BPS[2])

    play(bundle, scenario)


# --- kinds of sessions


def test_reads_by_address_see_scheduled_overrides(bundle: Bundle) -> None:
    slot = list(bundle.slots)[2]
    other = AccountData(b"xyz", 9, demo.MAKER_PROGRAM)
    params = CreateSession(start_slot=FIRST, end_slot=FIRST + 20)
    params = params.add_override(slot, {demo.PRICE_ACCOUNT: other})

    async def scenario(desk: Desk) -> None:
        before = await desk.value("getAccountInfo", demo.PRICE_ACCOUNT, BASE64)
        assert before["space"] != 3
        while desk.session.slot < slot:
            await desk.advance(1)
        value = await desk.value("getAccountInfo", demo.PRICE_ACCOUNT, BASE64)
        assert base64.b64decode(value["data"][0]) == b"xyz"
        (many,) = await desk.value("getMultipleAccounts", [demo.PRICE_ACCOUNT])
        assert many == value
        replayed = desk.session.engine.account(demo.PRICE_ACCOUNT)
        assert replayed is not None
        assert len(replayed.data) == before["space"]

    play(bundle, scenario, end_slot=FIRST + 20, actions=params.to_request().actions)


def test_state_replay_refuses_what_it_can_not_know(bundle: Bundle) -> None:
    start = demo.RANGE_STARTS[-1]
    cause = "is not supported while account state replay is enabled"
    persist = "Create the session without replayAccountState to execute and persist transactions."

    async def scenario(desk: Desk) -> None:
        await desk.advance(2)
        signature = str(Signature.default())
        with faults(-32600, f"getTransaction {cause}"):
            await desk.call("getTransaction", signature)
        with faults(-32600, persist):
            await desk.call("getSignatureStatuses", [signature])
        with faults(-32600, "sendTransaction"):
            await desk.call("sendTransaction", text(swap()), BASE64)
        value = await desk.value("simulateTransaction", text(swap()), BASE64)
        assert value["err"] is None

    play(bundle, scenario, start_slot=start, replay_account_state=True)


def test_after_the_end_reads_go_on_and_sends_are_refused(bundle: Bundle) -> None:
    async def scenario(desk: Desk) -> None:
        await desk.advance(100)
        assert desk.session.finished.is_set()
        assert await desk.call("getSlot") == desk.session.slot
        assert await desk.value("getBalance", demo.POOL) > 0
        with faults(-32600, "its last slot is over"):
            await desk.call("sendTransaction", text(swap()), {**BASE64, "skipPreflight": True})

    play(bundle, scenario, end_slot=FIRST + 5)


def test_a_defect_is_an_internal_error_of_one_call(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(desk: Desk) -> None:
        def broken(_: str) -> Account:
            raise RuntimeError("out of order")

        monkeypatch.setattr(desk.session, "account", broken)
        with faults(-32603, "out of order"):
            await desk.call("getBalance", demo.POOL)
        assert await desk.call("getSlot") == FIRST

    play(bundle, scenario)
    assert "getBalance failed" in caplog.text
