"""How subscriptions are framed: requests, acks, end markers (protocol/subscriptions.md §2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from backtest_sync.protocol import jsontext
from backtest_sync.protocol.fields import U64_MAX

END_MARKER = "subscriptionComplete"


def subscribe_request(request_id: int, method: str, params: Sequence[Any]) -> str:
    """The text that asks for one subscription."""
    return jsontext.dumps(
        {"jsonrpc": "2.0", "id": request_id, "method": method, "params": list(params)}
    )


def with_options(params: Sequence[Any], options: Mapping[str, Any]) -> list[Any]:
    """``params`` with ``options`` merged into the object at its second place, made where it is missing."""
    if not options:
        return list(params)
    first, target, *rest = params if len(params) > 1 else (*params, {})
    return [first, {**target, **options}, *rest]


def options(
    *,
    commitment: str | None = None,
    replay_from_slot: int | None = None,
    compression: bool = False,
    intra_slot_updates: bool = False,
) -> dict[str, Any]:
    """The option object; what is not asked for is left out (§2.1)."""
    asked: dict[str, Any] = {}
    if commitment is not None:
        asked["commitment"] = commitment
    if replay_from_slot is not None:
        asked["replayFromSlot"] = replay_from_slot
    if compression:
        asked["compression"] = "zstd"
    if intra_slot_updates:
        asked["intraSlotUpdates"] = True
    return asked


@frozen
class Ack:
    """The answer to one subscribe request: its id (``None`` where it is none of ours), and either the
    subscription's id or what was wrong.
    """

    request_id: int | None
    subscription: int | None
    problem: str | None


def read_ack(message: Any) -> Ack | None:
    """The answer that a decoded message is; ``None`` for anything else."""
    if not isinstance(message, dict) or "id" not in message or "method" in message:
        return None
    request_id = message["id"] if is_id(message["id"]) else None
    error, result = message.get("error"), message.get("result")
    if error is not None:
        return Ack(request_id, None, f"subscribe rejected: {jsontext.dumps(error)}")
    if not is_id(result):
        return Ack(request_id, None, "subscribe ack missing result")
    return Ack(request_id, result, None)


def is_id(value: Any) -> bool:
    """Whether a JSON value can be a subscription's id."""
    return type(value) is int and 0 <= value <= U64_MAX


def is_end_marker(message: Any) -> bool:
    """Whether a decoded message says that a subscription has nothing more to send (§2.2)."""
    return isinstance(message, dict) and message.get("method") == END_MARKER


def subscription_of(message: Mapping[str, Any]) -> int | None:
    """The subscription that a notification or an end marker belongs to; ``None`` where it names none."""
    params = message.get("params")
    subscription = params.get("subscription") if isinstance(params, dict) else None
    return subscription if is_id(subscription) else None
