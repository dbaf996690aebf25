"""``python -m backtest_sync`` is the command line."""

from __future__ import annotations

import sys

from backtest_sync.cli import main

if __name__ == "__main__":
    sys.exit(main())
