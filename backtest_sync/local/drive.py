"""The task that runs a session: what it was asked to run to, and how it gets there.

Where a session waits at slot *S*, the history of *S* has run: what is sent then comes after it, in
*S*, and a continue goes on to the next block. Only the first block waits with its history until the
first continue.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from typing import TYPE_CHECKING

from attrs import define

from backtest_sync.errors import BacktestClientError
from backtest_sync.local.actions import read_actions
from backtest_sync.local.checks import check_accounts, check_target, read_transactions
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
    from solders.transaction import VersionedTransaction

    from backtest_sync.local.bundle import Bundle
    from backtest_sync.local.executed import Executed
    from backtest_sync.local.outbox import Outbox
    from backtest_sync.protocol import AccountData, Continue, ContinueTo, CreateBacktestSession

log = logging.getLogger(__name__)

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
class Blocks:
    """Run until so many more blocks were begun and their history has run."""

    left: int


@define(eq=False)
class Until:
    """Run until just before a batch of a slot, or to the end of the slot's history."""

    slot: int
    batch_index: int | None


class Drive:
    """One session's execution. Responses go to ``outbox``, events to the replay's feed."""

    def __init__(self, params: CreateBacktestSession, bundle: Bundle, outbox: Outbox) -> None:
        self.params = params
        self.state = SessionState.STARTING
        #: COMPLETED or FAILED, once it is one of them.
        self.outcome: SessionState | None = None
        #: Set when the session was ready for the first time; also when it is closed.
        self.routable = asyncio.Event()
        #: Set once nothing more will be published; what was has reached the listeners by then.
        self.finished = asyncio.Event()
        #: Awaited before every new block: a stream holds the session back by one of these.
        self.gates: list[Callable[[], Awaitable[None]]] = []
        actions = read_actions(params.actions, replaying_state=params.replay_account_state)
        self.replay = Replay(params, bundle, actions, self._simulation_failed)
        self._outbox = outbox
        self._scan = DiscoveryScan(params.discoveries, self.replay.coming_blocks(), outbox.put)
        self._goal: Blocks | Until | None = None
        self._asked = asyncio.Event()
        self._may_run = asyncio.Event()
        self._may_run.set()
        self._announced = 0  # the sequence of the last readiness
        self._transactions: list[VersionedTransaction] | None = None
        self._sends: list[tuple[VersionedTransaction, asyncio.Future[Executed]]] = []
        self._nudge: asyncio.TimerHandle | None = None

    # --- requests --------------------------------------------------------------------------------
    def take_continue(self, request: Continue) -> None:
        """Takes a continue: what comes of it goes to the outbox. RefusedError if it can't be followed."""
        self._check_open("continue")
        if self.state is SessionState.STARTING:
            raise invalid_request("continue before the session is ready: wait for readyForContinue")
        if self.state is SessionState.RUNNING:
            raise invalid_request(
                "continue while the session is running: wait for readyForContinue or paused"
            )
        transactions = read_transactions(request.transactions)
        if transactions and self.params.replay_account_state:
            operation = "A continue with transactions"
            raise invalid_request(STATE_REPLAY.format(operation=operation, remedy=SEND_REMEDY))
        check_accounts(request.modify_accounts)
        try:
            self.replay.write_accounts(request.modify_accounts)
        except BacktestClientError as error:
            raise invalid_request(f"modifyAccountStates: {error}") from error
        self._status(BacktestStatus.DECODED_TRANSACTIONS)
        self._status(BacktestStatus.APPLIED_ACCOUNT_MODIFICATIONS)
        self._transactions = (self._transactions or []) + transactions
        self._go(Blocks(request.advance_count))

    def take_continue_to(self, request: ContinueTo) -> None:
        """Takes a continueTo, also before readiness and in the middle of a continue (§8.6)."""
        self._check_open("continueTo")
        if isinstance(self._goal, Until):
            raise invalid_request(
                f"continueTo while the session runs to slot {self._goal.slot}: wait for paused"
            )
        check_target(request, self.replay)
        self._go(Until(request.slot, request.batch_index))

    def _check_open(self, what: str) -> None:
        if self.state is SessionState.COMPLETED:
            raise refusal(ErrorKind.NO_MORE_BLOCKS)
        if self.state in _OVER:
            raise invalid_request(f"{what} after the session {self.state.value}")

    def _go(self, goal: Blocks | Until) -> None:
        self._stop_nudge()
        self._goal = goal
        if self.state in _WAITING:
            self.state = SessionState.RUNNING
        self._may_run.set()
        self._asked.set()

    async def send(self, transaction: VersionedTransaction) -> Executed:
        """Executes and commits a user's transaction in the current slot.

        At once while the session waits; while it runs, after the history of the block under way.
        """
        if self.params.replay_account_state:
            raise invalid_request(
                STATE_REPLAY.format(operation="sendTransaction", remedy=SEND_REMEDY)
            )
        if self.state in _OVER:
            raise invalid_request(f"the session is {self.state.value}: its last slot is over")
        if self.state is SessionState.RUNNING and self._may_run.is_set():
            result: asyncio.Future[Executed] = asyncio.get_running_loop().create_future()
            self._sends.append((transaction, result))
            return await result
        executed = self.replay.send(transaction)
        self.replay.rest()
        return executed

    def modify_accounts(self, modifications: Mapping[str, AccountData]) -> None:
        """Writes accounts at once; InvalidParamsError for what can't be written."""
        self.replay.write_accounts(modifications)
        if self.state is not SessionState.RUNNING:
            self.replay.rest()

    # --- holding ---------------------------------------------------------------------------------
    def hold(self) -> None:
        """Stops at the next batch boundary: nobody is there to be told."""
        self._may_run.clear()
        self._run_sends()

    def release(self) -> None:
        """Goes on after ``hold``."""
        self._may_run.set()

    def is_announced_by(self, last_sequence: int | None) -> bool:
        """Whether a client that has everything up to this sequence knows of the last readiness."""
        return last_sequence is not None and last_sequence >= self._announced

    def announce_again(self) -> None:
        """Says once more that the session waits, if it does."""
        if self.state in _WAITING:
            self._announce(ReadyForContinue())

    def stop(self) -> None:
        """The session is closed. Its task must be cancelled by whoever made it."""
        self.state = SessionState.CLOSED
        self._stop_nudge()
        self._scan.close()
        self._refuse_sends(invalid_request("the session was closed"))
        self.replay.release()
        self._finish()
        self.routable.set()

    # --- the task ---------------------------------------------------------------------------------
    async def live(self) -> None:
        """The session's life, to be run as a task: ends when nothing more can be asked of it."""
        try:
            await self._start()
            while True:
                await self._asked.wait()
                self._asked.clear()
                # a continueTo in the middle of a run was served by that run
                if self._goal is not None and not await self._run():
                    break
            self._complete()
        except RefusedError as refused:
            self._fail(refused)
        except Exception as error:
            log.exception("session failed")
            self._fail(refusal(ErrorKind.INTERNAL, error=f"{type(error).__name__}: {error}"))

    async def _start(self) -> None:
        self._status(BacktestStatus.STARTING_RUNTIME)
        await asyncio.sleep(0)
        self.replay.start()
        self._status(BacktestStatus.PROGRAM_ACCOUNTS_LOADED)
        await self._look_ahead()
        self.routable.set()
        self._outbox.put(SlotNotification(self.replay.slot))
        if isinstance(self._goal, Until):  # asked for already: a discovery came before readiness
            self._announce(ReadyForContinue())
            self.state = SessionState.RUNNING
        else:
            self._rest(SessionState.READY, ReadyForContinue())

    async def _run(self) -> bool:
        """Runs to the goal, or to the end of the range: ``False``."""
        replay, yielded = self.replay, time.monotonic()
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
        if isinstance(goal, Until):
            # the target slot itself, which may have no block
            self._rest(SessionState.PAUSED, Paused(goal.slot, goal.batch_index))
        else:
            self._status(BacktestStatus.EXECUTED_BLOCK_TRANSACTIONS)
            self._rest(SessionState.READY, ReadyForContinue())
        return True

    def _is_reached(self, goal: Blocks | Until | None) -> bool:
        replay = self.replay
        if goal is None:
            return True
        if isinstance(goal, Blocks):
            return goal.left == 0 and self._transactions is None and replay.is_block_done
        if replay.slot == goal.slot and goal.batch_index is not None:
            return self.replay.engine.next_batch >= goal.batch_index
        coming = replay.next_slot
        beyond = coming is None or coming > goal.slot
        return replay.is_block_done and beyond

    async def _next_block(self, goal: Blocks | Until | None) -> bool:
        self._run_sends()
        if self._transactions is not None:
            self._status(BacktestStatus.READY_TO_EXECUTE_USER_TRANSACTIONS)
            await asyncio.sleep(0)
            self._run_sends()
            for transaction in self._transactions:
                self.replay.send(transaction)
            self._transactions = None
            self._status(BacktestStatus.EXECUTED_USER_TRANSACTIONS)
            self._status(BacktestStatus.EXECUTING_BLOCK_TRANSACTIONS)
            if self._is_reached(self._goal):  # a continue that advances by no block
                return True
        if self.replay.next_slot is None:
            self.replay.close_block()
            return False
        for gate in tuple(self.gates):
            await gate()
        await self._outbox.room()
        if self._goal is not goal or not self._may_run.is_set():
            return True  # asked for something else meanwhile, or held: look again
        self.replay.close_block()
        if isinstance(goal, Blocks):
            goal.left -= 1
        self.replay.open_next()
        self._outbox.put(SlotNotification(self.replay.slot))
        await self._look_ahead()
        return True

    async def _look_ahead(self) -> None:
        await self._scan.look_ahead(self.replay.slot, self.replay.engine.next_batch)

    def _run_sends(self) -> None:
        sends, self._sends = self._sends, []
        for transaction, result in sends:
            if not result.done():
                result.set_result(self.replay.send(transaction))

    def _refuse_sends(self, refused: RefusedError) -> None:
        for _, result in self._sends:
            if not result.done():
                result.set_exception(refused)
        self._sends.clear()

    def _rest(self, state: SessionState, response: ReadyForContinue | Paused) -> None:
        self._run_sends()
        self._goal = None
        self.state = state
        self.replay.rest()
        self._announce(response)
        if state is SessionState.PAUSED and self._scan.is_done_before(
            self.replay.slot, self.replay.engine.next_batch
        ):
            loop = asyncio.get_running_loop()
            self._nudge = loop.call_later(IDLE_AFTER_LAST_DISCOVERY, self._say_ready)

    def _say_ready(self) -> None:
        # A client that only walks from discovery to discovery waits for one that will never come;
        # this is what makes it run the rest of the range.
        self._nudge = None
        if self.state is SessionState.PAUSED:
            self._announce(ReadyForContinue())

    def _announce(self, readiness: ReadyForContinue | Paused) -> None:
        self._outbox.put(readiness)
        self._announced = self._outbox.sequence

    def _stop_nudge(self) -> None:
        if self._nudge is not None:
            self._nudge.cancel()
            self._nudge = None

    def _complete(self) -> None:
        self._status(BacktestStatus.EXECUTED_BLOCK_TRANSACTIONS)
        self.state = self.outcome = SessionState.COMPLETED
        summary = self.replay.engine.summary
        self._outbox.put(
            Completed(
                SessionSummary(
                    correct_simulation=summary.correct_simulation,
                    incorrect_simulation=summary.incorrect_simulation,
                    execution_errors=summary.execution_errors,
                    balance_diff=summary.balance_diff,
                    log_diff=summary.log_diff,
                    unsanitizable=summary.unsanitizable,
                    played_back=summary.played_back,
                )
                if self.params.send_summary
                else None
            )
        )
        self._finish()

    def _fail(self, refused: RefusedError) -> None:
        self.state = self.outcome = SessionState.FAILED
        self._outbox.put(ErrorResponse(refused.error))
        self._refuse_sends(refused)
        self._finish()

    def _finish(self) -> None:
        self.replay.feed.end()
        self.finished.set()

    def _simulation_failed(self, reason: str) -> None:
        self._outbox.put(ErrorResponse(ErrorDetail(ErrorKind.SIMULATION_ERROR, {"error": reason})))

    def _status(self, status: BacktestStatus) -> None:
        self._outbox.put(StatusResponse(status))
