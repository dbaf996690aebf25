"""Comparison of what was executed with what was recorded. SKELETON, being implemented."""

from __future__ import annotations

from attrs import define


@define
class Summary:
    """Counters of control.md §5.2, each transaction in one of them; played_back is our own."""

    correct_simulation: int = 0
    incorrect_simulation: int = 0
    execution_errors: int = 0
    balance_diff: int = 0
    log_diff: int = 0
    unsanitizable: int = 0
    played_back: int = 0
