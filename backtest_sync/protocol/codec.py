"""Text to values and values to text.

Decoding raises ``DeserializeError`` with the place in the JSON; encoding can't fail on a value,
since values are checked when they are made.
"""

from __future__ import annotations

from typing import Any, TypeVar

from backtest_sync.errors import DeserializeError, InvalidParamsError
from backtest_sync.protocol import jsontext
from backtest_sync.protocol.fields import U64_MAX, shown, to_u64
from backtest_sync.protocol.jsontext import Marked, check_depth, dumps, json_shown, loads, parse
from backtest_sync.protocol.messages import method_of, read_message, write_message
from backtest_sync.protocol.requests import REQUESTS, Continue, Request
from backtest_sync.protocol.responses import (
    RESPONSES,
    BacktestStatus,
    ReadyForContinue,
    Response,
    SlotNotification,
    StatusResponse,
    read_response,
    write_response,
)
from backtest_sync.protocol.shape import Mismatch, Value, kind_of

V = TypeVar("V", bound=Value)

_new = object.__new__
_set_slot = SlotNotification.slot.__set__  # type: ignore[attr-defined]
_READY = ReadyForContinue()
_STATUSES = {status.value: StatusResponse(status) for status in BacktestStatus}


def decode_response(text: str | bytes) -> tuple[int | None, Response]:
    """The sequence (``None`` without one) and the value of a response.

    A method, status or error kind of a newer server becomes a value; what is no JSON or breaks the
    protocol is a ``DeserializeError``.
    """
    try:
        message = parse(text)
    except (ValueError, TypeError) as error:
        _check_text(text)
        raise _refused(str(error), text) from error
    # The three messages that come by the million, ahead of the general way: with the keys that they
    # are due, and a sequence or none. (That a key is repeated is not looked for in them.)
    try:
        method = message["method"]
        if method == "slotNotification":
            slot = message["params"]
            if type(slot) is int and slot >= 0:
                value: Response = _new(SlotNotification)
                _set_slot(value, slot)
                if len(message) == 2:
                    return None, value
                sequence = message["seqId"]
                if len(message) == 3 and type(sequence) is int and sequence >= 0:
                    return sequence, value
        elif method == "status":
            params = message["params"]
            value = _STATUSES[params["status"]]
            if len(params) == 1:
                if len(message) == 2:
                    return None, value
                sequence = message["seqId"]
                if len(message) == 3 and type(sequence) is int and sequence >= 0:
                    return sequence, value
        elif method == "readyForContinue":
            if len(message) == 1:
                return None, _READY
            sequence = message["seqId"]
            if len(message) == 2 and type(sequence) is int and sequence >= 0:
                return sequence, _READY
    except (KeyError, TypeError):
        pass
    return _decode_response(text, message)


def _decode_response(text: str | bytes, message: Any) -> tuple[int | None, Response]:
    _check_text(text)
    try:
        check_depth(text)
        message = _marked(text, message)
        return _sequence(message), read_response(message, RESPONSES)
    except Mismatch as error:
        raise _mismatched(error, text) from None
    except ValueError as error:
        raise _refused(str(error), text) from error


def _sequence(message: Any) -> int | None:
    """The ``seqId`` of a message; one of a wrong type is none (protocol/control.md §3.1)."""
    if not isinstance(message, dict) or (
        isinstance(message, Marked) and "seqId" in message.repeated
    ):
        return None
    sequence = message.get("seqId")
    return sequence if type(sequence) is int and 0 <= sequence <= U64_MAX else None


def encode_response(value: Response, seq_id: int | None = None) -> str:
    """The text of a response, with its sequence where it has one."""
    if seq_id is not None:
        seq_id = to_u64(seq_id, "seq_id")
    if type(value) is SlotNotification:
        if seq_id is None:
            return f'{{"method":"slotNotification","params":{value.slot}}}'
        return f'{{"seqId":{seq_id},"method":"slotNotification","params":{value.slot}}}'
    if not isinstance(value, Response):
        raise InvalidParamsError(f"value: expected a response, got {shown(value)}")
    message = write_response(value)
    return dumps(message if seq_id is None else {"seqId": seq_id, **message})


def decode_request(text: str | bytes) -> Request:
    """The value of a request; an unknown method is a ``DeserializeError``."""
    _check_text(text)
    try:
        message = _marked(text, loads(text))
        method = method_of(message)
        if method not in REQUESTS:
            raise Mismatch(
                f"unknown method {method!r}, expected one of {', '.join(REQUESTS)}"
            ).under(".method")
        request: Request = read_message(REQUESTS[method], message)
    except Mismatch as error:
        raise _mismatched(error, text) from None
    except ValueError as error:
        raise _refused(str(error), text) from error
    return request


def encode_request(value: Request) -> str:
    """The text of a request."""
    if type(value) is Continue and not value.transactions and not value.modify_accounts:
        # what a loop over slots sends each time
        return (
            f'{{"method":"continue","params":{{"advanceCount":{value.advance_count},'
            '"transactions":[],"modifyAccountStates":{}}}'
        )
    if not isinstance(value, Request):
        raise InvalidParamsError(f"value: expected a request, got {shown(value)}")
    return dumps(write_message(value))


def structure(cls: type[V], json: Any) -> V:
    """The value of a JSON value that is no message of its own: a REST body, a notification."""
    if not isinstance(cls, type) or not issubclass(cls, Value):
        raise InvalidParamsError(f"cls: expected a class of the protocol, got {shown(cls)}")
    try:
        value: V = kind_of(cls).read(json)
    except Mismatch as error:
        raise _mismatched(error, json_shown(json)) from None
    return value


def unstructure(value: Value) -> Any:
    """The JSON value of a value."""
    if not isinstance(value, Value):
        raise InvalidParamsError(f"value: expected a value of the protocol, got {shown(value)}")
    write = kind_of(type(value)).write
    return write(value)  # type: ignore[misc]


def _marked(text: str | bytes, json: Any) -> Any:
    """``json``, with repeated keys marked where ``text`` may have some.

    Each key has its own colon, so a text of no more colons than keys repeats none.
    """
    colons = text.count(":") if isinstance(text, str) else text.count(b":")
    return json if colons == _count_keys(json) else jsontext.loads_marking(text)


def _count_keys(json: Any) -> int:
    count = 0
    pending = [json]
    while pending:
        item = pending.pop()
        if type(item) is dict:
            count += len(item)
            pending.extend(item.values())
        elif type(item) is list:
            pending.extend(item)
    return count


def _check_text(text: object) -> None:
    if not isinstance(text, (str, bytes)):
        raise InvalidParamsError(f"text: expected str or bytes, got {shown(text)}")


def _mismatched(error: Mismatch, text: str | bytes) -> DeserializeError:
    return _refused(f"{error.reason} at {error.path()}", text)


def _refused(reason: str, text: str | bytes) -> DeserializeError:
    raw = text if isinstance(text, str) else text.decode("utf-8", "replace")
    return DeserializeError(reason, raw)
