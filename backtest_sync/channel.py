"""What a session talks to: one connection's responses in order, each exactly once.

A channel decodes on its caller's thread. What a session passed over or read too early waits here: `keep`
for discoveries, which only those who ask for them get, and `put_behind` for what came before an
acknowledgement. Several threads may receive; each response goes to one of them.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from backtest_sync.errors import DeserializeError, RequestTimeoutError, SessionClosedError
from backtest_sync.frames import Binary
from backtest_sync.inbox import acquire
from backtest_sync.limits import Deadline
from backtest_sync.protocol.codec import decode_response, encode_request

if TYPE_CHECKING:
    from backtest_sync.connection import Connection, End
    from backtest_sync.protocol import DiscoveryBatch, Request, Response

logger = logging.getLogger("backtest_sync")

#: A response with its sequence, or ``None`` where the server gave it none.
Item = tuple["int | None", "Response"]

#: The reason of every error of a session that was closed or aborted on this side.
CLOSED = "the session is closed"


class Channel:
    """The responses of one whole connection."""

    def __init__(
        self, connection: Connection, *, last_sequence: int | None = None, log_raw: bool = False
    ) -> None:
        self._connection = connection
        self._session_id: str | None = None  # once there is one
        self._log_raw = log_raw
        self._pid = os.getpid()
        # held by the one thread that waits for the connection; a signal handler may need it again
        self._turn = threading.RLock()
        self._queue: deque[bytes] = deque()  # received, not decoded
        self._early: deque[Item] = deque()  # read before their time: they come before the queue
        self._kept: deque[tuple[int | None, DiscoveryBatch]] = deque()  # that somebody passed over
        self._last_sequence = last_sequence
        self._closer: int | None = None  # the thread that closes: every other waiter gives up
        self._leaving = False  # whether somebody closes, or has closed
        self._closed = False
        self._end_told = False
        self._completed = False

    def name(self, session_id: str) -> None:
        """Say which session it is that is talked to."""
        self._session_id = session_id
        self._connection.rename(session_id)

    # --- sending

    def send(self, request: Request, deadline: Deadline, gone: list[int] | None = None) -> None:
        """Encode and send one request; ``gone``: as of `Connection.send`."""
        if self._leaving and self._evicted():
            self._leave()
        try:
            self._connection.send(encode_request(request), deadline, gone)
        except SessionClosedError:
            end = self._connection.end
            if end is None or end.ours:
                raise
            raise self._lost(end) from end.cause

    # --- receiving

    @property
    def last_sequence(self) -> int | None:
        """The highest sequence that was handed over with nothing before it still waiting here."""
        waiting = [seq for seq, _ in (*self._kept, *self._early) if seq is not None]
        if waiting and self._last_sequence is not None:
            return min(self._last_sequence, min(waiting) - 1)
        return self._last_sequence

    @property
    def has_more(self) -> bool:
        """Whether there is something that need not be waited for."""
        return bool(self._queue or self._early) or self._connection.has_more

    def receive(
        self, deadline: Deadline, silence: float | None = None, *, kept: bool = False
    ) -> Item | None:
        """The next response; ``None`` once the stream is over.

        Waits until ``deadline``, and no longer than ``silence`` seconds for this one. What was kept comes
        only with ``kept``, and then first.
        """
        try:
            # the usual case, at the least cost: each payload goes to one thread by itself
            payload = self._queue.popleft()
        except IndexError:
            return self._wait(deadline, silence, kept)
        if self._early or self._leaving or (kept and self._kept):
            self._queue.appendleft(payload)  # something else comes first
            return self._wait(deadline, silence, kept)
        try:
            item = decode_response(payload)
        except BaseException as error:  # noqa: BLE001 - what is no oddity is raised again
            self._recover(payload, error)
            return self._wait(deadline, silence, kept)
        if item[0] is not None:
            self._see(item[0])
        return item

    def take(self) -> Item | None:
        """The next response if it need not be waited for."""
        try:
            return self.receive(Deadline(0))
        except RequestTimeoutError:
            return None

    def _wait(self, deadline: Deadline, silence: float | None, kept: bool) -> Item | None:
        """`receive` where something else comes first, or nothing is there yet."""
        if self._closer == threading.get_ident():
            return self._next(deadline, silence, kept)  # all others leave: no need for a turn
        if not self._turn.acquire(blocking=False):
            self._await_turn(deadline.sooner(silence))
        try:
            return self._next(deadline, silence, kept)
        finally:
            self._turn.release()

    def _await_turn(self, limit: Deadline) -> None:
        self.check_process()  # or it would be the turn of a thread that is not here
        if not acquire(self._turn, limit):
            raise RequestTimeoutError("receiving", limit.timeout or 0.0)

    def _next(self, deadline: Deadline, silence: float | None, kept: bool) -> Item | None:
        while True:
            if self._leaving and self._evicted():
                self._leave()
            try:
                if kept and self._kept:
                    return self._kept.popleft()
                if self._early:
                    return self._early.popleft()
                payload = self._queue.popleft()
            except IndexError:  # there is nothing, or another thread was quicker
                if not self._refill(deadline, silence):
                    return None
            else:
                if self._leaving and self._evicted():
                    self._queue.appendleft(payload)  # it may be what the one who closes waits for
                elif (item := self._decode(payload)) is not None:
                    return item

    def _decode(self, payload: bytes) -> Item | None:
        try:
            item = decode_response(payload)
        except BaseException as error:  # noqa: BLE001 - what is no oddity is raised again
            self._recover(payload, error)
            return None
        if item[0] is not None:
            self._see(item[0])
        return item

    def _recover(self, payload: bytes, error: BaseException) -> None:
        """Go on after what can't be decoded; raises what the caller has to know."""
        if not isinstance(error, DeserializeError):
            self._queue.appendleft(payload)  # a signal handler raised: nobody has seen it yet
            raise error
        if type(payload) is not Binary:
            raise error
        if _is_text(payload):  # then it counts (protocol/control.md §3)
            self._queue.appendleft(bytes(payload))

    def _see(self, seq: int) -> None:
        """Record the sequence of what is handed over."""
        if self._last_sequence is None or seq > self._last_sequence:
            self._last_sequence = seq

    def _refill(self, deadline: Deadline, silence: float | None) -> bool:
        """Wait until there is something to look at; false once the stream is over."""
        if self._finished():  # nothing more will come: take what is there, wait for nothing
            deadline = Deadline(0)
        elif deadline.over():
            raise RequestTimeoutError("receiving", deadline.timeout or 0.0)
        limit = deadline.sooner(silence)
        chunk = self._connection.receive(limit, self._roused, self._queue)
        if chunk:
            if self._log_raw:
                for payload in chunk:
                    logger.debug("received %s", payload.decode(errors="replace"))
            return True
        if self._queue or self._early or self._evicted():
            return True
        if self._finished():
            return False
        end = self._connection.end
        if end is not None:
            return self._ended(end)
        if limit.expired:
            raise RequestTimeoutError("receiving", limit.timeout or 0.0)
        return True

    def _roused(self) -> bool:
        """Whether who waits for the connection has to look at something else."""
        return bool(self._queue or self._early) or self._finished() or self._evicted()

    def _ended(self, end: End) -> bool:
        """Tell the first receiver why the stream ended, unless we ended it; later ones see its end."""
        told, self._end_told = self._end_told, True
        if end.ours or told or self._completed or self._closer is not None:
            return False
        raise self._lost(end) from end.cause

    def _lost(self, end: End) -> SessionClosedError:
        hint = ""
        if self._session_id is not None:
            hint = (
                "The session may live on: continue it with "
                f"attach_session({self._session_id!r}, {self.last_sequence})"
            )
        return SessionClosedError(end.reason, code=end.code, hint=hint)

    # --- what waits here

    def keep(self, seq: int | None, discovery: DiscoveryBatch) -> None:
        """Hold back a discovery for whoever asks for one next."""
        self._kept.append((seq, discovery))

    @property
    def has_kept(self) -> bool:
        """Whether a discovery is held back."""
        return bool(self._kept)

    def take_kept(self) -> tuple[int | None, DiscoveryBatch] | None:
        """The first that was held back, if any, with its sequence."""
        try:
            return self._kept.popleft()
        except IndexError:
            return None

    def put_back(self, seq: int | None, discovery: DiscoveryBatch) -> None:
        """Hold back a discovery again: it is the first."""
        self._kept.appendleft((seq, discovery))

    def put_before(self, item: Item) -> None:
        """Give back what was received and not acted on: it comes first again."""
        self._early.appendleft(item)

    def put_behind(self, items: Iterable[Item]) -> None:
        """Queue what was read too early, behind what is queued already."""
        self._early.extend(items)

    def discard(self, kinds: tuple[type, ...]) -> None:
        """Forget early responses of these kinds: a later request has overtaken them."""
        for _ in range(len(self._early)):
            item = self._early.popleft()
            if not isinstance(item[1], kinds):
                self._early.append(item)

    def complete(self) -> None:
        """The run is completed: from now on the stream is over where nothing is queued."""
        self._completed = True
        self._connection.wake()

    def _finished(self) -> bool:
        """Whether nobody but a closer has anything to wait for."""
        return self._completed and self._closer is None

    # --- ending

    @property
    def end(self) -> End | None:
        """Why the connection is over; ``None`` while it is not."""
        return self._connection.end

    @property
    def closed(self) -> bool:
        """Whether `close` or `abort` was called."""
        return self._closed

    @contextmanager
    def closing(self) -> Iterator[None]:
        """Every other thread is sent away; this one alone may send and receive."""
        before = self._closer
        self._closer, self._leaving = threading.get_ident(), True
        try:
            self._connection.wake()
            yield
        finally:
            self._closer, self._leaving = before, self._closed or before is not None

    def close(self, code: int | None, reason: str) -> None:
        """Send a close frame if possible and end the connection; what was not received is dropped."""
        self._closed = self._leaving = True
        self._connection.close(code, reason)
        self._queue.clear()

    def abort(self) -> None:
        """End the connection without a frame; what was not received is dropped."""
        self._closed = self._leaving = True
        self._connection.abort()
        self._queue.clear()

    def is_foreign(self) -> bool:
        """Whether this is a forked process's copy of another's session."""
        return os.getpid() != self._pid

    def check_process(self) -> None:
        """`SessionClosedError` in a forked process."""
        if self.is_foreign():
            raise SessionClosedError(
                f"the session belongs to process {self._pid}",
                hint="After a fork, create or attach another in the new process",
            )

    def check_open(self) -> None:
        """`SessionClosedError` where nothing more can be asked of the session."""
        self.check_process()
        if self._evicted():
            self._leave()

    def _evicted(self) -> bool:
        return self._closed or (self._closer is not None and self._closer != threading.get_ident())

    def _leave(self) -> NoReturn:
        self._connection.wake()  # so that the one who closes sees what was put back
        raise SessionClosedError(CLOSED if self._closed else "closed by another thread")


def _is_text(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        logger.warning("dropped a binary message of %d bytes that is no UTF-8", len(payload))
        return False
    return True
