"""The answers of Gemini's own API (ai.google.dev/api/generate-content) as chunks of a chat completion. No I/O
here. (Its requests: `gemini_request.py`.)"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from routeproxy.chat.completion import (
    Choice,
    Chunk,
    CompletionTokensDetails,
    CompletionUsage,
    Delta,
    Page,
    PageCitation,
    PromptTokensDetails,
    ToolCallDelta,
    WebSearchCall,
)
from routeproxy.messages.decoding import UNREADABLE
from routeproxy.upstream.chat.lenient import decode_object_leniently, reported_error, whole_call
from routeproxy.upstream.http.sse import EventDecoder


class _FunctionCall(Struct, frozen=True):
    name: Any = None
    args: Raw = Raw(b"{}")
    id: Any = None


class _Part(Struct, frozen=True):
    text: Any = None
    thought: Any = None
    thoughtSignature: Any = None
    functionCall: _FunctionCall | None = None
    inlineData: Any = None
    fileData: Any = None
    executableCode: Any = None
    codeExecutionResult: Any = None


class _Content(Struct, frozen=True):
    parts: tuple[_Part, ...] | None = None


class _Candidate(Struct, frozen=True):
    content: _Content | None = None
    finishReason: Any = None
    groundingMetadata: Any = None


class _Answer(Struct, frozen=True):
    """`GenerateContentResponse`: an answer, or the next part of one."""

    candidates: tuple[_Candidate, ...] | None = None
    promptFeedback: Any = None
    usageMetadata: Any = None
    modelVersion: Any = None
    error: Any = None


_UNREAD_PARTS = ("inlineData", "fileData", "executableCode", "codeExecutionResult")
"""Parts that the Messages API has no block for."""


class GeminiDecoder:
    """One answer: server-sent events whose data are answers in parts, or one answer where none was to be
    streamed."""

    streams_json = False

    def __init__(self) -> None:
        self._events = EventDecoder()
        self._call_count = 0
        self._usage: CompletionUsage | None = None
        """As reported so far: with every part of an answer, for all that came before."""
        self._grounding: Mapping[str, Any] = {}
        """What the last part said of web searches: all of the answer's, as with the usage."""
        self._has_content = False
        self._has_finish_reason = False

    def feed(self, data: bytes) -> tuple[list[Chunk], bool]:
        """The chunks, and that the answer is not over: its usage may come after the finish reason. Raises
        `ValueError` for what cannot be read."""
        return self._read(self._events.feed(data)), False

    def end(self) -> tuple[list[Chunk], bool]:
        return self._read(self._events.end()), False

    def decode_whole(self, body: bytes) -> list[Chunk]:
        chunks = self._read(_answers_in(body))
        if not any(chunk.choices or chunk.error for chunk in chunks):
            raise ValueError("neither candidates nor an error")
        return chunks

    def _read(self, events: list[bytes]) -> list[Chunk]:
        chunks: list[Chunk] = []
        for event in events:
            chunks += self._chunks(_decode_answer(event))
            if chunks and chunks[-1].error:
                break  # whatever follows an error, it is no answer
        return chunks

    def _chunks(self, answer: _Answer) -> Iterator[Chunk]:
        if answer.error is not None:
            yield Chunk(error=answer.error)
            return
        model = answer.modelVersion
        is_last = not answer.candidates
        if isinstance(answer.usageMetadata, dict):
            self._usage = _usage(answer.usageMetadata)
        for candidate in (answer.candidates or ())[:1]:
            if isinstance(candidate.groundingMetadata, dict):
                self._grounding = candidate.groundingMetadata
            self._has_finish_reason = self._has_finish_reason or candidate.finishReason is not None
            # Where the text has gone out the search can only come after it.
            grounding = self._take_grounding() if self._has_finish_reason else []
            searches, citations = grounding[:1], grounding[1:]
            if not self._has_content:
                yield from (Chunk((Choice(delta=delta),)) for delta in searches)
                searches = []
            parts = candidate.content.parts if candidate.content is not None else None
            for part in parts or ():
                self._has_content = True
                yield Chunk((Choice(delta=self._delta(part)),), model=model)
            yield from (Chunk((Choice(delta=delta),)) for delta in (*citations, *searches))
            if candidate.finishReason is not None:
                is_last = True
                yield Chunk((Choice(delta=Delta(), finish_reason=candidate.finishReason),), model=model)
        feedback = answer.promptFeedback
        if not answer.candidates and isinstance(feedback, dict) and feedback.get("blockReason"):
            yield Chunk((Choice(delta=Delta(), finish_reason="content_filter"),), model=model)
        if is_last and self._usage is not None:
            yield Chunk(usage=self._usage, model=model)

    def _take_grounding(self) -> list[Delta]:
        """The search, and the citations of the text: nothing, if there was no search."""
        grounding, self._grounding = self._grounding, {}
        queries = [query for query in _list(grounding.get("webSearchQueries")) if isinstance(query, str)]
        pages = [_page(chunk) for chunk in _list(grounding.get("groundingChunks"))]
        found = tuple(page for page in pages if page is not None)
        if not queries and not found:
            return []
        search = WebSearchCall(query="; ".join(queries) or None, pages=found, count=max(1, len(queries)))
        citations = list(_citations(grounding, pages))
        return [Delta(web_searches=[search]), *([Delta(citations=citations)] if citations else [])]

    def _delta(self, part: _Part) -> Delta:
        if part.functionCall is not None:
            return Delta(tool_calls=(self._tool_call(part.functionCall, part.thoughtSignature),))
        if not part.text or not isinstance(part.text, str):
            types = (name for name in _UNREAD_PARTS if getattr(part, name))
            return Delta([{"type": type} for type in types] or None)
        return Delta(reasoning_content=part.text) if part.thought is True else Delta(part.text)

    def _tool_call(self, call: _FunctionCall, signature: Any) -> ToolCallDelta:
        index, self._call_count = self._call_count, self._call_count + 1
        arguments = bytes(call.args).decode()
        signed = {"thought_signature": signature} if isinstance(signature, str) else None
        return whole_call(index, call.id, call.name, "{}" if arguments == "null" else arguments, signed)


