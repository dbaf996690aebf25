"""Subscriptions to accounts: before and after each transaction, or their newest state."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from backtest_sync.local.accounts import ABSENT
from backtest_sync.local.endpoint.filters import Filter
from backtest_sync.local.endpoint.watch import NOTHING, Watch, in_context
from backtest_sync.local.executed import AccountChange
from backtest_sync.local.feed import AccountsWritten, Event, Rested, SlotClosed, TransactionDone
from backtest_sync.local.svm import account_to_json, to_pubkey

if TYPE_CHECKING:
    from solders.account import Account
    from solders.pubkey import Pubkey

    from backtest_sync.local.session import SimSession
    from backtest_sync.local.shapes import AccountView


def _changes(event: Event) -> Sequence[AccountChange]:
    if type(event) is TransactionDone:
        return event.executed.changes
    return event.changes if type(event) is AccountsWritten else NOTHING


class DiffWatch(Watch):
    """``accountDiffSubscribe``: accounts before and after each transaction that changed them.

    Of one account, or of all that a program owns, before or after.
    """

    method = "accountDiffNotification"

    def __init__(self, address: str | None = None, program: str | None = None) -> None:
        self._address = address
        self._program = None if program is None else to_pubkey(program)

    def results(self, event: Event) -> Iterable[Any]:
        return [
            self._result(event, change)
            for change in _changes(event)
            if (
                change.address == self._address
                if self._program is None
                else _owned(change.pre, self._program) or _owned(change.post, self._program)
            )
        ]

    def _result(self, event: Event, change: AccountChange) -> dict[str, Any]:
        result: dict[str, Any] = {"context": {"slot": event.slot}, "account": change.address}
        if type(event) is TransactionDone:
            executed = event.executed
            result["signature"] = executed.signature
            result["tx_index"] = executed.index
            if executed.block_time is not None:
                result["block_time"] = executed.block_time
            result["source"] = executed.source.value
        result["pre"] = None if change.pre is None else account_to_json(change.pre)
        result["post"] = None if change.post is None else account_to_json(change.post)
        return result


def _owned(account: Account | None, program: Pubkey) -> bool:
    return account is not None and account.owner == program


class _StateWatch(Watch):
    """The newest state of accounts: after each write, or once a slot with the final one.

    Where the session rests in the middle of a slot, the state there counts as final, too.
    """

    def __init__(self, session: SimSession, view: AccountView, intra_slot: bool) -> None:
        self._session = session
        self._view = view
        self._intra_slot = intra_slot
        self._changed: dict[str, Account | None] = {}

    def results(self, event: Event) -> Iterable[Any]:
        if type(event) in (SlotClosed, Rested):
            if not self._changed:
                return NOTHING
            states, self._changed = self._changed, {}
        else:
            states = {c.address: c.post for c in _changes(event) if self._concerns(c)}
            if not self._intra_slot:
                self._changed.update(states)
                return NOTHING
        return [in_context(event.slot, value) for value in self._values(states)]

    def _concerns(self, change: AccountChange) -> bool:
        raise NotImplementedError

    def _values(self, states: dict[str, Account | None]) -> Iterable[Any]:
        raise NotImplementedError

    def _show(self, account: Account) -> dict[str, Any]:
        return self._view.value(account, self._session.account, strict=False)


class AccountWatch(_StateWatch):
    """``accountSubscribe``. A removed account is shown empty, as a node shows it."""

    method = "accountNotification"

    def __init__(
        self, session: SimSession, address: str, view: AccountView, intra_slot: bool
    ) -> None:
        super().__init__(session, view, intra_slot)
        self._address = address

    def _concerns(self, change: AccountChange) -> bool:
        return change.address == self._address

    def _values(self, states: dict[str, Account | None]) -> Iterable[Any]:
        return [self._show(ABSENT if account is None else account) for account in states.values()]


class ProgramWatch(_StateWatch):
    """``programSubscribe``: accounts that the program owns after the write and that pass filters."""

    method = "programNotification"

    def __init__(
        self,
        session: SimSession,
        program: str,
        filters: Sequence[Filter],
        view: AccountView,
        intra_slot: bool,
    ) -> None:
        super().__init__(session, view, intra_slot)
        self._program = to_pubkey(program)
        self._filters = filters

    def _concerns(self, change: AccountChange) -> bool:
        # one that left the program has no state to show any more: its earlier one must go, too
        return _owned(change.pre, self._program) or _owned(change.post, self._program)

    def _values(self, states: dict[str, Account | None]) -> Iterable[Any]:
        return [
            {"pubkey": address, "account": self._show(account)}
            for address, account in states.items()
            if account is not None
            and account.owner == self._program
            and all(passes(account) for passes in self._filters)
        ]
