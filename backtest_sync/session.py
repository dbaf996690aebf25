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
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from backtest_sync import handshake
from backtest_sync.arguments import (
    Step,
    as_close_frame,
    as_continue,
    as_status,
    as_steps,
    check_callback,
)
from backtest_sync.driver import PAUSING, Driver, watcher
from backtest_sync.errors import (
    BacktestClientError,
    InvalidParamsError,
    RequestTimeoutError,
    UnexpectedResponseError,
)
from backtest_sync.handshake import OnEvent, Wait
from backtest_sync.inbox import acquire
from backtest_sync.limits import GRACEFUL_CLOSE_LIMIT, HANDSHAKE_LIMIT, Deadline, check_timeout
from backtest_sync.protocol import (
    BacktestStatus,
    Completed,
    Continue,
    ContinueTo,
    Paused,
    Request,
    SessionCoverage,
)
from backtest_sync.protocol.fields import U32_MAX, shown, to_uint
from backtest_sync.results import (
    AdvanceState,
    ConnectionStatus,
    ContinueResult,
    DiscoveryPause,
    ReadyOutcome,
    RunResult,
)
from backtest_sync.session_endpoint import SessionEndpoint
from backtest_sync.subscription import drain

if TYPE_CHECKING:
    import ssl

    from backtest_sync.channel import Channel
    from backtest_sync.protocol import (
        Response,
        SessionAttached,
        SessionCreated,
        SessionSummary,
    )
    from backtest_sync.protocol.fields import ModificationsLike, TransactionLike


