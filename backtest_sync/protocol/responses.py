"""What the server sends over the control connection (protocol/control.md §5)."""

from __future__ import annotations

from typing import Any, ClassVar

from backtest_sync.errors import InvalidParamsError
from backtest_sync.protocol.accounts import BINARY, EncodedBinary
from backtest_sync.protocol.errors import ERROR, ErrorDetail
from backtest_sync.protocol.fields import WireEnum, shown
from backtest_sync.protocol.filters import FILTER, DiscoveryFilter
from backtest_sync.protocol.kinds import (
    CONTROL_SESSION_ID,
    JSON,
    SESSION_ID,
    TEXT,
    U32,
    U64,
    list_of,
    open_choice,
    optional,
)
from backtest_sync.protocol.messages import method_of, read_message, write_message
from backtest_sync.protocol.shape import Kind, Mismatch, Value, shape_of, struct, value_class, wire
from backtest_sync.protocol.summary import SessionSummary


class BacktestStatus(WireEnum):
    """What the session is doing. ``label`` is the wording for people."""

    STARTING_RUNTIME = "startingRuntime"
    DECODED_TRANSACTIONS = "decodedTransactions"
    APPLIED_ACCOUNT_MODIFICATIONS = "appliedAccountModifications"
    READY_TO_EXECUTE_USER_TRANSACTIONS = "readyToExecuteUserTransactions"
    EXECUTED_USER_TRANSACTIONS = "executedUserTransactions"
    EXECUTING_BLOCK_TRANSACTIONS = "executingBlockTransactions"
    EXECUTED_BLOCK_TRANSACTIONS = "executedBlockTransactions"
    PROGRAM_ACCOUNTS_LOADED = "programAccountsLoaded"

    @property
    def label(self) -> str:
        """The status in words: ``starting runtime``."""
        return self.name.lower().replace("_", " ")


class Response(Value):
    """The base of all responses."""

    __slots__ = ()

    @property
    def is_terminal(self) -> bool:
        """Whether the session is over with it."""
        return False

    @property
    def is_completed(self) -> bool:
        """Whether it says that the whole range was run."""
        return False


@value_class
class SessionCreated(Response):
    """The session exists. ``rpc_endpoint`` may be relative to the service's origin."""

    method: ClassVar[str] = "sessionCreated"
    _camel: ClassVar[bool] = False

    # the second spellings are those of the public guide
    session_id: str = wire(SESSION_ID, also="sessionId")
    rpc_endpoint: str = wire(TEXT, also="rpcEndpoint")
    task_id: str | None = wire(optional(TEXT), default=None, omit=None)
    session_name: str | None = wire(optional(TEXT), default=None, omit=None)


@value_class
class SessionAttached(Response):
    """The session is claimed; what it answered since the given sequence follows."""

    method: ClassVar[str] = "sessionAttached"
    _camel: ClassVar[bool] = False

    session_id: str = wire(SESSION_ID, also="sessionId")
    rpc_endpoint: str = wire(TEXT, also="rpcEndpoint")
    task_id: str | None = wire(optional(TEXT), default=None, omit=None)
    session_name: str | None = wire(optional(TEXT), default=None, omit=None)


@value_class
class SessionsCreatedV2(Response):
    """All sub-sessions of a parallel request exist; the tuples are parallel to ``session_ids``."""

    method: ClassVar[str] = "sessionsCreatedV2"
    _camel: ClassVar[bool] = False

    control_session_id: str = wire(CONTROL_SESSION_ID)
    session_ids: tuple[str, ...] = wire(list_of(SESSION_ID))
    task_ids: tuple[str | None, ...] = wire(list_of(optional(TEXT)), default=())
    start_slots: tuple[int, ...] = wire(list_of(U64), default=())
    end_slots: tuple[int, ...] = wire(list_of(U64), default=())
    control_session_name: str | None = wire(optional(TEXT), default=None, omit=None)

    @property
    def aligned_task_ids(self) -> tuple[str | None, ...]:
        """One task id for each session: padded with ``None``, or cut, to their number."""
        count = len(self.session_ids)
        return (*self.task_ids, *[None] * count)[:count]


@value_class
class ParallelSessionAttachedV2(Response):
    """A parallel run is claimed."""

    method: ClassVar[str] = "parallelSessionAttachedV2"
    _camel: ClassVar[bool] = False

    control_session_id: str = wire(CONTROL_SESSION_ID)
    session_ids: tuple[str, ...] = wire(list_of(SESSION_ID))
    task_ids: tuple[str | None, ...] = wire(list_of(optional(TEXT)))


@value_class
class ReadyForContinue(Response):
    """The session waits for a continue."""

    method: ClassVar[str] = "readyForContinue"


