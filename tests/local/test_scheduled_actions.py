"""Scheduled actions: when they fire, what they see, what they leave."""

from __future__ import annotations

import base64
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from backtest_sync.local import LocalSimulator
from backtest_sync.protocol import (
    AccountData,
    ActionAnchor,
    ActionKind,
    CreateBacktestSession,
    DiscoveryFilter,
    ScheduledAction,
    TxResolver,
    encode_request,
)
from tests.local import small, worlds
from tests.local.peer import Peer

START = small.FIRST
END = START + 29
ALL = 2**64 - 1
ANN, BOB, CID = (worlds.where(name) for name in ("ann", "bob", "cid"))
SYSTEM = str(worlds.SYSTEM)


@pytest.fixture(scope="module")
def simulator(small_bundle: Path) -> Iterator[LocalSimulator]:
    with LocalSimulator(small_bundle) as running:
        yield running


@pytest.fixture
def peer(simulator: LocalSimulator) -> Iterator[Peer]:
    with Peer(simulator.url) as connected:
        yield connected


def payment(source: str, target: str, lamports: int) -> bytes:
    return bytes(worlds.payment(source, target, lamports))


def begin(peer: Peer, *actions: ScheduledAction, **fields: Any) -> str:
    peer.ws.send(encode_request(CreateBacktestSession(START, END, actions=actions, **fields)))
    messages = peer.until("readyForContinue")
    return str(messages[0]["params"]["session_id"])


def refused(peer: Peer, action: ScheduledAction, **fields: Any) -> str:
    peer.ws.send(encode_request(CreateBacktestSession(START, END, actions=[action], **fields)))
    return str(peer.error()["invalidRequest"]["error"])


def results(
    simulator: LocalSimulator, peer: Peer, *actions: ScheduledAction, **fields: Any
) -> list[dict[str, Any]]:
    """What the actions of a whole run gave."""
    session_id = begin(peer, *actions, **fields)
    with connect(f"{simulator.url}/{session_id}", max_size=None) as ws:
        subscribe = {"jsonrpc": "2.0", "id": 1, "method": "actionSubscribe", "params": [None, {}]}
        ws.send(json.dumps(subscribe))
        assert "result" in json.loads(ws.recv(timeout=20))
        peer.advance(ALL)
        found = []
        while (message := json.loads(ws.recv(timeout=20)))["method"] == "actionNotification":
            found.append(message["params"]["result"])
        assert message["method"] == "subscriptionComplete"
    return found


