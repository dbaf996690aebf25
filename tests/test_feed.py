"""What arrives is handed out once and in order, however it is cut, compressed, broken and waited for."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from backtest_sync.connection import End
from backtest_sync.errors import SubscriptionError
from backtest_sync.feed import Feed, Topic
from backtest_sync.frames import Binary
from backtest_sync.limits import Deadline
from backtest_sync.protocol.blobs import StreamCompressor, StreamDecompressor
from backtest_sync.protocol.notifications import AccountDiffNotification
from backtest_sync.subscription import Subscription
from tests.support.streams import diff, end, note

TOPIC = Topic("account diff", "test", "accountDiff", AccountDiffNotification, ())


class Batches:
    """Stands in for a connection whose messages have all arrived, in these batches."""

    def __init__(self, batches: list[list[bytes]]) -> None:
        self._batches = list(reversed(batches))
        self._lost: End | None = End(None, "lost")

    @property
    def end(self) -> End | None:
        return None if self._batches else self._lost

    def receive(self, deadline: Deadline, stopped: Callable[[], bool] | None = None) -> list[bytes]:
        return self._batches.pop() if self._batches else []

    def close(self) -> None:
        self._batches.clear()

    def wake(self) -> None:
        pass


def handle_of(batches: list[list[bytes]], callback: Any = None) -> Subscription[Any]:
    unzip = StreamDecompressor().feed
    return Subscription(Feed(TOPIC, Batches(batches), {1, 2}, [], unzip), callback)  # type: ignore[arg-type]


BROKEN = [
    b"",  # the empty message is possible, and nothing
    b"{",
    b"[]",
    b'"subscriptionComplete"',
    json.dumps(note(1, {"context": {"slot": "1"}})).encode(),
    json.dumps(note(2, {}, "logs")).encode(),
    json.dumps(note(3, {})).encode(),  # another's
    json.dumps({"id": 1, "error": {"code": -1}}).encode(),
    json.dumps({"method": "subscriptionComplete"}).encode(),
]
HARMLESS = {0, 6}


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[list[bytes]], list[int], bool, bool]:
    """Batches of messages; the slots due; whether the end markers come, and whether something breaks before."""
    slots: list[int] = []
    messages: list[bytes] = []
    broken = False
    for slot in range(draw(st.integers(0, 12))):
        trouble = draw(st.none() | st.none() | st.none() | st.sampled_from(range(len(BROKEN))))
        if trouble is not None:
            messages.append(BROKEN[trouble])
            broken = broken or trouble not in HARMLESS
        messages.append(json.dumps(diff(draw(st.sampled_from([1, 2])), slot)).encode())
        if not broken:
            slots.append(slot)
    complete = draw(st.booleans())
    if complete:
        messages += [json.dumps(end(n)).encode() for n in draw(st.permutations([1, 2]))]
    zipped = StreamCompressor()
    framed = [
        Binary(zipped.feed(message)) if draw(st.booleans()) else message for message in messages
    ]
    cuts = sorted(draw(st.lists(st.integers(0, len(framed)), max_size=4)))
    batches = [framed[a:b] for a, b in zip([0, *cuts], [*cuts, len(framed)], strict=True)]
    return [batch for batch in batches if batch], slots, complete, broken


@given(streams(), st.integers(0, 12))
@settings(max_examples=400, deadline=None)
def test_an_iterator_gives_each_once_and_then_the_end(stream: Any, look_ahead: int) -> None:
    batches, slots, complete, broken = stream
    handle = handle_of(batches)
    taken: list[int] = []
    try:
        while (notification := handle.get()) is not None:
            taken.append(notification.context.slot)
            if len(taken) == look_ahead:
                handle.wait(0)
    except SubscriptionError:
        assert broken or not complete
    else:
        assert complete
        assert not broken
        assert handle.completed
    assert taken == slots
    assert handle.received == len(slots)
    assert not handle.is_alive


@given(streams())
@settings(max_examples=100, deadline=None)
def test_a_callback_gets_each_once_and_then_the_end(stream: Any) -> None:
    batches, slots, complete, broken = stream
    taken: list[int] = []
    handle = handle_of(batches, lambda notification: taken.append(notification.context.slot))
    if complete and not broken:
        handle.join()
        assert handle.completed
    else:
        with pytest.raises(SubscriptionError):
            handle.join()
    assert taken == slots
    assert handle.received == len(slots)


@given(streams())
@settings(max_examples=200, deadline=None)
def test_waiting_for_the_end_takes_nothing_away(stream: Any) -> None:
    batches, slots, complete, broken = stream
    handle = handle_of(batches)
    assert handle.wait()
    taken: list[int] = []
    try:
        while (notification := handle.get()) is not None:
            taken.append(notification.context.slot)
    except SubscriptionError:
        assert broken or not complete
    assert taken == slots
