"""A decision's targets, tried in order: keys, retries, fallback, time. The first content that goes out
commits: after it a failure is an `error` event, never a silent switch and never a fake end (design.md, "One
request")."""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from routeproxy.exchange import Call, Emit, Exchange, Output, Write
from routeproxy.messages.errors import InvalidRequest
from routeproxy.messages.events import error_event, frame
from routeproxy.policy.decide import Decision
from routeproxy.policy.providers import Provider
from routeproxy.policy.targets import Target
from routeproxy.upstream.deadline import Clock
from routeproxy.upstream.failures import LONGEST_RETRY_AFTER, Kind, UpstreamFailure, key_missing, key_unusable
from routeproxy.upstream.keys import Keys
from routeproxy.upstream.synthetic import refusal

log = logging.getLogger("routeproxy.upstream.chain")

KEY_FAILURES: frozenset[Kind] = frozenset({"auth", "rate_limit"})
"""Failures that another key may not have."""


class Upstream(Protocol):
    """One way of speaking to back ends. However `send` ends, it lets the back end go."""

    async def send(self, call: Call, emit: Emit) -> None:
        """Asks, and says the answer. Raises `UpstreamFailure`, before the first part or after any."""

    async def count_tokens(self, call: Call) -> bytes | None:
        """The back end's own count, as the body of an answer; None where it has none."""


class Upstreams(Protocol):
    def of(self, provider: Provider) -> Upstream: ...


async def answer(exchange: Exchange, upstreams: Upstreams, keys: Keys, write: Write) -> None:
    """Writes the first answer that a target gives. Raises the `UpstreamFailure` to show when none does."""
    decision = exchange.decision
    assert decision is not None
    tries = RetryPlan(decision, keys, asyncio.get_running_loop().time)
    attempt: PlannedAttempt | None = tries.first()
    while attempt is not None:
        if attempt.wait:
            await asyncio.sleep(attempt.wait)
        target = attempt.target
        exchange.begin_attempt(target)
        call = Call(target, attempt.key, exchange)
        try:
            await Attempt(call, tries.deadline, write).send(upstreams.of(target.provider))
            return
        except UpstreamFailure as failure:
            exchange.attempt_failed(failure.kind)
            failure.hide(keys.of(target.provider))
            words = "" if failure.quotes else f": {failure.message}"
            log.warning("%s %s failed (%s)%s", exchange.request_id, target.name, failure.kind, words)
            if exchange.first_content_at is not None:
                exchange.error = failure.type
                await write(frame(error_event(failure.type, failure.message, exchange.shown_id)))
                return
            attempt = tries.after(failure, tuple(exchange.warnings))
        except InvalidRequest:
            # The client's own mistake, which nobody else would be asked to forgive; unless it only shows
            # here, and waiting helps.
            if not tries.may_pass:
                raise
            break
    shown = tries.verdict()
    exchange.target = shown.target
    exchange.warnings = list(shown.warnings)
    exchange.usage = None
    exchange.relayed = list(shown.failure.relay.headers) if shown.failure.relay else []
    if shown.failure.kind == "content_policy" and shown.failure.relay is None:
        await write(refusal(exchange, shown.failure.message).data)
        return
    raise shown.failure


class PlannedAttempt(NamedTuple):
    target: Target
    key: str | None
    """None: needed by none, or not set (which is the attempt's failure to report)."""
    wait: float = 0.0


class FailedAttempt(NamedTuple):
    target: Target
    failure: UpstreamFailure
    warnings: tuple[str, ...]


