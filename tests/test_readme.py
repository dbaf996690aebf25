"""Code blocks of the README and the docs run, and print what the page says.

The Python blocks of a page run one after another in one namespace, as a reader would type them. A
``text`` block right after one is its output; after a ``sh`` block, the output of its last command.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import itertools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backtest_sync import errors
from backtest_sync.protocol import jsontext

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[tuple[int, str, str]]:
    """Line, language and text of each fenced block."""
    text = page.read_text(encoding="utf-8")
    return [
        (text.count("\n", 0, match.start()) + 2, match[1], match[2])
        for match in BLOCK.finditer(text)
    ]


def outputs(page: Path) -> Iterator[tuple[int, str, str, str | None]]:
    """Each block that is no output, with the output that follows it."""
    for (line, language, text), (_, next_language, next_text) in itertools.pairwise(
        [*blocks(page), (0, "", "")]
    ):
        if language != "text":
            yield line, language, text, next_text if next_language == "text" else None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with contextlib.ExitStack() as stack:
        namespace: dict[str, object] = {"__name__": "page"}
        for line, language, text, expected in outputs(page):
            if language != "python":
                continue
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile("\n" * (line - 1) + text, str(page), "exec"), namespace)
            if expected is not None:
                assert printed.getvalue() == expected, f"{page.name}:{line}"
            client = namespace.get("client")
            if hasattr(client, "close"):
                stack.callback(client.close)


def same_but_for_time(text: str) -> str:
    """``text`` without durations, the one thing that differs from run to run."""
    return re.sub(r"\d+(\.\d+)? s\b", "N s", text)


def test_demo_prints_what_the_readme_shows() -> None:
    (expected,) = (
        text
        for _, language, command, text in outputs(ROOT / "README.md")
        if language == "sh" and command == "make demo\n" and text is not None
    )
    done = subprocess.run(
        [sys.executable, "-m", "backtest_sync", "demo"],
        env=os.environ | {"PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert same_but_for_time(done.stdout) == same_but_for_time(expected)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist(page: Path) -> None:
    """A shell block names only targets of the Makefile, commands of the package and files of the tree."""
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line, language, text, _ in outputs(page):
        if language != "sh":
            continue
        for command in text.splitlines():
            words = shlex.split(command, comments=True)
            where = f"{page.name}:{line}: {command}"
            if words[:1] == ["make"]:
                assert {word for word in words[1:] if "=" not in word} <= targets, where
            elif words[:1] == ["backtest-sync"]:
                done = subprocess.run(
                    [sys.executable, "-m", "backtest_sync", words[1], "--help"],
                    capture_output=True,
                    text=True,
                    check=False,
                    timeout=60,
                )
                assert done.returncode == 0, where
                assert {w for w in words if w.startswith("--")} <= set(
                    re.findall(r"--[\w-]+", done.stdout)
                ), where
            elif words[:1] == ["python"]:
                assert (ROOT / words[1]).exists(), where
            else:
                assert words[:2] == ["pip", "install"], where


def test_sizes_are_what_the_page_says() -> None:
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    rows = re.findall(r"`(backtest_sync\.[\w.]+)\.(MAX_\w+)` \| (\d+) \|", page)
    assert len(rows) == 6
    for module, name, size in rows:
        assert getattr(importlib.import_module(module), name) == int(size) * 2**20, name
    assert f"nested {jsontext.MAX_DEPTH} deep" in page
    assert f"at most {errors.MAX_RAW_IN_MESSAGE:,} characters" in page


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"
