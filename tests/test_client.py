"""The client against scripted servers: settings, opening sessions, what fails and how it is told."""

from __future__ import annotations

import gc
import pickle
import ssl
import threading
import weakref
from typing import Any

import pytest

from backtest_sync import (
    BacktestClient,
    ConnectError,
    CreateSession,
    HttpError,
    InvalidParamsError,
    ReconnectPolicy,
    RemoteError,
    RequestTimeoutError,
    SessionClosedError,
    SlotNotification,
    StatusResponse,
    UnexpectedResponseError,
)
from tests.support.certificates import client_tls, server_tls
from tests.support.connections import in_thread, outcome
from tests.support.scripted import Peer, ScriptedServer, cid, sid

KEY = "a-very-secret-key"


def refuse(status: str, body: str = "") -> Any:
    def script(peer: Peer) -> None:
        peer.read_head()
        peer.respond(status, body)

    return script


def created(peer: Peer) -> dict[str, Any]:
    """Accept, take the create request and answer it; gives its parameters."""
    peer.accept()
    params: dict[str, Any] = peer.expect("createBacktestSession")
    peer.created()
    return params


# --- settings


def test_url_and_key_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    def script(peer: Peer) -> None:
        created(peer)
        assert peer.header("x-api-key") == KEY
        peer.serve_close()

    with ScriptedServer(script) as server:
        monkeypatch.setenv("SIMULATOR_URL", f"ws://127.0.0.1:{server.port}")
        monkeypatch.setenv("SIMULATOR_API_KEY", KEY)
        with BacktestClient() as client:
            assert client.url == server.url
            client.create_session(start_slot=1, slot_count=1).close(5.0)


def test_the_production_host_is_the_default() -> None:
    assert BacktestClient().url == "wss://simulator.termina.technology/backtest"


def test_further_headers_do_not_replace_the_key() -> None:
    def script(peer: Peer) -> None:
        created(peer)
        assert [v for k, v in peer.headers if k == "x-api-key"] == [KEY]
        assert peer.header("x-extra") == "extra"
        peer.serve_close()

    with ScriptedServer(script) as server:
        headers = {"x-extra": "extra", "X-Api-Key": "other", "user-agent": "mine"}
        with BacktestClient(server.url, KEY, headers=headers) as client:
            client.create_session(start_slot=1, slot_count=1)


@pytest.mark.parametrize(
    "arguments",
    [
        {"url": ""},
        {"url": 5},
        {"api_key": 5},
        {"api_key": "a\r\nb"},
        {"connect_timeout": 0},
        {"connect_timeout": None},
        {"request_timeout": -1},
        {"reconnect": 3},
        {"headers": {"x": "a\nb"}},
        {"headers": {"x y": "a"}},
        {"headers": {"x": 5}},
        {"headers": {5: "x"}},
        {"headers": 5},
        {"api_key": " a"},
        {"api_key": "ä"},
        {"connect_timeout": "5"},
        {"request_timeout": 0},
        {"log_raw": 1},
        {"ssl_context": 5},
    ],
)
def test_a_wrong_setting_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidParamsError):
        BacktestClient(**{"url": "ws://127.0.0.1:1", **arguments})


def test_a_key_of_the_environment_is_checked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMULATOR_API_KEY", f"{KEY}\n")
    with pytest.raises(InvalidParamsError, match="API key header value") as caught:
        BacktestClient("ws://127.0.0.1:1")
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("limit", [float("inf"), 1e300, 5])
def test_any_length_of_time_can_be_a_limit(limit: float) -> None:
    def script(peer: Peer) -> None:
        created(peer)
        peer.send({"method": "readyForContinue"})
        peer.serve_close()

    with ScriptedServer(script) as server:
        with BacktestClient(server.url, connect_timeout=limit, request_timeout=limit) as client:
            with client.create_session(start_slot=1, slot_count=1) as session:
                session.ensure_ready(limit)


def test_nothing_secret_of_the_url_is_shown() -> None:
    with pytest.warns(UserWarning, match="unencrypted") as warned:
        client = BacktestClient("ws://me:secret@example.com/?token=secret", KEY)
    assert repr(client) == "<BacktestClient ws://example.com/>"
    assert "secret" not in str(warned[0].message)


