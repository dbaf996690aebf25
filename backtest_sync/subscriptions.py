"""Streams of a session endpoint (protocol/subscriptions.md): a function for each, and the handle they give.

Every function connects, subscribes, waits for the acknowledgements and returns a `Subscription`::

    with subscribe_program_logs(session.rpc_endpoint, program_id) as logs:
        for notification in logs:
            print(notification.value.signature)

They raise `InvalidParamsError` for a wrong argument and `SubscriptionError` for what goes wrong on the way, and
take the keywords of `StreamOptions`. ``commitment`` is ``processed``, ``confirmed`` or ``finalized``. Several
addresses share one connection; of repeated ones the first counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

from backtest_sync.errors import InvalidParamsError
from backtest_sync.feed import Feed, Topic
from backtest_sync.protocol.fields import b58decode, b58encode, shown, to_address
from backtest_sync.protocol.notifications import (
    AccountDiffNotification,
    LogNotification,
    TransactionNotification,
)
from backtest_sync.protocol.replacements import ReplacementNotification
from backtest_sync.protocol.reports import ActionResultNotification, DiagnosticNotification
from backtest_sync.protocol.standard import (
    AccountNotification,
    ProgramNotification,
    SignatureNotification,
    SlotInfoNotification,
)
from backtest_sync.subscribe import Options, open_feed
from backtest_sync.subscription import Subscription, drain

if TYPE_CHECKING:
    import ssl

    from typing_extensions import Unpack

    from backtest_sync.connection import ReconnectPolicy
    from backtest_sync.protocol.fields import AddressLike

__all__ = [
    "LinkOptions",
    "StreamOptions",
    "Subscription",
    "drain",
    "subscribe_account",
    "subscribe_account_diffs",
    "subscribe_actions",
    "subscribe_diagnostics",
    "subscribe_program",
    "subscribe_program_diffs",
    "subscribe_program_logs",
    "subscribe_replacements",
    "subscribe_signature",
    "subscribe_slots",
    "subscribe_transactions",
]

N = TypeVar("N")


class LinkOptions(TypedDict, total=False):
    """Keywords of every subscribe function."""

    #: deadline in seconds for the connection and all acknowledgements; ``None``: 120 s for each of them
    timeout: float | None
    #: how a lost connection is to be made again; without effect yet: a lost stream is a `SubscriptionError`
    reconnect: ReconnectPolicy | None
    #: instead of the system's roots, where the endpoint is ``https``
    ssl_context: ssl.SSLContext | None


class StreamOptions(LinkOptions, total=False):
    """Further keywords of every subscribe function but `subscribe_slots`."""

    #: the last slot already processed: the server sends again from there on, that slot included
    replay_from_slot: int | None
    #: zstd; by default where the ``zstandard`` package is installed
    compression: bool | None
    #: one notification for each write, not one a slot (for `subscribe_account` and `subscribe_program`)
    intra_slot_updates: bool


# --- the simulator's own streams


def subscribe_program_logs(
    rpc_endpoint: str,
    program_id: AddressLike,
    commitment: str | None = "confirmed",
    on_notification: Callable[[LogNotification], object] | None = None,
    **options: Unpack[StreamOptions],
) -> Subscription[LogNotification]:
    """Logs of the transactions that mention a program."""
    program = to_address(program_id, "program_id")
    topic = Topic(
        "program logs", program, "logs", LogNotification, (({"mentions": [program]}, {}),)
    )
    return _subscribe(rpc_endpoint, topic, on_notification, commitment=commitment, **options)


def subscribe_account_diffs(
    rpc_endpoint: str,
    account_or_accounts: AddressLike | Iterable[AddressLike],
    on_notification: Callable[[AccountDiffNotification], object] | None = None,
    commitment: str | None = None,
    **options: Unpack[StreamOptions],
) -> Subscription[AccountDiffNotification]:
    """Accounts before and after each transaction that changes them.

    An empty list gives a handle that is completed already, without a connection.
    """
    accounts = _addresses(account_or_accounts, "account_or_accounts")
    topic = Topic(
        "account diff",
        _target(accounts, "accounts"),
        "accountDiff",
        AccountDiffNotification,
        tuple((account,) for account in accounts),
        one_by_one=False,
    )
    return _subscribe(rpc_endpoint, topic, on_notification, commitment=commitment, **options)


def subscribe_program_diffs(
    rpc_endpoint: str,
    program_id_or_ids: AddressLike | Iterable[AddressLike],
    on_notification: Callable[[AccountDiffNotification], object] | None = None,
    commitment: str | None = None,
    **options: Unpack[StreamOptions],
) -> Subscription[AccountDiffNotification]:
    """The accounts of programs before and after each transaction that changes them. No empty list."""
    programs = _programs(program_id_or_ids)
    topic = Topic(
        "program account diff",
        _target(programs, "programs"),
        "accountDiff",
        AccountDiffNotification,
        tuple((program, {"address_type": "program"}) for program in programs),
    )
    return _subscribe(rpc_endpoint, topic, on_notification, commitment=commitment, **options)


def subscribe_transactions(
    rpc_endpoint: str,
    program_id_or_ids: AddressLike | Iterable[AddressLike],
    on_notification: Callable[[TransactionNotification], object] | None = None,
    commitment: str | None = "confirmed",
    **options: Unpack[StreamOptions],
) -> Subscription[TransactionNotification]:
    """The transactions that mention programs, whole. No empty list."""
    programs = _programs(program_id_or_ids)
    topic = Topic(
        "transaction",
        _target(programs, "programs"),
        "transaction",
        TransactionNotification,
        tuple(({"mentions": [program]}, {}) for program in programs),
    )
    return _subscribe(rpc_endpoint, topic, on_notification, commitment=commitment, **options)


def subscribe_actions(
    rpc_endpoint: str,
    on_notification: Callable[[ActionResultNotification], object] | None = None,
    commitment: str | None = None,
    **options: Unpack[StreamOptions],
) -> Subscription[ActionResultNotification]:
    """Results of the session's scheduled actions."""
    topic = _keyless("action", ActionResultNotification.from_json)
    return _subscribe(rpc_endpoint, topic, on_notification, commitment=commitment, **options)