def balance(simulator: LocalSimulator, session_id: str, address: str) -> int:
    body = {"jsonrpc": "2.0", "id": 1, "method": "getBalance", "params": [address]}
    request = urllib.request.Request(
        f"{simulator.http_url}/backtest/{session_id}", json.dumps(body).encode()
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        return int(json.load(answer)["result"]["value"])


def purse(lamports: int) -> AccountData:
    return AccountData(b"", lamports, SYSTEM)


def test_an_action_at_named_slots_runs_one_transaction_at_each(
    simulator: LocalSimulator, peer: Peer
) -> None:
    action = ScheduledAction(
        ActionAnchor.before_slot([START, START + 4, START + 4]),
        transactions=[payment("cid", "bob", amount) for amount in (1, 2, 3)],
        return_accounts=[CID, BOB],
        label="mine",
    )
    found = results(simulator, peer, action)
    assert [(r["slot"], r["actionIndex"], r["label"]) for r in found] == [
        (START, 0, "mine"),
        (START + 4, 0, "mine"),
    ]
    assert [len(r["transactionOutcomes"]) for r in found] == [1, 2]
    first, second = found
    assert first["committed"] is False
    assert first["context"] == {"slot": START}
    assert "batchIndex" not in first
    outcome = first["transactionOutcomes"][0]
    assert "err" not in outcome
    assert outcome["unitsConsumed"] == 150
    assert outcome["fee"] == 5000
    # nothing was committed in between: each slot's own transactions alone
    spent = [10**12 - r["accounts"][0]["lamports"] for r in (first, second)]
    assert spent == [1 + 5000, 2 + 3 + 10000]


def test_a_simulation_leaves_the_world_as_it_was(simulator: LocalSimulator, peer: Peer) -> None:
    action = ScheduledAction(
        ActionAnchor.before_every_slot(), transactions=[payment("cid", "bob", 7)]
    )
    session_id = begin(peer, action)
    peer.advance(5)
    assert balance(simulator, session_id, CID) == 10**12


def test_a_send_is_committed_and_what_it_is_anchored_after_comes_first(
    simulator: LocalSimulator, peer: Peer
) -> None:
    actions = [
        ScheduledAction(
            anchor, ActionKind.SEND, [payment("cid", "bob", 1)], return_accounts=[ANN, CID]
        )
        for anchor in (ActionAnchor.before_slot([START + 2]), ActionAnchor.after_slot([START + 2]))
    ]
    before, after = results(simulator, peer, *actions)
    assert before["committed"]
    assert after["committed"]
    spent = [10**12 - r["accounts"][1]["lamports"] for r in (before, after)]
    assert spent == [5001, 10002]
    # the slot's own history came between: ann's payment and her gain
    assert after["accounts"][0]["lamports"] - before["accounts"][0]["lamports"] == 1 - 5000


def test_every_nth_slot_with_a_block(simulator: LocalSimulator, peer: Peer) -> None:
    before = ScheduledAction(
        ActionAnchor.before_every_slot(7), transactions=[payment("cid", "bob", 1)]
    )
    after = ScheduledAction(
        ActionAnchor.after_every_slot(5), transactions=[payment("cid", "bob", 1)]
    )
    found = results(simulator, peer, before, after)
    due = [slot for slot in small.produced(START, END) if slot % 5 == 0]
    # no multiple of seven has a block
    assert [(r["actionIndex"], r["slot"]) for r in found] == [(1, slot) for slot in due]


def test_a_match_fires_around_its_batch(simulator: LocalSimulator, peer: Peer) -> None:
    wanted = DiscoveryFilter.program_executed(SYSTEM)
    actions = [
        ScheduledAction(anchor, transactions=[payment("cid", "bob", 1)], return_accounts=[ANN])
        for anchor in (ActionAnchor.before_match(wanted), ActionAnchor.after_match(wanted))
    ]
    found = results(simulator, peer, *actions)
    assert len(found) == 4 * len(small.produced(START, END))
    assert [(r["actionIndex"], r["batchIndex"], r["txIndex"]) for r in found[:4]] == [
        (0, 0, 0),
        (1, 0, 0),
        (0, 1, 1),
        (1, 1, 1),
    ]
    ann = [r["accounts"][0]["lamports"] for r in found[:4]]
    assert ann == [10**12, 10**12 - START - 5000, 10**12 - START - 5000, 10**12 + 1 - 5000]
    assert base64.b64decode(found[0]["matched"]["data"]).startswith(payment("ann", "bob", START))


def test_a_failing_transaction_is_the_last(simulator: LocalSimulator, peer: Peer) -> None:
    transactions = [
        payment("cid", "bob", 1),
        payment("cid", "bob", 10**15),
        payment("cid", "bob", 1),
    ]
    action = ScheduledAction(
        ActionAnchor.after_slot([START] * 3), transactions=transactions, return_accounts=[CID]
    )
    (found,) = results(simulator, peer, action)
    outcomes = found["transactionOutcomes"]
    assert len(outcomes) == 2
    assert "err" not in outcomes[0]
    assert "Custom" in outcomes[1]["err"] or "custom" in outcomes[1]["err"]
    assert found["accounts"][0]["lamports"] == 10**12 - 5001


def test_overrides_seed_the_first_transaction_alone(simulator: LocalSimulator, peer: Peer) -> None:
    action = ScheduledAction(
        ActionAnchor.before_slot([START]),
        transactions=[payment("cid", "bob", 1)],
        account_overrides={CID: purse(50_000_000)},
        return_accounts=[CID, "4vJ9JU1bJJE96FWSJKvHsmmFADCg4gpZQff4P3bkLKi"],
    )
    (found,) = results(simulator, peer, action)
    assert found["accounts"][0]["lamports"] == 50_000_000 - 5001
    assert found["accounts"][1] is None


def test_the_override_schedule_is_seen_by_reads_and_later_actions_and_not_by_the_replay(
    simulator: LocalSimulator, peer: Peer
) -> None:
    later = ScheduledAction(
        ActionAnchor.before_slot([START + 4]),
        transactions=[payment("cid", "bob", 1)],
        return_accounts=[CID],
    )
    overrides = [
        ScheduledAction(ActionAnchor.before_slot([slot]), account_overrides=accounts)
        for slot, accounts in (
            (START + 1, {CID: purse(40_000_000), ANN: purse(1)}),  # has no block: due by START + 2
            (START + 3, {CID: purse(30_000_000)}),
        )
    ]
    session_id = begin(peer, *overrides, later)
    assert START + 1 not in small.produced()
    assert balance(simulator, session_id, CID) == 10**12
    peer.advance(1)
    assert balance(simulator, session_id, CID) == 40_000_000
    peer.advance(1)
    assert balance(simulator, session_id, CID) == 30_000_000
    assert balance(simulator, session_id, ANN) == 1
    # ann goes on paying: the replay knows nothing of her one lamport
    peer.advance(1)
    assert balance(simulator, session_id, BOB) == 10**12 - 3 * (1 + 5000) - 1 - 5000


def test_a_computed_override_publishes_what_it_wrote_unless_it_failed(
    simulator: LocalSimulator, peer: Peer
) -> None:
    computed, failing = (
        ScheduledAction(
            ActionAnchor.before_slot([START + 2]),
            transactions=[payment("cid", "bob", amount)],
            feeds_reroute=True,
        )
        for amount in (11, 10**15)
    )
    session_id = begin(peer, computed, failing)
    peer.advance(1)
    assert balance(simulator, session_id, CID) == 10**12 - 11 - 5000


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        (
            ScheduledAction(ActionAnchor.after_slot([START]), account_overrides={CID: purse(1)}),
            "scheduled account overrides require a beforeSlot anchor",
        ),
        (
            ScheduledAction(
                ActionAnchor.before_slot([START]),
                ActionKind.SEND,
                [payment("cid", "bob", 1)],
                account_overrides={CID: purse(1)},
            ),
            "account overrides are not valid for kind: send",
        ),
        (
            ScheduledAction(ActionAnchor.before_slot([START]), feeds_reroute=True),
            "feedsReroute needs something to feed: transactions to simulate, or accountOverrides",
        ),
        (
            ScheduledAction(
                ActionAnchor.before_slot([START]),
                account_overrides={CID: AccountData(b"", 1, SYSTEM, executable=True)},
            ),
            f"overriding executable/program accounts is not supported (account {CID})",
        ),
        (
            ScheduledAction(
                ActionAnchor.before_slot([START, START + 2]),
                transactions=[payment("cid", "bob", 1)],
            ),
            "names 2 slots for 1 transactions",
        ),
        (
            ScheduledAction(ActionAnchor.before_slot([START]), transactions=[b"\1\2\3"]),
            "transaction 0",
        ),
        (
            ScheduledAction(
                ActionAnchor.before_slot([START]),
                transactions=[payment("cid", "bob", 1)],
                resolve=TxResolver.quote_stamp(),
            ),
            "hosted service",
        ),
        (
            ScheduledAction(ActionAnchor.before_slot([START]), resolve=TxResolver.quote_stamp()),
            "resolve needs a transaction to rewrite",
        ),
    ],
)
def test_what_can_not_be_scheduled(peer: Peer, action: ScheduledAction, reason: str) -> None:
    text = refused(peer, action)
    assert reason in text
    assert "action 0" in text