def test_a_key_over_plain_text_to_elsewhere_is_warned_of() -> None:
    with pytest.warns(UserWarning, match="unencrypted"):
        BacktestClient("ws://example.com", KEY)
    BacktestClient("ws://example.com")
    BacktestClient("ws://127.0.0.1:8900", KEY)


def test_the_key_is_nowhere_to_be_read() -> None:
    with ScriptedServer(refuse("403 Forbidden", "no")) as server:
        client = BacktestClient(server.url, KEY)
        assert KEY not in repr(client)
        with pytest.raises(ConnectError) as caught:
            client.create_session(start_slot=1, slot_count=1)
        assert KEY not in repr(caught.value) + str(caught.value)
        with pytest.raises(TypeError, match="pickled"):
            pickle.dumps(client)


# --- creating


def test_what_create_sends() -> None:
    sent: list[dict[str, Any]] = []

    def script(peer: Peer) -> None:
        sent.append(created(peer))
        peer.serve_close()

    with ScriptedServer(script) as server, BacktestClient(server.url) as client:
        for reconnect in (ReconnectPolicy(), None, ReconnectPolicy(max_total=2000)):
            client.create_session(start_slot=5, slot_count=2, reconnect=reconnect).close(5.0)
        params = CreateSession(start_slot=5, end_slot=7, disconnect_timeout_secs=42)
        client.create_session(params).close(5.0)
    assert [create["disconnectTimeoutSecs"] for create in sent] == [360, None, 900, 42]
    assert sent[1] == {
        "startSlot": 5,
        "endSlot": 7,
        "sendSummary": False,
        "capacityWaitTimeoutSecs": None,
        "disconnectTimeoutSecs": None,
        "extraComputeUnits": None,
        "replayAccountState": False,
    }


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({}, "start_slot"),
        ({"start_slot": 1}, "end_slot"),
        ({"start_slot": 1, "end_slot": 2, "slot_count": 1}, "end_slot"),
        ({"start_slot": 2, "end_slot": 1}, "end_slot"),
        ({"start_slot": -1, "end_slot": 1}, "start_slot"),
        ({"start_slot": 2**64, "end_slot": 1}, "start_slot"),
        ({"start_slot": 1, "end_slot": 2, "start": 1}, "'start'"),
        ({"start_slot": 1, "end_slot": 2, "name": "-x"}, "-x"),
        ({"start_slot": 1, "end_slot": 2, "parallel": True}, "parallel"),
    ],
)
def test_a_wrong_create_never_connects(fields: dict[str, Any], named: str) -> None:
    client = BacktestClient("ws://127.0.0.1:1")  # nobody listens there
    with pytest.raises(InvalidParamsError, match=named):
        client.create_session(**fields)
    with pytest.raises(InvalidParamsError):
        client.create_session(CreateSession(start_slot=1, slot_count=1), **fields or {"name": "a"})


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.create_session(start_slot=1, slot_count=1, timeout=-1),
        lambda c: c.create_session(start_slot=1, slot_count=1, on_event=5),
        lambda c: c.create_session(start_slot=1, slot_count=1, reconnect=5),
        lambda c: c.create_session({"start_slot": 1, "slot_count": 1}),
        lambda c: c.create_sessions(start_slot=1, slot_count=1, on_session_created=5),
        lambda c: c.create_sessions(start_slot=1, slot_count=1, name="-"),
        lambda c: c.attach_session(sid(1), reconnect=5),
        lambda c: c.attach_session(sid(1), "5"),
        lambda c: c.attach_session(None),
    ],
)
def test_wrong_arguments_never_connect(call: Any) -> None:
    with pytest.raises(InvalidParamsError):
        call(BacktestClient("ws://127.0.0.1:1"))  # nobody listens there


def test_on_event_sees_what_arrives_before_and_nothing_is_lost() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.expect("createBacktestSession")
        peer.send(
            {"method": "status", "params": {"status": "startingRuntime"}},
            {"method": "readyForContinue"},
            {"method": "slotNotification", "params": 1},
        )
        peer.created(task_id="t", session_name="my-run")
        peer.serve_close()

    with ScriptedServer(script) as server, BacktestClient(server.url) as client:
        seen: list[Any] = []
        session = client.create_session(start_slot=1, slot_count=1, on_event=seen.append)
        assert len(seen) == 4
        assert (session.task_id, session.session_name) == ("t", "my-run")
        assert session.is_ready_for_continue
        assert isinstance(session.next_event(5.0), StatusResponse)
        assert session.next_event(5.0) == SlotNotification(1)


