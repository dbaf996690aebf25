"""Solana's own JSON shapes: accounts, transactions and simulations as a node's RPC shows them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from attrs import frozen

from backtest_sync.local import svm
from backtest_sync.local.endpoint.jsonrpc import (
    INVALID_REQUEST,
    UNSUPPORTED_VERSION,
    CallError,
    choice,
    invalid,
    unsigned,
)
from backtest_sync.local.endpoint.parsed import Lookup, parse_account
from backtest_sync.local.endpoint.parsed_instructions import parse_instruction
from backtest_sync.protocol import blobs
from backtest_sync.protocol.fields import b58decode, b58encode

if TYPE_CHECKING:
    from solders.account import Account
    from solders.transaction import VersionedTransaction

    from backtest_sync.local.executed import Executed, Simulated

ACCOUNT_ENCODINGS = ("binary", "base58", "base64", "base64+zstd", "jsonParsed")
TRANSACTION_ENCODINGS = ("binary", "base58", "base64", "json", "jsonParsed")

#: The newest transaction version that is shown.
NEWEST_VERSION = 0
#: Largest account data that a node shows in base58, bytes.
MAX_BASE58_BYTES = 128


@frozen
class AccountView:
    """How a call wants its accounts: encoding and the part of the data (offset, length)."""

    encoding: str
    data_slice: tuple[int, int] | None = None

    def value(self, account: Account, lookup: Lookup, *, strict: bool = True) -> dict[str, Any]:
        """The account as ``getAccountInfo`` shows it.

        ``lookup`` finds the mint of a token account (jsonParsed). ``strict``: data too large for
        base58 is a fault, as in calls; else a note in its place, as in notifications.
        """
        value = svm.account_to_json(account)
        if self.encoding == "jsonParsed":
            parsed = parse_account(account, lookup)
            if parsed is not None:
                value["data"] = parsed
        elif self.encoding != "base64" or self.data_slice is not None:
            value["data"] = self._data(account.data, strict)
        return value

    def _data(self, data: bytes, strict: bool) -> Any:
        if self.data_slice is not None:
            offset, length = self.data_slice
            data = data[offset : offset + length]
        if self.encoding == "base64":
            return [_base64(data), "base64"]
        if self.encoding == "base64+zstd":
            return [_base64(blobs.compress(data)), "base64+zstd"]
        text = _base58(data, strict)
        return text if self.encoding == "binary" else [text, "base58"]


def read_view(config: dict[str, Any], default: str) -> AccountView:
    """How a call's options want accounts. ``default``: the method's own encoding."""
    encoding = choice(config, "encoding", ACCOUNT_ENCODINGS, default)
    wanted = config.get("dataSlice")
    if wanted is None:
        return AccountView(encoding)
    if not isinstance(wanted, dict):
        raise invalid("Invalid params: dataSlice: expected a map.")
    return AccountView(
        encoding, (unsigned(wanted.get("offset"), "an offset"), unsigned(wanted.get("length")))
    )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _base58(data: bytes, strict: bool) -> str:
    if len(data) <= MAX_BASE58_BYTES:
        return b58encode(data)
    if strict:
        raise CallError(
            INVALID_REQUEST,
            f"Encoded binary (base 58) data should be less than {MAX_BASE58_BYTES} bytes, "
            "please use Base64 encoding.",
        )
    return "error: data too large for bs58 encoding"


def transaction_value(executed: Executed, encoding: str, max_version: int | None) -> dict[str, Any]:
    """What ``getTransaction`` gives. ``max_version``: ``maxSupportedTransactionVersion``.

    A version above it is Solana's -32015.
    """
    version = transaction_version(executed.transaction)
    if version != "legacy" and (max_version is None or version > max_version):
        raise CallError(
            UNSUPPORTED_VERSION,
            f"Transaction version ({version}) is not supported by the requesting client. Please "
            "try the request again with the following configuration parameter: "
            f'"maxSupportedTransactionVersion": {version}',
        )
    meta = executed.meta()
    if encoding == "jsonParsed":
        inner = inner_parsed(meta.get("innerInstructions"), executed.keys)
        meta = {**meta, "innerInstructions": inner}
    value = {
        "slot": executed.slot,
        "blockTime": executed.block_time,
        "transaction": encode_transaction(executed, encoding),
        "meta": meta,
        "transactionIndex": executed.index,
        "source": executed.source.value,
    }
    if max_version is not None:
        value["version"] = version
    return value


def transaction_version(transaction: VersionedTransaction) -> Any:
    """``"legacy"`` or the version's number."""
    version = transaction.version()
    return version if isinstance(version, int) else "legacy"


