"""What a release holds: the wheel is built from a copy of the tree and looked into."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "backtest_sync"
SKIPPED = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "dist")


def build(place: Path, *, stamp: float) -> Path:
    """The wheel of a copy of the tree whose files were all last touched at ``stamp``."""
    tree = place / "tree"
    shutil.copytree(PACKAGE, tree / "backtest_sync", ignore=SKIPPED)
    for name in ("setup.cfg", "setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, tree)
    for path in tree.rglob("*"):
        os.utime(path, (stamp, stamp))
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", place, tree],
        env=os.environ | {"SOURCE_DATE_EPOCH": "1700000000"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = place.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("wheel"), stamp=1_600_000_000)


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def metadata(wheel: Path, name: str) -> str:
    with zipfile.ZipFile(wheel) as archive:
        (path,) = (path for path in archive.namelist() if path.endswith(f".dist-info/{name}"))
        return archive.read(path).decode()


def test_every_module_is_in_the_wheel(names: set[str]) -> None:
    modules = {path.relative_to(ROOT).as_posix() for path in PACKAGE.rglob("*.py")}
    assert modules <= names


def test_the_package_is_typed(names: set[str]) -> None:
    assert "backtest_sync/py.typed" in names


def test_the_simulators_data_is_in_the_wheel(names: set[str]) -> None:
    data = {
        path.relative_to(ROOT).as_posix()
        for folder in ("data", "programs")
        for path in (PACKAGE / "local" / folder).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert any(name.startswith("backtest_sync/local/data/demo") for name in data)
    assert any(name.endswith(".so") for name in data)
    assert any(name.endswith(".s") for name in data)
    assert data <= names


def test_nothing_else_is_in_the_wheel(names: set[str]) -> None:
    others = {n for n in names if not n.startswith(("backtest_sync/", "backtest_sync-"))}
    assert others == set()
    assert not [n for n in names if "__pycache__" in n or "test" in Path(n).parts]


def test_the_wheel_is_small(wheel: Path) -> None:
    assert wheel.stat().st_size < 2 * 2**20


def test_what_is_needed_at_run_time(wheel: Path) -> None:
    needs = Parser().parsestr(metadata(wheel, "METADATA")).get_all("Requires-Dist") or []
    at_run_time = {re.split(r"[^A-Za-z0-9-]", need)[0] for need in needs if "extra ==" not in need}
    assert at_run_time == {"attrs", "base58", "requests", "websocket-client"}


def test_extras(wheel: Path) -> None:
    extras = Parser().parsestr(metadata(wheel, "METADATA")).get_all("Provides-Extra") or []
    assert set(extras) == {"fast", "zstd", "local", "all", "dev"}


def test_the_command_is_declared(wheel: Path) -> None:
    assert "backtest-sync = backtest_sync.cli:main" in metadata(wheel, "entry_points.txt")


def test_the_same_tree_gives_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    again = build(tmp_path, stamp=1_650_000_000)
    assert again.read_bytes() == wheel.read_bytes()
