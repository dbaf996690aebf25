"""The protocol's values and their codec: pure functions and frozen values, no I/O.

The modules are loaded when one of their names is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backtest_sync.protocol.accounts import (
        Account as Account,
        AccountData as AccountData,
        AccountModifications as AccountModifications,
        EncodedBinary as EncodedBinary,
    )
    from backtest_sync.protocol.actions import (
        ActionAnchor as ActionAnchor,
        ActionKind as ActionKind,
        AnchorAt as AnchorAt,
        DiagnosticProbe as DiagnosticProbe,
        ResolverType as ResolverType,
        ScheduledAction as ScheduledAction,
        TxResolver as TxResolver,
    )
    from backtest_sync.protocol.codec import (
        decode_request as decode_request,
        decode_response as decode_response,
        encode_request as encode_request,
        encode_response as encode_response,
        structure as structure,
        unstructure as unstructure,
    )
    from backtest_sync.protocol.create import CreateSession as CreateSession
    from backtest_sync.protocol.directfill import (
        DerivedAccount as DerivedAccount,
        DirectFillTemplate as DirectFillTemplate,
        SwapMode as SwapMode,
        TemplateAccount as TemplateAccount,
        TemplateInstruction as TemplateInstruction,
        TemplateSeed as TemplateSeed,
        TemplateTaker as TemplateTaker,
        parse_templates as parse_templates,
    )
    from backtest_sync.protocol.errors import ErrorDetail as ErrorDetail, ErrorKind as ErrorKind
    from backtest_sync.protocol.filters import (
        DiscoveryFilter as DiscoveryFilter,
        DiscoveryKind as DiscoveryKind,
    )
    from backtest_sync.protocol.ids import (
        new_control_session_id as new_control_session_id,
        new_create_token as new_create_token,
        new_session_id as new_session_id,
        parse_control_session_id as parse_control_session_id,
        parse_session_id as parse_session_id,
        parse_session_name as parse_session_name,
    )
    from backtest_sync.protocol.mints import (
        MAJORS as MAJORS,
        Major as Major,
        short_mint as short_mint,
    )
    from backtest_sync.protocol.notifications import (
        AccountDiffNotification as AccountDiffNotification,
        Context as Context,
        LogNotification as LogNotification,
        LogValue as LogValue,
        Notification as Notification,
        TransactionNotification as TransactionNotification,
    )
    from backtest_sync.protocol.replacements import (
        DirectFillReplacement as DirectFillReplacement,
        L1Score as L1Score,
        OriginalReplacement as OriginalReplacement,
        ProbeHop as ProbeHop,
        ReplacementNotification as ReplacementNotification,
        RequoteReplacement as RequoteReplacement,
        RouteHop as RouteHop,
        SwapInfo as SwapInfo,
        SwapLeg as SwapLeg,
    )
    from backtest_sync.protocol.reports import (
        ActionResultNotification as ActionResultNotification,
        DiagnosticNotification as DiagnosticNotification,
        TransactionOutcome as TransactionOutcome,
    )
    from backtest_sync.protocol.requests import (
        AttachBacktestSession as AttachBacktestSession,
        AttachParallelControlSessionV2 as AttachParallelControlSessionV2,
        CloseBacktestSession as CloseBacktestSession,
        CloseSessionV1 as CloseSessionV1,
        Continue as Continue,
        ContinueSessionV1 as ContinueSessionV1,
        ContinueTo as ContinueTo,
        ContinueToSessionV1 as ContinueToSessionV1,
        CreateBacktestSession as CreateBacktestSession,
        Request as Request,
        ResumeAttachedSession as ResumeAttachedSession,
        SessionType as SessionType,
    )
    from backtest_sync.protocol.reroute import (
        MintPair as MintPair,
        RerouteFilter as RerouteFilter,
        RerouteParams as RerouteParams,
        SwapAggregator as SwapAggregator,
        parse_aggregators as parse_aggregators,
    )
    from backtest_sync.protocol.responses import (
        BacktestStatus as BacktestStatus,
        Completed as Completed,
        DiscoveryBatch as DiscoveryBatch,
        ErrorResponse as ErrorResponse,
        ParallelSessionAttachedV2 as ParallelSessionAttachedV2,
        Paused as Paused,
        ReadyForContinue as ReadyForContinue,
        Response as Response,
        SessionAttached as SessionAttached,
        SessionCreated as SessionCreated,
        SessionEventV2 as SessionEventV2,
        SessionsCreatedV2 as SessionsCreatedV2,
        SlotNotification as SlotNotification,
        StatusResponse as StatusResponse,
        Success as Success,
        UnknownResponse as UnknownResponse,
    )
    from backtest_sync.protocol.rest import (
        AvailableRange as AvailableRange,
        BuildStatus as BuildStatus,
        BundleBuildList as BundleBuildList,
        BundleBuildRequest as BundleBuildRequest,
        BundleBuildStatus as BundleBuildStatus,
        BundleKind as BundleKind,
        CompletedBundle as CompletedBundle,
        DatasetCredentials as DatasetCredentials,
        DeletedBundle as DeletedBundle,
        DepthCoverage as DepthCoverage,
        DepthGranularity as DepthGranularity,
        DepthRequest as DepthRequest,
        DepthSource as DepthSource,
        DepthSourceCoverage as DepthSourceCoverage,
        DepthStatus as DepthStatus,
        ProgramOverride as ProgramOverride,
        RangeScope as RangeScope,
        SlotRange as SlotRange,
        SnapshotSlot as SnapshotSlot,
    )
    from backtest_sync.protocol.standard import (
        AccountNotification as AccountNotification,
        ProgramNotification as ProgramNotification,
        SignatureNotification as SignatureNotification,
        SlotInfoNotification as SlotInfoNotification,
    )
    from backtest_sync.protocol.summary import (
        RerouteStats as RerouteStats,
        SessionCoverage as SessionCoverage,
        SessionSummary as SessionSummary,
        TemplateStats as TemplateStats,
    )
    from backtest_sync.protocol.usage import (
        BundleBuildCounts as BundleBuildCounts,
        ComputeUsage as ComputeUsage,
        SessionCounts as SessionCounts,
        SessionUsage as SessionUsage,
        SessionUsagePage as SessionUsagePage,
        UsageBucket as UsageBucket,
        UsagePricing as UsagePricing,
        UsageReport as UsageReport,
    )

#: The names of each module.
_MODULES = {
    "accounts": (
        "Account",
        "AccountData",
        "AccountModifications",
        "EncodedBinary",
    ),
    "actions": (
        "ActionAnchor",
        "ActionKind",
        "AnchorAt",
        "DiagnosticProbe",
        "ResolverType",
        "ScheduledAction",
        "TxResolver",
    ),
    "codec": (
        "decode_request",
        "decode_response",
        "encode_request",
        "encode_response",
        "structure",
        "unstructure",
    ),
    "create": ("CreateSession",),
    "directfill": (
        "DerivedAccount",
        "DirectFillTemplate",
        "SwapMode",
        "TemplateAccount",
        "TemplateInstruction",
        "TemplateSeed",
        "TemplateTaker",
        "parse_templates",
    ),
    "errors": (
        "ErrorDetail",
        "ErrorKind",
    ),
    "filters": (
        "DiscoveryFilter",
        "DiscoveryKind",
    ),
    "ids": (
        "new_control_session_id",
        "new_create_token",
        "new_session_id",
        "parse_control_session_id",
        "parse_session_id",
        "parse_session_name",
    ),
    "mints": (
        "MAJORS",
        "Major",
        "short_mint",
    ),
    "notifications": (
        "AccountDiffNotification",
        "Context",
        "LogNotification",
        "LogValue",
        "Notification",
        "TransactionNotification",
    ),
    "replacements": (
        "DirectFillReplacement",
        "L1Score",
        "OriginalReplacement",
        "ProbeHop",
        "ReplacementNotification",
        "RequoteReplacement",
        "RouteHop",
        "SwapInfo",
        "SwapLeg",
    ),
    "reports": (
        "ActionResultNotification",
        "DiagnosticNotification",
        "TransactionOutcome",
    ),
    "requests": (
        "AttachBacktestSession",
        "AttachParallelControlSessionV2",
        "CloseBacktestSession",
        "CloseSessionV1",
        "Continue",
        "ContinueSessionV1",
        "ContinueTo",
        "ContinueToSessionV1",
        "CreateBacktestSession",
        "Request",
        "ResumeAttachedSession",
        "SessionType",
    ),
    "reroute": (
        "MintPair",
        "RerouteFilter",
        "RerouteParams",
        "SwapAggregator",
        "parse_aggregators",
    ),
    "responses": (
        "BacktestStatus",
        "Completed",
        "DiscoveryBatch",
        "ErrorResponse",
        "ParallelSessionAttachedV2",
        "Paused",
        "ReadyForContinue",
        "Response",
        "SessionAttached",
        "SessionCreated",
        "SessionEventV2",
        "SessionsCreatedV2",
        "SlotNotification",
        "StatusResponse",
        "Success",
        "UnknownResponse",
    ),
    "rest": (
        "AvailableRange",
        "BuildStatus",
        "BundleBuildList",
        "BundleBuildRequest",
        "BundleBuildStatus",
        "BundleKind",
        "CompletedBundle",
        "DatasetCredentials",
        "DeletedBundle",
        "DepthCoverage",
        "DepthGranularity",
        "DepthRequest",
        "DepthSource",
        "DepthSourceCoverage",
        "DepthStatus",
        "ProgramOverride",
        "RangeScope",
        "SlotRange",
        "SnapshotSlot",
    ),
    "standard": (
        "AccountNotification",
        "ProgramNotification",
        "SignatureNotification",
        "SlotInfoNotification",
    ),
    "summary": (
        "RerouteStats",
        "SessionCoverage",
        "SessionSummary",
        "TemplateStats",
    ),
    "usage": (
        "BundleBuildCounts",
        "ComputeUsage",
        "SessionCounts",
        "SessionUsage",
        "SessionUsagePage",
        "UsageBucket",
        "UsagePricing",
        "UsageReport",
    ),
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
