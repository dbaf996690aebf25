"""Programs that measure, one for each figure: ``python -m benchmarks`` runs them all.

What they measure against (CONTRIBUTING.md, "Measure"):

- ``BACKTEST_SYNC_RUST_PEER``: path of the reference Rust client built as a command; without it its ratios
  are left out;
- ``BACKTEST_SYNC_BURST_SERVER``: a burst server in place of `benchmarks.burst_server`: a Python program that
  prints its port and understands ``--notes`` and ``--note-bytes``.
"""
