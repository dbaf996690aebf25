"""Subscriptions to slots, transactions, their logs and outcomes, and to scheduled actions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from attrs import frozen

from backtest_sync.local import shapes
from backtest_sync.local.endpoint.watch import NOTHING, Watch, in_context
from backtest_sync.local.feed import ActionDone, Event, SlotOpened, TransactionDone

if TYPE_CHECKING:
    from backtest_sync.local.executed import Executed
    from backtest_sync.local.session import SimSession

_VOTE_PROGRAM = "Vote111111111111111111111111111111111111111"


class SlotWatch(Watch):
    """``slotSubscribe``: each slot as it begins."""

    method = "slotNotification"

    def results(self, event: Event) -> Iterable[Any]:
        if type(event) is not SlotOpened:
            return NOTHING
        return ({"slot": event.slot, "parent": event.parent, "root": event.parent},)


class SignatureWatch(Watch):
    """``signatureSubscribe``: one transaction's outcome, once, even where it is long known."""

    method = "signatureNotification"

    def __init__(self, signature: str) -> None:
        self._signature = signature

    def results(self, event: Event) -> Iterable[Any]:
        if type(event) is not TransactionDone or event.executed.signature != self._signature:
            return NOTHING
        self.done = True
        return (in_context(event.slot, {"err": event.executed.err}),)

    def replay(self, session: SimSession, from_slot: int | None) -> Sequence[Event]:  # noqa: ARG002
        found = session.history.find(self._signature)
        return () if found is None else (TransactionDone(found.slot, found),)


@frozen
class Mentions:
    """Which transactions a subscription is about: those with an address among their keys, or all.

    ``votes``: whether plain votes count among all.
    """

    address: str | None
    votes: bool = False

    def matches(self, executed: Executed) -> bool:
        if self.address is not None:
            return self.address in executed.keys
        return self.votes or not _is_vote(executed)


def _is_vote(executed: Executed) -> bool:
    if _VOTE_PROGRAM not in executed.keys:
        return False
    instructions = executed.transaction.message.instructions
    return (
        len(instructions) == 1 and executed.keys[instructions[0].program_id_index] == _VOTE_PROGRAM
    )


class LogsWatch(Watch):
    """``logsSubscribe``."""

    method = "logsNotification"

    def __init__(self, mentions: Mentions) -> None:
        self._mentions = mentions

    def results(self, event: Event) -> Iterable[Any]:
        if type(event) is not TransactionDone or not self._mentions.matches(event.executed):
            return NOTHING
        executed = event.executed
        value = {
            "signature": executed.signature,
            "err": executed.err,
            "logs": executed.logs or [],
            "source": executed.source.value,
        }
        return (in_context(event.slot, value),)


class TransactionWatch(Watch):
    """``transactionSubscribe``: what ``getTransaction`` gives, for each as it is done."""

    method = "transactionNotification"

    def __init__(self, mentions: Mentions, encoding: str) -> None:
        self._mentions = mentions
        self._encoding = encoding

    def results(self, event: Event) -> Iterable[Any]:
        if type(event) is not TransactionDone or not self._mentions.matches(event.executed):
            return NOTHING
        return (shapes.transaction_value(event.executed, self._encoding, shapes.NEWEST_VERSION),)


class ActionWatch(Watch):
    """``actionSubscribe``: results of the session's scheduled actions."""

    method = "actionNotification"

    def results(self, event: Event) -> Iterable[Any]:
        return (event.result,) if type(event) is ActionDone else NOTHING
