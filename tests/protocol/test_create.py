"""The friendly create request: what it sends and what it refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from backtest_sync.errors import InvalidParamsError
from backtest_sync.protocol import (
    AccountData,
    ActionAnchor,
    ActionKind,
    AnchorAt,
    Continue,
    CreateBacktestSession,
    CreateSession,
    DiagnosticProbe,
    DirectFillTemplate,
    DiscoveryFilter,
    RerouteFilter,
    ScheduledAction,
    TxResolver,
    decode_request,
    encode_request,
    parse_aggregators,
    structure,
)
from tests.protocol.vectors import Case, cases, every_case, opened

SOL = "So11111111111111111111111111111111111111112"
JUPITER = "JUP6LkbZbjS1jKKwapdHNy74zcZ3tLUZoi5QNyVTaV4"
RANGE = {"start_slot": 10, "end_slot": 20}

_ANCHORS = {
    "afterSlot": lambda: ActionAnchor.after_slot([12]),
    "beforeSlot": lambda: ActionAnchor.before_slot([12]),
    "afterEverySlot": lambda: ActionAnchor.after_every_slot(),
    "beforeEverySlot": lambda: ActionAnchor.before_every_slot(),
    "beforeMatch": lambda: ActionAnchor.before_match(DiscoveryFilter.program_executed(JUPITER)),
    "afterMatch": lambda: ActionAnchor.after_match(DiscoveryFilter.program_executed(JUPITER)),
}
_BAD_PROBE = DiagnosticProbe(ActionAnchor.after_slot([12]), [], [1])
_SEND = ScheduledAction(ActionAnchor.before_slot([12]), "send", [b"\x01"])


def _probe(case: Case) -> DiagnosticProbe:
    probe = DiagnosticProbe(_ANCHORS[case["anchor"]](), case["markets"], case["usd_values"])
    assert probe.error() == case["error"]
    assert probe.fires == case["fires"]
    return probe


def _action(case: Case, transactions: list[str]) -> ScheduledAction:
    resolvers = {
        None: None,
        "quoteStamp": TxResolver.quote_stamp(),
        "liquidityArrays": TxResolver.liquidity_arrays(SOL, SOL, [6, 7]),
    }
    return ScheduledAction(
        ActionAnchor.before_slot([12]),
        case["kind"],
        transactions or [b"\x01"] * case["transactions"],
        feeds_reroute=case["feeds_reroute"],
        resolve=resolvers[case["resolve"]],
    )


def _sent(case: Case) -> Any:
    """The parts of a case's request that the case describes in words alone."""
    if "wire" not in case:
        return {}
    return decode_request(json.dumps(case["wire"]))


def _reroute(case: Case) -> CreateSession:
    wire = case["wire"]["params"]["reroute"]
    options: dict[str, Any] = {
        "reroute_flag_only": dict,
        "reroute_all": lambda: {
            "reroute_aggregators": parse_aggregators("dflow,titan,okx,jupiter"),
            "reroute_filter": RerouteFilter([tuple(reversed(p)) for p in wire["filter"]["pairs"]]),
            "detect_failed_l1_swaps": True,
            "reroute_circular_arbs": True,
            "reroute_requote": False,
            "reroute_direct_fill": [structure(DirectFillTemplate, t) for t in wire["directFill"]],
            "reroute_extra_markets": wire["extraMarkets"],
        },
        "reroute_empty_filter": lambda: {"reroute_filter": RerouteFilter()},
        "reroute_no_aggregators": lambda: {"reroute_aggregators": []},
    }[case["name"]]()
    return CreateSession(**RANGE, reroute_order_flow=True, **options)


def _overrides(case: Case) -> CreateSession:
    """``add_override`` for the actions that the case says come of it."""
    session = CreateSession(**RANGE)
    for action in _sent(case).actions:
        if action.feeds_reroute:
            session = session.add_override(action.anchor.slots[0], action.account_overrides)
        else:
            session = CreateSession(**RANGE, actions=[*session.actions, action])
    return session


def _session(case: Case) -> CreateSession:
    name = case["name"]
    if "inputs" in case:
        return CreateSession(**case["inputs"])
    if "probes" in case:
        return CreateSession(**RANGE, diagnostic_probes=[_probe(p) for p in case["probes"]])
    if "actions" in case:
        sent = _sent(case).actions if case["ok"] else [None] * len(case["actions"])
        actions = [
            _action(described, [] if wire is None else list(wire.transactions))
            for described, wire in zip(case["actions"], sent, strict=True)
        ]
        replay = case["replay_account_state"]
        return CreateSession(**RANGE, actions=actions, replay_account_state=replay)
    if name.startswith("reroute_"):
        return _reroute(case)
    if "actions_json" in case:
        return _overrides(case)
    return _OTHERS[name]()


_OTHERS: dict[str, Callable[[], CreateSession]] = {
    "named_parallel": lambda: CreateSession(**RANGE, name="R", parallel=True),
    "probe_before_send": lambda: CreateSession(
        **RANGE, diagnostic_probes=[_BAD_PROBE], actions=[_SEND], replay_account_state=True
    ),
    "slots_before_probe": lambda: CreateSession(10, diagnostic_probes=[_BAD_PROBE]),
}


