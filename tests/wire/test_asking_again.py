"""The one exception to "nothing is retried unless a rule says so": a refusal whose words say which shape is
wanted is answered with that shape, once a request, and the target is asked in it from then on."""

import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.backend import BackEnd, Script, chunk, done, error, json_answer, sse
from tests.budgets import seconds
from tests.running import Running, running
from tests.upstream.litellm.asking import LITELLMS_WARNINGS
from tests.wire.asking import answers, ask

pytestmark = LITELLMS_WARNINGS

RULES = """
[server]
decision_log = "{log}"

[providers.vllm]
type = "openai_compatible"
base_url = "{one}/v1"
api_key = ["env:KEY_A", "env:KEY_B"]

[providers.litellm]
type = "openai_compatible"
base_url = "{one}/v1"
api_key = "none"
engine = "litellm"

[providers.refusing]
type = "openai_compatible"
base_url = "{one}/v1"
api_key = "none"
without_vision = "refuse"

[providers.other]
type = "openai_compatible"
base_url = "{two}/v1"
api_key = "none"

[[rules]]
match.model = "litellm-"
targets = ["litellm/*"]

[[rules]]
match.model = "refusing-"
targets = ["refusing/*"]

[[rules]]
match.model = "fallback-"
targets = ["vllm/*", "other/m"]
fallback = {{ also = ["capability"] }}

[default]
targets = ["vllm/*"]
fallback = false
"""

FIRST_SYSTEM = "System message must be at the beginning."
OK = sse(chunk("Hello"), done())
HI: dict[str, Any] = {"role": "user", "content": "hi"}
REMINDER: dict[str, Any] = {"role": "system", "content": "be brief"}
PICTURE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
PDF = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "aGk="}}
LOOKED = [
    HI,
    {"role": "assistant", "content": [{"type": "tool_use", "id": "call_1", "name": "Bash", "input": {}}]},
    {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "call_1", "content": "done"},
            {"type": "text", "text": "on"},
        ],
    },
]


@pytest.fixture(scope="module")
def one() -> Iterator[BackEnd]:
    with BackEnd(OK) as back_end:
        yield back_end


@pytest.fixture(scope="module")
def two() -> Iterator[BackEnd]:
    with BackEnd(OK) as back_end:
        yield back_end


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "decisions.jsonl"


@pytest.fixture(scope="module")
def proxy(one: BackEnd, two: BackEnd, log: Path) -> Iterator[Running]:
    rules = RULES.format(one=one.url, two=two.url, log=log)
    with running(rules, log.parent, {"KEY_A": "a", "KEY_B": "b"}) as proxy:
        yield proxy


def bodies(back_end: BackEnd) -> list[Any]:
    return [received.json for received in back_end.requests]


def logged(log: Path, target: str, number: int) -> list[Any]:
    """The lines about a target, which are written when the answer is out."""
    limit = time.monotonic() + seconds(10)
    while time.monotonic() < limit:
        whole, _, _ = log.read_text().rpartition("\n")  # the last one may still be written
        lines = [json.loads(line) for line in whole.splitlines()]
        if len(found := [line for line in lines if line["targets"] == [target]]) == number:
            return found
        time.sleep(0.01)
    raise AssertionError(log.read_text())


def roles(body: Any) -> list[str]:
    return [message["role"] for message in body["messages"]]


