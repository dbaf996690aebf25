"""The state machines of one session: what each waiting method does with each response.

After the table of protocol/control.md §8.4, with four differences: what a method passes over is never lost
(discoveries are kept for those who ask), paused counts as ready, ``simulationError`` is an event everywhere,
and what had come before a request was sent is no answer to it.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from attrs import frozen

from backtest_sync.arguments import ALL_SLOTS
from backtest_sync.errors import (
    DeserializeError,
    RemoteError,
    SessionClosedError,
    UnexpectedResponseError,
)
from backtest_sync.handshake import OnEvent, is_failure
from backtest_sync.protocol import (
    BacktestStatus,
    CloseBacktestSession,
    Completed,
    Continue,
    ContinueTo,
    DiscoveryBatch,
    ErrorDetail,
    ErrorKind,
    ErrorResponse,
    Paused,
    ReadyForContinue,
    SessionCoverage,
    SlotNotification,
    StatusResponse,
    Success,
    UnknownResponse,
)
from backtest_sync.results import AdvanceState, DiscoveryPause, ReadyOutcome, RunResult

if TYPE_CHECKING:
    from backtest_sync.channel import Channel, Item
    from backtest_sync.limits import Deadline
    from backtest_sync.protocol import Response, SessionSummary

logger = logging.getLogger("backtest_sync")

PAUSING = "waiting for Paused after ContinueTo"
CONTINUE_ENDED = "websocket ended while awaiting continue responses"


@frozen
class Tally:
    """What had come of a session when a run began."""

    started: float
    slots: int
    continues: int
    statuses: Counter[BacktestStatus | str]


class Driver:
    """Readiness, progress and completion of a session, moved on by its channel's responses."""

    def __init__(self, channel: Channel, *, ready: bool) -> None:
        self._channel = channel
        self.ready = ready
        self.completed = False
        self.summary: SessionSummary | None = None
        self.slots = 0  # announced
        self._first_slot: int | None = None  # of the latest run
        self._last_slot: int | None = None
        self._highest = -1
        self._statuses: Counter[BacktestStatus | str] = Counter()
        self._continues = 0  # sent
        self._sent = False  # a Continue or ContinueTo
        # what had been announced when readiness was spent; None where there was none
        self._spent: tuple[int, int] | None = None
        self._slot_over = False  # the last announced slot has run whole
        self._goal: ContinueTo | None = None  # sent, and its pause not handed over yet
        self._paused: Paused | None = None  # where the session is

    # --- recording

    def apply(self, response: Response) -> None:
        """Update readiness."""
        if isinstance(response, Paused):
            self.ready = True
            self._paused = response
            self._slot_over = response.batch_index is None
        elif isinstance(response, ReadyForContinue):
            self.ready = True
            # the first readiness is before the first slot, a later one behind a slot
            self._slot_over = self._sent
        elif isinstance(response, Completed):
            self.ready = False
        elif isinstance(response, ErrorResponse):
            self._take_back(response.error)

    def _take_back(self, error: ErrorDetail) -> None:
        """A refused request did not run: the server still waits for one."""
        if error.kind in REFUSALS:
            self._goal = None
            if self._spent == self._progress():
                self.ready = True

    def _progress(self) -> tuple[int, int]:
        """A pair that changes as soon as the server has begun to do anything."""
        return self.slots, sum(self._statuses.values())

    def note(self, response: Response) -> None:
        """Record what has been handed over."""
        if type(response) is SlotNotification:
            self.note_slot(response.slot)
        elif type(response) is StatusResponse:
            self._statuses[response.status] += 1
        elif type(response) is Completed:
            self.completed = True
            self.summary = response.summary
            self._channel.complete()

    def note_slot(self, slot: int) -> None:
        """Record an announced slot."""
        self.slots += 1
        self._last_slot = slot
        if slot > self._highest:
            self._highest = slot
        if self._first_slot is None:
            self._first_slot = slot

    @property
    def coverage(self) -> SessionCoverage:
        """What was seen of the range so far."""
        highest = None if self._highest < 0 else self._highest
        return SessionCoverage(highest_slot_seen=highest, completed=self.completed)

    def begin_run(self) -> Tally:
        """From here on counts what `end_run` tells; in a session that was not stepped yet, from its start."""
        if not self._sent:
            return Tally(time.monotonic(), 0, 0, Counter())
        self._first_slot = None
        return Tally(time.monotonic(), self.slots, self._continues, self._statuses.copy())

    def end_run(self, tally: Tally) -> RunResult:
        """What came of the session since."""
        slots = self.slots - tally.slots
        return RunResult(
            completed=self.completed,
            first_slot=self._first_slot,
            last_slot=self._last_slot if slots else None,
            slots=slots,
            continues=self._continues - tally.continues,
            duration=time.monotonic() - tally.started,
            statuses={
                wire_status(status): count
                for status, count in (self._statuses - tally.statuses).items()
            },
            summary=self.summary,
            coverage=self.coverage,
        )

    # --- sending

    def send(self, request: Continue | ContinueTo, deadline: Deadline) -> None:
        """Send it; whatever readiness was there is spent, unless nothing of it went out."""
        before = self.ready, self._spent, self._sent, self._goal, self._continues, self._paused
        gone: list[int] = []
        try:
            self._spent = self._progress() if self.ready else None
            self.ready = False
            self._sent = True
            self._goal = request if isinstance(request, ContinueTo) else None
            self._continues += self._goal is None
            self._paused = None
            self._channel.send(request, deadline, gone)
        except BaseException:
            if not gone:
                self.ready, self._spent, self._sent = before[:3]
                self._goal, self._continues, self._paused = before[3:]
            raise
        self._channel.discard((ReadyForContinue, Paused))

    # --- waiting

    def events(
        self,
        deadline: Deadline,
        silence: float | None,
        on_event: OnEvent | None,
        ended: str,
    ) -> Iterator[Response]:
        """Each response as it comes: recorded, shown to ``on_event``, failures raised.

        Discoveries are also held back. The end of the stream is a `SessionClosedError` with the reason
        ``ended``.
        """
        receive = self._channel.receive
        while True:
            item = receive(deadline, silence)
            if item is None:
                raise SessionClosedError(
                    f"{ended}: the run is completed" if self.completed else ended
                )
            response = item[1]
            if type(response) is SlotNotification:  # most of them, and statuses: the short way
                self.note_slot(response.slot)
            elif type(response) is StatusResponse:
                self._statuses[response.status] += 1
            else:
                self._pass(item, on_event)
                yield response
                continue
            if on_event is not None:
                on_event(response)
            yield response

    def _pass(self, item: Item, on_event: OnEvent | None) -> None:
        response = item[1]
        try:
            self.note(response)
            self.apply(response)
        except BaseException:  # a signal handler raised: the next who waits must hear of it
            self._channel.put_before(item)
            raise
        if type(response) is DiscoveryBatch:
            self._channel.keep(item[0], response)
        if on_event is not None:
            on_event(response)
        if is_failure(response):
            raise RemoteError(response.error)

    def ensure_ready(
        self, deadline: Deadline, silence: float | None, on_event: OnEvent | None
    ) -> ReadyOutcome:
        """Wait until ready or completed."""
        if not (self.ready or self.completed):
            ended = "websocket ended while waiting for ReadyForContinue"
            for _ in self.events(deadline, silence, on_event, ended):
                if self.ready or self.completed:
                    break
        if self.completed:
            return ReadyOutcome.COMPLETED
        self._channel.check_open()  # what is closed, perhaps by `on_event`, waits for nothing
        return ReadyOutcome.READY

    def wait_for_status(
        self, wanted: BacktestStatus | str, deadline: Deadline, on_event: OnEvent | None
    ) -> None:
        """Wait until the server emits a status."""
        ended = "websocket ended while waiting for status"
        for response in self.events(deadline, None, on_event, ended):
            if isinstance(response, StatusResponse) and response.status == wanted:
                return
            if isinstance(response, Completed):
                raise UnexpectedResponseError("waiting for status", response)

    def step(
        self,
        state: AdvanceState,
        wait_for_slots: bool,
        deadline: Deadline,
        on_event: OnEvent | None,
    ) -> None:
        """Read one response into ``state``."""
        for response in self.events(deadline, None, on_event, CONTINUE_ENDED):
            apply_to(state, response)
            if wait_for_slots and type(response) is SlotNotification:
                warn_of_surplus(state)
            return

    def drive(
        self,
        cont: Continue,
        wait_for_slots: bool,
        deadline: Deadline,
        silence: float | None,
        on_event: OnEvent | None,
    ) -> AdvanceState:
        """Send a ``Continue`` and read until it is done; nothing is sent when the run is completed."""
        state = AdvanceState(cont.advance_count)
        self._catch_up(deadline, on_event)
        if self.completed:
            state.completed, state.summary = True, self.summary
            return state
        self.send(cont, deadline.sooner(silence))
        for response in self.events(deadline, silence, on_event, CONTINUE_ENDED):
            if type(response) is SlotNotification and not state.ready_for_continue:
                state.slot_notifications += 1  # most of them: the short way
                state.last_slot = response.slot
                continue
            if type(response) is StatusResponse:
                state.statuses.append(response.status)
                continue
            apply_to(state, response)
            if (state.ready_for_continue or state.completed) and state.is_done(wait_for_slots):
                break
        if wait_for_slots:
            warn_of_surplus(state)
        return state

    def _catch_up(self, deadline: Deadline, on_event: OnEvent | None) -> None:
        """Pass over what has come already: it is no answer to what is sent next."""
        while self._channel.has_more and not self.completed and not deadline.expired:
            item = self._channel.take()
            if item is None:  # another thread was quicker
                return
            self._pass(item, on_event)

    # --- pausing

    def pause_at(
        self, target: ContinueTo, deadline: Deadline, on_event: OnEvent | None
    ) -> Paused | None:
        """Have the session pause there; ``None`` when the run completes instead.

        What was asked for already, and not waited for to its end, is waited for and not asked for again.
        """
        self._catch_up(deadline, on_event)
        if self._goal not in (None, target):  # on its way elsewhere, which comes first
            self.ensure_ready(deadline, None, on_event)
        if self.completed:
            return None
        if self._goal != target:
            self.send(target, deadline)
        if self._paused is None:
            self._await_pause(deadline, on_event)
        self._goal = None
        return self._paused

    def _await_pause(self, deadline: Deadline, on_event: OnEvent | None) -> None:
        ended = "websocket closed while waiting for Paused after ContinueTo"
        for response in self.events(deadline, None, on_event, ended):
            if isinstance(response, (Paused, Completed)):
                return
            if not isinstance(response, PASSED_OVER):
                raise UnexpectedResponseError(PAUSING, response)

    def pause_at_discovery(self, offset: int, deadline: Deadline) -> DiscoveryPause | None:
        """Pause ``offset`` batches behind the next discovery, running on as needed.

        ``None`` when the run completes.
        """
        found = self._next_discovery(offset, deadline)
        if found is None:
            return None
        seq, discovery = found
        try:
            target = ContinueTo(discovery.slot, discovery.batch_index + offset)
            paused = self.pause_at(target, deadline, None)
        except RemoteError:  # no pause for this one: the next call takes the next
            raise
        except BaseException:
            self._channel.put_back(seq, discovery)
            raise
        return None if paused is None else DiscoveryPause(discovery, paused)

    def _next_discovery(
        self, offset: int, deadline: Deadline
    ) -> tuple[int | None, DiscoveryBatch] | None:
        ended = "websocket closed while waiting for DiscoveryBatch"
        while True:
            # what lies here comes first: a discovery may be among it, and no run may pass it
            while (found := self._channel.take_kept()) is not None:
                if self._lies_ahead(found[1], offset):
                    return found
            self._catch_up(deadline, None)
            if self._channel.has_kept:
                continue
            if self.completed:
                return None
            if self.ready:
                self.send(Continue(advance_count=ALL_SLOTS), deadline)
            for response in self.events(deadline, None, None, ended):
                if isinstance(response, (DiscoveryBatch, ReadyForContinue, Paused, Completed)):
                    break

    def _lies_ahead(self, discovery: DiscoveryBatch, offset: int) -> bool:
        last, paused = self._last_slot, self._paused
        ahead = last is None or discovery.slot + (not self._slot_over) > last
        if paused is not None and paused.batch_index is not None and discovery.slot == paused.slot:
            ahead = discovery.batch_index + offset >= paused.batch_index
        if not ahead:
            logger.info(
                "skipped the discovery of slot %d, batch %d: the session has passed it",
                discovery.slot,
                discovery.batch_index,
            )
        return ahead

    # --- ending

    def end_session(self, deadline: Deadline) -> None:
        """Have the server end the session; whatever else comes is passed over.

        A connection that is lost, or that somebody aborts meanwhile, is the end as well.
        """
        with suppress(SessionClosedError):
            self._channel.send(CloseBacktestSession(), deadline)
            while not self._is_acknowledged(deadline):
                pass

    def _is_acknowledged(self, deadline: Deadline) -> bool:
        try:
            for response in self.events(deadline, None, None, "websocket ended while closing"):
                if isinstance(response, (Success, Completed)):
                    break
        except DeserializeError as error:
            logger.warning("passed over while closing: %s", error)
            return False
        return True


