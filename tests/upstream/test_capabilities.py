"""What a translated target cannot take is a failure of that target, so that a rule may name another one for
it."""

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from routeproxy.chat.request import ChatRequest
from routeproxy.exchange import Call, Exchange, Inbound
from routeproxy.large_bodies import INLINE
from routeproxy.messages.errors import InvalidRequest
from routeproxy.messages.request import decode_envelope
from routeproxy.observe import Observer
from routeproxy.output import Content
from routeproxy.policy.compile.compiler import compile_rules
from routeproxy.policy.facts import Facts
from routeproxy.policy.providers import Provider
from routeproxy.policy.targets import Target
from routeproxy.translate.profile import ModelProfile
from routeproxy.translate.thinking import Signer
from routeproxy.upstream.chat.upstream import ChatUpstream, ChunkSource
from routeproxy.upstream.echo import Echo
from routeproxy.upstream.failover import Failover, Upstream
from routeproxy.upstream.failures import UpstreamFailure
from routeproxy.upstream.keys import Keys
from routeproxy.upstream.shared_state import SharedState

RULES = """
[providers.blind]
type = "openai_compatible"
base_url = "http://localhost/v1"
api_key = "none"
[providers.echo]
[default]
targets = ["blind/m", "echo/m"]
{fallback}
"""


class Blind:
    """Sees no pictures and reads no files; nothing is ever sent to it."""

    def profile(self, target: Target) -> ModelProfile:
        return ModelProfile(vision=False, without_vision="refuse", files=False)

    async def open(self, chat: ChatRequest, call: Call) -> ChunkSource:
        raise AssertionError("this was sent")


class BlindAndEcho:
    def __init__(self, blind: Blind) -> None:
        self._blind = blind

    def of(self, provider: Provider) -> Upstream:
        return Echo() if provider.type == "echo" else ChatUpstream(self._blind, Signer(None))


def answered(fallback: str, *content: Any, blind: Blind | None = None, **more: Any) -> str:
    """Which provider answers a request with this content."""
    policy = compile_rules(RULES.format(fallback=fallback), path=Path("rules.toml"), environ={})
    body = msgspec.json.encode(
        {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": content}], **more}
    )
    exchange = Exchange(Inbound(body=body), policy)
    exchange.envelope = decode_envelope(body)
    exchange.decision = policy.decide(Facts(exchange.envelope, {}, count=lambda: 1))

    async def write(contents: Sequence[Content]) -> None:
        assert contents

    upstreams = BlindAndEcho(blind or Blind())
    failover = Failover(upstreams, Keys(), Observer(), lambda call: None, SharedState())
    asyncio.run(failover.answer(exchange, write))
    assert exchange.target is not None
    return exchange.target.provider.name


HI = {"type": "text", "text": "hi"}
PICTURE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
PAPER = {
    "type": "document",
    "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="},
}
ORPHAN = {"type": "tool_result", "tool_use_id": "t", "content": "x"}
CAPABILITY = 'fallback = { also = ["capability"] }'

UPLOADED = {"type": "image", "source": {"type": "file", "file_id": "file_1"}}

INCAPABLE = [
    pytest.param(PICTURE, "image_block", id="a picture"),
    pytest.param(PAPER, "document_block", id="a file"),
]
ALSO_INCAPABLE = [*INCAPABLE, pytest.param(UPLOADED, "", id="a file of the Files API")]


@pytest.mark.parametrize(("block", "token"), INCAPABLE)
def test_it_is_refused_in_words_that_claude_code_knows(block: Any, token: str) -> None:
    with pytest.raises(UpstreamFailure, match=f"^capability_rejected: {token}") as refused:
        answered("", block)
    assert (refused.value.kind, refused.value.status) == ("capability", 400)


@pytest.mark.parametrize(("block", "token"), ALSO_INCAPABLE)
def test_the_next_target_gets_it_where_the_rule_says_so(block: Any, token: str) -> None:
    assert answered(CAPABILITY, block) == "echo"


class NoTools(Blind):
    def profile(self, target: Target) -> ModelProfile:
        return ModelProfile(tools=False)


def test_a_tool_that_nobody_here_knows_goes_to_who_may_know_it() -> None:
    tools = [{"name": "x", "type": "invented_20270101"}]
    assert answered(CAPABILITY, HI, blind=NoTools(), tools=tools) == "echo"


def test_a_mistake_is_nobodys_to_take() -> None:
    with pytest.raises(InvalidRequest):
        answered(CAPABILITY, ORPHAN)


class Watching(Blind):
    def __init__(self) -> None:
        self.threads: list[str] = []

    def profile(self, target: Target) -> ModelProfile:
        self.threads.append(threading.current_thread().name.partition("_")[0])
        return super().profile(target)


@pytest.mark.parametrize(("size", "thread"), [(10, "MainThread"), (INLINE, "bodies")])
def test_a_long_conversation_is_translated_beside_the_event_loop(size: int, thread: str) -> None:
    """And what it is refused for is heard all the same."""
    back_end = Watching()
    with pytest.raises(UpstreamFailure, match="image_block"):
        answered("", {"type": "text", "text": "x" * size}, PICTURE, blind=back_end)
    assert back_end.threads == [thread]
