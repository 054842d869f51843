"""Is this a Messages stream? `check` names each invariant of wire.md §2.3 (I1 to I36) that it breaks."""

import json
import re
from collections.abc import Collection, Iterable
from typing import Any

from routeproxy.messages.events import Event, frame

EVENTS = {
    "message_start",
    "content_block_start",
    "content_block_delta",
    "content_block_stop",
    "message_delta",
    "message_stop",
    "ping",
    "error",
}
EMPTY_BLOCKS = {
    "text": {"text": ""},
    "thinking": {"thinking": "", "signature": ""},
    "tool_use": {"input": {}},
    "server_tool_use": {"name": "web_search", "input": {}},
}
WHOLE_BLOCKS = {"web_search_tool_result": ("tool_use_id", "content")}
"""Those that come in one piece, with the fields that they must have."""
DELTAS = {
    "text_delta": (("text",), "text"),
    "thinking_delta": (("thinking",), "thinking"),
    "signature_delta": (("thinking",), "signature"),
    "input_json_delta": (("tool_use", "server_tool_use"), "partial_json"),
    "citations_delta": (("text",), "citation"),
}
STOP_REASONS = {
    "end_turn",
    "max_tokens",
    "stop_sequence",
    "tool_use",
    "pause_turn",
    "compaction",
    "refusal",
    "model_context_window_exceeded",
}
STOPS_WITH_TOOLS = {"tool_use", "max_tokens", "refusal", "model_context_window_exceeded"}


def check(
    stream: Iterable[Event] | bytes,
    *,
    requested_model: str | None = None,
    earlier_tool_ids: Collection[str] = (),
) -> list[str]:
    """What is wrong with `stream`, each as `I24: an empty text block at 0`; nothing if that is empty."""
    raw = stream if isinstance(stream, bytes) else b"".join(map(frame, stream))
    checker = _Checker(requested_model, earlier_tool_ids)
    for name, data in _frames(raw, checker.broken):
        checker.see(name, data)
    checker.see_end()
    return checker.problems


def _frames(raw: bytes, broken: "Broken") -> Iterable[tuple[str, dict[str, Any]]]:
    text = raw.decode("utf-8").replace("\r\n", "\n")
    *frames, rest = text.split("\n\n")
    if rest.strip("\n"):
        broken(34, f"ends within a frame: {rest[:80]!r}")
    for one in frames:
        lines = [line for line in one.split("\n") if line and not line.startswith(":")]
        names = [line.removeprefix("event:").strip() for line in lines if line.startswith("event:")]
        data = [line.removeprefix("data:").removeprefix(" ") for line in lines if line.startswith("data:")]
        if not data:
            if names:
                broken(2, f"event {names[0]} without data")
            continue
        try:
            value = json.loads("\n".join(data))
        except ValueError:
            value = None
        if not names:
            broken(1, f"no event line before {data[0][:80]!r}")
        if not isinstance(value, dict):
            broken(2, f"not a JSON object: {data[0][:80]!r}")
            continue
        if names and names[-1] != value.get("type"):
            broken(3, f"event {names[-1]} holds type {value.get('type')}")
        yield str(value.get("type")), value


class Broken:
    def __init__(self, problems: list[str]) -> None:
        self._problems = problems

    def __call__(self, number: int, what: str) -> None:
        self._problems.append(f"I{number}: {what}")


