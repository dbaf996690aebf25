"""Requests: the reference's texts both ways, and what a caller may pass."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest

from backtest_sync.errors import DeserializeError, InvalidParamsError
from backtest_sync.protocol import (
    AccountData,
    AttachBacktestSession,
    AttachParallelControlSessionV2,
    Continue,
    ContinueSessionV1,
    ContinueTo,
    CreateBacktestSession,
    ScheduledAction,
    SlotNotification,
    decode_request,
    encode_request,
)
from backtest_sync.protocol.actions import ActionAnchor
from backtest_sync.protocol.requests import REQUESTS
from tests.protocol.vectors import Case, every_case, opened

SOL = "So11111111111111111111111111111111111111112"
SESSION = "backtest_0198f3a1c2d34e5f8a9b0c1d2e3f4a5b"

#: Texts that the reference takes by an accident of its library, and that are refused here.
REFUSED = {
    "create_params_array": "a record written as a list",
    "continue_array": "a record written as a list",
    "create_parallel_string": "a wish of the wrong type would be dropped in silence",
}


@every_case("requests")
def test_written_as_the_reference_writes(case: Case) -> None:
    request = decode_request(case["wire_text"])
    assert opened(json.loads(encode_request(request))) == opened(case["wire"])
    assert decode_request(encode_request(request)) == request


@every_case("requests_accepted")
def test_read_as_the_reference_reads(case: Case) -> None:
    if not case["ok"] or case["name"] in REFUSED:
        with pytest.raises(DeserializeError) as refused:
            decode_request(case["text"])
        assert refused.value.raw == case["text"]
        return
    request = decode_request(case["text"])
    expected = case["reserialised"]
    if case.get("variant") == "V1" and "parallel" not in json.loads(case["text"])["params"]:
        # The reference takes every text without `parallel` for the newer version and adds it. What
        # is decoded and encoded again is the same JSON here.
        del expected["params"]["parallel"]
    assert opened(json.loads(encode_request(request))) == opened(expected)


def test_what_is_refused_on_purpose_is_there() -> None:
    from tests.protocol.vectors import cases

    accepted = {case["name"] for case in cases("requests_accepted") if case["ok"]}
    assert set(REFUSED) <= accepted


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"method":"continue","params":{"advanceCount":-1}}', "at $.params.advanceCount"),
        (
            '{"method":"continue","params":{"modifyAccountStates":{"'
            + SOL
            + '":{"data":{"data":"","encoding":"hex"}}}}}',
            f"at $.params.modifyAccountStates['{SOL}'].data.encoding",
        ),
        (
            '{"method":"continueSessionV1","params":{"sessionId":"x","request":{}}}',
            "at $.params.sessionId",
        ),
        (
            '{"method":"continue","params":{"transactions":["AA==",5]}}',
            "at $.params.transactions[1]",
        ),
        ('{"method":"closeBacktestSession","params":{}}', "at $.params"),
        ('{"method":"fly"}', "unknown method 'fly', expected one of createBacktestSession, "),
        ("[]", "expected an object, got a list at $"),
        ("{", ""),
        ('{"method":"continue","method":"continue","params":{}}', "duplicate field `method` at $"),
    ],
)
def test_a_refusal_says_where(text: str, reason: str) -> None:
    with pytest.raises(DeserializeError) as refused:
        decode_request(text)
    assert reason in refused.value.reason


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Continue(-1), "advance_count"),
        (lambda: Continue(2**64), "advance_count"),
        (lambda: Continue(True), "advance_count"),
        (lambda: Continue(1.0), "advance_count"),
        (lambda: Continue("5"), "advance_count"),
        (lambda: Continue(None), "advance_count"),
        (lambda: Continue(transactions="AA=="), "transactions"),
        (lambda: Continue(transactions=["AA==", "!"]), r"transactions\[1\]"),
        (lambda: Continue(transactions=[b""]), r"transactions\[0\]"),
        (lambda: Continue(transactions=[5]), r"transactions\[0\]"),
        (lambda: Continue(modify_accounts=[]), "modify_accounts"),
        (lambda: Continue(modify_accounts={SOL: {}}), "modify_accounts"),
        (
            lambda: Continue(modify_accounts={"x": AccountData(b"", 0, SOL)}),
            "modify_accounts key",
        ),
        (lambda: ContinueTo(-1), "slot"),
        (lambda: ContinueTo(1, 2**32), "batch_index"),
        (lambda: ContinueSessionV1(SESSION, ContinueTo(1)), "request"),
        (lambda: ContinueSessionV1("parallel_" + SESSION[9:], Continue()), "session id"),
        (lambda: AttachBacktestSession(SESSION, -1), "last_sequence"),
        (lambda: AttachParallelControlSessionV2(SESSION), "control session id"),
        (
            lambda: AttachParallelControlSessionV2("parallel_" + SESSION[9:], {"x": 1}),
            "session id",
        ),
        (lambda: CreateBacktestSession(1, 2, send_summary=1), "send_summary"),
        (lambda: CreateBacktestSession(1, 2, capacity_wait_timeout_secs=2**16), "capacity_wait"),
        (lambda: CreateBacktestSession(1, 2, disconnect_timeout_secs=-1), "disconnect_timeout"),
        (lambda: CreateBacktestSession(1, 2, extra_compute_units=2**32), "extra_compute_units"),
        (lambda: CreateBacktestSession(1, 2, actions=[5]), r"actions\[0\]"),
        (lambda: CreateBacktestSession(1, 2, discoveries="x"), "discoveries"),
        (lambda: CreateBacktestSession(1, 2, name="my run"), "invalid session name"),
    ],
)
def test_a_wrong_value_is_named(make: Any, field: str) -> None:
    with pytest.raises(InvalidParamsError, match=field):
        make()


class Pubkey:
    """As solders has it: the text is base58."""

    def __str__(self) -> str:
        return SOL


class Signed:
    def __bytes__(self) -> bytes:
        return b"\x01\x02"


def test_what_is_passed_is_normalised() -> None:
    account = AccountData(b"\x01\x02\x03", 5, Pubkey())
    made = Continue(2, [b"\x01\x02", "AQI=", Signed(), bytearray(b"\x01\x02")], {Pubkey(): account})
    assert made.transactions == ("AQI=",) * 4
    assert list(made.modify_accounts) == [SOL]
    assert made.modify_accounts[SOL].space == 3
    assert made == Continue(2, ("AQI=",) * 4, {SOL: account})


def test_accounts_are_written_in_the_order_of_their_bytes() -> None:
    low, high = "11111111111111111111111111111111", "Vote111111111111111111111111111111111111111"
    account = AccountData(b"", 1, low)
    text = encode_request(Continue(modify_accounts={high: account, low: account}))
    assert list(json.loads(text)["params"]["modifyAccountStates"]) == [low, high]


@pytest.mark.parametrize("cls", REQUESTS.values(), ids=REQUESTS)
def test_a_request_knows_its_method(cls: Any) -> None:
    assert REQUESTS[cls.method] is cls
    assert attrs.has(cls)


def test_requests_are_frozen_and_hashable() -> None:
    request = Continue(3)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        request.advance_count = 4  # type: ignore[misc]
    assert hash(request) == hash(Continue(3))
    assert request != SlotNotification(3)


def test_reprs_are_short() -> None:
    assert repr(Continue()) == "Continue()"
    assert repr(Continue(5)) == "Continue(advance_count=5)"
    many = Continue(transactions=[b"x"] * 50)
    assert repr(many) == "Continue(transactions=<50 items>)"
    assert len(repr(Continue(transactions=[b"x" * 10_000]))) < 250


def test_a_name_or_token_alone_makes_the_newer_version() -> None:
    assert CreateBacktestSession(1, 2, name="x").parallel is False
    assert CreateBacktestSession(1, 2, create_token="t").parallel is False
    assert CreateBacktestSession(1, 2).parallel is None


def test_actions_go_as_one_blob() -> None:
    request = CreateBacktestSession(
        1, 2, actions=[ScheduledAction(ActionAnchor.before_slot([5, 9]), transactions=[b"\x01"])]
    )
    params = json.loads(encode_request(request))["params"]
    assert isinstance(params["actions"], str)
    assert opened(params["actions"]) == {
        "blob": [
            {
                "anchor": {"at": "beforeSlot", "slots": {"blob": [5, 9]}},
                "kind": "simulate",
                "transactions": {"blob": ["AQ=="]},
                "accountOverrides": {},
                "returnAccounts": [],
                "label": None,
            }
        ]
    }
