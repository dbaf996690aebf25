"""``backtest-sync record``: what it asks an RPC endpoint for, what it says, and the file it leaves."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from solders.hash import Hash

from backtest_sync import cli
from backtest_sync.local.bundle import Bundle
from tests.support.scripted import Peer, ScriptedServer

FIRST, SKIPPED, LAST = 700, 701, 702


def block(slot: int) -> dict[str, object]:
    return {
        "blockhash": str(Hash(bytes([slot % 256]) * 32)),
        "previousBlockhash": str(Hash(bytes([(slot - 1) % 256]) * 32)),
        "parentSlot": slot - 1,
        "blockTime": 1_700_000_000,
        "blockHeight": slot - 50,
        "transactions": [],
    }


def answer(peer: Peer) -> None:
    """One JSON-RPC request."""
    peer.read_head()
    request = json.loads(peer.read_body())
    reply: dict[str, object] = {"jsonrpc": "2.0", "id": request["id"]}
    if request["method"] == "getBlock" and request["params"][0] == SKIPPED:
        reply["error"] = {"code": -32007, "message": f"Slot {SKIPPED} was skipped"}
    elif request["method"] == "getBlock":
        reply["result"] = block(request["params"][0])
    elif request["method"] == "getSlot":
        reply["result"] = 9_000
    else:
        value = [None] * len(request["params"][0])
        reply["result"] = {"context": {"slot": 9_000}, "value": value}
    peer.respond("200 OK", json.dumps(reply))


def record(url: str, output: Path, *more: str) -> int:
    slots = ["--start-slot", str(FIRST), "--end-slot", str(LAST)]
    return cli.main(["record", "--rpc", url, *slots, "-o", str(output), *more])


def test_nobody_there_is_told_soon(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backtest_sync.cli.record.REACH", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    assert record(f"http://127.0.0.1:{port}", tmp_path / "recorded.jsonl") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"✖ HTTP request to http://127.0.0.1:{port}")


def test_blocks_become_a_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "recorded.jsonl"
    with ScriptedServer(answer) as server:
        assert record(server.http_url, output) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith(f"✔ {output}\n  Blocks       : 2 (1 slots without a block)\n")
    assert "not as of the first slot" in out
    with Bundle.open(output) as bundle:
        assert list(bundle.slots) == [FIRST, LAST]


def test_a_file_that_is_there_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "recorded.jsonl"
    output.write_text("mine")
    with ScriptedServer(answer) as server:
        assert record(server.http_url, output) == 1
        assert output.read_text() == "mine"
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"✖ {output}: ")
        assert record(server.http_url, output, "--overwrite") == 0
    assert output.read_text() != "mine"


def test_a_backward_range_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["record", "--rpc", "http://127.0.0.1:1", "--start-slot", "9", "--end-slot", "8"]
    assert cli.main([*argv, "-o", str(tmp_path / "x.jsonl")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "✖ slots: 9 to 8 is no range"


def test_an_endpoint_that_is_gone_leaves_no_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "recorded.jsonl"

    def refuse(peer: Peer) -> None:
        peer.read_head()
        peer.read_body()
        peer.respond("403 Forbidden", "no such key")

    with ScriptedServer(refuse) as server:
        assert record(server.http_url, output) == 1
    assert "403" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
