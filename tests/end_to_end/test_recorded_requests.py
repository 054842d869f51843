"""What a real Claude Code asks reaches every kind of back end, in that one's own format, and what it answers
comes back: a text and a call of `Bash`, streamed and whole, and then the turn after it."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from anthropic.types import Message

from tests.backend import BackEnd
from tests.end_to_end.back_ends import KEY, rules, signed_in
from tests.end_to_end.formats import FORMATS, INPUT, LAST, SIGNATURE, TEXT, THOUGHT, Seen, answering
from tests.end_to_end.judges import judged, post, replayed, results, said
from tests.running import Running, running
from tests.upstream.litellm.asking import LITELLMS_WARNINGS

pytestmark = [
    *LITELLMS_WARNINGS,
    pytest.mark.filterwarnings("ignore:Accessing the 'model_:DeprecationWarning"),
]

Json = dict[str, Any]

RECORDED = {
    path.stem: json.loads(path.read_text())
    for path in sorted((Path(__file__).parent.parent / "wire" / "claude-code").glob("*.json"))
}
TOOLS = 24
GOOGLE = ("gemini", "vertex_ai")
RESPONSES = ("openai-reasoning", "azure-responses")
BILLING = "x-anthropic-billing-header"

both_ways = pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
each_recorded = pytest.mark.parametrize("recorded", RECORDED)

REASONS: dict[str, Any] = {
    "openai": [],
    "azure": [],
    "openai-reasoning": [SIGNATURE],
    "azure-responses": [SIGNATURE],
    "openai_compatible": [THOUGHT],
    "together_ai": [THOUGHT],
    "nvidia_nim": [THOUGHT],
    "openrouter": [
        [{"type": "reasoning.text", "text": THOUGHT, "signature": SIGNATURE, "index": 0}],
    ],
    "gemini": [SIGNATURE],
    "vertex_ai": [SIGNATURE],
    "ollama": [THOUGHT],
    "anthropic": [SIGNATURE],
}
"""What each gets back of its own thoughts in the turn after; nothing where it has none."""

each_kind = pytest.mark.parametrize("kind", REASONS)


@pytest.fixture(scope="module")
def back_ends() -> Iterator[dict[str, BackEnd]]:
    with ExitStack() as stack:
        yield {kind: stack.enter_context(BackEnd(answering(kind))) for kind in FORMATS}


@pytest.fixture(scope="module")
def proxy(back_ends: dict[str, BackEnd], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("rules")
    urls = {kind: back_end.url for kind, back_end in back_ends.items()} | {"echo": ""}
    with signed_in(folder) as credentials, running(rules(urls, credentials), folder, {"KEY": KEY}) as proxy:
        yield proxy


def ask(proxy: Running, recorded: str, kind: str, stream: bool, *turns: Json) -> Message:
    """The recorded request, and what was said since then."""
    request = RECORDED[recorded]
    body = request["body"] | {"model": kind, "stream": stream}
    body["messages"] = [*body["messages"], *turns]
    return judged(body, post(proxy, body, **request["headers"]))


def seen(back_end: BackEnd, kind: str) -> Seen:
    return FORMATS[kind].read(back_end.last.json)


def texts(body: Json, role: str) -> list[str]:
    """What the client said in this role, text by text."""
    contents = [turn["content"] for turn in body["messages"] if turn["role"] == role]
    return [
        block["text"]
        for content in contents
        for block in ([{"type": "text", "text": content}] if isinstance(content, str) else content)
        if block["type"] == "text"
    ]


def missing(expected: list[str], found: list[str]) -> list[str]:
    whole = "\n".join(found)
    return [text[:60] for text in expected if text.strip() not in whole]


@both_ways
@each_recorded
@each_kind
def test_a_call_comes_back(
    proxy: Running, back_ends: dict[str, BackEnd], kind: str, recorded: str, stream: bool
) -> None:
    message = ask(proxy, recorded, kind, stream)
    thought = [f"thinking {THOUGHT}"] if REASONS[kind] else []
    # Gemini signs the call, and its signature travels in a block of its own before it.
    signed = ["thinking "] if kind in GOOGLE else []
    assert said(message) == [*thought, f"text {TEXT}", *signed, f"Bash {json.dumps(INPUT)}", "tool_use"]
    received = back_ends[kind].last
    assert (bool(received.json.get("stream")) or "streamGenerate" in received.path) is stream


@each_recorded
@each_kind
def test_all_that_was_asked_arrives(
    proxy: Running, back_ends: dict[str, BackEnd], kind: str, recorded: str
) -> None:
    ask(proxy, recorded, kind, True)
    body, found = RECORDED[recorded]["body"], seen(back_ends[kind], kind)
    assert found.tools == [tool["name"] for tool in body["tools"]]
    assert len(found.tools) == TOOLS

    system = [block["text"] for block in body["system"]]
    if kind != "anthropic":
        system = [text for text in system if not text.startswith(BILLING)]
        assert BILLING not in json.dumps(found.system)
    assert missing(system, found.system) == []
    # Google knows a system turn at the beginning only, so what comes later is said to it by the user.
    later = found.user if kind in GOOGLE else found.system
    assert missing(texts(body, "system"), later) == []
    assert missing(texts(body, "user"), found.user) == []

    asked = [block for turn in body["messages"] for block in turn["content"] if isinstance(block, dict)]
    calls = [(block["name"], block["input"]) for block in asked if block["type"] == "tool_use"]
    assert found.calls == calls
    told = [block["content"] for block in asked if block["type"] == "tool_result"]
    assert len(found.results) == len(told)
    assert missing(told, found.results) == []


@both_ways
@each_recorded
@each_kind
def test_the_turn_after_it_closes_the_loop(
    proxy: Running, back_ends: dict[str, BackEnd], kind: str, recorded: str, stream: bool
) -> None:
    message = ask(proxy, recorded, kind, stream)
    turns = [{"role": "assistant", "content": replayed(message)}, results(message, "total 0")]
    last = ask(proxy, recorded, kind, stream, *turns)
    assert said(last) == [f"text {LAST}", "end_turn"]

    found = seen(back_ends[kind], kind)
    assert found.calls[-1] == ("Bash", INPUT)
    assert missing(["total 0"], found.results[-1:]) == []
    if kind not in RESPONSES:
        assert found.reasoning == REASONS[kind]


# wire.md §1.2, §1.6 and D52.
@both_ways
@pytest.mark.parametrize("kind", RESPONSES)
def test_what_responses_encrypted_goes_back_to_it(
    proxy: Running, back_ends: dict[str, BackEnd], kind: str, stream: bool
) -> None:
    message = ask(proxy, "first-turn", kind, stream)
    turns = [{"role": "assistant", "content": replayed(message)}, results(message, "total 0")]
    ask(proxy, "first-turn", kind, stream, *turns)
    assert seen(back_ends[kind], kind).reasoning == REASONS[kind]


@each_recorded
def test_claude_gets_the_bytes_that_were_meant_for_it(
    proxy: Running, back_ends: dict[str, BackEnd], recorded: str
) -> None:
    ask(proxy, recorded, "anthropic", True)
    sent, received = RECORDED[recorded], back_ends["anthropic"].last
    assert received.json == sent["body"] | {"model": "claude-sonnet-4-5"}
    assert received.header("anthropic-beta") == sent["headers"]["anthropic-beta"]
    assert received.header("x-api-key") == KEY


@both_ways
@pytest.mark.parametrize(
    ("recorded", "last"),
    [
        ("first-turn", "sed minim"),
        ("haiku-enabled-thinking", "hi-quis-enim"),
        ("tool-result-turn", "hi-quis-enim"),
    ],
)
def test_echo_says_back_what_was_said_last(proxy: Running, recorded: str, last: str, stream: bool) -> None:
    assert said(ask(proxy, recorded, "echo", stream)) == [f"text {last}", "end_turn"]
