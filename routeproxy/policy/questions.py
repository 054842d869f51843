"""Requests by their facts, for those who ask without sending one: `explain`, `[[tests]]`, the proof."""

from collections.abc import Callable, Mapping

import msgspec
from msgspec import Raw, Struct

from routeproxy.messages.request import (
    Envelope,
    Metadata,
    OutputHead,
    ThinkingHead,
    ToolHead,
    decode_envelope,
)
from routeproxy.policy.facts import Facts
from routeproxy.policy.invariants import Reach

Headers = Mapping[str, tuple[str, ...]]


class HypotheticalRequest(Struct, frozen=True, kw_only=True):
    """A request by its facts. What is left out is the smallest request's, or with `body` that request's."""

    model: str = ""
    """May be left out beside a `body` only."""
    body: bytes | None = None
    """A real request. Beside it only team, headers, `input_tokens`, `url_target` and `no_fallback` count."""
    team: str | None = None
    headers: Headers = {}
    """Lower-case names; values as HTTP servers hand them over."""
    input_tokens: int | None = None
    max_tokens: int | None = None
    stream: bool = False
    images: bool = False
    documents: bool = False
    tools: tuple[str, ...] = ()
    thinking: bool = False
    effort: str | None = None
    system: str | None = None
    user: str | None = None
    url_target: str | None = None
    """`provider/model`"""
    no_fallback: bool = False
    """The client forbids fallback."""

    def facts(self, headers: Headers, count: Callable[[bytes], int]) -> Facts:
        """With `headers` as the team has them. Raises `InvalidRequest` if `body` is none."""
        envelope = decode_envelope(self.body) if self.body is not None else self._envelope()
        body, stated = self.body, self.input_tokens
        return Facts(
            envelope,
            headers,
            url_target=self.url_target,
            team=self.team,
            no_fallback=self.no_fallback,
            count=lambda: stated if stated is not None else count(body) if body is not None else 0,
        )

    def _envelope(self) -> Envelope:
        blocks = [
            {"type": kind} for kind, there in (("image", self.images), ("document", self.documents)) if there
        ]
        return Envelope(
            model=self.model,
            messages=Raw(msgspec.json.encode([{"role": "user", "content": blocks}])),
            max_tokens=self.max_tokens,
            stream=self.stream,
            system=Raw(msgspec.json.encode(self.system)),
            tools=tuple(ToolHead(name) for name in self.tools) or None,
            thinking=ThinkingHead("enabled") if self.thinking else None,
            output_config=OutputHead(self.effort) if self.effort else None,
            metadata=Metadata(self.user) if self.user else None,
        )

    def assumed(self, *, teams: bool) -> tuple[str, ...]:
        """What the question left out, and what that is taken for. `teams`: whether there are any."""
        facts = _BESIDE_A_BODY if self.body is not None else _ASSUMED
        return tuple(
            words for fact, words in facts.items() if not getattr(self, fact) and (teams or fact != "team")
        )


_ASSUMED = {
    "team": "nobody's key",
    "headers": "no headers",
    "input_tokens": "0 input tokens",
    "max_tokens": "no max_tokens",
    "stream": "not streamed",
    "images": "no images",
    "documents": "no documents",
    "tools": "no tools",
    "thinking": "no thinking",
    "effort": "no effort",
    "system": "no system text",
    "user": "no user",
    "url_target": "no target in the URL",
}
_BESIDE_A_BODY = {fact: _ASSUMED[fact] for fact in ("team", "headers", "url_target")}


class Expected(Struct, frozen=True, kw_only=True):
    """What must become of a test's request. What is `None` is not looked at."""

    rule: str | None = None
    targets: tuple[str, ...] | None = None
    fallback: bool | None = None
    denied: bool | str | None = None
    """`True`, `False`, or the words of the denial."""
    transforms: Mapping[str, object] | None = None
    """Of every target."""


class Case(Struct, frozen=True, kw_only=True):
    """One of `[[tests]]`."""

    name: str
    where: str
    file: int
    path: tuple[str | int, ...]
    question: HypotheticalRequest
    expect: Expected | None = None
    never: Reach | None = None
