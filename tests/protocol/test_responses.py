"""Responses: the reference's texts both ways, verdicts on broken ones, what a newer server adds."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest

from backtest_sync.errors import DeserializeError, InvalidParamsError, RemoteError
from backtest_sync.protocol import (
    BacktestStatus,
    Completed,
    ErrorDetail,
    ErrorKind,
    ErrorResponse,
    Paused,
    ReadyForContinue,
    SessionCreated,
    SessionEventV2,
    SlotNotification,
    StatusResponse,
    Success,
    UnknownResponse,
    codec,
    decode_response,
    encode_response,
    errors,
    jsontext,
)
from backtest_sync.protocol.responses import RESPONSES
from tests.protocol.vectors import Case, cases, every_case

SESSION = "backtest_0198f3a1c2d34e5f8a9b0c1d2e3f4a5b"

_NEWER = "a name that a newer server may have added becomes a value"
_GUIDE = "the spelling of the public guide, which a tolerant reader may take"
_HOT = (
    "a repeated key of a message that comes by the million is not looked for: the last one counts"
)
_DEPTH = "nesting is capped at another depth"

#: Texts that the reference refuses and that are taken here, with or without a sequence.
TAKEN = {
    "unknown_method": _NEWER,
    "snake_method": _NEWER,
    "params_first_bad": _NEWER,
    "status_unknown": _NEWER,
    "status_pascal": _NEWER,
    "error_unknown": _NEWER,
    "error_string_plain": _NEWER,
    "created_camel": _GUIDE,
    "method_dup_seq": _HOT,
    "params_dup": _HOT,
    "params_dup_seq": _HOT,
    "deep_127": _DEPTH,
    "deep_200": _DEPTH,
}
#: Texts that the reference takes by an accident of its library and that are refused here.
REFUSED = {
    "list": "a message written as a list",
    "lone_surrogate_ignored": "half a character, even where nobody looks",
    "error_unit_object": "fields of an error that has none, which it takes only beside a sequence",
}
#: Messages whose sequence differs: the reference gives up on a repeated one.
OTHER_SEQUENCE = {"seq_dup": _HOT}


@every_case("responses")
@pytest.mark.parametrize("form", [str, str.encode], ids=["str", "bytes"])
def test_read_and_written_as_the_reference_does(case: Case, form: Any) -> None:
    sequence, response = decode_response(form(case["wire_text"]))
    assert sequence is None
    assert json.loads(encode_response(response)) == case["wire"]
    assert decode_response(form(case["sequenced_text"])) == (case["seq_id"], response)
    assert json.loads(encode_response(response, case["seq_id"])) == json.loads(
        case["sequenced_text"]
    )
    assert response.is_completed == case["is_completed"]
    assert response.is_terminal == case["is_terminal"]
    event = response.event if isinstance(response, SessionEventV2) else response
    assert event.is_terminal == case.get("event_is_terminal", event.is_terminal)
    if isinstance(event, ErrorResponse):
        assert event.error.kind == case["error_kind"]
        assert str(event.error) == case["display"]
        assert event.error.is_terminal == case.get("error_is_terminal", event.is_terminal)
    elif isinstance(event, StatusResponse) and "display" in case:
        assert isinstance(event.status, BacktestStatus)
        assert event.status.label == case["display"]


def _check(name: str, text: str, verdict: Any) -> None:
    taken = (verdict["ok"] or name in TAKEN) and name not in REFUSED
    if not taken:
        with pytest.raises(DeserializeError) as refused:
            decode_response(text)
        assert refused.value.raw == text
        return
    sequence, response = decode_response(text)
    if not verdict["ok"]:
        return
    written = verdict.get("reserialised_text", text)
    assert json.loads(encode_response(response)) == {
        key: value for key, value in json.loads(written).items() if key != "seqId"
    }
    if "seq_id" in verdict and name not in OTHER_SEQUENCE:
        assert sequence == verdict["seq_id"]


@every_case("responses_rejected")
def test_verdict_of_the_reference(case: Case) -> None:
    name = case["name"]
    if name == "error_unit_object":
        assert not case["client"]["ok"]  # it is the form with a sequence that is taken
    _check(name, case["text"], case["client"])
    if "with_seq_id" in case:
        _check(name, case["with_seq_id"]["text"], case["with_seq_id"]["sequenced"])


def test_what_differs_on_purpose_differs() -> None:
    verdicts = {
        case["name"]: {case["client"]["ok"], case.get("with_seq_id", case)["sequenced"]["ok"]}
        for case in cases("responses_rejected")
    }
    assert all(False in verdicts[name] for name in TAKEN)
    assert all(True in verdicts[name] for name in REFUSED)
    assert set(OTHER_SEQUENCE) <= set(verdicts)


# --- a newer server


def test_an_unknown_method_is_a_value() -> None:
    sequence, response = decode_response('{"seqId":3,"method":"teleported","params":{"a":[1]}}')
    assert (sequence, response) == (3, UnknownResponse("teleported", {"a": [1]}))
    assert not response.is_terminal
    assert json.loads(encode_response(response)) == {"method": "teleported", "params": {"a": [1]}}
    assert encode_response(UnknownResponse("x")) == '{"method":"x"}'


def test_a_status_is_found_by_its_wire_spelling() -> None:
    counts = {BacktestStatus.DECODED_TRANSACTIONS: 3}
    assert counts["decodedTransactions"] == 3
    assert {"decodedTransactions"} == set(counts)


def test_an_unknown_status_is_plain_text() -> None:
    _, response = decode_response('{"method":"status","params":{"status":"preparingBundle"}}')
    assert isinstance(response, StatusResponse)
    assert response.status == "preparingBundle"
    assert type(response.status) is str
    assert json.loads(encode_response(response))["params"] == {"status": "preparingBundle"}


@pytest.mark.parametrize(
    ("payload", "fields", "text"),
    [
        ("meltdown", {}, "meltdown"),
        ({"meltdown": {"error": "hot"}}, {"error": "hot"}, "meltdown: hot"),
        ({"meltdown": {"slot": 5}}, {"slot": 5}, 'meltdown: {"slot":5}'),
        ({"meltdown": "hot"}, {"": "hot"}, 'meltdown: "hot"'),
        ({"meltdown": [1]}, {"": [1]}, "meltdown: [1]"),
        ({"meltdown": {}}, {"": {}}, "meltdown: {}"),
        ({"meltdown": {"": 1}}, {"": {"": 1}}, 'meltdown: {"":1}'),
    ],
)
def test_an_unknown_error_is_no_end(payload: Any, fields: Any, text: str) -> None:
    message = {"method": "error", "params": payload}
    _, response = decode_response(json.dumps(message))
    assert response == ErrorResponse(ErrorDetail("meltdown", fields))
    assert isinstance(response, ErrorResponse)
    assert not response.is_terminal
    assert str(response.error) == text
    assert json.loads(encode_response(response)) == message


def test_an_unknown_event_of_a_sub_session_is_a_value_too() -> None:
    event = {"session_id": SESSION, "seq_id": 1, "event": {"method": "new", "params": 5}}
    _, response = decode_response(json.dumps({"method": "sessionEventV2", "params": event}))
    assert response == SessionEventV2(SESSION, 1, UnknownResponse("new", 5))


def test_a_known_method_that_no_event_has_is_refused() -> None:
    event = {"session_id": SESSION, "seq_id": 1, "event": {"method": "sessionsCreatedV2"}}
    with pytest.raises(DeserializeError, match=r"can't come here at \$.params.event.method"):
        decode_response(json.dumps({"method": "sessionEventV2", "params": event}))


def test_the_guides_spelling_is_understood_and_never_sent() -> None:
    params = {"sessionId": SESSION, "rpcEndpoint": "/r"}
    _, response = decode_response(json.dumps({"method": "sessionAttached", "params": params}))
    assert json.loads(encode_response(response))["params"] == {
        "session_id": SESSION,
        "rpc_endpoint": "/r",
    }


# --- refusals


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            '{"method":"completed","params":{"summary":{"correctSimulation":1.0}}}',
            "got 1.0 at $.params.summary.correctSimulation",
        ),
        ('{"method":"slotNotification"}', "missing field `params` at $"),
        ('{"method":"slotNotification","params":-1}', "at $.params"),
        ('{"method":"slotNotification","params":true}', "got true at $.params"),
        ('{"method":"status","params":{"status":5}}', "at $.params.status"),
        ('{"method":"paused","params":{"slot":1,"slot":1}}', "duplicate field `slot` at $.params"),
        (
            '{"method":"error","params":{"internal":{}}}',
            "missing field `error` at $.params.internal",
        ),
        (
            '{"method":"discoveryBatch","params":{"slot":1,"batchIndex":2,"matched":'
            '[{"kind":"oracleUpdate","value":{"programs":["x"]}}],"transactions":[]}}',
            "at $.params.matched[0].value.programs[0]",
        ),
    ],
)
def test_a_refusal_says_where(text: str, reason: str) -> None:
    with pytest.raises(DeserializeError) as refused:
        decode_response(text)
    assert reason in refused.value.reason
    assert "\n" not in str(refused.value)


def test_bytes_that_are_no_utf_8_are_refused() -> None:
    with pytest.raises(DeserializeError) as refused:
        decode_response(b'{"method":"\xff"}')
    assert "\ufffd" in refused.value.raw


@pytest.mark.parametrize(
    "make",
    [
        lambda: SlotNotification(-1),
        lambda: SlotNotification(2**64),
        lambda: Paused(1, -1),
        lambda: SessionCreated("x", "/r"),
        lambda: SessionEventV2(SESSION, 1, SessionCreated(SESSION, "/r")),
        lambda: ErrorResponse("noMoreBlocks"),
        lambda: ErrorDetail(ErrorKind.INTERNAL),
        lambda: ErrorDetail("internal", {"error": 5}),
        lambda: ErrorDetail("noMoreBlocks", {"error": "x"}),
        lambda: ErrorDetail("bundleNotFound", {"start_slot": 1}),
        lambda: ErrorDetail("internal", "x"),
        lambda: Completed({}),
    ],
)
def test_wrong_values_are_refused(make: Any) -> None:
    with pytest.raises(InvalidParamsError):
        make()


# --- the fast way

_HOT_BODIES = [
    '"method":"slotNotification","params":0',
    '"method":"slotNotification","params":18446744073709551615',
    '"method":"slotNotification","params":18446744073709551616',
    '"params":7,"method":"slotNotification"',
    '"method":"slotNotification","params":"5"',
    '"method":"slotNotification","params":[5]',
    '"method":"slotNotification","params":5,"x":1',
    '"method":"readyForContinue"',
    '"method":"readyForContinue","params":null',
    '"method":"readyForContinue","params":{}',
    '"method":"readyForContinue","x":[]',
    '"method":"status","params":{"status":"decodedTransactions"}',
    '"method":"status","params":{"status":"decodedTransactions","x":1},"y":2',
    '"method":"status","params":{"status":["decodedTransactions"]}',
    '"method":"status","params":"decodedTransactions"',
    '"method":"status","params":null',
    '"method":["status"]',
    '"x":1',
]
_HOT_TEXTS = [
    "5",
    "[]",
    "{}",
    *(f"{{{body}}}" for body in _HOT_BODIES),
    *(
        f'{{"seqId":{sequence},{body}}}'
        for sequence in ("0", "18446744073709551615", "18446744073709551616", "-1", '"5"', "null")
        for body in _HOT_BODIES
    ),
]


def _outcome(decode: Any, *args: Any) -> Any:
    try:
        return decode(*args)
    except DeserializeError as error:
        return error.reason


@pytest.mark.parametrize("text", _HOT_TEXTS)
def test_the_fast_way_gives_what_the_general_way_gives(text: str) -> None:
    general = _outcome(codec._decode_response, text, jsontext.loads(text))
    assert _outcome(decode_response, text) == general


def test_hot_values_are_whole() -> None:
    """They are made past ``__init__``, and must not show it."""
    _, slot = decode_response('{"method":"slotNotification","params":5}')
    assert slot == SlotNotification(5)
    assert hash(slot) == hash(SlotNotification(5))
    assert repr(slot) == "SlotNotification(slot=5)"
    assert pickle.loads(pickle.dumps(slot)) == slot
    _, ready = decode_response('{"method":"readyForContinue"}')
    assert ready == ReadyForContinue()


@pytest.mark.parametrize("sequence", [None, 0, 2**64 - 1])
def test_hot_values_are_written_like_all_others(sequence: int | None) -> None:
    text = encode_response(SlotNotification(5), sequence)
    expected: dict[str, Any] = {"method": "slotNotification", "params": 5}
    if sequence is not None:
        expected["seqId"] = sequence
    assert json.loads(text) == expected
    assert " " not in text


# --- values


def test_every_response_says_what_it_ends() -> None:
    assert Completed().is_terminal
    assert Completed().is_completed
    assert not Success().is_terminal
    assert ErrorResponse(ErrorDetail("noMoreBlocks")).is_terminal
    assert not ErrorResponse(ErrorDetail("sessionOwnerMismatch")).is_terminal
    assert not SessionEventV2(SESSION, 1, Completed()).is_terminal


_SAMPLES = {"index": 3, "slot": 4, "start_slot": 5, "end_slot": 6, "encoding": "base64"}


@pytest.mark.parametrize("kind", ErrorKind)
def test_every_error_kind_goes_both_ways(kind: ErrorKind) -> None:
    text, names, terminal = errors._TABLE[kind]
    fields = {name: _SAMPLES.get(name, f"<{name}>") for name in names}
    response = ErrorResponse(ErrorDetail(kind, fields))
    assert decode_response(encode_response(response)) == (None, response)
    assert response.is_terminal is terminal
    shown = str(response.error)
    assert all(str(fields[name]) in shown for name in names if f"{{{name}}}" in text)
    assert "{" not in shown


def test_error_details_survive_pickling() -> None:
    error = ErrorDetail(ErrorKind.BUNDLE_NOT_FOUND, {"start_slot": 1, "end_slot": 2})
    again = pickle.loads(pickle.dumps(RemoteError(error)))
    assert again.error == error
    assert hash(again.error) == hash(error)
    assert str(again) == "remote error: block bundle not found for start_slot=1, end_slot=2"


def test_every_class_has_its_method() -> None:
    assert {cls.method for cls in RESPONSES.values()} == set(RESPONSES)  # type: ignore[attr-defined]
