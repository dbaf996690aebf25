"""The short form of what tests/soak/ does at length."""

from __future__ import annotations

import sys

import pytest

from tests.soak import ctrl_c
from tests.soak.open_close import KINDS, soak


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts descriptors in /proc")
@pytest.mark.parametrize("what", KINDS)
def test_opening_and_closing_leaves_nothing(what: str) -> None:
    found = soak(what, 120)
    assert found["went_well"] == 60
    assert (found["threads_left"], found["descriptors_left"]) == (0, 0)


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
def test_ctrl_c_in_quick_steps_loses_no_connection() -> None:
    found = ctrl_c.soak(150)
    assert found["times"] == 150
    assert found["steps"]
    assert found["torn"] == 0
