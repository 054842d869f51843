"""Which request is traced, and what its spans are called (W3C Trace Context, level 1)."""

import random
import re
import secrets
from collections.abc import Callable

from msgspec.structs import replace

from routeproxy.exchange import AskedContent, AttemptRecord, Exchange, Trace
from routeproxy.observe import Observer
from routeproxy.policy.decide import Policy

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}")


LONGEST = 4 * 2**20
"""Bytes of a conversation that are kept until its request is over, to be told."""


class TraceIds(Observer):
    """Gives each request its place in a trace. A client says which trace it belongs to, and never whether it
    is recorded: else anybody could fill the collector."""

    def __init__(self, policy: Policy, chance: Callable[[], float] = random.random) -> None:
        """`chance` between 0 and 1."""
        self._chance = chance
        self.update(policy)

    def update(self, policy: Policy) -> None:
        self._policy = policy
        self._settings = policy.telemetry.traces

    def request_started(self, exchange: Exchange) -> None:
        if self._settings is not None:
            trace_id, parent = parent_of(exchange.inbound.header("traceparent"))
            exchange.trace = Trace(
                trace_id=trace_id or secrets.token_hex(16),
                span_id=secrets.token_hex(8),
                parent_id=parent,
                is_sampled=self._chance() < self._settings.ratio,
            )

    def first_content(self, exchange: Exchange, attempt: AttemptRecord) -> None:
        self._keep_content(exchange)

    def request_done(self, exchange: Exchange) -> None:
        self._keep_content(exchange)

    def _keep_content(self, exchange: Exchange) -> None:
        """What was asked, if it is to be told and may be. Only while its text is there."""
        trace, facts, decision, settings = exchange.trace, exchange.facts, exchange.decision, self._settings
        if trace is None or facts is None or decision is None or settings is None:
            return
        if trace.asked is not None or facts.text_is_forgotten:
            return
        if not any(target.record for target in decision.targets):
            return
        if not (trace.is_sampled or settings.always):  # nobody will hear of it
            return
        if any(policy.forbids_recording(facts) for policy in (exchange.policy, self._policy)):
            return
        envelope = facts.envelope
        if len(envelope.messages) + len(envelope.system) > LONGEST:
            exchange.trace = replace(trace, is_asked_left_out=True)
        else:
            asked = AskedContent(bytes(envelope.system), bytes(envelope.messages))
            exchange.trace = replace(trace, asked=asked)

    def attempt_started(self, exchange: Exchange, attempt: AttemptRecord) -> None:
        if exchange.trace is not None:
            attempt.span_id = secrets.token_hex(8)


def parent_of(traceparent: str | None) -> tuple[str | None, str | None]:
    """The ids of the client's trace and span; of what is no `traceparent`, none."""
    found = _TRACEPARENT.fullmatch(traceparent.strip()) if traceparent is not None else None
    return (found[1], found[2]) if found is not None else (None, None)
