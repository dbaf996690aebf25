"""All the sessions of one simulator: making them, finding them, names, counts."""

from __future__ import annotations

import asyncio
import contextlib
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

from backtest_sync.local.drive import SessionState
from backtest_sync.local.group import Group
from backtest_sync.local.outbox import Outbox
from backtest_sync.local.refusals import (
    NO_RECORDING,
    RefusedError,
    invalid_request,
    refusal,
    unsupported,
)
from backtest_sync.local.session import MAX_DISCONNECT_TIMEOUT, SimSession
from backtest_sync.local.split import covered_range, split
from backtest_sync.protocol import ErrorKind
from backtest_sync.protocol.ids import new_control_session_id, new_session_id

if TYPE_CHECKING:
    from backtest_sync.local.bundle import Bundle
    from backtest_sync.protocol import CreateBacktestSession

#: How long a parallel run outlives its control connection by default, seconds.
PARALLEL_DISCONNECT_TIMEOUT = 900
#: Ended sessions that the usage endpoints still list.
REMEMBERED_SESSIONS = 10_000


@attrs.define
class UsageRecord:
    """One session, as the usage endpoints count it. Times in seconds since 1970."""

    session_id: str
    session_name: str | None
    started_at: float
    ended_at: float | None = None
    duration: float = 0.0
    executed_slots: int = 0
    completed: bool = False
    failed: bool = False


@attrs.define(eq=False)
class _Named:
    """Who has a name: it is never given to anybody else. ``owner``: as long as it is open."""

    token: str | None
    owner: SimSession | Group | None


