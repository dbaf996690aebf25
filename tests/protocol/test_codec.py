"""The codec as a whole: what holds for every value."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from backtest_sync import protocol
from backtest_sync.errors import DeserializeError
from backtest_sync.protocol import (
    Request,
    Response,
    SessionUsage,
    codec,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
    jsontext,
    structure,
    unstructure,
)
from backtest_sync.protocol.shape import Mismatch, Value
from tests import strategies

_PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@_PATIENT
@given(strategies.requests)
def test_a_request_comes_back(request: Request) -> None:
    text = encode_request(request)
    assert decode_request(text) == request
    assert decode_request(text.encode()) == request
    assert encode_request(decode_request(text)) == text
    assert hash(request) == hash(decode_request(text))


@_PATIENT
@given(strategies.responses, st.none() | strategies.u64)
def test_a_response_comes_back(response: Response, sequence: int | None) -> None:
    text = encode_response(response, sequence)
    assert decode_response(text) == (sequence, response)
    assert decode_response(text.encode()) == (sequence, response)
    _, again = decode_response(text)
    assert encode_response(again, sequence) == text
    assert (again.is_terminal, again.is_completed) == (response.is_terminal, response.is_completed)


@_PATIENT
@given(strategies.requests | strategies.responses)
def test_values_are_pickled_and_shown(value: Any) -> None:
    assert pickle.loads(pickle.dumps(value)) == value
    assert repr(value).startswith(type(value).__name__ + "(")
    assert len(repr(value)) < 1500


@_PATIENT
@given(strategies.responses, st.data())
def test_keys_that_nobody_knows_are_ignored(response: Response, data: st.DataObject) -> None:
    message = json.loads(encode_response(response))
    message["newer"] = data.draw(strategies.json_values(5))
    if message["method"] in codec.RESPONSES and message["method"] != "error":
        params = message.get("params")
        if isinstance(params, dict):
            params["newer"] = [1]
    assert decode_response(json.dumps(message)) == (None, response)


_METHODS = st.sampled_from([*codec.REQUESTS, *codec.RESPONSES]) | strategies.texts


@_PATIENT
@given(_METHODS, strategies.json_values(), st.integers(0, 3))
def test_any_json_is_a_value_or_refused(method: str, params: Any, form: int) -> None:
    messages = [
        {"method": method, "params": params},
        {"method": method},
        params,
        {
            "method": "sessionEventV2",
            "params": {
                "session_id": "0198f3a1c2d34e5f8a9b0c1d2e3f4a5b",
                "seq_id": 1,
                "event": {"method": method, "params": params},
            },
        },
    ]
    text = json.dumps(messages[form])
    for decode in (decode_response, decode_request):
        try:
            decode(text)
        except DeserializeError as error:
            assert " at $" in error.reason  # noqa: PT017 - it may decode as well


@_PATIENT
@given(strategies.responses, st.data())
def test_a_cut_or_changed_text_is_a_value_or_refused(
    response: Response, data: st.DataObject
) -> None:
    text = bytearray(encode_response(response).encode())
    place = data.draw(st.integers(0, len(text) - 1))
    text[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    try:
        decode_response(bytes(text))
    except DeserializeError as error:
        assert error.raw == bytes(text).decode("utf-8", "replace")  # noqa: PT017


# --- repeated keys


@pytest.mark.parametrize(
    "text",
    [
        '{"method":"continueTo","params":{"slot":1,"slot":1}}',
        '{"method":"continueTo","params":{"slot":1},"params":{"slot":1}}',
        '{"method":"createBacktestSession","params":{"startSlot":1,"endSlot":2,"discoveries":'
        '[{"kind":"oracleUpdate","value":{"programs":[],"programs":[]}}]}}',
    ],
)
def test_a_repeated_key_is_refused_wherever_it_is(text: str) -> None:
    with pytest.raises(DeserializeError, match="duplicate field"):
        decode_request(text)


def test_a_colon_in_a_string_is_no_key() -> None:
    text = '{"method":"error","params":{"internal":{"error":"a: b: c:"}}}'
    _, response = decode_response(text)
    assert encode_response(response) == text


def test_a_repeated_key_that_nobody_knows_is_ignored() -> None:
    _, response = decode_response('{"x":1,"x":2,"method":"paused","params":{"slot":1,"y":1,"y":2}}')
    assert response == protocol.Paused(1)


# --- the parts


def test_structure_says_where() -> None:
    page = {"since": "2026-01-01T00:00:00Z", "until": "x", "sessions": []}
    with pytest.raises(DeserializeError) as refused:
        structure(protocol.SessionUsagePage, page)
    assert refused.value.reason == "'x' is no RFC 3339 time with a zone at $.until"
    assert json.loads(refused.value.raw) == page


def test_structure_and_unstructure_are_each_others_inverse() -> None:
    filter_ = protocol.DiscoveryFilter.program_executed("11111111111111111111111111111111")
    for value in (filter_, protocol.EncodedBinary(b"\x01"), protocol.ErrorDetail("noMoreBlocks")):
        assert structure(type(value), unstructure(value)) == value


def test_a_key_is_required_where_the_argument_is_not() -> None:
    account = unstructure(protocol.AccountData(b"", 1, "11111111111111111111111111111111"))
    for key in ("space", "executable"):
        less = {name: value for name, value in account.items() if name != key}
        with pytest.raises(DeserializeError, match=f"missing field `{key}`"):
            structure(protocol.AccountData, less)


def test_a_mismatch_knows_its_path() -> None:
    error = Mismatch("x").under("[3]").under(".b").under(".a")
    assert error.path() == "$.a.b[3]"


def _public_values() -> list[type[Value]]:
    found = [getattr(protocol, name) for name in protocol.__all__]
    return [cls for cls in found if isinstance(cls, type) and issubclass(cls, Value)]


@pytest.mark.parametrize("cls", _public_values(), ids=lambda cls: cls.__name__)
def test_every_value_has_a_docstring_and_slots(cls: type[Value]) -> None:
    assert cls.__doc__
    assert not hasattr(cls, "__dict__") or "__dict__" not in dir(cls)
    assert cls.__module__.startswith("backtest_sync.protocol.")


def test_public_names_are_all_there() -> None:
    assert set(protocol.__all__) <= set(dir(protocol))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = protocol.nothing
    assert SessionUsage.__name__ in protocol.__all__


@pytest.mark.parametrize("method", ["slotNotification", "newer"])
def test_nesting_is_capped_in_every_message(method: str) -> None:
    def nested(depth: int) -> str:
        return f'{{"method":"{method}","params":5,"x":{"[" * depth}{"]" * depth}}}'

    sequence, response = decode_response(nested(jsontext.MAX_DEPTH - 1))
    assert sequence is None
    assert isinstance(response, Response)
    with pytest.raises(DeserializeError, match="nests deeper than 512 levels"):
        decode_response(nested(jsontext.MAX_DEPTH))
