"""One simulated session: what a client may ask of it, and the task that does it.

Everything runs on the server's one event loop. A session's task executes batch by batch and yields
between batches, so that whoever reads from another task sees a batch boundary.

Where a session waits at slot *S*, the history of *S* has run: what is sent then comes after it, in
*S*, and a continue goes on to the next block. Only the first block waits with its history until the
first continue.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any

from attrs import define

from backtest_sync.errors import BacktestClientError
from backtest_sync.local import svm
from backtest_sync.local.actions import read_actions
from backtest_sync.local.discovery import DiscoveryScan
from backtest_sync.local.refusals import (
    SEND_REMEDY,
    STATE_REPLAY,
    RefusedError,
    invalid_request,
    refusal,
)
from backtest_sync.local.replay import Replay
from backtest_sync.protocol import (
    BacktestStatus,
    Completed,
    ErrorDetail,
    ErrorKind,
    ErrorResponse,
    Paused,
    ReadyForContinue,
    SessionSummary,
    SlotNotification,
    StatusResponse,
)

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

log = logging.getLogger(__name__)

#: The longest that a session outlives its control connection, seconds (protocol/control.md §4.1).
MAX_DISCONNECT_TIMEOUT = 900
#: How long a session executes before others on the loop get their turn, seconds.
SLICE = 0.002
#: A client that walks from discovery to discovery is told that it may go on after this, seconds.
IDLE_AFTER_LAST_DISCOVERY = 0.5


class SessionState(Enum):
    """Where a session is in its life (protocol/control.md §7)."""

    STARTING = "starting"  # the engine is being made: the endpoint answers 503
    READY = "ready"  # waits for a continue at a block boundary
    PAUSED = "paused"  # the same after a continueTo, perhaps in the middle of a block
    RUNNING = "running"
    COMPLETED = "completed"  # the range was run; reads go on until it is closed
    FAILED = "failed"  # a terminal error was sent; reads go on until it is closed
    CLOSED = "closed"  # gone: the endpoint answers 404


_WAITING = (SessionState.READY, SessionState.PAUSED)
_OVER = (SessionState.COMPLETED, SessionState.FAILED, SessionState.CLOSED)


@define(eq=False)
class _Blocks:
    """Run until so many more blocks were begun and their history has run."""

    left: int


@define(eq=False)
class _Until:
    """Run until just before a batch of a slot, or to the end of the slot's history."""

    slot: int
    batch_index: int | None


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
        name: str | None = None,
        on_closed: Callable[[SimSession], None],
    ) -> None:
        self.id = session_id
        self.name = name
        self.params = params
        self.start_slot = params.start_slot
        self.end_slot = params.end_slot
        self.replay_account_state = params.replay_account_state
        self.timeout = timeout
        self.state = SessionState.STARTING
        self.outbox = outbox
        self.started_at = time.time()
        self.started = time.monotonic()
        self.ended_at: float | None = None
        #: COMPLETED or FAILED, once it is one of them.
        self.outcome: SessionState | None = None
        #: Set once nothing more will be published; what was has reached the listeners by then.
        self.finished = asyncio.Event()
        #: Set when the session is gone.
        self.closed = asyncio.Event()
        #: Awaited before every new block: a stream holds the session back by one of these.
        self.gates: list[Callable[[], Awaitable[None]]] = []
        self.handed_off = False
        #: Set when the session was ready for the first time; also when it is gone.
        self.routable = asyncio.Event()
        actions = read_actions(params.actions, replaying_state=params.replay_account_state)
        self._replay = Replay(params, bundle, actions, self._simulation_failed)
        self._scan = DiscoveryScan(
            params.discoveries, self._replay.coming_blocks(), self.outbox.put
        )
        self._on_closed = on_closed
        self._goal: _Blocks | _Until | None = None
        self._asked = asyncio.Event()
        self._may_run = asyncio.Event()
        self._may_run.set()
        self._transactions: list[VersionedTransaction] | None = None
        self._sends: list[tuple[VersionedTransaction, asyncio.Future[Executed]]] = []
        self._teardown: asyncio.TimerHandle | None = None
        self._nudge: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Starts the session's task; its first responses follow."""
        self._task = asyncio.create_task(self._live(), name=self.id)

    # --- what the endpoint sees ------------------------------------------------------------------
    @property
    def is_routable(self) -> bool:
        """Whether the endpoint may serve it: it was ready once and is not closed."""
        return self.routable.is_set() and self.state is not SessionState.CLOSED

    @property
    def is_sub_session(self) -> bool:
        """Whether it is one of a parallel run."""
        return self.outbox.wraps

    @property
    def engine(self) -> Engine:
        """The engine; from readiness on."""
        return self._replay.engine

    @property
    def feed(self) -> Feed:
        """What happens in the session, for the streams."""
        return self._replay.feed

    @property
    def history(self) -> History:
        """Executed transactions by signature."""
        return self._replay.history

    @property
    def slot(self) -> int:
        """The current slot: what getSlot answers."""
        return self._replay.slot

    @property
    def executed_slots(self) -> int:
        """How many blocks were run to their end."""
        return self._replay.executed_slots

    def account(self, address: str) -> Account | None:
        """An account as reads by address show it: scheduled overrides over the replayed state."""
        return self._replay.account(address)

    async def send_transaction(self, transaction: VersionedTransaction) -> Executed:
        """Executes and commits a user's transaction in the current slot.

        At once while the session waits; while it runs, after the history of the block under way.
        RefusedError says why it can't be.
        """
        if self.replay_account_state:
            raise invalid_request(
                STATE_REPLAY.format(operation="sendTransaction", remedy=SEND_REMEDY)
            )
        if self.state in _OVER:
            raise invalid_request(f"the session is {self.state.value}: its last slot is over")
        if self.state is SessionState.RUNNING and self._may_run.is_set():
            result: asyncio.Future[Executed] = asyncio.get_running_loop().create_future()
            self._sends.append((transaction, result))
            return await result
        executed = self._replay.send(transaction)
        self._replay.rest()
        return executed

    def modify_accounts(self, modifications: Mapping[str, AccountData]) -> int:
        """Writes accounts at once; how many. InvalidParamsError for what can't be written."""
        self._replay.write_accounts(modifications)
        if self.state is not SessionState.RUNNING:
            self._replay.rest()
        return len(modifications)

    def simulate(
        self,
        transactions: Sequence[VersionedTransaction],
        *,
        overrides: Mapping[str, AccountData] | None = None,
        accounts: Sequence[str] = (),
    ) -> Simulation:
        """Simulates on the current state, the scheduled overrides and ``overrides`` over it."""
        return self._replay.simulate(transactions, overrides=overrides, accounts=accounts)

    # --- what the control connection asks --------------------------------------------------------
    def request_continue(self, request: Continue) -> None:
        """Takes a continue: what comes of it goes to the outbox. RefusedError if it can't be followed."""
        self._check_open("continue")
        if self.state is SessionState.STARTING:
            raise invalid_request("continue before the session is ready: wait for readyForContinue")
        if self.state is SessionState.RUNNING:
            raise invalid_request(
                "continue while the session is running: wait for readyForContinue or paused"
            )
        transactions = _read_transactions(request.transactions)
        if transactions and self.replay_account_state:
            operation = "A continue with transactions"
            raise invalid_request(STATE_REPLAY.format(operation=operation, remedy=SEND_REMEDY))
        _check_accounts(request.modify_accounts)
        try:
            self._replay.write_accounts(request.modify_accounts)
        except BacktestClientError as error:
            raise invalid_request(f"modifyAccountStates: {error}") from error
        self._status(BacktestStatus.DECODED_TRANSACTIONS)
        self._status(BacktestStatus.APPLIED_ACCOUNT_MODIFICATIONS)
        self._transactions = (self._transactions or []) + transactions
        self._go(_Blocks(request.advance_count))

    def request_continue_to(self, request: ContinueTo) -> None:
        """Takes a continueTo, also before readiness and in the middle of a continue (§8.6)."""
        self._check_open("continueTo")
        if isinstance(self._goal, _Until):
            raise invalid_request(
                f"continueTo while the session runs to slot {self._goal.slot}: wait for paused"
            )
        self._check_target(request)
        self._go(_Until(request.slot, request.batch_index))

    def _check_open(self, what: str) -> None:
        if self.state is SessionState.COMPLETED:
            raise refusal(ErrorKind.NO_MORE_BLOCKS)
        if self.state in _OVER:
            raise invalid_request(f"{what} after the session {self.state.value}")
        if self.handed_off:
            raise invalid_request(
                f"{what} while the session is paused for a handoff: send resumeAttachedSession"
            )

    def _check_target(self, target: ContinueTo) -> None:
        slot, index = target.slot, target.batch_index
        if not self.start_slot <= slot <= self.end_slot:
            raise invalid_request(
                f"continueTo slot {slot} is outside of the session's "
                f"{self.start_slot}..={self.end_slot}"
            )
        if index is not None:
            batches = self._replay.batches_in(slot)
            if batches is None:
                raise invalid_request(f"continueTo batch {index}: slot {slot} has no block")
            if index > batches:
                raise invalid_request(
                    f"continueTo batch {index}: slot {slot} has {batches} batches"
                )
        if self.state is SessionState.STARTING:
            return
        position = (self.slot, self.engine.next_batch)
        if slot < position[0] or (slot == position[0] and (index or position[1]) < position[1]):
            raise invalid_request(
                f"continueTo slot {slot}, batch {index}: the session is already at slot "
                f"{position[0]}, batch {position[1]}"
            )

    def _go(self, goal: _Blocks | _Until) -> None:
        self._stop_nudge()
        self._goal = goal
        if self.state in _WAITING:
            self.state = SessionState.RUNNING
        self._may_run.set()
        self._asked.set()

    def resume(self) -> None:
        """Lets a session that was attached to go on."""
        self.handed_off = False
        self._may_run.set()

    # --- losing and finding the control connection -----------------------------------------------
    def control_lost(self, *, handed_off: bool = False) -> None:
        """The control connection is gone: hold, and end when nobody comes back in time."""
        if self.state is SessionState.CLOSED:
            return
        self.outbox.detach()
        self._may_run.clear()
        self._run_sends()
        self.handed_off = handed_off
        if self.timeout == 0:
            self.close()
        else:
            loop = asyncio.get_running_loop()
            self._teardown = loop.call_later(self.timeout, self.close)

    def control_found(self) -> None:
        """Somebody attached: the session is not torn down."""
        if self._teardown is not None:
            self._teardown.cancel()
            self._teardown = None

    def close(self) -> None:
        """Ends the session and frees what it holds. Idempotent."""
        if self.state is SessionState.CLOSED:
            return
        self.state = SessionState.CLOSED
        self.ended_at = time.time()
        self.control_found()
        self._stop_nudge()
        if self._task is not None:
            self._task.cancel()
        for _, result in self._sends:
            result.cancel()
        self._sends.clear()
        self.outbox.release()
        self._scan.close()
        self.finished.set()
        self.closed.set()
        self.routable.set()
        self._on_closed(self)

    # --- the session's task ----------------------------------------------------------------------
    async def _live(self) -> None:
        try:
            await self._start()
            while True:
                await self._asked.wait()
                self._asked.clear()
                if not await self._run():
                    break
            self._complete()
        except RefusedError as refused:
            self._fail(refused)
        except Exception as error:
            log.exception("session %s failed", self.id)
            self._fail(refusal(ErrorKind.INTERNAL, error=f"{type(error).__name__}: {error}"))

    async def _start(self) -> None:
        self._status(BacktestStatus.STARTING_RUNTIME)
        await asyncio.sleep(0)
        self._replay.start()
        self._status(BacktestStatus.PROGRAM_ACCOUNTS_LOADED)
        await self._look_ahead()
        self.routable.set()
        self.outbox.put(SlotNotification(self.slot))
        if isinstance(self._goal, _Until):  # asked for already: a discovery came before readiness
            self.outbox.put(ReadyForContinue())
            self.state = SessionState.RUNNING
        else:
            self._rest(SessionState.READY, ReadyForContinue())

    async def _run(self) -> bool:
        """Runs to the goal, or to the end of the range: ``False``."""
        replay, yielded = self._replay, time.monotonic()
        while not self._is_reached(goal := self._goal):
            if not replay.is_block_done:
                replay.run_batch()
            elif not await self._next_block(goal):
                return False
            if not self._may_run.is_set():
                await self._may_run.wait()
            elif time.monotonic() - yielded > SLICE:
                await asyncio.sleep(0)
            else:
                continue
            yielded = time.monotonic()
        await self._look_ahead()
        if isinstance(goal, _Until):
            # the target slot itself, which may have no block
            self._rest(SessionState.PAUSED, Paused(goal.slot, goal.batch_index))
        else:
            self._status(BacktestStatus.EXECUTED_BLOCK_TRANSACTIONS)
            self._rest(SessionState.READY, ReadyForContinue())
        return True

    def _is_reached(self, goal: _Blocks | _Until | None) -> bool:
        replay = self._replay
        if goal is None:
            return True
        if isinstance(goal, _Blocks):
            return goal.left == 0 and self._transactions is None and replay.is_block_done
        if replay.slot == goal.slot and goal.batch_index is not None:
            return self.engine.next_batch >= goal.batch_index
        coming = replay.next_slot
        beyond = coming is None or coming > goal.slot
        return replay.is_block_done and beyond

    async def _next_block(self, goal: _Blocks | _Until | None) -> bool:
        self._run_sends()
        if self._transactions is not None:
            self._status(BacktestStatus.READY_TO_EXECUTE_USER_TRANSACTIONS)
            await asyncio.sleep(0)
            self._run_sends()
            for transaction in self._transactions:
                self._replay.send(transaction)
            self._transactions = None
            self._status(BacktestStatus.EXECUTED_USER_TRANSACTIONS)
            self._status(BacktestStatus.EXECUTING_BLOCK_TRANSACTIONS)
            if self._is_reached(self._goal):  # a continue that advances by no block
                return True
        if self._replay.next_slot is None:
            self._replay.close_block()
            return False
        for gate in tuple(self.gates):
            await gate()
        await self.outbox.room()
        if self._goal is not goal or not self._may_run.is_set():
            return True  # asked for something else meanwhile, or held: look again
        self._replay.close_block()
        if isinstance(goal, _Blocks):
            goal.left -= 1
        self._replay.open_next()
        self.outbox.put(SlotNotification(self.slot))
        await self._look_ahead()
        return True

    async def _look_ahead(self) -> None:
        await self._scan.look_ahead(self.slot, self.engine.next_batch)

    def _run_sends(self) -> None:
        sends, self._sends = self._sends, []
        for transaction, result in sends:
            if not result.done():
                result.set_result(self._replay.send(transaction))

    def _rest(self, state: SessionState, response: Any) -> None:
        self._run_sends()
        self._goal = None
        self.state = state
        self._replay.rest()
        self.outbox.put(response)
        if state is SessionState.PAUSED and self._scan.is_done_before(
            self.slot, self.engine.next_batch
        ):
            loop = asyncio.get_running_loop()
            self._nudge = loop.call_later(IDLE_AFTER_LAST_DISCOVERY, self._say_ready)

    def _say_ready(self) -> None:
        # A client that only walks from discovery to discovery waits for one that will never come;
        # this is what makes it run the rest of the range.
        self._nudge = None
        if self.state is SessionState.PAUSED:
            self.outbox.put(ReadyForContinue())

    def _stop_nudge(self) -> None:
        if self._nudge is not None:
            self._nudge.cancel()
            self._nudge = None

    def _complete(self) -> None:
        self._status(BacktestStatus.EXECUTED_BLOCK_TRANSACTIONS)
        self.state = self.outcome = SessionState.COMPLETED
        summary = self.engine.summary
        self.outbox.put(
            Completed(
                SessionSummary(
                    correct_simulation=summary.correct_simulation,
                    incorrect_simulation=summary.incorrect_simulation,
                    execution_errors=summary.execution_errors,
                    balance_diff=summary.balance_diff,
                    log_diff=summary.log_diff,
                    unsanitizable=summary.unsanitizable,
                )
                if self.params.send_summary
                else None
            )
        )
        self.finished.set()

    def _fail(self, refused: RefusedError) -> None:
        self.state = self.outcome = SessionState.FAILED
        self.outbox.put(ErrorResponse(refused.error))
        for _, result in self._sends:
            result.set_exception(refused)
        self._sends.clear()
        self.finished.set()

    def _simulation_failed(self, reason: str) -> None:
        self.outbox.put(ErrorResponse(ErrorDetail(ErrorKind.SIMULATION_ERROR, {"error": reason})))

    def _status(self, status: BacktestStatus) -> None:
        self.outbox.put(StatusResponse(status))


def _read_transactions(texts: Sequence[str]) -> list[VersionedTransaction]:
    """The transactions of a continue; RefusedError names the one that is none."""
    transactions = []
    for index, text in enumerate(texts):
        try:
            raw = svm.decode_base64(text)
        except ValueError as error:
            raise refusal(
                ErrorKind.INVALID_TRANSACTION_ENCODING, index=index, error=str(error)
            ) from error
        try:
            transactions.append(svm.parse_transaction(raw))
        except ValueError as error:
            raise refusal(
                ErrorKind.INVALID_TRANSACTION_FORMAT, index=index, error=str(error)
            ) from error
    return transactions


def _check_accounts(accounts: Mapping[str, AccountData]) -> None:
    for address, account in accounts.items():
        try:
            account.data.bytes  # noqa: B018 - decodes
        except BacktestClientError as error:
            raise refusal(
                ErrorKind.INVALID_ACCOUNT_ENCODING,
                address=address,
                encoding="base64",
                error=str(error),
            ) from error
