"""Scheduled actions: transactions and account states that a session plays in by itself.

protocol/reroute.md §1. Results go to the feed as ``ActionDone``; ``published`` is the override
schedule, as far as reads by address and later simulations see it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from attrs import define, frozen

from backtest_sync.errors import BacktestClientError
from backtest_sync.local import svm
from backtest_sync.local.blocks import prepare
from backtest_sync.local.discovery import matches
from backtest_sync.local.executed import Simulated
from backtest_sync.local.feed import ActionDone, Feed
from backtest_sync.local.recorded import recorded_transaction
from backtest_sync.local.refusals import (
    SEND_ACTION_REMEDY,
    STATE_REPLAY,
    invalid_request,
    unsupported,
)
from backtest_sync.local.txerrors import sentence
from backtest_sync.protocol import AccountData, ActionKind, AnchorAt
from backtest_sync.protocol.fields import b64encode

if TYPE_CHECKING:
    from solders.account import Account
    from solders.transaction import VersionedTransaction

    from backtest_sync.local.blocks import BlockTransaction
    from backtest_sync.local.engine import Engine
    from backtest_sync.local.executed import Executed
    from backtest_sync.protocol import DiscoveryFilter, ScheduledAction

#: Owners of programs: their accounts can't be overridden on a schedule (protocol/programs.md §2).
_LOADERS = frozenset(
    (
        "BPFLoader1111111111111111111111111111111111",
        "BPFLoader2111111111111111111111111111111111",
        "BPFLoaderUpgradeab1e11111111111111111111111",
        "LoaderV411111111111111111111111111111111111",
        "NativeLoader1111111111111111111111111111111",
    )
)


class World(Protocol):
    """What actions run in: a replay."""

    feed: Feed

    @property
    def engine(self) -> Engine:
        """What executes."""

    @property
    def slot(self) -> int:
        """The current slot."""

    def commit(self, results: Sequence[Executed]) -> None:
        """Remembers and publishes what was executed."""


@define(eq=False)
class Action:
    """A checked action. ``slots``: which of its transactions run at which slot."""

    index: int
    spec: ScheduledAction
    transactions: tuple[VersionedTransaction, ...]
    slots: dict[int, list[VersionedTransaction]]

    @property
    def publishes(self) -> bool:
        """Whether it feeds the override schedule."""
        return self.spec.feeds_reroute or (
            not self.transactions and bool(self.spec.account_overrides)
        )


def read_actions(specs: Sequence[ScheduledAction], *, replaying_state: bool) -> list[Action]:
    """The actions of a create request, checked; RefusedError says which can't be scheduled and why."""
    actions = []
    for index, spec in enumerate(specs):
        problem = _problem(spec, replaying_state)
        if problem is not None:
            raise invalid_request(f"action {index}: {problem}")
        if spec.resolve is not None:
            raise unsupported(f"action {index}: resolving transactions against a live router")
        transactions = tuple(_read_transactions(index, spec))
        actions.append(Action(index, spec, transactions, _by_slot(spec, transactions)))
    return actions


def _problem(spec: ScheduledAction, replaying_state: bool) -> str | None:
    slot_anchor = spec.anchor.at in (AnchorAt.BEFORE_SLOT, AnchorAt.AFTER_SLOT)
    sends = spec.kind is ActionKind.SEND
    if sends and replaying_state:
        operation = "A scheduled action with kind: send"
        return STATE_REPLAY.format(operation=operation, remedy=SEND_ACTION_REMEDY)
    if sends and (spec.account_overrides or spec.feeds_reroute):
        return "account overrides are not valid for kind: send"
    if spec.feeds_reroute and not spec.transactions and not spec.account_overrides:
        return "feedsReroute needs something to feed: transactions to simulate, or accountOverrides"
    publishes = spec.feeds_reroute or (not spec.transactions and spec.account_overrides)
    if publishes and spec.anchor.at is not AnchorAt.BEFORE_SLOT:
        return "scheduled account overrides require a beforeSlot anchor"
    if spec.transactions and slot_anchor and len(spec.transactions) != len(spec.anchor.slots):
        return (
            f"the anchor names {len(spec.anchor.slots)} slots for {len(spec.transactions)} "
            "transactions; a slot anchor runs one transaction at each slot that it names"
        )
    if spec.resolve is not None:
        return spec.resolve_error()
    return _override_problem(spec.account_overrides)