class _Checker:
    def __init__(
        self,
        requested_model: str | None,
        earlier_tool_ids: Collection[str],
    ) -> None:
        self.problems: list[str] = []
        self.broken = Broken(self.problems)
        self.requested_model = requested_model
        self.seen: list[str] = []
        """Names of the events so far, without pings."""
        self.start_usage: dict[str, Any] = {}
        self.blocks: list[dict[str, Any]] = []
        self.open: dict[str, Any] | None = None
        self.tool_ids = set(earlier_tool_ids)
        self.stop_reason: str | None = None

    def see(self, name: str, data: dict[str, Any]) -> None:
        if name not in EVENTS:
            self.broken(33, f"unknown event {name}")
            return
        if "error" in self.seen:
            self.broken(4, f"{name} after error")
        if "message_stop" in self.seen:
            self.broken(5, f"{name} after message_stop")
        if name == "ping":
            return
        if name.startswith("content_block") and "message_delta" in self.seen:
            self.broken(12, f"{name} after message_delta")
        if name not in ("message_start", "error") and "message_start" not in self.seen:
            self.broken(7, f"{name} before message_start")
        getattr(self, f"see_{name}")(data)
        self.seen.append(name)

    def see_message_start(self, data: dict[str, Any]) -> None:
        if self.seen:
            self.broken(7, f"message_start after {self.seen[-1]}")
        message = data.get("message") or {}
        expected = {
            "type": "message",
            "role": "assistant",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
        }
        for key, value in expected.items():
            if key not in message or message[key] != value:
                self.broken(8, f"message_start has {key} = {message.get(key)!r}")
        if not str(message.get("id")).startswith("msg_"):
            self.broken(9, f"id is {message.get('id')!r}")
        if self.requested_model is not None and message.get("model") != self.requested_model:
            self.broken(10, f"model is {message.get('model')!r}, not {self.requested_model!r}")
        self.start_usage = self.see_usage(message.get("usage"), 11, ("input_tokens", "output_tokens"))

    def see_usage(self, usage: Any, number: int, required: tuple[str, ...]) -> dict[str, Any]:
        if not isinstance(usage, dict):
            self.broken(number, f"usage is {usage!r}")
            return {}
        for key in required:
            if not _is_int(usage.get(key)):
                self.broken(number, f"usage.{key} is {usage.get(key)!r}")
        for key, value in usage.items():
            if key.endswith("_tokens") and not (_is_int(value) and value >= 0):
                self.broken(31, f"usage.{key} is {value!r}")
        cached = (usage.get("cache_read_input_tokens"), usage.get("cache_creation_input_tokens"))
        if usage.get("input_tokens") == 0 and not any(cached):
            self.broken(31, "usage.input_tokens is 0")
        return usage

    def see_content_block_start(self, data: dict[str, Any]) -> None:
        index, body = data.get("index"), data.get("content_block") or {}
        if self.open is not None:
            self.broken(13, f"block {index} starts while {self.open['index']} is open")
        if index != len(self.blocks):
            self.broken(14, f"block {len(self.blocks)} has index {index}")
        kind = body.get("type")
        if not _starts_well(kind, body):
            self.broken(15, f"block {index} starts as {body}")
        if kind == "tool_use":
            self.see_tool(body)
        if kind == "server_tool_use" and not re.fullmatch(r"srvtoolu_[a-zA-Z0-9_]+", str(body.get("id"))):
            self.broken(16, f"id {body.get('id')!r} of a tool that a server runs")
        self.open = {"index": index, "type": kind, "text": "", "deltas": []}
        self.blocks.append(self.open)

    def see_tool(self, body: dict[str, Any]) -> None:
        id, name = body.get("id"), body.get("name")
        if not isinstance(id, str) or not re.fullmatch(r"[a-zA-Z0-9_-]+", id):
            self.broken(16, f"tool id {id!r}")
        if id in self.tool_ids:
            self.broken(17, f"tool id {id!r} came before")
        self.tool_ids.add(id)
        if not name or not isinstance(name, str):
            self.broken(18, f"tool name {name!r}")

    def see_content_block_delta(self, data: dict[str, Any]) -> None:
        delta = data.get("delta") or {}
        kind = delta.get("type")
        if self.open is None or data.get("index") != self.open["index"]:
            self.broken(19, f"delta for {data.get('index')}, open is {self.open and self.open['index']}")
            return
        block_types, key = DELTAS.get(kind, ((), ""))
        if self.open["type"] not in block_types:
            self.broken(20, f"{kind} in a {self.open['type']} block")
            return
        text = delta.get(key)
        if kind == "citations_delta":
            if not _is_citation(text):
                self.broken(21, f"{kind} holds {text!r}")
            return
        if not isinstance(text, str):
            self.broken(21, f"{kind} holds {text!r}")
            return
        if kind == "text_delta" and not text:
            self.broken(22, f"empty text_delta in {self.open['index']}")
        if "signature_delta" in self.open["deltas"]:
            self.broken(23, f"{kind} after the signature of {self.open['index']}")
        self.open["deltas"].append(kind)
        self.open["text"] += text

    def see_content_block_stop(self, data: dict[str, Any]) -> None:
        block, self.open = self.open, None
        if block is None or data.get("index") != block["index"]:
            self.broken(19, f"stop for {data.get('index')}, open is {block and block['index']}")
            return
        if block["type"] == "text" and not block["text"]:
            self.broken(24, f"an empty text block at {block['index']}")
        if block["type"] == "thinking" and (n := block["deltas"].count("signature_delta")) != 1:
            self.broken(25, f"{n} signatures in thinking block {block['index']}")

    def see_message_delta(self, data: dict[str, Any]) -> None:
        if self.open is not None:
            self.broken(13, f"block {self.open['index']} is open at message_delta")
        if "message_delta" in self.seen:
            self.broken(27, "a second message_delta")
        delta = data.get("delta") or {}
        self.stop_reason = stop_reason = delta.get("stop_reason")
        if stop_reason not in STOP_REASONS:
            self.broken(28, f"stop_reason is {stop_reason!r}")
        if "stop_sequence" not in delta:
            self.broken(28, "no stop_sequence key")
        elif (delta["stop_sequence"] is not None) != (stop_reason == "stop_sequence"):
            self.broken(28, f"stop_reason {stop_reason} with stop_sequence {delta['stop_sequence']!r}")
        usage = self.see_usage(data.get("usage"), 29, ("output_tokens",))
        before, after = self.start_usage.get("output_tokens"), usage.get("output_tokens")
        if _is_int(before) and _is_int(after) and after < before:
            self.broken(30, f"output_tokens fell from {before} to {after}")
        tools = [block for block in self.blocks if block["type"] == "tool_use"]
        if stop_reason == "tool_use" and not tools:
            self.broken(35, "tool_use without a tool_use block")
        if tools and stop_reason not in STOPS_WITH_TOOLS:
            self.broken(36, f"a tool_use block, but {stop_reason}")
        for tool in tools:
            if stop_reason != "max_tokens" and not _is_object(tool["text"] or "{}"):
                self.broken(26, f"input of block {tool['index']} is {tool['text'][:80]!r}")

    def see_message_stop(self, data: dict[str, Any]) -> None:
        if "message_delta" not in self.seen:
            self.broken(32, "message_stop without message_delta")

    def see_error(self, data: dict[str, Any]) -> None:
        error = data.get("error")
        if not isinstance(error, dict) or not all(
            isinstance(error.get(key), str) and error[key] for key in ("type", "message")
        ):
            self.broken(6, f"error is {error!r}")
        if unknown := data.keys() - {"type", "error", "request_id"}:
            self.broken(6, f"error event has {sorted(unknown)}")

    def see_end(self) -> None:
        if not self.seen:
            self.broken(34, "an empty stream")
        elif self.seen[-1] not in ("message_stop", "error"):
            self.broken(34, f"ends with {self.seen[-1]}")
        if "error" in self.seen:
            return
        for number, name in ((7, "message_start"), (27, "message_delta")):
            if name not in self.seen:
                self.broken(number, f"no {name}")


def _starts_well(kind: Any, body: dict[str, Any]) -> bool:
    if kind in WHOLE_BLOCKS:
        return all(body.get(key) is not None for key in WHOLE_BLOCKS[kind])
    return kind in EMPTY_BLOCKS and all(
        key in body and body[key] == value for key, value in EMPTY_BLOCKS[kind].items()
    )


def _is_citation(citation: Any) -> bool:
    return isinstance(citation, dict) and all(
        isinstance(citation.get(key), str) for key in ("type", "url", "cited_text", "encrypted_index")
    )


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False
