"""The REST endpoints that a simulator can answer of itself (protocol/http.md)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from backtest_sync.protocol import (
    AvailableRange,
    BundleBuildCounts,
    BundleKind,
    ComputeUsage,
    RangeScope,
    SessionCounts,
    SessionUsage,
    SessionUsagePage,
    UsageBucket,
    UsagePricing,
    UsageReport,
    unstructure,
)
from backtest_sync.protocol.times import parse_time

if TYPE_CHECKING:
    from backtest_sync.local.bundle import Bundle
    from backtest_sync.local.registry import Registry, UsageRecord

#: Sessions on one page of ``/usage/sessions``.
PAGE_SIZE = 100
_DAY = timedelta(days=1)
#: The longest period that is counted by the day.
_MAX_DAYS = 3660

#: What only the hosted service has, by path.
NOT_HERE = {
    "/build-bundle": "building bundles",
    "/bundles": "deleting built bundles",
    "/generate-depth": "generating depth datasets",
    "/datasets/credentials": "credentials for datasets",
}


class BadQueryError(ValueError):
    """A query that can't be answered; the message says what was expected."""


def not_here(path: str) -> str:
    """The sentence for a path of ``NOT_HERE``."""
    what = next(text for prefix, text in NOT_HERE.items() if path.startswith(prefix))
    return (
        f"{what} needs the hosted service: the local simulator serves the one bundle it was given"
    )


def available_ranges(bundle: Bundle, query: Mapping[str, str]) -> Any:
    """The bundle's ranges; those of recorded account state where they are asked for."""
    asked = query.get("include_account_state", "false")
    if asked not in ("true", "false"):
        raise BadQueryError(f"include_account_state is {asked!r}, not true or false")
    return [
        unstructure(
            AvailableRange(
                bundle_start_slot=r.start_slot,
                bundle_start_slot_utc=_slot_time(bundle, r.start_slot),
                max_bundle_end_slot=r.end_slot,
                max_bundle_end_slot_utc=_slot_time(bundle, r.end_slot),
                max_bundle_size=r.end_slot - r.start_slot + 1,
                kind=BundleKind(r.kind),
                scope=RangeScope.GLOBAL,
            )
        )
        for r in bundle.ranges
        if r.kind == "blocks" or asked == "true"
    ]


def _slot_time(bundle: Bundle, slot: int) -> str | None:
    try:
        seconds = bundle.block(slot).block_time
    except KeyError:
        return None
    return None if seconds is None else _utc(seconds).strftime("%Y-%m-%dT%H:%M:%SZ")


def snapshot_slot(bundle: Bundle) -> Any:
    """The newest slot whose accounts are known without executing: the last range's start."""
    return {"snapshot_slot": max(r.start_slot for r in bundle.ranges)}


def usage(registry: Registry, query: Mapping[str, str]) -> Any:
    """What the sessions of this process used, in all and by the UTC day."""
    since, until = _period(registry, query)
    records = registry.usage()
    start, daily = since, []
    while start < until:
        end = min(start + _DAY, until)
        daily.append(UsageBucket(start, end, *_totals(_within(records, start, end))))
        start += _DAY
    return unstructure(
        UsageReport(
            "local",
            since,
            until,
            *_totals(_within(records, since, until)),
            daily=tuple(daily),
            bundle_builds=BundleBuildCounts(0),
            pricing=UsagePricing(0.0, 0.0, 0),
        )
    )


def usage_sessions(registry: Registry, query: Mapping[str, str]) -> Any:
    """The sessions of this process, a page at a time."""
    since, until = _period(registry, query)
    cursor = query.get("cursor", "0")
    if not (cursor.isascii() and cursor.isdigit()):
        raise BadQueryError(f"cursor {cursor!r} is none that was given out")
    first = int(cursor)
    records = _within(registry.usage(), since, until)
    after = first + PAGE_SIZE
    return unstructure(
        SessionUsagePage(
            since,
            until,
            tuple(_session(record) for record in records[first:after]),
            str(after) if after < len(records) else None,
        )
    )


def _session(record: UsageRecord) -> SessionUsage:
    started = _utc(record.started_at)
    return SessionUsage(
        record.session_id,
        started,
        started + timedelta(seconds=record.duration),
        record.executed_slots,
        int(record.duration * 1000),
        record.session_name,
    )


def _period(registry: Registry, query: Mapping[str, str]) -> tuple[datetime, datetime]:
    now = _utc(time.time() + 1).replace(microsecond=0)  # what began in this second counts
    since = _time(query, "since", _utc(registry.started_at))
    since = since.replace(hour=0, minute=0, second=0, microsecond=0)
    until = _time(query, "until", now)
    if not timedelta(0) <= until - since <= _MAX_DAYS * _DAY:
        raise BadQueryError(
            f"since {since.isoformat()} and until {until.isoformat()} are no period of at most "
            f"{_MAX_DAYS} days"
        )
    return since, until


def _time(query: Mapping[str, str], name: str, default: datetime) -> datetime:
    text = query.get(name)
    if text is None:
        return default
    try:
        return parse_time(text)
    except (ValueError, OverflowError) as error:
        raise BadQueryError(f"{name}: {error}") from error


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)


def _within(records: Iterable[UsageRecord], after: datetime, until: datetime) -> list[UsageRecord]:
    return [r for r in records if after < _utc(r.started_at) <= until]


def _totals(records: list[UsageRecord]) -> tuple[SessionCounts, ComputeUsage]:
    return (
        SessionCounts(
            len(records),
            sum(record.completed for record in records),
            sum(record.failed for record in records),
        ),
        ComputeUsage(
            sum(record.executed_slots for record in records),
            sum(int(record.duration * 1000) for record in records),
        ),
    )
