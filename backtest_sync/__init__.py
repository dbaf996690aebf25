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
    from backtest_sync.client import (
        BacktestClient as BacktestClient,
    )
    from backtest_sync.connection import (
        ReconnectPolicy as ReconnectPolicy,
    )
    from backtest_sync.errors import (
        BacktestClientError as BacktestClientError,
    )
    from backtest_sync.errors import (
        ConnectError as ConnectError,
    )
    from backtest_sync.errors import (
        ContinueOutcomeUnknownError as ContinueOutcomeUnknownError,
    )
    from backtest_sync.errors import (
        CoverageError as CoverageError,
    )
    from backtest_sync.errors import (
        DeserializeError as DeserializeError,
    )
    from backtest_sync.errors import (
        HttpError as HttpError,
    )
    from backtest_sync.errors import (
        HttpStatusError as HttpStatusError,
    )
    from backtest_sync.errors import (
        InvalidParamsError as InvalidParamsError,
    )
    from backtest_sync.errors import (
        ProgramModError as ProgramModError,
    )
    from backtest_sync.errors import (
        ReconnectFailedError as ReconnectFailedError,
    )
    from backtest_sync.errors import (
        RemoteError as RemoteError,
    )
    from backtest_sync.errors import (
        RequestTimeoutError as RequestTimeoutError,
    )
    from backtest_sync.errors import (
        RpcError as RpcError,
    )
    from backtest_sync.errors import (
        SessionClosedError as SessionClosedError,
    )
    from backtest_sync.errors import (
        SubscriptionError as SubscriptionError,
    )
    from backtest_sync.errors import (
        UnexpectedResponseError as UnexpectedResponseError,
    )
    from backtest_sync.offline import (
        connect_local as connect_local,
    )
    from backtest_sync.protocol import (
        Account as Account,
    )
    from backtest_sync.protocol import (
        AccountData as AccountData,
    )
    from backtest_sync.protocol import (
        AccountModifications as AccountModifications,
    )
    from backtest_sync.protocol import (
        ActionAnchor as ActionAnchor,
    )
    from backtest_sync.protocol import (
        ActionKind as ActionKind,
    )
    from backtest_sync.protocol import (
        AttachBacktestSession as AttachBacktestSession,
    )
    from backtest_sync.protocol import (
        AttachParallelControlSessionV2 as AttachParallelControlSessionV2,
    )
    from backtest_sync.protocol import (
        AvailableRange as AvailableRange,
    )
    from backtest_sync.protocol import (
        BacktestStatus as BacktestStatus,
    )
    from backtest_sync.protocol import (
        BundleKind as BundleKind,
    )
    from backtest_sync.protocol import (
        CloseBacktestSession as CloseBacktestSession,
    )
    from backtest_sync.protocol import (
        CloseSessionV1 as CloseSessionV1,
    )
    from backtest_sync.protocol import (
        Completed as Completed,
    )
    from backtest_sync.protocol import (
        Continue as Continue,
    )
    from backtest_sync.protocol import (
        ContinueSessionV1 as ContinueSessionV1,
    )
    from backtest_sync.protocol import (
        ContinueTo as ContinueTo,
    )
    from backtest_sync.protocol import (
        ContinueToSessionV1 as ContinueToSessionV1,
    )
    from backtest_sync.protocol import (
        CreateBacktestSession as CreateBacktestSession,
    )
    from backtest_sync.protocol import (
        CreateSession as CreateSession,
    )
    from backtest_sync.protocol import (
        DepthGranularity as DepthGranularity,
    )
    from backtest_sync.protocol import (
        DepthSource as DepthSource,
    )
    from backtest_sync.protocol import (
        DiagnosticProbe as DiagnosticProbe,
    )
    from backtest_sync.protocol import (
        DirectFillTemplate as DirectFillTemplate,
    )
    from backtest_sync.protocol import (
        DiscoveryBatch as DiscoveryBatch,
    )
    from backtest_sync.protocol import (
        DiscoveryFilter as DiscoveryFilter,
    )
    from backtest_sync.protocol import (
        EncodedBinary as EncodedBinary,
    )
    from backtest_sync.protocol import (
        ErrorDetail as ErrorDetail,
    )
    from backtest_sync.protocol import (
        ErrorKind as ErrorKind,
    )
    from backtest_sync.protocol import (
        ErrorResponse as ErrorResponse,
    )
    from backtest_sync.protocol import (
        ParallelSessionAttachedV2 as ParallelSessionAttachedV2,
    )
    from backtest_sync.protocol import (
        Paused as Paused,
    )
    from backtest_sync.protocol import (
        RangeScope as RangeScope,
    )
    from backtest_sync.protocol import (
        ReadyForContinue as ReadyForContinue,
    )
    from backtest_sync.protocol import (
        RerouteFilter as RerouteFilter,
    )
    from backtest_sync.protocol import (
        RerouteParams as RerouteParams,
    )
    from backtest_sync.protocol import (
        RerouteStats as RerouteStats,
    )
    from backtest_sync.protocol import (
        ResumeAttachedSession as ResumeAttachedSession,
    )
    from backtest_sync.protocol import (
        ScheduledAction as ScheduledAction,
    )
    from backtest_sync.protocol import (
        SessionAttached as SessionAttached,
    )
    from backtest_sync.protocol import (
        SessionCoverage as SessionCoverage,
    )
    from backtest_sync.protocol import (
        SessionCreated as SessionCreated,
    )
    from backtest_sync.protocol import (
        SessionEventV2 as SessionEventV2,
    )
    from backtest_sync.protocol import (
        SessionsCreatedV2 as SessionsCreatedV2,
    )
    from backtest_sync.protocol import (
        SessionSummary as SessionSummary,
    )
    from backtest_sync.protocol import (
        SlotNotification as SlotNotification,
    )
    from backtest_sync.protocol import (
        StatusResponse as StatusResponse,
    )
    from backtest_sync.protocol import (
        Success as Success,
    )
    from backtest_sync.protocol import (
        TxResolver as TxResolver,
    )
    from backtest_sync.protocol import (
        UnknownResponse as UnknownResponse,
    )
    from backtest_sync.protocol.notifications import (
        AccountDiffNotification as AccountDiffNotification,
    )
    from backtest_sync.protocol.notifications import (
        LogNotification as LogNotification,
    )
    from backtest_sync.protocol.notifications import (
        TransactionNotification as TransactionNotification,
    )
    from backtest_sync.protocol.replacements import (
        ReplacementNotification as ReplacementNotification,
    )
    from backtest_sync.protocol.reports import (
        ActionResultNotification as ActionResultNotification,
    )
    from backtest_sync.protocol.reports import (
        DiagnosticNotification as DiagnosticNotification,
    )
    from backtest_sync.protocol.standard import (
        AccountNotification as AccountNotification,
    )
    from backtest_sync.protocol.standard import (
        ProgramNotification as ProgramNotification,
    )
    from backtest_sync.protocol.standard import (
        SignatureNotification as SignatureNotification,
    )
    from backtest_sync.protocol.standard import (
        SlotInfoNotification as SlotInfoNotification,
    )
    from backtest_sync.results import (
        AdvanceState as AdvanceState,
    )
    from backtest_sync.results import (
        ConnectionStatus as ConnectionStatus,
    )
    from backtest_sync.results import (
        ContinueResult as ContinueResult,
    )
    from backtest_sync.results import (
        DiscoveryPause as DiscoveryPause,
    )
    from backtest_sync.results import (
        ReadyOutcome as ReadyOutcome,
    )
    from backtest_sync.results import (
        RunResult as RunResult,
    )
    from backtest_sync.rpc import (
        RpcClient as RpcClient,
    )
    from backtest_sync.rpc_types import (
        SimulationResult as SimulationResult,
    )
    from backtest_sync.session import (
        BacktestSession as BacktestSession,
    )
    from backtest_sync.subscription import (
        Subscription as Subscription,
    )
    from backtest_sync.version import (
        __version__ as __version__,
    )

