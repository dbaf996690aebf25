"""Messages of a scripted control server, and sessions that listen to one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from backtest_sync import BacktestClient, BacktestSession
from tests.support.scripted import Peer, ScriptedServer

READY = {"method": "readyForContinue"}
SUCCESS = {"method": "success"}
COMPLETED: dict[str, Any] = {"method": "completed", "params": {}}
PROGRAM = "JUP6LkbZbjS1jKKwapdHNy74zcZ3tLUZoi5QNyVTaV4"

Script = Callable[[Peer], object]


def slot(n: int, seq: int | None = None) -> dict[str, Any]:
    return numbered({"method": "slotNotification", "params": n}, seq)


def status(name: str) -> dict[str, Any]:
    return {"method": "status", "params": {"status": name}}


def paused(n: int, batch: int | None = None) -> dict[str, Any]:
    return {
        "method": "paused",
        "params": {"slot": n} | ({} if batch is None else {"batchIndex": batch}),
    }


def discovery(n: int, batch: int = 0, seq: int | None = None) -> dict[str, Any]:
    return numbered(
        {
            "method": "discoveryBatch",
            "params": {
                "slot": n,
                "batchIndex": batch,
                "matched": [{"kind": "programExecuted", "value": PROGRAM}],
                "transactions": [],
                "transactionIndices": [],
            },
        },
        seq,
    )


def error(kind: str, **fields: Any) -> dict[str, Any]:
    return {"method": "error", "params": {kind: fields} if fields else kind}


def numbered(message: dict[str, Any], seq: int | None) -> dict[str, Any]:
    return message if seq is None else {"seqId": seq, **message}


def sends(*messages: Any) -> Script:
    return lambda peer: peer.send(*messages)


@contextmanager
def session_with(
    script: Script,
    *,
    request_timeout: float | None = 10.0,
    before: tuple[Any, ...] = (),
    rpc_endpoint: str = "http://rpc",
    **fields: Any,
) -> Iterator[BacktestSession]:
    """A created session; ``script`` plays the server from there. The session is aborted at the end.

    ``before``: what the server sends ahead of its answer to the create request.
    """

    def play(peer: Peer) -> None:
        peer.accept()
        peer.expect("createBacktestSession")
        peer.send(*before)
        peer.created(rpc_endpoint=rpc_endpoint)
        script(peer)
        peer.until_gone()

    with ScriptedServer(play) as server:
        client = BacktestClient(server.url, "k", request_timeout=request_timeout)
        session = client.create_session(start_slot=100, end_slot=200, **fields)
        try:
            yield session
        finally:
            session.abort()
