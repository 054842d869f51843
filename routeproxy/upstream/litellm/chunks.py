"""LiteLLM's answers in our own structs, without what it puts in or writes over. Total: whatever has a shape
that nobody foresaw is left out, and nothing makes it raise."""

from typing import Any

import msgspec

from routeproxy.chat.completion import Chunk, ToolCallDelta
from routeproxy.translate.stop_reasons import later_finish_reason
from routeproxy.upstream.chat.lenient import salvage_chunk

SIGNATURE_SEPARATOR = "__thought__"
"""What LiteLLM writes between the id of a call and Gemini's thought signature."""


def chunk_of(answer: Any) -> Chunk:
    """A chunk or a whole completion, as LiteLLM's object or as decoded JSON."""
    try:
        chunk = msgspec.convert(answer, Chunk, from_attributes=True)
    except Exception:  # whatever an object's attributes may raise
        chunk = salvage_chunk(answer)
    model = _served_model(answer) or chunk.model
    if model is not chunk.model:
        chunk = msgspec.structs.replace(chunk, model=model)
    if any(SIGNATURE_SEPARATOR in call.id for call in _tool_calls(chunk) if isinstance(call.id, str)):
        chunk = _without_signatures_in_ids(chunk)
    return chunk


def with_own_finish_reason(chunk: Chunk, received: str | None) -> Chunk:
    """The chunk with the finish reason that the back end gave, where LiteLLM made a better one of it: a
    `stop` of a failure, a `tool_calls` of an answer that was cut after a call."""
    if not chunk.choices or later_finish_reason(received, chunk.choices[0].finish_reason) != received:
        return chunk
    return _replace_in_first_choice(chunk, finish_reason=received)


def _served_model(answer: Any) -> Any:
    """The model that the back end named; in chunks LiteLLM writes the requested one over it."""
    hidden = getattr(answer, "_hidden_params", None)
    return hidden.get("provider_response_model") if isinstance(hidden, dict) else None


def _tool_calls(chunk: Chunk) -> tuple[ToolCallDelta, ...]:
    if not chunk.choices:
        return ()
    part = chunk.choices[0].delta or chunk.choices[0].message
    return (part and part.tool_calls) or ()


def _without_signatures_in_ids(chunk: Chunk) -> Chunk:
    # No other provider takes such an id later, and the signature is in its own field, too.
    calls = tuple(
        msgspec.structs.replace(call, id=call.id.partition(SIGNATURE_SEPARATOR)[0])
        if isinstance(call.id, str)
        else call
        for call in _tool_calls(chunk)
    )
    name = "delta" if chunk.choices[0].delta is not None else "message"
    part = msgspec.structs.replace(getattr(chunk.choices[0], name), tool_calls=calls)
    return _replace_in_first_choice(chunk, **{name: part})


def _replace_in_first_choice(chunk: Chunk, **changes: Any) -> Chunk:
    first = msgspec.structs.replace(chunk.choices[0], **changes)
    return msgspec.structs.replace(chunk, choices=(first, *chunk.choices[1:]))
