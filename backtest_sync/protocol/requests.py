"""What the client sends over the control connection (protocol/control.md §4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar

from backtest_sync.protocol.accounts import MODIFICATIONS, AccountModifications
from backtest_sync.protocol.actions import DiagnosticProbe, ScheduledAction
from backtest_sync.protocol.fields import WireEnum
from backtest_sync.protocol.filters import FILTER, DiscoveryFilter
from backtest_sync.protocol.kinds import (
    BOOL,
    CONTROL_SESSION_ID,
    SESSION_ID,
    SESSION_NAME,
    TEXT,
    TRANSACTION,
    U16,
    U32,
    U64,
    FrozenMap,
    blob,
    list_of,
    map_of,
    optional,
)
from backtest_sync.protocol.reroute import RerouteParams
from backtest_sync.protocol.shape import Value, struct, value_class, wire

if TYPE_CHECKING:
    from backtest_sync.protocol.fields import ModificationsLike, TransactionLike


class SessionType(WireEnum):
    """How the service classes a session, by what it is asked for."""

    PURE_REPLAY = "pure_replay"
    INTERACTIVE_REPLAY = "interactive_replay"
    SCHEDULED_ACTIONS = "scheduled_actions"
    COUNTERFACTUAL = "counterfactual"
    ACCOUNT_DELTA_REPLAY = "account_delta_replay"


class Request(Value):
    """The base of all requests."""

    __slots__ = ()


@value_class
class CreateBacktestSession(Request):
    """Create a session, or with ``parallel`` several, over ``start_slot`` to ``end_slot``.

    Timeouts in seconds; ``extra_compute_units`` is added to each transaction's limit. This is the
    wire's form; ``CreateSession`` is the friendly one. It has two versions: without ``parallel``,
    ``name`` and ``create_token`` (``parallel=None``) it is V0, else V1.
    """

    method: ClassVar[str] = "createBacktestSession"

    start_slot: int = wire(U64)
    end_slot: int = wire(U64)
    send_summary: bool = wire(BOOL, default=False)
    reroute: RerouteParams | None = wire(optional(struct(RerouteParams)), default=None, omit=None)
    capacity_wait_timeout_secs: int | None = wire(optional(U16), default=None)
    disconnect_timeout_secs: int | None = wire(optional(U16), default=None)
    extra_compute_units: int | None = wire(optional(U32), default=None)
    discoveries: tuple[DiscoveryFilter, ...] = wire(list_of(FILTER), default=(), omit=())
    actions: tuple[ScheduledAction, ...] = wire(
        blob(list_of(struct(ScheduledAction))), default=(), omit=()
    )
    replay_account_state: bool = wire(BOOL, default=False)
    diagnostic_probes: tuple[DiagnosticProbe, ...] = wire(
        list_of(struct(DiagnosticProbe)), default=(), omit=()
    )
    parallel: bool | None = wire(optional(BOOL), default=None, omit=None)
    name: str | None = wire(optional(SESSION_NAME), default=None, omit=None)
    create_token: str | None = wire(optional(TEXT), default=None, omit=None)

    if TYPE_CHECKING:

        def __init__(
            self,
            start_slot: int,
            end_slot: int,
            send_summary: bool = False,
            reroute: RerouteParams | None = None,
            capacity_wait_timeout_secs: int | None = None,
            disconnect_timeout_secs: int | None = None,
            extra_compute_units: int | None = None,
            discoveries: Iterable[DiscoveryFilter] = (),
            actions: Iterable[ScheduledAction] = (),
            replay_account_state: bool = False,
            diagnostic_probes: Iterable[DiagnosticProbe] = (),
            parallel: bool | None = None,
            name: str | None = None,
            create_token: str | None = None,
        ) -> None: ...

    def _check(self) -> None:
        if self.parallel is None and (self.name is not None or self.create_token is not None):
            object.__setattr__(self, "parallel", False)

    @property
    def session_type(self) -> SessionType:
        """How the service classes the session. One with ``reroute`` needs a router beside it."""
        if self.replay_account_state:
            return SessionType.ACCOUNT_DELTA_REPLAY
        if self.reroute is not None:
            return SessionType.COUNTERFACTUAL
        if self.actions:
            return SessionType.SCHEDULED_ACTIONS
        return SessionType.INTERACTIVE_REPLAY if self.discoveries else SessionType.PURE_REPLAY


@value_class
class Continue(Request):
    """Run ``advance_count`` blocks, after ``modify_accounts`` and with ``transactions`` in the first.

    Signatures are not verified. The largest count there is, 2**64 - 1, means the whole range.
    """

    method: ClassVar[str] = "continue"

    advance_count: int = wire(U64, default=1)
    transactions: tuple[str, ...] = wire(list_of(TRANSACTION), default=())
    modify_accounts: AccountModifications = wire(
        MODIFICATIONS, default=AccountModifications(), name="modifyAccountStates"
    )

    if TYPE_CHECKING:

        def __init__(
            self,
            advance_count: int = 1,
            transactions: Iterable[TransactionLike] = (),
            modify_accounts: ModificationsLike = ...,
        ) -> None: ...


@value_class
class ContinueTo(Request):
    """Run up to ``slot``: to its end, or to just before its batch ``batch_index``."""

    method: ClassVar[str] = "continueTo"

    slot: int = wire(U64)
    batch_index: int | None = wire(optional(U32), default=None)


@value_class
class ContinueSessionV1(Request):
    """A ``Continue`` for one session of a parallel run."""

    method: ClassVar[str] = "continueSessionV1"

    session_id: str = wire(SESSION_ID)
    request: Continue = wire(struct(Continue))


@value_class
class ContinueToSessionV1(Request):
    """A ``ContinueTo`` for one session of a parallel run."""

    method: ClassVar[str] = "continueToSessionV1"

    session_id: str = wire(SESSION_ID)
    request: ContinueTo = wire(struct(ContinueTo))


@value_class
class CloseBacktestSession(Request):
    """Tear the session down."""

    method: ClassVar[str] = "closeBacktestSession"


@value_class
class CloseSessionV1(Request):
    """Tear one session of a parallel run down."""

    method: ClassVar[str] = "closeSessionV1"

    session_id: str = wire(SESSION_ID)


@value_class
class AttachBacktestSession(Request):
    """Claim a session; what it answered after ``last_sequence`` comes again, ``None``: all kept."""

    method: ClassVar[str] = "attachBacktestSession"
    _camel: ClassVar[bool] = False

    session_id: str = wire(SESSION_ID)
    last_sequence: int | None = wire(optional(U64), default=None)


@value_class
class ResumeAttachedSession(Request):
    """Let an attached session run on."""

    method: ClassVar[str] = "resumeAttachedSession"


@value_class
class AttachParallelControlSessionV2(Request):
    """Claim a parallel run, each of its sessions after its own sequence."""

    method: ClassVar[str] = "attachParallelControlSessionV2"
    _camel: ClassVar[bool] = False

    control_session_id: str = wire(CONTROL_SESSION_ID)
    last_sequences: Mapping[str, int] = wire(map_of(U64, key=SESSION_ID), default=FrozenMap())


#: Every request, by method.
REQUESTS: dict[str, type[Request]] = {
    "createBacktestSession": CreateBacktestSession,
    "continue": Continue,
    "continueTo": ContinueTo,
    "continueSessionV1": ContinueSessionV1,
    "continueToSessionV1": ContinueToSessionV1,
    "closeBacktestSession": CloseBacktestSession,
    "closeSessionV1": CloseSessionV1,
    "attachBacktestSession": AttachBacktestSession,
    "resumeAttachedSession": ResumeAttachedSession,
    "attachParallelControlSessionV2": AttachParallelControlSessionV2,
}
