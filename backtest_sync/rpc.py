"""A blocking client of Solana's JSON-RPC, for a session's endpoint and any other.

The endpoint of a session serves the methods of protocol/subscriptions.md §1; `RpcClient` has typed ones for
them and `RpcClient.call` for every other. It needs no API key and is never sent one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from backtest_sync.errors import (
    BacktestClientError,
    DeserializeError,
    HttpError,
    InvalidParamsError,
    RpcError,
)
from backtest_sync.jsonrpc import JsonRpcClient, error_fields
from backtest_sync.protocol import jsontext
from backtest_sync.protocol.fields import (
    b58encode,
    to_address,
    to_modifications,
    to_transaction,
    to_u64,
)
from backtest_sync.replies import Repeat
from backtest_sync.rpc_types import (
    AddressLookupTable,
    LatestBlockhash,
    ParsedAccount,
    SignatureStatus,
    SimulationResult,
    TokenAmount,
    account,
    any_account,
    integer,
    rows,
    text,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Sequence
    from typing import TypeAlias

    from backtest_sync.protocol import Account, AccountModifications
    from backtest_sync.protocol.fields import AddressLike, ModificationsLike, TransactionLike
    from backtest_sync.protocol.notifications import TransactionNotification
    from backtest_sync.replies import HttpReply

    Encoding: TypeAlias = Literal["base64", "base64+zstd", "jsonParsed"]
    Base64: TypeAlias = Literal["base64", "base64+zstd"]
    #: The size of the data, ``(offset, bytes)`` it must hold, or Solana's own JSON form.
    Filter: TypeAlias = "int | tuple[int, bytes | str] | Mapping[str, Any]"

#: The longest run of bytes that Solana compares in a filter of ``getProgramAccounts``.
MAX_MEMCMP_BYTES = 128

_COMMITMENTS = ("processed", "confirmed", "finalized")
_ENCODINGS = ("base64", "base64+zstd", "jsonParsed")
_SIGNATURE = re.compile("[1-9A-HJ-NP-Za-km-z]{64,88}")

_T = TypeVar("_T")


class ModifyAccountsError(RpcError, HttpError):
    """``modifyAccounts`` was refused; an `HttpError` too, worded as the reference client does."""

    def __init__(self, reply: HttpReply, error: object) -> None:
        failure = reply.error(f"modifyAccounts RPC error: {jsontext.dumps(error)}")
        BacktestClientError.__init__(self, str(failure))
        self.code, self.message, self.data = error_fields(error)
        self.url, self.status, self.body = failure.url, failure.status, failure.body


class RpcClient(JsonRpcClient):
    """Solana's JSON-RPC at ``endpoint`` (``http://`` or ``https://``), from any number of threads.

    ``commitment`` goes with every method that takes one. ``timeout`` bounds a call in seconds (``None``: no
    limit). Until then reads are repeated after a broken connection or an answer of 429, 502, 503 or 504,
    which a session's endpoint gives until the session is ready; what changes something is sent once, and
    again only when no connection came about. Addresses, signatures and transactions are taken as text, bytes
    or solders objects.

    Every method raises `RpcError` (the endpoint refused), `HttpError`, `RequestTimeoutError`,
    `DeserializeError` (an answer of another shape) and `InvalidParamsError` (nothing was sent).
    """

    def __init__(
        self,
        endpoint: str,
        *,
        commitment: str = "confirmed",
        timeout: float | None = 30.0,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        if commitment not in _COMMITMENTS:
            raise InvalidParamsError(
                f"commitment: {commitment!r} is none of {', '.join(_COMMITMENTS)}"
            )
        super().__init__(endpoint, timeout=timeout, ssl_context=ssl_context)
        self._commitment = commitment

    def __enter__(self) -> RpcClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- chain

    def get_slot(self) -> int:
        """The slot that the session has reached."""
        return self._ask("getSlot", [self._config()], integer)

    def get_latest_blockhash(self) -> LatestBlockhash:
        """The latest blockhash."""
        return self._ask("getLatestBlockhash", [self._config()], _value(LatestBlockhash.from_json))

    def get_minimum_balance_for_rent_exemption(self, size: int) -> int:
        """Lamports that keep an account of ``size`` bytes alive."""
        params = [to_u64(size, "size"), self._config()]
        return self._ask("getMinimumBalanceForRentExemption", params, integer)

    def get_fee_for_message(self, message: TransactionLike) -> int | None:
        """Lamports that a transaction of this message costs; ``None`` when its blockhash is too old."""
        params = [to_transaction(message, "message"), self._config()]
        return self._ask(
            "getFeeForMessage", params, _value(lambda fee: None if fee is None else integer(fee))
        )

    # --- accounts

    def get_balance(self, address: AddressLike) -> int:
        """Lamports of an account; 0 for one that does not exist."""
        params = [to_address(address, "address"), self._config()]
        return self._ask("getBalance", params, _value(integer))

    @overload
    def get_account_info(
        self, address: AddressLike, *, encoding: Base64 = "base64"
    ) -> Account | None: ...
    @overload
    def get_account_info(
        self, address: AddressLike, *, encoding: Literal["jsonParsed"]
    ) -> Account | ParsedAccount | None: ...
    def get_account_info(
        self, address: AddressLike, *, encoding: Encoding = "base64"
    ) -> Account | ParsedAccount | None:
        """An account; ``None`` for one that does not exist.

        ``encoding`` is how the data travels: ``base64+zstd`` for large accounts (needs the ``zstd`` extra),
        ``jsonParsed`` for a `ParsedAccount` where the server has a parser for its program.
        """
        params = [to_address(address, "address"), self._config(encoding=_encoding(encoding))]
        return self._ask("getAccountInfo", params, _value(any_account))

    @overload
    def get_multiple_accounts(
        self, addresses: Iterable[AddressLike], *, encoding: Base64 = "base64"
    ) -> list[Account | None]: ...
    @overload
    def get_multiple_accounts(
        self, addresses: Iterable[AddressLike], *, encoding: Literal["jsonParsed"]
    ) -> list[Account | ParsedAccount | None]: ...
    def get_multiple_accounts(
        self, addresses: Iterable[AddressLike], *, encoding: Encoding = "base64"
    ) -> Sequence[Account | ParsedAccount | None]:
        """Accounts in the order of their addresses, all of one slot; see `get_account_info`."""
        wanted = _addresses(addresses, "addresses")

        def parse(value: Any) -> list[Account | ParsedAccount | None]:
            if len(rows(value)) != len(wanted):
                raise ValueError(f"{len(value)} accounts for {len(wanted)} addresses")
            return [any_account(entry) for entry in value]

        params = [wanted, self._config(encoding=_encoding(encoding))]
        return self._ask("getMultipleAccounts", params, _value(parse))

    @overload
    def get_program_accounts(
        self,
        program_id: AddressLike,
        filters: Iterable[Filter] = (),
        *,
        encoding: Base64 = "base64",
    ) -> list[tuple[str, Account]]: ...
    @overload
    def get_program_accounts(
        self,
        program_id: AddressLike,
        filters: Iterable[Filter] = (),
        *,
        encoding: Literal["jsonParsed"],
    ) -> list[tuple[str, Account | ParsedAccount]]: ...
    def get_program_accounts(
        self,
        program_id: AddressLike,
        filters: Iterable[Filter] = (),
        *,
        encoding: Encoding = "base64",
    ) -> Sequence[tuple[str, Account | ParsedAccount]]:
        """``(address, account)`` of every account that a program owns and all ``filters`` let through.

        A filter is the size of the data in bytes, ``(offset, value)`` for bytes (or their base58 text, at most
        128 of them) that stand there, or Solana's own JSON form.
        """
        config = self._config(encoding=_encoding(encoding))
        listed = [_filter(entry) for entry in filters]
        if listed:
            config["filters"] = listed

        def parse(value: Any) -> list[tuple[str, Account | ParsedAccount]]:
            found = [(text(row["pubkey"]), any_account(row["account"])) for row in rows(value)]
            return [(address, entry) for address, entry in found if entry is not None]

        params = [to_address(program_id, "program_id"), config]
        return self._ask("getProgramAccounts", params, parse)

    def get_token_account_balance(self, address: AddressLike) -> TokenAmount:
        """The balance of a token account."""
        params = [to_address(address, "address"), self._config()]
        return self._ask("getTokenAccountBalance", params, _value(TokenAmount.from_json))

    def get_address_lookup_table(self, address: AddressLike) -> AddressLookupTable | None:
        """A lookup table, read from its account; ``None`` for one that does not exist."""
        params = [to_address(address, "address"), self._config(encoding="base64")]

        def parse(value: Any) -> AddressLookupTable | None:
            table = account(value)
            return None if table is None else AddressLookupTable.from_account(table)

        return self._ask("getAccountInfo", params, _value(parse))

    def modify_accounts(self, modifications: ModificationsLike) -> int:
        """Overwrite accounts at once, for example while paused; gives the number of entries.

        Not repeated, except when no connection came about (protocol/subscriptions.md §1.1).
        """
        entries = to_modifications(modifications, "modifications")
        reply = self._send(self._request("modifyAccounts", [_unstructure(entries)]), Repeat.UNSENT)
        try:
            body = reply.json()
        except HttpError:
            reply.raise_for_status()
            raise
        if isinstance(body, Mapping) and body.get("error") is not None:
            raise ModifyAccountsError(reply, body["error"])
        if not isinstance(body, Mapping) or "result" not in body:
            # with a result the status does not count, as in the reference client
            reply.raise_for_status()
        return len(entries)

    # --- transactions

    def simulate_transaction(
        self,
        tx: TransactionLike,
        *,
        accounts: Iterable[AddressLike] = (),
        modify_account_states: ModificationsLike | None = None,
        sig_verify: bool = False,
        replace_recent_blockhash: bool = True,
    ) -> SimulationResult:
        """Run a transaction against the present state and keep nothing of it.

        ``accounts`` are those whose state after it is wanted, ``modify_account_states`` what the state is taken
        to be for this simulation only. A transaction that fails is a result with ``err``, no exception.
        """
        config = self._config(
            encoding="base64",
            sigVerify=sig_verify,
            replaceRecentBlockhash=replace_recent_blockhash,
        )
        wanted = _addresses(accounts, "accounts")
        if wanted:
            config["accounts"] = {"encoding": "base64", "addresses": wanted}
        if modify_account_states:
            entries = to_modifications(modify_account_states, "modify_account_states")
            config["modifyAccountStates"] = _unstructure(entries)
        params = [to_transaction(tx, "tx"), config]
        return self._ask("simulateTransaction", params, _value(SimulationResult.from_json))

    def send_transaction(self, tx: TransactionLike, *, skip_preflight: bool = False) -> str:
        """Execute a transaction; gives its signature. A session executes it at once, signed or not.

        Each send executes, so it is not repeated, except when no connection came about. When the preflight
        simulation fails, `RpcError.logs` has its logs.
        """
        config: dict[str, Any] = {
            "encoding": "base64",
            "preflightCommitment": self._commitment,
        }
        if skip_preflight:
            config["skipPreflight"] = True
        return self._ask("sendTransaction", [to_transaction(tx, "tx"), config], text)

    def get_transaction(
        self, signature: object, *, encoding: Literal["json", "jsonParsed", "base64"] = "json"
    ) -> TransactionNotification | None:
        """A transaction that was executed, in the form that `subscribe_transactions` gives it.

        ``None`` for one that is not known. ``encoding`` is how the transaction stands in ``.raw``.
        """
        from backtest_sync.protocol.notifications import TransactionNotification

        config = self._config(encoding=encoding, maxSupportedTransactionVersion=0)
        return self._ask(
            "getTransaction",
            [_signature(signature), config],
            lambda value: None if value is None else TransactionNotification(value),
        )

    def get_signature_statuses(self, signatures: Iterable[object]) -> list[SignatureStatus | None]:
        """What became of each transaction, in order; ``None`` for one that is not known."""
        wanted = [_signature(signature) for signature in signatures]
        config = {"searchTransactionHistory": True}
        return self._ask(
            "getSignatureStatuses",
            [wanted, config],
            _value(lambda value: [SignatureStatus.from_json(entry) for entry in rows(value)]),
        )

    # --- wire

    def _config(self, **extra: Any) -> dict[str, Any]:
        return {**extra, "commitment": self._commitment}

    def _ask(self, method: str, params: list[Any], parse: Callable[[Any], _T]) -> _T:
        """A method's result as a value."""
        result = self.call(method, params)
        try:
            return parse(result)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            reason = f"missing field {error}" if isinstance(error, KeyError) else str(error)
            raise DeserializeError(f"{method}: {reason}", jsontext.dumps(result)) from error


