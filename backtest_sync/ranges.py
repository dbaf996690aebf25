"""Available ranges: choosing among them, and splitting a request over bundles (protocol/http.md §1)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timezone
from typing import Literal

from backtest_sync.errors import InvalidParamsError
from backtest_sync.protocol.fields import U64_MAX, shown, to_text, to_u64
from backtest_sync.protocol.rest import AvailableRange, BundleKind
from backtest_sync.protocol.times import parse_time, to_time

_U64_DIGITS = 20
_SLOT = re.compile(r"\+?\d+", re.ASCII)
_DATE = re.compile(r"\s*(\d{1,4}|\+\d+)-\s*(\d{1,2})-\s*(\d{1,2})", re.ASCII)

Piece = tuple[int, int]


def parse_range_bound(text: str) -> int | datetime:
    """A bound: a slot number, an RFC 3339 time, or a date, which is its midnight in UTC."""
    text = to_text(text, "text")
    # Python refuses to read thousands of digits, be they zeros
    digits = text.lstrip("+").lstrip("0") or "0"
    if _SLOT.fullmatch(text) and len(digits) <= _U64_DIGITS and int(digits) <= U64_MAX:
        return int(digits)
    try:
        return parse_time(text)
    except (ValueError, OverflowError):
        pass
    date = _DATE.fullmatch(text)
    try:
        if date:
            year, month, day = map(int, date.groups())
            return datetime(year, month, day, tzinfo=timezone.utc)
    except (ValueError, OverflowError):
        pass
    raise InvalidParamsError(
        f'could not parse "{text}" as a slot number, RFC 3339 timestamp, or YYYY-MM-DD date'
    )


def _bound(value: int | str | datetime, field: str) -> int | datetime:
    if isinstance(value, str):
        return parse_range_bound(value)
    return to_time(value, field) if isinstance(value, datetime) else to_u64(value, field)


def filter_ranges(
    ranges: Iterable[AvailableRange],
    after: int | str | datetime | None = None,
    before: int | str | datetime | None = None,
) -> list[AvailableRange]:
    """The ranges that start at ``after`` or later and end at ``before`` or earlier.

    A bound is a slot, a moment or a text (:func:`parse_range_bound`). A range that does not say
    what a bound asks for is kept.
    """
    kept = _checked(ranges)
    if after is not None:
        low = _bound(after, "after")
        kept = [r for r in kept if _at_least(r.bundle_start_slot, r.bundle_start_slot_utc, low)]
    if before is not None:
        high = _bound(before, "before")
        kept = [r for r in kept if _at_most(r.max_bundle_end_slot, r.max_bundle_end_slot_utc, high)]
    return kept


def _checked(ranges: Iterable[AvailableRange]) -> list[AvailableRange]:
    """``ranges`` as a list, when they are what they should be."""
    if not isinstance(ranges, Iterable):
        raise InvalidParamsError(f"ranges: expected AvailableRanges, got {shown(ranges)}")
    checked = list(ranges)
    for index, item in enumerate(checked):
        if not isinstance(item, AvailableRange):
            raise InvalidParamsError(f"ranges[{index}]: expected AvailableRange, got {shown(item)}")
    return checked


def _at_least(slot: int | None, time: str | None, bound: int | datetime) -> bool:
    if isinstance(bound, datetime):
        moment = _moment(time)
        return moment is None or moment >= bound
    return slot is None or slot >= bound


def _at_most(slot: int | None, time: str | None, bound: int | datetime) -> bool:
    if isinstance(bound, datetime):
        moment = _moment(time)
        return moment is None or moment <= bound
    return slot is None or slot <= bound


def _moment(text: str | None) -> datetime | None:
    try:
        return None if text is None else parse_time(text)
    except (ValueError, OverflowError):
        return None


def split_range(
    ranges: Iterable[AvailableRange],
    start_slot: int,
    end_slot: int,
    kind: BundleKind | str = BundleKind.BLOCKS,
    prefer: Literal["most", "fewest"] = "most",
) -> list[Piece]:
    """The pieces, without gaps, into which the server splits a request, as ``(start, end)``.

    The first begins at the latest bundle start that covers ``start_slot``, which may lie before it.
    Of all ways the one with the most pieces is taken (``prefer="fewest"``: the fewest), among equals
    that of the smallest ends. ``InvalidParamsError`` where there is none.
    """
    start_slot, end_slot = to_u64(start_slot, "start_slot"), to_u64(end_slot, "end_slot")
    if kind not in tuple(BundleKind):
        raise InvalidParamsError(f"kind: expected blocks or account_state, got {shown(kind)}")
    if prefer not in ("most", "fewest"):
        raise InvalidParamsError(f"prefer: expected 'most' or 'fewest', got {shown(prefer)}")
    if start_slot > end_slot:
        raise InvalidParamsError(f"invalid range: start_slot {start_slot} > end_slot {end_slot}")
    state = kind == BundleKind.ACCOUNT_STATE
    ends = _ends_by_start(_checked(ranges), BundleKind(kind))
    anchor = max((start for start in ends if start <= start_slot <= ends[start][-1]), default=None)
    if anchor is None:
        raise InvalidParamsError(
            f"start_slot {start_slot} is not covered by any available "
            f"{'account-state bundle' if state else 'bundle range'}"
        )
    pieces = _tile(ends, anchor, end_slot, max if prefer == "most" else min)
    if pieces is not None:
        return pieces
    gap = _first_gap(ends, anchor, end_slot)
    if gap is not None:
        raise InvalidParamsError(f"gap in coverage at slot {gap}")
    raise InvalidParamsError(
        f"no gap-free split of [{start_slot}, {end_slot}] aligns with the available "
        f"{'account-state bundles' if state else 'bundle ranges'}"
    )


def _ends_by_start(ranges: Iterable[AvailableRange], kind: BundleKind) -> dict[int, list[int]]:
    """The ends of the bundles of a kind by their start, ascending."""
    ends: dict[int, set[int]] = {}
    for item in ranges:
        end = item.max_bundle_end_slot
        if end is None or end < item.bundle_start_slot:
            continue
        if (item.kind or BundleKind.BLOCKS) is kind:
            ends.setdefault(item.bundle_start_slot, set()).add(end)
    return {start: sorted(ends[start]) for start in ends}


def _tile(
    ends: dict[int, list[int]],
    anchor: int,
    end_slot: int,
    best: Callable[[Iterable[int]], int],
) -> list[Piece] | None:
    """The best tiling from ``anchor`` to ``end_slot``, worked out from the back."""
    counts: dict[int, int] = {}  # by start: how many pieces the best way on from there has
    choice: dict[int, int] = {}
    for start in sorted((s for s in ends if anchor <= s <= end_slot), reverse=True):
        ways = {
            end: 1 + (0 if end == end_slot else counts[end + 1])
            for end in _cut(ends[start], end_slot)
            if end == end_slot or end + 1 in counts
        }
        if ways:
            counts[start] = best(ways.values())
            choice[start] = min(end for end, count in ways.items() if count == counts[start])
    if anchor not in choice:
        return None
    pieces = []
    start = anchor
    while True:
        end = choice[start]
        pieces.append((start, end))
        if end == end_slot:
            return pieces
        start = end + 1


def _cut(ends: Sequence[int], end_slot: int) -> list[int]:
    return [*(end for end in ends if end < end_slot), *([end_slot] if ends[-1] >= end_slot else [])]


def _first_gap(ends: dict[int, list[int]], anchor: int, end_slot: int) -> int | None:
    """The first slot from ``anchor`` to ``end_slot`` that no bundle covers."""
    covered = anchor - 1
    for start in sorted(s for s in ends if s >= anchor):
        if start > covered + 1:
            break
        covered = max(covered, ends[start][-1])
    return covered + 1 if covered < end_slot else None
