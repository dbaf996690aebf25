"""Notifications of a session endpoint's subscriptions (protocol/subscriptions.md §2, §5).

Each is a typed view of the JSON that the server sent, kept in ``.raw``. Its shape is checked once, when it is made
from that JSON (`DeserializeError`). What is costly to turn into values, such as account data, is turned when it is
asked for; what is wrong inside of it is the same error, then. Keys that are not known stay in ``.raw``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from attrs import field, frozen

from backtest_sync.errors import DeserializeError
from backtest_sync.protocol import jsontext
from backtest_sync.protocol.accounts import Account
from backtest_sync.protocol.fields import b58decode, b58encode, b64decode
from backtest_sync.protocol.shape import Mismatch, described

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_NONE = type(None)
_TEXT = frozenset((str, _NONE))
_NUMBER = frozenset((int, _NONE))
_LIST = frozenset((list, _NONE))
_SIGNATURE_BYTES = 64


@frozen
class Context:
    """Where in the run a notification belongs."""

    slot: int


@frozen(init=False, repr=False, hash=False)
class Notification:
    """What all notifications share: ``raw``, the ``result`` that the server sent.

    Made from that JSON; `DeserializeError` when it has another shape. Equal by ``raw``.
    """

    raw: Mapping[str, Any]

    def __init__(self, raw: Any) -> None:
        try:
            self._check(raw)
        except Mismatch as error:
            raise refused(type(self), f"{error.path()}: {error.reason}", raw) from None
        except KeyError as error:
            raise refused(type(self), f"missing field `{error.args[0]}`", raw) from None
        except (TypeError, AttributeError):
            raise refused(type(self), "not an object where one is due", raw) from None
        _set_raw(self, raw)

    def _check(self, raw: Any) -> None:
        """Raise for a shape that the class can't read."""
        raise NotImplementedError

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.raw,)

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._shown())
        return f"{type(self).__name__}({shown})"

    def _shown(self) -> tuple[str, ...]:
        """The properties that tell one from another."""
        raise NotImplementedError


# values are frozen: the slot itself is the way in
_set_raw: Callable[[Notification, Any], None] = Notification.__dict__["raw"].__set__


def refused(cls: type, reason: str, raw: Any) -> DeserializeError:
    """The error for JSON that is no ``cls``."""
    return DeserializeError(f"{cls.__name__}: {reason}", jsontext.dumps(raw))


def wrong(key: str, due: str, value: Any) -> NoReturn:
    """Say that the value of a key is not what is due."""
    raise Mismatch(f"expected {due}, got {described(value)}").under(f".{key}")


def check_number(key: str, value: Any) -> None:
    """The rule for slots."""
    if type(value) is not int or value >> 64:
        wrong(key, "a u64", value)


def check_object(key: str, value: Any) -> None:
    """The rule for what is read later."""
    if type(value) is not dict:
        wrong(key, "an object", value)


class WithContext(Notification):
    """What most notifications have besides ``raw``: ``context.slot``."""

    __slots__ = ()

    @property
    def context(self) -> Context:
        """The slot that it belongs to."""
        return Context(self.raw["context"]["slot"])


# --- the simulator's own streams
#
# The two that carry most know the usual shape at a glance in `__init__`; what differs goes through `_check`, which
# has the last word.


@frozen
class LogValue:
    """One transaction's logs. ``err``: Solana's JSON form of the failure, or ``None``."""

    signature: str
    err: Any
    logs: tuple[str, ...]


class LogNotification(WithContext):
    """The logs of one transaction that mentions the program (``logsNotification``)."""

    __slots__ = ()

    def __init__(self, raw: Any) -> None:
        try:
            slot, value = raw["context"]["slot"], raw["value"]
            if (
                type(slot) is int
                and not slot >> 64
                and type(value["signature"]) is str
                and type(value["logs"]) is list
                and "err" in value
            ):
                _set_raw(self, raw)
                return
        except (KeyError, TypeError):
            pass
        super().__init__(raw)

    def _check(self, raw: Any) -> None:
        check_number("context.slot", raw["context"]["slot"])
        value = raw["value"]
        value["err"]
        if type(value["signature"]) is not str:
            wrong("value.signature", "a string", value["signature"])
        if type(value["logs"]) is not list:
            wrong("value.logs", "a list", value["logs"])

    @property
    def value(self) -> LogValue:
        """Signature, error and log lines of the transaction."""
        value = self.raw["value"]
        return LogValue(value["signature"], value["err"], tuple(value["logs"]))

    def __repr__(self) -> str:
        slot, value = self.raw["context"]["slot"], self.value
        return (
            f"LogNotification(slot={slot}, signature={value.signature!r}, err={value.err!r}, "
            f"logs=<{len(value.logs)} lines>)"
        )


