"""The command line as a whole: exit codes, one-line failures, help."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

from backtest_sync import cli
from backtest_sync.errors import InvalidParamsError
from backtest_sync.version import __version__


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def run(args: argparse.Namespace) -> int:
        raise error

    monkeypatch.setattr(cli.demo, "run", run)


def test_a_failure_is_one_line_and_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = InvalidParamsError("no such\nslot")
    error.__cause__ = ValueError("7 is negative")
    fail_with(monkeypatch, error)
    assert cli.main(["demo"]) == 1
    out, err = capsys.readouterr()
    assert (out, err) == ("", "✖ no such slot: 7 is negative\n")


def test_what_a_cause_repeats_is_said_once() -> None:
    error = InvalidParamsError("cannot read f: no such file")
    error.__cause__ = OSError("no such file")
    assert cli.describe(error) == "cannot read f: no such file"


def test_an_error_without_text_says_its_class() -> None:
    assert cli.describe(TimeoutError()) == "TimeoutError"


def test_ctrl_c_is_exit_code_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(monkeypatch, KeyboardInterrupt())
    assert cli.main(["demo"]) == 130
    assert capsys.readouterr() == ("", "")


def test_a_defect_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        cli.main(["demo"])


@pytest.mark.parametrize(
    "argv", [[], ["nonsense"], ["demo", "--nonsense"], ["serve", "--port", "x"]]
)
def test_wrong_arguments_are_exit_code_2(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(argv)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("usage: backtest-sync")


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    assert f"usage: backtest-sync {command}" in capsys.readouterr().out


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    out = capsys.readouterr().out
    assert all(command in out for command in cli.COMMANDS)


def python(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *args],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=60,
    )


def test_python_m_is_the_same_command() -> None:
    done = python("-m", "backtest_sync", "--version")
    assert (done.returncode, done.stdout) == (0, f"backtest-sync {__version__}\n")


@pytest.mark.parametrize(
    "argv",
    [
        ["demo"],
        ["serve", "--port", "0"],
        ["record", "--rpc", "http://x", "--start-slot", "1", "--end-slot", "2", "-o", "x.jsonl"],
    ],
)
def test_a_missing_extra_is_one_line_with_the_remedy(argv: list[str], tmp_path: Path) -> None:
    for name in ("aiohttp", "solders"):
        gone = f"raise ModuleNotFoundError('No module named {name}', name={name!r})\n"
        (tmp_path / f"{name}.py").write_text(gone)
    done = python("-m", "backtest_sync", *argv, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("✖ ")
    assert line.endswith(": pip install 'backtest-sync[local]'")


def test_a_terminal_without_utf_8_gets_no_traceback(tmp_path: Path) -> None:
    missing = str(tmp_path / "no-such-bundle.jsonl")
    done = python("-m", "backtest_sync", "serve", "--bundle", missing, PYTHONIOENCODING="ascii")
    assert done.returncode == 1
    assert done.stderr.startswith("? ")
    assert len(done.stderr.splitlines()) == 1


def test_a_reader_that_leaves_is_no_failure() -> None:
    """As in ``backtest-sync demo | head -1``: no traceback, not from the interpreter's exit either."""
    code = (
        "import sys; from backtest_sync import cli\n"
        "def run(args):\n"
        "    while True: print('line')\n"
        "cli.demo.run = run\n"
        "sys.exit(cli.main(['demo']))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 1
