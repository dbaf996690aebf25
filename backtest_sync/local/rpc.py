"""The session endpoint over HTTP: JSON-RPC calls, one or a batch of them, answered by a session.

Methods are those of protocol/subscriptions.md §1 and the standard ones that a session can answer out of
what it has; any other is Solana's -32601. While the session rests in the middle of a slot, all of
them see its state at that point.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from backtest_sync.errors import InvalidParamsError
from backtest_sync.local.endpoint import account_calls, chain, transaction_calls
from backtest_sync.local.endpoint.jsonrpc import (
    INTERNAL_ERROR,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    CallError,
    failure,
    invalid,
    read_call,
    request_id,
    result,
)
from backtest_sync.local.refusals import RefusedError
from backtest_sync.protocol import jsontext

if TYPE_CHECKING:
    from backtest_sync.local.session import SimSession

log = logging.getLogger(__name__)

Method = Callable[["SimSession", list[Any]], "Any | Awaitable[Any]"]

METHODS: dict[str, Method] = {
    **chain.METHODS,
    **account_calls.METHODS,
    **transaction_calls.METHODS,
}


async def handle_post(session: SimSession, body: bytes) -> tuple[int, bytes]:
    """The answer to a POST to a session's endpoint: HTTP status and body.

    Faults are JSON-RPC errors with status 200, as a node gives them; a body of notifications alone is
    answered with nothing.
    """
    try:
        value = jsontext.loads(body)
    except ValueError:
        return 200, _encode(failure(None, CallError(PARSE_ERROR, "Parse error")))
    if not isinstance(value, list):
        answer = await answer_call(session, value)
        return 200, b"" if answer is None else _encode(answer)
    if not value:
        return 200, _encode(failure(None, CallError(INVALID_REQUEST, "Invalid request")))
    answers = []
    for item in value:
        answers.append(await answer_call(session, item))
        await asyncio.sleep(0)  # a long batch lets the other sessions run between its calls
    kept = [answer for answer in answers if answer is not None]
    return 200, _encode(kept) if kept else b""


def _encode(value: Any) -> bytes:
    return jsontext.dumps_finite(value).encode()


async def answer_call(session: SimSession, value: object) -> dict[str, Any] | None:
    """The answer to one request given as JSON value; None for a notification."""
    try:
        call = read_call(value)
    except CallError as fault:
        return failure(request_id(value), fault)
    try:
        answer = result(call.id, await _run(session, call.method, call.params))
    except CallError as fault:
        answer = failure(call.id, fault)
    return answer if call.wants_answer else None


async def _run(session: SimSession, method: str, params: list[Any]) -> Any:
    handler = METHODS.get(method)
    if handler is None:
        raise CallError(METHOD_NOT_FOUND, "Method not found")
    try:
        outcome = handler(session, params)
        return await outcome if inspect.isawaitable(outcome) else outcome
    except InvalidParamsError as error:
        raise invalid(f"Invalid params: {error}") from error
    except RefusedError as refused:
        raise CallError(INVALID_REQUEST, str(refused)) from refused
    except CallError:
        raise
    except Exception as error:  # one call's defect must not end the server
        log.exception("%s failed", method)
        raise CallError(INTERNAL_ERROR, f"Internal error: {error}") from error
