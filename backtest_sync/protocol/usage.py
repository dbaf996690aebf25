"""What an API key has used (protocol/http.md §4 and §5)."""

from __future__ import annotations

from datetime import datetime, timedelta

from backtest_sync.protocol.fields import U64_MAX, to_u64
from backtest_sync.protocol.kinds import F64, SESSION_ID, TEXT, U64, list_of, optional
from backtest_sync.protocol.rest import RestValue
from backtest_sync.protocol.shape import struct, value_class, wire
from backtest_sync.protocol.times import TIME

_DAY = timedelta(days=1)


@value_class
class SessionCounts(RestValue):
    """How many sessions there were."""

    started: int = wire(U64)
    completed: int = wire(U64)
    failed: int = wire(U64)


@value_class
class ComputeUsage(RestValue):
    """What they executed; ``session_duration_ms`` in milliseconds."""

    executed_slot_count: int = wire(U64)
    session_duration_ms: int = wire(U64)


@value_class
class UsageBucket(RestValue):
    """One UTC day, after ``start`` up to ``end``; the last one may be part of a day."""

    start: datetime = wire(TIME)
    end: datetime = wire(TIME)
    sessions: SessionCounts = wire(struct(SessionCounts))
    compute: ComputeUsage = wire(struct(ComputeUsage))

    @property
    def is_empty(self) -> bool:
        """Whether nothing was used."""
        return self.sessions == SessionCounts(0, 0, 0) and self.compute == ComputeUsage(0, 0)

    @property
    def is_partial(self) -> bool:
        """Whether it is less than a day."""
        return self.end - self.start < _DAY


@value_class
class BundleBuildCounts(RestValue):
    """How many builds were asked for."""

    requested: int = wire(U64)


@value_class
class UsagePricing(RestValue):
    """What usage costs, in dollars; ``max_ms_per_slot`` in milliseconds."""

    dollars_per_slot: float = wire(F64)
    dollars_per_minute: float = wire(F64)
    max_ms_per_slot: int = wire(U64)

    def cost(self, slots: int, duration_ms: int) -> float:
        """The dollars of a run: by the slot where it was fast enough, else by the minute."""
        slots, duration_ms = to_u64(slots, "slots"), to_u64(duration_ms, "duration_ms")
        if min(slots * self.max_ms_per_slot, U64_MAX) >= duration_ms:
            return slots * self.dollars_per_slot
        return duration_ms / 60_000 * self.dollars_per_minute


@value_class
class UsageReport(RestValue):
    """The usage of a key between two moments.

    ``daily`` has a bucket for each UTC day, without gaps; an older server gives none.
    """

    api_key_name: str = wire(TEXT)
    since: datetime = wire(TIME)
    until: datetime = wire(TIME)
    sessions: SessionCounts = wire(struct(SessionCounts))
    compute: ComputeUsage = wire(struct(ComputeUsage))
    daily: tuple[UsageBucket, ...] = wire(list_of(struct(UsageBucket)), default=())
    bundle_builds: BundleBuildCounts | None = wire(
        optional(struct(BundleBuildCounts)), default=None, omit=None
    )
    pricing: UsagePricing | None = wire(optional(struct(UsagePricing)), default=None, omit=None)


@value_class
class SessionUsage(RestValue):
    """What one session used; ``session_duration_ms`` in milliseconds."""

    session_id: str = wire(SESSION_ID)
    started_at: datetime = wire(TIME)
    ended_at: datetime = wire(TIME)
    executed_slot_count: int = wire(U64)
    session_duration_ms: int = wire(U64)
    session_name: str | None = wire(optional(TEXT), default=None, omit=None)


@value_class
class SessionUsagePage(RestValue):
    """One page of sessions; ``next_cursor`` leads to the next one."""

    since: datetime = wire(TIME)
    until: datetime = wire(TIME)
    sessions: tuple[SessionUsage, ...] = wire(list_of(struct(SessionUsage)))
    next_cursor: str | None = wire(optional(TEXT), default=None)
