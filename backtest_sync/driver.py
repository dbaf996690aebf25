"""The state machines of one session: what each waiting method does with each response.

After the table of protocol/control.md §8.4, with three differences: what a method passes over is never lost
(discoveries are kept for those who ask), paused counts as ready, and ``simulationError`` is an event everywhere.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from backtest_sync.errors import RemoteError, SessionClosedError, UnexpectedResponseError
from backtest_sync.handshake import OnEvent, is_failure
from backtest_sync.protocol import (
    BacktestStatus,
    Completed,
    Continue,
    ContinueTo,
    DiscoveryBatch,
    ErrorDetail,
    ErrorKind,
    ErrorResponse,
    Paused,
    ReadyForContinue,
    SlotNotification,
    StatusResponse,
    Success,
    UnknownResponse,
)
from backtest_sync.results import AdvanceState, ReadyOutcome

if TYPE_CHECKING:
    from backtest_sync.channel import Channel
    from backtest_sync.limits import Deadline
    from backtest_sync.protocol import Response, SessionSummary

logger = logging.getLogger("backtest_sync")

#: As far as the range goes: the largest ``advanceCount`` there is.
ALL_SLOTS = 2**64 - 1

PAUSING = "waiting for Paused after ContinueTo"
CONTINUE_ENDED = "websocket ended while awaiting continue responses"


class Driver:
    """Readiness, progress and completion of a session, moved on by its channel's responses."""

    def __init__(self, channel: Channel, *, ready: bool) -> None:
        self._channel = channel
        self.ready = ready
        self.completed = False
        self.summary: SessionSummary | None = None
        self.slots = 0  # announced
        self.first_slot: int | None = None
        self.last_slot: int | None = None
        self._highest = -1
        self._sent = False  # a Continue or ContinueTo
        self._slot_over = False  # the last announced slot has run whole
        self.statuses: Counter[BacktestStatus | str] = Counter()
        self._announced = 0  # statuses
        # what had been announced when readiness was spent; None where there was none
        self._spent: tuple[int, int] | None = None

    # --- recording

    def apply(self, response: Response) -> None:
        """Update readiness."""
        if isinstance(response, (ReadyForContinue, Paused)):
            self.ready = True
            # the first readiness is before the first slot, a later one behind a slot
            whole = not isinstance(response, Paused) or response.batch_index is None
            self._slot_over = self._sent and whole
        elif isinstance(response, Completed):
            self.ready = False

    def note(self, response: Response) -> None:
        """Record what has been handed over."""
        if type(response) is SlotNotification:
            self.note_slot(response.slot)
        elif type(response) is StatusResponse:
            self._announced += 1
            self.statuses[response.status] += 1
        elif type(response) is Completed:
            self.completed = True
            self.summary = response.summary
            self._channel.complete()

    def note_slot(self, slot: int) -> None:
        """Record an announced slot."""
        self.slots += 1
        self.last_slot = slot
        if slot > self._highest:
            self._highest = slot
            if self.first_slot is None:
                self.first_slot = slot

    @property
    def highest_slot(self) -> int | None:
        """The highest slot announced so far."""
        return None if self._highest < 0 else self._highest

    # --- sending

    def send_continue(self, request: Continue | ContinueTo, deadline: Deadline) -> None:
        """Send it; whatever readiness was there is spent."""
        self._spent = (self.slots, self._announced) if self.ready else None
        self.ready = False
        self._sent = True
        self._channel.discard((ReadyForContinue, Paused))
        self._channel.send(request, deadline)

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
            if type(response) is SlotNotification:  # most of them: the short way
                self.note_slot(response.slot)
                if on_event is not None:
                    on_event(response)
                yield response
                continue
            self.note(response)
            if type(response) is StatusResponse:
                if on_event is not None:
                    on_event(response)
                yield response
                continue
            self.apply(response)
            if type(response) is DiscoveryBatch:
                self._channel.keep(item[0], response)
            if on_event is not None:
                on_event(response)
            if is_failure(response):
                self._take_back(response.error)
                raise RemoteError(response.error)
            yield response

    def _take_back(self, error: ErrorDetail) -> None:
        """A refused ``Continue`` did not run: the server still waits for one."""
        if error.kind in REFUSALS and self._spent == (self.slots, self._announced):
            self.ready = True

    def ensure_ready(
        self, deadline: Deadline, silence: float | None, on_event: OnEvent | None
    ) -> ReadyOutcome:
        """Wait until ready or completed."""
        if not (self.ready or self.completed):
            ended = "websocket ended while waiting for ReadyForContinue"
            for _ in self.events(deadline, silence, on_event, ended):
                if self.ready or self.completed:
                    break
        return ReadyOutcome.COMPLETED if self.completed else ReadyOutcome.READY

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
        """Send a ``Continue`` and read until it is done."""
        self.send_continue(cont, deadline.sooner(silence))
        state = AdvanceState(cont.advance_count)
        for response in self.events(deadline, silence, on_event, CONTINUE_ENDED):
            apply_to(state, response)
            if (state.ready_for_continue or state.completed) and state.is_done(wait_for_slots):
                break
        if wait_for_slots:
            warn_of_surplus(state)
        return state

    def pause_at(
        self, target: ContinueTo, deadline: Deadline, on_event: OnEvent | None
    ) -> Paused | None:
        """Send a ``ContinueTo`` and wait for its pause; ``None`` when the run completes instead."""
        self.send_continue(target, deadline)
        ended = "websocket closed while waiting for Paused after ContinueTo"
        for response in self.events(deadline, None, on_event, ended):
            if isinstance(response, Paused):
                return response
            if isinstance(response, Completed):
                return None
            if not isinstance(response, PASSED_OVER):
                raise UnexpectedResponseError(PAUSING, response)
        return None

    def next_discovery(self, deadline: Deadline) -> DiscoveryBatch | None:
        """The next discovery that lies ahead, running on as needed; ``None`` when the run completes."""
        ended = "websocket closed while waiting for DiscoveryBatch"
        while not self.completed:
            # a discovery may be at hand or on its way before the first readiness: look before running on
            kept = self._channel.take_kept()
            if kept is not None:
                if self._lies_ahead(kept):
                    return kept
                continue
            if self.ready:
                self.send_continue(Continue(advance_count=ALL_SLOTS), deadline)
            for response in self.events(deadline, None, None, ended):
                if isinstance(response, (DiscoveryBatch, ReadyForContinue, Paused, Completed)):
                    break
        return None

    def _lies_ahead(self, discovery: DiscoveryBatch) -> bool:
        if self.last_slot is None or discovery.slot + (not self._slot_over) > self.last_slot:
            return True
        logger.info(
            "skipped the discovery of slot %d: the session is at slot %d already",
            discovery.slot,
            self.last_slot,
        )
        return False


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
