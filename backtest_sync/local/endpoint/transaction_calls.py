"""Calls about transactions: simulate, send, and what became of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from attrs import frozen
from solders.message import from_bytes_versioned

from backtest_sync.local import svm
from backtest_sync.local.endpoint.account_calls import read_modifications
from backtest_sync.local.endpoint.chain import blockhash_value, options, with_context
from backtest_sync.local.endpoint.jsonrpc import (
    INVALID_REQUEST,
    PREFLIGHT_FAILURE,
    SIGNATURE_VERIFICATION_FAILURE,
    CallError,
    addresses,
    choice,
    count,
    flag,
    invalid,
    signature,
    strings,
    unsigned,
)
from backtest_sync.local.refusals import SEND_REMEDY, STATE_REPLAY
from backtest_sync.local.shapes import (
    ACCOUNT_ENCODINGS,
    TRANSACTION_ENCODINGS,
    AccountView,
    inner_parsed,
    simulation_value,
    transaction_value,
)
from backtest_sync.local.txerrors import sentence
from backtest_sync.protocol.fields import b58decode, b64decode

if TYPE_CHECKING:
    from solders.account import Account
    from solders.transaction import VersionedTransaction

    from backtest_sync.local.session import SimSession

#: The largest transaction that a cluster carries, bytes.
MAX_TRANSACTION_BYTES = 1232
#: The most signatures that getSignatureStatuses takes.
MAX_SIGNATURES = 256

#: What was executed is remembered by what executes it: nothing of it under state replay.
_HISTORY_REMEDY = (
    "Create the session without replayAccountState to execute and persist transactions."
)


def _refuse_under_state_replay(session: SimSession, operation: str, remedy: str) -> None:
    if session.replay_account_state:
        sentence = STATE_REPLAY.format(operation=operation, remedy=remedy)
        raise CallError(INVALID_REQUEST, sentence)


# --- reading what the caller sends


def _bytes(value: object, encoding: str, what: str) -> bytes:
    (text,) = strings([value])
    try:
        raw = b64decode(text) if encoding == "base64" else b58decode(text)
    except ValueError as error:
        raise invalid(f"invalid {encoding} encoding: {error}") from error
    if len(raw) > MAX_TRANSACTION_BYTES:
        raise invalid(
            f"decoded {what} too large: {len(raw)} bytes (max: {MAX_TRANSACTION_BYTES} bytes)"
        )
    return raw


def _transaction(value: object, config: dict[str, Any]) -> VersionedTransaction:
    encoding = choice(config, "encoding", ("base58", "base64"), "base58")
    raw = _bytes(value, encoding, "transaction")
    try:
        transaction = svm.parse_transaction(raw)
    except ValueError as error:
        raise invalid(f"failed to deserialize transaction: {error}") from error
    if not svm.is_sane(transaction):
        raise invalid("invalid transaction: " + sentence("SanitizeFailure"))
    return transaction


# --- simulating and sending


@frozen
class _Wanted:
    """The accounts that a simulation is to show afterwards."""

    addresses: tuple[str, ...]
    view: AccountView


def _wanted_accounts(config: dict[str, Any], limit: int) -> _Wanted | None:
    value = config.get("accounts")
    if value is None:
        return None
    if not isinstance(value, dict):
        raise invalid("Invalid params: accounts: expected a map.")
    encoding = choice(value, "encoding", ACCOUNT_ENCODINGS, "base64")
    if encoding in ("binary", "base58"):
        raise invalid("base58 encoding not supported")
    wanted = addresses(value.get("addresses"))
    if len(wanted) > limit:
        raise invalid(f"Too many accounts provided; max {limit}")
    return _Wanted(tuple(wanted), AccountView(encoding))


def simulate_transaction(session: SimSession, params: list[Any]) -> Any:
    """``simulateTransaction``, with ``modifyAccountStates`` as the protocol's own option.

    Any blockhash will do, with ``replaceRecentBlockhash`` or without.
    """
    count(params, 1, 2)
    config = options(session, params, 1)
    transaction = _transaction(params[0], config)
    replaced = flag(config, "replaceRecentBlockhash")
    if flag(config, "sigVerify"):
        if replaced:
            raise invalid("sigVerify may not be used with replaceRecentBlockhash")
        _verify(transaction)
    keys = _keys(session, transaction)
    wanted = _wanted_accounts(config, len(keys))
    overrides = config.get("modifyAccountStates")
    simulation = session.simulate(
        [transaction],
        overrides=None
        if overrides is None
        else read_modifications(overrides, "modifyAccountStates"),
        accounts=() if wanted is None else wanted.addresses,
    )
    (outcome,) = simulation.outcomes
    inner = flag(config, "innerInstructions")
    value = simulation_value(
        outcome,
        accounts=None
        if wanted is None
        else _shown(session, wanted, simulation.accounts, outcome.err),
        inner_instructions=inner_parsed(outcome.inner_instructions, keys) if inner else None,
        replacement_blockhash=blockhash_value(session) if replaced else None,
    )
    return with_context(session, value)


def _shown(
    session: SimSession, wanted: _Wanted, accounts: list[Account | None], err: Any
) -> list[Any]:
    if err is not None:  # what a failed transaction wrote is not shown
        return [None] * len(wanted.addresses)
    after = dict(zip(wanted.addresses, accounts, strict=True))

    def lookup(address: str) -> Account | None:
        return after[address] if address in after else session.account(address)

    return [None if a is None else wanted.view.value(a, lookup) for a in accounts]


def _verify(transaction: VersionedTransaction) -> None:
    try:
        verified = all(transaction.verify_with_results())
    except ValueError:
        verified = False
    if not verified:
        raise CallError(
            SIGNATURE_VERIFICATION_FAILURE, "Transaction signature verification failure"
        )


def _keys(session: SimSession, transaction: VersionedTransaction) -> tuple[str, ...]:
    """The transaction's account keys, those that it loads from lookup tables included."""
    message: Any = transaction.message
    loaded = svm.resolve_tables(message, lambda table: session.account(str(table)))
    writable, readonly = loaded or ([], [])
    return tuple(map(str, (*message.account_keys, *writable, *readonly)))


