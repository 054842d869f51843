"""`routeproxy explain`: which rule would take such a request, and what it lacked for each rule above."""

from collections.abc import Callable
from functools import partial
from typing import TextIO

import msgspec

from routeproxy import tokens
from routeproxy.messages.body import Body
from routeproxy.messages.errors import ApiError
from routeproxy.policy.conditions import visible
from routeproxy.policy.decide import Policy
from routeproxy.policy.explain import Explanation, explain
from routeproxy.policy.facts import requested_model_problem
from routeproxy.policy.questions import HypotheticalRequest
from routeproxy.upstream.dry_run import losses


def run_explain(
    load: Callable[[], Policy],
    question: Callable[[Policy], HypotheticalRequest],
    *,
    whole: bool = False,
    json: bool = False,
    out: TextIO,
) -> int:
    """0: explained, a refusal included. Raises what makes a question or a log unreadable.

    `question` may need the policy to find what was asked. `whole`: it leaves nothing out.
    """
    policy = load()
    asked = question(policy)
    assumed = () if whole else asked.assumed(teams=bool(policy.teams))
    try:
        explanation = _answer(asked, policy)
    except ApiError as refusal:
        print(f"refused with {refusal.status} before any rule: {refusal.message}", file=out)
        return 0
    if json:
        answer = {"explanation": explanation, "assumed": assumed}
        print(msgspec.json.format(msgspec.json.encode(answer)).decode(), file=out)
    else:
        print(explanation, file=out)
        if assumed:
            print(f"\nassumed: {', '.join(assumed)}", file=out)
    return 0


def _answer(question: HypotheticalRequest, policy: Policy) -> Explanation:
    if question.team is not None and question.team not in policy.teams:
        known = ", ".join(policy.teams) or "none"
        raise ValueError(f"there is no team `{question.team}`; the rules know {known}")
    facts = policy.facts_of(question, tokens.count)
    if problem := requested_model_problem(facts.requested):
        raise ApiError(404, f"model: {visible(facts.requested[:256])} ({problem})")
    dropped = partial(losses, Body(question.body)) if question.body is not None else None
    return explain(policy.decide(facts), policy, losses=dropped)
