"""What a session talks to: one connection's responses in order, each exactly once.

A channel decodes on its caller's thread. What a session passed over or read too early waits here: `keep`
for discoveries, which only those who ask for them get, and `put_behind` for what came before an
acknowledgement. Several threads may receive; each response goes to one of them.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

from backtest_sync.errors import RequestTimeoutError, SessionClosedError
from backtest_sync.frames import Binary
from backtest_sync.limits import Deadline
from backtest_sync.protocol.codec import decode_response, encode_request

if TYPE_CHECKING:
    from backtest_sync.connection import Connection, End
    from backtest_sync.protocol import DiscoveryBatch, Request, Response

logger = logging.getLogger("backtest_sync")

#: A response with its sequence, or ``None`` where the server gave it none.
Item = tuple["int | None", "Response"]


class Channel:
    """The responses of one whole connection."""

    def __init__(
        self, connection: Connection, *, last_sequence: int | None = None, log_raw: bool = False
    ) -> None:
        self._connection = connection
        self.session_id: str | None = None  # once there is one
        self._log_raw = log_raw
        self._turn = threading.Lock()  # held by the one thread that receives
        self._payloads: deque[bytes] = deque()  # received, not decoded
        self._kept: deque[tuple[int | None, DiscoveryBatch]] = (
            deque()
        )  # discoveries that somebody passed over
        self._backlog: deque[Item] = deque()  # read before its time
        self._last_sequence = last_sequence
        self._closer: int | None = None  # the thread that closes: every other waiter gives up
        self._closed = False
        self._end_told = False
        self._completed = False

    # --- sending

    def send(self, request: Request, deadline: Deadline) -> None:
        """Encode and send one request."""
        if self._closed:
            raise SessionClosedError("websocket closed")
        self._connection.send(encode_request(request), deadline)

    # --- receiving

    @property
    def last_sequence(self) -> int | None:
        """The highest sequence that was handed over with nothing before it still waiting here."""
        waiting = [seq for seq, _ in (*self._kept, *self._backlog) if seq is not None]
        if waiting and self._last_sequence is not None:
            return min(self._last_sequence, min(waiting) - 1)
        return self._last_sequence

    def receive(
        self, deadline: Deadline, silence: float | None = None, *, kept: bool = False
    ) -> Item | None:
        """The next response; ``None`` once the stream is over.

        Waits until ``deadline``, and no longer than ``silence`` seconds for this one. What was kept comes
        only with ``kept``, and then first.
        """
        payload = None
        if not (self._backlog or (kept and self._kept)):
            # the usual case, at the least cost: `deque.popleft` gives each payload to one thread
            try:
                payload = self._payloads.popleft()
            except IndexError:
                payload = None
        return self._wait(deadline, silence, kept) if payload is None else self._decode(payload)

    def _wait(self, deadline: Deadline, silence: float | None, kept: bool) -> Item | None:
        """`receive` where something else comes first, or nothing is there yet."""
        if not self._turn.acquire(blocking=False):
            self._acquire_turn(deadline, silence)
        try:
            if kept and self._kept:
                return self._kept.popleft()
            if self._backlog:
                return self._backlog.popleft()
            while True:
                if not self._payloads and not self._refill(deadline, silence):
                    return None
                try:
                    payload = self._payloads.popleft()
                except IndexError:  # a receiver that did not need to wait took it
                    continue
                return self._decode(payload)
        finally:
            self._turn.release()

    def _decode(self, payload: bytes) -> Item:
        item = decode_response(payload)
        seq = item[0]
        if seq is not None and (self._last_sequence is None or seq > self._last_sequence):
            self._last_sequence = seq
        return item

    def keep(self, seq: int | None, discovery: DiscoveryBatch) -> None:
        """Hold back a discovery for whoever asks for one next."""
        self._kept.append((seq, discovery))

    def take_kept(self) -> DiscoveryBatch | None:
        """The first that was held back, if any."""
        try:
            return self._kept.popleft()[1]
        except IndexError:
            return None

    def put_behind(self, items: Iterable[Item]) -> None:
        """Queue what was read too early, behind what is queued already."""
        self._backlog.extend(items)

    def discard(self, kinds: tuple[type, ...]) -> None:
        """Forget queued responses of these kinds: a later request has overtaken them."""
        if self._backlog:
            self._backlog = deque(item for item in self._backlog if not isinstance(item[1], kinds))

    def _acquire_turn(self, deadline: Deadline, silence: float | None) -> None:
        limit = deadline.sooner(silence)
        left = limit.remaining()
        if not self._turn.acquire(timeout=-1 if left is None else left):
            raise RequestTimeoutError("receiving", limit.timeout or 0.0)

    def _refill(self, deadline: Deadline, silence: float | None) -> bool:
        """Wait for payloads; false once the stream is over."""
        while not self._payloads:
            if self._evicted():
                raise SessionClosedError("the session was closed by another thread")
            if self._finished():  # nothing more will come: take what is there, wait for nothing
                deadline = Deadline(0)
            elif deadline.over():
                raise RequestTimeoutError("receiving", deadline.timeout or 0.0)
            limit = deadline.sooner(silence)
            chunk = self._connection.receive(limit, self._given_up)
            if chunk:
                self._payloads.extend(self._texts(chunk))
            elif self._evicted():
                continue
            elif self._finished():
                return False
            elif (end := self._connection.end) is not None:
                return self._ended(end)
            elif limit.expired:
                raise RequestTimeoutError("receiving", limit.timeout or 0.0)
        return True

    def _texts(self, chunk: list[bytes]) -> list[bytes]:
        """The payloads to decode: binary ones count when they are UTF-8 (protocol/control.md §3)."""
        if Binary in map(type, chunk):
            chunk = [
                bytes(payload) for payload in chunk if type(payload) is bytes or _is_text(payload)
            ]
        if self._log_raw:
            for payload in chunk:
                logger.debug("received %s", payload.decode())
        return chunk

    def _ended(self, end: End) -> bool:
        """Tell the first receiver why the stream ended, unless we ended it; later ones see its end."""
        told, self._end_told = self._end_told, True
        if end.ours or told or self._completed or self._closer is not None:
            return False
        raise SessionClosedError(end.reason, code=end.code, hint=self._way_back()) from end.cause

    def _way_back(self) -> str:
        """What to do after the connection of a session was lost."""
        if self.session_id is None:
            return ""
        return (
            "The session may live on: continue it with "
            f"attach_session({self.session_id!r}, {self.last_sequence})"
        )

    def complete(self) -> None:
        """The run is completed: from now on the stream is over where nothing is queued."""
        self._completed = True
        self._connection.wake()

    # --- ending

    @property
    def end(self) -> End | None:
        """Why the connection is over; ``None`` while it is not."""
        return self._connection.end

    @property
    def closed(self) -> bool:
        """Whether `close` or `abort` was called."""
        return self._closed

    def _evicted(self) -> bool:
        return self._closed or (self._closer is not None and self._closer != threading.get_ident())

    def _finished(self) -> bool:
        """Whether nobody but a closer has anything to wait for."""
        return self._completed and self._closer is None

    def _given_up(self) -> bool:
        return self._finished() or self._evicted()

    def start_closing(self) -> None:
        """Send every other waiter away; this thread alone may go on receiving."""
        self._closer = threading.get_ident()
        self._connection.wake()

    def stop_closing(self) -> None:
        """Closing failed: the channel may be used again."""
        self._closer = None

    def close(self, code: int | None, reason: str) -> None:
        """Send a close frame if possible and end the connection."""
        self._closed = True
        self._connection.close(code, reason)

    def abort(self) -> None:
        """End the connection without a frame."""
        self._closed = True
        self._connection.abort()


def _is_text(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        logger.warning("dropped a binary message of %d bytes that is no UTF-8", len(payload))
        return False
    return True