class Registry:
    """The sessions over one bundle, at most ``max_sessions`` at a time."""

    def __init__(self, bundle: Bundle, max_sessions: int) -> None:
        self.bundle = bundle
        self.max_sessions = max_sessions
        self.started_at = time.time()
        self._sessions: dict[str, SimSession] = {}
        self._groups: dict[str, Group] = {}
        self._names: dict[str, _Named] = {}
        self._room = asyncio.Event()
        self._ended: deque[UsageRecord] = deque(maxlen=REMEMBERED_SESSIONS)

    # --- finding ---------------------------------------------------------------------------------
    def find(self, session_id: str) -> SimSession | None:
        """The open session of that id."""
        return self._sessions.get(session_id)

    def session(self, session_id: str) -> SimSession:
        """The same; RefusedError when there is none."""
        session = self._sessions.get(session_id)
        if session is None:
            raise refusal(ErrorKind.SESSION_NOT_FOUND, session_id=session_id)
        return session

    def group(self, control_id: str) -> Group:
        """The parallel run of that id; RefusedError when there is none."""
        group = self._groups.get(control_id)
        if group is None:
            raise refusal(ErrorKind.SESSION_NOT_FOUND, session_id=control_id)
        return group

    def forget(self, session_id: str) -> bool:
        """Ends a session as if it had never been; whether there was one."""
        session = self._sessions.get(session_id)
        if session is None:
            return False
        session.close()
        return True

    # --- making ----------------------------------------------------------------------------------
    def reclaim(self, request: CreateBacktestSession) -> SimSession | Group | None:
        """What a resent create made already; ``None`` where it is the first of its name.

        RefusedError where the name is somebody else's.
        """
        if request.name is None:
            return None
        named = self._names.get(request.name)
        if named is None:
            return None
        if named.token is None or named.token != request.create_token:
            raise refusal(ErrorKind.SESSION_NAME_TAKEN, session_name=request.name)
        return named.owner

    def create(self, request: CreateBacktestSession) -> SimSession:
        """Makes a single session, not yet begun."""
        self._check_room(len(self._pieces(request)))
        timeout = min(request.disconnect_timeout_secs or 0, MAX_DISCONNECT_TIMEOUT)
        session = self._make(request, timeout, sub_session=False)
        self._take_name(request, session)
        return session

    def create_group(self, request: CreateBacktestSession) -> Group:
        """Makes the sub-sessions of a parallel request, not yet begun."""
        pieces = self._pieces(request)
        self._check_room(len(pieces))
        asked = request.disconnect_timeout_secs
        timeout = PARALLEL_DISCONNECT_TIMEOUT if asked is None else asked
        timeout = min(timeout, MAX_DISCONNECT_TIMEOUT)
        sessions = [
            self._make(
                attrs.evolve(request, start_slot=start, end_slot=end),  # type: ignore[misc]
                timeout,
                sub_session=True,
            )
            for start, end in pieces
        ]
        group = Group(new_control_session_id(_now_ms()), request.name, sessions)
        self._groups[group.id] = group
        self._take_name(request, group)
        return group

    def _pieces(self, request: CreateBacktestSession) -> list[tuple[int, int]]:
        """The range of each session that a request is for; RefusedError where it can't be served."""
        if request.end_slot < request.start_slot:
            raise invalid_request(
                f"endSlot {request.end_slot} is before startSlot {request.start_slot}"
            )
        if request.reroute is not None:
            raise unsupported("rerouting historical swaps through a router (reroute)")
        if request.diagnostic_probes:
            raise unsupported("probing a router (diagnosticProbes)")
        start, end, kind = request.start_slot, request.end_slot, _kind(request)
        if request.parallel:
            split_up = split(self.bundle.ranges, start, end, kind) or ()
            pieces = [piece for piece in split_up if self._has_blocks(*piece)]
        else:
            covered = covered_range(self.bundle.ranges, start, end, kind)
            pieces = [(start, end)] if covered else []
        if not pieces:
            raise _not_covered(request)
        return pieces

    def _make(
        self, params: CreateBacktestSession, timeout: int, *, sub_session: bool
    ) -> SimSession:
        if not self._has_blocks(params.start_slot, params.end_slot):
            raise refusal(
                ErrorKind.NO_PRODUCED_BLOCKS_IN_RANGE,
                start_slot=params.start_slot,
                end_slot=params.end_slot,
            )
        session_id = new_session_id(_now_ms())
        outbox = Outbox(
            retain=timeout > 0 or sub_session, session_id=session_id if sub_session else None
        )
        session = SimSession(
            session_id,
            params,
            self.bundle,
            outbox,
            timeout=timeout,
            on_closed=self._closed,
        )
        self._sessions[session_id] = session
        return session

    def _has_blocks(self, start: int, end: int) -> bool:
        slots = self.bundle.slots
        at = bisect_left(slots, start)
        return at < len(slots) and slots[at] <= end

    def _take_name(self, request: CreateBacktestSession, owner: SimSession | Group) -> None:
        if request.name is not None:
            self._names[request.name] = _Named(request.create_token, owner)

    # --- room ------------------------------------------------------------------------------------
    async def wait_for_room(self, request: CreateBacktestSession, gone: Callable[[], bool]) -> None:
        """Waits until what a request asks for may be made, as long as it says and the client is there.

        RefusedError at once where that can never be.
        """
        deadline = time.monotonic() + (request.capacity_wait_timeout_secs or 0)
        wanted = len(self._pieces(request))
        while self.max_sessions >= wanted > self._free and not gone():
            left = deadline - time.monotonic()
            if left <= 0:
                return
            self._room.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._room.wait(), min(left, 1.0))

    @property
    def _free(self) -> int:
        return self.max_sessions - len(self._sessions)

    def _check_room(self, wanted: int) -> None:
        if wanted > self._free:
            raise invalid_request(
                f"{wanted} more session(s) do not fit: {len(self._sessions)} of at most "
                f"{self.max_sessions} are open; close some, or raise max_sessions"
            )

    # --- ending ----------------------------------------------------------------------------------
    def _closed(self, session: SimSession) -> None:
        self._sessions.pop(session.id, None)
        self._ended.append(_record(session))
        self._room.set()
        self._give_up_name(session)
        for group in list(self._groups.values()):
            if session.id in group.sessions and group.is_over:
                del self._groups[group.id]
                self._give_up_name(group)

    def _give_up_name(self, owner: SimSession | Group) -> None:
        # The name stays taken; what had it is not to be kept for that.
        named = None if owner.name is None else self._names.get(owner.name)
        if named is not None and named.owner is owner:
            named.owner = None

    def close(self) -> None:
        """Ends every session."""
        for session in list(self._sessions.values()):
            session.close()

    # --- counts ----------------------------------------------------------------------------------
    def usage(self) -> list[UsageRecord]:
        """All sessions of this process, ended ones first."""
        return [*self._ended, *(_record(session) for session in self._sessions.values())]


def _kind(request: CreateBacktestSession) -> str:
    return "account_state" if request.replay_account_state else "blocks"


def _not_covered(request: CreateBacktestSession) -> RefusedError:
    if request.replay_account_state:
        return invalid_request(NO_RECORDING)
    return refusal(
        ErrorKind.BUNDLE_NOT_FOUND, start_slot=request.start_slot, end_slot=request.end_slot
    )


def _record(session: SimSession) -> UsageRecord:
    ended = session.ended_at
    return UsageRecord(
        session.id,
        session.name,
        session.started_at,
        ended,
        (ended or time.time()) - session.started_at,
        session.executed_slots,
        completed=session.outcome is SessionState.COMPLETED,
        failed=session.outcome is SessionState.FAILED,
    )


def _now_ms() -> int:
    return int(time.time() * 1000)