@frozen(init=False, repr=False, hash=False)
class AccountDiffNotification(WithContext):
    """One account before and after one transaction (``accountDiffNotification``).

    Everything but the slot may be unknown (``None``). `pre` is ``None`` too for an account that was created,
    `post` for one that is gone. Keys are in snake case here (protocol/subscriptions.md §5.1).
    """

    _pre: Account | None = field(init=False, eq=False)
    _post: Account | None = field(init=False, eq=False)

    def __init__(self, raw: Any) -> None:
        try:
            slot = raw["context"]["slot"]
            if (
                type(slot) is int
                and not slot >> 64
                and type(raw["account"]) is str
                and type(raw["signature"]) is str
                and ("tx_index" not in raw or type(raw["tx_index"]) in _NUMBER)
                and ("block_time" not in raw or type(raw["block_time"]) in _NUMBER)
            ):
                _set_raw(self, raw)
                return
        except (KeyError, TypeError):
            pass
        super().__init__(raw)

    def _check(self, raw: Any) -> None:
        check_number("context.slot", raw["context"]["slot"])
        for key in ("account", "signature"):
            if type(raw.get(key)) not in _TEXT:
                wrong(key, "a string", raw[key])
        for key in ("tx_index", "block_time"):
            if type(raw.get(key)) not in _NUMBER:
                wrong(key, "an integer", raw[key])

    @property
    def account(self) -> str | None:
        """The address of the account that changed."""
        return self.raw.get("account")

    @property
    def signature(self) -> str | None:
        """The transaction that changed it."""
        return self.raw.get("signature")

    @property
    def tx_index(self) -> int | None:
        """The transaction's position in its slot."""
        return self.raw.get("tx_index")

    @property
    def block_time(self) -> int | None:
        """Unix seconds."""
        return self.raw.get("block_time")

    @property
    def pre(self) -> Account | None:
        """The account before. `DeserializeError` where that is no account."""
        try:
            return self._pre
        except AttributeError:
            account = _account(self.raw.get("pre"))
            _set_pre(self, account)
            return account

    @property
    def post(self) -> Account | None:
        """The account after. `DeserializeError` where that is no account."""
        try:
            return self._post
        except AttributeError:
            account = _account(self.raw.get("post"))
            _set_post(self, account)
            return account

    def __repr__(self) -> str:
        return (
            f"AccountDiffNotification(slot={self.raw['context']['slot']}, "
            f"account={self.account!r}, signature={self.signature!r})"
        )


_set_pre: Callable[[Any, Any], None] = AccountDiffNotification.__dict__["_pre"].__set__
_set_post: Callable[[Any, Any], None] = AccountDiffNotification.__dict__["_post"].__set__


def _account(value: Any) -> Account | None:
    return None if value is None else Account.from_ui(value)


class TransactionNotification(Notification):
    """One transaction that mentions the program, as ``getTransaction`` gives it (``transactionNotification``).

    ``raw`` has ``slot``, ``blockTime``, ``transaction`` (Solana's JSON form or an encoded one), ``meta`` and
    ``version``. What ``meta`` would tell is ``None``, and `logs` empty, where it is missing.
    """

    __slots__ = ()

    def _check(self, raw: Any) -> None:
        check_number("slot", raw["slot"])
        if type(raw.get("blockTime")) not in _NUMBER:
            wrong("blockTime", "an integer", raw["blockTime"])
        version = raw.get("version")
        if version is not None and version != "legacy" and type(version) is not int:
            wrong("version", '"legacy" or a number', version)
        _check_transaction(raw["transaction"])
        meta = raw.get("meta")
        if meta is not None:
            check_object("meta", meta)
            for key in ("fee", "computeUnitsConsumed"):
                if type(meta.get(key)) not in _NUMBER:
                    wrong(f"meta.{key}", "an integer", meta[key])
            if type(meta.get("logMessages")) not in _LIST:
                wrong("meta.logMessages", "a list", meta["logMessages"])

    @property
    def slot(self) -> int:
        """The slot that it ran in."""
        slot: int = self.raw["slot"]
        return slot

    @property
    def block_time(self) -> int | None:
        """Unix seconds."""
        return self.raw.get("blockTime")

    @property
    def signature(self) -> str:
        """Its first signature, in base58. `DeserializeError` where the encoded transaction has none."""
        return _signature_of(self.raw["transaction"])

    @property
    def err(self) -> Any:
        """Solana's JSON form of the failure; ``None`` for a success."""
        return self._meta.get("err")

    @property
    def logs(self) -> tuple[str, ...]:
        """Its log lines."""
        return tuple(self._meta.get("logMessages") or ())

    @property
    def fee(self) -> int | None:
        """Lamports."""
        return self._meta.get("fee")

    @property
    def compute_units(self) -> int | None:
        """What it consumed."""
        return self._meta.get("computeUnitsConsumed")

    @property
    def _meta(self) -> Mapping[str, Any]:
        return self.raw.get("meta") or {}

    def __repr__(self) -> str:
        try:
            signature: str | None = self.signature
        except DeserializeError:
            signature = None
        return (
            f"TransactionNotification(slot={self.slot}, signature={signature!r}, err={self.err!r})"
        )


def _check_transaction(transaction: Any) -> None:
    """Encoded text, text and its encoding, or an object with signatures."""
    if isinstance(transaction, dict):
        if type(transaction.get("signatures")) is list:
            return
    elif isinstance(transaction, list):
        text, encoding = transaction if len(transaction) == 2 else (None, None)
        if isinstance(text, str) and encoding in ("base64", "base58"):
            return
    elif isinstance(transaction, str):
        return
    raise Mismatch("expected a transaction in JSON, base64 or base58").under(".transaction")


def _signature_of(transaction: Any) -> str:
    if isinstance(transaction, dict):
        signatures = transaction["signatures"]
        if signatures and isinstance(signatures[0], str):
            return signatures[0]
    else:
        # a count in one byte (it is never above 127), then the signatures
        text, encoding = (transaction, "base58") if isinstance(transaction, str) else transaction
        try:
            data = b58decode(text) if encoding == "base58" else b64decode(text)
        except ValueError as error:
            raise DeserializeError(f"bad {encoding} in a transaction: {error}", text) from error
        if len(data) > _SIGNATURE_BYTES and data[0]:
            return b58encode(data[1 : 1 + _SIGNATURE_BYTES])
    raise DeserializeError("the transaction has no signature", jsontext.dumps(transaction))
