"""Setting a subscription up: requests, acknowledgements, what comes between them, and what goes wrong."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any

import pytest

from backtest_sync import ReconnectPolicy, subscribe, subscriptions
from backtest_sync.errors import (
    BacktestClientError,
    ConnectError,
    DeserializeError,
    InvalidParamsError,
    RequestTimeoutError,
    SessionClosedError,
    SubscriptionError,
)
from backtest_sync.protocol import blobs
from backtest_sync.subscriptions import (
    Subscription,
    subscribe_account,
    subscribe_account_diffs,
    subscribe_actions,
    subscribe_diagnostics,
    subscribe_program,
    subscribe_program_diffs,
    subscribe_program_logs,
    subscribe_replacements,
    subscribe_signature,
    subscribe_slots,
    subscribe_transactions,
)
from tests.protocol.vectors import Case, cases
from tests.support.scripted import PING, PONG, Peer, ScriptedServer, frame
from tests.support.streams import (
    PROGRAM,
    SOON,
    Zipped,
    ack,
    address,
    diff,
    diffs,
    end,
    endpoint,
    note,
    stream,
)

SOL = "So11111111111111111111111111111111111111112"
JUP = "JUP6LkbZbjS1jKKwapdHNy74zcZ3tLUZoi5QNyVTaV4"
USDC = "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v"
USDT = "Es9vMFrzaCERmJfrF4H2FYD4KCoNkY11McCe8BenwNYB"
TOKEN = "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA"
SIGNATURE = "1" * 64

Call = Callable[[str], "Subscription[Any]"]


def requests_of(call: Call) -> tuple[Peer, list[Any]]:
    """What a subscribe call sends, one by one acknowledged, until the handle is stopped."""
    requests: list[Any] = []

    def script(peer: Peer) -> None:
        peer.accept()
        while True:
            requests.append(peer.recv())
            peer.send(ack(requests[-1], len(requests)))

    with ScriptedServer(script) as server:
        call(endpoint(server)).stop(drain=False)
    return server.peers[0], requests


# --- requests


PLAIN: dict[str, Any] = {"compression": False}
ZIPPED: dict[str, Any] = {"compression": True}
#: What makes the request of each case.
REQUESTS: dict[str, Call] = {
    "logs_confirmed": lambda url: subscribe_program_logs(url, TOKEN, **PLAIN),
    "logs_processed": lambda url: subscribe_program_logs(url, TOKEN, "processed", **PLAIN),
    "logs_finalized": lambda url: subscribe_program_logs(url, TOKEN, "finalized", **PLAIN),
    "account_diffs_one": lambda url: subscribe_account_diffs(url, SOL, **PLAIN),
    "account_diffs_many": lambda url: subscribe_account_diffs(
        url, [USDC, SOL, USDC, USDT, SOL], **PLAIN
    ),
    "account_diffs_program": lambda url: subscribe_program_diffs(url, TOKEN, **PLAIN),
    "actions_managed": lambda url: subscribe_actions(url, **ZIPPED),
    "replacements_plain": lambda url: subscribe_replacements(url, **PLAIN),
    "replacements_managed": lambda url: subscribe_replacements(url, **ZIPPED),
    "replacements_managed_resume": lambda url: subscribe_replacements(
        url, replay_from_slot=42, **ZIPPED
    ),
    "diagnostics_plain": lambda url: subscribe_diagnostics(url, **PLAIN),
    "diagnostics_managed_resume": lambda url: subscribe_diagnostics(
        url, replay_from_slot=42, **ZIPPED
    ),
    "transactions_managed": lambda url: subscribe_transactions(url, [TOKEN, JUP], **ZIPPED),
    "transactions_managed_resume": lambda url: subscribe_transactions(
        url, TOKEN, replay_from_slot=42, **ZIPPED
    ),
    "account_diffs_managed": lambda url: subscribe_program_diffs(url, TOKEN, **ZIPPED),
}


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case["name"])
        for case in cases("subscriptions")
        if case["function"] == "subscribe_request"
    ],
)
def test_requests_are_the_references(case: Case) -> None:
    _, requests = requests_of(REQUESTS[case["name"]])
    assert requests == case["requests"]


#: What makes each captured connection of a subscription.
CONNECTIONS: dict[str, Call] = {
    "ws_logs": lambda url: subscribe_program_logs(url, TOKEN, **PLAIN),
    "ws_account_diffs": lambda url: subscribe_account_diffs(url, SOL, **PLAIN),
    "ws_account_diffs_many": lambda url: subscribe_account_diffs(url, [SOL, JUP, SOL], **PLAIN),
    "ws_program_diffs": lambda url: subscribe_program_diffs(url, TOKEN, **PLAIN),
    "ws_actions": lambda url: subscribe_actions(url, **PLAIN),
    "ws_replacements": lambda url: subscribe_replacements(url, **PLAIN),
    "ws_diagnostics": lambda url: subscribe_diagnostics(url, **PLAIN),
    "ws_managed_transactions": lambda url: subscribe_transactions(url, [TOKEN, JUP], **ZIPPED),
    "ws_managed_actions": lambda url: subscribe_actions(url, **ZIPPED),
    "ws_managed_replacements": lambda url: subscribe_replacements(url, **ZIPPED),
    "ws_managed_diagnostics": lambda url: subscribe_diagnostics(url, **ZIPPED),
}


@pytest.mark.parametrize("name", CONNECTIONS)
def test_connections_are_the_references(name: str) -> None:
    (case,) = (case for case in cases("subscriptions") if case["name"] == name)
    (captured,) = case["connections"]
    peer, requests = requests_of(CONNECTIONS[name])
    assert requests == [json.loads(text) for text in captured["texts"]]
    assert peer.path == captured["upgrade"]["path"]
    due = {key: value.lower() for key, value in captured["upgrade"]["headers"]}
    sent = {key: value.lower() for key, value in peer.headers}
    assert sent.items() >= due.items()
    assert "x-api-key" not in sent
    assert "user-agent" not in sent


def test_every_captured_subscription_has_its_test() -> None:
    captured = {
        case["name"]
        for case in cases("subscriptions")
        if case["function"] == "captured_connections" and "Subscribe" in json.dumps(case)
    }
    assert captured == set(CONNECTIONS)


@pytest.mark.parametrize("name", ["ws_bad_url_ws", "ws_bad_url_bare", "ws_bad_url_upper"])
def test_an_endpoint_that_is_no_http_url_is_refused(name: str) -> None:
    (case,) = (case for case in cases("subscriptions") if case["name"] == name)
    with pytest.raises(InvalidParamsError) as caught:
        subscribe_program_logs(case["endpoint"], TOKEN)
    assert str(caught.value) == case["error"]


@pytest.mark.parametrize(
    ("call", "method", "params"),
    [
        (
            lambda url: subscribe_account(url, SOL, intra_slot_updates=True, **PLAIN),
            "accountSubscribe",
            [SOL, {"encoding": "base64", "commitment": "confirmed", "intraSlotUpdates": True}],
        ),
        (
            lambda url: subscribe_program(url, TOKEN, commitment="processed", **ZIPPED),
            "programSubscribe",
            [TOKEN, {"encoding": "base64", "commitment": "processed", "compression": "zstd"}],
        ),
        (
            lambda url: subscribe_signature(url, SIGNATURE, commitment=None, **PLAIN),
            "signatureSubscribe",
            [SIGNATURE, {}],
        ),
        (lambda url: subscribe_slots(url), "slotSubscribe", []),
        (
            lambda url: subscribe_account_diffs(url, SOL, commitment="finalized", **ZIPPED),
            "accountDiffSubscribe",
            [SOL, {"commitment": "finalized", "compression": "zstd"}],
        ),
        (
            lambda url: subscribe_program_logs(url, TOKEN, replay_from_slot=0),
            "logsSubscribe",
            [
                {"mentions": [TOKEN]},
                {"commitment": "confirmed", "replayFromSlot": 0, "compression": "zstd"},
            ],
        ),
    ],
)
def test_requests_of_the_other_streams(call: Call, method: str, params: list[Any]) -> None:
    _, (request,) = requests_of(call)
    assert request == {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


def test_without_zstandard_nothing_is_compressed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Any:
        raise BacktestClientError("pip install 'backtest-sync[zstd]'")

    monkeypatch.setattr(blobs, "_zstandard", missing)
    _, (request,) = requests_of(subscribe_actions)
    assert request["params"] == [None, {}]
    with pytest.raises(BacktestClientError, match="zstd"):
        subscribe_actions("http://127.0.0.1:1", compression=True)


# --- arguments


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda url: subscribe_program_logs(url, "nope"), "program_id"),
        (lambda url: subscribe_account_diffs(url, b"short"), "account_or_accounts"),
        (lambda url: subscribe_account_diffs(url, [SOL, 5]), r"account_or_accounts\[1\]"),
        (lambda url: subscribe_account_diffs(url, 5), "account_or_accounts"),
        (lambda url: subscribe_program_diffs(url, []), "program_id_or_ids: name at least one"),
        (lambda url: subscribe_transactions(url, ()), "program_id_or_ids: name at least one"),
        (lambda url: subscribe_account(url, ""), "account"),
        (lambda url: subscribe_signature(url, "abc"), "signature: expected 64 bytes"),
        (lambda url: subscribe_signature(url, "0OIl"), "signature"),
        (lambda url: subscribe_program_logs(url, SOL, "soon"), "commitment: expected one of"),
        (lambda url: subscribe_actions(url, commitment=1), "commitment"),
        (lambda url: subscribe_actions(url, replay_from_slot=-1), "replay_from_slot"),
        (lambda url: subscribe_actions(url, replay_from_slot=2**63), "replay_from_slot"),
        (lambda url: subscribe_actions(url, compression="zstd"), "compression"),
        (lambda url: subscribe_actions(url, intra_slot_updates=1), "intra_slot_updates"),
        (lambda url: subscribe_actions(url, timeout=-1), "timeout"),
        (lambda url: subscribe_actions(url, reconnect=True), "reconnect"),
        (lambda url: subscribe_actions(url, "callback"), "on_notification"),
        (lambda url: subscribe_slots(url, "callback"), "on_notification"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_sent(call: Call, field: str) -> None:
    with pytest.raises(InvalidParamsError, match=field):
        call("http://127.0.0.1:1")


def test_addresses_may_be_bytes_or_objects() -> None:
    class Key:
        def __bytes__(self) -> bytes:
            return b"\1" * 32

        def __str__(self) -> str:
            return address("key")

    _, requests = requests_of(
        lambda url: subscribe_account_diffs(url, (Key(), bytes(32), address("key")), **PLAIN)
    )
    assert [request["params"] for request in requests] == [[address("key")], ["1" * 32]]
    _, (request,) = requests_of(lambda url: subscribe_program_diffs(url, Key(), **PLAIN))
    assert request["params"][0] == address("key")
    _, (request,) = requests_of(lambda url: subscribe_signature(url, bytes(64), **PLAIN))
    assert request["params"][0] == SIGNATURE


def test_no_accounts_are_a_finished_handle_without_a_connection() -> None:
    for on_notification in (None, print):
        handle = subscribe_account_diffs("http://127.0.0.1:1", [], on_notification)
        handle.join(SOON)
        assert handle.completed
        assert not handle.is_alive
        handle.stop()
    assert list(subscribe_account_diffs("http://127.0.0.1:1", [])) == []


@pytest.mark.parametrize("policy", [None, ReconnectPolicy(max_attempts=3)])
def test_a_reconnect_policy_is_taken(policy: ReconnectPolicy | None) -> None:
    with ScriptedServer(stream(end(1))) as server:
        with subscribe_actions(endpoint(server), reconnect=policy) as handle:
            handle.join(SOON)
        assert handle.reconnects == 0


# --- acknowledgements


def test_accounts_are_asked_for_at_once_and_acknowledged_in_any_order() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        first, second, third = (peer.recv() for _ in range(3))
        # what comes before its own acknowledgement, or another's, is kept in order
        peer.send(diff(12, 0), ack(third, 13), diff(11, 1), {"id": 99, "result": 5})
        peer.send(diff(13, 2), ack(first, 11), *diffs(12, 3, 4), ack(second, 12), diff(11, 5))
        peer.send(end(11), diff(13, 6), end(13), diff(12, 7), end(12))
        peer.until_gone()

    with ScriptedServer(script) as server:
        handle = subscribe_account_diffs(endpoint(server), [SOL, USDC, USDT])
        assert [diff.context.slot for diff in handle] == [0, 1, 2, 3, 4, 5, 6, 7]
        assert handle.completed


def test_programs_are_asked_for_one_by_one() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        first = peer.recv()
        assert first["id"] == 1
        # were the second request on its way already, it would come before this answer
        peer.send_raw(frame(b"", PING))
        assert peer.recv_frame() == (PONG, b"")
        peer.send(diff(1, 0), ack(first, 1), diff(1, 1))
        second = peer.recv()
        assert second["id"] == 2
        peer.send(diff(1, 2), diff(2, 3), ack(second, 2), end(2), diff(1, 4), end(1))
        peer.until_gone()

    with ScriptedServer(script) as server:
        handle = subscribe_program_diffs(endpoint(server), [SOL, USDC])
        assert [diff.context.slot for diff in handle] == [0, 1, 2, 3, 4]


def test_compressed_frames_before_an_ack_reach_the_decoder() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        first = peer.recv()
        zipped = Zipped(peer)
        peer.send(ack(first, 1))
        zipped.send(diff(1, 0), diff(1, 1))
        second = peer.recv()
        zipped.send(diff(1, 2), note(77, {}))
        peer.send(ack(second, 2))
        zipped.send(diff(2, 3), b"", end(1), end(2))
        peer.until_gone()

    with ScriptedServer(script) as server:
        handle = subscribe_program_diffs(endpoint(server), [SOL, USDC], compression=True)
        assert [diff.context.slot for diff in handle] == [0, 1, 2, 3]


def failing(
    script: Callable[[Peer], None], call: Call = subscribe_actions
) -> tuple[SubscriptionError, Peer]:
    """The error of a set-up that fails, and the server's side."""
    with ScriptedServer(script) as server, pytest.raises(SubscriptionError) as caught:
        call(endpoint(server))
    return caught.value, server.peers[0]


