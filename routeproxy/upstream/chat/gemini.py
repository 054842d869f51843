"""Gemini's own API in terms of chat completions (ai.google.dev/api/generate-content). What it takes of our
parameters, and how, is what LiteLLM 1.110.2 sends, which is in the field; where that differs, it says so."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, DecodeError, Raw, Struct

from routeproxy.chat.completion import (
    Choice,
    Chunk,
    CompletionTokensDetails,
    CompletionUsage,
    Delta,
    PromptTokensDetails,
    ToolCallDelta,
)
from routeproxy.chat.request import (
    Assistant,
    ChatRequest,
    FilePart,
    FunctionChoice,
    ImagePart,
    Part,
    System,
    TextPart,
    ToolCall,
    ToolMessage,
    User,
)
from routeproxy.messages.decoding import UNREADABLE, without_lone_surrogates
from routeproxy.upstream.chat.lenient import decode_object_leniently, whole_call
from routeproxy.upstream.failures import UpstreamFailure
from routeproxy.upstream.http.sse import EventDecoder

Json = dict[str, Any]

SETTINGS = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "stop": "stopSequences",
    "max_tokens": "maxOutputTokens",
}
"""Chat's parameter → that of `generationConfig`."""

MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY"}

BUDGETS = {"none": 0, "low": 1024, "medium": 2048, "high": 4096}
"""Tokens to think with, for models before Gemini 3. Later ones take levels."""

LEAST = (("flash-lite", 512), ("flash", 1), ("", 128))
"""The budget of `minimal`, by what is in a model's name; the first counts."""

_BEFORE_3 = re.compile(r"gemini-([12](\.\d+)?|exp|(pro|flash)(?!-(lite-)?latest$))(-|$)|gemma-")

NO_SIGNATURE = "c2tpcF90aG91Z2h0X3NpZ25hdHVyZV92YWxpZGF0b3I="
"""`skip_thought_signature_validator`, for a call whose thought signature is not known: from Gemini 3 on the
first call of a turn must have one (ai.google.dev/gemini-api/docs/thought-signatures)."""


def gemini_request(chat: ChatRequest, model: str) -> bytes:
    """Raises `UpstreamFailure` of class `capability` for what Gemini can't be given."""
    opening = [message.content for message in chat.messages if isinstance(message, System)]
    body: Json = {"contents": _contents(chat, modern=not _BEFORE_3.match(model.lower()))}
    if opening:
        body["systemInstruction"] = {"parts": [{"text": text} for text in opening]}
    if chat.tools is not UNSET:
        declared = [_declaration(tool.function.name, tool.function) for tool in chat.tools]
        body["tools"] = [{"functionDeclarations": declared}]
    if chat.tool_choice is not UNSET:
        body["toolConfig"] = {"functionCallingConfig": _choice(chat.tool_choice)}
    if settings := _settings(chat, model.lower()):
        body["generationConfig"] = settings
    return msgspec.json.encode(body)


def _declaration(name: str, function: Any) -> Json:
    """LiteLLM rewrites schemas into Google's older form, which has no `null`, no lists of types, no empty
    objects. `parametersJsonSchema` takes them as they are."""
    said: Json = {"name": name}
    if function.description is not UNSET:
        said["description"] = function.description
    if function.parameters is not UNSET:
        said["parametersJsonSchema"] = function.parameters
    return said


def _choice(choice: str | FunctionChoice) -> Json:
    if isinstance(choice, FunctionChoice):
        return {"mode": "ANY", "allowedFunctionNames": [choice.function.name]}
    return {"mode": MODES.get(choice, "AUTO")}


def _settings(chat: ChatRequest, model: str) -> Json:
    settings: Json = {
        name: value for field, name in SETTINGS.items() if (value := getattr(chat, field)) is not UNSET
    }
    if chat.response_format is not UNSET:
        settings["responseMimeType"] = "application/json"
        settings["responseJsonSchema"] = chat.response_format.json_schema.schema
    if chat.reasoning_effort is not UNSET:
        settings["thinkingConfig"] = _thinking(chat.reasoning_effort, model)
    return settings


