"""Program replacement against the reference's vectors, solders' curve and a scripted endpoint."""

from __future__ import annotations

import base64
import json
import mmap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings, strategies as st
from solders.pubkey import Pubkey

from backtest_sync import programs
from backtest_sync.errors import HttpStatusError, InvalidParamsError, ProgramModError
from backtest_sync.programs import (
    MAX_ELF_BYTES,
    RETRY_PAUSES,
    UPGRADEABLE_LOADER,
    build_program_injection,
    build_programdata_bytes,
    is_on_curve,
    modify_program,
    program_data_address,
)
from backtest_sync.protocol import AccountData
from backtest_sync.rpc import RpcClient
from tests.support.scripted import Peer, ScriptedServer

VECTORS = json.loads((Path(__file__).parent / "vectors" / "program_data.json").read_text())["cases"]
TOKEN = "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA"
TOKEN_DATA = "3gvYRKWyXRR9xKWe1ZjPhLY5ZJRN7KDB4rFZFGoJfFk2"
ELF = b"\x7fELFxyz"
P = 2**255 - 19


def cases(function: str) -> Any:
    found = [case for case in VECTORS if case["function"] == function]
    assert found
    return pytest.mark.parametrize("case", found, ids=lambda case: str(case["name"]))


def test_no_vector_is_left_out() -> None:
    assert {case["function"] for case in VECTORS} == {
        "get_program_data_address",
        "parse_program_id",
        "build_programdata_bytes",
        "modify_program_via_rpc",
    }


def on_the_wire(accounts: dict[str, AccountData]) -> dict[str, Any]:
    return {
        address: {
            "data": {"data": account.data.data, "encoding": account.data.encoding},
            "executable": account.executable,
            "lamports": account.lamports,
            "owner": account.owner,
            "space": account.space,
        }
        for address, account in accounts.items()
    }


# --- addresses


@cases("get_program_data_address")
def test_program_data_addresses(case: dict[str, Any]) -> None:
    assert program_data_address(case["program_id"]) == case["address"]
    assert program_data_address(bytes.fromhex(case["program_id_hex"])) == case["address"]
    assert program_data_address(Pubkey.from_string(case["program_id"])) == case["address"]


@cases("parse_program_id")
def test_program_ids(case: dict[str, Any]) -> None:
    if case["ok"]:
        assert program_data_address(case["text"]) == case["address"]
        return
    with pytest.raises(InvalidParamsError) as caught:
        program_data_address(case["text"])
    assert str(caught.value) == case["client_error"]
    assert "program_id" in str(caught.value.__cause__), "the cause says what was expected"


@given(st.binary(min_size=32, max_size=32))
@settings(max_examples=400, deadline=None)
def test_addresses_are_those_of_solders(program: bytes) -> None:
    loader = Pubkey.from_string(UPGRADEABLE_LOADER)
    address, _ = Pubkey.find_program_address([program], loader)
    assert program_data_address(program) == str(address)


@given(st.binary(min_size=32, max_size=32))
@example(bytes(32))
@example(b"\xff" * 32)
@settings(max_examples=400, deadline=None)
def test_the_curve_is_that_of_solders(point: bytes) -> None:
    assert is_on_curve(point) == Pubkey(point).is_on_curve()


@pytest.mark.parametrize("y", [0, 1, 2, 18, P - 1, P, P + 1, P + 18, 2**255 - 1])
@pytest.mark.parametrize("sign", [0, 1])
def test_the_curve_at_its_edges(y: int, sign: int) -> None:
    """x = 0, y not reduced modulo p, the root's sign bit."""
    point = (y | sign << 255).to_bytes(32, "little")
    assert is_on_curve(point) == Pubkey(point).is_on_curve()


# --- the account


@cases("build_programdata_bytes")
def test_program_data(case: dict[str, Any]) -> None:
    elf = bytes.fromhex(case["elf_hex"])
    data = build_programdata_bytes(elf, case["deploy_slot"], case["authority"])
    assert data.hex() == case["output_hex"]
    assert len(data) == case["length"]
    injection = build_program_injection(
        case["injection_address"],
        memoryview(elf),
        case["deploy_slot"],
        case["authority"],
        case["injection_lamports"],
    )
    assert on_the_wire(injection) == case["injection"]