@pytest.mark.parametrize("engine", ["", "litellm-"], ids=["direct", "litellm"])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize(
    "refused",
    [
        pytest.param(error(400, FIRST_SYSTEM), id="vLLM"),
        pytest.param(
            json_answer({"error": {"code": 500, "message": f"Jinja Exception: {FIRST_SYSTEM}"}}, 500),
            id="llama.cpp",
        ),
        pytest.param(error(400, "Conversation roles must alternate user/assistant/..."), id="Mistral-Nemo"),
    ],
)
def test_claude_codes_first_turn_works_out_of_the_box(
    proxy: Running, one: BackEnd, refused: Script, stream: bool, engine: str, request: pytest.FixtureRequest
) -> None:
    model = f"{engine}{abs(hash(request.node.name))}"
    answers(one, refused, OK)
    first = ask(proxy, model, system="Be kind.", messages=[HI, REMINDER], stream=stream)
    assert (first.status, first.text) == (200, "Hello")
    assert [roles(body) for body in bodies(one)] == [["system", "user", "system"], ["system", "user"]]
    assert "<system-reminder>\nbe brief\n</system-reminder>" in one.last.json["messages"][1]["content"]
    assert "is asked without" in str(first.said("warning"))
    # What was learned holds for the next request.
    answers(one, OK)
    second = ask(proxy, model, system="Be kind.", messages=[HI, REMINDER], stream=stream)
    assert [roles(body) for body in bodies(one)] == [["system", "user"]]
    assert second.said("warning") is None


SHAPES = [
    pytest.param(
        "Unexpected role 'user' after role 'tool'",
        {"messages": LOOKED},
        lambda body: roles(body) == ["user", "assistant", "tool"],
        id="text after a tool's result",
    ),
    pytest.param(
        "invalid message content type: <nil>",
        {"messages": LOOKED},
        lambda body: body["messages"][1]["content"] == "",
        id="a turn of only calls",
    ),
    pytest.param(
        "System role not supported",
        {"system": "Be kind.", "messages": [HI]},
        lambda body: roles(body) == ["user"] and "Be kind." in body["messages"][0]["content"],
        id="no system role",
    ),
    pytest.param(
        "Unknown part type: file",
        {"messages": [{"role": "user", "content": [PDF]}]},
        lambda body: "document omitted" in json.dumps(body),
        id="a document",
    ),
    pytest.param(
        "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj",
        {"messages": [{"role": "user", "content": [PICTURE]}]},
        lambda body: "image omitted" in json.dumps(body),
        id="an image",
    ),
    pytest.param(
        "This response_format type is unavailable now",
        {
            "messages": [HI],
            "output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}},
        },
        lambda body: "response_format" not in body and "JSON schema" in json.dumps(body),
        id="a schema for the answer",
    ),
    pytest.param(
        "Unrecognized request argument supplied: reasoning_effort",
        {"messages": [HI], "output_config": {"effort": "high"}},
        lambda body: "reasoning_effort" not in body,
        id="an effort",
    ),
    pytest.param(
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' "
        "instead.",
        {"messages": [HI]},
        lambda body: "max_tokens" not in body and body["max_completion_tokens"] > 0,
        id="the name of the limit",
    ),
    pytest.param(
        "Unsupported parameter: 'temperature' is not supported with this model.",
        {"messages": [HI], "temperature": 0.5},
        lambda body: "temperature" not in body,
        id="a parameter",
    ),
]


@pytest.mark.parametrize(("words", "fields", "holds"), SHAPES)
def test_each_shape_that_the_words_ask_for(
    proxy: Running, one: BackEnd, words: str, fields: dict[str, Any], holds: Any
) -> None:
    answers(one, error(400, words), OK)
    reply = ask(proxy, f"shape-{abs(hash(words))}", stream=True, **fields)
    assert reply.text == "Hello"
    before, after = bodies(one)
    assert not holds(before)
    assert holds(after)


def test_it_is_once_a_request_and_at_the_same_key(proxy: Running, one: BackEnd) -> None:
    answers(one, error(400, FIRST_SYSTEM), error(400, "Unknown part type: file"), OK)
    document = {"role": "user", "content": [PDF]}
    reply = ask(proxy, "twice", messages=[document, REMINDER])
    assert reply.status == 400
    assert len(one.requests) == 2
    assert {received.header("authorization") for received in one.requests} == {"Bearer a"}
    # What it refused the second time is remembered too.
    answers(one, OK)
    assert ask(proxy, "twice", messages=[document, REMINDER]).text == "Hello"


