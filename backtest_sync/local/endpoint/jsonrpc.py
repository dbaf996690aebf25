"""JSON-RPC 2.0 as a Solana node speaks it: reading calls, reading their parameters, error codes."""

from __future__ import annotations

from typing import Any

from attrs import frozen

from backtest_sync.protocol.fields import b58decode

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
PREFLIGHT_FAILURE = -32002
SIGNATURE_VERIFICATION_FAILURE = -32003
UNSUPPORTED_VERSION = -32015
MIN_CONTEXT_SLOT = -32016

#: Commitments a node knows, deprecated names included. A session has one state: all read the same.
COMMITMENTS = frozenset(
    {"processed", "confirmed", "finalized", "recent", "single", "singleGossip", "root", "max"}
)

#: Options of a call that gave none.
NO_CONFIG: dict[str, Any] = {}


class CallError(Exception):
    """What the caller gets as the ``error`` of its answer."""

    def __init__(self, code: int, message: str, data: object = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data

    def to_json(self) -> dict[str, Any]:
        """The error object; ``data`` only where there is some."""
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.data is not None:
            error["data"] = self.data
        return error


def invalid(message: str) -> CallError:
    """The fault of a parameter that is wrong."""
    return CallError(INVALID_PARAMS, message)


@frozen
class Call:
    """One request. ``id`` is meaningless where ``wants_answer`` is false (a notification)."""

    id: Any
    wants_answer: bool
    method: str
    params: list[Any]


def read_call(value: object) -> Call:
    """One request out of its JSON value. Raises `CallError`."""
    if not isinstance(value, dict) or not isinstance(value.get("method"), str):
        raise CallError(INVALID_REQUEST, "Invalid request")
    if value.get("jsonrpc") != "2.0":
        raise CallError(INVALID_REQUEST, "Unsupported JSON-RPC protocol version")
    params = value.get("params")
    if params is None:
        params = []
    if not isinstance(params, list):
        raise invalid("`params` should be an array")
    return Call(value.get("id"), "id" in value, value["method"], params)


def request_id(value: object) -> Any:
    """The id under which a fault of ``value`` is answered: its own where it has a usable one."""
    found = value.get("id") if isinstance(value, dict) else None
    return found if isinstance(found, str | int) and not isinstance(found, bool) else None


def result(id_: Any, value: Any) -> dict[str, Any]:
    """The answer of a call that worked."""
    return {"jsonrpc": "2.0", "result": value, "id": id_}


def failure(id_: Any, fault: CallError) -> dict[str, Any]:
    """The answer of a call that did not."""
    return {"jsonrpc": "2.0", "error": fault.to_json(), "id": id_}


# --- parameters


def count(params: list[Any], least: int, most: int) -> None:
    """Checks how many positional parameters there are."""
    if len(params) < least:
        raise invalid(f"`params` should have at least {least} argument(s)")
    if len(params) > most:
        raise invalid(f"Expected from {least} to {most} parameters.")


def address(value: object) -> str:
    """A base58 address."""
    return _base58(value, 32)


def signature(value: object) -> str:
    """A base58 signature."""
    return _base58(value, 64)


def _base58(value: object, size: int) -> str:
    text = _string(value)
    if len(text) > 2 * size:  # no need to decode what is far too long
        raise invalid("Invalid param: WrongSize")
    try:
        data = b58decode(text)
    except ValueError:
        raise invalid("Invalid param: Invalid") from None
    if len(data) != size:
        raise invalid("Invalid param: WrongSize")
    return text


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise invalid(f"Invalid params: invalid type: {_kind(value)}, expected a string.")
    return value


def addresses(value: object, most: int | None = None) -> list[str]:
    """A list of addresses."""
    return [address(item) for item in strings(value, most)]


def strings(value: object, most: int | None = None) -> list[str]:
    """A list of strings, at most ``most``."""
    if not isinstance(value, list):
        raise invalid(f"Invalid params: invalid type: {_kind(value)}, expected a sequence.")
    if most is not None and len(value) > most:
        raise invalid(f"Too many inputs provided; max {most}")
    return [_string(item) for item in value]


def unsigned(value: object, what: str = "u64") -> int:
    """An unsigned 64-bit integer."""
    if type(value) is not int or not 0 <= value < 1 << 64:
        raise invalid(f"Invalid params: invalid value: {_kind(value)}, expected {what}.")
    return value


def config(params: list[Any], index: int) -> dict[str, Any]:
    """The options object at ``index``; absent or null is an empty one."""
    value = params[index] if len(params) > index else None
    if value is None:
        return NO_CONFIG
    if not isinstance(value, dict):
        raise invalid(f"Invalid params: invalid type: {_kind(value)}, expected a map.")
    commitment = value.get("commitment")
    if commitment is not None and commitment not in COMMITMENTS:
        raise invalid(f"Invalid params: unknown commitment {commitment!r}.")
    return value


def flag(options: dict[str, Any], name: str, default: bool = False) -> bool:
    """A boolean option."""
    value = options.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise invalid(f"Invalid params: {name}: invalid type: {_kind(value)}, expected a boolean.")
    return value


def choice(options: dict[str, Any], name: str, allowed: tuple[str, ...], default: str) -> str:
    """An option that is one of several words."""
    value = options.get(name)
    if value is None:
        return default
    if value not in allowed:
        names = ", ".join(f"`{word}`" for word in allowed)
        raise invalid(
            f"Invalid params: {name}: unknown variant {value!r}, expected one of {names}."
        )
    return str(value)


def _kind(value: object) -> str:
    """A JSON value as serde's messages name it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"boolean `{str(value).lower()}`"
    if isinstance(value, int):
        return f"integer `{value}`"
    if isinstance(value, float):
        return f"floating point `{value}`"
    if isinstance(value, str):
        return f'string "{value[:64]}"'
    return "sequence" if isinstance(value, list) else "map"
