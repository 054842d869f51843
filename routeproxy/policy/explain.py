"""A decision in words. It repeats what `decide` recorded and judges nothing anew."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from routeproxy.policy.decide import Decision, Denial, Policy, Portable
from routeproxy.policy.providers import Provider
from routeproxy.policy.secrets import Secret
from routeproxy.policy.shadow import shadow_outcomes
from routeproxy.policy.targets import Params, Recording, Target, TransformSettings


class ExplainedStep(Struct, frozen=True):
    """A rule that was asked."""

    rule: str
    where: str
    matched: bool
    why: str
    """What the request lacked; empty if nothing."""


class Refused(Struct, frozen=True):
    """A request that a target is not asked, for what is in it."""

    status: int
    kind: str
    """The failure, as rules name it."""
    message: str


class DryRun(Struct, frozen=True, kw_only=True):
    """What became of a request on its way to a target, up to the first byte that would have been sent."""

    loses: tuple[str, ...] = ()
    """The warnings of its answer: what can't be carried over."""
    refused: Refused | None = None
    sends: Mapping[str, Any] = {}
    """The model and the limits that are asked for."""
    changes: tuple[str, ...] = ()
    """In words, what is sent otherwise than the client wrote it."""


class ExplainedTarget(Struct, frozen=True, kw_only=True):
    """A target that would be tried. Of its keys only the references are shown."""

    target: str
    """`provider/model`"""
    provider: str
    model: str
    zone: str
    region: str | None = None
    engine: str
    base_url: str | None
    key: str
    transforms: dict[str, Any] = {}
    """The transforms that differ from the default."""
    params: dict[str, Any] = {}
    """The changes of parameters that differ from the default."""
    pool: str | UnsetType = UNSET
    """The pool that it is a member of. The members of one share a place: which is asked, is chosen then."""
    weight: float | UnsetType = UNSET
    """Its share of that pool, in proportion to the other members'."""
    turn: int | UnsetType = UNSET
    """Its turn, from 1 on, if this request came now. `UNSET`: only a server knows, or it is not asked."""
    health: str | UnsetType = UNSET
    """Whether it answers, `ok`, or why it is left alone for now. `UNSET`: only a server knows."""
    loses: tuple[str, ...] | UnsetType = UNSET
    """What of the request can't be carried over to it. This and what follows is `UNSET` where no whole
    request was given."""
    refuses: Refused | UnsetType | None = UNSET
    """With what the request fails before anything is sent; `None`: it doesn't."""
    sends: Mapping[str, Any] | UnsetType = UNSET
    """The model and the limits that are asked for; empty if nothing is sent."""
    changes: tuple[str, ...] | UnsetType = UNSET
    """In words, what is sent otherwise than the client wrote it."""

    def __str__(self) -> str:
        place = f"zone {self.zone}" + (f" ({self.region})" if self.region else "")
        in_pool = f", pool {self.pool}, weight {self.weight:g}" if self.pool else ""
        lines = [f"{self.target}  {place}, engine {self.engine}, {self.key}{in_pool}"]
        if self.health and self.health != HEALTHY:
            lines.append(f"   {self.health}")
        lines += [f"   transforms {name} = {_toml(value)}" for name, value in self.transforms.items()]
        lines += [f"   params {name} = {_toml(value)}" for name, value in self.params.items()]
        if self.sends:
            sent = ", ".join(f"{name} {_toml(value)}" for name, value in self.sends.items())
            lines.append(f"   sends {sent}")
        lines += [f"   changed: {words}" for words in self.changes or ()]
        lines += [f"   not carried over: {words}" for words in self.loses or ()]
        if self.refuses:
            lines.append(
                f"   refused with {self.refuses.status} ({self.refuses.kind}): {self.refuses.message}"
            )
        return "\n".join(lines)


