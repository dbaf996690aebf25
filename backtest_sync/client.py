"""`BacktestClient`: opens sessions and asks the service's REST endpoints.

Every session has a connection of its own; nothing is shared but the HTTP pool.
"""

from __future__ import annotations

import math
import os
import warnings
import weakref
from collections.abc import Callable, Mapping
from inspect import signature
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from attrs import evolve

from backtest_sync import handshake, urls
from backtest_sync.channel import Channel
from backtest_sync.connection import Connection, ReconnectPolicy
from backtest_sync.errors import InvalidParamsError
from backtest_sync.handshake import OnEvent, Wait
from backtest_sync.limits import (
    HANDSHAKE_LIMIT,
    PARALLEL_CREATE_LIMIT,
    Deadline,
    check_timeout,
)
from backtest_sync.protocol import (
    AttachBacktestSession,
    CreateBacktestSession,
    CreateSession,
    parse_session_id,
)
from backtest_sync.session import BacktestSession
from backtest_sync.useragent import USER_AGENT

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
        headers: more headers for the WebSocket handshake; the key and the user agent win on a clash.
        ssl_context: for ``wss``; ``None`` verifies against the system's roots.

    Proxies come from the usual environment variables, for WebSocket and HTTP alike.
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
            raise InvalidParamsError(f"url must be a host or a ws(s):// URL, not {given!r}")
        self._url = urls.backtest_ws_url(given.strip())
        key = api_key if api_key is not None else os.environ.get("SIMULATOR_API_KEY", "")
        if not isinstance(key, str):
            raise InvalidParamsError(f"api_key must be a str, not {type(key).__name__}")
        self._api_key = key
        if check_timeout(connect_timeout, "connect_timeout") in (None, 0.0):
            raise InvalidParamsError("connect_timeout must be a number of seconds above 0")
        self._connect_timeout = connect_timeout
        self._request_timeout = check_timeout(request_timeout, "request_timeout")
        self._reconnect = reconnect
        self._log_raw = log_raw
        self._headers = {
            name: value
            for name, value in (headers or {}).items()
            if name.lower() not in ("x-api-key", "user-agent")
        }
        self._ssl_context = ssl_context
        self._sessions: weakref.WeakSet[BacktestSession] = weakref.WeakSet()
        self._rest_client: RestClient | None = None
        if key and self._url.startswith("ws://") and not _is_loopback(self._url):
            warnings.warn(
                f"the API key goes to {urlsplit(self._url).hostname} unencrypted: use wss://",
                stacklevel=2,
            )

    @property
    def url(self) -> str:
        """The control URL."""
        return self._url

    def __repr__(self) -> str:
        return f"<BacktestClient {self._url}>"

    def __reduce__(self) -> Any:
        raise TypeError(
            "a BacktestClient can't be pickled: pass the url and make a client in the other process"
        )

    def __enter__(self) -> BacktestClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the sessions that are still open, then the HTTP pool. The first failure is raised at the end."""
        failure: BaseException | None = None
        for session in list(self._sessions):
            try:
                with session:
                    pass
            except Exception as error:  # noqa: BLE001 - raised below, after the others are closed
                failure = failure or error
        if self._rest_client is not None:
            self._rest_client.close()
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
        and ``slot_count``, … ``timeout`` is a deadline; in any case the server may stay silent for no longer
        than 120 s plus ``capacity_wait_timeout_secs``. ``on_event`` sees what arrives while the runtime starts.

        Where ``disconnect_timeout_secs`` is unset, the server is asked to keep the session for as long as
        ``reconnect`` may take and a minute more; with ``reconnect=None`` it is left unset.

        Raises: `InvalidParamsError`, `ConnectError`, `RequestTimeoutError`, `RemoteError`, `SessionClosedError`.
        """
        request = _request(params, fields)
        if request.parallel:
            raise InvalidParamsError(
                "create_session makes a single session: leave out parallel, or use create_sessions"
            )
        policy = self._reconnect if reconnect is _DEFAULT else reconnect
        if request.disconnect_timeout_secs is None and policy is not None:
            request = evolve(cast(Any, request), disconnect_timeout_secs=_keep_alive(policy))
        wait = self._wait(timeout, request)
        channel = self._open(request.name or f"slots {request.start_slot}-{request.end_slot}")
        try:
            created, ready = handshake.create_one(channel, request, wait, on_event)
        except BaseException:
            channel.abort()
            raise
        return self._session(channel, created, ready)

    def create_sessions(
        self,
        params: CreateSession | None = None,
        /,
        *,
        on_session_created: Callable[[str], object] | None = None,
        **fields: Any,
    ) -> list[str]:
        """Create one session, or with ``parallel=True`` many, for others to attach to: their ids.

        ``on_session_created`` is told each id as it comes.
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
        wait = self._wait(None, request)
        channel = self._open("create-sessions")
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
        was handed over stays paused.
        """
        del reconnect  # nothing depends on it until sessions reconnect
        request = AttachBacktestSession(
            session_id=parse_session_id(session_id), last_sequence=last_sequence
        )
        wait = Wait(Deadline(self._request_timeout), HANDSHAKE_LIMIT)
        channel = self._open(request.session_id, last_sequence)
        try:
            attached, ready = handshake.attach(channel, request, wait)
        except BaseException:
            channel.abort()
            raise
        return self._session(channel, attached, ready)

    def _wait(self, timeout: float | None, request: CreateBacktestSession) -> Wait:
        limit = check_timeout(timeout) if timeout is not None else self._request_timeout
        silence = PARALLEL_CREATE_LIMIT if request.parallel else HANDSHAKE_LIMIT
        return Wait(Deadline(limit), silence + (request.capacity_wait_timeout_secs or 0))

    def _open(self, name: str, last_sequence: int | None = None) -> Channel:
        connection = Connection.open(
            self._url,
            name=name,
            headers={**self._headers, "User-Agent": USER_AGENT, "X-API-Key": self._api_key},
            connect_timeout=self._connect_timeout,
            ssl_context=self._ssl_context,
        )
        return Channel(connection, last_sequence=last_sequence, log_raw=self._log_raw)

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
        self._sessions.add(session)
        return session

    # --- REST (protocol/http.md)

    @property
    def _rest(self) -> RestClient:
        if self._rest_client is None:
            from backtest_sync.rest import RestClient

            self._rest_client = RestClient(
                urls.http_base_from_ws_url(self._url),
                self._api_key,
                timeout=self._request_timeout,
                connect_timeout=self._connect_timeout,
                headers=self._headers,
                ssl_context=self._ssl_context,
            )
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


def _keep_alive(policy: ReconnectPolicy) -> int:
    """The disconnect timeout, in seconds, that covers a reconnect budget (protocol/managed.md §4)."""
    return min(MAX_DISCONNECT_TIMEOUT, math.ceil(policy.max_total) + KEEP_ALIVE_MARGIN)


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")
