"""One session's chain: a machine of its own that replays a bundle, batch by batch.

The order in a slot is the caller's: ``open_slot``, the batches, the user's transactions,
``close_slot`` (protocol/control.md §4.2). Nothing here knows sessions, sockets or clocks.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from solders.signature import Signature
from solders.transaction import VersionedTransaction
from solders.transaction_metadata import FailedTransactionMetadata

from backtest_sync.errors import InvalidParamsError
from backtest_sync.local import playback, svm
from backtest_sync.local.accounts import RefusedAccountError, load_accounts, write_accounts
from backtest_sync.local.blocks import BlockTransaction, prepare
from backtest_sync.local.bundle import ACCOUNT_STATE
from backtest_sync.local.compute import with_extra_units
from backtest_sync.local.executed import (
    AccountChange,
    Capture,
    Executed,
    PlayedBack,
    Simulated,
    Simulation,
    Source,
)
from backtest_sync.local.lines import BundleError
from backtest_sync.local.runner import Runner
from backtest_sync.local.summary import Summary
from backtest_sync.local.sysvars import Sysvars

if TYPE_CHECKING:
    from solders.account import Account
    from solders.pubkey import Pubkey

    from backtest_sync.local.blocks import Block
    from backtest_sync.local.bundle import Bundle
    from backtest_sync.local.executed import Ran
    from backtest_sync.protocol import AccountData

_LOG = logging.getLogger(__name__)
_DIFFS = int(Capture.DIFFS)
_SUMMARY = int(Capture.SUMMARY)


class Engine:
    """Executes the blocks of a bundle on a LiteSVM of its own. For one thread.

    ``extra_compute_units`` are added to the limit of each historical transaction that sets one.
    With ``replay_account_state`` nothing is executed: a slot's end brings its recorded state.

    ``refused``: accounts of the bundle that the machine can't take, such as code that it can't
    load. What needs them is played back.
    """

    def __init__(
        self,
        bundle: Bundle,
        start_slot: int,
        *,
        extra_compute_units: int = 0,
        replay_account_state: bool = False,
    ) -> None:
        """Loads the accounts at the range that begins at ``start_slot``; BundleError if none does."""
        self._bundle = bundle
        self._extra_units = extra_compute_units
        self._replaying_state = replay_account_state
        starts = {r.start_slot for r in bundle.ranges if r.kind == ACCOUNT_STATE}
        if replay_account_state and start_slot not in starts:
            raise BundleError(bundle.path, f"no recorded account state begins at slot {start_slot}")
        accounts = bundle.accounts_at(start_slot)
        self._svm = svm.new_svm()
        self._sysvars = Sysvars(self._svm)
        self._runner = Runner(self._svm)
        self._block: Block | None = None
        self._next_batch = 0
        self._sent = 0
        self.summary = Summary()
        self.refused = load_accounts(
            self._svm, {svm.to_pubkey(key): account for key, account in accounts.items()}
        )
        self._resident = set(accounts) - {str(error.address) for error in self.refused}
        if self.refused:
            _LOG.warning(
                "%s: accounts that can't be loaded: %d; what needs them is played back. The first: %s",
                bundle.path,
                len(self.refused),
                self.refused[0],
            )

    # --- position ---------------------------------------------------------------------------

    @property
    def block(self) -> Block:
        """The block that is open, or that was closed last. There is one once a slot was opened."""
        if self._block is None:
            raise RuntimeError("no slot was opened yet")
        return self._block

    @property
    def slot(self) -> int:
        """The slot of ``block``: what reads show."""
        return self.block.slot

    @property
    def next_batch(self) -> int:
        """Index of the batch that runs next; the count of batches once all ran."""
        return self._next_batch

    # --- history ----------------------------------------------------------------------------

    def open_slot(self, block: Block) -> None:
        """Begins a block: Clock, the other sysvars and the blockhash are its own from here on."""
        self._block = block
        self._next_batch = 0
        self._sent = 0
        self._sysvars.open_slot(block)

    def run_batch(self, capture: Capture = Capture.BALANCES) -> list[Executed]:
        """Runs the next batch of the open block; an empty list where none is left.

        Transactions that can't be executed are played back; insane ones are skipped and counted.
        """
        batches = self.block.batches
        if self._next_batch == len(batches):
            return []
        index = self._next_batch
        self._next_batch += 1
        if self._replaying_state:
            return []
        wanted = int(capture)  # a test of flags costs a microsecond, one of integers nothing
        done: list[Executed] = []
        for transaction in batches[index]:
            if not transaction.is_sane:
                self.summary.unsanitizable += 1
            elif self._is_executable(transaction):
                done.append(self._run_historical(transaction, index, wanted))
            else:
                done.append(self._play_back(transaction, index, wanted))
        return done

    def close_slot(self) -> tuple[AccountChange, ...]:
        """Ends the open block. Gives what recorded state changed, when that is replayed."""
        if not self._replaying_state:
            return ()
        return self._write(
            {
                svm.to_pubkey(address): account
                for address, account in self._bundle.recorded_state(self.slot).items()
            }
        )

    def _run_historical(self, transaction: BlockTransaction, batch_index: int, capture: int) -> Ran:
        prepared = transaction.transaction
        if self._extra_units:
            prepared = with_extra_units(prepared, self._extra_units)
        ran = self._runner.run(
            transaction,
            prepared,
            block=self.block,
            source=Source.EXECUTED,
            batch_index=batch_index,
            capture=capture,
        )
        if capture & _SUMMARY and transaction.meta is not None:
            self.summary.compare(ran, transaction.meta)
        return ran

    def _is_executable(self, transaction: BlockTransaction) -> bool:
        """Whether the machine has every account that the transaction had on chain.

        An account is known once the bundle gave it, or once it was seen not to exist on chain yet:
        from then on it is this chain's own doing whether it does.
        """
        if transaction.meta is None:
            return True  # there is nothing to play back
        if transaction.unresolved:
            return False
        if self._resident.issuperset(transaction.key_set):
            return True
        balances = transaction.meta["preBalances"]
        new = []
        for position, key in enumerate(transaction.keys):
            if key in self._resident:
                continue
            if balances[position] and self._read(key) is None:
                return False
            new.append(key)
        self._resident.update(new)
        return True

    def _play_back(
        self, transaction: BlockTransaction, batch_index: int, capture: int
    ) -> PlayedBack:
        meta: dict[str, Any] = transaction.meta or {}
        moved = playback.moved_accounts(transaction, self._read)
        changes = self._write({svm.to_pubkey(key): account for key, account in moved.items()})
        self.summary.played_back += 1
        return PlayedBack(
            slot=self.slot,
            block_time=self.block.block_time,
            batch_index=batch_index,
            index=transaction.index,
            source=Source.PLAYED_BACK,
            err=meta.get("err"),
            changes=changes if capture & _DIFFS else (),
            of=transaction,
        )

    # --- the user's doings ------------------------------------------------------------------

    def send(
        self, transaction: VersionedTransaction, capture: Capture = Capture.BALANCES
    ) -> Executed:
        """Executes a user's transaction in the current slot and commits it. No check of signatures.

        One that can't even begin (no such payer, no such program) has its error and no logs.
        InvalidParamsError for one without any signature: there would be no name for it.
        """
        if not transaction.signatures:
            raise InvalidParamsError("transaction: it has no signature, not even an empty one")
        index = len(self.block.transactions) + self._sent
        self._sent += 1
        resolved = prepare(transaction, bytes(transaction), index=index, read=self._svm.get_account)
        return self._runner.run(
            resolved,
            transaction,
            block=self.block,
            source=Source.USER,
            batch_index=None,
            capture=int(capture),
        )

    def simulate(
        self,
        transactions: Sequence[VersionedTransaction],
        *,
        overrides: Mapping[str, AccountData] | None = None,
        accounts: Sequence[str] = (),
    ) -> Simulation:
        """Runs transactions one after another on top of ``overrides``, and forgets them.

        ``accounts``: whose states to give afterwards. InvalidParamsError for an override that the
        machine refuses.
        """
        undo: dict[Pubkey, Account | None] = {}
        outcomes: list[Simulated] = []
        written = _to_accounts(overrides or {})
        try:
            for transaction in transactions:
                self._overlay(written, undo)
                outcome, written = self._simulate_one(transaction)
                outcomes.append(outcome)
                if outcome.err is not None:
                    break
            self._overlay(written, undo)
            states = [self._read(address) for address in accounts]
        finally:
            write_accounts(self._svm, undo)
        return Simulation(outcomes, states)

    def _overlay(
        self, accounts: Mapping[Pubkey, Account | None], undo: dict[Pubkey, Account | None]
    ) -> None:
        before = {address: self._svm.get_account(address) for address in accounts}
        self._refusing(accounts)
        undo.update((address, old) for address, old in before.items() if address not in undo)

    def _simulate_one(
        self, transaction: VersionedTransaction
    ) -> tuple[Simulated, dict[Pubkey, Account | None]]:
        result: Any = self._svm.simulate_transaction(transaction)
        failed = isinstance(result, FailedTransactionMetadata)
        meta = result.meta()
        simulated = Simulated(
            err=svm.error_json(result.err()) if failed else None,
            logs=meta.logs(),
            units=meta.compute_units_consumed(),
            fee=meta.fee(),
            return_data=svm.return_data_json(meta.return_data()),
            inner_instructions=svm.inner_json(meta.inner_instructions()),
        )
        return simulated, {} if failed else dict(result.post_accounts())

    def set_accounts(self, modifications: Mapping[str, AccountData]) -> tuple[AccountChange, ...]:
        """Writes accounts at once, all or none, and gives what changed.

        A replaced ProgramData takes effect with the next transaction. No lamports: the account is
        removed. InvalidParamsError for an account that the machine refuses, an ELF that it can't
        load among them.
        """
        changes = self._write(_to_accounts(modifications))
        self._resident.update(modifications)
        return changes

    def _write(self, accounts: Mapping[Pubkey, Account | None]) -> tuple[AccountChange, ...]:
        before = {address: self._svm.get_account(address) for address in accounts}
        self._refusing(accounts)
        changes = []
        for address, pre in before.items():
            self._runner.forget(address)
            post = self._svm.get_account(address)
            if pre != post:
                changes.append(AccountChange(str(address), pre, post))
        return tuple(changes)

    def _refusing(self, accounts: Mapping[Pubkey, Account | None]) -> None:
        try:
            write_accounts(self._svm, accounts)
        except RefusedAccountError as error:
            raise InvalidParamsError(f"can't be applied: {error}") from error

    # --- reads ------------------------------------------------------------------------------

    def _read(self, address: str) -> Account | None:
        return self._svm.get_account(svm.to_pubkey(address))

    def account(self, address: str) -> Account | None:
        """An account as of now: ``.data``, ``.lamports``, ``.owner``, ``.executable``,
        ``.rent_epoch``. ValueError for what is no address."""
        return self._read(address)

    def program_accounts(self, program_id: str) -> list[tuple[str, Account]]:
        """The accounts that a program owns, in the order of their addresses' bytes."""
        owned = self._svm.get_program_accounts(svm.to_pubkey(program_id))
        return [(str(address), account) for address, account in sorted(owned, key=_address)]

    @property
    def blockhash(self) -> str:
        """The blockhash of ``block``."""
        return self.block.blockhash

    @property
    def block_height(self) -> int:
        """The height of ``block``; its slot where the bundle does not tell."""
        return self.slot if self.block.block_height is None else self.block.block_height

    @property
    def block_time(self) -> int | None:
        """The time of ``block``, seconds since 1970."""
        return self.block.block_time

    def minimum_balance(self, size: int) -> int:
        """Lamports that make an account of ``size`` bytes of data rent exempt."""
        return self._svm.minimum_balance_for_rent_exemption(size)

    def fee_for_message(self, message: Any) -> int:
        """Lamports that a transaction of this message (a solders ``Message…``) would pay."""
        signatures = [Signature.default()] * message.header.num_required_signatures
        unsigned = VersionedTransaction.populate(message, signatures)
        result: Any = self._svm.simulate_transaction(unsigned)
        return int(result.meta().fee())


def _address(entry: tuple[Pubkey, Account]) -> bytes:
    return bytes(entry[0])


def _to_accounts(modifications: Mapping[str, AccountData]) -> dict[Pubkey, Account | None]:
    return {svm.to_pubkey(key): svm.to_account(data) for key, data in modifications.items()}
