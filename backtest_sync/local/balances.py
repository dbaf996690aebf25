"""Lamport and token balances of accounts, as a node notes them around a transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from solders.pubkey import Pubkey

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TypeAlias

    from solders.account import Account

#: What is noted of an account: lamports; of a token account also its first 72 bytes (mint, owner,
#: amount) and its program.
View: TypeAlias = "tuple[int, bytes | None, str | None]"

NOTHING: View = (0, None, None)

_TOKEN = Pubkey.from_string("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA")
_TOKEN_2022 = Pubkey.from_string("TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb")
_TOKEN_ACCOUNT_SIZE = 165
_STATE_AT = 108
_KIND_AT = 165
_ACCOUNT_KIND = 2
_MINT_SIZE = 82
_DECIMALS_AT = 44
_SHOWN = 72


def view(account: Account | None) -> View:
    """What is to be noted of an account."""
    if account is None:
        return NOTHING
    owner = account.owner
    if owner == _TOKEN:
        data = account.data
        if len(data) == _TOKEN_ACCOUNT_SIZE and data[_STATE_AT]:
            return account.lamports, data[:_SHOWN], str(_TOKEN)
    elif owner == _TOKEN_2022:
        data = account.data
        if _is_token_2022_account(data):
            return account.lamports, data[:_SHOWN], str(_TOKEN_2022)
    return account.lamports, None, None


def _is_token_2022_account(data: bytes) -> bool:
    if len(data) < _TOKEN_ACCOUNT_SIZE or not data[_STATE_AT]:
        return False
    return len(data) == _TOKEN_ACCOUNT_SIZE or data[_KIND_AT] == _ACCOUNT_KIND


def mint_decimals(mint: Account | None) -> int | None:
    """Decimals of a mint of either token program; ``None`` where the account is none."""
    if mint is None or mint.owner not in (_TOKEN, _TOKEN_2022):
        return None
    data = mint.data
    return data[_DECIMALS_AT] if len(data) >= _MINT_SIZE else None


def token_balances(views: Sequence[View], decimals: Mapping[bytes, int]) -> list[dict[str, Any]]:
    """``preTokenBalances`` or ``postTokenBalances``: an entry for each token account.

    ``decimals``: those of each mint; an account of an unknown mint is left out, as a node does.
    """
    listed = []
    for index, (_, token, program) in enumerate(views):
        if token is None or token[:32] not in decimals:
            continue
        listed.append(
            {
                "accountIndex": index,
                "mint": str(Pubkey.from_bytes(token[:32])),
                "owner": str(Pubkey.from_bytes(token[32:64])),
                "programId": program,
                "uiTokenAmount": ui_amount(
                    int.from_bytes(token[64:72], "little"), decimals[token[:32]]
                ),
            }
        )
    return listed


def ui_amount(amount: int, decimals: int) -> dict[str, Any]:
    """A token amount in Solana's JSON form. ``uiAmount`` is null for 0, as nodes give it."""
    digits = str(amount).rjust(decimals + 1, "0")
    whole, fraction = digits[: len(digits) - decimals], digits[len(digits) - decimals :]
    text = f"{whole}.{fraction}".rstrip("0").rstrip(".") if decimals else whole
    return {
        "amount": str(amount),
        "decimals": decimals,
        "uiAmount": float(text) if amount else None,
        "uiAmountString": text,
    }
