"""A law: what `explain` and `/v1/route` say of a request and a target is what serving does with them, up to
the bytes that go out: the same warnings, the same refusals, the same body. And nobody is asked meanwhile."""

import asyncio
import json
import socket
from collections.abc import Iterator, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
import pytest

from routeproxy.cli.explain import run_explain
from routeproxy.exchange import Call, Exchange, Inbound
from routeproxy.observe import Observer
from routeproxy.policy.compile.compiler import compile_rules
from routeproxy.policy.hypothetical import HypotheticalRequest
from routeproxy.tokens import count as count_tokens
from routeproxy.upstream.dry_run import NO_KEY
from routeproxy.upstream.failover import Attempt
from routeproxy.upstream.http.dry_client import NotSent
from routeproxy.upstream.litellm import model_table
from routeproxy.upstream.registry import Registry, signing_key_of
from tests.backend import BackEnd, error
from tests.budgets import part, seconds
from tests.running import Running, request, running
from tests.upstream.litellm.asking import LITELLMS_WARNINGS
from tests.wire.asking import Reply

pytestmark = LITELLMS_WARNINGS

VERSION = "2023-06-01"
ENVIRON = {"KEY": "sk-test", "AWS_ID": "AKIATEST", "AWS_SECRET": "secret-test"}

AWS = 'aws_region_name = "eu-west-1"\n[providers.{name}.litellm_params]\n' + (
    'aws_access_key_id = "env:AWS_ID"\naws_secret_access_key = "env:AWS_SECRET"'
)
TARGETS: Mapping[str, tuple[str, str, str, str]] = {
    "claude": ("anthropic", "", "claude-opus-4-8", 'api_key = "env:KEY"'),
    "clients-own-login": ("anthropic", "", "claude-opus-4-8", 'api_key = "client"'),
    "claude-in-a-region": ("anthropic", "", "claude-opus-4-8", 'api_key = "env:KEY"\nregion = "eu"'),
    "echo": ("echo", "", "m", ""),
    "chat": ("openai_compatible", "/v1", "some-model", 'api_key = "env:KEY"'),
    "blind": ("openai_compatible", "/v1", "m", 'without_vision = "refuse"\nmodels.m.vision = false'),
    "chat-litellm": ("openai_compatible", "/v1", "some-model", 'api_key = "env:KEY"\nengine = "litellm"'),
    "audio": ("azure", "", "gpt-audio", 'api_key = "env:KEY"'),
    "responses": ("openai", "/v1", "gpt-5", 'api_key = "env:KEY"\napi = "responses"'),
    "openrouter": ("openrouter", "/api/v1", "anthropic/claude-sonnet-4.5", 'api_key = "env:KEY"'),
    "deepseek": ("deepseek", "/v1", "deepseek-reasoner", 'api_key = "env:KEY"'),
    "mistral": ("mistral", "/v1", "mistral-large-latest", 'api_key = "env:KEY"'),
    "gemini": ("gemini", "", "gemini-2.5-pro", 'api_key = "env:KEY"'),
    "gemini-litellm": ("gemini", "", "gemini-2.5-pro", 'api_key = "env:KEY"\nengine = "litellm"'),
    "ollama": ("ollama", "", "llama3.3", ""),
    "ollama-litellm": ("ollama", "", "llama3.3", 'engine = "litellm"'),
    "bedrock": ("bedrock", "", "anthropic.claude-sonnet-4-5-20250929-v1:0", AWS),
    "bedrock-nova": ("bedrock", "", "amazon.nova-pro-v1:0", AWS),
    "cohere": ("cohere", "", "command-a-03-2025", 'api_key = "env:KEY"'),
    "watsonx": ("watsonx", "", "ibm/granite-3-8b-instruct", 'litellm_params.token = "env:KEY"\n'
                'litellm_params.project_id = "p"\napi_key = "none"'),
    "no-key": ("openai_compatible", "/v1", "some-model", 'api_key = "env:NOT_SET"'),
}  # fmt: skip
"""By name: type, path of the base URL, model, and what else the provider has."""

IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
LINKED_IMAGE = {"type": "image", "source": {"type": "url", "url": "https://example.com/cat.png"}}
STORED_IMAGE = {"type": "image", "source": {"type": "file", "file_id": "file_1"}}
PDF = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "aGk="}}
LINKED_PDF = {"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}}
TEXT_FILE = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "hi"}}
READ = {"name": "read", "input_schema": {"type": "object", "properties": {"path": {"type": "string"}}}}
SEARCH = {"type": "web_search_20250305", "name": "web_search", "max_uses": 3, "allowed_domains": ["a.com"]}
FETCH = {"type": "web_fetch_20250910", "name": "web_fetch"}
CODE = {"type": "code_execution_20250825", "name": "code_execution"}
MARK = {"cache_control": {"type": "ephemeral"}}
TEXT = {"type": "text", "text": "s"}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
FORMAT = {"type": "json_schema", "schema": SCHEMA}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "read", "input": {"path": "a"}}


def said(*blocks: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [*blocks, {"type": "text", "text": "Hi"}]}]}


def result(*blocks: Any) -> dict[str, Any]:
    return {
        "tools": [READ],
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": [CALL]},
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": [*blocks]}],
            },
        ],
    }


REQUESTS: Mapping[str, Mapping[str, Any]] = {
    "text": {},
    "streamed": {"stream": True},
    "image": said(IMAGE),
    "linked-image": said(LINKED_IMAGE),
    "stored-image": said(STORED_IMAGE),
    "pdf": said(PDF),
    "linked-pdf": said(LINKED_PDF),
    "text-file": said(TEXT_FILE),
    "image-in-a-result": result(IMAGE),
    "pdf-in-a-result": result(PDF),
    "tool": {"tools": [READ], "tool_choice": {"type": "tool", "name": "read"}},
    "one-call": {"tools": [READ], "tool_choice": {"type": "any", "disable_parallel_tool_use": True}},
    "strict-tool": {"tools": [
        {**READ, "strict": True, "defer_loading": True, "input_examples": [{"path": "a"}]},
    ]},
    "search": {"tools": [SEARCH]},
    "search-and-tool": {"tools": [SEARCH, READ]},
    "forced-search": {"tools": [SEARCH], "tool_choice": {"type": "tool", "name": "web_search"}},
    "fetch": {"tools": [FETCH, READ]},
    "code": {"tools": [CODE]},
    "thinking": {"max_tokens": 8000, "thinking": {"type": "enabled", "budget_tokens": 4000}},
    "adaptive": {"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}},
    "no-thinking": {"thinking": {"type": "disabled"}},
    "effort": {"output_config": {"effort": "xhigh"}, "tools": [READ]},
    "marks": {**said({"type": "text", "text": "long", **MARK}), "system": [{**TEXT, **MARK}]},
    "safeguards": {"safeguards": {"type": "tool_use", "classifier_context": "x"}, "tools": [READ]},
    "system-turn": {"messages": [
        {"role": "user", "content": "Hi"},
        {"role": "system", "content": "note"},
        {"role": "user", "content": "go on"},
    ]},
    "prefill": {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Well"}]},
    "format": {"output_config": {"format": FORMAT}},
    "format-and-tool": {"output_config": {"format": FORMAT}, "tools": [READ]},
    "stops": {"stop_sequences": ["a", "b", "c", "d", "e"]},
    "top-k": {"top_k": 40},
    "sampling": {"temperature": 0.5, "top_p": 0.9},
    "huge": {"max_tokens": 1_000_000},
    "warm": {"max_tokens": 0},
    "fast": {"speed": "fast", "service_tier": "auto", "inference_geo": "us"},
    "others": {"fallbacks": [{"model": "x"}], "models": ["y"], "route": "z", "provider": {"order": ["z"]}},
    "servers": {"mcp_servers": [{"type": "url", "url": "https://a.com", "name": "n"}], "container": "c"},
    "user": {"metadata": {"user_id": "u-1"}, "context_management": {"edits": []}},
    "no-messages": {"messages": "Hi"},
    "unknown-block": said({"type": "hologram"}),
    "unknown-field": {"frequency": 3},
    "bad-thinking": {"thinking": {"type": "enabled", "budget_tokens": 1}},
    "dangling-result": {"messages": [
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "nobody", "content": "x"}]},
    ]},
    "deep": said({"type": "text", "text": "x", "citations": json.loads("[" * 400 + "]" * 400)}),
}  # fmt: skip

RULED = ("claude", "chat", "chat-litellm", "responses", "gemini", "bedrock")
"""The targets that a rule with params has, too."""
RULES = [*TARGETS, *(f"{target}-ruled" for target in RULED)]
PARAMS = 'params = { cap = { max_tokens = 5000 }, set = { temperature = 0.1 }, drop = ["metadata"] }'