@pytest.mark.parametrize("slot", [-1, 2**64, 1.5, "7"])
def test_a_deploy_slot_that_is_none(slot: Any) -> None:
    with pytest.raises(InvalidParamsError, match="deploy_slot"):
        build_programdata_bytes(ELF, slot)


def test_an_authority_that_is_none() -> None:
    with pytest.raises(InvalidParamsError, match="authority"):
        build_programdata_bytes(ELF, 1, "abc")


# --- modify_program


class Endpoint:
    """Answers the three reads from a vector; notes what was asked."""

    def __init__(self, data: bytes | None, slot: int, failures: int = 0) -> None:
        self.data = data
        self.slot = slot
        self.failures = failures
        self.calls: list[tuple[str, Any]] = []

    def __call__(self, peer: Peer) -> None:
        while True:
            peer.read_head()
            assert peer.header("x-api-key") is None
            call = json.loads(peer.read_body())
            self.calls.append((call["method"], call["params"]))
            body = json.dumps({"jsonrpc": "2.0", "id": call["id"], **self.answer(call)})
            peer.send_raw(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())

    def answer(self, call: Any) -> dict[str, Any]:
        if self.failures:
            self.failures -= 1
            return {"error": {"code": -32000, "message": "not yet"}}
        if call["method"] == "getSlot":
            return {"result": self.slot}
        if call["method"] == "getMinimumBalanceForRentExemption":
            return {"result": 1_000_000 + call["params"][0]}
        value = self.data if self.data is None else {
            "data": [base64.b64encode(self.data).decode(), "base64"],
            "executable": False,
            "lamports": 1,
            "owner": UPGRADEABLE_LOADER,
            "rentEpoch": 2**64 - 1,
            "space": len(self.data),
        }  # fmt: skip
        return {"result": {"context": {"slot": self.slot}, "value": value}}


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waited: list[float] = []
    monkeypatch.setattr(RpcClient, "pause", lambda _, seconds: waited.append(seconds) or True)
    return waited


@cases("modify_program_via_rpc")
def test_a_program_is_replaced_around_what_the_endpoint_knows(case: dict[str, Any]) -> None:
    endpoint = Endpoint(bytes.fromhex(case["rpc_account_data_hex"]), case["rpc_slot"])
    with ScriptedServer(endpoint) as server, RpcClient(server.http_url) as rpc:
        accounts = modify_program(rpc, case["program_id"], bytes.fromhex(case["elf_hex"]))
    assert on_the_wire(accounts) == case["modifications"]
    assert [method for method, _ in endpoint.calls] == case["rpc_calls_in_order"]
    address = next(iter(case["modifications"]))
    assert endpoint.calls[1][1] == [address, {"encoding": "base64", "commitment": "confirmed"}]


def test_the_elf_comes_from_bytes_of_any_kind_or_a_path(tmp_path: Path) -> None:
    path = tmp_path / "program.so"
    path.write_bytes(ELF)
    with ScriptedServer(Endpoint(bytes(45), 5)) as server, RpcClient(server.http_url) as rpc:
        expected = modify_program(rpc, TOKEN, ELF)
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        ):
            for elf in (bytearray(ELF), memoryview(ELF), mapped, path, str(path)):
                assert modify_program(rpc, TOKEN, elf) == expected  # type: ignore[arg-type]
    assert next(iter(expected.values())).bytes[45:] == ELF


def test_the_reads_are_one_unit_that_is_tried_again(pauses: list[float]) -> None:
    endpoint = Endpoint(bytes(45), 5, failures=3)
    with ScriptedServer(endpoint) as server, RpcClient(server.http_url) as rpc:
        assert list(modify_program(rpc, TOKEN, ELF)) == [TOKEN_DATA]
    assert [method for method, _ in endpoint.calls] == [
        "getSlot", "getSlot", "getSlot",
        "getSlot", "getAccountInfo", "getMinimumBalanceForRentExemption",
    ]  # fmt: skip
    assert len(pauses) == 3


