"""What `GET /v1/models` lists, to each caller only what the caller may ask for."""

from functools import cache, partial

from msgspec import Raw

from routeproxy.messages.request import Envelope
from routeproxy.policy.conditions import TEAM, Equals
from routeproxy.policy.decide import Decision, Policy, Rule
from routeproxy.policy.facts import Facts, requested_model_problem


def models_for(policy: Policy, team: str | None) -> tuple[str, ...]:
    """The names that a caller may choose from: those of `[server] models`, else those that rules state whole.

    Claude Code shows only names with `claude` or `anthropic` in them, so a name without gets a twin
    `anthropic/NAME`, where asking for the twin comes to the same.
    """
    if team not in policy.listed:
        policy.listed[team] = _models(policy, team)
    return policy.listed[team]


def _models(policy: Policy, team: str | None) -> tuple[str, ...]:
    asked = cache(partial(_asked, policy, team))
    if policy.server.models:
        return tuple(name for name in policy.server.models if not _unknown(asked(name)))
    # A name that stands in the rule of one team is no other's to see.
    rules = [rule for rule in (*policy.rules, policy.default) if _is_for(rule, team)]
    stated = dict.fromkeys(name for rule in rules for name in rule.states)
    found = dict.fromkeys(name for name in stated if asked(name).targets)
    for rule in rules:
        for target in rule.targets:
            if (
                target.model not in found
                and target.model != "*"
                and not requested_model_problem(target.model)
            ):
                decision = asked(target.model)
                if decision.targets and decision.targets[0].name == target.name:
                    found[target.model] = None
    unseen = [name for name in found if "claude" not in name.lower() and "anthropic" not in name.lower()]
    twins = [name for name in unseen if _targets(asked(f"anthropic/{name}")) == _targets(asked(name))]
    return (*found, *(f"anthropic/{name}" for name in twins))


def _asked(policy: Policy, team: str | None, model: str) -> Decision:
    """What becomes of the smallest request for `model`."""
    headers = policy.headers_of(team, {})
    return policy.decide(Facts(Envelope(model=model, messages=Raw(b"[]")), headers, team=team))


def _is_for(rule: Rule, team: str | None) -> bool:
    return not any(
        isinstance(check, Equals) and check.subject is TEAM and team not in check.values
        for check in rule.checks
    )


def _unknown(decision: Decision) -> bool:
    return decision.deny is not None and decision.deny.status == 404


def _targets(decision: Decision) -> tuple[str, ...]:
    return tuple(target.name for target in decision.targets)
