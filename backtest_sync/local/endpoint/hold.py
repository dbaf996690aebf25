"""What keeps a session from running away from its subscribers.

A subscriber that lost its connection comes back with ``replayFromSlot`` and finds what it missed only
while the feed still has it. So a session is held before a new block as long as that block would push
a slot out of the feed which some subscriber has not confirmed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from backtest_sync.local.session import SimSession

#: How long a session is held for a subscriber that confirms nothing more, seconds.
STALLED_LIMIT = 30.0
#: How long it is held for one whose connection broke, seconds.
LOST_LIMIT = 30.0


class Subscriber(Protocol):
    """The connection that a hold is for."""

    def ask_confirmation(self) -> None:
        """Asks the client to confirm what it was sent."""

    def give_up(self) -> None:
        """Ends the connection: its client takes nothing any more."""


class Hold:
    """One connection's hold on its session: a gate of the session, awaited before every block."""

    def __init__(self, session: SimSession, subscriber: Subscriber) -> None:
        self._session = session
        self._subscriber: Subscriber | None = subscriber
        self._confirmed: int | None = None
        self._moved = asyncio.Event()
        self._lost_keys: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None
        #: Whether the session waits right now.
        self.waiting = False

    # --- as the session's gate

    async def __call__(self) -> None:
        """Returns when another block may be run.

        Waits for every hold that there is by then: a subscriber may come while another is waited for.
        """
        while (hold := self._first_that_holds()) is not None:
            await hold.wait()

    def _first_that_holds(self) -> Hold | None:
        holds = (gate for gate in self._session.gates if isinstance(gate, Hold))
        return next((hold for hold in holds if hold.holds), None)

    @property
    def holds(self) -> bool:
        """Whether another block would push out what the subscriber has not confirmed."""
        if self._confirmed is None:
            return False
        pushed_out = self._session.feed.next_out
        return pushed_out is not None and pushed_out >= self._confirmed

    async def wait(self) -> None:
        """Waits until the subscriber confirms more, or is given up."""
        self._moved.clear()
        if self._subscriber is None:
            await self._moved.wait()
            return
        self.waiting = True
        self._subscriber.ask_confirmation()
        try:
            await asyncio.wait_for(self._moved.wait(), STALLED_LIMIT)
        except asyncio.TimeoutError:
            if self._subscriber is not None:
                self._subscriber.give_up()
            self.release()
        self.waiting = False

    # --- as the connection's

    def take(self, key: str, replay_from: int | None) -> None:
        """A subscription to ``key`` began that is owed everything from a slot on (None: all).

        A lost hold's subscriber, back on a new connection, is known by it.
        """
        for gate in tuple(self._session.gates):
            if isinstance(gate, Hold):
                gate.found(key)
        if self._confirmed is None:
            self._session.gates.append(self)
        owed = -1 if replay_from is None else replay_from - 1
        self._confirmed = owed if self._confirmed is None else min(self._confirmed, owed)

    def confirm(self, slot: int) -> None:
        """The subscriber has everything up to the end of ``slot``."""
        if self._confirmed is not None and slot > self._confirmed:
            self._confirmed = slot
            self._moved.set()

    def lose(self, keys: Iterable[str]) -> None:
        """The connection broke: holds on until each of ``keys`` is subscribed to again, or too long."""
        self._subscriber = None
        self._lost_keys.update(keys)
        self._timer = asyncio.get_running_loop().call_later(LOST_LIMIT, self.release)
        self._moved.set()

    def found(self, key: str) -> None:
        """Somebody subscribed to ``key``."""
        if self._lost_keys:
            self._lost_keys.discard(key)
            if not self._lost_keys:
                self.release()

    def release(self) -> None:
        """Lets the session run on."""
        if self._timer is not None:
            self._timer.cancel()
        if self in self._session.gates:
            self._session.gates.remove(self)
        self._confirmed = None
        self._moved.set()
