"""The queue between a reader and its callers, without a socket."""

from __future__ import annotations

import gc
import threading

import pytest

from backtest_sync.inbox import End, Inbox
from backtest_sync.limits import Deadline
from tests.support.connections import SOON, in_thread, outcome, until

NOW, FOREVER = Deadline(0), Deadline(None)


def inbox(limit: int = 1 << 20) -> Inbox:
    return Inbox(limit, lambda: None)


def test_lists_come_out_as_they_went_in() -> None:
    box = inbox()
    box.put([b"a", b"b"], 2)
    box.put([b"c"], 1)
    assert box.take(NOW) == [b"a", b"b"]
    assert box.take(FOREVER) == [b"c"]
    assert box.take(NOW) == []
    assert box.queued == 0


def test_it_is_full_above_its_limit_and_has_room_below_half_of_it() -> None:
    rung: list[int] = []
    box = Inbox(1000, lambda: rung.append(box.queued))
    sizes = []
    while not box.full:
        box.put([b"x" * 100], 102)
        sizes.append(box.queued)
    assert sizes[-2] <= 1000 < sizes[-1]
    while box.full:
        assert rung == []
        box.take(NOW)
    assert rung == [box.queued]
    assert box.queued <= 500
    while box.take(NOW):
        pass
    assert (box.queued, len(rung)) == (0, 1)


def test_the_first_end_counts_and_what_came_before_it_is_given() -> None:
    box = inbox()
    box.put([b"a"], 1)
    box.finish(End(1012, "Restart"))
    box.finish(End(None, "later"))
    assert box.take(FOREVER) == [b"a"]
    assert box.take(FOREVER) == []
    assert box.end == End(1012, "Restart")


def test_after_this_side_ended_it_nothing_is_given() -> None:
    box = inbox()
    box.put([b"a"], 1)
    box.finish(End(1012, "Restart"))
    box.finish(End(1000, "closed", ours=True))
    box.put([b"b"], 1)
    assert box.take(FOREVER) == []
    assert box.end == End(1012, "Restart")


@pytest.mark.parametrize("change", ["put", "finish", "stop"])
def test_every_change_wakes_who_waits_for_it(change: str) -> None:
    box = inbox()
    stop = threading.Event()
    takers = [in_thread(lambda: box.take(FOREVER, stop.is_set)) for _ in range(3)]
    until(lambda: len(box._waiters) == 3)
    if change == "put":
        for n in range(3):
            box.put([b"%d" % n], 1)
        assert sorted(outcome(*t) for t in takers) == [[b"0"], [b"1"], [b"2"]]
    else:
        box.finish(End(None, "over")) if change == "finish" else stop.set()
        box.wake()
        assert [outcome(*t) for t in takers] == [[], [], []]
    assert not box._waiters


def test_who_gives_up_leaves_nothing_behind() -> None:
    box = inbox()
    assert box.take(Deadline(0.005)) == []
    assert not box._waiters

    def fail() -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        box.take(FOREVER, fail)
    assert not box._waiters


def test_no_wake_up_is_lost() -> None:
    """A message put between a taker's last look and its wait: any of thousands would hang for ever."""
    box, total = inbox(), 5000
    done = threading.Semaphore(0)

    def take() -> int:
        count = 0
        while chunk := box.take(FOREVER):
            count += len(chunk)
            done.release()
        return count

    takers = [in_thread(take) for _ in range(3)]
    for n in range(total):
        box.put([b"%d" % n], 1)
        assert done.acquire(timeout=SOON), f"message {n} was not taken"
    box.finish(End(None, "over"))
    assert sum(outcome(*t) for t in takers) == total


def test_a_finaliser_may_end_it_in_the_middle_of_anything() -> None:
    box = inbox()

    class Cycle:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            box.finish(End(None, "forgotten", ours=True))

    def collect() -> bool:
        Cycle()
        gc.collect()
        return False

    assert box.take(FOREVER, collect) == []
    assert box.end == End(None, "forgotten", ours=True)
