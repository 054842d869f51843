"""Answers of back ends, in every format that we read ourselves, whatever the bytes are and wherever reads cut
them.

An input is a line of words and then the body of an answer: `chat stream plain 200 7 1` says who answers,
whether a stream was asked for, what is done to the answer, its status, and the sizes of the reads that bring
it. With `http` among the words the answer is HTTP, head and all.
"""

import gzip
import json
import re
from collections.abc import Iterator
from functools import cache
from itertools import cycle
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, NamedTuple, cast
from zlib import compress, crc32

import msgspec
from anthropic._streaming import SSEDecoder

from routeproxy.exchange import Call, Exchange, Inbound
from routeproxy.messages.body import Body
from routeproxy.messages.events import error_event
from routeproxy.messages.reply import Message
from routeproxy.output import Output, Relayed
from routeproxy.policy.compile.compiler import compile_rules
from routeproxy.policy.facts import Facts
from routeproxy.translate.thinking import Signer
from routeproxy.upstream.chat.direct import DirectBackEnd
from routeproxy.upstream.chat.upstream import ChatUpstream
from routeproxy.upstream.failures import LONGEST_MESSAGE, UpstreamFailure
from routeproxy.upstream.http.client import TRANSPORT_ERRORS, Response, failure_of
from routeproxy.upstream.http.connection import ResponseReader
from routeproxy.upstream.messages.upstream import MessagesUpstream
from routeproxy.web.protocols.messages import MessagesProtocol
from tests.backend import Script, json_answer
from tests.end_to_end import formats
from tests.fuzz.mutate import mutate_bytes, mutate_json, mutate_parts
from tests.fuzz.surface import BrokenLaw, Surface
from tests.invariants import check as problems_of

KEY = "sk-canary-0123456789abcdef"
"""What the back end was shown, and may say back."""

RULES = """
[providers.chat]
type = "openai_compatible"
base_url = "http://127.0.0.1/v1"
api_key = "none"
[providers.responses]
type = "openai"
base_url = "http://127.0.0.1/v1"
api_key = "none"
[providers.gemini]
type = "gemini"
base_url = "http://127.0.0.1"
api_key = "none"
[providers.ollama]
type = "ollama"
base_url = "http://127.0.0.1"
[providers.messages]
type = "anthropic"
base_url = "http://127.0.0.1"
api_key = "none"
[default]
targets = "chat/*"
"""
MODELS = {
    "chat": "m",
    "responses": "gpt-5.4",
    "gemini": "gemini-2.5-pro",
    "ollama": "qwen3",
    "messages": "claude-sonnet-5",
}
"""The formats, by the provider that speaks them, and a model there."""

TRANSFORMS = {
    "plain": "{ think_tags = false }",
    "tags": "{ think_tags = true, text_tool_calls = true }",
    "drop": '{ thinking = "drop", newlines = "unescape" }',
    "text": '{ thinking = "text", newlines = "escape", think_tags = true }',
    "served": '{ model_name = "served" }',
}

REQUEST = {
    "model": "claude-opus-4-8",
    "max_tokens": 2000,
    "messages": [{"role": "user", "content": "Hi"}],
    "tools": [
        {"name": "Bash", "input_schema": {"type": "object"}},
        {"name": "read", "input_schema": {"type": "object"}},
    ],
    "thinking": {"type": "enabled", "budget_tokens": 1024},
    "stop_sequences": ["END"],
}


class Answer(NamedTuple):
    """An input, read."""

    format: str
    stream: bool
    transforms: str
    status: int
    sizes: tuple[int, ...]
    """Of the reads, over and over."""
    content_type: str
    is_http: bool
    body: bytes


def read(data: bytes) -> Answer:
    """Whatever `data` is, it is an answer."""
    head, _, body = data.partition(b"\n")
    words = head[:200].decode("latin-1").split()
    numbers = [int(word) for word in words if word.isdecimal() and word.isascii() and len(word) < 6]
    status = numbers[0] if numbers and 200 <= numbers[0] < 600 else 200
    return Answer(
        next((word for word in words if word in MODELS), "chat"),
        "whole" not in words,
        next((word for word in words if word in TRANSFORMS), "plain"),
        status,
        tuple(max(1, size) for size in numbers[1:]) or (len(body) + 1,),
        next((word for word in words if "/" in word), ""),
        "http" in words,
        body,
    )