def _override_problem(overrides: Mapping[str, AccountData]) -> str | None:
    for address, account in overrides.items():
        try:
            data = account.bytes
        except BacktestClientError as error:
            return f"invalid account data for {address}: {error}"
        del data
        if account.executable or account.owner in _LOADERS:
            return f"overriding executable/program accounts is not supported (account {address})"
    return None


def _read_transactions(index: int, spec: ScheduledAction) -> list[VersionedTransaction]:
    transactions = []
    for position, text in enumerate(spec.transactions):
        try:
            transactions.append(svm.parse_sane_transaction(svm.decode_base64(text)))
        except ValueError as error:
            raise invalid_request(f"action {index}: transaction {position}: {error}") from error
    return transactions


def _by_slot(
    spec: ScheduledAction, transactions: Sequence[VersionedTransaction]
) -> dict[int, list[VersionedTransaction]]:
    slots: dict[int, list[VersionedTransaction]] = {slot: [] for slot in spec.anchor.slots}
    if transactions and slots:
        for slot, transaction in zip(spec.anchor.slots, transactions, strict=True):
            slots[slot].append(transaction)
    return slots


@frozen
class Override:
    """An account state that the schedule has published."""

    data: AccountData
    account: Account | None


class ActionRunner:
    """Fires a session's actions at their anchors."""

    def __init__(
        self, actions: Sequence[Action], world: World, on_failure: Callable[[str], None]
    ) -> None:
        """``on_failure`` is told why an action could not be simulated at all."""
        self._world = world
        self._on_failure = on_failure
        self._slot_actions = [a for a in actions if a.spec.anchor.filter is None]
        self._match_actions = [a for a in actions if a.spec.anchor.filter is not None]
        self._schedule = [
            (slot, a.index, a)
            for a in actions
            if a.publishes and not a.transactions
            for slot in a.slots
        ]
        heapq.heapify(self._schedule)
        #: What is published, by address.
        self.published: dict[str, Override] = {}

    # --- anchors ---------------------------------------------------------------------------------
    def before_slot(self, slot: int) -> None:
        """A block was opened: publishes what is due by now, then fires what is anchored here."""
        while self._schedule and self._schedule[0][0] <= slot:
            _, _, action = heapq.heappop(self._schedule)
            self._publish(action.spec.account_overrides)
        self._fire_at(slot, AnchorAt.BEFORE_SLOT, AnchorAt.BEFORE_EVERY_SLOT)

    def after_slot(self, slot: int) -> None:
        """A block is about to be closed."""
        self._fire_at(slot, AnchorAt.AFTER_SLOT, AnchorAt.AFTER_EVERY_SLOT)

    def before_batch(self, index: int, batch: Sequence[BlockTransaction]) -> None:
        """A batch is about to run."""
        if self._match_actions:
            self._fire_matches(index, batch, AnchorAt.BEFORE_MATCH)

    def after_batch(self, index: int, batch: Sequence[BlockTransaction]) -> None:
        """A batch has run."""
        if self._match_actions:
            self._fire_matches(index, batch, AnchorAt.AFTER_MATCH)

    def _fire_at(self, slot: int, named: AnchorAt, every: AnchorAt) -> None:
        for action in self._slot_actions:
            anchor = action.spec.anchor
            if anchor.at is named and action.slots.get(slot):
                self._fire(action, action.slots[slot])
            elif anchor.at is every and slot % (anchor.every_n_slots or 1) == 0:
                self._fire(action, action.transactions)

    def _fire_matches(self, index: int, batch: Sequence[BlockTransaction], at: AnchorAt) -> None:
        for action in self._match_actions:
            anchor = action.spec.anchor
            if anchor.at is not at:
                continue
            found = _first_match(anchor.filter, batch)
            if found is not None:
                self._fire(action, action.transactions, batch_index=index, matched=found)

    # --- running ---------------------------------------------------------------------------------
    def _fire(
        self,
        action: Action,
        transactions: Sequence[VersionedTransaction],
        *,
        batch_index: int | None = None,
        matched: BlockTransaction | None = None,
    ) -> None:
        if not transactions:
            return
        try:
            if action.spec.kind is ActionKind.SEND:
                outcomes, accounts = self._send(action, transactions)
            else:
                outcomes, accounts = self._simulate(action, transactions)
        except BacktestClientError as error:
            self._on_failure(f"action {action.index} at slot {self._world.slot}: {error}")
            return
        slot = self._world.slot
        result: dict[str, Any] = {
            "context": {"slot": slot},
            "slot": slot,
            "actionIndex": action.index,
            "committed": action.spec.kind is ActionKind.SEND,
            "transactionOutcomes": outcomes,
            "accounts": [None if each is None else svm.account_to_json(each) for each in accounts],
        }
        if batch_index is not None:
            result["batchIndex"] = batch_index
        if matched is not None:
            result["txIndex"] = matched.index
            result["matched"] = _blob(recorded_transaction(matched))
        if action.spec.label is not None:
            result["label"] = action.spec.label
        self._world.feed.publish([ActionDone(slot, result)])

    def _send(
        self, action: Action, transactions: Sequence[VersionedTransaction]
    ) -> tuple[list[dict[str, Any]], list[Account | None]]:
        engine, outcomes = self._world.engine, []
        for transaction in transactions:
            executed = engine.send(transaction, self._world.feed.capture)
            self._world.commit([executed])
            outcomes.append(_outcome(executed))
            if executed.err is not None:
                break
        return outcomes, [engine.account(address) for address in action.spec.return_accounts]

    def _simulate(
        self, action: Action, transactions: Sequence[VersionedTransaction]
    ) -> tuple[list[dict[str, Any]], list[Account | None]]:
        spec = action.spec
        overrides = {address: item.data for address, item in self.published.items()}
        overrides.update(spec.account_overrides)
        asked = list(spec.return_accounts)
        fed = self._written_by(transactions, spec) if spec.feeds_reroute else []
        simulation = self._world.engine.simulate(
            transactions, overrides=overrides, accounts=asked + fed
        )
        outcomes = simulation.outcomes
        if fed and all(outcome.err is None for outcome in outcomes):
            states = zip(fed, simulation.accounts[len(asked) :], strict=True)
            self._publish({address: _to_data(account) for address, account in states})
        return [_outcome(outcome) for outcome in outcomes], simulation.accounts[: len(asked)]

    def _written_by(
        self, transactions: Sequence[VersionedTransaction], spec: ScheduledAction
    ) -> list[str]:
        engine = self._world.engine
        written = set(spec.account_overrides)
        for transaction in transactions:
            written |= prepare(
                transaction,
                bytes(transaction),
                index=0,
                read=lambda key: engine.account(str(key)),
            ).written
        return sorted(written)

    def _publish(self, overrides: Mapping[str, AccountData]) -> None:
        for address, data in overrides.items():
            self.published[address] = Override(data, svm.to_account(data))


def _first_match(
    wanted: DiscoveryFilter | None, batch: Sequence[BlockTransaction]
) -> BlockTransaction | None:
    if wanted is None:
        return None
    return next((each for each in batch if matches(wanted, each)), None)


def _outcome(result: Executed | Simulated) -> dict[str, Any]:
    outcome: dict[str, Any] = {
        "logs": result.logs or [],
        "unitsConsumed": result.units or 0,
        "fee": result.fee,
    }
    if result.err is not None:
        outcome["err"] = sentence(result.err)
    if result.return_data is not None:
        outcome["returnData"] = result.return_data
    return outcome


def _to_data(account: Account | None) -> AccountData:
    if account is None:
        return AccountData(b"", 0, str(svm.SYSTEM_PROGRAM))
    return AccountData(
        account.data, account.lamports, str(account.owner), executable=account.executable
    )


def _blob(data: bytes) -> dict[str, str]:
    return {"data": b64encode(data), "encoding": "base64"}
