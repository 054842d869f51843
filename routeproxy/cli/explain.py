"""`routeproxy explain`: which rule would take such a request, and what it lacked for each rule above."""

from collections.abc import Callable, Sequence
from typing import TextIO

import msgspec

from routeproxy.messages.errors import ApiError
from routeproxy.policy.decide import Policy
from routeproxy.policy.explain import Explanation, Question, explain
from routeproxy.policy.facts import requested_model_problem
from routeproxy.policy.problems import RulesRefused


def run_explain(
    load: Callable[[], Policy],
    question: Question,
    *,
    headers: Sequence[str] = (),
    json: bool = False,
    out: TextIO,
    err: TextIO,
) -> int:
    """0: explained, a refusal included. 1: the rules have errors. 2: the question or the rules can't be read.

    `headers` are in curl's form, `name: value`.
    """
    try:
        policy = load()
        question = msgspec.structs.replace(question, headers=parse_headers(headers))
        explanation = _answer(question, policy)
    except RulesRefused as refused:
        print(refused, file=err)
        return 1
    except (OSError, ValueError) as error:
        print(f"routeproxy: {error}", file=err)
        return 2
    except ApiError as refusal:
        print(f"refused with {refusal.status} before any rule: {refusal.message}", file=out)
        return 0
    if json:
        answer = {"explanation": explanation, "assumed": question.assumed}
        print(msgspec.json.format(msgspec.json.encode(answer)).decode(), file=out)
    else:
        print(explanation, file=out)
        if question.assumed:
            print(f"\nassumed: {', '.join(question.assumed)}", file=out)
    return 0


def parse_headers(lines: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Curl's `name: value` lines as an HTTP server would hand them over. Raises `ValueError` for others."""
    headers: dict[str, tuple[str, ...]] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise ValueError(f"`{line}` is not a header: write `name: value`")
        key = name.strip().lower()
        headers[key] = (*headers.get(key, ()), value.strip().encode().decode("latin-1"))
    return headers


def _answer(question: Question, policy: Policy) -> Explanation:
    facts = question.facts()
    if problem := requested_model_problem(facts.requested):
        raise ApiError(404, f"model: {facts.requested[:256]} ({problem})")
    policy.check_headers(question.headers)
    return explain(policy.decide(facts), policy)
