"""What the server answers when it can't do what it was asked: the protocol's errors, in sentences."""

from __future__ import annotations

from typing import Any

from backtest_sync.protocol import ErrorDetail, ErrorKind

#: Protocol/subscriptions.md §8: what replaying recorded state can't serve.
STATE_REPLAY = (
    "{operation} is not supported while account state replay is enabled: replay reconstructs "
    "account state from the recorded delta bundle instead of executing transactions, so this "
    "session never executes or persists any. {remedy}"
)
SEND_REMEDY = (
    "Use simulateTransaction to run it against the replayed state, or create the session without "
    "replayAccountState."
)
SEND_ACTION_REMEDY = (
    "Use kind: simulate, which runs against the replayed state without committing, post state "
    "directly with an action carrying accountOverrides and no transactions, or create the session "
    "without replayAccountState."
)
NO_RECORDING = (
    "replayed state is resolved by the recording that begins where the request does, so request a "
    "range that begins where one was recorded and ends within it"
)


class RefusedError(Exception):
    """A request that is answered with an error. ``error`` is what goes to the client."""

    def __init__(self, error: ErrorDetail) -> None:
        super().__init__(str(error))
        self.error = error


def refusal(kind: ErrorKind, **fields: Any) -> RefusedError:
    """A refusal with the protocol's error of that kind (protocol/control.md §6)."""
    return RefusedError(ErrorDetail(kind, fields))


def invalid_request(sentence: str) -> RefusedError:
    """A request that can't be followed as it is; ``sentence`` says why and what can."""
    return refusal(ErrorKind.INVALID_REQUEST, error=sentence)


def unsupported(what: str) -> RefusedError:
    """Something that only the real service can do."""
    return invalid_request(
        f"{what} needs the hosted service: this local simulator replays a bundle and has nothing "
        "behind it that could"
    )