def _thinking(effort: str, model: str) -> Json:
    shown = {"includeThoughts": effort != "none"}
    if _BEFORE_3.match(model):
        least = next(budget for word, budget in LEAST if word in model)
        return {"thinkingBudget": BUDGETS.get(effort, least), **shown}
    if effort in ("none", "minimal"):
        effort = "minimal" if "flash" in model else "low"
    return {"thinkingLevel": effort, **shown}


def _contents(chat: ChatRequest, *, modern: bool) -> list[Json]:
    names: dict[str, str] = {}
    contents: list[tuple[object, Json]] = []
    for message in chat.messages:
        match message:
            case System():
                continue
            case User(content=content):
                kind, role, parts = "user", "user", [_part(part) for part in _parts(content)]
            case ToolMessage():
                kind, role, parts = "tool", "user", [_result(message, names, modern=modern)]
            case Assistant():
                kind, role, parts = "model", "model", list(_said(message, modern=modern))
                names |= {call.id: call.function.name for call in message.tool_calls or ()}
        if contents and contents[-1][0] == kind:
            contents[-1][1]["parts"] += parts
        else:
            contents.append((kind, {"role": role, "parts": parts}))
    return [content for _, content in contents]


def _parts(content: str | Sequence[Part]) -> Sequence[Part]:
    return (TextPart(content),) if isinstance(content, str) else content


def _part(part: Part) -> Json:
    match part:
        case TextPart(text=text):
            return {"text": text}
        case ImagePart(image_url=image):
            return _inline(image.url, "image_block")
        case FilePart(file=file):
            return _inline(str(file.file_data or ""), "document_block")


def _inline(url: str, block: str) -> Json:
    scheme, _, data = url.partition(";base64,")
    if not scheme.startswith("data:") or not data:
        raise UpstreamFailure("capability", f"capability_rejected: {block} (Gemini takes no links here)")
    return {"inlineData": {"mimeType": scheme.removeprefix("data:"), "data": data}}


def _said(message: Assistant, *, modern: bool) -> Iterator[Json]:
    if message.reasoning_content is not UNSET and message.reasoning_content:
        yield {"text": message.reasoning_content, "thought": True}
    if message.content:
        own = _signatures(message.provider_specific_fields).get("thought_signatures")
        signed = {"thoughtSignature": own[0]} if isinstance(own, list) and own else {}
        yield {"text": message.content, **signed}
    for position, call in enumerate(message.tool_calls or ()):
        yield _call(call, modern=modern, first=position == 0)


def _call(call: ToolCall, *, modern: bool, first: bool) -> Json:
    # LiteLLM makes `{"type": "object"}` of no arguments, and tools then get that for an argument.
    arguments = call.function.arguments.strip() or "{}"
    said: Json = {"name": call.function.name, "args": Raw(arguments.encode())}
    signature = _signatures(call.provider_specific_fields).get("thought_signature")
    if modern:
        said["id"] = call.id
        signature = signature or (NO_SIGNATURE if first else None)
    return {"functionCall": said, **({"thoughtSignature": signature} if signature else {})}


def _signatures(place: Raw | Any) -> Json:
    return msgspec.json.decode(place, type=Json) if isinstance(place, Raw) else {}


def _result(message: ToolMessage, names: Mapping[str, str], *, modern: bool) -> Json:
    texts = [part.text for part in _parts(message.content) if isinstance(part, TextPart)]
    others = [_part(part) for part in _parts(message.content) if not isinstance(part, TextPart)]
    said: Json = {"name": names.get(message.tool_call_id, ""), "response": _response("\n".join(texts))}
    if modern:
        said["id"] = message.tool_call_id
    if others:
        said["parts"] = others
    return {"functionResponse": said}


def _response(text: str) -> Any:
    """An object, whatever the tool said."""
    if text.lstrip().startswith("{"):
        try:
            msgspec.json.decode(text, type=dict[str, Raw])
        except (DecodeError, UnicodeEncodeError):
            pass
        else:
            return Raw(text.encode())
    return {"content": text}


# --- the answer


class _Function(Struct, frozen=True):
    name: Any = None
    args: Raw = Raw(b"{}")
    id: Any = None


class _Said(Struct, frozen=True):
    text: Any = None
    thought: Any = None
    thoughtSignature: Any = None
    functionCall: _Function | None = None


class _Content(Struct, frozen=True):
    parts: tuple[_Said, ...] | None = None


