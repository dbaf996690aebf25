"""Parallel runs: one control connection, a sub-session for each bundle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backtest_sync.local import LocalSimulator
from tests.local import small
from tests.local.peer import Peer

START, END = small.FIRST, small.LAST
ALL = 2**64 - 1
PIECES = [(1000, 1099), (1100, 1199), (1200, 1299)]


@pytest.fixture(scope="module")
def simulator(small_bundle: Path) -> Iterator[LocalSimulator]:
    with LocalSimulator(small_bundle) as running:
        yield running


class Run:
    """A parallel run as its client sees it: per sub-session the events, with their numbers."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.control = ""
        self.sessions: list[str] = []
        self.ranges: list[tuple[int, int]] = []
        self.events: dict[str, list[tuple[int, dict[str, Any]]]] = {}

    def create(self, start: int = START, end: int = END, **params: Any) -> Run:
        create = {"startSlot": start, "endSlot": end, "parallel": True, **params}
        self.peer.send("createBacktestSession", create)
        announced = []
        while (message := self.take())["method"] != "sessionsCreatedV2":
            if message["method"] == "sessionCreated":
                announced.append(message["params"]["session_id"])
        params = message["params"]
        self.control = params["control_session_id"]
        self.sessions = params["session_ids"]
        self.ranges = list(zip(params["start_slots"], params["end_slots"], strict=True))
        assert announced == self.sessions
        return self

    def take(self) -> dict[str, Any]:
        message = self.peer.next()
        self.note(message)
        return message

    def note(self, message: dict[str, Any]) -> None:
        if message["method"] == "sessionEventV2":
            params = message["params"]
            events = self.events.setdefault(params["session_id"], [])
            events.append((params["seq_id"], params["event"]))

    def until(self, session_id: str, method: str) -> dict[str, Any]:
        """The next event of that method of that sub-session, which was not waited for yet."""
        taken = len(self.events.get(session_id, []))
        while True:
            for _, event in self.events.get(session_id, [])[taken:]:
                if event["method"] == method:
                    return event
            taken = len(self.events.get(session_id, []))
            assert self.take()["method"] != "error", self.peer.seen[-1]

    def ready(self) -> Run:
        for session_id in self.sessions:
            if not any(e["method"] == "readyForContinue" for _, e in self.of(session_id)):
                self.until(session_id, "readyForContinue")
        return self

    def of(self, session_id: str) -> list[tuple[int, dict[str, Any]]]:
        return self.events.get(session_id, [])

    def slots(self, session_id: str) -> list[int]:
        return [e["params"] for _, e in self.of(session_id) if e["method"] == "slotNotification"]

    def go(self, session_id: str, count: int = ALL) -> None:
        request = {"advanceCount": count, "transactions": [], "modifyAccountStates": {}}
        self.peer.send("continueSessionV1", {"sessionId": session_id, "request": request})


@pytest.fixture
def run(simulator: LocalSimulator) -> Iterator[Run]:
    with Peer(simulator.url) as peer:
        yield Run(peer)


def test_a_sub_session_for_each_bundle(run: Run) -> None:
    run.create()
    assert run.ranges == PIECES
    assert run.control.startswith("parallel_")


@pytest.mark.parametrize(
    ("start", "end", "pieces"),
    [
        (1000, 1050, [(1000, 1050)]),
        (1050, 1150, [(1000, 1099), (1100, 1150)]),
        (1150, 1210, [(1100, 1199), (1200, 1210)]),
    ],
)
def test_the_range_is_anchored_and_cut(
    run: Run, start: int, end: int, pieces: list[tuple[int, int]]
) -> None:
    run.create(start, end)
    assert run.ranges == pieces


@pytest.mark.parametrize(("start", "end"), [(1, 1050), (1000, 1300)])
def test_a_range_that_is_not_covered(run: Run, start: int, end: int) -> None:
    create = {"startSlot": start, "endSlot": end, "parallel": True}
    run.peer.send("createBacktestSession", create)
    assert run.peer.error() == {"bundleNotFound": {"start_slot": start, "end_slot": end}}


def test_sub_sessions_run_beside_each_other_to_their_ends(run: Run) -> None:
    run.create(sendSummary=True).ready()
    for session_id in reversed(run.sessions):
        run.go(session_id)
    for session_id in run.sessions:
        if not any(e["method"] == "completed" for _, e in run.of(session_id)):
            run.until(session_id, "completed")
    for session_id, (start, end) in zip(run.sessions, PIECES, strict=True):
        assert run.slots(session_id) == small.produced(start, end)
        sequences = [sequence for sequence, _ in run.of(session_id)]
        assert sequences == list(range(1, len(sequences) + 1))
        assert "summary" in run.of(session_id)[-1][1]["params"]
    run.peer.send("closeBacktestSession")
    assert run.peer.next() == {"method": "success"}


