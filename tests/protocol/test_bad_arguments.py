"""Every public constructor and function of the protocol, given what it can't take."""

from __future__ import annotations

import contextlib
import copy
import math
import pickle
from collections.abc import Callable
from datetime import datetime
from typing import Any

import attrs
import pytest

from backtest_sync import programs, protocol, ranges, urls
from backtest_sync.errors import DeserializeError, InvalidParamsError
from backtest_sync.protocol.shape import Value, shape_of

ADDRESS = "So11111111111111111111111111111111111111112"
SYSTEM = "11111111111111111111111111111111"
SESSION = "backtest_" + "0" * 32


class Hostile:
    """Fails at whatever is tried with it."""

    def _fail(self) -> Any:
        raise RuntimeError("no")

    __str__ = __repr__ = __bytes__ = __index__ = _fail


JUNK: list[Any] = [
    *(None, True, False, 0, 1, -1, 2**64 - 1, 2**64, 10**5000, 1.5, math.nan, math.inf, 1j),
    *("", "x", "\ud800", "é", "0" * 10_000, ADDRESS, ADDRESS + "x", SESSION, b"", b"x", bytes(32)),
    *(bytearray(3), memoryview(b"ab"), [], [None], [1], [""], [[]], [math.nan], (1, 2)),
    *({}, {"a": 1}, {1: 2}, {None: None}, {ADDRESS: None}, set(), {1}, {Hostile(): 1}),
    *(object(), Hostile(), [Hostile()], int, len, range(3), ..., datetime.min, datetime.max),
    *(protocol.Success(), protocol.ErrorKind.INTERNAL, protocol.AccountData(b"", 1, ADDRESS)),
]

# what a field of any kind takes: one of these
_GOOD: list[Any] = [
    *(1, ADDRESS, "x", SESSION, "parallel_" + "0" * 32, b"x", "base64", True, [], {}),
    *("2026-01-01T00:00:00Z", "blocks", "completed", "onchain", "beforeSlot", "quoteStamp"),
]


def _instruction() -> protocol.TemplateInstruction:
    account = protocol.TemplateAccount(ADDRESS, writable=True, signer=True)
    return protocol.TemplateInstruction(ADDRESS, [account] * 3, bytes(8))


# of the classes whose fields must go together
_TOGETHER: dict[type[Value], dict[str, Any]] = {
    protocol.DiscoveryFilter: {"kind": "programExecuted", "programs": [ADDRESS]},
    protocol.ErrorDetail: {"kind": "internal", "fields": {"error": "x"}},
    protocol.DirectFillTemplate: {
        "label": "x",
        "mode": "ExactIn",
        "input_mint": ADDRESS,
        "output_mint": SYSTEM,
        "instruction": _instruction(),
        "amount_offset": 0,
        "taker": protocol.TemplateTaker([0], 1, 2),
    },
}


def _values() -> dict[type[Value], dict[str, Any]]:
    """For each public class of values the arguments of one of them."""
    named = (getattr(protocol, name) for name in dir(protocol) if name[0].isupper())
    classes = [
        cls
        for cls in named
        if isinstance(cls, type)
        and issubclass(cls, Value)
        and attrs.has(cls)
        and not hasattr(cls, "from_json")  # notifications, which nobody makes but of JSON
    ]
    made = dict(_TOGETHER)
    while pending := [cls for cls in classes if cls not in made]:
        good = [*_GOOD, *(cls(**arguments) for cls, arguments in made.items())]
        for cls in pending:
            found = {}
            for field in shape_of(cls).fields:
                if field.default is not attrs.NOTHING:
                    continue
                taken = (value for value in good if _accepts(field.wire.kind.accept, value))
                found[field.attr] = next(taken, None)
            if None not in found.values():
                made[cls] = found
        assert len(made) > len(good) - len(_GOOD), f"no arguments for {pending}"
    return made


def _accepts(accept: Callable[[Any, str], Any], value: Any) -> bool:
    try:
        accept(value, "field")
    except InvalidParamsError:
        return False
    return True


VALUES = _values()
FIELDS = [(cls, field.name) for cls in VALUES for field in attrs.fields(cls)]


@pytest.mark.parametrize(("cls", "field"), FIELDS, ids=lambda item: getattr(item, "__name__", item))
def test_a_field_takes_a_value_or_says_what_is_wrong(cls: type[Value], field: str) -> None:
    for junk in JUNK:
        try:
            value = cls(**{**VALUES[cls], field: junk})
        except InvalidParamsError:
            continue
        assert value == copy.copy(value)
        protocol.unstructure(value)  # what can be made can be written
        assert len(repr(value)) < 1000


