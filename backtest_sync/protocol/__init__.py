"""The protocol's values and their codec: pure functions and frozen values, no I/O.

The modules are loaded when one of their names is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backtest_sync.protocol.accounts import Account as Account
    from backtest_sync.protocol.accounts import AccountData as AccountData
    from backtest_sync.protocol.accounts import AccountModifications as AccountModifications
    from backtest_sync.protocol.accounts import EncodedBinary as EncodedBinary
    from backtest_sync.protocol.actions import ActionAnchor as ActionAnchor
    from backtest_sync.protocol.actions import ActionKind as ActionKind
    from backtest_sync.protocol.actions import AnchorAt as AnchorAt
    from backtest_sync.protocol.actions import DiagnosticProbe as DiagnosticProbe
    from backtest_sync.protocol.actions import ResolverType as ResolverType
    from backtest_sync.protocol.actions import ScheduledAction as ScheduledAction
    from backtest_sync.protocol.actions import TxResolver as TxResolver
    from backtest_sync.protocol.codec import decode_request as decode_request
    from backtest_sync.protocol.codec import decode_response as decode_response
    from backtest_sync.protocol.codec import encode_request as encode_request
    from backtest_sync.protocol.codec import encode_response as encode_response
    from backtest_sync.protocol.codec import structure as structure
    from backtest_sync.protocol.codec import unstructure as unstructure
    from backtest_sync.protocol.create import CreateSession as CreateSession
    from backtest_sync.protocol.directfill import DerivedAccount as DerivedAccount
    from backtest_sync.protocol.directfill import DirectFillTemplate as DirectFillTemplate
    from backtest_sync.protocol.directfill import SwapMode as SwapMode
    from backtest_sync.protocol.directfill import TemplateAccount as TemplateAccount
    from backtest_sync.protocol.directfill import TemplateInstruction as TemplateInstruction
    from backtest_sync.protocol.directfill import TemplateSeed as TemplateSeed
    from backtest_sync.protocol.directfill import TemplateTaker as TemplateTaker
    from backtest_sync.protocol.directfill import parse_templates as parse_templates
    from backtest_sync.protocol.errors import ErrorDetail as ErrorDetail
    from backtest_sync.protocol.errors import ErrorKind as ErrorKind
    from backtest_sync.protocol.filters import DiscoveryFilter as DiscoveryFilter
    from backtest_sync.protocol.filters import DiscoveryKind as DiscoveryKind
    from backtest_sync.protocol.ids import new_control_session_id as new_control_session_id
    from backtest_sync.protocol.ids import new_create_token as new_create_token
    from backtest_sync.protocol.ids import new_session_id as new_session_id
    from backtest_sync.protocol.ids import parse_control_session_id as parse_control_session_id
    from backtest_sync.protocol.ids import parse_session_id as parse_session_id
    from backtest_sync.protocol.ids import parse_session_name as parse_session_name
    from backtest_sync.protocol.mints import MAJORS as MAJORS
    from backtest_sync.protocol.mints import Major as Major
    from backtest_sync.protocol.mints import short_mint as short_mint
    from backtest_sync.protocol.notifications import (
        AccountDiffNotification as AccountDiffNotification,
    )
    from backtest_sync.protocol.notifications import Context as Context
    from backtest_sync.protocol.notifications import LogNotification as LogNotification
    from backtest_sync.protocol.notifications import LogValue as LogValue
    from backtest_sync.protocol.notifications import Notification as Notification
    from backtest_sync.protocol.notifications import (
        TransactionNotification as TransactionNotification,
    )
    from backtest_sync.protocol.replacements import DirectFillReplacement as DirectFillReplacement
    from backtest_sync.protocol.replacements import L1Score as L1Score
    from backtest_sync.protocol.replacements import OriginalReplacement as OriginalReplacement
    from backtest_sync.protocol.replacements import ProbeHop as ProbeHop
    from backtest_sync.protocol.replacements import (
        ReplacementNotification as ReplacementNotification,
    )
    from backtest_sync.protocol.replacements import RequoteReplacement as RequoteReplacement
    from backtest_sync.protocol.replacements import RouteHop as RouteHop
    from backtest_sync.protocol.replacements import SwapInfo as SwapInfo
    from backtest_sync.protocol.replacements import SwapLeg as SwapLeg
    from backtest_sync.protocol.reports import ActionResultNotification as ActionResultNotification
    from backtest_sync.protocol.reports import DiagnosticNotification as DiagnosticNotification
    from backtest_sync.protocol.reports import TransactionOutcome as TransactionOutcome
    from backtest_sync.protocol.requests import AttachBacktestSession as AttachBacktestSession
    from backtest_sync.protocol.requests import (
        AttachParallelControlSessionV2 as AttachParallelControlSessionV2,
    )
    from backtest_sync.protocol.requests import CloseBacktestSession as CloseBacktestSession
    from backtest_sync.protocol.requests import CloseSessionV1 as CloseSessionV1
    from backtest_sync.protocol.requests import Continue as Continue
    from backtest_sync.protocol.requests import ContinueSessionV1 as ContinueSessionV1
    from backtest_sync.protocol.requests import ContinueTo as ContinueTo
    from backtest_sync.protocol.requests import ContinueToSessionV1 as ContinueToSessionV1
    from backtest_sync.protocol.requests import CreateBacktestSession as CreateBacktestSession
    from backtest_sync.protocol.requests import Request as Request
    from backtest_sync.protocol.requests import ResumeAttachedSession as ResumeAttachedSession
    from backtest_sync.protocol.requests import SessionType as SessionType
    from backtest_sync.protocol.reroute import MintPair as MintPair
    from backtest_sync.protocol.reroute import RerouteFilter as RerouteFilter
    from backtest_sync.protocol.reroute import RerouteParams as RerouteParams
    from backtest_sync.protocol.reroute import SwapAggregator as SwapAggregator
    from backtest_sync.protocol.reroute import parse_aggregators as parse_aggregators
    from backtest_sync.protocol.responses import BacktestStatus as BacktestStatus
    from backtest_sync.protocol.responses import Completed as Completed
    from backtest_sync.protocol.responses import DiscoveryBatch as DiscoveryBatch
    from backtest_sync.protocol.responses import ErrorResponse as ErrorResponse
    from backtest_sync.protocol.responses import (
        ParallelSessionAttachedV2 as ParallelSessionAttachedV2,
    )
    from backtest_sync.protocol.responses import Paused as Paused
    from backtest_sync.protocol.responses import ReadyForContinue as ReadyForContinue
    from backtest_sync.protocol.responses import Response as Response
    from backtest_sync.protocol.responses import SessionAttached as SessionAttached
    from backtest_sync.protocol.responses import SessionCreated as SessionCreated
    from backtest_sync.protocol.responses import SessionEventV2 as SessionEventV2
    from backtest_sync.protocol.responses import SessionsCreatedV2 as SessionsCreatedV2
    from backtest_sync.protocol.responses import SlotNotification as SlotNotification
    from backtest_sync.protocol.responses import StatusResponse as StatusResponse
    from backtest_sync.protocol.responses import Success as Success
    from backtest_sync.protocol.responses import UnknownResponse as UnknownResponse
    from backtest_sync.protocol.rest import AvailableRange as AvailableRange
    from backtest_sync.protocol.rest import BuildStatus as BuildStatus
    from backtest_sync.protocol.rest import BundleBuildList as BundleBuildList
    from backtest_sync.protocol.rest import BundleBuildRequest as BundleBuildRequest
    from backtest_sync.protocol.rest import BundleBuildStatus as BundleBuildStatus
    from backtest_sync.protocol.rest import BundleKind as BundleKind
    from backtest_sync.protocol.rest import CompletedBundle as CompletedBundle
    from backtest_sync.protocol.rest import DatasetCredentials as DatasetCredentials
    from backtest_sync.protocol.rest import DeletedBundle as DeletedBundle
    from backtest_sync.protocol.rest import DepthCoverage as DepthCoverage
    from backtest_sync.protocol.rest import DepthGranularity as DepthGranularity
    from backtest_sync.protocol.rest import DepthRequest as DepthRequest
    from backtest_sync.protocol.rest import DepthSource as DepthSource
    from backtest_sync.protocol.rest import DepthSourceCoverage as DepthSourceCoverage
    from backtest_sync.protocol.rest import DepthStatus as DepthStatus
    from backtest_sync.protocol.rest import ProgramOverride as ProgramOverride
    from backtest_sync.protocol.rest import RangeScope as RangeScope
    from backtest_sync.protocol.rest import SlotRange as SlotRange
    from backtest_sync.protocol.rest import SnapshotSlot as SnapshotSlot
    from backtest_sync.protocol.standard import AccountNotification as AccountNotification
    from backtest_sync.protocol.standard import ProgramNotification as ProgramNotification
    from backtest_sync.protocol.standard import SignatureNotification as SignatureNotification
    from backtest_sync.protocol.standard import SlotInfoNotification as SlotInfoNotification
    from backtest_sync.protocol.summary import RerouteStats as RerouteStats
    from backtest_sync.protocol.summary import SessionCoverage as SessionCoverage
    from backtest_sync.protocol.summary import SessionSummary as SessionSummary
    from backtest_sync.protocol.summary import TemplateStats as TemplateStats
    from backtest_sync.protocol.usage import BundleBuildCounts as BundleBuildCounts
    from backtest_sync.protocol.usage import ComputeUsage as ComputeUsage
    from backtest_sync.protocol.usage import SessionCounts as SessionCounts
    from backtest_sync.protocol.usage import SessionUsage as SessionUsage
    from backtest_sync.protocol.usage import SessionUsagePage as SessionUsagePage
    from backtest_sync.protocol.usage import UsageBucket as UsageBucket
    from backtest_sync.protocol.usage import UsagePricing as UsagePricing
    from backtest_sync.protocol.usage import UsageReport as UsageReport

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
