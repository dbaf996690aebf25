"""Opening a subscription connection: connect, ask for everything, wait until all of it is acknowledged."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import field, frozen

from backtest_sync.connection import Connection, ReconnectPolicy, check_policy
from backtest_sync.errors import (
    ConnectError,
    DeserializeError,
    InvalidParamsError,
    RequestTimeoutError,
    SessionClosedError,
)
from backtest_sync.feed import MAX_QUEUE_BYTES, Feed, Topic, logger, parsed, unpacked
from backtest_sync.frames import MAX_MESSAGE_BYTES
from backtest_sync.limits import HANDSHAKE_LIMIT, Deadline, check_timeout
from backtest_sync.protocol import blobs, pubsub
from backtest_sync.protocol.fields import shown, to_bool, to_uint
from backtest_sync.urls import http_to_ws_url

if TYPE_CHECKING:
    import ssl

N = TypeVar("N")

_COMMITMENTS = ("processed", "confirmed", "finalized")
_MAX_REPLAY_SLOT = 2**63 - 1  # the server reads an i64, and takes anything else as nothing
_SERVICE_UNAVAILABLE = 503


def _to_commitment(value: object) -> str | None:
    if value is not None and value not in _COMMITMENTS:
        due = ", ".join(_COMMITMENTS)
        raise InvalidParamsError(f"commitment: expected one of {due}, got {shown(value)}")
    return value


def _to_slot(value: object) -> int | None:
    return None if value is None else to_uint(value, "replay_from_slot", _MAX_REPLAY_SLOT)


def _to_compression(value: object) -> bool:
    return blobs.is_available() if value is None else to_bool(value, "compression")


def _to_intra_slot_updates(value: object) -> bool:
    return to_bool(value, "intra_slot_updates")


@frozen(kw_only=True)
class Options:
    """How to subscribe: the keywords of `subscriptions.StreamOptions`, checked."""

    commitment: str | None = field(default=None, converter=_to_commitment)
    replay_from_slot: int | None = field(default=None, converter=_to_slot)
    compression: bool = field(default=None, converter=_to_compression)
    intra_slot_updates: bool = field(default=False, converter=_to_intra_slot_updates)
    timeout: float | None = field(default=None, converter=check_timeout)
    reconnect: ReconnectPolicy | None = field(factory=ReconnectPolicy, converter=check_policy)
    ssl_context: ssl.SSLContext | None = None

    def to_json(self) -> dict[str, Any]:
        """The option object of a request."""
        return pubsub.options(
            commitment=self.commitment,
            replay_from_slot=self.replay_from_slot,
            compression=self.compression,
            intra_slot_updates=self.intra_slot_updates,
        )


def open_feed(endpoint: str, topic: Topic[N], options: Options) -> Feed[N]:
    """Connect to a session endpoint and subscribe.

    `SubscriptionError` with its cause when there is no connection or no acknowledgement.
    """
    url = http_to_ws_url(endpoint)
    unzip = blobs.StreamDecompressor(MAX_MESSAGE_BYTES).feed if options.compression else None
    limit = Deadline(options.timeout)
    connection = _connect(url, topic, limit, options.ssl_context)
    try:
        set_up = _SetUp(topic, connection, unzip, limit)
        set_up.ask(options.to_json())
    except BaseException:
        connection.close()
        raise
    return Feed(topic, connection, set_up.subscriptions, set_up.rest, unzip)


def _connect(
    url: str, topic: Topic[Any], limit: Deadline, ssl_context: ssl.SSLContext | None
) -> Connection:
    # the server may park an upgrade while the session starts (protocol/subscriptions.md)
    timeout = limit.sooner(HANDSHAKE_LIMIT).remaining()
    try:
        return Connection.open(
            url,
            name=f"{topic.kind} {topic.target}",
            headers={},
            connect_timeout=HANDSHAKE_LIMIT if timeout is None else timeout,
            ssl_context=ssl_context,
            max_queue_bytes=MAX_QUEUE_BYTES // 2,
        )
    except (ConnectError, RequestTimeoutError) as error:
        hint = ""
        if isinstance(error, ConnectError) and error.status == _SERVICE_UNAVAILABLE:
            hint = "; the endpoint answers once the session is ready: call ensure_ready first"
        raise topic.error(f"{error}{hint}", error) from error


class _SetUp:
    """The requests of a topic, until the last is acknowledged; ``rest`` is what came besides, in order."""

    def __init__(
        self,
        topic: Topic[Any],
        connection: Connection,
        unzip: Callable[[bytes], bytes] | None,
        limit: Deadline,
    ) -> None:
        self.subscriptions: set[int] = set()
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._unread: deque[bytes] = deque()
        self._topic = topic
        self._connection = connection
        self._unzip = unzip
        self._limit = limit

    def ask(self, options: dict[str, Any]) -> None:
        """Send every request, together or one by one, and wait for the acknowledgements."""
        waiting: set[int] = set()
        for request_id, params in enumerate(self._topic.params, 1):
            self._send(request_id, pubsub.with_options(params, options))
            waiting.add(request_id)
            if self._topic.one_by_one:
                self._await_acks(waiting)
        self._await_acks(waiting)

    @property
    def rest(self) -> list[bytes]:
        """What is not an acknowledgement, in plain, and then what was not looked at."""
        return [*self._held, *self._unread]

    def _send(self, request_id: int, params: Sequence[Any]) -> None:
        text = pubsub.subscribe_request(request_id, f"{self._topic.method}Subscribe", params)
        try:
            self._connection.send(text, self._limit.sooner(HANDSHAKE_LIMIT))
        except (SessionClosedError, RequestTimeoutError) as error:
            raise self._topic.error(f"could not subscribe: {error}", error) from error

    def _await_acks(self, waiting: set[int]) -> None:
        while waiting:
            if not self._unread:
                self._unread.extend(self._receive())
            ack = self._read(self._unread.popleft())
            if ack is not None:
                self._heed(ack, waiting)

    def _heed(self, ack: pubsub.Ack, waiting: set[int]) -> None:
        if ack.request_id not in waiting and (ack.request_id is not None or ack.problem is None):
            logger.warning("%s passed over an answer: %s", self._topic.kind, ack)
        elif ack.problem is not None:
            raise self._topic.error(ack.problem)
        elif ack.request_id is not None and ack.subscription is not None:
            waiting.discard(ack.request_id)
            self.subscriptions.add(ack.subscription)

    def _receive(self) -> list[bytes]:
        limit = self._limit.sooner(HANDSHAKE_LIMIT)
        messages = self._connection.receive(limit)
        if messages:
            return messages
        end = self._connection.end
        if end is not None:
            reason = f"closed before the subscribe acknowledgement: {end.reason}"
            raise self._topic.error(reason, end.error())
        timeout = RequestTimeoutError(
            "waiting for the subscribe acknowledgement", limit.timeout or 0
        )
        raise self._topic.error(str(timeout), timeout)

    def _read(self, message: bytes) -> pubsub.Ack | None:
        """The acknowledgement that a message is. Anything else is held."""
        try:
            # the decoder needs every frame, though acknowledgements come as text alone
            plain = unpacked(message, self._unzip)
            zipped = self._unzip is not None and plain is not message
            ack = None if zipped else pubsub.read_ack(parsed(plain))
        except DeserializeError as error:
            raise self._topic.unreadable(error) from error
        if ack is not None:
            return ack
        self._held.append(plain)
        self._held_bytes += len(plain)
        if self._held_bytes > MAX_QUEUE_BYTES // 2:
            raise self._topic.error(f"{self._held_bytes} bytes came before the acknowledgement")
        return None