#: Where each public name is defined.
_HOMES = {
    "BacktestClient": "client",
    "ReconnectPolicy": "connection",
    "BacktestClientError": "errors",
    "ConnectError": "errors",
    "ContinueOutcomeUnknownError": "errors",
    "CoverageError": "errors",
    "DeserializeError": "errors",
    "HttpError": "errors",
    "HttpStatusError": "errors",
    "InvalidParamsError": "errors",
    "ProgramModError": "errors",
    "ReconnectFailedError": "errors",
    "RemoteError": "errors",
    "RequestTimeoutError": "errors",
    "RpcError": "errors",
    "SessionClosedError": "errors",
    "SubscriptionError": "errors",
    "UnexpectedResponseError": "errors",
    "connect_local": "offline",
    "Account": "protocol",
    "AccountData": "protocol",
    "AccountModifications": "protocol",
    "ActionAnchor": "protocol",
    "ActionKind": "protocol",
    "AttachBacktestSession": "protocol",
    "AttachParallelControlSessionV2": "protocol",
    "AvailableRange": "protocol",
    "BacktestStatus": "protocol",
    "BundleKind": "protocol",
    "CloseBacktestSession": "protocol",
    "CloseSessionV1": "protocol",
    "Completed": "protocol",
    "Continue": "protocol",
    "ContinueSessionV1": "protocol",
    "ContinueTo": "protocol",
    "ContinueToSessionV1": "protocol",
    "CreateBacktestSession": "protocol",
    "CreateSession": "protocol",
    "DepthGranularity": "protocol",
    "DepthSource": "protocol",
    "DiagnosticProbe": "protocol",
    "DirectFillTemplate": "protocol",
    "DiscoveryBatch": "protocol",
    "DiscoveryFilter": "protocol",
    "EncodedBinary": "protocol",
    "ErrorDetail": "protocol",
    "ErrorKind": "protocol",
    "ErrorResponse": "protocol",
    "ParallelSessionAttachedV2": "protocol",
    "Paused": "protocol",
    "RangeScope": "protocol",
    "ReadyForContinue": "protocol",
    "RerouteFilter": "protocol",
    "RerouteParams": "protocol",
    "RerouteStats": "protocol",
    "ResumeAttachedSession": "protocol",
    "ScheduledAction": "protocol",
    "SessionAttached": "protocol",
    "SessionCoverage": "protocol",
    "SessionCreated": "protocol",
    "SessionEventV2": "protocol",
    "SessionSummary": "protocol",
    "SessionsCreatedV2": "protocol",
    "SlotNotification": "protocol",
    "StatusResponse": "protocol",
    "Success": "protocol",
    "TxResolver": "protocol",
    "UnknownResponse": "protocol",
    "AccountDiffNotification": "protocol.notifications",
    "AccountNotification": "protocol.standard",
    "LogNotification": "protocol.notifications",
    "ProgramNotification": "protocol.standard",
    "SignatureNotification": "protocol.standard",
    "SlotInfoNotification": "protocol.standard",
    "TransactionNotification": "protocol.notifications",
    "ReplacementNotification": "protocol.replacements",
    "ActionResultNotification": "protocol.reports",
    "DiagnosticNotification": "protocol.reports",
    "AdvanceState": "results",
    "ConnectionStatus": "results",
    "ContinueResult": "results",
    "DiscoveryPause": "results",
    "ReadyOutcome": "results",
    "RunResult": "results",
    "RpcClient": "rpc",
    "SimulationResult": "rpc_types",
    "BacktestSession": "session",
    "Subscription": "subscription",
    "__version__": "version",
}

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
