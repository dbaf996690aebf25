"""The accounts that the demo bundle begins with, and the instructions that its people send."""

from __future__ import annotations

import hashlib
import struct

from solders.account import Account
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer
from solders.token.associated import get_associated_token_address

from backtest_sync.local import demo, programs
from backtest_sync.local.svm import (
    PROGRAM_DATA_TAG,
    PROGRAM_TAG,
    SYSTEM_PROGRAM,
    UPGRADEABLE_LOADER,
)

TOKEN = Pubkey.from_string(demo.TOKEN_PROGRAM)
ASSOCIATED_TOKEN = Pubkey.from_string("ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL")
MEMO = Pubkey.from_string("MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr")
LOOKUP_TABLES = Pubkey.from_string("AddressLookupTab1e1111111111111111111111111")
POOL_PROGRAM = Pubkey.from_string(demo.POOL_PROGRAM)
MAKER_PROGRAM = Pubkey.from_string(demo.MAKER_PROGRAM)
BASE_MINT = Pubkey.from_string(demo.BASE_MINT)
QUOTE_MINT = Pubkey.from_string(demo.QUOTE_MINT)

BASE_UNIT = 10**9
QUOTE_UNIT = 10**6
HOLDERS = 12
START_PRICE = 150 * QUOTE_UNIT

_RENT_PER_BYTE = 6960
_RENT_HEADER = 128
#: Slots before the first at which programs were deployed and the lookup table was filled.
_AGE = 50_000
_NEVER = 2**64 - 1


def keypair(name: str) -> Keypair:
    """The key of somebody in the demo: nobody's outside of it."""
    return Keypair.from_seed(hashlib.sha256(f"backtest-sync demo: {name}".encode()).digest())


def address(name: str) -> Pubkey:
    """The address of somebody or something in the demo."""
    return keypair(name).pubkey()


def holder(number: int) -> Keypair:
    """One of the people who pay each other in tokens and lamports."""
    return keypair(f"holder {number}")


def token_address(owner: Pubkey, mint: Pubkey) -> Pubkey:
    """The associated token account."""
    return get_associated_token_address(owner, mint)


def opening_accounts() -> dict[Pubkey, Account]:
    """Every account at the start, in a fixed order."""
    accounts: dict[Pubkey, Account] = {}
    issuer = address("issuer")
    pool = Pubkey.from_string(demo.POOL)
    for program, name in ((POOL_PROGRAM, "pool_v1"), (MAKER_PROGRAM, "maker")):
        accounts.update(_program(program, programs.elf(name)))
    accounts[BASE_MINT] = _mint(issuer, 40_000_000 * BASE_UNIT, 9)
    accounts[QUOTE_MINT] = _mint(issuer, 6_000_000_000 * QUOTE_UNIT, 6)
    accounts[pool] = _pool_state(pool)
    accounts[Pubkey.from_string(demo.PRICE_ACCOUNT)] = _price_account()
    accounts[Pubkey.from_string(demo.LOOKUP_TABLE)] = _lookup_table()
    people = [("alice", 4_000, 600_000), ("bob", 60_000, 9_000_000)]
    people += [(f"holder {i}", 100 + 10 * i, 20_000 + 1_000 * i) for i in range(HOLDERS)]
    for name, base, quote in people:
        owner = address(name)
        accounts[owner] = Account(50 * BASE_UNIT, b"", SYSTEM_PROGRAM)
        accounts.update(_token_accounts(owner, base * BASE_UNIT, quote * QUOTE_UNIT))
    accounts.update(_token_accounts(pool, 20_000 * BASE_UNIT, 3_000_000 * QUOTE_UNIT))
    accounts[address("maker")] = Account(20 * BASE_UNIT, b"", SYSTEM_PROGRAM)
    return accounts


def _owned(data: bytes, owner: Pubkey, *, executable: bool = False) -> Account:
    return Account(_RENT_PER_BYTE * (_RENT_HEADER + len(data)), data, owner, executable)


def _program(program: Pubkey, code: bytes) -> dict[Pubkey, Account]:
    data_address, _ = Pubkey.find_program_address([bytes(program)], UPGRADEABLE_LOADER)
    header = PROGRAM_DATA_TAG + struct.pack(
        "<Q?32s", demo.FIRST_SLOT - _AGE, True, bytes(address("upgrade authority"))
    )
    return {
        data_address: _owned(header + code, UPGRADEABLE_LOADER),
        program: _owned(PROGRAM_TAG + bytes(data_address), UPGRADEABLE_LOADER, executable=True),
    }


