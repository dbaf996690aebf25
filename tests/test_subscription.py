"""The handle of a running subscription: taking, ending, and everything that can go wrong in between."""

from __future__ import annotations

import gc
import itertools
import json
import logging
import pickle
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from backtest_sync import feed, subscribe
from backtest_sync.errors import (
    DeserializeError,
    InvalidParamsError,
    RequestTimeoutError,
    SessionClosedError,
    SubscriptionError,
)
from backtest_sync.protocol import AccountDiffNotification
from backtest_sync.subscriptions import (
    drain,
    subscribe_account_diffs,
    subscribe_program_diffs,
    subscribe_program_logs,
    subscribe_signature,
    subscribe_slots,
)
from tests.support.scripted import BINARY, Peer, Script, ScriptedServer, frame
from tests.support.streams import (
    PROGRAM,
    SOON,
    Gate,
    Zipped,
    address,
    diff,
    diffs,
    end,
    endpoint,
    note,
    stream,
    subscribed,
)

SIGNATURE = "1" * 64


@contextmanager
def running(script: Script, on_notification: Any = None, **options: Any) -> Iterator[Any]:
    """An account diff subscription of one program on a script."""
    with ScriptedServer(script) as server:
        handle = subscribe_program_diffs(endpoint(server), PROGRAM, on_notification, **options)
        try:
            yield handle
        finally:
            handle._feed.discard()


class Collector:
    """A callback that keeps what it is given, and on which thread."""

    def __init__(self, then: Callable[[int], object] | None = None) -> None:
        self.slots: list[int] = []
        self.threads: set[threading.Thread] = set()
        self._then = then
        self._changed = threading.Condition()

    def __call__(self, notification: AccountDiffNotification) -> None:
        with self._changed:
            self.slots.append(notification.context.slot)
            self.threads.add(threading.current_thread())
            self._changed.notify_all()
        if self._then is not None:
            self._then(notification.context.slot)

    def wait_for(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.slots) >= count, SOON), self.slots


def slots_of(handle: Any) -> list[int]:
    return [diff.context.slot for diff in handle]


def failure_of(call: Callable[[], object]) -> SubscriptionError:
    with pytest.raises(SubscriptionError) as caught:
        call()
    return caught.value


# --- taking


def test_everything_is_delivered_and_its_end_ends_the_iteration() -> None:
    with running(stream(*diffs(1, 0, 1, 2, 3, 4), end(1))) as handle:
        assert slots_of(handle) == [0, 1, 2, 3, 4]
        assert handle.completed
        assert not handle.is_alive
        assert handle.get() is None
        assert list(handle) == []
        assert handle.received == 5
        handle.join()
        handle.stop()


def test_a_callback_is_called_in_order_on_a_thread_of_its_own() -> None:
    collector = Collector()
    with running(stream(*diffs(1, 0, 1, 2, 3, 4), end(1)), collector) as handle:
        handle.join(SOON)
        assert collector.slots == [0, 1, 2, 3, 4]
        assert handle.completed
        assert handle.received == 5
        (thread,) = collector.threads
        assert thread is not threading.main_thread()
        assert thread.daemon
        assert thread.name == f"program account diff {PROGRAM} callbacks"


@pytest.mark.parametrize("callback", [False, True])
def test_compressed_frames(callback: bool) -> None:
    asked = []

    def script(peer: Peer) -> None:
        asked.append(subscribed(peer)["params"][1]["compression"])
        Zipped(peer).send(*diffs(1, 0, 1, 2, 3, 4), b"", end(1))
        peer.until_gone()

    collector = Collector()
    with running(script, collector if callback else None) as handle:
        handle.join(SOON)
        assert (collector.slots if callback else slots_of(handle)) == [0, 1, 2, 3, 4]
    assert asked == ["zstd"]


def test_text_frames_of_a_server_that_does_not_compress() -> None:
    with running(stream(*diffs(1, 0, 1), end(1)), compression=True) as handle:
        assert slots_of(handle) == [0, 1]


def test_binary_frames_that_nobody_compressed_are_text() -> None:
    def script(peer: Peer) -> None:
        subscribed(peer)
        for message in (diff(1, 0), end(1)):
            peer.send_raw(frame(json.dumps(message).encode(), BINARY))
        peer.until_gone()

    with running(script, compression=False) as handle:
        assert slots_of(handle) == [0]


