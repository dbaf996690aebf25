"""One simulated session, as the endpoint and the control connection see it.

Everything runs on the server's one event loop. A session's task executes batch by batch and yields
between batches, so that whoever reads from another task sees a batch boundary (local/drive.py).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from backtest_sync.local.drive import Drive, SessionState
from backtest_sync.local.refusals import invalid_request

if TYPE_CHECKING:
    from solders.account import Account
    from solders.transaction import VersionedTransaction

    from backtest_sync.local.bundle import Bundle
    from backtest_sync.local.engine import Engine
    from backtest_sync.local.executed import Executed, Simulation
    from backtest_sync.local.feed import Feed
    from backtest_sync.local.history import History
    from backtest_sync.local.outbox import Outbox
    from backtest_sync.protocol import AccountData, Continue, ContinueTo, CreateBacktestSession

#: The longest that a session outlives its control connection, seconds (protocol/control.md §4.1).
MAX_DISCONNECT_TIMEOUT = 900


class SimSession:
    """A session: its chain, its control responses, its events.

    ``timeout``: how long it outlives its control connection, seconds; 0: not at all.
    """

    def __init__(
        self,
        session_id: str,
        params: CreateBacktestSession,
        bundle: Bundle,
        outbox: Outbox,
        *,
        timeout: int,
        on_closed: Callable[[SimSession], None],
    ) -> None:
        """RefusedError where the parameters ask for what can't be done."""
        self.id = session_id
        self.name = params.name
        self.start_slot = params.start_slot
        self.end_slot = params.end_slot
        self.replay_account_state = params.replay_account_state
        self.outbox = outbox
        self.started_at = time.time()
        self.ended_at: float | None = None
        #: Set when the session is gone.
        self.closed = asyncio.Event()
        self._drive = Drive(params, bundle, outbox)
        self._timeout = timeout
        self._on_closed = on_closed
        self._handed_off = False
        self._announce_again = False
        self._teardown: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Starts the session's task; its first responses follow."""
        self._task = asyncio.create_task(self._drive.live(), name=self.id)

    @property
    def state(self) -> SessionState:
        """Where it is in its life."""
        return self._drive.state

    @property
    def outcome(self) -> SessionState | None:
        """COMPLETED or FAILED, once it is one of them; closing does not change it."""
        return self._drive.outcome

    # --- what the endpoint sees ------------------------------------------------------------------
    @property
    def routable(self) -> asyncio.Event:
        """Set when the session was ready for the first time; also when it is closed."""
        return self._drive.routable

    @property
    def is_routable(self) -> bool:
        """Whether the endpoint may serve it: it was ready once and is not closed."""
        return self.routable.is_set() and self.state is not SessionState.CLOSED

    @property
    def finished(self) -> asyncio.Event:
        """Set once nothing more will be published; what was has reached the listeners by then."""
        return self._drive.finished

    @property
    def gates(self) -> list[Callable[[], Awaitable[None]]]:
        """Awaited before every new block: a stream holds the session back by one of these."""
        return self._drive.gates

    @property
    def is_sub_session(self) -> bool:
        """Whether it is one of a parallel run."""
        return self.outbox.wraps

    @property
    def engine(self) -> Engine:
        """The engine; from readiness on."""
        return self._drive.replay.engine

    @property
    def feed(self) -> Feed:
        """What happens in the session, for the streams."""
        return self._drive.replay.feed

    @property
    def history(self) -> History:
        """Executed transactions by signature."""
        return self._drive.replay.history

    @property
    def slot(self) -> int:
        """The current slot: what getSlot answers."""
        return self._drive.replay.slot

    @property
    def executed_slots(self) -> int:
        """How many blocks were run to their end."""
        return self._drive.replay.executed_slots

    def account(self, address: str) -> Account | None:
        """An account as reads by address show it: scheduled overrides over the replayed state."""
        return self._drive.replay.account(address)

    async def send_transaction(self, transaction: VersionedTransaction) -> Executed:
        """Executes and commits a user's transaction in the current slot; RefusedError says why not.

        At once while the session waits; while it runs, after the history of the block under way.
        """
        return await self._drive.send(transaction)

    def modify_accounts(self, modifications: Mapping[str, AccountData]) -> int:
        """Writes accounts at once; how many. InvalidParamsError for what can't be written."""
        self._drive.modify_accounts(modifications)
        return len(modifications)

    def simulate(
        self,
        transactions: Sequence[VersionedTransaction],
        *,
        overrides: Mapping[str, AccountData] | None = None,
        accounts: Sequence[str] = (),
    ) -> Simulation:
        """Simulates on the current state, the scheduled overrides and ``overrides`` over it."""
        return self._drive.replay.simulate(transactions, overrides=overrides, accounts=accounts)

    # --- what the control connection asks --------------------------------------------------------
    def request_continue(self, request: Continue) -> None:
        """Takes a continue: what comes of it goes to the outbox. RefusedError where it can't be."""
        self._check_handed_off(request.method)
        self._drive.take_continue(request)

    def request_continue_to(self, request: ContinueTo) -> None:
        """Takes a continueTo, also before readiness and in the middle of a continue (§8.6)."""
        self._check_handed_off(request.method)
        self._drive.take_continue_to(request)

    def _check_handed_off(self, what: str) -> None:
        if self._handed_off:
            raise invalid_request(
                f"{what} while the session is paused for a handoff: send resumeAttachedSession"
            )

    def resume(self) -> None:
        """Lets a session that was attached to go on, and tells a client that has to go on itself.

        The continue that was to follow a readiness may have been lost with the connection.
        """
        self._handed_off = False
        self._drive.release()
        if self._announce_again:
            self._drive.announce_again()
        self._announce_again = False

    # --- losing and finding the control connection -----------------------------------------------
    def control_lost(self, *, handed_off: bool = False) -> None:
        """The control connection is gone: hold, and end when nobody comes back in time."""
        if self.closed.is_set():
            return
        self.outbox.detach()
        self._drive.hold()
        self._handed_off = handed_off
        if self._timeout == 0:
            self.close()
        else:
            loop = asyncio.get_running_loop()
            self._teardown = loop.call_later(self._timeout, self.close)

    def control_found(self, last_sequence: int | None) -> None:
        """Somebody attached who has everything up to ``last_sequence``."""
        self._stop_teardown()
        self._announce_again = self._drive.is_announced_by(last_sequence)

    def _stop_teardown(self) -> None:
        if self._teardown is not None:
            self._teardown.cancel()
            self._teardown = None

    def close(self) -> None:
        """Ends the session and frees what it holds. Idempotent."""
        if self.closed.is_set():
            return
        self.ended_at = time.time()
        self._stop_teardown()
        if self._task is not None:
            self._task.cancel()
        self._drive.stop()
        self.outbox.release()
        self.closed.set()
        self._on_closed(self)
