"""A WebSocket to the service: a thread of its own, a lock for writers, keepalive, and an end that always comes.

What a caller holds is a `Connection`; what its thread holds is a `_Core`, so that a forgotten connection can
be noticed and closed. The socket and all that concerns one socket alone is a `Link`.
"""

from __future__ import annotations

import contextlib
import math
import os
import ssl
import sys
import threading
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from attrs import Attribute, field, frozen

from backtest_sync.errors import InvalidParamsError, RequestTimeoutError, SessionClosedError
from backtest_sync.frames import MAX_MESSAGE_BYTES, MAX_REASON_BYTES, is_close_code
from backtest_sync.inbox import MAX_QUEUE_BYTES, End, Inbox, Sink
from backtest_sync.limits import PING_DEADLINE, PING_INTERVAL, Deadline
from backtest_sync.protocol.fields import shown
from backtest_sync.stream import Bell

if TYPE_CHECKING:
    from backtest_sync.link import Link
    from backtest_sync.upgrade import Upgrade

__all__ = ["CLOSE_LIMIT", "Connection", "End", "ReconnectPolicy"]

#: How long sending a close frame may take, in seconds.
CLOSE_LIMIT = 1.0

# how long the interpreter's exit waits for the close frame of a connection that was not closed, seconds
_EXIT_LIMIT = 0.5
# the end of a thread after it gave everything back, seconds: only a hung system takes as long
_JOIN_LIMIT = 5.0


def _within(
    least: float, most: float = math.inf, kind: type | tuple[type, ...] = (int, float)
) -> Callable[[object, Attribute[Any], Any], None]:
    """A check of a policy's field: a finite number between two bounds."""

    def check(_: object, attribute: Attribute[Any], value: Any) -> None:
        right = isinstance(value, kind) and not isinstance(value, bool)
        if not right or not least <= value <= min(most, sys.float_info.max):
            bounds = f"{least:g} or more" if most == math.inf else f"between {least:g} and {most:g}"
            noun = "an integer" if kind is int else "a number"
            raise InvalidParamsError(
                f"ReconnectPolicy: {attribute.name} must be {noun} of {bounds}, not {shown(value)}"
            )

    return check


@frozen(kw_only=True)
class ReconnectPolicy:
    """How a lost connection is made again (protocol/managed.md §1 and §2).

    Up to ``max_attempts`` within ``max_total`` seconds, with pauses that begin at ``initial_backoff`` seconds
    and grow by ``multiplier`` to ``max_backoff``, each changed at random by up to ``jitter`` of itself. A
    connection that lived ``uptime_reset`` seconds starts the count again.
    """

    max_attempts: int = field(default=20, validator=_within(0, kind=int))
    max_total: float = field(default=300.0, validator=_within(0))
    initial_backoff: float = field(default=1.0, validator=_within(0))
    max_backoff: float = field(default=30.0, validator=_within(0))
    multiplier: float = field(default=2.0, validator=_within(1))
    jitter: float = field(default=0.2, validator=_within(0, 1))
    uptime_reset: float = field(default=30.0, validator=_within(0))


def check_policy(value: object) -> ReconnectPolicy | None:
    """A value of ``reconnect``; else `InvalidParamsError`."""
    if value is not None and not isinstance(value, ReconnectPolicy):
        raise InvalidParamsError(
            f"reconnect: expected a ReconnectPolicy or None, got {shown(value)}"
        )
    return value


class _Core:
    """What a connection's thread knows of it, and what outlives the connection when it is forgotten."""

    def __init__(self, upgrade: Upgrade, max_queue_bytes: int) -> None:
        self.pid = os.getpid()
        self.upgrade = upgrade
        self.bell = Bell()
        self.inbox = Inbox(max_queue_bytes, self.bell.ring)
        self.link: Link | None = None
        self.failure: BaseException | None = None
        # re-entrant, since a finaliser may run in any thread at any time
        self.ending = threading.RLock()
        self.farewell: bytes | None = None
        self.farewell_limit = 0.0
        self.thread: threading.Thread

    def serve(self, make_link: Callable[..., Link]) -> None:
        """The thread: open the link, run it until it ends, give everything back."""
        try:
            link = make_link(self.upgrade.run(), self.inbox, self.bell)
        except BaseException as error:  # noqa: BLE001 - whoever opens gets it
            self.failure = error
        else:
            self.link = link
            self.inbox.wake()
            link.run()
            link.release(self.farewell, self.farewell_limit)
        finally:
            self.bell.close()
            self.inbox.wake()

    def is_decided(self) -> bool:
        """Whether the opening has succeeded or failed."""
        return self.link is not None or self.failure is not None

    def end(self, end: End, farewell: bytes | None, limit: float) -> None:
        """Ask the thread to end the connection, with a close frame or without."""
        with self.ending:
            if self.inbox.end is None:
                self.farewell, self.farewell_limit = farewell, limit
            self.inbox.finish(end)
        self.bell.ring()

    def call_off(self) -> None:
        """Nobody waits for the opening any more."""
        self.end(End(None, "not opened", ours=True), None, 0.0)
        self.upgrade.call_off()
        if not self.thread.is_alive():
            self.bell.close()  # it never ran, or has done so itself

    def join(self, timeout: float) -> None:
        """Wait for the thread, unless this is it or one that it waits for: a finaliser may run in both."""
        if self.thread is threading.current_thread():
            return
        if self.link is None or not self.link.visited_here:
            self.thread.join(timeout)

    def forget(self) -> None:
        """Give back a forked process's copies of descriptors, with no effect on the other process."""
        with contextlib.suppress(OSError):
            self.bell.forget()
            if self.link is not None:
                self.link.forget()


