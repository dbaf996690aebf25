"""The synchronous, blocking Python client of the Termina Solana simulator's backtest protocol.

    from backtest_sync import BacktestClient

    with BacktestClient() as client, client.create_session(start_slot=…, slot_count=…) as session:
        session.advance(10)

Names are loaded when they are first used, so that importing the package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backtest_sync.client import BacktestClient as BacktestClient
    from backtest_sync.connection import ReconnectPolicy as ReconnectPolicy
    from backtest_sync.errors import (
        BacktestClientError as BacktestClientError,
        ConnectError as ConnectError,
        ContinueOutcomeUnknownError as ContinueOutcomeUnknownError,
        CoverageError as CoverageError,
        DeserializeError as DeserializeError,
        HttpError as HttpError,
        HttpStatusError as HttpStatusError,
        InvalidParamsError as InvalidParamsError,
        ProgramModError as ProgramModError,
        ReconnectFailedError as ReconnectFailedError,
        RemoteError as RemoteError,
        RequestTimeoutError as RequestTimeoutError,
        RpcError as RpcError,
        SessionClosedError as SessionClosedError,
        SubscriptionError as SubscriptionError,
        UnexpectedResponseError as UnexpectedResponseError,
    )
    from backtest_sync.offline import connect_local as connect_local
    from backtest_sync.protocol import (
        Account as Account,
        AccountData as AccountData,
        AccountModifications as AccountModifications,
        ActionAnchor as ActionAnchor,
        ActionKind as ActionKind,
        AttachBacktestSession as AttachBacktestSession,
        AttachParallelControlSessionV2 as AttachParallelControlSessionV2,
        AvailableRange as AvailableRange,
        BacktestStatus as BacktestStatus,
        BundleKind as BundleKind,
        CloseBacktestSession as CloseBacktestSession,
        CloseSessionV1 as CloseSessionV1,
        Completed as Completed,
        Continue as Continue,
        ContinueSessionV1 as ContinueSessionV1,
        ContinueTo as ContinueTo,
        ContinueToSessionV1 as ContinueToSessionV1,
        CreateBacktestSession as CreateBacktestSession,
        CreateSession as CreateSession,
        DatasetCredentials as DatasetCredentials,
        DepthGranularity as DepthGranularity,
        DepthSource as DepthSource,
        DiagnosticProbe as DiagnosticProbe,
        DirectFillTemplate as DirectFillTemplate,
        DiscoveryBatch as DiscoveryBatch,
        DiscoveryFilter as DiscoveryFilter,
        EncodedBinary as EncodedBinary,
        ErrorDetail as ErrorDetail,
        ErrorKind as ErrorKind,
        ErrorResponse as ErrorResponse,
        ParallelSessionAttachedV2 as ParallelSessionAttachedV2,
        Paused as Paused,
        RangeScope as RangeScope,
        ReadyForContinue as ReadyForContinue,
        RerouteFilter as RerouteFilter,
        RerouteParams as RerouteParams,
        RerouteStats as RerouteStats,
        ResumeAttachedSession as ResumeAttachedSession,
        ScheduledAction as ScheduledAction,
        SessionAttached as SessionAttached,
        SessionCoverage as SessionCoverage,
        SessionCreated as SessionCreated,
        SessionEventV2 as SessionEventV2,
        SessionsCreatedV2 as SessionsCreatedV2,
        SessionSummary as SessionSummary,
        SessionUsage as SessionUsage,
        SlotNotification as SlotNotification,
        StatusResponse as StatusResponse,
        Success as Success,
        TxResolver as TxResolver,
        UnknownResponse as UnknownResponse,
        UsageReport as UsageReport,
    )
    from backtest_sync.protocol.notifications import (
        AccountDiffNotification as AccountDiffNotification,
        LogNotification as LogNotification,
        TransactionNotification as TransactionNotification,
    )
    from backtest_sync.protocol.replacements import (
        ReplacementNotification as ReplacementNotification,
    )
    from backtest_sync.protocol.reports import (
        ActionResultNotification as ActionResultNotification,
        DiagnosticNotification as DiagnosticNotification,
    )
    from backtest_sync.protocol.standard import (
        AccountNotification as AccountNotification,
        ProgramNotification as ProgramNotification,
        SignatureNotification as SignatureNotification,
        SlotInfoNotification as SlotInfoNotification,
    )
    from backtest_sync.results import (
        AdvanceState as AdvanceState,
        ConnectionStatus as ConnectionStatus,
        ContinueResult as ContinueResult,
        DiscoveryPause as DiscoveryPause,
        ReadyOutcome as ReadyOutcome,
        RunResult as RunResult,
    )
    from backtest_sync.rpc import RpcClient as RpcClient
    from backtest_sync.rpc_types import SimulationResult as SimulationResult
    from backtest_sync.session import BacktestSession as BacktestSession
    from backtest_sync.subscription import Subscription as Subscription
    from backtest_sync.version import __version__ as __version__

#: The public names of each module.
_MODULES = {
    "client": ("BacktestClient",),
    "connection": ("ReconnectPolicy",),
    "errors": (
        "BacktestClientError",
        "ConnectError",
        "ContinueOutcomeUnknownError",
        "CoverageError",
        "DeserializeError",
        "HttpError",
        "HttpStatusError",
        "InvalidParamsError",
        "ProgramModError",
        "ReconnectFailedError",
        "RemoteError",
        "RequestTimeoutError",
        "RpcError",
        "SessionClosedError",
        "SubscriptionError",
        "UnexpectedResponseError",
    ),
    "offline": ("connect_local",),
    "protocol": (
        "Account",
        "AccountData",
        "AccountModifications",
        "ActionAnchor",
        "ActionKind",
        "AttachBacktestSession",
        "AttachParallelControlSessionV2",
        "AvailableRange",
        "BacktestStatus",
        "BundleKind",
        "CloseBacktestSession",
        "CloseSessionV1",
        "Completed",
        "Continue",
        "ContinueSessionV1",
        "ContinueTo",
        "ContinueToSessionV1",
        "CreateBacktestSession",
        "CreateSession",
        "DatasetCredentials",
        "DepthGranularity",
        "DepthSource",
        "DiagnosticProbe",
        "DirectFillTemplate",
        "DiscoveryBatch",
        "DiscoveryFilter",
        "EncodedBinary",
        "ErrorDetail",
        "ErrorKind",
        "ErrorResponse",
        "ParallelSessionAttachedV2",
        "Paused",
        "RangeScope",
        "ReadyForContinue",
        "RerouteFilter",
        "RerouteParams",
        "RerouteStats",
        "ResumeAttachedSession",
        "ScheduledAction",
        "SessionAttached",
        "SessionCoverage",
        "SessionCreated",
        "SessionEventV2",
        "SessionSummary",
        "SessionUsage",
        "SessionsCreatedV2",
        "SlotNotification",
        "StatusResponse",
        "Success",
        "TxResolver",
        "UnknownResponse",
        "UsageReport",
    ),
    "protocol.notifications": (
        "AccountDiffNotification",
        "LogNotification",
        "TransactionNotification",
    ),
    "protocol.replacements": ("ReplacementNotification",),
    "protocol.reports": (
        "ActionResultNotification",
        "DiagnosticNotification",
    ),
    "protocol.standard": (
        "AccountNotification",
        "ProgramNotification",
        "SignatureNotification",
        "SlotInfoNotification",
    ),
    "results": (
        "AdvanceState",
        "ConnectionStatus",
        "ContinueResult",
        "DiscoveryPause",
        "ReadyOutcome",
        "RunResult",
    ),
    "rpc": ("RpcClient",),
    "rpc_types": ("SimulationResult",),
    "session": ("BacktestSession",),
    "subscription": ("Subscription",),
    "version": ("__version__",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