def test_a_refused_request_says_why() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.send({"id": peer.recv()["id"], "error": {"code": -32602, "message": "no such stream"}})
        peer.until_gone()

    error, peer = failing(script)
    assert (error.kind, error.target) == ("action", "actions")
    assert "subscribe rejected" in str(error)
    assert "no such stream" in str(error)
    assert peer.close_frame is not None


def test_an_error_that_names_no_request_is_ours() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.recv()
        peer.send({"id": None, "error": {"code": -32700, "message": "Parse error"}})
        peer.until_gone()

    assert "Parse error" in str(failing(script)[0])


def test_answers_to_others_are_passed_over() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        request = peer.recv()
        peer.send({"id": [1], "result": 5}, {"id": "1", "result": 5}, {"id": 2, "error": "no"})
        peer.send(ack(request, 1), end(1))
        peer.until_gone()

    with ScriptedServer(script) as server:
        assert list(subscribe_actions(endpoint(server))) == []


def test_an_acknowledgement_without_a_result_is_none() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.send({"id": peer.recv()["id"], "result": None})
        peer.until_gone()

    assert "subscribe ack missing result" in str(failing(script)[0])


def test_an_acknowledgement_that_never_comes() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.until_gone()

    error, _ = failing(script, lambda url: subscribe_program_logs(url, PROGRAM, timeout=0.05))
    assert (error.kind, error.target) == ("program logs", PROGRAM)
    assert isinstance(error.__cause__, RequestTimeoutError)
    assert "acknowledgement" in str(error)