def encode_transaction(executed: Executed, encoding: str) -> Any:
    """The transaction in one of `TRANSACTION_ENCODINGS`."""
    if encoding == "base64":
        return [_base64(executed.raw), "base64"]
    if encoding == "base58":
        return [b58encode(executed.raw), "base58"]
    if encoding == "binary":
        return b58encode(executed.raw)
    message = _parsed_message(executed) if encoding == "jsonParsed" else _raw_message(executed)
    return {
        "signatures": [str(s) for s in executed.transaction.signatures],
        "message": message,
    }


def _raw_message(executed: Executed) -> dict[str, Any]:
    message: Any = executed.transaction.message
    header = message.header
    instructions = message.instructions
    static = executed.keys[: len(executed.keys) - _loaded(executed)]
    return {
        "header": {
            "numRequiredSignatures": header.num_required_signatures,
            "numReadonlySignedAccounts": header.num_readonly_signed_accounts,
            "numReadonlyUnsignedAccounts": header.num_readonly_unsigned_accounts,
        },
        "accountKeys": list(static),
        "recentBlockhash": str(message.recent_blockhash),
        "instructions": [
            {
                "programIdIndex": instruction.program_id_index,
                "accounts": list(instruction.accounts),
                "data": b58encode(instruction.data),
                "stackHeight": 1,
            }
            for instruction in instructions
        ],
        **_table_lookups(message),
    }


def _loaded(executed: Executed) -> int:
    return len(executed.loaded_writable) + len(executed.loaded_readonly)


def _table_lookups(message: Any) -> dict[str, Any]:
    lookups = getattr(message, "address_table_lookups", None)
    if lookups is None:  # a legacy message has none
        return {}
    return {
        "addressTableLookups": [
            {
                "accountKey": str(lookup.account_key),
                "writableIndexes": list(lookup.writable_indexes),
                "readonlyIndexes": list(lookup.readonly_indexes),
            }
            for lookup in lookups
        ]
    }


def _parsed_message(executed: Executed) -> dict[str, Any]:
    message: Any = executed.transaction.message
    keys = executed.keys
    signers = message.header.num_required_signatures
    writable = frozenset(executed.writable)
    first_loaded = len(keys) - _loaded(executed)
    return {
        "accountKeys": [
            {
                "pubkey": key,
                "writable": i in writable,
                "signer": i < signers,
                "source": "transaction" if i < first_loaded else "lookupTable",
            }
            for i, key in enumerate(keys)
        ],
        "recentBlockhash": str(message.recent_blockhash),
        "instructions": [
            parse_instruction(i.program_id_index, i.accounts, bytes(i.data), 1, keys)
            for i in message.instructions
        ],
        **_table_lookups(message),
    }


def inner_parsed(inner: list[dict[str, Any]] | None, keys: Sequence[str]) -> Any:
    """``innerInstructions`` in jsonParsed form, out of the json form."""
    if inner is None:
        return None
    return [
        {
            "index": group["index"],
            "instructions": [
                parse_instruction(
                    i["programIdIndex"],
                    i["accounts"],
                    b58decode(i["data"]),
                    i.get("stackHeight"),
                    keys,
                )
                for i in group["instructions"]
            ],
        }
        for group in inner
    ]


def simulation_value(
    outcome: Simulated,
    *,
    accounts: list[Any] | None = None,
    inner_instructions: Any = None,
    replacement_blockhash: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """What ``simulateTransaction`` gives, and what a failed preflight carries."""
    return {
        "err": outcome.err,
        "logs": outcome.logs,
        "accounts": accounts,
        "unitsConsumed": outcome.units,
        "fee": outcome.fee,
        "returnData": outcome.return_data,
        "innerInstructions": inner_instructions,
        "replacementBlockhash": replacement_blockhash,
    }
