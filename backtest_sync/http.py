"""HTTP for the REST endpoints and the session's JSON-RPC: the one file that knows `requests`.

`HttpClient.request` sends one request and gives an `HttpReply` of whatever status; what fails
below that is an `HttpError` or a `RequestTimeoutError`. What it holds on to:

* a credential goes to the origin that it was given for: a redirect to any other origin is refused,
  ``~/.netrc`` and cookies are not used, and no error shows a URL's user, password or query;
* sizes and times that the server chooses are bounded: bodies, redirects, how long a body may take;
* a request is repeated only while its caller allows it (`Repeat`).
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any, NoReturn

from attrs import frozen

from backtest_sync.errors import HttpError, InvalidParamsError, RequestTimeoutError
from backtest_sync.headers import API_KEY_HEADER, USER_AGENT
from backtest_sync.limits import Deadline
from backtest_sync.origins import is_loopback, joined, origin, shown_url
from backtest_sync.protocol import jsontext
from backtest_sync.replies import (
    MAX_ERROR_BODY_BYTES,
    Failure,
    HttpReply,
    Repeat,
    pauses,
    repeatable,
    retry_after,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping, Sequence

    import requests
    from requests.adapters import HTTPAdapter

#: The largest body that is read, decompressed, in bytes: beyond it the request fails.
MAX_BODY_BYTES = 256 * 1024 * 1024
#: How many redirects, all within one origin, a request follows.
MAX_REDIRECTS = 5
#: Idle connections kept for one origin; more may be open at a time.
POOL_SIZE = 64
_CHUNK = 64 * 1024
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


def check_seconds(value: float | None, field: str) -> float | None:
    """``value``, when it is a time limit: seconds above zero, or ``None``."""
    if value is not None and (
        isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0
    ):
        raise InvalidParamsError(
            f"{field}: expected seconds above zero or None, got {value!r:.100}"
        )
    return value


@frozen
class _Request:
    method: str
    url: str
    params: Sequence[tuple[str, str]] | None
    body: bytes | None
    headers: Mapping[str, str]


class HttpClient:
    """Connections to HTTP servers, kept open between requests; for any number of threads.

    ``timeout`` bounds a request, tries and body included, in seconds (``None``: no limit);
    ``headers`` go with every request; ``ssl_context`` replaces the system's roots. Proxies are
    those of the environment, but never for loopback. After a fork the child opens connections of
    its own.
    """

    def __init__(
        self,
        *,
        timeout: float | None = None,
        connect_timeout: float | None = 10.0,
        headers: Mapping[str, str] | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._timeout = check_seconds(timeout, "timeout")
        self._connect_timeout = check_seconds(connect_timeout, "connect_timeout")
        self._headers = dict(headers or {})
        self._ssl_context = ssl_context
        self._lock = threading.Lock()
        self._session: requests.Session | None = None
        self._pid = os.getpid()
        self._closed = False

    def request(
        self,
        method: str,
        url: str,
        *,
        params: Sequence[tuple[str, str]] | None = None,
        json: object = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        retry_for: float | None = 0.0,
        repeat: Repeat = Repeat.UNSENT,
    ) -> HttpReply:
        """Send a request and read its whole answer, of whatever status.

        ``params`` are the query in this order, ``json`` the body's value; ``timeout`` takes the
        place of the client's. Tries may begin until ``retry_for`` seconds have passed (``None``:
        until the timeout), as far as ``repeat`` lets them; then the last try's outcome stands.
        Raises `HttpError` and `RequestTimeoutError`.
        """
        request = _Request(method, url, params, _json_body(json), headers or {})
        deadline = Deadline(self._timeout if timeout is None else timeout)
        tries = deadline.sooner(retry_for)
        waits = pauses()
        outcome = self._try(request, deadline)
        while repeatable(outcome, repeat) and self._wait(
            max(next(waits), retry_after(outcome)), tries
        ):
            outcome = self._try(request, deadline)
        if isinstance(outcome, Failure):
            raise outcome.error from outcome.cause
        return outcome

    def pause(self, seconds: float) -> bool:
        """Sleep; ``False`` as soon as the client is closed."""
        end = Deadline(seconds)
        while not self._closed and (left := end.remaining()):
            time.sleep(min(left, 0.2))
        return not self._closed

    def close(self) -> None:
        """Close every connection; later requests fail."""
        with self._lock:
            self._closed = True
            session, self._session = self._session, None
        if session is not None:
            session.close()

    def __enter__(self) -> HttpClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} holds connections and can't be pickled: "
            "send the URL to the other process and open one there"
        )

    # --- one try

    def _try(self, request: _Request, deadline: Deadline) -> HttpReply | Failure:
        """The answer after same-origin redirects, or why there is none."""
        for _ in range(MAX_REDIRECTS + 1):
            outcome = self._exchange(request, deadline)
            if isinstance(outcome, Failure):
                return outcome
            location = _redirect(request.method, outcome)
            if location is None:
                return outcome
            target = joined(request.url, location)
            if origin(target) != origin(request.url):
                return Failure(
                    outcome.error(
                        f"it redirects to another origin, {shown_url(target)}, which is not "
                        "followed; use that URL when you trust it"
                    )
                )
            request = _Request(request.method, target, None, request.body, request.headers)
        return Failure(
            HttpError(
                shown_url(request.url), f"more than {MAX_REDIRECTS} redirects (MAX_REDIRECTS)"
            )
        )

    def _exchange(self, request: _Request, deadline: Deadline) -> HttpReply | Failure:
        """One request and its answer, redirects included as they are."""
        from requests.exceptions import BaseHTTPError  # type: ignore[attr-defined] # urllib3's root

        if self._closed:
            return Failure(HttpError(shown_url(request.url), "the client is closed"))
        if deadline.expired:
            return Failure(_timed_out(request, deadline))
        try:
            return self._send(request, deadline)
        except (BaseHTTPError, OSError, ValueError) as error:  # requests' own are OSErrors
            failure = self._failure(error, request, deadline)
        return failure

    def _send(self, request: _Request, deadline: Deadline) -> HttpReply:
        from requests import Request
        from requests.utils import get_environ_proxies

        session = self._opened(request.url)
        content = {} if request.body is None else {"Content-Type": "application/json"}
        prepared = session.prepare_request(
            Request(
                request.method,
                request.url,
                params=request.params,
                data=request.body,
                headers={**content, **request.headers},
            )
        )
        remaining = deadline.remaining()
        # Session.send would read a redirect's body to its end, however long
        response = session.get_adapter(request.url).send(
            prepared,
            stream=True,
            timeout=(_sooner(self._connect_timeout, remaining), remaining),
            proxies={} if is_loopback(request.url) else get_environ_proxies(request.url),
        )
        try:
            body = _read_body(response, deadline)
        finally:
            response.close()
        if not _succeeded(response):
            body = _without_key(body, request.headers)
        return HttpReply(
            shown_url(request.url),
            response.status_code,
            response.reason or "",
            body,
            response.headers,
        )

    def _failure(self, error: Exception, request: _Request, deadline: Deadline) -> Failure:
        from requests import exceptions

        shown, root = shown_url(request.url), _root(error)
        if deadline.expired:  # whatever it was that took so long
            return Failure(_timed_out(request, deadline), root)
        if isinstance(error, exceptions.ConnectTimeout):
            limit = RequestTimeoutError(f"connecting to {shown}", self._connect_timeout or 0.0)
            return Failure(limit, root, unsent=True, passing=True)
        if isinstance(error, exceptions.InvalidHeader):  # its text shows the value
            return Failure(HttpError(shown, "a header's name or value can't stand in a header"))
        if isinstance(error, exceptions.ProxyError):
            return Failure(HttpError(shown, f"the proxy: {_reason(root)}"), root)
        if isinstance(error, exceptions.SSLError):
            # it may have been sent; a server that restarts ends handshakes, the rest stays as it is
            passing = type(root).__name__ == "SSLEOFError"
            return Failure(HttpError(shown, _reason(root)), root, passing=passing)
        if isinstance(error, ValueError):
            return Failure(HttpError(shown, _reason(root)), root)
        connecting = isinstance(error, exceptions.ConnectionError) and _while_connecting(error)
        return Failure(HttpError(shown, _reason(root)), root, unsent=connecting, passing=True)

    # --- the session

    def _opened(self, url: str) -> requests.Session:
        with self._lock:
            if self._session is None or self._pid != os.getpid():
                self._session, self._pid = self._new_session(), os.getpid()
            if url.startswith("https:") and "https://" not in self._session.adapters:
                self._session.mount("https://", _tls_adapter(self._ssl_context))
            return self._session

    def _new_session(self) -> requests.Session:
        from http.cookiejar import DefaultCookiePolicy

        import requests

        session = requests.Session()
        session.trust_env = False  # no ~/.netrc; proxies are looked up for each request
        session.headers.update(self._headers)
        session.headers["User-Agent"] = USER_AGENT
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        session.adapters.clear()
        session.mount("http://", requests.adapters.HTTPAdapter(POOL_SIZE, POOL_SIZE))
        return session

    def _wait(self, pause: float, tries: Deadline) -> bool:
        """Sleep; whether another try may begin then."""
        remaining = tries.remaining()
        return (remaining is None or pause < remaining) and self.pause(pause)


def _tls_adapter(context: ssl.SSLContext | None) -> HTTPAdapter:
    """An adapter whose connections all use ``context``, or the system's roots without one."""
    import ssl

    from requests.adapters import HTTPAdapter

    ssl_context = context or ssl.create_default_context()

    class ContextAdapter(HTTPAdapter):
        """requests would add its own roots to the context and overrule what it verifies."""

        def init_poolmanager(self, *args: Any, **options: Any) -> None:
            super().init_poolmanager(*args, ssl_context=ssl_context, **options)

        def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
            return super().proxy_manager_for(proxy, ssl_context=ssl_context, **options)

        def cert_verify(self, *args: Any, **options: Any) -> None:
            pass

        def build_connection_pool_key_attributes(self, *args: Any, **options: Any) -> Any:
            host, _ = super().build_connection_pool_key_attributes(*args, **options)
            return host, {}

    return ContextAdapter(POOL_SIZE, POOL_SIZE)


