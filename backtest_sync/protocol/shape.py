"""How a value class says its wire shape, and the one reader and one writer made from that.

A value is a frozen ``attrs`` class whose fields are declared with :func:`wire`. From these
declarations come the check of what a caller passes, the reader of JSON and its writer. Reader and
writer of a class are compiled when they are first used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import attrs

from backtest_sync.errors import InvalidParamsError
from backtest_sync.protocol.fields import shown
from backtest_sync.protocol.jsontext import Marked

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_: Any) -> Callable[[Any], Any]:
        return lambda cls: cls


T = TypeVar("T", bound=type)

_REQUIRED: Any = attrs.NOTHING
_KEEP: Any = object()
_META = "wire"
_SHOWN_ITEMS = 3
_SHOWN_CHARACTERS = 240  # of a value inside another


class Mismatch(Exception):  # noqa: N818 - never leaves the codec
    """A JSON value that is not of the shape due. Gathers its path on the way up."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.steps: list[str] = []

    def under(self, step: str) -> Mismatch:
        """The same, seen from one level up."""
        self.steps.append(step)
        return self

    def path(self) -> str:
        """Where it is: ``$.params.summary``."""
        return "$" + "".join(reversed(self.steps))


class Kind:
    """One kind of field: how a caller's value, a JSON value and the stored value correspond.

    ``accept(value, field)`` gives the stored form of what a caller passes, or
    ``InvalidParamsError``; ``read(json)`` that of a JSON value, or :class:`Mismatch`;
    ``write(stored)`` the JSON value (``None``: the stored form is one).
    """

    __slots__ = ("accept", "read", "write")

    def __init__(
        self,
        accept: Callable[[Any, str], Any],
        read: Callable[[Any], Any],
        write: Callable[[Any], Any] | None = None,
    ) -> None:
        self.accept = accept
        self.read = read
        self.write = write


class Wire:
    """What a field's declaration says of its place on the wire."""

    __slots__ = ("bare", "keys", "kind", "name", "omit", "required", "secret")

    def __init__(
        self,
        kind: Kind,
        name: str | None,
        omit: Any,
        required: bool,
        bare: bool,
        secret: bool,
        also: str | None,
    ) -> None:
        self.kind = kind
        self.name = name
        self.omit = omit
        self.required = required
        self.bare = bare
        self.secret = secret
        self.keys = () if also is None else (also,)


def wire(
    kind: Kind,
    *,
    default: Any = _REQUIRED,
    name: str | None = None,
    omit: Any = _KEEP,
    required: bool = False,
    bare: bool = False,
    secret: bool = False,
    also: str | None = None,
) -> Any:
    """Declare a field of a value class.

    ``name``: its key, where the class's case rule does not give it. ``omit``: it is left out of the
    JSON when it equals this. ``required``: the JSON must have it although callers may leave it out.
    ``bare``: it is the whole of ``params``, not a key in it. ``secret``: kept out of the repr.
    ``also``: a second spelling that is understood on input.
    """
    return attrs.field(
        default=default, metadata={_META: Wire(kind, name, omit, required, bare, secret, also)}
    )


class Value:
    """The base of all values: normalised when made, equal by value, with a short repr."""

    __slots__ = ()

    if TYPE_CHECKING:
        __attrs_attrs__: ClassVar[Any]

    #: Whether keys are camelCase on the wire; else they are the attributes' names.
    _camel: ClassVar[bool] = True

    def __attrs_post_init__(self) -> None:
        for name, put, accept in shape_of(type(self)).checks:
            put(self, accept(getattr(self, name), name))
        self._check()

    def _check(self) -> None:
        """What fields must obey together; raises ``InvalidParamsError``. Also run on what is read."""

    def __repr__(self) -> str:
        shape = shape_of(type(self))
        parts = [
            f"{field.attr}={'…' if field.wire.secret else _short(value)}"
            for field in shape.fields
            if (value := getattr(self, field.attr)) != field.default
        ]
        return f"{type(self).__name__}({', '.join(parts)})"


def _short(value: object) -> str:
    if isinstance(value, (tuple, list, Mapping)) and len(value) > _SHOWN_ITEMS:
        return f"<{len(value)} items>"
    if isinstance(value, tuple):
        return f"({', '.join(map(_short, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, str):
        return shown(str.__str__(value))
    if isinstance(value, Value):
        text = repr(value)
        return text if len(text) <= _SHOWN_CHARACTERS else f"{type(value).__name__}(…)"
    return shown(value)


@dataclass_transform(frozen_default=True, field_specifiers=(wire,))
def value_class(cls: T) -> T:
    """Make a value class of a class body of :func:`wire` fields."""
    return attrs.define(frozen=True, repr=False)(cls)


