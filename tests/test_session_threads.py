"""A session used from several threads, from its own callbacks, and closed in the middle of everything."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from backtest_sync import (
    BacktestSession,
    ReadyOutcome,
    RemoteError,
    RequestTimeoutError,
    SessionClosedError,
    SlotNotification,
)
from tests.support.connections import in_thread, outcome, until
from tests.support.scripted import Peer, frame
from tests.support.sessions import (
    COMPLETED,
    READY,
    SUCCESS,
    discovery,
    error,
    sends,
    session_with,
    slot,
)

WAITS: dict[str, Callable[[BacktestSession], object]] = {
    "next_response": lambda s: s.next_response(),
    "next_event": lambda s: s.next_event(),
    "iteration": next,
    "responses": lambda s: next(s.responses()),
    "ensure_ready": lambda s: s.ensure_ready(),
    "wait_for_status": lambda s: s.wait_for_status("decodedTransactions"),
    "advance": lambda s: s.advance(),
    "continue_": lambda s: s.continue_(),
    "continue_to": lambda s: s.continue_to(105),
    "advance_to_discovery": lambda s: s.advance_to_discovery(),
    "discoveries": lambda s: next(s.discoveries()),
    "run": lambda s: s.run(),
    "resume": lambda s: s.resume_attached_session(),
}


@pytest.mark.parametrize("wait", WAITS)
def test_close_from_another_thread_ends_every_wait(wait: str) -> None:
    waiting = threading.Event()

    def script(peer: Peer) -> None:
        if wait == "resume":
            peer.expect("resumeAttachedSession")
        waiting.set()
        peer.serve_close()

    with session_with(script, request_timeout=None) as session:
        worker = in_thread(lambda: WAITS[wait](session))
        assert waiting.wait(10)
        session.close(10.0)
        assert isinstance(outcome(*worker), (SessionClosedError, StopIteration, type(None)))


@pytest.mark.parametrize("wait", WAITS)
def test_abort_from_another_thread_ends_every_wait(wait: str) -> None:
    waiting = threading.Event()

    def script(peer: Peer) -> None:
        if wait == "resume":
            peer.expect("resumeAttachedSession")
        waiting.set()

    with session_with(script, request_timeout=None) as session:
        worker = in_thread(lambda: WAITS[wait](session))
        assert waiting.wait(10)
        session.abort()
        assert isinstance(outcome(*worker), (SessionClosedError, StopIteration, type(None)))


def test_a_close_that_fails_has_sent_all_waiters_away() -> None:
    with session_with(lambda peer: peer.until_gone(), request_timeout=None) as session:
        workers = [in_thread(session.ensure_ready) for _ in range(3)]
        with pytest.raises(RequestTimeoutError):
            session.close(0.05)
        for worker in workers:
            assert isinstance(outcome(*worker), SessionClosedError)
        assert not session.is_closed


def test_a_second_close_has_its_own_limit() -> None:
    asked = threading.Event()

    def script(peer: Peer) -> None:
        peer.expect("closeBacktestSession")
        asked.set()
        peer.until_gone()

    with session_with(script) as session:
        first = in_thread(lambda: session.close(10.0))
        assert asked.wait(10)
        with pytest.raises(RequestTimeoutError) as caught:
            session.close(0.02)
        assert caught.value.action == "closing"
        session.abort()
        assert outcome(*first) is None  # there was nothing left to close
        session.close(0.02)


def test_nobody_else_may_send_while_one_closes() -> None:
    asked = threading.Event()

    def script(peer: Peer) -> None:
        peer.expect("closeBacktestSession")
        asked.set()
        peer.until_gone()

    with session_with(script) as session:
        closer = in_thread(lambda: session.close(10.0))
        assert asked.wait(10)
        with pytest.raises(SessionClosedError):
            session.send_continue()
        session.abort()
        outcome(*closer)


# --- from inside callbacks


def test_close_from_inside_on_event() -> None:
    def script(peer: Peer) -> None:
        peer.send(slot(100), slot(101), READY)
        peer.serve_close()

    with session_with(script) as session:
        seen: list[Any] = []

        def close(event: Any) -> None:
            seen.append(event)
            session.close(5.0)

        with pytest.raises(SessionClosedError, match="is closed"):
            session.ensure_ready(on_event=close)
        assert seen == [SlotNotification(100)]


def test_abort_from_inside_on_event() -> None:
    with session_with(sends(slot(100), slot(101), READY)) as session:
        seen: list[Any] = []

        def abort(event: Any) -> None:
            seen.append(event)
            session.abort()

        with pytest.raises(SessionClosedError, match="is closed"):
            session.ensure_ready(on_event=abort)
        assert seen == [SlotNotification(100)]


def test_reading_on_from_inside_on_event() -> None:
    with session_with(sends(slot(100), slot(101), slot(102), READY)) as session:
        seen: list[Any] = []

        def look(event: Any) -> None:
            seen.append(event)
            if event == SlotNotification(100):
                seen.append(session.next_event())

        assert session.ensure_ready(on_event=look) is ReadyOutcome.READY
        assert seen[:3] == [SlotNotification(100), SlotNotification(101), SlotNotification(102)]


def test_an_on_event_that_fails_loses_nothing_else() -> None:
    with session_with(sends(slot(100), discovery(105), slot(101), READY)) as session:

        def fail(event: Any) -> None:
            if not isinstance(event, SlotNotification):
                raise KeyError("mine")

        with pytest.raises(KeyError):
            session.ensure_ready(on_event=fail)
        assert session.coverage.highest_slot_seen == 100
        session.ensure_ready()
        assert session.coverage.highest_slot_seen == 101
        pending = session.next_event(0)
        assert pending is not None
        assert pending.method == "discoveryBatch"


def test_a_limit_that_ran_out_in_on_event_is_told() -> None:
    def late(_: Any) -> None:
        raise RequestTimeoutError("asking somebody else", 1.0)

    with session_with(sends(READY, slot(101))) as session:
        session.ensure_ready()
        with pytest.raises(RequestTimeoutError, match="somebody else"):
            session.advance(on_event=late)


# --- what a close passes over


def test_a_close_that_fails_records_what_it_passed_over() -> None:
    def script(peer: Peer) -> None:
        peer.expect("closeBacktestSession")
        peer.send(slot(101), discovery(105), READY, error("internal", error="busy"))
        peer.serve_close()

    with session_with(script) as session:
        with pytest.raises(RemoteError, match="busy"):
            session.close(5.0)
        assert session.is_ready_for_continue
        assert session.coverage.highest_slot_seen == 101
        pending = session.next_event(0)
        assert pending is not None
        assert pending.method == "discoveryBatch"
        session.close(5.0)


def test_close_passes_over_what_can_not_be_read() -> None:
    def script(peer: Peer) -> None:
        peer.expect("closeBacktestSession")
        peer.send_raw(frame(b"{"))
        peer.send(error("simulationError", error="one"), SUCCESS)

    with session_with(script) as session:
        session.close(5.0)
        assert session.is_closed


def test_completed_is_answer_enough_for_a_close() -> None:
    def script(peer: Peer) -> None:
        peer.send(slot(100), COMPLETED)
        peer.expect("closeBacktestSession")

    with session_with(script) as session:
        session.close(5.0)
        assert session.is_completed


# --- leaving


def test_leaving_a_with_block_takes_a_graceful_while_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("backtest_sync.session.GRACEFUL_CLOSE_LIMIT", 0.02)
    with session_with(lambda peer: peer.until_gone()) as session:
        with pytest.raises(RequestTimeoutError):
            with session:
                pass
        assert session.is_closed


def test_leaving_responses_is_leaving_a_with_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backtest_sync.session.GRACEFUL_CLOSE_LIMIT", 0.02)

    def script(peer: Peer) -> None:
        peer.send(slot(100))
        peer.until_gone()

    with session_with(script) as session:
        for _ in session.responses():
            break
        assert session.is_closed


def test_an_error_in_the_body_of_responses_is_what_is_raised() -> None:
    with session_with(lambda peer: peer.reset()) as session:
        with pytest.raises(SessionClosedError):
            for _ in session.responses():
                pass
        assert session.is_closed


def test_a_close_among_threads_that_read_gets_its_answer() -> None:
    """Whoever is quicker, the answer to the close reaches the one who closes; and everybody leaves."""

    def script(peer: Peer) -> None:
        over = threading.Event()
        writer, failed = in_thread(lambda: flood(peer, over))
        peer.expect("closeBacktestSession")
        over.set()
        outcome(writer, failed)
        peer.send(slot(1), SUCCESS, slot(2))

    def flood(peer: Peer, over: threading.Event) -> None:
        while not over.is_set():
            peer.send(*[slot(n) for n in range(20)])

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for count in range(0, 400, 20):
            with session_with(script) as session:
                workers = [in_thread(lambda s=session: [*s]) for _ in range(3)]
                until(lambda s=session, n=count: s._driver.slots >= n)
                session.close(10.0)
                for worker in workers:
                    assert isinstance(outcome(*worker), (SessionClosedError, list))
    finally:
        sys.setswitchinterval(interval)
