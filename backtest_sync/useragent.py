"""How the client names itself to servers, over HTTP and WebSocket alike (protocol/control.md §2)."""

from __future__ import annotations

from backtest_sync.version import __version__

#: The ``User-Agent`` header: a product token of its own, which servers count as a custom client.
USER_AGENT = f"backtest-sync/{__version__}"
