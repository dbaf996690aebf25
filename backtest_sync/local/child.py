"""A simulator in a process of its own, which ends when this one does, however that comes.

The parent holds the child's standard input open: its end is the order to stop. On it go the
configuration and the fault controls, a line of JSON each; every line is answered by one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import asdict

from backtest_sync.errors import BacktestClientError
from backtest_sync.local.launcher import Config, SimulatorError, start_server

#: How long a child may take to end by itself, seconds.
_GRACE = 5.0
#: How often a child looks whether its parent is still there, seconds.
_PARENT_CHECK = 1.0

#: What the child runs: this package, wherever it was imported from, and not what happens to lie in
#: the working directory.
_START = """
import sys
sys.path[:1] = [] if sys.path[0] == "" else sys.path[:1]
sys.path.append(sys.argv[1])
from backtest_sync.local.child import main
main()
"""


class Child:
    """The parent's side."""

    def __init__(self, config: Config) -> None:
        self.port = 0
        self._config = config
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the child and waits until it listens; SimulatorError with its reason if not."""
        self._process = subprocess.Popen(  # noqa: S603 - our own module, by this interpreter
            [sys.executable, "-c", _START, str(Path(__file__).parents[2])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            self.port = int(self._ask(asdict(self._config)))
        except BaseException:
            self.close()
            raise

    def fault(self, name: str, arguments: dict[str, Any]) -> Any:
        """Calls one of the fault controls in the child."""
        return self._ask({"fault": name, "arguments": arguments})

    def _ask(self, question: dict[str, Any]) -> Any:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise SimulatorError("the simulator is not running")
        with self._lock:
            try:
                process.stdin.write(json.dumps(question).encode() + b"\n")
                process.stdin.flush()
                line = process.stdout.readline()
            except (OSError, ValueError) as error:
                raise SimulatorError(f"the simulator's process is gone: {error}") from error
        if not line:
            raise SimulatorError(f"the simulator's process ended (exit code {process.wait()})")
        answer = json.loads(line)
        if "error" in answer:
            raise SimulatorError(answer["error"])
        return answer["value"]

    def close(self) -> None:
        """Ends the child."""
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            return
        try:
            process.stdin.close()
            process.wait(_GRACE)
        except (OSError, subprocess.TimeoutExpired):
            process.kill()
            process.wait()
        finally:
            process.stdout.close()


# --- the child's side ------------------------------------------------------------------------------
async def _run(config: Config, lines: asyncio.Queue[bytes]) -> None:
    server = await start_server(config)
    _answer({"value": server.port})
    from backtest_sync.local.controls import apply_fault

    try:
        while line := await lines.get():
            question = json.loads(line)
            try:
                value = await apply_fault(server, question["fault"], question["arguments"])
                _answer({"value": value})
            except BacktestClientError as error:
                _answer({"error": str(error)})
    finally:
        await server.stop()


async def _main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    lines: asyncio.Queue[bytes] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def put(line: bytes) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            loop.call_soon_threadsafe(lines.put_nowait, line)

    threading.Thread(target=_read, args=(put,), daemon=True).start()
    watch = asyncio.create_task(_watch_parent(os.getppid(), put))
    try:
        if line := await lines.get():
            config = json.loads(line)
            config["allowed_origins"] = tuple(config["allowed_origins"])
            await _run(Config(**config), lines)
    except BacktestClientError as error:
        _answer({"error": str(error)})
    finally:
        watch.cancel()


def _read(put: Callable[[bytes], None]) -> None:
    # Not through sys.stdin: a thread that waits in it would stop the interpreter from ending.
    rest = b""
    while data := os.read(0, 65536):
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            put(line)
    put(b"")


async def _watch_parent(parent: int, put: Callable[[bytes], None]) -> None:
    # The pipe's end alone would not do: another child of the parent may have inherited it.
    while os.getppid() == parent:
        await asyncio.sleep(_PARENT_CHECK)
    put(b"")


def _answer(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Runs a simulator until standard input ends or the parent is gone."""
    asyncio.run(_main())
