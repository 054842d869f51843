"""The formats of the back ends: each says the same turn in its own words, and reads what it was asked into
the same few things."""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple
from uuid import uuid4

from tests.backend import (
    Received,
    Script,
    chunk,
    completion,
    data,
    done,
    event,
    json_answer,
    sse,
    streamed,
    tool_chunk,
)

Json = dict[str, Any]

THOUGHT = "I should look."
TEXT = "Let me look."
INPUT = {"command": "ls -la", "description": 'Lists "it all"'}
ARGUMENTS = json.dumps(INPUT)
LAST = "Nothing there."
SIGNATURE = "c2lnbmVkLWJ5LXRoZS1iYWNrLWVuZA=="
"""What a back end hides in its reasoning, and wants back."""


class Seen(NamedTuple):
    """What a back end was asked, whatever its format."""

    tools: list[str]
    system: list[str]
    user: list[str]
    calls: list[tuple[str, Json]]
    results: list[str]
    reasoning: list[Any]
    """What came back of its own thoughts."""


class Format(NamedTuple):
    streamed: Script
    """A thought if it has any, `TEXT`, and a call of `Bash`."""
    whole: Script
    last: Callable[[bool], Script]
    """`LAST`, streamed or not."""
    read: Callable[[Json], Seen]


# --- chat completions

CALL = {"id": "call_1", "type": "function", "function": {"name": "Bash", "arguments": ARGUMENTS}}


def chat(**thought: Any) -> Format:
    """`thought`: the fields in which this one reasons."""
    return Format(
        streamed=sse(
            chunk(role="assistant", content=""),
            *([chunk(**thought)] if thought else []),
            chunk(TEXT[:3]),
            chunk(TEXT[3:]),
            tool_chunk(0, "Bash", "", id="call_1"),
            tool_chunk(0, arguments=ARGUMENTS[:9]),
            tool_chunk(0, arguments=ARGUMENTS[9:]),
            done("tool_calls"),
        ),
        whole=json_answer(completion(TEXT, finish="tool_calls", tool_calls=[CALL], **thought)),
        last=lambda stream: sse(chunk(LAST), done()) if stream else json_answer(completion(LAST)),
        read=_read_chat,
    )


def _read_chat(body: Json) -> Seen:
    said = body["messages"]
    return Seen(
        tools=[tool["function"]["name"] for tool in body["tools"]],
        system=_texts(turn["content"] for turn in said if turn["role"] in ("system", "developer")),
        user=_texts(turn["content"] for turn in said if turn["role"] == "user"),
        calls=[
            (call["function"]["name"], json.loads(call["function"]["arguments"]))
            for turn in said
            for call in turn.get("tool_calls") or ()
        ],
        results=_texts(turn["content"] for turn in said if turn["role"] == "tool"),
        reasoning=[
            turn[field]
            for turn in said
            for field in ("reasoning_content", "reasoning_details")
            if turn.get(field)
        ],
    )


def _texts(contents: Iterable[Any]) -> list[str]:
    """All texts, whether a content is one or a list of parts."""
    return [
        text
        for content in contents
        for text in (
            [content] if isinstance(content, str) else [part.get("text", "") for part in content or ()]
        )
    ]


# --- Responses

_REASONING = {
    "type": "reasoning",
    "id": "rs_1",
    "summary": [{"type": "summary_text", "text": THOUGHT}],
    "encrypted_content": SIGNATURE,
}
_CALLED = {
    "type": "function_call",
    "id": "fc_1",
    "call_id": "call_1",
    "name": "Bash",
    "arguments": ARGUMENTS,
    "status": "completed",
}


def _message(text: str) -> Json:
    part = {"type": "output_text", "text": text, "annotations": []}
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]}


def _response(*output: Json, **fields: Any) -> Json:
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "model": "gpt-5.4",
        "output": [*output],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": 10,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 5,
            "output_tokens_details": {"reasoning_tokens": 2},
            "total_tokens": 15,
        },
        **fields,
    }


def _text_events(index: int, text: str) -> list[bytes]:
    place = {"item_id": "msg_1", "output_index": index, "content_index": 0}
    empty = _message(text) | {"content": [], "status": "in_progress"}
    return [
        event("response.output_item.added", output_index=index, item=empty),
        event("response.output_text.delta", **place, delta=text[:3]),
        event("response.output_text.delta", **place, delta=text[3:]),
        event("response.output_text.done", **place, text=text),
        event("response.output_item.done", output_index=index, item=_message(text)),
    ]


