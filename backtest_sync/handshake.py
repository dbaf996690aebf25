"""The exchanges that begin a session: create, attach, resume (protocol/control.md §8.4).

Each sends one request and reads until its acknowledgement. What else arrives belongs to the session: it is
collected and queued behind what is queued already, never read again here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeGuard, TypeVar

from attrs import frozen

from backtest_sync.errors import (
    RemoteError,
    SessionClosedError,
    UnexpectedResponseError,
)
from backtest_sync.protocol import (
    AttachBacktestSession,
    CreateBacktestSession,
    ErrorKind,
    ErrorResponse,
    Paused,
    ReadyForContinue,
    ResumeAttachedSession,
    SessionAttached,
    SessionCreated,
    SessionsCreatedV2,
    Success,
)

if TYPE_CHECKING:
    from backtest_sync.channel import Channel, Item
    from backtest_sync.limits import Deadline
    from backtest_sync.protocol import Request, Response

OnEvent = Callable[["Response"], object]
Ack = TypeVar("Ack", SessionCreated, SessionAttached, Success)


@frozen
class Wait:
    """How long an exchange may take: until ``deadline``, ``silence`` seconds between two messages."""

    deadline: Deadline
    silence: float | None


def create_one(
    channel: Channel, request: CreateBacktestSession, wait: Wait, on_event: OnEvent | None
) -> tuple[SessionCreated, bool]:
    """Create a single session; gives the acknowledgement and whether it is ready already."""
    return _exchange(
        channel, request, SessionCreated, wait, "websocket ended before SessionCreated", on_event
    )


def attach(
    channel: Channel, request: AttachBacktestSession, wait: Wait
) -> tuple[SessionAttached, bool]:
    """Claim an existing session; gives the acknowledgement and whether it is ready already."""
    return _exchange(
        channel, request, SessionAttached, wait, "websocket ended before SessionAttached"
    )


def resume(channel: Channel, wait: Wait) -> bool:
    """Let an attached session go on; whether it said meanwhile that it is ready."""
    _, ready = _exchange(
        channel,
        ResumeAttachedSession(),
        Success,
        wait,
        "websocket ended before ResumeAttachedSession acknowledgement",
    )
    return ready


def create_many(
    channel: Channel,
    request: CreateBacktestSession,
    wait: Wait,
    on_session_created: Callable[[str], object] | None,
) -> list[tuple[str, str | None]]:
    """Create one session, or with ``parallel`` many; gives ``(session_id, task_id)`` of each.

    The final message's ids win; without any, those that were announced one by one count.
    """
    channel.send(request, wait.deadline)
    created: list[tuple[str, str | None]] = []
    while True:
        response = _receive(channel, wait, "websocket ended before SessionCreated")[1]
        if isinstance(response, SessionCreated):
            created.append((response.session_id, response.task_id))
            if on_session_created is not None:
                on_session_created(response.session_id)
            if not request.parallel:
                return created
        elif isinstance(response, SessionsCreatedV2):
            tasks = (*response.task_ids, *([None] * len(response.session_ids)))
            return list(zip(response.session_ids, tasks, strict=False)) or created
        elif isinstance(response, ErrorResponse):
            raise RemoteError(response.error)


def _exchange(
    channel: Channel,
    request: Request,
    ack: type[Ack],
    wait: Wait,
    ended: str,
    on_event: OnEvent | None = None,
) -> tuple[Ack, bool]:
    channel.send(request, wait.deadline)
    early: list[Item] = []
    ready = False
    try:
        while True:
            item = _receive(channel, wait, ended)
            response = item[1]
            if on_event is not None:
                on_event(response)
            if isinstance(response, ack):
                return response, ready
            if ack is SessionCreated and isinstance(response, SessionsCreatedV2):
                raise UnexpectedResponseError("creating single session", response)
            if is_failure(response):
                raise RemoteError(response.error)
            if isinstance(response, (ReadyForContinue, Paused)):
                ready = True
                # after resuming, whoever drives the session by its events must see this one
                if isinstance(response, ReadyForContinue) and ack is not Success:
                    continue
            early.append(item)
    finally:
        channel.put_behind(early)


def _receive(channel: Channel, wait: Wait, ended: str) -> Item:
    item = channel.receive(wait.deadline, wait.silence)
    if item is None:
        raise SessionClosedError(ended)
    return item


def is_failure(response: Response) -> TypeGuard[ErrorResponse]:
    """Whether a response is an error that a waiting method raises: all but ``simulationError``."""
    return isinstance(response, ErrorResponse) and response.error.kind != ErrorKind.SIMULATION_ERROR