class _Reader:
    """In place of the connection: the body in reads of these sizes."""

    def __init__(self, answer: Answer, sizes: tuple[int, ...]) -> None:
        self.status = answer.status
        self.headers = [("content-type", answer.content_type), ("request-id", "req_upstream")]
        self._body, self._at, self._sizes = answer.body, 0, cycle(sizes)
        self.at_end = True  # so that nobody waits for the rest

    def header(self, name: str) -> str:
        return dict(self.headers).get(name, "")

    async def read(self) -> bytes:
        start, self._at = self._at, self._at + next(self._sizes)
        return self._body[start : self._at]


class _Transport:
    """Of a connection over which all has come."""

    def close(self) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class _HttpReader(ResponseReader):
    at_end = True  # so that nobody waits for the rest


async def _http_reader(answer: Answer, sizes: tuple[int, ...]) -> ResponseReader:
    """What reads HTTP, to which all has come by now."""
    reader = _HttpReader(cast(Any, _Transport()), cast(Any, None))
    at, size = 0, cycle(sizes)
    while at < len(answer.body):
        start, at = at, at + next(size)
        reader.feed(answer.body[start:at])
    reader.feed_end(None)
    await reader.read_head()
    return reader


class _Client:
    """In place of the network: whatever is asked, this is the answer."""

    def __init__(self, answer: Answer, sizes: tuple[int, ...]) -> None:
        self._answer, self._sizes = answer, sizes

    async def post(self, provider: Any, url: str, **_: Any) -> Response:
        try:
            return await self._response(provider)
        except TRANSPORT_ERRORS as error:
            raise failure_of(error, provider.name) from error

    async def _response(self, provider: Any) -> Response:
        answer, sizes = self._answer, self._sizes
        reader = await _http_reader(answer, sizes) if answer.is_http else _Reader(answer, sizes)
        request = SimpleNamespace(
            provider=provider.name, secrets=frozenset({KEY}), route=SimpleNamespace(address=None)
        )
        connection = SimpleNamespace(transport=None, release=lambda: None, close=lambda: None)
        return Response(cast(Any, request), cast(Any, connection), cast(Any, reader))


@cache
def _call(format: str, transforms: str, stream: bool) -> Call:
    text = RULES + f"transforms = {TRANSFORMS[transforms]}\n"
    policy = compile_rules(
        text.replace('"chat/*"', f'"{format}/{MODELS[format]}"'), path=Path("rules.toml"), environ={}
    )
    body = msgspec.json.encode(REQUEST | {"stream": stream})
    exchange = Exchange(Inbound(body=body), policy)
    exchange.envelope = Body(body).envelope()
    exchange.facts = Facts(exchange.envelope, {}, count=lambda: 1)
    exchange.decision = policy.decide(exchange.facts)
    return Call(exchange.decision.targets[0], None, exchange)


class Outcome(NamedTuple):
    """What a client gets, and the failure that ended it."""

    frames: bytes
    failure: UpstreamFailure | None
    committed: bool


def outcome(answer: Answer, sizes: tuple[int, ...]) -> Outcome:
    call = _call(answer.format, answer.transforms, answer.stream)
    exchange = call.exchange.afresh()
    call = Call(call.target, KEY, exchange)
    client: Any = _Client(answer, sizes)
    upstream = (
        MessagesUpstream(client)
        if answer.format == "messages"
        else ChatUpstream(DirectBackEnd(client, cast(Any, None)), Signer(b"a key"))
    )
    protocol = MessagesProtocol()
    written: list[bytes] = []

    async def emit(output: Output) -> None:
        match output.content:
            case Relayed(data=data):
                written.append(data)
            case Message() as message:
                written.append(protocol.encode_message(message))
            case events:
                written.append(protocol.encode_events(cast(Any, events)) if events else b"")
        if output.commits and exchange.first_content_at is None:
            exchange.first_content_at = 1.0

    sending = upstream.send(call, emit)
    failure: UpstreamFailure | None = None
    try:
        sending.send(None)
        raise BrokenLaw("it waits, though all of the answer is there")
    except StopIteration:
        pass
    except UpstreamFailure as failed:
        failure = failed
        failure.redact({KEY})
        if exchange.first_content_at is not None:
            written.append(protocol.encode_events([error_event(failed.type, failed.message, "req_1")]))
    return Outcome(b"".join(written), failure, exchange.first_content_at is not None)


# --- laws

