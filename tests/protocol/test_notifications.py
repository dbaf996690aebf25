"""Notifications and their framing: the reference's cases, the shapes that are refused, values as values."""

from __future__ import annotations

import base64
import contextlib
import json
import pickle
from typing import Any

import attrs
import pytest
from hypothesis import given, settings, strategies as st

from backtest_sync.errors import DeserializeError
from backtest_sync.protocol import (
    Account,
    AccountDiffNotification,
    AccountNotification,
    ActionResultNotification,
    Context,
    DiagnosticNotification,
    DirectFillReplacement,
    EncodedBinary,
    L1Score,
    LogNotification,
    OriginalReplacement,
    ProgramNotification,
    ReplacementNotification,
    RequoteReplacement,
    SignatureNotification,
    SlotInfoNotification,
    TransactionNotification,
    blobs,
    pubsub,
)
from backtest_sync.protocol.fields import b58encode
from tests.protocol.vectors import Case, by_function, cases

OWNER = "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA"
SIGNATURE = b58encode(bytes(range(64)))
LOG = {"context": {"slot": 5}, "value": {"signature": "s", "err": None, "logs": ["a", "b"]}}


def result_of(case: Case) -> Any:
    return json.loads(case["text"])["params"]["result"]


def refused(read: Any, raw: Any) -> DeserializeError:
    with pytest.raises(DeserializeError) as caught:
        read(raw)
    return caught.value


# --- the reference's cases


def check_account_diff(case: Case) -> None:
    message = json.loads(case["text"])
    decoded = case["decoded"]
    if decoded is None and message.get("method") != "accountDiffNotification":
        assert pubsub.read_ack(message) is not None or message["method"] == "accountNotification"
        return
    raw = message["params"]["result"]
    if decoded is None:
        refused(AccountDiffNotification, raw)
        return
    diff = AccountDiffNotification(raw)
    assert pubsub.subscription_of(message) == decoded["subscription"]
    assert diff.context.slot == decoded["slot"]
    assert diff.raw == raw
    for name in ("account", "signature", "tx_index", "block_time"):
        assert getattr(diff, name) == decoded[name]
    assert (diff.pre is None) == (decoded["pre"] is None)
    if decoded["post_account"] is None:
        assert diff.post is None
    elif decoded["post_account"]["ok"]:
        check_account(diff.post, decoded["post_account"]["value"])
    else:
        with pytest.raises(DeserializeError):
            _ = diff.post


def check_account(account: Account | None, value: Any) -> None:
    assert account is not None
    assert account.lamports == value["lamports"]
    assert account.owner == value["owner"]
    assert account.executable is value["executable"]
    assert account.space == value["space"]


#: Accounts that the reference refuses, taken here: what it lacks or has wrong is not what they are read for.
ACCOUNTS_TAKEN = {
    "account_from_ui_05": "rentEpoch is of no use here, and the node's newer answers may lack it",
    "account_from_ui_25": "an owner is kept as the text that it came as",
}


def check_account_data(case: Case) -> None:
    diff = AccountDiffNotification({"context": {"slot": 1}, "pre": case["input"]})
    if case["ok"]:
        check_account(diff.pre, case["value"])
    elif case["name"] in ACCOUNTS_TAKEN:
        assert diff.pre is not None
    else:
        with pytest.raises(DeserializeError):
            _ = diff.pre


def check_action_result(case: Case) -> None:
    raw, decoded = result_of(case), case["decoded"]
    if decoded is None:
        assert refused(ActionResultNotification.from_json, raw).raw
        return
    action = ActionResultNotification.from_json(raw)
    assert action.context.slot == decoded["context_slot"]
    assert list(action.accounts) == decoded["accounts"]
    assert list(action.transaction_outcomes) == decoded["transaction_outcomes"]
    for name in (
        "slot",
        "action_index",
        "batch_index",
        "tx_index",
        "label",
        "committed",
        "matched",
    ):
        assert getattr(action, name) == decoded[name]


def check_diagnostic(case: Case) -> None:
    raw, decoded = result_of(case), case["decoded"]
    if decoded is None:
        refused(DiagnosticNotification.from_json, raw)
        return
    sample = DiagnosticNotification.from_json(raw)
    assert sample.context.slot == decoded["context_slot"]
    assert list(sample.account_hashes) == decoded["account_hashes"]
    for name in (
        "slot",
        "probe_index",
        "label",
        "market",
        "usd_value",
        "router_slot",
        "results",
        "err",
    ):
        assert getattr(sample, name) == decoded[name]
    assert sample.to_json() == json.loads(case["reserialised_text"])


