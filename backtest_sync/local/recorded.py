"""A recorded transaction as a discovery carries it: the binary record of protocol/control.md §5.

Fields in order: transaction, error, balances, logs, inner instructions; integers little-endian,
lists counted in eight bytes (those inside a transaction in Solana's short form), options led by a
byte, enums by four.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from backtest_sync.protocol.fields import b58decode

if TYPE_CHECKING:
    from backtest_sync.local.blocks import BlockTransaction

_TRANSACTION_ERRORS = [
    "AccountInUse",
    "AccountLoadedTwice",
    "AccountNotFound",
    "ProgramAccountNotFound",
    "InsufficientFundsForFee",
    "InvalidAccountForFee",
    "AlreadyProcessed",
    "BlockhashNotFound",
    "InstructionError",
    "CallChainTooDeep",
    "MissingSignatureForFee",
    "InvalidAccountIndex",
    "SignatureFailure",
    "InvalidProgramForExecution",
    "SanitizeFailure",
    "ClusterMaintenance",
    "AccountBorrowOutstanding",
    "WouldExceedMaxBlockCostLimit",
    "UnsupportedVersion",
    "InvalidWritableAccount",
    "WouldExceedMaxAccountCostLimit",
    "WouldExceedAccountDataBlockLimit",
    "TooManyAccountLocks",
    "AddressLookupTableNotFound",
    "InvalidAddressLookupTableOwner",
    "InvalidAddressLookupTableData",
    "InvalidAddressLookupTableIndex",
    "InvalidRentPayingAccount",
    "WouldExceedMaxVoteCostLimit",
    "WouldExceedAccountDataTotalLimit",
    "DuplicateInstruction",
    "InsufficientFundsForRent",
    "MaxLoadedAccountsDataSizeExceeded",
    "InvalidLoadedAccountsDataSizeLimit",
    "ResanitizationNeeded",
    "ProgramExecutionTemporarilyRestricted",
    "UnbalancedTransaction",
    "ProgramCacheHitMaxLimit",
    "CommitCancelled",
]
_INSTRUCTION_ERRORS = [
    "GenericError",
    "InvalidArgument",
    "InvalidInstructionData",
    "InvalidAccountData",
    "AccountDataTooSmall",
    "InsufficientFunds",
    "IncorrectProgramId",
    "MissingRequiredSignature",
    "AccountAlreadyInitialized",
    "UninitializedAccount",
    "UnbalancedInstruction",
    "ModifiedProgramId",
    "ExternalAccountLamportSpend",
    "ExternalAccountDataModified",
    "ReadonlyLamportChange",
    "ReadonlyDataModified",
    "DuplicateAccountIndex",
    "ExecutableModified",
    "RentEpochModified",
    "NotEnoughAccountKeys",
    "AccountDataSizeChanged",
    "AccountNotExecutable",
    "AccountBorrowFailed",
    "AccountBorrowOutstanding",
    "DuplicateAccountOutOfSync",
    "Custom",
    "InvalidError",
    "ExecutableDataModified",
    "ExecutableLamportChange",
    "ExecutableAccountNotRentExempt",
    "UnsupportedProgramId",
    "CallDepth",
    "MissingAccount",
    "ReentrancyNotAllowed",
    "MaxSeedLengthExceeded",
    "InvalidSeeds",
    "InvalidRealloc",
    "ComputationalBudgetExceeded",
    "PrivilegeEscalation",
    "ProgramEnvironmentSetupFailure",
    "ProgramFailedToComplete",
    "ProgramFailedToCompile",
    "Immutable",
    "IncorrectAuthority",
    "BorshIoError",
    "AccountNotRentExempt",
    "InvalidAccountOwner",
    "ArithmeticOverflow",
    "UnsupportedSysvar",
    "IllegalOwner",
    "MaxAccountsDataAllocationsExceeded",
    "MaxAccountsExceeded",
    "MaxInstructionTraceLengthExceeded",
    "BuiltinProgramsMustConsumeComputeUnits",
]

Encoder = Callable[[Any], bytes]


def recorded_transaction(transaction: BlockTransaction) -> bytes:
    """The record of a historical transaction, with what the bundle knows of its outcome."""
    meta = transaction.meta or {}
    return b"".join(
        (
            transaction.raw,
            _option(meta.get("err"), _transaction_error),
            _option(meta if "preBalances" in meta else None, _balances),
            _option(meta.get("logMessages"), lambda logs: _list(logs, _text)),
            _option(meta.get("innerInstructions"), lambda groups: _list(groups, _inner_group)),
        )
    )


def _option(value: Any, encode: Encoder) -> bytes:
    return b"\0" if value is None else b"\1" + encode(value)


def _list(values: Sequence[Any], encode: Encoder) -> bytes:
    return struct.pack("<Q", len(values)) + b"".join([encode(value) for value in values])


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def _short_bytes(data: bytes) -> bytes:
    size, head = len(data), bytearray()
    while size >= 0x80:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head) + data


def _tagged(name: str, names: Sequence[str]) -> bytes:
    return struct.pack("<I", names.index(name))


def _transaction_error(error: Any) -> bytes:
    if isinstance(error, str):
        return _tagged(error, _TRANSACTION_ERRORS)
    ((name, value),) = error.items()
    tag = _tagged(name, _TRANSACTION_ERRORS)
    if name == "InstructionError":
        return tag + bytes([value[0]]) + _instruction_error(value[1])
    return tag + bytes([value["account_index"] if isinstance(value, dict) else value])


def _instruction_error(error: Any) -> bytes:
    if isinstance(error, str):
        return _tagged(error, _INSTRUCTION_ERRORS)
    ((name, value),) = error.items()
    payload = struct.pack("<I", value) if name == "Custom" else b""
    return _tagged(name, _INSTRUCTION_ERRORS) + payload


def _balances(meta: dict[str, Any]) -> bytes:
    lamports = [
        _list(meta[key], lambda amount: struct.pack("<Q", amount))
        for key in ("preBalances", "postBalances")
    ]
    tokens = [
        _option(meta.get(key), lambda entries: _list(entries, _token_balance))
        for key in ("preTokenBalances", "postTokenBalances")
    ]
    return b"".join((*lamports, *tokens))


def _token_balance(entry: dict[str, Any]) -> bytes:
    amount = entry["uiTokenAmount"]
    return b"".join(
        (
            bytes([entry["accountIndex"]]),
            _text(entry["mint"]),
            _option(amount.get("uiAmount"), lambda value: struct.pack("<d", value)),
            bytes([amount["decimals"]]),
            _text(amount["amount"]),
            _text(amount.get("uiAmountString") or ""),
            _text(entry.get("owner") or ""),
            _text(entry.get("programId") or ""),
        )
    )


def _inner_group(group: dict[str, Any]) -> bytes:
    return bytes([group["index"]]) + _list(group["instructions"], _inner_instruction)


def _inner_instruction(inner: dict[str, Any]) -> bytes:
    return b"".join(
        (
            bytes([inner["programIdIndex"]]),
            _short_bytes(bytes(inner["accounts"])),
            _short_bytes(b58decode(inner["data"])),
            _option(inner.get("stackHeight"), lambda height: struct.pack("<I", height)),
        )
    )
