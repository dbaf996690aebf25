"""``backtest-sync demo``: what it prints is what the recorded swaps and the pool's formula give."""

from __future__ import annotations

import re

import pytest

from backtest_sync import cli
from backtest_sync.cli.demo import BASE, OWN_SWAP, QUOTE, row, verdict
from backtest_sync.local import demo
from backtest_sync.local.bundle import Bundle
from backtest_sync.protocol import SessionSummary


class Pool:
    """The pool as arithmetic: reserves, and what it paid."""

    def __init__(self, fee_bps: int) -> None:
        self.fee_bps = fee_bps
        self.base, self.quote = 20_000 * BASE, 3_000_000 * QUOTE
        self.paid_base = self.paid_quote = 0

    def swap(self, sells_base: bool, amount_in: int) -> int:
        if sells_base:
            out = demo.amount_out(amount_in, self.base, self.quote, self.fee_bps)
            self.base, self.quote, self.paid_quote = (
                self.base + amount_in,
                self.quote - out,
                self.paid_quote + out,
            )
        else:
            out = demo.amount_out(amount_in, self.quote, self.base, self.fee_bps)
            self.base, self.quote, self.paid_base = (
                self.base - out,
                self.quote + amount_in,
                self.paid_base + out,
            )
        return out


@pytest.fixture(scope="module")
def recorded() -> list[tuple[int, demo.Swap]]:
    """Slot and swap of every swap in the bundle, as it was recorded."""
    with Bundle.open("demo") as bundle:
        return [
            (block.slot, swap)
            for block in bundle.blocks(bundle.first_slot, bundle.last_slot)
            for entry in block.transactions
            if entry.meta is not None and entry.meta["err"] is None
            for swap in demo.pool_swaps(entry.meta["logMessages"])
        ]


@pytest.fixture(scope="module")
def failures() -> int:
    """How many recorded transactions of the pool failed."""
    with Bundle.open("demo") as bundle:
        return sum(
            entry.meta is not None
            and entry.meta["err"] is not None
            and demo.POOL_PROGRAM in entry.key_set
            for block in bundle.blocks(bundle.first_slot, bundle.last_slot)
            for entry in block.transactions
        )


def test_the_demo(
    recorded: list[tuple[int, demo.Swap]], failures: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["demo"]) == 0
    out, err = capsys.readouterr()
    assert err == ""

    baseline, lower_fee = Pool(demo.FEE_BPS[1]), Pool(demo.FEE_BPS[2])
    for _, swap in recorded:
        assert baseline.swap(swap.sells_base, swap.amount_in) == swap.amount_out
        lower_fee.swap(swap.sells_base, swap.amount_in)

    table = {
        line[:32].strip(): line[32:].split()
        for line in out.splitlines()
        if re.match(r"\S.{31} +[\d,.]+ +[\d,.]+ +(=|[+-])", line)
    }
    count = len(recorded)
    assert table["swaps"] == [f"{count:,}", f"{count:,}", "="]
    assert table["failed transactions"] == [f"{failures:,}", f"{failures:,}", "="]
    for name, before, after, unit in (
        ("paid out, base tokens", baseline.paid_base, lower_fee.paid_base, BASE),
        ("paid out, quote tokens", baseline.paid_quote, lower_fee.paid_quote, QUOTE),
        ("left in the pool, base tokens", baseline.base, lower_fee.base, BASE),
        ("left in the pool, quote tokens", baseline.quote, lower_fee.quote, QUOTE),
    ):
        change = f"{(after - before) / before:+.3%}"
        assert table[name] == [f"{before / unit:,.4f}", f"{after / unit:,.4f}", change]
    assert "compute units of the pool" in table

    (paused,) = re.findall(r"paused in slot ([\d,]+) before batch 0", out)
    early = Pool(demo.FEE_BPS[1])
    for slot, swap in recorded:
        if slot < int(paused.replace(",", "")):
            early.swap(swap.sells_base, swap.amount_in)
    assert f"{early.base / BASE:,.4f} base" in out
    own = early.swap(True, OWN_SWAP)
    assert f"{OWN_SWAP / BASE:,.4f} base" in out
    assert f"{own / QUOTE:,.4f} quote" in out


def test_rows_show_a_change_only_where_there_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    row("same", 7, 7)
    row("more", 1_000, 1_010)
    row("tokens", 2 * BASE, BASE, BASE)
    row("from nothing", 0, 3)
    assert [line.split()[-3:] for line in capsys.readouterr().out.splitlines()] == [
        ["7", "7", "="],
        ["1,000", "1,010", "+1.000%"],
        ["2.0000", "1.0000", "-50.000%"],
        ["0", "3", "new"],
    ]


def test_the_verdict_names_what_there_is() -> None:
    summary = SessionSummary(
        correct_simulation=1_500,
        incorrect_simulation=0,
        execution_errors=2,
        balance_diff=0,
        log_diff=1,
    )
    assert (
        verdict(summary)
        == "1,503 transactions: 1,500 as recorded, 2 with errors, 1 with other logs"
    )
    assert verdict(None) == "no summary"