OF_THE_ORDER = re.compile(
    r"I(2|4|5|7|12|13|14|19|32):"
    r"|I20: (text|thinking|signature|input_json)_delta in a (text|thinking|\w*tool_use) block"
)
"""Of what is relayed byte for byte: that clients can follow it. Types that nobody knows are theirs."""


def check(data: bytes) -> None:
    answer = read(data)
    came = outcome(answer, answer.sizes)
    _check_failure(came)
    if came.failure is None and not (answer.is_http or 200 <= answer.status < 300):
        raise BrokenLaw("an answer out of an error")
    if not answer.stream:
        _check_message(came)
    elif came.committed or came.failure is None:
        _check_stream(came, answer)
    length = len(answer.body)
    for sizes in ((length + 1,), (1 if length < 200 else length // 16, 5)):
        if sizes != answer.sizes:
            _check_same(came, outcome(answer, sizes), answer)
    _check_cut(came, answer)


def _check_failure(came: Outcome) -> None:
    if (failure := came.failure) is None:
        return
    if not failure.message or len(failure.message) > LONGEST_MESSAGE + 100:
        raise BrokenLaw(f"a failure of {len(failure.message)} characters")
    relayed = failure.relay.body if failure.relay else b""
    if KEY in failure.message or KEY.encode() in relayed or KEY in failure.operator_message:
        raise BrokenLaw("an error tells the key")
    if not 400 <= failure.status < 600:
        raise BrokenLaw(f"a failure with status {failure.status}")


def _check_stream(came: Outcome, answer: Answer) -> None:
    if answer.format == "messages":
        problems = [problem for problem in problems_of(_as_read(came.frames)) if OF_THE_ORDER.match(problem)]
    else:
        problems = problems_of(came.frames)
    if problems:
        raise BrokenLaw(f"no stream: {problems[0]}")
    if came.failure is None and (_events(came.frames) or [{}])[-1].get("type") not in (
        "message_stop",
        "error",
    ):
        raise BrokenLaw("a stream without an end")


def _as_read(frames: bytes) -> bytes:
    """The events that Anthropic's SDK finds in `frames`, each in a frame as it should be."""
    return b"".join(
        event(sse.event or json.loads(sse.data).get("type"), sse.data)
        for sse in SSEDecoder().iter_bytes(iter((frames,)))
        if sse.data or sse.event == "error"
    )


def event(name: str, data: str) -> bytes:
    lines = "".join(f"data: {line}\n" for line in data.split("\n"))
    return f"event: {name}\n{lines}\n".encode()


def _check_message(came: Outcome) -> None:
    if came.failure is not None:
        return
    message = json.loads(came.frames)
    if not (
        isinstance(message, dict)
        and message.get("type") == "message"
        and isinstance(message["content"], list)
    ):
        raise BrokenLaw("no message")


def _check_same(came: Outcome, other: Outcome, answer: Answer) -> None:
    """How an answer is cut makes no difference: but for what was said before a failure, since what came
    together with that waits for nobody."""
    if (came.failure is None) != (other.failure is None):
        raise BrokenLaw(f"a failure or none, as reads cut it: {came.failure or other.failure}")
    if came.failure is None:
        one, two = _comparable(came, answer), _comparable(other, answer)
        if one != two:
            place = next((pair for pair in zip(one, two, strict=False) if pair[0] != pair[1]), (one, two))
            raise BrokenLaw(f"another answer, as reads cut it: {place}")
    elif came.failure.retryable != cast(UpstreamFailure, other.failure).retryable:
        # (Of two failures in one read either may be the first.)
        raise BrokenLaw(f"another failure, as reads cut it: {came.failure.kind}, {other.failure}")


def _check_cut(came: Outcome, answer: Answer) -> None:
    """A part of a good answer is the same answer or a failure."""
    if came.failure is not None or b"\n" not in answer.body:
        return
    whole = _said(came, answer)
    length = len(answer.body)
    for at in {crc32(answer.body) % (length + 1), length - 30}:
        part = outcome(answer._replace(body=answer.body[: max(0, at)]), (length + 1,))
        if part.failure is not None:
            continue
        said = re.sub("[\ud800-\udbff]$", "", _said(part, answer))  # the cut may be in a character
        if not whole.startswith(said):
            raise BrokenLaw(f"a part of the answer says something else: {said[:200]!r}, not {whole[:200]!r}")


def _events(frames: bytes) -> list[dict[str, Any]]:
    return [
        json.loads(data)
        for data in re.findall(rb"^data: ?(.*?)\r?$", frames, re.MULTILINE)
        if data != b"[DONE]"
    ]


def _comparable(came: Outcome, answer: Answer) -> list[Any]:
    """The events without what differs from time to time, and with neighbouring pieces of text as one."""
    if not answer.stream:
        return _without_ids([json.loads(came.frames)])
    merged: list[Any] = []
    for event in _events(came.frames):
        delta = event.get("delta") or {}
        if event["type"] == "ping":
            continue
        if merged and event["type"] == "content_block_delta" == merged[-1]["type"]:
            before = merged[-1]["delta"]
            field = next((f for f in ("text", "thinking", "partial_json") if f in delta), None)
            if field and before.get("type") == delta["type"]:
                before[field] += delta[field]
                continue
        merged.append(event)
    return _without_ids(merged)


_MADE_UP = re.compile(r"(toolu_|msg_|call_|srvtoolu_|rp1\.)[-0-9A-Za-z_+/=]{16,}")
"""Ids, and signatures with ids in them."""


def _without_ids(value: list[Any]) -> list[Any]:
    known: dict[str, str] = {}
    text = _MADE_UP.sub(lambda id: known.setdefault(id[0], f"{id[1]}{len(known)}"), json.dumps(value))
    return cast(list[Any], json.loads(text))


def _said(came: Outcome, answer: Answer) -> str:
    """All text of the answer."""
    if not answer.stream:
        content = json.loads(came.frames)["content"]
        return "".join(str(block.get("text", "")) for block in content if isinstance(block, dict))
    return "".join(
        str((event.get("delta") or {}).get("text", ""))
        for event in _events(came.frames)
        if event["type"] == "content_block_delta"
    )


# --- inputs


def _body(script: Script) -> bytes:
    """What a script writes, without HTTP around it."""
    head, *steps = [step for step in script if isinstance(step, bytes)]
    if b"chunked" not in head:
        return b"".join(steps)
    return b"".join(step.partition(b"\r\n")[2][:-2] for step in steps if step != b"0\r\n\r\n")


def _seeds() -> Iterator[bytes]:
    spoken = {
        "chat": formats.chat(reasoning_content=formats.THOUGHT),
        "responses": formats.RESPONSES,
        "gemini": formats.GEMINI,
        "ollama": formats.OLLAMA,
        "messages": formats.MESSAGES,
    }
    for name, format in spoken.items():
        for asked in ("stream", "whole"):
            for transforms, script in (
                ("plain", format.streamed),
                ("tags", format.whole),
                ("text", format.last(True)),
                ("served", format.last(False)),
            ):
                yield f"{name} {asked} {transforms} 200 40\n".encode() + _body(script)
        for status, kind in (
            (400, "invalid_request_error"),
            (429, "rate_limit_error"),
            (529, "overloaded_error"),
        ):
            said = {"type": "error", "error": {"type": kind, "message": f"No: {KEY}", "code": "x"}}
            yield f"{name} stream drop {status}\n".encode() + _body(json_answer(said))
            yield f"{name} stream drop 200\n".encode() + b"event: error\n" + _line(name, said)
        for packed, script in enumerate((format.streamed, format.whole)):
            yield f"{name} stream plain http 200 30\n".encode() + b"".join(
                step for step in script if isinstance(step, bytes)
            )
            body = compress(_body(script)) if packed else gzip.compress(_body(script), mtime=0)
            head = f"content-encoding: {'deflate' if packed else 'gzip'}\r\n".encode()
            length = b"content-length: %d\r\n" % len(body) if packed else b""
            yield (
                f"{name} whole plain http\n".encode()
                + b"HTTP/1.1 200 OK\r\n"
                + head
                + length
                + b"\r\n"
                + body
            )
    for name, line in _MORE:
        yield f"{name} stream tags 200 9 200\n".encode() + line


def _line(name: str, value: Any) -> bytes:
    text = json.dumps(value).encode()
    return text + b"\n" if name == "ollama" else b"data: " + text + b"\n\n"


def _chat(*deltas: Any, finish: str = "stop") -> bytes:
    chunks = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}], "usage": {"prompt_tokens": 3}}
    return b"".join(_line("chat", one) for one in (*chunks, end)) + b"data: [DONE]\n\n"