def test_without_a_limit_of_its_own_an_acknowledgement_has_the_protocols(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subscribe, "HANDSHAKE_LIMIT", 0.5)

    def script(peer: Peer) -> None:
        peer.accept()
        peer.until_gone()

    error, _ = failing(script)
    assert isinstance(error.__cause__, RequestTimeoutError)


def test_a_connection_that_ends_before_the_acknowledgement() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.recv()
        peer.send_close(1012, "management handoff")

    error, _ = failing(script)
    assert isinstance(error.__cause__, SessionClosedError)
    assert error.__cause__.code == 1012
    assert "management handoff" in str(error)


@pytest.mark.parametrize("text", [b"nonsense", b'{"id":1,"result":'])
def test_a_broken_message_before_the_acknowledgement(text: bytes) -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.recv()
        peer.send_raw(frame(text))
        peer.until_gone()

    error, _ = failing(script)
    assert isinstance(error.__cause__, DeserializeError)
    assert text.decode() in str(error)


def test_too_much_before_the_acknowledgement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscribe, "MAX_QUEUE_BYTES", 1024)

    def script(peer: Peer) -> None:
        peer.accept()
        peer.recv()
        peer.send(*diffs(1, *range(100)))
        peer.until_gone()

    assert "before the acknowledgement" in str(failing(script)[0])


# --- connecting


def test_an_endpoint_that_is_gone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(SubscriptionError) as caught:
        subscribe_transactions(f"http://127.0.0.1:{port}/backtest/abc", [SOL, USDC], timeout=SOON)
    assert (caught.value.kind, caught.value.target) == ("transaction", "2 programs")
    assert isinstance(caught.value.__cause__, ConnectError)


def test_an_endpoint_that_is_not_ready_says_what_to_do() -> None:
    def script(peer: Peer) -> None:
        peer.read_head()
        peer.respond("503 Service Unavailable", "starting")

    error, _ = failing(script)
    assert isinstance(error.__cause__, ConnectError)
    assert error.__cause__.status == 503
    assert "ensure_ready" in str(error)


def test_an_upgrade_that_is_never_answered() -> None:
    def script(peer: Peer) -> None:
        peer.read_head()
        peer.until_gone()

    error, _ = failing(script, lambda url: subscribe_slots(url, timeout=0.05))
    assert isinstance(error.__cause__, RequestTimeoutError)


def test_the_public_functions_are_all_named() -> None:
    made = {name for name in vars(subscriptions) if name.startswith("subscribe_")}
    assert made <= set(subscriptions.__all__)
