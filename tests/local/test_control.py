"""The control socket: one session's life, spoken to by another WebSocket library."""

from __future__ import annotations

import base64
import contextlib
import gc
import json
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from backtest_sync.local import LocalSimulator, demo
from backtest_sync.local.bundle import Bundle
from backtest_sync.local.engine import Engine
from backtest_sync.local.executed import Ran
from backtest_sync.local.session import SimSession
from tests.local import small, worlds
from tests.local.peer import TIMEOUT, Peer, slots, statuses

START = demo.FIRST_SLOT
ALL = 2**64 - 1
PER_CONTINUE = [
    "decodedTransactions",
    "appliedAccountModifications",
    "readyToExecuteUserTransactions",
    "executedUserTransactions",
    "executingBlockTransactions",
    "executedBlockTransactions",
]


@pytest.fixture(scope="module")
def bundle() -> Iterator[Bundle]:
    opened = Bundle.open("demo")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def simulator() -> Iterator[LocalSimulator]:
    with LocalSimulator() as running:
        yield running


@pytest.fixture
def peer(simulator: LocalSimulator) -> Iterator[Peer]:
    with Peer(simulator.url) as connected:
        yield connected


def produced(bundle: Bundle, start: int, end: int) -> list[int]:
    return [slot for slot in bundle.slots if start <= slot <= end]


def rpc(simulator: LocalSimulator, session_id: str, method: str, *params: Any) -> Any:
    request = urllib.request.Request(
        f"{simulator.http_url}/backtest/{session_id}",
        json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        body = json.load(answer)
    assert "error" not in body, body
    return body["result"]


@contextmanager
def subscription(
    simulator: LocalSimulator, session_id: str, method: str, *params: Any
) -> Iterator[Callable[[], list[Any]]]:
    """Subscribes; what is given reads the notifications' results up to the end marker."""
    url = f"{simulator.url}/{session_id}"
    with connect(url, max_size=None) as ws:
        ws.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}))
        assert "result" in json.loads(ws.recv(timeout=20))

        def results() -> list[Any]:
            found = []
            while (message := json.loads(ws.recv(timeout=20)))["method"] != "subscriptionComplete":
                found.append(message["params"]["result"])
            return found

        yield results


@contextmanager
def together(simulator: LocalSimulator) -> Iterator[None]:
    """The server reads what is sent in here at one go."""
    simulator.faults.freeze()
    yield
    simulator.faults.thaw()


def swap(amount: int = 1_000_000) -> str:
    raw = demo.swap_transaction(demo.ALICE, sells_base=True, amount_in=amount)
    return base64.b64encode(raw).decode()


# --- a life ----------------------------------------------------------------------------------------


def test_creation_announces_the_start_and_then_readiness(peer: Peer) -> None:
    peer.create(START, START + 5)
    methods = [message["method"] for message in peer.seen]
    assert methods == ["sessionCreated", "status", "status", "slotNotification", "readyForContinue"]
    assert statuses(peer.seen) == ["startingRuntime", "programAccountsLoaded"]
    assert slots(peer.seen) == [START]
    assert all("seqId" not in message for message in peer.seen)


def test_each_continue_has_its_statuses_in_order(peer: Peer) -> None:
    peer.create(START, START + 5)
    first = peer.advance()
    assert statuses(first) == PER_CONTINUE
    assert statuses(peer.advance(2)) == PER_CONTINUE


def test_blocks_are_counted_and_skipped_slots_are_never_announced(
    peer: Peer, bundle: Bundle
) -> None:
    end = START + 20
    due = produced(bundle, START, end)
    assert len(due) < 21
    peer.create(START, end)
    assert slots(peer.advance(3)) == due[1:4]
    rest = peer.advance(ALL)
    assert slots(rest) == due[4:]
    assert rest[-1] == {"method": "completed", "params": {}}


def test_the_last_block_is_ready_before_the_range_is_completed(peer: Peer, bundle: Bundle) -> None:
    due = produced(bundle, START, START + 9)
    peer.create(START, START + 9)
    assert peer.advance(len(due) - 1)[-1]["method"] == "readyForContinue"
    assert peer.advance()[-1]["method"] == "completed"
    peer.send("continue", {"advanceCount": 1})
    assert peer.error() == "noMoreBlocks"