def test_one_may_pause_while_another_is_closed(run: Run) -> None:
    first, second, third = run.create().ready().sessions
    run.peer.send("closeSessionV1", {"sessionId": first})
    run.until(first, "success")
    run.go(first)
    assert run.peer.error() == {"sessionNotFound": {"session_id": first}}
    request = {"slot": 1103, "batchIndex": 1}
    run.peer.send("continueToSessionV1", {"sessionId": second, "request": request})
    assert run.until(second, "paused")["params"] == request
    run.go(third, 2)
    run.until(third, "readyForContinue")
    assert run.slots(third) == small.produced(*PIECES[2])[:3]


def test_what_is_refused_is_the_sub_sessions_error(run: Run) -> None:
    session_id = run.create().ready().sessions[1]
    run.peer.send(
        "continueSessionV1", {"sessionId": session_id, "request": {"transactions": ["!"]}}
    )
    error = run.until(session_id, "error")["params"]
    assert error["invalidTransactionEncoding"]["index"] == 0


def test_a_sub_session_is_not_attached_by_itself(simulator: LocalSimulator, run: Run) -> None:
    session_id = run.create().sessions[0]
    with Peer(simulator.url) as other:
        other.send("attachBacktestSession", {"session_id": session_id})
        assert "attachParallelControlSessionV2" in other.error()["invalidRequest"]["error"]


def test_a_lost_run_is_attached_and_goes_on_without_a_resume(
    simulator: LocalSimulator, run: Run
) -> None:
    run.create().ready()
    for session_id in run.sessions:
        run.go(session_id)
    for session_id in run.sessions:  # each has got its continue
        while len(run.slots(session_id)) < 2:
            run.take()
    seen = len(run.peer.seen)
    run.peer.abort()
    for message in run.peer.seen[seen:]:
        run.note(message)
    cursors = {session_id: len(run.of(session_id)) for session_id in run.sessions}
    with Peer(simulator.url) as peer:
        again = Run(peer)
        again.control, again.sessions = run.control, run.sessions
        attach = {"control_session_id": run.control, "last_sequences": cursors}
        peer.send("attachParallelControlSessionV2", attach)
        while "sessionOwnershipBusy" in (message := again.take()).get("params", {}):
            peer.send("attachParallelControlSessionV2", attach)
        assert message["params"]["session_ids"] == run.sessions
        for session_id in run.sessions:
            events = [*run.of(session_id), *again.of(session_id)]
            if not any(e["method"] == "completed" for _, e in events):
                again.until(session_id, "completed")
    for session_id, piece in zip(run.sessions, PIECES, strict=True):
        assert run.slots(session_id) + again.slots(session_id) == small.produced(*piece)
        numbers = [number for number, _ in [*run.of(session_id), *again.of(session_id)]]
        assert numbers == list(range(1, len(numbers) + 1))


def test_unknown_runs_and_cursors(run: Run) -> None:
    unknown = "parallel_" + "0" * 32
    attach = {"control_session_id": unknown}
    run.peer.send("attachParallelControlSessionV2", attach)
    assert run.peer.error() == {"sessionNotFound": {"session_id": unknown}}


def test_a_named_run_is_reclaimed_by_its_token(simulator: LocalSimulator, run: Run) -> None:
    names = {"name": "par-run", "createToken": "aa" * 16}
    run.create(**names).ready()
    run.peer.abort()
    with Peer(simulator.url) as peer:
        again = Run(peer).create(**names).ready()
        assert again.sessions == run.sessions
        assert again.control == run.control
        assert again.peer.seen[0]["params"]["session_name"] == "par-run"
        assert [again.slots(s) for s in again.sessions] == [[1000], [1100], [1200]]


def test_twenty_sub_sessions_in_one_process(simulator: LocalSimulator) -> None:
    peers = [Peer(simulator.url) for _ in range(20)]
    for peer in peers:
        peer.__enter__()
    try:
        for peer in peers:
            peer.create(START, END)
        for peer in peers:
            peer.send("continue", {"advanceCount": ALL})
        for peer in peers:
            peer.until("completed")
            slots = [m["params"] for m in peer.seen if m["method"] == "slotNotification"]
            assert slots == small.produced()
    finally:
        for peer in peers:
            peer.__exit__(None, None, None)
