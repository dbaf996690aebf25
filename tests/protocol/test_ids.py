"""Identifiers and names."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from backtest_sync.errors import DeserializeError, InvalidParamsError
from backtest_sync.protocol import (
    CloseSessionV1,
    CreateBacktestSession,
    decode_request,
    encode_request,
    new_control_session_id,
    new_create_token,
    new_session_id,
    parse_control_session_id,
    parse_session_id,
    parse_session_name,
)
from tests.protocol.vectors import Case, cases, every_case

_PARSERS = {
    "session_id": parse_session_id,
    "control_session_id": parse_control_session_id,
    "session_name": parse_session_name,
}


@every_case("session_ids_names")
def test_case(case: Case) -> None:
    kind = case["kind"]
    if kind in _PARSERS:
        _check_text(case)
    elif kind == "session_id_json":
        message = {"method": "closeSessionV1", "params": {"sessionId": case["json"]}}
        with pytest.raises(DeserializeError, match=r"expected a string.* at \$.params.sessionId"):
            decode_request(json.dumps(message))
    elif kind == "fresh":
        make = new_session_id if case["prefix"] == "backtest_" else new_control_session_id
        fresh = make(1_767_225_600_123)
        assert re.fullmatch(case["regex"], fresh)
        assert len(fresh) == case["length"]
    elif kind == "order":
        assert sorted(case["sorted"]) == case["sorted"]
    elif kind == "create_token":
        tokens = {new_create_token() for _ in range(50)}
        assert len(tokens) == 50
        assert all(re.fullmatch(case["regex"], token) for token in tokens)
    else:
        assert kind == "create_token_read"
        request = CreateBacktestSession(1, 2, create_token=case["text"])
        assert json.loads(encode_request(request))["params"]["createToken"] == case["value"]
        assert decode_request(encode_request(request)) == request


def _check_text(case: Case) -> None:
    parse, text = _PARSERS[case["kind"]], case["text"]
    if not case["ok"]:
        with pytest.raises(InvalidParamsError) as refused:
            parse(text)
        if case["kind"] == "session_name":
            assert str(refused.value) == case["error"]
        return
    assert parse(text) == case.get("display", case.get("value"))
    assert parse(parse(text)) == parse(text)


def test_every_kind_of_case_is_known() -> None:
    assert {case["kind"] for case in cases("session_ids_names")} == {
        *_PARSERS,
        "session_id_json",
        "fresh",
        "order",
        "create_token",
        "create_token_read",
    }


def test_ids_made_later_sort_later() -> None:
    times = [0, 1, 2**16, 1_767_225_600_123, 2**48 - 1]
    ids = [new_session_id(time) for time in times]
    assert ids == sorted(ids)
    assert all(parse_session_id(fresh) == fresh for fresh in ids)


def test_an_id_is_read_in_any_spelling_and_written_in_one() -> None:
    request = CloseSessionV1("{0198F3A1-C2D3-4E5F-8A9B-0C1D2E3F4A5B}")
    assert request.session_id == "backtest_0198f3a1c2d34e5f8a9b0c1d2e3f4a5b"


# a dotted I, a long s, a Kelvin sign: their other case is ASCII, or nearly
@pytest.mark.parametrize("text", ["\u0130", "\u017f", "\u212a", "\uff41", "run\u0130"])
def test_a_name_is_ascii(text: str) -> None:
    with pytest.raises(InvalidParamsError):
        parse_session_name(text)


@pytest.mark.parametrize("parse", _PARSERS.values(), ids=_PARSERS)
@pytest.mark.parametrize("value", [None, 5, b"run", ["run"]])
def test_what_is_no_text_is_refused(parse: Any, value: Any) -> None:
    with pytest.raises(InvalidParamsError):
        parse(value)
