"""What the session's methods give back, and the state that `advance_step` works on."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from attrs import define, field, frozen

from backtest_sync.protocol import (
    BacktestStatus,
    DiscoveryBatch,
    Paused,
    SessionCoverage,
    SessionSummary,
)


class ReadyOutcome(Enum):
    """How `BacktestSession.ensure_ready` ended."""

    READY = "ready"
    COMPLETED = "completed"


class ConnectionStatus(Enum):
    """The state of a session's connection as its user sees it."""

    UP = "up"
    DOWN = "down"
    CLOSED = "closed"
    FAILED = "failed"


@define
class AdvanceState:
    """What has come of one ``Continue`` so far; `BacktestSession.advance_step` updates it.

    ``expected_slots`` is the ``advance_count`` of the ``Continue`` (protocol/control.md §8.5).
    """

    expected_slots: int = 1
    slot_notifications: int = 0
    last_slot: int | None = None
    statuses: list[BacktestStatus | str] = field(factory=list)
    ready_for_continue: bool = False
    completed: bool = False
    summary: SessionSummary | None = None

    def is_done(self, wait_for_slots: bool) -> bool:
        """Completed; or ready again and, with ``wait_for_slots``, every slot announced."""
        return self.completed or (
            self.ready_for_continue
            and (not wait_for_slots or self.slot_notifications >= self.expected_slots)
        )


@frozen
class ContinueResult:
    """What one ``Continue`` did. ``summary`` comes with ``completed``, where it was asked for."""

    slot_notifications: int
    last_slot: int | None
    statuses: tuple[BacktestStatus | str, ...]
    ready_for_continue: bool
    completed: bool
    summary: SessionSummary | None = None


@frozen
class DiscoveryPause:
    """A discovery and the position at which the session is paused for it."""

    discovery: DiscoveryBatch
    paused: Paused


@frozen
class RunResult:
    """What `BacktestSession.run` did.

    ``slots`` counts the slots announced during the run and, in a session that was not stepped before it, ahead
    of it; ``statuses`` counts each status; ``duration`` is in seconds. ``completed`` is false only when a step
    function ended the run.
    """

    completed: bool
    first_slot: int | None
    last_slot: int | None
    slots: int
    continues: int
    duration: float
    statuses: Mapping[str, int]
    summary: SessionSummary | None
    coverage: SessionCoverage
