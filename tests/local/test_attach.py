"""Losing the control connection and coming back: replay, resume, ownership, time-outs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from backtest_sync.local import LocalSimulator, session
from tests.local import small
from tests.local.peer import Peer, slots

START, END = small.FIRST, small.LAST
ALL = 2**64 - 1
KEPT = {"disconnectTimeoutSecs": 60}


@pytest.fixture(scope="module")
def simulator(small_bundle: Path) -> Iterator[LocalSimulator]:
    with LocalSimulator(small_bundle) as running:
        yield running


def attach(peer: Peer, session_id: str, last_sequence: int | None) -> None:
    peer.send("attachBacktestSession", {"session_id": session_id, "last_sequence": last_sequence})
    while (message := peer.next())["method"] != "sessionAttached":
        # the server may not have seen the end of the former connection yet
        assert "sessionOwnershipBusy" in message["params"], message
        peer.send(
            "attachBacktestSession", {"session_id": session_id, "last_sequence": last_sequence}
        )
    assert message["params"]["session_id"] == session_id


def sequences(peer: Peer) -> list[int]:
    return [message["seqId"] for message in peer.seen if "seqId" in message]


def test_a_session_with_a_timeout_numbers_its_responses(simulator: LocalSimulator) -> None:
    with Peer(simulator.url) as peer:
        peer.create(START, END, **KEPT)
        peer.advance(3)
        assert sequences(peer) == list(range(1, len(peer.seen) + 1))


def test_what_was_missed_comes_again_and_nothing_else(simulator: LocalSimulator) -> None:
    with Peer(simulator.url) as first:
        session_id = first.create(START, END, **KEPT)
        first.advance(3)
        cursor = first.seen[-4]["seqId"]
        missed = first.seen[-3:]
    with Peer(simulator.url) as second:
        attach(second, session_id, cursor)
        assert [second.next() for _ in range(3)] == missed
        second.send("resumeAttachedSession")
        assert second.next() == {"method": "success"}
        assert slots(second.advance(2)) == small.produced()[4:6]


def test_without_a_cursor_everything_kept_comes_again(simulator: LocalSimulator) -> None:
    with Peer(simulator.url) as first:
        session_id = first.create(START, END, **KEPT)
        first.advance(3)
        # the answer to the creation is not among it: it was an answer
        kept = first.seen[1:]
    with Peer(simulator.url) as second:
        attach(second, session_id, None)
        assert [second.next() for _ in kept] == kept


def test_a_continue_that_ran_when_the_connection_was_lost_goes_on_after_the_resume(
    simulator: LocalSimulator,
) -> None:
    with Peer(simulator.url) as first:
        session_id = first.create(START, END, **KEPT)
        first.send("continue", {"advanceCount": ALL})
        first.until("slotNotification")
        cursor = first.abort()
    with Peer(simulator.url) as second:
        attach(second, session_id, cursor)
        second.send("resumeAttachedSession")
        messages = second.until("completed")
        assert sequences(second) == list(range(cursor + 1, second.seen[-1]["seqId"] + 1))
    assert slots(first.seen) + slots(messages) == small.produced()


def test_who_waited_for_nothing_is_told_again_that_the_session_is_ready(
    simulator: LocalSimulator,
) -> None:
    """A continue may have been lost with the connection: nobody would ever go on."""
    with Peer(simulator.url) as first:
        session_id = first.create(START, END, **KEPT)
        cursor = first.seen[-1]["seqId"]
    with Peer(simulator.url) as second:
        attach(second, session_id, cursor)
        second.send("resumeAttachedSession")
        assert second.next() == {"method": "success"}
        assert second.next() == {"seqId": cursor + 1, "method": "readyForContinue"}


def test_readiness_that_is_replayed_is_not_said_twice(simulator: LocalSimulator) -> None:
    with Peer(simulator.url) as first:
        session_id = first.create(START, END, **KEPT)
        cursor = first.seen[-2]["seqId"]
    with Peer(simulator.url) as second:
        attach(second, session_id, cursor)
        second.send("resumeAttachedSession")
        second.until("readyForContinue")
        messages = second.advance()
        assert [m["method"] for m in messages].count("readyForContinue") == 1


def test_at_most_the_last_hundred_slots_are_kept(simulator: LocalSimulator) -> None:
    with Peer(simulator.url) as first:
        session_id = first.create(START, END, **KEPT)
        first.advance(150)
    with Peer(simulator.url) as second:
        attach(second, session_id, None)
        replayed = second.until("readyForContinue")
        assert slots(replayed) == small.produced()[51:151]


def test_a_session_does_not_run_away_from_a_client_that_reads_nothing(
    simulator: LocalSimulator,
) -> None:
    """However long it reads nothing, all that it did not receive is still kept."""
    with Peer(simulator.url, max_queue=1) as first:
        session_id = first.create(START, END, **KEPT)
        first.send("continue", {"advanceCount": ALL})
        # more than are kept: only a client that reads gets them
        while not slots(first.seen) or slots(first.seen)[-1] < small.produced()[150]:
            first.next()
        cursor = first.abort()
    with Peer(simulator.url) as second:
        attach(second, session_id, cursor)
        second.send("resumeAttachedSession")
        again = second.until("completed")
    assert slots(first.seen) + slots(again) == small.produced()


def test_a_session_that_is_attached_is_busy_until_its_connection_is_dead(
    simulator: LocalSimulator,
) -> None:
    with Peer(simulator.url) as first, Peer(simulator.url) as second:
        session_id = first.create(START, END, **KEPT)
        second.send("attachBacktestSession", {"session_id": session_id})
        assert session_id in second.error()["sessionOwnershipBusy"]["reason"]
        assert slots(first.advance()) == [START + 2]


def test_a_connection_that_hangs_loses_its_session(simulator: LocalSimulator) -> None:
    with Peer(simulator.url) as first:
        session_id = first.create(START, END, **KEPT)
        simulator.faults.freeze()
        with Peer(simulator.url) as second:
            attach(second, session_id, first.seen[-1]["seqId"])
            second.send("resumeAttachedSession")
            second.until("readyForContinue")
        with pytest.raises(ConnectionClosed):
            first.next()


def test_after_a_handoff_the_session_waits_for_the_resume(simulator: LocalSimulator) -> None:
    with Peer(simulator.url) as first:
        session_id = first.create(START, END, **KEPT)
        simulator.faults.drop("close")
        with pytest.raises(ConnectionClosed) as closed:
            first.next()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1012, "management handoff")
    with Peer(simulator.url) as second:
        attach(second, session_id, first.seen[-1]["seqId"])
        second.send("continue", {})
        assert "resumeAttachedSession" in second.error()["invalidRequest"]["error"]
        second.send("resumeAttachedSession")
        second.until("readyForContinue")
        assert slots(second.advance()) == [START + 2]


def test_a_session_that_nobody_comes_back_to_ends_after_its_timeout(
    simulator: LocalSimulator,
) -> None:
    with Peer(simulator.url) as first:
        session_id = first.create(START, END, disconnectTimeoutSecs=1)
    with connect(f"{simulator.url}/{session_id}") as endpoint, pytest.raises(ConnectionClosed):
        endpoint.recv(timeout=20)  # its streams end with it
    with Peer(simulator.url) as second:
        second.send("attachBacktestSession", {"session_id": session_id})
        assert second.error() == {"sessionNotFound": {"session_id": session_id}}


def test_the_timeout_is_clamped() -> None:
    assert session.MAX_DISCONNECT_TIMEOUT == 900


def test_a_forgotten_session_is_not_found(simulator: LocalSimulator) -> None:
    with Peer(simulator.url) as peer:
        session_id = peer.create(START, END, **KEPT)
        assert simulator.faults.forget(session_id)
        assert not simulator.faults.forget(session_id)
        peer.send("continue", {})
        assert peer.error() == {"sessionNotFound": {"session_id": session_id}}
        peer.send("attachBacktestSession", {"session_id": session_id})
        assert peer.error() == {"sessionNotFound": {"session_id": session_id}}


def test_a_cursor_that_was_never_given_out_is_refused(simulator: LocalSimulator) -> None:
    with Peer(simulator.url) as first:
        session_id = first.create(START, END, **KEPT)
    with Peer(simulator.url) as second:
        while True:
            second.send("attachBacktestSession", {"session_id": session_id, "last_sequence": 1000})
            error = second.error()
            if "invalidRequest" in error:
                break
        assert "last_sequence 1000" in error["invalidRequest"]["error"]


def test_an_error_that_was_lost_on_its_way_comes_again(simulator: LocalSimulator) -> None:
    with Peer(simulator.url) as first:
        session_id = first.create(START, END, **KEPT)
        cursor = first.seen[-1]["seqId"]
        first.send("continue", {"transactions": ["!"]})
        error = first.error()
    with Peer(simulator.url) as second:
        attach(second, session_id, cursor)
        assert second.error() == error
