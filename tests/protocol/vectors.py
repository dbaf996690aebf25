"""The reference's cases, read from ``tests/vectors``."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backtest_sync.protocol import blobs

Case = dict[str, Any]

_DIRECTORY = Path(__file__).parent.parent / "vectors"


def cases(file: str) -> list[Case]:
    """All cases of a file."""
    found: list[Case] = json.loads((_DIRECTORY / f"{file}.json").read_text("utf-8"))["cases"]
    return found


def every_case(file: str) -> pytest.MarkDecorator:
    """Run a test once for each case of a file; none is left out."""
    return pytest.mark.parametrize("case", [pytest.param(c, id=c["name"]) for c in cases(file)])


def by_function(file: str, checks: dict[str, Callable[[Case], None]]) -> pytest.MarkDecorator:
    """The same, each case with the check of its function; every function needs one."""
    found = cases(file)
    counted = Counter(case["function"] for case in found)
    assert set(counted) == set(checks), f"{file}: a function without a check, or the reverse"
    params = [
        pytest.param(checks[case["function"]], case, id=case["name"])
        for function in counted
        for case in found
        if case["function"] == function
    ]
    assert len(params) == len(found)
    return pytest.mark.parametrize(("check", "case"), params)


def opened(value: Any) -> Any:
    """A JSON value with the blobs in it replaced by what they hold: their bytes may differ."""
    if isinstance(value, dict):
        return {key: opened(item) for key, item in value.items()}
    if isinstance(value, list):
        return [opened(item) for item in value]
    if isinstance(value, str) and value.startswith("KLUv/"):  # base64 of the magic of zstd
        return {"blob": opened(json.loads(blobs.decompress(base64.b64decode(value))))}
    return value
