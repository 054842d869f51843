"""Laws of failover: whatever fails in whatever order, over any decision, with pools, retries and limits."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from routeproxy.exchange import Call, Exchange, Inbound
from routeproxy.messages.errors import ApiError
from routeproxy.messages.events import Error, Event, MessageStop, events_of
from routeproxy.messages.reply import Message, TextBlock, Usage
from routeproxy.messages.request import decode_envelope
from routeproxy.observe import Observer
from routeproxy.output import Content, Emit, Output, Relayed
from routeproxy.policy.compile.compiler import compile_rules
from routeproxy.policy.decide import Decision, Policy
from routeproxy.policy.facts import Facts
from routeproxy.policy.providers import Provider
from routeproxy.upstream.failover import Failover, Upstream
from routeproxy.upstream.failures import Kind, UpstreamFailure
from routeproxy.upstream.keys import Keys
from routeproxy.upstream.shared_state import SharedState
from tests.budgets import examples

KINDS: tuple[Kind, ...] = (
    "rate_limit", "overloaded", "server_error", "timeout_connect", "timeout_first_token", "timeout_idle",
    "connection", "context_overflow", "auth", "not_found", "invalid_request", "content_policy", "capability",
    "timeout_total",
)  # fmt: skip

USAGE = Usage(input_tokens=1, output_tokens=1)
ANSWER = Message(id="msg_1", model="m", content=(TextBlock("Hello"),), stop_reason="end_turn", usage=USAGE)

PROVIDERS = "".join(f'[providers.{name}]\ntype = "echo"\n' for name in "abcdx")
POOLS = (
    '[pools.p]\nmembers = ["a/m", { target = "b/m", max_concurrent = 1 }]\n'
    '[pools.q]\nmembers = ["c/m", "d/m"]\nby = "load"\n'
)

Outcome = Kind | str
"""How an attempt ends: a failure before its content, `answer`, or `cut KIND`: a failure after it."""

OUTCOMES = st.sampled_from([*KINDS, "answer", *(f"cut {kind}" for kind in KINDS)])


class Scripted:
    """Back ends whose attempts end as they are told to, one after the other; then they answer."""

    def __init__(self, outcomes: Sequence[Outcome]) -> None:
        self._outcomes: Iterator[Outcome] = iter(outcomes)
        self.asked: list[str] = []
        self.open = 0

    def of(self, provider: Provider) -> Upstream:
        return self

    async def send(self, call: Call, emit: Emit) -> None:
        self.asked.append(call.target.name)
        outcome = next(self._outcomes, "answer")
        self.open += 1
        try:
            events = list(events_of(ANSWER))
            if not outcome.startswith(("answer", "cut ")):
                raise UpstreamFailure(outcome, "no")  # type: ignore[arg-type]
            await emit(Output(events[:2], True))
            await asyncio.sleep(0)
            if outcome.startswith("cut "):
                raise UpstreamFailure(outcome.removeprefix("cut "), "no more")  # type: ignore[arg-type]
            await emit(Output(events[2:], True))
        finally:
            self.open -= 1

    async def count_tokens(self, call: Call) -> Relayed | None:
        return None


class Asked:
    """One request, and what its client got."""

    def __init__(self, policy: Policy, session: str, *, no_fallback: bool) -> None:
        body = b'{"model":"m","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"hi"}]}'
        headers = {"x-claude-code-session-id": (session,)}
        self.exchange = Exchange(Inbound(body=body, headers=headers), policy)
        self.exchange.envelope = decode_envelope(body)
        self.exchange.facts = Facts(self.exchange.envelope, headers, no_fallback=no_fallback)
        self.exchange.decision = policy.decide(self.exchange.facts)
        self.events: list[Event] = []
        self.error: ApiError | None = None

    @property
    def decision(self) -> Decision:
        assert self.exchange.decision is not None
        return self.exchange.decision

    async def write(self, contents: Sequence[Content]) -> None:
        for content in contents:
            assert isinstance(content, list)
            self.events += content

    async def send(self, failover: Failover) -> None:
        try:
            await failover.answer(self.exchange, self.write)
        except ApiError as error:
            self.error = error


RULES = st.fixed_dictionaries(
    {
        "chain": st.lists(st.sampled_from(["p", "q", "x/m", "a/other"]), min_size=1, max_size=3, unique=True),
        "fallback": st.none()
        | st.booleans()
        | st.lists(
            st.sampled_from([kind for kind in KINDS if kind != "timeout_total"]), min_size=1, max_size=4
        ),
        "attempts": st.integers(1, 3),
        "hold": st.booleans(),
    }
)
REQUESTS = st.lists(st.tuples(st.sampled_from("stu"), st.booleans()), min_size=1, max_size=6)


def policy_of(chain: list[str], fallback: object, attempts: int, *, hold: bool) -> Policy:
    names = ", ".join(f'"{name}"' for name in chain)
    lines = [f"[default]\ntargets = [{names}]", f'retry = {{ attempts = {attempts}, backoff = "1ms" }}']
    if isinstance(fallback, list):
        lines.append(f"fallback.on = {fallback}".replace("'", '"'))
    elif fallback is not None:
        lines.append(f"fallback = {str(fallback).lower()}")
    if hold:
        lines.append('hold = "whole"')
    text = PROVIDERS + POOLS + "\n".join(lines)
    return compile_rules(text, path=Path("rules.toml"), environ={})


@examples(200)
@given(RULES, st.lists(OUTCOMES, max_size=16), REQUESTS)
def test_only_targets_of_the_decision_are_asked_within_bounds_and_the_client_gets_one_outcome(
    rule: dict[str, object], outcomes: list[Outcome], requests: list[tuple[str, bool]]
) -> None:
    policy = policy_of(rule["chain"], rule["fallback"], rule["attempts"], hold=bool(rule["hold"]))  # type: ignore[arg-type]
    back_ends, state = Scripted(outcomes), SharedState()

    async def scene() -> None:
        failover = Failover(back_ends, Keys(), Observer(), lambda call: None, state)
        for session, no_fallback in requests:
            request = Asked(policy, session, no_fallback=no_fallback)
            before = len(back_ends.asked)
            await request.send(failover)
            check(request, back_ends.asked[before:], int(str(rule["attempts"])))
        assert back_ends.open == 0
        assert all(record.total == 0 for record in state.in_flight), "every place is given back"
        assert all(load.retries == load.requests == 0 for load in state.loads)

    asyncio.run(scene())


def check(request: Asked, asked: list[str], attempts: int) -> None:
    decided = {target.name for target in request.decision.targets}
    assert set(asked) <= decided
    assert all(count <= attempts for count in Counter(asked).values())
    if not request.decision.fallback.enabled:
        assert len(set(asked)) <= 1
    if request.error is not None:
        assert request.events == [], "an error is all that the client gets"
        assert 400 <= request.error.status < 600
        return
    assert request.events
    *before, last = request.events
    assert isinstance(last, MessageStop | Error)
    assert not any(isinstance(event, MessageStop | Error) for event in before), "nothing follows the end"
    if isinstance(last, MessageStop):
        assert [type(event) for event in request.events].count(MessageStop) == 1
