"""Bodies of requests, up to what each kind of back end would be sent: serving, but for the sending.

An input is a line of words and then the body: `chat 2026-10-21 beta-a` says who is asked, by which version of
the API, and with which betas.
"""

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import msgspec

from routeproxy.exchange import Call, Exchange, Inbound
from routeproxy.messages.errors import ApiError, InvalidRequest
from routeproxy.output import Output
from routeproxy.policy.compile.compiler import compile_rules
from routeproxy.policy.decide import Policy
from routeproxy.policy.facts import Facts
from routeproxy.proxy import Proxy
from routeproxy.tokens import Ceiling, count
from routeproxy.upstream.http.dry_client import NotSent
from routeproxy.upstream.registry import Registry
from tests.fuzz.mutate import mutate_bytes, mutate_json
from tests.fuzz.surface import BrokenLaw, Surface
from tests.wire import test_facts_are_what_is_sent as readers
from tests.wire import test_sdk_shapes as sdk

RECORDED = Path(__file__).parents[1] / "wire" / "claude-code"
KEY = "sk-canary-0123456789abcdef"
VERSIONS = ("2023-06-01", "2026-10-21")

PROVIDERS: Mapping[str, tuple[str, str]] = {
    "messages": ('type = "anthropic"', "claude-sonnet-5"),
    "compatible": ('type = "anthropic"\nbase_url = "http://127.0.0.1"', "m"),
    "chat": (
        'type = "openai_compatible"\nbase_url = "http://127.0.0.1/v1"\n'
        'supports = ["files", "vision", "user", "tools", "takes_reasoning"]',
        "m",
    ),
    "blind": ('type = "openai_compatible"\nbase_url = "http://127.0.0.1/v1"\nmodels.m.vision = false', "m"),
    "responses": ('type = "openai"', "gpt-5.4"),
    "azure": ('type = "azure"\nbase_url = "https://x.openai.azure.com"', "gpt-4o"),
    "openrouter": ('type = "openrouter"', "anthropic/claude-sonnet-4.5"),
    "gemini": ('type = "gemini"', "gemini-2.5-pro"),
    "gemini-3": ('type = "gemini"', "gemini-3-pro-preview"),
    "ollama": ('type = "ollama"\nbase_url = "http://127.0.0.1"', "qwen3"),
}
SPEAK_MESSAGES = ("messages", "compatible")
PARAMS = """
params.cap = { max_tokens = 64 }
params.default = { temperature = 0.5, top_k = 3 }
params.set = { thinking = { type = "enabled", budget_tokens = 2048 } }
params.drop = ["stop_sequences", "metadata"]
params.extra_body = { metadata = { a = 1 } }
"""
"""What the rule of every second target does to a request."""


@cache
def _policy() -> Policy:
    lines = []
    for name, (fields, _) in PROVIDERS.items():
        key = "" if name == "ollama" else 'api_key = "env:KEY"'
        lines.append(f"[providers.{name}]\n{key}\n{fields}")
    for name, (_, model) in PROVIDERS.items():
        for asked, params in ((name, ""), (f"{name}-params", PARAMS)):
            rule = (
                f'[[rules]]\nmatch.headers.x-target = {{ equals = "{asked}" }}\ntargets = ["{name}/{model}"]'
            )
            lines.append(rule + params)
    lines.append('[default]\ndeny = "no"')
    return compile_rules("\n".join(lines), path=Path("rules.toml"), environ={"KEY": KEY})


class _Rules(NamedTuple):
    policy: Policy


@cache
def _proxy() -> tuple[Proxy, Registry]:
    upstreams = Registry(b"a key", {}, dry=True)
    return Proxy(_Rules(_policy()), upstreams, count), upstreams


class Asked(NamedTuple):
    """An input, read."""

    target: str
    version: str
    betas: str
    body: bytes


def read(data: bytes) -> Asked:
    """Whatever `data` is, it is a request."""
    head, _, body = data.partition(b"\n")
    words = head[:200].decode("latin-1").split()
    name = next((word for word in words if word.removesuffix("-params") in PROVIDERS), "chat")
    version = next((word for word in words if word in VERSIONS), VERSIONS[0])
    betas = ",".join(word for word in words if word.startswith("beta-") or word.isalnum())
    return Asked(name, version, betas, body)


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def now(work: Any) -> Any:
    """What a coroutine comes to that waits for nothing."""
    asyncio._set_running_loop(_loop())  # which a connection that nobody makes asks for
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    finally:
        asyncio._set_running_loop(None)
    work.close()
    raise BrokenLaw("it waits, though nobody is asked")


# --- laws


