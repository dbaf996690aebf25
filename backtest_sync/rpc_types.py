"""What the methods of `RpcClient` give: Solana's JSON-RPC answers as values.

Each class reads one JSON shape with ``from_json``, which raises `LookupError`, `TypeError` or `ValueError` for any
other; the client turns those into a `DeserializeError` that names the method. Accounts are
`backtest_sync.protocol.Account`, transactions `backtest_sync.protocol.TransactionNotification`.
"""

from __future__ import annotations

import struct
from base64 import b64decode
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from backtest_sync.protocol.accounts import Account
from backtest_sync.protocol.fields import b58encode

if TYPE_CHECKING:
    from collections.abc import Mapping


def integer(value: object) -> int:
    """``value``, when it is a whole number that is not negative."""
    if type(value) is not int or value < 0:
        raise TypeError(f"expected a whole number, got {value!r:.100}")
    return value


def text(value: object) -> str:
    """``value``, when it is text."""
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {value!r:.100}")
    return value


def rows(value: object) -> list[Any]:
    """``value``, when it is a list."""
    if not isinstance(value, list):
        raise TypeError(f"expected a list, got {value!r:.100}")
    return value


def _optional_integer(value: object) -> int | None:
    return None if value is None else integer(value)


@frozen
class ParsedAccount:
    """An account whose data the server's parser for its program understood (``jsonParsed``).

    ``program`` is the parser's name (``spl-token``), ``parsed`` its JSON.
    """

    program: str
    parsed: Any
    lamports: int
    owner: str
    executable: bool
    space: int
    rent_epoch: int = 0

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ParsedAccount:
        """Read a ``getAccountInfo`` value whose data is an object."""
        data = value["data"]
        return cls(
            program=text(data["program"]),
            parsed=data["parsed"],
            lamports=integer(value["lamports"]),
            owner=text(value["owner"]),
            executable=bool(value["executable"]),
            space=integer(data["space"]),
            rent_epoch=integer(value.get("rentEpoch") or 0),
        )


def account(value: Any) -> Account | None:
    """An account in one of the base64 encodings, or ``None`` for one that does not exist."""
    return None if value is None else Account.from_ui(value)


def any_account(value: Any) -> Account | ParsedAccount | None:
    """An account in any encoding: parsed where the server has a parser for its program."""
    if value is not None and isinstance(value["data"], dict):
        return ParsedAccount.from_json(value)
    return account(value)


@frozen
class LatestBlockhash:
    """A recent blockhash and the last block height at which transactions with it are taken."""

    blockhash: str
    last_valid_block_height: int

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> LatestBlockhash:
        """Read a ``getLatestBlockhash`` value."""
        return cls(text(value["blockhash"]), integer(value["lastValidBlockHeight"]))


@frozen
class TokenAmount:
    """A token balance: ``amount`` in the smallest unit, ``ui_amount_string`` in whole tokens."""

    amount: int
    decimals: int
    ui_amount_string: str

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TokenAmount:
        """Read a ``getTokenAccountBalance`` value."""
        return cls(
            int(text(value["amount"])), integer(value["decimals"]), text(value["uiAmountString"])
        )


@frozen
class SignatureStatus:
    """What became of a transaction. ``confirmations``: ``None`` once it is final.

    ``err`` is Solana's JSON form of the failure, ``None`` for a success.
    """

    slot: int
    confirmations: int | None
    err: Any
    confirmation_status: str | None

    @classmethod
    def from_json(cls, value: Mapping[str, Any] | None) -> SignatureStatus | None:
        """Read one entry of a ``getSignatureStatuses`` value."""
        if value is None:
            return None
        return cls(
            integer(value["slot"]),
            _optional_integer(value.get("confirmations")),
            value.get("err"),
            value.get("confirmationStatus"),
        )


@frozen
class ReturnData:
    """What a transaction's last program returned."""

    program_id: str
    data: bytes

    @classmethod
    def from_json(cls, value: Mapping[str, Any] | None) -> ReturnData | None:
        """Read a ``returnData`` value."""
        if value is None:
            return None
        encoded, encoding = value["data"]
        if encoding != "base64":
            raise ValueError(f"return data in {encoding}, expected base64")
        return cls(text(value["programId"]), b64decode(text(encoded), validate=True))


@frozen
class SimulationResult:
    """A simulated transaction's outcome.

    ``err`` is Solana's JSON form of the failure, ``None`` for a success; ``accounts`` are the states after it of
    the accounts asked for, in their order, ``None`` for one that does not exist; ``raw`` is the whole JSON.
    """

    err: Any
    logs: tuple[str, ...]
    units_consumed: int | None
    accounts: tuple[Account | None, ...]
    return_data: ReturnData | None
    raw: Mapping[str, Any] = field(repr=False, eq=False)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> SimulationResult:
        """Read a ``simulateTransaction`` value."""
        return cls(
            value["err"],
            tuple(text(line) for line in rows(value.get("logs") or [])),
            _optional_integer(value.get("unitsConsumed")),
            tuple(account(entry) for entry in rows(value.get("accounts") or [])),
            ReturnData.from_json(value.get("returnData")),
            value,
        )


#: The program that owns lookup tables.
LOOKUP_TABLE_PROGRAM = "AddressLookupTab1e1111111111111111111111111"
_LOOKUP_TABLE_HEADER = struct.Struct("<IQQBB32s2x")
_LOOKUP_TABLE = 1  # the state's first four bytes; 0 is a table that was never set up
_NEVER = 2**64 - 1


@frozen
class AddressLookupTable:
    """A lookup table's addresses and state.

    ``deactivation_slot`` and ``authority`` are ``None`` for an active and a frozen table; the addresses from
    ``last_extended_start_index`` on were added in ``last_extended_slot`` and serve from the slot after it.
    """

    addresses: tuple[str, ...]
    authority: str | None
    deactivation_slot: int | None
    last_extended_slot: int
    last_extended_start_index: int

    @classmethod
    def from_account(cls, table: Account) -> AddressLookupTable:
        """Read a table account's data; `ValueError` when it is none."""
        data = table.data
        header = _LOOKUP_TABLE_HEADER
        if table.owner != LOOKUP_TABLE_PROGRAM or len(data) < header.size or len(data) % 32 != 24:
            raise ValueError("the account is no address lookup table")
        kind, deactivation, extended, start, has_authority, authority = header.unpack_from(data)
        if kind != _LOOKUP_TABLE:
            raise ValueError("the account is no address lookup table, or was never set up")
        return cls(
            tuple(b58encode(data[at : at + 32]) for at in range(header.size, len(data), 32)),
            b58encode(authority) if has_authority else None,
            None if deactivation == _NEVER else deactivation,
            extended,
            start,
        )