FUNCTIONS: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
    (protocol.decode_request, ('{"method":"closeBacktestSession"}',)),
    (protocol.decode_response, ('{"method":"success"}',)),
    (protocol.encode_request, (protocol.Continue(),)),
    (protocol.encode_response, (protocol.Success(), 1)),
    (protocol.structure, (protocol.SlotRange, {"start": 1, "end": 2})),
    (protocol.unstructure, (protocol.Continue(),)),
    (protocol.new_session_id, (1,)),
    (protocol.new_control_session_id, (1,)),
    (protocol.parse_session_id, (SESSION,)),
    (protocol.parse_control_session_id, ("0" * 32,)),
    (protocol.parse_session_name, ("x",)),
    (protocol.parse_aggregators, ("okx",)),
    (protocol.parse_templates, ("[]", "file")),
    (protocol.short_mint, (ADDRESS,)),
    (protocol.AccountModifications, ({},)),
    (protocol.Account.from_ui, ({},)),
    (protocol.DiscoveryFilter.program_executed, (ADDRESS,)),
    (protocol.DiscoveryFilter.oracle_update, ([ADDRESS], [ADDRESS])),
    (protocol.ActionAnchor.before_slot, ([1],)),
    (protocol.ActionAnchor.after_slot, ([1],)),
    (protocol.ActionAnchor.before_every_slot, (1,)),
    (protocol.ActionAnchor.after_every_slot, (1,)),
    (protocol.ActionAnchor.before_match, (protocol.DiscoveryFilter.program_executed(ADDRESS),)),
    (protocol.ActionAnchor.after_match, (protocol.DiscoveryFilter.program_executed(ADDRESS),)),
    (protocol.TxResolver.liquidity_arrays, (ADDRESS, ADDRESS, [1])),
    (protocol.MintPair.parse, (f"{ADDRESS},{SYSTEM}",)),
    (protocol.SlotRange.from_count, (1, 1)),
    (protocol.UsagePricing(1, 1, 1).cost, (1, 1)),
    (protocol.SessionCoverage, (1, True)),
    (protocol.SessionCoverage(1, completed=True).check, (1,)),
    (protocol.CreateSession(1, 2).add_override, (1, {})),
    (ranges.parse_range_bound, ("1",)),
    (ranges.filter_ranges, ([], 1, 1)),
    (ranges.split_range, ([protocol.AvailableRange(1, None, 9)], 1, 9, "blocks", "most")),
    (urls.backtest_ws_url, ("host",)),
    (urls.http_base_from_ws_url, ("ws://host",)),
    (urls.http_to_ws_url, ("http://host",)),
    (urls.resolve_rpc_url, ("http://host", "/path")),
    (urls.prefixed_path, (SESSION, "/path")),
    (urls.split_prefixed_path, ("/path",)),
    (programs.program_data_address, (ADDRESS,)),
    (programs.build_programdata_bytes, (b"", 1, ADDRESS)),
    (programs.build_program_injection, (ADDRESS, b"", 1, ADDRESS, 1)),
]
# those that read what a peer sent refuse it by this
_READERS = (
    protocol.decode_request,
    protocol.decode_response,
    protocol.structure,
    protocol.Account.from_ui,
)


@pytest.mark.parametrize(("function", "good"), FUNCTIONS, ids=lambda f: getattr(f, "__name__", ""))
def test_a_function_takes_an_argument_or_says_what_is_wrong(
    function: Callable[..., Any], good: tuple[Any, ...]
) -> None:
    allowed: tuple[type[Exception], ...] = (InvalidParamsError,)
    if function in _READERS:
        allowed = (InvalidParamsError, DeserializeError)
    for place in range(len(good)):
        for junk in JUNK:
            with contextlib.suppress(allowed):
                function(*good[:place], junk, *good[place + 1 :])


@pytest.mark.parametrize("cls", VALUES, ids=lambda cls: cls.__name__)
def test_a_value_is_frozen_and_can_be_copied(cls: type[Value]) -> None:
    value = cls(**VALUES[cls])
    for twin in (pickle.loads(pickle.dumps(value)), copy.copy(value), copy.deepcopy(value)):
        assert twin == value
        assert hash(twin) == hash(value)
    for field in attrs.fields(cls):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(value, field.name, None)
    with pytest.raises(AttributeError):
        value.nothing = 1  # type: ignore[attr-defined]
