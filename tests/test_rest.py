"""The REST endpoints: the very requests of the reference client, paging, limits and errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from backtest_sync.errors import HttpError, HttpStatusError, InvalidParamsError
from backtest_sync.headers import USER_AGENT
from backtest_sync.protocol import (
    AccountData,
    AvailableRange,
    BuildStatus,
    BundleBuildRequest,
    BundleKind,
    DepthRequest,
    DepthSource,
    ProgramOverride,
)
from backtest_sync.rest import RestClient
from tests.support.scripted import Peer, ScriptedServer, sid

VECTORS = json.loads((Path(__file__).parent / "vectors" / "usage_http.json").read_text())["cases"]
RECORDED = {case["name"]: case for case in VECTORS if case["function"] == "http_request"}
SYSTEM = "11111111111111111111111111111111"

SESSION = {
    "session_id": sid(1),
    "started_at": "2026-01-01T00:00:00Z",
    "ended_at": "2026-01-01T00:01:00Z",
    "executed_slot_count": 5,
    "session_duration_ms": 60000,
}
USAGE = {
    "api_key_name": "k",
    "since": "2026-01-01T00:00:00Z",
    "until": "2026-01-02T00:00:00Z",
    "sessions": {"started": 1, "completed": 1, "failed": 0},
    "compute": {"executed_slot_count": 5, "session_duration_ms": 9},
}
BUILD = {
    "request_id": "req-1",
    "start_slot": 1,
    "end_slot": 2,
    "status": "in_progress",
    "created_at_unix_ms": 5,
}
DEPTH = {
    "request_id": "d-1",
    "start_slot": 1,
    "end_slot": 2,
    "source": "onchain",
    "status": "completed",
}
#: The window that the server of the recorded pages reports: fractions of a second, odd zone and all.
SERVED = {"since": "2026-01-01T00:00:00Z", "until": "2026-01-02T12:05:00.75+02:00"}


def page(cursor: str | None) -> dict[str, Any]:
    return {**SERVED, "sessions": [SESSION], "next_cursor": cursor}


class Service:
    """Answers request after request with these bodies; notes what came."""

    def __init__(self, *bodies: Any, status: str = "200 OK") -> None:
        self.bodies = [body if isinstance(body, str) else json.dumps(body) for body in bodies]
        self.status = status
        self.requests: list[dict[str, Any]] = []
        self.peers: list[Peer] = []

    def __call__(self, peer: Peer) -> None:
        self.peers.append(peer)
        peer.read_head()
        body = peer.read_body()
        method, target, _ = peer.request_line.split(" ")
        path, question, query = target.partition("?")
        self.requests.append(
            {
                "method": method,
                "path": path,
                "query": query if question else None,
                "body_text": body.decode() or None,
                "headers": dict(peer.headers),
            }
        )
        peer.respond(self.status, self.bodies[min(len(self.requests), len(self.bodies)) - 1])


def talk(service: Service, call: Callable[[RestClient], Any], key: str = "acme-key") -> Any:
    with ScriptedServer(service) as server, RestClient(server.http_url, key) as rest:
        return call(rest)


# --- the recorded requests

CALLS: dict[str, tuple[Callable[[RestClient, dict[str, Any]], Any], list[Any]]] = {
    "http_available_ranges": (lambda rest, _: rest.available_ranges(), [[]]),
    "http_available_ranges_account_state": (lambda rest, _: rest.available_ranges(True), [[]]),
    "http_usage_none": (lambda rest, given: rest.usage(**given), [USAGE]),
    "http_usage_since": (lambda rest, given: rest.usage(**given), [USAGE]),
    "http_usage_both": (lambda rest, given: rest.usage(**given), [USAGE]),
    "http_usage_empty_key": (lambda rest, given: rest.usage(**given), [USAGE]),
    "http_usage_sessions": (
        lambda rest, given: rest.usage_sessions(**given),
        [page("p2+/= &?"), page("p3"), page(None)],
    ),
    "http_usage_sessions_window": (
        lambda rest, given: rest.usage_sessions(**given),
        [page("p2+/= &?"), page("p3"), page(None)],
    ),
    "http_snapshot_slot": (lambda rest, _: rest.snapshot_slot(), [{"snapshot_slot": 7}]),
    "http_build_bundle_min": (
        lambda rest, given: rest.build_bundle(BundleBuildRequest(**given)),
        [BUILD],
    ),
    "http_build_bundle_full": (
        lambda rest, given: rest.build_bundle(BundleBuildRequest(**given)),
        [BUILD],
    ),
    "http_delete_bundle": (
        lambda rest, given: rest.delete_bundle(**given),
        [{"start_slot": 1, "end_slot": 2, "kind": "blocks"}],
    ),
    "http_delete_bundle_state": (
        lambda rest, given: rest.delete_bundle(**given),
        [{"start_slot": 1, "end_slot": 2, "kind": "account_state"}],
    ),
    "http_list_builds_limit": (
        lambda rest, given: rest.list_bundle_builds(**given),
        [{"builds": [BUILD]}],
    ),
    "http_bundle_status": (lambda rest, given: rest.bundle_status(**given), [BUILD]),
    "http_bundle_status_odd_id": (lambda rest, given: rest.bundle_status(**given), [BUILD]),
    "http_generate_depth_min": (
        lambda rest, given: rest.generate_depth(DepthRequest(**given)),
        [DEPTH],
    ),
    "http_depth_status": (lambda rest, given: rest.depth_status(**given), [DEPTH]),
    "http_depth_coverage": (lambda rest, _: rest.depth_coverage(), [{"sources": []}]),
    "http_credentials_forbidden": (lambda rest, _: rest.dataset_credentials(), ['{"error":"no"}']),
}


@pytest.mark.parametrize("case", RECORDED.values(), ids=lambda case: str(case["name"]))
def test_requests_are_those_of_the_reference(case: dict[str, Any]) -> None:
    call, bodies = CALLS[case["name"]]
    refused = "client_error" in case
    service = Service(*bodies, status="403 Forbidden" if refused else "200 OK")
    key = dict(case["requests"][0]["headers"])["x-api-key"]
    if refused:
        with pytest.raises(HttpStatusError) as caught:
            talk(service, lambda rest: call(rest, case["arguments"]), key)
        host = service.peers[0].header("host")
        assert str(caught.value) == case["client_error"].replace("<host>", str(host))
    else:
        talk(service, lambda rest: call(rest, case["arguments"]), key)
    assert len(service.requests) == len(case["requests"])
    for sent, recorded in zip(service.requests, case["requests"], strict=True):
        headers = sent.pop("headers")
        expected = dict(recorded["headers"])
        assert sent == {name: value for name, value in recorded.items() if name != "headers"}
        # the client's own name; the encodings of its HTTP library, which also writes a length of 0
        assert headers["user-agent"] == USER_AGENT
        for name in ("x-api-key", "content-type", "accept"):
            assert headers.get(name) == expected.get(name)


def test_no_recorded_request_is_left_out() -> None:
    assert set(CALLS) == set(RECORDED)


@pytest.mark.parametrize(
    "case", [c for c in VECTORS if c["function"] == "query_time"], ids=lambda c: str(c["name"])
)
def test_times_in_queries(case: dict[str, Any]) -> None:
    service = Service(USAGE)
    talk(service, lambda rest: rest.usage(since=case["input"]))
    assert service.requests[0]["query"] == case["query"]


@pytest.mark.parametrize(
    "case", [c for c in VECTORS if c["function"] == "delete_query"], ids=lambda c: str(c["name"])
)
def test_delete_queries(case: dict[str, Any]) -> None:
    fields = {name: case[name] for name in ("start_slot", "end_slot", "kind")}
    service = Service(fields)
    deleted = talk(service, lambda rest: rest.delete_bundle(**fields))
    assert service.requests[0]["query"] == case["query"]
    assert deleted.kind is BundleKind(case["kind"])


# --- the key


def test_ranges_without_a_key_leave_the_header_out() -> None:
    service = Service([])
    talk(service, lambda rest: rest.available_ranges(), key="")
    assert "x-api-key" not in service.requests[0]["headers"]


@pytest.mark.parametrize("key", ["bad\nkey", " bad", "schlüssel"])
def test_a_key_that_no_header_can_carry(key: str) -> None:
    with pytest.raises(InvalidParamsError, match="invalid API key header value"):
        RestClient("http://127.0.0.1:1", key)


def test_the_repr_shows_no_key() -> None:
    with RestClient("http://u:pw@127.0.0.1:1/", "secret-key") as rest:
        assert repr(rest) == "RestClient('http://127.0.0.1:1')"


# --- times


@pytest.mark.parametrize(
    ("since", "spelled"),
    [
        (
            datetime(2026, 1, 1, 2, 0, 0, 999_999, timezone(timedelta(hours=2))),
            "2026-01-01T00:00:00Z",
        ),
        (datetime(2026, 1, 1), "2026-01-01T00:00:00Z"),
        (date(2026, 1, 1), "2026-01-01T00:00:00Z"),
        ("2025-12-31t23:30:00-00:30", "2026-01-01T00:00:00Z"),
    ],
)
def test_times_of_every_form(since: Any, spelled: str) -> None:
    service = Service(USAGE)
    talk(service, lambda rest: rest.usage(since=since, until=since))
    query = parse_qs(service.requests[0]["query"])
    assert query == {"since": [spelled], "until": [spelled]}


@pytest.mark.parametrize("bad", ["yesterday", "2026-01-01T00:00:00", 7, "2026-13-01T00:00:00Z"])
def test_times_that_are_none(bad: Any) -> None:
    with RestClient("http://127.0.0.1:1") as rest:
        for call in (rest.usage, rest.usage_sessions):
            with pytest.raises(InvalidParamsError, match="since"):
                call(since=bad)


# --- paging (protocol/reference_tests.md §2)


def test_every_page_is_read_with_the_window_that_was_served() -> None:
    queries = []

    def script(peer: Peer) -> None:
        peer.read_head()
        query = parse_qs(peer.path.partition("?")[2])
        queries.append(query)
        number = int(query.get("cursor", ["0"])[0])
        peer.respond(
            "200 OK",
            json.dumps(
                {
                    "since": "2026-08-18T00:00:00Z",
                    "until": "2026-08-22T10:05:00Z",
                    "sessions": [
                        {**SESSION, "session_id": sid(number), "session_name": f"run-{number}"}
                    ],
                    "next_cursor": str(number + 1) if number < 2 else None,
                }
            ),
        )

    with ScriptedServer(script) as server, RestClient(server.http_url, "k") as rest:
        sessions = rest.usage_sessions()
    assert [(s.session_id, s.session_name) for s in sessions] == [
        (sid(n), f"run-{n}") for n in range(3)
    ]
    window = {"since": ["2026-08-18T00:00:00Z"], "until": ["2026-08-22T10:05:00Z"]}
    assert queries == [{}, {**window, "cursor": ["1"]}, {**window, "cursor": ["2"]}]


def test_pages_that_go_in_a_circle_end() -> None:
    service = Service(page("a"), page("b"), page("a"))
    with pytest.raises(HttpError, match="circle: cursor 'a'"):
        talk(service, lambda rest: rest.usage_sessions())
    assert len(service.requests) == 3


# --- values


def test_answers_become_values() -> None:
    ranges = [{"bundle_start_slot": 5, "max_bundle_end_slot": 9, "kind": "blocks", "new": 1}]
    assert talk(Service(ranges), lambda rest: rest.available_ranges()) == [
        AvailableRange(5, max_bundle_end_slot=9, kind=BundleKind.BLOCKS)
    ]
    assert talk(Service({"snapshot_slot": 7}), lambda rest: rest.snapshot_slot()) == 7
    build = talk(Service(BUILD), lambda rest: rest.bundle_status("req-1"))
    assert (build.status, build.kind, build.eta_secs) == (
        BuildStatus.IN_PROGRESS,
        BundleKind.BLOCKS,
        None,
    )
    builds = talk(
        Service({"builds": [BUILD], "bundles": None}), lambda rest: rest.list_bundle_builds()
    )
    assert (builds.builds, builds.bundles) == ((build,), None)
    assert talk(Service(USAGE), lambda rest: rest.usage()).sessions.started == 1
    depth = talk(Service(DEPTH), lambda rest: rest.depth_status("d-1"))
    assert (depth.source, depth.status) == (DepthSource.ONCHAIN, BuildStatus.COMPLETED)


def test_credentials_keep_their_secrets_out_of_the_repr() -> None:
    given = {
        "access_key_id": "AKID",
        "secret_access_key": "hidden-1",
        "session_token": "hidden-2",
        "s3_uri": "s3://bucket/shared/",
    }
    service = Service(given)
    credentials = talk(service, lambda rest: rest.dataset_credentials())
    assert credentials.secret_access_key == "hidden-1"
    assert "hidden" not in repr(credentials)
    assert (service.requests[0]["method"], service.requests[0]["body_text"]) == ("POST", None)


# --- bad answers


@pytest.mark.parametrize(
    ("call", "body"),
    [
        (lambda rest: rest.available_ranges(), {"ranges": []}),
        (lambda rest: rest.available_ranges(), [{"max_bundle_end_slot": 5}]),
        (lambda rest: rest.usage(), {"api_key_name": "k"}),
        (lambda rest: rest.usage_sessions(), []),
        (lambda rest: rest.snapshot_slot(), {"snapshot_slot": None}),
        (lambda rest: rest.snapshot_slot(), "<html>hello</html>"),
        (lambda rest: rest.list_bundle_builds(), {"bundles": []}),
        (lambda rest: rest.bundle_status("r"), {**BUILD, "created_at_unix_ms": None}),
        (lambda rest: rest.depth_coverage(), {"sources": [{}]}),
        (lambda rest: rest.dataset_credentials(), {}),
    ],
)
def test_answers_of_another_shape(call: Callable[[RestClient], Any], body: Any) -> None:
    service = Service(body)
    with pytest.raises(HttpError) as caught:
        talk(service, call)
    error = caught.value
    path = service.requests[0]["path"]
    assert str(error).startswith(
        f"HTTP request to http://{service.peers[0].header('host')}{path} failed: "
    )
    assert error.body == service.bodies[0]
    assert error.__cause__ is not None or "expected a list" in str(error)


def test_refusals_keep_the_body() -> None:
    service = Service("quota is used up", status="402 Payment Required")
    with pytest.raises(HttpStatusError, match=r"402 Payment Required .*quota is used up") as caught:
        talk(service, lambda rest: rest.available_ranges())
    assert (caught.value.status, caught.value.body) == (402, "quota is used up")


# --- repeating


def failing_once(then: Any) -> tuple[Callable[[Peer], None], list[str]]:
    seen: list[str] = []

    def script(peer: Peer) -> None:
        peer.read_head()
        peer.read_body()
        seen.append(peer.request_line)
        if len(seen) == 1:
            peer.respond("503 Service Unavailable", "later")
        else:
            peer.respond("200 OK", json.dumps(then))

    return script, seen


@pytest.mark.parametrize(
    ("call", "then"),
    [
        (lambda rest: rest.available_ranges(), []),
        (lambda rest: rest.usage(), USAGE),
        (lambda rest: rest.build_bundle(BundleBuildRequest(1, 2, idempotency_key="k")), BUILD),
    ],
    ids=["ranges", "usage", "build with a key"],
)
def test_what_may_be_repeated_is(call: Callable[[RestClient], Any], then: Any) -> None:
    script, seen = failing_once(then)
    with ScriptedServer(script) as server, RestClient(server.http_url) as rest:
        call(rest)
    assert len(seen) == 2


@pytest.mark.parametrize(
    "call",
    [
        lambda rest: rest.build_bundle(BundleBuildRequest(1, 2)),
        lambda rest: rest.generate_depth(DepthRequest(1, 2)),
        lambda rest: rest.delete_bundle(1, 2, "blocks"),
        lambda rest: rest.dataset_credentials(),
    ],
    ids=["build", "depth", "delete", "credentials"],
)
def test_what_may_not_be_repeated_is_not(call: Callable[[RestClient], Any]) -> None:
    script, seen = failing_once({})
    with ScriptedServer(script) as server, RestClient(server.http_url) as rest:
        with pytest.raises(HttpStatusError, match="503 Service Unavailable"):
            call(rest)
    assert len(seen) == 1


# --- bad calls

ELF = bytes(3 * 2**20)
ACCOUNT = AccountData(b"", 1, SYSTEM)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda rest: rest.available_ranges("yes"), "include_account_state"),
        (lambda rest: rest.list_bundle_builds(-1), "limit"),
        (lambda rest: rest.bundle_status(""), "request_id"),
        (lambda rest: rest.depth_status(7), "request_id"),
        (lambda rest: rest.delete_bundle(1, 2, "transactions"), "kind"),
        (lambda rest: rest.delete_bundle(-1, 2, "blocks"), "start_slot"),
        (
            lambda rest: rest.delete_bundle(3, 2, "blocks"),
            "invalid range: start_slot 3 > end_slot 2",
        ),
        (lambda rest: rest.build_bundle(BundleBuildRequest(3, 2)), "invalid range"),
        (lambda rest: rest.build_bundle({"start_slot": 1}), "expected a BundleBuildRequest"),
        (lambda rest: rest.generate_depth(None), "expected a DepthRequest"),
        (lambda rest: rest.generate_depth(DepthRequest(3, 2)), "invalid range"),
        (lambda rest: rest.generate_depth(DepthRequest(1, 2, "router", "oracle")), "onchain only"),
        (
            lambda rest: rest.generate_depth(
                DepthRequest(1, 2, "router", account_overrides={SYSTEM: ACCOUNT})
            ),
            "onchain",
        ),
        (
            lambda rest: rest.generate_depth(
                DepthRequest(1, 2, program_overrides=[ProgramOverride(SYSTEM, b"x")] * 9)
            ),
            "at most 8",
        ),
        (
            lambda rest: rest.generate_depth(
                DepthRequest(1, 2, program_overrides=[ProgramOverride(SYSTEM, ELF)] * 3)
            ),
            "at most 8388608",
        ),
        (
            lambda rest: rest.generate_depth(
                DepthRequest(1, 2, account_overrides={bytes([n]) * 32: ACCOUNT for n in range(65)})
            ),
            "at most 64",
        ),
        (
            lambda rest: rest.generate_depth(
                DepthRequest(
                    1, 2, account_overrides={SYSTEM: AccountData(bytes(131_073), 1, SYSTEM)}
                )
            ),
            "at most 131072",
        ),
    ],
)
def test_bad_calls_send_nothing(call: Callable[[RestClient], Any], reason: str) -> None:
    # nobody listens there: anything sent would be an HttpError
    with RestClient("http://127.0.0.1:1") as rest, pytest.raises(InvalidParamsError, match=reason):
        call(rest)


@pytest.mark.parametrize("url", ["wss://h/backtest", "h", ""])
def test_a_base_that_is_none(url: str) -> None:
    with pytest.raises(InvalidParamsError, match="usable endpoint"):
        RestClient(url)
