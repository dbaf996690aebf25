"""The JSON-RPC client against scripted endpoints on real sockets."""

from __future__ import annotations

import base64
import json
import pickle
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from solders.hash import Hash
from solders.keypair import Keypair
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from backtest_sync.errors import (
    DeserializeError,
    HttpError,
    HttpStatusError,
    InvalidParamsError,
    RequestTimeoutError,
    RpcError,
)
from backtest_sync.headers import USER_AGENT
from backtest_sync.protocol import Account, AccountData
from backtest_sync.rpc import RpcClient
from backtest_sync.rpc_types import (
    LOOKUP_TABLE_PROGRAM,
    AddressLookupTable,
    LatestBlockhash,
    ParsedAccount,
    ReturnData,
    SignatureStatus,
    TokenAmount,
)
from tests.support.scripted import Peer, ScriptedServer

TOKEN = "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA"
SYSTEM = "11111111111111111111111111111111"
SIGNATURE = str(Signature(bytes(range(64))))
CONTEXT = {"slot": 7, "apiVersion": "2.0"}
UI_ACCOUNT = {
    "data": ["AQID", "base64"],
    "executable": False,
    "lamports": 33594,
    "owner": TOKEN,
    "rentEpoch": 2**64 - 1,
    "space": 3,
}
KEY = Keypair.from_seed(bytes(32))
MESSAGE = MessageV0.try_compile(KEY.pubkey(), [], [], Hash.default())
TX = VersionedTransaction(MESSAGE, [KEY])
TX_BASE64 = base64.b64encode(bytes(TX)).decode()

Answer = Callable[[Any], Any]


