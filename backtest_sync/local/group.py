"""A parallel run: sub-sessions over the pieces of one range, under one control session."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from backtest_sync.local.refusals import invalid_request, refusal
from backtest_sync.protocol import ErrorKind

if TYPE_CHECKING:
    from backtest_sync.local.session import SimSession


class Group:
    """The sub-sessions of one create request, in the order of their slots."""

    def __init__(self, control_id: str, name: str | None, sessions: list[SimSession]) -> None:
        self.id = control_id
        self.name = name
        self.sessions = {session.id: session for session in sessions}

    def member(self, session_id: str) -> SimSession:
        """The sub-session of that id; RefusedError where it is none of this run, or closed."""
        session = self.sessions.get(session_id)
        if session is None or session.closed.is_set():
            raise refusal(ErrorKind.SESSION_NOT_FOUND, session_id=session_id)
        return session

    def check_sequences(self, last_sequences: Mapping[str, int]) -> None:
        """RefusedError where a cursor is of no sub-session, or ahead of what was sent."""
        for session_id, sequence in last_sequences.items():
            session = self.sessions.get(session_id)
            if session is None:
                raise refusal(ErrorKind.SESSION_NOT_FOUND, session_id=session_id)
            check_sequence(session, sequence)

    @property
    def is_over(self) -> bool:
        """Whether every sub-session is closed."""
        return all(session.closed.is_set() for session in self.sessions.values())

    def close(self) -> None:
        """Ends all sub-sessions."""
        for session in self.sessions.values():
            session.close()


def check_sequence(session: SimSession, sequence: int | None) -> None:
    """RefusedError where ``sequence`` was never sent: the client speaks of another session."""
    if sequence is not None and sequence > session.outbox.sequence:
        raise invalid_request(
            f"last_sequence {sequence} of {session.id}: the newest response has "
            f"{session.outbox.sequence}"
        )
