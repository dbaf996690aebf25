"""``backtest-sync serve``: a simulator for other programs, until it is interrupted."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from backtest_sync import BacktestClient, cli
from backtest_sync.errors import ConnectError, RemoteError


@contextlib.contextmanager
def serving(*args: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running ``serve`` and its URL."""
    command = [sys.executable, "-m", "backtest_sync", "serve", "--port", "0", *args]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    ) as process:
        assert process.stdout is not None
        try:
            (url,) = re.findall(r"^> (ws://127\.0\.0\.1:\d+/backtest) ", process.stdout.readline())
            yield process, url
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_interrupted(number: signal.Signals) -> None:
    with serving() as (process, url):
        with BacktestClient(url, request_timeout=20) as client:
            assert len(client.available_ranges()) > 1
            with client.create_session(start_slot=400_000_000, slot_count=20) as session:
                session.ensure_ready()
                assert session.advance(2).slot_notifications == 2
        process.send_signal(number)
        assert process.wait(20) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_a_key_is_asked_for_when_one_is_set() -> None:
    with serving("--api-key", "secret") as (_, url):
        with BacktestClient(url, "secret") as client:
            client.create_session(start_slot=400_000_000, slot_count=3, timeout=20).close()
        with (
            BacktestClient(url, "wrong") as client,
            pytest.raises(ConnectError, match="401") as refused,
        ):
            client.create_session(start_slot=400_000_000, slot_count=3, timeout=20)
        assert refused.value.status == 401


def test_sessions_are_as_many_as_it_is_told() -> None:
    create: dict[str, Any] = {"start_slot": 400_000_000, "slot_count": 3, "timeout": 20}
    with serving("--max-sessions", "1") as (_, url), BacktestClient(url) as client:
        with (
            client.create_session(**create),
            pytest.raises(RemoteError, match="1 of at most 1 are open"),
        ):
            client.create_session(**create)


def test_a_port_in_use_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.main(["serve", "--port", str(port)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"✖ can't listen on 127.0.0.1:{port}: ")


def test_a_missing_bundle_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", "--port", "0", "--bundle", "nowhere.jsonl"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "✖ nowhere.jsonl: No such file or directory"
