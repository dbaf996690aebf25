"""Long runs of what the suite does briefly; each is a program: ``python -m tests.soak.frames --help``."""