def _json_body(value: object) -> bytes | None:
    try:
        return None if value is None else jsontext.dumps(value).encode()
    except (TypeError, ValueError) as error:
        raise InvalidParamsError(f"the request can't be written as JSON: {error}") from error


def _read_body(response: requests.Response, deadline: Deadline) -> bytes:
    """The whole body, decompressed; of an error's as much as is kept."""
    limit = MAX_BODY_BYTES if _succeeded(response) else MAX_ERROR_BODY_BYTES
    response.raw.enforce_content_length = True  # which urllib3 before 2 does not by itself
    # what has arrived, where urllib3 is new enough, so that a trickle can't outlast the deadline
    read = getattr(response.raw, "read1", response.raw.read)
    chunks: list[bytes] = []
    size = 0
    while chunk := read(_CHUNK, decode_content=True):
        chunks.append(chunk)
        size += len(chunk)
        if size > limit:
            if limit == MAX_ERROR_BODY_BYTES:
                break
            raise HttpError(
                shown_url(response.url),
                f"the body is larger than the limit of {limit} bytes (MAX_BODY_BYTES)",
                status=response.status_code,
            )
        if deadline.expired:
            raise TimeoutError
    return b"".join(chunks)[:limit]


def _succeeded(response: requests.Response) -> bool:
    return 200 <= response.status_code < 300


