"""Writes bundles; what is in one is said in local/bundle.py."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from backtest_sync.local.bundle import FORMAT, VERSION, BundleRange, check_ranges
from backtest_sync.local.lines import LineWriter


class BundleWriter:
    """Writes a bundle as a stream; the file appears whole when the ``with`` block ends well.

    ``add_account`` for the start of the first range, then ``add_block`` for each block in order,
    ``add_account`` again for what changed before a later range's first block. BundleError where
    the file exists already or can't be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        source: str,
        first_slot: int,
        last_slot: int,
        ranges: Sequence[BundleRange] = (),
        overwrite: bool = False,
    ) -> None:
        ranges = ranges or [BundleRange(first_slot, last_slot)]
        check_ranges(ranges, first_slot, last_slot)
        self._blocks = 0
        self._lines = LineWriter(path, overwrite=overwrite)
        self._header = {
            "format": FORMAT,
            "version": VERSION,
            "source": source,
            "firstSlot": first_slot,
            "lastSlot": last_slot,
            "ranges": [r.to_json() for r in ranges],
        }

    def add_account(self, address: str, account: Any) -> None:
        """An account: its ``getAccountInfo`` value with base64 data; ``None``: there is none."""
        self._lines.write({"pubkey": address, "account": account})

    def add_block(self, slot: int, block: Any) -> None:
        """A block: its ``getBlock`` result with base64 transactions."""
        self._lines.write({"slot": slot, "block": block})
        self._blocks += 1

    def add_state(self, slot: int, accounts: Mapping[str, Any]) -> None:
        """What the block just added left changed, for a range of recorded account state."""
        listed = [{"pubkey": address, "account": value} for address, value in accounts.items()]
        self._lines.write({"slot": slot, "accounts": listed})

    def __enter__(self) -> BundleWriter:
        with self._forgetting():
            self._lines.write(self._header)
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if error is not None:
            self._lines.forget()
            return
        with self._forgetting():
            self._lines.write({"end": {"blocks": self._blocks}})
            self._lines.finish()

    @contextlib.contextmanager
    def _forgetting(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._lines.forget()
            raise
