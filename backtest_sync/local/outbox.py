"""The control responses of one session: numbered, kept for replay, handed to whoever is attached.

A session may run only so far ahead of what its client has confirmed that everything unconfirmed is
still kept: a connection that is lost with messages in flight loses none of them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Protocol

from attrs import frozen

from backtest_sync.local.feed import RETAINED_SLOTS
from backtest_sync.protocol import SessionEventV2, SlotNotification, encode_response

if TYPE_CHECKING:
    from backtest_sync.protocol import Response

#: How many responses are kept at most, whatever slots they belong to.
RETAINED_RESPONSES = 10_000


class Sink(Protocol):
    """A control connection, as an outbox sees it."""

    def deliver(self, outbox: Outbox, text: str) -> None:
        """Queues a response for the client."""

    def urge(self) -> None:
        """Asks the client to confirm what it has, now."""

    async def drained(self) -> None:
        """Waits while much is queued for the client; returns at once when it is gone."""


@frozen
class _Kept:
    sequence: int
    slots: int
    text: str


class Outbox:
    """Responses of one session, in order.

    ``retain``: number them and keep the last ones for whoever attaches. ``session_id``: wrap them
    as a sub-session's events (protocol/managed.md §8) instead of giving them a ``seqId``.
    """

    def __init__(self, *, retain: bool, session_id: str | None = None) -> None:
        self.retains = retain
        self.wraps = session_id is not None
        self.sequence = 0
        self._session_id = session_id
        self._slots = 0
        self._kept: deque[_Kept] = deque()
        self._confirmed = 0
        self._confirmed_slots = 0
        self._sink: Sink | None = None
        self._held_after: int | None = None
        self._is_held = False
        self._room = asyncio.Event()
        self._room.set()

    def put(self, response: Response, *, keep: bool = True) -> None:
        """Numbers, keeps and sends a response."""
        self.sequence += 1
        if isinstance(response, SlotNotification):
            self._slots += 1
        text = self._encode(response)
        if self.retains and keep:
            self._kept.append(_Kept(self.sequence, self._slots, text))
            self._trim()
            if self._slots - self._confirmed_slots >= RETAINED_SLOTS:
                self._room.clear()
        if self._sink is not None and not self._is_held:
            self._sink.deliver(self, text)

    def _encode(self, response: Response) -> str:
        if self._session_id is not None:
            return encode_response(SessionEventV2(self._session_id, self.sequence, response))
        return encode_response(response, self.sequence if self.retains else None)

    def _trim(self) -> None:
        kept = self._kept
        while len(kept) > RETAINED_RESPONSES or kept[0].slots <= self._slots - RETAINED_SLOTS:
            kept.popleft()

    # --- who is attached -------------------------------------------------------------------------
    @property
    def sink(self) -> Sink | None:
        """The connection that the responses go to."""
        return self._sink

    def attach(self, sink: Sink, after: int | None = None) -> None:
        """Sends the kept responses that follow ``after`` (``None``: all kept), then what comes."""
        self.claim(sink, after)
        self.start()

    def claim(self, sink: Sink, after: int | None) -> None:
        """The same, but nothing is sent before ``start``."""
        self._sink = sink
        self._held_after = after
        self._is_held = True
        if after is not None:
            self.confirm(after)

    def start(self) -> None:
        """Begins to send to whoever has claimed the outbox. Idempotent."""
        if not self._is_held or self._sink is None:
            return
        self._is_held = False
        after = self._held_after
        for kept in self._kept:
            if after is None or kept.sequence > after:
                self._sink.deliver(self, kept.text)
        if not self._room.is_set():
            self._sink.urge()

    def detach(self) -> None:
        """Keeps what comes for whoever attaches next."""
        self._sink = None
        self._is_held = False

    def confirm(self, sequence: int) -> None:
        """The client has everything up to ``sequence``."""
        if sequence <= self._confirmed:
            return
        self._confirmed = sequence
        for kept in self._kept:
            if kept.sequence > sequence:
                break
            self._confirmed_slots = kept.slots
        if self._slots - self._confirmed_slots < RETAINED_SLOTS:
            self._room.set()

    async def room(self) -> None:
        """Waits until another slot may be run: the client follows, and its queue is short."""
        if not self._room.is_set():
            if self._sink is not None:
                self._sink.urge()
            await self._room.wait()
        if self._sink is not None:
            await self._sink.drained()

    def release(self) -> None:
        """Forgets everything and lets whoever waits for room go on: the session is over."""
        self._kept.clear()
        self._sink = None
        self._room.set()
