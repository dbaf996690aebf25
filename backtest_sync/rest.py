"""The service's REST endpoints (protocol/http.md), which have the same names on `BacktestClient`."""

from __future__ import annotations

from datetime import date, datetime, timezone
from typing import TYPE_CHECKING, Any, TypeVar

from backtest_sync.errors import DeserializeError, InvalidParamsError
from backtest_sync.headers import API_KEY_HEADER, check_api_key
from backtest_sync.http import HttpClient
from backtest_sync.origins import check_endpoint, shown_url
from backtest_sync.protocol.codec import structure, unstructure
from backtest_sync.protocol.fields import to_bool, to_text, to_u64
from backtest_sync.protocol.rest import (
    AvailableRange,
    BundleBuildList,
    BundleBuildRequest,
    BundleBuildStatus,
    BundleKind,
    DatasetCredentials,
    DeletedBundle,
    DepthCoverage,
    DepthRequest,
    DepthStatus,
    SnapshotSlot,
)
from backtest_sync.protocol.times import format_time, to_time
from backtest_sync.protocol.usage import SessionUsagePage, UsageReport
from backtest_sync.replies import Repeat

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping, Sequence
    from typing import TypeAlias

    from backtest_sync.protocol.shape import Value
    from backtest_sync.protocol.usage import SessionUsage
    from backtest_sync.replies import HttpReply

    When: TypeAlias = "str | date | datetime"
    Query: TypeAlias = Sequence[tuple[str, str]]

#: How long after its start a request that is safe to repeat may be tried again, in seconds.
RETRY_LIMIT = 5.0

_V = TypeVar("_V", bound="Value")


