"""A session and what its endpoint serves: its streams and its JSON-RPC live and end with it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from backtest_sync import (
    BacktestSession,
    HttpError,
    InvalidParamsError,
    RequestTimeoutError,
    Subscription,
    SubscriptionError,
)
from tests.support.connections import in_thread, outcome, quiet, until
from tests.support.scripted import Peer, ScriptedServer
from tests.support.sessions import COMPLETED, READY, session_with, slot
from tests.support.streams import (
    PROGRAM,
    Gate,
    diffs,
    end,
    endpoint,
    stream,
    subscribed,
)

Data = Callable[[Peer], None]


def serve_close(peer: Peer) -> None:
    peer.serve_close()


def complete(peer: Peer) -> None:
    """The control side of a run of one slot."""
    peer.send(READY)
    peer.expect("continue")
    peer.send(slot(101), COMPLETED)
    peer.serve_close()


@contextmanager
def session_and(
    *data: Data, control: Data = serve_close, **options: Any
) -> Iterator[BacktestSession]:
    """A session whose endpoint plays ``data``, a script for each connection."""
    with ScriptedServer(*data) as server:
        with session_with(control, rpc_endpoint=endpoint(server), **options) as session:
            yield session


def watched(
    session: BacktestSession, on_notification: Callable[[Any], object] | None = None
) -> Subscription[Any]:
    return session.subscribe_program_diffs(PROGRAM, on_notification)


# --- closing


def test_close_hands_out_what_came_and_ends_every_stream() -> None:
    with session_and(stream(*diffs(1, *range(50)))) as session:
        seen: list[Any] = []
        called, taken = watched(session, seen.append), watched(session)
        session.close(5.0)
        assert not called.is_alive
        assert not taken.is_alive
        assert [note.context.slot for note in seen] == list(range(50))
        assert [note.context.slot for note in taken] == list(range(50))
        called.join(1.0)  # it did not fail


def test_leaving_the_with_block_ends_every_stream() -> None:
    with session_and(stream(*diffs(1, 0))) as session:
        with session:
            handles = [watched(session, lambda _: None) for _ in range(3)]
        assert not any(handle.is_alive for handle in handles)


def test_leaving_by_an_error_waits_for_no_stream() -> None:
    gate = Gate()
    with session_and(stream(*diffs(1, 0, 1))) as session:
        seen: list[Any] = []

        def hold(note: Any) -> None:
            seen.append(note)
            gate.wait()

        handle = watched(session, hold)
        gate.reached()
        in_thread(lambda: (until(lambda: handle.is_stopping), gate.open()))
        with pytest.raises(KeyError), session:
            raise KeyError("mine")
        handle.join(5.0)
        assert len(seen) == 1


def test_a_callback_that_hangs_holds_a_close_up_for_half_its_time_at_most(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate = Gate()
    with session_and(stream(*diffs(1, 0, 1))) as session:
        handle = watched(session, lambda _: gate.wait())
        gate.reached()
        session.close(1.0)
        assert session.is_closed
        assert "did not end in time" in caplog.text
        gate.open()
        handle.join(5.0)
        assert handle.received == 1


def test_close_from_inside_a_callback() -> None:
    with session_and(stream(*diffs(1, 0, 1))) as session:
        failed: list[BaseException] = []

        def close(_: Any) -> None:
            try:
                session.close(5.0)
            except BaseException as error:
                failed.append(error)

        handle = watched(session, close)
        handle.join(5.0)
        assert session.is_closed
        assert failed == []


def test_close_from_everywhere_at_once() -> None:
    """Two callbacks and two threads; none waits for another that waits for it."""
    together = threading.Barrier(4, timeout=10)
    with session_and(stream(*diffs(1, 0))) as session:

        def close(*_: Any) -> None:
            together.wait()
            session.close(5.0)

        handles = [watched(session, close) for _ in range(2)]
        worker = in_thread(close)
        close()
        assert outcome(*worker) is None
        for handle in handles:
            handle.join(5.0)
        assert session.is_closed


def test_a_callback_that_leaves_a_with_block_lets_another_thread_close() -> None:
    gate = Gate()
    with session_and(stream(*diffs(1, 0))) as session:

        def leave(_: Any) -> None:
            gate.wait()
            with session:
                pass

        handle = watched(session, leave)
        gate.reached()
        closer = in_thread(lambda: session.close(10.0))
        until(lambda: handle.is_stopping)
        gate.open()
        assert outcome(*closer) is None
        handle.join(5.0)


def test_a_callback_that_failed_is_told_where_it_is_asked_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with session_and(stream(*diffs(1, 0))) as session:
        gate = Gate()
        handle = watched(session, lambda _: gate.pass_on_and_raise(KeyError("mine")))
        gate.wait()
        session.close(5.0)  # the session itself is well
        with pytest.raises(KeyError):
            handle.join()


def test_abort_ends_every_stream_at_once() -> None:
    with session_and(stream()) as session:
        called, taken = watched(session, lambda _: None), watched(session)
        session.abort()
        assert called.wait(5.0)
        assert taken.get(0) is None
        session.abort()


def test_abort_from_inside_a_callback() -> None:
    with session_and(stream(*diffs(1, 0, 1))) as session:
        gate = Gate()
        handle = watched(session, lambda _: (gate.wait(), session.abort()))
        gate.reached()
        gate.open()
        handle.join(5.0)
        assert session.is_closed
        assert handle.received == 1


# --- the end of a run


def test_run_waits_for_the_streams() -> None:
    gate = Gate()

    def data(peer: Peer) -> None:
        subscribed(peer)
        gate.wait()
        peer.send(*diffs(1, 0, 1, 2), end(1))
        peer.until_gone()

    with session_and(data, control=complete) as session:
        seen: list[Any] = []
        watched(session, seen.append)
        worker = in_thread(session.run)
        gate.reached()
        gate.open()
        assert outcome(*worker).completed
        assert len(seen) == 3


def test_the_deadline_of_a_run_bounds_the_wait_for_its_streams() -> None:
    with session_and(stream(*diffs(1, 0)), control=complete) as session:
        watched(session, lambda _: None)
        with pytest.raises(RequestTimeoutError, match="program account diff") as caught:
            session.run(deadline=0.2)
        assert caught.value.timeout == 0.2
        assert session.is_completed


def test_drain_without_a_limit_of_its_own_has_that_of_the_client() -> None:
    with session_and(stream(), request_timeout=0.1) as session:
        watched(session, lambda _: None)
        with pytest.raises(SubscriptionError, match=r"nothing else for 0\.1 s"):
            session.drain(None)


def test_drain_tells_of_a_callback_that_failed_whatever_came_after() -> None:
    def fail(_: Any) -> None:
        raise KeyError("mine")

    with session_and(stream(*diffs(1, 0), end(1))) as session:
        watched(session, fail).wait(5.0)
        for _ in range(3):
            watched(session, lambda _: None).join(5.0)
        with pytest.raises(SubscriptionError, match="its callback raised KeyError"):
            session.drain(5.0)


def test_streams_that_ended_well_are_forgotten() -> None:
    with session_and(stream(end(1))) as session:
        for _ in range(10):
            watched(session, lambda _: None).join(5.0)
        assert len(session._handles()) <= 2


# --- limits and the rest


def test_subscribing_has_the_limit_of_the_client() -> None:
    with session_and(quiet, request_timeout=0.1) as session:
        with pytest.raises(SubscriptionError):
            watched(session)
        with pytest.raises(InvalidParamsError):
            session.subscribe_slots(timeout=-1)


def test_json_rpc_ends_with_the_session() -> None:
    with session_and(lambda peer: None) as session:
        assert session.rpc is session.rpc
        session.close(5.0)
        with pytest.raises(HttpError, match="closed"):
            session.rpc.get_slot()


def test_json_rpc_of_a_session_that_is_closed_already() -> None:
    with session_and(lambda peer: None) as session:
        session.close(5.0)
        with pytest.raises(HttpError, match="closed"):
            session.rpc.get_slot()


def test_threads_share_one_rpc_client() -> None:
    with session_and(lambda peer: None) as session:
        together = threading.Barrier(4, timeout=10)

        def ask() -> object:
            together.wait()
            return session.rpc

        workers = [in_thread(ask) for _ in range(4)]
        assert len({id(outcome(*worker)) for worker in workers}) == 1
