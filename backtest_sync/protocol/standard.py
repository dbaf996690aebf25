"""The notifications of Solana's own subscriptions, as a session endpoint sends them, too."""

from __future__ import annotations

from typing import Any

from backtest_sync.protocol.accounts import Account
from backtest_sync.protocol.notifications import (
    Notification,
    WithContext,
    check_number,
    check_object,
    wrong,
)


class AccountNotification(WithContext):
    """An account after it was written (``accountNotification``)."""

    __slots__ = ()

    def _check(self, raw: Any) -> None:
        check_number("context.slot", raw["context"]["slot"])
        check_object("value", raw["value"])

    @property
    def value(self) -> Account:
        """The account. `DeserializeError` where that is no account."""
        return Account.from_ui(self.raw["value"])

    def _shown(self) -> tuple[str, ...]:
        return ("context",)


class ProgramNotification(WithContext):
    """An account of a program after it was written (``programNotification``)."""

    __slots__ = ()

    def _check(self, raw: Any) -> None:
        check_number("context.slot", raw["context"]["slot"])
        value = raw["value"]
        if type(value["pubkey"]) is not str:
            wrong("value.pubkey", "a string", value["pubkey"])
        check_object("value.account", value["account"])

    @property
    def address(self) -> str:
        """Which account."""
        address: str = self.raw["value"]["pubkey"]
        return address

    @property
    def account(self) -> Account:
        """The account. `DeserializeError` where that is no account."""
        return Account.from_ui(self.raw["value"]["account"])

    def _shown(self) -> tuple[str, ...]:
        return "context", "address"


class SignatureNotification(WithContext):
    """A transaction was processed (``signatureNotification``); the only one of its subscription."""

    __slots__ = ()

    def _check(self, raw: Any) -> None:
        check_number("context.slot", raw["context"]["slot"])
        raw["value"]["err"]

    @property
    def err(self) -> Any:
        """Solana's JSON form of the failure; ``None`` for a success."""
        return self.raw["value"]["err"]

    def _shown(self) -> tuple[str, ...]:
        return "context", "err"


class SlotInfoNotification(Notification):
    """A slot was processed (``slotNotification`` of the session endpoint)."""

    __slots__ = ()

    def _check(self, raw: Any) -> None:
        for key in ("slot", "parent", "root"):
            check_number(key, raw[key])

    @property
    def slot(self) -> int:
        """The slot."""
        slot: int = self.raw["slot"]
        return slot

    @property
    def parent(self) -> int:
        """The slot before it that had a block."""
        parent: int = self.raw["parent"]
        return parent

    @property
    def root(self) -> int:
        """The newest rooted slot."""
        root: int = self.raw["root"]
        return root

    def _shown(self) -> tuple[str, ...]:
        return "slot", "parent", "root"
