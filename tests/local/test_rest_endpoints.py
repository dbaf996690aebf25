"""The simulator's REST endpoints and the HTTP side of its server."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from backtest_sync.local import LocalSimulator, rest
from tests.local import small
from tests.local.peer import Peer

ALL = 2**64 - 1


@pytest.fixture(scope="module")
def simulator(small_bundle: Path) -> Iterator[LocalSimulator]:
    with LocalSimulator(small_bundle, api_key="k") as running:
        yield running


def ask(
    simulator: LocalSimulator,
    path: str,
    *,
    method: str = "GET",
    key: str | None = "k",
    **query: Any,
) -> tuple[int, Any]:
    url = f"{simulator.http_url}{path}?{urllib.parse.urlencode(query)}"
    headers = {} if key is None else {"X-API-Key": key}
    request = urllib.request.Request(url, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def run_one(simulator: LocalSimulator, end: int, **params: Any) -> str:
    with Peer(simulator.url, additional_headers={"X-API-Key": "k"}) as peer:
        session_id = peer.create(small.FIRST, end, **params)
        peer.advance(ALL)
        peer.send("closeBacktestSession")
        peer.until("success")
    return session_id


def test_the_ranges_are_those_of_the_bundle(simulator: LocalSimulator) -> None:
    status, ranges = ask(simulator, "/available-ranges", include_account_state="false")
    assert status == 200
    assert [(r["bundle_start_slot"], r["max_bundle_end_slot"]) for r in ranges] == [
        (1000, 1099),
        (1100, 1199),
        (1200, 1299),
    ]
    assert ranges[0]["bundle_start_slot_utc"] == "2023-11-14T22:30:00Z"
    assert ranges[0]["max_bundle_end_slot_utc"] is None  # slot 1099 has no block
    assert {r["kind"] for r in ranges} == {"blocks"}
    assert {r["max_bundle_size"] for r in ranges} == {100}


def test_recorded_account_state_is_listed_where_it_is_asked_for() -> None:
    with LocalSimulator() as simulator:
        kinds = {
            asked: [r["kind"] for r in ask(simulator, "/available-ranges", **asked_for)[1]]
            for asked, asked_for in (
                ("no", {}),
                ("yes", {"include_account_state": "true"}),
            )
        }
    assert kinds["no"] == ["blocks"] * 3
    assert kinds["yes"] == ["blocks"] * 3 + ["account_state"]


def test_ranges_need_no_key_and_the_rest_does(simulator: LocalSimulator) -> None:
    assert ask(simulator, "/available-ranges", key=None)[0] == 200
    assert ask(simulator, "/available-ranges", key="wrong")[0] == 401
    for path in ("/usage", "/usage/sessions", "/snapshot-slot", "/build-bundle"):
        assert ask(simulator, path, key=None)[0] == 401
        assert ask(simulator, path, key="wrong")[0] == 401


def test_the_snapshot_is_the_start_of_the_newest_range(simulator: LocalSimulator) -> None:
    assert ask(simulator, "/snapshot-slot") == (200, {"snapshot_slot": 1200})


def test_usage_counts_what_was_run(small_bundle: Path) -> None:
    with LocalSimulator(small_bundle, api_key="k") as simulator:
        first = run_one(simulator, small.FIRST + 9)
        second = run_one(simulator, small.FIRST + 19, name="second-one")
        with Peer(simulator.url, additional_headers={"X-API-Key": "k"}) as peer:
            open_one = peer.create(small.FIRST, small.LAST)
            peer.advance(1)
            status, usage = ask(simulator, "/usage")
            _, page = ask(simulator, "/usage/sessions")
    counts = [len(small.produced(small.FIRST, small.FIRST + n)) for n in (9, 19)]
    assert status == 200
    assert usage["sessions"] == {"started": 3, "completed": 2, "failed": 0}
    assert usage["compute"]["executed_slot_count"] == sum(counts) + 1
    assert sum(day["sessions"]["started"] for day in usage["daily"]) == 3
    assert usage["daily"][0]["start"] == usage["since"]
    assert usage["daily"][-1]["end"] == usage["until"]
    assert [s["session_id"] for s in page["sessions"]] == [first, second, open_one]
    assert [s["executed_slot_count"] for s in page["sessions"]] == [*counts, 1]
    assert [s.get("session_name") for s in page["sessions"]] == [None, "second-one", None]
    assert page["next_cursor"] is None


def test_sessions_come_in_pages(small_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "PAGE_SIZE", 2)
    with LocalSimulator(small_bundle, api_key="k") as simulator:
        due = [run_one(simulator, small.FIRST) for _ in range(5)]
        found, query = [], {}
        for _ in range(3):
            page = ask(simulator, "/usage/sessions", **query)[1]
            found += [session["session_id"] for session in page["sessions"]]
            query = {"since": page["since"], "until": page["until"], "cursor": page["next_cursor"]}
    assert found == due
    assert query["cursor"] is None


def test_a_period_without_sessions(simulator: LocalSimulator) -> None:
    period = {"since": "2020-01-01T12:00:00Z", "until": "2020-01-03T06:00:00Z"}
    usage = ask(simulator, "/usage", **period)[1]
    assert usage["since"] == "2020-01-01T00:00:00Z"
    assert [(day["start"], day["end"]) for day in usage["daily"]] == [
        ("2020-01-01T00:00:00Z", "2020-01-02T00:00:00Z"),
        ("2020-01-02T00:00:00Z", "2020-01-03T00:00:00Z"),
        ("2020-01-03T00:00:00Z", "2020-01-03T06:00:00Z"),
    ]
    assert usage["sessions"]["started"] == 0
    assert ask(simulator, "/usage/sessions", **period)[1]["sessions"] == []


@pytest.mark.parametrize(
    ("path", "query", "word"),
    [
        ("/usage", {"since": "yesterday"}, "since"),
        ("/usage", {"since": "2020-01-03T00:00:00Z", "until": "2020-01-01T00:00:00Z"}, "period"),
        ("/usage", {"since": "0001-01-01T00:00:00Z"}, "period"),
        ("/usage/sessions", {"cursor": "x"}, "cursor"),
        ("/available-ranges", {"include_account_state": "maybe"}, "include_account_state"),
    ],
)
def test_a_query_that_is_none(
    simulator: LocalSimulator, path: str, query: dict[str, str], word: str
) -> None:
    status, text = ask(simulator, path, **query)
    assert status == 400
    assert word in text


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/build-bundle"),
        ("GET", "/build-bundle"),
        ("GET", "/build-bundle/some-id"),
        ("DELETE", "/bundles"),
        ("POST", "/generate-depth"),
        ("GET", "/generate-depth/coverage"),
        ("POST", "/datasets/credentials"),
    ],
)
def test_what_needs_the_service_is_refused_in_a_sentence(
    simulator: LocalSimulator, method: str, path: str
) -> None:
    status, text = ask(simulator, path, method=method)
    assert status == 501
    assert "hosted service" in text


def test_a_session_that_is_none_has_no_endpoint(simulator: LocalSimulator) -> None:
    for session_id in ("backtest_" + "0" * 32, "nonsense"):
        status, text = ask(simulator, f"/backtest/{session_id}", method="POST")
        assert status == 404
        assert session_id in text
        url = f"{simulator.url}/{session_id}"
        with pytest.raises(InvalidStatus) as refused, connect(url):
            pass
        assert refused.value.response.status_code == 404


def test_a_body_over_the_cap_is_refused(simulator: LocalSimulator) -> None:
    with Peer(simulator.url, additional_headers={"X-API-Key": "k"}) as peer:
        session_id = peer.create(small.FIRST, small.LAST)
        request = urllib.request.Request(
            f"{simulator.http_url}/backtest/{session_id}", b" " * (16 * 1024 * 1024 + 1)
        )
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=20)
        with refused.value:
            assert refused.value.code == 413
        assert peer.advance()[-1]["method"] == "readyForContinue"


def test_the_control_path_wants_a_websocket(simulator: LocalSimulator) -> None:
    assert ask(simulator, "/backtest")[0] == 426
