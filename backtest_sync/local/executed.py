"""What an execution gives: results in Solana's own JSON shapes."""

from __future__ import annotations

from enum import Enum, IntFlag
from functools import cached_property
from typing import TYPE_CHECKING, Any

from attrs import define, frozen

from backtest_sync.local import svm
from backtest_sync.local.balances import View, token_balances
from backtest_sync.local.blocks import invoked_programs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from solders.account import Account
    from solders.transaction import VersionedTransaction
    from solders.transaction_metadata import TransactionMetadata

    from backtest_sync.local.blocks import BlockTransaction


class Source(str, Enum):
    """Where a result comes from."""

    EXECUTED = "executed"  # a historical transaction, executed
    PLAYED_BACK = "playedBack"  # a historical one whose recorded meta is shown: not executed
    USER = "user"  # sent by the user: RPC, Continue or a send action


class Capture(IntFlag):
    """What is noted of each transaction. What is noted is what costs."""

    NONE = 0
    BALANCES = 1  # lamports and token balances: for getTransaction, transaction streams
    DIFFS = 2  # accounts before and after: for account, program and diff streams
    SUMMARY = 4  # comparison with the recorded outcome
    ALL = 7


@frozen(eq=False)
class AccountChange:
    """An account that changed; ``None``: it did not exist before, or no longer does."""

    address: str
    pre: Account | None
    post: Account | None


@define(eq=False, slots=False, repr=False)
class Executed:
    """A transaction's result. What costs time is put into its JSON form when asked for."""

    slot: int
    block_time: int | None
    batch_index: int | None  # None for user transactions
    index: int  # in its block; user transactions count on after the last historical one
    source: Source
    err: Any  # None, or the JSON form: {"InstructionError": [0, {"Custom": 6001}]}
    changes: Sequence[AccountChange]  # empty unless DIFFS were captured
    _of: BlockTransaction

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.signature}, slot={self.slot}, err={self.err!r})"

    @property
    def signature(self) -> str:
        return self._of.signature

    @property
    def transaction(self) -> VersionedTransaction:
        return self._of.transaction

    @property
    def raw(self) -> bytes:
        """The transaction as it was recorded or sent."""
        return self._of.raw

    @property
    def keys(self) -> tuple[str, ...]:
        """All account keys: static, loaded writable, loaded read-only."""
        return self._of.keys

    @property
    def writable(self) -> tuple[int, ...]:
        """Positions in ``keys`` of what the transaction could write."""
        return self._of.writable

    @property
    def loaded_writable(self) -> tuple[str, ...]:
        return self._of.loaded_writable

    @property
    def loaded_readonly(self) -> tuple[str, ...]:
        return self._of.loaded_readonly

    @cached_property
    def invoked(self) -> frozenset[str]:
        """Programs invoked, at top level or by CPI."""
        return invoked_programs(self.transaction.message, self.keys, self.inner_instructions)

    @property
    def logs(self) -> list[str] | None:
        """Log lines; ``None`` where a played back transaction has none recorded."""
        raise NotImplementedError

    @property
    def units(self) -> int | None:
        """Compute units consumed; ``None`` where a played back transaction has none recorded."""
        raise NotImplementedError

    @property
    def fee(self) -> int:
        """Lamports paid as fee."""
        raise NotImplementedError

    @property
    def inner_instructions(self) -> list[dict[str, Any]] | None:
        """``innerInstructions`` of the json encoding."""
        raise NotImplementedError

    @property
    def return_data(self) -> dict[str, Any] | None:
        """``{"programId", "data": [base64, "base64"]}``."""
        raise NotImplementedError

    @property
    def pre_balances(self) -> list[int]:
        """Lamports of ``keys`` before it; empty unless BALANCES were captured."""
        raise NotImplementedError

    @property
    def post_balances(self) -> list[int]:
        """Lamports of ``keys`` after it; empty unless BALANCES were captured."""
        raise NotImplementedError

    @property
    def pre_token_balances(self) -> list[dict[str, Any]] | None:
        """``preTokenBalances`` as a node lists them."""
        raise NotImplementedError

    @property
    def post_token_balances(self) -> list[dict[str, Any]] | None:
        """``postTokenBalances`` as a node lists them."""
        raise NotImplementedError

    def meta(self) -> dict[str, Any]:
        """The ``meta`` of ``getTransaction`` and ``getBlock`` (json encoding)."""
        meta = {
            "err": self.err,
            "status": {"Ok": None} if self.err is None else {"Err": self.err},
            "fee": self.fee,
            "preBalances": self.pre_balances,
            "postBalances": self.post_balances,
            "innerInstructions": self.inner_instructions,
            "logMessages": self.logs,
            "preTokenBalances": self.pre_token_balances,
            "postTokenBalances": self.post_token_balances,
            "rewards": [],
            "loadedAddresses": {
                "writable": list(self.loaded_writable),
                "readonly": list(self.loaded_readonly),
            },
        }
        if self.return_data is not None:
            meta["returnData"] = self.return_data
        if self.units is not None:
            meta["computeUnitsConsumed"] = self.units
        return meta


