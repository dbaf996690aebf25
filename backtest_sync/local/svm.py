"""The virtual machine: LiteSVM as a replay needs it, and small conversions from its types.

Found out with solders 0.29: with signature and blockhash checks off it executes recorded
transactions as they are; history off keeps its memory flat; writing a ProgramData account alone
does not reload the program, writing its Program account afterwards does.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from solders.account import Account
from solders.hash import Hash, ParseHashError
from solders.litesvm import LiteSVM
from solders.pubkey import Pubkey
from solders.transaction import SanitizeError, VersionedTransaction
from solders.transaction_status import (
    InstructionErrorBorshIO,
    InstructionErrorCustom,
    TransactionErrorDuplicateInstruction,
    TransactionErrorInstructionError,
    TransactionErrorInsufficientFundsForRent,
    TransactionErrorProgramExecutionTemporarilyRestricted,
)

from backtest_sync.local.txerrors import sentence
from backtest_sync.protocol.fields import b58encode

if TYPE_CHECKING:
    from backtest_sync.protocol import AccountData

SYSTEM_PROGRAM = Pubkey.default()
UPGRADEABLE_LOADER = Pubkey.from_string("BPFLoaderUpgradeab1e11111111111111111111111")
#: Bytes before the keys of an address lookup table.
TABLE_HEADER = 56
#: What the first four bytes of an account of the upgradeable loader say.
PROGRAM_TAG = b"\x02\x00\x00\x00"
PROGRAM_DATA_TAG = b"\x03\x00\x00\x00"
_EXEMPT = 2**64 - 1


def new_svm() -> LiteSVM:
    """A machine with mainnet's features that accepts recorded transactions as they are."""
    return (
        LiteSVM()
        .with_mainnet_features()
        .with_sigverify(False)
        .with_blockhash_check(False)
        .with_transaction_history(0)
    )


def account_from_json(value: Any) -> Account:
    """An account from its ``getAccountInfo`` value with base64 data; ValueError says what is off."""
    if not isinstance(value, dict):
        raise ValueError(f"account is {value!r}, not an object")
    data = value.get("data")
    if not (isinstance(data, list) and len(data) == 2 and data[1] == "base64"):
        raise ValueError('account data is not of the form [text, "base64"]')
    try:
        return Account(
            value["lamports"],
            decode_base64(data[0]),
            to_pubkey(value["owner"]),
            bool(value.get("executable", False)),
            _rent_epoch(value.get("rentEpoch", 0)),
        )
    except KeyError as missing:
        raise ValueError(f"account without {missing.args[0]}") from missing
    except (TypeError, OverflowError) as error:
        raise ValueError(f"account with a wrong value: {error}") from error


def _rent_epoch(value: Any) -> int:
    # Exempt accounts have the largest u64, which what counts in floats rounds up beyond it.
    return value if isinstance(value, int) and value <= _EXEMPT else _EXEMPT


def account_to_json(account: Account) -> dict[str, Any]:
    """The ``getAccountInfo`` value of an account, data as base64."""
    data = account.data
    return {
        "data": [base64.b64encode(data).decode(), "base64"],
        "executable": account.executable,
        "lamports": account.lamports,
        "owner": str(account.owner),
        "rentEpoch": account.rent_epoch,
        "space": len(data),
    }


def decode_base64(text: Any) -> bytes:
    """The bytes of strict base64; ValueError otherwise."""
    if not isinstance(text, str):
        raise ValueError(f"base64 text expected, not {type(text).__name__}")
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"bad base64: {error}") from error


def parse_transaction(raw: bytes) -> VersionedTransaction:
    """A transaction from Solana's wire format; ValueError otherwise."""
    try:
        transaction = VersionedTransaction.from_bytes(raw)
    except ValueError as error:
        raise ValueError(f"not a transaction: {error}") from error
    if len(bytes(transaction)) != len(raw):
        raise ValueError("not a transaction: bytes left over at its end")
    if not transaction.signatures:
        raise ValueError("not a transaction: it has no signature")
    return transaction


