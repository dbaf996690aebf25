"""One WebSocket of the server: messages batched into few writes, with faults on demand.

Both kinds of connection go through here, the control socket and a session's subscriptions.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import deque
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from aiohttp import WSCloseCode, WSMsgType, web

if TYPE_CHECKING:
    from backtest_sync.local.faults import Faults

#: The largest message taken from a client, bytes (protocol/programs.md §4).
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
#: Who produces messages waits while more than this is queued for a client, bytes.
HIGH_WATER = 1024 * 1024
#: Messages read ahead of their turn; from a client that sends more, nothing is read until it comes.
MAX_EARLY = 8
#: Ping after this long without a sign of the client, and give it up after the second, seconds.
PROBE_AFTER = 30.0
SILENCE_LIMIT = 90.0

_NO_LINGER = struct.pack("ii", 1, 0)


def frame(payload: bytes, opcode: int) -> bytes:
    """A whole message as one unmasked WebSocket frame."""
    size = len(payload)
    if size < 126:
        return bytes((0x80 | opcode, size)) + payload
    if size < 65536:
        return struct.pack("!BBH", 0x80 | opcode, 126, size) + payload
    return struct.pack("!BBQ", 0x80 | opcode, 127, size) + payload


def reset(transport: asyncio.Transport) -> None:
    """Ends a TCP connection with RST rather than FIN."""
    raw = transport.get_extra_info("socket")
    if raw is not None:
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    transport.abort()


class Wire:
    """One accepted WebSocket. ``receive`` the client's messages; ``send`` queues and returns."""

    def __init__(
        self, channel: str, transport: asyncio.Transport, ws: web.WebSocketResponse, faults: Faults
    ) -> None:
        self.channel = channel
        #: The close code that the server chose for it, if it did.
        self.closed_with: int | None = None
        #: Whether the client ended the connection with a close frame of its own.
        self.left = False
        #: Called with the payload of each pong.
        self.on_pong: Callable[[bytes], None] | None = None
        self._transport = transport
        self._ws = ws
        self._faults = faults
        self._queue: list[tuple[bytes, WSMsgType]] = []
        self._queued = 0
        self._early: deque[str] = deque()
        self._wake = asyncio.Event()
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._relaxed = asyncio.Event()
        self._relaxed.set()
        self._sign = asyncio.Event()
        self._over = False
        self._is_between = False  # whether the writer has messages that it took and did not send
        self._writer = asyncio.create_task(self._write())
        self._watcher = asyncio.create_task(self._watch())

    @classmethod
    async def accept(cls, request: web.Request, channel: str, faults: Faults) -> Wire:
        """Answers the upgrade. ``channel``: ``control`` or ``subscriptions``, for the faults."""
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client is gone")
        ws = web.WebSocketResponse(
            autoping=False,
            compress=False,
            max_msg_size=MAX_MESSAGE_BYTES,
            timeout=1.0,
            writer_limit=0,
        )
        await ws.prepare(request)
        wire = cls(channel, transport, ws, faults)
        faults.opened(wire)
        return wire

    # --- receiving -------------------------------------------------------------------------------
    async def receive(self) -> str | None:
        """The client's next message; ``None`` once the connection is over, in whatever way."""
        return self._early.popleft() if self._early else await self._receive()

    async def answer_pings_during(self, work: Coroutine[Any, Any, None]) -> None:
        """Awaits what may take long: the client's messages wait, its pings do not."""
        reader = asyncio.create_task(self._read_ahead())
        try:
            await work
        finally:
            reader.cancel()
            await asyncio.wait([reader])

    async def _read_ahead(self) -> None:
        while len(self._early) < MAX_EARLY:
            text = await self._receive()
            if text is None:
                return
            self._early.append(text)

    async def _receive(self) -> str | None:
        while True:
            message = await self._ws.receive()
            self._sign.set()
            if message.type is WSMsgType.TEXT:
                return str(message.data)
            if message.type is WSMsgType.BINARY:
                with contextlib.suppress(UnicodeDecodeError):  # other binary is dropped: §3
                    return str(message.data, "utf-8")
            elif message.type is WSMsgType.PING:
                self._put(message.data, WSMsgType.PONG)
            elif message.type is WSMsgType.PONG:
                if self.on_pong is not None:
                    self.on_pong(bytes(message.data))
            else:
                self.left = message.type is WSMsgType.CLOSE
                self._end()
                return None

    # --- sending ---------------------------------------------------------------------------------
    def send(self, message: str | bytes) -> None:
        """Queues a message: a text one for ``str``, a binary one for ``bytes``. Never blocks."""
        if isinstance(message, str):
            self._put(message.encode(), WSMsgType.TEXT)
        else:
            self._put(message, WSMsgType.BINARY)

    def ping(self, payload: bytes) -> None:
        """Queues a ping; its pong comes to ``on_pong`` once the client has read what was before."""
        self._put(payload, WSMsgType.PING)

    @property
    def response(self) -> web.WebSocketResponse:
        """What the handler of the upgrade returns."""
        return self._ws

    @property
    def is_over(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._over

    @property
    def is_gone(self) -> bool:
        """Whether the client has been seen to leave, even if nobody receives at the moment."""
        return self._over or self._transport.is_closing()

    async def drained(self) -> None:
        """Waits while much is queued for a client that does not read; returns once it is over."""
        await self._relaxed.wait()

    def _put(self, payload: bytes, opcode: WSMsgType) -> None:
        if self._over:
            return
        self._queue.append((payload, opcode))
        self._queued += len(payload)
        if self._queued > HIGH_WATER:
            self._relaxed.clear()
        self._wake.set()

    async def _write(self) -> None:
        try:
            while True:
                await self._wake.wait()
                await self._thawed.wait()
                self._wake.clear()
                queue, self._queue, self._queued = self._queue, [], 0
                if self._faults.armed:
                    await self._write_with_faults(queue)
                elif queue:
                    (last, opcode) = queue.pop()
                    self.write_raw(b"".join([frame(*item) for item in queue]))
                    await self._ws.send_frame(last, opcode)  # waits while the client takes nothing
                if self._queued <= HIGH_WATER:
                    self._relaxed.set()
        except ConnectionError:
            self._end()

    async def _write_with_faults(self, queue: list[tuple[bytes, WSMsgType]]) -> None:
        self._is_between = True
        for payload, opcode in queue:
            if opcode in (WSMsgType.TEXT, WSMsgType.BINARY):
                await self._faults.passing(self, frame(payload, opcode))
                await self._thawed.wait()
            if self._over:
                return
            await self._ws.send_frame(payload, opcode)
        self._is_between = False

    def write_raw(self, data: bytes) -> None:
        """Writes bytes past the queue, as they are."""
        if self._transport.is_closing():
            raise ConnectionResetError("the client is gone")
        if data:
            self._transport.write(data)

    # --- ending ----------------------------------------------------------------------------------
    def reset(self) -> None:
        """Drops the connection with a TCP reset."""
        self._end()
        reset(self._transport)

    def end(self) -> None:
        """Ends the TCP connection without a close frame, after what was written."""
        self._end()
        self._transport.close()

    async def close(self, code: int, reason: str) -> None:
        """Sends what is queued and a close frame; waits a second for the client's answer."""
        if self._over:
            return
        self.closed_with = code
        queue, self._queue = self._queue, []
        if self._is_between:  # what was queued later must not overtake what is left unsent
            queue = []
        self._end()
        with contextlib.suppress(ConnectionError):
            self.write_raw(b"".join([frame(*item) for item in queue]))
            await self._ws.close(code=code, message=reason.encode())

    async def finish(self) -> None:
        """Ends what is left of the connection and its tasks; for whoever accepted it."""
        await self.close(WSCloseCode.GOING_AWAY, "")
        self._faults.closed(self)
        tasks = [self._writer, self._watcher]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    def freeze(self) -> None:
        """Neither reads nor writes until ``thaw``: a peer that hangs."""
        self._thawed.clear()
        with contextlib.suppress(RuntimeError):
            self._transport.pause_reading()

    def thaw(self) -> None:
        """Goes on after ``freeze``."""
        self._thawed.set()
        with contextlib.suppress(RuntimeError):
            self._transport.resume_reading()

    def _end(self) -> None:
        self._over = True
        self._relaxed.set()
        self._thawed.set()

    # --- is the client still there? --------------------------------------------------------------
    async def is_alive(self, timeout: float) -> bool:
        """Whether the client gives a sign within ``timeout`` seconds of a ping."""
        self._sign.clear()
        self.ping(b"")
        try:
            await asyncio.wait_for(self._sign.wait(), timeout)
        except asyncio.TimeoutError:
            return False
        return not self._over

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(PROBE_AFTER)
            if not await self.is_alive(SILENCE_LIMIT - PROBE_AFTER):
                self.reset()
                return
