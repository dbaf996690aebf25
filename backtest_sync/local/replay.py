"""A range being replayed: an engine moved through its blocks, and what each step publishes.

The current block's history runs first, then what the user sends, then the slot is left: only a
session's very first block waits with its history until the first continue, so that a client can
still pause inside it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from backtest_sync.local.actions import ActionRunner
from backtest_sync.local.engine import Engine
from backtest_sync.local.executed import Capture
from backtest_sync.local.feed import (
    AccountsWritten,
    Event,
    Feed,
    Rested,
    SlotClosed,
    SlotOpened,
    TransactionDone,
)
from backtest_sync.local.history import History
from backtest_sync.local.refusals import invalid_request, refusal
from backtest_sync.protocol import ErrorKind

if TYPE_CHECKING:
    from solders.account import Account
    from solders.transaction import VersionedTransaction

    from backtest_sync.local.actions import Action
    from backtest_sync.local.blocks import Block
    from backtest_sync.local.bundle import Bundle
    from backtest_sync.local.executed import AccountChange, Executed, Simulation
    from backtest_sync.protocol import AccountData, CreateBacktestSession


class Replay:
    """One session's chain and where it stands in it."""

    def __init__(
        self,
        params: CreateBacktestSession,
        bundle: Bundle,
        actions: Sequence[Action],
        on_failed_action: Callable[[str], None],
    ) -> None:
        self.params = params
        self.feed = Feed()
        self.actions = ActionRunner(actions, self, on_failed_action)
        self._for_summary = Capture.SUMMARY if params.send_summary else Capture.NONE
        self.history = History()
        self._bundle = bundle
        self._blocks: Iterator[Block] = bundle.blocks(params.start_slot, params.end_slot)
        self._next: Block | None = None
        self._engine: Engine | None = None
        self._history_ended = False
        self.is_started = False
        self.executed_slots = 0

    def start(self) -> None:
        """Makes the engine and opens the first block."""
        params = self.params
        first = next(self._blocks, None)
        if first is None:
            raise refusal(
                ErrorKind.NO_PRODUCED_BLOCKS_IN_RANGE,
                start_slot=params.start_slot,
                end_slot=params.end_slot,
            )
        self._engine = Engine(
            self._bundle,
            params.start_slot,
            extra_compute_units=params.extra_compute_units or 0,
            replay_account_state=params.replay_account_state,
        )
        self._open(first)
        self.is_started = True

    def release(self) -> None:
        """Frees all that it holds at once: not when the collector finds it."""
        self.feed.clear()
        self.history = History()
        self._engine = None
        self._next = None
        self._blocks = iter(())

    # --- where it stands -------------------------------------------------------------------------
    @property
    def engine(self) -> Engine:
        """The engine, from ``start`` to ``release``."""
        if self._engine is None:
            raise invalid_request("the session is not open")
        return self._engine

    @property
    def slot(self) -> int:
        """The current slot."""
        return self.engine.slot

    @property
    def block(self) -> Block:
        """The current block."""
        return self.engine.block

    @property
    def is_block_done(self) -> bool:
        """Whether the current block's history has run."""
        return self.engine.next_batch >= len(self.block.batches)

    @property
    def next_slot(self) -> int | None:
        """The next slot of the range with a block."""
        return None if self._next is None else self._next.slot

    def batches_in(self, slot: int) -> int | None:
        """How many batches the block of a slot has; ``None`` where there is no block."""
        slots = self._bundle.slots
        at = bisect_left(slots, slot)
        if at == len(slots) or slots[at] != slot:
            return None
        return len(self._bundle.block(slot).batches)

    def coming_blocks(self) -> Iterator[Block]:
        """The blocks of the range, from its start, for a scan of its own."""
        return self._bundle.blocks(self.params.start_slot, self.params.end_slot)

    # --- moving on -------------------------------------------------------------------------------
    def run_batch(self) -> None:
        """Executes the next batch of the current block."""
        index = self.engine.next_batch
        batch = self.block.batches[index]
        self.actions.before_batch(index, batch)
        self.commit(self.engine.run_batch(self.feed.capture | self._for_summary))
        self.actions.after_batch(index, batch)
        if self.params.replay_account_state and self.is_block_done:
            self._end_history()

    def close_block(self) -> None:
        """Leaves the current slot."""
        slot = self.slot
        self.actions.after_slot(slot)
        self._end_history()
        self.executed_slots += 1
        self.feed.publish([SlotClosed(slot)])

    def _end_history(self) -> None:
        # Replayed state appears with the block's end: before the session waits, not after.
        if not self._history_ended:
            self._history_ended = True
            self._publish_written(self.engine.close_slot())

    def open_next(self) -> None:
        """Begins the next block; ``next_slot`` must not be ``None``."""
        assert self._next is not None, "asked to go beyond the last block"  # noqa: S101
        self._open(self._next)

    def _open(self, block: Block) -> None:
        self._next = next(self._blocks, None)
        self._history_ended = False
        self.engine.open_slot(block)
        self.feed.publish([SlotOpened(block.slot, block.parent_slot)])
        self.actions.before_slot(block.slot)

    def rest(self) -> None:
        """Tells the streams that the session waits now."""
        self.feed.publish([Rested(self.slot)])

    # --- the user's doings -----------------------------------------------------------------------
    def send(self, transaction: VersionedTransaction) -> Executed:
        """Executes a user's transaction in the current slot and commits it."""
        executed = self.engine.send(transaction, self.feed.capture)
        self.commit([executed])
        return executed

    def commit(self, results: Sequence[Executed]) -> None:
        """Remembers and publishes what was executed."""
        for executed in results:
            self.history.add(executed)
        events: list[Event] = [TransactionDone(executed.slot, executed) for executed in results]
        if events:
            self.feed.publish(events)

    def write_accounts(self, modifications: Mapping[str, AccountData]) -> None:
        """Writes accounts into the replayed world, at once."""
        if not modifications:
            return
        self._publish_written(self.engine.set_accounts(modifications))

    def _publish_written(self, changes: tuple[AccountChange, ...]) -> None:
        if changes:
            self.feed.publish([AccountsWritten(self.slot, changes)])

    # --- reads -----------------------------------------------------------------------------------
    def account(self, address: str) -> Account | None:
        """An account as reads by address show it: with the scheduled overrides."""
        override = self.actions.published.get(address)
        return self.engine.account(address) if override is None else override.account

    def simulate(
        self,
        transactions: Sequence[VersionedTransaction],
        *,
        overrides: Mapping[str, AccountData] | None = None,
        accounts: Sequence[str] = (),
    ) -> Simulation:
        """Simulates on the current state, the scheduled overrides and ``overrides`` over it."""
        seen = {address: item.data for address, item in self.actions.published.items()}
        seen.update(overrides or {})
        return self.engine.simulate(transactions, overrides=seen, accounts=accounts)
