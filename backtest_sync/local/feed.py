"""What happens in a session, for whoever streams it: live, and the last slots over again.

The session publishes; the streams of its endpoint listen. Nothing here knows JSON-RPC or sockets.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from attrs import frozen

from backtest_sync.local.executed import AccountChange, Capture, Executed

#: How many produced slots of events are kept for late and returning subscribers
#: (protocol/control.md §4.5).
RETAINED_SLOTS = 100


@frozen(eq=False)
class SlotOpened:
    """A block begins; none of its transactions ran yet."""

    slot: int
    parent: int


@frozen(eq=False)
class TransactionDone:
    """A transaction was committed: a historical one, or a user's."""

    slot: int
    executed: Executed


@frozen(eq=False)
class AccountsWritten:
    """Accounts were written from outside of any transaction (``modifyAccounts`` and the like)."""

    slot: int
    changes: tuple[AccountChange, ...]


@frozen(eq=False)
class ActionDone:
    """A scheduled action ran. ``result`` is the JSON of protocol/subscriptions.md §5.2."""

    slot: int
    result: Mapping[str, Any]


@frozen(eq=False)
class SlotClosed:
    """A block is over: nothing more will happen in this slot."""

    slot: int


@frozen(eq=False)
class Rested:
    """The session waits for its client (or did something at once while it waits).

    Streams that hold back until a slot is over hand out what they have: the slot may stay open
    for as long as the client likes.
    """

    slot: int


Event: TypeAlias = SlotOpened | TransactionDone | AccountsWritten | ActionDone | SlotClosed | Rested
#: Called on the session's loop with what just happened, in order; must not block or raise.
Listener = Callable[[Sequence[Event]], None]


class Feed:
    """The events of one session. Used on the server's loop only."""

    #: What each transaction must carry. Account changes are always noted, whoever listens now: a
    #: subscription of later on is owed those of the retained slots, too.
    capture = Capture.BALANCES | Capture.DIFFS

    def __init__(self) -> None:
        self._listeners: dict[Listener, None] = {}  # in the order in which they came
        self._retained: deque[tuple[int, list[Event]]] = deque()
        self._over = False

    def listen(self, listener: Listener) -> None:
        """Calls ``listener`` with every event from now on."""
        self._listeners[listener] = None

    def forget(self, listener: Listener) -> None:
        """Undoes ``listen``; harmless when it was undone already."""
        self._listeners.pop(listener, None)

    def publish(self, events: Sequence[Event]) -> None:
        """Keeps the events and hands them to the listeners."""
        if self._over:
            return
        for event in events:
            if not self._retained or self._retained[-1][0] != event.slot:
                self._retained.append((event.slot, []))
                if len(self._retained) > RETAINED_SLOTS:
                    _lighten(self._retained.popleft()[1])
            self._retained[-1][1].append(event)
        for listener in tuple(self._listeners):
            listener(events)

    def end(self) -> None:
        """Nothing that comes later is published: the streams have been told that all is over."""
        self._over = True

    @property
    def next_out(self) -> int | None:
        """The slot that another one would push out; ``None`` while there is room."""
        return self._retained[0][0] if len(self._retained) >= RETAINED_SLOTS else None

    def replay(self, from_slot: int | None = None) -> list[Event]:
        """The retained events of ``from_slot`` (inclusive; ``None``: all) and after, in order."""
        first = 0 if from_slot is None else from_slot
        return [event for slot, events in self._retained if slot >= first for event in events]

    def clear(self) -> None:
        """Forgets everything, listeners included: the session is over."""
        self._listeners.clear()
        self._retained.clear()


def _lighten(events: Sequence[Event]) -> None:
    """Drops the account states of events that nobody can ask for any more.

    Their transactions may be remembered for far longer.
    """
    for event in events:
        if type(event) is TransactionDone:
            event.executed.changes = ()
