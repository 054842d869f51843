"""The differences between two policies, in words: whose requests are decided otherwise now, and how."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any, TypeVar

from msgspec.structs import asdict

from routeproxy.policy.conditions import NoneOf, TextCheck, in_words
from routeproxy.policy.decide import Decision, Policy, Rule, Team
from routeproxy.policy.health import HealthSettings
from routeproxy.policy.invariants import Invariant
from routeproxy.policy.providers import Provider
from routeproxy.policy.secrets import USER_IN_ADDRESS, digest_of
from routeproxy.policy.targets import Target

Item = TypeVar("Item")


def compare_policies(before: Policy, after: Policy) -> list[str]:
    """One line for each difference. Without any, both policies decide alike."""
    return [
        *_compare_rules(before, after),
        *_compare_shadow_rules(before, after),
        *_compare_named("provider", before.providers, after.providers, _provider_fields),
        *_compare_named("team", before.teams, after.teams, _team_fields),
        *_compare_named(
            "invariant", _invariants_by_name(before), _invariants_by_name(after), _invariant_fields
        ),
        *_compare_server(before, after),
        *_compare_tests(before, after),
    ]


def describe_decision(decision: Decision) -> str:
    """`background work: openai/gpt-4.1-mini, gemini/gemini-2.5-flash`"""
    if decision.deny is not None:
        return f"{decision.rule}: denied with {decision.deny.status}: {decision.deny.message}"
    targets = ", ".join(target.name for target in decision.targets)
    single = len(decision.targets) > 1 and not decision.fallback.enabled
    judged = f", tool uses judged by {decision.safeguards.target.name}" if decision.safeguards else ""
    return f"{decision.rule}: {targets}{' without fallback' if single else ''}{judged}"


# --- rules


def _compare_rules(before: Policy, after: Policy) -> Iterator[str]:
    old, new = ({rule.name: rule for rule in policy.rules} for policy in (before, after))
    for name, rule in old.items():
        if name not in new:
            yield f"rule `{name}` removed, which took {in_words(rule.checks)}"
    for name, rule in new.items():
        if name not in old:
            place, action = _describe_place(name, new), _describe_action(rule)
            judged = f"; {_describe_safeguards(rule)}" if _states_safeguards(rule) else ""
            yield f"rule `{name}` added{place}: it takes {in_words(rule.checks)}, {action}{judged}"
    for name in _moved(list(old), list(new)):
        yield f"rule `{name}` moved{_describe_place(name, new)}: it takes {in_words(new[name].checks)}"
    same = before.server.safeguards == after.server.safeguards
    same = same and before.server.safeguards_timeout == after.server.safeguards_timeout
    for name, rule in new.items():
        if name in old:
            yield from (f"rule `{name}`: {change}" for change in _compare_rule(old[name], rule))
            yield from (f"rule `{name}`: {change}" for change in _compare_safeguards(old[name], rule, same))
    yield from (f"default: {change}" for change in _compare_rule(before.default, after.default))
    yield from (f"default: {change}" for change in _compare_safeguards(before.default, after.default, same))


def _compare_shadow_rules(before: Policy, after: Policy) -> Iterator[str]:
    old, new = (
        {shadow.rule.name: shadow.rule for shadow in policy.shadow_rules} for policy in (before, after)
    )
    yield from (f"shadow rule `{name}` removed" for name in old if name not in new)
    for name, rule in new.items():
        if name not in old:
            takes = f"it would take {in_words(rule.checks)}, {_describe_action(rule)}"
            yield f"shadow rule `{name}` added: {takes}"
        else:
            yield from (f"shadow rule `{name}`: {change}" for change in _compare_rule(old[name], rule))


def _moved(old: Sequence[str], new: Sequence[str]) -> list[str]:
    """The names in both that stand elsewhere in `new` among the names in both."""
    common_before = [name for name in old if name in set(new)]
    common_after = [name for name in new if name in set(old)]
    blocks = SequenceMatcher(a=common_before, b=common_after, autojunk=False).get_matching_blocks()
    in_place = {name for block in blocks for name in common_after[block.b : block.b + block.size]}
    return [name for name in common_after if name not in in_place]


def _describe_place(name: str, rules: Mapping[str, Rule]) -> str:
    names = list(rules)
    index = names.index(name)
    return f" below `{names[index - 1]}`" if index else " at the top"


def _describe_action(rule: Rule) -> str:
    if rule.deny is not None:
        return f"denies with {rule.deny.status}: {rule.deny.message}"
    return f"to {', '.join(target.name for target in rule.reachable)}"


def _compare_rule(old: Rule, new: Rule) -> Iterator[str]:
    if (old_words := in_words(old.checks)) != (new_words := in_words(new.checks)):
        yield f"takes {new_words} instead of {old_words}"
    descriptions = (
        _describe_action,
        _describe_fallback,
        _describe_retries,
        _describe_deadline,
        _describe_hold,
        _describe_portable,
        _describe_sticky,
        _describe_record,
    )
    for describe in descriptions:
        if (old_words := describe(old)) != (new_words := describe(new)):
            yield f"{new_words} instead of {old_words}"
    if [target.name for target in old.targets] == [target.name for target in new.targets]:
        for old_target, new_target in zip(old.targets, new.targets, strict=True):
            yield from _compare_target(old_target, new_target)
        return
    by_name = {target.name: target for target in old.targets}
    for target in {target.name: target for target in new.targets}.values():
        if target.name in by_name:
            yield from _compare_target(by_name[target.name], target)


def _describe_fallback(rule: Rule) -> str:
    return f"falls back after {_format(rule.fallback.on)}" if rule.fallback.enabled else "never falls back"


def _describe_retries(rule: Rule) -> str:
    if rule.retry.attempts == 1:
        return "asks each target once"
    times = f"asks each target {rule.retry.attempts} times, at most {rule.retry.backoff:g} s apart at first"
    return f"{times}, after {_format(rule.retry.on)}"


def _describe_deadline(rule: Rule) -> str:
    return "has no deadline" if rule.deadline is None else f"gives up after {rule.deadline:g} s"


def _describe_hold(rule: Rule) -> str:
    return "holds streams until they are whole" if rule.hold else "lets streams go out as they come"


def _describe_portable(rule: Rule) -> str:
    if rule.portable == "strict":
        return "asks nobody who can't be given all of the conversation"
    return "drops what a target can't be given of the conversation"


def _describe_sticky(rule: Rule) -> str:
    return f"keeps a session where it fell back for {rule.sticky:g} s"


def _describe_record(rule: Rule) -> str:
    recorded = any(target.record for target in rule.targets)
    return "tells traces what was asked" if recorded else "tells nobody what was asked"


def _compare_safeguards(old: Rule, new: Rule, same_server: bool) -> Iterator[str]:
    """`same_server`: what `[server]` says is the same in both. If not, that is told once, and not for each
    rule that has it from there."""
    stated = _states_safeguards(old) or _states_safeguards(new)
    words = [_describe_safeguards(rule) for rule in (old, new)]
    if words[0] != words[1] and (stated or same_server):
        yield f"{words[1]} instead of {words[0]}"
    elif stated and old.safeguards and new.safeguards:
        yield from _compare_target(old.safeguards.target, new.safeguards.target)


def _states_safeguards(rule: Rule) -> bool:
    return rule.safeguards is not None and not rule.safeguards.inherited


def _describe_safeguards(rule: Rule) -> str:
    if rule.safeguards is None:
        return "its tool uses are judged by nobody"
    return f"its tool uses are judged by {rule.safeguards.target.name} within {rule.safeguards.timeout:g} s"


def _compare_target(old: Target, new: Target) -> Iterator[str]:
    if old.member != new.member:
        words = [str(member) if member is not None else "no pool" for member in (new.member, old.member)]
        yield f"{new.name}: {words[0]} instead of {words[1]}"
    for group in ("params", "transforms", "timeouts"):
        old_group, new_group = getattr(old, group), getattr(new, group)
        for name in new_group.__struct_fields__:
            old_value, new_value = getattr(old_group, name), getattr(new_group, name)
            if old_value != new_value:
                unit = " s" if group == "timeouts" else ""
                words = [
                    f"{_format(value)}{unit}" if value is not None else _format(None)
                    for value in (new_value, old_value)
                ]
                yield f"{new.name}: {group}.{name} is {' instead of '.join(words)}"


# --- providers, teams, invariants


def _compare_named(
    kind: str,
    old: Mapping[str, Item],
    new: Mapping[str, Item],
    fields_of: Callable[[Item], Mapping[str, Any]],
) -> Iterator[str]:
    """The differences between tables that have names, field by field."""
    for name, item in old.items():
        if name not in new:
            yield f"{kind} `{name}` removed"
            continue
        old_fields, new_fields = fields_of(item), fields_of(new[name])
        for key, value in old_fields.items():
            if value != new_fields[key]:
                yield f"{kind} `{name}`: {key} is {_format(new_fields[key])} instead of {_format(value)}"
    for name, item in new.items():
        if name not in old:
            fields = [f"{key} {_format(value)}" for key, value in fields_of(item).items() if value]
            yield f"{kind} `{name}` added: {'; '.join(fields)}"


def _provider_fields(provider: Provider) -> dict[str, Any]:
    fields = {name: getattr(provider, name) for name in provider.__struct_fields__ if name not in _LEFT_OUT}
    # A value may be a secret: whether it changed can be told without it.
    fields |= {
        kind: {name: f"(#{digest_of(str(value))[:6]})" for name, value in getattr(provider, kind).items()}
        for kind in ("headers", "litellm_params")
    }
    if provider.proxy and USER_IN_ADDRESS.search(provider.proxy):
        address = USER_IN_ADDRESS.sub(r"\1***", provider.proxy)
        fields["proxy"] = f"{address} (#{digest_of(provider.proxy)[:6]})"
    health = {} if provider.health is None else asdict(provider.health)
    stated = {name: value for name, value in health.items() if value != getattr(_USUAL_HEALTH, name)}
    return fields | {
        "keys": [key.reference for key in provider.keys],
        "health": "off" if provider.health is None else stated,
    }


_USUAL_HEALTH = HealthSettings()


_LEFT_OUT = {
    "name",
    "keys",
    "headers",
    "health",
    "litellm_params",
    "secret_headers",
    "secret_params",
    "spellings",
    "prefixes",
}
"""Fields of a provider that are derived from others, or that are described apart."""


def _team_fields(team: Team) -> dict[str, Any]:
    return {
        "keys": [f"{key.name} ({key.secret.reference[:18]}, {key.expires or 'no end'})" for key in team.keys],
        "may ask for": _allowed_models(team.gate) if team.gate is not None else "anything",
        "request_headers": dict(team.request_headers),
        "provider_keys": {
            name: [key.reference for key in provider.keys] for name, provider in team.providers.items()
        },
        "max_concurrent": team.max_concurrent,
        "weight": team.weight,
        "explain": team.explain,
    }


def _allowed_models(gate: Rule) -> str:
    """What a gate lets through: it refuses all requests for none of these models."""
    return " or ".join(
        value
        for check in gate.checks
        if isinstance(check, NoneOf)
        for table in check.tables
        for inner in table
        if isinstance(inner, TextCheck)
        for value in inner.values
    )


def _invariants_by_name(policy: Policy) -> dict[str, Invariant]:
    return {invariant.name: invariant for invariant in policy.invariants}


def _invariant_fields(invariant: Invariant) -> dict[str, Any]:
    return {"when": in_words(invariant.when), "promise": invariant.words}


# --- the server, and the tests


def _compare_server(before: Policy, after: Policy) -> Iterator[str]:
    durations = {"drain", "safeguards_timeout", "header_timeout", "body_timeout", "keep_alive", "queue_wait"}
    for name in before.server.__struct_fields__:
        old_value, new_value = getattr(before.server, name), getattr(after.server, name)
        if old_value == new_value:
            continue
        if name in {"admin_keys", "signing_key"}:
            yield f"[server] {name} changed"
        else:
            unit = " s" if name in durations else ""
            yield f"[server] {name} is {_format(new_value)}{unit} instead of {_format(old_value)}{unit}"


def _compare_tests(before: Policy, after: Policy) -> Iterator[str]:
    old, new = ({case.name for case in policy.tests} for policy in (before, after))
    yield from (f"test `{name}` removed" for name in sorted(old - new))
    yield from (f"test `{name}` added" for name in sorted(new - old))


# --- values


def _format(value: Any) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return "on" if value else "off"
        case float():
            return f"{value:g}"
        case frozenset():
            return _format(sorted(value))
        case list() | tuple():
            return ", ".join(map(_format, value)) or "nothing"
        case dict():
            return ", ".join(f"{key} {_format(item)}".rstrip() for key, item in value.items()) or "nothing"
        case _ if hasattr(value, "__struct_fields__"):
            fields = {name: getattr(value, name) for name in value.__struct_fields__}
            return _format({name: item for name, item in fields.items() if item is not None})
    return str(value)