def parse_sane_transaction(raw: bytes) -> VersionedTransaction:
    """The same for one that is to be executed; ValueError where an index in it is out of bounds, too."""
    transaction = parse_transaction(raw)
    if not is_sane(transaction):
        raise ValueError("invalid transaction: " + sentence("SanitizeFailure"))
    return transaction


def is_sane(transaction: VersionedTransaction) -> bool:
    """Whether the indexes in a transaction are in bounds."""
    try:
        transaction.sanitize()
    except SanitizeError:
        return False
    return True


def resolve_tables(
    message: Any, read: Callable[[Pubkey], Account | None]
) -> tuple[list[Pubkey], list[Pubkey]] | None:
    """The addresses that a message loads from lookup tables: writable, read-only.

    ``None`` where a table, or an entry of it, is not there.
    """
    writable: list[Pubkey] = []
    readonly: list[Pubkey] = []
    for lookup in getattr(message, "address_table_lookups", ()):
        table = read(lookup.account_key)
        if table is None:
            return None
        data = table.data
        for indexes, into in (
            (lookup.writable_indexes, writable),
            (lookup.readonly_indexes, readonly),
        ):
            for index in bytes(indexes):
                start = TABLE_HEADER + 32 * index
                if start + 32 > len(data):
                    return None
                into.append(Pubkey.from_bytes(data[start : start + 32]))
    return writable, readonly


def error_json(error: Any) -> Any:
    """A transaction error in Solana's JSON form: ``{"InstructionError": [0, {"Custom": 1}]}``."""
    if isinstance(error, TransactionErrorInstructionError):
        return {"InstructionError": [error.index, _instruction_error(error.err)]}
    if isinstance(error, TransactionErrorDuplicateInstruction):
        return {"DuplicateInstruction": error.index}
    if isinstance(error, TransactionErrorInsufficientFundsForRent):
        return {"InsufficientFundsForRent": {"account_index": error.account_index}}
    if isinstance(error, TransactionErrorProgramExecutionTemporarilyRestricted):
        return {"ProgramExecutionTemporarilyRestricted": {"account_index": error.account_index}}
    return _variant(error)


def _instruction_error(error: Any) -> Any:
    if isinstance(error, InstructionErrorCustom):
        return {"Custom": error.code}
    if isinstance(error, InstructionErrorBorshIO):
        return "BorshIoError"
    return _variant(error)


def _variant(error: Any) -> str:
    return str(error).rpartition(".")[2]


def inner_json(groups: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
    """Inner instructions in Solana's JSON form, empty groups left out."""
    return [
        {
            "index": index,
            "instructions": [
                {
                    "programIdIndex": inner.instruction().program_id_index,
                    "accounts": list(bytes(inner.instruction().accounts)),
                    "data": b58encode(bytes(inner.instruction().data)),
                    "stackHeight": inner.stack_height(),
                }
                for inner in group
            ],
        }
        for index, group in enumerate(groups)
        if group
    ]


def return_data_json(data: Any) -> dict[str, Any] | None:
    """Return data in Solana's JSON form; ``None`` where no program returned any."""
    if not data.data:
        return None
    encoded = base64.b64encode(bytes(data.data)).decode()
    return {"programId": str(data.program_id), "data": [encoded, "base64"]}


def to_pubkeys(addresses: Sequence[str]) -> list[Pubkey]:
    """Addresses as the machine takes them; ValueError names what is none."""
    return [to_pubkey(address) for address in addresses]


def to_pubkey(address: str) -> Pubkey:
    """An address as the machine takes it; ValueError names what is none."""
    try:
        return Pubkey.from_string(address)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{address!r} is not an address: {error}") from error


def checked_hash(text: Any, name: str) -> str:
    """``text`` where it is a base58 hash of 32 bytes; ValueError otherwise."""
    try:
        Hash.from_string(text)
    except (ValueError, TypeError, ParseHashError) as error:
        raise ValueError(f"{name} is {text!r}, not a base58 hash: {error}") from error
    return str(text)


def to_account(data: AccountData) -> Account | None:
    """An account of a modification; ``None`` for one without lamports: it is to be removed."""
    if not data.lamports:
        return None
    return Account(data.lamports, data.data.bytes, to_pubkey(data.owner), data.executable)
