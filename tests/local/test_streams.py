"""The session endpoint's subscriptions, against what LiteSVM gives directly."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from solders.account import Account
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction_metadata import FailedTransactionMetadata

from backtest_sync.local import demo, svm
from backtest_sync.local.accounts import write_accounts
from backtest_sync.local.bundle import Bundle
from backtest_sync.local.endpoint import hold, watches
from backtest_sync.local.endpoint.parsed import TOKEN
from backtest_sync.local.endpoint.transaction_watches import LogsWatch
from backtest_sync.local.feed import RETAINED_SLOTS
from backtest_sync.local.sysvars import Sysvars
from backtest_sync.protocol import (
    AccountData,
    AccountModifications,
    ActionAnchor,
    ActionKind,
    Continue,
    ScheduledAction,
)
from backtest_sync.protocol.accounts import MODIFICATIONS
from tests.support.endpoint import Desk, play

FIRST = demo.FIRST_SLOT
POOL = {"mentions": [demo.POOL_PROGRAM]}
VECTORS = Path(__file__).parent.parent / "vectors" / "subscriptions.json"


@pytest.fixture(scope="module")
def bundle() -> Iterator[Bundle]:
    with Bundle.open("demo") as opened:
        yield opened


def modifications(**accounts: Any) -> Any:
    return MODIFICATIONS.write(AccountModifications(accounts))


def swap(amount: int = 10**9) -> str:
    transaction = demo.swap_transaction(demo.ALICE, sells_base=True, amount_in=amount)
    return base64.b64encode(transaction).decode()


def results(messages: list[dict[str, Any]], subscription: int = 1) -> list[Any]:
    """The results of one subscription's notifications; its end marker as None."""
    found = []
    for message in messages:
        params = message["params"]
        if params["subscription"] == subscription:
            assert set(message) == {"jsonrpc", "method", "params"}
            assert (message["method"] == "subscriptionComplete") == ("result" not in params)
            found.append(params.get("result"))
    return found


# --- whole runs


class Done:
    """What a bare machine says of one transaction of the history."""

    def __init__(self, slot: int, recorded: Any, machine: Any) -> None:
        keys = dict.fromkeys(recorded.pubkeys)
        before = {key: machine.get_account(key) for key in keys}
        outcome = machine.send_transaction(recorded.transaction)
        after = {key: machine.get_account(key) for key in keys}
        failed = isinstance(outcome, FailedTransactionMetadata)
        self.slot = slot
        self.index = recorded.index
        self.signature = recorded.signature
        self.keys = recorded.keys
        self.err = svm.error_json(outcome.err()) if failed else None
        self.meta: Any = outcome.meta() if failed else outcome
        self.raw = recorded.raw
        self.balances = [
            [0 if states[key] is None else states[key].lamports for key in recorded.pubkeys]
            for states in (before, after)
        ]
        self.changes = {
            str(key): (before[key], after[key]) for key in keys if before[key] != after[key]
        }


@pytest.fixture(scope="module")
def history(bundle: Bundle) -> list[Done]:
    """The whole history of the demo, run by hand."""
    machine = svm.new_svm()
    write_accounts(machine, {svm.to_pubkey(k): a for k, a in bundle.accounts_at(FIRST).items()})
    sysvars = Sysvars(machine)
    done = []
    for block in bundle.blocks(bundle.first_slot, bundle.last_slot):
        sysvars.open_slot(block)
        done += [Done(block.slot, recorded, machine) for recorded in block.transactions]
    return done


def ui(account: Account | None) -> Any:
    return None if account is None else svm.account_to_json(account)