async def send_transaction(session: SimSession, params: list[Any]) -> str:
    """``sendTransaction``: its signature. Runs in the current slot, after its history.

    Neither signatures nor the blockhash are checked, so that any signer can be played. The same
    transaction may be sent again: it runs again.
    """
    count(params, 1, 2)
    _refuse_under_state_replay(session, "sendTransaction", SEND_REMEDY)
    config = options(session, params, 1)
    transaction = _transaction(params[0], config)
    if not flag(config, "skipPreflight"):
        (outcome,) = session.simulate([transaction]).outcomes
        if outcome.err is not None:
            raise CallError(
                PREFLIGHT_FAILURE,
                f"Transaction simulation failed: {sentence(outcome.err)}",
                simulation_value(outcome),
            )
    try:
        executed = await session.send_transaction(transaction)
    except asyncio.CancelledError:
        if not session.closed.is_set():
            raise
        raise CallError(INVALID_REQUEST, "the session was closed") from None
    return executed.signature


def get_fee_for_message(session: SimSession, params: list[Any]) -> Any:
    """``getFeeForMessage``"""
    count(params, 1, 2)
    options(session, params, 1)
    raw = _bytes(params[0], "base64", "message")
    try:
        message = from_bytes_versioned(raw)
    except ValueError as error:
        raise invalid(f"failed to deserialize message: {error}") from error
    return with_context(session, session.engine.fee_for_message(message))


# --- what became of them


def get_transaction(session: SimSession, params: list[Any]) -> Any:
    """``getTransaction``: null for one that the session did not execute, or has forgotten."""
    count(params, 1, 2)
    _refuse_under_state_replay(session, "getTransaction", _HISTORY_REMEDY)
    wanted = signature(params[0])
    value = params[1] if len(params) > 1 else None
    config = {"encoding": value} if isinstance(value, str) else options(session, params, 1)
    encoding = choice(config, "encoding", TRANSACTION_ENCODINGS, "json")
    version = config.get("maxSupportedTransactionVersion")
    executed = session.history.find(wanted)
    if executed is None:
        return None
    return transaction_value(executed, encoding, None if version is None else unsigned(version))


def get_signature_statuses(session: SimSession, params: list[Any]) -> Any:
    """``getSignatureStatuses``: whatever a session executed is final.

    ``searchTransactionHistory`` changes nothing: there is one history.
    """
    count(params, 1, 2)
    _refuse_under_state_replay(session, "getSignatureStatuses", _HISTORY_REMEDY)
    flag(options(session, params, 1), "searchTransactionHistory")
    wanted = [signature(item) for item in strings(params[0], MAX_SIGNATURES)]
    return with_context(session, [_status(session, item) for item in wanted])


def _status(session: SimSession, wanted: str) -> dict[str, Any] | None:
    executed = session.history.find(wanted)
    if executed is None:
        return None
    return {
        "slot": executed.slot,
        "confirmations": None,
        "err": executed.err,
        "status": {"Ok": None} if executed.err is None else {"Err": executed.err},
        "confirmationStatus": "finalized",
    }


METHODS: dict[str, Callable[[SimSession, list[Any]], Any]] = {
    "simulateTransaction": simulate_transaction,
    "sendTransaction": send_transaction,
    "getFeeForMessage": get_fee_for_message,
    "getTransaction": get_transaction,
    "getSignatureStatuses": get_signature_statuses,
}
