"""Subscribers whose connections break again and again, over real sockets: nothing is lost."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import websocket

from backtest_sync.local import LocalSimulator, demo
from backtest_sync.urls import http_base_from_ws_url, http_to_ws_url, resolve_rpc_url

SLOTS = 110
FAULTS = 12


def open_socket(url: str) -> websocket.WebSocket:
    return websocket.create_connection(url, timeout=30, suppress_origin=True)


class Control:
    """A session, driven over its control socket in the plainest way."""

    def __init__(self, simulator: LocalSimulator) -> None:
        self._socket = open_socket(simulator.url)
        self.send(
            "createBacktestSession",
            {"startSlot": demo.FIRST_SLOT, "endSlot": demo.FIRST_SLOT + SLOTS},
        )
        endpoint = self.until("sessionCreated")["rpc_endpoint"]
        base = http_base_from_ws_url(simulator.url)
        self.stream_url = http_to_ws_url(resolve_rpc_url(base, endpoint))
        self.until("readyForContinue")

    def send(self, method: str, params: Any) -> None:
        self._socket.send(json.dumps({"method": method, "params": params}))

    def until(self, method: str) -> Any:
        while (message := json.loads(self._socket.recv()))["method"] != method:
            assert message["method"] != "error", message
        return message.get("params")

    def close(self) -> None:
        self._socket.close()


class Subscriber(threading.Thread):
    """Subscribes, subscribes again from its last slot when the connection breaks, to the marker."""

    def __init__(
        self, url: str, method: str, target: Any, config: Any, key: Callable[[Any], Any]
    ) -> None:
        super().__init__(name=f"subscriber of {method}")
        self._url = url
        self._method = method
        self._target = target
        self._config = dict(config)
        self._key = key
        self.seen: dict[Any, None] = {}
        self.breaks = 0
        self.subscribed = threading.Event()

    def run(self) -> None:
        while True:
            try:
                if self._follow():
                    return
            except (OSError, websocket.WebSocketException):
                self.breaks += 1

    def _follow(self) -> bool:
        socket = open_socket(self._url)
        try:
            params = [self._target, self._config]
            request = {"jsonrpc": "2.0", "id": 1, "method": self._method, "params": params}
            socket.send(json.dumps(request))
            while text := socket.recv():
                message = json.loads(text)
                if "id" in message:
                    assert "result" in message, message
                    self.subscribed.set()
                elif message["method"] == "subscriptionComplete":
                    socket.close()
                    return True
                else:
                    self._take(message["params"]["result"])
        finally:
            socket.shutdown()
        raise ConnectionError("the connection ended")

    def _take(self, result: Any) -> None:
        self.seen.setdefault(self._key(result))
        slot = result["slot"] if "slot" in result else result["context"]["slot"]
        self._config["replayFromSlot"] = max(slot, self._config.get("replayFromSlot", 0))


@pytest.fixture(scope="module")
def simulator() -> Iterator[LocalSimulator]:
    with LocalSimulator(process=True) as running:
        yield running


def run(simulator: LocalSimulator, faults: int) -> list[Subscriber]:
    control = Control(simulator)
    subscribers = [
        Subscriber(
            control.stream_url,
            "accountDiffSubscribe",
            demo.TOKEN_PROGRAM,
            {"address_type": "program"},
            lambda r: (r["context"]["slot"], r["signature"], r["account"]),
        ),
        Subscriber(
            control.stream_url,
            "transactionSubscribe",
            {"mentions": [demo.POOL_PROGRAM]},
            {},
            lambda r: r["transaction"]["signatures"][0],
        ),
    ]
    for subscriber in subscribers:
        subscriber.start()
        assert subscriber.subscribed.wait(20)
    for fault in range(faults):
        how: Any = ("reset", "end", "close")[fault % 3]
        simulator.faults.drop(how, channel="subscriptions", after=200 * (fault + 1))
    control.send("continue", {"advanceCount": 1000, "transactions": [], "modifyAccountStates": {}})
    control.until("completed")
    for subscriber in subscribers:
        subscriber.join(30)
        assert not subscriber.is_alive()
    control.close()
    return subscribers


def test_every_notification_arrives_in_order_however_often_connections_break(
    simulator: LocalSimulator,
) -> None:
    undisturbed = run(simulator, faults=0)
    disturbed = run(simulator, faults=FAULTS)
    assert sum(subscriber.breaks for subscriber in disturbed) == FAULTS
    assert [len(subscriber.seen) > 400 for subscriber in undisturbed] == [True, True]
    for expected, found in zip(undisturbed, disturbed, strict=True):
        assert list(found.seen) == list(expected.seen)
