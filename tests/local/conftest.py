"""Shared by the tests of the local simulator's server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.local import small


@pytest.fixture(scope="session")
def small_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of the bundle of `tests.local.small`."""
    return small.write(tmp_path_factory.mktemp("bundles") / "small.jsonl")