class RestClient:
    """The REST endpoints at ``base_url`` (``https://host``), from any number of threads.

    ``timeout`` bounds each request in seconds (``None``: no limit). Requests that change nothing are repeated for
    some seconds after a broken connection or an answer of 429, 502, 503 or 504.
    Every method raises `HttpStatusError` (with the answer's body), `HttpError` (no answer, or not the expected
    JSON), `RequestTimeoutError` and `InvalidParamsError` (nothing was sent).
    """

    def __init__(
        self,
        base_url: str,
        api_key: str = "",
        *,
        timeout: float | None = None,
        connect_timeout: float | None = 10.0,
        headers: Mapping[str, str] | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._base = check_endpoint(base_url).rstrip("/")
        self._key = check_api_key(api_key)
        self._http = HttpClient(
            timeout=timeout,
            connect_timeout=connect_timeout,
            headers=headers,
            ssl_context=ssl_context,
        )

    def __repr__(self) -> str:
        return f"RestClient({shown_url(self._base)!r})"

    def close(self) -> None:
        """Close its connections; later requests fail."""
        self._http.close()

    def __enter__(self) -> RestClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- ranges and bundles

    def available_ranges(self, include_account_state: bool = False) -> list[AvailableRange]:
        """The slot ranges that sessions can run over. Without a key only those that are there for all."""
        flag = to_bool(include_account_state, "include_account_state")
        reply = self._send(
            "GET",
            "/available-ranges",
            query=[("include_account_state", "true" if flag else "false")],
            with_key=bool(self._key),
        )
        ranges = reply.json()
        if not isinstance(ranges, list):
            raise reply.error("expected a list of ranges")
        return [_value(AvailableRange, entry, reply) for entry in ranges]

    def snapshot_slot(self) -> int:
        """The slot of the service's newest snapshot."""
        return self._read(SnapshotSlot, "GET", "/snapshot-slot").snapshot_slot

    def build_bundle(self, request: BundleBuildRequest) -> BundleBuildStatus:
        """Ask for a bundle; poll `bundle_status`. With an idempotency key a repeat is the same build."""
        _expect(BundleBuildRequest, request)
        _check_order(request)
        repeat = Repeat.UNSENT if request.idempotency_key is None else Repeat.SAFE
        return self._read(BundleBuildStatus, "POST", "/build-bundle", body=request, repeat=repeat)

    def bundle_status(self, request_id: str) -> BundleBuildStatus:
        """How far a build is."""
        return self._read(BundleBuildStatus, "GET", f"/build-bundle/{_request_id(request_id)}")

    def list_bundle_builds(self, limit: int | None = None) -> BundleBuildList:
        """The key's builds, newest first and ``limit`` at most, and its bundles."""
        query = [] if limit is None else [("limit", str(to_u64(limit, "limit")))]
        return self._read(BundleBuildList, "GET", "/build-bundle", query=query)

    def delete_bundle(
        self, start_slot: int, end_slot: int, kind: BundleKind | str
    ) -> DeletedBundle:
        """Delete the bundle of exactly this range and kind."""
        bundle = DeletedBundle(start_slot, end_slot, kind)  # type: ignore[arg-type] # checks it
        _check_order(bundle)
        query = [
            ("start_slot", str(bundle.start_slot)),
            ("end_slot", str(bundle.end_slot)),
            ("kind", bundle.kind.value),
        ]
        return self._read(DeletedBundle, "DELETE", "/bundles", query=query)

    # --- depth datasets

    def generate_depth(self, request: DepthRequest) -> DepthStatus:
        """Ask for a depth dataset; poll `depth_status`. The service's limits are checked before."""
        _expect(DepthRequest, request)
        _check_order(request)
        broken = request.error()
        if broken is not None:
            raise InvalidParamsError(f"request: {broken}")
        return self._read(DepthStatus, "POST", "/generate-depth", body=request)

    def depth_status(self, request_id: str) -> DepthStatus:
        """How far a depth dataset is."""
        return self._read(DepthStatus, "GET", f"/generate-depth/{_request_id(request_id)}")

    def depth_coverage(self) -> DepthCoverage:
        """Which depth data there is."""
        return self._read(DepthCoverage, "GET", "/generate-depth/coverage")

    def dataset_credentials(self) -> DatasetCredentials:
        """Temporary, read-only S3 credentials of the datasets."""
        return self._read(DatasetCredentials, "POST", "/datasets/credentials")

    # --- usage

    def usage(self, since: When | None = None, until: When | None = None) -> UsageReport:
        """What the key has used; the service takes ``since`` back to midnight UTC.

        A time is a ``datetime`` (naive: UTC), a ``date`` (its midnight in UTC) or RFC 3339 text; fractions of
        a second are cut.
        """
        return self._read(UsageReport, "GET", "/usage", query=_window(since, until))

    def usage_sessions(
        self, since: When | None = None, until: When | None = None
    ) -> list[SessionUsage]:
        """The key's sessions in a window of time, every page read; in no promised order. See `usage`."""
        sessions: list[SessionUsage] = []
        query = _window(since, until)
        seen: set[str] = set()
        while True:
            reply = self._send("GET", "/usage/sessions", query=query)
            page = _value(SessionUsagePage, reply.json(), reply)
            sessions += page.sessions
            cursor = page.next_cursor
            if cursor is None:
                return sessions
            if cursor in seen:
                raise reply.error(f"the pages go in a circle: cursor {cursor!r:.100} came before")
            seen.add(cursor)
            # the window as the service understood it, so that pages do not drift with the present
            query = [*_window(page.since, page.until), ("cursor", cursor)]

    # --- requests

    def _read(
        self,
        cls: type[_V],
        method: str,
        path: str,
        *,
        query: Query = (),
        body: Value | None = None,
        repeat: Repeat | None = None,
    ) -> _V:
        reply = self._send(method, path, query=query, body=body, repeat=repeat)
        return _value(cls, reply.json(), reply)

    def _send(
        self,
        method: str,
        path: str,
        *,
        query: Query = (),
        body: Value | None = None,
        repeat: Repeat | None = None,
        with_key: bool = True,
    ) -> HttpReply:
        if repeat is None:
            repeat = Repeat.SAFE if method == "GET" else Repeat.UNSENT
        return self._http.request(
            method,
            self._base + path,
            params=query,
            json=None if body is None else unstructure(body),
            headers={API_KEY_HEADER: self._key} if with_key else {},
            retry_for=RETRY_LIMIT,
            repeat=repeat,
        ).raise_for_status()


def _value(cls: type[_V], json: Any, reply: HttpReply) -> _V:
    try:
        return structure(cls, json)
    except DeserializeError as error:
        raise reply.error(f"not the expected JSON: {error.reason}") from error


def _expect(cls: type[Value], request: object) -> None:
    if not isinstance(request, cls):
        raise InvalidParamsError(
            f"request: expected a {cls.__name__}, got {type(request).__name__}"
        )


def _check_order(value: BundleBuildRequest | DepthRequest | DeletedBundle) -> None:
    if value.start_slot > value.end_slot:
        raise InvalidParamsError(
            f"invalid range: start_slot {value.start_slot} > end_slot {value.end_slot}"
        )


def _request_id(value: object) -> str:
    """A request's id, which goes into the path as it is, like the reference client's."""
    request_id = to_text(value, "request_id")
    if not request_id:
        raise InvalidParamsError(
            "request_id: expected the id that the request's answer gave, got ''"
        )
    return request_id


def _window(since: When | None, until: When | None) -> list[tuple[str, str]]:
    window = (("since", since), ("until", until))
    return [(name, _query_time(value, name)) for name, value in window if value is not None]


def _query_time(value: When, field: str) -> str:
    """A moment as queries spell it: whole seconds in UTC."""
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=timezone.utc)
    return format_time(to_time(value, field).replace(microsecond=0))
