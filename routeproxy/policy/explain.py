"""A decision in words. It repeats what `decide` recorded and judges nothing anew."""

from collections.abc import Mapping

import msgspec
from msgspec import Raw, Struct

from routeproxy.messages.request import Envelope, Metadata, OutputHead, ThinkingHead, ToolHead
from routeproxy.policy.decide import Decision, Denial, Policy, Target
from routeproxy.policy.facts import Facts
from routeproxy.policy.providers import Provider


class Question(Struct, frozen=True, kw_only=True):
    """A request by its facts. What is left out is the smallest request's."""

    model: str
    headers: Mapping[str, tuple[str, ...]] = {}
    """Lower-case names; values as HTTP servers hand them over."""
    input_tokens: int = 0
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

    def facts(self) -> Facts:
        blocks = [
            {"type": kind} for kind, there in (("image", self.images), ("document", self.documents)) if there
        ]
        envelope = Envelope(
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
        return Facts(envelope, self.headers, url_target=self.url_target, count=lambda: self.input_tokens)

    @property
    def assumed(self) -> tuple[str, ...]:
        """What the question left out, and what that is taken for."""
        return tuple(words for fact, words in _ASSUMED.items() if not getattr(self, fact))


_ASSUMED = {
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


class ExplainedStep(Struct, frozen=True):
    rule: str
    where: str
    matched: bool
    why: str
    """What the request lacked; empty if nothing."""


class ExplainedTarget(Struct, frozen=True, kw_only=True):
    target: str
    provider: str
    model: str
    zone: str
    engine: str
    base_url: str | None
    key: str


class Explanation(Struct, frozen=True, kw_only=True):
    source: str
    version: str
    rule: str
    where: str
    steps: tuple[ExplainedStep, ...]
    deny: Denial | None
    targets: tuple[ExplainedTarget, ...]
    fallback: tuple[str, ...]
    """The failures after which the next target is tried; empty: none is."""
    attempts: int
    deadline: float | None

    def __str__(self) -> str:
        width = max(len(step.rule) for step in self.steps)
        lines = [f"{self.source}, version {self.version}", ""]
        for step in self.steps:
            mark, why = ("✓", "matches") if step.matched else ("-", step.why)
            lines.append(f"{mark} {step.rule:{width}}  {step.where}  {why}")
        lines.append("")
        if self.deny:
            lines.append(f"denied with {self.deny.status}: {self.deny.message}")
        for number, target in enumerate(self.targets, 1):
            lines.append(
                f"{number}. {target.target}  zone {target.zone}, engine {target.engine}, {target.key}"
            )
        if len(self.targets) > 1:
            after = (
                f"after {', '.join(self.fallback)}"
                if self.fallback
                else "never: only the first target is used"
            )
            lines.append(f"   falls back {after}")
        if self.attempts > 1:
            lines.append(f"   tries each target {self.attempts} times")
        if self.deadline is not None:
            lines.append(f"   gives up after {self.deadline:g} s")
        return "\n".join(lines)


def explain(decision: Decision, policy: Policy) -> Explanation:
    return Explanation(
        source=policy.source,
        version=decision.version,
        rule=decision.rule,
        where=decision.where,
        steps=tuple(
            ExplainedStep(step.rule.name, step.rule.where, step.missed is None, step.why)
            for step in decision.steps
        ),
        deny=decision.deny,
        targets=tuple(map(_target, decision.targets)),
        fallback=tuple(sorted(decision.fallback.on)) if decision.fallback.enabled else (),
        attempts=decision.retry.attempts,
        deadline=decision.deadline,
    )


def _target(target: Target) -> ExplainedTarget:
    provider = target.provider
    return ExplainedTarget(
        target=target.name,
        provider=provider.name,
        model=target.model,
        zone=provider.zone,
        engine=provider.engine,
        base_url=provider.base_url,
        key=_keys(provider),
    )


def _keys(provider: Provider) -> str:
    if provider.client_key:
        return "the client's own login"
    state = {"env": "set", "file": "read at use", "literal": "written in the file"}
    said = [f"key {key.reference} {'NOT SET' if key.unset else state[key.kind]}" for key in provider.keys]
    return ", ".join(said) or "no key"