def test_a_whole_run_is_what_the_machine_says(bundle: Bundle, history: list[Done]) -> None:
    """Logs, transactions and diffs of the pool and of all token accounts, three connections."""

    async def scenario(desk: Desk) -> None:
        plain, packed, other = desk.link(), desk.link(), desk.link()
        await plain.subscribe("logsSubscribe", POOL, {"commitment": "confirmed"})
        await packed.subscribe("transactionSubscribe", POOL, {"compression": "zstd"})
        await packed.subscribe("accountDiffSubscribe", demo.PRICE_ACCOUNT, {"compression": "zstd"})
        await other.subscribe("accountDiffSubscribe", TOKEN, {"address_type": "program"})
        await desk.advance(1000)
        assert desk.session.finished.is_set()

        swaps = [done for done in history if demo.POOL_PROGRAM in done.keys]
        assert len(swaps) > 400
        assert any(done.err is not None for done in swaps)
        logs = results(await plain.settled())
        assert logs == [
            *[
                {
                    "context": {"slot": done.slot},
                    "value": {
                        "signature": done.signature,
                        "err": done.err,
                        "logs": done.meta.logs(),
                        "source": "executed",
                    },
                }
                for done in swaps
            ],
            None,
        ]

        messages = await packed.settled()
        assert packed.binary == len(messages)
        transactions = results(messages, 1)
        assert transactions.pop() is None
        assert [t["transaction"]["signatures"][0] for t in transactions] == [
            done.signature for done in swaps
        ]
        for shown, done in zip(transactions, swaps, strict=True):
            meta = shown["meta"]
            assert (shown["slot"], shown["transactionIndex"]) == (done.slot, done.index)
            assert meta["err"] == done.err
            assert meta["logMessages"] == done.meta.logs()
            assert meta["computeUnitsConsumed"] == done.meta.compute_units_consumed()
            assert meta["fee"] == done.meta.fee()
            assert [meta["preBalances"], meta["postBalances"]] == done.balances

        def diffs(wanted: Any) -> list[Any]:
            return [
                (done.slot, done.index, done.signature, key, ui(pre), ui(post))
                for done in history
                for key, (pre, post) in done.changes.items()
                if wanted(key, pre, post)
            ]

        def shown(messages: list[Any]) -> list[Any]:
            return [
                (
                    r["context"]["slot"],
                    r["tx_index"],
                    r["signature"],
                    r["account"],
                    r["pre"],
                    r["post"],
                )
                for r in messages
                if r is not None
            ]

        prices = diffs(lambda key, *_: key == demo.PRICE_ACCOUNT)
        assert len(prices) == len(bundle.slots)
        assert shown(results(messages, 2)) == prices

        token = Pubkey.from_string(TOKEN)
        of_token = diffs(lambda _, *states: any(a is not None and a.owner == token for a in states))
        found = shown(results(await other.settled()))
        assert sorted(found, key=str) == sorted(of_token, key=str)
        assert [entry[:2] for entry in found] == [entry[:2] for entry in of_token]
        assert any(entry[4] is None for entry in found), "no account was opened"
        assert any(entry[5] is None for entry in found), "no account was closed"

    play(bundle, scenario)


def test_states_of_accounts(bundle: Bundle, history: list[Done]) -> None:
    """The final state a slot, each write with intraSlotUpdates, and a program's with filters."""
    last = list(bundle.slots)[30]
    writes = [d for d in history if demo.BASE_VAULT in d.changes and d.slot <= last]
    final = {done.slot: ui(done.changes[demo.BASE_VAULT][1]) for done in writes}
    assert len(final) < len(writes)

    async def scenario(desk: Desk) -> None:
        link = desk.link()
        config = {"encoding": "base64"}
        every = {**config, "intraSlotUpdates": True}
        filters = [{"dataSize": 165}, {"memcmp": {"offset": 32, "bytes": demo.POOL}}]
        await link.subscribe("accountSubscribe", demo.BASE_VAULT, config)
        await link.subscribe("accountSubscribe", demo.BASE_VAULT, every)
        await link.subscribe("programSubscribe", TOKEN, {**config, "filters": filters})
        await link.subscribe("programSubscribe", TOKEN, {**every, "filters": filters})
        await desk.advance(1000)
        messages = await link.settled()
        assert messages[-1]["method"] == "subscriptionComplete"
        assert results(messages, 1) == [
            *[{"context": {"slot": slot}, "value": value} for slot, value in final.items()],
            None,
        ]
        assert [r and (r["context"]["slot"], r["value"]) for r in results(messages, 2)] == [
            *[(done.slot, ui(done.changes[demo.BASE_VAULT][1])) for done in writes],
            None,
        ]
        for subscription, expected in ((3, len(final)), (4, len(writes))):
            values = [r["value"] for r in results(messages, subscription) if r is not None]
            assert {value["pubkey"] for value in values} == {demo.BASE_VAULT, demo.QUOTE_VAULT}
            of_vault = [v["account"] for v in values if v["pubkey"] == demo.BASE_VAULT]
            assert len(of_vault) == expected
            assert of_vault[-1] == list(final.values())[-1]

    play(bundle, scenario, end_slot=last)