class _Candidate(Struct, frozen=True):
    content: _Content | None = None
    finishReason: Any = None


class _Answer(Struct, frozen=True):
    candidates: tuple[_Candidate, ...] | None = None
    promptFeedback: Any = None
    usageMetadata: Any = None
    modelVersion: Any = None
    error: Any = None


_answer = msgspec.json.Decoder(_Answer)


def _answer_in(data: bytes) -> _Answer:
    """Raises `ValueError` for what is no JSON object."""
    try:
        return _answer.decode(data)
    except UNREADABLE:
        readable = without_lone_surrogates(data.decode("utf-8", "replace").encode())
    try:
        return _answer.decode(readable)
    except DecodeError:
        error = decode_object_leniently(data).get("error")
        if error is None:
            raise
        return _Answer(error=error)


class GeminiDecoder:
    """One answer: events whose data are answers in parts, or one answer where none was to be streamed."""

    def __init__(self) -> None:
        self._events = EventDecoder()
        self._calls = 0
        self._usage: CompletionUsage | None = None
        """As reported so far: with every part of an answer, for all that came before."""

    def feed(self, data: bytes) -> tuple[list[Chunk], bool]:
        """What was said. The numbers may come after the finish reason, so only the end of it all is the
        end."""
        return self._read(self._events.feed(data)), False

    def end(self) -> tuple[list[Chunk], bool]:
        return self._read(self._events.end()), False

    def decode_whole(self, body: bytes) -> list[Chunk]:
        chunks = self._read([body])
        if not any(chunk.choices or chunk.error for chunk in chunks):
            raise ValueError("neither candidates nor an error")
        return chunks

    def _read(self, events: list[bytes]) -> list[Chunk]:
        return [chunk for event in events for chunk in self._chunks(_answer_in(event))]

    def _chunks(self, answer: _Answer) -> Iterator[Chunk]:
        if answer.error is not None:
            yield Chunk(error=answer.error)
            return
        model = answer.modelVersion
        ends = not answer.candidates
        if isinstance(answer.usageMetadata, dict):
            self._usage = _usage(answer.usageMetadata)
        for candidate in (answer.candidates or ())[:1]:
            parts = candidate.content.parts if candidate.content is not None else None
            for part in parts or ():
                yield Chunk((Choice(delta=self._delta(part)),), model=model)
            if candidate.finishReason is not None:
                ends = True
                yield Chunk((Choice(delta=Delta(), finish_reason=candidate.finishReason),), model=model)
        feedback = answer.promptFeedback
        if not answer.candidates and isinstance(feedback, dict) and feedback.get("blockReason"):
            yield Chunk((Choice(delta=Delta(), finish_reason="content_filter"),), model=model)
        if ends and self._usage is not None:
            yield Chunk(usage=self._usage, model=model)

    def _delta(self, part: _Said) -> Delta:
        if part.functionCall is not None:
            return Delta(tool_calls=(self._call(part.functionCall, part.thoughtSignature),))
        if not isinstance(part.text, str):
            return Delta()
        return Delta(reasoning_content=part.text) if part.thought is True else Delta(part.text)

    def _call(self, call: _Function, signature: Any) -> ToolCallDelta:
        index, self._calls = self._calls, self._calls + 1
        arguments = bytes(call.args).decode()
        signed = {"thought_signature": signature} if isinstance(signature, str) else None
        return whole_call(index, call.id, call.name, "{}" if arguments == "null" else arguments, signed)


def _usage(reported: Json) -> CompletionUsage:
    """What is thought is counted apart, or, by some models, among the rest: then the sum says so."""

    def count(name: str) -> int:
        value = reported.get(name)
        return value if isinstance(value, int) else 0

    prompt = count("promptTokenCount") + count("toolUsePromptTokenCount")
    said, thought = count("candidatesTokenCount"), count("thoughtsTokenCount")
    if prompt + said != count("totalTokenCount"):
        said += thought
    return CompletionUsage(
        prompt_tokens=prompt,
        completion_tokens=said,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=reported.get("cachedContentTokenCount")),
        completion_tokens_details=CompletionTokensDetails(
            reasoning_tokens=reported.get("thoughtsTokenCount")
        ),
    )