def test_a_refused_create() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.expect("createBacktestSession")
        peer.send(
            {"method": "error", "params": {"bundleNotFound": {"start_slot": 1, "end_slot": 2}}}
        )
        peer.until_gone()

    with ScriptedServer(script) as server:
        client = BacktestClient(server.url)
        with pytest.raises(RemoteError, match="start_slot=1, end_slot=2") as caught:
            client.create_session(start_slot=1, slot_count=1)
        assert caught.value.is_terminal


def test_a_parallel_answer_to_a_single_create() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.expect("createBacktestSession")
        params = {"control_session_id": cid(1), "session_ids": [sid(1)]}
        peer.send({"method": "sessionsCreatedV2", "params": params})
        peer.until_gone()

    with ScriptedServer(script) as server:
        with pytest.raises(UnexpectedResponseError, match="creating single session"):
            BacktestClient(server.url).create_session(start_slot=1, slot_count=1)


def test_a_server_that_leaves_or_never_answers() -> None:
    def leave(peer: Peer) -> None:
        peer.accept()
        peer.expect("createBacktestSession")

    def mute(peer: Peer) -> None:
        peer.accept()
        peer.until_gone()

    with ScriptedServer(leave, mute) as server:
        client = BacktestClient(server.url)
        with pytest.raises(SessionClosedError):
            client.create_session(start_slot=1, slot_count=1)
        with pytest.raises(RequestTimeoutError) as caught:
            client.create_session(start_slot=1, slot_count=1, timeout=0.02)
        assert caught.value.action == "receiving"


def test_the_limit_of_a_create_holds_for_its_connecting_too() -> None:
    release = threading.Event()

    def script(peer: Peer) -> None:
        peer.read_head()
        release.wait(10)

    with ScriptedServer(script) as server:
        client = BacktestClient(server.url)
        with pytest.raises(RequestTimeoutError) as caught:
            client.create_session(start_slot=1, slot_count=1, timeout=0.05)
        assert caught.value.action == "connecting"
        with pytest.raises(RequestTimeoutError):
            client.create_session(start_slot=1, slot_count=1, timeout=0)
        release.set()


def test_a_name_that_the_server_does_not_know_of_is_told(caplog: pytest.LogCaptureFixture) -> None:
    def script(peer: Peer) -> None:
        created(peer)
        peer.serve_close()

    with ScriptedServer(script) as server, BacktestClient(server.url) as client:
        client.create_session(start_slot=1, slot_count=1, name="my-run")
        assert f"the server did not name {sid(1)} 'my-run'" in caplog.text


@pytest.mark.parametrize(
    ("status", "code", "hint"),
    [
        ("401 Unauthorized", 401, "api_key"),
        ("403 Forbidden", 403, "api_key"),
        ("503 Busy", 503, "503"),
    ],
)
def test_a_refused_upgrade_says_the_status(status: str, code: int, hint: str) -> None:
    with ScriptedServer(refuse(status)) as server:
        with pytest.raises(ConnectError, match=hint) as caught:
            BacktestClient(server.url).create_session(start_slot=1, slot_count=1)
        assert caught.value.status == code


def test_nobody_listens() -> None:
    with pytest.raises(ConnectError) as caught:
        BacktestClient("ws://127.0.0.1:1").create_session(start_slot=1, slot_count=1)
    assert caught.value.__cause__ is not None


def test_many_sessions_as_they_are_announced() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        assert peer.expect("createBacktestSession")["parallel"] is True
        peer.created(1, task_id="t1")
        event = {
            "session_id": sid(1),
            "seq_id": 1,
            "event": {"method": "slotNotification", "params": 1},
        }
        peer.send({"method": "sessionEventV2", "params": event})
        peer.created(2)
        peer.send(
            {
                "method": "sessionsCreatedV2",
                "params": {"control_session_id": cid(1), "session_ids": [], "task_ids": ["x"]},
            }
        )
        peer.until_gone()

    with ScriptedServer(script) as server, BacktestClient(server.url) as client:
        announced: list[str] = []
        made = client.create_sessions_with_task_ids(
            start_slot=1, end_slot=9, parallel=True, on_session_created=announced.append
        )
        assert made == [(sid(1), "t1"), (sid(2), None)]
        assert announced == [sid(1), sid(2)]