def test_slots(bundle: Bundle) -> None:
    async def scenario(desk: Desk) -> None:
        link = desk.link()
        await link.subscribe("slotSubscribe")
        await desk.advance(1000)
        slots = list(bundle.slots)[: len(range(10))]
        parents = [FIRST - 1, *slots[:-1]]
        assert results(await link.settled()) == [
            *[
                {"slot": slot, "parent": parent, "root": parent}
                for slot, parent in zip(slots, parents, strict=True)
            ],
            None,
        ]

    play(bundle, scenario, end_slot=list(bundle.slots)[9])


# --- other kinds


def test_a_signature_is_told_once(bundle: Bundle) -> None:
    slot = list(bundle.slots)[1]
    coming = bundle.block(slot).transactions[3]
    failed = next(
        t
        for block in bundle.blocks(slot, slot + 60)
        for t in block.transactions
        if t.meta is not None and t.meta["err"] is not None
    )

    async def scenario(desk: Desk) -> None:
        link = desk.link()
        config = {"commitment": "finalized", "enableReceivedNotification": False}
        first = await link.subscribe("signatureSubscribe", coming.signature, config)
        never = await link.subscribe("signatureSubscribe", str(Signature.new_unique()))
        await desk.advance(70)
        assert await link.settled() == [
            {
                "jsonrpc": "2.0",
                "method": "signatureNotification",
                "params": {
                    "subscription": first,
                    "result": {"context": {"slot": slot}, "value": {"err": None}},
                },
            }
        ]
        answer = await link.ask("signatureUnsubscribe", first)
        assert answer["error"]["code"] == -32602
        known = await link.subscribe("signatureSubscribe", failed.signature)
        (told,) = results(await link.settled(), known)
        assert failed.meta is not None
        assert told["value"] == {"err": failed.meta["err"]}
        await desk.advance(1000)
        (end,) = await link.settled()
        assert end["method"] == "subscriptionComplete"
        assert end["params"] == {"subscription": never}

    play(bundle, scenario)


def test_logs_of_all(bundle: Bundle) -> None:
    async def scenario(desk: Desk) -> None:
        link = desk.link()
        await link.subscribe("logsSubscribe", "all")
        await link.subscribe("logsSubscribe", "allWithVotes", {})
        await desk.advance(1)
        messages = await link.settled()
        expected = [t.signature for t in bundle.block(FIRST).transactions]
        for subscription in (1, 2):
            found = [r["value"]["signature"] for r in results(messages, subscription)]
            assert found[: len(expected)] == expected

    play(bundle, scenario)


def test_results_of_actions(bundle: Bundle) -> None:
    slots = list(bundle.slots)[2:4]
    raw = [base64.b64decode(swap(10**9)), base64.b64decode(swap(10**6))]
    actions = [
        ScheduledAction(
            ActionAnchor.before_slot(slots),
            kind=ActionKind.SIMULATE,
            transactions=raw,
            return_accounts=[demo.BASE_VAULT],
            label="what if",
        ),
        ScheduledAction(
            ActionAnchor.after_slot([slots[0]]), kind=ActionKind.SEND, transactions=raw[:1]
        ),
    ]

    async def scenario(desk: Desk) -> None:
        link = desk.link()
        await link.subscribe("actionSubscribe", None, {"compression": "zstd"})
        await link.subscribe("logsSubscribe", POOL)
        await desk.advance(1000)
        messages = await link.settled()
        first, sent, second, end = results(messages, 1)
        assert end is None
        assert [r["slot"] for r in (first, sent, second)] == [slots[0], slots[0], slots[1]]
        assert [r["actionIndex"] for r in (first, sent, second)] == [0, 1, 0]
        assert [r["committed"] for r in (first, sent, second)] == [False, True, False]
        assert first["label"] == "what if"
        assert first["accounts"][0]["space"] == 165
        (outcome,) = sent["transactionOutcomes"]
        (committed,) = [
            r["value"] for r in results(messages, 2) if r and r["value"]["source"] == "user"
        ]
        assert outcome["logs"] == committed["logs"]

    play(bundle, scenario, end_slot=slots[-1] + 2, actions=actions)


