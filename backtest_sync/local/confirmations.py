"""How far the client of a control connection is: asked for by pings, told by their pongs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backtest_sync.local.outbox import Outbox
    from backtest_sync.local.wire import Wire

#: The client is asked to confirm what it has after so many responses.
CONFIRM_EVERY = 32
#: A client that does not answer its first ping in this time never will, seconds.
DEAF_AFTER = 2.0

_CONFIRM = b"confirm"


class Confirmations:
    """What the client of one connection has: asked for by pings, told by their pongs."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._sent: dict[Outbox, int] = {}
        self._asked: dict[Outbox, int] | None = None
        self._count = 0
        self._urged = False
        self._answers = False
        self._deaf = False
        self._timer: asyncio.TimerHandle | None = None
        wire.on_pong = self._answered

    def sent(self, outbox: Outbox) -> None:
        """A response of ``outbox`` was queued."""
        if self._deaf:
            outbox.confirm(outbox.sequence)
            return
        self._sent[outbox] = outbox.sequence
        self._count += 1
        self._ask()

    def urge(self) -> None:
        """A session waits for a confirmation."""
        self._urged = True
        self._ask()

    def stop(self) -> None:
        """The connection is over."""
        if self._timer is not None:
            self._timer.cancel()

    def _ask(self) -> None:
        if self._asked is not None or not self._sent:
            return
        if not self._urged and self._count < CONFIRM_EVERY:
            return
        self._asked, self._sent = self._sent, {}
        self._count, self._urged = 0, False
        self._wire.ping(_CONFIRM)
        if not self._answers and self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(DEAF_AFTER, self._give_up)

    def _answered(self, payload: bytes) -> None:
        if payload != _CONFIRM or self._asked is None:
            return
        self._answers = True
        self.stop()
        asked, self._asked = self._asked, None
        for outbox, sequence in asked.items():
            outbox.confirm(sequence)
        self._ask()

    def _give_up(self) -> None:
        # A client without pongs can't be waited for: it is served like any other, at its own risk.
        self._deaf = True
        for sent in (self._asked or {}, self._sent):
            for outbox, sequence in sent.items():
                outbox.confirm(sequence)