def test_a_summary_counts_every_transaction(peer: Peer, bundle: Bundle) -> None:
    end = START + 20
    peer.create(START, end, sendSummary=True)
    summary = peer.advance(ALL)[-1]["params"]["summary"]
    count = sum(len(bundle.block(slot).transactions) for slot in produced(bundle, START, end))
    assert summary["correctSimulation"] == count
    assert sum(value for value in summary.values() if isinstance(value, int)) == count


def test_closing_is_acknowledged_and_frees_the_session(
    simulator: LocalSimulator, peer: Peer
) -> None:
    session = peer.create(START, START + 5)
    assert rpc(simulator, session, "getSlot") == START
    peer.send("closeBacktestSession")
    assert peer.next() == {"method": "success"}
    with pytest.raises(urllib.request.HTTPError) as refused:
        rpc(simulator, session, "getSlot")
    with refused.value:
        assert refused.value.code == 404
    peer.send("continue", {})
    assert "without a session" in peer.error()["invalidRequest"]["error"]


def test_one_connection_may_create_another_session_after_closing(peer: Peer) -> None:
    first = peer.create(START, START + 5)
    peer.send("createBacktestSession", {"startSlot": START, "endSlot": START + 5})
    assert first in peer.error()["invalidRequest"]["error"]
    peer.send("closeBacktestSession")
    peer.until("success")
    assert peer.create(START, START + 5) != first


def test_without_a_timeout_a_session_ends_with_its_connection(simulator: LocalSimulator) -> None:
    with Peer(simulator.url) as peer:
        session = peer.create(START, START + 5)
    with Peer(simulator.url) as other:
        while True:  # until the server has seen the end of the first connection
            other.send("attachBacktestSession", {"session_id": session, "last_sequence": None})
            error = other.error()
            if "sessionOwnershipBusy" not in error:
                break
        assert error == {"sessionNotFound": {"session_id": session}}


# --- pausing ---------------------------------------------------------------------------------------


def test_a_pause_before_a_batch_leaves_it_and_the_rest_undone(
    simulator: LocalSimulator, peer: Peer, bundle: Bundle
) -> None:
    session = peer.create(START, START + 20)
    slot = next(s for s in bundle.slots[2:] if len(bundle.block(s).batches) > 2)
    assert peer.pause(slot, 1) == {"slot": slot, "batchIndex": 1}
    batches = bundle.block(slot).batches
    done, undone = batches[0][0].signature, batches[1][0].signature
    found = rpc(simulator, session, "getSignatureStatuses", [done, undone])["value"]
    assert found[0] is not None
    assert found[1] is None
    assert rpc(simulator, session, "getSlot") == slot
    assert peer.pause(slot) == {"slot": slot}
    assert rpc(simulator, session, "getSignatureStatuses", [undone])["value"][0] is not None


def test_the_first_block_can_be_paused_in(
    simulator: LocalSimulator, peer: Peer, bundle: Bundle
) -> None:
    session = peer.create(START, START + 5)
    assert peer.pause(START, 0) == {"slot": START, "batchIndex": 0}
    first = bundle.block(START).batches[0][0].signature
    assert rpc(simulator, session, "getSignatureStatuses", [first])["value"] == [None]
    assert peer.pause(START, 1) == {"slot": START, "batchIndex": 1}
    assert rpc(simulator, session, "getSignatureStatuses", [first])["value"][0] is not None


def test_a_pause_at_a_slot_without_a_block_is_at_the_end_of_the_one_before(
    simulator: LocalSimulator, peer: Peer, bundle: Bundle
) -> None:
    skipped = next(s for s in range(START, START + 40) if s not in set(bundle.slots))
    session = peer.create(START, START + 40)
    assert peer.pause(skipped) == {"slot": skipped}
    assert rpc(simulator, session, "getSlot") == produced(bundle, START, skipped)[-1]
    peer.send("continueTo", {"slot": skipped + 1})
    peer.until("paused")