class BacktestSession(SessionEndpoint):
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
        super().__init__(rpc_endpoint, request_timeout, ssl_context)
        self._channel = channel
        channel.name(created.session_id)
        self._created = created
        self._driver = Driver(channel, ready=ready)
        # held by the one thread that closes; a signal handler may close in the middle of it
        self._closing = threading.RLock()

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
        """Whether it was closed or aborted here, or its connection is gone.

        What had arrived before a connection was lost can still be taken.
        """
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
        return self._driver.coverage

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
        """Send any request, and do not wait for what it brings. A ``Continue`` or ``ContinueTo`` resets readiness.

        ``timeout`` is a deadline. Raises `InvalidParamsError`, `SessionClosedError` and `RequestTimeoutError`,
        after which it is open whether the request went out.
        """
        if not isinstance(request, Request):
            raise InvalidParamsError(f"request: expected a request value, got {shown(request)}")
        deadline = self._deadline(timeout)
        if isinstance(request, (Continue, ContinueTo)):
            self._driver.send(request, deadline)
        else:
            self._channel.send(request, deadline)

    def send_continue(
        self, params: Continue | int | None = None, timeout: float | None = None
    ) -> None:
        """`send` a ``Continue`` (or so many slots; one by default). ``timeout`` is a deadline."""
        self.send(as_continue(params), timeout)

    def resume_attached_session(self, timeout: float | None = None) -> None:
        """Let an attached session go on, once its subscriptions are rebuilt.

        What arrives before the acknowledgement is kept, in order, for the next receiver. ``timeout`` is a
        deadline; in any case the server may stay silent for no longer than 120 s. Raises `RemoteError`,
        `SessionClosedError` and `RequestTimeoutError`.
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
        after the loss of the connection was told. ``timeout`` is a deadline. Errors of the server are values
        here. Raises `RequestTimeoutError`, `DeserializeError` (the connection stays usable) and
        `SessionClosedError` (the connection was lost, or closed by another thread).
        """
        deadline = self._deadline(timeout)
        if self._channel.closed:
            return None
        self._channel.check_process()
        item = self._channel.receive(deadline, kept=True)
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
        """Events until the stream ends; ``timeout`` is a silence. Raises as `next_event` does.

        However the loop is left, by its end, a ``break`` or an error, that closes the session, as leaving a
        ``with`` block does. Only Ctrl-C leaves it open.
        """
        check_timeout(timeout)
        return self._responses(timeout)

    def _responses(self, timeout: float | None) -> Iterator[Response]:
        try:
            while (response := self.next_event(timeout)) is not None:
                yield response
        except KeyboardInterrupt:
            raise  # back in the caller at once, who may close
        except BaseException as left:
            self.__exit__(type(left), left, left.__traceback__)
            raise
        self.__exit__(None, None, None)

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
        """Wait until the server waits for a ``Continue``, or the run is over.

        Paused counts as ready. ``timeout`` is a deadline. Consumes all but discoveries, which are kept. Raises
        `RemoteError`, `SessionClosedError`, `RequestTimeoutError`, `DeserializeError`.
        """
        check_callback(on_event, "on_event")
        return self._driver.ensure_ready(self._deadline(timeout), None, on_event)

    def wait_for_status(
        self,
        status: BacktestStatus | str,
        timeout: float | None = None,
        on_event: OnEvent | None = None,
    ) -> None:
        """Return once the server emitted ``status`` (or its wire spelling). ``timeout`` is a deadline.

        Consumes all but discoveries; readiness is recorded. `UnexpectedResponseError` when the run completes
        first; else raises as `ensure_ready` does.
        """
        check_callback(on_event, "on_event")
        self._driver.wait_for_status(as_status(status), self._deadline(timeout), on_event)

    def advance_step(
        self,
        state: AdvanceState,
        wait_for_slots: bool,
        timeout: float | None = None,
        on_event: OnEvent | None = None,
    ) -> None:
        """Read one response and apply it to ``state``. ``timeout`` is a deadline.

        ``wait_for_slots`` warns of more slots than ``state`` expects. A discovery is kept as well.
        `UnexpectedResponseError` for what can't come while continuing (``paused``, session messages); else
        raises as `ensure_ready` does.
        """
        if not isinstance(state, AdvanceState):
            raise InvalidParamsError(f"state: expected an AdvanceState, got {shown(state)}")
        check_callback(on_event, "on_event")
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

        Waits for readiness first where it has not come yet; what has come by then does not count. ``timeout``
        is a silence, ``deadline`` (seconds) bounds the whole. Consumes all but discoveries, which are kept.
        Where the run is over already, nothing is sent. `UnexpectedResponseError` for a ``paused``; else raises
        as `ensure_ready` does; after a `RemoteError` that refuses the ``Continue`` the session is ready for
        another.
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
        transactions: Iterable[TransactionLike] = (),
        modify_accounts: ModificationsLike | None = None,
        timeout: float | None = None,
        on_event: OnEvent | None = None,
    ) -> ContinueResult:
        """Advance ``advance_count`` blocks: the everyday form of `continue_until_ready`.

        ``transactions`` (base64, bytes or solders objects) run after the historical ones;
        ``modify_accounts`` (address to `AccountData`) is written before. ``timeout`` is a silence.
        """
        cont = Continue(
            advance_count=advance_count,
            transactions=transactions,
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

        Waits for readiness first. ``timeout`` is a deadline; asked for the same place again, it goes on waiting.
        Consumes all but discoveries, which are kept. `UnexpectedResponseError` when the run completes first; else
        raises as `ensure_ready` does.
        """
        target = ContinueTo(slot=slot, batch_index=batch_index)
        check_callback(on_event, "on_event")
        limit = self._deadline(timeout)
        self._driver.ensure_ready(limit, None, on_event)
        paused = self._driver.pause_at(target, limit, on_event)
        if paused is None:
            raise UnexpectedResponseError(PAUSING, Completed(summary=self.summary))
        return paused

    def advance_to_discovery(
        self, timeout: float | None = None, *, offset: int = 0
    ) -> DiscoveryPause | None:
        """Run until the next discovery and pause before its batch; ``None`` when the range is done.

        ``offset`` batches later: 1 stops just after the discovered batch. Consumes what it passes. ``timeout``
        is a deadline; called again, it goes on with the same discovery. A kept discovery of a place that the
        session has passed is skipped: no pause can reach it any more. Raises as `ensure_ready` does; after a
        `RemoteError` the next call goes on with the next discovery.
        """
        offset = to_uint(offset, "offset", U32_MAX)
        return self._driver.pause_at_discovery(offset, self._deadline(timeout))

    def discoveries(self, timeout: float | None = None) -> Iterator[DiscoveryPause]:
        """`advance_to_discovery` until the range is done; ``timeout`` is the deadline of each step."""
        check_timeout(timeout)
        return self._discoveries(timeout)

    def _discoveries(self, timeout: float | None) -> Iterator[DiscoveryPause]:
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
        """Drive the session to completion, and wait for the rest of its subscriptions (`drain`).

        ``step``: slots of each ``Continue`` (all that remain by default), or a function of the session, called
        at each readiness, that returns the next ``Continue`` (or a number of slots; ``None`` ends the run).
        ``progress(slot, announced)`` is called for each slot. ``timeout`` is a silence, ``deadline`` (seconds)
        bounds the whole. Consumes all but discoveries, which are kept. Raises as `continue_until_ready` does, and
        `SubscriptionError` as `drain` does.
        """
        next_step = as_steps(step)
        check_callback(on_event, "on_event")
        check_callback(progress, "progress")
        watch = on_event if progress is None else watcher(progress, on_event)
        whole = Deadline(check_timeout(deadline, "deadline"))
        silence = self._timeout(timeout)
        driver, tally = self._driver, self._driver.begin_run()
        while driver.ensure_ready(whole, silence, watch) is ReadyOutcome.READY:
            request = next_step(self)
            if request is None:
                break
            if whole.expired:  # whatever took so long
                raise RequestTimeoutError("running", whole.timeout or 0.0)
            driver.drive(request, False, whole, silence, watch)
        if driver.completed:
            drain(self._handles(), deadline=whole)
        return driver.end_run(tally)

    # --- ending

    def close(self, timeout: float | None = None) -> None:
        """Have the server clean up, then close the WebSocket. Idempotent; from any thread and any callback.

        Its subscriptions are stopped first, with what came for them handed out. Other waiters get
        `SessionClosedError`. What arrives meanwhile is passed over. ``timeout`` is a deadline; without any, 120 s.
        In a subscription's callback it does not wait for that subscription, nor for another thread that closes.
        A lost connection is closed well enough. After a failure (`RequestTimeoutError`, `RemoteError`) the
        connection is kept, so that close may be called again.
        """
        self._close(timeout, None)

    def close_with_frame(
        self, timeout: float | None = None, frame: tuple[int, str] | None = None
    ) -> None:
        """`close` with ``frame``: the ``(code, reason)`` of the close frame, or ``None`` for an empty one."""
        self._close(timeout, frame)

    def close_with_reason(
        self, timeout: float | None = None, code: int = 1000, reason: str = ""
    ) -> None:
        """`close` with a code and reason (at most 123 bytes) for the close frame."""
        self._close(timeout, (code, reason))

    def abort(self) -> None:
        """Drop the connection and all subscriptions at once, no clean-up request.

        The server keeps the session for its disconnect timeout. Other waiters get `SessionClosedError`.
        """
        self._channel.abort()
        if not self._channel.is_foreign():
            self._end_endpoint(drop=True)

    def __enter__(self) -> BacktestSession:
        return self

    def __exit__(self, kind: object, value: BaseException | None, trace: object) -> None:
        """`close` within 5 s, or else `abort`. After an exception nothing is waited for but the server."""
        try:
            self._close(GRACEFUL_CLOSE_LIMIT, None, drain=value is None)
        except BaseException as failure:
            self.abort()
            if value is None or not isinstance(failure, BacktestClientError):
                raise

    # --- inside

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
        check_callback(on_event, "on_event")
        whole = Deadline(check_timeout(deadline, "deadline"))
        silence = self._timeout(timeout)
        self._driver.ensure_ready(whole, silence, on_event)
        state = self._driver.drive(cont, wait_for_slots, whole, silence, on_event)
        return ContinueResult(
            slot_notifications=state.slot_notifications,
            last_slot=state.last_slot,
            statuses=tuple(state.statuses),
            ready_for_continue=state.ready_for_continue,
            completed=state.completed,
            summary=state.summary,
        )

    def _close(
        self, timeout: float | None, frame: tuple[int, str] | None, *, drain: bool = True
    ) -> None:
        code, reason = as_close_frame(frame)
        deadline = self._deadline(timeout).sooner(HANDSHAKE_LIMIT)
        if self._channel.is_foreign():
            self._channel.abort()  # gives back this process's copy; the other's goes on
            return
        called_back = self._is_in_callback()
        if not acquire(self._closing, Deadline(0) if called_back else deadline):
            if called_back:
                return  # whoever closes waits for this callback
            raise RequestTimeoutError("closing", deadline.timeout or 0.0)
        try:
            if not self._channel.closed:
                with self._channel.closing():
                    self._end_streams(deadline, drain=drain)
                    self._driver.end_session(deadline)
                    self._channel.close(code, reason)
            self._end_endpoint(drop=False)
        finally:
            self._closing.release()
