"""The sending half of a link: whole frames one after another, from any thread.

What a signal handler raises in the middle of it tears nothing: a frame that was begun goes on before all others.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from backtest_sync.errors import RequestTimeoutError
from backtest_sync.frames import CLOSE, PING, PONG, TEXT
from backtest_sync.inbox import acquire
from backtest_sync.limits import Deadline
from backtest_sync.stream import Bell, ByteStream
from backtest_sync.upgrade import format_frame

# how long the end of a link waits for a writer that is in the middle of a frame, seconds
_WRITER_GRACE = 0.05
# how long it waits for one that a closed connection sends away, seconds
_LEAVING_LIMIT = 1.0


class Outgoing:
    """A frame on its way; ``gone`` says how far it has got, one number a write."""

    __slots__ = ("_frame", "gone")

    def __init__(self, frame: bytes, gone: list[int] | None = None) -> None:
        self._frame = memoryview(frame)
        self.gone: list[int] = [] if gone is None else gone

    @property
    def left(self) -> memoryview:
        """What has still to go."""
        return self._frame[sum(self.gone) :]


class Writer:
    """Sends frames; what does not fit at once is left for the link's own thread, which the bell calls."""

    def __init__(self, stream: ByteStream, bell: Bell) -> None:
        self._stream = stream
        self._bell = bell
        self._writing = threading.Lock()  # of all that follows, but for `pong` and `ping_due`
        self._tail: Outgoing | None = None  # what must go out before anything else
        self._torn = False  # whether it is unknown how much of the tail has gone
        self._stuck = False  # whether the last write found no room
        #: why nothing more can be sent
        self.broken: OSError | None = None
        #: when the peer last made room for a write that had none
        self.moved = time.monotonic()
        #: the payload of a pong that is due, and whether a ping is: set by the link's own thread
        self.pong: bytes | None = None
        self.ping_due = False

    @property
    def is_due(self) -> bool:
        """Whether something waits to be written, perhaps by somebody who is at it."""
        return self._tail is not None or self.pong is not None or self.ping_due

    @property
    def needs_room(self) -> bool:
        """Whether something waits for room that nobody is writing."""
        return self._tail is not None and not self._writing.locked()

    def send(
        self, payload: bytes, deadline: Deadline, gone: list[int] | None, check: Callable[[], None]
    ) -> OSError | None:
        """Send one text message, unless ``check()`` raises; gives why the socket failed, if it did.

        `RequestTimeoutError` at the deadline. A frame that was begun when the time ran out, or when a signal
        handler raised, goes on as soon as there is room, before all others; one that was not begun is not sent.
        ``gone`` tells which: it gets a number for each write.
        """
        frame = Outgoing(format_frame(TEXT, payload), gone)
        failure = None
        held: list[bool] = []
        try:
            acquire(self._writing, deadline, held)
            if not held:
                raise RequestTimeoutError("sending", deadline.timeout or 0.0)
            check()
            sent = self._drain(deadline)
            if sent:
                self._tail = frame
                sent = self._drain(deadline)
        except OSError as error:
            if error.errno is None:
                raise  # not the socket's, but a signal handler's
            failure = self.broken = error
        finally:
            if held:
                if self._tail is not None or self.broken is not None:
                    self._settle(frame)
                self._writing.release()
                if self.is_due or self.broken is not None:
                    self._bell.ring()  # the link's own thread goes on with it
        if failure is None and not sent:
            raise RequestTimeoutError("sending", deadline.timeout or 0.0)
        return failure

    def flush(self) -> None:
        """Write what is due and fits. Where a writer is at work, it rings when it is done."""
        while self.is_due and self._writing.acquire(blocking=False):
            try:
                if self.broken is not None or not self._drain(Deadline(0)):
                    return
                if self.pong is not None:
                    pong, self.pong = self.pong, None
                    self._tail = Outgoing(format_frame(PONG, pong))
                elif self.ping_due:
                    self.ping_due = False
                    self._tail = Outgoing(format_frame(PING, b""))
            except OSError as error:
                self.broken = error
                self._tail = None
                self._bell.ring()
            finally:
                self._writing.release()

    def say_farewell(self, payload: bytes, deadline: Deadline) -> None:
        """Send a close frame, if that can be done in time."""
        if not acquire(self._writing, Deadline(_WRITER_GRACE)):
            return  # in the middle of a frame: a close frame can't follow
        try:
            if self.broken is None and self._drain(deadline):
                self._tail = Outgoing(format_frame(CLOSE, payload))
                self._drain(deadline)
        except OSError:
            pass  # best effort: the connection is over either way
        finally:
            self._writing.release()

    def close(self) -> None:
        """Give the socket back once nobody writes: none may be left on a descriptor that may be another's."""
        if acquire(self._writing, Deadline(_LEAVING_LIMIT)):
            try:
                self._tail = None
                self._stream.close()
            finally:
                self._writing.release()

    def _drain(self, deadline: Deadline) -> bool:
        """Write the tail, waiting for room; false at the deadline. Needs the lock."""
        while self._tail is not None:
            left = self._tail.left
            if not left:
                self._tail = None
                break
            self._torn = self._stream.tls  # there, a write takes several steps
            sent = self._stream.send(left, self._tail.gone)
            self._torn = False
            if sent and self._stuck:
                self.moved = time.monotonic()
            self._stuck = not sent
            if self._stuck and not self._stream.wait(deadline):
                return False
        return True

    def _settle(self, frame: Outgoing) -> None:
        """After a send, however it ended: leave a tail that can be continued, or a broken link."""
        if self._torn and self.broken is None:
            self.broken = InterruptedError("a write was interrupted")
        unbegun = self._tail is frame and not frame.gone and not self._stream.must_repeat
        if unbegun or self.broken is not None:
            self._tail = None
