"""The blocks of an opened bundle: compressed on a spool, the ones in use parsed in memory."""

from __future__ import annotations

import tempfile
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import IO

from backtest_sync.local.blocks import Block, ReadAccount, parse_block
from backtest_sync.protocol import jsontext

#: Parsed blocks that are kept, counted in transactions; a transaction takes some 10 kB. The first half
#: of them stay for good: a bundle that fits needs no spool. The other half are those used last.
KEPT_TRANSACTIONS = 20_000
#: The spool stays in memory up to this size; beyond it, it is an anonymous file.
_SPOOL_BYTES = 64 * 2**20


class BlockStore:
    """Blocks by slot. ``read_table`` finds lookup tables, as in `parse_block`."""

    def __init__(self, read_table: ReadAccount, kept: int = KEPT_TRANSACTIONS) -> None:
        self._read_table = read_table
        self._room = self._capacity = kept // 2
        self._first: dict[int, Block] = {}
        self._recent: OrderedDict[int, Block] = OrderedDict()
        self._spool: IO[bytes] | None = None
        self._places: dict[int, tuple[int, int]] = {}
        self._slots: list[int] = []

    @property
    def slots(self) -> Sequence[int]:
        """The slots put in so far, in their order."""
        return self._slots

    def put(self, slot: int, value: object) -> None:
        """Adds the block of the next slot, a ``getBlock`` result; ValueError where it is none."""
        block = parse_block(slot, value, self._read_table)
        self._slots.append(slot)
        self._room -= len(block.transactions)
        if self._room >= 0:
            self._first[slot] = block
            return
        if self._spool is None:
            self._spool = tempfile.SpooledTemporaryFile(_SPOOL_BYTES)  # noqa: SIM115
        packed = zlib.compress(jsontext.dumps(value).encode(), 1)
        self._places[slot] = (self._spool.tell(), len(packed))
        self._spool.write(packed)

    def get(self, slot: int) -> Block:
        """The block of a slot that was put in; KeyError for any other."""
        if slot in self._first:
            return self._first[slot]
        if slot not in self._recent:
            self._recent[slot] = self._read_back(slot)
            held = sum(len(block.transactions) for block in self._recent.values())
            while held > self._capacity and len(self._recent) > 1:
                _, dropped = self._recent.popitem(last=False)
                held -= len(dropped.transactions)
        self._recent.move_to_end(slot)
        return self._recent[slot]

    def _read_back(self, slot: int) -> Block:
        offset, size = self._places[slot]
        if self._spool is None:
            raise KeyError(slot)
        self._spool.seek(offset)
        value = jsontext.loads(zlib.decompress(self._spool.read(size)))
        return parse_block(slot, value, self._read_table)

    def close(self) -> None:
        """Frees it all."""
        if self._spool is not None:
            self._spool.close()
        self._first.clear()
        self._recent.clear()
        self._places.clear()
