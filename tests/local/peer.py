"""A plain client of the simulator: JSON in, JSON out, by another WebSocket library than ours."""

from __future__ import annotations

import contextlib
import json
import socket
from types import TracebackType
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

TIMEOUT = 20.0


class Peer:
    """One control connection."""

    ws: ClientConnection

    def __init__(self, url: str, **options: Any) -> None:
        self._connecting = connect(url, max_size=None, **options)
        self.seen: list[dict[str, Any]] = []

    def send(self, method: str, params: Any = None) -> None:
        message = {"method": method} if params is None else {"method": method, "params": params}
        self.ws.send(json.dumps(message))

    def next(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self.ws.recv(timeout=TIMEOUT))
        self.seen.append(message)
        return message

    def until(self, *methods: str) -> list[dict[str, Any]]:
        """The messages up to the first of one of these methods."""
        found = [self.next()]
        while found[-1]["method"] not in methods:
            assert found[-1]["method"] != "error", found[-1]
            found.append(self.next())
        return found

    def error(self) -> Any:
        """The payload of the next message, which must be an error."""
        message = self.next()
        assert message["method"] == "error", message
        return message["params"]

    def create(self, start: int, end: int, **params: Any) -> str:
        """Creates a session and waits until it is ready; its id."""
        self.send("createBacktestSession", {"startSlot": start, "endSlot": end, **params})
        messages = self.until("readyForContinue")
        (created,) = [m for m in messages if m["method"] == "sessionCreated"]
        return str(created["params"]["session_id"])

    def advance(self, count: int = 1, **params: Any) -> list[dict[str, Any]]:
        """A continue, and what it brings up to readiness or completion."""
        self.send("continue", {"advanceCount": count, **params})
        return self.until("readyForContinue", "completed")

    def pause(self, slot: int, batch: int | None = None) -> dict[str, Any]:
        """A continueTo and its pause."""
        self.send("continueTo", {"slot": slot, "batchIndex": batch})
        params: dict[str, Any] = self.until("paused")[-1]["params"]
        return params

    def close(self) -> None:
        self.ws.close()

    def abort(self) -> int:
        """Drops the connection without a close frame; the sequence of the last message received."""
        self.ws.socket.shutdown(socket.SHUT_RDWR)
        # what the library had read already was received, and confirmed by it
        with contextlib.suppress(ConnectionClosed):
            while True:
                self.next()
        return max((m["seqId"] for m in self.seen if "seqId" in m), default=0)

    def __enter__(self) -> Peer:
        self.ws = self._connecting.__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._connecting.__exit__(exc_type, exc, traceback)


def slots(messages: list[dict[str, Any]]) -> list[int]:
    return [m["params"] for m in messages if m["method"] == "slotNotification"]


def statuses(messages: list[dict[str, Any]]) -> list[str]:
    return [m["params"]["status"] for m in messages if m["method"] == "status"]