def rules(url: str) -> str:
    tables = []
    for name, (type, path, model, more) in TARGETS.items():
        address = "" if type == "echo" else f'base_url = "{url}{path}"\nzone = "local"\n'
        needs_none = "api_key" not in more and type == "openai_compatible"
        key = 'api_key = "none"\n' if needs_none else ""
        more = more.replace("{name}", name)
        tables.append(f'[providers.{name}]\ntype = "{type}"\n{address}{key}{more}')
        for rule, params in ((name, ""), (f"{name}-ruled", PARAMS)):
            tables.append(f'[[rules]]\nmatch.model.equals = "{rule}"\ntargets = "{name}/{model}"\n{params}')
    return "\n".join([*tables, '[default]\ndeny = "nobody"'])


@pytest.fixture(scope="module")
def back_end() -> Iterator[BackEnd]:
    with BackEnd(error(500, "boom")) as back_end:
        yield back_end


@pytest.fixture(scope="module")
def proxy(back_end: BackEnd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    model_table.load()
    with running(rules(back_end.url), tmp_path_factory.mktemp("rules"), ENVIRON) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def client(proxy: Running) -> Iterator[httpx.Client]:
    headers = {"anthropic-version": VERSION, "content-type": "application/json"}
    with httpx.Client(base_url=proxy.url, headers=headers, timeout=seconds(30)) as client:
        yield client


@pytest.mark.parametrize("asked", part(REQUESTS))
def test_explain_and_route_say_what_serving_does(
    proxy: Running, client: httpx.Client, back_end: BackEnd, asked: str
) -> None:
    found = [
        f"{rule}: {why}"
        for rule in RULES
        for why in _differences(request(**{**REQUESTS[asked], "model": rule}), proxy, client, back_end)
    ]
    assert found == []


def _differences(
    asked: Mapping[str, Any], proxy: Running, client: httpx.Client, back_end: BackEnd
) -> Iterator[str]:
    """In what explaining and serving differ."""
    body = json.dumps(asked).encode()
    back_end.requests.clear()
    routed = client.post("/v1/route", content=body).json()
    explained = _explained(proxy, body)
    if back_end.requests:
        yield "a back end was asked"
        back_end.requests.clear()
    served = Reply(client.post("/v1/messages", content=body))
    received = [received for received in back_end.requests if received.path != "/api/show"]
    if routed.get("type") == "error":
        if (routed["error"]["type"], routed["error"]["message"]) != served.error[1:] or received:
            yield f"{routed} explained, {served.body!r} served"
        return
    (target,) = routed["targets"]
    assert target.pop("health") == "ok", "which the command does not know"
    target.pop("turn", None)  # nor this
    if target != explained["targets"][0]:
        yield f"{target} routed, {explained['targets'][0]} explained"
    if "NOT SET" in target["key"]:
        # The rest is what would be if it were.
        if "is not set" not in served.error[2]:
            yield f"{target['key']} explained, {served.body!r} served"
        return
    if (told := "; ".join(target["loses"])) != (served.said("warning") or ""):
        yield f"{told} explained, {served.said('warning')} served"
    if (refused := target["refuses"]) is not None:
        if received or (refused["status"], refused["message"]) != served.error[::2]:
            yield f"{refused} explained, {served.body!r} served"
    elif not target["sends"]:
        if received or served.status != 200:
            yield f"nothing to be sent explained, {served.body!r} served"
    elif not received:
        yield f"{target['sends']} explained, {served.body!r} served"
    elif received[-1].body != (dry := _body_of_a_dry_run(proxy, body)):
        yield f"{dry!r} explained, {received[-1].body!r} served"


def _explained(proxy: Running, body: bytes) -> Any:
    """What the command says."""
    out = StringIO()
    question = HypotheticalRequest(body=body, headers={"anthropic-version": (VERSION,)})
    assert run_explain(lambda: proxy.app.rules.policy, lambda _: question, json=True, out=out) == 0
    said = out.getvalue()
    return json.loads(said)["explanation"] if said.startswith("{") else {"targets": [None]}


def _body_of_a_dry_run(proxy: Running, body: bytes) -> bytes:
    policy = proxy.app.rules.policy
    question = HypotheticalRequest(body=body)
    inbound = Inbound(body=body, headers={"anthropic-version": (VERSION,)})
    exchange = Exchange(inbound, policy)
    facts = exchange.facts = policy.facts_of(question, count_tokens)
    exchange.envelope, exchange.decision = facts.envelope, policy.decide(facts)
    (target,) = exchange.decision.targets

    async def run() -> bytes:
        upstreams = Registry(signing_key_of(policy), {}, dry=True)
        await upstreams.prepare_for([target])
        call = Call(target, NO_KEY if target.provider.keys else None, exchange)
        try:
            await Attempt(call, None, _discard, Observer()).run(upstreams.of(target.provider))
        except NotSent as request:
            return request.body
        raise AssertionError("nothing would be sent")

    return asyncio.run(run())


async def _discard(contents: object) -> None:
    pass


# --- in words

LONG = request(model="claude-opus-4-8", max_tokens=100_000, output_config={"effort": "max"})
WITH_LINK = LONG | said(LINKED_IMAGE)
WITH_IMAGE = LONG | said(IMAGE)

CLOUDS = """
[providers.azure]
base_url = "https://corp.openai.azure.com"
api_key = "env:AZURE"
[providers.gemini]
[providers.bedrock]
aws_region_name = "eu-west-1"
litellm_params.aws_role_name = "arn:aws:iam::1:role/x"
[providers.vertex_ai]
project = "p"
location = "europe-west1"
[providers.anthropic]
[default]
targets = "{target}"
params.cap.max_tokens = 5000
"""


@pytest.mark.parametrize(
    ("target", "asked", "words"),
    [
        pytest.param(
            "azure/gpt-audio",
            WITH_IMAGE,
            [
                'sends model "gpt-audio", max_tokens 5000, effort "high"',
                "changed: max_tokens 100000 → 5000: the params of the rule",
                'changed: effort "max" → "high": what the model takes',
                "not carried over: images were replaced by a placeholder: the model has no vision",
            ],
            id="an image for a model that hears",
        ),
        pytest.param(
            "gemini/gemini-2.5-pro",
            WITH_LINK,
            ["refused with 400 (capability): capability_rejected: image_block (Gemini takes no links here)"],
            id="an image by its URL for Gemini, whose format has no place for one",
        ),
        pytest.param(
            "bedrock/anthropic.claude-sonnet-4-6",
            WITH_LINK,
            ["refused with 400 (capability): capability_rejected: image_block (bedrock takes no links here)"],
            id="an image by its URL that LiteLLM would fetch",
        ),
        pytest.param(
            "bedrock/anthropic.claude-sonnet-4-6",
            WITH_IMAGE,
            [
                'sends model "anthropic.claude-sonnet-4-6", max_tokens 5000, effort "high"',
                "changed: max_tokens 100000 → 5000: the params of the rule",
                'changed: effort "max" → "high": what the model takes',
            ],
            id="a request that would be signed after a role was taken on",
        ),
        pytest.param(
            "vertex_ai/gemini-2.5-pro",
            WITH_IMAGE,
            [
                'sends model "gemini-2.5-pro", max_tokens 5000, thinking budget 4096',
                "changed: max_tokens 100000 → 5000: the params of the rule",
                'changed: effort "max" → a thinking budget of 4096: what the model takes',
            ],
            id="a request for which a token would be fetched",
        ),
        pytest.param(
            "anthropic/*",
            WITH_IMAGE | {"fallbacks": [{"model": "m"}]},
            [
                'sends model "claude-opus-4-8", max_tokens 5000, effort "max"',
                "changed: max_tokens 100000 → 5000",
                "not carried over: fallbacks: dropped, the rules decide who answers",
            ],
            id="a pass-through that is edited",
        ),
        pytest.param(
            "anthropic/*",
            LONG | {"max_tokens": "many"},
            ["refused with 400 before any rule: max_tokens: Input should be a valid integer or null"],
            id="a request that no rule is asked about",
        ),
    ],
)
def test_explain_says_what_is_sent_without_asking_anybody(
    target: str, asked: Mapping[str, Any], words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a key, and though somebody would have to be asked for one."""
    for name in ("AWS_PROFILE_NAME", "AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"):
        monkeypatch.setenv(name, "somebody")
    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, _asked)
    monkeypatch.setattr(socket, "getaddrinfo", _asked)
    policy = compile_rules(CLOUDS.replace("{target}", target), path=Path("rules.toml"), environ={})
    out = StringIO()
    question = HypotheticalRequest(body=json.dumps(asked).encode())
    assert run_explain(lambda: policy, lambda _: question, out=out) == 0
    lines = [line.strip() for line in out.getvalue().splitlines()]
    assert [
        line for line in lines if line.startswith(("sends", "changed", "not carried", "refused"))
    ] == words


def _asked(*arguments: Any, **named: Any) -> None:
    raise AssertionError(f"somebody was asked: {arguments}")
