"""What comes back on one subscription connection, in order, decoded where it is consumed.

The connection's reader only queues what arrives. Decompressing, parsing and typing happen on the thread that
takes: a subscription's callback thread, or whoever iterates.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from attrs import frozen

from backtest_sync.errors import DeserializeError, SubscriptionError, shorten
from backtest_sync.frames import Binary
from backtest_sync.inbox import wait_slice
from backtest_sync.limits import Deadline
from backtest_sync.protocol import jsontext
from backtest_sync.protocol.pubsub import END_MARKER, is_end_marker, read_ack, subscription_of

if TYPE_CHECKING:
    from backtest_sync.connection import Connection, End

N = TypeVar("N")

#: What may wait in memory for the consumer of one subscription, in bytes: half of it in the connection's queue,
#: half read ahead of the consumer, where someone waits for the end marker.
MAX_QUEUE_BYTES = 64 * 1024 * 1024
_MAX_AHEAD_BYTES = MAX_QUEUE_BYTES // 2

#: After a stop, reading goes on until nothing came for this long, seconds (protocol/subscriptions.md §6).
STOP_IDLE = 0.25
#: The longest that reading goes on after a stop, seconds.
STOP_LIMIT = 5.0

# how much of what was read ahead is decoded at once: what is typed must stay small beside what waits
_SLICE_BYTES = 128 * 1024

_END_MARKER_TEXT = f'"{END_MARKER}"'.encode()

logger = logging.getLogger("backtest_sync")


@frozen
class Topic(Generic[N]):
    """What one handle subscribes to. ``params``: of each request; ``read``: a ``result``'s notification.

    ``one_by_one``: each request waits for the acknowledgement of the one before (protocol/subscriptions.md §4).
    ``single``: the first notification is the last.
    """

    kind: str
    target: str
    method: str
    read: Callable[[Any], N]
    params: tuple[tuple[Any, ...], ...]
    one_by_one: bool = True
    single: bool = False

    def error(self, reason: str, cause: BaseException | None = None) -> SubscriptionError:
        """The error to raise for it."""
        error = SubscriptionError(reason, kind=self.kind, target=self.target)
        error.__cause__ = cause
        return error

    def unreadable(self, error: DeserializeError) -> SubscriptionError:
        """The error to raise for a message that breaks the protocol."""
        reason = f"a message can't be read: {error.reason}; raw={shorten(error.raw)}"
        return self.error(reason, error)


def unpacked(message: bytes, unzip: Callable[[bytes], bytes] | None) -> bytes:
    """A message in plain; `DeserializeError` where the compressed stream is broken."""
    if type(message) is not Binary:
        return message
    if unzip is None:
        return bytes(message)  # text after all
    try:
        return unzip(message)
    except ValueError as error:
        raise DeserializeError(str(error), f"<{len(message)} bytes>") from error


def parsed(message: bytes) -> Any:
    """The JSON of a message; `DeserializeError` where it is none."""
    try:
        return jsontext.loads(message)
    except ValueError as error:
        raise DeserializeError(str(error), message.decode(errors="replace")) from error


class Feed(Generic[N]):
    """What arrives for a connection's acknowledged subscriptions, to be used from any thread.

    ``plain`` holds messages: `hand_out` makes notifications of them, `fill` gets more when it is empty. One thread
    at a time reads the connection; others that want something wait for that one.

    ``looks_ahead``: end markers are heeded before their turn, so that the end can be waited for by one who takes
    nothing.
    """

    looks_ahead = False

    def __init__(
        self,
        topic: Topic[N],
        connection: Connection,
        subscriptions: set[int],
        held: list[bytes],
        unzip: Callable[[bytes], bytes] | None,
    ) -> None:
        self.topic = topic
        self.plain: deque[bytes] = deque()
        self.completed = False
        self.over = False
        self.failure: BaseException | None = None
        self._connection = connection
        self._method = f"{topic.method}Notification"
        self._ids = frozenset(subscriptions)
        self._open = subscriptions  # those without an end marker
        self._unzip = unzip
        self._raw = deque(held)  # as it came, behind what is in `plain`
        self._ahead_bytes = 0  # of what `run_out` has put into `plain`
        # how many messages: arrived, put into `plain`, and were no notification or dropped there
        self._arrived, self._moved, self._others = len(held), 0, 0
        self._changed = threading.Condition()
        self._pulling = False
        self._interrupted = False
        self._stop: Deadline | None = None
        self._idle = Deadline(None)

    @classmethod
    def nothing(cls, topic: Topic[N]) -> Feed[N]:
        """A feed of no subscription, complete before it began; it has no connection."""
        feed = cls(topic, cast("Connection", None), set(), [], None)
        feed.completed = feed.over = True
        return feed

    # --- taking

    def fill(self, deadline: Deadline) -> bool | None:
        """Wait until ``plain`` holds something; false at the end of the stream, ``None`` at the deadline."""
        with self._changed:
            while not self.plain:
                self._ahead_bytes = 0
                self._changed.notify_all()
                self._move(_SLICE_BYTES)
                if self.plain:
                    break
                if self.over:
                    return False
                if deadline.over():
                    return None
                self._pull(deadline)
            return True

    def run_out(self, deadline: Deadline) -> bool:
        """Wait for the end of the stream, while another thread or nobody takes; false at the deadline.

        No more is read than may wait in memory: then it is the consumer's turn, or, after a stop, the end.
        """
        with self._changed:
            while True:
                self._ahead_bytes += self._move(_MAX_AHEAD_BYTES - self._ahead_bytes)
                if self.over:
                    return True
                if deadline.over():
                    return False
                if not self._raw:
                    self._pull(deadline)
                elif self._stop is not None:
                    self._shut()
                else:
                    self._changed.wait(wait_slice(deadline.remaining()))

    def hand_out(self, deliver: Callable[[N], object], most: int | None = None) -> None:
        """Make notifications of what is in ``plain`` and deliver them, ``most`` at the most.

        What is wrong with a message ends the feed; what ``deliver`` raises is the caller's.
        """
        plain, parse, read, short = self.plain, jsontext.parse, self.topic.read, jsontext.SHORT
        ids, method, single, take = self._ids, self._method, self.topic.single, plain.popleft
        for _ in range(len(plain) if most is None else most):
            try:
                message = take()
            except IndexError:  # there are no more, or another thread was quicker
                return
            try:
                if len(message) > short:
                    jsontext.check_depth(message)
                data = parse(message)
                params = data["params"]
                ours = data["method"] == method and params["subscription"] in ids
                result = params["result"]
            except (ValueError, KeyError, TypeError):
                ours = False
            if not ours:
                if type(message) is Binary:  # which the JSON parser does not take
                    plain.appendleft(unpacked(message, None))
                else:
                    self._heed(message)
                continue
            try:
                notification = read(result)
            except DeserializeError as error:
                self._refuse(error)
                return
            if single:
                self._complete()
            deliver(notification)

    @property
    def received(self) -> int:
        """How many notifications were taken."""
        return self._moved - len(self.plain) - self._others

    @property
    def progress(self) -> int:
        """A number that grows as long as anything arrives or is taken."""
        return self._arrived + self._moved - len(self.plain)

    # --- ending

    @property
    def stopping(self) -> bool:
        """Whether it was asked to stop."""
        return self._stop is not None

    def stop(self) -> None:
        """Take what the server has still sent, until it is idle, then end."""
        with self._changed:
            if not self.over and self._stop is None:
                self._stop, self._idle = Deadline(STOP_LIMIT), Deadline(STOP_IDLE)
                self._interrupt()

    def discard(self) -> None:
        """End at once; what was not taken is dropped."""
        with self._changed:
            self._raw.clear()
            while self.plain:
                with contextlib.suppress(IndexError):  # its taker was quicker
                    self.plain.pop()
                    self._others += 1
            self._shut()

    def fail(self, failure: BaseException) -> None:
        """End at once, for a reason that the caller is to hear."""
        with self._changed:
            if self.failure is None:
                self.failure = failure
            self.discard()

    def _shut(self) -> None:
        if not self.over:
            self.over = True
            self._interrupt()
            self._connection.close()
        self._changed.notify_all()

    def _interrupt(self) -> None:
        """Let the thread that waits for the connection look at what changed."""
        if self._pulling:
            self._interrupted = True
            self._connection.wake()

    # --- receiving; all of these need the lock

    def _pull(self, deadline: Deadline) -> None:
        """Take what arrived, or wait for it without the lock."""
        if self._pulling:
            self._changed.wait(wait_slice(deadline.remaining()))
            return
        if self._stop is not None:
            deadline = deadline.sooner(self._idle.remaining()).sooner(self._stop.remaining())
        self._pulling = True
        self._changed.release()
        try:
            messages = self._connection.receive(deadline, lambda: self._interrupted)
        finally:
            self._changed.acquire()
            self._pulling = self._interrupted = False
            self._changed.notify_all()
        if self.over:
            return
        end = self._connection.end
        if messages:
            self._raw.extend(messages)
            self._arrived += len(messages)
        elif end is not None:
            self._lost(end)
            return
        if self._stop is not None:
            if messages:
                self._idle = Deadline(STOP_IDLE)
            if self._idle.expired or self._stop.expired:
                self._take_the_rest()

    def _lost(self, end: End) -> None:
        """The connection is over and emptied. That is a failure unless it was asked to stop."""
        if self._stop is None:
            self.failure = self.topic.error(
                f"closed unexpectedly, before its end marker: {end.reason}. What followed is lost; "
                "subscribe again with replay_from_slot to get it",
                end.error(),
            )
        self._shut()

    def _take_the_rest(self) -> None:
        """After a stop: nothing more is read, and what arrived in time is kept."""
        size = 0
        while size < MAX_QUEUE_BYTES and (messages := self._connection.receive(Deadline(0))):
            self._raw.extend(messages)
            size += sum(map(len, messages))
        self._shut()

    def _move(self, limit: int) -> int:
        """Put what came into ``plain``, up to ``limit`` bytes; gives how many it were."""
        raw, ahead = self._raw, self.looks_ahead
        if not ahead and self._unzip is None:
            self._moved += len(raw)
            self.plain.extend(raw)
            raw.clear()
        size = 0
        try:
            while raw and size < limit:
                message = unpacked(raw.popleft(), self._unzip)
                size += len(message)
                if not ahead or not self._is_end(message):
                    self._moved += 1
                    self.plain.append(message)
        except DeserializeError as error:
            raw.clear()  # what came before it is still good
            self.failure = self.topic.unreadable(error)
            self._shut()
        return size

    # --- what messages say

    def _is_end(self, message: bytes) -> bool:
        """Whether a message that nobody has read yet is an end marker."""
        if self.topic.single and self._method.encode() in message:
            self._complete()
        return _END_MARKER_TEXT in message and self._read_marker(message)

    def _refuse(self, error: DeserializeError) -> None:
        with self._changed:
            self._others += 1
            self.fail(self.topic.unreadable(error))

    def _heed(self, message: bytes) -> None:
        """Act on a message that is none of our notifications."""
        with self._changed:
            try:
                if message and not self._read_marker(message):
                    self._pass_over(message)
            except DeserializeError as error:
                self._refuse(error)
            else:
                self._others += 1

    def _pass_over(self, message: bytes) -> None:
        """Fine if it concerns nobody here."""
        data, text = parsed(message), message.decode(errors="replace")
        if not isinstance(data, dict):
            raise DeserializeError("no JSON-RPC message", text)
        subscription, ack = subscription_of(data), read_ack(data)
        if ack is None and (
            "method" not in data
            or subscription in self._ids
            or (subscription is None and data["method"] == self._method)
        ):
            raise DeserializeError(f"no {self._method}", text)
        if ack is not None and ack.problem is not None:
            raise DeserializeError(ack.problem, text)
        logger.warning("%s passed over a message: %s", self.topic.kind, shorten(text))

    def _read_marker(self, message: bytes) -> bool:
        """Whether a message is an end marker; heeds it."""
        try:
            data = jsontext.loads(message)
        except ValueError:
            return False
        if not is_end_marker(data):
            return False
        subscription = subscription_of(data)
        if subscription is None:
            if len(self._ids) > 1:
                raise DeserializeError("an end marker of no subscription", message.decode())
            self._open.clear()
        elif subscription not in self._ids:
            logger.warning("%s passed over an end marker of %d", self.topic.kind, subscription)
        else:
            self._open.discard(subscription)
        if not self._open:
            self._complete()
        return True

    def _complete(self) -> None:
        """Nothing more is to come."""
        with self._changed:
            self.completed = True
            self._raw.clear()
            self._shut()