class RetryPlan:
    """What to try next, given how the last try failed. It only decides."""

    def __init__(self, decision: Decision, keys: Keys, now: Callable[[], float]) -> None:
        self.deadline = now() + decision.deadline if decision.deadline else None
        self._decision = decision
        self._keys = keys
        self._time = now
        self._targets = iter(decision.targets)
        self._tried: list[FailedAttempt] = []
        self._now: PlannedAttempt
        self._refused: set[str] = set()
        """Keys of this target that were tried in vain."""
        self._retries = 0
        """Of this target."""

    def first(self) -> PlannedAttempt:
        return self._begin(next(self._targets))

    def after(self, failure: UpstreamFailure, warnings: tuple[str, ...] = ()) -> PlannedAttempt | None:
        target, key, _ = self._now
        self._tried.append(FailedAttempt(target, failure, warnings))
        if self._too_late():
            return None
        if key is not None and failure.kind in KEY_FAILURES:
            self._keys.refused(target.provider, key)
            self._refused.add(key)
            if unused := [other for other in self._keys.of(target.provider) if other not in self._refused]:
                self._now = PlannedAttempt(target, unused[0])
                return self._now
        if failure.retryable and self._retries + 1 < self._decision.retry.attempts:
            wait = max(failure.retry_after or 0.0, self._decision.retry.backoff * 2**self._retries)
            if wait <= LONGEST_RETRY_AFTER and not self._too_late(wait):
                self._retries += 1
                self._now = PlannedAttempt(target, self._key_of(target), wait)
                return self._now
        # `timeout_total` is in no list: the time for the whole answer is used up, and another target would
        # not make it shorter.
        if self._decision.fallback.enabled and failure.kind in self._decision.fallback.on:
            for target in self._targets:
                return self._begin(target)
        return None

    @property
    def may_pass(self) -> bool:
        """Whether some failure was of the kind that passes."""
        return any(one.failure.retryable for one in self._tried)

    def verdict(self) -> FailedAttempt:
        """What the client gets to see: the first failure that is worth a retry, with the shortest wait, else
        the last one."""
        passing = [one for one in self._tried if one.failure.retryable]
        if not passing:
            return self._tried[-1]
        waits = [one.failure.retry_after for one in passing if one.failure.retry_after is not None]
        if len(self._tried) > 1 and waits:
            passing[0].failure.tell_to_wait(min(waits))
        return passing[0]

    def _begin(self, target: Target) -> PlannedAttempt:
        self._refused = set()
        self._retries = 0
        self._now = PlannedAttempt(target, self._key_of(target))
        return self._now

    def _key_of(self, target: Target) -> str | None:
        return next(iter(self._keys.of(target.provider)), None)

    def _too_late(self, wait: float = 0.0) -> bool:
        return self.deadline is not None and self._time() + wait >= self.deadline


def needed_key(call: Call) -> str | None:
    """The key of this attempt; raises failure `auth` when the provider wants one and it is not set."""
    provider = call.target.provider
    if call.key is None and provider.keys:
        raise key_missing(provider.name, " or ".join(secret.reference for secret in provider.keys))
    if call.key is not None and not (call.key.isascii() and call.key.isprintable()):
        raise key_unusable(provider.name)
    return call.key


TIMEOUT_FAILURES: Mapping[str, tuple[Kind, str]] = {
    "first_token": ("timeout_first_token", "gave no token in time"),
    "deadline": ("timeout_first_token", "gave no token before the deadline of the rule"),
    "idle": ("timeout_idle", "went silent in the middle of its answer"),
    "total": ("timeout_total", "did not finish in time"),
}
"""What it means that a limit has passed."""


class Attempt:
    """One target, once, within its times. What comes before the content is held back, since another target
    may still answer."""

    def __init__(self, call: Call, deadline: float | None, write: Write) -> None:
        self._call = call
        self._write = write
        self._now = asyncio.get_running_loop().time
        self._held: list[bytes] = []
        started, timeouts = self._now(), call.target.timeouts
        self._idle = timeouts.idle
        self._total_at = started + timeouts.total if timeouts.total else math.inf
        limit, self._which = min(
            (started + timeouts.first_token, "first_token"),
            (deadline or math.inf, "deadline"),
            (self._total_at, "total"),
        )
        self._clock = Clock(limit)

    async def send(self, upstream: Upstream) -> None:
        needed_key(self._call)
        provider = self._call.target.provider.name
        try:
            async with self._clock:
                await upstream.send(self._call, self._take)
        except TimeoutError:
            if not self._clock.expired:
                raise
            kind, words = TIMEOUT_FAILURES[self._which]
            raise UpstreamFailure(kind, f"the back end {provider} {words}") from None
        if self._call.exchange.first_content_at is None:
            raise UpstreamFailure("connection", f"the back end {provider} answered with nothing")

    async def _take(self, part: Output) -> None:
        exchange, data = self._call.exchange, part.data
        first = exchange.first_content_at is None
        if first:
            self._held.append(data)
            if not part.commits:
                return
            exchange.first_content_at = time.perf_counter()
            data = b"".join(self._held)
        if data:
            self._clock.pause()  # a client that reads slowly is not the back end's fault
            await self._write(data)
            if first and exchange.stream:
                exchange.forget_text()
        limit, self._which = self._now() + self._idle, "idle"
        if self._total_at < limit:
            limit, self._which = self._total_at, "total"
        self._clock.move(limit)