def _without_key(body: bytes, headers: Mapping[str, str]) -> bytes:
    """An error's body, which errors show, without the key should the server repeat it."""
    key = headers.get(API_KEY_HEADER, "").encode()
    return body.replace(key, b"[API key]") if len(key) >= 8 else body


# --- failures


def _timed_out(request: _Request, deadline: Deadline) -> RequestTimeoutError:
    return RequestTimeoutError(
        f"requesting {request.method} {shown_url(request.url)}", deadline.timeout or 0.0
    )


def _while_connecting(error: Exception) -> bool:
    """Whether there was no connection yet: then alone requests wraps an error that has a reason."""
    return bool(error.args) and hasattr(error.args[0], "reason")


def _root(error: BaseException) -> BaseException:
    """The innermost error: those around it show the URL with its query."""
    while True:
        wrapped = [error.__cause__, getattr(error, "reason", None), *error.args]
        inner = next((e for e in wrapped if isinstance(e, BaseException)), None)
        if inner is None:
            return error
        error = inner


def _reason(root: BaseException) -> str:
    if isinstance(root, OSError) and root.strerror:
        return root.strerror
    return str(root) or type(root).__name__


def _redirect(method: str, reply: HttpReply) -> str | None:
    """Where a reply sends a request that may be repeated there as it is, else ``None``."""
    if reply.status not in _REDIRECTS or (method != "GET" and reply.status not in (307, 308)):
        return None
    return reply.headers.get("Location")


def _sooner(first: float | None, second: float | None) -> float | None:
    limits = [limit for limit in (first, second) if limit is not None]
    return min(limits) if limits else None
