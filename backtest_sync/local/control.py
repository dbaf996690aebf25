"""The control socket: requests in, a session's responses out (protocol/control.md)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

from backtest_sync.errors import DeserializeError, shorten
from backtest_sync.local.confirmations import Confirmations
from backtest_sync.local.faults import HANDOFF_CODE
from backtest_sync.local.group import Group, check_sequence
from backtest_sync.local.refusals import RefusedError, invalid_request, refusal
from backtest_sync.protocol import (
    AttachBacktestSession,
    AttachParallelControlSessionV2,
    CloseBacktestSession,
    CloseSessionV1,
    Continue,
    ContinueSessionV1,
    ContinueTo,
    ContinueToSessionV1,
    CreateBacktestSession,
    ErrorKind,
    ErrorResponse,
    ParallelSessionAttachedV2,
    ResumeAttachedSession,
    SessionAttached,
    SessionCreated,
    SessionsCreatedV2,
    Success,
    decode_request,
    encode_response,
)

if TYPE_CHECKING:
    from backtest_sync.local.faults import Faults
    from backtest_sync.local.outbox import Outbox
    from backtest_sync.local.registry import Registry
    from backtest_sync.local.session import SimSession
    from backtest_sync.local.wire import Wire
    from backtest_sync.protocol import ErrorDetail, Response

log = logging.getLogger(__name__)

#: What a client missed is sent again when it resumes, or after this, seconds: the reference's plain
#: client never gets past its resume when anything comes between the attach and the answer to it.
REPLAY_AFTER = 0.1
#: Whoever holds a session that somebody else wants must give a sign in this time, seconds.
OWNER_PATIENCE = 1.0


def _endpoint(session: SimSession) -> str:
    """Where the session's endpoint is, relative to the server."""
    return f"/backtest/{session.id}"


def _created(session: SimSession) -> SessionCreated:
    return SessionCreated(session.id, _endpoint(session), session_name=session.name)


