"""Bundles: files of blocks that a local session replays.

SKELETON, being implemented: names and signatures below are what server, session, RPC and streams
may rely on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from attrs import define, frozen

from backtest_sync.errors import BacktestClientError

if TYPE_CHECKING:
    from solders.account import Account
    from solders.pubkey import Pubkey
    from solders.transaction import VersionedTransaction


class BundleError(BacktestClientError, ValueError):
    """A bundle that is missing, damaged or foreign. ``path``, ``line`` (from 1, or None), ``reason``."""

    path: str
    line: int | None
    reason: str


@frozen
class BundleRange:
    """One "bundle" of the protocol: a stretch of slots at whose start a session may begin."""

    start_slot: int
    end_slot: int
    kind: str = "blocks"  # or "account_state"


@define(eq=False)
class BlockTransaction:
    """One historical transaction, parsed once for all sessions. Treat as read-only."""

    index: int  # position in its block
    raw: bytes
    transaction: VersionedTransaction
    signature: str
    keys: tuple[str, ...]  # static, then loaded writable, then loaded read-only
    pubkeys: tuple[Pubkey, ...]  # the same, as solders objects
    writable: tuple[int, ...]  # positions in keys that the transaction locks for writing
    loaded_writable: tuple[str, ...]
    loaded_readonly: tuple[str, ...]
    unresolved: bool  # a lookup table could not be resolved: loaded addresses are unknown
    meta: dict[str, Any] | None  # as recorded (getBlock shape)

    @property
    def programs(self) -> frozenset[str]:
        """Programs invoked, at top level or (as recorded) by CPI."""
        raise NotImplementedError

    @property
    def changes_token_balance(self) -> bool:
        """As recorded: whether some token balance differs before and after."""
        raise NotImplementedError


@define(eq=False)
class Block:
    """One produced block. Read-only, shared by the sessions."""

    slot: int
    parent_slot: int
    blockhash: str
    previous_blockhash: str
    block_time: int | None
    block_height: int | None
    transactions: tuple[BlockTransaction, ...]

    @property
    def batches(self) -> tuple[tuple[BlockTransaction, ...], ...]:
        """The maximal runs of consecutive transactions without lock conflict (computed once)."""
        raise NotImplementedError


class Bundle:
    """An opened bundle. Blocks are read on demand; a bounded number of them is kept parsed."""

    path: str
    source: str  # where it came from, in words
    first_slot: int
    last_slot: int
    ranges: tuple[BundleRange, ...]

    @classmethod
    def open(cls, bundle: str | os.PathLike[str]) -> Bundle:
        """Opens a file (``.jsonl``, ``.jsonl.gz``, ``.jsonl.zst``) or ``"demo"``.

        The whole file is checked. Raises BundleError naming file, line and reason.
        """
        raise NotImplementedError

    @property
    def slots(self) -> Sequence[int]:
        """Slots that produced a block, ascending."""
        raise NotImplementedError

    def block(self, slot: int) -> Block:
        """The block of a slot of ``slots`` (KeyError otherwise)."""
        raise NotImplementedError

    def blocks(self, start_slot: int, end_slot: int) -> Iterator[Block]:
        """The blocks in a slot range, both ends inclusive, in order, read lazily."""
        raise NotImplementedError

    def accounts_at(self, range_start: int) -> dict[str, Account]:
        """The accounts at the start of a range, before its first block."""
        raise NotImplementedError

    def close(self) -> None:
        """Frees what the bundle holds. Sessions on it must be over."""
