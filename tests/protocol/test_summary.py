"""Summaries, coverage, and how the service classes a session."""

from __future__ import annotations

import json

import attrs
import pytest

from backtest_sync.protocol import (
    CreateBacktestSession,
    DiscoveryFilter,
    RerouteParams,
    ScheduledAction,
    SessionCoverage,
    SessionsCreatedV2,
    SessionSummary,
    SlotNotification,
    decode_response,
    new_control_session_id,
    new_session_id,
    structure,
    unstructure,
)
from backtest_sync.protocol.actions import ActionAnchor
from tests.protocol.vectors import Case, by_function

SOL = "So11111111111111111111111111111111111111112"


def _coverage(case: Case) -> None:
    coverage = SessionCoverage()
    for response in case["responses"]:
        _, value = decode_response(json.dumps(response))
        coverage = coverage.observe(value)
    assert coverage.completed == case["completed"]
    assert coverage.highest_slot_seen == case["highest_slot_seen"]
    assert coverage.check(case["expected_end_slot"]) == case["error"]


def _summary(case: Case) -> None:
    summary = structure(SessionSummary, case["wire"])
    assert unstructure(summary) == json.loads(case["wire_text"])
    assert str(summary) == case["display"]
    assert summary.has_deviations == case["has_deviations"]
    assert summary.total_transactions == case["total_transactions"]
    assert summary.deviation_details() == case["deviation_details"]
    other = summary.deviation_details("different balances", "different logs")
    assert other == case["deviation_details_other"]


def _task_ids(case: Case) -> None:
    ids = [new_session_id(time) for time in range(case["expected_len"])]
    created = SessionsCreatedV2(new_control_session_id(0), ids, case["input"])
    assert list(created.aligned_task_ids) == case["output"]


def _session_type(case: Case) -> None:
    request = CreateBacktestSession(
        1,
        2,
        reroute=RerouteParams() if case["reroute"] else None,
        replay_account_state=case["replay_account_state"],
        actions=[ScheduledAction(ActionAnchor.before_slot([1]))] if case["actions"] else [],
        discoveries=[DiscoveryFilter.program_executed(SOL)] if case["discoveries"] else [],
    )
    assert request.session_type == case["output"]
    # both follow from rerouting alone, so the value has no names of their own for them
    assert (request.reroute is not None) == case["requires_sidecar"]
    assert (request.reroute is not None) == case["warms_account_universe"]


@by_function(
    "coverage_summary",
    {
        "coverage": _coverage,
        "summary": _summary,
        "align_task_ids": _task_ids,
        "session_type": _session_type,
    },
)
def test_case(check, case):  # type: ignore[no-untyped-def]
    check(case)


def test_coverage_is_a_value() -> None:
    coverage = SessionCoverage()
    assert coverage.observe(SlotNotification(5)) == SessionCoverage(5)
    assert coverage == SessionCoverage()
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        coverage.completed = True  # type: ignore[misc]


def test_longer_task_ids_are_cut() -> None:
    created = SessionsCreatedV2(new_control_session_id(0), [new_session_id(0)], ["a", "b"])
    assert created.aligned_task_ids == ("a",)
