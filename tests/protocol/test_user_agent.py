"""How servers count the client by its ``User-Agent`` (protocol/control.md §2).

The client has a product token of its own and renders none of the reference's. What the contract
asks of it is checked with the server's rule, which the reference's cases check in turn.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from backtest_sync.headers import USER_AGENT
from tests.protocol.vectors import Case, by_function


def _classify(header: str | None) -> dict[str, str]:
    """The server's rule."""
    tokens = (header or "").split()
    if not header or not tokens:
        return {"kind": "unknown", "version": "unknown"}
    product, _, version = tokens[0].partition("/")
    if "/" not in tokens[0] or product not in ("nitro-sim-cli", "nitro-sim-client"):
        return {"kind": "custom", "version": "unknown"}
    kind = "cli"
    if product == "nitro-sim-client":
        kind = "managed" if "(managed)" in header else "raw"
    known = re.fullmatch("[A-Za-z0-9_.-]{1,32}", version)
    return {"kind": kind, "version": version if known else "unknown"}


def _check_classify(case: Case) -> None:
    assert _classify(case["input"]) == {"kind": case["kind"], "version": case["version"]}


def _check_render(case: Case) -> None:
    assert _classify(case["output"]) == case["classified"]


def _check_constants(case: Case) -> None:
    assert (case["cli"], case["sdk"]) == ("nitro-sim-cli", "nitro-sim-client")


@by_function(
    "user_agent",
    {"classify": _check_classify, "render": _check_render, "constants": _check_constants},
)
def test_case(check: Callable[[Case], None], case: Case) -> None:
    check(case)


def test_this_client_is_a_custom_one() -> None:
    assert _classify(USER_AGENT)["kind"] == "custom"
    assert re.fullmatch(r"[!-~]+(?: [!-~]+)*", USER_AGENT)
