"""The sysvars of a replay: what programs and scripts read about slot, time and blockhashes.

What a block does not tell is stood in for: SlotHashes holds blockhashes where a validator has bank
hashes; the epoch's start time is reckoned from the block's own at 0.4 s a slot. LiteSVM keeps the
blockhash that durable nonces take to itself: a nonce advances to another value than it did on chain.
"""

from __future__ import annotations

import struct
from collections import deque
from itertools import chain
from typing import TYPE_CHECKING

from solders.account import Account
from solders.clock import Clock
from solders.epoch_schedule import EpochSchedule
from solders.hash import Hash
from solders.pubkey import Pubkey

if TYPE_CHECKING:
    from solders.litesvm import LiteSVM

    from backtest_sync.local.blocks import Block

_OWNER = Pubkey.from_string("Sysvar1111111111111111111111111111111111111")
_SLOT_HASHES = Pubkey.from_string("SysvarS1otHashes111111111111111111111111111")
_RECENT_BLOCKHASHES = Pubkey.from_string("SysvarRecentB1ockHashes11111111111111111111")
_MAX_SLOT_HASHES = 512
_MAX_RECENT_BLOCKHASHES = 150
_LAMPORTS_PER_SIGNATURE = 5000
_SECONDS_PER_SLOT = 0.4


class Sysvars:
    """Writes the sysvars of one machine, slot after slot."""

    def __init__(self, svm: LiteSVM) -> None:
        self._svm = svm
        self._schedule = EpochSchedule.without_warmup()  # mainnet's
        self._slot_hashes: deque[bytes] = deque(maxlen=_MAX_SLOT_HASHES)
        self._blockhashes: deque[bytes] = deque(maxlen=_MAX_RECENT_BLOCKHASHES)
        self._history = svm.get_slot_history()
        self._time = 0
        svm.set_epoch_schedule(self._schedule)

    def open_slot(self, block: Block) -> None:
        """Shows the slot of ``block``, on top of its parent."""
        previous = bytes(Hash.from_string(block.previous_blockhash))
        self._slot_hashes.appendleft(struct.pack("<Q32s", block.parent_slot, previous))
        self._blockhashes.appendleft(struct.pack("<32sQ", previous, _LAMPORTS_PER_SIGNATURE))
        self._history.add(block.parent_slot)
        self._svm.set_slot_history(self._history)
        self._write(_SLOT_HASHES, self._slot_hashes)
        self._write(_RECENT_BLOCKHASHES, self._blockhashes)
        if block.block_time is not None:
            self._time = block.block_time
        epoch, slot_index = self._schedule.get_epoch_and_slot_index(block.slot)
        self._svm.set_clock(
            Clock(
                slot=block.slot,
                epoch_start_timestamp=max(0, self._time - int(slot_index * _SECONDS_PER_SLOT)),
                epoch=epoch,
                leader_schedule_epoch=self._schedule.get_leader_schedule_epoch(block.slot),
                unix_timestamp=self._time,
            )
        )

    def _write(self, address: Pubkey, entries: deque[bytes]) -> None:
        data = b"".join(chain((struct.pack("<Q", len(entries)),), entries))
        self._svm.set_account(address, Account(1, data, _OWNER))