def test_get_takes_one_and_gives_up_at_its_deadline() -> None:
    gate = Gate()

    def script(peer: Peer) -> None:
        subscribed(peer)
        peer.send(diff(1, 0))
        gate.wait()
        peer.send(diff(1, 1), end(1))
        peer.until_gone()

    with running(script) as handle:
        assert handle.get(SOON).context.slot == 0
        with pytest.raises(RequestTimeoutError, match="program account diff subscription"):
            handle.get(0)
        gate.open()
        assert handle.get(SOON).context.slot == 1
        assert handle.get(SOON) is None


def test_a_handle_with_a_callback_is_no_iterator() -> None:
    with running(stream(end(1)), print) as handle:
        for take in (handle.get, lambda: next(handle), lambda: iter(handle)):
            with pytest.raises(InvalidParamsError, match="on_notification"):
                take()
        handle.join(SOON)


def test_several_threads_take_each_notification_once() -> None:
    count = 5000

    def script(peer: Peer) -> None:
        subscribed(peer)
        for start in range(0, count, 100):
            peer.send(*diffs(1, *range(start, start + 100)))
        peer.send(end(1))
        peer.until_gone()

    with running(script) as handle:
        taken: list[list[int]] = [[], [], []]
        threads = [
            threading.Thread(target=lambda own=own: own.extend(slots_of(handle))) for own in taken
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SOON)
        for own in taken:
            assert own == sorted(own)
        assert sorted(itertools.chain(*taken)) == list(range(count))
        assert handle.received == count


def test_subscriptions_of_one_socket_end_with_the_last_of_them() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        for subscription in (7, 8):
            request = peer.recv()
            peer.send({"id": request["id"], "result": subscription})
        peer.send(diff(7, 0), end(8), diff(7, 1), end(99), end(8), diff(7, 2), end(7))
        peer.until_gone()

    with ScriptedServer(script) as server:
        handle = subscribe_account_diffs(endpoint(server), [PROGRAM, address("b")])
        assert slots_of(handle) == [0, 1, 2]


def test_an_end_marker_of_no_subscription_ends_the_only_one() -> None:
    for params in ({}, {"params": {}}, {"params": {"subscription": "1"}}):
        with running(stream(diff(1, 0), {"method": "subscriptionComplete", **params})) as handle:
            assert slots_of(handle) == [0]
            assert handle.completed


def test_text_about_an_end_marker_is_none() -> None:
    result = {
        "context": {"slot": 1},
        "signature": '"subscriptionComplete"',
        "subscriptionComplete": 1,
    }
    with running(stream(note(1, result), end(1))) as handle:
        handle.join(SOON)
        (diff,) = handle
        assert diff.raw == result


def test_a_signature_is_complete_with_its_one_notification() -> None:
    message = note(1, {"context": {"slot": 5}, "value": {"err": None}}, "signature")
    for collector in (None, Collector()):
        with ScriptedServer(stream(message, hold=False)) as server:
            handle = subscribe_signature(endpoint(server), SIGNATURE, collector)
            handle.join(SOON)
            assert handle.completed
            assert (slots_of(handle) if collector is None else collector.slots) == [5]


def test_a_signature_of_a_transaction_that_never_came() -> None:
    with ScriptedServer(stream(end(1))) as server:
        handle = subscribe_signature(endpoint(server), SIGNATURE)
        assert list(handle) == []
        assert handle.completed


def test_slots() -> None:
    message = note(1, {"slot": 5, "parent": 4, "root": 3}, "slot")
    with ScriptedServer(stream(message, end(1))) as server:
        (slot,) = subscribe_slots(endpoint(server))
        assert (slot.slot, slot.parent, slot.root) == (5, 4, 3)


def test_what_concerns_nobody_is_passed_over_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    messages = [diff(99, 7), {"method": "newer", "params": {}}, {"id": 5, "result": 3}, end(98)]
    for callback in (False, True):
        collector = Collector()
        with (
            caplog.at_level(logging.WARNING, "backtest_sync"),
            running(
                stream(diff(1, 0), *messages, end(1)), collector if callback else None
            ) as handle,
        ):
            handle.join(SOON)
            assert (collector.slots if callback else slots_of(handle)) == [0]
            assert handle.received == 1
        assert len(caplog.records) == len(messages)
        caplog.clear()


