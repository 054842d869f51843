"""What the wire tests share: a real routeproxy in front of scripted back ends, all of them made once for a
file.

The client's side of a conversation is `ask`, the back ends' are `one`, `two` and `three`, which a test gives
their answers.
"""

import json
import re
from typing import Any

import httpx

from routeproxy.messages.request import OLDEST_VERSION
from tests.backend import BackEnd, Script, streamed
from tests.budgets import seconds
from tests.invariants import check
from tests.running import Running, request

KEY = "sk-canary-0123456789abcdef"
"""The provider's key: whatever happens, no client and no log gets to see it."""

OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}


class Reply:
    """An answer as its client sees it."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.status = response.status_code
        self.headers = response.headers
        self.body = response.content

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> tuple[int, str, str]:
        """Status, type and message of an error answer, whose shape is checked by the way."""
        body = self.json
        assert body["type"] == "error"
        assert self.headers["content-type"] == "application/json"
        return self.status, body["error"]["type"], body["error"]["message"]

    @property
    def events(self) -> list[dict[str, Any]]:
        assert self.headers["content-type"] == "text/event-stream; charset=utf-8", self.body
        return [json.loads(data) for data in re.findall(rb"^data: ?(.*?)\r?$", self.body, re.MULTILINE)]

    @property
    def script(self) -> list[str]:
        """The stream in short: `text Hello`, `end_turn`, `error overloaded_error: Overloaded`."""
        assert check(self.body) == []
        return [line for event in self.events if (line := _in_short(event))]

    @property
    def text(self) -> str:
        """All text of the answer, streamed or not."""
        if self.headers["content-type"] == "application/json":
            return "".join(block.get("text", "") for block in self.json["content"])
        return "".join(
            event["delta"].get("text", "") for event in self.events if event["type"] == "content_block_delta"
        )

    def said(self, name: str) -> str | None:
        """What routeproxy says of the answer in a header `x-routeproxy-NAME`."""
        value = self.headers.get(f"x-routeproxy-{name}")
        return None if value is None else str(value)


def _in_short(event: dict[str, Any]) -> str:
    match event:
        case {"type": "content_block_delta", "delta": {"text": text}}:
            return f"text {text}"
        case {"type": "content_block_delta", "delta": {"thinking": thinking}}:
            return f"thinking {thinking}"
        case {"type": "content_block_delta", "delta": {"partial_json": part}}:
            return f"input {part}"
        case {"type": "content_block_start", "content_block": {"type": "tool_use", "name": name}}:
            return f"tool {name}"
        case {"type": "message_delta", "delta": {"stop_reason": reason}}:
            return str(reason)
        case {"type": "error", "error": {"type": kind, "message": message}}:
            return f"error {kind}: {message}"
    return ""


def ask(
    proxy: Running, model: str = "m", *, path: str = "/v1/messages", headers: Any = (), **fields: Any
) -> Reply:
    """One request, answered whole. `model` chooses the rule that a test means."""
    named = {"anthropic-version": OLDEST_VERSION} | dict(headers)  # every real client sends one
    with httpx.Client(timeout=seconds(30), headers=named) as client:
        return Reply(client.post(proxy.url + path, json=request(**{"model": model, **fields})))


def answers(back_end: BackEnd, *scripts: Script) -> BackEnd:
    """Gives `back_end` these answers, and forgets what it was asked before."""
    back_end.answers = list(scripts)
    back_end.requests.clear()
    back_end.left_at.clear()
    return back_end


def message(text: str = "Hello", model: str = "served", **fields: Any) -> dict[str, Any]:
    """A whole reply, as a Messages back end gives it."""
    return {
        "id": "msg_upstream1",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 12, "output_tokens": 7},
        **fields,
    }


def resized(frames: bytes, size: int) -> Script:
    """A stream whose bytes come `size` at a time, wherever that cuts."""
    return streamed(*(frames[at : at + size] for at in range(0, len(frames), size)))
