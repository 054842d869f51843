"""`routeproxy explain`: which rule would take a request like this one, and what it lacked for each rule above."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

import msgspec
from msgspec.structs import replace

from routeproxy.messages.errors import InvalidRequest
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
    """0: explained, a denial included. 1: the rules have errors. 2: the question can't be read, or the rules can't."""
    try:
        policy = load()
        question = replace(question, headers=_headers(headers))
        explanation = _answer(question, policy)
    except RulesRefused as refused:
        print(refused, file=err)
        return 1
    except OSError as error:
        print(f"routeproxy: {error}", file=err)
        return 2
    except ValueError as error:
        print(f"routeproxy: {error}", file=err)
        return 2
    except InvalidRequest as refusal:
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