@pytest.mark.parametrize(
    ("slot", "batch", "word"),
    [
        (START, None, "already at slot"),
        (START + 4, 0, "already at slot"),
        (START - 1, None, "outside"),
        (START + 41, None, "outside"),
        (START + 5, 1000, "batches"),
        (START + 1, 0, "no block"),
    ],
)
def test_a_target_that_can_not_be_reached_is_refused_and_the_session_goes_on(
    peer: Peer, bundle: Bundle, slot: int, batch: int | None, word: str
) -> None:
    assert START + 1 not in bundle.slots
    peer.create(START, START + 40)
    peer.pause(START + 4, 1)
    peer.send("continueTo", {"slot": slot, "batchIndex": batch})
    assert word in peer.error()["invalidRequest"]["error"]
    assert peer.advance()[-1]["method"] == "readyForContinue"


def test_a_target_at_the_position_pauses_at_once(peer: Peer) -> None:
    peer.create(START, START + 20)
    peer.pause(START + 4, 1)
    assert peer.pause(START + 4, 1) == {"slot": START + 4, "batchIndex": 1}


def test_a_continue_in_the_middle_of_a_block_finishes_it(peer: Peer, bundle: Bundle) -> None:
    peer.create(START, START + 20)
    peer.pause(START + 4, 1)
    following = produced(bundle, START + 5, START + 20)[0]
    assert slots(peer.advance()) == [following]


# --- what the user does ----------------------------------------------------------------------------


def test_the_order_in_a_slot_is_history_then_rpc_then_the_continues_transactions(
    simulator: LocalSimulator, peer: Peer, bundle: Bundle
) -> None:
    session = peer.create(START, START + 9)
    due = produced(bundle, START, START + 9)
    with subscription(
        simulator, session, "transactionSubscribe", {"mentions": [demo.POOL_PROGRAM]}
    ) as notifications:
        peer.advance()
        assert rpc(simulator, session, "getSlot") == due[1]
        sent, continued = swap(1_000_001), swap(1_000_002)
        rpc(simulator, session, "sendTransaction", sent, {"encoding": "base64"})
        peer.advance(1, transactions=[continued])
        peer.advance(ALL)
        got = [(n["slot"], n["meta"]["logMessages"]) for n in notifications()]
    in_slot = [[s.amount_in for s in demo.pool_swaps(logs)] for at, logs in got if at == due[1]]
    history = [t for t in bundle.block(due[1]).transactions if demo.POOL_PROGRAM in t.programs]
    assert len(in_slot) == len(history) + 2
    assert in_slot[-2:] == [[1_000_001], [1_000_002]]


def test_account_modifications_come_before_the_continues_execution(
    simulator: LocalSimulator, peer: Peer
) -> None:
    session = peer.create(START, START + 5)
    owner = "11111111111111111111111111111111"
    address = "4vJ9JU1bJJE96FWSJKvHsmmFADCg4gpZQff4P3bkLKi"
    account = {
        "data": {"data": "AQID", "encoding": "base64"},
        "executable": False,
        "lamports": 5_000_000,
        "owner": owner,
        "space": 3,
    }
    peer.advance(0, modifyAccountStates={address: account})
    value = rpc(simulator, session, "getAccountInfo", address, {"encoding": "base64"})["value"]
    assert value["data"] == ["AQID", "base64"]
    assert value["lamports"] == 5_000_000


@pytest.mark.parametrize(
    ("params", "kind", "fields"),
    [
        ({"transactions": [swap(), "!!"]}, "invalidTransactionEncoding", {"index": 1}),
        ({"transactions": ["AQID"]}, "invalidTransactionFormat", {"index": 0}),
        ({"transactions": [worlds.insane()]}, "invalidTransactionFormat", {"index": 0}),
    ],
)
def test_bad_transactions_are_named_and_nothing_runs(
    peer: Peer, params: dict[str, Any], kind: str, fields: dict[str, Any]
) -> None:
    peer.create(START, START + 5)
    peer.send("continue", params)
    error = peer.error()[kind]
    assert fields.items() <= error.items()
    assert slots(peer.advance()) == [START + 2]


def test_account_data_that_is_no_base64_is_named(peer: Peer) -> None:
    peer.create(START, START + 5)
    account = {
        "data": {"data": "not base64", "encoding": "base64"},
        "executable": False,
        "lamports": 1,
        "owner": demo.POOL_PROGRAM,
        "space": 3,
    }
    peer.send("continue", {"modifyAccountStates": {demo.POOL: account}})
    error = peer.error()["invalidAccountEncoding"]
    assert error["address"] == demo.POOL
    assert error["encoding"] == "base64"
    assert error["error"].startswith("not valid base64")