class ControlSocket:
    """One control connection: at most one session, or one parallel run, at a time."""

    def __init__(self, wire: Wire, registry: Registry, faults: Faults) -> None:
        self._wire = wire
        self._registry = registry
        self._faults = faults
        self._session: SimSession | None = None
        self._group: Group | None = None
        self._confirmations = Confirmations(wire)
        self._handlers: dict[type, Callable[[Any], Awaitable[None]]] = {
            CreateBacktestSession: self._create,
            AttachBacktestSession: self._attach,
            AttachParallelControlSessionV2: self._attach_group,
            ResumeAttachedSession: self._resume,
            CloseBacktestSession: self._close,
            Continue: self._continue,
            ContinueTo: self._continue,
            ContinueSessionV1: self._continue_one,
            ContinueToSessionV1: self._continue_one,
            CloseSessionV1: self._close_one,
        }

    async def serve(self) -> None:
        """Answers requests until the connection is over, then lets its session know."""
        try:
            while (text := await self._wire.receive()) is not None:
                await self._answer(text)
        finally:
            self._let_go(handed_off=self._wire.closed_with == HANDOFF_CODE)

    async def _answer(self, text: str) -> None:
        try:
            request = decode_request(text)
        except DeserializeError as error:
            self._refuse(invalid_request(shorten(error.reason)).error)
            return
        try:
            await self._handlers[type(request)](request)
        except RefusedError as refused:
            self._refuse(refused.error)
        except Exception as error:  # a defect here must end nobody else's session
            log.exception("request failed: %s", shorten(text))
            self._refuse(
                refusal(ErrorKind.INTERNAL, error=f"{type(error).__name__}: {error}").error
            )

    def _say(self, response: Response) -> None:
        self._wire.send(encode_response(response))

    def _refuse(self, error: ErrorDetail) -> None:
        # Numbered with the session's own responses: one that is lost on its way comes again.
        if self._session is not None and not self._session.closed.is_set():
            self._session.outbox.put(ErrorResponse(error))
        else:
            self._say(ErrorResponse(error))

    # --- as a sink of outboxes -------------------------------------------------------------------
    def deliver(self, outbox: Outbox, text: str) -> None:
        """Queues a response for the client."""
        self._wire.send(text)
        if outbox.retains:
            self._confirmations.sent(outbox)

    def urge(self) -> None:
        """Asks the client to confirm what it has, now."""
        self._confirmations.urge()

    async def drained(self) -> None:
        """Waits while much is queued for the client."""
        await self._wire.drained()

    async def is_alive(self) -> bool:
        """Whether the client gives a sign of life."""
        return await self._wire.is_alive(OWNER_PATIENCE)

    def drop(self) -> None:
        """Somebody else takes over what this connection held."""
        self._let_go(handed_off=False)
        self._wire.reset()

    # --- creating --------------------------------------------------------------------------------
    async def _create(self, request: CreateBacktestSession) -> None:
        self._check_free()
        made = self._registry.reclaim(request)
        if made is None and request.capacity_wait_timeout_secs:
            await self._wire.answer_pings_during(
                self._registry.wait_for_room(request, lambda: self._wire.is_gone)
            )
            made = self._registry.reclaim(request)
        if isinstance(made, Group):
            await self._take_over(made.sessions.values())
            self._announce(made, resend=True)
        elif made is not None:
            await self._take_over([made])
            self._session = made
            self._say(_created(made))
            self._claim(made, None)
            made.resume()
        elif request.parallel:
            self._announce(self._registry.create_group(request), resend=False)
        else:
            session = self._session = self._registry.create(request)
            session.outbox.attach(self)
            # Not kept: a create that is sent again is answered anew.
            session.outbox.put(_created(session), keep=False)
            session.begin()

    def _announce(self, group: Group, *, resend: bool) -> None:
        self._group = group
        sessions = list(group.sessions.values())
        for session in sessions:
            self._say(_created(session))
            if resend:
                self._claim(session, None)
                session.resume()
            else:
                session.outbox.attach(self)
        self._say(
            SessionsCreatedV2(
                group.id,
                tuple(session.id for session in sessions),
                (None,) * len(sessions),
                tuple(session.start_slot for session in sessions),
                tuple(session.end_slot for session in sessions),
                group.name,
            )
        )
        if not resend:
            for session in sessions:
                session.begin()

    # --- attaching -------------------------------------------------------------------------------
    async def _attach(self, request: AttachBacktestSession) -> None:
        self._check_free()
        self._check_ownership()
        session = self._registry.session(request.session_id)
        if session.is_sub_session:
            raise invalid_request(
                f"{session.id} belongs to a parallel run: attach its control session with "
                "attachParallelControlSessionV2"
            )
        await self._take_over([session])
        check_sequence(session, request.last_sequence)
        self._session = session
        self._say(SessionAttached(session.id, _endpoint(session), session_name=session.name))
        session.control_found(request.last_sequence)
        session.outbox.claim(self, request.last_sequence)
        asyncio.get_running_loop().call_later(REPLAY_AFTER, self._start, session)

    def _start(self, session: SimSession) -> None:
        if session.outbox.sink is self:
            session.outbox.start()

    async def _attach_group(self, request: AttachParallelControlSessionV2) -> None:
        self._check_free()
        self._check_ownership()
        group = self._registry.group(request.control_session_id)
        group.check_sequences(request.last_sequences)
        await self._take_over(group.sessions.values())
        self._group = group
        ids = tuple(group.sessions)
        self._say(ParallelSessionAttachedV2(group.id, ids, (None,) * len(ids)))
        for session in group.sessions.values():
            self._claim(session, request.last_sequences.get(session.id))
            session.resume()  # no resume follows on this path (protocol/managed.md §8)

    def _claim(self, session: SimSession, last_sequence: int | None) -> None:
        if session.closed.is_set():
            return
        session.control_found(last_sequence)
        session.outbox.attach(self, last_sequence)

    def _check_free(self) -> None:
        held = self._session or self._group
        if held is not None and not self._is_over():
            raise invalid_request(
                f"this connection already serves {held.id}: close it first, or open another one"
            )

    def _is_over(self) -> bool:
        if self._group is not None:
            return self._group.is_over
        return self._session is None or self._session.closed.is_set()

    def _check_ownership(self) -> None:
        if self._faults.is_busy():
            raise refusal(ErrorKind.SESSION_OWNERSHIP_BUSY, reason="ownership is being handed over")

    async def _take_over(self, sessions: Iterable[SimSession]) -> None:
        """Frees the sessions from a connection that is dead; RefusedError while it is alive."""
        for session in sessions:
            while isinstance(owner := session.outbox.sink, ControlSocket) and owner is not self:
                if await owner.is_alive():
                    raise refusal(
                        ErrorKind.SESSION_OWNERSHIP_BUSY,
                        reason=f"{session.id} is attached to another control connection",
                    )
                owner.drop()
            if session.closed.is_set():
                raise refusal(ErrorKind.SESSION_NOT_FOUND, session_id=session.id)

    # --- driving ---------------------------------------------------------------------------------
    def _held(self, what: str) -> SimSession:
        if self._session is not None and self._session.closed.is_set():
            raise refusal(ErrorKind.SESSION_NOT_FOUND, session_id=self._session.id)
        if self._session is None:
            hint = ": use its session-tagged form in a parallel run" if self._group else ""
            raise invalid_request(f"{what} without a session on this connection{hint}")
        return self._session

    async def _continue(self, request: Continue | ContinueTo) -> None:
        session = self._held(request.method)
        session.outbox.start()
        self._pass_on(session, request)

    async def _continue_one(self, request: ContinueSessionV1 | ContinueToSessionV1) -> None:
        session = self._member(request.session_id)
        try:
            self._pass_on(session, request.request)
        except RefusedError as refused:
            session.outbox.put(ErrorResponse(refused.error))

    def _pass_on(self, session: SimSession, request: Continue | ContinueTo) -> None:
        if isinstance(request, Continue):
            session.request_continue(request)
        else:
            session.request_continue_to(request)

    async def _resume(self, request: ResumeAttachedSession) -> None:
        held = [] if self._group is not None else [self._held(request.method)]
        self._say(Success())
        for session in held or self._sessions():
            session.outbox.start()
            session.resume()

    def _sessions(self) -> list[SimSession]:
        if self._group is not None:
            return list(self._group.sessions.values())
        return [] if self._session is None else [self._session]

    def _member(self, session_id: str) -> SimSession:
        if self._group is None:
            raise invalid_request(
                "a session-tagged request without a parallel run on this connection"
            )
        return self._group.member(session_id)

    # --- closing ---------------------------------------------------------------------------------
    async def _close(self, request: CloseBacktestSession) -> None:
        if self._group is not None:
            self._group.close()
            self._say(Success())
            self._group = None
            return
        session = self._held(request.method)
        session.outbox.put(Success())
        session.close()
        self._session = None

    async def _close_one(self, request: CloseSessionV1) -> None:
        session = self._member(request.session_id)
        session.outbox.put(Success())
        session.close()

    def _let_go(self, *, handed_off: bool) -> None:
        self._confirmations.stop()
        sessions = self._sessions()
        self._session = self._group = None
        for session in sessions:
            if session.outbox.sink is self:
                session.control_lost(handed_off=handed_off)
