"""Every kind of back end that an answer can come from, each behind a rule of its own, and what it sends of an
answer that it never ends."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from tests.backend import (
    HANG,
    Received,
    Script,
    Step,
    chunk,
    completion,
    data,
    messages_stream,
    streamed,
)
from tests.google import write_service_account
from tests.wire.test_responses import STARTS, TEXT

Moment = Literal["before the head", "before content", "after content"]
"""How far an answer has come when its back end falls silent."""

MOMENTS: tuple[Moment, ...] = get_args(Moment)


class Kind(NamedTuple):
    provider: Mapping[str, str]
    """What its table says, besides its address."""
    model: str
    base: str
    """The path of its address."""
    before: Step
    """What it sends of a stream before any content."""
    content: Step
    whole: Step
    """The beginning of an answer in one piece."""
    content_type: str = "text/event-stream"

    def answer(self, received: Received) -> Script:
        """An answer that ceases without an end, at the moment that the request names."""
        moment = next(moment for moment in MOMENTS if moment.encode() in received.body)
        if moment == "before the head":
            return [HANG]
        if is_streamed(received):
            sent = [self.before] if moment == "before content" else [self.before, self.content]
            return streamed(*sent, HANG, content_type=self.content_type)
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n"
        return [head, HANG] if moment == "before content" else [head, self.whole, HANG]


def _cut(value: Any) -> bytes:
    """The JSON, but for its end."""
    return json.dumps(value).encode()[:-9]


def _lines(*values: Any) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def _gemini(text: str) -> dict[str, Any]:
    return {"candidates": [{"content": {"parts": [{"text": text}], "role": "model"}, "index": 0}]}


def _ollama(text: str) -> dict[str, Any]:
    return {"model": "llama3.3:70b", "message": {"role": "assistant", "content": text}, "done": False}


_CHAT: tuple[Step, Step, Step] = (
    data(chunk(role="assistant", content="")),
    data(chunk("Hello")),
    _cut(completion("Hello")),
)
_RESPONSES: tuple[Step, Step, Step] = (
    STARTS,
    b"".join(TEXT),
    b'{"id":"resp_1","object":"response","output":[',
)
_GEMINI: tuple[Step, Step, Step] = (
    data({"candidates": [], "responseId": "r"}),
    data(_gemini("Hello")),
    _cut(_gemini("Hello")),
)
_OLLAMA: tuple[Step, Step, Step] = (_lines(_ollama("")), _lines(_ollama("Hello")), _cut(_ollama("Hello")))
_COHERE: tuple[Step, Step, Step] = (
    _lines({"type": "message-start", "id": "1", "delta": {"message": {"role": "assistant"}}}),
    _lines({"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "Hello"}}}}),
    b'{"id":"1","message":{"role":"assistant","content":[{"type":"text","te',
)
_MESSAGES: tuple[Step, Step, Step] = (
    b"".join(messages_stream()[:1]),
    b"".join(messages_stream()[1:4]),
    b'{"id":"msg_1","type":"message","role":"assistant","content":[{"type":"text","te',
)

_COMPATIBLE = {"type": "openai_compatible", "api_key": "none"}
_OPENAI = {"type": "openai", "api_key": "env:KEY"}
_GOOGLE = {"type": "gemini", "api_key": "env:KEY"}
_VERTEX = {"type": "vertex_ai", "project": "proj", "location": "europe-west1", "credentials": "{credentials}"}
_OWN = {"type": "ollama", "api_key": "none"}
_LITELLM = {"engine": "litellm"}
_NDJSON = "application/x-ndjson"

KINDS: Mapping[str, Kind] = {
    "messages": Kind({"type": "anthropic", "api_key": "none"}, "*", "", *_MESSAGES),
    "chat": Kind(_COMPATIBLE, "m", "/v1", *_CHAT),
    "chat-litellm": Kind(_COMPATIBLE | _LITELLM, "m", "/v1", *_CHAT),
    "responses": Kind(_COMPATIBLE | {"api": "responses"}, "m", "/v1", *_RESPONSES),
    "responses-litellm": Kind(_OPENAI | {"api": "responses"} | _LITELLM, "gpt-9", "/v1", *_RESPONSES),
    "gemini": Kind(_GOOGLE, "gemini-2.5-pro", "/v1beta", *_GEMINI),
    "gemini-litellm": Kind(_GOOGLE | _LITELLM, "gemini-2.5-pro", "/v1beta", *_GEMINI),
    "vertex": Kind(_VERTEX, "gemini-2.5-pro", "", *_GEMINI),
    "vertex-litellm": Kind(_VERTEX | _LITELLM, "gemini-2.5-pro", "", *_GEMINI),
    "ollama": Kind(_OWN, "llama3.3:70b", "", *_OLLAMA, content_type=_NDJSON),
    "ollama-litellm": Kind(_OWN | _LITELLM, "llama3.3:70b", "", *_OLLAMA, content_type=_NDJSON),
    "cohere-litellm": Kind({"type": "cohere_chat", "api_key": "env:KEY"}, "command-r", "/v2/chat", *_COHERE),
}
"""By the name of the provider, which is the model that a client asks for."""


def rules(url: str, tokens_url: str, folder: Path) -> str:
    """Rules by which each kind is asked at `url`; Google's tokens are got at `tokens_url`."""
    credentials = str(write_service_account(folder / "key.json", tokens_url))
    tables = []
    for name, kind in KINDS.items():
        options = {key: value.format(credentials=credentials) for key, value in kind.provider.items()}
        options |= {"base_url": f"{url}{kind.base}", "zone": "private"}
        lines = "\n".join(f'{key} = "{value}"' for key, value in options.items())
        tables.append(
            f'[providers.{name}]\n{lines}\n\n[[rules]]\nname = "{name}"\nmatch.model.equals = "{name}"\n'
            f'targets = "{name}/{kind.model}"\ntimeouts = {{ first_token = "300s", idle = "300s" }}\n'
        )
    return "\n".join([*tables, '[default]\ndeny = "no such kind"\n'])


def is_streamed(received: Received) -> bool:
    """Whether the answer was asked for as a stream, in the format of any kind."""
    return "stream" in received.path.lower() or bool(received.json.get("stream"))
