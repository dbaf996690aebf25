"""Sessions that replay recorded account state instead of executing."""

from __future__ import annotations

import base64
import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from backtest_sync.local import LocalSimulator, demo
from backtest_sync.protocol import (
    ActionAnchor,
    ActionKind,
    CreateBacktestSession,
    ScheduledAction,
    encode_request,
)
from tests.local.peer import Peer, slots

START, END = demo.RANGE_STARTS[2], demo.LAST_SLOT
SWAP = demo.swap_transaction(demo.ALICE, sells_base=True, amount_in=1_000_000)


@pytest.fixture(scope="module")
def simulator() -> Iterator[LocalSimulator]:
    with LocalSimulator() as running:
        yield running


@pytest.fixture
def peer(simulator: LocalSimulator) -> Iterator[Peer]:
    with Peer(simulator.url) as connected:
        yield connected


def rpc(simulator: LocalSimulator, session_id: str, method: str, *params: Any) -> dict[str, Any]:
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
    request = urllib.request.Request(
        f"{simulator.http_url}/backtest/{session_id}", json.dumps(body).encode()
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        return dict(json.load(answer))


def vaults(simulator: LocalSimulator, session_id: str) -> list[str]:
    return [
        rpc(simulator, session_id, "getAccountInfo", vault, {"encoding": "base64"})["result"][
            "value"
        ]["data"][0]
        for vault in (demo.BASE_VAULT, demo.QUOTE_VAULT, demo.PRICE_ACCOUNT)
    ]


def test_it_shows_the_same_state_as_executing(simulator: LocalSimulator, peer: Peer) -> None:
    replayed = peer.create(START, END, replayAccountState=True)
    with Peer(simulator.url) as other:
        executed = other.create(START, END)
        assert vaults(simulator, replayed) == vaults(simulator, executed)
        for count in (1, 4, 9):
            assert slots(peer.advance(count)) == slots(other.advance(count))
            assert vaults(simulator, replayed) == vaults(simulator, executed)


def test_it_must_begin_where_a_recording_does(peer: Peer) -> None:
    create = {"startSlot": demo.FIRST_SLOT, "endSlot": END, "replayAccountState": True}
    peer.send("createBacktestSession", create)
    assert "range that begins where one was recorded" in peer.error()["invalidRequest"]["error"]


def test_nothing_is_executed_and_nothing_pretends_to(simulator: LocalSimulator, peer: Peer) -> None:
    session_id = peer.create(START, END, replayAccountState=True)
    peer.advance(2)
    encoded = base64.b64encode(SWAP).decode()
    for method, params in (
        ("sendTransaction", [encoded, {"encoding": "base64"}]),
        ("getSignatureStatuses", [["1" * 64]]),
        ("getTransaction", ["1" * 64]),
    ):
        error = rpc(simulator, session_id, method, *params)["error"]
        assert (
            f"{method} is not supported while account state replay is enabled" in error["message"]
        )
    peer.send("continue", {"transactions": [encoded]})
    assert "account state replay is enabled" in peer.error()["invalidRequest"]["error"]
    simulated = rpc(simulator, session_id, "simulateTransaction", encoded, {"encoding": "base64"})
    assert simulated["result"]["value"]["err"] is None


def test_a_send_action_is_refused(peer: Peer) -> None:
    action = ScheduledAction(ActionAnchor.before_slot([START]), ActionKind.SEND, [SWAP])
    create = CreateBacktestSession(START, END, actions=[action], replay_account_state=True)
    peer.ws.send(encode_request(create))
    assert "Use kind: simulate" in peer.error()["invalidRequest"]["error"]
