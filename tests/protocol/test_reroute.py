"""Rerouting: pairs, aggregators, filters and direct-fill templates."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from backtest_sync.errors import DeserializeError, InvalidParamsError
from backtest_sync.protocol import (
    MAJORS,
    DirectFillTemplate,
    MintPair,
    RerouteFilter,
    RerouteParams,
    SwapAggregator,
    TemplateAccount,
    TemplateInstruction,
    TemplateSeed,
    TemplateTaker,
    parse_aggregators,
    parse_templates,
    short_mint,
    structure,
    unstructure,
)
from backtest_sync.protocol.fields import address_bytes
from tests.protocol.vectors import Case, by_function, cases

#: Refusals whose text is that of the reference's JSON or base64 library, so the verdict counts.
_LIBRARY_WORDS = (" at line ", "is not valid base64")


def _template(case: Case) -> None:
    given = case.get("input") or _with_accounts(case["accounts_in_input"])
    if case["ok"]:
        template = structure(DirectFillTemplate, given)
        if "wire_text" in case:
            assert unstructure(template) == json.loads(case["wire_text"])
        if "role_slots" in case:
            taker = template.taker
            slots = (*taker.user, *taker.input_token_account, *taker.output_token_account)
            assert list(slots) == case["role_slots"]
        return
    with pytest.raises(DeserializeError) as refused:
        structure(DirectFillTemplate, given)
    if not any(words in case["error"] for words in _LIBRARY_WORDS):
        assert refused.value.reason == f"{case['error']} at $"


def _with_accounts(count: int) -> Any:
    given = copy.deepcopy(cases("mints_and_direct_fill")[0]["input"])
    accounts = given["instruction"]["accounts"]
    accounts.extend([{"address": accounts[0]["address"]}] * (count - len(accounts)))
    return given


def _recipe(case: Case) -> None:
    """The reference ships a list of 76 templates as data. This package has none: what is checked
    is that a list of so many under these labels is read."""
    base = cases("mints_and_direct_fill")[0]["input"]
    text = json.dumps([{**base, "label": label, "_provenance": {}} for label in case["labels"]])
    templates = parse_templates(text, "venues")
    assert [template.label for template in templates] == case["labels"]
    assert len(templates) == case["count"]


def _mint_pair_text(case: Case) -> None:
    if not case["ok"]:
        with pytest.raises(InvalidParamsError) as refused:
            MintPair.parse(case["text"])
        assert str(refused.value) == case["error"]
        return
    pair = MintPair.parse(case["text"])
    assert str(pair) == case["display"]
    assert unstructure(pair) == json.loads(case["wire_text"])


def _mint_pair_json(case: Case) -> None:
    with pytest.raises(DeserializeError) as refused:
        structure(MintPair, json.loads(case["text"]))
    assert not case["ok"]
    if "in pair" in case["error"]:
        assert refused.value.reason == f"{case['error']} at $"


def _aggregators_text(case: Case) -> None:
    if not case["ok"]:
        with pytest.raises(InvalidParamsError) as refused:
            parse_aggregators(case["text"])
        assert str(refused.value) == case["error"]
        return
    aggregators = parse_aggregators(case["text"])
    assert ",".join(item.value for item in aggregators) == case["display"]
    written = unstructure(RerouteParams(aggregators))["aggregators"]
    assert written == json.loads(case["wire_text"])


def _aggregators_json(case: Case) -> None:
    given = {"aggregators": json.loads(case["text"])}
    if not case["ok"]:
        with pytest.raises(DeserializeError, match=r"at \$.aggregators"):
            structure(RerouteParams, given)
        return
    written = unstructure(structure(RerouteParams, given))["aggregators"]
    assert written == json.loads(case["wire_text"])


def _filter_json(case: Case) -> None:
    assert case["ok"]
    given = structure(RerouteFilter, json.loads(case["text"]))
    assert (not given.pairs) == case["is_empty"]


def _short_mint(case: Case) -> None:
    text = case["text"]
    major = MAJORS.get(text)
    assert short_mint(text) == case["output"]
    assert (major and major.symbol) == case["symbol"]
    assert bool(major) == bool(case["is_major"])  # null where it is no address at all
    assert (major.decimals if major and major.is_stable else None) == case["stable_decimals"]
    # SOL is what the others are priced against, so it has no price of that kind itself
    assert case["priced_decimals"] is None


@by_function(
    "mints_and_direct_fill",
    {
        "template": _template,
        "recipe": _recipe,
        "mint_pair_text": _mint_pair_text,
        "mint_pair_json": _mint_pair_json,
        "aggregators_text": _aggregators_text,
        "aggregators_json": _aggregators_json,
        "filter_json": _filter_json,
        "short_mint": _short_mint,
    },
)
def test_case(check, case):  # type: ignore[no-untyped-def]
    check(case)


SOL, USDC = list(MAJORS)[:2]


def test_majors_are_addresses() -> None:
    assert len(MAJORS) == 19
    assert all(len(address_bytes(mint)) == 32 for mint in MAJORS)
    assert short_mint("1234567890123") == "123456..0123"


def test_a_pair_has_no_direction() -> None:
    assert MintPair(SOL, USDC) == MintPair(USDC, SOL)
    assert hash(MintPair(SOL, USDC)) == hash(MintPair(USDC, SOL))
    assert RerouteFilter([(USDC, SOL)]) == RerouteFilter([MintPair(SOL, USDC)])


def test_a_pair_in_json_is_sorted_too() -> None:
    pair = structure(MintPair, [USDC, SOL])
    assert unstructure(pair) == [SOL, USDC]


@pytest.mark.parametrize("pairs", [[SOL], [(SOL,)], [5], "x", [(SOL, "x")]])
def test_what_is_no_pair_is_refused(pairs: Any) -> None:
    with pytest.raises(InvalidParamsError):
        RerouteFilter(pairs)


def test_aggregators_are_a_set_in_their_own_order() -> None:
    params = RerouteParams(["dflow", SwapAggregator.OKX, "OKX "])
    assert params.aggregators == (SwapAggregator.OKX, SwapAggregator.DFLOW)


def _made(**changes: Any) -> DirectFillTemplate:
    parts: dict[str, Any] = {
        "label": "t",
        "mode": "ExactIn",
        "input_mint": SOL,
        "output_mint": USDC,
        "instruction": TemplateInstruction(
            SOL,
            [TemplateAccount(SOL, writable=True, signer=True), TemplateAccount(USDC, True)] * 2,
            bytes(16),
        ),
        "amount_offset": 8,
        "taker": TemplateTaker([0], 1, [2, 3]),
    }
    return DirectFillTemplate(**{**parts, **changes})


def test_a_template_is_made_of_parts() -> None:
    template = _made()
    assert template.taker.input_token_account == (1,)
    assert structure(DirectFillTemplate, unstructure(template)) == template
    assert TemplateSeed.user() != TemplateSeed("user")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"label": " "}, "a template's label must not be blank"),
        ({"output_mint": SOL}, "a template must trade two different mints"),
        ({"input_mint": "x"}, "invalid address x in template field inputMint"),
        (
            {"amount_offset": 9},
            "amount offset 9 leaves no room for an amount in 16 bytes of data",
        ),
        ({"taker": TemplateTaker([1], 0, 2)}, "user slot 1 must be a signer"),
        ({"taker": TemplateTaker([0], 1, 1)}, "slot 1 is named by more than one taker role"),
    ],
)
def test_a_template_is_checked_when_it_is_made(changes: Any, text: str) -> None:
    with pytest.raises(InvalidParamsError) as refused:
        _made(**changes)
    assert str(refused.value) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "x.json: names no templates"),
        ("{}", "parsing x.json: expected a list, got an object at $"),
        ("[", "parsing x.json: "),
        ("[{}]", "parsing x.json: missing field `label` at $[0]"),
    ],
)
def test_a_bad_file_of_templates_is_named(text: str, message: str) -> None:
    with pytest.raises(InvalidParamsError) as refused:
        parse_templates(text, "x.json")
    assert str(refused.value).startswith(message)


def test_a_label_twice_is_refused() -> None:
    template = unstructure(_made())
    with pytest.raises(InvalidParamsError, match='x: template label "t" appears more than once'):
        parse_templates(json.dumps([template, template]), "x")
