"""A server that sends bursts built ahead of the clock, so that the client is always the slow side.

Prints its port. A ``continue`` is answered by one write: 3 statuses, its ``advanceCount`` slots and a
``readyForContinue``. A subscription is answered by ``--notes`` notifications of some ``--note-bytes``
each and the end marker. Needs the repository's root as the working directory.
"""

from __future__ import annotations

import argparse
import base64
import functools
import json
from typing import Any

from tests.support.scripted import Peer, ScriptedServer, frame, sid

STATUSES = ("decodedTransactions", "appliedAccountModifications", "executedBlockTransactions")
SYSTEM_PROGRAM = "1" * 32


def text(message: Any) -> bytes:
    return frame(json.dumps(message, separators=(",", ":")).encode())


@functools.lru_cache(maxsize=4)
def burst(count: int, start: int) -> bytes:
    statuses = [text({"method": "status", "params": {"status": s}}) for s in STATUSES]
    slots = [
        frame(b'{"method":"slotNotification","params":%d}' % slot)
        for slot in range(start, start + count)
    ]
    return b"".join([*statuses, *slots, text({"method": "readyForContinue"})])


@functools.lru_cache(maxsize=4)
def notifications(method: str, count: int, size: int) -> bytes:
    padding = base64.b64encode(b"\7" * (size * 3 // 4)).decode()
    account = {
        "data": [padding, "base64"],
        "executable": False,
        "lamports": 5,
        "owner": SYSTEM_PROGRAM,
        "rentEpoch": 0,
        "space": 3,
    }
    name = method.removesuffix("Subscribe") + "Notification"
    frames = []
    for i in range(count):
        result: dict[str, Any] = {"context": {"slot": 100 + i // 100}}
        if method == "logsSubscribe":
            result["value"] = {"signature": f"s{i}", "err": None, "logs": [padding]}
        else:
            result |= {
                "account": SYSTEM_PROGRAM,
                "signature": f"s{i}",
                "pre": None,
                "post": account,
            }
        params = {"subscription": 7, "result": result}
        frames.append(text({"jsonrpc": "2.0", "method": name, "params": params}))
    end = {"jsonrpc": "2.0", "method": "subscriptionComplete", "params": {"subscription": 7}}
    return b"".join([*frames, text(end)])


def play(peer: Peer, notes: int, note_bytes: int) -> None:
    peer.accept()
    slot = 100
    while True:
        request = peer.recv()
        method = request["method"]
        if method == "createBacktestSession":
            peer.created(rpc_endpoint=f"{peer.server.http_url}/backtest/{sid(1)}")
            peer.send({"method": "readyForContinue"})
        elif method == "continue":
            count = request["params"]["advanceCount"]
            peer.send_raw(burst(count, slot))
            slot += count
        elif method == "closeBacktestSession":
            peer.send({"method": "success"})
        elif method.endswith("Subscribe"):
            peer.send({"jsonrpc": "2.0", "id": request["id"], "result": 7})
            peer.send_raw(notifications(method, notes, note_bytes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--notes", type=int, default=100_000)
    parser.add_argument("--note-bytes", type=int, default=400)
    args = parser.parse_args()
    script = functools.partial(play, notes=args.notes, note_bytes=args.note_bytes)
    with ScriptedServer(script) as server:
        for method in ("accountDiffSubscribe", "logsSubscribe"):
            notifications(method, args.notes, args.note_bytes)
        print(server.port, flush=True)
        input()  # until the one who started it closes the pipe


if __name__ == "__main__":
    main()
