"""Odd JSON of back ends, read as far as it can be: half an emoji, a field of the wrong type, a call without
an id. What has a shape that nobody foresaw is left out, and nothing but a text that is no JSON object makes
it raise."""

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import msgspec

from routeproxy.chat.completion import Choice, Chunk, CompletionUsage, Delta, FunctionDelta, ToolCallDelta
from routeproxy.upstream.http.sse import ERROR_NAME

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


def reported_error(data: bytes) -> Any:
    """The error in an answer, or in a part of one, that is nothing but an error, in whichever of the shapes
    of back ends; `None` if it is none. Of a server-sent event the name may stand before the data."""
    is_error = data.startswith(ERROR_NAME)
    text = data.removeprefix(ERROR_NAME).decode("utf-8", "replace")
    try:
        decoded = json.loads(text)
    except (ValueError, RecursionError):
        return {"message": text} if is_error else None
    if isinstance(decoded, list) and decoded:  # Google's
        decoded = decoded[0]
    if not isinstance(decoded, dict):
        return {"message": text} if is_error else None
    match decoded:
        case {"choices": [_, *_]} | {"candidates": [_, *_]} if not is_error:
            return None
        case {"base_resp": {"status_code": code}} if code:  # MiniMax's
            return decoded
    if is_error or _is_error(decoded):
        return decoded or {"message": text}
    return None


def _is_error(fields: Mapping[str, Any]) -> bool:
    named = any(fields.get(name) for name in ("error", "errors", "detail"))
    in_words = any(fields.get(name) and isinstance(fields[name], str) for name in ("message", "msg"))
    return named or in_words or "error" in (fields.get("object"), fields.get("type"))


def check_chunk_shape(fields: Mapping[str, Any]) -> None:
    """Raises `ValueError` if something of the answer stands in a place where nobody would read it: what is
    salvaged would lack it without a word."""
    for choice in _objects(fields.get("choices"), list):
        for part in (choice.get("delta"), choice.get("message")):
            message = _object(part)
            for call in _objects(message.get("tool_calls"), list):
                _object(call.get("function"))
            _object(message.get("function_call"))


def _objects(value: Any, type: type[list[Any]]) -> Iterator[Mapping[str, Any]]:
    if value and not isinstance(value, type):
        raise ValueError("not a list")
    for item in value or ():
        yield _object(item)


def _object(value: Any) -> Mapping[str, Any]:
    if value and not isinstance(value, dict):
        raise ValueError("not an object")
    return value or {}


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
