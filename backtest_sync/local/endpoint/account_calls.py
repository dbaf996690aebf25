"""Calls about accounts. Those by address also see the session's scheduled overrides."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from backtest_sync.errors import DeserializeError
from backtest_sync.local.balances import mint_decimals
from backtest_sync.local.endpoint.chain import options, with_context
from backtest_sync.local.endpoint.filters import read_filters
from backtest_sync.local.endpoint.jsonrpc import address, addresses, count, flag, invalid, unsigned
from backtest_sync.local.endpoint.parsed import (
    TOKEN_PROGRAMS,
    lookup_table,
    token_amount,
    token_kind,
)
from backtest_sync.local.shapes import AccountView, read_view
from backtest_sync.protocol.accounts import MODIFICATIONS, AccountModifications
from backtest_sync.protocol.fields import address_bytes, b58encode
from backtest_sync.protocol.shape import Mismatch

if TYPE_CHECKING:
    from solders.account import Account

    from backtest_sync.local.session import SimSession

#: The most addresses that getMultipleAccounts takes.
MAX_ADDRESSES = 100
#: The largest account that can be, bytes.
MAX_SPACE = 10 * 2**20


def get_account_info(session: SimSession, params: list[Any]) -> Any:
    """``getAccountInfo``"""
    count(params, 1, 2)
    wanted = address(params[0])
    view = read_view(options(session, params, 1), "binary")
    return with_context(session, _shown(session, wanted, view))


def _shown(session: SimSession, wanted: str, view: AccountView) -> Any:
    account = session.account(wanted)
    return None if account is None else view.value(account, session.account)


def get_multiple_accounts(session: SimSession, params: list[Any]) -> Any:
    """``getMultipleAccounts``"""
    count(params, 1, 2)
    wanted = addresses(params[0], MAX_ADDRESSES)
    view = read_view(options(session, params, 1), "base64")
    return with_context(session, [_shown(session, item, view) for item in wanted])


def get_balance(session: SimSession, params: list[Any]) -> Any:
    """``getBalance``"""
    count(params, 1, 2)
    options(session, params, 1)
    account = session.account(address(params[0]))
    return with_context(session, 0 if account is None else account.lamports)


def get_program_accounts(session: SimSession, params: list[Any]) -> Any:
    """``getProgramAccounts``, in the order of the addresses."""
    count(params, 1, 2)
    program = address(params[0])
    config = options(session, params, 1)
    view = read_view(config, "binary")
    filters = read_filters(config)
    contextual = flag(config, "withContext")
    found = [
        _keyed(session, key, account, view)
        for key, account in session.engine.program_accounts(program)
        if all(passes(account) for passes in filters)
    ]
    return with_context(session, found) if contextual else found


def _keyed(session: SimSession, key: str, account: Account, view: AccountView) -> dict[str, Any]:
    return {"pubkey": key, "account": view.value(account, session.account)}


def get_address_lookup_table(session: SimSession, params: list[Any]) -> Any:
    """``getAddressLookupTable``: no call of a node's, in the manner of the JavaScript client.

    ``value``: null where there is no account, else ``{"key", "state"}``; the state is what
    jsonParsed shows of a table: ``deactivationSlot`` and ``lastExtendedSlot`` (as text),
    ``lastExtendedSlotStartIndex``, ``authority`` where there is one, ``addresses``.
    """
    count(params, 1, 2)
    options(session, params, 1)
    key = address(params[0])
    account = session.account(key)
    if account is None:
        return with_context(session, None)
    state = lookup_table(account)
    if state is None:
        raise invalid("Invalid param: not an address lookup table")
    return with_context(session, {"key": key, "state": state})


def get_minimum_balance(session: SimSession, params: list[Any]) -> int:
    """``getMinimumBalanceForRentExemption``"""
    count(params, 1, 2)
    options(session, params, 1)
    size = unsigned(params[0])
    if size > MAX_SPACE:
        raise invalid(f"Invalid param: an account holds at most {MAX_SPACE} bytes")
    return session.engine.minimum_balance(size)


# --- tokens


def get_token_account_balance(session: SimSession, params: list[Any]) -> Any:
    """``getTokenAccountBalance``"""
    count(params, 1, 2)
    options(session, params, 1)
    account = _found(session, params[0])
    if token_kind(account) != "account":
        raise invalid("Invalid param: not a Token account")
    data = account.data
    decimals = mint_decimals(session.account(b58encode(data[:32])))
    if decimals is None:
        raise invalid("Invalid param: mint could not be unpacked")
    return with_context(session, token_amount(_u64(data, 64), decimals))


def get_token_supply(session: SimSession, params: list[Any]) -> Any:
    """``getTokenSupply``"""
    count(params, 1, 2)
    options(session, params, 1)
    account = _found(session, params[0])
    if token_kind(account) != "mint":
        raise invalid("Invalid param: not a Token mint")
    data = account.data
    return with_context(session, token_amount(_u64(data, 36), data[44]))


def _found(session: SimSession, value: object) -> Account:
    account = session.account(address(value))
    if account is None:
        raise invalid("Invalid param: could not find account")
    return account


def get_token_accounts_by_owner(session: SimSession, params: list[Any]) -> Any:
    """``getTokenAccountsByOwner``: those of one mint, or of one token program."""
    count(params, 2, 3)
    owner = address_bytes(address(params[0]))
    program, mint = _token_selection(session, params[1])
    view = read_view(options(session, params, 2), "binary")
    found = []
    for key, account in session.engine.program_accounts(program):
        data = account.data
        if data[32:64] != owner or token_kind(account) != "account":
            continue
        if mint is None or data[:32] == mint:
            found.append(_keyed(session, key, account, view))
    return with_context(session, found)


def _token_selection(session: SimSession, value: object) -> tuple[str, bytes | None]:
    """The token program to look through, and the mint to look for."""
    if isinstance(value, dict) and "mint" in value:
        mint = session.account(address(value["mint"]))
        if mint is None or token_kind(mint) != "mint":
            raise invalid("Invalid param: could not find mint")
        return str(mint.owner), address_bytes(value["mint"])
    if isinstance(value, dict) and "programId" in value:
        program = address(value["programId"])
        if program not in TOKEN_PROGRAMS:
            raise invalid("Invalid param: unrecognized Token program id")
        return program, None
    raise invalid("Invalid params: expected `mint` or `programId`.")


def _u64(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 8], "little")


# --- writing


def modify_accounts(session: SimSession, params: list[Any]) -> int:
    """``modifyAccounts``: writes accounts at once; how many (protocol/subscriptions.md §1.1)."""
    count(params, 1, 1)
    return session.modify_accounts(read_modifications(params[0], "modifyAccounts"))


def read_modifications(value: object, field: str) -> AccountModifications:
    """A map of address to account out of its JSON (protocol/programs.md §2)."""
    try:
        found: AccountModifications = MODIFICATIONS.read(value)
    except Mismatch as error:
        raise invalid(f"Invalid params: {field}{error.path()[1:]}: {error.reason}") from error
    for key, account in found.items():
        try:
            bytes(account.data)
        except DeserializeError as error:
            raise invalid(f"Invalid params: {field}['{key}'].data: {error.reason}") from error
    return found


METHODS: dict[str, Callable[[SimSession, list[Any]], Any]] = {
    "getAccountInfo": get_account_info,
    "getMultipleAccounts": get_multiple_accounts,
    "getBalance": get_balance,
    "getProgramAccounts": get_program_accounts,
    "getAddressLookupTable": get_address_lookup_table,
    "getMinimumBalanceForRentExemption": get_minimum_balance,
    "getTokenAccountBalance": get_token_account_balance,
    "getTokenSupply": get_token_supply,
    "getTokenAccountsByOwner": get_token_accounts_by_owner,
    "modifyAccounts": modify_accounts,
}