@every_case("create_session_builder")
def test_case(case: Case) -> None:
    if case["name"] == "continue_builder_default":
        assert encode_request(Continue()) == case["wire_text"]
        return
    if case["name"] == "array_key_indices":
        _check_indices(case["table"])
        return
    session = _session(case)
    if not case["ok"]:
        with pytest.raises(InvalidParamsError) as refused:
            session.to_request()
        assert str(refused.value) == case["message"]
        return
    request = session.to_request()
    assert (request.parallel is None) == (case["variant"] == "V0")
    if "wire" not in case:
        return
    written = json.loads(encode_request(request))
    if "createToken" in case["wire"]["params"]:
        assert re.fullmatch("[0-9a-f]{32}", written["params"]["createToken"])
        written["params"]["createToken"] = "<token>"
    assert opened(written) == opened(case["wire"])


def _check_indices(table: list[Any]) -> None:
    for row in table:
        if row["ok"]:
            TxResolver.liquidity_arrays(SOL, SOL, row["input"])
            continue
        with pytest.raises(InvalidParamsError) as refused:
            TxResolver.liquidity_arrays(SOL, SOL, row["input"])
        assert str(refused.value) == row["error"]


def test_all_that_the_cases_say_in_words_is_made() -> None:
    assert set(_OTHERS) <= {case["name"] for case in cases("create_session_builder")}


def test_a_token_is_minted_once_for_each_request() -> None:
    session = CreateSession(**RANGE, name="run")
    first, second = session.to_request(), session.to_request()
    assert first.create_token != second.create_token
    assert encode_request(first) == encode_request(first)
    assert CreateSession(**RANGE, parallel=True).to_request().create_token is None


def test_options_of_rerouting_mean_nothing_without_the_switch() -> None:
    request = CreateSession(**RANGE, reroute_circular_arbs=True).to_request()
    assert request == CreateBacktestSession(10, 20)


def test_add_override_leaves_the_first_as_it_was() -> None:
    session = CreateSession(**RANGE)
    more = session.add_override(15, {SOL: AccountData(b"\x01", 5, SOL)})
    assert session.actions == ()
    (action,) = more.actions
    assert action.anchor == ActionAnchor(AnchorAt.BEFORE_SLOT, [15])
    assert action.kind is ActionKind.SIMULATE
    assert action.feeds_reroute
    assert action.account_overrides[SOL].lamports == 5


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"start_slot": -1, "end_slot": 2}, "start_slot"),
        ({"start_slot": 1, "end_slot": 2**64}, "end_slot"),
        ({"start_slot": 1, "slot_count": 1.5}, "slot_count"),
        ({"start_slot": 1, "end_slot": 2, "name": "-"}, "invalid session name '-'"),
        ({"start_slot": 1, "end_slot": 2, "parallel": None}, "parallel"),
        ({"start_slot": 1, "end_slot": 2, "disconnect_timeout_secs": 900.5}, "disconnect_timeout"),
        ({"start_slot": 1, "end_slot": 2, "reroute_aggregators": ["x"]}, "unknown swap aggregator"),
        ({"start_slot": 1, "end_slot": 2, "reroute_extra_markets": ["x"]}, r"markets\[0\]"),
    ],
)
def test_a_wrong_value_is_named(fields: Any, named: str) -> None:
    with pytest.raises(InvalidParamsError, match=named):
        CreateSession(**fields)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ActionAnchor("beforeSlot", [5], every_n_slots=2),
        lambda: ActionAnchor("beforeEverySlot", [5]),
        lambda: ActionAnchor("beforeEverySlot", every_n_slots=0),
        lambda: ActionAnchor("beforeMatch"),
        lambda: ActionAnchor("afterSlot", filter=DiscoveryFilter.program_executed(SOL)),
        lambda: ActionAnchor("sometimes"),
        lambda: TxResolver("quoteStamp", pool=SOL),
        lambda: TxResolver("quoteStamp", array_key_indices=[1]),
        lambda: TxResolver("liquidityArrays", SOL),
        lambda: TxResolver.liquidity_arrays(SOL, SOL, [256]),
        lambda: DiscoveryFilter("programExecuted", [SOL, JUPITER]),
        lambda: DiscoveryFilter("programExecuted", [SOL], [SOL]),
        lambda: DiscoveryFilter.oracle_update(SOL),
    ],
)
def test_parts_that_do_not_go_together_are_refused(make: Any) -> None:
    with pytest.raises(InvalidParamsError):
        make()


def test_filters_are_sets_in_the_order_of_bytes() -> None:
    made = DiscoveryFilter.oracle_update([JUPITER, SOL, JUPITER], [SOL, SOL])
    assert made.programs == (JUPITER, SOL)
    assert made == DiscoveryFilter.oracle_update([SOL, JUPITER], [SOL])
