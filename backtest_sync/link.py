"""One socket's life as a WebSocket: reading, writing, keepalive, the closing handshake.

A `Link` lives on a thread of its own, which does all that there is to do. Any thread may `send`, and a thread
that waits for messages may `read` them itself: whole messages that come within a moment, as nearly all do. That
saves waking another thread for each. The link's own thread stands by meanwhile; it goes on where something else
comes, where nothing comes, and where nobody waits.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import chain

from backtest_sync.errors import SessionClosedError
from backtest_sync.frames import (
    MAX_REASON_BYTES,
    Close,
    Control,
    FrameDecoder,
    Ping,
    Violation,
)
from backtest_sync.inbox import End, Inbox, Sink
from backtest_sync.limits import Deadline
from backtest_sync.stream import READ, Bell, ByteStream, Lookout, Poller
from backtest_sync.writer import Writer

# how much is read before messages are handed over and everything else gets its turn, in bytes
_TURN_BYTES = 256 * 1024
# how long one who waits looks for messages itself, and how long the own thread stands by after that, seconds
_MOMENT = 0.05
_ALL = (slice(None),)
# how long a failed writer waits for the reader to find out why, seconds
_REASON_WAIT = 0.5
# how long answering the peer's close frame may take, seconds
_ANSWER_LIMIT = 1.0

# of an end of the stream as well as of a reset: over TLS they look the same
RESET = "connection reset without closing handshake"
NO_CLOSE_FRAME = "no close frame"

# how the reference spells the codes
_CODE_NAMES = {
    1000: "Normal",
    1001: "Away",
    1002: "Protocol",
    1003: "Unsupported",
    1007: "Invalid",
    1008: "Policy",
    1009: "Size",
    1010: "Extension",
    1011: "Error",
    1012: "Restart",
    1013: "Again",
}


def close_text(code: int | None, reason: str) -> str:
    """A close frame in words, as the reference puts it (protocol/control.md §8.8)."""
    if code is None:
        return NO_CLOSE_FRAME
    family = "Library" if code >= 4000 else "Iana" if code >= 3000 else "Bad"
    name = _CODE_NAMES.get(code, f"{family}({code})")
    return f"{name}: {reason}" if reason else name


def close_payload(code: int | None, reason: str) -> bytes:
    """What a close frame carries; the reason is cut to what fits."""
    if code is None:
        return b""
    text = reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore")
    return code.to_bytes(2, "big") + text.encode()


def lost(error: OSError) -> End:
    """The end that a failing socket means."""
    if isinstance(error, (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return End(None, RESET, error)
    return End(None, f"connection lost: {error}", error)


class Link:
    """A connected WebSocket that reads into an inbox."""

    def __init__(
        self,
        sock: socket.socket,
        inbox: Inbox,
        bell: Bell,
        *,
        max_message_bytes: int,
        ping_interval: float,
        ping_deadline: float,
    ) -> None:
        self._stream = ByteStream(sock)
        self._inbox = inbox
        self._bell = bell
        self._decoder = FrameDecoder(max_message_bytes)
        # reading: under the lock, which nobody holds while waiting for the socket; re-entrant, since a signal
        # handler may read in the middle of it
        self._reading = threading.RLock()
        self._received: list[bytes] = []  # and not decoded
        self._visits = 0  # how often another thread than the link's own came to read
        self._visitor: int | None = None  # the thread that is in the middle of it
        self._descriptor = sock.fileno()  # its number, which is known when it is closed as well
        # of no visitor at the moment; the first is made here, where no signal handler can raise
        self._lookouts = deque((Lookout(self._descriptor),))
        self._released = False
        # keepalive, and what there is to wait for: the own thread's alone, but for `_heard`
        self._poller = Poller()
        self._poller.watch(bell.fileno(), READ)
        self._interval = ping_interval
        self._patience = ping_deadline - ping_interval
        self._heard = self._pinged = time.monotonic()
        self._unanswered: float | None = None
        self._paused = False
        self._polled = 0  # the events that the socket is polled for
        self._wait = 0.0  # how long the next poll may take
        self._uncounted = 0  # bytes read since messages were last handed over
        self._answer: bytes | None = None  # to the peer's close frame or violation
        self._failed: OSError | None = None  # why nothing more can be read
        self._writer = Writer(self._stream, bell)

    # --- the link's own thread

    def run(self) -> None:
        """Do what there is to do until the link ends."""
        try:
            self._run()
        except BaseException as error:  # noqa: BLE001 - whoever waits must hear of it
            if isinstance(error, OSError):
                self._inbox.finish(lost(error))
            else:
                self._inbox.finish(End(None, f"the reader failed: {error!r}", error))

    def _run(self) -> None:
        calls = Poller()
        calls.watch(self._bell.fileno(), READ)
        seen = self._visits
        while self._inbox.end is None:
            if seen == self._visits:
                rung = self._poll()
            else:  # somebody read a moment ago, and may come back
                seen = self._visits
                rung = bool(calls.wait(_MOMENT))
                if not rung:
                    continue
            if rung:
                self._bell.quiet()
                seen = self._visits
            awaited = self._inbox.awaited
            with self._reading:
                came = self._turn()
            if came and awaited and self._visits:
                seen = -1  # whoever was woken will come to read the next

    def release(self, farewell: bytes | None, timeout: float) -> None:
        """Send a close frame if one is due and it can be done in time, then give the socket back.

        ``farewell`` is what the close frame of this side carries; what the peer is to be answered goes first.
        """
        if self._answer is not None:
            farewell, timeout = self._answer, _ANSWER_LIMIT
        if farewell is not None:
            self._writer.say_farewell(farewell, Deadline(timeout))
        # what nobody reads any more resets the connection: or a peer in the middle of a flood would wait for room
        with self._reading:
            self._stream.shutdown()
            self._writer.close()
        self._released = True
        self._close_lookouts()

    def _close_lookouts(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                self._lookouts.pop().close()

    def forget(self) -> None:
        """Give back a forked process's copy of the socket; nothing is sent."""
        self._stream.forget()
        for lookout in self._lookouts:
            lookout.forget()

    def _poll(self) -> bool:
        """Wait for the socket, the bell or the next ping; whether the bell rings."""
        events = 0 if self._paused else self._stream.read_event
        if self._writer.needs_room:
            events |= self._stream.write_event
        if events != self._polled:
            if events:
                self._poller.watch(self._stream.fileno(), events)
            else:
                self._poller.unwatch(self._stream.fileno())
            self._polled = events
        bell, rung = self._bell.fileno(), False
        for descriptor, _ in self._poller.wait(self._wait):
            rung = rung or descriptor == bell
        return rung

    def _turn(self) -> bool:
        """Do what there is to do, without waiting; whether there were messages."""
        now = time.monotonic()
        if self._paused and not self._inbox.full:
            # what was not read in the meantime is no sign of a dead peer
            self._paused = False
            self._heard, self._unanswered = now, None
        messages: list[bytes] = []
        size, end = 0, None
        if not self._paused:
            size, end = self._collect(messages)
        if size:
            self._heard, self._unanswered = now, None
            self._uncounted += size
            self._wait = 0.0 if size >= _TURN_BYTES else self._interval
        elif end is None:
            end = self._keep_alive(now)
        if self._writer.is_due:
            self._writer.flush()
        if messages:
            # last, so that whoever it wakes finds the interpreter free
            size, self._uncounted = self._uncounted, 0
            self._inbox.put(messages, size)
            self._paused = self._inbox.full
        if end is not None:
            self._inbox.finish(end)
        return bool(messages)

    def _collect(self, messages: list[bytes]) -> tuple[int, End | None]:
        """Decode what has arrived, up to a turn's share; gives its size, and the end if there is one."""
        received, size, came = self._received, 0, True
        try:
            while came and size < _TURN_BYTES:
                came = self._stream.receive(received)
                size += len(received[-1]) if came else 0
                seen = self._peek()
                if seen is not None:
                    messages += seen[0]
                    received[:] = seen[1]
                elif (end := self._feed(messages)) is not None:
                    return size, end
                came = came and not self._stream.drained
        except OSError as error:
            return size, lost(error)
        broken = self._failed or self._writer.broken
        if broken is not None and not size:
            return size, lost(broken)
        return size, None

    def _peek(self) -> tuple[list[bytes], list[bytes]] | None:
        """The whole short messages that were received, and what is left then; ``None`` if there is more to it."""
        received = self._received
        if not self._decoder.idle or (received and not received[-1]):
            return None
        seen = self._decoder.peek(b"".join(received))
        return None if seen is None else (seen[0], [seen[1]] if seen[1] else [])

    def _feed(self, messages: list[bytes]) -> End | None:
        """Decode all that was received, in general."""
        while self._received:
            chunk = self._received.pop(0)
            if not chunk:
                return End(None, RESET, self._failed or self._writer.broken)
            arrived, controls = self._decoder.feed(chunk)
            messages += arrived
            if controls and (end := self._obey(controls)) is not None:
                return end
        # so that it can be taken by `read`
        begun = self._decoder.give_back()
        if begun:
            self._received.append(begun)
        return None

    def _obey(self, controls: list[Control]) -> End | None:
        for control in controls:
            if isinstance(control, Ping):
                # only the newest needs an answer (RFC 6455 §5.5.3)
                self._writer.pong = control.payload
            elif isinstance(control, Close):
                self._answer = close_payload(control.code, "")
                return End(control.code, close_text(control.code, control.reason))
            elif isinstance(control, Violation):
                self._answer = close_payload(control.code, control.reason)
                return End(control.code, close_text(control.code, control.reason))
        return None

    def _keep_alive(self, now: float) -> End | None:
        """Ping a silent peer; the end of one that stays silent. Sets how long to wait for the next step."""
        due = max(self._heard, self._pinged) + self._interval
        if now >= due:
            due = now + self._interval
            self._pinged = now
            self._writer.ping_due = True
            if self._unanswered is None:
                self._unanswered = now
        if self._unanswered is not None and not self._paused:
            over = max(self._unanswered, self._writer.moved) + self._patience
            if now >= over:
                return End(None, f"no traffic for {self._interval + self._patience:g} s")
            due = min(due, over)
        self._wait = due - now
        return None

    # --- any thread

    def read(self, into: Sink | None, ready: Callable[[], bool], deadline: Deadline) -> list[bytes]:
        """Messages that come within a moment, read on this thread, and put behind what is in ``into``.

        Empty at the deadline, when ``ready()``, and where the link's own thread has to go on, which is told so.
        """
        held: list[Lookout] = []
        messages = None
        try:
            if self._borrow(held):
                self._visits += 1
                messages = self._read_by(held[0], into, ready, deadline)
        finally:
            self._lookouts.extend(held)
            if self._released:
                self._close_lookouts()
            if messages is None and self._visits:  # where a signal handler raises as well
                self._bell.ring()
        return messages or []

    def _read_by(
        self, lookout: Lookout, into: Sink | None, ready: Callable[[], bool], deadline: Deadline
    ) -> list[bytes] | None:
        """`read`; ``None`` for the own thread to go on."""
        # in a signal handler that came in the middle of a visit, that can't go on until the handler is left
        alone = self.visited_here
        while not ready():
            left = deadline.remaining()
            if self._stream.drained:
                lookout.readable = False
                limit = _MOMENT if left is None else min(_MOMENT, left)
                if self._inbox.wait_by(lookout, ready, limit):
                    continue
                if not lookout.readable and not alone:
                    return [] if ready() else None
            messages = self._visit(into)
            if messages or (messages is None and not alone):
                return messages
            if left == 0:
                return None
        return []

    def _visit(self, into: Sink | None) -> list[bytes] | None:
        visitor = threading.get_ident()  # known before the lock is held: a signal handler may ask
        with self._reading:
            before, self._visitor = self._visitor, visitor
            try:
                return self._take_whole(into)
            finally:
                self._visitor = before

    def _take_whole(self, into: Sink | None) -> list[bytes] | None:
        """What is there of whole short messages; ``None`` where something else is among them."""
        received = self._received
        if self._inbox.holds or self._inbox.end is not None:
            return []  # as `ready` tells
        try:
            if self._stream.receive(received):
                self._heard, self._unanswered = time.monotonic(), None
        except OSError as error:
            if error.errno is None:
                raise  # not the socket's, but a signal handler's
            self._failed = error
            return None
        last = received[-1:]
        seen = self._peek()
        if seen is None:
            return None
        messages, left = seen
        # a signal handler may have read in the meantime: then this is not what comes next
        if messages and received and received[-1] is last[0]:
            if into is None:
                received[:] = left
            else:  # given and taken in one step, as signal handlers see it
                taking = map(received.__setitem__, _ALL, (left,))
                into.extend(chain(messages, filter(None, taking)))
            return messages
        return []

    def _borrow(self, held: list[Lookout]) -> bool:
        """Put into ``held`` what this thread can look out by, unless only the link's own thread may read."""
        if self._stream.tls and threading.current_thread() is threading.main_thread():
            return False  # TLS receives in several steps: a signal handler might raise between them
        try:
            held.extend(map(deque.pop, (self._lookouts,)))  # one step, as signal handlers see it
        except IndexError:
            with contextlib.suppress(OSError):  # there may be no descriptors left
                held.append(Lookout(self._descriptor))
        return bool(held)

    @property
    def visited_here(self) -> bool:
        """Whether this thread is in the middle of reading: then a finaliser or a signal handler asks."""
        return self._visitor == threading.get_ident()

    @property
    def pending(self) -> bool:
        """Whether something may have come that nobody has read yet."""
        if not self._visits or self._released:
            return False  # the own thread reads at once, or has left
        held: list[Lookout] = []
        try:
            if not self._borrow(held):
                return False
            held[0].acquire(timeout=0)
            return held[0].readable or not self._stream.drained
        finally:
            self._lookouts.extend(held)
            if self._released:
                self._close_lookouts()

    def send(self, payload: bytes, deadline: Deadline, gone: list[int] | None = None) -> None:
        """Send one text message, as `Writer.send` does. `SessionClosedError`, `RequestTimeoutError`."""
        failure = self._writer.send(payload, deadline, gone, self._check_open)
        if failure is not None:
            raise self._closed_error(failure)

    def _check_open(self) -> None:
        if self._inbox.end is not None:
            raise self._inbox.end.error()
        if self._writer.broken is not None:
            raise lost(self._writer.broken).error()

    def _closed_error(self, error: OSError) -> SessionClosedError:
        """Why a write failed, as the reader sees it: there may be a close frame to read."""
        self._bell.ring()
        self._inbox.wait(lambda: self._inbox.end is not None, Deadline(_REASON_WAIT))
        return (self._inbox.end or lost(error)).error()