def test_the_next_target_is_asked_only_if_that_does_not_help(
    proxy: Running, one: BackEnd, two: BackEnd
) -> None:
    answers(two, OK)
    answers(one, error(400, FIRST_SYSTEM), OK)
    ask(proxy, "fallback-1", messages=[HI, REMINDER])
    assert (len(one.requests), len(two.requests)) == (2, 0)
    answers(one, error(400, FIRST_SYSTEM), error(400, FIRST_SYSTEM))
    assert ask(proxy, "fallback-2", messages=[HI, REMINDER]).text == "Hello"
    assert (len(one.requests), len(two.requests)) == (2, 1)


@pytest.mark.parametrize(
    "refused",
    [
        pytest.param(error(400, "messages: at least one message is required"), id="no shape in the words"),
        pytest.param(error(400, "m does not support tools"), id="nothing that could be left out"),
        pytest.param(error(503, FIRST_SYSTEM), id="a status that says something else"),
        pytest.param(error(500, "out of memory"), id="a failure"),
    ],
)
def test_nothing_else_is_asked_again(proxy: Running, one: BackEnd, refused: Script) -> None:
    answers(one, refused, OK)
    assert ask(proxy, "once", messages=[HI]).status >= 400
    assert len(one.requests) == 1


def test_who_wants_a_refusal_gets_it(proxy: Running, one: BackEnd) -> None:
    answers(one, error(400, "Unknown part type: file"), OK)
    reply = ask(proxy, "refusing-m", messages=[{"role": "user", "content": [PDF]}])
    assert reply.status == 400
    assert "capability_rejected: document_block" in reply.error[2]
    assert len(one.requests) == 1


def test_the_decision_log_and_the_log_name_it(
    proxy: Running, one: BackEnd, log: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = f"logged-{time.monotonic_ns()}"  # nobody has learned of it yet
    target = f"vllm/{model}"
    with caplog.at_level(logging.WARNING, "routeproxy.upstream.chat"):
        answers(one, error(400, FIRST_SYSTEM), OK)
        ask(proxy, model, messages=[HI, REMINDER])
        answers(one, OK)
        ask(proxy, model, messages=[HI, REMINDER])
    first, second = logged(log, target, 2)
    assert first["asked_again"] == {target: "mid_conv_system"}
    assert first["attempts"] == [[target, None]]
    assert "asked_again" not in second
    said = [record.getMessage() for record in caplog.records if target in record.getMessage()]
    assert said == [
        f"{target} refuses mid_conv_system: from now on it is asked without; "
        '`mid_system = "user"` on provider vllm does so from the start'
    ]


def test_a_reload_forgets_it(one: BackEnd, two: BackEnd, tmp_path: Path) -> None:
    rules = RULES.format(one=one.url, two=two.url, log=tmp_path / "log.jsonl")
    with running(rules, tmp_path, {"KEY_A": "a", "KEY_B": "b"}) as proxy:
        answers(one, error(400, FIRST_SYSTEM), OK)
        ask(proxy, "m", messages=[HI, REMINDER])
        answers(one, OK)
        ask(proxy, "m", messages=[HI, REMINDER])
        assert [roles(body) for body in bodies(one)] == [["user"]]
        before = ask(proxy, "m", messages=[HI]).said("rules-version")
        proxy.rules.write_text(rules + '\n[[rules]]\nmatch.model = "nobody"\ntargets = "other/m"\n')
        limit = time.monotonic() + seconds(10)
        while ask(proxy, "m", messages=[HI]).said("rules-version") == before:
            assert time.monotonic() < limit, "the rules were not reloaded"
            time.sleep(0.05)
        answers(one, OK)
        ask(proxy, "m", messages=[HI, REMINDER])
        assert [roles(body) for body in bodies(one)] == [["user", "system"]]