# --- streams that break


@pytest.mark.parametrize("callback", [False, True])
def test_a_stream_that_stops_without_its_marker(callback: bool) -> None:
    def script(peer: Peer) -> None:
        subscribed(peer)
        peer.send(diff(1, 0), diff(1, 1))
        peer.send_close(1012, "management handoff")

    collector = Collector()
    with running(script, collector if callback else None) as handle:
        error = failure_of(lambda: handle.join(SOON))
        assert (error.kind, error.target) == ("program account diff", PROGRAM)
        assert isinstance(error.__cause__, SessionClosedError)
        assert error.__cause__.code == 1012
        assert "closed unexpectedly" in str(error)
        assert "management handoff" in str(error)
        if callback:
            assert collector.slots == [0, 1]
        else:
            # what came before it is delivered first
            assert handle.get().context.slot == 0
            assert handle.get().context.slot == 1
            assert failure_of(handle.get) is error
            assert failure_of(lambda: next(handle)) is error
        assert failure_of(handle.stop) is error
        assert not handle.is_alive
        assert not handle.completed
        assert "failed" in repr(handle)


def test_a_failure_that_is_raised_again_and_again_does_not_grow() -> None:
    with running(stream(hold=False)) as handle:
        lengths = {
            len(traceback.extract_tb(failure_of(lambda: handle.join(SOON)).__traceback__))
            for _ in range(5)
        }
        assert len(lengths) == 1


def test_a_connection_that_is_reset() -> None:
    def script(peer: Peer) -> None:
        subscribed(peer)
        peer.reset()

    with running(script) as handle:
        assert isinstance(failure_of(lambda: list(handle)).__cause__, SessionClosedError)


BROKEN = [
    pytest.param(note(1, {"context": {"slot": "5"}}), "context.slot", id="wrong type"),
    pytest.param(note(1, None), "not an object", id="null"),
    pytest.param(note(1, {}, "logs"), "no accountDiffNotification", id="other method"),
    pytest.param({"method": "accountDiffNotification", "params": {"subscription": 1}},
                 "no accountDiffNotification", id="no result"),
    pytest.param({"method": "accountDiffNotification", "params": {}},
                 "no accountDiffNotification", id="no subscription"),
    pytest.param({"some": "object"}, "no accountDiffNotification", id="no method"),
    pytest.param([1, 2], "no JSON-RPC message", id="a list"),
    pytest.param({"id": None, "error": {"code": 1}}, "subscribe rejected", id="an error"),
]  # fmt: skip


@pytest.mark.parametrize(("message", "reason"), BROKEN)
@pytest.mark.parametrize("callback", [False, True])
def test_a_message_of_another_shape_ends_it(message: Any, reason: str, callback: bool) -> None:
    collector = Collector()
    script = stream(diff(1, 0), message, diff(1, 1), end(1))
    with running(script, collector if callback else None) as handle:
        if callback:
            error = failure_of(lambda: handle.join(SOON))
            assert collector.slots == [0]
        else:
            assert handle.get(SOON).context.slot == 0
            error = failure_of(lambda: handle.get(SOON))
        assert reason in str(error)
        assert isinstance(error.__cause__, DeserializeError)
        assert (error.kind, error.target) == ("program account diff", PROGRAM)
        assert not handle.is_alive


def test_text_that_is_no_json_ends_it() -> None:
    def script(peer: Peer) -> None:
        subscribed(peer)
        peer.send(diff(1, 0))
        peer.send_raw(frame(b'{"method":"accountDiffNotification","params'))
        peer.until_gone()

    with running(script) as handle:
        assert handle.get(SOON).context.slot == 0
        assert isinstance(failure_of(lambda: handle.get(SOON)).__cause__, DeserializeError)


def test_an_end_marker_of_no_subscription_among_several_is_broken() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        for subscription in (1, 2):
            peer.send({"id": peer.recv()["id"], "result": subscription})
        peer.send(diff(1, 0), {"method": "subscriptionComplete"})
        peer.until_gone()

    with ScriptedServer(script) as server:
        handle = subscribe_program_diffs(endpoint(server), [PROGRAM, address("b")])
        assert handle.get(SOON) is not None
        assert "end marker" in str(failure_of(lambda: handle.get(SOON)))


