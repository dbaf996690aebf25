"""Scripts of a session endpoint that streams: acks, notifications, end markers, compressed frames."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

from backtest_sync.protocol.blobs import StreamCompressor
from tests.support.scripted import BINARY, Peer, ScriptedServer, frame

SOON = 10.0  # what a test waits for something that happens at once


def address(name: str) -> str:
    """An address made of a name, as protocol/reference_tests.md has them."""
    from backtest_sync.protocol.fields import b58encode

    return b58encode(name.encode().ljust(32, b"\0"))


PROGRAM = address("prog")


def endpoint(server: ScriptedServer) -> str:
    return f"{server.http_url}/backtest/abc"


def note(subscription: int, result: Any, method: str = "accountDiff") -> dict[str, Any]:
    return {
        "jsonrpc": "2.0",
        "method": f"{method}Notification",
        "params": {"subscription": subscription, "result": result},
    }


def diff(subscription: int, slot: int) -> dict[str, Any]:
    return note(subscription, {"context": {"slot": slot}})


def diffs(subscription: int, *slots: int) -> list[dict[str, Any]]:
    return [diff(subscription, slot) for slot in slots]


def end(subscription: int) -> dict[str, Any]:
    return {
        "jsonrpc": "2.0",
        "method": "subscriptionComplete",
        "params": {"subscription": subscription},
    }


def ack(request: Any, subscription: int) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request["id"], "result": subscription}


def subscribed(peer: Peer, subscription: int = 1) -> Any:
    """Accept, read the one subscribe and acknowledge it; gives the request."""
    peer.accept()
    request = peer.recv()
    peer.send(ack(request, subscription))
    return request


def stream(*messages: Any, hold: bool = True) -> Callable[[Peer], None]:
    """A script: one subscription, these messages, then the connection stays open (or is closed)."""

    def script(peer: Peer) -> None:
        subscribed(peer)
        if messages:
            peer.send(*messages)
        if hold:
            peer.until_gone()

    return script


class Zipped:
    """Sends messages as the binary frames of one compressed stream."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._compressor = StreamCompressor()

    def send(self, *messages: Any) -> None:
        for message in messages:
            text = message if isinstance(message, bytes) else json.dumps(message).encode()
            self._peer.send_raw(frame(self._compressor.feed(text), BINARY))


class Gate:
    """Holds a script or a callback until the test lets it go on."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._opened = threading.Event()

    def wait(self) -> None:
        """Say that it is reached, and wait until it is opened."""
        self._reached.set()
        assert self._opened.wait(SOON), "the gate stayed shut"

    def reached(self) -> None:
        """Wait until someone waits at it."""
        assert self._reached.wait(SOON), "nobody came to the gate"

    def open(self) -> None:
        """Let everyone pass."""
        self._opened.set()

    def pass_on_and_raise(self, error: Exception) -> None:
        """Once someone waits at it: open it and raise."""
        self.reached()
        self.open()
        raise error
