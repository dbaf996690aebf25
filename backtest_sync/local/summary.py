"""Comparison of what was executed with what was recorded (protocol/control.md §5.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import define

from backtest_sync.local.blocks import token_amounts

if TYPE_CHECKING:
    from backtest_sync.local.executed import Executed


@define
class Summary:
    """Counts of historical transactions, each in exactly one of them.

    ``correct_simulation``: error, balances and logs as recorded. ``execution_errors``: failed here
    with an error that is not the recorded one. ``incorrect_simulation``: succeeded here, failed on
    chain. ``balance_diff``: the same outcome, other balances afterwards. ``log_diff``: the same
    balances too, other logs. ``unsanitizable``: skipped. ``played_back``: not executed at all, so
    not compared; the hosted service has no such count.
    """

    correct_simulation: int = 0
    incorrect_simulation: int = 0
    execution_errors: int = 0
    balance_diff: int = 0
    log_diff: int = 0
    unsanitizable: int = 0
    played_back: int = 0

    def compare(self, executed: Executed, recorded: dict[str, Any]) -> None:
        """Counts one executed transaction, whose balances were captured."""
        if executed.err != recorded.get("err"):
            if executed.err is None:
                self.incorrect_simulation += 1
            else:
                self.execution_errors += 1
        elif not _same_balances(executed, recorded):
            self.balance_diff += 1
        elif _other_logs(executed, recorded):
            self.log_diff += 1
        else:
            self.correct_simulation += 1


def _same_balances(executed: Executed, recorded: dict[str, Any]) -> bool:
    if executed.post_balances != recorded["postBalances"]:
        return False
    tokens = recorded.get("postTokenBalances")  # blocks of the early days have none
    return tokens is None or token_amounts(executed.post_token_balances) == token_amounts(tokens)


def _other_logs(executed: Executed, recorded: dict[str, Any]) -> bool:
    logs = recorded.get("logMessages")
    return logs is not None and executed.logs != logs
