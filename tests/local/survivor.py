"""A client that comes back: attaches after every loss, and drops what it has seen already."""

from __future__ import annotations

import json
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import connect

LOST = (ConnectionClosed, InvalidHandshake, OSError, EOFError, TimeoutError)


class Survivor:
    """Runs one session to its end, ``step`` blocks a continue, whatever happens on the way."""

    def __init__(self, url: str, start: int, end: int, *, step: int, silence: float = 2.0) -> None:
        self._url = url
        self._range = (start, end)
        self._step = step
        self._silence = silence  # a connection without a message for so long is lost, seconds
        self._ws: Any = None
        self.session: str | None = None
        self.sequence = 0
        self.slots: list[int] = []
        self.losses = 0
        self.busy = 0
        self.completed = False

    def run(self) -> None:
        while not self.completed:
            try:
                with connect(self._url, max_size=None, open_timeout=self._silence) as self._ws:
                    self._begin()
                    while not self.completed:
                        self._take(self._receive())
            except LOST:
                self.losses += 1

    def _begin(self) -> None:
        if self.session is None:
            start, end = self._range
            self._send(
                "createBacktestSession",
                {"startSlot": start, "endSlot": end, "disconnectTimeoutSecs": 60},
            )
            while self.session is None:
                message = self._receive()
                if message["method"] == "sessionCreated":
                    self.session = message["params"]["session_id"]
                self._take(message)
            return
        self._send(
            "attachBacktestSession",
            {"session_id": self.session, "last_sequence": self.sequence},
        )
        self._until("sessionAttached")
        self._send("resumeAttachedSession")
        self._until("success")

    def _until(self, method: str) -> None:
        while (message := self._receive())["method"] != method:
            if message["method"] == "error" and "sessionOwnershipBusy" in message["params"]:
                self.busy += 1
                raise EOFError
            self._take(message)

    def _take(self, message: dict[str, Any]) -> None:
        sequence = message.get("seqId")
        if sequence is not None:
            if sequence <= self.sequence:
                return
            assert sequence == self.sequence + 1, (self.sequence, message)
            self.sequence = sequence
        method = message["method"]
        assert method != "error", message
        if method == "slotNotification":
            self.slots.append(message["params"])
        elif method == "readyForContinue":
            self._send("continue", {"advanceCount": self._step})
        elif method == "completed":
            self.completed = True

    def _send(self, method: str, params: Any = None) -> None:
        self._ws.send(json.dumps({"method": method, "params": params}))

    def _receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._ws.recv(timeout=self._silence))
        return message