def check(data: bytes) -> None:
    asked = read(data)
    if len(asked.body) > 100_000:  # those are read in another thread
        return
    proxy, upstreams = _proxy()
    headers = {
        "anthropic-version": (asked.version,),
        "anthropic-beta": (asked.betas,),
        "x-target": (asked.target,),
    }
    exchange = proxy.receive(Inbound(body=asked.body, headers=headers))
    _check_counting(asked)
    try:
        decision = now(proxy.decide(exchange))
    except ApiError as refused:
        _check_refusal(refused)
        return
    if decision.deny is not None:
        raise BrokenLaw("no rule took it")
    sent = _sent(exchange, upstreams)
    told = msgspec.json.encode([exchange.warnings])
    if KEY.encode() in told:
        raise BrokenLaw("a warning tells the key")
    if sent is None:
        return
    arrived = _check_json(sent, asked)
    facts = exchange.facts
    assert facts is not None
    if exchange.target is None and asked.target in SPEAK_MESSAGES:
        _check_agreement(facts, sent, MESSAGES_FACTS)
    elif asked.target == "chat":
        _check_agreement(facts, sent, CHAT_FACTS)
    model = PROVIDERS[asked.target.removesuffix("-params")][1]
    if "model" in arrived and arrived["model"] != model:
        raise BrokenLaw(f"the model {arrived['model']} is asked for")


def _check_counting(asked: Asked) -> None:
    """Tokens are counted of whatever comes; what is surely below a limit is below it."""
    try:
        counted = count(asked.body)
        envelope = Exchange(Inbound(body=asked.body), _policy()).body.envelope()
    except InvalidRequest:
        return
    ceiling = Ceiling(asked.body, envelope)
    if counted < 0 or any(ceiling.is_below(limit) and counted >= limit for limit in (1, 50, 1000, counted)):
        raise BrokenLaw(f"{counted} tokens, which are surely below fewer")


def _check_refusal(refused: ApiError) -> None:
    if not 400 <= refused.status < 500:
        raise BrokenLaw(f"a request is answered {refused.status}: {refused.message}")
    if not refused.message or len(refused.message) > 2000 or KEY in refused.message:
        raise BrokenLaw(f"a refusal in these words: {refused.message[:200]!r}")


def _sent(exchange: Exchange, upstreams: Registry) -> bytes | None:
    """What would have gone out; `None` for a request that the target can't be asked."""
    decision = exchange.decision
    assert decision is not None
    target = decision.targets[0]
    call = Call(target, KEY if target.provider.keys else None, exchange)

    async def emit(output: Output) -> None: ...

    try:
        now(upstreams.of(target.provider).send(call, emit))
    except NotSent as request:
        return request.body
    except ApiError as refused:
        _check_refusal(refused)
    return None


def _check_json(sent: bytes, asked: Asked) -> dict[str, Any]:
    try:
        # Where nobody here reads it, a client's mistake in its UTF-8 is for a back end of Messages to find.
        errors = "replace" if asked.target.startswith(SPEAK_MESSAGES) else "strict"
        arrived = json.loads(sent.decode("utf-8", errors), parse_constant=_no_constant)
    except RecursionError:
        return {}  # it is as deep as it came
    except ValueError as error:
        raise BrokenLaw(f"what goes out is no JSON: {error}: {sent[:200]!r}") from None
    if not isinstance(arrived, dict):
        raise BrokenLaw("what goes out is no object")
    return arrived


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


Reader = Callable[[Any], Any]
MESSAGES_FACTS: Mapping[str, tuple[Callable[[Facts], Any], Reader]] = {
    "effort": (lambda facts: facts.effort, readers.effort_in),
    "thinking": (lambda facts: facts.thinking, readers.AT_MESSAGES["thinking"]),
    "images": (lambda facts: facts.images, readers.AT_MESSAGES["images"]),
    "documents": (
        lambda facts: facts.documents,
        lambda body: readers.has_block(body, "document", "file", "input_file"),
    ),
    "tools": (
        lambda facts: sorted(facts.tools),
        lambda body: sorted(readers.words_of(readers.tools_in(body))),
    ),
    "max_tokens": (lambda facts: facts.max_tokens, lambda body: body["max_tokens"]),
    "stream": (lambda facts: facts.stream, readers.AT_MESSAGES["stream"]),
    "user": (
        lambda facts: facts.user or "",
        lambda body: ((body.get("metadata") or {}).get("user_id") or "").strip(" \t"),
    ),
}
"""By fact: as rules see it, and as who reads the request at its end does."""
CHAT_FACTS: Mapping[str, tuple[Callable[[Facts], Any], Reader]] = {
    "stream": (lambda facts: facts.stream, readers.AT_CHAT["stream"]),
    "pictures": (
        lambda facts: facts.images,
        # Those of a turn that a rule does not see would go out unseen.
        lambda body: '"type": "image_url"' in json.dumps(body["messages"]),
    ),
}


