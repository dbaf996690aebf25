"""The envelope of requests and responses: ``{"method": …, "params": …}`` (protocol/control.md §3)."""

from __future__ import annotations

from typing import Any

from backtest_sync.protocol.shape import Mismatch, Value, described, expect_object, shape_of

_ENVELOPE = frozenset(("method", "params"))


def method_of(json: Any) -> str:
    """The method that a message names."""
    expect_object(json, _ENVELOPE)
    if "method" not in json:
        raise Mismatch("missing field `method`")
    method = json["method"]
    if not isinstance(method, str):
        raise Mismatch(f"expected a string, got {described(method)}").under(".method")
    return method


def read_message(cls: type[Value], json: dict[str, Any]) -> Any:
    """The value of a message whose method is that of ``cls``.

    A class with a bare field is that field; one without fields has no params, or null; of any
    other they are an object.
    """
    shape = shape_of(cls)
    if not shape.fields:
        if json.get("params") is not None:
            raise Mismatch(f"expected no params, got {described(json['params'])}").under(".params")
        return cls()
    if "params" not in json:
        raise Mismatch("missing field `params`")
    try:
        if shape.bare is None:
            return shape.kind.read(json["params"])
        value = object.__new__(cls)
        shape.bare.put(value, shape.bare.wire.kind.read(json["params"]))
        return value
    except Mismatch as error:
        raise error.under(".params") from None


def write_message(value: Value) -> dict[str, Any]:
    """The JSON of a request or a response."""
    shape = shape_of(type(value))
    method: str = type(value).method  # type: ignore[attr-defined]
    if not shape.fields:
        return {"method": method}
    if shape.bare is None:
        return {"method": method, "params": shape.kind.write(value)}  # type: ignore[misc]
    write = shape.bare.wire.kind.write
    params = shape.bare.get(value)
    return {"method": method, "params": params if write is None else write(params)}
