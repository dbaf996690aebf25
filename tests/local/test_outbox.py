"""A session's numbered responses: what is kept, what is sent to whom, how far it may run ahead."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from backtest_sync.local import confirmations
from backtest_sync.local.confirmations import CONFIRM_EVERY, Confirmations
from backtest_sync.local.feed import RETAINED_SLOTS
from backtest_sync.local.outbox import RETAINED_RESPONSES, Outbox
from backtest_sync.protocol import ReadyForContinue, SlotNotification

T = TypeVar("T")


class Client:
    """Notes what it is sent."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.urged = 0

    def deliver(self, outbox: Outbox, text: str) -> None:
        self.texts.append(text)

    def urge(self) -> None:
        self.urged += 1

    async def drained(self) -> None:
        return

    @property
    def slots(self) -> list[int]:
        return [m["params"] for m in map(json.loads, self.texts) if "params" in m]


class Line:
    """The connection under `Confirmations`: notes the pings."""

    def __init__(self) -> None:
        self.on_pong: Any = None
        self.pings: list[bytes] = []

    def ping(self, payload: bytes) -> None:
        self.pings.append(payload)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(coroutine)


def fill(outbox: Outbox, count: int, first: int = 0) -> None:
    for slot in range(first, first + count):
        outbox.put(SlotNotification(slot))


def test_numbers_are_there_where_responses_are_kept_and_nowhere_else() -> None:
    for retain in (True, False):
        outbox, client = Outbox(retain=retain), Client()
        outbox.attach(client)
        outbox.put(SlotNotification(5))
        outbox.put(ReadyForContinue())
        expected = [{"seqId": 1}, {"seqId": 2}] if retain else [{}, {}]
        sent = [json.loads(text) for text in client.texts]
        assert [{k: m[k] for k in m if k == "seqId"} for m in sent] == expected


def test_a_sub_sessions_are_wrapped() -> None:
    session_id = "backtest_" + "0" * 32
    outbox, client = Outbox(retain=True, session_id=session_id), Client()
    outbox.attach(client)
    outbox.put(ReadyForContinue())
    (text,) = client.texts
    assert json.loads(text) == {
        "method": "sessionEventV2",
        "params": {
            "session_id": session_id,
            "seq_id": 1,
            "event": {"method": "readyForContinue"},
        },
    }


def test_who_attaches_gets_what_follows_its_cursor_and_then_what_comes() -> None:
    outbox, client = Outbox(retain=True), Client()
    fill(outbox, 5)
    outbox.attach(client, 3)
    outbox.put(SlotNotification(9))
    assert client.slots == [3, 4, 9]


def test_a_claim_holds_everything_back_until_the_start() -> None:
    outbox, client = Outbox(retain=True), Client()
    fill(outbox, 2)
    outbox.claim(client, None)
    fill(outbox, 1, first=2)
    assert client.texts == []
    outbox.start()
    outbox.start()
    assert client.slots == [0, 1, 2]


def test_what_is_not_to_be_kept_is_numbered_and_sent_once() -> None:
    outbox, client = Outbox(retain=True), Client()
    outbox.attach(client)
    outbox.put(ReadyForContinue(), keep=False)
    outbox.put(SlotNotification(1))
    again = Client()
    outbox.attach(again)
    assert [json.loads(text)["seqId"] for text in client.texts] == [1, 2]
    assert [json.loads(text)["seqId"] for text in again.texts] == [2]


def test_the_last_slots_are_kept_with_all_that_came_between_them() -> None:
    outbox, client = Outbox(retain=True), Client()
    for slot in range(RETAINED_SLOTS + 10):
        outbox.put(SlotNotification(slot))
        outbox.put(ReadyForContinue())
    outbox.attach(client)
    assert client.slots == list(range(10, RETAINED_SLOTS + 10))
    assert len(client.texts) == 2 * RETAINED_SLOTS


def test_responses_without_slots_are_bounded_too() -> None:
    outbox, client = Outbox(retain=True), Client()
    for _ in range(RETAINED_RESPONSES + 5):
        outbox.put(ReadyForContinue())
    outbox.attach(client)
    assert len(client.texts) == RETAINED_RESPONSES