def test_what_a_user_does_is_told_while_the_session_rests(bundle: Bundle) -> None:
    async def scenario(desk: Desk) -> None:
        await desk.advance(2)
        slot = desk.session.slot
        link = desk.link()
        since = {"replayFromSlot": slot + 1}
        accounts = await link.subscribe(
            "accountSubscribe", demo.POOL, {"encoding": "jsonParsed", **since}
        )
        diffs = await link.subscribe("accountDiffSubscribe", demo.POOL, since)
        logs = await link.subscribe("logsSubscribe", POOL, since)
        signature = await desk.call("sendTransaction", swap(), {"encoding": "base64"})
        messages = await link.settled()
        (log,) = results(messages, logs)
        assert log["value"]["signature"] == signature
        assert log["value"]["source"] == "user"
        assert log["context"]["slot"] == slot
        (diff,) = results(messages, diffs)
        assert diff["tx_index"] == len(bundle.block(slot).transactions)
        (state,) = results(messages, accounts)
        assert state["value"] == diff["post"]

        new = AccountData(b"abc", 7, demo.POOL_PROGRAM)
        await desk.call("modifyAccounts", modifications(**{demo.POOL: new}))
        messages = await link.settled()
        (diff,) = results(messages, diffs)
        assert "signature" not in diff
        assert "tx_index" not in diff
        assert diff["post"]["data"] == ["YWJj", "base64"]
        (state,) = results(messages, accounts)
        assert state["value"] == diff["post"]

        gone = AccountData(b"", 0, str(Pubkey.default()))
        await desk.call("modifyAccounts", modifications(**{demo.POOL: gone}))
        messages = await link.settled()
        (diff,) = results(messages, diffs)
        assert diff["post"] is None
        (state,) = results(messages, accounts)
        assert state["value"]["lamports"] == 0
        assert state["value"]["owner"] == str(Pubkey.default())

    play(bundle, scenario)


def test_replayed_state_is_told_without_transactions(bundle: Bundle, history: list[Done]) -> None:
    start, end = demo.RANGE_STARTS[-1], demo.RANGE_STARTS[-1] + 10
    final: dict[int, Any] = {}
    for done in history:
        if start <= done.slot <= end and demo.POOL in done.changes:
            final[done.slot] = ui(done.changes[demo.POOL][1])
    assert len(final) > 3

    async def scenario(desk: Desk) -> None:
        link = desk.link()
        await link.subscribe("accountDiffSubscribe", demo.POOL)
        await link.subscribe("accountSubscribe", demo.POOL, {"encoding": "base64"})
        await link.subscribe("logsSubscribe", "all")
        await desk.advance(1000)
        messages = await link.settled()
        diffs = results(messages, 1)[:-1]
        assert {r["context"]["slot"]: r["post"] for r in diffs} == final
        assert not any("signature" in r or "tx_index" in r for r in diffs)
        states = results(messages, 2)[:-1]
        assert {r["context"]["slot"]: r["value"] for r in states} == final
        assert results(messages, 3) == [None]

    play(bundle, scenario, start_slot=start, end_slot=end, replay_account_state=True)


