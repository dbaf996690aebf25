"""Time limits: a deadline that a call of several steps shares, and the protocol's constants."""

from __future__ import annotations

import threading
import time

from backtest_sync.errors import InvalidParamsError

#: Ping when nothing came in for this long (protocol/managed.md §1), seconds.
PING_INTERVAL = 15.0
#: A connection that was silent for this long is lost, seconds.
PING_DEADLINE = 45.0
#: The longest wait between two messages while creating, attaching, resuming or closing, seconds.
HANDSHAKE_LIMIT = 120.0
#: The same for a parallel create, seconds.
PARALLEL_CREATE_LIMIT = 900.0
#: What leaving a ``with`` block may spend on a graceful close, seconds.
GRACEFUL_CLOSE_LIMIT = 5.0


def check_timeout(value: float | None, name: str = "timeout") -> float | None:
    """A number of seconds that can be waited, or ``None``."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise InvalidParamsError(f"{name} must be a number of seconds of 0 or more, not {value!r}")
    return min(float(value), threading.TIMEOUT_MAX)


class Deadline:
    """A point in time ``timeout`` seconds from now; ``None`` never comes."""

    __slots__ = ("_asked", "_at", "timeout")

    def __init__(self, timeout: float | None) -> None:
        self.timeout = timeout
        self._at = None if timeout is None else time.monotonic() + timeout
        self._asked = False

    def remaining(self) -> float | None:
        """Seconds left, never below zero; ``None`` without a limit."""
        return None if self._at is None else max(0.0, self._at - time.monotonic())

    @property
    def expired(self) -> bool:
        """Whether the time is up."""
        return self._at is not None and time.monotonic() >= self._at

    def over(self) -> bool:
        """Whether the time is up; never at the first question, so that a limit of 0 looks once."""
        asked, self._asked = self._asked, True
        return asked and self.expired

    def sooner(self, timeout: float | None) -> Deadline:
        """This deadline, or one ``timeout`` seconds from now where that comes first."""
        left = self.remaining()
        if timeout is None or (left is not None and left <= timeout):
            return self
        return Deadline(timeout)