def test_a_session_may_not_run_further_ahead_than_what_is_kept() -> None:
    async def scenario() -> None:
        outbox, client = Outbox(retain=True), Client()
        outbox.attach(client)
        fill(outbox, RETAINED_SLOTS - 1)
        await asyncio.wait_for(outbox.room(), 5)
        fill(outbox, 1, first=RETAINED_SLOTS - 1)
        waiting = asyncio.ensure_future(outbox.room())
        await asyncio.sleep(0)
        assert not waiting.done()
        assert client.urged == 1
        outbox.confirm(1)
        await asyncio.wait_for(waiting, 5)

    run(scenario())


def test_nothing_waits_where_nothing_is_kept() -> None:
    async def scenario() -> None:
        outbox = Outbox(retain=False)
        outbox.attach(Client())
        fill(outbox, 10 * RETAINED_SLOTS)
        await asyncio.wait_for(outbox.room(), 5)

    run(scenario())


def test_the_cursor_of_who_attaches_is_a_confirmation() -> None:
    async def scenario() -> None:
        outbox = Outbox(retain=True)
        fill(outbox, RETAINED_SLOTS)
        waiting = asyncio.ensure_future(outbox.room())
        await asyncio.sleep(0)
        outbox.attach(Client(), RETAINED_SLOTS)
        await asyncio.wait_for(waiting, 5)

    run(scenario())


def test_the_end_lets_everybody_go() -> None:
    async def scenario() -> None:
        outbox = Outbox(retain=True)
        fill(outbox, RETAINED_SLOTS)
        waiting = asyncio.ensure_future(outbox.room())
        await asyncio.sleep(0)
        outbox.release()
        await asyncio.wait_for(waiting, 5)

    run(scenario())


# --- confirmations ---------------------------------------------------------------------------------


class Confirmed(Client):
    """A client behind `Confirmations`."""

    def __init__(self, watch: Confirmations) -> None:
        super().__init__()
        self.watch = watch

    def deliver(self, outbox: Outbox, text: str) -> None:
        super().deliver(outbox, text)
        self.watch.sent(outbox)

    def urge(self) -> None:
        self.watch.urge()


def test_a_pong_confirms_what_was_sent_before_its_ping() -> None:
    async def scenario() -> None:
        line = Line()
        watch = Confirmations(line)  # type: ignore[arg-type]
        outbox = Outbox(retain=True)
        outbox.attach(Confirmed(watch))
        fill(outbox, CONFIRM_EVERY - 1)
        assert line.pings == []
        fill(outbox, RETAINED_SLOTS - CONFIRM_EVERY + 1, first=CONFIRM_EVERY - 1)
        assert len(line.pings) == 1  # one at a time
        waiting = asyncio.ensure_future(outbox.room())
        await asyncio.sleep(0)
        line.on_pong(b"of somebody else")
        await asyncio.sleep(0)
        assert not waiting.done()
        line.on_pong(line.pings[0])
        await asyncio.wait_for(waiting, 5)
        assert len(line.pings) == 2  # for what was sent since the first
        watch.stop()

    run(scenario())


def test_who_waits_has_its_answer_asked_for_even_behind_another_ping() -> None:
    async def scenario() -> None:
        line = Line()
        watch = Confirmations(line)  # type: ignore[arg-type]
        outboxes = [Outbox(retain=True) for _ in range(2)]
        for outbox in outboxes:
            outbox.attach(Confirmed(watch))
        fill(outboxes[0], CONFIRM_EVERY)
        outboxes[1].put(ReadyForContinue())
        watch.urge()
        assert len(line.pings) == 1
        line.on_pong(line.pings[0])
        assert len(line.pings) == 2
        watch.stop()

    run(scenario())


def test_a_client_without_pongs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confirmations, "DEAF_AFTER", 0.01)

    async def scenario() -> None:
        watch = Confirmations(Line())  # type: ignore[arg-type]
        outbox = Outbox(retain=True)
        outbox.attach(Confirmed(watch))
        fill(outbox, RETAINED_SLOTS)
        await asyncio.wait_for(outbox.room(), 5)
        fill(outbox, 10 * RETAINED_SLOTS, first=RETAINED_SLOTS)
        await asyncio.wait_for(outbox.room(), 5)

    run(scenario())
