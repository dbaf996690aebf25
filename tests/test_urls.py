"""URLs and how one follows from another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from backtest_sync import urls
from backtest_sync.errors import InvalidParamsError
from tests.protocol.vectors import Case, by_function


def _given(case: Case) -> Any:
    return case["inputs"] if "inputs" in case else [case["input"]]


def _check(function: Callable[..., Any]) -> Callable[[Case], None]:
    def check(case: Case) -> None:
        if not case.get("ok", True):
            with pytest.raises(InvalidParamsError) as refused:
                function(*_given(case))
            assert str(refused.value) == case["error"]
            return
        assert function(*_given(case)) == case["output"]

    return check


def _backtest_ws_url(case: Case) -> None:
    _check(urls.backtest_ws_url)(case)
    assert urls.backtest_ws_url(case["output"]) == case["applied_twice"]


def _prefixed_path(case: Case) -> None:
    _check(urls.prefixed_path)(case)
    assert _split(case["output"]) == case["split_back"]


def _split(path: str) -> list[str] | None:
    parts = urls.split_prefixed_path(path)
    return None if parts is None else list(parts)


def _header(case: Case) -> None:
    assert case["output"] == urls.SESSION_ID_HEADER


@by_function(
    "urls",
    {
        "backtest_ws_url": _backtest_ws_url,
        "http_base_from_ws_url": _check(urls.http_base_from_ws_url),
        "http_base_from_ws_url(backtest_ws_url)": _check(
            lambda url: urls.http_base_from_ws_url(urls.backtest_ws_url(url))
        ),
        "http_to_ws_url": _check(urls.http_to_ws_url),
        "resolve_rpc_url": _check(urls.resolve_rpc_url),
        "prefixed_path": _prefixed_path,
        "split_prefixed_path": _check(_split),
        "SESSION_ID_HEADER": _header,
    },
)
def test_case(check: Callable[[Case], None], case: Case) -> None:
    check(case)


@pytest.mark.parametrize(
    ("environment", "control"),
    [
        ("simulator.termina.technology", "wss://simulator.termina.technology/backtest"),
        ("ws://localhost:8900", "ws://localhost:8900/backtest"),
    ],
)
def test_known_environments(environment: str, control: str) -> None:
    assert urls.backtest_ws_url(environment) == control
