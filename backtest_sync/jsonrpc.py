"""JSON-RPC 2.0 over HTTP POST: one call or many in a request, answers checked, errors raised."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from backtest_sync.errors import DeserializeError, HttpError, InvalidParamsError, RpcError
from backtest_sync.http import HttpClient
from backtest_sync.origins import check_endpoint, shown_url
from backtest_sync.protocol import jsontext
from backtest_sync.replies import Repeat

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable
    from typing import TypeAlias

    from backtest_sync.replies import HttpReply

    Params: TypeAlias = "Sequence[Any] | Mapping[str, Any]"

#: How long requests of a client without timeout are tried again, in seconds.
RETRY_LIMIT = 30.0

# what the names of methods begin with that change nothing, so that a repeat is safe
_READS = ("get", "is", "simulate")


class JsonRpcClient:
    """Calls to one endpoint, from any number of threads."""

    def __init__(
        self, endpoint: str, *, timeout: float | None, ssl_context: ssl.SSLContext | None
    ) -> None:
        self._endpoint = check_endpoint(endpoint)
        self._retry_for = RETRY_LIMIT if timeout is None else timeout
        self._http = HttpClient(timeout=timeout, ssl_context=ssl_context)
        self._ids = itertools.count(1)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({shown_url(self._endpoint)!r})"

    @property
    def endpoint(self) -> str:
        """The URL that it talks to."""
        return self._endpoint

    def pause(self, seconds: float) -> bool:
        """Sleep; ``False`` as soon as the client is closed."""
        return self._http.pause(seconds)

    def close(self) -> None:
        """Close its connections; later calls fail."""
        self._http.close()

    def call(self, method: str, params: Params = ()) -> Any:
        """The ``result`` of any method, as JSON. Repeated when it only reads, which its name says."""
        request = self._request(method, params)
        reply = self._send(request, Repeat.SAFE if _reads(method) else Repeat.UNSENT)
        body = _body(reply)
        outcome = _outcome(body)
        if isinstance(outcome, RpcError):
            raise outcome
        if body.get("id") != request["id"]:
            raise DeserializeError(f"{method}: the answer is to another request", reply.text)
        return outcome

    def batch(self, requests: Iterable[tuple[str, Params]]) -> list[Any]:
        """Many calls in one request: the results in order, a failed one's `RpcError` in its place."""
        calls = [self._request(method, params) for method, params in requests]
        if not calls:
            return []
        reads = all(_reads(call["method"]) for call in calls)
        reply = self._send(calls, Repeat.SAFE if reads else Repeat.UNSENT)
        body = _body(reply)
        if not isinstance(body, list):
            outcome = _outcome(body)  # what a server says that takes no batches
            if isinstance(outcome, RpcError):
                raise outcome
            raise DeserializeError("batch: expected a list of answers", reply.text)
        outcomes = {entry.get("id"): _outcome(entry) for entry in body if isinstance(entry, dict)}
        missing = [call["method"] for call in calls if call["id"] not in outcomes]
        if missing or len(body) != len(calls):
            raise DeserializeError(
                f"batch: {len(body)} answers to {len(calls)} calls, none to {missing[:5]}",
                reply.text,
            )
        return [outcomes[call["id"]] for call in calls]

    def _request(self, method: str, params: Params) -> dict[str, Any]:
        if not isinstance(method, str) or not method:
            raise InvalidParamsError(f"method: expected a name, got {method!r:.100}")
        if isinstance(params, (str, bytes)) or not isinstance(params, (Sequence, Mapping)):
            raise InvalidParamsError(f"params: expected a list or a mapping, got {params!r:.100}")
        listed = dict(params) if isinstance(params, Mapping) else list(params)
        return {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": listed}

    def _send(self, body: object, repeat: Repeat) -> HttpReply:
        return self._http.request(
            "POST", self._endpoint, json=body, retry_for=self._retry_for, repeat=repeat
        )


def _reads(method: str) -> bool:
    return method.startswith(_READS)


def _body(reply: HttpReply) -> Any:
    """The JSON of an answer. Some servers put an error object under a status of its own."""
    if 200 <= reply.status < 300:
        return reply.json()
    try:
        body = reply.json()
    except HttpError:
        body = None
    refused = isinstance(body, dict) and isinstance(body.get("error"), dict)
    if not refused and not isinstance(body, list):
        reply.raise_for_status()
    return body


def _outcome(entry: Any) -> Any:
    """The result of one answer, or its `RpcError`."""
    if not isinstance(entry, dict):
        raise DeserializeError("an answer that is no object", jsontext.dumps(entry))
    if entry.get("error") is not None:
        return RpcError(*error_fields(entry["error"]))
    if "result" not in entry:
        raise DeserializeError("an answer with neither result nor error", jsontext.dumps(entry))
    return entry["result"]


def error_fields(error: Any) -> tuple[int, str, Any]:
    """Code, message and data of an error, whatever a server put there; code 0 where it has none."""
    if not isinstance(error, dict):
        return 0, error if isinstance(error, str) else jsontext.dumps(error), None
    code, message = error.get("code"), error.get("message")
    return (
        code if isinstance(code, int) else 0,
        message if isinstance(message, str) else jsontext.dumps(error),
        error.get("data"),
    )