def check_replacement(case: Case) -> None:
    raw = json.loads(case["notification_text"])["params"]["result"]
    replacement = ReplacementNotification.from_json(raw)
    assert replacement.to_json() == case["wire"]
    assert replacement.raw == raw
    assert replacement.kind == case["wire"]["kind"]
    assert pickle.loads(pickle.dumps(replacement)) == replacement


def check_replacement_read(case: Case) -> None:
    raw = json.loads(case["text"])
    if case["ok"]:
        replacement = ReplacementNotification.from_json(raw)
        assert replacement.to_json() == json.loads(case["reserialised_text"])
        assert replacement.raw is raw
    else:
        refused(ReplacementNotification.from_json, raw)


def check_l1_score(case: Case) -> None:
    score = L1Score.of(case["measured"], case["l1_fill"], case["mode"])
    wire = {"l1Fill": score.l1_fill, "changeVsL1Bps": score.change_vs_l1_bps}
    wire = {key: value for key, value in wire.items() if value is not None}
    assert wire == json.loads(case["wire_text"])
    if score.change_vs_l1_bps is not None:
        assert (abs(score.change_vs_l1_bps) == 100_000) is case["clamped"]


def check_transaction(case: Case) -> None:
    raw = result_of(case)
    if not case["ok"]:
        refused(TransactionNotification, raw)
        return
    transaction = TransactionNotification(raw)
    again = json.loads(case["reserialised_text"])
    meta = again["meta"] or {}
    assert transaction.slot == case["slot"]
    assert transaction.block_time == case["block_time"]
    assert transaction.err == meta.get("err")
    assert list(transaction.logs) == (meta.get("logMessages") or [])
    assert transaction.fee == meta.get("fee")
    assert transaction.compute_units == meta.get("computeUnitsConsumed")


def check_end_marker(case: Case) -> None:
    try:
        message = json.loads(case["text"])
    except ValueError:
        message = case["text"]
    assert pubsub.is_end_marker(message) is case["simple"]
    if case["simple"]:
        assert pubsub.subscription_of(message) == case["reconnecting"]


def check_request(case: Case) -> None:
    for request_id, request in enumerate(case["requests"], 1):
        params = request["params"]
        text = pubsub.subscribe_request(request_id, request["method"], params)
        assert json.loads(text) == request


def check_options(case: Case) -> None:
    options = pubsub.options(
        replay_from_slot=case["replay_from_slot"],
        compression=case["compression"] == "zstd",
        intra_slot_updates=case["intra_slot_updates"],
    )
    assert options == json.loads(case["wire_text"])
    assert pubsub.with_options(case["params_before"], options) == case["params_after"]


def check_merging(case: Case) -> None:
    before = case["params_before"]
    options = pubsub.options(replay_from_slot=7, compression=True, intra_slot_updates=True)
    if case["changed"]:
        assert pubsub.with_options(before, options) == case["params_after"]
    elif before == [before[0]] if isinstance(before, list) else False:
        # the reference leaves options out of a bare address; here it gets an object to carry them
        assert pubsub.with_options(before, options) == [*before, options]
    # the other shapes, a null or a list where the object goes, are none that a client writes


def check_server_side(case: Case) -> None:
    """What a server makes of options is the simulator's to test (its endpoint reads them)."""
    assert case["function"] == "subscribe_config_read"


def check_compression(case: Case) -> None:
    unzip = blobs.StreamDecompressor().feed
    messages = [unzip(base64.b64decode(frame)).decode() for frame in case["frames_base64"]]
    assert messages == case["messages"]


def check_broken_compression(case: Case) -> None:
    unzip = blobs.StreamDecompressor().feed
    frames = [base64.b64decode(frame) for frame in case["frames_base64"]]
    for frame, due in zip(frames, case["results_until_first_error"], strict=False):
        if due["ok"]:
            assert unzip(frame) == base64.b64decode(due["bytes_base64"])
        else:
            with pytest.raises(ValueError, match="corrupt zstd data"):
                unzip(frame)


def check_elsewhere(case: Case) -> None:
    """Whole connections: those of subscriptions are played in tests/test_subscriptions.py."""
    assert case["name"].startswith("ws_")


