"""run a backtest on the local simulator and show what it did

The demo bundle holds a pool of two tokens that two people trade. It is replayed as it was, and once more with
the pool's program replaced by a version with a lower fee; what changed is the result.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from attrs import Factory, define

from backtest_sync.local import demo, programs
from backtest_sync.offline import connect_local
from backtest_sync.protocol import CreateSession, DiscoveryFilter

if TYPE_CHECKING:
    from backtest_sync.client import BacktestClient
    from backtest_sync.protocol import SessionSummary
    from backtest_sync.protocol.notifications import AccountDiffNotification, LogNotification
    from backtest_sync.session import BacktestSession

BASE, QUOTE = 10**9, 10**6
STEPS = 4
OWN_SWAP = 25 * BASE
#: The longest silence of the simulator, seconds.
PATIENCE = 60.0
CONSUMED = re.compile(rf"Program {demo.POOL_PROGRAM} consumed (\d+) of")


@define
class Run:
    """What was seen of one run: the pool's logs, its vaults' diffs and the server's summary."""

    outcomes: dict[str, bool] = Factory(dict)
    swaps: list[demo.Swap] = Factory(list)
    units: int = 0
    diffs: int = 0
    vaults: dict[str, int] = Factory(dict)
    summary: SessionSummary | None = None

    def take_logs(self, note: LogNotification) -> None:
        """One transaction of the pool."""
        passed = note.value.err is None
        self.outcomes[note.value.signature] = passed
        if passed:
            self.swaps += demo.pool_swaps(note.value.logs)
        self.units += sum(int(n) for line in note.value.logs for n in CONSUMED.findall(line))

    def take_diff(self, note: AccountDiffNotification) -> None:
        """A vault before and after one transaction."""
        self.diffs += 1
        if note.account is not None and note.post is not None:
            self.vaults[note.account] = demo.token_amount(note.post.data)

    def paid(self, *, base: bool) -> int:
        """What the pool paid out of one token, in its smallest unit."""
        return sum(swap.amount_out for swap in self.swaps if swap.sells_base is not base)

    @property
    def failures(self) -> int:
        """How many transactions of the pool failed."""
        return sum(not passed for passed in self.outcomes.values())


def configure(parser: argparse.ArgumentParser) -> None:
    """The demo takes no arguments."""


def run(_: argparse.Namespace) -> int:
    """Run both and compare."""
    started = time.monotonic()
    with connect_local(request_timeout=PATIENCE) as client:
        bundles = client.available_ranges()
        print("A pool of two tokens and two people who trade there, on a simulator of your own:")
        print(
            f"{len(bundles)} bundles of recorded blocks, slots {demo.FIRST_SLOT:,} to {demo.LAST_SLOT:,}"
        )
        baseline = play(client, look_around)
        lower_fee = play(client, replace_program)
    compare(baseline, lower_fee)
    print(f"\n✔ Done in {time.monotonic() - started:.1f} s")
    return 0


def play(client: BacktestClient, begin: Callable[[BacktestSession], None]) -> Run:
    """One session over the whole range: ``begin`` it, then let it run to its end, watched."""
    seen = Run()
    params = CreateSession(
        start_slot=demo.FIRST_SLOT,
        end_slot=demo.LAST_SLOT,
        discoveries=[DiscoveryFilter.program_executed(demo.POOL_PROGRAM)],
        send_summary=True,
    )
    with client.create_session(params) as session:
        session.ensure_ready()
        session.subscribe_program_logs(demo.POOL_PROGRAM, on_notification=seen.take_logs)
        vaults = [demo.BASE_VAULT, demo.QUOTE_VAULT]
        session.subscribe_account_diffs(vaults, on_notification=seen.take_diff)
        begin(session)
        seen.summary = session.run().summary
    print(
        f"  … to the end: {len(seen.outcomes):,} transactions of the pool seen by their logs, "
        f"{seen.diffs:,} changes of its vaults"
    )
    return seen


def look_around(session: BacktestSession) -> None:
    """Step through some slots, pause before a swap, look, and try one of our own."""
    print("\nThe recorded blocks, slot by slot")
    for _ in range(STEPS):
        slot = session.advance(1).last_slot
        base, quote = reserves(session)
        price = (quote / QUOTE) / (base / BASE)
        print(f"  slot {slot:,}: a base token is worth {price:.4f} quote tokens")
    pause = session.advance_to_discovery()
    if pause is None:
        return
    base, quote = reserves(session)
    print(f"  paused in slot {pause.paused.slot:,} before batch {pause.paused.batch_index}, a swap")
    print(f"    the pool holds    {base / BASE:>14,.4f} base  {quote / QUOTE:>16,.4f} quote")
    own = demo.swap_transaction(demo.ALICE, sells_base=True, amount_in=OWN_SWAP)
    tried = session.rpc.simulate_transaction(own)
    (swap,) = demo.pool_swaps(tried.logs)
    print(
        f"    it would pay for  {swap.amount_in / BASE:>14,.4f} base  {swap.amount_out / QUOTE:>16,.4f} quote"
        f"  (simulated; {tried.units_consumed:,} compute units)"
    )


def replace_program(session: BacktestSession) -> None:
    """Replace the pool's program before the first block runs."""
    before, after = (f"{demo.FEE_BPS[version] / 100:.2f} %" for version in (1, 2))
    print(f"\nThe same blocks with the pool's program replaced: a fee of {after}, not {before}")
    changed = session.modify_program(demo.POOL_PROGRAM, programs.elf("pool_v2"))
    session.continue_(1, modify_accounts=changed)


def reserves(session: BacktestSession) -> tuple[int, int]:
    """What the pool's vaults hold, in the tokens' smallest units."""
    rpc = session.rpc
    base, quote = (
        rpc.get_token_account_balance(vault) for vault in (demo.BASE_VAULT, demo.QUOTE_VAULT)
    )
    return base.amount, quote.amount


def compare(before: Run, after: Run) -> None:
    """The two runs side by side."""
    print(f"\n{'':32}{'baseline':>17}{'lower fee':>17}{'change':>11}")
    row("swaps", len(before.swaps), len(after.swaps))
    row("failed transactions", before.failures, after.failures)
    row("paid out, base tokens", before.paid(base=True), after.paid(base=True), BASE)
    row("paid out, quote tokens", before.paid(base=False), after.paid(base=False), QUOTE)
    row("compute units of the pool", before.units, after.units)
    for name, vault, unit in (("base", demo.BASE_VAULT, BASE), ("quote", demo.QUOTE_VAULT, QUOTE)):
        row(f"left in the pool, {name} tokens", before.vaults[vault], after.vaults[vault], unit)
    print("\nCompared with what was recorded, as the server counts it")
    print(f"  baseline   {verdict(before.summary)}")
    print(f"  lower fee  {verdict(after.summary)}")


def row(name: str, before: int, after: int, unit: int = 1) -> None:
    """A line of the table: counts as they are, amounts of tokens in whole tokens."""
    digits = 0 if unit == 1 else 4
    change = "=" if after == before else f"{(after - before) / before:+.3%}" if before else "new"
    print(f"{name:32}{before / unit:>17,.{digits}f}{after / unit:>17,.{digits}f}{change:>11}")


def verdict(summary: SessionSummary | None) -> str:
    """The server's summary in a line."""
    if summary is None:
        return "no summary"
    counts = {
        "as recorded": summary.correct_simulation,
        "with another outcome": summary.incorrect_simulation,
        "with errors": summary.execution_errors,
        "with other balances": summary.balance_diff,
        "with other logs": summary.log_diff,
    }
    found = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    return f"{summary.total_transactions:,} transactions: {found}"
