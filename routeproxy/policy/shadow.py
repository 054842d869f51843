"""What shadow rules would have done with a request: recorded, and nothing else. They decide nothing."""

from collections.abc import Mapping

from routeproxy.messages.errors import InvalidRequest
from routeproxy.policy.decide import Decision, Policy, ShadowRule
from routeproxy.policy.facts import Facts

DENIED = "denied"
UNKNOWN = "unknown"
"""It looks at what can't be read, or at a header that was sent twice with different values."""


def shadow_outcomes(policy: Policy, decision: Decision) -> Mapping[str, str]:
    """By its name, for each shadow rule that stands above the rule which took the request, and that would
    have taken it: the targets in order, `DENIED`, or `UNKNOWN`."""
    found: dict[str, str] = {}
    for shadow in policy.shadow_rules:
        if shadow.place < decision.asked.count and (outcome := _outcome(policy, shadow, decision.facts)):
            found[shadow.rule.name] = outcome
    return found


def _outcome(policy: Policy, shadow: ShadowRule, facts: Facts) -> str | None:
    """`None`: it would not have taken it."""
    for name in shadow.reads_headers:
        if len({line.strip(" \t") for line in facts.headers.get(name, ())}) > 1:
            return UNKNOWN
    try:
        if shadow.rule.first_miss(facts) is not None:
            return None
        decision = policy.decision_of(shadow.rule, facts)
    except InvalidRequest:
        return UNKNOWN
    return DENIED if decision.deny is not None else ", ".join(target.name for target in decision.targets)