class Endpoint:
    """Answers every call of a connection by a function of the request; notes the requests."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.requests: list[Any] = []
        self.peers: list[Peer] = []

    def __call__(self, peer: Peer) -> None:
        self.peers.append(peer)
        while True:
            peer.read_head()
            request = json.loads(peer.read_body())
            self.requests.append(request)
            answer = self.answers[min(len(self.requests), len(self.answers)) - 1](request)
            if isinstance(answer, tuple):
                peer.respond(*answer)
                return
            body = json.dumps(answer).encode()
            peer.send_raw(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    @property
    def calls(self) -> list[tuple[str, Any]]:
        return [(request["method"], request["params"]) for request in self.requests]


def result(value: Any) -> Answer:
    return lambda request: {"jsonrpc": "2.0", "id": request["id"], "result": value}


def valued(value: Any) -> Answer:
    return result({"context": CONTEXT, "value": value})


def failing(code: int, message: str, data: Any = None) -> Answer:
    error = {"code": code, "message": message, **({} if data is None else {"data": data})}
    return lambda request: {"jsonrpc": "2.0", "id": request["id"], "error": error}


def http(status: str, body: str = "") -> Answer:
    return lambda _: (status, body)


@contextmanager
def serving(*answers: Answer, **options: Any) -> Iterator[tuple[RpcClient, Endpoint]]:
    endpoint = Endpoint(*answers)
    with (
        ScriptedServer(endpoint) as server,
        RpcClient(server.http_url + "/backtest/x", **options) as rpc,
    ):
        yield rpc, endpoint


# --- the typed methods: what is sent, what is given

ADDRESSES = [TOKEN, bytes(Pubkey.from_string(TOKEN)), Pubkey.from_string(TOKEN)]
CONFIRMED = {"commitment": "confirmed"}
BASE64 = {"encoding": "base64", "commitment": "confirmed"}
ACCOUNT = Account(
    data=b"\1\2\3", lamports=33594, owner=TOKEN, executable=False, space=3, rent_epoch=2**64 - 1
)


@pytest.mark.parametrize(
    ("call", "answer", "sent", "given"),
    [
        (lambda rpc: rpc.get_slot(), result(417), ("getSlot", [CONFIRMED]), 417),
        (lambda rpc: rpc.get_balance(TOKEN), valued(5), ("getBalance", [TOKEN, CONFIRMED]), 5),
        (
            lambda rpc: rpc.get_latest_blockhash(),
            valued({"blockhash": SYSTEM, "lastValidBlockHeight": 9}),
            ("getLatestBlockhash", [CONFIRMED]),
            LatestBlockhash(SYSTEM, 9),
        ),
        (
            lambda rpc: rpc.get_minimum_balance_for_rent_exemption(165),
            result(2039280),
            ("getMinimumBalanceForRentExemption", [165, CONFIRMED]),
            2039280,
        ),
        (
            lambda rpc: rpc.get_fee_for_message(MESSAGE),
            valued(5000),
            ("getFeeForMessage", [base64.b64encode(bytes(MESSAGE)).decode(), CONFIRMED]),
            5000,
        ),
        (
            lambda rpc: rpc.get_fee_for_message("AQ=="),
            valued(None),
            ("getFeeForMessage", ["AQ==", CONFIRMED]),
            None,
        ),
        (
            lambda rpc: rpc.get_account_info(TOKEN),
            valued(UI_ACCOUNT),
            ("getAccountInfo", [TOKEN, BASE64]),
            ACCOUNT,
        ),
        (
            lambda rpc: rpc.get_account_info(TOKEN),
            valued(None),
            ("getAccountInfo", [TOKEN, BASE64]),
            None,
        ),
        (
            lambda rpc: rpc.get_multiple_accounts(iter([TOKEN, SYSTEM])),
            valued([UI_ACCOUNT, None]),
            ("getMultipleAccounts", [[TOKEN, SYSTEM], BASE64]),
            [ACCOUNT, None],
        ),
        (
            lambda rpc: rpc.get_program_accounts(TOKEN),
            result([{"pubkey": SYSTEM, "account": UI_ACCOUNT}]),
            ("getProgramAccounts", [TOKEN, BASE64]),
            [(SYSTEM, ACCOUNT)],
        ),
        (
            lambda rpc: rpc.get_token_account_balance(TOKEN),
            valued({"amount": "15", "decimals": 1, "uiAmount": 1.5, "uiAmountString": "1.5"}),
            ("getTokenAccountBalance", [TOKEN, CONFIRMED]),
            TokenAmount(15, 1, "1.5"),
        ),
        (
            lambda rpc: rpc.get_signature_statuses([SIGNATURE, Signature.default()]),
            valued(
                [
                    None,
                    {
                        "slot": 3,
                        "confirmations": None,
                        "err": {"InstructionError": [0, {"Custom": 1}]},
                        "status": {},
                        "confirmationStatus": "finalized",
                    },
                ]
            ),
            (
                "getSignatureStatuses",
                [[SIGNATURE, str(Signature.default())], {"searchTransactionHistory": True}],
            ),
            [None, SignatureStatus(3, None, {"InstructionError": [0, {"Custom": 1}]}, "finalized")],
        ),
        (
            lambda rpc: rpc.send_transaction(TX),
            result(SIGNATURE),
            (
                "sendTransaction",
                [TX_BASE64, {"encoding": "base64", "preflightCommitment": "confirmed"}],
            ),
            SIGNATURE,
        ),
        (
            lambda rpc: rpc.send_transaction(TX_BASE64, skip_preflight=True),
            result(SIGNATURE),
            (
                "sendTransaction",
                [
                    TX_BASE64,
                    {
                        "encoding": "base64",
                        "preflightCommitment": "confirmed",
                        "skipPreflight": True,
                    },
                ],
            ),
            SIGNATURE,
        ),
        (
            lambda rpc: rpc.get_transaction(SIGNATURE),
            result(None),
            (
                "getTransaction",
                [SIGNATURE, {"encoding": "json", "maxSupportedTransactionVersion": 0, **CONFIRMED}],
            ),
            None,
        ),
        (
            lambda rpc: rpc.call("getEpochInfo"),
            result({"epoch": 1}),
            ("getEpochInfo", []),
            {"epoch": 1},
        ),
        (
            lambda rpc: rpc.call("getX", {"a": (1, 2)}),
            result(None),
            ("getX", {"a": [1, 2]}),
            None,
        ),
    ],
)
def test_methods(call: Answer, answer: Answer, sent: tuple[str, Any], given: Any) -> None:
    with serving(answer) as (rpc, endpoint):
        assert call(rpc) == given
    assert endpoint.calls == [sent]
    assert endpoint.requests[0]["jsonrpc"] == "2.0"


@pytest.mark.parametrize("address", ADDRESSES, ids=["text", "bytes", "solders"])
def test_addresses_of_every_form(address: Any) -> None:
    with serving(valued(1)) as (rpc, endpoint):
        rpc.get_balance(address)
    assert endpoint.calls == [("getBalance", [TOKEN, CONFIRMED])]


@pytest.mark.parametrize("signature", [SIGNATURE, bytes(range(64)), Signature(bytes(range(64)))])
def test_signatures_of_every_form(signature: Any) -> None:
    with serving(result(None)) as (rpc, endpoint):
        rpc.get_transaction(signature)
    assert endpoint.calls[0][1][0] == SIGNATURE


@pytest.mark.parametrize("tx", [TX, bytes(TX), TX_BASE64], ids=["solders", "bytes", "text"])
def test_transactions_of_every_form(tx: Any) -> None:
    with serving(result(SIGNATURE)) as (rpc, endpoint):
        rpc.send_transaction(tx)
    assert endpoint.calls[0][1][0] == TX_BASE64


def test_the_commitment_goes_with_every_read() -> None:
    with serving(result(1), commitment="processed") as (rpc, endpoint):
        rpc.get_slot()
    assert endpoint.calls == [("getSlot", [{"commitment": "processed"}])]


def test_the_endpoint_gets_no_key_and_keeps_its_connection() -> None:
    with serving(result(1)) as (rpc, endpoint):
        for _ in range(3):
            rpc.get_slot()
    assert len(endpoint.peers) == 1
    peer = endpoint.peers[0]
    assert (peer.path, peer.header("user-agent")) == ("/backtest/x", USER_AGENT)
    assert peer.header("x-api-key") is None
    assert peer.header("authorization") is None


def test_a_transaction_is_the_value_that_the_stream_gives() -> None:
    raw = {
        "slot": 9,
        "blockTime": 1_700_000_000,
        "transaction": {"signatures": [SIGNATURE], "message": {}},
        "meta": {"err": None, "fee": 5000, "logMessages": ["a"], "computeUnitsConsumed": 150},
        "version": 0,
    }
    with serving(result(raw)) as (rpc, _):
        tx = rpc.get_transaction(SIGNATURE)
    assert tx is not None
    assert (tx.slot, tx.signature, tx.err, tx.fee, tx.compute_units) == (
        9,
        SIGNATURE,
        None,
        5000,
        150,
    )
    assert tx.raw == raw


# --- accounts


def test_filters() -> None:
    wanted = [165, (32, b"\1\2"), (0, "2"), {"tokenAccountState": True}]
    with serving(result([])) as (rpc, endpoint):
        assert rpc.get_program_accounts(TOKEN, wanted) == []  # type: ignore[arg-type]
    assert endpoint.calls[0][1][1]["filters"] == [
        {"dataSize": 165},
        {"memcmp": {"offset": 32, "bytes": "5T"}},
        {"memcmp": {"offset": 0, "bytes": "2"}},
        {"tokenAccountState": True},
    ]


@pytest.mark.parametrize("bad", [-1, 1.5, (0, bytes(129)), (-1, b"a"), ("0", b"a"), (1, 2, 3), "5"])
def test_filters_that_are_none(bad: Any) -> None:
    with RpcClient("http://127.0.0.1:1") as rpc, pytest.raises(InvalidParamsError, match="filters"):
        rpc.get_program_accounts(TOKEN, [bad])


def test_compressed_data() -> None:
    zstandard = pytest.importorskip("zstandard")
    data = bytes(100_000)
    packed = base64.b64encode(zstandard.ZstdCompressor().compress(data)).decode()
    shown = {**UI_ACCOUNT, "data": [packed, "base64+zstd"], "space": len(data)}
    with serving(valued(shown)) as (rpc, endpoint):
        account = rpc.get_account_info(TOKEN, encoding="base64+zstd")
    assert account is not None
    assert account.data == data
    assert endpoint.calls[0][1][1]["encoding"] == "base64+zstd"


def test_parsed_data_where_the_server_has_a_parser() -> None:
    parsed = {"program": "spl-token", "parsed": {"type": "account"}, "space": 165}
    rows = [
        {"pubkey": SYSTEM, "account": {**UI_ACCOUNT, "data": parsed}},
        {"pubkey": TOKEN, "account": UI_ACCOUNT},
    ]
    with serving(result(rows)) as (rpc, endpoint):
        found = rpc.get_program_accounts(TOKEN, encoding="jsonParsed")
    expected = ParsedAccount("spl-token", {"type": "account"}, 33594, TOKEN, False, 165, 2**64 - 1)
    assert found == [(SYSTEM, expected), (TOKEN, ACCOUNT)]
    assert endpoint.calls[0][1][1]["encoding"] == "jsonParsed"


def test_an_encoding_that_is_none() -> None:
    with RpcClient("http://127.0.0.1:1") as rpc, pytest.raises(InvalidParamsError, match="base58"):
        rpc.get_account_info(TOKEN, encoding="base58")  # type: ignore[call-overload]


def lookup_table(
    *addresses: bytes, authority: bytes | None = None, deactivation: int = 2**64 - 1
) -> Answer:
    data = struct.pack(
        "<IQQBB32s2x", 1, deactivation, 40, 1, authority is not None, authority or bytes(32)
    ) + b"".join(addresses)
    encoded = base64.b64encode(data).decode()
    owner = LOOKUP_TABLE_PROGRAM
    return valued({**UI_ACCOUNT, "data": [encoded, "base64"], "owner": owner, "space": len(data)})


def test_lookup_tables() -> None:
    token = bytes(Pubkey.from_string(TOKEN))
    answers = (
        lookup_table(bytes(32), token),
        lookup_table(authority=token, deactivation=50),
        valued(None),
    )
    with serving(*answers) as (rpc, endpoint):
        tables = [rpc.get_address_lookup_table(SYSTEM) for _ in answers]
    assert tables == [
        AddressLookupTable((SYSTEM, TOKEN), None, None, 40, 1),
        AddressLookupTable((), TOKEN, 50, 40, 1),
        None,
    ]
    assert endpoint.calls[0] == ("getAccountInfo", [SYSTEM, BASE64])


@pytest.mark.parametrize(
    "data", [b"", bytes(56), struct.pack("<IQQBB32s2xB", 1, 0, 0, 0, 0, b"", 1)]
)
def test_what_is_no_lookup_table(data: bytes) -> None:
    encoded = base64.b64encode(data).decode()
    shown = {**UI_ACCOUNT, "data": [encoded, "base64"], "owner": LOOKUP_TABLE_PROGRAM}
    with serving(valued(shown)) as (rpc, _), pytest.raises(DeserializeError, match="lookup table"):
        rpc.get_address_lookup_table(SYSTEM)
    with (
        serving(valued(UI_ACCOUNT)) as (rpc, _),
        pytest.raises(DeserializeError, match="lookup table"),
    ):
        rpc.get_address_lookup_table(SYSTEM)


# --- simulation

SIMULATED = {
    "err": None,
    "logs": ["Program log: hi"],
    "unitsConsumed": 450,
    "accounts": [UI_ACCOUNT, None],
    "returnData": {"programId": TOKEN, "data": ["AQI=", "base64"]},
    "innerInstructions": None,
}


def test_a_simulation() -> None:
    with serving(valued(SIMULATED)) as (rpc, endpoint):
        simulated = rpc.simulate_transaction(
            TX,
            accounts=[TOKEN, Pubkey.default()],
            modify_account_states={SYSTEM: AccountData(b"\1\2\3", 33594, TOKEN)},
        )
    assert (simulated.err, simulated.logs, simulated.units_consumed) == (
        None,
        ("Program log: hi",),
        450,
    )
    assert simulated.accounts == (ACCOUNT, None)
    assert simulated.return_data == ReturnData(TOKEN, b"\1\2")
    assert simulated.raw == SIMULATED
    (method, params) = endpoint.calls[0]
    assert method == "simulateTransaction"
    assert params == [
        TX_BASE64,
        {
            "commitment": "confirmed",
            "encoding": "base64",
            "sigVerify": False,
            "replaceRecentBlockhash": True,
            "accounts": {"encoding": "base64", "addresses": [TOKEN, SYSTEM]},
            "modifyAccountStates": {
                SYSTEM: {
                    "data": {"data": "AQID", "encoding": "base64"},
                    "executable": False,
                    "lamports": 33594,
                    "owner": TOKEN,
                    "space": 3,
                }
            },
        },
    ]


def test_a_failed_simulation_is_a_result() -> None:
    bare = {"err": {"InstructionError": [1, "InvalidAccountData"]}, "logs": None, "accounts": None}
    with serving(valued(bare)) as (rpc, endpoint):
        simulated = rpc.simulate_transaction(TX, sig_verify=True, replace_recent_blockhash=False)
    assert simulated.err == {"InstructionError": [1, "InvalidAccountData"]}
    assert (simulated.logs, simulated.accounts, simulated.units_consumed) == ((), (), None)
    assert simulated.return_data is None
    config = endpoint.calls[0][1][1]
    assert (config["sigVerify"], config["replaceRecentBlockhash"]) == (True, False)
    assert "accounts" not in config
    assert "modifyAccountStates" not in config


def test_a_failed_preflight_has_its_logs() -> None:
    data = {"err": "AccountNotFound", "logs": ["one", "two"], "unitsConsumed": 0}
    with serving(failing(-32002, "Transaction simulation failed", data)) as (rpc, _):
        with pytest.raises(RpcError, match="-32002: Transaction simulation failed") as caught:
            rpc.send_transaction(TX)
    assert caught.value.logs == ("one", "two")
    assert (caught.value.code, caught.value.data) == (-32002, data)
    assert pickle.loads(pickle.dumps(caught.value)).logs == ("one", "two")


# --- modifyAccounts (protocol/subscriptions.md §1.1)

MODIFICATIONS = {
    TOKEN: AccountData(b"\1\2\3", 1, SYSTEM),
    Pubkey.default(): AccountData(b"", 0, SYSTEM),
}


@pytest.mark.parametrize(
    "answer",
    [
        result({"anything": 1}),
        result(None),
        lambda request: {"jsonrpc": "2.0", "id": request["id"], "result": 99, "error": None},
        http("500 Odd", '{"jsonrpc":"2.0","id":1,"result":null}'),
    ],
)
def test_modify_accounts_gives_the_number_of_entries(answer: Answer) -> None:
    with serving(answer) as (rpc, endpoint):
        assert rpc.modify_accounts(MODIFICATIONS) == 2
    ((method, params),) = endpoint.calls
    assert method == "modifyAccounts"
    assert list(params[0]) == [SYSTEM, TOKEN], "in the order of the addresses' bytes"
    assert params[0][TOKEN] == {
        "data": {"data": "AQID", "encoding": "base64"},
        "executable": False,
        "lamports": 1,
        "owner": SYSTEM,
        "space": 3,
    }


@pytest.mark.parametrize(
    "answer",
    [
        failing(-32602, "bad account"),
        http("400 Bad", '{"error":{"code":-32602,"message":"bad account"}}'),
    ],
    ids=["200", "400"],
)
def test_modify_accounts_fails_in_the_references_words(answer: Answer) -> None:
    with serving(answer) as (rpc, _), pytest.raises(RpcError) as caught:
        rpc.modify_accounts(MODIFICATIONS)
    error = caught.value
    assert isinstance(error, HttpError)
    assert str(error) == (
        f"HTTP request to {rpc.endpoint} failed: modifyAccounts RPC error: "
        '{"code":-32602,"message":"bad account"}'
    )
    assert (error.code, error.message, error.url) == (-32602, "bad account", rpc.endpoint)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.code, again.url) == (str(error), error.code, error.url)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (http("503 Service Unavailable", "not ready"), HttpStatusError),
        (http("403 Forbidden", '{"message":"no"}'), HttpStatusError),
        (http("200 OK", "<html>"), HttpError),
    ],
)
def test_modify_accounts_without_a_json_answer_fails_at_once(answer: Answer, error: type) -> None:
    with serving(answer) as (rpc, endpoint), pytest.raises(error):
        rpc.modify_accounts(MODIFICATIONS)
    assert len(endpoint.requests) == 1


def test_modifications_that_are_none() -> None:
    with RpcClient("http://127.0.0.1:1") as rpc:
        with pytest.raises(InvalidParamsError, match="modifications"):
            rpc.modify_accounts({TOKEN: {"lamports": 1}})  # type: ignore[dict-item]
        with pytest.raises(InvalidParamsError, match="modifications"):
            rpc.modify_accounts({"abc": AccountData(b"", 0, SYSTEM)})


# --- batches


def test_a_batch_is_one_request_with_results_in_order() -> None:
    def answer(requests: Any) -> Any:
        answers = [
            failing(-32601, "Method not found")(request) if request["method"] == "getX" else
            result([request["method"], request["params"]])(request)
            for request in requests
        ]  # fmt: skip
        return answers[::-1]

    with serving(answer) as (rpc, endpoint):
        first, failed, last = rpc.batch([("getSlot", []), ("getX", []), ("getBalance", (TOKEN,))])
        assert rpc.batch([]) == []
    assert (first, last) == (["getSlot", []], ["getBalance", [TOKEN]])
    assert isinstance(failed, RpcError)
    assert failed.code == -32601
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (lambda _: failing(-32600, "no batches")({"id": None}), RpcError),
        (lambda _: {"result": 1, "id": 1}, DeserializeError),
        (lambda requests: [result(1)(requests[0])], DeserializeError),
        (lambda requests: [result(1)(requests[0])] * 2, DeserializeError),
        (
            lambda requests: (
                [result(1)(request) for request in requests] + [{"id": 99, "result": 1}]
            ),
            DeserializeError,
        ),
        (lambda _: [1, 2], DeserializeError),
    ],
    ids=["refused", "one", "too few", "twice", "too many", "no objects"],
)
def test_a_batch_that_is_not_answered_call_by_call(answer: Answer, error: type) -> None:
    with serving(answer) as (rpc, _), pytest.raises(error):
        rpc.batch([("getSlot", []), ("getHealth", [])])


# --- repeating


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backtest_sync.replies.RETRY_PAUSE", 0.001)


@pytest.mark.usefixtures("_quick")
def test_reads_wait_for_a_session_that_is_not_ready() -> None:
    busy = http("503 Service Unavailable", "not ready")
    with serving(busy, busy, result(7)) as (rpc, endpoint):
        assert rpc.get_slot() == 7
    assert len(endpoint.requests) == 3
    with serving(busy, valued(SIMULATED)) as (rpc, endpoint):
        rpc.simulate_transaction(TX)
    with serving(busy, lambda requests: [result(1)(requests[0])]) as (rpc, endpoint):
        assert rpc.batch([("getSlot", [])]) == [1]


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize(
    "change",
    [
        lambda rpc: rpc.send_transaction(TX),
        lambda rpc: rpc.call("requestAirdrop", [TOKEN, 1]),
        lambda rpc: rpc.batch([("getSlot", []), ("sendTransaction", [TX_BASE64])]),
    ],
)
def test_what_changes_something_is_sent_once(change: Answer) -> None:
    with serving(http("503 Service Unavailable", "not ready")) as (rpc, endpoint):
        with pytest.raises(HttpStatusError, match="503 Service Unavailable"):
            change(rpc)
    assert len(endpoint.requests) == 1


def test_the_limit_ends_the_tries_with_what_was_wrong() -> None:
    with serving(http("503 Service Unavailable", "not ready"), timeout=0.3) as (rpc, endpoint):
        with pytest.raises(HttpStatusError, match="not ready"):
            rpc.get_slot()
    assert len(endpoint.requests) >= 2


def test_an_endpoint_that_never_answers() -> None:
    def silent(_: Any) -> Any:
        over.wait(10)
        return None

    over = threading.Event()
    with serving(silent, timeout=0.1) as (rpc, _):
        with pytest.raises(RequestTimeoutError):
            rpc.get_slot()
        over.set()


# --- bad answers, bad calls


@pytest.mark.parametrize(
    ("answer", "error", "reason"),
    [
        (failing(-32601, "Method not found"), RpcError, "RPC error -32601: Method not found"),
        (http("400 Bad", '{"error":{"code":1,"message":"m"}}'), RpcError, "RPC error 1: m"),
        (lambda r: {"id": r["id"], "error": "plain"}, RpcError, "RPC error 0: plain"),
        (lambda r: {"id": r["id"], "error": {}}, RpcError, "RPC error 0: {}"),
        (http("404 Not Found", "no session"), HttpStatusError, "404 Not Found from .*no session"),
        (http("403 Forbidden", '{"error":"no"}'), HttpStatusError, "403"),
        (http("200 OK", "<html>"), HttpError, "no JSON"),
        (lambda r: {"id": r["id"]}, DeserializeError, "neither result nor error"),
        (lambda _: [], DeserializeError, "no object"),
        (lambda r: {"id": r["id"] + 1, "result": 7}, DeserializeError, "another request"),
        (result("7"), DeserializeError, "getSlot: expected a whole number, got '7'"),
        (result(-7), DeserializeError, "getSlot"),
        (result(True), DeserializeError, "getSlot"),
        (result(None), DeserializeError, "getSlot"),
    ],
)
def test_bad_answers(answer: Answer, error: type, reason: str) -> None:
    with serving(answer) as (rpc, _), pytest.raises(error, match=reason):
        rpc.get_slot()


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        (lambda rpc: rpc.get_balance(TOKEN), result(5)),
        (lambda rpc: rpc.get_balance(TOKEN), result({"context": CONTEXT})),
        (lambda rpc: rpc.get_latest_blockhash(), valued(None)),
        (lambda rpc: rpc.get_account_info(TOKEN), valued({})),
        (lambda rpc: rpc.get_account_info(TOKEN), valued({**UI_ACCOUNT, "data": ["!", "base64"]})),
        (lambda rpc: rpc.get_account_info(TOKEN), valued({**UI_ACCOUNT, "data": {}})),
        (lambda rpc: rpc.get_account_info(TOKEN), valued([])),
        (lambda rpc: rpc.get_multiple_accounts([TOKEN]), valued([])),
        (lambda rpc: rpc.get_multiple_accounts([TOKEN]), valued({})),
        (lambda rpc: rpc.get_program_accounts(TOKEN), result([{"pubkey": TOKEN}])),
        (lambda rpc: rpc.get_program_accounts(TOKEN), result({})),
        (lambda rpc: rpc.get_token_account_balance(TOKEN), valued({"amount": 5})),
        (lambda rpc: rpc.get_signature_statuses([SIGNATURE]), valued([1])),
        (lambda rpc: rpc.simulate_transaction(TX), valued({"logs": []})),
        (lambda rpc: rpc.simulate_transaction(TX), valued({"err": None, "logs": [1]})),
        (lambda rpc: rpc.simulate_transaction(TX), valued({"err": None, "accounts": 5})),
        (
            lambda rpc: rpc.simulate_transaction(TX),
            valued({"err": None, "returnData": {"data": []}}),
        ),
        (lambda rpc: rpc.send_transaction(TX), result(None)),
        (lambda rpc: rpc.get_transaction(SIGNATURE), result({"slot": "x"})),
    ],
)
def test_answers_of_another_shape(call: Answer, answer: Answer) -> None:
    def read(rpc: RpcClient) -> None:
        found = call(rpc)
        assert found.data  # an account's data may be decoded when it is asked for

    with serving(answer) as (rpc, _), pytest.raises(DeserializeError):
        read(rpc)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda rpc: rpc.get_balance("abc"), "address"),
        (lambda rpc: rpc.get_multiple_accounts(TOKEN), "addresses"),
        (lambda rpc: rpc.get_multiple_accounts([TOKEN, "x"]), r"addresses\[1\]"),
        (lambda rpc: rpc.get_minimum_balance_for_rent_exemption(-1), "size"),
        (lambda rpc: rpc.get_transaction("abc"), "signature"),
        (lambda rpc: rpc.get_transaction(b"abc"), "signature"),
        (lambda rpc: rpc.get_signature_statuses([None]), "signature"),
        (lambda rpc: rpc.send_transaction("not base64!"), "tx"),
        (lambda rpc: rpc.simulate_transaction(7), "tx"),
        (lambda rpc: rpc.simulate_transaction(TX, accounts=["x"]), r"accounts\[0\]"),
        (
            lambda rpc: rpc.simulate_transaction(TX, modify_account_states={"x": 1}),
            "modify_account_states",
        ),
        (lambda rpc: rpc.call("", []), "method"),
        (lambda rpc: rpc.call("getSlot", "abc"), "params"),
        (lambda rpc: rpc.call("getBalance", [Pubkey.default()]), "JSON"),
        (lambda rpc: rpc.call("getX", [float("nan")]), "JSON"),
    ],
)
def test_bad_calls_send_nothing(call: Answer, reason: str) -> None:
    # nobody listens there: anything sent would be an HttpError
    with RpcClient("http://127.0.0.1:1", timeout=1) as rpc:
        with pytest.raises(InvalidParamsError, match=reason):
            call(rpc)


@pytest.mark.parametrize(
    ("endpoint", "options"),
    [("ws://h/x", {}), ("/backtest/x", {}), ("http://h", {"commitment": "max"})],
)
def test_clients_that_cannot_be(endpoint: str, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidParamsError, match=r"endpoint|commitment"):
        RpcClient(endpoint, **options)


def test_the_repr_shows_no_credentials() -> None:
    with RpcClient("https://user:pass@h/x?api-key=secret") as rpc:
        assert repr(rpc) == "RpcClient('https://h/x')"


def test_threads_share_a_client() -> None:
    given = []

    def work(rpc: RpcClient, n: int) -> None:
        given.extend(rpc.call("getX", [n, i]) == [n, i] for i in range(20))

    with serving(lambda request: result(request["params"])(request)) as (rpc, _):
        threads = [threading.Thread(target=work, args=(rpc, n)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert given == [True] * 120
