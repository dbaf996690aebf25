"""Every example runs offline, ends well and prints what it is known to print."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
EXPECTED = Path(__file__).parent / "examples"
PROGRAMS = sorted(EXAMPLES.glob("[0-9]*.py"))


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_example(program: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (EXPECTED / f"{program.stem}.txt").read_text(encoding="utf-8")


def test_every_expectation_has_its_example() -> None:
    assert {path.stem for path in EXPECTED.glob("*.txt")} == {path.stem for path in PROGRAMS}


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_an_example_fits_on_a_page(program: Path) -> None:
    assert len(program.read_text().splitlines()) <= 60
