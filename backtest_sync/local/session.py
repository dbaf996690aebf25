"""One simulated session. SKELETON, being implemented: names below are what rpc and streams may use.

Everything runs on the server's one event loop; a session's own task executes batch by batch and
yields between batches, so that whoever reads from another task sees a batch boundary.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from typing import TYPE_CHECKING

from backtest_sync.local.feed import Feed

if TYPE_CHECKING:
    from solders.account import Account
    from solders.transaction import VersionedTransaction

    from backtest_sync.local.engine import Engine
    from backtest_sync.local.executed import Executed, Simulation
    from backtest_sync.protocol import AccountData


class SessionState(Enum):
    """Where a session is in its life (protocol/control.md §7)."""

    STARTING = "starting"  # the engine is being made: the endpoint answers 503
    READY = "ready"  # waits for a continue at a block boundary
    PAUSED = "paused"  # the same after a continueTo, perhaps in the middle of a block
    RUNNING = "running"
    COMPLETED = "completed"  # the range was run; reads go on until it is closed
    FAILED = "failed"  # a terminal error was sent; reads go on until it is closed
    CLOSED = "closed"  # gone: the endpoint answers 404


class History:
    """Executed transactions by signature: the newest some thousand, and the user's own."""

    def find(self, signature: str) -> Executed | None:
        raise NotImplementedError


class SimSession:
    """A session: engine, position, control responses, events."""

    id: str  # "backtest_" + 32 hex
    name: str | None
    start_slot: int
    end_slot: int
    replay_account_state: bool
    state: SessionState
    engine: Engine  # from READY on
    feed: Feed
    history: History
    #: set once the session has nothing more to publish (completed, failed or closed). What was
    #: published before has already reached the listeners then.
    finished: asyncio.Event
    #: set when the session is gone (closed, torn down, forgotten)
    closed: asyncio.Event
    #: awaited before every new block: a stream may hold the session back while its subscriber is
    #: far behind. Must return once `closed` is set.
    gates: list[Callable[[], Awaitable[None]]]

    @property
    def is_routable(self) -> bool:
        """Whether the endpoint may serve it (it was ready once and is not closed)."""
        raise NotImplementedError

    @property
    def slot(self) -> int:
        """The current slot: what getSlot answers."""
        raise NotImplementedError

    @property
    def batch_index(self) -> int | None:
        """The batch that runs next in the current block; None at the block's end."""
        raise NotImplementedError

    def account(self, address: str) -> Account | None:
        """An account as reads by address show it: scheduled overrides over the replayed state."""
        raise NotImplementedError

    async def send_transaction(self, transaction: VersionedTransaction) -> Executed:
        """Runs a user's transaction: at once while the session rests, else at the end of the block
        that is running (after its historical transactions). Its events are published.

        Raises RefusedError (a sentence) under replay_account_state or after the end.
        """
        raise NotImplementedError

    def modify_accounts(self, modifications: Mapping[str, AccountData]) -> int:
        """Writes accounts at once (between two batches) and publishes AccountsWritten; the count."""
        raise NotImplementedError

    def simulate(
        self,
        transactions: list[VersionedTransaction],
        *,
        overrides: Mapping[str, AccountData] | None = None,
        accounts: tuple[str, ...] = (),
    ) -> Simulation:
        """Simulates on the current state with the session's scheduled overrides and ``overrides``."""
        raise NotImplementedError