def test_what_is_played_back_is_counted_apart(tmp_path: Path) -> None:
    file = tmp_path / "block.json"
    file.write_text(json.dumps(worlds.mainnet_block()))
    with LocalSimulator(file) as simulator, Peer(simulator.url) as peer:
        peer.create(147078735, 147078735, sendSummary=True)
        summary = peer.advance(ALL)[-1]["params"]["summary"]
    assert summary.pop("playedBack") == 25
    assert set(summary.values()) == {0}


# --- requests that can't be followed ---------------------------------------------------------------


def first_error(peer: Peer) -> str:
    while (message := peer.next())["method"] != "error":
        pass
    return str(message["params"]["invalidRequest"]["error"])


def test_a_continue_before_readiness_or_while_running_is_refused(
    simulator: LocalSimulator, peer: Peer
) -> None:
    with together(simulator):
        peer.send("createBacktestSession", {"startSlot": START, "endSlot": demo.LAST_SLOT})
        peer.send("continue", {"advanceCount": 1})
    assert "before the session is ready" in first_error(peer)
    peer.until("readyForContinue")
    with together(simulator):
        peer.send("continue", {"advanceCount": ALL})
        peer.send("continue", {"advanceCount": 1})
    assert "running" in first_error(peer)
    peer.until("completed")


def test_a_continue_to_may_come_before_readiness(peer: Peer) -> None:
    peer.send("createBacktestSession", {"startSlot": START, "endSlot": START + 9})
    peer.send("continueTo", {"slot": START + 4, "batchIndex": 0})
    messages = peer.until("paused")
    assert messages[-1]["params"] == {"slot": START + 4, "batchIndex": 0}
    assert [m["method"] for m in messages].index("readyForContinue") < len(messages) - 1


def test_a_continue_to_redirects_a_continue_that_runs(
    simulator: LocalSimulator, peer: Peer
) -> None:
    peer.create(START, demo.LAST_SLOT)
    with together(simulator):
        peer.send("continue", {"advanceCount": ALL})
        peer.send("continueTo", {"slot": demo.LAST_SLOT - 1, "batchIndex": None})
    messages = peer.until("paused")
    assert messages[-1]["params"] == {"slot": demo.LAST_SLOT - 1}
    # one pause, and no readiness of the continue that it replaced
    assert [m for m in messages if m["method"] == "readyForContinue"] == []
    assert peer.advance(ALL)[-1]["method"] == "completed"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"method":"nope"}',
        '{"method":"continue"}',
        '{"method":"continue","params":{"advanceCount":-1}}',
        '{"method":"continue","params":{"advanceCount":18446744073709551616}}',
        '{"method":"closeBacktestSession","params":{}}',
        '{"method":"createBacktestSession","params":{"startSlot":1}}',
        '{"method":"attachBacktestSession","params":{"session_id":"x"}}',
        "[" * 100_000,
    ],
)
def test_what_breaks_the_protocol_is_answered_and_the_connection_lives(
    peer: Peer, text: str
) -> None:
    peer.create(START, START + 5)
    peer.ws.send(text)
    assert peer.error()["invalidRequest"]["error"]
    assert peer.advance()[-1]["method"] == "readyForContinue"


def test_binary_that_is_text_is_read_and_other_is_dropped(peer: Peer) -> None:
    peer.create(START, START + 5)
    peer.ws.send(b"\xff\xfe")
    peer.ws.send(b'{"method":"continue","params":{"advanceCount":1}}')
    assert slots(peer.until("readyForContinue")) == [START + 2]


def test_a_message_over_the_cap_ends_that_connection_alone(
    simulator: LocalSimulator, peer: Peer
) -> None:
    peer.create(START, START + 5)
    with Peer(simulator.url) as other:
        other.create(START, START + 5)
        with contextlib.suppress(ConnectionClosed):  # it may be over before all is sent
            other.ws.send("x" * (16 * 1024 * 1024 + 1))
        with pytest.raises(ConnectionClosed):
            other.ws.recv(timeout=20)
    assert peer.advance()[-1]["method"] == "readyForContinue"


