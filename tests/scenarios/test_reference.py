"""The scenarios of protocol/reference_tests.md that concern raw sessions, against scripted servers."""

from __future__ import annotations

import pytest

from backtest_sync import (
    BacktestClient,
    BacktestSession,
    Completed,
    ReadyForContinue,
    ReadyOutcome,
    SlotNotification,
    SubscriptionError,
)
from backtest_sync.headers import USER_AGENT
from tests.support.connections import until
from tests.support.scripted import Peer, ScriptedServer, cid, sid
from tests.support.sessions import COMPLETED, READY, session_with, slot
from tests.support.streams import PROGRAM, diffs, endpoint, stream


def client_of(server: ScriptedServer) -> BacktestClient:
    return BacktestClient(server.url, "k", request_timeout=10.0)


def test_client_identifies_itself_on_http_and_websocket() -> None:
    def ranges(peer: Peer) -> None:
        peer.read_head()
        peer.respond("200 OK", "[]")

    def control(peer: Peer) -> None:
        peer.accept()
        peer.expect("createBacktestSession")
        peer.created()
        peer.serve_close()

    with ScriptedServer(ranges, control) as server, client_of(server) as client:
        assert client.available_ranges() == []
        with client.create_session(start_slot=1, end_slot=2):
            pass
    assert [peer.header("user-agent") for peer in server.peers] == [USER_AGENT, USER_AGENT]
    assert [peer.header("x-api-key") for peer in server.peers] == ["k", "k"]


def test_create_ready_advance_close() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        create = peer.expect("createBacktestSession")
        assert (create["startSlot"], create["endSlot"]) == (100, 105)
        assert not create.get("parallel")
        peer.created(1, "http://rpc")
        peer.send({"method": "readyForContinue"})
        assert peer.expect("continue")["advanceCount"] == 2
        peer.send(
            {"method": "status", "params": {"status": "decodedTransactions"}},
            {"method": "slotNotification", "params": 101},
            {"method": "slotNotification", "params": 102},
            {"method": "readyForContinue"},
        )
        peer.expect("closeBacktestSession")
        peer.send({"method": "success"})

    with ScriptedServer(script) as server, client_of(server) as client:
        session = client.create_session(start_slot=100, slot_count=5)
        assert session.session_id == sid(1)
        assert session.rpc_endpoint == "http://rpc"
        assert session.ensure_ready(2.0) is ReadyOutcome.READY
        result = session.advance(2, 2.0)
        assert result.slot_notifications == 2
        assert result.last_slot == 102
        assert result.ready_for_continue
        session.close(2.0)
        assert session.is_closed


def test_parallel_create_returns_the_ids_of_the_final_message() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        create = peer.expect("createBacktestSession")
        assert create["parallel"] is True
        assert create["startSlot"] == 100
        assert "request" not in create
        peer.send(
            {
                "method": "sessionsCreatedV2",
                "params": {"control_session_id": cid(11), "session_ids": [sid(1), sid(2)]},
            }
        )
        peer.until_gone()

    with ScriptedServer(script) as server, client_of(server) as client:
        ids = client.create_sessions(start_slot=100, end_slot=105, parallel=True)
        assert ids == [sid(1), sid(2)]


def test_attach() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        attach = peer.expect("attachBacktestSession")
        assert attach == {"session_id": sid(1), "last_sequence": 7}
        peer.send(
            {
                "method": "sessionAttached",
                "params": {
                    "session_id": sid(1),
                    "rpc_endpoint": "http://rpc/s1",
                    "session_name": "my-run",
                },
            }
        )
        peer.serve_close()

    with ScriptedServer(script) as server, client_of(server) as client:
        with client.attach_session(sid(1), 7) as session:
            assert session.session_id == sid(1)
            assert session.session_name == "my-run"
            assert session.rpc_endpoint == "http://rpc/s1"


def waiting(session: BacktestSession) -> int:
    """How many bytes have come for the session and were not looked at."""
    channel = session._channel  # some may have come along with the acknowledgement
    return sum(map(len, channel._queue)) + channel._connection.queued_bytes


def test_control_events_are_not_held_behind_a_backlogged_subscription() -> None:
    """Scenario 1.3; both sides are idle because all has come, not because some time has passed."""

    def control(peer: Peer) -> None:
        peer.send(*[slot(n) for n in range(300)])

    with ScriptedServer(stream(*diffs(1, *range(2000)))) as data:
        with session_with(control, rpc_endpoint=endpoint(data)) as session:
            handle = session.subscribe_program_diffs(PROGRAM)
            feed = handle._feed

            def backlog() -> int:  # here too
                return sum(map(len, feed._raw)) + feed._connection.queued_bytes

            until(lambda: waiting(session) > 300 * 40 and backlog() > 2000 * 80)
            events = [session.next_event(5.0) for _ in range(16)]
            assert events == [SlotNotification(n) for n in range(16)]


def test_a_stalled_completion_drain_fails_loudly() -> None:
    """Scenario 1.4: what came is handed out, and the missing end marker is told."""

    def control(peer: Peer) -> None:
        peer.send(READY, COMPLETED)

    with ScriptedServer(stream(*diffs(1, 0, 1, 2))) as data:
        with session_with(control, rpc_endpoint=endpoint(data)) as session:
            slots: list[int] = []
            session.subscribe_program_diffs(PROGRAM, lambda note: slots.append(note.context.slot))
            assert list(session) == [ReadyForContinue(), Completed()]
            with pytest.raises(SubscriptionError, match="no end marker"):
                session.drain(0.2)
            assert slots == [0, 1, 2]


def test_run_does_not_return_the_result_of_a_cut_off_stream() -> None:
    """The same through `run`, whose stream breaks off."""

    def control(peer: Peer) -> None:
        peer.send(READY)
        peer.expect("continue")
        peer.send(slot(101), COMPLETED)

    with ScriptedServer(stream(*diffs(1, 0), hold=False)) as data:
        with session_with(control, rpc_endpoint=endpoint(data)) as session:
            session.subscribe_program_diffs(PROGRAM, lambda _: None)
            with pytest.raises(SubscriptionError, match="before its end marker"):
                session.run()
            assert session.is_completed
