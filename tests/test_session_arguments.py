"""Each wrong argument of a session's methods is refused before anything is sent or waited for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from backtest_sync import AdvanceState, BacktestSession, Continue, InvalidParamsError
from tests.support.scripted import Peer
from tests.support.sessions import READY, session_with

BAD_TIMEOUTS = (-1, -0.5, float("nan"), "5", True, [])

TIMED: dict[str, Callable[[BacktestSession, Any], object]] = {
    "next_response": lambda s, t: s.next_response(t),
    "next_event": lambda s, t: s.next_event(t),
    "responses": lambda s, t: s.responses(t),
    "ensure_ready": lambda s, t: s.ensure_ready(t),
    "wait_for_status": lambda s, t: s.wait_for_status("decodedTransactions", t),
    "send_continue": lambda s, t: s.send_continue(1, t),
    "resume_attached_session": lambda s, t: s.resume_attached_session(t),
    "advance_step": lambda s, t: s.advance_step(AdvanceState(), False, t),
    "continue_until_ready": lambda s, t: s.continue_until_ready(1, t),
    "advance": lambda s, t: s.advance(1, t),
    "advance deadline": lambda s, t: s.advance(1, deadline=t),
    "continue_": lambda s, t: s.continue_(timeout=t),
    "continue_to": lambda s, t: s.continue_to(105, timeout=t),
    "advance_to_discovery": lambda s, t: s.advance_to_discovery(t),
    "discoveries": lambda s, t: s.discoveries(t),
    "run": lambda s, t: s.run(timeout=t),
    "run deadline": lambda s, t: s.run(deadline=t),
    "drain": lambda s, t: s.drain(t),
    "close": lambda s, t: s.close(t),
    "close_with_frame": lambda s, t: s.close_with_frame(t),
    "close_with_reason": lambda s, t: s.close_with_reason(t),
}

CALLS: dict[str, Callable[[BacktestSession], object]] = {
    "send: no request": lambda s: s.send(5),  # type: ignore[arg-type]
    "send: a dict": lambda s: s.send({"method": "continue"}),  # type: ignore[arg-type]
    "send_continue": lambda s: s.send_continue("x"),  # type: ignore[arg-type]
    "ensure_ready: on_event": lambda s: s.ensure_ready(on_event=5),  # type: ignore[arg-type]
    "wait_for_status: empty": lambda s: s.wait_for_status(""),
    "wait_for_status: no text": lambda s: s.wait_for_status(5),  # type: ignore[arg-type]
    "wait_for_status: on_event": lambda s: s.wait_for_status("x", on_event=[]),  # type: ignore[arg-type]
    "advance_step: state": lambda s: s.advance_step(5, False),  # type: ignore[arg-type]
    "advance_step: on_event": lambda s: s.advance_step(AdvanceState(), True, on_event=5),  # type: ignore[arg-type]
    "advance: count": lambda s: s.advance("x"),  # type: ignore[arg-type]
    "advance: negative": lambda s: s.advance(-1),
    "advance: on_event": lambda s: s.advance(1, on_event=5),  # type: ignore[arg-type]
    "continue_until_ready: too many": lambda s: s.continue_until_ready(2**64),
    "continue_until_ready: on_event": lambda s: s.continue_until_ready(1, on_event=5),  # type: ignore[arg-type]
    "continue_: transactions": lambda s: s.continue_(transactions=5),  # type: ignore[arg-type]
    "continue_: one transaction": lambda s: s.continue_(transactions="AQID"),
    "continue_: no base64": lambda s: s.continue_(transactions=["%%"]),
    "continue_: accounts": lambda s: s.continue_(modify_accounts=[5]),  # type: ignore[arg-type]
    "continue_: on_event": lambda s: s.continue_(on_event=5),  # type: ignore[arg-type]
    "continue_to: slot": lambda s: s.continue_to("x"),  # type: ignore[arg-type]
    "continue_to: batch": lambda s: s.continue_to(105, -1),
    "continue_to: on_event": lambda s: s.continue_to(105, on_event=5),  # type: ignore[arg-type]
    "advance_to_discovery: negative": lambda s: s.advance_to_discovery(offset=-1),
    "advance_to_discovery: no number": lambda s: s.advance_to_discovery(offset="1"),  # type: ignore[arg-type]
    "advance_to_discovery: a bool": lambda s: s.advance_to_discovery(offset=True),
    "advance_to_discovery: too far": lambda s: s.advance_to_discovery(offset=2**32),
    "run: no step": lambda s: s.run(0),
    "run: back": lambda s: s.run(-1),
    "run: too many": lambda s: s.run(2**64),
    "run: part of a slot": lambda s: s.run(1.5),  # type: ignore[arg-type]
    "run: text": lambda s: s.run("5"),  # type: ignore[arg-type]
    "run: a bool": lambda s: s.run(True),
    "run: a Continue": lambda s: s.run(Continue()),  # type: ignore[arg-type]
    "run: on_event": lambda s: s.run(on_event=5),  # type: ignore[arg-type]
    "run: progress": lambda s: s.run(progress=5),  # type: ignore[arg-type]
    "close: code": lambda s: s.close_with_reason(1.0, 1006),
    "close: no code": lambda s: s.close_with_reason(1.0, "x"),  # type: ignore[arg-type]
    "close: reason": lambda s: s.close_with_reason(1.0, 1000, "x" * 124),
    "close: no reason": lambda s: s.close_with_reason(1.0, 1000, 5),  # type: ignore[arg-type]
    "close: no frame": lambda s: s.close_with_frame(1.0, 5),  # type: ignore[arg-type]
}


def check_nothing_is_sent(
    call: Callable[[BacktestSession], object], named: str | None = None
) -> None:
    received: list[Any] = []

    def script(peer: Peer) -> None:
        received.extend(peer.until_gone())

    with session_with(script, request_timeout=2.0) as session:
        with pytest.raises(InvalidParamsError, match=named):
            call(session)
        assert not session.is_closed
    assert received == []


@pytest.mark.parametrize("bad", BAD_TIMEOUTS, ids=repr)
@pytest.mark.parametrize("method", ["next_event", "responses", "discoveries", "close"])
def test_what_is_no_time_limit(method: str, bad: Any) -> None:
    check_nothing_is_sent(lambda session: TIMED[method](session, bad), "timeout")


@pytest.mark.parametrize("method", TIMED)
def test_every_method_checks_its_time_limit(method: str) -> None:
    named = "deadline" if "deadline" in method else "timeout"
    check_nothing_is_sent(lambda session: TIMED[method](session, -1), named)


@pytest.mark.parametrize("call", CALLS)
def test_wrong_arguments(call: str) -> None:
    check_nothing_is_sent(CALLS[call])


@pytest.mark.parametrize("bad", [0, -1, "5", 1.5, True])
def test_a_step_function_that_returns_no_step(bad: Any) -> None:
    received: list[Any] = []

    def script(peer: Peer) -> None:
        peer.send(READY)
        received.extend(peer.until_gone())

    with session_with(script) as session:
        with pytest.raises(InvalidParamsError, match="step"):
            session.run(lambda _: bad)
        assert session.is_ready_for_continue
    assert received == []
