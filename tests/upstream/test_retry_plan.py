"""Who is asked next, after which failure and which wait (docs/rules.md, "Retry")."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from routeproxy.exchange import Exchange, Inbound
from routeproxy.messages.request import decode_envelope
from routeproxy.policy.compile.compiler import compile_rules
from routeproxy.policy.facts import Facts
from routeproxy.upstream.failures import Kind, UpstreamFailure
from routeproxy.upstream.health import Health
from routeproxy.upstream.in_flight import InFlightCounts
from routeproxy.upstream.keys import Keys
from routeproxy.upstream.limits import Limits
from routeproxy.upstream.retry_budget import RetryBudget
from routeproxy.upstream.retry_plan import RetryPlan
from routeproxy.upstream.shared_state import SharedState
from routeproxy.upstream.spread import Spread

RULES = """
[providers.a]
type = "openai_compatible"
base_url = "http://127.0.0.1:1/v1"
api_key = "none"

[providers.b]
type = "openai_compatible"
base_url = "http://127.0.0.1:2/v1"
api_key = "none"

[default]
targets = {targets}
{more}
"""
BOTH, ALONE = '["a/m", "b/m"]', '"a/m"'
BODY = b'{"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}'


def exchange_of(targets: str, more: str) -> Exchange:
    policy = compile_rules(
        RULES.format(targets=targets, more=more), path=Path("rules.toml"), environ={}, skip_tests=True
    )
    exchange = Exchange(Inbound(body=BODY), policy)
    exchange.envelope = decode_envelope(BODY)
    exchange.facts = Facts(exchange.envelope, {})
    exchange.decision = policy.decide(exchange.facts)
    return exchange


def asked(
    failures: Sequence[Kind | UpstreamFailure],
    more: str,
    targets: str = BOTH,
    *,
    budget: RetryBudget | None = None,
    jitter: float = 1.0,
) -> list[str]:
    """The targets that are asked, if their attempts fail so one after the other, with the waits before them:
    `a`, `a 0.5`."""
    state = SharedState()
    plan = RetryPlan(
        exchange_of(targets, more),
        Keys(),
        Health(state.circuits),
        budget or RetryBudget(state.loads),
        Spread(
            state.moved, limits := Limits(InFlightCounts(state.in_flight, state.workers)), lambda target: "ok"
        ),
        limits,
        lambda: 0.0,
        lambda: jitter,
    )
    planned, said = plan.first(), []
    for failure in failures:
        said.append(planned.target.provider.name + (f" {planned.wait:g}" if planned.wait else ""))
        failed = failure if isinstance(failure, UpstreamFailure) else UpstreamFailure(failure, "no")
        following = plan.after(failed)
        if following is None:
            break
        planned = following
    plan.close()
    return said


THREE = "retry.attempts = 3"


@pytest.mark.parametrize(
    ("failures", "more", "targets", "said"),
    [
        pytest.param(["server_error"] * 9, "", BOTH, ["a", "b"], id="nothing said"),
        pytest.param(
            ["server_error"] * 9, THREE, BOTH, ["a", "a 0.5", "a 1", "b", "b 0.5", "b 1"], id="three"
        ),
        pytest.param(
            ["server_error"] * 9,
            'retry = { attempts = 2, backoff = "4s" }',
            ALONE,
            ["a", "a 4"],
            id="a longer wait",
        ),
        pytest.param(["timeout_first_token"] * 9, THREE, BOTH, ["a", "b"], id="no time-out unless named"),
        pytest.param(
            ["timeout_first_token"] * 9,
            'retry = { attempts = 2, on = ["timeout"] }',
            BOTH,
            ["a", "b", "b 0.5"],
            id="a time-out only where no other target is left",
        ),
        pytest.param(
            ["overloaded", "server_error", "overloaded"],
            'retry = { attempts = 3, on = ["overloaded"] }',
            ALONE,
            ["a", "a 0.5"],
            id="only what is named",
        ),
        pytest.param(
            [UpstreamFailure("rate_limit", "used up", should_retry=False)] * 2,
            THREE,
            ALONE,
            ["a"],
            id="a quota that is used up",
        ),
        pytest.param(
            [UpstreamFailure("rate_limit", "slowly", retry_after=2)] * 2,
            THREE,
            ALONE,
            ["a", "a 2"],
            id="as long as the back end says",
        ),
        pytest.param(
            [UpstreamFailure("rate_limit", "slowly", retry_after=61)] * 2,
            THREE,
            ALONE,
            ["a"],
            id="a wait that nobody would wait",
        ),
    ],
)
def test_a_target_is_tried_again_as_its_rule_says(
    failures: list[Kind | UpstreamFailure], more: str, targets: str, said: list[str]
) -> None:
    assert asked(failures, more, targets) == said


def test_each_wait_is_a_random_part_of_the_longest() -> None:
    assert asked(["server_error"] * 3, THREE, ALONE, jitter=0.25) == ["a", "a 0.125", "a 0.25"]


def test_of_few_requests_three_may_be_retries_at_once_and_then_the_next_target_is_asked() -> None:
    budget = RetryBudget(SharedState().loads)
    assert [budget.take() for _ in range(4)] == [True, True, True, False]
    assert asked(["server_error"] * 9, THREE, budget=budget) == ["a", "b"]
    budget.give_back()
    assert asked(["server_error"] * 2, THREE, budget=budget) == ["a", "a 0.5"]
    assert budget.take()  # the last attempt of that request is over


def test_of_many_requests_a_fifth_may_be_retries() -> None:
    loads = SharedState().loads
    budget = RetryBudget(loads)
    loads.find(1).requests = 100  # another worker: process 1 is always there
    assert sum(budget.take() for _ in range(50)) == 20


def test_a_worker_that_died_has_nothing_under_way() -> None:
    loads = SharedState().loads
    loads.find(2**22 + 1).requests = 1000
    budget = RetryBudget(loads)
    assert sum(budget.take() for _ in range(50)) == 3
