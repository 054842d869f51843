"""Every type of provider that speaks over plain HTTP and can be pointed at a server of one's own, asked for
what clients ask for, and answered in all the ways in which back ends answer and fail. Whoever writes the
request, it goes out once, our own reader reads what comes, and errors are in our own words."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pytest

from routeproxy.policy.provider_types import TYPE_NAMES, TYPES
from routeproxy.upstream.failures import UpstreamFailure
from tests.backend import (
    CUT,
    BackEnd,
    Script,
    chunk,
    completion,
    data,
    done,
    error,
    json_answer,
    pause,
    sse,
    streamed,
    tool_chunk,
)
from tests.budgets import part_of_table
from tests.running import Running, running
from tests.upstream.litellm.asking import LITELLMS_WARNINGS, call, chat, said, target, until_failure
from tests.upstream.litellm.asking import ask as ask_engine
from tests.wire.asking import Reply, answers, ask
from tests.wire.test_engines_agree import in_one_piece

pytestmark = LITELLMS_WARNINGS

NOT_SWEPT: Mapping[str, str] = {
    "anthropic": "it speaks Messages: tests/wire/test_pass_through.py",
    "echo": "it asks nobody",
    "azure": "its address is no base_url: tests/wire/test_engines_agree.py and test_chat_completions.py",
    "gemini": "a format of its own: tests/wire/test_gemini_engines_agree.py",
    "vertex_ai": "a format of its own, and Google's tokens: tests/wire/test_vertex.py",
    "vertex_ai_beta": "LiteLLM's other name for vertex_ai",
    "ollama": "a format of its own: tests/wire/test_ollama.py",
    "cohere": "a format of its own, which LiteLLM reads: tests/end_to_end/test_aimock.py",
    "cohere_chat": "the same",
    "bedrock": "AWS's signatures and binary events: tests/end_to_end/test_aimock.py",
    "sagemaker_chat": "AWS's signatures; LiteLLM takes no address",
    "sagemaker": "the same, and prompts in place of messages",
    "sagemaker_nova": "the same",
    "bytez": "LiteLLM asks its own address, whatever the base_url",
    "replicate": "the same",
    "chatgpt": "it signs in at its own site before the first request",
    "github_copilot": "the same",
    "gigachat": "the same",
    "gdc": "it signs in with Google's service accounts, by an address of its own",
    "oci": "it needs Oracle's signatures",
    "sap": "it needs a service key of SAP's",
    "watsonx": "it signs in at IBM's site before the first request",
    "clarifai": "a model's name is an address there: user/app/model",
    "ragflow": "a model's name is an address there: chat/ID",
    "datarobot": "its path is not below a base_url that has one",
    "langgraph": "a format of its own, which LiteLLM reads",
    "triton": "a format of its own, which LiteLLM reads; its base_url is a model's",
    "nlp_cloud": "a format of its own, which LiteLLM reads",
    "petals": "a format of its own: prompts, written with what Hugging Face says of the model",
    "predibase": "a format of its own, and a tenant",
}
"""The types that this sweep leaves out, each with the reason."""

SWEPT = sorted(set(TYPE_NAMES) - set(NOT_SWEPT))

RULES = """
[providers."{type}"]
type = "{type}"
base_url = "{url}/v1"
api_key = "env:KEY"
zone = "local"
{more}
[[rules]]
match.model.equals = "{type}"
targets = "{type}/some/model"
"""
KEY = "sk-canary-0123456789"


@pytest.fixture(scope="module")
def back_end() -> Iterator[BackEnd]:
    with BackEnd(sse(done())) as back_end:
        yield back_end


@pytest.fixture(scope="module")
def proxy(back_end: BackEnd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    more = {"bedrock_mantle": 'aws_region_name = "eu-central-1"'}
    tables = [RULES.format(type=type, url=back_end.url, more=more.get(type, "")) for type in SWEPT]
    rules = "\n".join([*tables, '[default]\ndeny = "no such type"'])
    with running(rules, tmp_path_factory.mktemp("sweep"), {"KEY": KEY}) as proxy:
        yield proxy


SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
READ = {"name": "read", "input_schema": {"type": "object", "properties": {"path": {"type": "string"}}}}
FORMAT = {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}
TOOLS = {"tools": [READ]}
NO_THINKING = {"thinking": {"type": "disabled"}}
CALL = {"id": "c1", "type": "function", "function": {"name": "read", "arguments": '{"path":"a"}'}}
TALK = sse(chunk(role="assistant", content=""), chunk("Hel"), chunk("lo"), done())
READS = sse(
    tool_chunk(0, "read", "", id="c1"), tool_chunk(0, None, '{"path":'), tool_chunk(0, None, '"a"}'),
    done("tool_calls"),
)  # fmt: skip
NO_COMPLETION = "the back end {type} answered with something that is not a completion"


class Case(NamedTuple):
    script: Script
    fields: Mapping[str, Any]
    expected: Any
    """The transcript of a stream, the content and stop reason of a whole answer, or status and words."""


def streaming(script: Script, expected: Any, **fields: Any) -> Case:
    return Case(script, {"stream": True, **fields}, expected)


CASES: dict[str, Case] = {
    "a stream": streaming(TALK, ["text Hello", "end_turn"]),
    "a whole answer": Case(json_answer(completion("Hello")), {}, ("Hello", "end_turn")),
    "a stream with a format": streaming(TALK, ["text Hello", "end_turn"], **FORMAT),
    "a whole answer with a format": Case(json_answer(completion("{}")), FORMAT, ("{}", "end_turn")),
    "no thinking": streaming(TALK, ["text Hello", "end_turn"], **NO_THINKING),
    "tools": streaming(READS, ["tool read", '{"path":"a"}', "tool_use"], **TOOLS),
    "tools and a format": streaming(READS, ["tool read", '{"path":"a"}', "tool_use"], **TOOLS, **FORMAT),
    "thinking": streaming(
        sse(chunk(reasoning_content="Hm."), chunk("Hello"), done()),
        ["thinking Hm.", "text Hello", "end_turn"],
    ),
    "a refusal": streaming(sse(chunk(refusal="I won't."), done()), ["text I won't.", "refusal"]),
    "a stop string": streaming(
        sse(
            chunk("a"),
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "stop_reason": "END"}]},
        ),
        ["text a", "stop_sequence"],
        stop_sequences=["END"],
    ),
    "a whole answer in place of a stream": streaming(
        json_answer(completion("Hello")), ["text Hello", "end_turn"]
    ),
    "a stream in place of a whole answer": Case(TALK, {}, ("Hello", "end_turn")),
    "503": streaming(error(503, "down"), (529, "overloaded_error", "down")),
    "503, whole": Case(error(503, "down"), {}, (529, "overloaded_error", "down")),
    "401": streaming(
        error(401, f"Incorrect key {KEY}"),
        (502, "api_error", "the back end {type} rejected the proxy's credentials"),
    ),
    "an error in the first frame": streaming(
        streamed(data({"error": {"message": "too busy", "type": "overloaded_error", "code": 529}})),
        (529, "overloaded_error", "too busy"),
    ),
    "a stray frame": streaming(
        sse(chunk("a"), pause(0.05), b"data: }\n\n", chunk("b"), done()),
        ["text a", f"error api_error: {NO_COMPLETION}"],
    ),
    "an end without an end": streaming(
        streamed(data(chunk("a"))),
        ["text a", "error api_error: upstream closed the stream before completing"],
    ),
    "a cut": streaming(
        streamed(data(chunk("a")), CUT),
        ["text a", "error api_error: the back end {type} closed the connection before completing its answer"],
    ),
    "an empty `[DONE]`": streaming(streamed(b"data: [DONE]\n\n"), (502, "api_error", None)),
    "garbage": Case(json_answer("a string"), {}, (502, "api_error", NO_COMPLETION)),
}


def outcome(reply: Reply) -> Any:
    if reply.status != 200:
        return reply.status, *reply.error[1:]
    if reply.headers["content-type"] == "application/json":
        return reply.text, reply.json["stop_reason"]
    script = in_one_piece([line for line in reply.script if line])
    inputs = "".join(line.removeprefix("input ") for line in script if line.startswith("input "))
    rest = [line for line in script if not line.startswith("input ")]
    return [*rest[:1], inputs, *rest[1:]] if inputs else rest


def named(expected: Any, type: str) -> Any:
    """Providers are named as their types are."""
    kind = list if isinstance(expected, list) else tuple
    return kind(part.replace("{type}", type) if isinstance(part, str) else part for part in expected)


OTHERS_WORDS = re.compile(
    r"litellm|exception|traceback|attribute|NoneType|httpx|openai\.|aiohttp|unsupported|object has no|json",
    re.IGNORECASE,
)
"""What Python and the libraries say. No script here does."""


WITHOUT_TOOLS = {"perplexity"}
"""What their profiles say."""


@pytest.mark.parametrize(
    ("type", "name"),
    [
        pytest.param(type, name, id=f"{type}, {name}")
        for type, name in part_of_table(SWEPT, CASES)
        if not (type in WITHOUT_TOOLS and "tools" in name)
    ],
)
def test_a_type(proxy: Running, back_end: BackEnd, type: str, name: str) -> None:
    case = CASES[name]
    answers(back_end, case.script)
    reply = ask(proxy, type, **case.fields)
    found, expected = outcome(reply), named(case.expected, type)
    if expected[-1] is None:  # any words
        expected = (*expected[:-1], found[-1])
    assert found == expected
    assert len(back_end.requests) == 1, "it was asked more than once"
    if reply.status != 200:
        assert not OTHERS_WORDS.search(found[-1].replace(f"back end {type}", ""))
    assert KEY not in reply.body.decode()
    sent = back_end.last
    assert sent.header("accept-encoding") == "identity", "it went past our client"
    assert sent.header("authorization") == f"Bearer {KEY}"
    assert sent.json["model"].endswith("some/model"), "Fireworks' are put under accounts/"


ELSEWHERE = {"chatgpt", "github_copilot"}
"""They sign in at their own site, with a person's help, before anything else."""


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("type", sorted(set(NOT_SWEPT) - set(TYPES) - ELSEWHERE))
def test_what_is_not_swept_asks_through_our_client_or_not_at_all(type: str, stream: bool) -> None:
    with BackEnd(sse(chunk("a"), done()) if stream else json_answer(completion())) as back_end:
        until_failure(call(target(type, f"{back_end.url}/v1", "some-model")), chat(stream=stream))
    assert {one.header("accept-encoding") for one in back_end.requests} <= {"identity"}


