"""Where a connection's reader leaves messages for its callers, and how the stream ended."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable

from attrs import frozen

from backtest_sync.errors import SessionClosedError
from backtest_sync.limits import Deadline

#: How much may wait for the consumer before the reader stops reading, in bytes.
MAX_QUEUE_BYTES = 64 * 1024 * 1024

# what a small message costs in memory beyond its bytes: an object's head and its place in a list
_MESSAGE_OVERHEAD = 48

# On Windows, before Python 3.14, Ctrl-C does not end a wait: there, waits come in slices.
_LONGEST_WAIT = 0.2 if sys.platform == "win32" and sys.version_info < (3, 14) else None


def wait_slice(left: float | None) -> float | None:
    """How long to wait at once, with ``left`` seconds to go (``None``: no limit), so that Ctrl-C works."""
    if _LONGEST_WAIT is None:
        return left
    return _LONGEST_WAIT if left is None else min(left, _LONGEST_WAIT)


def acquire(lock: threading.Lock, deadline: Deadline) -> bool:
    """Take ``lock`` before ``deadline``; whether it was taken."""
    if lock.acquire(blocking=False):
        return True
    while True:
        wait = wait_slice(deadline.remaining())
        if lock.acquire(timeout=-1 if wait is None else wait):
            return True
        if deadline.expired:
            return False


@frozen
class End:
    """Why a stream is over.

    ``code``: of the peer's close frame, or of ours where the peer broke the protocol; ``None`` where the
    connection was simply lost. ``ours``: this side closed it.
    """

    code: int | None
    reason: str
    cause: BaseException | None = None
    ours: bool = False

    def error(self) -> SessionClosedError:
        """What to raise for it."""
        error = SessionClosedError(self.reason, code=self.code)
        error.__cause__ = self.cause
        return error


class Inbox:
    """A bounded queue of lists of messages; one thread puts, any number take.

    It is never so full that a `put` fails: the reader looks at `full` and stops reading, and hears by
    ``on_room`` when half of it is free again.
    """

    def __init__(self, max_bytes: int, on_room: Callable[[], None]) -> None:
        # re-entrant, since a finaliser may run in any thread at any time
        self._changed = threading.Condition(threading.RLock())
        self._lists: deque[tuple[list[bytes], int]] = deque()
        self._max_bytes = max_bytes
        self._on_room = on_room
        self.queued = 0
        self.full = False
        self._closed = False  # by this side: nobody takes any more
        self.end: End | None = None

    def put(self, messages: list[bytes], size: int) -> None:
        """Hand over messages that came in ``size`` bytes, and wake who waits."""
        size += _MESSAGE_OVERHEAD * len(messages)
        with self._changed:
            if self._closed:
                return
            self._lists.append((messages, size))
            self.queued += size
            if self.queued > self._max_bytes:
                self.full = True
            self._changed.notify_all()

    def take(self, deadline: Deadline, stopped: Callable[[], bool] | None = None) -> list[bytes]:
        """The oldest list; empty at the deadline, when ``stopped()``, or when all is over and taken."""
        with self._changed:
            while not self._lists:
                if self.end is not None or (stopped is not None and stopped()):
                    return []
                left = deadline.remaining()
                if left == 0:
                    return []
                self._changed.wait(wait_slice(left))
            messages, size = self._lists.popleft()
            self.queued -= size
            room = self.full and self.queued <= self._max_bytes // 2
            if room:
                self.full = False
        if room:
            self._on_room()
        return messages

    def finish(self, end: End) -> None:
        """The stream is over; the first reason counts.

        What waits can still be taken, unless this side wants no more.
        """
        with self._changed:
            if self.end is None:
                self.end = end
            if end.ours:
                self._closed = True
                self._lists.clear()
                self.queued = 0
            self._changed.notify_all()

    def wake(self) -> None:
        """Let everyone who waits look again at what they wait for."""
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, done: Callable[[], bool], deadline: Deadline) -> bool:
        """Wait until ``done()``, looked at after each `wake` and at the end; false at the deadline."""
        with self._changed:
            while not done():
                left = deadline.remaining()
                if left == 0:
                    return False
                self._changed.wait(wait_slice(left))
            return True