def test_played_back_transactions_say_so(bundle: Bundle) -> None:
    block = bundle.block(FIRST)
    answer = {
        "blockhash": block.blockhash,
        "previousBlockhash": block.previous_blockhash,
        "parentSlot": block.parent_slot,
        "blockTime": block.block_time,
        "blockHeight": block.block_height,
        "transactions": [
            {"transaction": [base64.b64encode(t.raw).decode(), "base64"], "meta": t.meta}
            for t in block.transactions
        ],
    }

    async def scenario(desk: Desk) -> None:
        link = desk.link()
        await link.subscribe("logsSubscribe", "all")
        await link.subscribe("transactionSubscribe", "all")
        await desk.advance(5)
        messages = await link.settled()
        logs = results(messages, 1)[:-1]
        assert [r["value"]["source"] for r in logs] == ["playedBack"] * len(block.transactions)
        transactions = results(messages, 2)[:-1]
        assert [r["source"] for r in transactions] == ["playedBack"] * len(block.transactions)
        assert [r["meta"] for r in transactions] == [t.meta for t in block.transactions]

    with Bundle.of_block(answer, FIRST) as recorded:
        play(recorded, scenario)


# --- requests


@pytest.mark.parametrize(
    ("text", "code", "id_"),
    [
        ("{", -32700, None),
        ("[]", -32600, None),
        ('{"jsonrpc":"2.0","id":3}', -32600, 3),
        ('{"jsonrpc":"2.0","id":3,"method":"getSlot"}', -32601, 3),
        ('{"jsonrpc":"2.0","id":3,"method":"blockSubscribe","params":["all"]}', -32601, 3),
        ('{"jsonrpc":"2.0","id":3,"method":"logsSubscribe","params":[]}', -32602, 3),
        ('{"jsonrpc":"2.0","id":3,"method":"logsSubscribe","params":[{"mentions":[]}]}', -32602, 3),
        ('{"jsonrpc":"2.0","id":3,"method":"logsSubscribe","params":["most"]}', -32602, 3),
        ('{"jsonrpc":"2.0","id":3,"method":"accountDiffSubscribe","params":["x"]}', -32602, 3),
        ('{"jsonrpc":"2.0","id":3,"method":"accountSubscribe","params":[null]}', -32602, 3),
        ('{"jsonrpc":"2.0","id":3,"method":"signatureSubscribe","params":["11"]}', -32602, 3),
        ('{"jsonrpc":"2.0","id":3,"method":"accountUnsubscribe","params":[1]}', -32602, 3),
        ('{"jsonrpc":"2.0","id":3,"method":"accountUnsubscribe","params":[]}', -32602, 3),
        ('{"jsonrpc":"2.0","id":3,"method":"accountUnsubscribe","params":[[]]}', -32602, 3),
    ],
)
def test_wrong_requests(bundle: Bundle, text: str, code: int, id_: Any) -> None:
    async def scenario(desk: Desk) -> None:
        link = desk.link()
        link.write(text)
        answer = await link.next()
        assert answer["id"] == id_
        assert answer["error"]["code"] == code
        assert await link.subscribe("slotSubscribe") == 1

    play(bundle, scenario)


@pytest.mark.parametrize("method", ["replacementSubscribe", "diagnosticSubscribe"])
def test_what_needs_the_service_is_refused_with_a_sentence(bundle: Bundle, method: str) -> None:
    async def scenario(desk: Desk) -> None:
        answer = await desk.link().ask(method, None, {})
        assert answer["error"]["code"] == -32601
        assert answer["error"]["message"].startswith(
            f"{method} is not supported by the local simulator"
        )

    play(bundle, scenario)


def test_unsubscribing(bundle: Bundle) -> None:
    async def scenario(desk: Desk) -> None:
        link = desk.link()
        first = await link.subscribe("logsSubscribe", POOL)
        second = await link.subscribe("slotSubscribe")
        answer = await link.ask("logsUnsubscribe", first)
        assert answer["result"] is True
        assert (await link.ask("logsUnsubscribe", first))["error"]["code"] == -32602
        await link.settled()
        await desk.advance(3)
        messages = await link.settled()
        assert {m["params"]["subscription"] for m in messages} == {second}

    play(bundle, scenario)