def _abandon(core: _Core) -> None:
    """End a connection that was forgotten, or that is open when the interpreter exits.

    It may run inside any other code, so it takes no lock that is held for long, and waits only at the exit,
    when the main thread counts as ended already.
    """
    if os.getpid() != core.pid:
        core.forget()
        return
    core.end(End(None, "the connection was forgotten", ours=True), b"", 0.0)
    if not threading.main_thread().is_alive():
        core.join(_EXIT_LIMIT)


class Connection:
    """One WebSocket connection; every method may be called from any thread.

    Messages come out of `receive` in order, each exactly once. The end is in `end`.
    """

    def __init__(self, core: _Core) -> None:
        assert core.link is not None  # noqa: S101 - it is made of one that was opened
        self._core, self._link = core, core.link
        self._inbox = core.inbox
        self._finalizer = weakref.finalize(self, _abandon, core)

    @classmethod
    def open(
        cls,
        url: str,
        *,
        name: str,
        headers: Mapping[str, str],
        connect_timeout: float = 10.0,
        ssl_context: ssl.SSLContext | None = None,
        max_queue_bytes: int = MAX_QUEUE_BYTES,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        ping_interval: float = PING_INTERVAL,
        ping_deadline: float = PING_DEADLINE,
    ) -> Connection:
        """Connect, with everything from the DNS to the HTTP upgrade done within ``connect_timeout``.

        ``name`` is the link's thread's. Raises `ConnectError`, `RequestTimeoutError`, and `InvalidParamsError`
        for a URL or header that can't be used.
        """
        # the library behind these is only loaded when a connection is made
        from backtest_sync.link import Link
        from backtest_sync.upgrade import Upgrade

        def make_link(*parts: object) -> Link:
            return Link(
                *parts,  # type: ignore[arg-type]
                max_message_bytes=max_message_bytes,
                ping_interval=ping_interval,
                ping_deadline=ping_deadline,
            )

        deadline = Deadline(connect_timeout)
        core = _Core(Upgrade(url, headers, connect_timeout, ssl_context), max_queue_bytes)
        core.thread = threading.Thread(target=core.serve, args=(make_link,), name=name, daemon=True)
        try:
            core.thread.start()
            if not core.inbox.wait(core.is_decided, deadline):
                raise RequestTimeoutError("connecting", connect_timeout)
            if core.failure is not None:
                core.join(_JOIN_LIMIT)
                raise core.failure
            return cls(core)
        except BaseException:
            core.call_off()
            raise

    def send(self, text: str, deadline: Deadline, gone: list[int] | None = None) -> None:
        """Send one text message.

        `SessionClosedError` when the connection is over. `RequestTimeoutError` at the deadline: then the
        message is not sent, or, where its sending had begun, is sent to its end behind the caller's back,
        before any other; likewise where a signal handler raises. ``gone`` tells which: it gets the number of
        bytes of each write.
        """
        self._check_process()
        self._link.send(text.encode(), deadline, gone)

    def receive(
        self,
        deadline: Deadline,
        stopped: Callable[[], bool] | None = None,
        into: Sink | None = None,
    ) -> list[bytes]:
        """What has arrived, at least one message: ``bytes``, or `Binary` for a binary message.

        It is also put behind what is in ``into``: where this thread reads itself, in the step that takes it from
        the socket's, so that no signal handler comes between. Empty when the deadline is over, when ``stopped()``
        is true (it is looked at before each wait, under a lock: it must be quick), or when the stream is over and
        everything was taken.
        """
        self._check_process()
        return self._inbox.take(deadline, stopped, into, self._link.read)

    def rename(self, name: str) -> None:
        """Give its thread another name."""
        self._core.thread.name = name

    def wake(self) -> None:
        """Make everyone who waits in `receive` look at ``stopped()``."""
        self._check_process()
        self._inbox.wake()

    @property
    def end(self) -> End | None:
        """Why the stream is over, though messages may wait to be taken; ``None`` while it runs."""
        return self._inbox.end

    @property
    def queued_bytes(self) -> int:
        """What waits in memory for `receive`."""
        return 0 if self._inbox.closed else self._inbox.queued

    @property
    def has_more(self) -> bool:
        """Whether `receive` may have something to give at once."""
        return self._inbox.holds or self._link.pending

    def close(
        self, code: int | None = 1000, reason: str = "", timeout: float = CLOSE_LIMIT
    ) -> None:
        """Send a close frame if that is possible within ``timeout``, and end the connection.

        Does not wait for the peer's close frame. Wakes everyone who waits; what was not received is
        dropped. ``code=None`` sends a close frame with nothing in it.
        """
        if code is not None and not is_close_code(code):
            raise InvalidParamsError(f"code must be a WebSocket close code, not {code!r}")
        if len(reason.encode()) > MAX_REASON_BYTES:
            raise InvalidParamsError(
                f"reason must have at most {MAX_REASON_BYTES} bytes, not {len(reason.encode())}"
            )
        from backtest_sync.link import close_payload

        self._end(End(code, reason or "closed", ours=True), close_payload(code, reason), timeout)

    def abort(self) -> None:
        """Drop the TCP connection; nothing is sent."""
        self._end(End(None, "aborted", ours=True), None, 0.0)

    def _end(self, end: End, farewell: bytes | None, timeout: float) -> None:
        if os.getpid() != self._core.pid:
            self._core.forget()
            return
        self._core.end(end, farewell, timeout)
        self._core.join(timeout + _JOIN_LIMIT)
        self._finalizer.detach()

    def _check_process(self) -> None:
        if os.getpid() != self._core.pid:
            raise SessionClosedError(
                f"this connection belongs to process {self._core.pid}; "
                "after a fork, open another in the new process"
            )
