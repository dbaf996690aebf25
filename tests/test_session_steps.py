"""What counts for a step: answers to what was sent, not what had come before; and steps that were cut short."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from backtest_sync import (
    BacktestSession,
    Continue,
    DiscoveryBatch,
    InvalidParamsError,
    Paused,
    ReadyForContinue,
    RemoteError,
    RequestTimeoutError,
    SlotNotification,
)
from backtest_sync.limits import Deadline
from tests.support.connections import until
from tests.support.scripted import Peer
from tests.support.sessions import (
    COMPLETED,
    READY,
    discovery,
    error,
    paused,
    sends,
    session_with,
    slot,
    status,
)

# --- what came before does not count


def test_slots_from_before_the_session_existed_belong_to_no_step() -> None:
    def script(peer: Peer) -> None:
        peer.expect("continue")
        peer.send(slot(101), READY)

    seen: list[Any] = []
    with session_with(script, before=(slot(100), READY)) as session:
        result = session.advance(1, on_event=seen.append)
        assert (result.slot_notifications, result.last_slot) == (1, 101)
        assert session.coverage.highest_slot_seen == 101
    assert seen[0] == SlotNotification(100)


def test_a_slot_that_came_late_belongs_to_no_later_step() -> None:
    def script(peer: Peer) -> None:
        peer.send(READY)
        peer.expect("continue")
        peer.send(slot(101), READY, slot(102))
        peer.expect("continue")
        peer.send(slot(103), READY)

    with session_with(script) as session:
        assert session.continue_(2).last_slot == 101
        result = session.advance(1)
        assert (result.slot_notifications, result.last_slot) == (1, 103)


def test_readiness_that_is_told_twice_ends_no_later_step() -> None:
    def script(peer: Peer) -> None:
        peer.send(READY, READY)
        peer.expect("continue")
        peer.send(slot(101), READY)

    with session_with(script) as session:
        session.ensure_ready()
        result = session.continue_(1)
        assert (result.slot_notifications, result.last_slot) == (1, 101)


def test_a_run_that_turns_out_to_be_over_is_sent_nothing() -> None:
    received: list[Any] = []

    def script(peer: Peer) -> None:
        peer.send(READY, COMPLETED)
        received.extend(peer.until_gone())

    with session_with(script) as session:
        assert session.advance(1).completed
        assert session.continue_(1).completed
        result = session.run()
        assert (result.completed, result.continues) == (True, 0)
    assert received == []


def test_an_error_from_before_is_raised_before_anything_is_sent() -> None:
    received: list[Any] = []

    def script(peer: Peer) -> None:
        peer.send(READY, error("clerkError", error="late"))
        received.extend(peer.until_gone())

    with session_with(script) as session:
        with pytest.raises(RemoteError, match="late"):
            session.advance(1)
    assert received == []


def test_a_limit_of_a_step_counts_from_its_call() -> None:
    def script(peer: Peer) -> None:
        peer.send(READY)
        peer.expect("continueTo")
        peer.send(slot(101), status("decodedTransactions"))

    with session_with(script) as session:
        with pytest.raises(RequestTimeoutError) as caught:
            session.continue_to(105, timeout=0.03)
        assert caught.value.timeout == 0.03


# --- refusals


@pytest.mark.parametrize("by", ["events", "method"])
def test_a_refused_continue_leaves_the_session_ready(by: str) -> None:
    def script(peer: Peer) -> None:
        peer.send(READY)
        peer.expect("continue")
        peer.send(error("invalidTransactionFormat", index=0, error="no"))
        peer.expect("continue")
        peer.send(slot(101), READY)

    with session_with(script) as session:
        session.ensure_ready()
        if by == "events":
            session.send_continue(1)
            assert not session.is_ready_for_continue
            session.next_event()
        else:
            with pytest.raises(RemoteError, match="invalid transaction format"):
                session.continue_(1)
        assert session.is_ready_for_continue
        assert session.advance(1).last_slot == 101


def test_an_error_of_a_continue_that_ran_leaves_nothing_ready() -> None:
    def script(peer: Peer) -> None:
        peer.send(READY)
        peer.expect("continue")
        peer.send(slot(101), error("invalidRequest", error="of something else"))

    with session_with(script) as session:
        with pytest.raises(RemoteError):
            session.continue_(1)
        assert not session.is_ready_for_continue


# --- discoveries


def test_a_discovery_from_before_the_session_existed_is_used_first() -> None:
    def script(peer: Peer) -> None:
        assert peer.expect("continueTo") == {"slot": 100, "batchIndex": 0}
        peer.send(paused(100, 0))

    with session_with(script, before=(discovery(100), READY)) as session:
        pause = session.advance_to_discovery()
        assert pause is not None
        assert pause.paused == Paused(100, 0)


def test_a_discovery_that_arrived_with_readiness_is_used_first() -> None:
    def script(peer: Peer) -> None:
        peer.send(READY, discovery(100, 2))
        assert peer.expect("continueTo") == {"slot": 100, "batchIndex": 2}
        peer.send(paused(100, 2))

    with session_with(script) as session:
        session.ensure_ready()
        assert session.advance_to_discovery() is not None


@pytest.mark.parametrize("meanwhile", ["nothing", "ensure_ready", "next_event"])
def test_a_discovery_whose_pause_came_too_late_is_the_next_again(meanwhile: str) -> None:
    go = threading.Event()

    def script(peer: Peer) -> None:
        peer.send(discovery(101, 1), discovery(102, 2))
        assert peer.expect("continueTo") == {"slot": 101, "batchIndex": 1}
        assert go.wait(10)
        peer.send(slot(100), paused(101, 1))
        assert peer.expect("continueTo") == {"slot": 102, "batchIndex": 2}
        peer.send(slot(101), paused(102, 2))

    with session_with(script) as session:
        with pytest.raises(RequestTimeoutError):
            session.advance_to_discovery(0.02)
        go.set()
        if meanwhile == "ensure_ready":
            session.ensure_ready()
        elif meanwhile == "next_event":
            # the discoveries first, for they came first
            events = [session.next_event() for _ in range(4)]
            assert [type(event) for event in events] == [
                DiscoveryBatch,
                DiscoveryBatch,
                SlotNotification,
                Paused,
            ]
            session._channel.keep(None, events[0])  # type: ignore[arg-type]
            session._channel.keep(None, events[1])  # type: ignore[arg-type]
        first, second = session.advance_to_discovery(), session.advance_to_discovery()
        assert first is not None
        assert second is not None
        assert (first.discovery.slot, first.paused) == (101, Paused(101, 1))
        assert (second.discovery.slot, second.paused) == (102, Paused(102, 2))


def test_another_target_waits_for_the_pause_that_is_under_way() -> None:
    go = threading.Event()

    def script(peer: Peer) -> None:
        peer.send(READY)
        assert peer.expect("continueTo") == {"slot": 105, "batchIndex": None}
        assert go.wait(10)
        peer.send(slot(105), paused(105))
        assert peer.expect("continueTo") == {"slot": 107, "batchIndex": None}
        peer.send(slot(107), paused(107))
        assert peer.expect("continueTo") == {"slot": 107, "batchIndex": None}
        peer.send(paused(107))

    with session_with(script) as session:
        with pytest.raises(RequestTimeoutError):
            session.continue_to(105, timeout=0.02)
        go.set()
        assert session.continue_to(107) == Paused(107)
        assert session.continue_to(107) == Paused(107)


def test_a_discovery_that_the_server_will_not_pause_for_is_not_tried_again() -> None:
    def script(peer: Peer) -> None:
        peer.send(discovery(101, 1), discovery(102, 2))
        peer.expect("continueTo")
        peer.send(error("invalidRequest", error="too late"))
        assert peer.expect("continueTo") == {"slot": 102, "batchIndex": 2}
        peer.send(paused(102, 2))

    with session_with(script) as session:
        with pytest.raises(RemoteError, match="too late"):
            session.advance_to_discovery()
        pause = session.advance_to_discovery()
        assert pause is not None
        assert pause.discovery.slot == 102


def test_a_discovery_before_the_place_of_the_pause_is_skipped() -> None:
    def script(peer: Peer) -> None:
        peer.send(discovery(101, 1), discovery(101, 2), discovery(101, 8))
        assert peer.expect("continueTo") == {"slot": 101, "batchIndex": 6}
        peer.send(slot(101), paused(101, 6))
        assert peer.expect("continueTo") == {"slot": 101, "batchIndex": 8}
        peer.send(paused(101, 8))

    with session_with(script) as session:
        session.advance_to_discovery(offset=5)
        pause = session.advance_to_discovery()
        assert pause is not None
        assert pause.discovery.batch_index == 8


def test_an_offset_beyond_any_batch_loses_no_discovery() -> None:
    with session_with(sends(discovery(101, 5))) as session:
        with pytest.raises(InvalidParamsError, match="batch_index"):
            session.advance_to_discovery(offset=2**32 - 1)
        assert isinstance(session.next_event(), DiscoveryBatch)


def test_readiness_while_paused_is_no_other_place() -> None:
    """A server may say so again for clients that wait for it before they run on."""

    def script(peer: Peer) -> None:
        peer.send(discovery(101, 1), discovery(101, 4))
        peer.expect("continueTo")
        peer.send(slot(101), paused(101, 1), READY)
        assert peer.expect("continueTo") == {"slot": 101, "batchIndex": 4}
        peer.send(paused(101, 4), READY)
        peer.expect("continue")
        peer.send(slot(102), READY)

    with session_with(script) as session:
        assert session.advance_to_discovery() is not None
        assert session.next_response() is not None  # the other discovery, as an event
        session._channel.keep(
            None, DiscoveryBatch(slot=101, batch_index=4, matched=(), transactions=())
        )
        session.ensure_ready()
        assert session.advance_to_discovery() is not None
        assert session.continue_(1).last_slot == 102


# --- running


def test_run_tells_of_its_own_slots_alone() -> None:
    def script(peer: Peer) -> None:
        peer.send(slot(100), READY)
        peer.expect("continue")
        peer.send(slot(101), slot(101), READY)
        peer.expect("continue")
        peer.send(slot(102), READY)

    with session_with(script) as session:
        steps = iter([1, None, 1, None])
        first, second = (session.run(lambda _: next(steps)) for _ in range(2))
        assert (first.first_slot, first.last_slot, first.slots) == (100, 101, 3)
        assert (second.first_slot, second.last_slot, second.slots) == (102, 102, 1)
        third = session.run(lambda _: None)
        assert (third.first_slot, third.last_slot, third.slots, third.continues) == (
            None,
            None,
            0,
            0,
        )


def test_a_run_whose_time_is_over_sends_nothing_more() -> None:
    received: list[Any] = []

    def script(peer: Peer) -> None:
        peer.send(READY)
        received.extend(peer.until_gone())

    def late(_: BacktestSession) -> int:
        limit = Deadline(0.03)
        until(lambda: limit.expired)
        return 1

    with session_with(script) as session:
        session.ensure_ready()
        with pytest.raises(RequestTimeoutError) as caught:
            session.run(late, deadline=0.02)
        assert (caught.value.action, caught.value.timeout) == ("running", 0.02)
    assert received == []


def test_a_step_may_be_a_continue_that_advances_by_nothing() -> None:
    def script(peer: Peer) -> None:
        peer.send(READY)
        assert peer.expect("continue")["advanceCount"] == 0
        peer.send(READY)

    with session_with(script) as session:
        steps = iter([Continue(advance_count=0), None])
        assert session.run(lambda _: next(steps)).continues == 1


def test_what_a_resume_heard_of_readiness_can_be_read_and_ends_no_step() -> None:
    def script(peer: Peer) -> None:
        peer.expect("resumeAttachedSession")
        peer.send(slot(101), READY, {"method": "success"})
        peer.expect("resumeAttachedSession")
        peer.send(slot(102), READY, {"method": "success"})
        peer.expect("continue")
        peer.send(slot(103), READY)

    with session_with(script) as session:
        session.resume_attached_session()
        assert session.is_ready_for_continue
        assert session.next_event() == SlotNotification(101)
        assert session.next_event() == ReadyForContinue()
        session.resume_attached_session()
        session.send_continue(1)
        assert session.next_event() == SlotNotification(102)
        assert session.next_event() == SlotNotification(103)
        assert not session.is_ready_for_continue
        assert session.next_event() == ReadyForContinue()
