"""The blocks of an opened bundle: compressed on a spool, the ones in use parsed in memory."""

from __future__ import annotations

import tempfile
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import IO

from backtest_sync.local.blocks import Block, ReadAccount, parse_block
from backtest_sync.protocol import jsontext

#: Parsed blocks that are kept, counted in transactions; a transaction takes some 10 kB.
CACHED_TRANSACTIONS = 20_000
#: The spool stays in memory up to this size; beyond it, it is an anonymous file.
_SPOOL_BYTES = 64 * 2**20


class BlockStore:
    """Blocks by slot. ``read_table`` finds lookup tables, as in `parse_block`."""

    def __init__(self, read_table: ReadAccount, cached: int = CACHED_TRANSACTIONS) -> None:
        self._read_table = read_table
        self._capacity = cached
        self._spool: IO[bytes] = tempfile.SpooledTemporaryFile(_SPOOL_BYTES)  # noqa: SIM115
        self._places: dict[int, tuple[int, int]] = {}
        self._slots: list[int] = []
        self._parsed: OrderedDict[int, Block] = OrderedDict()
        self._held = 0

    @property
    def slots(self) -> Sequence[int]:
        """The slots put in so far, in their order."""
        return self._slots

    def put(self, slot: int, value: object) -> None:
        """Adds the block of the next slot, a ``getBlock`` result; ValueError where it is none."""
        block = parse_block(slot, value, self._read_table)
        packed = zlib.compress(jsontext.dumps(value).encode(), 1)
        self._places[slot] = (self._spool.tell(), len(packed))
        self._spool.write(packed)
        self._slots.append(slot)
        # The first ones are wanted first: later ones must not push them out.
        if self._held + len(block.transactions) <= self._capacity:
            self._hold(block)

    def get(self, slot: int) -> Block:
        """The block of a slot that was put in; KeyError for any other."""
        block = self._parsed.get(slot)
        if block is not None:
            self._parsed.move_to_end(slot)
            return block
        offset, size = self._places[slot]
        self._spool.seek(offset)
        value = jsontext.loads(zlib.decompress(self._spool.read(size)))
        block = parse_block(slot, value, self._read_table)
        self._hold(block)
        return block

    def _hold(self, block: Block) -> None:
        self._parsed[block.slot] = block
        self._held += len(block.transactions)
        while self._held > self._capacity and len(self._parsed) > 1:
            _, dropped = self._parsed.popitem(last=False)
            self._held -= len(dropped.transactions)

    def close(self) -> None:
        """Frees it all."""
        self._spool.close()
        self._parsed.clear()
        self._places.clear()
