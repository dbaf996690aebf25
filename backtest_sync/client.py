"""`BacktestClient`: opens sessions and asks the service's REST endpoints.

Every session has a connection of its own; nothing is shared but the HTTP pool.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import warnings
import weakref
from collections.abc import Callable, Mapping
from inspect import signature
from typing import TYPE_CHECKING, Any, cast

from attrs import evolve

from backtest_sync import handshake, urls
from backtest_sync.arguments import check_callback
from backtest_sync.channel import Channel
from backtest_sync.connection import Connection, ReconnectPolicy, check_policy
from backtest_sync.errors import (
    BacktestClientError,
    InvalidParamsError,
    RequestTimeoutError,
    SessionClosedError,
)
from backtest_sync.handshake import OnEvent, Wait
from backtest_sync.headers import API_KEY_HEADER, USER_AGENT, check_api_key, check_headers
from backtest_sync.limits import (
    HANDSHAKE_LIMIT,
    PARALLEL_CREATE_LIMIT,
    Deadline,
    check_timeout,
)
from backtest_sync.origins import is_loopback, shown_url
from backtest_sync.protocol import (
    AttachBacktestSession,
    CreateBacktestSession,
    CreateSession,
    parse_session_id,
)
from backtest_sync.protocol.fields import shown, to_bool
from backtest_sync.session import BacktestSession

if TYPE_CHECKING:
    import ssl
    from datetime import date, datetime
    from typing import TypeAlias

    from backtest_sync.protocol import (
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
        SessionAttached,
        SessionCreated,
        SessionUsage,
        UsageReport,
    )
    from backtest_sync.rest import RestClient

    #: A point in time: RFC 3339 text, a date (midnight UTC) or a datetime.
    When: TypeAlias = "str | date | datetime"

PRODUCTION_URL = "simulator.termina.technology"

#: How much longer than a reconnect may take the server is asked to keep a session, seconds.
KEEP_ALIVE_MARGIN = 60
#: The server's maximum of ``disconnect_timeout_secs`` (protocol/managed.md §1).
MAX_DISCONNECT_TIMEOUT = 900

_DEFAULT = ReconnectPolicy()

logger = logging.getLogger("backtest_sync")


class BacktestClient:
    """The way to one simulator. A context manager; closing it closes the sessions that it opened.

    Args:
        url: bare host or ``ws(s)://…`` (protocol/control.md §1); ``None`` reads ``SIMULATOR_URL``, then takes
            the production host.
        api_key: ``None`` reads ``SIMULATOR_API_KEY``, then is empty. It goes into the ``X-API-Key`` header of
            the service's own origin and nowhere else.
        connect_timeout: seconds for TCP, TLS and the WebSocket upgrade together.
        request_timeout: the default limit of every waiting call in seconds; ``None``: no limit.
        reconnect: accepted for the time when sessions reconnect by themselves; until then a lost connection
            ends the session with `SessionClosedError`. ``None`` asks for no reconnecting.
        log_raw: log every text that comes in, at debug level, to the logger ``backtest_sync``.
        headers: more headers for the WebSocket handshake and the REST endpoints; the key and the user agent
            win on a clash.
        ssl_context: for ``wss`` and ``https``; ``None`` verifies against the system's roots.

    Raises `InvalidParamsError`. The methods of REST endpoints (protocol/http.md) have ``request_timeout`` as
    the limit of each request, and raise `HttpStatusError` (with the answer's body), `HttpError`,
    `RequestTimeoutError`, and `InvalidParamsError` before anything is sent. Proxies come from the usual
    environment variables, for WebSocket and HTTP alike. A client may be used from several threads. Once
    closed, it opens nothing any more.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        connect_timeout: float = 10.0,
        request_timeout: float | None = None,
        reconnect: ReconnectPolicy | None = _DEFAULT,
        log_raw: bool = False,
        headers: Mapping[str, str] | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        given = url if url is not None else os.environ.get("SIMULATOR_URL") or PRODUCTION_URL
        if not isinstance(given, str) or not given.strip():
            raise InvalidParamsError(f"url: expected a host or a ws(s):// URL, got {shown(given)}")
        self._url = urls.backtest_ws_url(given.strip())
        self._api_key = check_api_key(
            os.environ.get("SIMULATOR_API_KEY", "") if api_key is None else api_key
        )
        self._connect_timeout = _seconds(connect_timeout, "connect_timeout")
        self._request_timeout = (
            None if request_timeout is None else _seconds(request_timeout, "request_timeout")
        )
        self._reconnect = check_policy(reconnect)
        self._log_raw = to_bool(log_raw, "log_raw")
        self._headers = {
            name: value
            for name, value in check_headers({} if headers is None else headers).items()
            if name.lower() not in (API_KEY_HEADER.lower(), "user-agent")
        }
        self._ssl_context = _context(ssl_context)
        self._guard = threading.RLock()  # of those below; a signal handler may close the client
        self._sessions: weakref.WeakSet[BacktestSession] = weakref.WeakSet()
        self._rest_client: RestClient | None = None
        self._closed = False
        if self._api_key and self._url.startswith("ws://") and not is_loopback(self._url):
            warnings.warn(
                f"the API key goes to {shown_url(self._url)} unencrypted: use wss://", stacklevel=2
            )

    @property
    def url(self) -> str:
        """The control URL."""
        return self._url

    def __repr__(self) -> str:
        return f"<BacktestClient {shown_url(self._url)}>"

    def __reduce__(self) -> Any:
        raise TypeError(
            "a BacktestClient can't be pickled: pass the url and make a client in the other process"
        )

    def __enter__(self) -> BacktestClient:
        return self

    def __exit__(self, kind: object, value: BaseException | None, trace: object) -> None:
        try:
            self.close()
        except BacktestClientError:
            if value is None:
                raise

    def close(self) -> None:
        """Close the sessions that are still open, each within 5 s, then the HTTP pool. Idempotent.

        What a session's close fails from (see `BacktestSession.close`) is raised at the end, the first of it;
        that session is aborted. Interrupted, it aborts the sessions that are left.
        """
        with self._guard:
            self._closed = True
            sessions, rest = list(self._sessions), self._rest_client
        failure: BacktestClientError | None = None
        try:
            while sessions:
                try:
                    with sessions.pop():
                        pass
                except BacktestClientError as error:
                    logger.warning("a session could not be closed: %s", error)
                    failure = failure or error
        finally:
            for session in sessions:
                session.abort()
            if rest is not None:
                rest.close()
        if failure is not None:
            raise failure

    # --- sessions

    def create_session(
        self,
        params: CreateSession | None = None,
        /,
        *,
        timeout: float | None = None,
        on_event: OnEvent | None = None,
        reconnect: ReconnectPolicy | None = _DEFAULT,
        **fields: Any,
    ) -> BacktestSession:
        """Create a single session over a slot range.

        ``params``, or the fields of `CreateSession` as keywords: ``start_slot``, one of ``end_slot`` (inclusive)
        and ``slot_count``, … ``timeout`` is a deadline for all of it; in any case the server may stay silent for
        no longer than 120 s plus ``capacity_wait_timeout_secs``. ``on_event`` sees what arrives while the runtime
        starts; all but an early ``readyForContinue``, which is recorded, is kept for the session.

        Where ``disconnect_timeout_secs`` is unset, the server is asked to keep the session for as long as
        ``reconnect`` (by default the client's) may take and a minute more; with ``reconnect=None`` it is left
        unset.

        Raises `InvalidParamsError`, `ConnectError`, `RequestTimeoutError`, `RemoteError`, `SessionClosedError`,
        `UnexpectedResponseError`, `DeserializeError`.
        """
        request = _request(params, fields)
        if request.parallel:
            raise InvalidParamsError(
                "create_session makes a single session: leave out parallel, or use create_sessions"
            )
        check_callback(on_event, "on_event")
        policy = self._reconnect if reconnect is _DEFAULT else check_policy(reconnect)
        request = _kept_alive(request, policy)
        wait = self._wait(timeout, request)
        channel = self._open(request.name or _slots(request), wait.deadline)
        try:
            created, ready = handshake.create_one(channel, request, wait, on_event)
            if request.name is not None and created.session_name != request.name:
                logger.warning("the server did not name %s %r", created.session_id, request.name)
            return self._session(channel, created, ready)
        except BaseException:
            channel.abort()
            raise

    def create_sessions(
        self,
        params: CreateSession | None = None,
        /,
        *,
        on_session_created: Callable[[str], object] | None = None,
        **fields: Any,
    ) -> list[str]:
        """Create one session, or with ``parallel=True`` many, for others to attach to: their ids.

        ``on_session_created`` is told each id as it comes. Nothing stays connected: the server keeps the sessions
        for ``disconnect_timeout_secs``. Unset, that is for one session as `create_session` says, or the default of
        a `ReconnectPolicy`; for many it is the server's matter. ``request_timeout`` is the deadline; in any case
        the server may stay silent for no longer than 120 s (900 s with ``parallel``) plus
        ``capacity_wait_timeout_secs``. Raises as `create_session` does.
        """
        sessions = self.create_sessions_with_task_ids(
            params, on_session_created=on_session_created, **fields
        )
        return [session_id for session_id, _ in sessions]

    def create_sessions_with_task_ids(
        self,
        params: CreateSession | None = None,
        /,
        *,
        on_session_created: Callable[[str], object] | None = None,
        **fields: Any,
    ) -> list[tuple[str, str | None]]:
        """`create_sessions`, each id with the server's task id or ``None``."""
        request = _request(params, fields)
        check_callback(on_session_created, "on_session_created")
        if not request.parallel:
            request = _kept_alive(request, self._reconnect or _DEFAULT)
        wait = self._wait(None, request)
        channel = self._open(request.name or _slots(request), wait.deadline)
        try:
            created = handshake.create_many(channel, request, wait, on_session_created)
        except BaseException:
            channel.abort()
            raise
        channel.close(None, "")
        return created

    def attach_session(
        self,
        session_id: str,
        last_sequence: int | None = None,
        *,
        reconnect: ReconnectPolicy | None = _DEFAULT,
    ) -> BacktestSession:
        """Claim an existing session; what followed ``last_sequence`` is replayed (``None``: all retained).

        Rebuild subscriptions, then call `BacktestSession.resume_attached_session`: until then a session that
        was handed over stays paused. ``request_timeout`` is the deadline; in any case the server may stay
        silent for no longer than 120 s. Raises as `create_session` does; a `RemoteError` of
        ``sessionOwnershipBusy`` means that another connection holds the session still: try again.
        """
        check_policy(reconnect)  # nothing depends on it until sessions reconnect
        request = AttachBacktestSession(
            session_id=parse_session_id(session_id), last_sequence=last_sequence
        )
        wait = Wait(Deadline(self._request_timeout), HANDSHAKE_LIMIT)
        channel = self._open(request.session_id, wait.deadline, last_sequence)
        try:
            attached, ready = handshake.attach(channel, request, wait)
            return self._session(channel, attached, ready)
        except BaseException:
            channel.abort()
            raise

    def _wait(self, timeout: float | None, request: CreateBacktestSession) -> Wait:
        limit = check_timeout(timeout) if timeout is not None else self._request_timeout
        silence = PARALLEL_CREATE_LIMIT if request.parallel else HANDSHAKE_LIMIT
        return Wait(Deadline(limit), silence + (request.capacity_wait_timeout_secs or 0))

    def _open(self, name: str, deadline: Deadline, last_sequence: int | None = None) -> Channel:
        self._check_open()
        limit = deadline.sooner(self._connect_timeout).remaining()
        if not limit:
            raise RequestTimeoutError("connecting", deadline.timeout or 0.0)
        connection = Connection.open(
            self._url,
            name=name,
            headers={**self._headers, "User-Agent": USER_AGENT, API_KEY_HEADER: self._api_key},
            connect_timeout=limit,
            ssl_context=self._tls_context(),
        )
        return Channel(connection, last_sequence=last_sequence, log_raw=self._log_raw)

    def _tls_context(self) -> ssl.SSLContext | None:
        """One for all connections of this client: to make it takes longer than to connect."""
        from backtest_sync.upgrade import default_tls_context

        with self._guard:
            if self._ssl_context is None and self._url.startswith("wss://"):
                self._ssl_context = default_tls_context()
            return self._ssl_context

    def _check_open(self) -> None:
        if self._closed:
            raise SessionClosedError("the client is closed")

    def _session(
        self, channel: Channel, created: SessionCreated | SessionAttached, ready: bool
    ) -> BacktestSession:
        session = BacktestSession(
            channel,
            created,
            rpc_endpoint=urls.resolve_rpc_url(
                urls.http_base_from_ws_url(self._url), created.rpc_endpoint
            ),
            ready=ready,
            request_timeout=self._request_timeout,
            ssl_context=self._ssl_context,
        )
        with self._guard:
            self._check_open()  # or nobody would close it
            self._sessions.add(session)
        return session

    # --- REST (protocol/http.md)

    @property
    def _rest(self) -> RestClient:
        from backtest_sync.rest import RestClient

        with self._guard:
            if self._rest_client is None:
                self._rest_client = RestClient(
                    urls.http_base_from_ws_url(self._url),
                    self._api_key,
                    timeout=self._request_timeout,
                    connect_timeout=self._connect_timeout,
                    headers=self._headers,
                    ssl_context=self._ssl_context,
                )
            if self._closed:
                self._rest_client.close()
            return self._rest_client

    def available_ranges(self, include_account_state: bool = False) -> list[AvailableRange]:
        """The slot ranges that sessions can run over. Usable without a key (global ranges only)."""
        return self._rest.available_ranges(include_account_state)

    def usage(self, since: When | None = None, until: When | None = None) -> UsageReport:
        """What the key used; the server snaps ``since`` back to midnight UTC."""
        return self._rest.usage(since, until)

    def usage_sessions(
        self, since: When | None = None, until: When | None = None
    ) -> list[SessionUsage]:
        """The sessions of the key, every page read; in no promised order."""
        return self._rest.usage_sessions(since, until)

    def snapshot_slot(self) -> int:
        """The slot of the service's newest snapshot."""
        return self._rest.snapshot_slot()

    def build_bundle(self, request: BundleBuildRequest) -> BundleBuildStatus:
        """Ask for a bundle to be built; poll `bundle_status`. Repeat safely with an idempotency key."""
        return self._rest.build_bundle(request)

    def bundle_status(self, request_id: str) -> BundleBuildStatus:
        """The state of a build."""
        return self._rest.bundle_status(request_id)

    def list_bundle_builds(self, limit: int | None = None) -> BundleBuildList:
        """The key's builds, newest first, and its bundles, ascending."""
        return self._rest.list_bundle_builds(limit)

    def delete_bundle(
        self, start_slot: int, end_slot: int, kind: BundleKind | str
    ) -> DeletedBundle:
        """Delete one bundle, named by its exact range and kind."""
        return self._rest.delete_bundle(start_slot, end_slot, kind)

    def generate_depth(self, request: DepthRequest) -> DepthStatus:
        """Ask for a depth dataset; poll `depth_status`."""
        return self._rest.generate_depth(request)

    def depth_status(self, request_id: str) -> DepthStatus:
        """The state of a depth dataset."""
        return self._rest.depth_status(request_id)

    def depth_coverage(self) -> DepthCoverage:
        """Which depth data there is."""
        return self._rest.depth_coverage()

    def dataset_credentials(self) -> DatasetCredentials:
        """Temporary read-only S3 credentials of the datasets; secrets stay out of the repr."""
        return self._rest.dataset_credentials()


def _request(params: CreateSession | None, fields: dict[str, Any]) -> CreateBacktestSession:
    """The checked create request, from a `CreateSession` or its fields."""
    if params is None:
        names = list(signature(CreateSession).parameters)
        unknown = sorted(set(fields) - set(names))
        if unknown:
            raise InvalidParamsError(
                f"CreateSession has no field {unknown[0]!r}; its fields: {', '.join(names)}"
            )
        if "start_slot" not in fields:
            raise InvalidParamsError("CreateSession: must set start_slot")
        params = CreateSession(**fields)
    elif not isinstance(params, CreateSession):
        raise InvalidParamsError(f"params must be a CreateSession, not {params!r}")
    elif fields:
        raise InvalidParamsError(
            f"give a CreateSession or its fields, not both: {', '.join(sorted(fields))}"
        )
    return params.to_request()


def _kept_alive(
    request: CreateBacktestSession, policy: ReconnectPolicy | None
) -> CreateBacktestSession:
    """With a disconnect timeout that covers a reconnect budget, where it has none (protocol/managed.md §4)."""
    if request.disconnect_timeout_secs is not None or policy is None:
        return request
    seconds = min(MAX_DISCONNECT_TIMEOUT, math.ceil(policy.max_total) + KEEP_ALIVE_MARGIN)
    kept: CreateBacktestSession = evolve(cast(Any, request), disconnect_timeout_secs=seconds)
    return kept


def _slots(request: CreateBacktestSession) -> str:
    return f"slots {request.start_slot}-{request.end_slot}"


def _seconds(value: float | None, field: str) -> float:
    """A limit that can be waited for: above zero."""
    seconds = check_timeout(value, field)
    if not seconds:
        raise InvalidParamsError(f"{field}: expected seconds above zero, got {shown(value)}")
    return seconds


def _context(value: object) -> ssl.SSLContext | None:
    if value is None:
        return None
    import ssl

    if not isinstance(value, ssl.SSLContext):
        raise InvalidParamsError(f"ssl_context: expected an SSLContext, got {shown(value)}")
    return value
