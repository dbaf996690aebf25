"""``jsonParsed`` accounts: what a node reads out of the data of well-known programs' accounts.

What is not known here falls back to base64, as a node does for programs unknown to it.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from backtest_sync.local.balances import mint_decimals, ui_amount
from backtest_sync.protocol.fields import b58encode

if TYPE_CHECKING:
    from solders.account import Account

TOKEN = "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA"  # noqa: S105 - a program's address
TOKEN_2022 = "TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb"  # noqa: S105 - a program's address
LOOKUP_TABLE = "AddressLookupTab1e1111111111111111111111111"
UPGRADEABLE_LOADER = "BPFLoaderUpgradeab1e11111111111111111111111"
TOKEN_PROGRAMS = {TOKEN: "spl-token", TOKEN_2022: "spl-token-2022"}

MINT_SIZE = 82
TOKEN_ACCOUNT_SIZE = 165
MULTISIG_SIZE = 355
#: Where Token-2022 says what an account with extensions is: 1 a mint, 2 a token account.
_TYPE_AT = TOKEN_ACCOUNT_SIZE
_IMMUTABLE_OWNER = 7
#: Size of a lookup table before its addresses.
_TABLE_HEADER = 56

#: Finds the account at an address; None where there is none.
Lookup = Callable[[str], "Account | None"]
Parsed = dict[str, Any]


def parse_account(account: Account, lookup: Lookup) -> Parsed | None:
    """The ``data`` of an account in jsonParsed form; None where it is not known.

    ``lookup`` finds a token account's mint.
    """
    owner = str(account.owner)
    data = account.data
    if owner in TOKEN_PROGRAMS:
        program, parsed = TOKEN_PROGRAMS[owner], _parse_token(data, lookup)
    elif owner == LOOKUP_TABLE:
        program, parsed = "address-lookup-table", _parse_lookup_table(data)
    elif owner == UPGRADEABLE_LOADER:
        program, parsed = "bpf-upgradeable-loader", _parse_loader(data)
    else:
        return None
    return None if parsed is None else {"program": program, "parsed": parsed, "space": len(data)}


# --- tokens


def token_kind(account: Account) -> str | None:
    """What an account of a token program is: ``mint``, ``account``, ``multisig``; else None."""
    return _token_kind(account.data) if str(account.owner) in TOKEN_PROGRAMS else None


def _token_kind(data: bytes) -> str | None:
    if len(data) == MINT_SIZE:
        return "mint" if data[45] == 1 else None
    if len(data) == MULTISIG_SIZE:
        return "multisig" if data[2] == 1 else None
    if len(data) < TOKEN_ACCOUNT_SIZE:
        return None
    if len(data) == TOKEN_ACCOUNT_SIZE or data[_TYPE_AT] == 2:
        return "account" if data[108] in (1, 2) else None
    return "mint" if data[_TYPE_AT] == 1 and data[45] == 1 else None


def token_amount(amount: int, decimals: int) -> Parsed:
    """An amount of base units as Solana shows it."""
    value = ui_amount(amount, decimals)
    if amount == 0:  # null only among a transaction's balances
        value["uiAmount"] = 0.0
    return value


def _parse_token(data: bytes, lookup: Lookup) -> Parsed | None:
    kind = _token_kind(data)
    if kind == "mint":
        return {"type": "mint", "info": _mint(data)}
    if kind == "multisig":
        return {"type": "multisig", "info": _multisig(data)}
    if kind == "account":
        decimals = mint_decimals(lookup(b58encode(data[:32])))
        if decimals is not None:
            return {"type": "account", "info": _token_account(data, decimals)}
    return None


def _optional_address(data: bytes, at: int) -> str | None:
    """An address after a four-byte flag."""
    return b58encode(data[at + 4 : at + 36]) if data[at] == 1 else None


def _mint(data: bytes) -> Parsed:
    return {
        "mintAuthority": _optional_address(data, 0),
        "supply": str(_u64(data, 36)),
        "decimals": data[44],
        "isInitialized": data[45] == 1,
        "freezeAuthority": _optional_address(data, 46),
        **_extensions(data),
    }


def _multisig(data: bytes) -> Parsed:
    return {
        "numRequiredSigners": data[0],
        "numValidSigners": data[1],
        "isInitialized": True,
        "signers": [b58encode(data[i : i + 32]) for i in range(3, 3 + 32 * data[1], 32)],
    }


def _token_account(data: bytes, decimals: int) -> Parsed:
    info: Parsed = {
        "mint": b58encode(data[:32]),
        "owner": b58encode(data[32:64]),
        "tokenAmount": token_amount(_u64(data, 64), decimals),
        "state": "initialized" if data[108] == 1 else "frozen",
        "isNative": data[109] == 1,
    }
    delegate = _optional_address(data, 72)
    if delegate is not None:
        info["delegate"] = delegate
        info["delegatedAmount"] = token_amount(_u64(data, 121), decimals)
    if data[109] == 1:
        info["rentExemptReserve"] = token_amount(_u64(data, 113), decimals)
    close_authority = _optional_address(data, 129)
    if close_authority is not None:
        info["closeAuthority"] = close_authority
    return {**info, **_extensions(data)}


def _extensions(data: bytes) -> Parsed:
    """The extensions of a Token-2022 account, by name; one not known here says so of itself."""
    found = []
    at = _TYPE_AT + 1
    while at + 4 <= len(data):
        kind, size = struct.unpack_from("<HH", data, at)
        if kind == 0:
            break
        name = "immutableOwner" if kind == _IMMUTABLE_OWNER else "unparseableExtension"
        found.append({"extension": name})
        at += 4 + size
    return {"extensions": found} if found else {}


# --- lookup tables and programs


def lookup_table(account: Account) -> Parsed | None:
    """The state of an address lookup table; None where the account is none."""
    parsed = _parse_lookup_table(account.data) if str(account.owner) == LOOKUP_TABLE else None
    return None if parsed is None else parsed.get("info")


def _parse_lookup_table(data: bytes) -> Parsed | None:
    if len(data) < _TABLE_HEADER or _u32(data, 0) > 1:
        return None
    if _u32(data, 0) == 0:
        return {"type": "uninitialized"}
    info: Parsed = {
        "deactivationSlot": str(_u64(data, 4)),
        "lastExtendedSlot": str(_u64(data, 12)),
        "lastExtendedSlotStartIndex": data[20],
    }
    if data[21] == 1:
        info["authority"] = b58encode(data[22:54])
    info["addresses"] = [
        b58encode(data[i : i + 32]) for i in range(_TABLE_HEADER, len(data) - 31, 32)
    ]
    return {"type": "lookupTable", "info": info}


def _parse_loader(data: bytes) -> Parsed | None:
    kind = _u32(data, 0) if len(data) >= 4 else None
    if kind == 0:
        return {"type": "uninitialized"}
    if kind == 1 and len(data) >= 37:
        authority = b58encode(data[5:37]) if data[4] == 1 else None
        info: Parsed = {"authority": authority, "data": _binary(data[37:])}
        return {"type": "buffer", "info": info}
    if kind == 2 and len(data) >= 36:
        return {"type": "program", "info": {"programData": b58encode(data[4:36])}}
    if kind == 3 and len(data) >= 45:
        authority = b58encode(data[13:45]) if data[12] == 1 else None
        info = {"slot": _u64(data, 4), "authority": authority, "data": _binary(data[45:])}
        return {"type": "programData", "info": info}
    return None


def _binary(data: bytes) -> list[str]:
    return [base64.b64encode(data).decode(), "base64"]


def _u32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def _u64(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 8], "little")