# --- formats that LiteLLM alone reads


def line(**fields: Any) -> bytes:
    return json.dumps(fields).encode() + b"\n"


COHERE = [
    line(type="message-start", id="1", delta={"message": {"role": "assistant"}}),
    line(type="content-delta", index=0, delta={"message": {"content": {"text": "Hello"}}}),
]
COHERES_END = line(type="message-end", delta={"finish_reason": "COMPLETE"})


def cohere(script: Script) -> list[str]:
    with BackEnd(script) as back_end:
        lines = said(ask_engine(call(target("cohere_chat", f"{back_end.url}/v2/chat", "command-a"))))
    return [line for line in lines if not line.startswith("usage")]


def test_litellm_vouches_for_an_end_that_it_received() -> None:
    assert cohere(streamed(*COHERE, COHERES_END)) == ["text Hello", "ends stop"]


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(streamed(*COHERE), id="no end"),
        pytest.param(streamed(*COHERE, line(type="debug")), id="something else for an end"),
        pytest.param(streamed(), id="nothing"),
        pytest.param(streamed(*COHERE, CUT), id="a cut"),
    ],
)
def test_litellm_does_not_vouch_for_an_end_that_it_makes_up(script: Script) -> None:
    with pytest.raises(UpstreamFailure) as raised:
        cohere(script)
    assert raised.value.kind == "connection"


def test_every_type_is_swept_or_says_why_not() -> None:
    assert set(SWEPT) | set(NOT_SWEPT) == set(TYPE_NAMES)
    assert len(SWEPT) > 90
    assert all(NOT_SWEPT.values())