class Explanation(Struct, frozen=True, kw_only=True):
    """A decision, ready to be printed (`str`) or sent as JSON."""

    source: str
    version: str
    rule: str
    where: str
    steps: tuple[ExplainedStep, ...]
    deny: Denial | None
    targets: tuple[ExplainedTarget, ...]
    unused: int
    """How many targets of the rule can't be reached, since there is no fallback."""
    fallback: tuple[str, ...]
    """The failures after which the next target is tried; empty: none is."""
    attempts: int
    """How often each target is tried."""
    deadline: float | None
    """Seconds."""
    hold: bool = False
    """Whether a stream goes out once it is whole."""
    portable: Portable = "drop"
    """What becomes of what a target can't be given of the conversation."""
    record: Recording | None = None
    """What is recorded of the conversation besides."""
    safeguards: ExplainedTarget | None = None
    """Who would judge the tool uses of the answer, if the client wants that and the target does not do it."""
    safeguards_timeout: float | None = None
    """Seconds."""
    shadow: Mapping[str, str] | UnsetType = UNSET
    """What shadow rules would have done with it, by their names."""

    def __str__(self) -> str:
        width = max(len(step.rule) for step in self.steps)
        lines = [f"{self.source}, version {self.version}", ""]
        for step in self.steps:
            mark = "✓" if step.matched else "-"
            lines.append(f"{mark} {step.rule:{width}}  {step.where}  {step.why or 'matches'}")
        lines.append("")
        if self.deny:
            lines.append(f"denied with {self.deny.status}: {self.deny.message}")
        lines += [f"{number}. {target}" for number, target in enumerate(self.targets, 1)]
        if self.unused:
            more = "1 more target" if self.unused == 1 else f"{self.unused} more targets"
            lines.append(f"   falls back never: {more} of this rule can't be reached by this request")
        elif len(self.targets) > 1 and not self.fallback:
            lines.append("   falls back never: one member of the pool is chosen and asked")
        elif len(self.targets) > 1:
            lines.append(f"   falls back after {', '.join(self.fallback)}")
            if all(target.health is UNSET for target in self.targets):
                lines.append("   passes over what fails at the time: only a server knows that (/v1/route)")
        if self.attempts > 1:
            lines.append(f"   tries each target {self.attempts} times")
        if self.deadline is not None:
            lines.append(f"   gives up after {self.deadline:g} s")
        if self.hold:
            lines.append("   holds a stream until it is whole")
        if self.portable == "strict":
            lines.append("   asks nobody who can't be given all of the conversation")
        if self.record is not None:
            lines.append("   tells traces what was asked")
        if self.safeguards is not None:
            lines.append(f"tool uses in auto mode: judged within {self.safeguards_timeout:g} s by")
            lines.append(f"   {self.safeguards}")
        for name, outcome in (self.shadow or {}).items():
            lines.append(f"shadow: {name} would have taken it: {outcome}")
        return "\n".join(lines)

    def in_a_header(self) -> str:
        """As JSON in ASCII, without what is too long for a header: the last rules that were asked stay."""
        document = msgspec.to_builtins(self)
        steps = document["steps"]
        while len(text := json.dumps(document, separators=(",", ":"))) > LONGEST_HEADER and steps:
            del steps[: max(1, len(steps) // 2)]
        return text[:LONGEST_HEADER]


HEALTHY = "ok"
"""The health of a target that is asked when its turn comes."""

LONGEST_HEADER = 4096
"""Characters. Clients and proxies refuse headers beyond twice that."""


def explain(
    decision: Decision,
    policy: Policy,
    *,
    dry_runs: Mapping[str, DryRun] | None = None,
    health: Mapping[str, str] | None = None,
    order: Sequence[Target] | None = None,
) -> Explanation:
    """`dry_runs`: what became of the request at each target, by its name. `health`: of each, likewise.
    `order`: that in which they would be asked now."""
    safeguards = decision.safeguards
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
        targets=tuple(
            _target(
                target,
                (dry_runs or {}).get(target.name),
                UNSET if health is None else health[target.name],
                order.index(target) + 1 if order is not None and target in order else UNSET,
            )
            for target in decision.targets
        ),
        unused=decision.unused if decision.deny is None else 0,
        fallback=tuple(sorted(decision.fallback.on)) if decision.fallback.enabled else (),
        attempts=decision.retry.attempts,
        deadline=decision.deadline,
        hold=decision.hold,
        portable=decision.portable,
        record=next((target.record for target in decision.targets), None),
        safeguards=_target(safeguards.target, None) if safeguards is not None else None,
        safeguards_timeout=safeguards.timeout if safeguards is not None else None,
        shadow=shadow_outcomes(policy, decision) or UNSET,
    )


def _target(
    target: Target,
    dry_run: DryRun | None,
    health: str | UnsetType = UNSET,
    turn: int | UnsetType = UNSET,
) -> ExplainedTarget:
    provider = target.provider
    return ExplainedTarget(
        target=target.name,
        provider=provider.name,
        model=target.model,
        zone=provider.zone,
        region=provider.facts_of(target.model).region,
        engine=target.engine,
        base_url=provider.base_url,
        key=_keys(provider),
        transforms=_changed(target.transforms, TransformSettings()),
        params=_changed(target.params, Params()),
        pool=target.member.pool.name if target.member is not None else UNSET,
        weight=target.member.weight if target.member is not None else UNSET,
        turn=turn,
        health=health,
        loses=UNSET if dry_run is None else dry_run.loses,
        refuses=UNSET if dry_run is None else dry_run.refused,
        sends=UNSET if dry_run is None else dry_run.sends,
        changes=UNSET if dry_run is None else dry_run.changes,
    )


def _changed(settings: Struct, default: Struct) -> dict[str, Any]:
    """The fields of `settings` that differ from `default`."""
    return {
        name: sorted(value) if isinstance(value, frozenset) else value
        for name in settings.__struct_fields__
        if (value := getattr(settings, name)) != getattr(default, name)
    }


def _toml(value: Any) -> str:
    match value:
        case dict():
            return f"{{ {', '.join(f'{key} = {_toml(item)}' for key, item in value.items())} }}"
    return json.dumps(value, ensure_ascii=False)


def _keys(provider: Provider) -> str:
    if provider.client_key:
        return "the client's own login"
    return ", ".join(map(_key, provider.keys)) or "no key"


def _key(key: Secret) -> str:
    if key.kind == "literal":
        return "key written in the file"
    state = "NOT SET" if key.unset else "set" if key.kind == "env" else "read at use"
    return f"key {key.reference} {state}"
