"""Historical transactions that can't be executed, since the bundle lacks an account they had.

They are shown as they were recorded, and move what the bundle has of their accounts by what the
record says: lamports, and the amounts of token accounts. No other data changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from solders.account import Account

from backtest_sync.local.blocks import token_amounts

if TYPE_CHECKING:
    from collections.abc import Callable

    from backtest_sync.local.blocks import BlockTransaction

_AMOUNT = slice(64, 72)
_MAX_U64 = 2**64 - 1


def moved_accounts(
    transaction: BlockTransaction, read: Callable[[str], Account | None]
) -> dict[str, Account]:
    """The accounts that are at hand (``read``), as the recorded transaction leaves them.

    By differences rather than to the recorded values: what a user changed before stays changed.
    """
    meta: dict[str, Any] = transaction.meta or {}
    before = token_amounts(meta.get("preTokenBalances"))
    after = token_amounts(meta.get("postTokenBalances"))
    moved: dict[str, Account] = {}
    for index in transaction.writable:
        lamports = meta["postBalances"][index] - meta["preBalances"][index]
        tokens = _amount(after, index) - _amount(before, index)
        if not lamports and not tokens:
            continue
        account = read(transaction.keys[index])
        if account is None:
            continue
        data = account.data
        if tokens and len(data) >= _AMOUNT.stop:
            amount = _bounded(int.from_bytes(data[_AMOUNT], "little") + tokens)
            data = data[: _AMOUNT.start] + amount.to_bytes(8, "little") + data[_AMOUNT.stop :]
        moved[transaction.keys[index]] = Account(
            _bounded(account.lamports + lamports),
            data,
            account.owner,
            account.executable,
            account.rent_epoch,
        )
    return moved


def _amount(amounts: dict[int, tuple[str, str]], index: int) -> int:
    return int(amounts[index][1]) if index in amounts else 0


def _bounded(number: int) -> int:
    return min(max(number, 0), _MAX_U64)