def _page(chunk: Any) -> Page | None:
    """A page of the web. The other kinds of chunks come from searches that nobody asks for."""
    match chunk:
        case {"web": {"uri": str(url)} as web} if url:
            title = web.get("title") or web.get("domain")
            return Page(url, title if isinstance(title, str) else None)
    return None


def _citations(grounding: Mapping[str, Any], pages: list[Page | None]) -> Iterator[PageCitation]:
    """`pages`: by the number of their chunk."""
    for support in _list(grounding.get("groundingSupports")):
        match support:
            case {"segment": {"text": str(text)}, "groundingChunkIndices": [*indices]}:
                for index in indices:
                    if isinstance(index, int) and 0 <= index < len(pages) and (page := pages[index]):
                        yield PageCitation(page, text)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _usage(reported: Mapping[str, Any]) -> CompletionUsage:
    """Some models count the tokens that they think with apart, others among the answer's: the sum tells."""

    def count(name: str) -> int:
        value = reported.get(name)
        return value if isinstance(value, int) else 0

    prompt = count("promptTokenCount") + count("toolUsePromptTokenCount")
    completion = count("candidatesTokenCount")
    if prompt + completion != count("totalTokenCount"):
        completion += count("thoughtsTokenCount")
    return CompletionUsage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=reported.get("cachedContentTokenCount")),
        completion_tokens_details=CompletionTokensDetails(
            reasoning_tokens=reported.get("thoughtsTokenCount")
        ),
    )


def _answers_in(body: bytes) -> list[bytes]:
    """The parts of an answer that was streamed as a list, as Gemini does unless events are asked for."""
    if not body.lstrip().startswith(b"["):
        return [body]
    return [bytes(part) for part in msgspec.json.decode(body, type=list[Raw])]


_answer_decoder = msgspec.json.Decoder(_Answer)

_BESIDE_THE_ANSWER = frozenset(
    (
        "candidates",
        "promptFeedback",
        "usageMetadata",
        "modelVersion",
        "responseId",
        "createTime",
        "modelStatus",
    )
)
"""Fields in which nothing of the answer stands, or nothing if there are no candidates."""


def _decode_answer(data: bytes) -> _Answer:
    """Raises `ValueError` for what is no part of an answer."""
    try:
        answer = _answer_decoder.decode(data)
    except UNREADABLE:
        if error := reported_error(data):
            return _Answer(error=error)
        # An emoji may come in two halves, one a part: put together they are one again.
        answer = msgspec.convert(_with_raw_arguments(decode_object_leniently(data)), _Answer)
    if answer.candidates or answer.error:
        return answer
    if error := reported_error(data):
        return _Answer(error=error)
    if not _BESIDE_THE_ANSWER.issuperset(decode_object_leniently(data)):
        raise ValueError("neither candidates nor usage")
    return answer


def _with_raw_arguments(value: Any) -> Any:
    """`value`, decoded JSON, in which the arguments of calls are JSON again."""
    if isinstance(value, list):
        return [_with_raw_arguments(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        name: Raw(json.dumps(item).encode()) if name == "args" else _with_raw_arguments(item)
        for name, item in value.items()
    }
