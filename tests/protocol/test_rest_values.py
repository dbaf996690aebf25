"""REST bodies: what is written, what is read, prices and days."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import urlencode

import pytest

from backtest_sync.errors import DeserializeError, InvalidParamsError
from backtest_sync.protocol import (
    AccountData,
    AvailableRange,
    BundleBuildList,
    BundleBuildRequest,
    BundleBuildStatus,
    BundleKind,
    CompletedBundle,
    DatasetCredentials,
    DeletedBundle,
    DepthCoverage,
    DepthRequest,
    DepthStatus,
    ProgramOverride,
    SessionUsage,
    SessionUsagePage,
    SlotRange,
    SnapshotSlot,
    UsageBucket,
    UsagePricing,
    UsageReport,
    structure,
    unstructure,
)
from backtest_sync.protocol.rest import MAX_OVERRIDE_DATA_BYTES, MAX_OVERRIDE_ELF_BYTES
from backtest_sync.protocol.times import format_time, parse_time, to_time
from tests.protocol.vectors import Case, by_function

SOL = "So11111111111111111111111111111111111111112"

_TYPES: dict[str, Any] = {
    "AvailableRange": AvailableRange,
    "BundleBuildListResponse": BundleBuildList,
    "BundleBuildRequest": BundleBuildRequest,
    "BundleBuildStatusResponse": BundleBuildStatus,
    "BundleDeleteResponse": DeletedBundle,
    "CompletedBundle": CompletedBundle,
    "DatasetCredentialsResponse": DatasetCredentials,
    "DepthCoverageResponse": DepthCoverage,
    "DepthRequest": DepthRequest,
    "DepthStatusResponse": DepthStatus,
    "SessionUsage": SessionUsage,
    "SessionUsagePage": SessionUsagePage,
    "SnapshotSlotResponse": SnapshotSlot,
    "UsagePricing": UsagePricing,
    "UsageReport": UsageReport,
}


def _write(case: Case) -> None:
    value = structure(_TYPES[case["type"]], case["wire"])
    assert unstructure(value) == json.loads(case["wire_text"])
    assert structure(_TYPES[case["type"]], unstructure(value)) == value


def _read(case: Case) -> None:
    given = json.loads(case["text"])
    if not case["ok"]:
        with pytest.raises(DeserializeError, match=r" at \$"):
            structure(_TYPES[case["type"]], given)
        return
    value = structure(_TYPES[case["type"]], given)
    assert unstructure(value) == json.loads(case["reserialised_text"])


def _cost(case: Case) -> None:
    pricing = structure(UsagePricing, case["pricing"])
    assert pricing.cost(case["slots"], case["duration_ms"]) == pytest.approx(case["cost"])


def _bucket(case: Case) -> None:
    bucket = structure(UsageBucket, case["bucket"])
    assert bucket.is_empty == case["is_empty"]
    assert bucket.is_partial == case["is_partial"]
    assert unstructure(bucket) == case["bucket"]


def _bundle_kind(case: Case) -> None:
    if not case["ok"]:
        with pytest.raises(ValueError, match=r"is not a valid BundleKind"):
            BundleKind(case["text"])
        return
    kind = BundleKind(case["text"])
    assert kind.value == case["as_str"]
    assert kind.label == case["display"]


def _query_time(case: Case) -> None:
    text = format_time(parse_time(case["input"]))
    assert text == case["text"]
    assert urlencode({"since": text}) == case["query"]


def _delete_query(case: Case) -> None:
    bundle = DeletedBundle(case["start_slot"], case["end_slot"], case["kind"])
    assert urlencode(unstructure(bundle)) == case["query"]


def _http_request(case: Case) -> None:
    """Requests are sent by the client: ``tests/test_rest.py`` runs these against a server.

    Here: the bodies are those of the values.
    """
    for request in case["requests"]:
        if request["body_text"] is not None:
            cls = DepthRequest if request["path"] == "/generate-depth" else BundleBuildRequest
            body = unstructure(cls(**case["arguments"]))
            assert body == json.loads(request["body_text"])


@by_function(
    "usage_http",
    {
        "write": _write,
        "read": _read,
        "pricing_cost": _cost,
        "bucket_flags": _bucket,
        "bundle_kind": _bundle_kind,
        "query_time": _query_time,
        "delete_query": _delete_query,
        "http_request": _http_request,
    },
)
def test_case(check: Callable[[Case], None], case: Case) -> None:
    check(case)


def test_secrets_stay_out_of_the_repr() -> None:
    credentials = DatasetCredentials("AKID", "the-secret", "the-token", "s3://bucket/", region="r")
    assert repr(credentials) == (
        "DatasetCredentials(access_key_id=…, secret_access_key=…, session_token=…, "
        "s3_uri='s3://bucket/', region='r')"
    )


def test_ranges_of_slots() -> None:
    assert str(SlotRange(1, 5)) == "1..=5"
    assert len(SlotRange(1, 5)) == 5


# --- times

_MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (_MOMENT, "2026-01-02T03:04:05Z"),
        (_MOMENT.replace(microsecond=250_000), "2026-01-02T03:04:05.250Z"),
        (_MOMENT.replace(microsecond=1), "2026-01-02T03:04:05.000001Z"),
        (_MOMENT.astimezone(timezone(timedelta(hours=2))), "2026-01-02T03:04:05Z"),
        (_MOMENT.replace(year=1), "0001-01-02T03:04:05Z"),
    ],
)
def test_times_have_the_digits_they_need(moment: datetime, text: str) -> None:
    assert format_time(moment) == text
    assert parse_time(text) == moment


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-02T03:04:05",
        "2026-01-02T03:04:61Z",
        "2026-13-02T03:04:05Z",
        "2026-01-02T03:04:05+24:00",
        "2026-01-02T03:04:05+0200",
        "٢٠٢٦-01-02T03:04:05Z",
        "9999-12-31T23:59:60Z",
        "",
    ],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(InvalidParamsError, match="since"):
        to_time(text, "since")


def test_a_time_without_a_zone_is_utc() -> None:
    assert to_time(datetime(2026, 1, 2), "since") == datetime(2026, 1, 2, tzinfo=timezone.utc)
    assert to_time("2026-01-02T03:04:05.123456789+01:00", "x").microsecond == 123_456


# --- limits of a depth request


def _accounts(count: int, size: int) -> dict[bytes, AccountData]:
    return {n.to_bytes(32, "big"): AccountData(bytes(size), 1, SOL) for n in range(count)}


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({}, None),
        ({"source": "router"}, None),
        ({"granularity": "oracle"}, None),
        ({"source": "router", "granularity": "oracle"}, "granularity oracle is for source onchain"),
        ({"source": "router", "account_overrides": _accounts(1, 0)}, "overrides are for source"),
        ({"account_overrides": _accounts(64, 0)}, None),
        ({"account_overrides": _accounts(65, 0)}, "65 account_overrides, at most 64"),
        ({"account_overrides": _accounts(2, MAX_OVERRIDE_DATA_BYTES // 2)}, None),
        (
            {"account_overrides": _accounts(2, MAX_OVERRIDE_DATA_BYTES // 2 + 1)},
            "account_overrides of 131074 bytes",
        ),
        ({"program_overrides": [ProgramOverride(SOL, b"x")] * 9}, "9 program_overrides, at most 8"),
        (
            {"program_overrides": [ProgramOverride(SOL, bytes(MAX_OVERRIDE_ELF_BYTES + 1))]},
            "program_overrides of 8388609 bytes",
        ),
    ],
)
def test_limits_of_a_depth_request(fields: Any, error: str | None) -> None:
    found = DepthRequest(1, 2, **fields).error()
    assert (found is None) if error is None else (found or "").startswith(error)


@pytest.mark.parametrize(
    "make",
    [
        lambda: BundleBuildRequest(1, 2, kind="transactions"),
        lambda: BundleBuildRequest(1, 2, bundle_size=-1),
        lambda: DepthRequest(1, 2, markets="SOL/USDC"),
        lambda: ProgramOverride(SOL, "!!"),
        lambda: UsagePricing(True, 1.0, 1),
    ],
)
def test_wrong_values_are_refused(make: Any) -> None:
    with pytest.raises(InvalidParamsError):
        make()
