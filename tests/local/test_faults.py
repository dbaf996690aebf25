"""Faults on demand: each kind by itself, and runs that go on under a seeded schedule."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import connect

from backtest_sync.errors import InvalidParamsError
from backtest_sync.local import LocalSimulator
from tests.local import small
from tests.local.peer import Peer, slots
from tests.local.survivor import Survivor

START, END = small.FIRST, small.LAST
ALL = 2**64 - 1


@pytest.fixture(scope="module")
def running(small_bundle: Path) -> Iterator[LocalSimulator]:
    with LocalSimulator(small_bundle) as simulator:
        yield simulator


@pytest.fixture
def simulator(running: LocalSimulator) -> Iterator[LocalSimulator]:
    yield running
    running.faults.clear()


@pytest.mark.parametrize("how", ["reset", "end"])
def test_a_dropped_connection_has_no_close_frame(simulator: LocalSimulator, how: str) -> None:
    with Peer(simulator.url) as peer:
        peer.create(START, END)
        simulator.faults.drop(how)  # type: ignore[arg-type]
        with pytest.raises(ConnectionClosed) as closed:
            peer.next()
        assert closed.value.rcvd is None


def test_a_close_frame_says_what_it_is_told_to(simulator: LocalSimulator) -> None:
    with Peer(simulator.url) as peer:
        peer.create(START, END)
        simulator.faults.drop("close", code=1001, reason="going")
        with pytest.raises(ConnectionClosed) as closed:
            peer.next()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1001, "going")


def test_messages_are_counted_exactly(simulator: LocalSimulator) -> None:
    with Peer(simulator.url) as peer:
        peer.create(START, END)
        simulator.faults.drop("end", after=20)
        peer.seen.clear()
        peer.send("continue", {"advanceCount": ALL})
        with pytest.raises(ConnectionClosed):
            peer.until("completed")
        assert len(peer.seen) == 20


def test_a_frame_is_cut_in_its_middle(simulator: LocalSimulator) -> None:
    with Peer(simulator.url) as peer:
        peer.create(START, END)
        simulator.faults.cut(after=2)
        peer.seen.clear()
        peer.send("continue", {"advanceCount": 5})
        with pytest.raises(ConnectionClosed):
            peer.until("readyForContinue")
        assert len(peer.seen) == 2


def test_a_frozen_connection_goes_on_when_thawed(simulator: LocalSimulator) -> None:
    with Peer(simulator.url) as peer:
        peer.create(START, END)
        simulator.faults.freeze()
        peer.send("continue", {"advanceCount": 3})
        with pytest.raises(TimeoutError):
            peer.ws.recv(timeout=0.05)
        simulator.faults.thaw()
        assert slots(peer.until("readyForContinue")) == small.produced()[1:4]


def test_a_delayed_message_keeps_its_place(simulator: LocalSimulator) -> None:
    with Peer(simulator.url) as peer:
        peer.create(START, END)
        simulator.faults.delay(0.01, messages=3)
        assert slots(peer.advance(5)) == small.produced()[1:6]
        assert simulator.faults.fired >= 3


@pytest.mark.parametrize("how", ["reset", "cut", "status"])
def test_connects_are_refused_as_often_as_asked(simulator: LocalSimulator, how: str) -> None:
    simulator.faults.refuse(2, how)  # type: ignore[arg-type]
    for _ in range(2):
        with (
            pytest.raises((InvalidHandshake, OSError, EOFError)),
            connect(simulator.url, proxy=None),
        ):
            pass
    with Peer(simulator.url) as peer:
        peer.create(START, END)


def test_ownership_is_busy_as_often_as_asked(simulator: LocalSimulator) -> None:
    with Peer(simulator.url) as first:
        session_id = first.create(START, END, disconnectTimeoutSecs=60)
    simulator.faults.busy(2)
    with Peer(simulator.url) as second:
        for _ in range(2):
            second.send("attachBacktestSession", {"session_id": session_id})
            assert second.error()["sessionOwnershipBusy"]["reason"]


def test_the_other_kind_of_connection_is_left_alone(simulator: LocalSimulator) -> None:
    with Peer(simulator.url) as peer:
        session_id = peer.create(START, END)
        with connect(f"{simulator.url}/{session_id}") as endpoint:
            simulator.faults.drop(channel="subscriptions")
            with pytest.raises(ConnectionClosed):
                endpoint.recv(timeout=20)
        assert peer.advance()[-1]["method"] == "readyForContinue"


def test_clearing_forgets_what_was_planned(simulator: LocalSimulator) -> None:
    with Peer(simulator.url) as peer:
        peer.create(START, END)
        simulator.faults.drop(after=3)
        simulator.faults.refuse(5)
        simulator.faults.clear()
        assert peer.advance(ALL)[-1]["method"] == "completed"


@pytest.mark.parametrize(
    ("name", "arguments", "word"),
    [
        ("drop", {"how": "kindly"}, "how"),
        ("drop", {"channel": "telephone"}, "channel"),
        ("cut", {"after": -1}, "after"),
        ("freeze", {"channel": "x"}, "channel"),
        ("freeze", {"seconds": -1}, "seconds"),
        ("delay", {"seconds": -1}, "seconds"),
        ("delay", {"seconds": 1, "messages": 0}, "messages"),
        ("drop", {"how": "close", "code": 5}, "close code"),
        ("refuse", {"connects": -1}, "connects"),
        ("refuse", {"how": "politely"}, "politely"),
        ("busy", {"attaches": -1}, "attaches"),
    ],
)
def test_a_fault_that_is_none(
    simulator: LocalSimulator, name: str, arguments: dict[str, object], word: str
) -> None:
    with pytest.raises(InvalidParamsError, match=word):
        getattr(simulator.faults, name)(**arguments)


@pytest.mark.parametrize(("seed", "step"), [(1, 1), (2, 5), (3, 40), (4, ALL), (5, 1), (6, ALL)])
def test_under_a_schedule_of_faults_every_slot_comes_once_and_in_order(
    simulator: LocalSimulator, seed: int, step: int
) -> None:
    simulator.faults.chaos(seed)
    survivor = Survivor(simulator.url, START, END, step=step)
    survivor.run()
    assert survivor.slots == small.produced()
    assert simulator.faults.fired > 0


def test_a_lost_connection_at_every_message(simulator: LocalSimulator) -> None:
    """Wherever it breaks: between any two messages of a session."""
    for after in range(1, 40, 3):
        simulator.faults.drop("reset", after=after)
        survivor = Survivor(simulator.url, START, START + 9, step=2)
        survivor.run()
        assert survivor.slots == small.produced(START, START + 9)
        assert survivor.losses >= 1
