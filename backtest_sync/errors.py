"""Every error that the package raises on purpose.

::

    BacktestClientError
    ├── InvalidParamsError (ValueError)      the caller's value is wrong; nothing was sent
    ├── ConnectError                         handshake refused, DNS, TLS, proxy
    ├── RequestTimeoutError (TimeoutError)   a limit ran out
    ├── DeserializeError                     no JSON, or JSON that breaks the protocol
    ├── RemoteError                          the server answered with an error
    ├── SessionClosedError                   closed, lost, or closed under a waiter
    │   └── ReconnectFailedError             the budget ran out, or the session is gone
    ├── ContinueOutcomeUnknownError          a Continue was in flight when the connection broke
    ├── UnexpectedResponseError              a response that can't come here
    ├── HttpError                            REST and session RPC transport
    │   └── HttpStatusError                  the same, answered with a non-2xx status
    ├── RpcError                             JSON-RPC error of the session endpoint
    ├── SubscriptionError                    set-up or running stream failed
    ├── ProgramModError                      modify_program
    └── CoverageError                        a run did not cover its range

All of them survive pickling with what they carry. The texts follow protocol/control.md §10.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backtest_sync.protocol import Continue, ErrorDetail

#: How much of a peer's text an error message shows, in characters.
MAX_RAW_IN_MESSAGE = 1024


def shorten(text: str, limit: int = MAX_RAW_IN_MESSAGE) -> str:
    """``text``, cut to ``limit`` characters with a note of how many there were."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}… ({len(text)} characters)"


def _restore(cls: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]) -> Any:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class BacktestClientError(Exception):
    """The base of all that the package raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args, self.__dict__)


class InvalidParamsError(BacktestClientError, ValueError):
    """A value of the caller's is wrong; nothing was sent. The message names field and value."""


class ConnectError(BacktestClientError):
    """The WebSocket could not be opened: handshake refused, DNS, TLS or proxy.

    ``status`` is the HTTP status of a refused upgrade, else ``None``.
    """

    def __init__(self, url: str, reason: str, *, status: int | None = None) -> None:
        super().__init__(f"websocket connect to {url} failed: {reason}")
        self.url = url
        self.status = status


class RequestTimeoutError(BacktestClientError, TimeoutError):
    """A limit ran out. The session stays usable; ``timeout`` is in seconds."""

    def __init__(self, action: str, timeout: float) -> None:
        super().__init__(f"timeout while {action} after {timeout:g} s")
        self.action = action
        self.timeout = timeout


class DeserializeError(BacktestClientError):
    """A message that is no JSON or breaks the protocol. ``raw`` holds all of it."""

    def __init__(self, reason: str, raw: str) -> None:
        super().__init__(f"failed to deserialize response: {reason}; raw={shorten(raw)}")
        self.reason = reason
        self.raw = raw


class RemoteError(BacktestClientError):
    """The server answered with an error (protocol/control.md §6)."""

    def __init__(self, error: ErrorDetail) -> None:
        super().__init__(f"remote error: {shorten(str(error))}")
        self.error = error

    @property
    def is_terminal(self) -> bool:
        """Whether the session is over with it."""
        return self.error.is_terminal


class SessionClosedError(BacktestClientError):
    """The session is closed, lost beyond repair, or was closed under a waiter.

    ``code`` is the WebSocket close code where there was a close frame, else ``None``; ``hint`` says
    what to do next.
    """

    def __init__(self, reason: str, *, code: int | None = None, hint: str = "") -> None:
        super().__init__(f"websocket closed: {reason}{f'. {hint}' if hint else ''}")
        self.reason = reason
        self.code = code
        self.hint = hint


class ReconnectFailedError(SessionClosedError):
    """The reconnect budget ran out, or the server no longer knows the session."""

    def __init__(
        self,
        reason: str,
        *,
        code: int | None = None,
        attempts: int = 0,
        last_sequence: int | None = None,
    ) -> None:
        super().__init__(reason, code=code)
        self.attempts = attempts
        self.last_sequence = last_sequence


class ContinueOutcomeUnknownError(BacktestClientError):
    """The connection broke with a ``Continue`` in flight, and it can't be told whether it ran."""

    def __init__(self, params: Continue, last_slot: int | None) -> None:
        super().__init__(
            f"the connection broke after a Continue of {params.advance_count} slot(s) was sent; "
            f"whether it ran is unknown (last slot seen: {last_slot}). "
            "Read the session's slot, then send it again if it did not run."
        )
        self.params = params
        self.last_slot = last_slot


class UnexpectedResponseError(BacktestClientError):
    """A response that can't come at this point of the protocol."""

    def __init__(self, context: str, response: object) -> None:
        super().__init__(f"unexpected response while {context}: {shorten(repr(response))}")
        self.context = context
        self.response = response


class HttpError(BacktestClientError):
    """An HTTP request failed, or its answer was not the expected JSON."""

    def __init__(self, url: str, reason: str, *, status: int | None = None, body: str = "") -> None:
        super().__init__(f"HTTP request to {url} failed: {reason}")
        self.url = url
        self.status = status
        self.body = body


class HttpStatusError(HttpError):
    """The server answered with a non-2xx status; ``body`` holds its text."""

    def __init__(self, url: str, status: int, phrase: str, body: str) -> None:
        BacktestClientError.__init__(
            self, f"HTTP {f'{status} {phrase}'.strip()} from {url}: {shorten(body)}"
        )
        self.url = url
        self.status = status
        self.body = body


class RpcError(BacktestClientError):
    """A JSON-RPC error of the session endpoint. ``logs``: those of a failed simulation."""

    def __init__(self, code: int, message: str, data: object = None) -> None:
        super().__init__(f"RPC error {code}: {shorten(message)}")
        self.code = code
        self.message = message
        self.data = data

    @property
    def logs(self) -> tuple[str, ...]:
        """The program logs that the error carries, when it is a failed simulation's."""
        logs = self.data.get("logs") if isinstance(self.data, dict) else None
        return tuple(str(line) for line in logs) if isinstance(logs, list) else ()


class SubscriptionError(BacktestClientError):
    """A subscription could not be set up, or its running stream failed."""

    def __init__(self, reason: str, *, kind: str, target: str) -> None:
        super().__init__(f"{kind} subscription for {target}: {reason}")
        self.kind = kind
        self.target = target


class ProgramModError(BacktestClientError):
    """``modify_program`` could not build the modification."""

    def __init__(self, reason: str, *, program_id: str) -> None:
        super().__init__(f"cannot replace program {program_id}: {reason}")
        self.program_id = program_id


class CoverageError(BacktestClientError):
    """A run did not cover the range that it was asked for (protocol/control.md §7)."""

    def __init__(self, reason: str, *, expected: object = None, actual: object = None) -> None:
        super().__init__(reason)
        self.expected = expected
        self.actual = actual
