"""`connect_local`: the whole library on one machine, with no key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backtest_sync.client import BacktestClient

if TYPE_CHECKING:
    from os import PathLike

    from backtest_sync.local import LocalSimulator


class LocalClient(BacktestClient):
    """A `BacktestClient` that owns the simulator it talks to: both end together."""

    def __init__(self, simulator: LocalSimulator, **options: Any) -> None:
        self.simulator = simulator
        super().__init__(simulator.url, "", **options)

    def close(self) -> None:
        """Close the sessions, then the simulator."""
        try:
            super().close()
        finally:
            self.simulator.close()


def connect_local(bundle: str | PathLike[str] = "demo", **options: Any) -> LocalClient:
    """A client on a private simulator in a process of its own; closing the client ends both.

    ``bundle``: ``"demo"`` or the path of a bundle. ``options``: those of `BacktestClient` but ``url``
    and ``api_key``. Needs ``pip install 'backtest-sync[local]'``.
    """
    from backtest_sync.local import LocalSimulator

    simulator = LocalSimulator(bundle, process=True)
    simulator.start()
    try:
        return LocalClient(simulator, **options)
    except BaseException:
        simulator.close()
        raise