def corrupt(peer: Peer) -> None:
    subscribed(peer)
    Zipped(peer).send(*diffs(1, 0, 1))
    peer.send_raw(frame(b"\xff\xff\xff\xff", BINARY))
    peer.send(diff(1, 2))
    peer.until_gone()


@pytest.mark.parametrize("callback", [False, True])
def test_a_corrupt_compressed_frame_ends_it(callback: bool) -> None:
    collector = Collector()
    with running(corrupt, collector if callback else None, compression=True) as handle:
        error = failure_of(lambda: handle.join(SOON))
        assert "corrupt zstd data" in str(error)
        assert isinstance(error.__cause__, DeserializeError)
        if callback:
            assert collector.slots == [0, 1]
        else:
            assert [handle.get().context.slot for _ in range(2)] == [0, 1]
            assert failure_of(handle.get) is error


def test_a_frame_that_expands_too_far_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscribe, "MAX_MESSAGE_BYTES", 10_000)

    def script(peer: Peer) -> None:
        subscribed(peer)
        Zipped(peer).send(diff(1, 0), note(1, {"context": {"slot": 1}, "pad": "x" * 20_000}))
        peer.until_gone()

    with running(script, compression=True) as handle:
        assert handle.get(SOON).context.slot == 0
        assert "more than 10000 bytes" in str(failure_of(lambda: handle.get(SOON)))


# --- callbacks that fail


def test_what_a_callback_raises_ends_it_and_is_raised_by_join_and_stop() -> None:
    def fail(slot: int) -> None:
        if slot == 1:
            raise ZeroDivisionError("mine")

    collector = Collector(fail)
    with running(stream(*diffs(1, 0, 1, 2, 3), end(1)), collector) as handle:
        with pytest.raises(ZeroDivisionError, match="mine") as joined:
            handle.join(SOON)
        with pytest.raises(ZeroDivisionError) as stopped:
            handle.stop()
        assert joined.value is stopped.value is handle.failure
        assert collector.slots == [0, 1]
        assert not handle.is_alive
        assert "fail" in [entry.name for entry in traceback.extract_tb(joined.value.__traceback__)]


def test_a_callback_that_leaves_by_system_exit_is_told_too() -> None:
    def leave(_: object) -> None:
        raise SystemExit(3)

    with running(stream(diff(1, 0)), leave) as handle, pytest.raises(SystemExit):
        handle.join(SOON)


def test_a_callback_cannot_wait_for_its_own_end() -> None:
    handles: list[Any] = []
    gate = Gate()

    def wait(_: object) -> None:
        gate.wait()
        handles[0].join()

    with running(stream(diff(1, 0)), wait) as handle:
        handles.append(handle)
        gate.open()
        with pytest.raises(InvalidParamsError, match="its own end"):
            handle.join(SOON)


# --- stopping


def test_a_stop_takes_what_is_still_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "STOP_IDLE", SOON)  # until the end marker, however slow the machine
    monkeypatch.setattr(feed, "STOP_LIMIT", SOON)
    gate = Gate()

    def script(peer: Peer) -> None:
        subscribed(peer)
        peer.send(diff(1, 0))
        gate.wait()
        peer.send(diff(1, 1), diff(1, 2), end(1))
        peer.until_gone()

    for callback in (True, False):
        gate = Gate()
        collector = Collector()
        with running(script, collector if callback else None) as handle:
            if callback:
                collector.wait_for(1)
            else:
                assert handle.get(SOON).context.slot == 0
            gate.reached()
            stopping = threading.Thread(target=handle.stop)
            stopping.start()
            gate.open()
            stopping.join(SOON)
            assert not handle.is_alive
            assert (collector.slots[1:] if callback else slots_of(handle)) == [1, 2]


