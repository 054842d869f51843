"""What `GET /v1/models` lists, to each caller only what the caller may ask for."""

from functools import cache, partial

from msgspec import Raw

from routeproxy.messages.request import Envelope
from routeproxy.policy.conditions import Equals
from routeproxy.policy.decide import Decision, Policy, Rule
from routeproxy.policy.fact_table import TEAM
from routeproxy.policy.facts import Facts, requested_model_problem


class ModelLists:
    """The lists of the policy in force, by team, as they are asked for: one takes a decision for each name.

    What they are kept for is a version: a policy would stay alive with its lists.
    """

    def __init__(self) -> None:
        self._version = ""
        self._lists: dict[str | None, tuple[str, ...]] = {}

    def of(self, policy: Policy, team: str | None) -> tuple[str, ...]:
        if policy.version != self._version:
            self._version, self._lists = policy.version, {}
        names = self._lists.get(team)
        if names is None:
            names = self._lists[team] = models_for(policy, team)
        return names


def models_for(policy: Policy, team: str | None) -> tuple[str, ...]:
    """The names that a caller may choose from: those of `[server] models`, else those that rules state whole.

    Claude Code shows only names with `claude` or `anthropic` in them, so a name without gets a twin
    `anthropic/NAME`, where asking for the twin comes to the same.
    """
    decide = cache(partial(_decision, policy, team))
    if policy.server.models:
        return tuple(name for name in policy.server.models if not _is_unknown(decide(name)))
    # A name that stands in the rule of one team is no other's to see.
    rules = [rule for rule in (*policy.rules, policy.default) if _is_for(rule, team)]
    stated = dict.fromkeys(name for rule in rules for name in rule.stated_models)
    names = dict.fromkeys(name for name in stated if decide(name).targets)
    for rule in rules:
        for target in rule.targets:
            model = target.model
            if model not in names and model != "*" and not requested_model_problem(model):
                targets = decide(model).targets
                if targets and targets[0].name == target.name:
                    names[model] = None
    unseen = [name for name in names if "claude" not in name.lower() and "anthropic" not in name.lower()]
    twins = {f"anthropic/{name}": name for name in unseen}
    return (
        *names,
        *(twin for twin, name in twins.items() if _targets(decide(twin)) == _targets(decide(name))),
    )


def _decision(policy: Policy, team: str | None, model: str) -> Decision:
    """What becomes of the smallest request for `model`."""
    headers = policy.headers_of(team, {})
    return policy.decide(Facts(Envelope(model=model, messages=Raw(b"[]")), headers, team=team))


def _is_for(rule: Rule, team: str | None) -> bool:
    return not any(
        isinstance(check, Equals) and check.subject is TEAM and team not in check.values
        for check in rule.checks
    )


def _is_unknown(decision: Decision) -> bool:
    return decision.deny is not None and decision.deny.status == 404


def _targets(decision: Decision) -> tuple[str, ...]:
    return tuple(target.name for target in decision.targets)
