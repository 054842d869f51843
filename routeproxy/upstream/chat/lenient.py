"""Odd JSON of back ends, read as far as it can be: half an emoji, a field of the wrong type, a call without
an id. What has a shape that nobody foresaw is left out, and nothing but a text that is no JSON object makes
it raise."""

import json
import os
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from routeproxy.chat.completion import Choice, Chunk, CompletionUsage, Delta, FunctionDelta, ToolCallDelta

T = TypeVar("T", bound=msgspec.Struct)


def decode_object_leniently(data: bytes) -> Mapping[str, Any]:
    """A JSON object in which strings may be half an emoji, as some back ends cut them. Raises `ValueError`
    for what is none."""
    try:
        decoded = json.loads(data.decode("utf-8", "replace"))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(decoded, dict):
        raise ValueError("not a JSON object")
    return decoded


def whole_call(index: int, id: Any, name: Any, arguments: str, fields: Any = None) -> ToolCallDelta:
    """A call that came at once. Not every back end has an id for it, and what streams needs one."""
    id = id if isinstance(id, str) and id else f"call_{os.urandom(12).hex()}"
    return ToolCallDelta(index, id, FunctionDelta(name, arguments), provider_specific_fields=fields)


def salvage_chunk(value: Any) -> Chunk:
    """What can be read of a chunk or a completion, field by field. `value`: decoded JSON, or an object with
    the same fields."""
    fields = as_mapping(value)
    choices = fields.get("choices")
    return Chunk(
        choices=tuple(map(_salvage_choice, choices)) if isinstance(choices, list | tuple) else (),
        usage=salvage_usage(fields["usage"]) if fields.get("usage") is not None else None,
        model=fields.get("model"),
        error=fields.get("error"),
    )


def salvage_usage(value: Any) -> CompletionUsage:
    try:
        return msgspec.convert(value, CompletionUsage, from_attributes=True)
    except Exception:  # whatever an object's attributes may raise
        return _salvage(as_mapping(value), CompletionUsage)


def as_mapping(value: Any) -> Mapping[str, Any]:
    """The fields of a mapping, of a Pydantic model or of any other object; of anything else, none."""
    if isinstance(value, Mapping):
        return value
    try:
        fields = value.model_dump()
    except Exception:
        fields = getattr(value, "__dict__", None)
    return fields if isinstance(fields, Mapping) else {}


def _salvage_choice(value: Any) -> Choice:
    fields = as_mapping(value)
    parts = {
        name: _salvage_delta(fields[name]) for name in ("delta", "message") if fields.get(name) is not None
    }
    return msgspec.structs.replace(_salvage({**fields, "delta": None, "message": None}, Choice), **parts)


def _salvage_delta(value: Any) -> Delta:
    fields = as_mapping(value)
    calls = fields.get("tool_calls")
    delta = _salvage({**fields, "tool_calls": None}, Delta)
    if not isinstance(calls, list | tuple):
        return delta
    tool_calls = tuple(_salvage(as_mapping(call), ToolCallDelta) for call in calls if call is not None)
    return msgspec.structs.replace(delta, tool_calls=tool_calls)


def _salvage(fields: Mapping[str, Any], struct: type[T]) -> T:
    """Field by field; one that is not what it should be keeps its default."""
    kept = {}
    for field in msgspec.structs.fields(struct):
        if field.encode_name in fields:
            try:
                kept[field.name] = msgspec.convert(fields[field.encode_name], field.type, strict=False)
            except Exception:
                continue
    return struct(**kept)