@define(eq=False, slots=False, repr=False)
class Ran(Executed):
    """The result of a transaction that the machine executed."""

    _result: TransactionMetadata
    _pre: Sequence[View]
    _post: Sequence[View]
    _decimals: Mapping[bytes, int]

    @cached_property
    def logs(self) -> list[str]:
        return self._result.logs()

    @property
    def units(self) -> int:
        return self._result.compute_units_consumed()

    @property
    def fee(self) -> int:
        return self._result.fee()

    @cached_property
    def inner_instructions(self) -> list[dict[str, Any]]:
        return svm.inner_json(self._result.inner_instructions())

    @property
    def return_data(self) -> dict[str, Any] | None:
        return svm.return_data_json(self._result.return_data())

    @property
    def pre_balances(self) -> list[int]:
        return [view[0] for view in self._pre]

    @property
    def post_balances(self) -> list[int]:
        return [view[0] for view in self._post]

    @property
    def pre_token_balances(self) -> list[dict[str, Any]]:
        return self._token_balances(self._pre)

    @property
    def post_token_balances(self) -> list[dict[str, Any]]:
        return self._token_balances(self._post)

    def _token_balances(self, views: Sequence[View]) -> list[dict[str, Any]]:
        return token_balances(views, self._decimals) if self._of.names_token_program else []


@define(eq=False, slots=False, repr=False)
class PlayedBack(Executed):
    """A historical transaction that could not be executed: what was recorded of it."""

    @property
    def _meta(self) -> dict[str, Any]:
        return self._of.meta or {}

    @property
    def logs(self) -> list[str] | None:
        return self._meta.get("logMessages")

    @property
    def units(self) -> int | None:
        return self._meta.get("computeUnitsConsumed")

    @property
    def fee(self) -> int:
        return int(self._meta.get("fee", 0))

    @property
    def inner_instructions(self) -> list[dict[str, Any]] | None:
        return self._meta.get("innerInstructions")

    @property
    def return_data(self) -> dict[str, Any] | None:
        return self._meta.get("returnData")

    @property
    def pre_balances(self) -> list[int]:
        return list(self._meta["preBalances"])

    @property
    def post_balances(self) -> list[int]:
        return list(self._meta["postBalances"])

    @property
    def pre_token_balances(self) -> list[dict[str, Any]] | None:
        return self._meta.get("preTokenBalances")

    @property
    def post_token_balances(self) -> list[dict[str, Any]] | None:
        return self._meta.get("postTokenBalances")

    def meta(self) -> dict[str, Any]:
        return self._meta


@frozen(eq=False)
class Simulated:
    """One simulated transaction, JSON forms as in Executed; nothing was committed."""

    err: Any
    logs: list[str]
    units: int
    fee: int
    return_data: dict[str, Any] | None
    inner_instructions: list[dict[str, Any]]


@frozen(eq=False)
class Simulation:
    """Outcomes of a chain of simulated transactions: each sees what those before it wrote.

    A failing one is the last. ``accounts``: states afterwards of the addresses asked for, in order.
    """

    outcomes: list[Simulated]
    accounts: list[Account | None]
