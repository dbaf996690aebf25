"""What a subscription is to a session's events: it looks at each and says what to notify."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from backtest_sync.local.feed import Event

if TYPE_CHECKING:
    from backtest_sync.local.session import SimSession

#: No notification.
NOTHING: tuple[Any, ...] = ()


class Watch:
    """One subscription's view of the events. ``method``: that of its notifications."""

    method = ""
    #: Set once it has nothing more to tell (signatures): it is then unsubscribed.
    done = False

    def results(self, event: Event) -> Iterable[Any]:
        """The ``result`` of each notification that ``event`` causes, in order."""
        raise NotImplementedError

    def replay(self, session: SimSession, from_slot: int | None) -> Sequence[Event]:
        """The past events that a new subscription is told first."""
        return session.feed.replay(from_slot)


def in_context(slot: int, value: Any) -> dict[str, Any]:
    return {"context": {"slot": slot}, "value": value}
