"""The session endpoint's WebSocket: subscriptions and their notifications.

One `Link` a connection. What the session publishes goes into the link's queue, and its pump turns it
into notifications, in order: a session never formats or sends, and a slow subscriber delays nobody
until the session would run out of what it retains for it (`Hold`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from attrs import define

from backtest_sync.local.endpoint.hold import Hold
from backtest_sync.local.endpoint.jsonrpc import (
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    Call,
    CallError,
    count,
    failure,
    invalid,
    read_call,
    request_id,
    result,
)
from backtest_sync.local.endpoint.watch import Watch
from backtest_sync.local.endpoint.watches import WATCHES, Options, read_options
from backtest_sync.local.feed import RETAINED_SLOTS, Event, SlotClosed
from backtest_sync.protocol import jsontext
from backtest_sync.protocol.blobs import StreamCompressor

if TYPE_CHECKING:
    from backtest_sync.local.session import SimSession
    from backtest_sync.local.wire import Wire

log = logging.getLogger(__name__)

#: The most subscriptions of one connection.
MAX_SUBSCRIPTIONS = 1024
#: A subscriber is asked to confirm what it has each time it was sent so many more slots.
CONFIRM_EVERY = RETAINED_SLOTS // 4
#: A client that lets so many answers pile up is not read from until it took them.
MAX_UNANSWERED = 1000
#: Events handled before others get their turn on the loop.
_SLICE = 64
#: How long the end of a closed session may wait for a subscriber to take its last messages, seconds.
_LAST_WORDS = 5.0

_NEEDS_SERVICE = {
    "replacementSubscribe": "rerouting, which needs the service's router",
    "diagnosticSubscribe": "diagnostic probes, which need the service's router",
}
_UNSUBSCRIBE = frozenset(name.replace("Subscribe", "Unsubscribe") for name in WATCHES)

#: What waits in a link's queue: done in order, each when those before it were sent.
Step = Callable[[], Awaitable[None]]


@define(eq=False)
class Subscription:
    """One subscription of a connection."""

    id: int
    watch: Watch
    options: Options
    key: str  # what it is to, whatever its other options
    over: bool = False

    def message(self, value: Any) -> str:
        """The notification that carries ``value``."""
        return (
            f'{{"jsonrpc":"2.0","method":"{self.watch.method}","params":'
            f'{{"subscription":{self.id},"result":{jsontext.dumps_finite(value)}}}}}'
        )

    @property
    def end_marker(self) -> str:
        """The message that says that nothing more will come (protocol/subscriptions.md §2.2)."""
        return (
            '{"jsonrpc":"2.0","method":"subscriptionComplete","params":'
            f'{{"subscription":{self.id}}}}}'
        )


async def handle_socket(session: SimSession, wire: Wire) -> None:
    """Serves a connection to a session's endpoint until it is over.

    When the session has nothing more to publish, each subscription gets its end marker and the
    connection stays open; when the session is closed, the connection is, too (1000).
    """
    link = Link(session, wire)
    try:
        while (text := await wire.receive()) is not None:
            link.take(text)
            await link.room()
    finally:
        await link.leave()


class Link:
    """One connection: what it is subscribed to and what it still has to be sent."""

    def __init__(self, session: SimSession, wire: Wire) -> None:
        self._session = session
        self._wire = wire
        self._hold = Hold(session, self)
        wire.on_pong = self._pong
        self._compressor: StreamCompressor | None = None
        self._known: dict[int, Subscription] = {}
        self._active: list[Subscription] = []
        self._last_id = 0
        self._queue: deque[Step] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._passed = -1  # the last slot that was sent as a whole
        self._asked = b""  # the last confirmation that was asked for
        self._unasked = 0  # how many slots were sent since
        self._unanswered = 0  # how many answers are still in the queue
        self._complete = False
        self._dropped = False
        self._tasks = [
            asyncio.ensure_future(self._pump()),
            asyncio.ensure_future(self._follow_session()),
        ]

    # --- requests

    def take(self, text: str) -> None:
        """A message of the client's: its answer comes in its turn."""
        try:
            value = jsontext.loads(text)
        except ValueError:
            self._answer(failure(None, CallError(PARSE_ERROR, "Parse error")))
            return
        try:
            call = read_call(value)
        except CallError as fault:
            self._answer(failure(request_id(value), fault))
            return
        try:
            self._perform(call)
        except CallError as fault:
            self._answer(failure(call.id, fault))

    def _perform(self, call: Call) -> None:
        if call.method in WATCHES:
            self._subscribe(call)
        elif call.method in _UNSUBSCRIBE:
            self._unsubscribe(call)
        elif call.method in _NEEDS_SERVICE:
            raise CallError(
                METHOD_NOT_FOUND,
                f"{call.method} is not supported by the local simulator: it would report "
                f"{_NEEDS_SERVICE[call.method]}.",
            )
        else:
            raise CallError(METHOD_NOT_FOUND, "Method not found")

    def _subscribe(self, call: Call) -> None:
        if len(self._known) >= MAX_SUBSCRIPTIONS:
            raise CallError(
                INVALID_REQUEST,
                f"Too many subscriptions on this connection; max {MAX_SUBSCRIPTIONS}",
            )
        watch = WATCHES[call.method](self._session, call.params)
        self._last_id += 1
        key = _key(call)
        subscription = Subscription(self._last_id, watch, read_options(call.params), key)
        if subscription.options.compressed and self._compressor is None:
            self._compressor = StreamCompressor()
        self._known[subscription.id] = subscription
        self._session.feed.listen(self._on_events)
        past = watch.replay(self._session, subscription.options.replay_from)
        self._hold.take(key, subscription.options.replay_from)
        self._answer(result(call.id, subscription.id))
        self._enqueue(lambda: self._begin(subscription, past))

    def _unsubscribe(self, call: Call) -> None:
        count(call.params, 1, 1)
        subscription = self._known.pop(call.params[0], None) if _is_id(call.params[0]) else None
        if subscription is None:
            raise invalid("Invalid subscription id.")
        self._retire(subscription)
        self._answer(result(call.id, True))

    def _retire(self, subscription: Subscription) -> None:
        subscription.over = True
        self._known.pop(subscription.id, None)
        if subscription in self._active:
            self._active.remove(subscription)
        if not self._known:
            self._hold.release()

    def _answer(self, answer: dict[str, Any]) -> None:
        text = jsontext.dumps_finite(answer)

        async def send() -> None:
            self._unanswered -= 1
            self._wire.send(text)

        self._unanswered += 1
        self._enqueue(send)

    async def room(self) -> None:
        """Waits while too many answers are due to a client that does not take them."""
        if self._unanswered > MAX_UNANSWERED:
            await self._idle.wait()

    # --- events

    def _on_events(self, events: Sequence[Event]) -> None:
        self._enqueue(lambda: self._tell(self._active, events))

    def _enqueue(self, step: Step) -> None:
        self._queue.append(step)
        self._idle.clear()
        self._wake.set()

    async def _pump(self) -> None:
        """Works the queue off for as long as the connection lives."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                try:
                    await self._queue.popleft()()
                except Exception:  # one connection's defect must not end the session
                    log.exception("a subscription failed")
                    self._drop(1011, "internal error")
                    return
                await self._wire.drained()
            self._idle.set()
            if self._hold.waiting or self._unasked >= CONFIRM_EVERY:
                self.ask_confirmation()

    async def _begin(self, subscription: Subscription, past: Sequence[Event]) -> None:
        await self._tell([subscription], past)
        if subscription.over:
            return
        self._active.append(subscription)
        if self._complete:
            self._send(subscription, subscription.end_marker)

    async def _tell(self, subscriptions: list[Subscription], events: Sequence[Event]) -> None:
        for index, event in enumerate(events, 1):
            for subscription in tuple(subscriptions):
                if subscription.over:
                    continue
                for value in subscription.watch.results(event):
                    self._send(subscription, subscription.message(value))
                if subscription.watch.done:
                    self._retire(subscription)
            if type(event) is SlotClosed and event.slot > self._passed:
                self._passed = event.slot
                self._unasked += 1
            if index % _SLICE == 0:
                await self._wire.drained()
                await asyncio.sleep(0)

    def _send(self, subscription: Subscription, text: str) -> None:
        if subscription.options.compressed and self._compressor is not None:
            self._wire.send(self._compressor.feed(text.encode()))
        else:
            self._wire.send(text)

    # --- how far the subscriber is

    def ask_confirmation(self) -> None:
        """Pings: the pong comes once the client has read everything that was sent before.

        The payload counts the subscriptions, too: what one more of them is owed is not covered by
        a ping from before it.
        """
        payload = f"{self._last_id}:{self._passed}".encode()
        if self._idle.is_set() and payload != self._asked:
            self._asked = payload
            self._unasked = 0
            self._wire.ping(payload)

    def _pong(self, payload: bytes) -> None:
        subscriptions, colon, slot = payload.decode("latin-1").partition(":")
        if colon and subscriptions == str(self._last_id) and slot.isdecimal():
            self._hold.confirm(int(slot))

    def give_up(self) -> None:
        """Ends the connection: the client is too slow for what is retained for it."""
        self._drop(1008, "subscriber too slow: it did not confirm what it was sent")

    # --- the end

    def _drop(self, code: int, reason: str) -> None:
        self._dropped = True
        self._tasks.append(asyncio.ensure_future(self._wire.close(code, reason)))

    async def _follow_session(self) -> None:
        """Sends the end markers when the session is finished, ends the link when it is closed."""
        await self._session.finished.wait()
        self._enqueue(self._finish)
        await self._session.closed.wait()
        self._hold.release()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._idle.wait(), _LAST_WORDS)
        await self._wire.close(1000, "session closed")

    async def _finish(self) -> None:
        self._complete = True
        for subscription in self._active:
            self._send(subscription, subscription.end_marker)

    async def leave(self) -> None:
        """The connection is over: its subscriptions end with it.

        One that broke keeps its hold on the session for a while (`Hold.lose`).
        """
        self._session.feed.forget(self._on_events)
        over = self._wire.left or self._dropped or self._session.finished.is_set()
        if self._known and not over:
            self._hold.lose(subscription.key for subscription in self._known.values())
        else:
            self._hold.release()
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)


def _is_id(value: object) -> bool:
    return type(value) is int


def _key(call: Call) -> str:
    """What a call subscribes to, whatever its other options."""
    what = call.params[0] if call.params else None
    config = call.params[1] if len(call.params) > 1 else None
    kind = config.get("address_type") if isinstance(config, dict) else None
    return jsontext.dumps_finite([call.method, what, kind])
