"""LiteLLM's answers in our own structs. Total: what has a shape that nobody foresaw is left out, and nothing
makes it raise."""

import json
import os
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from routeproxy.chat.completion import Choice, Chunk, CompletionUsage, Delta, FunctionDelta, ToolCallDelta
from routeproxy.translate.stop_reasons import stop_reason

T = TypeVar("T", bound=msgspec.Struct)

_SIGNED = "__thought__"
_OURS = "custom_openai/"


def chunk_of(answer: Any) -> Chunk:
    try:
        chunk = msgspec.convert(answer, Chunk, from_attributes=True)
    except Exception:  # whatever an object's attributes may raise
        chunk = salvage_chunk(answer)
    if chunk.choices and chunk.choices[0].message is not None:
        chunk = _with_hidden_fields(chunk, answer)
    model = _served(answer) or chunk.model
    if isinstance(model, str) and model.startswith(_OURS):
        model = model[len(_OURS) :]
    if model is not chunk.model:
        chunk = msgspec.structs.replace(chunk, model=model)
    if any(_SIGNED in call.id for call in _calls(chunk) if isinstance(call.id, str)):
        chunk = _without_signatures_in_ids(chunk)
    return chunk


def usage_of(usage: Any) -> CompletionUsage:
    try:
        return msgspec.convert(usage, CompletionUsage, from_attributes=True)
    except Exception:
        return _lenient(_dumped(usage), CompletionUsage)


def reworded(chunk: Chunk, received: str | None) -> Chunk:
    """With the back end's own finish reason, where LiteLLM made a `stop` of one that means failure."""
    if not chunk.choices or stop_reason(received) != "failed":
        return chunk
    return _with_first(chunk, finish_reason=received)


def _with_hidden_fields(chunk: Chunk, answer: Any) -> Chunk:
    """Of a whole answer LiteLLM keeps what it has no field for in a corner."""
    choice = chunk.choices[0]
    assert choice.message is not None
    of_choice = _dumped(getattr(_first(answer), "provider_specific_fields", None))
    of_message = _dumped(choice.message.provider_specific_fields)
    hidden = {
        name: of_message.get(name) for name in ("refusal", "reasoning", "reasoning_details", "annotations")
    }
    found = {name: value for name, value in hidden.items() if value and getattr(choice.message, name) is None}
    return _with_first(
        chunk,
        message=msgspec.structs.replace(choice.message, **found),
        stop_reason=choice.stop_reason or of_choice.get("stop_reason"),
    )


def _first(answer: Any) -> Any:
    choices = getattr(answer, "choices", None)
    return choices[0] if isinstance(choices, list | tuple) and choices else None


def _served(answer: Any) -> Any:
    """The model that the back end named; in chunks LiteLLM writes the requested one over it."""
    hidden = getattr(answer, "_hidden_params", None)
    return hidden.get("provider_response_model") if isinstance(hidden, dict) else None


def _calls(chunk: Chunk) -> tuple[ToolCallDelta, ...]:
    if not chunk.choices:
        return ()
    said = chunk.choices[0].delta or chunk.choices[0].message
    return (said and said.tool_calls) or ()


def _without_signatures_in_ids(chunk: Chunk) -> Chunk:
    # LiteLLM puts Gemini's signature into the id of the call, which no other provider takes later. It is in
    # its own field, too.
    calls = tuple(
        msgspec.structs.replace(call, id=call.id.partition(_SIGNED)[0]) if isinstance(call.id, str) else call
        for call in _calls(chunk)
    )
    part = "delta" if chunk.choices[0].delta is not None else "message"
    said = msgspec.structs.replace(getattr(chunk.choices[0], part), tool_calls=calls)
    return _with_first(chunk, **{part: said})


def _with_first(chunk: Chunk, **changes: Any) -> Chunk:
    first = msgspec.structs.replace(chunk.choices[0], **changes)
    return msgspec.structs.replace(chunk, choices=(first, *chunk.choices[1:]))


# --- what does not convert as it is


def whole_call(index: int, id: Any, name: Any, arguments: str, fields: Any = None) -> ToolCallDelta:
    """A call that came at once. Not every back end has an id for it, and what streams needs one."""
    id = id if isinstance(id, str) and id else f"call_{os.urandom(12).hex()}"
    return ToolCallDelta(index, id, FunctionDelta(name, arguments), provider_specific_fields=fields)


def decode_object_leniently(data: bytes) -> Mapping[str, Any]:
    """A JSON object in which strings may be half an emoji, as some back ends cut them. Raises `ValueError`
    for what is none."""
    try:
        found = json.loads(data.decode("utf-8", "replace"))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")
    return found


def salvage_chunk(answer: Any) -> Chunk:
    """What can be read of it, field by field."""
    found = _dumped(answer)
    choices = found.get("choices")
    return Chunk(
        choices=tuple(map(_choice, choices)) if isinstance(choices, list | tuple) else (),
        usage=usage_of(found["usage"]) if found.get("usage") is not None else None,
        model=found.get("model"),
        error=found.get("error"),
    )


def _choice(found: Any) -> Choice:
    found = _dumped(found)
    parts = {name: _delta(found[name]) for name in ("delta", "message") if found.get(name) is not None}
    return msgspec.structs.replace(_lenient({**found, "delta": None, "message": None}, Choice), **parts)


def _delta(found: Any) -> Delta:
    found = _dumped(found)
    calls = found.get("tool_calls")
    delta = _lenient({**found, "tool_calls": None}, Delta)
    if not isinstance(calls, list | tuple):
        return delta
    return msgspec.structs.replace(
        delta, tool_calls=tuple(_lenient(_dumped(call), ToolCallDelta) for call in calls if call is not None)
    )


def _dumped(found: Any) -> Mapping[str, Any]:
    if isinstance(found, Mapping):
        return found
    try:
        dumped = found.model_dump()
    except Exception:
        dumped = getattr(found, "__dict__", None)
    return dumped if isinstance(dumped, Mapping) else {}


def _lenient(found: Mapping[str, Any], kind: type[T]) -> T:
    """Field by field; one that is not what it should be keeps its default."""
    kept = {}
    for field in msgspec.structs.fields(kind):
        if field.encode_name in found:
            try:
                kept[field.name] = msgspec.convert(found[field.encode_name], field.type, strict=False)
            except Exception:
                continue
    return kind(**kept)
