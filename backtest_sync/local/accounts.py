"""Writing accounts into the machine, so that what is written takes effect: programs included."""

from __future__ import annotations

from typing import TYPE_CHECKING

from solders.account import Account
from solders.pubkey import Pubkey

from backtest_sync.local.svm import (
    PROGRAM_DATA_TAG,
    PROGRAM_TAG,
    SYSTEM_PROGRAM,
    UPGRADEABLE_LOADER,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from solders.litesvm import LiteSVM

#: Where a Program account names its ProgramData account.
_DATA_ADDRESS = slice(4, 36)

ABSENT = Account(0, b"", SYSTEM_PROGRAM)


class RefusedAccountError(ValueError):
    """The machine refuses an account: an ELF that it can't load, a sysvar that it can't read."""

    def __init__(self, address: Pubkey, reason: object) -> None:
        super().__init__(f"account {address}: {reason}")
        self.address = address


def program_data_address(account: Account) -> str | None:
    """Where an upgradeable program has its code; ``None`` for any other account."""
    if not _is_upgradeable_program(account):
        return None
    return str(Pubkey.from_bytes(account.data[_DATA_ADDRESS]))


def load_accounts(
    svm: LiteSVM, accounts: Mapping[Pubkey, Account]
) -> tuple[RefusedAccountError, ...]:
    """Writes accounts into a fresh machine and gives those that it refuses: they are left out."""
    refused = []
    for address, account in sorted(accounts.items(), key=lambda entry: _is_program(entry[1])):
        try:
            _put(svm, address, account)
        except RefusedAccountError as error:
            refused.append(error)
    return tuple(refused)


def write_accounts(svm: LiteSVM, accounts: Mapping[Pubkey, Account | None]) -> None:
    """Writes all the accounts (``None`` removes), or none: RefusedAccountError says which is off.

    Programs are loaded anew where their ProgramData is written: writing that alone would not.
    """
    # Data before programs: a program is loaded as it is written.
    ordered = sorted(accounts.items(), key=lambda entry: _is_program(entry[1]))
    touched = _programs_of(svm, {a for a, new in accounts.items() if _holds_code(svm, a, new)})
    for address in touched - accounts.keys():
        ordered.append((address, svm.get_account(address)))
    undo: list[tuple[Pubkey, Account | None]] = []
    try:
        for address, account in ordered:
            undo.append((address, svm.get_account(address)))
            _put(svm, address, account)
    except RefusedAccountError:
        # The same order again, so that programs are loaded from the data put back before them.
        for address, account in undo:
            _put(svm, address, account)
        raise


def _put(svm: LiteSVM, address: Pubkey, account: Account | None) -> None:
    try:
        svm.set_account(address, ABSENT if account is None else account)
    except Exception as error:  # the machine's own class of errors is not exported
        raise RefusedAccountError(address, error) from error


def _is_program(account: Account | None) -> bool:
    return account is not None and account.executable


def _holds_code(svm: LiteSVM, address: Pubkey, new: Account | None) -> bool:
    """Whether a ProgramData account is written or overwritten."""
    old = svm.get_account(address)
    return any(
        account is not None
        and account.owner == UPGRADEABLE_LOADER
        and account.data.startswith(PROGRAM_DATA_TAG)
        for account in (old, new)
    )


def _programs_of(svm: LiteSVM, data_addresses: set[Pubkey]) -> set[Pubkey]:
    if not data_addresses:
        return set()
    wanted = {bytes(address) for address in data_addresses}
    return {
        address
        for address, account in svm.get_program_accounts(UPGRADEABLE_LOADER)
        if _is_upgradeable_program(account) and account.data[_DATA_ADDRESS] in wanted
    }


def _is_upgradeable_program(account: Account) -> bool:
    return (
        account.owner == UPGRADEABLE_LOADER
        and account.executable
        and len(account.data) == _DATA_ADDRESS.stop
        and account.data.startswith(PROGRAM_TAG)
    )
