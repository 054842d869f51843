"""Two judges of an answer: our own list of invariants, and the official SDK with strict validation."""

import json
from collections.abc import Mapping
from typing import Any

import httpx
import httpx2
from anthropic import Anthropic
from anthropic.types import Message

from tests.budgets import seconds
from tests.invariants import check
from tests.running import Running

Json = dict[str, Any]


def post(proxy: Running, request: Mapping[str, Any], **headers: str) -> httpx.Response:
    # Like `proxy.post`, but without reading the certificates of the world for each of hundreds of requests.
    return httpx.post(
        f"{proxy.url}/v1/messages?beta=true", json=request, headers=headers, timeout=seconds(30), verify=False
    )


def judged(request: Mapping[str, Any], answer: httpx.Response) -> Message:
    """The message that `answer` is, whole or as a stream, once both judges had nothing to say against it."""
    assert answer.status_code == 200, answer.text
    if request.get("stream"):
        assert check(answer.content, requested_model=request["model"]) == []
    headers = {"content-type": answer.headers["content-type"]}
    # The SDK has a client of its own make; the answer is played back to it.
    replay = httpx2.MockTransport(lambda _: httpx2.Response(200, headers=headers, content=answer.content))
    with (
        httpx2.Client(transport=replay) as http,
        Anthropic(api_key="-", http_client=http, max_retries=0, _strict_response_validation=True) as client,
    ):
        asked: Json = {"model": "m", "max_tokens": 1, "messages": []}
        if not request.get("stream"):
            return client.messages.create(**asked)
        with client.messages.stream(**asked) as events:
            return events.get_final_message()


def said(message: Message) -> list[str]:
    """The message as a transcript, its ending last."""
    lines = []
    for block in message.content:
        match block.type:
            case "text":
                lines.append(f"text {whole(block.text)}")
            case "thinking":
                assert block.signature
                lines.append(f"thinking {block.thinking}")
            case "tool_use":
                lines.append(f"{block.name} {json.dumps(block.input)}")
            case other:
                lines.append(other)
    return [*lines, str(message.stop_reason)]


def whole(text: str) -> str:
    """`text` with its emoji in one piece. Python leaves a pair of halves as it is, JavaScript joins them."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16")


def replayed(message: Message) -> list[Json]:
    """The content of `message` as a client sends it back."""
    return [block.model_dump(exclude_none=True, mode="json") for block in message.content]


def results(message: Message, text: str) -> Json:
    """The turn in which every tool that `message` calls answers `text`."""
    calls = [block.id for block in message.content if block.type == "tool_use"]
    return {
        "role": "user",
        "content": [{"type": "tool_result", "tool_use_id": id, "content": text} for id in calls],
    }