class Field:
    """One field of a compiled shape."""

    __slots__ = ("attr", "default", "get", "key", "put", "wire")

    def __init__(self, cls: type, attribute: attrs.Attribute[Any], camel: bool) -> None:
        spec: Wire = attribute.metadata[_META]
        self.attr = attribute.name
        self.key = spec.name or (_camel_case(attribute.name) if camel else attribute.name)
        self.default: Any = attribute.default
        self.wire = spec
        self.get = attrgetter(attribute.name)
        # the slot's own setter: values are frozen, and this is the fastest way in
        self.put: Callable[[Any, Any], None] = getattr(cls, attribute.name).__set__


class Shape:
    """The compiled wire shape of one class."""

    __slots__ = ("bare", "checks", "cls", "fields", "kind")

    def __init__(self, cls: type[Value]) -> None:
        self.cls = cls
        self.fields = tuple(
            Field(cls, attribute, cls._camel)
            for attribute in attrs.fields(cls)
            if _META in attribute.metadata
        )
        self.checks = tuple((f.attr, f.put, f.wire.kind.accept) for f in self.fields)
        self.bare = next((f for f in self.fields if f.wire.bare), None)
        self.kind = Kind(_instance_of(cls), self._reader(), self._writer())

    def _reader(self) -> Callable[[Any], Any]:
        cls, new = self.cls, object.__new__
        known = frozenset(key for f in self.fields for key in (f.key, *f.wire.keys))
        plan = tuple(
            (
                f.key,
                f.wire.keys,
                f.put,
                f.wire.kind.read,
                _REQUIRED if f.wire.required else f.default,
            )
            for f in self.fields
        )
        check = None if cls._check is Value._check else cls._check  # noqa: SLF001

        def read(json: Any) -> Any:
            expect_object(json, known)
            value = new(cls)
            for key, others, put, read_field, default in plan:
                item = json.get(key, _KEEP)
                for other in others:
                    if item is _KEEP:
                        item = json.get(other, _KEEP)
                if item is _KEEP:
                    if default is _REQUIRED:
                        raise Mismatch(f"missing field `{key}`")
                    put(value, default)
                    continue
                try:
                    put(value, read_field(item))
                except Mismatch as error:
                    raise error.under(f".{key}") from None
            if check is not None:
                try:
                    check(value)
                except InvalidParamsError as error:
                    raise Mismatch(str(error)) from error
            return value

        return read

    def _writer(self) -> Callable[[Any], dict[str, Any]]:
        plan = tuple((f.key, f.get, f.wire.kind.write, f.wire.omit) for f in self.fields)

        def write(value: Any) -> dict[str, Any]:
            json = {}
            for key, get, write_field, omit in plan:
                item = get(value)
                if omit is not _KEEP and item == omit:
                    continue
                json[key] = item if write_field is None else write_field(item)
            return json

        return write


def shape_of(cls: type[Value]) -> Shape:
    """The compiled shape of a value class."""
    shape: Shape | None = cls.__dict__.get("_shape")
    if shape is None:
        shape = Shape(cls)
        cls._shape = shape  # type: ignore[attr-defined]
    return shape


def custom(cls: type[Value], read: Callable[[Any], Any], write: Callable[[Any], Any]) -> Kind:
    """The kind of a class that reads and writes its JSON itself; known to :func:`kind_of` then."""
    kind = Kind(_instance_of(cls), read, write)
    cls._kind = kind  # type: ignore[attr-defined]
    return kind


def kind_of(cls: type[Value]) -> Kind:
    """How a value class is read and written."""
    kind: Kind | None = cls.__dict__.get("_kind")
    return shape_of(cls).kind if kind is None else kind


def struct(cls: type[Value]) -> Kind:
    """The kind of a field that holds a value of ``cls``. Compiled when it is first used."""
    return Kind(
        _instance_of(cls),
        lambda json: kind_of(cls).read(json),
        lambda value: kind_of(cls).write(value),  # type: ignore[misc]
    )


def expect_object(json: Any, known: frozenset[str]) -> None:
    """``Mismatch`` for what is no object, or repeats one of its ``known`` keys."""
    if not isinstance(json, dict):
        raise Mismatch(f"expected an object, got {described(json)}")
    if isinstance(json, Marked) and json.repeated & known:
        raise Mismatch(f"duplicate field `{min(json.repeated & known)}`")


def member(json: dict[str, Any], key: str, kind: Kind, default: Any = _REQUIRED) -> Any:
    """One member of an object, read; for the classes that read themselves."""
    if key not in json:
        if default is _REQUIRED:
            raise Mismatch(f"missing field `{key}`")
        return default
    try:
        return kind.read(json[key])
    except Mismatch as error:
        raise error.under(f".{key}") from None


def described(json: object) -> str:
    """A JSON value as an error names it."""
    if json is None:
        return "null"
    if isinstance(json, bool):
        return "true" if json else "false"
    if isinstance(json, dict):
        return "an object"
    return "a list" if isinstance(json, list) else shown(json)


def _instance_of(cls: type) -> Callable[[Any, str], Any]:
    def accept(value: Any, field: str) -> Any:
        if not isinstance(value, cls):
            raise InvalidParamsError(f"{field}: expected {cls.__name__}, got {shown(value)}")
        return value

    return accept


def _camel_case(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)
