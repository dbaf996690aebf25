"""One backtest session as plain blocking methods (protocol/control.md §7, §8).

A session may be used from several threads: each response goes to one of them, and `BacktestSession.close` may
be called from any.

Two kinds of limit: a *deadline* ends a method ``timeout`` seconds after the call, a *silence* ends it after
``timeout`` seconds without any event. ``None`` means the client's ``request_timeout``; without that, no limit.

What a waiting method passes over: slots and statuses are consumed, after ``on_event`` and `coverage` have seen
them; readiness is recorded; discoveries are kept, in order, for whoever asks for them next. A
``simulationError`` is an event; every other error response is raised as `RemoteError`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from backtest_sync import handshake
from backtest_sync.driver import ALL_SLOTS, PAUSING, Driver, watcher
from backtest_sync.errors import (
    BacktestClientError,
    InvalidParamsError,
    RemoteError,
    RequestTimeoutError,
    SessionClosedError,
    UnexpectedResponseError,
)
from backtest_sync.handshake import OnEvent, Wait, is_failure
from backtest_sync.limits import GRACEFUL_CLOSE_LIMIT, HANDSHAKE_LIMIT, Deadline, check_timeout
from backtest_sync.protocol import (
    BacktestStatus,
    CloseBacktestSession,
    Completed,
    Continue,
    ContinueTo,
    Paused,
    SessionCoverage,
    Success,
)
from backtest_sync.results import (
    AdvanceState,
    ConnectionStatus,
    ContinueResult,
    DiscoveryPause,
    ReadyOutcome,
    RunResult,
)
from backtest_sync.session_streams import SessionStreams

if TYPE_CHECKING:
    import ssl
    from os import PathLike

    from backtest_sync.channel import Channel
    from backtest_sync.protocol import (
        AccountData,
        Request,
        Response,
        SessionAttached,
        SessionCreated,
        SessionSummary,
    )
    from backtest_sync.protocol.fields import AddressLike, ModificationsLike
    from backtest_sync.rpc import RpcClient

Step = Callable[["BacktestSession"], "Continue | int | None"]


class BacktestSession(SessionStreams):
    """A session, made by `BacktestClient.create_session` or `BacktestClient.attach_session`.

    A context manager (leaving it closes the session) and an iterator of events.
    """

    def __init__(
        self,
        channel: Channel,
        created: SessionCreated | SessionAttached,
        *,
        rpc_endpoint: str,
        ready: bool,
        request_timeout: float | None,
        ssl_context: ssl.SSLContext | None,
    ) -> None:
        super().__init__(rpc_endpoint, ssl_context)
        self._channel = channel
        channel.session_id = created.session_id
        self._created = created
        self._driver = Driver(channel, ready=ready)
        self._request_timeout = request_timeout
        self._closing = threading.Lock()  # held by the one thread that closes
        self._rpc: RpcClient | None = None

    # --- what it is

    @property
    def session_id(self) -> str:
        """``backtest_…``: what `BacktestClient.attach_session` takes."""
        return self._created.session_id

    @property
    def session_name(self) -> str | None:
        """The name that the server gave it or accepted, if any."""
        return self._created.session_name

    @property
    def task_id(self) -> str | None:
        """The server's opaque name of the task that runs the session, if any."""
        return self._created.task_id

    @property
    def rpc_endpoint(self) -> str:
        """The absolute URL of the session's JSON-RPC and, as ``ws(s)``, of its subscriptions."""
        return self._endpoint

    @property
    def last_sequence(self) -> int | None:
        """The highest sequence handed to the caller: what to attach from after a crash.

        ``None`` where the server numbers nothing (no ``disconnect_timeout_secs``). What the session read
        early and still holds back does not count.
        """
        return self._channel.last_sequence

    @property
    def is_ready_for_continue(self) -> bool:
        """Whether the server waits for a ``Continue``."""
        return self._driver.ready

    @property
    def is_completed(self) -> bool:
        """Whether ``completed`` was received."""
        return self._driver.completed

    @property
    def is_closed(self) -> bool:
        """Whether the session was closed or aborted here, or its connection is gone."""
        return self._channel.closed or self._channel.end is not None

    @property
    def connection_status(self) -> ConnectionStatus:
        """``UP``; ``CLOSED`` after our close or a completed run's end; ``FAILED`` when it was lost."""
        if self._channel.closed:
            return ConnectionStatus.CLOSED
        if self._channel.end is None:
            return ConnectionStatus.UP
        return ConnectionStatus.CLOSED if self._driver.completed else ConnectionStatus.FAILED

    @property
    def reconnects(self) -> int:
        """How often the connection was replaced. Always 0: a lost connection ends the session."""
        return 0

    @property
    def summary(self) -> SessionSummary | None:
        """The server's summary, once completed, where ``send_summary`` asked for it."""
        return self._driver.summary

    @property
    def coverage(self) -> SessionCoverage:
        """What was seen of the range so far (protocol/control.md §7)."""
        return SessionCoverage(
            highest_slot_seen=self._driver.highest_slot, completed=self._driver.completed
        )

    def __repr__(self) -> str:
        state = "completed" if self.is_completed else self.connection_status.value
        name = f" {self.session_name!r}" if self.session_name else ""
        return f"<BacktestSession {self.session_id}{name} {state}, {self._driver.slots} slots>"

    def __reduce__(self) -> Any:
        raise TypeError(
            "a BacktestSession can't be pickled: pass its session_id and last_sequence, "
            "and attach in the other process"
        )

    # --- sending

    def send(self, request: Request, timeout: float | None = None) -> None:
        """Send any request; ``timeout`` is a deadline. A ``Continue`` or ``ContinueTo`` resets readiness."""
        if isinstance(request, (Continue, ContinueTo)):
            self._driver.send_continue(request, self._deadline(timeout))
        else:
            self._channel.send(request, self._deadline(timeout))

    def send_continue(
        self, params: Continue | int | None = None, timeout: float | None = None
    ) -> None:
        """Send a ``Continue``, reset readiness, do not wait. ``timeout`` is a deadline."""
        self.send(as_continue(params), timeout)

    def resume_attached_session(self, timeout: float | None = None) -> None:
        """Let an attached session go on, once its subscriptions are rebuilt. ``timeout`` is a deadline.

        What arrives before the acknowledgement is kept, in order, for the next receiver.
        """
        if handshake.resume(self._channel, Wait(self._deadline(timeout), HANDSHAKE_LIMIT)):
            self._driver.ready = True

    # --- receiving

    def apply_response(self, response: Response) -> None:
        """Update readiness: ready after ``readyForContinue`` and ``paused``, not after ``completed``."""
        self._driver.apply(response)

    def next_response(self, timeout: float | None = None) -> Response | None:
        """The next response, what was kept back first; readiness is left alone.

        ``None`` once the stream is over: after ``completed`` and what had arrived with it, after a close, and
        after the loss of the connection was told by `SessionClosedError`. ``timeout`` is a deadline.
        """
        if self._channel.closed:
            return None
        item = self._channel.receive(self._deadline(timeout), kept=True)
        if item is None:
            return None
        self._driver.note(item[1])
        return item[1]

    def next_event(self, timeout: float | None = None) -> Response | None:
        """`next_response`, with readiness updated."""
        response = self.next_response(timeout)
        if response is not None:
            self.apply_response(response)
        return response

    def responses(self, timeout: float | None = None) -> Iterator[Response]:
        """Events until the stream ends; ``timeout`` is a silence. Leaving the loop closes the session."""
        check_timeout(timeout)
        try:
            while (response := self.next_event(timeout)) is not None:
                yield response
        finally:
            self.close()

    def __iter__(self) -> Iterator[Response]:
        return self

    def __next__(self) -> Response:
        response = self.next_event()
        if response is None:
            raise StopIteration
        return response

    # --- waiting

    def ensure_ready(
        self, timeout: float | None = None, on_event: OnEvent | None = None
    ) -> ReadyOutcome:
        """Wait until the server waits for a ``Continue``, or the run is over. ``timeout`` is a deadline.

        Paused counts as ready. Consumes all but discoveries, which are kept.
        """
        return self._driver.ensure_ready(self._deadline(timeout), None, on_event)

    def wait_for_status(
        self,
        status: BacktestStatus | str,
        timeout: float | None = None,
        on_event: OnEvent | None = None,
    ) -> None:
        """Return once the server emitted ``status`` (or its wire spelling). ``timeout`` is a deadline.

        Consumes all but discoveries; readiness is recorded. `UnexpectedResponseError` when the run completes
        first.
        """
        self._driver.wait_for_status(as_status(status), self._deadline(timeout), on_event)

    def advance_step(
        self,
        state: AdvanceState,
        wait_for_slots: bool,
        timeout: float | None = None,
        on_event: OnEvent | None = None,
    ) -> None:
        """Read one response and apply it to ``state``. ``timeout`` is a deadline.

        ``wait_for_slots`` warns of more slots than ``state`` expects. `UnexpectedResponseError` for what can't
        come while continuing (``paused``, session messages).
        """
        self._driver.step(state, wait_for_slots, self._deadline(timeout), on_event)

    def continue_until_ready(
        self,
        cont: Continue | int | None = None,
        timeout: float | None = None,
        on_event: OnEvent | None = None,
        *,
        deadline: float | None = None,
    ) -> ContinueResult:
        """Send a ``Continue`` and wait until the server is ready again, or done with the range.

        Waits for readiness first where it has not come yet. ``timeout`` is a silence, ``deadline`` (seconds)
        bounds the whole. Consumes all but discoveries, which are kept.
        """
        return self._continue(as_continue(cont), False, timeout, on_event, deadline)

    def advance(
        self,
        cont: Continue | int | None = None,
        timeout: float | None = None,
        on_event: OnEvent | None = None,
        *,
        deadline: float | None = None,
    ) -> ContinueResult:
        """`continue_until_ready`, and every slot of the ``Continue`` was announced, or the run is over."""
        return self._continue(as_continue(cont), True, timeout, on_event, deadline)

    def continue_(
        self,
        advance_count: int = 1,
        *,
        transactions: Iterable[Any] = (),
        modify_accounts: Mapping[str, AccountData] | None = None,
        timeout: float | None = None,
        on_event: OnEvent | None = None,
    ) -> ContinueResult:
        """Advance ``advance_count`` blocks: the everyday form of `continue_until_ready`.

        ``transactions`` (base64, bytes or solders objects) run after the historical ones;
        ``modify_accounts`` (address to `AccountData`) is written before. ``timeout`` is a silence.
        """
        cont = Continue(
            advance_count=advance_count,
            transactions=tuple(transactions),
            modify_accounts={} if modify_accounts is None else modify_accounts,
        )
        return self._continue(cont, False, timeout, on_event, None)

    def continue_to(
        self,
        slot: int,
        batch_index: int | None = None,
        timeout: float | None = None,
        on_event: OnEvent | None = None,
    ) -> Paused:
        """Run up to, and stop before, batch ``batch_index`` of ``slot``; ``None`` runs the whole slot.

        ``timeout`` is a deadline. `UnexpectedResponseError` when the run completes first. Consumes all but
        discoveries, which are kept.
        """
        target = ContinueTo(slot=slot, batch_index=batch_index)
        limit = self._deadline(timeout)
        outcome = self._driver.ensure_ready(limit, None, on_event)
        if outcome is ReadyOutcome.READY:
            paused = self._driver.pause_at(target, limit, on_event)
            if paused is not None:
                return paused
        raise UnexpectedResponseError(PAUSING, Completed(summary=self.summary))

    def advance_to_discovery(
        self, timeout: float | None = None, *, offset: int = 0
    ) -> DiscoveryPause | None:
        """Run until the next discovery and pause before its batch; ``None`` when the range is done.

        ``offset`` batches later: 1 stops just after the discovered batch. ``timeout`` is a deadline. A kept
        discovery of a slot that the session has passed is skipped: no pause can reach it any more.
        """
        if offset < 0:
            raise InvalidParamsError(f"offset must be a batch count of 0 or more, not {offset}")
        limit = self._deadline(timeout)
        discovery = self._driver.next_discovery(limit)
        if discovery is None:
            return None
        target = ContinueTo(slot=discovery.slot, batch_index=discovery.batch_index + offset)
        paused = self._driver.pause_at(target, limit, None)
        return None if paused is None else DiscoveryPause(discovery=discovery, paused=paused)

    def discoveries(self, timeout: float | None = None) -> Iterator[DiscoveryPause]:
        """`advance_to_discovery` until the range is done; ``timeout`` bounds each step."""
        check_timeout(timeout)
        while (pause := self.advance_to_discovery(timeout)) is not None:
            yield pause

    def run(
        self,
        step: int | Step | None = None,
        *,
        timeout: float | None = None,
        deadline: float | None = None,
        on_event: OnEvent | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> RunResult:
        """Drive the session to completion.

        ``step``: slots of each ``Continue`` (all that remain by default), or a function of the session, called
        at each readiness, that returns the next ``Continue`` (or a number of slots; ``None`` ends the run).
        ``progress(slot, announced)`` is called for each slot. ``timeout`` is a silence, ``deadline`` (seconds)
        bounds the whole.
        """
        next_step: Step = step if callable(step) else lambda _: ALL_SLOTS if step is None else step
        watch = on_event if progress is None else watcher(progress, on_event)
        whole = Deadline(check_timeout(deadline, "deadline"))
        silence = self._timeout(timeout)
        driver = self._driver
        driver.first_slot = None
        slots, statuses, continues, started = (
            driver.slots,
            driver.statuses.copy(),
            0,
            time.monotonic(),
        )
        while driver.ensure_ready(whole, silence, watch) is ReadyOutcome.READY:
            request = next_step(self)
            if request is None:
                break
            continues += 1
            driver.drive(as_continue(request), False, whole, silence, watch)
        if driver.completed:
            self.drain()
        announced = driver.slots - slots
        return RunResult(
            completed=driver.completed,
            first_slot=driver.first_slot,
            last_slot=driver.last_slot if announced else None,
            slots=announced,
            continues=continues,
            duration=time.monotonic() - started,
            statuses={
                getattr(status, "value", status): count
                for status, count in (driver.statuses - statuses).items()
            },
            summary=driver.summary,
            coverage=self.coverage,
        )

    # --- the session endpoint

    @property
    def rpc(self) -> RpcClient:
        """The session's JSON-RPC. Usable once the session was ready; it needs no key."""
        if self._rpc is None:
            from backtest_sync.rpc import RpcClient

            self._rpc = RpcClient(self._endpoint, ssl_context=self._ssl_context)
        return self._rpc

    def modify_accounts(self, modifications: ModificationsLike) -> int:
        """Write accounts at once (address to `AccountData`), for example while paused; how many.

        Undo by writing the old accounts back. To change state with a ``Continue``, pass ``modify_accounts``
        there.
        """
        return self.rpc.modify_accounts(modifications)

    def modify_program(
        self, program_id: AddressLike, elf: bytes | str | PathLike[str]
    ) -> dict[str, AccountData]:
        """The modification that gives a deployed program new code: ``{program_data_address: AccountData}``.

        ``elf``: its bytes, or the path of a file. Call it once the session was ready. Nothing changes until the
        result is sent: pass it to `continue_` (``modify_accounts``) or `modify_accounts`.

        Raises `ProgramModError` (protocol/programs.md §1).
        """
        from backtest_sync.programs import modify_program

        return modify_program(self.rpc, program_id, elf)

    # --- ending

    def close(self, timeout: float | None = None) -> None:
        """Have the server clean up, then close the WebSocket. Idempotent; from any thread.

        Other waiters get `SessionClosedError`. ``timeout`` is a deadline; without any, 120 s. After a failure
        (`RequestTimeoutError`, `RemoteError`) the connection is kept, so that close may be called again.
        """
        self._close(timeout, None, "")

    def close_with_frame(
        self, timeout: float | None = None, frame: tuple[int, str] | None = None
    ) -> None:
        """`close` with ``frame``: the ``(code, reason)`` of the close frame, or ``None`` for an empty one."""
        code, reason = (None, "") if frame is None else frame
        self._close(timeout, code, reason)

    def close_with_reason(
        self, timeout: float | None = None, code: int = 1000, reason: str = ""
    ) -> None:
        """`close` with a code and reason (at most 123 bytes) for the close frame."""
        self._close(timeout, code, reason)

    def abort(self) -> None:
        """Drop the connection, no clean-up request: the server keeps the session for its disconnect timeout."""
        self._channel.abort()
        self._end_rpc()

    def __enter__(self) -> BacktestSession:
        return self

    def __exit__(self, kind: object, value: BaseException | None, trace: object) -> None:
        try:
            self.close(GRACEFUL_CLOSE_LIMIT)
        except BacktestClientError:
            if value is None:
                raise
        finally:
            if not self._channel.closed:
                self.abort()

    # --- inside

    def _timeout(self, timeout: float | None) -> float | None:
        return self._request_timeout if timeout is None else check_timeout(timeout)

    def _deadline(self, timeout: float | None) -> Deadline:
        return Deadline(self._timeout(timeout))

    def _continue(
        self,
        cont: Continue,
        wait_for_slots: bool,
        timeout: float | None,
        on_event: OnEvent | None,
        deadline: float | None,
    ) -> ContinueResult:
        whole = Deadline(check_timeout(deadline, "deadline"))
        silence = self._timeout(timeout)
        if self._driver.ensure_ready(whole, silence, on_event) is ReadyOutcome.COMPLETED:
            state = AdvanceState(cont.advance_count, completed=True, summary=self.summary)
        else:
            state = self._driver.drive(cont, wait_for_slots, whole, silence, on_event)
        return ContinueResult(
            slot_notifications=state.slot_notifications,
            last_slot=state.last_slot,
            statuses=tuple(state.statuses),
            ready_for_continue=state.ready_for_continue,
            completed=state.completed,
            summary=state.summary,
        )

    def _close(self, timeout: float | None, code: int | None, reason: str) -> None:
        check_close_frame(code, reason)
        deadline = self._deadline(timeout).sooner(HANDSHAKE_LIMIT)
        left = deadline.remaining()
        if not self._closing.acquire(timeout=-1 if left is None else left):
            raise RequestTimeoutError("closing", deadline.timeout or 0.0)
        try:
            if self._channel.closed:
                return
            self._channel.start_closing()
            try:
                self._stop_streams()
                self._clean_up(deadline)
                self._channel.close(code, reason)
                self._end_rpc()
            finally:
                self._channel.stop_closing()
        finally:
            self._closing.release()

    def _end_rpc(self) -> None:
        if self._rpc is not None:
            self._rpc.close()

    def _clean_up(self, deadline: Deadline) -> None:
        """Have the server end the session; stray events are skipped, a lost connection is enough."""
        try:
            self._channel.send(CloseBacktestSession(), deadline)
        except SessionClosedError:
            return
        while (item := self._channel.receive(deadline)) is not None:
            response = item[1]
            self._driver.note(response)
            if is_failure(response):
                raise RemoteError(response.error)
            if isinstance(response, (Success, Completed)):
                return


def as_continue(cont: Continue | int | None) -> Continue:
    """A ``Continue``: as it is, of so many slots, or of one."""
    if isinstance(cont, Continue):
        return cont
    return _slots(1 if cont is None else cont)


@lru_cache(maxsize=8, typed=True)
def _slots(count: int) -> Continue:
    """The ``Continue`` that a loop of equal steps sends again and again."""
    return Continue(advance_count=count)


def as_status(status: BacktestStatus | str) -> BacktestStatus | str:
    """A status from its wire spelling; one of a newer server's stays text."""
    try:
        return BacktestStatus(status)
    except ValueError:
        if isinstance(status, str) and status:
            return status
        raise InvalidParamsError(
            f"status must be a BacktestStatus or its wire spelling, not {status!r}"
        ) from None


def check_close_frame(code: int | None, reason: str) -> None:
    """A close frame that may be sent: RFC 6455 §7.4 and §5.5.1."""
    if code is not None and not (
        code in (1000, 1001, 1002, 1003, *range(1007, 1015)) or 3000 <= code < 5000
    ):
        raise InvalidParamsError(f"code must be a close code that may be sent, not {code!r}")
    if len(reason.encode()) > 123:
        raise InvalidParamsError(f"reason must be at most 123 bytes, not {len(reason.encode())}")