def _grounded() -> dict[str, Any]:
    page = {"web": {"uri": "https://a.example", "title": "A"}}
    support = {"segment": {"text": "Hi"}, "groundingChunkIndices": [0]}
    grounding = {"webSearchQueries": ["q"], "groundingChunks": [page], "groundingSupports": [support]}
    content = {"parts": [{"text": "Hi"}]}
    return {"candidates": [{"content": content, "finishReason": "STOP", "groundingMetadata": grounding}]}


_MORE = [
    (
        "chat",
        _chat({"content": "<think>hm</think>Hi"}, {"content": '<tool_call>{"name":"read","arguments":{}}'}),
    ),
    (
        "chat",
        _chat({"content": "é\ud83d"}, {"content": "\ude00"}, {"refusal": "no"}, finish="content_filter"),
    ),
    (
        "chat",
        _chat(
            {"function_call": {"name": "read", "arguments": '{"a":'}}, {"function_call": {"arguments": "1}"}}
        ),
    ),
    (
        "chat",
        _chat({"reasoning_details": [{"type": "reasoning.text", "text": "hm"}]}, {"content": "a\\nEND"}),
    ),
    (
        "chat",
        _chat(*[{"content": word} for word in ["a", "b", "c", "d", "e", "f", "g", "h"]], finish="length"),
    ),
    ("gemini", _line("gemini", _grounded())),
    ("gemini", b"[" + json.dumps(_grounded()).encode() + b",\n" + json.dumps(_grounded()).encode() + b"]"),
]

