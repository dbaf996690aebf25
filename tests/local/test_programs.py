"""The demo's programs: assembled from their sources, exact in what they compute and refuse."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from solders.account import Account
from solders.instruction import AccountMeta, Instruction
from solders.litesvm import LiteSVM
from solders.pubkey import Pubkey

from backtest_sync.local import demo, programs
from backtest_sync.local.svm import error_json
from tests.local import worlds

SOURCES = Path(programs.__file__).parent
LOADER_2 = Pubkey.from_string("BPFLoader2111111111111111111111111111111111")
TOKEN = Pubkey.from_string(demo.TOKEN_PROGRAM)
POOL_PROGRAM = Pubkey.from_string(demo.POOL_PROGRAM)
POOL = Pubkey.from_string(demo.POOL)
U64 = 2**64 - 1

SBPF = os.environ.get("SBPF") or shutil.which("sbpf")


@pytest.mark.skipif(SBPF is None, reason="sbpf (0.3.3) is neither on PATH nor named by SBPF")
@pytest.mark.parametrize("name", programs.NAMES)
def test_the_source_gives_the_elf(name: str, tmp_path: Path) -> None:
    sources = tmp_path / "sources"
    sources.mkdir()
    for path in SOURCES.glob("*.s"):
        shutil.copy(path, sources)
    command = [str(SBPF), "build", "--arch", "v0", "--input", f"{name}.s", "--deploy-dir", "out"]
    subprocess.run(command, cwd=sources, check=True, capture_output=True, timeout=60)
    assert (sources / "out" / f"{name}.so").read_bytes() == programs.elf(name)


def test_the_two_versions_differ_in_the_fee_alone() -> None:
    one, two = (programs.elf(name) for name in ("pool_v1", "pool_v2"))
    assert len(one) == len(two)
    # the operand of one instruction: 10000 - fee, little endian
    (at,) = {i & ~1 for i, (a, b) in enumerate(zip(one, two, strict=True)) if a != b}
    for code, fee in ((one, demo.FEE_BPS[1]), (two, demo.FEE_BPS[2])):
        assert int.from_bytes(code[at : at + 4], "little") == 10_000 - fee


def test_another_name_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="there are pool_v1, pool_v2, maker"):
        programs.elf("pool_v3")


# --- the pool ----------------------------------------------------------------------------------


class Market:
    """The pool on a bare machine, with reserves as a test wants them."""

    def __init__(self, name: str = "pool_v1") -> None:
        self.machine = (
            LiteSVM()
            .with_mainnet_features()
            .with_sigverify(False)
            .with_blockhash_check(False)
            .with_transaction_history(0)
        )
        self.machine.set_account(POOL_PROGRAM, Account(10**9, programs.elf(name), LOADER_2, True))
        self.user = worlds.somebody("user")
        self.machine.set_account(self.user.pubkey(), worlds.purse(10**12))
        self.mints = [worlds.somebody(f"mint {i}").pubkey() for i in (0, 1)]
        for mint in self.mints:
            data = struct.pack("<I32sQB?36x", 1, bytes(32), U64, 6, True)
            self.machine.set_account(mint, Account(1_461_600, data, TOKEN))
        self.vaults = [worlds.somebody(f"vault {i}").pubkey() for i in (0, 1)]
        self.held = [worlds.somebody(f"held {i}").pubkey() for i in (0, 1)]
        _, self.bump = Pubkey.find_program_address([b"pool"], POOL_PROGRAM)
        self.fill(10**12, 10**12, 10**12, 10**12)
        self.set_state()

    def set_state(self, **changed: Any) -> None:
        fields = {"a": self.vaults[0], "b": self.vaults[1], "owner": POOL_PROGRAM, **changed}
        data = struct.pack("<32s32sQB7x", bytes(fields["a"]), bytes(fields["b"]), 0, self.bump)
        account = Account(10**9, data + changed.get("tail", b""), fields["owner"])
        self.machine.set_account(POOL, account)

    def fill(self, reserve_a: int, reserve_b: int, held_a: int, held_b: int) -> None:
        for address, mint, owner, amount in (
            (self.vaults[0], self.mints[0], POOL, reserve_a),
            (self.vaults[1], self.mints[1], POOL, reserve_b),
            (self.held[0], self.mints[0], self.user.pubkey(), held_a),
            (self.held[1], self.mints[1], self.user.pubkey(), held_b),
        ):
            data = struct.pack("<32s32sQ36xB56x", bytes(mint), bytes(owner), amount, 1)
            self.machine.set_account(address, Account(2_039_280, data, TOKEN))

    def amounts(self) -> list[int]:
        return [
            demo.token_amount(self.machine.get_account(address).data)  # type: ignore[union-attr]
            for address in (*self.vaults, *self.held)
        ]

    def swap(self, amount: int, least: int = 0, *, sells_a: bool = True, **changed: Any) -> Any:
        give, take = (0, 1) if sells_a else (1, 0)
        keys = [
            (POOL, False, True),
            (self.user.pubkey(), changed.get("signer", True), False),
            (self.held[give], False, True),
            (self.held[take], False, True),
            (changed.get("takes", self.vaults[give]), False, True),
            (changed.get("gives", self.vaults[take]), False, True),
            (changed.get("token", TOKEN), False, False),
        ]
        data = changed.get("data", demo.swap_data(amount, least))
        metas = [AccountMeta(*key) for key in keys][: changed.get("count", 7)]
        payer = worlds.somebody("payer")
        self.machine.set_account(payer.pubkey(), worlds.purse(10**9))
        transaction = worlds.signed(
            payer, Instruction(POOL_PROGRAM, data, metas), others=changed.get("others", [self.user])
        )
        return self.machine.send_transaction(transaction)


@pytest.fixture(scope="module")
def markets() -> dict[int, Market]:
    return {1: Market("pool_v1"), 2: Market("pool_v2")}


amounts = st.integers(1, 2**62) | st.integers(1, 10**6) | st.integers(10**9, 10**13)


@settings(max_examples=200, deadline=None)
@given(amounts, amounts, amounts, st.booleans(), st.sampled_from([1, 2]))
def test_the_pool_computes_what_the_formula_says(
    markets: dict[int, Market],
    reserve_in: int,
    reserve_out: int,
    amount: int,
    sells_a: bool,
    version: int,
) -> None:
    market = markets[version]
    reserves = (reserve_in, reserve_out) if sells_a else (reserve_out, reserve_in)
    market.fill(*reserves, 2**62, 2**62)
    result = market.swap(amount, sells_a=sells_a)
    net = amount * (10_000 - demo.FEE_BPS[version]) // 10_000
    out = demo.amount_out(amount, reserve_in, reserve_out, demo.FEE_BPS[version])
    if net == 0 or out == 0:
        assert error_json(result.err()) == {"InstructionError": [0, {"Custom": 6002}]}
        return
    if reserve_in + net >= 2**63:
        assert error_json(result.err()) == {"InstructionError": [0, {"Custom": 6004}]}
        return
    (logged,) = demo.pool_swaps(result.logs())
    assert logged == demo.Swap(sells_a, amount, out, reserve_in + amount, reserve_out - out)
    assert bytes(result.return_data().data) == out.to_bytes(8, "little")
    give, take = (0, 1) if sells_a else (1, 0)
    after = market.amounts()
    assert after[give] == reserve_in + amount
    assert after[take] == reserve_out - out
    assert after[2 + give] == 2**62 - amount
    assert after[2 + take] == 2**62 + out


def test_the_least_amount_is_honoured_to_the_unit(markets: dict[int, Market]) -> None:
    market = markets[1]
    out = demo.amount_out(10**9, 10**12, 10**12, 30)
    market.fill(10**12, 10**12, 10**12, 10**12)
    failed = market.swap(10**9, out + 1)
    assert error_json(failed.err()) == {"InstructionError": [0, {"Custom": 6001}]}
    assert "Program log: Error: less out than the least asked" in failed.meta().logs()
    assert market.amounts() == [10**12] * 4
    assert market.swap(10**9, out).return_data().data


def test_swaps_are_counted() -> None:
    market = Market()
    for _ in range(3):
        market.swap(10**6)
    market.swap(10**6, 2**63)
    state = market.machine.get_account(POOL)
    assert state is not None
    assert int.from_bytes(state.data[64:72], "little") == 3


def custom(code: int) -> Any:
    return {"InstructionError": [0, {"Custom": code}]}


OTHER = worlds.somebody("other").pubkey()


@pytest.mark.parametrize(
    ("changed", "err"),
    [
        ({"count": 6}, custom(6000)),
        ({"takes": OTHER}, custom(6000)),
        ({"gives": OTHER}, custom(6000)),
        ({"token": OTHER}, custom(6000)),
        ({"gives": worlds.somebody("vault 0").pubkey()}, custom(6000)),  # the same twice
        ({"data": b""}, custom(6003)),
        ({"data": demo.swap_data(1) + b"\0"}, custom(6003)),
        ({"data": b"\1" + demo.swap_data(1)[1:]}, custom(6003)),
        ({"data": demo.swap_data(0)}, custom(6002)),
        ({"data": demo.swap_data(1)}, custom(6002)),  # the fee takes it all
        ({"data": demo.swap_data(2**63)}, custom(1)),  # the token program: not enough
        ({"data": demo.swap_data(U64)}, custom(6004)),
        ({"signer": False, "others": []}, {"InstructionError": [0, "PrivilegeEscalation"]}),
    ],
)
def test_what_the_pool_refuses(changed: dict[str, Any], err: Any) -> None:
    market = Market()
    result = market.swap(10**6, **changed)
    assert error_json(result.err()) == err
    assert market.amounts() == [10**12] * 4


@pytest.mark.parametrize("changed", [{"owner": TOKEN}, {"tail": b"\0"}, {"a": OTHER}, {"b": OTHER}])
def test_a_state_that_is_not_the_pools_is_refused(changed: dict[str, Any]) -> None:
    market = Market()
    market.set_state(**changed)
    for sells_a in (True, False):
        result = market.swap(10**6, sells_a=sells_a)
        assert error_json(result.err()) == custom(6000)


def test_nobody_pays_with_somebody_elses_tokens() -> None:
    market = Market()
    account = market.machine.get_account(market.held[0])
    assert account is not None
    data = account.data[:32] + bytes(OTHER) + account.data[64:]
    market.machine.set_account(market.held[0], Account(account.lamports, data, TOKEN))
    assert error_json(market.swap(10**6).err()) == custom(4)  # owner does not match


# --- the maker ---------------------------------------------------------------------------------

MAKER_PROGRAM = worlds.somebody("maker program").pubkey()
PRICE = worlds.somebody("price").pubkey()


def maker_machine(**changed: Any) -> LiteSVM:
    machine = worlds.bare_machine({worlds.where("payer"): worlds.purse(10**9)})
    machine.set_account(MAKER_PROGRAM, Account(10**9, programs.elf("maker"), LOADER_2, True))
    data = bytes(worlds.somebody("maker").pubkey()) + bytes(40)
    account = Account(10**9, changed.get("data", data), changed.get("owner", MAKER_PROGRAM))
    machine.set_account(PRICE, account)
    return machine


def publish(machine: LiteSVM, data: bytes, signer: str | None = "maker", count: int = 2) -> Any:
    authority = worlds.somebody(signer or "maker")
    metas = [
        AccountMeta(PRICE, False, True),
        AccountMeta(authority.pubkey(), signer is not None, False),
    ]
    return machine.send_transaction(
        worlds.signed(
            worlds.somebody("payer"),
            Instruction(MAKER_PROGRAM, data, metas[:count]),
            others=[authority] if signer and count == 2 else [],
        )
    )


def test_a_published_price_is_in_the_account_with_slot_and_time() -> None:
    from solders.clock import Clock

    machine = maker_machine()
    for update in (1, 2):
        machine.set_clock(Clock(1000 + update, 0, 0, 0, 1_700_000_000 + update))
        result = publish(machine, struct.pack("<QQ", 150_000_000 + update, 75_000))
        account = machine.get_account(PRICE)
        assert account is not None
        assert demo.read_price(account.data) == demo.Price(
            150_000_000 + update, 75_000, 1000 + update, 1_700_000_000 + update, update
        )
        assert "Program log: Instruction: Publish" in result.logs()
        assert demo.pool_swaps(result.logs()) == []


@pytest.mark.parametrize(
    ("world", "sent", "code"),
    [
        ({}, {"count": 1}, 6100),
        ({"data": bytes(71)}, {}, 6100),
        ({"owner": TOKEN}, {}, 6100),
        ({}, {"signer": "somebody else"}, 6101),
        ({}, {"signer": None}, 6101),
        ({}, {"data": bytes(15)}, 6102),
    ],
)
def test_what_the_maker_refuses(world: Any, sent: Any, code: int) -> None:
    result = publish(maker_machine(**world), **{"data": bytes(16), **sent})
    assert error_json(result.err()) == custom(code)
