"""The errors that the server answers with, as values (protocol/control.md §6)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backtest_sync.errors import InvalidParamsError
from backtest_sync.protocol import jsontext
from backtest_sync.protocol.fields import WireEnum, shown, to_text
from backtest_sync.protocol.kinds import ENCODING, JSON, TEXT, U64, FrozenMap, open_choice
from backtest_sync.protocol.shape import (
    Kind,
    Mismatch,
    Value,
    custom,
    described,
    expect_object,
    member,
    value_class,
    wire,
)


class ErrorKind(WireEnum):
    """What went wrong. The value is the protocol's spelling."""

    INVALID_TRANSACTION_ENCODING = "invalidTransactionEncoding"
    INVALID_TRANSACTION_FORMAT = "invalidTransactionFormat"
    INVALID_ACCOUNT_ENCODING = "invalidAccountEncoding"
    INVALID_ACCOUNT_OWNER = "invalidAccountOwner"
    INVALID_ACCOUNT_PUBKEY = "invalidAccountPubkey"
    NO_MORE_BLOCKS = "noMoreBlocks"
    BUNDLE_NOT_FOUND = "bundleNotFound"
    ADVANCE_SLOT_FAILED = "advanceSlotFailed"
    FINALIZE_SLOT_FAILED = "finalizeSlotFailed"
    INVALID_REQUEST = "invalidRequest"
    INTERNAL = "internal"
    INVALID_BLOCKHASH_FORMAT = "invalidBlockhashFormat"
    INITIALIZING_SYSVARS_FAILED = "initializingSysvarsFailed"
    CLERK_ERROR = "clerkError"
    SIMULATION_ERROR = "simulationError"
    SESSION_NOT_FOUND = "sessionNotFound"
    SESSION_OWNER_MISMATCH = "sessionOwnerMismatch"
    SESSION_OWNERSHIP_BUSY = "sessionOwnershipBusy"
    NO_PRODUCED_BLOCKS_IN_RANGE = "noProducedBlocksInRange"
    SESSION_NAME_TAKEN = "sessionNameTaken"


_FIELDS: dict[str, Kind] = {
    "address": TEXT,
    "encoding": ENCODING,
    "end_slot": U64,
    "error": TEXT,
    "index": U64,
    "reason": TEXT,
    "session_id": TEXT,
    "session_name": TEXT,
    "slot": U64,
    "start_slot": U64,
}

#: For each kind its text, its fields in order, and whether the session is over with it.
_TABLE: dict[ErrorKind, tuple[str, tuple[str, ...], bool]] = {
    ErrorKind.INVALID_TRANSACTION_ENCODING: (
        "invalid transaction encoding at index {index}: {error}",
        ("index", "error"),
        False,
    ),
    ErrorKind.INVALID_TRANSACTION_FORMAT: (
        "invalid transaction format at index {index}: {error}",
        ("index", "error"),
        False,
    ),
    ErrorKind.INVALID_ACCOUNT_ENCODING: (
        "invalid encoding for account {address} (Base64): {error}",
        ("address", "encoding", "error"),
        False,
    ),
    ErrorKind.INVALID_ACCOUNT_OWNER: (
        "invalid owner for account {address}: {error}",
        ("address", "error"),
        False,
    ),
    ErrorKind.INVALID_ACCOUNT_PUBKEY: (
        "invalid account pubkey {address}: {error}",
        ("address", "error"),
        False,
    ),
    ErrorKind.NO_MORE_BLOCKS: ("no more blocks available", (), True),
    ErrorKind.BUNDLE_NOT_FOUND: (
        "block bundle not found for start_slot={start_slot}, end_slot={end_slot}",
        ("start_slot", "end_slot"),
        True,
    ),
    ErrorKind.ADVANCE_SLOT_FAILED: (
        "failed to advance to slot {slot}: {error}",
        ("slot", "error"),
        True,
    ),
    ErrorKind.FINALIZE_SLOT_FAILED: (
        "failed to finalize slot {slot}: {error}",
        ("slot", "error"),
        True,
    ),
    ErrorKind.INVALID_REQUEST: ("invalid request: {error}", ("error",), False),
    ErrorKind.INTERNAL: ("internal error: {error}", ("error",), True),
    ErrorKind.INVALID_BLOCKHASH_FORMAT: (
        "invalid blockhash at slot {slot}: {error}",
        ("slot", "error"),
        False,
    ),
    ErrorKind.INITIALIZING_SYSVARS_FAILED: (
        "failed to initialize sysvars at slot {slot}: {error}",
        ("slot", "error"),
        False,
    ),
    ErrorKind.CLERK_ERROR: ("clerk error: {error}", ("error",), False),
    ErrorKind.SIMULATION_ERROR: ("simulation error: {error}", ("error",), False),
    ErrorKind.SESSION_NOT_FOUND: ("session not found: {session_id}", ("session_id",), False),
    ErrorKind.SESSION_OWNER_MISMATCH: ("session owner mismatch", (), False),
    ErrorKind.SESSION_OWNERSHIP_BUSY: ("session ownership busy: {reason}", ("reason",), False),
    ErrorKind.NO_PRODUCED_BLOCKS_IN_RANGE: (
        "no produced blocks in requested range {start_slot}..={end_slot}; "
        "slot(s) may be skipped on-chain",
        ("start_slot", "end_slot"),
        True,
    ),
    ErrorKind.SESSION_NAME_TAKEN: (
        "session name '{session_name}' is already in use",
        ("session_name",),
        False,
    ),
}

