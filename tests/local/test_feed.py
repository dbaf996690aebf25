"""What a session publishes: to whom, for how long it is kept, and that the end is the end."""

from __future__ import annotations

from collections.abc import Sequence

from backtest_sync.local.feed import RETAINED_SLOTS, Event, Feed, Rested, SlotClosed, SlotOpened


def slots(feed: Feed, first: int | None = None) -> list[int]:
    return [event.slot for event in feed.replay(first)]


def test_listeners_hear_what_comes_while_they_listen() -> None:
    feed = Feed()
    heard: list[int] = []

    def listener(events: Sequence[Event]) -> None:
        heard.extend(event.slot for event in events)

    feed.publish([SlotOpened(1, 0)])
    feed.listen(listener)
    feed.publish([SlotClosed(1), SlotOpened(2, 1)])
    feed.forget(listener)
    feed.forget(listener)
    feed.publish([SlotClosed(2)])
    assert heard == [1, 2]


def test_the_last_slots_are_kept_whole() -> None:
    feed = Feed()
    for slot in range(RETAINED_SLOTS - 1):
        feed.publish([SlotOpened(slot, slot - 1)])
        feed.publish([SlotClosed(slot)])
    assert feed.next_out is None
    feed.publish([SlotOpened(RETAINED_SLOTS - 1, 0)])
    assert feed.next_out == 0
    feed.publish([SlotOpened(RETAINED_SLOTS, 0)])
    assert feed.next_out == 1
    assert slots(feed)[0] == 1
    assert slots(feed, 98) == [98, 98, 99, 100]


def test_after_the_end_nothing_comes() -> None:
    feed = Feed()
    heard: list[Event] = []
    feed.listen(heard.extend)
    feed.publish([SlotClosed(1)])
    feed.end()
    feed.publish([Rested(1)])
    assert len(heard) == 1
    assert slots(feed) == [1]