@pytest.mark.parametrize("callback", [False, True])
def test_a_stop_ends_when_the_server_is_idle(
    monkeypatch: pytest.MonkeyPatch, callback: bool
) -> None:
    monkeypatch.setattr(feed, "STOP_IDLE", 0.01)
    collector = Collector()
    with running(stream(diff(1, 0)), collector if callback else None) as handle:
        if callback:
            collector.wait_for(1)
        handle.stop()
        assert not handle.is_alive
        assert not handle.completed
        assert "stopped" in repr(handle)
        handle.join()
        if not callback:
            assert slots_of(handle) in ([0], [])


def flood(peer: Peer) -> None:
    subscribed(peer)
    for slot in itertools.count():
        peer.send(*[diff(1, slot)] * 50)


@pytest.mark.parametrize("callback", [False, True])
def test_a_stop_ends_however_much_the_server_sends(
    monkeypatch: pytest.MonkeyPatch, callback: bool
) -> None:
    monkeypatch.setattr(feed, "STOP_LIMIT", 0.05)
    collector = Collector()
    with running(flood, collector if callback else None) as handle:
        if callback:
            collector.wait_for(1)
        handle.stop()
        assert not handle.is_alive
        slots = collector.slots if callback else slots_of(handle)
        assert slots == sorted(slots)
        assert len(slots) == handle.received


def test_after_a_stop_the_end_of_the_connection_is_no_failure() -> None:
    gate = Gate()

    def script(peer: Peer) -> None:
        subscribed(peer)
        peer.send(diff(1, 0))
        gate.wait()

    collector = Collector(lambda _: (handles[0].stop(), gate.open()))
    handles: list[Any] = []
    with ScriptedServer(script) as server:
        ready = Gate()
        handles.append(
            subscribe_program_diffs(
                endpoint(server), PROGRAM, lambda n: (ready.wait(), collector(n))
            )
        )
        ready.open()
        gate.reached()
        handles[0].join(SOON)
        assert collector.slots == [0]


def test_a_stop_at_once_drops_the_rest() -> None:
    gate = Gate()
    collector = Collector(lambda _: gate.wait())
    with running(stream(*diffs(1, *range(100))), collector) as handle:
        gate.reached()
        stopping = threading.Thread(target=handle.stop, args=(False,))
        stopping.start()
        while not handle._feed.over:  # the stop is heard while the callback still runs
            stopping.join(0.001)
        gate.open()
        stopping.join(SOON)
        assert collector.slots == [0]
        assert handle.received == 1
        assert not handle.is_alive


@pytest.mark.parametrize("drained", [False, True])
def test_a_callback_may_stop_its_own_subscription(
    monkeypatch: pytest.MonkeyPatch, drained: bool
) -> None:
    monkeypatch.setattr(feed, "STOP_IDLE", 0.01)
    handles: list[Any] = []
    gate = Gate()

    def stop(slot: int) -> None:
        gate.wait()
        if slot == 1:
            handles[0].stop(drain=drained)

    collector = Collector(stop)
    with running(stream(*diffs(1, 0, 1, 2)), collector) as handle:
        handles.append(handle)
        gate.open()
        handle.join(SOON)
        assert collector.slots == ([0, 1, 2] if drained else [0, 1])


@pytest.mark.parametrize("drained", [False, True])
def test_a_stop_wakes_who_waits_in_get(monkeypatch: pytest.MonkeyPatch, drained: bool) -> None:
    monkeypatch.setattr(feed, "STOP_IDLE", 0.01)
    with running(stream()) as handle:
        got: list[Any] = ["nothing yet"]
        waiting = threading.Thread(target=lambda: got.append(handle.get()))
        waiting.start()
        while not handle._feed._pulling:
            waiting.join(0.001)
        handle.stop(drain=drained)
        waiting.join(SOON)
        assert got == ["nothing yet", None]


def test_a_stopped_iterator_keeps_what_came_or_drops_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "STOP_IDLE", SOON)
    for drained, left in ((True, [1, 2]), (False, [])):
        with running(stream(*diffs(1, 0, 1, 2), end(1))) as handle:
            assert handle.get(SOON).context.slot == 0
            handle.stop(drain=drained)
            assert slots_of(handle) == left


# --- with blocks


def test_leaving_the_block_runs_the_callbacks_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "STOP_IDLE", SOON)
    collector = Collector()
    with ScriptedServer(stream(*diffs(1, 0, 1), end(1))) as server:
        with subscribe_program_diffs(endpoint(server), PROGRAM, collector):
            pass
        assert collector.slots == [0, 1]


