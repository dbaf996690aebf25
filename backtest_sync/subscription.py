"""The handle of a running subscription."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Generic, TypeVar

from backtest_sync.errors import (
    InvalidParamsError,
    RequestTimeoutError,
    SubscriptionError,
)
from backtest_sync.feed import Feed
from backtest_sync.inbox import wait_slice
from backtest_sync.limits import GRACEFUL_CLOSE_LIMIT, Deadline, check_timeout

N = TypeVar("N")

_FOREVER = Deadline(None)
# how many notifications an iterator decodes at once: they share a lock, and are soon handed out
_AT_ONCE = 64
# into how many looks a silence is divided: it is told that much late at the most
_LOOKS = 10


class Subscription(Generic[N]):
    """A stream of notifications, made by the functions of `backtest_sync.subscriptions`.

    With ``on_notification``, that is called for each notification, in order, on the subscription's own thread;
    the thread goes on when the handle is forgotten. Without, the handle is an iterator and `get` takes one;
    forgotten, it closes its connection. Iteration ends where the stream ends.

    The stream ends when the server says that there is no more (`completed`), by `stop`, or by a failure: a
    `SubscriptionError` with its cause, or what the callback raised. `get` and iteration raise it after what
    came before it, `join` and `stop` raise it always.

    What lags behind is kept in memory up to `feed.MAX_QUEUE_BYTES`; then the server has to wait.
    """

    def __init__(self, feed: Feed[N], on_notification: Callable[[N], object] | None) -> None:
        self._feed = feed
        self._process = os.getpid()
        self._told = False
        self._trace: TracebackType | None = None
        self._thread: threading.Thread | None = None
        # Ctrl-C in `Thread.join` makes Python before 3.13 take a thread that runs for one that has ended
        self._delivered = threading.Event()
        # an iterator's: what is decoded, a few at a time and in order
        self._ready: deque[N] = deque()
        self._decoding = threading.RLock()  # a signal handler may stop it in the middle
        if on_notification is None:
            feed.looks_ahead = True
        else:
            self._thread = threading.Thread(
                target=_deliver,
                args=(feed, on_notification, self._delivered),
                name=f"{feed.topic.kind} {feed.topic.target} callbacks",
                daemon=True,
            )
            self._thread.start()

    # --- what it is

    @property
    def completed(self) -> bool:
        """Whether the server's end marker was seen: the stream is whole."""
        return self._feed.completed

    @property
    def is_alive(self) -> bool:
        """Whether more may come, or the callback still runs."""
        return not self._feed.over or (self._thread is not None and not self._delivered.is_set())

    @property
    def received(self) -> int:
        """How many notifications were handed out so far."""
        return self._feed.received - len(self._ready)

    @property
    def reconnects(self) -> int:
        """How often the connection was replaced. Always 0: a lost connection ends the stream."""
        return 0

    @property
    def failure(self) -> BaseException | None:
        """What ended it, if that is something that `join` raises."""
        return self._feed.failure

    def __repr__(self) -> str:
        if self._feed.failure is not None:
            state = "failed"
        elif self.is_alive:
            state = "running"
        else:
            state = "completed" if self._feed.completed else "stopped"
        topic = self._feed.topic
        return f"<Subscription {topic.kind} for {topic.target}: {state}, {self.received} received>"

    def __reduce__(self) -> Any:
        raise TypeError("a Subscription can't be pickled: subscribe again in the other process")

    # --- taking

    def get(self, timeout: float | None = None) -> N | None:
        """The next notification; ``None`` at the end of the stream. ``timeout`` is a deadline.

        `RequestTimeoutError` at the deadline; the stream goes on.
        """
        deadline = Deadline(check_timeout(timeout))
        while True:
            with contextlib.suppress(IndexError):
                return self._ready.popleft()
            self._check_iterator()
            filled = self._feed.fill(deadline)
            if filled is None:
                raise self.timeout("a notification of", deadline)
            with self._decoding:
                if filled and not self._ready:
                    self._feed.hand_out(self._ready.append, _AT_ONCE)
                elif not self._ready:
                    self._raise_failure()
                    return None

    def __iter__(self) -> Iterator[N]:
        self._check_iterator()
        return self

    def __next__(self) -> N:
        try:
            return self._ready.popleft()
        except IndexError:
            notification = self.get()
        if notification is None:
            raise StopIteration
        return notification

    # --- ending

    def stop(self, drain: bool = True) -> None:
        """End it. Raises what it failed from.

        ``drain``: go on until the server was silent for 250 ms, or for 5 s in all, and run out the callbacks
        (an iterator keeps what came). Otherwise what was not handed out is dropped. From inside the callback it
        returns at once: the stream ends after it.
        """
        self._check_process()
        self.begin_stop(drain)
        if not self.calls_now:
            self.wait()
            self._raise_failure()

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended by itself, and the callback with it; raises what it failed from.

        An iterator's notifications are read ahead meanwhile, as far as memory is meant for them, and can be taken
        afterwards. ``timeout`` is a deadline: `RequestTimeoutError`.
        """
        deadline = Deadline(check_timeout(timeout))
        if not self._wait(deadline):
            raise self.timeout("the end of", deadline)
        self._raise_failure()

    def wait(self, timeout: float | None = None) -> bool:
        """`join` that raises nothing but says whether it has ended."""
        return self._wait(Deadline(check_timeout(timeout)))

    def __enter__(self) -> Subscription[N]:
        return self

    def __exit__(self, kind: object, value: object, trace: object) -> None:
        """Stop: with a drain where a callback is to hear the rest, at once after an exception."""
        if self._process != os.getpid():
            return
        told = self._told
        if kind is None and self._thread is not None:
            self._feed.stop()
            self.wait()
        else:
            self._discard()
            self.wait(GRACEFUL_CLOSE_LIMIT)
        if kind is None and not told:
            self._raise_failure()

    # --- for those above

    @property
    def progress(self) -> int:
        """A number that grows as long as anything arrives or is handed out."""
        return self._feed.progress

    @property
    def calls_now(self) -> bool:
        """Whether it is its callback that asks."""
        return self._thread is threading.current_thread()

    @property
    def is_stopping(self) -> bool:
        """Whether it has been stopped, or has ended by itself."""
        return self._feed.over or self._feed.stopping

    def begin_stop(self, drain: bool = True) -> None:
        """`stop` that waits for nothing and raises nothing."""
        if drain:
            self._feed.stop()
        else:
            self._discard()

    def error(self, reason: str, cause: BaseException | None = None) -> SubscriptionError:
        """An error that names this stream."""
        return self._feed.topic.error(reason, cause)

    # --- inside

    def _discard(self) -> None:
        self._feed.discard()
        with self._decoding:
            self._ready.clear()

    def _wait(self, deadline: Deadline) -> bool:
        self._check_process()
        thread = self._thread
        if thread is None:
            return self._feed.run_out(deadline)
        if self.calls_now:
            raise InvalidParamsError(
                "a subscription's callback can't wait for its own end: use stop"
            )
        while not self._delivered.is_set():
            if deadline.over():
                return False
            self._delivered.wait(wait_slice(deadline.remaining()))
        thread.join()
        return True

    def timeout(self, what: str, deadline: Deadline) -> RequestTimeoutError:
        """An error that says what of this stream did not come in time."""
        topic = self._feed.topic
        return RequestTimeoutError(
            f"waiting for {what} the {topic.kind} subscription for {topic.target}",
            deadline.timeout or 0.0,
        )

    def _raise_failure(self) -> None:
        failure = self._feed.failure
        if failure is not None:
            if not self._told:
                self._told, self._trace = True, failure.__traceback__
            # with the trace it had: or it would grow by each raise
            raise failure.with_traceback(self._trace)

    def _check_iterator(self) -> None:
        self._check_process()
        if self._thread is not None:
            raise InvalidParamsError(
                "this subscription calls on_notification; leave that out to take notifications"
            )

    def _check_process(self) -> None:
        if self._process != os.getpid():
            raise self.error(
                f"it belongs to process {self._process}; after a fork, subscribe again in the new process"
            )


def _deliver(
    feed: Feed[N], on_notification: Callable[[N], object], delivered: threading.Event
) -> None:
    """The callback thread: hand out everything until the end, or until the callback fails."""
    try:
        while feed.fill(_FOREVER):
            feed.hand_out(on_notification)
    except BaseException as failure:  # noqa: BLE001 - whoever joins gets it
        feed.fail(failure)
    finally:
        delivered.set()


def drain(
    subscriptions: Iterable[Subscription[Any]],
    timeout: float | None = 60.0,
    deadline: Deadline = _FOREVER,
) -> None:
    """Wait until each has seen its end marker and handed out what came (protocol/managed.md §7).

    One that was stopped counts as ended. ``timeout`` is a silence of all of them, in seconds. Raises
    `SubscriptionError` for the first that failed, its callback included, or that is silent for so long, and
    `RequestTimeoutError` at the deadline.
    """
    silence = check_timeout(timeout)
    handles = list(subscriptions)
    seen, quiet = -1, Deadline(silence)
    for handle in handles:
        look = None if silence is None else silence / _LOOKS
        while not handle.wait(deadline.sooner(look).remaining()):
            if deadline.expired:
                raise handle.timeout("the end of", deadline)
            progress = sum(other.progress for other in handles)
            if progress != seen:
                seen, quiet = progress, Deadline(silence)
            elif quiet.expired:
                raise handle.error(
                    f"no end marker, and nothing else for {silence:g} s: the stream is incomplete. "
                    "A handle without callback must be read while the session runs if much comes"
                )
        _raise_as_subscription_error(handle)


def _raise_as_subscription_error(handle: Subscription[Any]) -> None:
    failure = handle.failure
    if isinstance(failure, SubscriptionError):
        raise failure
    if failure is not None:
        raise handle.error(f"its callback raised {failure!r}", failure)
