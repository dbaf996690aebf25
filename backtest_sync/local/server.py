"""The simulator's server: HTTP and WebSocket on one port."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Any

from aiohttp import web

from backtest_sync.local import rest
from backtest_sync.local.bundle import Bundle
from backtest_sync.local.control import ControlSocket
from backtest_sync.local.faults import Faults
from backtest_sync.local.registry import Registry
from backtest_sync.local.rpc import handle_post
from backtest_sync.local.streams import handle_socket
from backtest_sync.local.wire import MAX_MESSAGE_BYTES, Wire, reset
from backtest_sync.protocol import jsontext, parse_session_id

if TYPE_CHECKING:
    import os

    from backtest_sync.local.faults import Refusal
    from backtest_sync.local.session import SimSession

log = logging.getLogger(__name__)

#: How long an upgrade waits for a session that is starting, seconds.
PARKED = 120.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """One simulator: a bundle, its sessions, and the port they are served on."""

    def __init__(
        self,
        bundle: str | os.PathLike[str],
        *,
        host: str,
        port: int,
        api_key: str | None,
        max_sessions: int,
        allowed_origins: Collection[str],
        chaos_seed: int | None,
    ) -> None:
        """Opens the bundle (BundleError), in the thread that will serve it."""
        self.bundle = Bundle.open(bundle)
        self.registry = Registry(self.bundle, max_sessions)
        self.faults = Faults()
        self.port = port
        self._host = host
        self._api_key = api_key
        self._allowed_origins = frozenset(allowed_origins)
        self._chaos_seed = chaos_seed
        self._runner: web.AppRunner | None = None
        self._sockets: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Listens; ``port`` is the real one from then on. OSError where it can't."""
        app = web.Application(client_max_size=MAX_MESSAGE_BYTES, middlewares=[self._guard])
        app.router.add_get("/backtest", self._control)
        app.router.add_get("/backtest/{session_id}", self._subscriptions)
        app.router.add_post("/backtest/{session_id}", self._rpc)
        app.router.add_get("/available-ranges", self._rest(self._available_ranges))
        app.router.add_get("/usage", self._rest(self._usage))
        app.router.add_get("/usage/sessions", self._rest(self._usage_sessions))
        app.router.add_get("/snapshot-slot", self._rest(self._snapshot_slot))
        for path in rest.NOT_HERE:
            app.router.add_route("*", path, self._not_here)
            app.router.add_route("*", path + "/{rest:.*}", self._not_here)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        try:
            site = web.TCPSite(self._runner, self._host, self.port)
            await site.start()
        except OSError:
            await self._runner.cleanup()
            raise
        self.port = self._runner.addresses[0][1]
        if self._chaos_seed is not None:
            self.faults.unleash(self._chaos_seed)

    async def stop(self) -> None:
        """Ends every session and connection, and the listening."""
        self.faults.clear()
        self.registry.close()
        await asyncio.gather(
            *(wire.close(1001, "the simulator ends") for wire in self.faults.open_wires("any"))
        )
        if self._runner is not None:
            await self._runner.cleanup()
        self.bundle.close()

    # --- who may ask -----------------------------------------------------------------------------
    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        origin = request.headers.get("Origin")
        if origin is not None and origin not in self._allowed_origins:
            return _text(403, f"origin {origin} is not allowed: name it in allowed_origins")
        try:
            return await handler(request)
        except (web.HTTPException, ConnectionError):
            raise
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            return _text(500, "internal error; the simulator's log says more")

    def _has_key(self, request: web.Request) -> bool:
        if self._api_key is None:
            return True
        given = request.headers.get("X-API-Key", "").encode("utf-8", "surrogateescape")
        return hmac.compare_digest(given, self._api_key.encode("utf-8", "surrogateescape"))

    # --- WebSockets ------------------------------------------------------------------------------
    async def _control(self, request: web.Request) -> web.StreamResponse:
        if not self._has_key(request):
            return _text(401, "X-API-Key is missing or wrong")
        return await self._serve(request, "control", self._serve_control)

    async def _serve_control(self, wire: Wire) -> None:
        await ControlSocket(wire, self.registry, self.faults).serve()

    async def _subscriptions(self, request: web.Request) -> web.StreamResponse:
        session = self._find(request)
        if session is None:
            return _no_session(request)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(session.routable.wait(), PARKED)
        if not session.is_routable:
            return _text(503, f"{session.id} is not ready")

        async def serve(wire: Wire) -> None:
            await handle_socket(session, wire)

        return await self._serve(request, "subscriptions", serve)

    async def _serve(
        self, request: web.Request, channel: str, serve: Callable[[Wire], Awaitable[None]]
    ) -> web.StreamResponse:
        if request.headers.get("Upgrade", "").lower() != "websocket":
            return _text(426, "this is a WebSocket endpoint")
        refusal = self.faults.next_refusal()
        if refusal is not None:
            return _refuse(request, refusal)
        wire = await Wire.accept(request, channel, self.faults)
        try:
            await serve(wire)
        finally:
            await wire.finish()
        return wire.response

    # --- HTTP ------------------------------------------------------------------------------------
    def _find(self, request: web.Request) -> SimSession | None:
        try:
            return self.registry.find(parse_session_id(request.match_info["session_id"]))
        except ValueError:
            return None

    async def _rpc(self, request: web.Request) -> web.StreamResponse:
        session = self._find(request)
        if session is None:
            return _no_session(request)
        body = await request.read()
        if not session.is_routable:
            return _text(503, f"{session.id} is not ready: wait for readyForContinue")
        status, answer = await handle_post(session, body)
        return web.Response(status=status, body=answer, content_type="application/json")

    def _rest(self, answer: Callable[[web.Request], Any]) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            # Ranges are there for everybody; a key, where one is given, must be right.
            open_to_all = request.path == "/available-ranges"
            if not self._has_key(request) and (not open_to_all or "X-API-Key" in request.headers):
                return _text(401, "X-API-Key is missing or wrong")
            try:
                value = answer(request)
            except rest.BadQueryError as error:
                return _text(400, str(error))
            return web.Response(text=jsontext.dumps(value), content_type="application/json")

        return handle

    def _available_ranges(self, request: web.Request) -> Any:
        return rest.available_ranges(self.bundle, request.query)

    def _usage(self, request: web.Request) -> Any:
        return rest.usage(self.registry, request.query)

    def _usage_sessions(self, request: web.Request) -> Any:
        return rest.usage_sessions(self.registry, request.query)

    def _snapshot_slot(self, _request: web.Request) -> Any:
        return rest.snapshot_slot(self.bundle)

    async def _not_here(self, request: web.Request) -> web.StreamResponse:
        if not self._has_key(request):
            return _text(401, "X-API-Key is missing or wrong")
        return _text(501, rest.not_here(request.path))


def _refuse(request: web.Request, how: Refusal) -> web.Response:
    transport = request.transport
    if transport is not None and how == "cut":
        transport.write(b"HTTP/1.1 101 Switching Proto")
        transport.close()
    elif transport is not None and how == "reset":
        reset(transport)
    # Where the connection is over already, this goes nowhere.
    return _text(503, "refused on demand")


def _no_session(request: web.Request) -> web.Response:
    return _text(404, f"session not found: {request.match_info['session_id']}")


def _text(status: int, sentence: str) -> web.Response:
    return web.Response(status=status, text=sentence + "\n")
