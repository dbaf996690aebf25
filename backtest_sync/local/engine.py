"""One session's chain: a LiteSVM that replays a bundle. SKELETON, being implemented."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from backtest_sync.local.bundle import Block, Bundle
from backtest_sync.local.executed import Capture, Executed, Simulation
from backtest_sync.local.summary import Summary

if TYPE_CHECKING:
    from solders.account import Account
    from solders.transaction import VersionedTransaction

    from backtest_sync.protocol import AccountData


class Engine:
    """Executes blocks batch by batch on a LiteSVM of its own. Not thread-safe."""

    slot: int  # slot that reads show: the open one, or the last closed one
    block: Block | None  # the open block, or the last closed one
    next_batch: int  # index of the batch that run_batch would run, == len(batches) at the end
    summary: Summary

    def __init__(
        self,
        bundle: Bundle,
        start_slot: int,
        *,
        extra_compute_units: int = 0,
        replay_account_state: bool = False,
    ) -> None:
        """Loads the accounts at the range that begins at ``start_slot`` (BundleError if none does)."""

    # --- history -----------------------------------------------------------------------------
    def open_slot(self, block: Block) -> None:
        """Begins a block: Clock and the other sysvars, blockhash; no transaction runs yet."""

    def run_batch(self, capture: Capture = Capture.BALANCES) -> list[Executed]:
        """Runs the next batch of the open block; [] when none is left."""
        raise NotImplementedError

    def close_slot(self) -> None:
        """Ends the open block (its user transactions must have been sent before)."""

    # --- the user's doings ---------------------------------------------------------------------
    def send(
        self, transaction: VersionedTransaction, capture: Capture = Capture.BALANCES
    ) -> Executed:
        """Executes a user's transaction in the current slot and commits it."""
        raise NotImplementedError

    def simulate(
        self,
        transactions: Sequence[VersionedTransaction],
        *,
        overrides: Mapping[str, AccountData] | None = None,
        accounts: Sequence[str] = (),
    ) -> Simulation:
        """Runs transactions on top of ``overrides`` and forgets them; see Simulation."""
        raise NotImplementedError

    def set_accounts(self, modifications: Mapping[str, AccountData]) -> None:
        """Writes accounts at once; a replaced ProgramData takes effect. Lamports 0 removes."""

    # --- reads ---------------------------------------------------------------------------------
    def account(self, address: str) -> Account | None:
        """An account as of now (solders Account: .data .lamports .owner .executable .rent_epoch)."""
        raise NotImplementedError

    def program_accounts(self, program_id: str) -> list[tuple[str, Account]]:
        """Every account that a program owns, ordered by address."""
        raise NotImplementedError

    @property
    def blockhash(self) -> str:
        """Blockhash of the current block."""
        raise NotImplementedError

    @property
    def block_height(self) -> int:
        raise NotImplementedError

    @property
    def block_time(self) -> int | None:
        raise NotImplementedError

    def minimum_balance(self, size: int) -> int:
        """Lamports that make an account of ``size`` data bytes rent exempt."""
        raise NotImplementedError

    def fee_for_message(self, message: bytes) -> int | None:
        """Lamports that the message's transaction would pay (None: not a message)."""
        raise NotImplementedError
