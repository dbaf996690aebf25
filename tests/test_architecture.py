"""The layers stay layers: what each file may import, and that nothing happens at import."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import backtest_sync

PACKAGE = Path(backtest_sync.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))

# The one file that may import a third-party package, and translates its errors. The simulator's server
# takes and writes HTTP in two files, and its engine's types are at home in all of local/.
HOMES = {
    "base58": ("protocol/fields.py",),
    "zstandard": ("protocol/blobs.py",),
    "orjson": ("protocol/jsontext.py",),
    "requests": ("http.py",),
    "websocket": ("upgrade.py",),
    "aiohttp": ("local/server.py", "local/wire.py"),
    "solders": ("local/",),
}
# Used everywhere: it makes classes and has no errors of its own to translate.
EVERYWHERE = {"attrs", "attr"}

# Bottom to top: a module may import from its own layer and from those below.
LAYERS = (
    {"errors", "version"},
    {"limits", "origins", "headers"},
    {"protocol", "frames", "urls", "ranges", "results", "arguments"},
    {"inbox", "stream", "upgrade", "writer", "link", "connection"}
    | {"replies", "http", "jsonrpc", "feed"},
    {"channel", "arguments", "handshake", "driver", "rest", "rpc", "rpc_types", "programs"},
    {"subscribe", "subscription", "subscriptions"},
    {"session", "session_endpoint"},
    {"client"},
    {"local"},
    {"offline"},
    {"cli"},
)
PURE = ("protocol/", "frames.py")
IMPURE = {"threading", "socket", "ssl", "time", "selectors", "asyncio", "requests", "websocket"}


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def top_of(path: Path) -> str:
    """`client` for client.py, `protocol` for everything under protocol/."""
    return Path(name_of(path)).parts[0].removesuffix(".py")


def runtime_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but those under `if TYPE_CHECKING:`, which never run."""
    for child in ast.iter_child_nodes(tree):
        if (
            isinstance(child, ast.If)
            and isinstance(child.test, ast.Name)
            and child.test.id == "TYPE_CHECKING"
        ):
            continue
        yield child
        yield from runtime_nodes(child)


def imports(path: Path) -> set[str]:
    """The absolute dotted names that a file imports when it runs, functions' own included."""
    found = set()
    for node in runtime_nodes(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}: imports are absolute here"
            assert node.module is not None
            found.add(node.module)
            if node.module == "backtest_sync":
                found |= {f"backtest_sync.{alias.name}" for alias in node.names}
    return found


def packages(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(path)}


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_third_party_packages_have_one_home_each(path: Path) -> None:
    foreign = packages(path) - set(sys.stdlib_module_names) - EVERYWHERE - {"backtest_sync"}
    for package in foreign:
        assert package in HOMES, f"{package} is not a dependency of this project"
        assert name_of(path).startswith(HOMES[package]), f"{package} belongs to {HOMES[package]}"


@pytest.mark.parametrize("path", [p for p in SOURCES if name_of(p).startswith(PURE)], ids=name_of)
def test_the_wire_layer_does_no_io(path: Path) -> None:
    assert not packages(path) & IMPURE


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if name_of(p).startswith("local/")], ids=name_of
)
def test_the_simulator_knows_the_client_by_its_protocol_alone(path: Path) -> None:
    allowed = ("backtest_sync.protocol", "backtest_sync.errors", "backtest_sync.local")
    of_the_client = {name for name in imports(path) if name.startswith("backtest_sync")}
    assert {name for name in of_the_client if not name.startswith(allowed)} == set()


def test_every_module_has_its_layer() -> None:
    known = {name for layer in LAYERS for name in layer} | {"__init__", "__main__"}
    assert {top_of(path) for path in SOURCES} <= known


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_point_downwards(path: Path) -> None:
    height = {name: i for i, layer in enumerate(LAYERS) for name in layer}
    own = height.get(top_of(path))
    if own is None:  # __init__ and __main__ stand above all
        return
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "backtest_sync" and len(parts) > 1 and parts[1] in height:
            assert height[parts[1]] <= own, f"{name} stands above {name_of(path)}"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_module_level_names_are_constants(path: Path) -> None:
    """A module holds no state: what is assigned at its top is in capitals, private or a dunder."""
    for node in ast.parse(path.read_text()).body:
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign):
            targets = [node.target]
        for target in targets:
            for leaf in ast.walk(target):
                assert not isinstance(leaf, (ast.Attribute, ast.Subscript)), ast.unparse(node)
    globals_ = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Global)]
    assert globals_ == [], f"{name_of(path)} rebinds a module's name"


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = "requests websocket aiohttp solders zstandard asyncio urllib3 ssl argparse"
    loaded = run(
        "import sys, backtest_sync\n"
        f"print(*[name for name in {heavy.split()} if name in sys.modules])"
    )
    assert loaded.strip() == ""


def test_importing_every_module_starts_nothing() -> None:
    names = [
        "backtest_sync."
        + name_of(p).removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        for p in SOURCES
        if p.name != "__main__.py" and name_of(p) != "__init__.py"
    ]
    run(
        "import importlib, threading\n"
        f"for name in {names}: importlib.import_module(name)\n"
        "assert threading.enumerate() == [threading.main_thread()], threading.enumerate()"
    )


@pytest.mark.parametrize("name", sorted(backtest_sync.__all__))
def test_public_names_exist_and_are_documented(name: str) -> None:
    value = getattr(backtest_sync, name)
    if name.startswith("__") or inspect.ismodule(value):
        return
    assert inspect.getdoc(value), f"{name} has no docstring"


def test_all_lists_each_name_once() -> None:
    assert len(set(backtest_sync.__all__)) == len(backtest_sync.__all__)
    assert set(backtest_sync.__all__) <= set(dir(backtest_sync))