def _value(parse: Callable[[Any], _T]) -> Callable[[Any], _T]:
    """Read ``{"context": …, "value": …}``."""
    return lambda result: parse(result["value"])


def _addresses(values: Iterable[AddressLike], field: str) -> list[str]:
    if isinstance(values, (str, bytes)):
        raise InvalidParamsError(f"{field}: expected a list of addresses, got one")
    return [to_address(value, f"{field}[{i}]") for i, value in enumerate(values)]


def _encoding(encoding: str) -> str:
    if encoding not in _ENCODINGS:
        raise InvalidParamsError(f"encoding: {encoding!r} is none of {', '.join(_ENCODINGS)}")
    return encoding


def _signature(value: object) -> str:
    """A signature as base58, from the text, its 64 bytes or an object whose text it is."""
    if isinstance(value, (bytes, bytearray)) and len(value) == 64:
        return b58encode(bytes(value))
    shown = str(value)
    if isinstance(value, (bytes, bytearray)) or not _SIGNATURE.fullmatch(shown):
        raise InvalidParamsError(
            f"signature: {value!r:.100} is no signature; expected 64 bytes or their base58 text"
        )
    return shown


def _filter(value: Filter) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    if isinstance(value, tuple) and len(value) == 2:
        offset, wanted = value
        if isinstance(wanted, (bytes, bytearray)):
            if len(wanted) > MAX_MEMCMP_BYTES:
                raise InvalidParamsError(
                    f"filters: {len(wanted)} bytes to compare, at most {MAX_MEMCMP_BYTES} can be"
                )
            wanted = b58encode(bytes(wanted))
        return {"memcmp": {"offset": to_u64(offset, "filters: offset"), "bytes": str(wanted)}}
    return {"dataSize": to_u64(value, "filters: size")}


def _unstructure(entries: AccountModifications) -> dict[str, Any]:
    from backtest_sync.protocol import codec

    return {address: codec.unstructure(entry) for address, entry in entries.items()}
