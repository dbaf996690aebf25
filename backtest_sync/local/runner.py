"""Runs one transaction on the machine and notes what it changed: what costs time, in one place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from solders.pubkey import Pubkey
from solders.transaction_metadata import FailedTransactionMetadata

from backtest_sync.local import svm
from backtest_sync.local.balances import View, mint_decimals, view
from backtest_sync.local.executed import AccountChange, Capture, Ran, Source

if TYPE_CHECKING:
    from solders.account import Account
    from solders.litesvm import LiteSVM
    from solders.transaction import VersionedTransaction

    from backtest_sync.local.blocks import Block, BlockTransaction

_NOTING = int(Capture.BALANCES | Capture.SUMMARY)
_DIFFS = int(Capture.DIFFS)


class Runner:
    """Commits transactions on one machine.

    Balances before a transaction are those noted after earlier ones, so that an account is read once
    for each write. Who writes to the machine elsewhere says so by ``forget``.
    """

    def __init__(self, machine: LiteSVM) -> None:
        self._send = machine.send_transaction
        self._read = machine.get_account
        self._views: dict[str, View] = {}
        self._decimals: dict[bytes, int] = {}  # by mint

    def forget(self, address: Pubkey) -> None:
        """What was noted of an account no longer holds."""
        self._views.pop(str(address), None)
        self._decimals.pop(bytes(address), None)

    def run(
        self,
        transaction: BlockTransaction,
        prepared: VersionedTransaction,
        *,
        block: Block,
        source: Source,
        batch_index: int | None,
        capture: int,
    ) -> Ran:
        """Executes ``prepared``, which is ``transaction`` as it is to run, and commits it."""
        pubkeys, writable = transaction.pubkeys, transaction.writable
        read = self._read
        pre = self._noted(transaction) if capture & _NOTING else ()
        before = [read(pubkeys[i]) for i in writable] if capture & _DIFFS else ()
        result: Any = self._send(prepared)
        after = [read(pubkeys[i]) for i in writable] if capture else ()
        failed = isinstance(result, FailedTransactionMetadata)
        return Ran(
            slot=block.slot,
            block_time=block.block_time,
            batch_index=batch_index,
            index=transaction.index,
            source=source,
            err=svm.error_json(result.err()) if failed else None,
            changes=_changes(transaction, before, after) if before else (),
            of=transaction,
            result=result.meta() if failed else result,
            pre=pre,
            post=self._note_all(transaction, pre, after),
            decimals=self._decimals,
        )

    def _noted(self, transaction: BlockTransaction) -> Sequence[View]:
        """What is known of a transaction's accounts; read where nothing is yet."""
        views = self._views
        try:
            return [views[key] for key in transaction.keys]
        except KeyError:
            for key, pubkey in zip(transaction.keys, transaction.pubkeys, strict=True):
                if key not in views:
                    views[key] = self._note(self._read(pubkey))
        return [views[key] for key in transaction.keys]

    def _note_all(
        self,
        transaction: BlockTransaction,
        pre: Sequence[View],
        after: Sequence[Account | None],
    ) -> Sequence[View]:
        """Notes the accounts that were written; gives the views afterwards where there were before."""
        keys, views = transaction.keys, self._views
        if not pre:
            for i in transaction.writable:
                views.pop(keys[i], None)
            return ()
        post = list(pre)
        for i, account in zip(transaction.writable, after, strict=True):
            post[i] = views[keys[i]] = self._note(account)
        return post

    def _note(self, account: Account | None) -> View:
        noted = view(account)
        token = noted[1]
        if token is not None and token[:32] not in self._decimals:
            decimals = mint_decimals(self._read(Pubkey.from_bytes(token[:32])))
            if decimals is not None:
                self._decimals[token[:32]] = decimals
        return noted


def _changes(
    transaction: BlockTransaction,
    before: Sequence[Account | None],
    after: Sequence[Account | None],
) -> list[AccountChange]:
    keys = transaction.keys
    return [
        AccountChange(keys[i], old, new)
        for i, old, new in zip(transaction.writable, before, after, strict=True)
        if old != new
    ]
