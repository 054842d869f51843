"""Instances of what Anthropic's SDK says that a request may hold, made from its types: whatever the installed
version knows is tried, and what a newer one adds is tried from the day it is installed.

A type has several instances: with the fields that are required, with all fields, with `null` wherever that
may stand, and for each field one for each of its alternatives.
"""

import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from os import PathLike
from typing import IO, Annotated, Any, Literal, NamedTuple, NotRequired, Required, Union, get_args, get_origin

from pydantic import BaseModel
from typing_extensions import get_type_hints, is_typeddict

ALTERNATIVES = 2
"""How deep fields take turns with their alternatives; further down each has its first."""

HEADERS = frozenset({"betas", "user_profile_id", "workspace_id"})
"""The parameters of a call that travel as headers."""

USUAL: Mapping[str, Any] = {
    "budget_tokens": 2048,
    "data": "aGVsbG8=",
    "id": "toolu_1",
    "max_tokens": 4096,
    "tool_use_id": "toolu_1",
    "url": "https://example.com/a",
}
"""Values that mean something, by the name of the field."""


class Shape(NamedTuple):
    name: str
    value: Any


def variants(annotation: Any, name: str = "", depth: int = 0) -> Iterator[Shape]:
    """The instances of a type; `name` is that of the field which they are for."""
    annotation = _bare(annotation)
    if annotation is None or annotation is type(None):
        yield Shape("null", None)
    elif is_typeddict(annotation) or _is_model(annotation):
        yield from _objects(annotation, depth)
    elif (origin := get_origin(annotation)) in (Union, types.UnionType):
        for alternative in get_args(annotation):
            yield from variants(alternative, name, depth)
    elif origin is Literal:
        yield from (Shape(repr(value), value) for value in get_args(annotation))
    elif origin in _LISTS:
        yield from (
            Shape(inner.name, [inner.value]) for inner in variants(get_args(annotation)[0], name, depth)
        )
        yield Shape("[]", [])
    elif origin in (dict, Mapping):
        yield from (
            Shape(inner.name, {"key": inner.value}) for inner in variants(get_args(annotation)[1], "", depth)
        )
    elif annotation in _SCALARS:
        yield Shape(annotation.__name__, USUAL.get(name, _SCALARS[annotation] or name or "text"))
    elif (origin or annotation) not in _NO_JSON:
        raise TypeError(f"no instance of {annotation} is known, for `{name}`")


_LISTS = (list, Iterable, Sequence)
_NO_JSON = (IO, PathLike)
"""What the SDK reads for its caller."""
_SCALARS: dict[Any, Any] = {
    str: None,
    int: 1,
    float: 0.5,
    bool: True,
    datetime: "2026-11-30T12:00:00Z",
    object: {"a": 1},
    Any: {"a": 1},
}


def _objects(kind: Any, depth: int) -> Iterator[Shape]:
    name = kind.__name__
    fields = dict(fields_of(kind))
    first = {key: next(iter(field.shapes(depth)), None) for key, field in fields.items()}
    full = {key: shape.value for key, shape in first.items() if shape is not None}
    required = {key: value for key, value in full.items() if fields[key].required}
    yield Shape(name, required)
    if full == required:
        optional = {}
    else:
        optional = {key: None for key, field in fields.items() if field.nullable and not field.required}
        yield Shape(f"{name} in full", full)
    if optional:
        yield Shape(f"{name} with null", required | optional)
    if depth < ALTERNATIVES:
        for key, field in fields.items():
            for shape in list(field.shapes(depth))[1:]:
                if shape.value is not None:
                    yield Shape(f"{name} {key}={shape.name}", required | {key: shape.value})


class Field(NamedTuple):
    name: str
    annotation: Any
    required: bool
    nullable: bool

    def shapes(self, depth: int) -> Iterator[Shape]:
        return variants(self.annotation, self.name, depth + 1)


def fields_of(kind: Any) -> Iterator[tuple[str, Field]]:
    """The fields of a `TypedDict` or a model, by the names that they have in JSON."""
    if _is_model(kind):
        for name, field in kind.model_fields.items():
            yield _field(field.alias or name, field.annotation, field.is_required())
    else:
        for name, hint in get_type_hints(kind, include_extras=True).items():
            if name not in HEADERS:
                yield _field(name, hint, get_origin(hint) is Required or name in _always_required(kind))


def _field(name: str, hint: Any, required: bool) -> tuple[str, Field]:
    return name, Field(name, hint, required, type(None) in get_args(_bare(hint)))


def _always_required(kind: Any) -> frozenset[str]:
    return frozenset() if kind.__total__ is False else frozenset(kind.__required_keys__)


def _bare(annotation: Any) -> Any:
    """A type without what is said about it."""
    while get_origin(annotation) in (Annotated, Required, NotRequired):
        annotation = get_args(annotation)[0]
    return annotation


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def members(alias: Any) -> list[Any]:
    """The alternatives of a union, those of the unions in it too."""
    alias = _bare(alias)
    if get_origin(alias) in (Union, types.UnionType):
        return [member for alternative in get_args(alias) for member in members(alternative)]
    return [alias]


def tag(shape: Any) -> str:
    return str(shape.get("type", "")) if isinstance(shape, dict) else ""
