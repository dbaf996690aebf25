"""What a session's methods are given, checked and in one form, before anything is sent."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from backtest_sync.errors import InvalidParamsError
from backtest_sync.frames import MAX_REASON_BYTES, is_close_code
from backtest_sync.protocol import BacktestStatus, Continue
from backtest_sync.protocol.fields import U64_MAX, shown, to_text, to_uint

if TYPE_CHECKING:
    from backtest_sync.session import BacktestSession

#: As far as the range goes: the largest ``advance_count`` there is.
ALL_SLOTS = U64_MAX

Step = Callable[["BacktestSession"], "Continue | int | None"]


def check_callback(value: object, field: str) -> None:
    """`InvalidParamsError` for what is neither ``None`` nor can be called."""
    if value is not None and not callable(value):
        raise InvalidParamsError(f"{field}: expected a function or None, got {shown(value)}")


def as_continue(cont: Continue | int | None) -> Continue:
    """A ``Continue``: as it is, of so many slots, or of one."""
    if isinstance(cont, Continue):
        return cont
    if cont is None:
        return _plain(1)
    return _plain(cont) if type(cont) is int else Continue(advance_count=cont)


@lru_cache(maxsize=8)
def _plain(count: int) -> Continue:
    """The ``Continue`` that a loop of equal steps sends again and again."""
    return Continue(advance_count=count)


def as_steps(step: int | Step | None) -> Callable[[BacktestSession], Continue | None]:
    """What gives `BacktestSession.run` its next ``Continue``, ``None`` at the end."""
    if not callable(step):
        every = _as_step(ALL_SLOTS if step is None else step)
        return lambda _: every

    def ask(session: BacktestSession) -> Continue | None:
        answer = step(session)
        if answer is None or isinstance(answer, Continue):
            return answer
        return _as_step(answer)

    return ask


def _as_step(count: Any) -> Continue:
    # a step of nothing would be taken for ever
    return Continue(advance_count=to_uint(count, "step", U64_MAX, minimum=1))


def as_status(status: BacktestStatus | str) -> BacktestStatus | str:
    """A status from its wire spelling; one of a newer server's stays text."""
    try:
        return BacktestStatus(status)
    except ValueError:
        if isinstance(status, str) and status:
            return status
        raise InvalidParamsError(
            f"status: expected a BacktestStatus or its wire spelling, got {shown(status)}"
        ) from None


def as_close_frame(frame: object) -> tuple[int | None, str]:
    """Code and reason of a close frame that may be sent (RFC 6455 §7.4 and §5.5.1)."""
    if frame is None:
        return None, ""
    if not isinstance(frame, tuple) or len(frame) != 2:
        raise InvalidParamsError(f"frame: expected (code, reason) or None, got {shown(frame)}")
    code, reason = to_uint(frame[0], "code", 4999), to_text(frame[1], "reason")
    if not is_close_code(code):
        raise InvalidParamsError(f"code: expected a close code that may be sent, got {code}")
    if len(reason.encode()) > MAX_REASON_BYTES:
        raise InvalidParamsError(
            f"reason: expected at most {MAX_REASON_BYTES} bytes, got {len(reason.encode())}"
        )
    return code, reason
