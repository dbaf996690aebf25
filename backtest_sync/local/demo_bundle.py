"""Makes the demo bundle: ``python -m backtest_sync.local.demo_bundle [file]``.

A chain of 192 slots is invented, signed and executed here, and what the machine says is recorded as
its blocks' ``meta``. Nothing is left to chance: the same lines come out each time.
"""

from __future__ import annotations

import base64
import hashlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from solders.address_lookup_table_account import AddressLookupTableAccount
from solders.compute_budget import set_compute_unit_limit, set_compute_unit_price
from solders.hash import Hash
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.message import Message, MessageV0
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from backtest_sync.local import demo, demo_world as world, svm
from backtest_sync.local.blocks import Block
from backtest_sync.local.bundle import (
    ACCOUNT_STATE,
    Bundle,
    BundleRange,
    demo_path,
)
from backtest_sync.local.bundle_writer import BundleWriter
from backtest_sync.local.engine import Engine
from backtest_sync.local.executed import Capture
from backtest_sync.local.store import BlockStore

if TYPE_CHECKING:
    import os

SOURCE = "made by backtest_sync.local.demo_bundle: invented, executed when made"

_FIRST_TIME = 1_767_225_600  # 2026-01-01T00:00:00Z
_FIRST_HEIGHT = 378_000_000
_SWAPPERS = {"alice": demo.ALICE, "bob": demo.BOB}


class Dice:
    """Numbers that only look random, the same on every machine and Python."""

    def __init__(self, seed: str) -> None:
        self._state = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "little")

    def below(self, bound: int) -> int:
        """A number from 0 to ``bound`` - 1."""
        # xorshift64*
        self._state ^= self._state >> 12
        self._state ^= (self._state << 25) & (2**64 - 1)
        self._state ^= self._state >> 27
        return ((self._state * 0x2545F4914F6CDD1D & (2**64 - 1)) >> 20) % bound

    def one_in(self, count: int) -> bool:
        """True once in ``count`` times."""
        return self.below(count) == 0


def _blockhash(slot: int) -> Hash:
    return Hash(hashlib.sha256(f"backtest-sync demo: slot {slot}".encode()).digest())