def _check_agreement(
    facts: Facts, sent: bytes, table: Mapping[str, tuple[Callable[[Facts], Any], Reader]]
) -> None:
    """What rules see is what a back end gets, whichever of two equal keys it goes by."""
    for fact, (seen, reader) in table.items():
        try:
            decided = seen(facts)
        except InvalidRequest:
            continue  # a rule that looks at it refuses the request
        for first in (None, readers.first_of_equal_keys):
            try:
                got = reader(
                    _whole_characters(json.loads(sent.decode("utf-8", "replace"), object_pairs_hook=first))
                )
            except (KeyError, TypeError, AttributeError, RecursionError):
                continue  # no back end takes this shape
            if got != decided and not (fact == "pictures" and decided):
                raise BrokenLaw(f"rules see {fact} {decided!r}, a back end gets {got!r}")


def _whole_characters(value: Any) -> Any:
    """Half an emoji is a replacement character to whoever reads on."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_whole_characters(item) for item in value]
    if isinstance(value, dict):
        return {_whole_characters(name): _whole_characters(item) for name, item in value.items()}
    return value


# --- inputs


def _shortened(value: Any) -> Any:
    """A recorded request with fewer tools and shorter texts: what is long makes fuzzing slow, and finds no
    more."""
    if isinstance(value, str):
        return value[:300]
    if isinstance(value, list):
        return [_shortened(item) for item in value[:3] + value[3:][-2:]]
    return {name: _shortened(item) for name, item in value.items()} if isinstance(value, dict) else value


def _requests() -> Iterator[dict[str, Any]]:
    for path in sorted(RECORDED.glob("*.json")):
        recorded = json.loads(path.read_bytes())
        yield _shortened(recorded.get("body", recorded))
    for place in sdk.PLACES:
        for shape in sdk.blocks()[::5]:
            yield sdk.among(place, shape.value)
    for shape in sdk.turns()[::5]:
        yield sdk.one_turn(shape.value)
    for shape in sdk.tools()[::5]:
        yield sdk.request() | {"tools": [shape.value]}
    for name, shape in [*sdk.params()][::3]:
        yield sdk.request() | {name: shape.value}


def _seeds() -> Iterator[bytes]:
    targets = [asked for name in PROVIDERS for asked in (name, f"{name}-params")]
    for number, body in enumerate(_requests()):
        text = json.dumps(body).encode()
        if len(text) < 12_000:
            yield f"{targets[number % len(targets)]} {VERSIONS[number % 3 // 2]}\n".encode() + text
    for target in targets:
        for fact in ("effort", "images", "tools", "system"):
            body = next(readers.bodies(fact, "claude"))
            yield f"{target} {VERSIONS[0]}\n".encode() + body.encode()


WORDS = (
    *(
        "model",
        "max_tokens",
        "messages",
        "role",
        "content",
        "system",
        "tools",
        "tool_choice",
        "thinking",
        "type",
    ),
    *(
        "user",
        "assistant",
        "text",
        "image",
        "document",
        "source",
        "base64",
        "media_type",
        "data",
        "url",
        "file_id",
    ),
    *(
        "tool_use",
        "tool_result",
        "tool_use_id",
        "id",
        "name",
        "input",
        "input_schema",
        "is_error",
        "cache_control",
    ),
    *(
        "ephemeral",
        "ttl",
        "5m",
        "stream",
        "temperature",
        "top_p",
        "top_k",
        "stop_sequences",
        "metadata",
        "user_id",
    ),
    *("output_config", "effort", "high", "low", "enabled", "adaptive", "disabled", "budget_tokens", "format"),
    *("json_schema", "schema", "properties", "required", "$ref", "#/properties/a", "$defs", "anyOf", "items"),
    *("enum", "const", "additionalProperties", "object", "array", "string", "integer", "null", "pattern"),
    *("redacted_thinking", "signature", "server_tool_use", "web_search_tool_result", "web_search_20250305"),
    *("tool_definition", "definition", "tool_addition", "search_result", "citations", "context_management"),
    *(
        "mcp_servers",
        "container",
        "service_tier",
        "safeguards",
        "any",
        "auto",
        "none",
        "tool",
        "strict",
        "claude-x",
    ),
    *("image/png", "application/pdf", "text/plain", "aGk=", "toolu_1", "url_target", "file", "input_image"),
)
_BYTES = (
    *(
        b'"',
        b"\\ud83d",
        b"\\u0000",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b'"model":"m",',
        b'"type":"image",',
        b"NaN",
    ),
    *(
        b"1e999",
        b"-0",
        b"\xff",
        b"\xef\xbb\xbf",
        b"null",
        b"true",
        b'"a":1,"a":2',
        b"99999999999999999999999",
    ),
)


def mutate(data: bytes, random: Random) -> bytes:
    head, _, body = data.partition(b"\n")
    chance = random.random()
    if chance < 0.1:
        words = [random.choice([*PROVIDERS]) + random.choice(("", "-params")), random.choice(VERSIONS)]
        head = " ".join([*words, *random.choice(((), ("interleaved",), ("beta-x",)))]).encode()
    elif chance < 0.25:
        body = mutate_bytes(body, random, _BYTES)
    else:
        body = mutate_json(body, random, WORDS)
    return head + b"\n" + body


SURFACE = Surface(tuple(_seeds()), mutate, check)