WORDS = (
    *("choices", "delta", "message", "content", "tool_calls", "function", "arguments", "name", "id", "index"),
    *("finish_reason", "stop", "length", "tool_calls", "content_filter", "error", "code", "usage", "refusal"),
    *(
        "prompt_tokens",
        "completion_tokens",
        "reasoning_content",
        "reasoning",
        "thinking",
        "signature",
        "text",
    ),
    *(
        "type",
        "response.completed",
        "response.output_text.delta",
        "response.output_item.done",
        "response.failed",
    ),
    *(
        "response",
        "output",
        "item",
        "item_id",
        "output_index",
        "content_index",
        "summary",
        "status",
        "completed",
    ),
    *(
        "candidates",
        "parts",
        "functionCall",
        "args",
        "thought",
        "finishReason",
        "promptFeedback",
        "usageMetadata",
    ),
    *("groundingMetadata", "webSearchQueries", "groundingChunks", "groundingSupports", "STOP", "MAX_TOKENS"),
    *("done", "done_reason", "eval_count", "message_start", "content_block_start", "content_block_delta"),
    *("content_block_stop", "message_delta", "message_stop", "ping", "text_delta", "input_json_delta", "END"),
    *(
        "stop_reason",
        "stop_sequence",
        "end_turn",
        "tool_use",
        "citations_delta",
        "web_search_call",
        "<think>",
    ),
    *("</think>", "<tool_call>", "</tool_call>", "message", KEY, "url_citation", "annotations", "incomplete"),
)
_BYTES = (
    *(b"\n\n", b"\r\n\r\n", b"\r", b"data: ", b"data:", b"event: error\n", b": hi\n\n", b"data: [DONE]\n\n"),
    *(
        b"event: message_stop\n",
        b"\xef\xbb\xbf",
        b"\xff",
        b"id: 1\n",
        b"retry: 1\n",
        b"null",
        b"NaN",
        b"[",
        b"{}",
    ),
)


def _mutate_event(event: bytes, random: Random) -> bytes:
    start = event.find(b"{")
    if start < 0 or random.random() < 0.2:
        return mutate_bytes(event, random, _BYTES)
    end = event.rfind(b"}") + 1
    return event[:start] + mutate_json(event[start:end], random, WORDS) + event[end:]


def mutate(data: bytes, random: Random) -> bytes:
    head, _, body = data.partition(b"\n")
    if random.random() < 0.15:
        words = head.split()
        words[random.randrange(len(words)) if words else 0 :][:1] = []
        choices = (
            *MODELS,
            *TRANSFORMS,
            "whole",
            "stream",
            "http",
            "1",
            "7",
            "application/json",
            "500",
            "404",
        )
        words.insert(random.randint(0, len(words)), random.choice(choices).encode())
        head = b" ".join(words)
    else:
        separator = b"\n" if head.startswith(b"ollama") else b"\n\n"
        for _ in range(random.choice((1, 1, 2, 3))):
            body = separator.join(mutate_parts(body.split(separator), random, _mutate_event))
    return head + b"\n" + body


SURFACE = Surface(tuple(_seeds()), mutate, check)