@pytest.mark.parametrize(
    ("start", "end", "error"),
    [
        (
            START + 1,
            START + 5,
            {"bundleNotFound": {"start_slot": START + 1, "end_slot": START + 5}},
        ),
        (1, 2, {"bundleNotFound": {"start_slot": 1, "end_slot": 2}}),
        (
            START,
            demo.LAST_SLOT + 1,
            {"bundleNotFound": {"start_slot": START, "end_slot": demo.LAST_SLOT + 1}},
        ),
    ],
)
def test_a_range_that_is_not_there(peer: Peer, start: int, end: int, error: dict[str, Any]) -> None:
    peer.send("createBacktestSession", {"startSlot": start, "endSlot": end})
    assert peer.error() == error
    peer.create(START, START + 5)


def test_an_inverted_range(peer: Peer) -> None:
    peer.send("createBacktestSession", {"startSlot": START, "endSlot": START - 1})
    assert "before startSlot" in peer.error()["invalidRequest"]["error"]


@pytest.mark.parametrize(
    "params",
    [
        {"reroute": {}},
        {
            "diagnosticProbes": [
                {"anchor": {"at": "afterEverySlot"}, "markets": [demo.POOL], "usdValues": [1]}
            ]
        },
    ],
)
def test_what_needs_the_service_is_refused_in_a_sentence(
    peer: Peer, params: dict[str, Any]
) -> None:
    create = {"startSlot": START, "endSlot": START + 5, **params}
    peer.send("createBacktestSession", create)
    assert "hosted service" in peer.error()["invalidRequest"]["error"]


def test_session_tagged_requests_need_a_parallel_run(peer: Peer) -> None:
    session = peer.create(START, START + 5)
    peer.send("continueSessionV1", {"sessionId": session, "request": {}})
    assert "parallel" in peer.error()["invalidRequest"]["error"]


# --- who may connect -------------------------------------------------------------------------------


def test_a_key_is_checked(small_bundle: Path) -> None:
    with LocalSimulator(small_bundle, api_key="right") as simulator:
        for headers in ({}, {"X-API-Key": "wrong"}):
            with (
                pytest.raises(InvalidStatus) as refused,
                Peer(simulator.url, additional_headers=headers),
            ):
                pass
            assert refused.value.response.status_code == 401
        with Peer(simulator.url, additional_headers={"X-API-Key": "right"}) as peer:
            peer.create(small.FIRST, small.FIRST + 5)


def test_a_browsers_origin_is_refused_unless_allowed(small_bundle: Path) -> None:
    with LocalSimulator(small_bundle, allowed_origins=["https://here.example"]) as simulator:
        with (
            pytest.raises(InvalidStatus) as refused,
            Peer(simulator.url, origin="https://there.example"),
        ):
            pass
        assert refused.value.response.status_code == 403
        with Peer(simulator.url, origin="https://here.example") as peer:
            peer.create(small.FIRST, small.FIRST + 5)


def test_sessions_are_capped_and_room_is_waited_for(small_bundle: Path) -> None:
    with LocalSimulator(small_bundle, max_sessions=1) as simulator:
        with Peer(simulator.url) as first, Peer(simulator.url) as second:
            first.create(small.FIRST, small.FIRST + 5)
            create = {"startSlot": small.FIRST, "endSlot": small.FIRST + 5}
            second.send("createBacktestSession", create)
            assert "1 of at most 1" in second.error()["invalidRequest"]["error"]
            second.send("createBacktestSession", {**create, "capacityWaitTimeoutSecs": 60})
            first.send("closeBacktestSession")
            second.until("readyForContinue")


def test_pings_are_answered_while_room_is_waited_for(small_bundle: Path) -> None:
    with LocalSimulator(small_bundle, max_sessions=1) as simulator:
        with Peer(simulator.url) as first, Peer(simulator.url) as second:
            first.create(small.FIRST, small.FIRST + 5)
            create = {"startSlot": small.FIRST, "endSlot": small.FIRST + 5}
            second.send("createBacktestSession", {**create, "capacityWaitTimeoutSecs": 60})
            assert second.ws.ping().wait(TIMEOUT)
            second.send("continue", {})  # comes in its turn: the session is not ready by then
            first.send("closeBacktestSession")
            second.until("error")
            second.until("readyForContinue")