def test_leaving_the_block_raises_a_failure_once() -> None:
    with ScriptedServer(stream(hold=False)) as server:
        for callback in (None, print):
            with (
                pytest.raises(SubscriptionError),
                subscribe_program_diffs(endpoint(server), PROGRAM, callback) as handle,
            ):
                handle.wait(SOON)
        # told already
        with subscribe_program_diffs(endpoint(server), PROGRAM) as handle:
            failure_of(handle.get)


def test_an_exception_in_the_block_is_not_masked() -> None:
    gate = Gate()
    collector = Collector(lambda _: gate.wait())
    with ScriptedServer(stream(diff(1, 0), hold=False)) as server:
        with pytest.raises(KeyError), subscribe_program_diffs(endpoint(server), PROGRAM):
            raise KeyError
        with (
            pytest.raises(KeyError),
            subscribe_program_diffs(endpoint(server), PROGRAM, collector),
        ):
            gate.pass_on_and_raise(KeyError())


def test_the_server_sees_a_close_frame() -> None:
    with ScriptedServer(stream(diff(1, 0), end(1))) as server:
        list(subscribe_program_diffs(endpoint(server), PROGRAM))
    assert server.peers[0].close_frame == b"\x03\xe8"


# --- handles that are forgotten


def test_a_forgotten_iterator_closes_its_connection() -> None:
    gone = threading.Event()

    def script(peer: Peer) -> None:
        subscribed(peer)
        peer.send(diff(1, 0))
        peer.until_gone()
        gone.set()

    with ScriptedServer(script) as server:
        handle = subscribe_program_diffs(endpoint(server), PROGRAM)
        assert handle.get(SOON) is not None
        kept = weakref.ref(handle)
        gc.disable()
        try:
            del handle
            assert kept() is None  # without the help of the collector
            assert gone.wait(SOON)
        finally:
            gc.enable()


def test_a_forgotten_callback_goes_on() -> None:
    gate = Gate()

    def script(peer: Peer) -> None:
        subscribed(peer)
        gate.wait()
        peer.send(*diffs(1, 0, 1), end(1))
        peer.until_gone()

    collector = Collector()
    with ScriptedServer(script) as server:
        subscribe_program_diffs(endpoint(server), PROGRAM, collector)
        gc.collect()
        gate.open()
        collector.wait_for(2)


# --- waiting for the end


def test_an_iterator_can_be_joined_before_it_is_read() -> None:
    def script(peer: Peer) -> None:
        subscribed(peer)
        peer.send(*diffs(1, *range(1000)), end(1))
        peer.until_gone()

    with running(script) as handle:
        assert handle.get(SOON).context.slot == 0
        handle.join(SOON)
        assert handle.completed
        assert slots_of(handle) == list(range(1, 1000))


def test_a_join_gives_up_at_its_deadline() -> None:
    for callback in (None, print):
        with running(stream(), callback) as handle:
            with pytest.raises(RequestTimeoutError, match="the end of the program account diff"):
                handle.join(0.01)
            assert not handle.wait(0)
            assert handle.is_alive
            assert "running" in repr(handle)


def test_an_iterator_is_not_read_further_ahead_than_memory_is_meant_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feed, "_MAX_AHEAD_BYTES", 1000)
    with running(stream(*diffs(1, *range(100)), end(1))) as handle:
        assert not handle.wait(0.05)
        assert sum(map(len, handle._feed.plain)) < 1200
        joining = threading.Thread(target=handle.join)
        joining.start()
        assert slots_of(handle) == list(range(100))
        joining.join(SOON)
        assert not joining.is_alive()


def test_after_a_stop_what_there_is_no_memory_for_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feed, "_MAX_AHEAD_BYTES", 1000)
    with running(stream(*diffs(1, *range(100)))) as handle:
        handle.stop()
        slots = slots_of(handle)
        assert slots == list(range(len(slots)))


