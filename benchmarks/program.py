"""``modify_program`` with 10 MiB of ELF, without the time of its RPC calls, against base64 of the bytes."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator
from typing import Any

from backtest_sync.local import demo
from backtest_sync.programs import modify_program
from backtest_sync.protocol import Account
from benchmarks import common

SIZE = 10 * 2**20
ROUNDS = 9
ELF = (b"\x7fELF\x02\x01\x01" + bytes(range(256)) * (SIZE // 256))[: SIZE - 45]


class InstantRpc:
    """The three answers that `modify_program` asks for, at no cost."""

    def get_slot(self) -> int:
        return demo.FIRST_SLOT

    def get_account_info(self, address: str) -> Account:
        owner = "BPFLoaderUpgradeab1e11111111111111111111111"
        return Account(b"\x03" + bytes(44), 1, owner, False, 45)

    def get_minimum_balance_for_rent_exemption(self, size: int) -> int:
        return size


def seconds(work: Callable[[], object]) -> float:
    """How long ``work`` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure() -> Iterator[common.Figure]:
    """The figures of this page."""
    rpc: Any = InstantRpc()
    ours, plain = common.interleaved(
        ROUNDS,
        lambda: seconds(lambda: modify_program(rpc, demo.POOL_PROGRAM, ELF)),
        lambda: seconds(lambda: base64.b64encode(ELF)),
    )
    yield common.Figure("program: modify_program, 10 MiB", ours * 1e3, "ms")
    yield common.Figure("program: base64 of the same bytes", plain * 1e3, "ms")
    yield common.Figure("program: ratio", ours / plain, "x", "<= 4")


if __name__ == "__main__":
    common.main(measure)
