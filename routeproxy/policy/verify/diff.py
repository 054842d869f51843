"""What differs between two policies, in words: for whom, and what becomes of them now."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any, TypeVar

from routeproxy.policy.conditions import NoneOf, TextCheck, in_words
from routeproxy.policy.decide import Decision, Policy, Rule, Team
from routeproxy.policy.invariants import Invariant
from routeproxy.policy.providers import Provider
from routeproxy.policy.secrets import digest_of
from routeproxy.policy.targets import Target

Thing = TypeVar("Thing")


def differences(before: Policy, after: Policy) -> list[str]:
    """One line a difference. Both decide alike where there is none."""
    return [
        *_rules(before, after),
        *_named("provider", before.providers, after.providers, _provider),
        *_named("team", before.teams, after.teams, _team),
        *_named("invariant", _by_name(before), _by_name(after), _invariant),
        *_server(before, after),
        *_tests(before, after),
    ]


def outcome(decision: Decision) -> str:
    """`background work: openai/gpt-4.1-mini, gemini/gemini-2.5-flash`"""
    if decision.deny is not None:
        return f"{decision.rule}: denied with {decision.deny.status}: {decision.deny.message}"
    targets = ", ".join(target.name for target in decision.targets)
    single = len(decision.targets) > 1 and not decision.fallback.enabled
    return f"{decision.rule}: {targets}{' without fallback' if single else ''}"


# --- rules


def _rules(before: Policy, after: Policy) -> Iterator[str]:
    old, new = ({rule.name: rule for rule in policy.rules} for policy in (before, after))
    for name, rule in old.items():
        if name not in new:
            yield f"rule `{name}` removed, which took {in_words(rule.checks)}"
    for name, rule in new.items():
        if name not in old:
            yield f"rule `{name}` added{_behind(name, new)}: it takes {in_words(rule.checks)}, {_does(rule)}"
    for name in _moved(list(old), list(new)):
        yield f"rule `{name}` moved{_behind(name, new)}: it takes {in_words(new[name].checks)}"
    for name, rule in new.items():
        if name in old:
            yield from (f"rule `{name}`: {words}" for words in _rule(old[name], rule))
    yield from (f"default: {words}" for words in _rule(before.default, after.default))


def _moved(old: Sequence[str], new: Sequence[str]) -> list[str]:
    """Of those in both, the ones that stand elsewhere among the others."""
    kept = [name for name in old if name in set(new)]
    now = [name for name in new if name in set(old)]
    blocks = SequenceMatcher(a=kept, b=now, autojunk=False).get_matching_blocks()
    still = {name for block in blocks for name in now[block.b : block.b + block.size]}
    return [name for name in now if name not in still]


def _behind(name: str, rules: Mapping[str, Rule]) -> str:
    names = list(rules)
    place = names.index(name)
    return f" below `{names[place - 1]}`" if place else " at the top"


def _does(rule: Rule) -> str:
    if rule.deny is not None:
        return f"denies with {rule.deny.status}: {rule.deny.message}"
    return f"to {_targets(rule)}"


def _targets(rule: Rule) -> str:
    return ", ".join(target.name for target in rule.reachable)


def _rule(old: Rule, new: Rule) -> Iterator[str]:
    if (was := in_words(old.checks)) != (now := in_words(new.checks)):
        yield f"takes {now} instead of {was}"
    if (did := _does(old)) != (does := _does(new)):
        yield f"{does} instead of {did}"
    for describe in (_falls_back, _retries, _gives_up):
        was, now = describe(old), describe(new)
        if was != now:
            yield f"{now} instead of {was}"
    if [target.name for target in old.targets] == [target.name for target in new.targets]:
        for one, other in zip(old.targets, new.targets, strict=True):
            yield from _target(one, other)
        return
    by_name = {target.name: target for target in old.targets}
    for target in {target.name: target for target in new.targets}.values():
        if target.name in by_name:
            yield from _target(by_name[target.name], target)


def _falls_back(rule: Rule) -> str:
    return f"falls back after {_say(rule.fallback.on)}" if rule.fallback.enabled else "never falls back"


def _retries(rule: Rule) -> str:
    if rule.retry.attempts == 1:
        return "asks each target once"
    return f"asks each target {rule.retry.attempts} times, {rule.retry.backoff:g} s apart at first"


def _gives_up(rule: Rule) -> str:
    return "has no deadline" if rule.deadline is None else f"gives up after {rule.deadline:g} s"


def _target(old: Target, new: Target) -> Iterator[str]:
    for group in ("params", "transforms", "timeouts"):
        was, now = getattr(old, group), getattr(new, group)
        for name in was.__struct_fields__:
            if getattr(was, name) != getattr(now, name):
                unit = " s" if group == "timeouts" else ""
                before, after = (_say(getattr(one, name)) + unit for one in (was, now))
                yield f"{new.name}: {group}.{name} is {after} instead of {before}"


# --- the rest


def _named(
    kind: str,
    old: Mapping[str, Thing],
    new: Mapping[str, Thing],
    describe: Callable[[Thing], Mapping[str, Any]],
) -> Iterator[str]:
    for name, thing in old.items():
        if name not in new:
            yield f"{kind} `{name}` removed"
            continue
        was, now = describe(thing), describe(new[name])
        for key in was:
            if was[key] != now[key]:
                yield f"{kind} `{name}`: {key} is {_say(now[key])} instead of {_say(was[key])}"
    for name, thing in new.items():
        if name not in old:
            said = [f"{key} {_say(value)}" for key, value in describe(thing).items() if value]
            yield f"{kind} `{name}` added: {'; '.join(said)}"


def _by_name(policy: Policy) -> dict[str, Invariant]:
    return {invariant.name: invariant for invariant in policy.invariants}


def _provider(provider: Provider) -> dict[str, Any]:
    shown = {name: getattr(provider, name) for name in provider.__struct_fields__ if name not in _DERIVED}
    # A header's value may be a secret: whether it changed can be told without it.
    headers = {name: f"(#{digest_of(value)[:6]})" for name, value in provider.headers.items()}
    return shown | {"headers": headers, "keys": [key.reference for key in provider.keys]}


_DERIVED = {"name", "keys", "headers", "spellings", "prefixes"}


def _team(team: Team) -> dict[str, Any]:
    gate = team.gate
    return {
        "keys": [f"{key.name} ({key.secret.reference[:18]}, {key.expires or 'no end'})" for key in team.keys],
        "may ask for": _asked_for(gate) if gate is not None else "anything",
        "request_headers": dict(team.request_headers),
        "provider_keys": {
            name: [key.reference for key in provider.keys] for name, provider in team.providers.items()
        },
        "explain": team.explain,
    }


def _asked_for(gate: Rule) -> str:
    return " or ".join(
        value
        for check in gate.checks
        if isinstance(check, NoneOf)
        for table in check.tables
        for inner in table
        if isinstance(inner, TextCheck)
        for value in inner.values
    )


def _invariant(invariant: Invariant) -> dict[str, Any]:
    return {"when": in_words(invariant.when), "promise": invariant.words}


def _tests(before: Policy, after: Policy) -> Iterator[str]:
    old, new = ({case.name for case in policy.tests} for policy in (before, after))
    yield from (f"test `{name}` removed" for name in sorted(old - new))
    yield from (f"test `{name}` added" for name in sorted(new - old))


def _server(before: Policy, after: Policy) -> Iterator[str]:
    for name in before.server.__struct_fields__:
        was, now = getattr(before.server, name), getattr(after.server, name)
        if was != now and name not in {"admin_keys", "signing_key"}:
            unit = " s" if name == "drain" else ""
            yield f"[server] {name} is {_say(now)}{unit} instead of {_say(was)}{unit}"
        elif was != now:
            yield f"[server] {name} changed"


def _say(value: Any) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return "on" if value else "off"
        case float():
            return f"{value:g}"
        case frozenset():
            return _say(sorted(value))
        case list() | tuple():
            return ", ".join(map(_say, value)) or "nothing"
        case dict():
            return ", ".join(f"{key} {_say(item)}".rstrip() for key, item in value.items()) or "nothing"
        case _ if hasattr(value, "__struct_fields__"):
            said = {name: getattr(value, name) for name in value.__struct_fields__}
            return _say({name: item for name, item in said.items() if item is not None})
    return str(value)