_STARTS = event("response.created", response=_response(status="in_progress", usage=None))
_SUMMARY = {"item_id": "rs_1", "output_index": 0, "summary_index": 0}

RESPONSES = Format(
    streamed=streamed(
        _STARTS,
        event(
            "response.output_item.added",
            output_index=0,
            item=_REASONING | {"summary": [], "encrypted_content": ""},
        ),
        event("response.reasoning_summary_text.delta", **_SUMMARY, delta=THOUGHT),
        event("response.reasoning_summary_text.done", **_SUMMARY, text=THOUGHT),
        event("response.output_item.done", output_index=0, item=_REASONING),
        *_text_events(1, TEXT),
        event(
            "response.output_item.added",
            output_index=2,
            item=_CALLED | {"arguments": "", "status": "in_progress"},
        ),
        event("response.function_call_arguments.delta", item_id="fc_1", output_index=2, delta=ARGUMENTS[:9]),
        event("response.function_call_arguments.delta", item_id="fc_1", output_index=2, delta=ARGUMENTS[9:]),
        event("response.function_call_arguments.done", item_id="fc_1", output_index=2, arguments=ARGUMENTS),
        event("response.output_item.done", output_index=2, item=_CALLED),
        event("response.completed", response=_response(_REASONING, _message(TEXT), _CALLED)),
    ),
    whole=json_answer(_response(_REASONING, _message(TEXT), _CALLED)),
    last=lambda stream: (
        streamed(
            _STARTS, *_text_events(0, LAST), event("response.completed", response=_response(_message(LAST)))
        )
        if stream
        else json_answer(_response(_message(LAST)))
    ),
    read=lambda body: _read_responses(body),
)


def _read_responses(body: Json) -> Seen:
    items = body["input"]

    def of(*roles: str) -> list[str]:
        return _texts(item["content"] for item in items if item.get("role") in roles)

    return Seen(
        tools=[tool["name"] for tool in body["tools"]],
        system=[body.get("instructions") or "", *of("system", "developer")],
        user=of("user"),
        calls=[
            (item["name"], json.loads(item["arguments"]))
            for item in items
            if item.get("type") == "function_call"
        ],
        results=_texts(item["output"] for item in items if item.get("type") == "function_call_output"),
        reasoning=[
            item.get("encrypted_content") or item.get("summary")
            for item in items
            if item.get("type") == "reasoning"
        ],
    )


# --- Gemini


