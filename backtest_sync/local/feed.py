"""What happens in a session, for whoever streams it: live, and the last slots over again.

The session publishes; the streams of its endpoint listen. Nothing here knows JSON-RPC or sockets.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Union

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


Event = Union[SlotOpened, TransactionDone, AccountsWritten, ActionDone, SlotClosed]
#: Called on the session's loop with what just happened, in order; must not block or raise.
Listener = Callable[[Sequence[Event]], None]


class Feed:
    """The events of one session. Used on the server's loop only."""

    def __init__(self) -> None:
        self._listeners: dict[Listener, Capture] = {}
        self._retained: deque[tuple[int, list[Event]]] = deque()
        self.capture = Capture.BALANCES

    def listen(self, listener: Listener, capture: Capture = Capture.BALANCES) -> None:
        """Calls ``listener`` with every event from now on.

        ``capture``: what the events must carry (``Capture.DIFFS`` for account changes). Only from
        now on: events from before may lack it.
        """
        self._listeners[listener] = capture
        self._recount()

    def forget(self, listener: Listener) -> None:
        """Undoes ``listen``; harmless when it was undone already."""
        self._listeners.pop(listener, None)
        self._recount()

    def _recount(self) -> None:
        capture = Capture.BALANCES
        for wanted in self._listeners.values():
            capture |= wanted
        self.capture = capture

    def publish(self, events: Sequence[Event]) -> None:
        """Keeps the events and hands them to the listeners."""
        for event in events:
            if not self._retained or self._retained[-1][0] != event.slot:
                self._retained.append((event.slot, []))
                if len(self._retained) > RETAINED_SLOTS:
                    self._retained.popleft()
            self._retained[-1][1].append(event)
        for listener in tuple(self._listeners):
            listener(events)

    def replay(self, from_slot: int | None = None) -> list[Event]:
        """The retained events of ``from_slot`` (inclusive; ``None``: all) and after, in order."""
        first = 0 if from_slot is None else from_slot
        return [event for slot, events in self._retained if slot >= first for event in events]

    def clear(self) -> None:
        """Forgets everything, listeners included: the session is over."""
        self._listeners.clear()
        self._retained.clear()