@by_function(
    "subscriptions",
    {
        "account_diff": check_account_diff,
        "account_data_from_ui": check_account_data,
        "action_result": check_action_result,
        "diagnostic": check_diagnostic,
        "replacement": check_replacement,
        "replacement_read": check_replacement_read,
        "l1_score": check_l1_score,
        "transaction_notification": check_transaction,
        "subscription_complete": check_end_marker,
        "subscribe_request": check_request,
        "subscribe_config": check_options,
        "subscribe_config_apply": check_merging,
        "subscribe_config_read": check_server_side,
        "compression": check_compression,
        "compression_broken": check_broken_compression,
        "captured_connections": check_elsewhere,
    },
)
def test_the_reference(check: Any, case: Case) -> None:
    check(case)


# --- account diffs


def test_account_data_is_decoded_when_it_is_asked_for() -> None:
    ui = {"data": ["!!!", "base64"], "lamports": 1, "owner": OWNER, "executable": False, "space": 3}
    diff = AccountDiffNotification({"context": {"slot": 1}, "pre": None, "post": ui})
    assert diff.pre is None
    assert diff.post is not None
    assert diff.post is diff.post
    assert diff.post.lamports == 1
    with pytest.raises(DeserializeError):
        _ = diff.post.data


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (None, "not an object"),
        ([], "not an object"),
        ({}, "missing field `context`"),
        ({"context": 5}, "not an object"),
        ({"context": {}}, "missing field `slot`"),
        ({"context": {"slot": -1}}, "context.slot: expected a u64, got -1"),
        ({"context": {"slot": 2**64}}, "context.slot"),
        ({"context": {"slot": True}}, "context.slot"),
        ({"context": {"slot": 1}, "account": 5}, "account: expected a string, got 5"),
        ({"context": {"slot": 1}, "signature": []}, "signature"),
        ({"context": {"slot": 1}, "tx_index": "0"}, "tx_index: expected an integer"),
        ({"context": {"slot": 1}, "block_time": 1.5}, "block_time"),
    ],
)
def test_an_account_diff_of_another_shape_is_refused_with_the_reason(raw: Any, reason: str) -> None:
    error = refused(AccountDiffNotification, raw)
    assert reason in str(error)
    assert "AccountDiffNotification" in str(error)
    assert json.loads(error.raw) == raw


def test_the_usual_diff_and_the_odd_one_are_the_same_value() -> None:
    usual = {
        "context": {"slot": 1},
        "account": OWNER,
        "signature": "s",
        "tx_index": 3,
        "block_time": 4,
    }
    assert AccountDiffNotification(usual).tx_index == 3
    assert AccountDiffNotification({**usual, "account": None}).account is None


# --- logs


def test_logs() -> None:
    log = LogNotification(LOG)
    assert log.context == Context(5)
    assert log.value.signature == "s"
    assert log.value.err is None
    assert log.value.logs == ("a", "b")
    assert repr(log) == "LogNotification(slot=5, signature='s', err=None, logs=<2 lines>)"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "not an object"),
        ({}, "missing field"),
        ({"signature": "s", "logs": []}, "missing field `err`"),
        ({"signature": 1, "err": None, "logs": []}, "value.signature"),
        ({"signature": "s", "err": None, "logs": None}, "value.logs: expected a list, got null"),
    ],
)
def test_logs_of_another_shape_are_refused(value: Any, reason: str) -> None:
    assert reason in str(refused(LogNotification, {"context": {"slot": 5}, "value": value}))
    assert "context" in str(refused(LogNotification, {"value": LOG["value"]}))


# --- transactions


def transaction(**fields: Any) -> TransactionNotification:
    return TransactionNotification({"slot": 5, "meta": None, **fields})


def test_the_signature_of_every_form_of_a_transaction() -> None:
    data = bytes([1]) + bytes(range(64)) + b"message"
    encoded = base64.b64encode(data).decode()
    assert transaction(transaction={"signatures": [SIGNATURE]}).signature == SIGNATURE
    assert transaction(transaction=[encoded, "base64"]).signature == SIGNATURE
    assert transaction(transaction=[b58encode(data), "base58"]).signature == SIGNATURE
    assert transaction(transaction=b58encode(data)).signature == SIGNATURE


