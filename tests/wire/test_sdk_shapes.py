"""Whatever Anthropic's SDK says that a request may hold is taken, left out with a warning, or refused in our
words; the whole of it, made from the types of the SDK that is installed (`tests/sdk_shapes.py`). A test that
fails after an update of the SDK names what is new: somebody has to decide what becomes of it."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import anthropic
import httpx
import pytest
from anthropic.types import ContentBlockParam, MessageParam, ToolUnionParam, message_create_params
from anthropic.types.beta import BetaContentBlockParam, BetaMessageParam, BetaToolUnionParam
from anthropic.types.beta import message_create_params as beta_message_create_params

from routeproxy.messages.body import Body
from routeproxy.messages.errors import InvalidRequest
from routeproxy.messages.request import KNOWN_FIELDS
from routeproxy.policy.fact_table import FACTS
from routeproxy.policy.facts import Facts
from routeproxy.tokens import count
from routeproxy.translate.profile import ModelProfile
from routeproxy.translate.request import RequestContext, translate_request
from routeproxy.translate.thinking import Signer
from tests.backend import BackEnd, Received, Script
from tests.budgets import part
from tests.end_to_end.formats import FORMATS
from tests.running import Running, running
from tests.sdk_shapes import Shape, fields_of, tag, variants
from tests.wire.asking import KEY

Json = dict[str, Any]

VERSIONS = ("2023-06-01", "2026-10-21")

HI = {"role": "user", "content": "hi"}
TEXT = {"type": "text", "text": "so"}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "name", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "done"}
TOOLS = [{"name": name, "input_schema": {"type": "object"}} for name in ("name", "tool_name")]
"""The names that instances have in fields of these names."""


def request(*messages: Json, **fields: Any) -> Json:
    return {"model": "m", "max_tokens": 4096, "messages": list(messages or (HI,)), "tools": TOOLS} | fields


def among(place: str, block: Json) -> Json:
    """A request with the block in this place, and with what belongs to it."""
    match place, block.get("type"):
        case "user", "tool_result":
            return request(HI, {"role": "assistant", "content": [CALL]}, {"role": "user", "content": [block]})
        case "user", _:
            return request({"role": "user", "content": [block, TEXT]})
        case "assistant", "tool_use":
            return request(
                HI, {"role": "assistant", "content": [block]}, {"role": "user", "content": [RESULT]}
            )
        case "assistant", _:
            return request(HI, {"role": "assistant", "content": [block, TEXT]}, HI)
        case "system", _:
            return request(HI, {"role": "system", "content": [block]})
    result = RESULT | {"content": [block]}
    return request(HI, {"role": "assistant", "content": [CALL]}, {"role": "user", "content": [result]})


def one_turn(turn: Json) -> Json:
    """A request with this turn, which may end in a call or hold a result."""
    content = turn.get("content", "")
    blocks = content if isinstance(content, list) else []
    types = {block["type"] for block in blocks}
    if turn["role"] == "assistant":
        answer = [RESULT] if "tool_use" in types else [TEXT]
        return request(HI, turn, {"role": "user", "content": answer})
    if "tool_result" in types:
        return request(HI, {"role": "assistant", "content": [CALL]}, turn)
    return request(HI, turn)


PLACES = ("user", "assistant", "system", "tool_result")


def unique(annotations: Iterable[Any]) -> list[Shape]:
    """The instances of these types, each once."""
    shapes: dict[str, Shape] = {}
    for annotation in annotations:
        for shape in variants(annotation):
            shapes.setdefault(json.dumps(shape.value), shape)
    return list(shapes.values())


@cache
def blocks() -> list[Shape]:
    return unique((BetaContentBlockParam, ContentBlockParam))


@cache
def tools() -> list[Shape]:
    return unique((BetaToolUnionParam, ToolUnionParam))


@cache
def turns() -> list[Shape]:
    return unique((BetaMessageParam, MessageParam))


PARAMS = (
    message_create_params.MessageCreateParamsNonStreaming,
    message_create_params.MessageCreateParamsStreaming,
    beta_message_create_params.MessageCreateParamsNonStreaming,
    beta_message_create_params.MessageCreateParamsStreaming,
)


def params() -> Iterator[tuple[str, Shape]]:
    for kind in PARAMS:
        for name, field in fields_of(kind):
            if name not in ("messages", "tools"):
                yield from ((name, shape) for shape in field.shapes(0))


# --- what becomes of them


class Outcome(NamedTuple):
    refusal: str = ""
    warnings: tuple[str, ...] = ()


def outcome(body: Json, version: str) -> Outcome:
    """What becomes of a request on a translated target. Its facts and its tokens are there in any case."""
    text = json.dumps(body).encode()
    read = Body(text)
    facts = Facts(read.envelope(), {}, count=lambda: count(text))
    for fact in FACTS:
        fact.read(facts)
    context = RequestContext(version=version, target="m", signer=Signer(b"key"), fields=read.field_names)
    try:
        return Outcome(warnings=translate_request(read.request(), ModelProfile(), context).warnings)
    except InvalidRequest as refused:
        return Outcome(refusal=refused.message)


OUR_WORDS = re.compile(
    "|".join(
        (
            r"[\w.]+ (is|are) not supported by this model",
            r"\w+ is not supported by this model[.:] .*A rule with `match\.tools = .*",
            r"[\w.]+: container_upload blocks are not supported by this model",
            r"[\w.]+: files of the Files API are not supported by this model",
            r"[\w.]+: `\w+` blocks can only be in `(user|assistant|system|tool_result)` (messages|blocks)",
            r"messages\.\d: a system message needs `content` or `output_config`",
            r"messages: text content blocks must be non-empty",
            r"At least one tool must have defer_loading=false\. All tools cannot be deferred\.",
        )
    )
)
"""In which a shape may be refused that the API has."""
OF_THE_NEW_VERSION = re.compile(r"[\w.]+: Extra inputs are not permitted")


def unsaid(found: Outcome, version: str) -> bool:
    """Whether it is a refusal in other words than ours."""
    if not found.refusal or OUR_WORDS.fullmatch(found.refusal):
        return False
    return version == VERSIONS[0] or not OF_THE_NEW_VERSION.fullmatch(found.refusal)


def complaints(bodies: Iterable[tuple[str, Json]]) -> list[str]:
    """Those of the requests whose refusal is not in our words."""
    found = [(name, version, outcome(body, version)) for name, body in bodies for version in VERSIONS]
    return [f"{name}: {got.refusal}" for name, version, got in found if unsaid(got, version)]


@pytest.mark.parametrize("place", PLACES)
def test_every_block_of_the_sdk_is_taken_or_refused_in_our_words(place: str) -> None:
    assert complaints((shape.name, among(place, shape.value)) for shape in blocks()) == []


def test_every_type_of_block_is_taken_somewhere() -> None:
    types = {tag(shape.value) for shape in blocks()}
    taken = {
        tag(shape.value)
        for shape in blocks()
        for place in PLACES
        if not outcome(among(place, shape.value), VERSIONS[0]).refusal
    }
    assert types - taken == set()


def test_every_turn_of_the_sdk_is_taken_or_refused_in_our_words() -> None:
    assert complaints((shape.name, one_turn(shape.value)) for shape in turns()) == []


TAKEN = ("custom", "bash", "text_editor", "memory")
LEFT_OUT = ("web_search", "web_fetch", "tool_search_tool")
REFUSED = ("advisor", "browser_toolset", "code_execution", "computer", "mcp_toolset")


def decided(tool: Json) -> str:
    kind = str(tool.get("type") or "custom")
    for decision in (TAKEN, LEFT_OUT, REFUSED):
        if kind.startswith(decision):
            return {TAKEN: "taken", LEFT_OUT: "left out", REFUSED: "refused"}[decision]
    return "nobody has decided"


def became(found: Outcome) -> str:
    return "refused" if found.refusal else "left out" if found.warnings else "taken"


def test_every_tool_of_the_sdk_beside_another_becomes_what_was_decided() -> None:
    other = {"name": "other", "input_schema": {"type": "object"}}
    found = {
        shape.name: (decided(shape.value), became(outcome(request(tools=[shape.value, other]), VERSIONS[1])))
        for shape in tools()
    }
    assert {name: both for name, both in found.items() if both[0] != both[1]} == {}


def test_every_tool_of_the_sdk_alone_is_taken_or_refused_in_our_words() -> None:
    assert complaints((shape.name, request(tools=[shape.value])) for shape in tools()) == []


def test_every_tool_of_the_sdk_that_a_turn_brings_along_becomes_what_was_decided() -> None:
    def brought(tool: Json) -> Json:
        return {"type": "tool_addition", "tool": {"type": "tool_definition", "definition": tool}}

    found = {
        shape.name: (
            decided(shape.value),
            became(outcome(among("system", brought(shape.value)), VERSIONS[1])),
        )
        for shape in tools()
    }
    assert {name: both for name, both in found.items() if both[0] != both[1]} == {}


def test_every_parameter_of_the_sdk_is_one_that_we_know() -> None:
    assert {name for name, _ in params()} - KNOWN_FIELDS == set()


def test_every_value_of_a_parameter_is_taken_or_refused_in_our_words() -> None:
    assert (
        complaints((f"{name}: {shape.name}", request(**{name: shape.value})) for name, shape in params())
        == []
    )


def test_null_is_as_good_as_nothing_in_every_parameter() -> None:
    nulls = {name for name, shape in params() if shape.value is None}
    assert {
        name: found for name in nulls if (found := outcome(request(**{name: None}), VERSIONS[1])) != Outcome()
    } == {}


# --- and over HTTP, whoever is behind it

BEHIND: Mapping[str, str] = {
    "openai_compatible": 'type = "openai_compatible"\nbase_url = "{url}/v1"',
    "openai-reasoning": 'type = "openai"\nbase_url = "{url}/v1"\napi = "responses"',
    "gemini": 'type = "gemini"\nbase_url = "{url}/v1beta"',
    "ollama": 'type = "ollama"\nbase_url = "{url}"\nzone = "local"',
    "anthropic": 'type = "anthropic"\nbase_url = "{url}"',
}


def always(kind: str) -> Any:
    format = FORMATS[kind]

    def answer(received: Received) -> Script:
        stream = b'"stream":true' in received.body or "streamGenerateContent" in received.path
        return format.streamed if stream else format.whole

    return answer


@pytest.fixture(scope="module", params=BEHIND)
def proxy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    kind = request.param
    with BackEnd(always(kind)) as back_end:
        table = BEHIND[kind].format(url=back_end.url)
        rules = f'[providers.p]\n{table}\napi_key = "env:KEY"\n[default]\ntargets = ["p/gpt-5"]'
        with running(rules, tmp_path_factory.mktemp("rules"), {"KEY": KEY}) as proxy:
            yield proxy


def bodies() -> Iterator[Json]:
    """A request for each shape with what it needs, and with all that it may have."""
    whole = re.compile(r"\w+(\[.*)?( in full)?( with null)?")
    for shape in filter(lambda shape: whole.fullmatch(shape.name), blocks()):
        yield from (among(place, shape.value) for place in PLACES)
    yield from (request(tools=[shape.value]) for shape in tools() if whole.fullmatch(shape.name))
    yield from (request(**{name: shape.value}) for name, shape in params() if whole.fullmatch(shape.name))


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens", "/v1/route"])
def test_no_shape_of_the_sdk_is_a_server_error(proxy: Running, path: str) -> None:
    allowed = {200, 400} if path == "/v1/messages" else {200}
    failed: list[tuple[int, str, str]] = []
    with httpx.Client(base_url=proxy.url) as client:
        for body in part(bodies()):
            headers = {"anthropic-version": VERSIONS[1]}
            response = client.post(path, json=body, headers=headers)
            if response.status_code not in allowed:
                failed.append((response.status_code, response.text[:200], json.dumps(body)[:200]))
    assert failed == [], anthropic.__version__


def test_every_shape_of_the_sdk_goes_to_a_messages_back_end_byte_for_byte(tmp_path: Path) -> None:
    changed: list[str] = []
    with BackEnd(always("anthropic")) as back_end:
        table = BEHIND["anthropic"].format(url=back_end.url)
        rules = f'[providers.p]\n{table}\napi_key = "env:KEY"\n[default]\ntargets = ["p/*"]'
        with running(rules, tmp_path, {"KEY": KEY}) as proxy, httpx.Client(base_url=proxy.url) as client:
            for body in bodies():
                if "fallbacks" in body:  # ours to decide, since rules may have settled it
                    continue
                content = json.dumps(body).encode()
                client.post("/v1/messages", content=content)
                if back_end.last.body != content:
                    changed.append(json.dumps(body)[:200])
    assert changed == []
