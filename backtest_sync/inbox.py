"""Where a connection's reader leaves messages for its callers, and how the stream ended."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

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


class Acquirable(Protocol):
    """A lock, re-entrant or not."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool: ...


class Waiter(Acquirable, Protocol):
    """What a thread waits by until another releases it."""

    def release(self) -> None: ...


def acquire(lock: Acquirable, deadline: Deadline, held: list[bool] | None = None) -> bool:
    """Take ``lock`` before ``deadline``; whether it was taken.

    Then ``held`` is not empty any more, which is true whenever a signal handler raises, too.
    """
    held = [] if held is None else held
    # taken and told in one step, as signal handlers see it
    held.extend(filter(None, map(lock.acquire, (False,))))
    while not held:
        wait = wait_slice(deadline.remaining())
        held.extend(filter(None, map(lock.acquire, (True,), (-1 if wait is None else wait,))))
        if deadline.expired:
            break
    return bool(held)


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


#: Where messages are put, behind what is there.
Sink = list[bytes] | deque[bytes]


class Inbox:
    """A bounded queue of lists of messages; one thread puts, any number take.

    It is never so full that a `put` fails: the reader looks at `full` and stops reading, and hears by
    ``on_room`` when half of it is free again.

    What is shared changes by single atomic operations of its deques. Whoever waits enrols first and then
    looks once more; whoever changes something does so first and then wakes: so no wake-up is lost, and
    nothing here deadlocks when a finaliser runs in the middle of it.
    """

    def __init__(self, max_bytes: int, on_room: Callable[[], None]) -> None:
        self._lists: deque[tuple[list[bytes], int]] = deque()
        self._waiters: deque[Waiter] = deque()
        self._max_bytes = max_bytes
        self._on_room = on_room
        self._counting = threading.Lock()  # of `queued` and `full`
        self.queued = 0
        self.full = False
        self._ending = threading.RLock()  # re-entrant, since a finaliser may end this
        self.closed = False  # by this side: nothing is taken any more
        self.end: End | None = None

    def put(self, messages: list[bytes], size: int) -> None:
        """Hand over messages that came in ``size`` bytes, and wake who waits."""
        if self.closed:
            return
        size += _MESSAGE_OVERHEAD * len(messages)
        with self._counting:
            self.queued += size
            self.full = self.queued > self._max_bytes
        self._lists.append((messages, size))
        self.wake()

    def take(
        self,
        deadline: Deadline,
        stopped: Callable[[], bool] | None = None,
        into: Sink | None = None,
        read: Callable[[Sink | None, Callable[[], bool], Deadline], list[bytes]] | None = None,
    ) -> list[bytes]:
        """The oldest list; empty at the deadline, when ``stopped()``, or when all is over and taken.

        It is also put behind what is in ``into``. ``read(into, ready, deadline)`` is asked for messages before
        anything is waited for here.
        """

        def ready() -> bool:
            return bool(self._lists) or self.end is not None or (stopped is not None and stopped())

        while not self.closed:
            over = self.end is not None  # looked at before the lists, which are complete by then
            if self._lists:
                try:
                    return self._take_one(into)
                except IndexError:
                    continue  # another thread was quicker
            if over or (stopped is not None and stopped()):
                break
            if read is not None and (messages := read(into, ready, deadline)):
                return messages
            if not self.wait(ready, deadline):
                break
        return []

    def _take_one(self, into: Sink | None) -> list[bytes]:
        messages, size = self._lists.popleft()
        if into is not None:
            into.extend(messages)
        with self._counting:
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
        with self._ending:
            if self.end is None:
                self.end = end
        if end.ours:
            self.closed = True
            self._lists.clear()
        self.wake()

    @property
    def holds(self) -> bool:
        """Whether something can be taken."""
        return bool(self._lists)

    @property
    def awaited(self) -> bool:
        """Whether anyone is in `wait`."""
        return bool(self._waiters)

    def wake(self) -> None:
        """Let everyone who waits look again at what they wait for."""
        waiters = self._waiters
        while waiters:
            try:
                waiters.popleft().release()
            except IndexError:
                return

    def wait(self, ready: Callable[[], bool], deadline: Deadline) -> bool:
        """Wait until ``ready()``, looked at after each `wake`; false at the deadline."""
        while not ready():
            left = deadline.remaining()
            if left == 0:
                return False
            waiter = threading.Lock()
            waiter.acquire()
            self.wait_by(waiter, ready, left)
        return True

    def wait_by(self, waiter: Waiter, ready: Callable[[], bool], limit: float | None) -> bool:
        """Wait once by ``waiter``, which the next `wake` releases, unless ``ready()``; whether it was released."""
        self._waiters.append(waiter)
        woken = False
        try:
            if not ready():
                limit = wait_slice(limit)
                woken = waiter.acquire(timeout=-1 if limit is None else limit)
        finally:
            # who was woken by an earlier `wake` is still enrolled
            if self._waiters:
                with contextlib.suppress(ValueError):
                    self._waiters.remove(waiter)
        return woken