def _candidate(*parts: Json, finish: str | None = None) -> Json:
    candidate: Json = {"content": {"parts": [*parts], "role": "model"}, "index": 0}
    usage = {"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 15}
    if finish:
        candidate["finishReason"] = finish
    return {"candidates": [candidate], "modelVersion": "gemini-2.5-pro", "usageMetadata": usage}


_PARTS: list[Json] = [
    {"text": THOUGHT, "thought": True},
    {"text": TEXT},
    {"functionCall": {"name": "Bash", "args": INPUT}, "thoughtSignature": SIGNATURE},
]


def _google(stream: bool, *parts: Json) -> Script:
    if not stream:
        return json_answer(_candidate(*parts, finish="STOP"))
    *before, last = parts
    return streamed(*(data(_candidate(part)) for part in before), data(_candidate(last, finish="STOP")))


GEMINI = Format(
    streamed=_google(True, *_PARTS),
    whole=_google(False, *_PARTS),
    last=lambda stream: _google(stream, {"text": LAST}),
    read=lambda body: _read_gemini(body),
)


def _read_gemini(body: Json) -> Seen:
    # Google's parser takes both spellings of every name.
    body = _camel(body)
    parts = [(turn["role"], part) for turn in body["contents"] for part in turn["parts"]]
    calls = [part["functionCall"] for _, part in parts if "functionCall" in part]
    return Seen(
        tools=[one["name"] for tool in body["tools"] for one in tool["functionDeclarations"]],
        system=_texts([body["systemInstruction"]["parts"]]),
        user=[part["text"] for role, part in parts if role == "user" and "text" in part],
        calls=[(call["name"], call["args"]) for call in calls],
        results=[json.dumps(part["functionResponse"]) for _, part in parts if "functionResponse" in part],
        reasoning=[part["thoughtSignature"] for _, part in parts if "thoughtSignature" in part],
    )


_SNAKES = {
    "system_instruction": "systemInstruction",
    "function_declarations": "functionDeclarations",
    "function_call": "functionCall",
    "function_response": "functionResponse",
    "thought_signature": "thoughtSignature",
}


def _camel(value: Any) -> Any:
    if isinstance(value, list):
        return [_camel(one) for one in value]
    if isinstance(value, dict):
        return {_SNAKES.get(name, name): _camel(one) for name, one in value.items()}
    return value


# --- Ollama


def _line(content: str = "", *, done: bool = False, **message: Any) -> Json:
    end = {"done_reason": "stop", "prompt_eval_count": 10, "eval_count": 5} if done else {}
    message = {"role": "assistant", "content": content, **message}
    return {
        "model": "qwen3:32b",
        "created_at": "2026-01-01T00:00:00Z",
        "message": message,
        "done": done,
    } | end


def _lines(*lines: Json) -> Script:
    return streamed(
        *(json.dumps(line).encode() + b"\n" for line in lines), content_type="application/x-ndjson"
    )


_OLLAMAS_CALL = [{"function": {"name": "Bash", "arguments": INPUT}}]

OLLAMA = Format(
    streamed=_lines(
        _line(thinking=THOUGHT),
        _line(TEXT[:3]),
        _line(TEXT[3:]),
        _line(tool_calls=_OLLAMAS_CALL),
        _line(done=True),
    ),
    whole=json_answer(_line(TEXT, done=True, thinking=THOUGHT, tool_calls=_OLLAMAS_CALL)),
    last=lambda stream: (
        _lines(_line(LAST), _line(done=True)) if stream else json_answer(_line(LAST, done=True))
    ),
    read=lambda body: _read_ollama(body),
)


def _read_ollama(body: Json) -> Seen:
    said = body["messages"]
    return Seen(
        tools=[tool["function"]["name"] for tool in body["tools"]],
        system=_texts(turn["content"] for turn in said if turn["role"] == "system"),
        user=_texts(turn["content"] for turn in said if turn["role"] == "user"),
        calls=[
            (call["function"]["name"], call["function"]["arguments"])
            for turn in said
            for call in turn.get("tool_calls") or ()
        ],
        results=_texts(turn["content"] for turn in said if turn["role"] == "tool"),
        reasoning=[turn["thinking"] for turn in said if turn.get("thinking")],
    )


# --- Messages

_BLOCKS: list[Json] = [
    {"type": "thinking", "thinking": THOUGHT, "signature": SIGNATURE},
    {"type": "text", "text": TEXT},
    {"type": "tool_use", "id": "toolu_01", "name": "Bash", "input": INPUT},
]


def _whole_message(*blocks: Json, reason: str) -> Json:
    return {
        "id": "msg_upstream1",
        "type": "message",
        "role": "assistant",
        "model": "claude-served",
        "content": [*blocks],
        "stop_reason": reason,
        "stop_sequence": None,
        "usage": {"input_tokens": 10, "output_tokens": 5},
    }


def _deltas(block: Json) -> tuple[Json, list[Json]]:
    match block:
        case {"type": "thinking", "thinking": thinking, "signature": signature}:
            return {"thinking": "", "signature": ""}, [
                {"type": "thinking_delta", "thinking": thinking},
                {"type": "signature_delta", "signature": signature},
            ]
        case {"type": "text", "text": text}:
            return {"text": ""}, [{"type": "text_delta", "text": text}]
    return {"input": {}}, [{"type": "input_json_delta", "partial_json": json.dumps(block["input"])}]


def _messages(stream: bool, *blocks: Json, reason: str) -> Script:
    message = _whole_message(*blocks, reason=reason)
    if not stream:
        return json_answer(message)
    frames = [event("message_start", message=message | {"content": [], "stop_reason": None})]
    for index, block in enumerate(blocks):
        empty, deltas = _deltas(block)
        frames.append(event("content_block_start", index=index, content_block=block | empty))
        frames += [event("content_block_delta", index=index, delta=delta) for delta in deltas]
        frames.append(event("content_block_stop", index=index))
    ending = {"stop_reason": reason, "stop_sequence": None}
    return streamed(
        *frames,
        event("message_delta", delta=ending, usage={"output_tokens": 5}),
        event("message_stop"),
    )


MESSAGES = Format(
    streamed=_messages(True, *_BLOCKS, reason="tool_use"),
    whole=_messages(False, *_BLOCKS, reason="tool_use"),
    last=lambda stream: _messages(stream, {"type": "text", "text": LAST}, reason="end_turn"),
    read=lambda body: _read_messages(body),
)


def _read_messages(body: Json) -> Seen:
    said = [
        (turn["role"], block)
        for turn in body["messages"]
        for block in (
            [{"type": "text", "text": turn["content"]}]
            if isinstance(turn["content"], str)
            else turn["content"]
        )
    ]

    def of(role: str) -> list[str]:
        return [block["text"] for by, block in said if by == role and block["type"] == "text"]

    return Seen(
        tools=[tool["name"] for tool in body["tools"]],
        system=[*_texts([body["system"]]), *of("system")],
        user=of("user"),
        calls=[(block["name"], block["input"]) for _, block in said if block["type"] == "tool_use"],
        results=_texts(block["content"] for _, block in said if block["type"] == "tool_result"),
        reasoning=[block["signature"] for _, block in said if block["type"] == "thinking"],
    )


_REASONS = chat(reasoning_content=THOUGHT)

FORMATS: Mapping[str, Format] = {
    "openai": chat(),
    "openai-reasoning": RESPONSES,
    "openai_compatible": _REASONS,
    "azure": chat(),
    "azure-responses": RESPONSES,
    "gemini": GEMINI,
    "vertex_ai": GEMINI,
    "together_ai": _REASONS,
    "nvidia_nim": _REASONS,
    "openrouter": chat(
        reasoning=THOUGHT,
        reasoning_details=[{"type": "reasoning.text", "text": THOUGHT, "signature": SIGNATURE, "index": 0}],
    ),
    "ollama": OLLAMA,
    "anthropic": MESSAGES,
}
"""By the kind of back end."""


def answering(kind: str) -> Callable[[Received], Script]:
    """A back end of this kind: it calls `Bash` until it has seen what `Bash` said to it."""
    format = FORMATS[kind]

    def answer(received: Received) -> Script:
        body = received.json
        stream = bool(body.get("stream")) or "streamGenerateContent" in received.path
        if any(input == INPUT for _, input in format.read(body).calls):
            return format.last(stream)
        return format.streamed if stream else format.whole

    return answer


# --- any turn, for a model that is scripted


def said(kind: str, stream: bool, text: str, *calls: tuple[str, Json]) -> Script:
    """A turn of this kind of back end: `text`, then `calls` of tools by name and input."""
    ids = [f"call_{uuid4().hex[:12]}" for _ in calls]
    match FORMATS[kind]:
        case Format(read=read) if read is GEMINI.read:
            parts = [{"functionCall": {"name": name, "args": input}} for name, input in calls]
            return _google(stream, {"text": text}, *parts)
        case Format(read=read) if read is MESSAGES.read:
            blocks = [
                {"type": "tool_use", "id": f"toolu_{id}", "name": name, "input": input}
                for id, (name, input) in zip(ids, calls, strict=True)
            ]
            reason = "tool_use" if calls else "end_turn"
            return _messages(stream, {"type": "text", "text": text}, *blocks, reason=reason)
        case Format(read=read) if read is RESPONSES.read:
            return _said_over_responses(stream, text, dict(zip(ids, calls, strict=True)))
    arguments = [(id, name, json.dumps(input)) for id, (name, input) in zip(ids, calls, strict=True)]
    finish = "tool_calls" if calls else "stop"
    if not stream:
        functions = [
            {"id": id, "type": "function", "function": {"name": name, "arguments": written}}
            for id, name, written in arguments
        ]
        return json_answer(completion(text, finish=finish, **({"tool_calls": functions} if calls else {})))
    chunks = [tool_chunk(index, name, written, id=id) for index, (id, name, written) in enumerate(arguments)]
    return sse(chunk(text), *chunks, done(finish))


def _said_over_responses(stream: bool, text: str, calls: Mapping[str, tuple[str, Json]]) -> Script:
    items = [
        _CALLED | {"id": f"fc_{id}", "call_id": id, "name": name, "arguments": json.dumps(input)}
        for id, (name, input) in calls.items()
    ]
    whole = _response(_message(text), *items)
    if not stream:
        return json_answer(whole)
    events = _text_events(0, text)
    for index, item in enumerate(items, 1):
        begun, place = item | {"arguments": ""}, {"item_id": item["id"], "output_index": index}
        events += [
            event("response.output_item.added", output_index=index, item=begun),
            event("response.function_call_arguments.delta", **place, delta=item["arguments"]),
            event("response.function_call_arguments.done", **place, arguments=item["arguments"]),
            event("response.output_item.done", output_index=index, item=item),
        ]
    return streamed(_STARTS, *events, event("response.completed", response=whole))
