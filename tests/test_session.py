"""A session's methods against scripted servers: what each does with each response."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest

from backtest_sync import (
    AdvanceState,
    BacktestSession,
    BacktestStatus,
    Completed,
    ConnectionStatus,
    Continue,
    DeserializeError,
    DiscoveryBatch,
    ErrorResponse,
    InvalidParamsError,
    Paused,
    ReadyForContinue,
    ReadyOutcome,
    RemoteError,
    RequestTimeoutError,
    SessionClosedError,
    SlotNotification,
    StatusResponse,
    UnexpectedResponseError,
    UnknownResponse,
)
from tests.support.scripted import Peer, frame, sid
from tests.support.sessions import (
    COMPLETED,
    READY,
    SUCCESS,
    discovery,
    error,
    numbered,
    paused,
    sends,
    session_with,
    slot,
    status,
)

SUMMARY = {
    "correctSimulation": 7,
    "incorrectSimulation": 1,
    "executionErrors": 0,
    "balanceDiff": 0,
    "logDiff": 0,
    "unsanitizable": 0,
}

# --- reading


def test_events_come_in_order_and_update_readiness() -> None:
    with session_with(sends(slot(100), READY)) as session:
        assert session.next_event() == SlotNotification(100)
        assert not session.is_ready_for_continue
        assert session.next_event() == ReadyForContinue()
        assert session.is_ready_for_continue


def test_next_response_leaves_readiness_alone() -> None:
    with session_with(sends(READY)) as session:
        response = session.next_response()
        assert not session.is_ready_for_continue
        assert response is not None
        session.apply_response(response)
        assert session.is_ready_for_continue
        session.apply_response(Completed())
        assert not session.is_ready_for_continue


def test_iteration_ends_after_completed() -> None:
    with session_with(sends(slot(100), COMPLETED)) as session:
        assert list(session) == [SlotNotification(100), Completed()]
        assert session.is_completed
        assert session.next_response() is None


def test_leaving_responses_closes_the_session() -> None:
    def script(peer: Peer) -> None:
        peer.send(slot(100), slot(101))
        peer.serve_close()

    with session_with(script) as session:
        for response in session.responses(5.0):
            assert response == SlotNotification(100)
            break
        assert session.is_closed
        assert session.next_response() is None


def test_unknown_methods_and_statuses_are_values() -> None:
    messages = ({"method": "weather", "params": {"a": 1}}, status("preparingBundle"), READY)
    with session_with(sends(*messages)) as session:
        first = session.next_event()
        assert isinstance(first, UnknownResponse)
        assert (first.method, first.params) == ("weather", {"a": 1})
        assert session.next_event() == StatusResponse("preparingBundle")
        assert session.ensure_ready() is ReadyOutcome.READY


@pytest.mark.parametrize(
    "text", ["{", "[]", "5", '{"method":5}', '{"method":"slotNotification","params":"x"}']
)
def test_a_bad_message_is_an_error_and_the_connection_stays(text: str) -> None:
    def script(peer: Peer) -> None:
        peer.send_raw(frame(text.encode()))
        peer.send(slot(100))

    with session_with(script) as session:
        with pytest.raises(DeserializeError) as caught:
            session.next_event()
        assert caught.value.raw == text
        assert session.next_event() == SlotNotification(100)


def test_binary_text_counts_and_other_binary_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    def script(peer: Peer) -> None:
        peer.send_raw(frame(b"\xff\xfe", 2))
        peer.send_raw(frame(b'{"method":"slotNotification","params":100}', 2))

    with session_with(script) as session:
        assert session.next_event() == SlotNotification(100)
    assert "no UTF-8" in caplog.text


def test_next_event_gives_up_at_its_deadline_and_the_session_stays_usable() -> None:
    sent = threading.Event()

    def script(peer: Peer) -> None:
        sent.wait(10)
        peer.send(slot(100))

    with session_with(script) as session:
        with pytest.raises(RequestTimeoutError) as caught:
            session.next_event(0.01)
        assert (caught.value.action, caught.value.timeout) == ("receiving", 0.01)
        assert isinstance(caught.value, TimeoutError)
        sent.set()
        assert session.next_event(10.0) == SlotNotification(100)


def test_a_limit_of_zero_takes_what_is_there() -> None:
    with session_with(sends(slot(100), slot(101))) as session:
        assert session.next_event(10.0) == SlotNotification(100)
        assert session.next_event(0) == SlotNotification(101)
        with pytest.raises(RequestTimeoutError):
            session.next_event(0)


def test_a_deadline_holds_against_an_endless_stream() -> None:
    stop = threading.Event()

    def script(peer: Peer) -> None:
        while not stop.is_set():
            peer.send(*[slot(n) for n in range(100)])

    with session_with(script) as session:
        with pytest.raises(RequestTimeoutError):
            session.ensure_ready(0.05)
        stop.set()


@pytest.mark.parametrize("bad", [-1, float("nan"), "5", True])
def test_a_bad_timeout_is_refused(bad: Any) -> None:
    with session_with(sends()) as session, pytest.raises(InvalidParamsError, match="timeout"):
        session.next_event(bad)


# --- the end of the stream


def test_a_close_frame_is_told_once() -> None:
    def script(peer: Peer) -> None:
        peer.send(slot(100))
        peer.send_close(1012, "management handoff")

    with session_with(script) as session:
        assert session.next_event() == SlotNotification(100)
        with pytest.raises(SessionClosedError, match="management handoff") as caught:
            session.next_event()
        assert caught.value.code == 1012
        assert session.next_event() is None
        assert session.connection_status is ConnectionStatus.FAILED
        session.close(5.0)
        assert session.connection_status is ConnectionStatus.CLOSED


def test_a_reset_is_told_once() -> None:
    with session_with(lambda peer: peer.reset()) as session:
        with pytest.raises(SessionClosedError) as caught:
            session.next_event()
        assert caught.value.code is None
        assert session.next_event() is None
        session.close(5.0)


def test_the_end_after_completed_is_no_error() -> None:
    def script(peer: Peer) -> None:
        peer.send(COMPLETED)
        peer.send_close(1000)

    with session_with(script) as session:
        assert session.next_event() == Completed()
        assert session.next_event() is None


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda s: s.ensure_ready(), "while waiting for ReadyForContinue"),
        (lambda s: s.wait_for_status("decodedTransactions"), "while waiting for status"),
        (lambda s: s.advance_step(AdvanceState(), False), "while awaiting continue responses"),
        (lambda s: s.advance_to_discovery(), "while waiting for DiscoveryBatch"),
    ],
)
def test_waiting_methods_say_what_they_waited_for(
    call: Callable[[BacktestSession], object], reason: str
) -> None:
    with session_with(lambda peer: peer.send_close(1012, "handoff")) as session:
        with pytest.raises(SessionClosedError, match="handoff"):
            session.next_response()
        with pytest.raises(SessionClosedError, match=reason):
            call(session)


# --- ensure_ready and wait_for_status


def test_ensure_ready_keeps_discoveries_in_order() -> None:
    script = sends(discovery(101, 1), slot(100), discovery(101, 2), READY)
    with session_with(script) as session:
        seen: list[Any] = []
        assert session.ensure_ready(on_event=seen.append) is ReadyOutcome.READY
        assert [type(event) for event in seen] == [
            DiscoveryBatch,
            SlotNotification,
            DiscoveryBatch,
            ReadyForContinue,
        ]
        batches = [session.next_response(1.0) for _ in range(2)]
        assert [b.batch_index for b in batches if isinstance(b, DiscoveryBatch)] == [1, 2]


def test_ensure_ready_counts_paused() -> None:
    with session_with(sends(paused(105, 2))) as session:
        assert session.ensure_ready() is ReadyOutcome.READY


def test_ensure_ready_returns_at_once_when_ready_or_completed() -> None:
    with session_with(sends(READY, COMPLETED)) as session:
        assert session.ensure_ready() is ReadyOutcome.READY
        assert session.ensure_ready(0) is ReadyOutcome.READY
        assert session.next_event() == Completed()
        assert session.ensure_ready(0) is ReadyOutcome.COMPLETED


def test_an_error_is_raised_and_a_simulation_error_is_an_event() -> None:
    script = sends(
        error("simulationError", error="one transaction"),
        error("invalidRequest", error="no"),
        READY,
    )
    with session_with(script) as session:
        seen: list[Any] = []
        with pytest.raises(RemoteError, match="invalid request: no") as caught:
            session.ensure_ready(on_event=seen.append)
        assert not caught.value.is_terminal
        assert all(isinstance(event, ErrorResponse) for event in seen)
        assert len(seen) == 2
        assert session.ensure_ready() is ReadyOutcome.READY


def test_wait_for_status_takes_the_spelling_and_records_readiness() -> None:
    script = sends(READY, status("decodedTransactions"), status("newStatus"))
    with session_with(script) as session:
        session.wait_for_status("decodedTransactions")
        assert session.is_ready_for_continue
        session.wait_for_status("newStatus")


def test_wait_for_status_fails_when_the_run_completes() -> None:
    with session_with(sends(COMPLETED)) as session:
        with pytest.raises(UnexpectedResponseError, match="waiting for status"):
            session.wait_for_status(BacktestStatus.DECODED_TRANSACTIONS)


# --- continuing


def test_advance_waits_for_every_slot() -> None:
    def script(peer: Peer) -> None:
        peer.send(READY)
        peer.expect("continue")
        peer.send(slot(101), READY, slot(102))

    with session_with(script) as session:
        result = session.advance(2)
        assert (result.slot_notifications, result.last_slot) == (2, 102)
        assert result.ready_for_continue


def test_continue_until_ready_does_not() -> None:
    def script(peer: Peer) -> None:
        peer.send(READY)
        assert peer.expect("continue") == {
            "advanceCount": 2,
            "transactions": ["AQID"],
            "modifyAccountStates": {},
        }
        peer.send(status("decodedTransactions"), slot(101), READY, slot(102))

    with session_with(script) as session:
        result = session.continue_until_ready(Continue(advance_count=2, transactions=[b"\1\2\3"]))
        assert result.slot_notifications == 1
        assert result.statuses == (BacktestStatus.DECODED_TRANSACTIONS,)
        assert session.next_event() == SlotNotification(102)


def test_the_summary_is_not_lost() -> None:
    def script(peer: Peer) -> None:
        peer.send(READY)
        peer.expect("continue")
        peer.send(slot(101), {"method": "completed", "params": {"summary": SUMMARY}})

    with session_with(script) as session:
        result = session.continue_(5)
        assert result.completed
        assert result.summary is not None
        assert result.summary.correct_simulation == 7
        assert session.summary == result.summary
        assert session.continue_(5).completed  # nothing more is sent


def test_a_silence_ends_advance_and_a_deadline_bounds_it() -> None:
    def script(peer: Peer) -> None:
        peer.send(READY)
        peer.expect("continue")
        peer.send(slot(101))

    with session_with(script) as session:
        with pytest.raises(RequestTimeoutError) as caught:
            session.advance(2, timeout=0.02)
        assert caught.value.timeout == 0.02
    with session_with(script) as session:
        with pytest.raises(RequestTimeoutError) as caught:
            session.advance(2, deadline=0.03)
        assert caught.value.timeout == 0.03


def test_paused_is_unexpected_while_continuing() -> None:
    def script(peer: Peer) -> None:
        peer.send(READY)
        peer.expect("continue")
        peer.send(paused(101))

    with session_with(script) as session:
        with pytest.raises(UnexpectedResponseError, match="continuing"):
            session.advance()
        assert session.is_ready_for_continue


def test_more_slots_than_expected_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    def script(peer: Peer) -> None:
        peer.send(READY)
        peer.expect("continue")
        peer.send(slot(101), slot(102), READY)

    with session_with(script) as session:
        session.advance()
    assert "received 2 slot notifications (expected 1)" in caplog.text


def test_advance_step_reads_one_response() -> None:
    with session_with(sends(slot(101), READY)) as session:
        state = AdvanceState(expected_slots=1)
        session.advance_step(state, wait_for_slots=True)
        assert (state.slot_notifications, state.is_done(True)) == (1, False)
        session.advance_step(state, wait_for_slots=True)
        assert state.is_done(True)


def test_send_continue_spends_readiness() -> None:
    def script(peer: Peer) -> None:
        peer.send(READY)
        assert peer.expect("continue")["advanceCount"] == 3
        peer.send(READY)

    with session_with(script) as session:
        session.ensure_ready()
        session.send_continue(3)
        assert not session.is_ready_for_continue
        assert session.ensure_ready() is ReadyOutcome.READY


@pytest.mark.parametrize("bad", [-1, 2**64, 1.5, True, "x"])
def test_a_bad_advance_count_never_reaches_the_wire(bad: Any) -> None:
    received: list[Any] = []
    with session_with(lambda peer: received.extend(peer.until_gone())) as session:
        with pytest.raises(InvalidParamsError, match="advance_count"):
            session.continue_(bad)
    assert received == []


def test_continue_to_returns_the_pause() -> None:
    def script(peer: Peer) -> None:
        peer.send(READY)
        assert peer.expect("continueTo") == {"slot": 105, "batchIndex": 3}
        peer.send(slot(101), discovery(107), paused(105, 3))

    with session_with(script) as session:
        assert session.continue_to(105, 3) == Paused(105, 3)
        assert session.is_ready_for_continue
        assert isinstance(session.next_event(1.0), DiscoveryBatch)


def test_continue_to_beyond_the_end_says_so() -> None:
    def script(peer: Peer) -> None:
        peer.send(READY)
        peer.expect("continueTo")
        peer.send(COMPLETED)

    with session_with(script) as session:
        with pytest.raises(UnexpectedResponseError, match="Paused after ContinueTo"):
            session.continue_to(500)


# --- discoveries


def test_discoveries_one_after_the_other() -> None:
    def script(peer: Peer) -> None:
        peer.send(discovery(101, 1), discovery(102, 2), READY)
        assert peer.expect("continueTo") == {"slot": 101, "batchIndex": 1}
        peer.send(slot(100), discovery(103, 3), READY, paused(101, 1))
        assert peer.expect("continueTo") == {"slot": 102, "batchIndex": 2}
        peer.send(slot(101), paused(102, 2))
        assert peer.expect("continueTo") == {"slot": 103, "batchIndex": 3}
        peer.send(slot(102), paused(103, 3))
        assert peer.expect("continue")["advanceCount"] == 2**64 - 1
        peer.send(slot(103), COMPLETED)

    with session_with(script) as session:
        session.ensure_ready()
        pauses = list(session.discoveries())
        assert [pause.paused.slot for pause in pauses] == [101, 102, 103]
        assert [pause.discovery.batch_index for pause in pauses] == [1, 2, 3]
        assert session.is_completed


def test_a_discovery_before_readiness_is_used_at_once() -> None:
    def script(peer: Peer) -> None:
        peer.send(discovery(100, 0))
        assert peer.expect("continueTo") == {"slot": 100, "batchIndex": 1}
        peer.send(paused(100, 1))

    with session_with(script) as session:
        pause = session.advance_to_discovery(offset=1)
        assert pause is not None
        assert pause.paused == Paused(100, 1)


def test_readiness_that_was_consumed_runs_on() -> None:
    def script(peer: Peer) -> None:
        peer.send(READY)
        assert peer.expect("continue")["advanceCount"] == 2**64 - 1
        peer.send(COMPLETED)

    with session_with(script) as session:
        session.ensure_ready()
        assert session.advance_to_discovery(5.0) is None


@pytest.mark.parametrize("passed", [100, 101])
def test_a_discovery_that_was_passed_is_skipped(
    passed: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    def script(peer: Peer) -> None:
        peer.send(discovery(passed), READY)
        peer.expect("continue")
        peer.send(slot(100), slot(101), READY)
        peer.expect("continue")
        peer.send(COMPLETED)

    with session_with(script) as session:
        session.advance(2)
        assert session.advance_to_discovery() is None
    assert f"skipped the discovery of slot {passed}" in caplog.text


# --- running


def test_run_drives_to_the_end() -> None:
    def script(peer: Peer) -> None:
        peer.send(slot(100), READY)
        assert peer.expect("continue")["advanceCount"] == 2
        peer.send(status("decodedTransactions"), slot(101), slot(102), READY)
        peer.expect("continue")
        peer.send(status("decodedTransactions"), slot(103), COMPLETED)

    with session_with(script) as session:
        progress: list[tuple[int, int]] = []
        result = session.run(2, progress=lambda n, announced: progress.append((n, announced)))
        assert result.completed
        assert (result.first_slot, result.last_slot, result.slots) == (100, 103, 4)
        assert result.continues == 2
        assert result.statuses == {"decodedTransactions": 2}
        assert progress == [(100, 1), (101, 2), (102, 3), (103, 4)]
        assert result.coverage.completed


def test_a_run_has_the_start_slot_that_was_announced_before_readiness() -> None:
    def script(peer: Peer) -> None:
        peer.send(slot(100), READY)
        peer.expect("continue")
        peer.send(slot(101), READY)
        peer.expect("continue")
        peer.send(slot(102), COMPLETED)

    with session_with(script) as session:
        session.ensure_ready()
        steps = iter([1, None])
        first = session.run(lambda _: next(steps))
        assert (first.first_slot, first.last_slot, first.slots) == (100, 101, 2)
        rest = session.run()
        assert (rest.first_slot, rest.last_slot, rest.slots) == (102, 102, 1)


def test_run_asks_its_step_function_at_each_readiness() -> None:
    def script(peer: Peer) -> None:
        peer.send(READY)
        assert peer.expect("continue")["advanceCount"] == 5
        peer.send(slot(101), READY)

    with session_with(script) as session:
        steps = iter([Continue(advance_count=5), None])
        result = session.run(lambda s: next(steps))
        assert not result.completed
        assert (result.slots, result.continues) == (1, 1)


# --- sequences


def test_last_sequence_is_the_highest_handed_over() -> None:
    with session_with(sends(slot(100, 4), slot(101, 5), numbered(READY, 6))) as session:
        assert session.last_sequence is None
        session.next_event()
        assert session.last_sequence == 4
        session.ensure_ready()
        assert session.last_sequence == 6


def test_what_is_held_back_does_not_count() -> None:
    with session_with(sends(slot(100, 1), discovery(105, 0, 2), numbered(READY, 3))) as session:
        session.ensure_ready()
        assert session.last_sequence == 1
        assert isinstance(session.next_event(), DiscoveryBatch)
        assert session.last_sequence == 3


# --- closing


def test_close_is_patient_with_stray_events() -> None:
    def script(peer: Peer) -> None:
        peer.send(slot(100), READY, discovery(105))
        peer.expect("closeBacktestSession")
        peer.send(slot(101), status("decodedTransactions"), SUCCESS)

    with session_with(script) as session:
        session.close(5.0)
        session.close(5.0)
        assert session.is_closed
        assert session.connection_status is ConnectionStatus.CLOSED


def test_close_may_be_repeated_after_a_failure() -> None:
    def script(peer: Peer) -> None:
        peer.expect("closeBacktestSession")
        peer.send(error("internal", error="busy"))
        peer.serve_close()

    with session_with(script) as session:
        with pytest.raises(RemoteError, match="busy"):
            session.close(5.0)
        assert not session.is_closed
        session.close(5.0)
        assert session.is_closed


def test_close_gives_up_on_a_mute_server() -> None:
    with session_with(lambda peer: peer.until_gone()) as session:
        with pytest.raises(RequestTimeoutError):
            session.close(0.02)
        assert not session.is_closed


def test_close_sends_the_given_frame() -> None:
    peers: list[Peer] = []

    def script(peer: Peer) -> None:
        peers.append(peer)
        peer.serve_close()

    with session_with(script) as session:
        session.close_with_reason(5.0, 4001, "done here")
    assert peers[0].close_frame == (4001).to_bytes(2, "big") + b"done here"


@pytest.mark.parametrize(("code", "reason"), [(1006, ""), (0, ""), (5000, ""), (1000, "x" * 124)])
def test_a_bad_close_frame_is_refused(code: int, reason: str) -> None:
    with session_with(sends()) as session, pytest.raises(InvalidParamsError):
        session.close_with_reason(1.0, code, reason)


def test_close_wakes_a_waiter_in_another_thread() -> None:
    waiting = threading.Event()

    def script(peer: Peer) -> None:
        peer.send(slot(100))
        peer.serve_close()

    with session_with(script, request_timeout=None) as session:
        caught: list[BaseException] = []

        def wait() -> None:
            try:
                session.ensure_ready(on_event=lambda _: waiting.set())
            except BaseException as failure:
                caught.append(failure)

        thread = threading.Thread(target=wait)
        thread.start()
        assert waiting.wait(10)
        session.close(10.0)
        thread.join(10)
        assert not thread.is_alive()
        assert isinstance(caught[0], SessionClosedError)


def test_a_closed_session_says_so() -> None:
    with session_with(lambda peer: peer.serve_close()) as session:
        session.close(5.0)
        with pytest.raises(SessionClosedError):
            session.send_continue()
        with pytest.raises(SessionClosedError):
            session.ensure_ready()
        assert session.next_event() is None
        assert list(session) == []


def test_leaving_the_with_block_closes_and_keeps_the_first_error() -> None:
    with session_with(lambda peer: peer.reset()) as session:
        with pytest.raises(KeyError), session:
            raise KeyError("mine")
        assert session.is_closed


def test_many_threads_share_the_events() -> None:
    count = 2000
    with session_with(sends(*[slot(n) for n in range(count)], COMPLETED)) as session:
        seen: list[int] = []

        def read() -> None:
            while (event := session.next_event()) is not None:
                if isinstance(event, SlotNotification):
                    seen.append(event.slot)

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert sorted(seen) == list(range(count))


def test_the_thread_behind_it_has_its_name() -> None:
    with session_with(sends()) as session:
        assert session.session_id in [thread.name for thread in threading.enumerate()]


def test_repr_and_pickle() -> None:
    with session_with(sends(slot(100))) as session:
        session.next_event()
        assert repr(session) == f"<BacktestSession {sid(1)} up, 1 slots>"
        with pytest.raises(TypeError, match="attach in the other process"):
            pickle.dumps(session)
