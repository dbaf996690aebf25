"""A small bundle for the tests of the server: three ranges, skipped slots, two batches a block."""

from __future__ import annotations

from pathlib import Path

from backtest_sync.local import svm
from backtest_sync.local.bundle import BundleRange
from backtest_sync.local.bundle_writer import BundleWriter
from tests.local import worlds

#: Slots of the small bundle; those that are multiples of seven have no block.
FIRST, LAST = 1000, 1299
#: Where its ranges begin.
STARTS = (1000, 1100, 1200)


def produced(first: int = FIRST, last: int = LAST) -> list[int]:
    """The slots with a block."""
    return [slot for slot in range(first, last + 1) if slot % 7]


def write(path: Path) -> Path:
    """In each block ann pays bob a lamport a slot number, then bob pays ann one more."""
    ranges = [
        BundleRange(start, end - 1)
        for start, end in zip(STARTS, (*STARTS[1:], LAST + 1), strict=True)
    ]
    with BundleWriter(
        path, source="a test", first_slot=FIRST, last_slot=LAST, ranges=ranges
    ) as writer:
        for name in ("ann", "bob", "cid"):
            writer.add_account(worlds.where(name), svm.account_to_json(worlds.purse(10**12)))
        parent = FIRST - 1
        for slot in produced():
            entries = [
                worlds.entry(worlds.payment("ann", "bob", slot), None),
                worlds.entry(worlds.payment("bob", "ann", slot + 1), None),
            ]
            writer.add_block(slot, worlds.block(slot, entries, parent=parent))
            parent = slot
    return path