def test_one_session_made_for_others_outlives_its_making() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        create = peer.expect("createBacktestSession")
        peer.created(task_id="t")
        peer.until_gone()
        assert peer.close_frame == b""
        asked.append((peer.index, create["disconnectTimeoutSecs"]))

    asked: list[Any] = []
    with ScriptedServer(script) as server:
        client = BacktestClient(server.url)
        assert client.create_sessions_with_task_ids(start_slot=1, slot_count=1) == [(sid(1), "t")]
        bare = BacktestClient(server.url, reconnect=None)
        assert bare.create_sessions(start_slot=1, slot_count=1) == [sid(1)]
        assert client.create_sessions(start_slot=1, slot_count=1, disconnect_timeout_secs=5)
    assert sorted(seconds for _, seconds in asked) == [5, 360, 360]


def test_a_callback_that_fails_ends_the_making() -> None:
    def script(peer: Peer) -> None:
        created(peer)
        peer.until_gone()

    def fail(_: object) -> None:
        raise KeyError("mine")

    with ScriptedServer(script) as server:
        client = BacktestClient(server.url)
        with pytest.raises(KeyError):
            client.create_session(start_slot=1, slot_count=1, on_event=fail)
        with pytest.raises(KeyError):
            client.create_sessions(start_slot=1, slot_count=1, on_session_created=fail)


def test_task_ids_are_padded_and_cut() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.expect("createBacktestSession")
        params = {"control_session_id": cid(1), "session_ids": [sid(1), sid(2)], "task_ids": ["a"]}
        peer.send({"method": "sessionsCreatedV2", "params": params})
        peer.until_gone()

    with ScriptedServer(script) as server, BacktestClient(server.url) as client:
        made = client.create_sessions_with_task_ids(start_slot=1, end_slot=9, parallel=True)
        assert made == [(sid(1), "a"), (sid(2), None)]


# --- attaching


def attached(peer: Peer) -> None:
    params = {"session_id": sid(1), "rpc_endpoint": "/backtest/x"}
    peer.send({"method": "sessionAttached", "params": params})


def test_attach_and_resume_keep_everything_in_order() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        assert peer.expect("attachBacktestSession") == {"session_id": sid(1), "last_sequence": None}
        peer.send({"seqId": 1, "method": "slotNotification", "params": 1})
        attached(peer)
        peer.send({"seqId": 2, "method": "slotNotification", "params": 2})
        peer.expect("resumeAttachedSession")
        peer.send(
            {"seqId": 3, "method": "slotNotification", "params": 3},
            {"seqId": 4, "method": "readyForContinue"},
            {"method": "success"},
            {"seqId": 5, "method": "slotNotification", "params": 5},
        )
        peer.serve_close()

    with (
        ScriptedServer(script) as server,
        BacktestClient(server.url, request_timeout=10.0) as client,
    ):
        session = client.attach_session(sid(1).removeprefix("backtest_"))
        assert session.rpc_endpoint == f"{server.http_url}/backtest/x"
        session.resume_attached_session()
        assert session.is_ready_for_continue
        assert session.last_sequence == 0  # nothing was handed over yet
        events = [session.next_event() for _ in range(5)]
        slots = [event.slot for event in events if isinstance(event, SlotNotification)]
        assert slots == [1, 2, 3, 5]
        assert session.last_sequence == 5


def test_a_refused_attach_and_a_bad_id() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.expect("attachBacktestSession")
        peer.send({"method": "error", "params": {"sessionOwnershipBusy": {"reason": "moving"}}})
        peer.until_gone()

    with ScriptedServer(script) as server:
        client = BacktestClient(server.url)
        with pytest.raises(RemoteError, match="ownership busy: moving"):
            client.attach_session(sid(1), 3)
        for bad in ("parallel_" + "0" * 32, "nonsense", "", 5):
            with pytest.raises(InvalidParamsError):
                client.attach_session(bad)  # type: ignore[arg-type]
        with pytest.raises(InvalidParamsError, match="last_sequence"):
            client.attach_session(sid(1), -1)


