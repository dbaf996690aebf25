"""The local simulator: the whole backtest protocol on one machine, with no key.

``with LocalSimulator() as simulator:`` gives a server; ``simulator.url`` is what a client connects
to. Needs ``pip install 'backtest-sync[local]'``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backtest_sync.local.launcher import (
        LocalSimulator as LocalSimulator,
        SimulatorError as SimulatorError,
        serve as serve,
    )

__all__ = ["LocalSimulator", "SimulatorError", "serve"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from backtest_sync.local import launcher

    return getattr(launcher, name)