@value_class
class SlotNotification(Response):
    """A slot with a block was reached."""

    method: ClassVar[str] = "slotNotification"

    slot: int = wire(U64, bare=True)


@value_class
class Paused(Response):
    """Stopped at a ``ContinueTo`` target: before batch ``batch_index``, or at the block's end."""

    method: ClassVar[str] = "paused"

    slot: int = wire(U64)
    batch_index: int | None = wire(optional(U32), default=None, omit=None)


@value_class
class DiscoveryBatch(Response):
    """A coming batch matches a filter.

    ``transactions`` are binary records of the matching transactions, ``transaction_indices`` their
    places in the block (empty from older sessions).
    """

    method: ClassVar[str] = "discoveryBatch"

    slot: int = wire(U64)
    batch_index: int = wire(U32)
    matched: tuple[DiscoveryFilter, ...] = wire(list_of(FILTER))
    transactions: tuple[EncodedBinary, ...] = wire(list_of(BINARY))
    transaction_indices: tuple[int, ...] = wire(list_of(U32), default=())


@value_class
class ErrorResponse(Response):
    """The server refuses something, or failed."""

    method: ClassVar[str] = "error"

    error: ErrorDetail = wire(ERROR, bare=True)

    @property
    def is_terminal(self) -> bool:
        """Whether the session is over with it."""
        return self.error.is_terminal


@value_class
class Success(Response):
    """Done: the answer to close, resume and others."""

    method: ClassVar[str] = "success"


@value_class
class Completed(Response):
    """The whole range was run."""

    method: ClassVar[str] = "completed"

    summary: SessionSummary | None = wire(optional(struct(SessionSummary)), default=None, omit=None)

    @property
    def is_terminal(self) -> bool:
        """Whether the session is over with it."""
        return True

    @property
    def is_completed(self) -> bool:
        """Whether it says that the whole range was run."""
        return True


@value_class
class StatusResponse(Response):
    """What the session is doing: a ``BacktestStatus``, or the plain name of a newer server's."""

    method: ClassVar[str] = "status"
    _camel: ClassVar[bool] = False

    status: BacktestStatus | str = wire(open_choice(BacktestStatus))


@value_class
class UnknownResponse(Response):
    """A message of a newer server. ``method`` is its name, ``params`` its JSON value or ``None``."""

    method: str = wire(TEXT)
    params: Any = wire(JSON, default=None)


#: What may come for one session of a parallel run, by method.
EVENTS: dict[str, type[Response]] = {
    "readyForContinue": ReadyForContinue,
    "slotNotification": SlotNotification,
    "paused": Paused,
    "discoveryBatch": DiscoveryBatch,
    "error": ErrorResponse,
    "success": Success,
    "completed": Completed,
    "status": StatusResponse,
}


def _accept_event(value: Any, field: str) -> Response:
    if isinstance(value, Response) and isinstance(value, (*EVENTS.values(), UnknownResponse)):
        return value
    raise InvalidParamsError(f"{field}: expected one of {', '.join(EVENTS)}, got {shown(value)}")


def read_response(json: Any, known: dict[str, type[Response]]) -> Response:
    """A message as a value; a method that no version had is an ``UnknownResponse``."""
    method = method_of(json)
    cls = known.get(method)
    if cls is not None:
        value: Response = read_message(cls, json)
        return value
    if method in RESPONSES:
        raise Mismatch(f"`{method}` can't come here").under(".method")
    # read, not made: what was JSON need not be checked to be JSON
    unknown: Response = shape_of(UnknownResponse).kind.read(
        {"method": method, "params": json.get("params")}
    )
    return unknown


def write_response(value: Response) -> dict[str, Any]:
    """The JSON of a response."""
    if isinstance(value, UnknownResponse):
        if value.params is None:
            return {"method": value.method}
        return {"method": value.method, "params": value.params}
    return write_message(value)


@value_class
class SessionEventV2(Response):
    """A response of one sub-session of a parallel run, with its own sequence."""

    method: ClassVar[str] = "sessionEventV2"
    _camel: ClassVar[bool] = False

    session_id: str = wire(SESSION_ID)
    seq_id: int = wire(U64)
    event: Response = wire(
        Kind(_accept_event, lambda json: read_response(json, EVENTS), write_response)
    )


#: Every response, by method.
RESPONSES: dict[str, type[Response]] = {
    "sessionCreated": SessionCreated,
    "sessionAttached": SessionAttached,
    "sessionsCreatedV2": SessionsCreatedV2,
    "parallelSessionAttachedV2": ParallelSessionAttachedV2,
    **EVENTS,
    "sessionEventV2": SessionEventV2,
}