# --- ending


def test_closing_the_client_closes_its_sessions() -> None:
    closes = threading.Semaphore(0)

    def script(peer: Peer) -> None:
        created(peer)
        peer.expect("closeBacktestSession")
        closes.release()
        peer.send({"method": "success"})
        peer.until_gone()

    with ScriptedServer(script) as server:
        client = BacktestClient(server.url)
        sessions = [client.create_session(start_slot=1, slot_count=1) for _ in range(3)]
        client.close()
        client.close()
        assert all(session.is_closed for session in sessions)
        for _ in sessions:
            assert closes.acquire(timeout=5)


def mute(peer: Peer) -> None:
    created(peer)
    peer.until_gone()


def test_a_closed_client_opens_nothing() -> None:
    with ScriptedServer(mute) as server:
        client = BacktestClient(server.url)
        client.close()
        with pytest.raises(SessionClosedError, match="the client is closed"):
            client.create_session(start_slot=1, slot_count=1)
        with pytest.raises(SessionClosedError, match="the client is closed"):
            client.attach_session(sid(1))
        with pytest.raises(HttpError, match="the client is closed"):
            client.available_ranges()
    assert server.peers == []


def test_a_session_that_comes_after_the_close_of_its_client_is_dropped() -> None:
    asked, go = threading.Event(), threading.Event()

    def script(peer: Peer) -> None:
        peer.accept()
        peer.expect("createBacktestSession")
        asked.set()
        assert go.wait(10)
        peer.created()
        peer.until_gone()

    with ScriptedServer(script) as server:
        client = BacktestClient(server.url)
        worker = in_thread(lambda: client.create_session(start_slot=1, slot_count=1))
        assert asked.wait(10)
        client.close()
        go.set()
        assert isinstance(outcome(*worker), SessionClosedError)


def test_what_a_close_fails_from_is_told_after_all_are_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("backtest_sync.session.GRACEFUL_CLOSE_LIMIT", 0.02)
    with ScriptedServer(mute) as server:
        client = BacktestClient(server.url)
        sessions = [client.create_session(start_slot=1, slot_count=1) for _ in range(3)]
        with pytest.raises(RequestTimeoutError):
            client.close()
        assert all(session.is_closed for session in sessions)
        client.close()


def test_an_error_in_the_body_is_what_leaves_the_with_block(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("backtest_sync.session.GRACEFUL_CLOSE_LIMIT", 0.02)
    with ScriptedServer(mute) as server:
        client = BacktestClient(server.url)
        client.create_session(start_slot=1, slot_count=1)
        with pytest.raises(KeyError), client:
            raise KeyError("mine")


def test_a_close_that_is_interrupted_aborts_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedServer(mute) as server:
        client = BacktestClient(server.url)
        sessions = [client.create_session(start_slot=1, slot_count=1) for _ in range(3)]

        def interrupt(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("backtest_sync.session.BacktestSession._close", interrupt)
        with pytest.raises(KeyboardInterrupt):
            client.close()
        assert all(session.is_closed for session in sessions)


def test_a_forgotten_session_sends_a_close_frame() -> None:
    gone = threading.Event()
    frames: list[bytes | None] = []

    def script(peer: Peer) -> None:
        created(peer)
        peer.until_gone()
        frames.append(peer.close_frame)
        gone.set()

    with ScriptedServer(script) as server:
        client = BacktestClient(server.url)
        session = client.create_session(start_slot=1, slot_count=1)
        watcher = weakref.ref(session)
        del session
        gc.collect()
        assert watcher() is None
        assert gone.wait(5)
        assert frames[0] is not None


def test_one_tls_context_serves_all_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[ssl.SSLContext] = []

    def make() -> ssl.SSLContext:
        made.append(client_tls())
        return made[-1]

    def script(peer: Peer) -> None:
        created(peer)
        peer.serve_close()

    monkeypatch.setattr("backtest_sync.upgrade.default_tls_context", make)
    with ScriptedServer(script, tls=server_tls()) as server, BacktestClient(server.url) as client:
        for _ in range(2):
            client.create_session(start_slot=1, slot_count=1).close(5.0)
    assert len(made) == 1
