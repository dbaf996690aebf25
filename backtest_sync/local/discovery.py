"""Discoveries: a scan of the coming blocks for batches that match (protocol/control.md §4.8)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from backtest_sync.local.recorded import recorded_transaction
from backtest_sync.protocol import (
    DiscoveryBatch,
    DiscoveryFilter,
    DiscoveryKind,
    EncodedBinary,
)

if TYPE_CHECKING:
    from backtest_sync.local.blocks import Block, BlockTransaction

#: How many slots ahead of execution every match is announced.
LOOKAHEAD_SLOTS = 32


def matches(wanted: DiscoveryFilter, transaction: BlockTransaction) -> bool:
    """Whether a transaction matches a filter, as far as its record tells."""
    if transaction.programs.isdisjoint(wanted.programs):
        return False
    if wanted.kind is DiscoveryKind.PROGRAM_EXECUTED:
        return True
    if transaction.changes_token_balance:
        return False
    if not wanted.accounts or transaction.unresolved:
        return True
    return not transaction.written.isdisjoint(wanted.accounts)


def matching(
    filters: Sequence[DiscoveryFilter], batch: Sequence[BlockTransaction]
) -> tuple[list[DiscoveryFilter], list[BlockTransaction]]:
    """The filters that a batch matches, and its transactions that do."""
    found = [item for item in filters if any(matches(item, each) for each in batch)]
    if not found:
        return [], []
    return found, [each for each in batch if any(matches(item, each) for item in found)]


class DiscoveryScan:
    """Announces matching batches ahead of execution.

    Whenever the session waits, the next match after its position has been announced, however far
    ahead it is: a client that walks from match to match never has to guess.
    """

    def __init__(
        self,
        filters: Sequence[DiscoveryFilter],
        blocks: Iterator[Block],
        announce: Callable[[DiscoveryBatch], None],
    ) -> None:
        self._filters = tuple(filters)
        self._blocks = blocks
        self._announce = announce
        self._scanned = -1
        self._last: tuple[int, int] | None = None
        self._exhausted = not self._filters

    def is_behind(self, slot: int, batch_index: int) -> bool:
        """Whether nothing beyond the batch at this position was announced."""
        return self._last is None or self._last <= (slot, batch_index)

    def is_done_before(self, slot: int, batch_index: int) -> bool:
        """Whether there are filters, and nothing beyond this position matches any more."""
        return bool(self._filters) and self._exhausted and self.is_behind(slot, batch_index)

    def close(self) -> None:
        """Stops scanning for good."""
        self._exhausted = True
        self._blocks = iter(())

    async def look_ahead(self, slot: int, batch_index: int) -> None:
        """Scans until the matches near ``slot`` and the next one after it are announced."""
        while not self._exhausted and (
            self._scanned < slot + LOOKAHEAD_SLOTS or self.is_behind(slot, batch_index)
        ):
            block = next(self._blocks, None)
            if block is None:
                self._exhausted = True
                return
            self._scan(block)
            await asyncio.sleep(0)

    def _scan(self, block: Block) -> None:
        self._scanned = block.slot
        for index, batch in enumerate(block.batches):
            found, transactions = matching(self._filters, batch)
            if not found:
                continue
            self._last = (block.slot, index)
            self._announce(
                DiscoveryBatch(
                    slot=block.slot,
                    batch_index=index,
                    matched=tuple(found),
                    transactions=tuple(
                        EncodedBinary(recorded_transaction(t)) for t in transactions
                    ),
                    transaction_indices=tuple(each.index for each in transactions),
                )
            )
