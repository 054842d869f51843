"""What to change in a rule for a better row."""

from routeproxy.drill.rehearsal import Row
from routeproxy.policy.decide import Rule


def hint(row: Row, rule: Rule, *, stream: bool) -> str:
    """One sentence; empty where it is as good as it gets."""
    if row.verdict == "pass" or len(rule.reachable) == 1:
        return ""
    number, outcome = row.scenario.number, row.got[0].outcome
    if row.scenario.wants_twice and rule.retry.attempts == 1:
        return "`retry.attempts = 2` asks the first target again"
    if (
        row.verdict == "partial"
        and row.scenario.misses(row.asked)
        and rule.targets[0].provider.health is None
    ):
        return "`health = false` has everybody pay for a target that is down"
    if number == "12" and "context_overflow" not in rule.fallback.on:
        return '`fallback.also = ["context_overflow"]` lets a model with a larger window answer'
    if row.scenario.advised is not None and row.verdict == "partial":
        return '`timeouts.first_token = "10s"` goes on to the next target sooner'
    if stream and outcome.startswith("error ") and not rule.hold:
        return '`hold = "whole"` keeps a stream until it is whole, for background work'
    return ""