class _Chain:
    """The invented chain: who sends what in which slot, executed as it is invented."""

    def __init__(self) -> None:
        self._dice = Dice("backtest-sync demo")
        self._price = world.START_PRICE
        self._newcomers = 0
        self._leavers: list[tuple[Keypair, Keypair, Pubkey]] = []
        self.accounts = {str(key): value for key, value in world.opening_accounts().items()}
        first = demo.FIRST_SLOT
        empty = BlockStore(lambda _: None)
        bundle = Bundle(
            "demo",
            SOURCE,
            first,
            demo.LAST_SLOT,
            (BundleRange(first, demo.LAST_SLOT),),
            empty,
            {first: self.accounts},
            {},
        )
        self.engine = Engine(bundle, first)
        empty.close()
        self._latest = first - 1
        self._height = _FIRST_HEIGHT

    def blocks(self) -> Iterator[tuple[int, dict[str, Any], set[str]]]:
        """Each produced slot with its block and the addresses of the accounts that it changed."""
        for slot in range(demo.FIRST_SLOT, demo.LAST_SLOT + 1):
            if slot not in demo.RANGE_STARTS and self._dice.one_in(16):
                continue
            block = Block(
                slot=slot,
                parent_slot=self._latest,
                blockhash=str(_blockhash(slot)),
                previous_blockhash=str(_blockhash(self._latest)),
                block_time=_FIRST_TIME + (slot - demo.FIRST_SLOT) * 2 // 5,
                block_height=self._height,
            )
            self.engine.open_slot(block)
            changed: set[str] = set()
            entries = [self._execute(tx, changed) for tx in self._invent()]
            yield slot, _block_json(block, entries), changed
            self._latest = slot
            self._height += 1

    def _execute(self, transaction: VersionedTransaction, changed: set[str]) -> dict[str, Any]:
        executed = self.engine.send(transaction, Capture.ALL)
        changed.update(change.address for change in executed.changes)
        version = transaction.version()
        return {
            "transaction": [base64.b64encode(executed.raw).decode(), "base64"],
            "meta": executed.meta(),
            "version": version if isinstance(version, int) else "legacy",
        }

    # --- what people do ----------------------------------------------------------------------

    def _invent(self) -> Iterator[VersionedTransaction]:
        dice = self._dice
        yield self._publish()
        for _ in range(17):
            what = dice.below(20)
            if what < 3:
                yield self._swap("alice", at_random=True)
            elif what < 5:
                yield self._swap("bob", at_random=False)
            elif what < 13:
                yield self._pay_tokens()
            elif what < 18:
                yield self._pay_lamports()
            elif what < 19:
                yield self._note()
            else:
                yield self._come_or_go()

    def _publish(self) -> VersionedTransaction:
        self._price += self._price * (self._dice.below(81) - 40) // 10_000
        instructions = [
            set_compute_unit_limit(2_000),
            set_compute_unit_price(10_000 + self._dice.below(5) * 1_000),
            world.publish(self._price, self._price // 2_000),
        ]
        return self._sign(world.keypair("maker"), instructions)

    def _swap(self, name: str, *, at_random: bool) -> VersionedTransaction:
        """Alice trades as she likes; Bob moves the pool towards the maker's price."""
        dice = self._dice
        base, quote = self._reserve(demo.BASE_VAULT), self._reserve(demo.QUOTE_VAULT)
        if at_random:
            sells_base = dice.one_in(2)
            worth = (5 + dice.below(2_000)) * world.QUOTE_UNIT
        else:
            pool_price = quote * world.BASE_UNIT // base
            sells_base = pool_price > self._price
            worth = quote * abs(pool_price - self._price) // self._price // 2 + world.QUOTE_UNIT
        amount = worth * base // quote if sells_base else worth
        reserves = (base, quote) if sells_base else (quote, base)
        expected = demo.amount_out(amount, *reserves, demo.FEE_BPS[1])
        least = expected * 99 // 100
        if dice.one_in(12):
            least = expected * 101 // 100  # hopes for too much: fails with 6001
        elif dice.one_in(30):
            amount *= 10**6  # more than there is: fails in the token program
        swap = demo.swap_instruction(
            _SWAPPERS[name], sells_base=sells_base, amount_in=amount, least_out=least
        )
        budget = [set_compute_unit_limit(12_000), set_compute_unit_price(1_000)]
        instructions = [*budget, swap] if dice.below(3) else [swap]
        if dice.one_in(10):
            instructions.append(world.note(world.address(name), f"swap {dice.below(1000)}"))
        return self._sign(world.keypair(name), instructions, by_table=at_random)

    def _reserve(self, vault: str) -> int:
        account = self.engine.account(vault)
        assert account is not None  # noqa: S101  (the pool's vaults are never closed)
        return demo.token_amount(account.data)

    def _pay_tokens(self) -> VersionedTransaction:
        dice = self._dice
        source, target = self._two_holders()
        mint, unit = (
            (world.QUOTE_MINT, world.QUOTE_UNIT)
            if dice.below(3)
            else (world.BASE_MINT, world.BASE_UNIT)
        )
        amount = (1 + dice.below(500)) * unit // 100
        if dice.one_in(25):
            amount *= 10**8  # more than there is
        instructions = [world.pay_tokens(source.pubkey(), target.pubkey(), mint, amount)]
        if dice.one_in(4):
            instructions.insert(0, set_compute_unit_limit(5_000))
        return self._sign(source, instructions)

    def _pay_lamports(self) -> VersionedTransaction:
        source, target = self._two_holders()
        lamports = (1 + self._dice.below(900)) * 10_000
        if self._dice.one_in(25):
            lamports *= 10**6  # more than there is
        return self._sign(source, [world.pay_lamports(source.pubkey(), target.pubkey(), lamports)])

    def _note(self) -> VersionedTransaction:
        who, _ = self._two_holders()
        return self._sign(who, [world.note(who.pubkey(), f"hello {self._dice.below(10_000)}")])

    def _come_or_go(self) -> VersionedTransaction:
        """Somebody new is given a token account with something in it, or empties and closes one."""
        payer, _ = self._two_holders()
        if self._leavers and self._dice.one_in(3):
            leaver, back_to, mint = self._leavers.pop(0)
            amount = self._reserve(str(world.token_address(leaver.pubkey(), mint)))
            instructions = [
                world.pay_tokens(leaver.pubkey(), back_to.pubkey(), mint, amount),
                world.close_tokens(leaver.pubkey(), mint),
            ]
            return self._sign(payer, instructions, leaver)
        newcomer = world.keypair(f"newcomer {self._newcomers}")
        self._newcomers += 1
        mint = world.QUOTE_MINT
        self._leavers.append((newcomer, payer, mint))
        instructions = [
            world.open_tokens(payer.pubkey(), newcomer.pubkey(), mint),
            world.pay_tokens(payer.pubkey(), newcomer.pubkey(), mint, 5 * world.QUOTE_UNIT),
        ]
        return self._sign(payer, instructions)

    def _two_holders(self) -> tuple[Keypair, Keypair]:
        first = self._dice.below(world.HOLDERS)
        second = (first + 1 + self._dice.below(world.HOLDERS - 1)) % world.HOLDERS
        return world.holder(first), world.holder(second)

    def _sign(
        self,
        payer: Keypair,
        instructions: list[Instruction],
        *signers: Keypair,
        by_table: bool = False,
    ) -> VersionedTransaction:
        recent = _blockhash(self._latest)
        if by_table:
            table = AddressLookupTableAccount(
                Pubkey.from_string(demo.LOOKUP_TABLE), world.table_entries()
            )
            message: Any = MessageV0.try_compile(payer.pubkey(), instructions, [table], recent)
        else:
            message = Message.new_with_blockhash(instructions, payer.pubkey(), recent)
        return VersionedTransaction(message, [payer, *signers])


def _block_json(block: Block, entries: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "blockHeight": block.block_height,
        "blockTime": block.block_time,
        "blockhash": block.blockhash,
        "parentSlot": block.parent_slot,
        "previousBlockhash": block.previous_blockhash,
        "transactions": entries,
    }


def write_demo_bundle(path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Makes the demo bundle and writes it to ``path``."""
    chain = _Chain()
    ends = [*(start - 1 for start in demo.RANGE_STARTS[1:]), demo.LAST_SLOT]
    ranges = [BundleRange(s, e) for s, e in zip(demo.RANGE_STARTS, ends, strict=True)]
    recorded = BundleRange(ranges[-1].start_slot, ranges[-1].end_slot, ACCOUNT_STATE)
    with BundleWriter(
        path,
        source=SOURCE,
        first_slot=demo.FIRST_SLOT,
        last_slot=demo.LAST_SLOT,
        ranges=[*ranges, recorded],
        overwrite=overwrite,
    ) as writer:
        for address, account in chain.accounts.items():
            writer.add_account(address, svm.account_to_json(account))
        since_start: dict[str, Any] = {}
        for slot, block, changed in chain.blocks():
            # The chain has already gone past this slot's end: so has ``since_start`` not.
            if slot in demo.RANGE_STARTS:
                for address, value in sorted(since_start.items()):
                    writer.add_account(address, value)
                since_start.clear()
            after = {address: _state(chain.engine, address) for address in sorted(changed)}
            since_start.update(after)
            writer.add_block(slot, block)
            if slot >= recorded.start_slot:
                writer.add_state(slot, after)


def _state(engine: Engine, address: str) -> dict[str, Any] | None:
    account = engine.account(address)
    return None if account is None else svm.account_to_json(account)


if __name__ == "__main__":
    write_demo_bundle(sys.argv[1] if len(sys.argv) > 1 else demo_path(), overwrite=True)
