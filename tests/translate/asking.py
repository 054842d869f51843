"""Shorthands: what a client asks, and what the back end is asked then, both as plain JSON."""

import json
from typing import Any

import pytest

from routeproxy.chat.request import encode_request
from routeproxy.messages.errors import InvalidRequest
from routeproxy.messages.request import decode_request, field_names
from routeproxy.translate.profile import ModelProfile
from routeproxy.translate.request import RequestContext, TranslatedRequest, translate_request
from routeproxy.translate.thinking import Signer

Json = dict[str, Any]

SIGNER = Signer(b"key")


def user(*content: Any) -> Json:
    return {"role": "user", "content": _content(content)}


def assistant(*content: Any) -> Json:
    return {"role": "assistant", "content": _content(content)}


def system(*content: Any, **more: Any) -> Json:
    return {"role": "system", "content": _content(content), **more}


def _content(content: tuple[Any, ...]) -> Any:
    return content[0] if len(content) == 1 and isinstance(content[0], str) else list(content)


def text(text: str, **more: Any) -> Json:
    return {"type": "text", "text": text, **more}


def call(id: str = "call_1", name: str = "Bash", input: Any = None) -> Json:
    return {"type": "tool_use", "id": id, "name": name, "input": input or {}}


def result(id: str = "call_1", *content: Any, **more: Any) -> Json:
    return {"type": "tool_result", "tool_use_id": id, "content": _content(content), **more}


def image(data: str = "aGk=") -> Json:
    return {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}


def image_url(url: str) -> Json:
    return {"type": "image", "source": {"type": "url", "url": url}}


def document(source: Json, **more: Any) -> Json:
    return {"type": "document", "source": source, **more}


def thinking(signature: str, shown: str = "") -> Json:
    return {"type": "thinking", "thinking": shown, "signature": signature}


def tool(name: str = "Bash", **more: Any) -> Json:
    return {"name": name, "input_schema": {"type": "object", "properties": {}}, **more}


def quirks(**fields: Any) -> ModelProfile:
    return ModelProfile(**fields)


def ask(
    *turns: Json,
    profile: ModelProfile | None = None,
    version: str = "2023-06-01",
    session: str | None = None,
    **params: Any,
) -> TranslatedRequest:
    params = {"model": "opus", "max_tokens": 100, **params}
    if turns:
        params["messages"] = turns
    body = json.dumps(params).encode()
    beta = frozenset(params.get("betas", ()))
    context = RequestContext(
        version=version,
        betas=beta,
        target="openai/gpt-4.1",
        signer=SIGNER,
        session_id=session,
        fields=field_names(body),
    )
    return translate_request(decode_request(body), profile or ModelProfile(), context)


def chat(*turns: Json, **options: Any) -> Json:
    """What is sent to the back end."""
    decoded: Json = json.loads(encode_request(ask(*turns, **options).chat, "m"))
    del decoded["model"]
    return decoded


def messages(*turns: Json, **options: Any) -> list[Json]:
    sent: list[Json] = chat(*turns, **options)["messages"]
    return sent


def warnings(*turns: Json, **options: Any) -> tuple[str, ...]:
    return ask(*turns, **options).warnings


def refusal(*turns: Json, **options: Any) -> str:
    with pytest.raises(InvalidRequest) as caught:
        ask(*turns, **options)
    return caught.value.message


# --- as the back end sees it


def said_user(*content: Any) -> Json:
    return {"role": "user", "content": _content(content)}


def said_system(content: str) -> Json:
    return {"role": "system", "content": content}


def called(*calls: Json, content: str | None = None, **more: Any) -> Json:
    return {"role": "assistant", "content": content, "tool_calls": list(calls), **more}


def function(id: str = "call_1", name: str = "Bash", arguments: str = "{}", **more: Any) -> Json:
    return {"type": "function", "id": id, "function": {"name": name, "arguments": arguments}, **more}


def answered(id: str = "call_1", content: Any = "") -> Json:
    return {"role": "tool", "tool_call_id": id, "content": content}


def image_part(url: str = "data:image/png;base64,aGk=") -> Json:
    return {"type": "image_url", "image_url": {"url": url}}