def _mint(authority: Pubkey, supply: int, decimals: int) -> Account:
    data = struct.pack("<I32sQB?36x", 1, bytes(authority), supply, decimals, True)
    return _owned(data, TOKEN)


def _token_accounts(owner: Pubkey, base: int, quote: int) -> dict[Pubkey, Account]:
    return {
        token_address(owner, mint): _owned(
            struct.pack("<32s32sQ36xB56x", bytes(mint), bytes(owner), amount, 1), TOKEN
        )
        for mint, amount in ((BASE_MINT, base), (QUOTE_MINT, quote))
    }


def _pool_state(pool: Pubkey) -> Account:
    vaults = [bytes(token_address(pool, mint)) for mint in (BASE_MINT, QUOTE_MINT)]
    _, bump = Pubkey.find_program_address([b"pool"], POOL_PROGRAM)
    return _owned(struct.pack("<32s32sQB7x", *vaults, 0, bump), POOL_PROGRAM)


def _price_account() -> Account:
    data = struct.pack("<32sQQQqQ", bytes(address("maker")), START_PRICE, 0, 0, 0, 0)
    return _owned(data, MAKER_PROGRAM)


def _lookup_table() -> Account:
    authority = bytes(address("upgrade authority"))
    header = struct.pack("<IQQB?32s2x", 1, _NEVER, demo.FIRST_SLOT - _AGE, 0, True, authority)
    return _owned(header + b"".join(map(bytes, table_entries())), LOOKUP_TABLES)


def table_entries() -> list[Pubkey]:
    """What the lookup table holds, in order."""
    listed = (demo.POOL, demo.BASE_VAULT, demo.QUOTE_VAULT, demo.TOKEN_PROGRAM)
    return [*map(Pubkey.from_string, listed), BASE_MINT, QUOTE_MINT]


# --- instructions ---------------------------------------------------------------------------


def pay_tokens(source: Pubkey, target: Pubkey, mint: Pubkey, amount: int) -> Instruction:
    """SPL Token TransferChecked between the associated accounts of two owners."""
    decimals = 9 if mint == BASE_MINT else 6
    accounts = [
        AccountMeta(token_address(source, mint), False, True),
        AccountMeta(mint, False, False),
        AccountMeta(token_address(target, mint), False, True),
        AccountMeta(source, True, False),
    ]
    return Instruction(TOKEN, struct.pack("<BQB", 12, amount, decimals), accounts)


def close_tokens(owner: Pubkey, mint: Pubkey) -> Instruction:
    """SPL Token CloseAccount; the rent goes to the owner."""
    accounts = [
        AccountMeta(token_address(owner, mint), False, True),
        AccountMeta(owner, False, True),
        AccountMeta(owner, True, False),
    ]
    return Instruction(TOKEN, b"\x09", accounts)


def open_tokens(payer: Pubkey, owner: Pubkey, mint: Pubkey) -> Instruction:
    """Associated Token Account CreateIdempotent."""
    accounts = [
        AccountMeta(payer, True, True),
        AccountMeta(token_address(owner, mint), False, True),
        AccountMeta(owner, False, False),
        AccountMeta(mint, False, False),
        AccountMeta(SYSTEM_PROGRAM, False, False),
        AccountMeta(TOKEN, False, False),
    ]
    return Instruction(ASSOCIATED_TOKEN, b"\x01", accounts)


def pay_lamports(source: Pubkey, target: Pubkey, lamports: int) -> Instruction:
    """System program transfer."""
    return transfer(TransferParams(from_pubkey=source, to_pubkey=target, lamports=lamports))


def note(signer: Pubkey, text: str) -> Instruction:
    """A memo."""
    return Instruction(MEMO, text.encode(), [AccountMeta(signer, True, False)])


def publish(price: int, confidence: int) -> Instruction:
    """The maker's price."""
    accounts = [
        AccountMeta(Pubkey.from_string(demo.PRICE_ACCOUNT), False, True),
        AccountMeta(address("maker"), True, False),
    ]
    return Instruction(MAKER_PROGRAM, struct.pack("<QQ", price, confidence), accounts)
