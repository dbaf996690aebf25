"""A session held against a small model of what each method consumes, over random messages and calls.

Nothing waits here: where a call would have to, the connection raises `Dry`, as Ctrl-C would, and the
session must go on from there as the model does.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from typing import Any

from attrs import define, field
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from backtest_sync import (
    AdvanceState,
    BacktestSession,
    Continue,
    DeserializeError,
    DiscoveryPause,
    RemoteError,
    SessionClosedError,
    UnexpectedResponseError,
)
from backtest_sync.channel import Channel
from backtest_sync.limits import Deadline
from backtest_sync.protocol import (
    Completed,
    ContinueTo,
    DiscoveryBatch,
    ErrorResponse,
    Paused,
    ReadyForContinue,
    Response,
    SessionCreated,
    SlotNotification,
    StatusResponse,
    Success,
    decode_response,
)
from tests.support.scripted import sid
from tests.support.sessions import (
    COMPLETED,
    READY,
    SUCCESS,
    discovery,
    error,
    numbered,
    paused,
    slot,
    status,
)

ALL_SLOTS = 2**64 - 1
Message = dict[str, Any]


class Dry(BaseException):
    """Nothing has come that could be handed over."""


class End(Exception):
    """The stream is over."""


BAD: Message = {"method": "slotNotification", "params": "no number"}
SMALL = st.integers(100, 102)
BATCH = st.integers(0, 1)

statuses = st.sampled_from(["decodedTransactions", "executedBlockTransactions", "newer"]).map(
    status
)
pauses = st.builds(paused, SMALL, st.none() | BATCH)
discoveries = st.builds(discovery, SMALL, BATCH)
oddities = st.sampled_from(
    [
        error("simulationError", error="x"),
        error("invalidRequest", error="x"),
        error("clerkError", error="x"),
        error("noMoreBlocks"),
        {"method": "newer", "params": {}},
        SUCCESS,
        BAD,
    ]
)
#: What comes on the way of any call.
passing = st.lists(SMALL.map(slot) | statuses | discoveries, max_size=3)
batches = st.lists(
    st.one_of(SMALL.map(slot), statuses, st.just(READY), pauses, discoveries, oddities), max_size=5
)


class Wire:
    """The connection: chunks, and what the server says to each request that starts something."""

    end = None

    def __init__(self) -> None:
        self.chunks: deque[list[bytes]] = deque()
        self.replies: deque[list[bytes]] = deque()
        self.sent: list[Any] = []

    @property
    def has_more(self) -> bool:
        return bool(self.chunks)

    def send(self, text: str, _: Deadline, gone: list[int] | None) -> None:
        self.sent.append(json.loads(text))
        if self.replies:
            self.chunks.append(self.replies.popleft())

    def receive(self, _: Deadline, stopped: Callable[[], bool], into: deque[bytes]) -> list[bytes]:
        if self.chunks:
            into.extend(self.chunks[0])
            return self.chunks.popleft()
        if stopped():
            return []
        raise Dry

    def wake(self) -> None:
        pass

    def rename(self, name: str) -> None:
        pass

    def abort(self) -> None:
        pass


@define
class Item:
    seq: int | None
    response: Response | None  # None: it can't be read
    early: bool = False


@define
class Model:
    """What should come of it, as plainly as possible."""

    wire: deque[Item] = field(factory=deque)
    kept: deque[Item] = field(factory=deque)
    replies: deque[list[Item]] = field(factory=deque)
    sent: list[Any] = field(factory=list)
    events: list[Response] = field(factory=list)  # as `on_event` should have seen them
    ready: bool = False
    completed: bool = False
    slots: list[int] = field(factory=list)
    statuses: int = 0
    handed: int | None = None  # the highest sequence
    spent: tuple[int, int] | None = None
    stepped: bool = False
    over: bool = False  # whether the last slot has run whole
    goal: ContinueTo | None = None
    place: Paused | None = None

    # --- what comes and goes

    def take(self) -> Item:
        if not self.wire:
            raise End if self.completed else Dry
        item = self.wire.popleft()
        if item.response is None:
            raise DeserializeError("", "")
        if item.seq is not None:
            self.handed = max(self.handed or 0, item.seq)
        return item

    def note(self, response: Response) -> None:
        if isinstance(response, SlotNotification):
            self.slots.append(response.slot)
        elif isinstance(response, StatusResponse):
            self.statuses += 1
        elif isinstance(response, Completed):
            self.completed = True

    def apply(self, response: Response) -> None:
        if isinstance(response, Paused):
            self.ready, self.place, self.over = True, response, response.batch_index is None
        elif isinstance(response, ReadyForContinue):
            self.ready, self.over = True, self.stepped
        elif isinstance(response, Completed):
            self.ready = False
        elif isinstance(response, ErrorResponse) and response.error.kind == "invalidRequest":
            self.goal = None
            if self.spent == (len(self.slots), self.statuses):
                self.ready = True

    def send(self, request: Any) -> None:
        self.spent = (len(self.slots), self.statuses) if self.ready else None
        self.ready, self.stepped, self.place = False, True, None
        self.goal = request if isinstance(request, ContinueTo) else None
        stale = (ReadyForContinue, Paused)
        self.wire = deque(
            item for item in self.wire if not (item.early and isinstance(item.response, stale))
        )
        self.say(request.method)

    def say(self, method: str) -> None:
        self.sent.append(method)
        if self.replies:
            self.wire.extend(self.replies.popleft())

    def consume(self) -> Response:
        """What every waiting method does with each response."""
        item = self.take()
        response = item.response
        assert response is not None
        self.note(response)
        self.apply(response)
        if isinstance(response, DiscoveryBatch):
            self.kept.append(item)
        self.events.append(response)
        raise_failure(response)
        return response

    @property
    def last_sequence(self) -> int | None:
        waiting = [item.seq for item in self.kept if item.seq is not None]
        waiting += [item.seq for item in self.wire if item.early and item.seq is not None]
        if waiting and self.handed is not None:
            return min(self.handed, min(waiting) - 1)
        return self.handed

    # --- the methods

    def next_response(self) -> Response | None:
        if self.kept:
            item = self.kept.popleft()
        else:
            try:
                item = self.take()
            except End:
                return None
        assert item.response is not None
        self.note(item.response)
        return item.response

    def next_event(self) -> Response | None:
        response = self.next_response()
        if response is not None:
            self.apply(response)
        return response

    def ensure_ready(self) -> str:
        while not (self.ready or self.completed):
            self.consume()
        return "completed" if self.completed else "ready"

    def wait_for_status(self, name: str) -> None:
        while True:
            response = self.consume()
            if isinstance(response, StatusResponse) and response.status == name:
                return
            if isinstance(response, Completed):
                raise UnexpectedResponseError("", response)

    def advance_step(self) -> None:
        if isinstance(response := self.consume(), Paused):
            raise UnexpectedResponseError("", response)

    def catch_up(self) -> None:
        while self.wire and not self.completed:
            self.consume()

    def step(self, count: int, every_slot: bool) -> tuple[list[int], bool]:
        slots: list[int] = []
        self.ensure_ready()
        self.catch_up()
        if self.completed:
            return [], True
        self.send(Continue(count))
        was_ready = False
        while True:
            response = self.consume()
            if isinstance(response, Paused):
                raise UnexpectedResponseError("", response)
            if isinstance(response, SlotNotification):
                slots.append(response.slot)
            was_ready = was_ready or isinstance(response, ReadyForContinue)
            if self.completed or (was_ready and not (every_slot and len(slots) < count)):
                return slots, self.completed

    def run(self, count: int) -> bool:
        while self.ensure_ready() == "ready":
            self.step(count, False)
        return True

    def continue_to(self, target: ContinueTo) -> Paused:
        self.ensure_ready()
        place = self.pause_at(target)
        if place is None:
            raise UnexpectedResponseError("", None)
        return place

    def pause_at(self, target: ContinueTo) -> Paused | None:
        self.catch_up()
        if self.goal not in (None, target):
            self.ensure_ready()
        if self.completed:
            return None
        if self.goal != target:
            self.send(target)
        while self.place is None:
            self.consume()
            if self.completed:
                return None
        self.goal = None
        return self.place

    def advance_to_discovery(self, offset: int) -> DiscoveryPause | None:
        while True:
            while self.kept:
                found = self.kept.popleft()
                if self.lies_ahead(found.response, offset):
                    return self.pause_for(found, offset)
            self.catch_up()
            if self.kept:
                continue
            if self.completed:
                return None
            if self.ready:
                self.send(Continue(ALL_SLOTS))
            awaited = (DiscoveryBatch, ReadyForContinue, Paused, Completed)
            while not isinstance(self.consume(), awaited):
                pass

    def pause_for(self, found: Item, offset: int) -> DiscoveryPause | None:
        batch = found.response
        assert isinstance(batch, DiscoveryBatch)
        try:
            place = self.pause_at(ContinueTo(batch.slot, batch.batch_index + offset))
        except RemoteError:
            raise
        except BaseException:
            self.kept.appendleft(found)
            raise
        return None if place is None else DiscoveryPause(batch, place)

    def lies_ahead(self, batch: Any, offset: int) -> bool:
        at = self.place
        if at is not None and at.batch_index is not None and batch.slot == at.slot:
            return bool(batch.batch_index + offset >= at.batch_index)
        if not self.slots:
            return True
        return bool(batch.slot > self.slots[-1] - (not self.over))

    def resume(self) -> None:
        self.say("resumeAttachedSession")
        early: list[Item] = []
        heard = False
        try:
            while not isinstance((item := self.take()).response, Success):
                heard = heard or isinstance(item.response, (ReadyForContinue, Paused))
                raise_failure(item.response)
                early.append(item)
        finally:
            self.wire.extendleft(reversed([Item(i.seq, i.response, early=True) for i in early]))
        self.ready = self.ready or heard


def raise_failure(response: Response | None) -> None:
    if isinstance(response, ErrorResponse) and response.error.kind != "simulationError":
        raise RemoteError(response.error)


def outcome(call: Callable[[], Any]) -> Any:
    """What a call gives, or the class of what it raises."""
    try:
        return call()
    except (
        Dry,
        End,
        RemoteError,
        SessionClosedError,
        UnexpectedResponseError,
        DeserializeError,
    ) as e:
        return SessionClosedError if isinstance(e, End) else type(e)


class SessionMachine(RuleBasedStateMachine):
    """The same messages and calls for both."""

    @initialize(numbered=st.booleans())
    def begin(self, numbered: bool) -> None:
        self.seq = 0 if numbered else None
        self.over = False
        self.wire, self.model = Wire(), Model()
        self.seen: list[Response] = []
        self.session = BacktestSession(
            Channel(self.wire),  # type: ignore[arg-type]
            SessionCreated(sid(1), "http://rpc"),
            rpc_endpoint="http://rpc",
            ready=False,
            request_timeout=None,
            ssl_context=None,
        )

    def made(self, batch: list[Message]) -> tuple[list[bytes], list[Item]]:
        """Messages for both; none after the one that says that all is over."""
        texts, items = [], []
        for message in batch:
            if self.over:
                break
            self.over = message is COMPLETED
            if self.seq is not None:
                self.seq += 1
            texts.append(json.dumps(numbered(message, self.seq)).encode())
            response = None if message is BAD else decode_response(texts[-1])[1]
            items.append(Item(self.seq, response))
        return texts, items

    # --- the server

    def arrive(self, batch: list[Message]) -> None:
        texts, items = self.made(batch)
        if texts:
            self.wire.chunks.append(texts)
        self.model.wire.extend(items)

    def answer(self, batch: list[Message]) -> None:
        texts, items = self.made(batch)
        if texts:
            self.wire.replies.append(texts)
            self.model.replies.append(items)

    def asked_first(self) -> bool:
        """Whether something is prepared that has to be said before: it says things in order."""
        return bool(self.model.replies)

    @precondition(lambda self: not self.asked_first())
    @rule(batch=batches)
    def arrives(self, batch: list[Message]) -> None:
        self.arrive(batch)

    @precondition(lambda self: not self.asked_first())
    @rule(batch=passing, paused_at=st.none() | pauses, more=passing)
    def gets_ready(
        self, batch: list[Message], paused_at: Message | None, more: list[Message]
    ) -> None:
        self.arrive([*batch, paused_at or READY, *more])

    @rule(batch=passing, more=passing)
    def will_step(self, batch: list[Message], more: list[Message]) -> None:
        self.answer([*batch, slot(101), READY, *more])

    @rule(batch=passing, found=st.lists(discoveries, max_size=2), paused_at=pauses)
    def will_pause(self, batch: list[Message], found: list[Message], paused_at: Message) -> None:
        self.answer([*batch, *found, paused_at])

    @rule(batch=batches)
    def will_answer(self, batch: list[Message]) -> None:
        self.answer(batch)

    @rule(batch=batches)
    def will_acknowledge(self, batch: list[Message]) -> None:
        self.answer([*batch, SUCCESS])

    @rule(batch=passing)
    def will_refuse(self, batch: list[Message]) -> None:
        self.answer([*batch, error("invalidRequest", error="x")])

    @precondition(lambda self: len(self.model.sent) > 2)
    @rule(batch=passing)
    def will_complete(self, batch: list[Message]) -> None:
        self.answer([*batch, COMPLETED])

    # --- the calls

    def both(self, real: Callable[[], Any], modelled: Callable[[], Any]) -> None:
        expected, got = outcome(modelled), outcome(real)
        assert got == expected, f"{got} instead of {expected}"

    @rule()
    def next_response(self) -> None:
        self.both(self.session.next_response, self.model.next_response)

    @rule()
    def next_event(self) -> None:
        self.both(self.session.next_event, self.model.next_event)

    @rule()
    def ensure_ready(self) -> None:
        self.both(
            lambda: self.session.ensure_ready(on_event=self.seen.append).value,
            self.model.ensure_ready,
        )

    @rule(name=st.sampled_from(["decodedTransactions", "newer"]))
    def wait_for_status(self, name: str) -> None:
        self.both(
            lambda: self.session.wait_for_status(name, on_event=self.seen.append),
            lambda: self.model.wait_for_status(name),
        )

    @rule()
    def advance_step(self) -> None:
        self.both(
            lambda: self.session.advance_step(AdvanceState(), False, on_event=self.seen.append),
            self.model.advance_step,
        )

    @rule(count=st.integers(1, 3))
    def send_continue(self, count: int) -> None:
        self.session.send_continue(count)
        self.model.send(Continue(count))

    @rule(count=st.integers(1, 3), every_slot=st.booleans())
    def step(self, count: int, every_slot: bool) -> None:
        def real() -> Any:
            advance = self.session.advance if every_slot else self.session.continue_until_ready
            result = advance(count, on_event=self.seen.append)
            assert result.last_slot == (
                self.session._driver._last_slot if result.slot_notifications else None
            )
            return result.slot_notifications, result.completed

        def modelled() -> Any:
            slots, completed = self.model.step(count, every_slot)
            return len(slots), completed

        self.both(real, modelled)

    @rule(count=st.integers(1, 3))
    def run_on(self, count: int) -> None:
        self.both(
            lambda: self.session.run(count, on_event=self.seen.append).completed,
            lambda: self.model.run(count),
        )

    @rule(at=SMALL, batch=st.none() | BATCH, answered=st.booleans(), before=passing)
    def continue_to(
        self, at: int, batch: int | None, answered: bool, before: list[Message]
    ) -> None:
        if answered and not self.asked_first():
            if not self.model.ready:
                self.arrive([READY])
            self.answer([*before, paused(at, batch)])
        self.both(
            lambda: self.session.continue_to(at, batch, on_event=self.seen.append),
            lambda: self.model.continue_to(ContinueTo(at, batch)),
        )

    @rule(offset=BATCH, at=SMALL, batch=BATCH, found=st.booleans(), pauses=st.booleans())
    def advance_to_discovery(
        self, offset: int, at: int, batch: int, found: bool, pauses: bool
    ) -> None:
        if found and not self.asked_first():
            self.arrive([discovery(at, batch)])
            if pauses:
                self.answer([slot(at), paused(at, batch + offset)])
        before = len(self.model.events)
        self.both(
            lambda: self.session.advance_to_discovery(offset=offset),
            lambda: self.model.advance_to_discovery(offset),
        )
        self.seen += self.model.events[before:]  # nobody is told of these

    @rule()
    def resume(self) -> None:
        self.both(self.session.resume_attached_session, self.model.resume)

    # --- what always holds

    @invariant()
    def they_agree(self) -> None:
        session, model = self.session, self.model
        assert self.seen == model.events
        assert session.is_ready_for_continue == model.ready
        assert session.is_completed == model.completed
        assert session.coverage.highest_slot_seen == max(model.slots, default=None)
        assert session.last_sequence == model.last_sequence
        assert [request["method"] for request in self.wire.sent] == model.sent


TestSessionMachine = SessionMachine.TestCase
TestSessionMachine.settings = settings(max_examples=300, stateful_step_count=25, deadline=None)
