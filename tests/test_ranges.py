"""Splitting a request over bundles, choosing among ranges, reading bounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, strategies as st

from backtest_sync.errors import InvalidParamsError
from backtest_sync.protocol import AvailableRange, SlotRange, structure, unstructure
from backtest_sync.ranges import filter_ranges, parse_range_bound, split_range
from tests.protocol.vectors import Case, by_function

#: Dates outside the years that ``datetime`` has, which the reference's own dates go beyond.
BEYOND_DATETIME = {"bound_33", "bound_36"}


def _ranges(case: Case) -> list[AvailableRange]:
    return [structure(AvailableRange, item) for item in case["ranges"]]


def _split_range(case: Case) -> None:
    for prefer in ("most", "fewest"):
        arguments = (_ranges(case), case["start"], case["end"], case["kind"], prefer)
        if case[prefer]["ok"]:
            assert split_range(*arguments) == [tuple(piece) for piece in case[prefer]["value"]]
            continue
        with pytest.raises(InvalidParamsError) as refused:
            split_range(*arguments)
        assert str(refused.value) == case[prefer]["error"]


def _filter_ranges(case: Case) -> None:
    ranges = _ranges(case)
    kept = filter_ranges(ranges, case["after"], case["before"])
    assert kept == [ranges[index] for index in case["kept"]]


def _parse_bound(case: Case) -> None:
    if not case["ok"] or case["name"] in BEYOND_DATETIME:
        with pytest.raises(InvalidParamsError) as refused:
            parse_range_bound(case["text"])
        assert str(refused.value) == case.get("error", str(refused.value))
        return
    bound = parse_range_bound(case["text"])
    if "slot" in case:
        assert bound == case["slot"]
        return
    assert isinstance(bound, datetime)
    since_epoch = bound - datetime(1970, 1, 1, tzinfo=timezone.utc)
    # a leap second, which datetime lacks, is the first of the next minute: so say the nanoseconds
    nanos = case["unix_nanos"] or case["unix_seconds"] * 10**9
    assert since_epoch.total_seconds() == int(nanos) / 10**9


def _slot_range(case: Case) -> None:
    made = SlotRange(case["start"], case["end"])
    assert case["ok"]
    assert str(made) == case["display"]
    assert made.end - made.start + 1 == case["len"]
    assert unstructure(made) == {"start": case["start"], "end": case["end"]}


def _from_count(case: Case) -> None:
    assert SlotRange.from_count(case["start"], case["count"]).end == case["end"]


@by_function(
    "split_range",
    {
        "split_range": _split_range,
        "filter_ranges": _filter_ranges,
        "parse_bound": _parse_bound,
        "slot_range": _slot_range,
        "slot_range_from_count": _from_count,
    },
)
def test_case(check: Callable[[Case], None], case: Case) -> None:
    check(case)


def _blocks(*pieces: tuple[int, int]) -> list[AvailableRange]:
    return [AvailableRange(start, max_bundle_end_slot=end) for start, end in pieces]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((1, 2, "transactions"), "kind"),
        ((1, 2, "blocks", "some"), "prefer"),
        ((-1, 2), "start_slot"),
        ((1, 2.0), "end_slot"),
    ],
)
def test_a_wrong_argument_is_named(arguments: Any, named: str) -> None:
    with pytest.raises(InvalidParamsError, match=named):
        split_range(_blocks((1, 2)), *arguments)


def test_many_bundles_are_split_quickly() -> None:
    """Each start is looked at once, however many ways there are: 2**5000 here."""
    pieces = [(n, n) for n in range(10_000)] + [(n, n + 1) for n in range(9_999)]
    assert len(split_range(_blocks(*pieces), 0, 9_999)) == 10_000
    assert len(split_range(_blocks(*pieces), 0, 9_999, prefer="fewest")) == 5_000


def _tilings(ends: dict[int, set[int]], start: int, last: int) -> Iterator[list[tuple[int, int]]]:
    for end in sorted(ends.get(start, ())):
        if end >= last:
            yield [(start, last)]
            return
        for rest in _tilings(ends, end + 1, last):
            yield [(start, end), *rest]


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4)), max_size=9),
    st.integers(0, 9),
    st.integers(0, 6),
)
def test_splits_like_trying_every_way(
    bundles: list[tuple[int, int]], start: int, length: int
) -> None:
    ends: dict[int, set[int]] = {}
    for first, more in bundles:
        ends.setdefault(first, set()).add(first + more)
    covering = [first for first in ends if first <= start <= max(ends[first])]
    ways = list(_tilings(ends, max(covering), start + length)) if covering else []
    ranges = _blocks(*((first, first + more) for first, more in bundles))
    for prefer in ("most", "fewest"):
        if not ways:
            with pytest.raises(InvalidParamsError):
                split_range(ranges, start, start + length, prefer=prefer)  # type: ignore[arg-type]
            continue
        counts = [len(way) for way in ways]
        best = max(counts) if prefer == "most" else min(counts)
        expected = min(way for way in ways if len(way) == best)
        assert split_range(ranges, start, start + length, prefer=prefer) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("bound", [5, "5", "+5"])
def test_bounds_as_numbers(bound: Any) -> None:
    ranges = _blocks((1, 4), (5, 9))
    assert filter_ranges(ranges, after=bound) == ranges[1:]
    assert filter_ranges(ranges, before=bound) == ranges[:1]


def test_bounds_as_datetimes() -> None:
    ranges = [AvailableRange(1, "2026-01-01T00:00:00Z"), AvailableRange(2, "2026-01-03T00:00:00Z")]
    assert filter_ranges(ranges, after=datetime(2026, 1, 2, tzinfo=timezone.utc)) == ranges[1:]
    assert filter_ranges(ranges, after=datetime(2026, 1, 3)) == ranges[1:]


@pytest.mark.parametrize("bound", [-1, 2**64, 1.5, True, object()])
def test_wrong_bounds_are_refused(bound: Any) -> None:
    with pytest.raises(InvalidParamsError, match="after"):
        filter_ranges([], after=bound)


def test_a_count_of_nothing_is_refused() -> None:
    with pytest.raises(InvalidParamsError, match="count"):
        SlotRange.from_count(5, 0)


def test_a_range_runs_forwards() -> None:
    with pytest.raises(InvalidParamsError, match=r"^invalid range: start_slot 6 > end_slot 5$"):
        SlotRange(6, 5)
    # what the service says is not checked, and can be counted all the same
    assert len(structure(SlotRange, {"start": 6, "end": 5})) == 0


def test_a_slot_may_have_any_number_of_zeros() -> None:
    assert parse_range_bound("+" + "0" * 10_000 + "7") == 7
    assert parse_range_bound("0" * 30) == 0
    with pytest.raises(InvalidParamsError, match="could not parse"):
        parse_range_bound("1" * 10_000)


@pytest.mark.parametrize("hours", [14, -14])
def test_a_moment_beyond_the_calendar_is_refused(hours: int) -> None:
    zone = timezone(timedelta(hours=hours))
    moment = (datetime.min if hours > 0 else datetime.max).replace(tzinfo=zone)
    with pytest.raises(InvalidParamsError, match=r"^after: "):
        filter_ranges([], after=moment)