def test_a_parallel_run_waits_for_room_for_all_of_it(small_bundle: Path) -> None:
    with LocalSimulator(small_bundle, max_sessions=3) as simulator:
        with Peer(simulator.url) as first, Peer(simulator.url) as second:
            first.create(small.FIRST, small.FIRST + 5)
            create = {"startSlot": small.FIRST, "endSlot": small.LAST, "parallel": True}
            second.send("createBacktestSession", {**create, "capacityWaitTimeoutSecs": 60})
            assert second.ws.ping().wait(TIMEOUT)
            first.send("closeBacktestSession")
            assert len(second.until("sessionsCreatedV2")[-1]["params"]["session_ids"]) == 3


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"startSlot": small.FIRST + 1}, "bundleNotFound"),
        ({"endSlot": small.LAST, "parallel": True}, "3 more session(s) do not fit"),
    ],
)
def test_no_room_is_waited_for_in_vain(
    small_bundle: Path, wrong: dict[str, Any], said: str
) -> None:
    with LocalSimulator(small_bundle, max_sessions=1) as simulator:
        with Peer(simulator.url) as first, Peer(simulator.url) as second:
            first.create(small.FIRST, small.FIRST + 5)
            create = {"startSlot": small.FIRST, "endSlot": small.FIRST + 5, **wrong}
            second.send("createBacktestSession", {**create, "capacityWaitTimeoutSecs": 900})
            assert said in str(second.error())


# --- names -----------------------------------------------------------------------------------------


def test_a_name_is_echoed_and_never_given_twice(simulator: LocalSimulator, peer: Peer) -> None:
    peer.create(START, START + 5, name="My-Run", createToken="ab" * 16)
    assert peer.seen[0]["params"]["session_name"] == "my-run"
    peer.send("closeBacktestSession")
    peer.until("success")
    with Peer(simulator.url) as other:
        create = {"startSlot": START, "endSlot": START + 5, "name": "my-run"}
        for token in ({}, {"createToken": "cd" * 16}):
            other.send("createBacktestSession", {**create, **token})
            assert other.error() == {"sessionNameTaken": {"session_name": "my-run"}}


def test_the_same_token_reclaims_the_session_of_a_lost_create(simulator: LocalSimulator) -> None:
    create = {"disconnectTimeoutSecs": 60, "name": "lost-create", "createToken": "ef" * 16}
    with Peer(simulator.url) as first:
        session = first.create(START, START + 5, **create)
    with Peer(simulator.url) as second:
        assert second.create(START, START + 5, **create) == session
        assert slots(second.seen) == [START]
        assert slots(second.advance()) == [START + 2]


def test_a_name_breaks_the_rules(peer: Peer) -> None:
    create = {"startSlot": START, "endSlot": START + 5, "name": "-no-"}
    peer.send("createBacktestSession", create)
    assert "invalid session name '-no-'" in peer.error()["invalidRequest"]["error"]


def alive(*kinds: type) -> set[int]:
    return {id(each) for each in gc.get_objects() if type(each) in kinds}


def test_what_a_session_held_is_freed_when_it_is_closed(small_bundle: Path) -> None:
    """At once, not when the collector comes by."""
    gc.collect()
    gc.disable()
    try:
        with LocalSimulator(small_bundle) as simulator:
            for _ in range(3):
                before = alive(Engine, Ran)
                with Peer(simulator.url) as peer:
                    peer.create(small.FIRST, small.LAST, disconnectTimeoutSecs=60)
                    peer.advance(150)
                    assert len(alive(Engine, Ran) - before) > 250
                    peer.send("closeBacktestSession")
                    peer.until("success")
                    assert alive(Engine, Ran) <= before
    finally:
        gc.enable()


@pytest.mark.parametrize("parallel", [False, True])
def test_a_name_that_is_taken_holds_no_session(small_bundle: Path, parallel: bool) -> None:
    gc.collect()
    before = alive(SimSession)
    with LocalSimulator(small_bundle) as simulator, Peer(simulator.url) as peer:
        create = {"startSlot": small.FIRST, "endSlot": small.LAST, "name": "one"}
        peer.send("createBacktestSession", {**create, "parallel": parallel})
        peer.until("sessionsCreatedV2" if parallel else "readyForContinue")
        peer.send("closeBacktestSession")
        peer.until("success")
        peer.send("createBacktestSession", create)
        assert peer.error() == {"sessionNameTaken": {"session_name": "one"}}
        gc.collect()
        assert alive(SimSession) <= before
