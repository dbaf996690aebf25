"""``jsonParsed`` instructions: those of the system, token, associated-token and memo programs.

Any other is shown with its accounts by name and its data as they are, as a node does for programs
unknown to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import frozen

from backtest_sync.local.endpoint.parsed import TOKEN_PROGRAMS, token_amount
from backtest_sync.protocol.fields import b58encode

SYSTEM = "11111111111111111111111111111111"
ASSOCIATED_TOKEN = "ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL"  # noqa: S105 - an address
MEMOS = frozenset(
    {
        "Memo1UhkJRfHyvLMcVucJwxXeuD728EqVDDwQDxFMNo",
        "MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr",
    }
)

#: Reads the fields of an instruction from its data, past the tag.
Reader = Callable[[bytes], dict[str, Any]]


@frozen
class _Form:
    """One instruction of a program: its name, its accounts' names in order, how its data reads.

    ``authority``: the account that a multisig may stand in for, shown as ``multisig…`` with its
    ``signers`` where more accounts follow.
    """

    type: str
    accounts: tuple[str, ...]
    fields: Reader = lambda _: {}
    authority: str | None = None


def parse_instruction(
    program_index: int,
    account_indexes: Sequence[int],
    data: bytes,
    stack_height: int | None,
    keys: Sequence[str],
) -> dict[str, Any]:
    """A compiled instruction in jsonParsed form."""
    program = keys[program_index]
    accounts = [keys[i] for i in account_indexes]
    try:
        found = _parse(program, accounts, data)
    except (ValueError, IndexError, KeyError, UnicodeDecodeError):
        found = None  # not what the program takes: shown as it is
    if found is None:
        return {
            "programId": program,
            "accounts": accounts,
            "data": b58encode(data),
            "stackHeight": stack_height,
        }
    name, parsed = found
    return {
        "program": name,
        "programId": program,
        "parsed": parsed,
        "stackHeight": stack_height,
    }


def _parse(program: str, accounts: list[str], data: bytes) -> tuple[str, Any] | None:
    if program in MEMOS:
        return "spl-memo", data.decode()
    if program == SYSTEM:
        return "system", _apply(_SYSTEM_FORMS[_number(data, 0, 4)], accounts, data[4:])
    if program in TOKEN_PROGRAMS:
        return TOKEN_PROGRAMS[program], _apply(_TOKEN_FORMS[data[0]], accounts, data[1:])
    if program == ASSOCIATED_TOKEN:
        form = _ASSOCIATED_FORMS[data[0] if data else 0]
        return "spl-associated-token-account", _apply(form, accounts, b"")
    return None


def _apply(form: _Form, accounts: list[str], data: bytes) -> dict[str, Any]:
    info: dict[str, Any] = {name: accounts[i] for i, name in enumerate(form.accounts)}
    info.update(form.fields(data))
    if form.authority is not None:
        at = len(form.accounts)
        signers = accounts[at + 1 :]
        if signers:
            name = form.authority
            info[f"multisig{name[0].upper()}{name[1:]}"] = accounts[at]
            info["signers"] = signers
        else:
            info[form.authority] = accounts[at]
    return {"type": form.type, "info": info}


# --- data


def _number(data: bytes, at: int, size: int) -> int:
    if at + size > len(data):
        raise ValueError("instruction data too short")
    return int.from_bytes(data[at : at + size], "little")


def _address(data: bytes, at: int) -> str:
    if at + 32 > len(data):
        raise ValueError("instruction data too short")
    return b58encode(data[at : at + 32])


def _lamports(data: bytes) -> dict[str, Any]:
    return {"lamports": _number(data, 0, 8)}


def _space(data: bytes) -> dict[str, Any]:
    return {"space": _number(data, 0, 8)}


def _owner(data: bytes) -> dict[str, Any]:
    return {"owner": _address(data, 0)}


def _create(data: bytes) -> dict[str, Any]:
    return {
        "lamports": _number(data, 0, 8),
        "space": _number(data, 8, 8),
        "owner": _address(data, 16),
    }


def _amount(data: bytes) -> dict[str, Any]:
    return {"amount": str(_number(data, 0, 8))}


def _checked_amount(data: bytes) -> dict[str, Any]:
    return {"tokenAmount": token_amount(_number(data, 0, 8), data[8])}


def _mint(data: bytes) -> dict[str, Any]:
    info = {"decimals": data[0], "mintAuthority": _address(data, 1)}
    if len(data) > 33 and data[33] == 1:
        info["freezeAuthority"] = _address(data, 34)
    return info


_SYSTEM_FORMS = {
    0: _Form("createAccount", ("source", "newAccount"), _create),
    1: _Form("assign", ("account",), _owner),
    2: _Form("transfer", ("source", "destination"), _lamports),
    4: _Form("advanceNonce", ("nonceAccount", "recentBlockhashesSysvar", "nonceAuthority")),
    8: _Form("allocate", ("account",), _space),
}

_TOKEN_FORMS = {
    0: _Form("initializeMint", ("mint", "rentSysvar"), _mint),
    1: _Form("initializeAccount", ("account", "mint", "owner", "rentSysvar")),
    3: _Form("transfer", ("source", "destination"), _amount, "authority"),
    4: _Form("approve", ("source", "delegate"), _amount, "owner"),
    5: _Form("revoke", ("source",), authority="owner"),
    7: _Form("mintTo", ("mint", "account"), _amount, "mintAuthority"),
    8: _Form("burn", ("account", "mint"), _amount, "authority"),
    9: _Form("closeAccount", ("account", "destination"), authority="owner"),
    10: _Form("freezeAccount", ("account", "mint"), authority="freezeAuthority"),
    11: _Form("thawAccount", ("account", "mint"), authority="freezeAuthority"),
    12: _Form("transferChecked", ("source", "mint", "destination"), _checked_amount, "authority"),
    13: _Form("approveChecked", ("source", "mint", "delegate"), _checked_amount, "owner"),
    14: _Form("mintToChecked", ("mint", "account"), _checked_amount, "mintAuthority"),
    15: _Form("burnChecked", ("account", "mint"), _checked_amount, "authority"),
    16: _Form("initializeAccount2", ("account", "mint", "rentSysvar"), _owner),
    17: _Form("syncNative", ("account",)),
    18: _Form("initializeAccount3", ("account", "mint"), _owner),
    20: _Form("initializeMint2", ("mint",), _mint),
}

_ASSOCIATED_ACCOUNTS = ("source", "account", "wallet", "mint", "systemProgram", "tokenProgram")
_ASSOCIATED_FORMS = {
    0: _Form("create", _ASSOCIATED_ACCOUNTS),
    1: _Form("createIdempotent", _ASSOCIATED_ACCOUNTS),
}