@pytest.mark.parametrize(
    "broken", [{"signatures": []}, ["AQID", "base64"], ["!", "base64"], ["0", "base58"], "0OIl"]
)
def test_a_transaction_without_a_signature_says_so_when_asked(broken: Any) -> None:
    notification = transaction(transaction=broken)
    with pytest.raises(DeserializeError):
        _ = notification.signature


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"transaction": 5},
        {"transaction": ["x", "hex"]},
        {"transaction": "x", "slot": "5"},
        {"transaction": "x", "blockTime": "1"},
        {"transaction": "x", "meta": []},
        {"transaction": "x", "meta": {"fee": "5000"}},
        {"transaction": "x", "meta": {"computeUnitsConsumed": 1.5}},
        {"transaction": "x", "meta": {"logMessages": "text"}},
        {"transaction": "x", "version": "next"},
    ],
)
def test_a_transaction_of_another_shape_is_refused(fields: Any) -> None:
    with pytest.raises(DeserializeError):
        transaction(**fields)


# --- actions, samples, replacements


def test_an_action_result_whole() -> None:
    ui = {
        "data": ["AQID", "base64"],
        "lamports": 7,
        "owner": OWNER,
        "executable": False,
        "space": 3,
    }
    raw = {
        "context": {"slot": 5},
        "slot": 5,
        "batchIndex": 1,
        "txIndex": 2,
        "actionIndex": 3,
        "label": "mine",
        "committed": True,
        "transactionOutcomes": [
            {
                "err": None,
                "logs": ["a"],
                "unitsConsumed": 10,
                "fee": 5000,
                "returnData": {"data": []},
            },
            {"err": "custom", "unitsConsumed": 0},
        ],
        "accounts": [None, ui],
        "matched": {"data": "AQID", "encoding": "base64"},
    }
    action = ActionResultNotification.from_json(raw)
    assert [outcome.units_consumed for outcome in action.transaction_outcomes] == [10, 0]
    assert action.transaction_outcomes[0].logs == ("a",)
    assert action.transaction_outcomes[1].err == "custom"
    absent, account = action.accounts
    assert absent is None
    assert account is not None
    assert account.data == b"\1\2\3"
    assert action.matched == EncodedBinary("AQID")
    assert action.raw is raw
    assert pickle.loads(pickle.dumps(action)) == action


def test_a_broken_account_of_an_action_is_told_when_it_is_asked_for() -> None:
    raw = {
        "context": {"slot": 5},
        "slot": 5,
        "actionIndex": 0,
        "committed": False,
        "accounts": [{}],
    }
    action = ActionResultNotification.from_json(raw)
    with pytest.raises(DeserializeError):
        _ = action.accounts


def test_the_kinds_of_replacements_are_classes() -> None:
    common = {
        "context": {"slot": 5},
        "slot": 6,
        "batchIndex": 0,
        "originalSignature": SIGNATURE,
        "outcome": "filled",
        "computeUnitsConsumed": 1,
    }
    original = ReplacementNotification.from_json({"kind": "original", **common})
    assert type(original) is OriginalReplacement
    assert original.route_plan is None
    assert "change_vs_l1_bps=None" in repr(original)
    quoted = {
        "legs": [],
        "logs": ["x"],
        "routedTransaction": {"data": "AQID", "encoding": "base64"},
    }
    requote = ReplacementNotification.from_json(
        {"kind": "requote", **common, **quoted, "l1Fill": 9}
    )
    assert type(requote) is RequoteReplacement
    assert requote.routed_transaction.bytes == b"\1\2\3"
    assert requote.score == L1Score(9, None)
    error = refused(DirectFillReplacement.from_json, {"kind": "directFill", **common})
    assert "missing field `template`" in str(error)
    assert "expected a kind" in str(refused(ReplacementNotification.from_json, common))
    assert "expected a kind" in str(refused(ReplacementNotification.from_json, []))


@pytest.mark.parametrize(
    ("measured", "l1_fill", "mode", "bps"),
    [(0, 1000, "ExactIn", None), (10_100, 1000, "ExactIn", 91_000), (11_000, 1000, "ExactIn", 100_000),
     (99_999, 1000, "ExactIn", 100_000), (12_000, 1000, "ExactOut", -100_000),
     (999, 1000, "Sideways", -10)],
)  # fmt: skip
def test_scores(measured: int, l1_fill: int, mode: str, bps: int | None) -> None:
    assert L1Score.of(measured, l1_fill, mode).change_vs_l1_bps == bps


# --- Solana's own


