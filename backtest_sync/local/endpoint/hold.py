"""What keeps a session from running away from its subscribers.

A subscriber that lost its connection comes back with ``replayFromSlot`` and finds what it missed only
while the feed still has it. So a session is held before a new block as long as that block would push
a slot out of the feed which some subscriber has not confirmed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backtest_sync.local.session import SimSession

#: How long a session is held for a subscriber whose connection broke, seconds.
LOST_SUBSCRIBER_GRACE = 30.0


class Hold:
    """One connection's hold on its session: a gate of the session, awaited before every block."""

    def __init__(self, session: SimSession, ask: Callable[[], None]) -> None:
        self._session = session
        #: Asks the subscriber to confirm what it was sent.
        self._ask = ask
        self._moved = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._released = False
        #: Whether the session waits right now.
        self.waiting = False
        #: The subscriber has all of this slot and of those before it; None without subscriptions.
        self.confirmed: int | None = None
        #: What it is subscribed to: by it, one that comes back is known again.
        self.keys: set[str] = set()

    # --- as the session's gate

    async def __call__(self) -> None:
        """Returns when another block may be run."""
        self.waiting = True
        while self._holds():
            self._moved.clear()
            self._ask()
            await self._moved.wait()
        self.waiting = False

    def _holds(self) -> bool:
        if self._released or self.confirmed is None:
            return False
        pushed_out = self._session.feed.next_out
        return pushed_out is not None and pushed_out >= self.confirmed

    # --- as the connection's

    def take(self, key: str, replay_from: int | None) -> None:
        """A subscription began that is owed everything from ``replay_from`` on (None: all)."""
        for gate in tuple(self._session.gates):
            if isinstance(gate, Hold) and gate is not self:
                gate.give_up(key)
        if self.confirmed is None:
            self._session.gates.append(self)
        self.keys.add(key)
        owed = -1 if replay_from is None else replay_from - 1
        self.confirmed = owed if self.confirmed is None else min(self.confirmed, owed)

    def confirm(self, slot: int) -> None:
        """The subscriber has everything up to the end of ``slot``."""
        if self.confirmed is not None and slot > self.confirmed:
            self.confirmed = slot
            self._moved.set()

    def lose(self) -> None:
        """The connection broke: holds on until the subscriber is back, or the grace is over."""
        loop = asyncio.get_running_loop()
        self._ask = lambda: None
        self._timer = loop.call_later(LOST_SUBSCRIBER_GRACE, self.release)

    def give_up(self, key: str) -> None:
        """Somebody subscribes to ``key``: a lost hold's subscriber, back on a new connection."""
        if self._timer is None:
            return
        self.keys.discard(key)
        if not self.keys:
            self.release()

    def release(self) -> None:
        """Lets the session run on for good."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self in self._session.gates:
            self._session.gates.remove(self)
        self._released = True
        self._moved.set()