def test_a_missing_account_is_tried_ten_times_more_and_explained(pauses: list[float]) -> None:
    endpoint = Endpoint(None, 5)
    with ScriptedServer(endpoint) as server, RpcClient(server.http_url) as rpc:
        with pytest.raises(ProgramModError) as caught:
            modify_program(rpc, TOKEN, ELF)
    assert [method for method, _ in endpoint.calls] == ["getSlot", "getAccountInfo"] * 11
    assert str(caught.value) == (
        f"cannot replace program {TOKEN}: RPC error: its ProgramData account {TOKEN_DATA} "
        "does not exist; is it upgradeable?"
    )
    assert caught.value.program_id == TOKEN
    assert caught.value.__cause__ is not None
    assert RETRY_PAUSES == (1, 2, 4, 8, 10, 10, 10, 10, 10, 10)
    assert all(0 <= pause < most for pause, most in zip(pauses, RETRY_PAUSES, strict=True))


@pytest.mark.usefixtures("pauses")
def test_the_last_failure_is_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "RETRY_LIMIT", 0.0)

    def script(peer: Peer) -> None:
        peer.read_head()
        peer.read_body()
        peer.respond("400 Bad Request", "no such session")

    with ScriptedServer(script) as server, RpcClient(server.http_url) as rpc:
        with pytest.raises(
            ProgramModError, match=r"RPC error: HTTP 400 .* no such session"
        ) as caught:
            modify_program(rpc, TOKEN, ELF)
    assert isinstance(caught.value.__cause__, HttpStatusError)
    assert len(server.peers) == 1, "no attempt begins after the limit"


def test_a_closed_endpoint_ends_the_tries() -> None:
    endpoint = Endpoint(None, 5)
    with ScriptedServer(endpoint) as server:
        rpc = RpcClient(server.http_url)
        rpc.close()
        with pytest.raises(ProgramModError, match="closed"):
            modify_program(rpc, TOKEN, ELF)
    assert endpoint.calls == []


# --- what is refused before anything is asked


@pytest.mark.parametrize(
    ("elf", "reason"),
    [
        (b"", r"elf is no ELF file: it begins with b''"),
        (b"\x7fEL", r"elf is no ELF file"),
        (b"#!/bin/sh", r"elf is no ELF file: it begins with b'#!/b'"),
        (ELF + bytes(MAX_ELF_BYTES), r"elf is larger than the 10485760 bytes"),
        (7, r"elf: expected bytes or a path, got int"),
        ("no/such/file.so", r"elf: no/such/file.so can't be read: No such file"),
        ("\0", r"elf: .* can't be read"),
    ],
    ids=["empty", "short", "script", "large", "number", "missing", "no path"],
)
def test_what_is_no_elf(elf: Any, reason: str) -> None:
    with RpcClient("http://127.0.0.1:1") as rpc, pytest.raises(InvalidParamsError, match=reason):
        modify_program(rpc, TOKEN, elf)


def test_a_file_that_is_no_elf_is_named(tmp_path: Path) -> None:
    path = tmp_path / "program.o"
    path.write_bytes(b"\0asm")
    with RpcClient("http://127.0.0.1:1") as rpc, pytest.raises(InvalidParamsError) as caught:
        modify_program(rpc, TOKEN, path)
    assert str(path) in str(caught.value)


def test_the_largest_elf_is_taken() -> None:
    elf = b"\x7fELF".ljust(MAX_ELF_BYTES, b"\0")
    with ScriptedServer(Endpoint(bytes(45), 5)) as server, RpcClient(server.http_url) as rpc:
        account = modify_program(rpc, TOKEN, elf)[TOKEN_DATA]
    assert account.space == MAX_ELF_BYTES + 45
    assert len(account.data.data) < 16 * 1024 * 1024, "the server's limit for a message"
