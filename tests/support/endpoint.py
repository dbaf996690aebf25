"""A session of the local simulator and its endpoint, without a server or sockets.

::

    async def scenario(desk: Desk) -> None:
        await desk.advance()
        answer = await desk.call("getSlot")
        link = desk.link()
        ...

    play(bundle, scenario)
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from backtest_sync.local.bundle import Bundle
from backtest_sync.local.outbox import Outbox
from backtest_sync.local.rpc import handle_post
from backtest_sync.local.session import SessionState, SimSession
from backtest_sync.local.streams import handle_socket
from backtest_sync.protocol import Continue, ContinueTo, CreateBacktestSession
from backtest_sync.protocol.blobs import StreamDecompressor

LIMIT = 20.0


class CallFailedError(Exception):
    """A call that was answered with an error."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(f"{error['code']}: {error['message']}")
        self.code: int = error["code"]
        self.message: str = error["message"]
        self.data: Any = error.get("data")


class Desk:
    """A session, driven and asked directly."""

    def __init__(self, session: SimSession) -> None:
        self.session = session
        self._links: list[Link] = []

    async def advance(self, slots: int = 1, **fields: Any) -> None:
        """A continue, and the wait until the session rests again or is over."""
        self.session.request_continue(Continue(slots, **fields))
        await self.rest()

    async def pause(self, slot: int, batch_index: int | None = None) -> None:
        """A continueTo, and the wait until the session rests there."""
        self.session.request_continue_to(ContinueTo(slot, batch_index))
        await self.rest()

    async def rest(self) -> None:
        """Waits until the session rests or is over."""
        async with timeout(LIMIT):
            while self.session.state in (SessionState.STARTING, SessionState.RUNNING):
                await asyncio.sleep(0)

    async def post(self, value: Any) -> Any:
        """The answer to a body: its JSON, or None where it is empty."""
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        status, answer = await handle_post(self.session, body)
        assert status == 200
        return json.loads(answer) if answer else None

    async def call(self, method: str, *params: Any) -> Any:
        """A call's result; `CallFailedError` where it failed."""
        answer = await self.post(
            {"jsonrpc": "2.0", "id": 7, "method": method, "params": list(params)}
        )
        assert answer["jsonrpc"] == "2.0"
        assert answer["id"] == 7
        if "error" in answer:
            raise CallFailedError(answer["error"])
        return answer["result"]

    async def value(self, method: str, *params: Any) -> Any:
        """The ``value`` of a call's result."""
        result = await self.call(method, *params)
        assert result["context"]["slot"] == self.session.slot
        return result["value"]

    def link(self) -> Link:
        """A new connection to the endpoint."""
        link = Link(self.session)
        self._links.append(link)
        return link

    async def finish(self) -> None:
        """Closes everything."""
        self.session.close()
        for link in self._links:
            await link.drop()
        await asyncio.sleep(0)


class Link:
    """A subscription connection: what D's server calls a wire, without the socket."""

    def __init__(self, session: SimSession) -> None:
        self.on_pong: Callable[[bytes], None] | None = None
        self.left = False
        self.closed_with: tuple[int, str] | None = None
        self.answers_pings = True
        self.binary = 0
        self._requests: asyncio.Queue[str | None] = asyncio.Queue()
        self._arrived: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._decompressor = StreamDecompressor()
        self._id = 0
        self.kept: list[dict[str, Any]] = []
        self._task = asyncio.ensure_future(handle_socket(session, self))  # type: ignore[arg-type]

    # --- as the server's wire

    async def receive(self) -> str | None:
        return await self._requests.get()

    def send(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            self.binary += 1
            message = self._decompressor.feed(message).decode()
        self._arrived.put_nowait(json.loads(message))

    def ping(self, payload: bytes) -> None:
        if self.answers_pings and self.on_pong is not None:
            asyncio.get_running_loop().call_soon(self.on_pong, payload)

    async def drained(self) -> None:
        await self._flowing.wait()

    async def close(self, code: int, reason: str) -> None:
        if self.closed_with is None:
            self.closed_with = (code, reason)
        self._requests.put_nowait(None)

    # --- as the client

    def write(self, text: str) -> None:
        """A message of any text."""
        self._requests.put_nowait(text)

    async def ask(self, method: str, *params: Any) -> Any:
        """The whole answer to a request; what comes before it is kept for `next`."""
        self._id += 1
        self.write(
            json.dumps({"jsonrpc": "2.0", "id": self._id, "method": method, "params": list(params)})
        )
        while True:
            message = await self._next()
            if message.get("id") == self._id:
                return message
            self.kept.append(message)

    async def subscribe(self, method: str, *params: Any) -> int:
        """The id of a new subscription."""
        answer = await self.ask(method, *params)
        assert "error" not in answer, answer
        return int(answer["result"])

    async def next(self) -> dict[str, Any]:
        """The next message that is no answer."""
        return self.kept.pop(0) if self.kept else await self._next()

    async def result(self) -> Any:
        """The result in the next notification."""
        message = await self.next()
        assert "result" in message["params"], message
        return message["params"]["result"]

    async def _next(self) -> dict[str, Any]:
        return await asyncio.wait_for(self._arrived.get(), LIMIT)

    async def settled(self) -> list[dict[str, Any]]:
        """What is there once the server has nothing more to say for now."""
        answer = await self.ask("noSuchMethod")
        assert answer["error"]["code"] == -32601
        found, self.kept = self.kept, []
        return found

    @property
    def unread(self) -> int:
        """How many messages the server has not read."""
        return self._requests.qsize()

    def stall(self) -> None:
        """Takes nothing any more."""
        self._flowing.clear()

    def flow(self) -> None:
        """Takes messages again."""
        self._flowing.set()

    async def leave(self) -> None:
        """Closes the connection in an orderly way."""
        self.left = True
        await self.drop()

    async def drop(self) -> None:
        """Loses the connection."""
        self._flowing.set()
        self._requests.put_nowait(None)
        await asyncio.wait_for(self._task, LIMIT)


class timeout:  # noqa: N801 - as asyncio.timeout of Python 3.11
    """Cancels its body after some seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._timer = asyncio.get_running_loop().call_later(self._seconds, task.cancel)

    async def __aexit__(self, *_: object) -> None:
        self._timer.cancel()


def play(bundle: Bundle, scenario: Callable[[Desk], Awaitable[None]], **fields: Any) -> None:
    """Runs ``scenario`` on a new session over the bundle; ``fields``: those of its creation."""

    async def main() -> None:
        params = CreateBacktestSession(
            **{"start_slot": bundle.first_slot, "end_slot": bundle.last_slot, **fields}
        )
        session = SimSession(
            "backtest_" + "0" * 32,
            params,
            bundle,
            Outbox(retain=False),
            timeout=0,
            on_closed=lambda _: None,
        )
        session.begin()
        desk = Desk(session)
        await desk.rest()
        try:
            await scenario(desk)
        finally:
            await desk.finish()

    asyncio.run(main())