def test_the_standard_notifications() -> None:
    ui = {
        "data": ["AQID", "base64"],
        "lamports": 7,
        "owner": OWNER,
        "executable": False,
        "space": 3,
    }
    account = AccountNotification({"context": {"slot": 5}, "value": ui})
    assert account.context.slot == 5
    assert account.value.data == b"\1\2\3"
    program = ProgramNotification(
        {"context": {"slot": 5}, "value": {"pubkey": OWNER, "account": ui}}
    )
    assert program.address == OWNER
    assert program.account == account.value
    signature = SignatureNotification({"context": {"slot": 5}, "value": {"err": None}})
    assert signature.err is None
    slot = SlotInfoNotification({"slot": 5, "parent": 4, "root": 3})
    assert (slot.slot, slot.parent, slot.root) == (5, 4, 3)
    assert [repr(n) for n in (account, program, signature, slot)] == [
        "AccountNotification(context=Context(slot=5))",
        f"ProgramNotification(context=Context(slot=5), address={OWNER!r})",
        "SignatureNotification(context=Context(slot=5), err=None)",
        "SlotInfoNotification(slot=5, parent=4, root=3)",
    ]


@pytest.mark.parametrize(
    ("read", "raw"),
    [
        (AccountNotification, {"context": {"slot": 5}, "value": None}),
        (ProgramNotification, {"context": {"slot": 5}, "value": {"pubkey": 5, "account": {}}}),
        (ProgramNotification, {"context": {"slot": 5}, "value": {"pubkey": OWNER, "account": []}}),
        (SignatureNotification, {"context": {"slot": 5}, "value": "receivedSignature"}),
        (SlotInfoNotification, {"slot": 5, "parent": 4}),
        (SlotInfoNotification, 5),
    ],
)
def test_standard_notifications_of_another_shape_are_refused(read: Any, raw: Any) -> None:
    refused(read, raw)


# --- as values


@pytest.mark.parametrize("notification", [LogNotification(LOG), transaction(transaction="x"),
                                          AccountDiffNotification({"context": {"slot": 5}})])  # fmt: skip
def test_notifications_are_frozen_equal_by_value_and_travel(notification: Any) -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        notification.raw = {}
    with pytest.raises(AttributeError):
        notification.new = 1
    again = pickle.loads(pickle.dumps(notification))
    assert again == notification
    assert again != type(notification)({**notification.raw, "more": 1})
    assert attrs.has(type(notification))


# --- framing


@pytest.mark.parametrize(
    ("message", "subscription", "problem"),
    [
        ({"jsonrpc": "2.0", "id": 1, "result": 7}, 7, None),
        ({"id": 1, "result": 0}, 0, None),
        ({"id": 1}, None, "subscribe ack missing result"),
        ({"id": 1, "result": None}, None, "subscribe ack missing result"),
        ({"id": 1, "result": "7"}, None, "subscribe ack missing result"),
        ({"id": 1, "result": True}, None, "subscribe ack missing result"),
        ({"id": 1, "error": {"code": -32602}}, None, 'subscribe rejected: {"code":-32602}'),
    ],
)
def test_acks(message: Any, subscription: int | None, problem: str | None) -> None:
    assert pubsub.read_ack(message) == pubsub.Ack(1, subscription, problem)


@pytest.mark.parametrize("message", [5, [], {"result": 7}, {"id": 1, "method": "x", "result": 7}])
def test_what_is_no_ack(message: Any) -> None:
    assert pubsub.read_ack(message) is None


# --- whatever a peer may send

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
READERS = {
    "account_diff": AccountDiffNotification,
    "action_result": ActionResultNotification.from_json,
    "diagnostic": DiagnosticNotification.from_json,
    "replacement": ReplacementNotification.from_json,
    "transaction_notification": TransactionNotification,
}
WHOLE = [
    (READERS[case["function"]], json.loads(case["text" if "text" in case else "notification_text"]))
    for case in cases("subscriptions")
    if case["function"] in READERS
] + [(LogNotification, {"params": {"result": LOG}})]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where a JSON value can be changed."""
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [path] + [place for key, item in inner for place in places(item, (*path, key))]


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """The value with another one at a place."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = changed(value[path[0]], path[1:], new)
    return copy


@given(st.data())
@settings(max_examples=500, deadline=None)
def test_any_json_is_a_notification_or_a_documented_error(data: st.DataObject) -> None:
    read, message = data.draw(st.sampled_from(WHOLE))
    raw = message.get("params", {}).get("result")
    raw = changed(raw, data.draw(st.sampled_from(places(raw))), data.draw(JSON))
    try:
        notification = read(raw)
    except DeserializeError:
        return
    assert notification.raw is raw
    for name in dir(type(notification)):
        if not name.startswith("_"):
            with contextlib.suppress(DeserializeError):
                getattr(notification, name)
    assert repr(notification).startswith(type(notification).__name__)
    assert pickle.loads(pickle.dumps(notification)) == notification