def subscribe_replacements(
    rpc_endpoint: str,
    on_notification: Callable[[ReplacementNotification], object] | None = None,
    commitment: str | None = None,
    **options: Unpack[StreamOptions],
) -> Subscription[ReplacementNotification]:
    """What rerouting did to historical swaps."""
    topic = _keyless("replacement", ReplacementNotification.from_json)
    return _subscribe(rpc_endpoint, topic, on_notification, commitment=commitment, **options)


def subscribe_diagnostics(
    rpc_endpoint: str,
    on_notification: Callable[[DiagnosticNotification], object] | None = None,
    commitment: str | None = None,
    **options: Unpack[StreamOptions],
) -> Subscription[DiagnosticNotification]:
    """Samples of the session's diagnostic probes."""
    topic = _keyless("diagnostic", DiagnosticNotification.from_json)
    return _subscribe(rpc_endpoint, topic, on_notification, commitment=commitment, **options)


# --- Solana's standard streams


def subscribe_account(
    rpc_endpoint: str,
    account: AddressLike,
    on_notification: Callable[[AccountNotification], object] | None = None,
    commitment: str | None = "confirmed",
    **options: Unpack[StreamOptions],
) -> Subscription[AccountNotification]:
    """An account as it is after each slot that wrote it, or with ``intra_slot_updates`` each write."""
    address = to_address(account, "account")
    params = ((address, {"encoding": "base64"}),)
    topic = Topic("account", address, "account", AccountNotification, params)
    return _subscribe(rpc_endpoint, topic, on_notification, commitment=commitment, **options)


def subscribe_program(
    rpc_endpoint: str,
    program_id: AddressLike,
    on_notification: Callable[[ProgramNotification], object] | None = None,
    commitment: str | None = "confirmed",
    **options: Unpack[StreamOptions],
) -> Subscription[ProgramNotification]:
    """The accounts of a program, each as `subscribe_account` gives it."""
    program = to_address(program_id, "program_id")
    params = ((program, {"encoding": "base64"}),)
    topic = Topic("program", program, "program", ProgramNotification, params)
    return _subscribe(rpc_endpoint, topic, on_notification, commitment=commitment, **options)


def subscribe_signature(
    rpc_endpoint: str,
    signature: object,
    on_notification: Callable[[SignatureNotification], object] | None = None,
    commitment: str | None = "confirmed",
    **options: Unpack[StreamOptions],
) -> Subscription[SignatureNotification]:
    """That a transaction was processed: one notification, and the stream is complete.

    ``signature``: base58, its 64 bytes, or an object whose text it is.
    """
    text = _to_signature(signature)
    topic = Topic("signature", text, "signature", SignatureNotification, ((text, {}),), single=True)
    return _subscribe(rpc_endpoint, topic, on_notification, commitment=commitment, **options)


def subscribe_slots(
    rpc_endpoint: str,
    on_notification: Callable[[SlotInfoNotification], object] | None = None,
    **options: Unpack[LinkOptions],
) -> Subscription[SlotInfoNotification]:
    """Each slot that is processed. The stream takes no options of its own, and so is not compressed."""
    topic = Topic("slot", "slots", "slot", SlotInfoNotification, ((),))
    return _subscribe(rpc_endpoint, topic, on_notification, compression=False, **options)


# --- what they share


def _subscribe(
    endpoint: str,
    topic: Topic[N],
    on_notification: Callable[[N], object] | None,
    **options: Any,
) -> Subscription[N]:
    if on_notification is not None and not callable(on_notification):
        raise InvalidParamsError(
            f"on_notification: expected a callable, got {shown(on_notification)}"
        )
    checked = Options(**options)
    feed = open_feed(endpoint, topic, checked) if topic.params else Feed.nothing(topic)
    return Subscription(feed, on_notification)


def _keyless(kind: str, read: Callable[[Any], N]) -> Topic[N]:
    """A stream of the whole session: its first parameter is a placeholder."""
    return Topic(kind, f"{kind}s", kind, read, ((None, {}),))


def _addresses(value: AddressLike | Iterable[AddressLike], field: str) -> list[str]:
    """One address or several, each once, in the order of their first appearance."""
    one = isinstance(value, (str, bytes, bytearray, memoryview)) or hasattr(value, "__bytes__")
    if one or not isinstance(value, Iterable):
        return [to_address(value, field)]
    return list(dict.fromkeys(to_address(item, f"{field}[{i}]") for i, item in enumerate(value)))


def _programs(value: AddressLike | Iterable[AddressLike]) -> list[str]:
    programs = _addresses(value, "program_id_or_ids")
    if not programs:
        raise InvalidParamsError("program_id_or_ids: name at least one program")
    return programs


def _target(addresses: list[str], noun: str) -> str:
    """How errors name what is subscribed to."""
    return addresses[0] if len(addresses) == 1 else f"{len(addresses)} {noun}"


def _to_signature(value: object) -> str:
    if isinstance(value, (bytes, bytearray)):
        value = b58encode(bytes(value))
    text = str(value)
    try:
        size = len(b58decode(text))
    except ValueError as error:
        raise InvalidParamsError(f"signature: {shown(value)} is not base58") from error
    if size != 64:
        raise InvalidParamsError(
            f"signature: expected 64 bytes in base58, got {size} ({shown(value)})"
        )
    return text
