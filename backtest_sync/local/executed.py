"""What an execution gives: results in Solana's own JSON shapes. SKELETON, being implemented."""

from __future__ import annotations

from enum import Enum, IntFlag
from typing import TYPE_CHECKING, Any

from attrs import define, frozen

if TYPE_CHECKING:
    from solders.account import Account
    from solders.transaction import VersionedTransaction


class Source(str, Enum):
    """Where a result comes from."""

    EXECUTED = "executed"  # a historical transaction that the engine executed
    PLAYED_BACK = "playedBack"  # a historical one taken from the recorded meta, not executed
    USER = "user"  # sent by the user: RPC, Continue or a send action


class Capture(IntFlag):
    """What is recorded of each transaction beyond what the engine hands out anyway."""

    NONE = 0
    BALANCES = 1  # lamport and token balances: needed for getTransaction, summary, transactions
    DIFFS = 2  # accounts before and after: needed for account and program streams, diffs
    ALL = 3


@frozen(eq=False)
class AccountChange:
    """One account that a transaction changed; ``None``: did not exist, or no longer does."""

    address: str
    pre: Account | None
    post: Account | None


@define(eq=False)
class Executed:
    """One transaction's result. JSON parts are built when asked for."""

    slot: int
    index: int  # in its block; user transactions count on after the last historical one
    batch_index: int | None  # None for user transactions
    signature: str
    transaction: VersionedTransaction
    raw: bytes
    source: Source
    block_time: int | None
    keys: tuple[str, ...]
    loaded_writable: tuple[str, ...]
    loaded_readonly: tuple[str, ...]
    err: Any  # None or Solana's JSON form: {"InstructionError": [0, {"Custom": 6001}]}
    changes: tuple[AccountChange, ...]  # empty unless DIFFS were captured

    @property
    def logs(self) -> list[str]: ...  # type: ignore[empty-body]
    @property
    def units(self) -> int: ...  # type: ignore[empty-body]
    @property
    def fee(self) -> int: ...  # type: ignore[empty-body]
    @property
    def inner_instructions(self) -> list[dict[str, Any]]: ...  # type: ignore[empty-body]
    @property
    def return_data(self) -> dict[str, Any] | None: ...
    @property
    def pre_balances(self) -> list[int]: ...  # type: ignore[empty-body]
    @property
    def post_balances(self) -> list[int]: ...  # type: ignore[empty-body]
    @property
    def pre_token_balances(self) -> list[dict[str, Any]]: ...  # type: ignore[empty-body]
    @property
    def post_token_balances(self) -> list[dict[str, Any]]: ...  # type: ignore[empty-body]
    @property
    def invoked(self) -> frozenset[str]:
        """Programs that really ran, at top level or by CPI."""
        raise NotImplementedError

    def meta(self) -> dict[str, Any]:
        """The whole ``meta`` as in getTransaction / getBlock (json encoding of instructions)."""
        raise NotImplementedError


@define(eq=False)
class Simulated:
    """One simulated transaction. Same JSON forms as Executed; nothing was committed."""

    err: Any
    logs: list[str]
    units: int
    fee: int
    return_data: dict[str, Any] | None
    inner_instructions: list[dict[str, Any]]


@define(eq=False)
class Simulation:
    """Outcomes of a chain of simulated transactions (each sees the writes of those before it).

    A failing one is the last. ``accounts``: state afterwards of the addresses asked for, in order.
    """

    outcomes: list[Simulated]
    accounts: list[Account | None]
