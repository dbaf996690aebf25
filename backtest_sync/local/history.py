"""Executed transactions by signature: what getTransaction and getSignatureStatuses look up."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from backtest_sync.local.executed import Source

if TYPE_CHECKING:
    from backtest_sync.local.executed import Executed

#: How many historical transactions a session remembers: memory must not grow with the range.
REMEMBERED = 5_000


class History:
    """The newest historical transactions, and the user's own, which are never forgotten."""

    def __init__(self) -> None:
        self._historical: OrderedDict[str, Executed] = OrderedDict()
        self._user: dict[str, Executed] = {}

    def add(self, executed: Executed) -> None:
        """Remembers a transaction; one that ran before under the same signature is replaced."""
        if executed.source is Source.USER:
            self._user[executed.signature] = executed
            return
        self._historical[executed.signature] = executed
        if len(self._historical) > REMEMBERED:
            self._historical.popitem(last=False)

    def find(self, signature: str) -> Executed | None:
        """The transaction of that signature, the user's before history's."""
        return self._user.get(signature) or self._historical.get(signature)
