"""`LocalSimulator`: a simulator in a thread of this process, or in a process of its own.

`serve` runs one in the foreground, for the command line.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import signal
import threading
import weakref
from collections.abc import Callable, Collection
from types import TracebackType
from typing import TYPE_CHECKING, Any

from attrs import asdict, frozen

from backtest_sync.errors import BacktestClientError, InvalidParamsError
from backtest_sync.local.controls import FaultControls

if TYPE_CHECKING:
    from backtest_sync.local.server import Server

#: Sessions that may be open at a time, unless said otherwise.
MAX_SESSIONS = 64
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class SimulatorError(BacktestClientError):
    """The simulator can't be started, or it ended by itself. The message says what to do."""


@frozen
class Config:
    """What a simulator is started with."""

    bundle: str
    host: str = "127.0.0.1"
    port: int = 0
    api_key: str | None = None
    max_sessions: int = MAX_SESSIONS
    allowed_origins: tuple[str, ...] = ()
    chaos_seed: int | None = None

    def check(self) -> None:
        """InvalidParamsError where a value can't be meant."""
        if not 0 <= self.port <= 65535:
            raise InvalidParamsError(f"port: {self.port} is not 0 to 65535")
        if self.max_sessions < 1:
            raise InvalidParamsError(f"max_sessions: {self.max_sessions} is not at least 1")


async def start_server(config: Config) -> Server:
    """A listening server; SimulatorError or BundleError with what to do otherwise."""
    config.check()
    try:
        from backtest_sync.local.server import Server
    except ModuleNotFoundError as error:
        raise SimulatorError(
            f"the local simulator needs {error.name}: pip install 'backtest-sync[local]'"
        ) from None
    server = Server(**asdict(config))
    try:
        await server.start()
    except OSError as error:
        server.bundle.close()
        reason = error.strerror or str(error)
        raise SimulatorError(
            f"can't listen on {config.host}:{config.port}: {reason}; "
            "choose another port, or 0 for a free one"
        ) from error
    return server


def url_of(host: str, port: int) -> str:
    """The control URL of a simulator (an address to listen on everywhere is reached locally)."""
    if host in ("0.0.0.0", "::", ""):  # noqa: S104 - compared, not bound
        host = "127.0.0.1"
    return f"ws://{f'[{host}]' if ':' in host else host}:{port}/backtest"


class _Thread:
    """A server on an event loop of its own, in a thread of its own."""

    def __init__(self, config: Config) -> None:
        self.port = 0
        self._config = config
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._server: Server | None = None
        self._started: concurrent.futures.Future[int] = concurrent.futures.Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._main()), name="backtest-sync simulator", daemon=True
        )

    def start(self) -> None:
        self._thread.start()
        try:
            self.port = self._started.result()
        except BaseException:
            self._thread.join()
            raise

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            self._server = await start_server(self._config)
        except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
            self._started.set_exception(error)
            return
        self._started.set_result(self._server.port)
        await self._stop.wait()
        server, self._server = self._server, None
        await server.stop()

    def fault(self, name: str, arguments: dict[str, Any]) -> Any:
        """Calls one of the fault controls on the server's loop."""
        server, loop = self._server, self._loop
        if server is None or loop is None:
            raise SimulatorError("the simulator is not running")
        from backtest_sync.local.controls import apply_fault

        coroutine = apply_fault(server, name, arguments)
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

    def close(self) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed already
                self._loop.call_soon_threadsafe(self._stop.set)
        if self._thread is not threading.current_thread():
            self._thread.join()


class _Running:
    """What a simulator runs on, if it does. Not the simulator itself: what is kept of it, such as
    its fault controls, must not keep it alive."""

    def __init__(self) -> None:
        self.runner: Any = None

    def get(self) -> Any:
        if self.runner is None:
            raise SimulatorError("the simulator is not running: use it in a with block, or start()")
        return self.runner

    def fault(self, name: str, arguments: dict[str, Any]) -> Any:
        return self.get().fault(name, arguments)


class LocalSimulator:
    """A simulator on this machine: ``with LocalSimulator() as simulator: … simulator.url``.

    ``bundle``: ``"demo"`` or a bundle file's path. ``port`` 0 takes a free one. ``api_key``: what
    clients must send; ``None`` takes any. ``process``: run in a process of its own, which ends with
    this one, rather than in a thread. ``max_sessions`` bounds the sessions that are open at a time,
    ``allowed_origins`` names the web pages that may connect. ``chaos_seed`` starts a schedule of
    faults. Thread-safe; not to be pickled or used after a fork.
    """

    def __init__(
        self,
        bundle: str | os.PathLike[str] = "demo",
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        api_key: str | None = None,
        process: bool = False,
        max_sessions: int = MAX_SESSIONS,
        allowed_origins: Collection[str] = (),
        chaos_seed: int | None = None,
    ) -> None:
        self._config = Config(
            os.fspath(bundle),
            host,
            port,
            api_key,
            max_sessions,
            tuple(allowed_origins),
            chaos_seed,
        )
        self._config.check()
        self._process = process
        self._running = _Running()
        self._finalizer: weakref.finalize[Any, Any] | None = None
        self._lock = threading.Lock()
        #: What can be made to go wrong, by call.
        self.faults = FaultControls(self._running.fault)

    def start(self) -> LocalSimulator:
        """Starts it and returns once it listens; SimulatorError or BundleError where it can't."""
        with self._lock:
            if self._running.runner is not None:
                return self
            if self._process:
                from backtest_sync.local.child import Child

                runner: Any = Child(self._config)
            else:
                runner = _Thread(self._config)
            runner.start()
            self._running.runner = runner
            self._finalizer = weakref.finalize(self, runner.close)
        return self

    @property
    def url(self) -> str:
        """The control URL: what a `BacktestClient` is given."""
        return url_of(self._config.host, self._running.get().port)

    @property
    def http_url(self) -> str:
        """The base of the REST endpoints."""
        return self.url.replace("ws://", "http://").removesuffix("/backtest")

    def close(self) -> None:
        """Ends every session and the server. Idempotent."""
        with self._lock:
            self._running.runner = None
            if self._finalizer is not None:
                self._finalizer()

    def __enter__(self) -> LocalSimulator:
        return self.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        where = "not running" if self._running.runner is None else self.url
        return f"LocalSimulator({self._config.bundle!r}, {where})"

    def __reduce__(self) -> Any:
        raise TypeError("a LocalSimulator can't be pickled: pass its url on instead")


def serve(
    bundle: str | os.PathLike[str] = "demo",
    *,
    host: str = "127.0.0.1",
    port: int = 8900,
    api_key: str | None = None,
    max_sessions: int = MAX_SESSIONS,
    allowed_origins: Collection[str] = (),
    chaos_seed: int | None = None,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Runs a simulator in the foreground until SIGINT or SIGTERM; ``on_ready`` gets its URL."""
    config = Config(
        os.fspath(bundle), host, port, api_key, max_sessions, tuple(allowed_origins), chaos_seed
    )
    with contextlib.suppress(KeyboardInterrupt):  # where signals can't be taken by the loop
        asyncio.run(_serve(config, on_ready))


async def _serve(config: Config, on_ready: Callable[[str], None] | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError, RuntimeError):
            loop.add_signal_handler(number, stop.set)
    server = await start_server(config)
    try:
        if on_ready is not None:
            on_ready(url_of(config.host, server.port))
        await stop.wait()
    finally:
        await server.stop()