def test_too_many_subscriptions(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backtest_sync.local.streams.MAX_SUBSCRIPTIONS", 2)

    async def scenario(desk: Desk) -> None:
        link = desk.link()
        await link.subscribe("slotSubscribe")
        await link.subscribe("slotSubscribe")
        answer = await link.ask("slotSubscribe")
        assert answer["error"]["code"] == -32600
        assert "max 2" in answer["error"]["message"]
        await link.ask("slotUnsubscribe", 1)
        assert await link.subscribe("slotSubscribe") == 3

    play(bundle, scenario)


# --- options


def read_cases() -> list[Any]:
    cases = json.loads(VECTORS.read_text())["cases"]
    return [case for case in cases if case["function"] == "subscribe_config_read"]


@pytest.mark.parametrize("case", read_cases(), ids=lambda case: case["name"])
def test_options_are_read_as_the_reference_reads_them(case: dict[str, Any]) -> None:
    if isinstance(case["input"], list):
        # A list in the place of the object is an accident of the reference's library: here it is a
        # malformed object like any other, and that means no options at all.
        assert watches.read_options([None, case["input"]]) == watches.Options()
        return
    assert watches.read_options([None, case["input"]]) == watches.Options(
        case["replay_from_slot"], case["compression"] == "zstd", case["intra_slot_updates"]
    )


@pytest.mark.parametrize(
    "config", ["x", 5, None, [], {"compression": "gzip", "encoding": "base64"}]
)
def test_malformed_options_never_fail_a_subscription(bundle: Bundle, config: Any) -> None:
    async def scenario(desk: Desk) -> None:
        await desk.advance(1)
        link = desk.link()
        await link.subscribe("logsSubscribe", POOL, config)
        await link.subscribe("accountSubscribe", demo.POOL, config)
        await link.subscribe("actionSubscribe", config, config)
        messages = await link.settled()
        assert results(messages, 1)[0]["context"]["slot"] == FIRST
        assert results(messages, 2)[0]["context"]["slot"] == FIRST
        assert link.binary == 0

    play(bundle, scenario)


@pytest.mark.parametrize(
    ("from_slot", "first"), [(None, 0), (-3, 0), (0, 0), (FIRST + 1, 1), (2**63 - 1, None)]
)
def test_replay_is_inclusive(bundle: Bundle, from_slot: int | None, first: int | None) -> None:
    async def scenario(desk: Desk) -> None:
        await desk.advance(4)
        link = desk.link()
        config = {} if from_slot is None else {"replayFromSlot": from_slot}
        slots = await link.subscribe("slotSubscribe", None, config)
        diffs = await link.subscribe("accountDiffSubscribe", demo.PRICE_ACCOUNT, config)
        messages = await link.settled()
        expected = [
            slot
            for slot in bundle.slots
            if slot <= desk.session.slot and first is not None and slot >= FIRST + first
        ]
        assert [r["slot"] for r in results(messages, slots)] == expected
        assert [r["context"]["slot"] for r in results(messages, diffs)] == expected
        await desk.advance(1)
        messages = await link.settled()
        assert [r["slot"] for r in results(messages, slots)] == [desk.session.slot]

    play(bundle, scenario)


def test_the_last_hundred_slots_are_retained(bundle: Bundle) -> None:
    async def scenario(desk: Desk) -> None:
        await desk.advance(130)
        link = desk.link()
        await link.subscribe("accountDiffSubscribe", demo.PRICE_ACCOUNT)
        found = [r["context"]["slot"] for r in results(await link.settled())]
        at = list(bundle.slots).index(desk.session.slot) + 1
        assert found == list(bundle.slots)[at - RETAINED_SLOTS : at]

    play(bundle, scenario)


def test_the_ack_comes_before_the_replay(bundle: Bundle) -> None:
    async def scenario(desk: Desk) -> None:
        await desk.advance(2)
        link = desk.link()
        await link.subscribe("logsSubscribe", POOL, {"compression": "zstd"})
        assert not link.kept
        assert link.binary < len(await link.settled()) or link.binary > 0

    play(bundle, scenario)


def test_plain_and_compressed_ones_share_a_connection(bundle: Bundle) -> None:
    async def scenario(desk: Desk) -> None:
        link = desk.link()
        await link.subscribe("slotSubscribe")
        await link.subscribe("slotSubscribe", None, {"compression": "zstd"})
        await desk.advance(1000)
        messages = await link.settled()
        assert results(messages, 1) == results(messages, 2)
        assert link.binary == len(results(messages, 2))

    play(bundle, scenario, end_slot=FIRST + 9)


# --- the end


def test_a_subscription_after_the_end_is_told_everything_and_completed(bundle: Bundle) -> None:
    async def scenario(desk: Desk) -> None:
        await desk.advance(1000)
        link = desk.link()
        await link.subscribe("slotSubscribe")
        messages = await link.settled()
        assert messages[-1]["method"] == "subscriptionComplete"
        assert len(messages) == desk.session.executed_slots + 1
        assert link.closed_with is None

    play(bundle, scenario, end_slot=FIRST + 9)


def test_a_closed_session_completes_and_closes(bundle: Bundle) -> None:
    async def scenario(desk: Desk) -> None:
        link = desk.link()
        await link.subscribe("slotSubscribe")
        await desk.advance(1)
        desk.session.close()
        while (message := await link.next())["method"] != "subscriptionComplete":
            assert message["method"] == "slotNotification"
        while link.closed_with is None:
            await asyncio.sleep(0)
        assert link.closed_with == (1000, "session closed")

    play(bundle, scenario)


def test_a_defect_ends_one_connection(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("out of order")

    monkeypatch.setattr(LogsWatch, "results", broken)

    async def scenario(desk: Desk) -> None:
        good, bad = desk.link(), desk.link()
        await good.subscribe("slotSubscribe")
        await bad.subscribe("logsSubscribe", "all")
        await desk.advance(1000)
        assert desk.session.finished.is_set()
        assert bad.closed_with == (1011, "internal error")
        assert (await good.settled())[-1]["method"] == "subscriptionComplete"

    play(bundle, scenario)
    assert "a subscription failed" in caplog.text


# --- slow and lost subscribers


async def runs_until_held(desk: Desk, bundle: Bundle) -> int:
    """Lets the session run for as long as it does; how many slots it began."""
    seen = -1
    while seen != desk.session.slot:
        seen = desk.session.slot
        for _ in range(200):
            await asyncio.sleep(0)
    return list(bundle.slots).index(seen) + 1


def start(desk: Desk) -> None:
    desk.session.request_continue(Continue(1000))


def test_a_session_waits_for_a_subscriber_that_takes_nothing(bundle: Bundle) -> None:
    async def scenario(desk: Desk) -> None:
        slow, quick = desk.link(), desk.link()
        await slow.subscribe("slotSubscribe")
        await quick.subscribe("slotSubscribe")
        slow.stall()
        start(desk)
        assert await runs_until_held(desk, bundle) == RETAINED_SLOTS
        slow.flow()
        await desk.rest()
        assert desk.session.finished.is_set()
        assert results(await slow.settled()) == results(await quick.settled())

    play(bundle, scenario)


def test_a_session_waits_for_a_subscriber_that_confirms_nothing(bundle: Bundle) -> None:
    async def scenario(desk: Desk) -> None:
        link = desk.link()
        link.answers_pings = False
        await link.subscribe("slotSubscribe")
        start(desk)
        assert await runs_until_held(desk, bundle) == RETAINED_SLOTS
        desk.session.close()
        await asyncio.wait_for(desk.session.closed.wait(), 5)

    play(bundle, scenario)


def test_a_subscriber_that_confirms_nothing_is_given_up(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hold, "STALLED_LIMIT", 0.01)

    async def scenario(desk: Desk) -> None:
        link, other = desk.link(), desk.link()
        link.answers_pings = False
        await link.subscribe("slotSubscribe")
        await other.subscribe("slotSubscribe")
        await desk.advance(1000)
        assert desk.session.finished.is_set()
        assert link.closed_with is not None
        assert link.closed_with[0] == 1008
        assert len(results(await other.settled())) == len(bundle.slots) + 1

    play(bundle, scenario)


def test_who_subscribes_to_nothing_any_more_holds_nobody(bundle: Bundle) -> None:
    async def scenario(desk: Desk) -> None:
        link = desk.link()
        link.answers_pings = False
        await link.subscribe("slotSubscribe")
        assert (await link.ask("slotUnsubscribe", 1))["result"] is True
        assert not desk.session.gates
        await desk.advance(1000)
        assert desk.session.finished.is_set()
        await link.subscribe("slotSubscribe")  # and may begin anew
        assert desk.session.gates

    play(bundle, scenario)


def test_a_client_that_takes_no_answers_is_not_read_from(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backtest_sync.local.streams.MAX_UNANSWERED", 5)

    async def scenario(desk: Desk) -> None:
        link = desk.link()
        link.stall()
        for _ in range(50):
            link.write('{"jsonrpc":"2.0","id":"x","method":"no"}')
        for _ in range(100):
            await asyncio.sleep(0)
        assert link.unread > 40
        link.flow()
        await link.settled()
        assert link.unread == 0

    play(bundle, scenario)


def test_a_lost_subscriber_finds_everything_when_it_is_back(bundle: Bundle) -> None:
    async def scenario(desk: Desk) -> None:
        link = desk.link()
        await link.subscribe("accountDiffSubscribe", demo.PRICE_ACCOUNT)
        await link.subscribe("slotSubscribe")
        await desk.advance(20)
        before = results(await link.settled(), 1)
        await link.drop()
        start(desk)
        assert await runs_until_held(desk, bundle) < 20 + RETAINED_SLOTS + 5
        link = desk.link()
        cursor = {"replayFromSlot": before[-1]["context"]["slot"]}
        await link.subscribe("accountDiffSubscribe", demo.PRICE_ACCOUNT, cursor)
        assert (
            await runs_until_held(desk, bundle) < 20 + RETAINED_SLOTS + 5
        )  # the other one is still lost
        await link.subscribe("slotSubscribe", None, cursor)
        await desk.rest()
        assert desk.session.finished.is_set()
        after = results(await link.settled(), 1)
        assert before[-1] == after[0], "the boundary slot comes again"
        found = [r["context"]["slot"] for r in (*before, *after[1:-1])]
        assert found == list(bundle.slots)

    play(bundle, scenario)


def test_one_that_is_back_is_waited_for_in_the_place_of_the_lost_one(bundle: Bundle) -> None:
    """Not one slot may slip through between the two."""

    async def scenario(desk: Desk) -> None:
        link = desk.link()
        await link.subscribe("slotSubscribe")
        await desk.advance(50)
        seen = [r["slot"] for r in results(await link.settled())]
        confirmed = desk.session.gates[0]._confirmed  # type: ignore[attr-defined]
        assert confirmed in seen
        await link.drop()
        start(desk)
        held_at = await runs_until_held(desk, bundle)
        link = desk.link()
        link.answers_pings = False
        await link.subscribe("slotSubscribe", None, {"replayFromSlot": confirmed})
        assert await runs_until_held(desk, bundle) == held_at
        found = [r["slot"] for r in results(await link.settled())]
        slots = list(bundle.slots)
        assert found == slots[slots.index(confirmed) : held_at]

    play(bundle, scenario)


def test_nobody_waits_for_a_subscriber_that_left(bundle: Bundle) -> None:
    async def scenario(desk: Desk) -> None:
        link = desk.link()
        await link.subscribe("slotSubscribe")
        await desk.advance(2)
        await link.leave()
        assert not desk.session.gates
        await desk.advance(1000)
        assert desk.session.finished.is_set()

    play(bundle, scenario)


def test_a_subscriber_lost_for_good_is_given_up(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hold, "LOST_LIMIT", 0.01)

    async def scenario(desk: Desk) -> None:
        link = desk.link()
        await link.subscribe("slotSubscribe")
        await desk.advance(2)
        await link.drop()
        assert desk.session.gates
        await desk.advance(1000)
        assert desk.session.finished.is_set()
        assert not desk.session.gates

    play(bundle, scenario)


def test_nothing_of_a_connection_is_left_behind(bundle: Bundle) -> None:
    async def scenario(desk: Desk) -> None:
        link = desk.link()
        await link.subscribe("slotSubscribe")
        await desk.advance(2)
        await link.leave()
        assert not desk.session.feed._listeners
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert [task.get_name() for task in others] == [desk.session.id]

    play(bundle, scenario)
