"""The errors: a tree, texts, and what they carry across pickling and copying."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest

import backtest_sync
from backtest_sync import errors
from backtest_sync.protocol import (
    AccountData,
    Completed,
    Continue,
    ErrorDetail,
    ErrorKind,
    SessionSummary,
)
from backtest_sync.replies import HttpReply
from backtest_sync.rpc import ModifyAccountsError

ADDRESS = "JUP6LkbZbjS1jKKwapdHNy74zcZ3tLUZoi5QNyVTaV4"
CONTINUE = Continue(
    advance_count=3,
    transactions=[b"\1\2"],
    modify_accounts={ADDRESS: AccountData(b"x", 1, ADDRESS)},
)
DETAIL = ErrorDetail(ErrorKind.BUNDLE_NOT_FOUND, {"start_slot": 1, "end_slot": 2})
NEWER = ErrorDetail("quotaExceeded", {"limit": [5, {"per": "day"}]})
SUMMARY = SessionSummary(1, 2, 3, 4, 5)
REPLY = HttpReply("http://h/x", 200, "OK", b'{"error":{}}', {})

MAKERS: dict[str, Callable[[], errors.BacktestClientError]] = {
    "BacktestClientError": lambda: errors.BacktestClientError("what", 5),
    "InvalidParamsError": lambda: errors.InvalidParamsError("start_slot: wrong"),
    "ConnectError": lambda: errors.ConnectError("ws://h/", "refused", status=403),
    "RequestTimeoutError": lambda: errors.RequestTimeoutError("receiving", 2.5),
    "DeserializeError": lambda: errors.DeserializeError("no JSON", "{" * 5000),
    "RemoteError": lambda: errors.RemoteError(DETAIL),
    "RemoteError, newer": lambda: errors.RemoteError(NEWER),
    "SessionClosedError": lambda: errors.SessionClosedError("gone", code=1012, hint="Attach"),
    "ReconnectFailedError": lambda: errors.ReconnectFailedError(
        "gone", code=1012, attempts=20, last_sequence=7
    ),
    "ContinueOutcomeUnknownError": lambda: errors.ContinueOutcomeUnknownError(CONTINUE, 5),
    "UnexpectedResponseError": lambda: errors.UnexpectedResponseError(
        "continuing", Completed(SUMMARY)
    ),
    "HttpError": lambda: errors.HttpError("http://h/", "refused", status=500, body="x"),
    "HttpStatusError": lambda: errors.HttpStatusError("http://h/", 404, "Not Found", "x" * 5000),
    "RpcError": lambda: errors.RpcError(-32002, "failed", {"logs": ["a"], "err": None}),
    "ModifyAccountsError": lambda: ModifyAccountsError(REPLY, {"code": 1, "message": "no"}),
    "SubscriptionError": lambda: errors.SubscriptionError("lost", kind="logs", target=ADDRESS),
    "ProgramModError": lambda: errors.ProgramModError("no ELF", program_id=ADDRESS),
    "CoverageError": lambda: errors.CoverageError("short", expected=(1, 5), actual=3),
}

COPIERS: dict[str, Callable[[Any], Any]] = {
    **{
        f"pickle {protocol}": lambda e, p=protocol: pickle.loads(pickle.dumps(e, p))
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)
    },
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


def carried(error: BaseException) -> dict[str, Any]:
    return {name: value for name, value in vars(error).items() if not name.startswith("_")}


def test_every_class_is_tried() -> None:
    classes = {
        value
        for value in (*vars(errors).values(), ModifyAccountsError)
        if isinstance(value, type) and issubclass(value, errors.BacktestClientError)
    }
    assert {type(make()) for make in MAKERS.values()} == classes
    public = {name for name in backtest_sync.__all__ if name.endswith("Error")}
    assert public == {cls.__name__ for cls in classes} - {"ModifyAccountsError"}


@pytest.mark.parametrize("how", COPIERS)
@pytest.mark.parametrize("name", MAKERS)
def test_a_copy_says_and_carries_the_same(name: str, how: str) -> None:
    error = MAKERS[name]()
    again = COPIERS[how](error)
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert repr(again) == repr(error)
    assert again.args == error.args
    assert carried(again) == carried(error)


@pytest.mark.parametrize("name", MAKERS)
def test_a_copy_of_a_chained_one_is_whole_without_its_cause(name: str) -> None:
    error = MAKERS[name]()
    with pytest.raises(errors.BacktestClientError) as caught:
        raise error from OSError(111, "Connection refused")
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(error)
    assert again.__cause__ is None


def test_notes_come_along() -> None:
    error = errors.RemoteError(DETAIL)
    if hasattr(error, "add_note"):  # Python 3.11
        error.add_note("while trying")
        assert pickle.loads(pickle.dumps(error)).__notes__ == ["while trying"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ConnectError", "websocket connect to ws://h/ failed: refused"),
        ("RequestTimeoutError", "timeout while receiving after 2.5 s"),
        ("RemoteError", "remote error: block bundle not found for start_slot=1, end_slot=2"),
        ("RemoteError, newer", 'remote error: quotaExceeded: {"limit":[5,{"per":"day"}]}'),
        ("SessionClosedError", "websocket closed: gone. Attach"),
        ("ReconnectFailedError", "websocket closed: gone"),
        (
            "UnexpectedResponseError",
            "unexpected response while continuing: Completed(summary=SessionSummary(",
        ),
        ("HttpError", "HTTP request to http://h/ failed: refused"),
        ("HttpStatusError", f"HTTP 404 Not Found from http://h/: {'x' * 1024}… (5000 characters)"),
        ("DeserializeError", f"failed to deserialize response: no JSON; raw={'{' * 1024}… (5000"),
        ("RpcError", "RPC error -32002: failed"),
        ("SubscriptionError", f"logs subscription for {ADDRESS}: lost"),
        ("ProgramModError", f"cannot replace program {ADDRESS}: no ELF"),
        ("CoverageError", "short"),
    ],
)
def test_texts(name: str, text: str) -> None:
    assert str(MAKERS[name]()).startswith(text)


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("InvalidParamsError", ValueError),
        ("RequestTimeoutError", TimeoutError),
        ("ReconnectFailedError", errors.SessionClosedError),
        ("HttpStatusError", errors.HttpError),
        ("ModifyAccountsError", errors.RpcError),
        ("ModifyAccountsError", errors.HttpError),
    ],
)
def test_what_else_they_are(name: str, base: type[BaseException]) -> None:
    assert isinstance(MAKERS[name](), base)


def test_whether_a_remote_error_is_terminal() -> None:
    assert errors.RemoteError(DETAIL).is_terminal
    assert not errors.RemoteError(NEWER).is_terminal
