"""Which bundles serve a requested range (protocol/http.md §1).

The ranges of a bundle file do not overlap within a kind, so there is one tiling at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backtest_sync.local.bundle import BundleRange


def split(
    ranges: Sequence[BundleRange], start_slot: int, end_slot: int, kind: str
) -> list[tuple[int, int]] | None:
    """The pieces of a parallel request, one a bundle, from the anchor at or before its start.

    The last piece is cut to ``end_slot``; ``None`` where the range is not covered.
    """
    ordered = sorted((r.start_slot, r.end_slot) for r in ranges if r.kind == kind)
    pieces: list[tuple[int, int]] = []
    for start, end in ordered:
        if not pieces:
            if start <= start_slot <= end:
                pieces.append((start, min(end, end_slot)))
        elif start == pieces[-1][1] + 1:
            pieces.append((start, min(end, end_slot)))
        if pieces and pieces[-1][1] == end_slot:
            return pieces
    return None


def covered_range(ranges: Sequence[BundleRange], start_slot: int, end_slot: int, kind: str) -> bool:
    """Whether a single session may run over the range: it starts on a bundle and is covered.

    Recorded account state must be of one recording.
    """
    pieces = split(ranges, start_slot, end_slot, kind)
    if not pieces or pieces[0][0] != start_slot:
        return False
    return kind == "blocks" or len(pieces) == 1