def test_a_slow_consumer_holds_the_server_back(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = 512 * 1024
    monkeypatch.setattr(subscribe, "MAX_QUEUE_BYTES", 2 * limit)
    count, pad = 300, "x" * 100_000

    def script(peer: Peer) -> None:
        subscribed(peer)
        for slot in range(count):
            peer.send(note(1, {"context": {"slot": slot}, "pad": pad}))
        peer.send(end(1))
        peer.until_gone()

    most = 0

    def measure(slot: int) -> None:
        nonlocal most
        queued = handle._feed._connection.queued_bytes
        most = max(most, queued + sum(map(len, handle._feed.plain)))
        if slot == 0:
            full.wait()

    full = Gate()
    collector = Collector(measure)
    with ScriptedServer(script) as server:
        ready = Gate()
        handle = subscribe_program_diffs(
            endpoint(server), PROGRAM, lambda n: (ready.wait(), collector(n)), compression=False
        )
        ready.open()
        full.reached()
        while not handle._feed._connection._inbox.full:
            handle.wait(0.001)
        assert handle._feed._connection.queued_bytes > limit // 2
        full.open()
        handle.join(SOON)
    assert collector.slots == list(range(count))
    # what waits, what was taken at once, and what one read of the socket may add
    assert most < 2 * limit + 512 * 1024


# --- draining


def test_drain_waits_for_every_end_marker() -> None:
    collector = Collector()
    script = stream(*diffs(1, 0, 1), end(1))
    with ScriptedServer(script, script, stream(diff(1, 0))) as server:
        read = subscribe_program_diffs(endpoint(server), PROGRAM)
        called = subscribe_program_diffs(endpoint(server), PROGRAM, collector)
        stopped = subscribe_program_diffs(endpoint(server), PROGRAM)
        stopped.stop(drain=False)
        drain([read, called, stopped], SOON)
        assert collector.slots == [0, 1]
        assert slots_of(read) == [0, 1]
        drain([], 0)
        drain([read], None)


def test_drain_fails_loudly_when_a_stream_stalls() -> None:
    with running(stream(*diffs(1, 0, 1, 2))) as handle:
        error = failure_of(lambda: drain([handle], 0.05))
        assert "no end marker" in str(error)
        assert (error.kind, error.target) == ("program account diff", PROGRAM)
        assert handle.is_alive


class Trickle:
    """Stands in for a handle that is looked at before it ends; something came between ``moving`` looks."""

    failure = None

    def __init__(self, looks: int, moving: int) -> None:
        self.looks, self.moving, self.progress = looks, moving, 0

    def wait(self, timeout: float | None) -> bool:
        self.looks -= 1
        self.moving -= 1
        self.progress += self.moving >= 0
        return self.looks < 0

    def error(self, reason: str, cause: object = None) -> SubscriptionError:
        return SubscriptionError(reason, kind="trickle", target="test")


def test_drain_measures_the_silence_of_all_streams() -> None:
    drain([Trickle(looks=50, moving=50)], 0)  # type: ignore[list-item]
    moving = Trickle(looks=50, moving=50)
    waiting = Trickle(looks=20, moving=0)
    look = waiting.wait

    def wait(timeout: float | None) -> bool:
        moving.wait(timeout)
        return look(timeout)

    waiting.wait = wait  # type: ignore[method-assign]
    drain([waiting, moving], 0)  # type: ignore[list-item]
    assert "incomplete" in str(
        failure_of(lambda: drain([Trickle(looks=50, moving=20)], 0))  # type: ignore[list-item]
    )


def test_drain_raises_what_a_stream_failed_from() -> None:
    with running(stream(hold=False)) as handle:
        assert "closed unexpectedly" in str(failure_of(lambda: drain([handle], SOON)))
    collector = Collector(lambda _: 1 // 0)
    with running(stream(diff(1, 0)), collector) as handle:
        error = failure_of(lambda: drain([handle], SOON))
        assert isinstance(error.__cause__, ZeroDivisionError)
        assert "callback raised ZeroDivisionError" in str(error)


# --- what it is


def test_the_handle_says_what_it_is() -> None:
    with ScriptedServer(stream(end(1))) as server:
        handle = subscribe_program_logs(endpoint(server), PROGRAM)
        handle.join(SOON)
        assert repr(handle) == (f"<Subscription program logs for {PROGRAM}: completed, 0 received>")
        assert handle.reconnects == 0
        with pytest.raises(TypeError, match="can't be pickled"):
            pickle.dumps(handle)
