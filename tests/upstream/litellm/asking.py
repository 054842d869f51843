"""One LiteLLM for all tests of it, on a loop of its own: the import takes seconds."""

import asyncio
import threading
import time
from collections.abc import Coroutine, Mapping
from contextlib import aclosing, suppress
from typing import Any, TypeVar

import pytest
from msgspec import UNSET, Raw

from routeproxy.chat.completion import Chunk
from routeproxy.chat.request import ChatRequest, Function, FunctionTool, StreamOptions, System, User
from routeproxy.exchange import Call, Exchange, Inbound
from routeproxy.messages.request import Envelope
from routeproxy.policy.decide import AskedRules, Decision, Fallback, Policy, Retry, Rule
from routeproxy.policy.facts import Facts
from routeproxy.policy.providers import Provider
from routeproxy.policy.server import ServerSettings
from routeproxy.policy.targets import Params, Target
from routeproxy.upstream.chat.direct import DirectBackEnd
from routeproxy.upstream.chat.upstream import ChatBackEnd
from routeproxy.upstream.failures import UpstreamFailure
from routeproxy.upstream.google_tokens import GoogleTokens
from routeproxy.upstream.http.client import Client
from routeproxy.upstream.litellm.backend import LiteLLMBackEnd
from tests.backend import BackEnd

T = TypeVar("T")

READ = FunctionTool(
    Function("read", "Reads.", Raw(b'{"type":"object","properties":{"path":{"type":"string"}}}'))
)
POLICY = Policy(
    version="v", source="s", server=ServerSettings(), providers={}, rules=(), default=Rule(name="r", where="")
)


class Loop:
    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self.client = Client({})
        self.google_tokens = GoogleTokens(self.client)
        self.litellm = LiteLLMBackEnd(self.client, self.google_tokens)
        self.direct = DirectBackEnd(self.client, self.google_tokens)

    def run(self, coroutine: Coroutine[Any, Any, T], seconds: float = 60) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(seconds)


LOOP = Loop()

LITELLMS_WARNINGS = [
    pytest.mark.filterwarnings(
        "ignore:Items? .* on TypedDict class .* (is|are) using the `ReadOnly` qualifier:UserWarning"
    ),
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning"),
]
"""What LiteLLM makes Pydantic say; none of it is ours to mend."""


def target(
    type: str, base_url: str | None, model: str, extra_body: Mapping[str, Any] | None = None, **provider: Any
) -> Target:
    provider = {"zone": "local", "name": "corp", **provider}
    return Target(
        provider=Provider(type=type, base_url=base_url, **provider),
        model=model,
        params=Params(extra_body=extra_body or {}),
    )


def call(target: Target, key: str | None = "KEY-1", fallback: bool = True, **headers: str) -> Call:
    exchange = Exchange(
        Inbound(body=b"{}", headers={name.replace("_", "-"): (value,) for name, value in headers.items()}),
        POLICY,
    )
    exchange.decision = Decision(
        rule="r",
        where="",
        deny=None,
        targets=(target,),
        fallback=Fallback(fallback),
        retry=Retry(),
        deadline=None,
        version="v",
        facts=Facts(Envelope(model="m", messages=Raw(b"[]")), {}),
        asked=AskedRules((), (), 0),
    )
    return Call(target, key, exchange)


def chat(*, stream: bool = True, tools: bool = False, **fields: Any) -> ChatRequest:
    fields = {"messages": (System("Be brief."), User("Hi")), "max_tokens": 50, **fields}
    return ChatRequest(
        stream=stream or UNSET,
        stream_options=StreamOptions() if stream else UNSET,
        tools=(READ,) if tools else UNSET,
        **fields,
    )


def engine_of(one: Call) -> ChatBackEnd:
    return LOOP.direct if one.target.engine == "direct" else LOOP.litellm


def ask(one: Call, request: ChatRequest | None = None) -> list[Chunk]:
    async def asking() -> list[Chunk]:
        async with aclosing(await engine_of(one).open(request or chat(), one)) as answer:
            return [chunk async for chunks in answer for chunk in chunks]

    return LOOP.run(asking())


def until_failure(one: Call, request: ChatRequest | None = None) -> list[str]:
    """What was said, up to a failure if there was one."""
    chunks: list[Chunk] = []

    async def asking() -> None:
        with suppress(UpstreamFailure):
            async with aclosing(await engine_of(one).open(request or chat(), one)) as answer:
                async for several in answer:
                    chunks.extend(several)

    LOOP.run(asking())
    return said(chunks)


def failure(one: Call, request: ChatRequest | None = None) -> UpstreamFailure:
    """The failure that it must end with, whatever came before."""
    try:
        chunks = ask(one, request)
    except UpstreamFailure as error:
        return error
    raise AssertionError(f"no failure: {said(chunks)}")


def said(chunks: list[Chunk]) -> list[str]:
    """The chunks as a transcript."""
    lines = []
    for chunk in chunks:
        for choice in chunk.choices:
            part = choice.delta or choice.message
            if part is not None:
                lines += [f"thought {text}" for text in (part.reasoning_content or part.reasoning,) if text]
                lines += [f"text {part.content}"] if part.content else []
                lines += [f"refusal {part.refusal}"] if part.refusal else []
                for one in part.tool_calls or ():
                    assert one.function is not None
                    lines.append(
                        f"call {one.index} {one.function.name or ''} {one.function.arguments or ''}".strip()
                    )
            if choice.stop_reason:
                lines.append(f"matched {choice.stop_reason}")
            if choice.finish_reason:
                lines.append(f"ends {choice.finish_reason}")
        if chunk.usage is not None:
            lines.append(f"usage {chunk.usage.prompt_tokens} {chunk.usage.completion_tokens}")
    return lines


def leave(one: Call, back_end: BackEnd, request: ChatRequest | None = None) -> float:
    """How many seconds after the first chunk, when the client leaves, the back end notices."""

    async def leaving() -> float:
        async with aclosing(await engine_of(one).open(request or chat(), one)) as chunks:
            await anext(aiter(chunks))
        return time.monotonic()

    left = LOOP.run(leaving())
    return back_end.wait_until_left() - left