#: The key under which the payload of an unknown kind stands where it is no object.
_WHOLE = ""


def _accept_fields(value: Any, field: str) -> FrozenMap[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidParamsError(f"{field}: expected a mapping, got {shown(value)}")
    return FrozenMap((to_text(k, f"{field} key"), v) for k, v in value.items())


@value_class
class ErrorDetail(Value):
    """What an error response carries.

    ``kind`` is an ``ErrorKind``, or the plain spelling of a newer server's, which is not terminal.
    ``fields`` are its payload by wire name; an unknown kind's payload that is no object stands
    under the empty key. ``str()`` is the text that the reference prints.
    """

    kind: ErrorKind | str = wire(open_choice(ErrorKind))
    fields: Mapping[str, Any] = wire(Kind(_accept_fields, JSON.read), default=FrozenMap())

    def _check(self) -> None:
        if not isinstance(self.kind, ErrorKind):
            JSON.accept(dict(self.fields), "fields")
            return
        _, names, _ = _TABLE[self.kind]
        if sorted(names) != sorted(self.fields):
            due = ", ".join(names) or "none"
            raise InvalidParamsError(
                f"fields: {self.kind.value} has {due}, got {', '.join(self.fields) or 'none'}"
            )
        fields = {n: _FIELDS[n].accept(self.fields[n], f"fields[{n!r}]") for n in names}
        object.__setattr__(self, "fields", FrozenMap(fields))

    @property
    def is_terminal(self) -> bool:
        """Whether the session is over with it."""
        return isinstance(self.kind, ErrorKind) and _TABLE[self.kind][2]

    def __str__(self) -> str:
        if isinstance(self.kind, ErrorKind):
            return _TABLE[self.kind][0].format(**self.fields)
        if not self.fields:
            return self.kind
        if set(self.fields) == {"error"}:
            return f"{self.kind}: {self.fields['error']}"
        return f"{self.kind}: {jsontext.dumps(_payload(self))}"


def _payload(error: ErrorDetail) -> Any:
    return error.fields[_WHOLE] if set(error.fields) == {_WHOLE} else dict(error.fields)


def _read(json: Any) -> ErrorDetail:
    if isinstance(json, str):
        name, payload = json, None
    elif isinstance(json, dict) and len(json) == 1:
        ((name, payload),) = json.items()
    else:
        raise Mismatch(f"expected a name or an object of one key, got {described(json)}")
    try:
        kind = ErrorKind(name)
    except ValueError:
        if payload is None:
            return ErrorDetail(name)
        plain = isinstance(payload, dict) and set(payload) - {_WHOLE}
        return ErrorDetail(name, payload if plain else {_WHOLE: payload})
    _, names, _ = _TABLE[kind]
    try:
        if not names:
            if payload is not None:
                raise Mismatch(f"expected no fields, got {described(payload)}")
            return ErrorDetail(kind)
        return ErrorDetail(kind, _read_fields(names, payload))
    except Mismatch as error:
        raise error.under(f".{name}") from None


def _read_fields(names: tuple[str, ...], payload: Any) -> dict[str, Any]:
    expect_object(payload, frozenset(names))
    return {name: member(payload, name, _FIELDS[name]) for name in names}


def _write(error: ErrorDetail) -> Any:
    name = error.kind.value if isinstance(error.kind, ErrorKind) else error.kind
    return {name: _payload(error)} if error.fields else name


#: The value of an error response's ``params``.
ERROR = custom(ErrorDetail, _read, _write)
