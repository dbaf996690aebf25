"""A channel over a connection that a test plays: who gets which response, and when nobody does."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from backtest_sync.channel import Channel
from backtest_sync.connection import End
from backtest_sync.errors import (
    DeserializeError,
    RequestTimeoutError,
    SessionClosedError,
)
from backtest_sync.frames import Binary
from backtest_sync.limits import Deadline
from backtest_sync.protocol import (
    CloseBacktestSession,
    DiscoveryBatch,
    ReadyForContinue,
    SlotNotification,
    Success,
    decode_response,
)
from tests.support.connections import in_thread, outcome

READY, SUCCESS = b'{"method":"readyForContinue"}', b'{"method":"success"}'
FOREVER = Deadline(None)


def slot(n: int, seq: int | None = None) -> bytes:
    number = "" if seq is None else f'"seqId":{seq},'
    return f'{{{number}"method":"slotNotification","params":{n}}}'.encode()


def discovery(seq: int) -> tuple[int, DiscoveryBatch]:
    return seq, DiscoveryBatch(slot=5, batch_index=0, matched=(), transactions=())


class Played:
    """A connection whose messages are put by the test, one list a chunk."""

    def __init__(self, *chunks: list[bytes]) -> None:
        self._chunks = list(chunks)
        self._changed = threading.Condition(threading.RLock())
        self._wakes = 0
        self.waiting = threading.Semaphore(0)  # released by each that begins to wait
        self.sent: list[str] = []
        self.end: End | None = None

    @property
    def has_more(self) -> bool:
        return bool(self._chunks)

    def put(self, *messages: bytes) -> None:
        with self._changed:
            self._chunks.append(list(messages))
            self._changed.notify_all()

    def finish(self, end: End) -> None:
        with self._changed:
            self.end = end
            self._changed.notify_all()

    def send(self, text: str, deadline: Deadline, gone: list[int] | None) -> None:
        if self.end is not None:
            raise self.end.error()
        self.sent.append(text)

    def receive(
        self, deadline: Deadline, stopped: Callable[[], bool], into: deque[bytes]
    ) -> list[bytes]:
        with self._changed:
            while not self._chunks:
                if self.end is not None or stopped():
                    return []
                if deadline.remaining() == 0:
                    return []
                self.waiting.release()
                self._changed.wait(deadline.remaining())
            into.extend(self._chunks[0])
            return self._chunks.pop(0)

    def rename(self, name: str) -> None:
        self.name = name

    def wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def close(self, code: int | None, reason: str) -> None:
        self.finish(End(code, reason, ours=True))

    def abort(self) -> None:
        self.finish(End(None, "aborted", ours=True))


def channel_of(played: Played, **options: Any) -> Channel:
    return Channel(played, **options)  # type: ignore[arg-type]


def taken(channel: Channel, **options: Any) -> list[Any]:
    """What is there, without waiting."""
    found = []
    try:
        while (item := channel.receive(Deadline(0), **options)) is not None:
            found.append(item[1])
    except RequestTimeoutError:
        pass
    return found


# --- order


def test_kept_then_early_then_what_follows() -> None:
    channel = channel_of(Played([slot(3), slot(4)]))
    channel.put_behind([decode_response(slot(1)), decode_response(slot(2))])
    channel.keep(*discovery(1))
    assert [type(response) for response in taken(channel, kept=True)] == [
        DiscoveryBatch,
        SlotNotification,
        SlotNotification,
        SlotNotification,
        SlotNotification,
    ]


def test_early_ones_come_before_what_was_received_with_them() -> None:
    played = Played([slot(1), slot(2), slot(3)])
    channel = channel_of(played)
    first = channel.receive(FOREVER)
    assert first is not None
    channel.put_behind([first])
    slots = [response.slot for response in taken(channel)]
    assert slots == [1, 2, 3]


def test_discarding_leaves_the_others_in_order() -> None:
    channel = channel_of(Played())
    channel.put_behind([decode_response(text) for text in (slot(1), READY, slot(2), READY)])
    channel.discard((ReadyForContinue,))
    assert taken(channel) == [SlotNotification(1), SlotNotification(2)]


def test_has_more_tells_what_need_not_be_waited_for() -> None:
    played = Played()
    channel = channel_of(played)
    assert not channel.has_more
    played.put(slot(1), slot(2))
    assert channel.has_more
    channel.receive(FOREVER)
    assert channel.has_more
    channel.receive(FOREVER)
    assert not channel.has_more
    channel.put_behind([decode_response(slot(1))])
    assert channel.has_more


def test_the_last_sequence_stays_before_what_waits() -> None:
    channel = channel_of(Played([slot(1, 7), slot(2, 8), slot(3, 9)]), last_sequence=5)
    assert channel.last_sequence == 5
    item = channel.receive(FOREVER)
    assert item is not None
    channel.put_behind([item])
    assert channel.last_sequence == 6
    channel.receive(FOREVER)
    assert channel.last_sequence == 7
    channel.keep(*discovery(8))
    taken(channel)
    assert channel.last_sequence == 7
    channel.abort()
    assert channel.last_sequence == 7


# --- several threads


def test_one_that_waits_for_another_gets_what_that_left() -> None:
    played = Played()
    channel = channel_of(played)
    workers = [in_thread(lambda: channel.receive(FOREVER)) for _ in range(2)]
    assert played.waiting.acquire(timeout=10)
    played.put(slot(1), slot(2))
    items = [outcome(*worker) for worker in workers]
    assert sorted(item[1].slot for item in items) == [1, 2]


def test_one_that_waits_for_another_has_its_own_limit() -> None:
    played = Played()
    channel = channel_of(played)
    first = in_thread(lambda: channel.receive(FOREVER))
    assert played.waiting.acquire(timeout=10)
    with pytest.raises(RequestTimeoutError) as caught:
        channel.receive(Deadline(None), 0.01)
    assert caught.value.timeout == 0.01
    channel.abort()
    assert isinstance(outcome(*first), SessionClosedError)


def test_a_message_in_the_queue_needs_no_turn() -> None:
    played = Played([slot(1), slot(2)])
    channel = channel_of(played)
    channel.receive(FOREVER)
    with channel._turn:
        assert outcome(*in_thread(lambda: channel.receive(FOREVER)))[1] == SlotNotification(2)


# --- closing


def test_the_answer_to_a_close_goes_to_the_one_who_closes() -> None:
    played = Played()
    channel = channel_of(played)
    with channel.closing():
        channel.send(CloseBacktestSession(), FOREVER)
        played.put(slot(1), SUCCESS)
        assert channel.receive(FOREVER) == (None, SlotNotification(1))
        # `success` lies in the queue now, where any receiver would find it
        found = outcome(*in_thread(lambda: channel.receive(FOREVER)))
        assert isinstance(found, SessionClosedError)
        assert channel.receive(FOREVER) == (None, Success())


def test_closing_sends_all_waiters_away_at_once() -> None:
    played = Played()
    channel = channel_of(played)
    workers = [in_thread(lambda: channel.receive(FOREVER)) for _ in range(4)]
    assert played.waiting.acquire(timeout=10)
    with channel.closing():
        closer_waits = in_thread(lambda: None)  # the server stays mute meanwhile
        outcome(*closer_waits)
        for worker in workers:
            assert "closed by another thread" in str(outcome(*worker))
    assert not channel.closed


def test_waiters_leave_while_the_one_who_closes_waits() -> None:
    played = Played()
    channel = channel_of(played)
    workers = [in_thread(lambda: channel.receive(FOREVER)) for _ in range(4)]
    assert played.waiting.acquire(timeout=10)

    def close() -> None:
        with channel.closing():
            channel.receive(Deadline(10))

    closer = in_thread(close)
    for worker in workers:
        assert isinstance(outcome(*worker), SessionClosedError)
    played.put(SUCCESS)
    assert outcome(*closer) is None


def test_after_a_close_that_failed_the_channel_is_as_before() -> None:
    played = Played([slot(1), slot(2)])
    channel = channel_of(played)
    channel.receive(FOREVER)
    with channel.closing():
        pass
    assert channel.receive(FOREVER) == (None, SlotNotification(2))


def test_closing_within_closing_in_one_thread() -> None:
    played = Played()
    channel = channel_of(played)
    with channel.closing():
        with channel.closing():
            pass
        played.put(SUCCESS)
        assert channel.receive(FOREVER) == (None, Success())
        channel.close(1000, "")
    with pytest.raises(SessionClosedError):
        channel.receive(FOREVER)


@pytest.mark.parametrize("how", ["close", "abort"])
def test_a_closed_channel_hands_out_nothing_more(how: str) -> None:
    channel = channel_of(Played([slot(1), slot(2)]))
    channel.receive(FOREVER)
    channel.close(1000, "") if how == "close" else channel.abort()
    for _ in range(2):
        with pytest.raises(SessionClosedError, match="is closed"):
            channel.receive(FOREVER)
    with pytest.raises(SessionClosedError):
        channel.send(CloseBacktestSession(), FOREVER)


# --- the end of the stream


def test_a_lost_connection_says_how_to_go_on_whoever_hears_of_it() -> None:
    played = Played([slot(1, 4)])
    channel = channel_of(played)
    channel.name("backtest_1")
    channel.receive(FOREVER)
    played.finish(End(1012, "Restart: management handoff"))
    for attempt in (
        lambda: channel.send(CloseBacktestSession(), FOREVER),
        lambda: channel.receive(FOREVER),
    ):
        with pytest.raises(SessionClosedError, match="management handoff") as caught:
            attempt()
        assert caught.value.code == 1012
        assert caught.value.hint == (
            "The session may live on: continue it with attach_session('backtest_1', 4)"
        )
    assert channel.receive(FOREVER) is None


def test_completion_ends_the_wait_of_others() -> None:
    played = Played()
    channel = channel_of(played)
    worker = in_thread(lambda: channel.receive(FOREVER))
    assert played.waiting.acquire(timeout=10)
    channel.complete()
    assert outcome(*worker) is None
    played.put(slot(1))
    assert channel.receive(FOREVER) == (None, SlotNotification(1))
    assert channel.receive(FOREVER) is None


# --- what arrives


def test_log_raw_stands_whatever_comes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "backtest_sync")
    channel = channel_of(Played([b"\xff", slot(1)]), log_raw=True)
    with pytest.raises(DeserializeError):
        channel.receive(FOREVER)
    assert channel.receive(FOREVER) == (None, SlotNotification(1))
    assert slot(1).decode() in caplog.text


@pytest.mark.parametrize("payload", [READY, Binary(READY)])
def test_ctrl_c_while_decoding_is_raised_and_loses_nothing(
    payload: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: bytes) -> Any:
        patched.undo()  # once
        raise KeyboardInterrupt

    played = Played()
    channel = channel_of(played)
    played.put(payload, slot(1))
    with monkeypatch.context() as patched:
        patched.setattr("backtest_sync.channel.decode_response", interrupted)
        with pytest.raises(KeyboardInterrupt):
            channel.receive(Deadline(0))
    assert taken(channel) == [ReadyForContinue(), SlotNotification(1)]