#: What the server says of a request that it did not carry out.
REFUSALS = frozenset(
    {
        ErrorKind.INVALID_REQUEST,
        ErrorKind.INVALID_TRANSACTION_ENCODING,
        ErrorKind.INVALID_TRANSACTION_FORMAT,
        ErrorKind.INVALID_ACCOUNT_ENCODING,
        ErrorKind.INVALID_ACCOUNT_OWNER,
        ErrorKind.INVALID_ACCOUNT_PUBKEY,
    }
)

#: What may come while waiting for something else.
PASSED_OVER = (
    SlotNotification,
    StatusResponse,
    ReadyForContinue,
    DiscoveryBatch,
    Success,
    ErrorResponse,
    UnknownResponse,
)


def apply_to(state: AdvanceState, response: Response) -> None:
    """Apply one response to the state of a ``Continue`` (protocol/control.md §8.4)."""
    if type(response) is SlotNotification:
        state.slot_notifications += 1
        state.last_slot = response.slot
    elif type(response) is StatusResponse:
        state.statuses.append(response.status)
    elif type(response) is ReadyForContinue:
        state.ready_for_continue = True
    elif isinstance(response, Completed):
        state.completed = True
        state.summary = response.summary
    elif not isinstance(response, PASSED_OVER):
        raise UnexpectedResponseError("continuing", response)


def warn_of_surplus(state: AdvanceState) -> None:
    """Say that more slots were announced than a ``Continue`` asked for."""
    if state.slot_notifications > state.expected_slots:
        logger.warning(
            "received %d slot notifications (expected %d)",
            state.slot_notifications,
            state.expected_slots,
        )


def wire_status(status: BacktestStatus | str) -> str:
    """The wire spelling of a status."""
    return status.value if isinstance(status, BacktestStatus) else status


def watcher(progress: Callable[[int, int], object], on_event: OnEvent | None) -> OnEvent:
    """An ``on_event`` that also reports ``progress(slot, announced)``."""
    announced = 0

    def watch(response: Response) -> None:
        nonlocal announced
        if type(response) is SlotNotification:
            announced += 1
            progress(response.slot, announced)
        if on_event is not None:
            on_event(response)

    return watch
