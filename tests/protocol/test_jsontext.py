"""JSON text: the same with orjson and without."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import example, given, strategies as st

from backtest_sync.protocol import jsontext
from tests.strategies import json_values

orjson = pytest.importorskip("orjson")

_DEEP = jsontext.MAX_DEPTH


def _both(text: str | bytes) -> Any:
    """What both parsers make of a text: one value, or that both refuse it."""
    outcomes = []
    for parse in (jsontext._parse, orjson.loads):
        try:
            outcomes.append(("value", parse(text)))
        except ValueError:
            outcomes.append(("refused", None))
    assert repr(outcomes[0]) == repr(outcomes[1])
    return outcomes[0][0]


@given(json_values())
def test_written_text_says_the_same(value: Any) -> None:
    for dump in (jsontext._standard_dumps, jsontext._fast_dumps):
        text = dump(value)  # the two differ in how they spell a float alone: 1e-05, 0.00001
        assert _both(text) == "value"
        assert json.loads(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "0",
        "-0",
        "-0.0",
        "1.0",
        "1e3",
        "18446744073709551615",
        "18446744073709551616",
        "-9223372036854775808",
        "-9223372036854775809",
        "1" + "0" * 30,
        "-" + "9" * 300,
        '"\\u00e9\\ud83d\\ude80"',
        " \t\r\n[1 , 2]\n",
        '{"a":1,"a":2}',
        '"\\u0000"',
        "true",
        "null",
        "[[[[]]]]",
    ],
)
def test_read_alike(text: str) -> None:
    assert _both(text) == "value"
    assert _both(text.encode()) == "value"


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "NaN",
        "Infinity",
        "-Infinity",
        "1e400",
        "-1e400",
        "9" * 400,
        "9" * 10_000,
        "01",
        "+1",
        ".5",
        "1.",
        "[1,]",
        "{'a':1}",
        '{"a":1,}',
        '{"a"}',
        "{} x",
        "{}{}",
        "/* */ 1",
        '"\x01"',
        '"\\x41"',
        '"\\ud800"',
        '"\\udc00"',
        '{"\\ud800":1}',
        "\ufeff1",
        '"\ud800"',
        "\xa01",
        "tru",
        b"\xff",
        b'"\xff"',
        b'"\xed\xa0\x80"',
        "[".encode("utf-16"),
        "[1]".encode("utf-16"),
        "[1]".encode("utf-32"),
    ],
)
def test_refused_alike(text: str | bytes) -> None:
    assert _both(text) == "refused"


@given(st.text(alphabet='{}[]",:0123456789.eE+-\\utrfalsn \n', max_size=12))
@example('"\\ud800\\udc00"')
@example('"\\\\ud800"')
@example('"\\udc00\\ud800"')
def test_any_text_is_read_or_refused_alike(text: str) -> None:
    _both(text)


def _nested(depth: int, opening: str = "[", closing: str = "]") -> str:
    return opening * depth + "1" + closing * depth


@pytest.mark.parametrize("parse", [jsontext._parse, orjson.loads], ids=["json", "orjson"])
@pytest.mark.parametrize("as_bytes", [False, True])
def test_nesting_is_capped(parse: Any, as_bytes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsontext, "parse", parse)
    for text in (_nested(_DEEP), _nested(_DEEP // 2, '{"a":[', "]}"), "[" + "[]," * 5000 + "1]"):
        jsontext.loads(text.encode() if as_bytes else text)
    quoted = json.dumps(["[" * 5000, '\\"[{' * 500])
    assert jsontext.loads(quoted) == json.loads(quoted)
    for text in (_nested(_DEEP + 1), _nested(_DEEP // 2 + 1, '{"a":[', "]}"), _nested(100_000)):
        with pytest.raises(ValueError, match="deeper than 512 levels"):
            jsontext.loads(text.encode() if as_bytes else text)


def test_a_stack_that_runs_out_is_a_refusal() -> None:
    def deeper(levels: int) -> Any:
        return deeper(levels - 1) if levels else jsontext._parse(_nested(_DEEP))

    limit = sys.getrecursionlimit()
    outcomes = []
    for levels in range(limit - 700, limit - 100, 40):
        try:
            outcomes.append(bool(deeper(levels)))
        except (ValueError, RecursionError):
            outcomes.append(False)
    assert len(outcomes) == 15


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [1, {"a": float("-inf")}, None]])
@pytest.mark.parametrize("dump", [jsontext._fast_dumps, jsontext._standard_dumps])
def test_numbers_that_json_lacks_are_refused(dump: Any, value: Any) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        dump(value)


@pytest.mark.parametrize("value", [object(), {1, 2}, b"x", "\ud800"])
def test_values_that_json_lacks_are_refused_by_both(value: Any) -> None:
    for dump in (jsontext._fast_dumps, jsontext._standard_dumps):
        with pytest.raises((TypeError, ValueError)):
            dump(value)


@pytest.mark.parametrize("value", [2**64, -(2**70), {5: 1}, (1, 2), None, {"a": [None]}])
def test_odd_values_are_written_alike(value: Any) -> None:
    assert jsontext._fast_dumps(value) == jsontext._standard_dumps(value)


def test_repeated_keys_are_marked() -> None:
    value = jsontext.loads_marking('{"a":1,"b":{"c":1,"c":2},"a":3}')
    assert value == {"a": 3, "b": {"c": 2}}
    assert value.repeated == {"a"}
    assert value["b"].repeated == {"c"}
    assert jsontext.loads_marking('{"a":1}').repeated == set()


_PROGRAM = """
import sys
if {blocked}:
    sys.modules["orjson"] = None
import json
from backtest_sync.errors import DeserializeError
from backtest_sync.protocol import decode_request, decode_response, encode_request, encode_response
from backtest_sync.protocol import jsontext
assert (jsontext.orjson is None) == {blocked}
for line in sys.stdin:
    way, text = json.loads(line)
    try:
        if way == "response":
            sequence, value = decode_response(text)
            print(sequence, repr(value), sorted(json.loads(encode_response(value)).items()))
        else:
            print(encode_request(decode_request(text)))
    except DeserializeError as error:
        print("refused", error.reason.rpartition(" at ")[2] if " at $" in error.reason else "")
"""


def test_values_are_the_same_with_orjson_and_without() -> None:
    """Every text of the vectors, in a process with orjson and in one without."""
    from tests.protocol.vectors import cases

    texts = [("response", case["wire_text"]) for case in cases("responses")]
    texts += [("response", case["sequenced_text"]) for case in cases("responses")]
    texts += [("response", case["text"]) for case in cases("responses_rejected")]
    texts += [("request", case["wire_text"]) for case in cases("requests")]
    texts += [("request", case["text"]) for case in cases("requests_accepted")]
    lines = "\n".join(map(json.dumps, texts))
    outputs = [
        subprocess.run(
            [sys.executable, "-c", _PROGRAM.format(blocked=blocked)],
            input=lines,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        for blocked in (False, True)
    ]
    assert len(outputs[0]) == len(texts)
    assert outputs[0] == outputs[1]
