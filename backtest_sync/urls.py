"""URLs of the service and how one follows from another (protocol/control.md §1)."""

from __future__ import annotations

from backtest_sync.errors import InvalidParamsError
from backtest_sync.protocol.fields import to_text

_CONTROL = "/backtest"
_SESSIONS = "/backtest/"

#: Names the session to a gRPC service that can't be given a path (protocol/subscriptions.md §7).
SESSION_ID_HEADER = "x-backtest-session-id"


def backtest_ws_url(url: str) -> str:
    """The control URL of what a user typed: a bare host, ``host:port``, or ``ws(s)://…``.

    Any other scheme is left as it is. Its own results stay what they are.
    """
    url = to_text(url, "url")
    if url.startswith(("ws://", "wss://")):
        url = url.rstrip("/")
        return url if url.endswith(_CONTROL) else url + _CONTROL
    if "://" in url:
        return url
    return f"wss://{url.rstrip('/')}{_CONTROL}"


def http_base_from_ws_url(url: str) -> str:
    """The origin of the REST endpoints that belong to a control URL."""
    url = to_text(url, "url")
    url = url.replace("wss://", "https://", 1).replace("ws://", "http://", 1)
    scheme, separator, rest = url.partition("://")
    return url if not separator else f"{scheme}://{rest.partition('/')[0]}"


def resolve_rpc_url(http_base: str, rpc_endpoint: str) -> str:
    """The absolute URL of a session's endpoint, which the server may give as a path."""
    http_base = to_text(http_base, "http_base")
    rpc_endpoint = to_text(rpc_endpoint, "rpc_endpoint")
    if rpc_endpoint.startswith(("http://", "https://")):
        return rpc_endpoint
    return f"{http_base}/{rpc_endpoint.lstrip('/')}"


def http_to_ws_url(url: str) -> str:
    """The WebSocket URL of a session's endpoint: the same one, with the matching scheme."""
    url = to_text(url, "url")
    for scheme, websocket in (("https://", "wss://"), ("http://", "ws://")):
        if url.startswith(scheme):
            return websocket + url[len(scheme) :]
    raise InvalidParamsError(
        f"cannot derive WebSocket URL from `{url}`: expected http:// or https:// scheme"
    )


def prefixed_path(session_id: str, path: str) -> str:
    """The path of a session's gRPC method: ``/backtest/{session_id}`` in front of its own."""
    session_id = to_text(session_id, "session_id")
    path = to_text(path, "path")
    return f"{_SESSIONS}{session_id}{path}"


def split_prefixed_path(path: str) -> tuple[str, str] | None:
    """Session id and own path of a :func:`prefixed_path`; ``None`` for any other path."""
    path = to_text(path, "path")
    if not path.startswith(_SESSIONS):
        return None
    session_id, slash, own = path[len(_SESSIONS) :].partition("/")
    return (session_id, slash + own) if slash else None
