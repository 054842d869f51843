"""A decision's targets, tried in order: keys, retries, fallback, time. The first content that goes out
commits: after it a failure is an `error` event, never a silent switch and never a fake end
(docs/internals/architecture.md)."""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from routeproxy.exchange import AttemptRecord, Call, Exchange
from routeproxy.messages.errors import InvalidRequest
from routeproxy.messages.events import error_event
from routeproxy.observe import Observer
from routeproxy.output import Content, Emit, Output, Relayed, Write
from routeproxy.policy.decide import Decision
from routeproxy.policy.providers import Provider
from routeproxy.policy.targets import Target
from routeproxy.tracebacks import forget_tracebacks
from routeproxy.upstream.deadline import BACK_END_CLOCK, BackEndClock, MovingTimeout
from routeproxy.upstream.failures import LONGEST_RETRY_AFTER, Kind, UpstreamFailure
from routeproxy.upstream.keys import Keys, needed_key
from routeproxy.upstream.synthetic import refusal

log = logging.getLogger("routeproxy.upstream.chain")

KEY_FAILURES: frozenset[Kind] = frozenset({"auth", "rate_limit"})
"""Failures that another key may not have."""


class Upstream(Protocol):
    """One way of speaking to back ends. However `send` ends, it lets the back end go."""

    async def send(self, call: Call, emit: Emit) -> None:
        """Asks, and emits the answer. Raises `UpstreamFailure`, before the first output or after any."""

    async def count_tokens(self, call: Call) -> Relayed | None:
        """The back end's own count, as the body of its answer; `None` where it has none."""


class Upstreams(Protocol):
    def of(self, provider: Provider) -> Upstream: ...


class ToolUseCheck(Protocol):
    """Has the tool uses of one answer judged, before the end of the answer goes out."""

    def split(self, output: Output) -> tuple[Output, Output | None]:
        """What may go out at once, and the end of the answer if that is in `output`."""

    async def judge(self, end: Output, limit: float) -> Output:
        """`end` with the verdicts in it, or with why there are none. It takes `limit` seconds at most."""


CheckOf = Callable[[Call], ToolUseCheck | None]
"""The check that an attempt needs, if it needs one."""


async def answer(
    exchange: Exchange, upstreams: Upstreams, keys: Keys, write: Write, observer: Observer, check_of: CheckOf
) -> None:
    """Writes the first answer that a target gives. Raises the `UpstreamFailure` to show when none does."""
    decision = exchange.decision
    assert decision is not None
    plan = RetryPlan(decision, keys, asyncio.get_running_loop().time)
    planned: PlannedAttempt | None = plan.first()
    while planned is not None:
        if planned.wait:
            await asyncio.sleep(planned.wait)
        call = Call(planned.target, planned.key, exchange)
        try:
            attempt = Attempt(call, plan.deadline, write, observer, check_of(call))
            await attempt.run(upstreams.of(planned.target.provider))
            return
        except UpstreamFailure as failure:
            _log_failure(failure, call, keys)
            forget_tracebacks(failure)  # it is kept while other targets are asked
            if failure.shows_address and exchange.inbound.shows_addresses:
                failure.message = failure.operator_message
            if exchange.first_content_at is not None:
                exchange.error = failure.type
                await write([[error_event(failure.type, failure.message, exchange.shown_id)]])
                return
            planned = plan.after(failure, tuple(exchange.warnings))
        except InvalidRequest:
            # The client's own mistake, which nobody else would be asked to forgive; unless it only shows
            # here, and waiting helps.
            if not plan.has_retryable_failure:
                raise
            break
    await _show_failure(plan.verdict(), exchange, write)


def _log_failure(failure: UpstreamFailure, call: Call, keys: Keys) -> None:
    provider = call.target.provider
    failure.redact((*keys.of(provider), *provider.secret_values, *call.exchange.secrets))
    words = "" if failure.quotes_back_end else f": {failure.operator_message}"
    request_id, target = call.exchange.request_id, call.target.name
    log.warning("%s %s failed (%s)%s", request_id, target, failure.kind, words)


async def _show_failure(shown: "FailedAttempt", exchange: Exchange, write: Write) -> None:
    """The client gets what this attempt came to. Raises its failure, unless the API says it with a 200."""
    exchange.target = shown.target
    exchange.warnings = list(shown.warnings)
    exchange.usage = None
    exchange.relayed_headers = list(shown.failure.relay.headers) if shown.failure.relay else []
    if shown.failure.kind == "content_policy" and shown.failure.relay is None:
        await write([refusal(exchange, shown.failure.message).content])
        return
    raise shown.failure


class PlannedAttempt(NamedTuple):
    target: Target
    key: str | None
    """`None`: the provider needs no key, or it is not set, which is the attempt's failure to report."""
    wait: float = 0.0
    """Seconds before it."""


class FailedAttempt(NamedTuple):
    target: Target
    failure: UpstreamFailure
    warnings: tuple[str, ...]
    """Those of the exchange while this attempt ran."""


class RetryPlan:
    """Which target is tried next, with which key and after which wait, given how the last attempt failed. It
    only decides."""

    def __init__(self, decision: Decision, keys: Keys, now: Callable[[], float]) -> None:
        self.deadline = now() + decision.deadline if decision.deadline else None
        self._decision = decision
        self._keys = keys
        self._now = now
        self._targets = iter(decision.targets)
        self._failed: list[FailedAttempt] = []
        self._current: PlannedAttempt
        self._refused_keys: set[str] = set()
        """Keys of the current target that were tried in vain."""
        self._retries = 0
        """How often the current target was tried again."""

    def first(self) -> PlannedAttempt:
        return self._begin(next(self._targets))

    def after(self, failure: UpstreamFailure, warnings: tuple[str, ...] = ()) -> PlannedAttempt | None:
        target, key, _ = self._current
        self._failed.append(FailedAttempt(target, failure, warnings))
        if self._too_late():
            return None
        if key is not None and failure.kind in KEY_FAILURES:
            self._keys.refused(target.provider, key)
            self._refused_keys.add(key)
            if unused := [
                other for other in self._keys.of(target.provider) if other not in self._refused_keys
            ]:
                self._current = PlannedAttempt(target, unused[0])
                return self._current
        if failure.retryable and self._retries + 1 < self._decision.retry.attempts:
            wait = max(failure.retry_after or 0.0, self._decision.retry.backoff * 2**self._retries)
            if wait <= LONGEST_RETRY_AFTER and not self._too_late(wait):
                self._retries += 1
                self._current = PlannedAttempt(target, self._key_of(target), wait)
                return self._current
        # `timeout_total` is in no list: the time for the whole answer is used up, and another target would
        # not make it shorter.
        if self._decision.fallback.enabled and failure.kind in self._decision.fallback.on:
            for target in self._targets:
                return self._begin(target)
        return None

    @property
    def has_retryable_failure(self) -> bool:
        """Whether waiting may help against some failure."""
        return any(attempt.failure.retryable for attempt in self._failed)

    def verdict(self) -> FailedAttempt:
        """The failed attempt that the client gets to see: the first that is worth a retry, with the shortest
        wait, else the last one."""
        retryable = [attempt for attempt in self._failed if attempt.failure.retryable]
        if not retryable:
            return self._failed[-1]
        waits = [wait for attempt in retryable if (wait := attempt.failure.retry_after) is not None]
        if len(self._failed) > 1 and waits:
            retryable[0].failure.set_retry_after(min(waits))
        return retryable[0]

    def _begin(self, target: Target) -> PlannedAttempt:
        self._refused_keys = set()
        self._retries = 0
        self._current = PlannedAttempt(target, self._key_of(target))
        return self._current

    def _key_of(self, target: Target) -> str | None:
        return next(iter(self._keys.of(target.provider)), None)

    def _too_late(self, wait: float = 0.0) -> bool:
        return self.deadline is not None and self._now() + wait >= self.deadline


OWN_WORK = 300.0
"""Seconds that an attempt may wait for what is ours: a free thread, an import, a name's address. Nobody waits
so long for it; it only keeps a request from waiting for ever."""

TIMEOUT_FAILURES: Mapping[str, tuple[Kind, str]] = {
    "own_work": ("timeout_connect", "could not be asked in time: routeproxy was busy"),
    "first_token": ("timeout_first_token", "gave no token in time"),
    "deadline": ("timeout_first_token", "gave no token before the deadline of the rule"),
    "idle": ("timeout_idle", "went silent in the middle of its answer"),
    "total": ("timeout_total", "did not finish in time"),
}
"""The failure that it is when a time limit has passed."""


class Attempt:
    """One target, once, within its times. What comes before the content is held back, since another target
    may still answer."""

    def __init__(
        self,
        call: Call,
        deadline: float | None,
        write: Write,
        observer: Observer,
        check: ToolUseCheck | None = None,
    ) -> None:
        self._call = call
        self._write = write
        self._observer = observer
        self._check = check
        self._record: AttemptRecord
        self._now = asyncio.get_running_loop().time
        self._held: list[Content] = []
        started, timeouts = self._now(), call.target.timeouts
        self._idle = timeouts.idle
        self._first_token = timeouts.first_token
        self._deadline = deadline or math.inf
        self._total_at = started + timeouts.total if timeouts.total else math.inf
        limit, self._limit_name = self._first_of(started + OWN_WORK, "own_work")
        self._clock = MovingTimeout(limit)
        self._is_asking = False
        """Nothing of an answer is there yet."""

    async def run(self, upstream: Upstream) -> None:
        """Raises `UpstreamFailure`, before the first content or after it."""
        exchange = self._call.exchange
        record = self._record = exchange.begin_attempt(self._call.target)
        self._observer.attempt_started(exchange, record)
        try:
            await self._send(upstream)
        except UpstreamFailure as failure:
            record.failure = failure.kind
            raise
        except InvalidRequest:
            record.failure = "invalid_request"
            raise
        except BaseException:
            record.let_go = True
            raise
        finally:
            record.ended, record.usage = time.perf_counter(), exchange.usage
            self._observer.attempt_ended(exchange, record)

    async def _send(self, upstream: Upstream) -> None:
        needed_key(self._call)
        provider = self._call.target.provider.name
        back_end_clock = BackEndClock(self._request_sent, self._request_over)
        clock_before = BACK_END_CLOCK.set(back_end_clock)
        try:
            async with self._clock:
                self._is_asking = True
                await self._ask(upstream, self._relay if self._check is None else self._relay_checked)
        except TimeoutError:
            if not self._clock.expired:
                raise
            kind, words = TIMEOUT_FAILURES[self._limit_name]
            raise UpstreamFailure(kind, f"the back end {provider} {words}") from None
        finally:
            self._is_asking = False
            back_end_clock.let_go()
            BACK_END_CLOCK.reset(clock_before)
        if self._call.exchange.first_content_at is None:
            raise UpstreamFailure("connection", f"the back end {provider} answered with nothing")

    def _request_sent(self) -> None:
        """The back end has it, as far as we know: from now on `first_token` runs."""
        if self._is_asking:
            self._limit_wait(self._now() + self._first_token, "first_token")

    def _request_over(self) -> None:
        """What comes next is our own again: another shape of the request, a thread that translates it."""
        if self._is_asking and not self._clock.expired:  # else it is over because of that
            self._limit_wait(self._now() + OWN_WORK, "own_work")

    def _limit_wait(self, until: float, name: str) -> None:
        limit, self._limit_name = self._first_of(until, name)
        self._clock.move(limit)

    def _first_of(self, until: float, name: str) -> tuple[float, str]:
        return min((until, name), (self._deadline, "deadline"), (self._total_at, "total"))

    async def _ask(self, upstream: Upstream, emit: Emit) -> None:
        """Asks; and once more, if the back end has refused the shape of the request before any content, and
        its words said which it takes. That is no retry, which only rules allow: so it happens once a request,
        with the same key, within the same times (wire.md, "Changed on 2026-11-30")."""
        exchange = self._call.exchange
        try:
            await upstream.send(self._call, emit)
        except UpstreamFailure as failure:
            if failure.adapted_to is None or exchange.has_asked_again:
                raise
            self._record.asked_again = failure.adapted_to
            self._held = []
            await upstream.send(self._call, emit)

    async def _relay_checked(self, output: Output) -> None:
        """The answer goes out as it comes, and its end once its tool uses are judged."""
        assert self._check is not None
        before, end = self._check.split(output)
        if end is None:
            await self._relay(before)
            return
        if before.content:
            await self._relay(before)
        self._is_asking = False
        self._clock.pause()  # what comes now takes its own time
        is_open = self._call.exchange.first_content_at is not None
        until = self._total_at if is_open else min(self._total_at, self._deadline)
        await self._relay(await self._check.judge(end, until - self._now()))
        self._clock.pause()  # the answer is whole, and nothing may end it otherwise

    async def _relay(self, output: Output) -> None:
        exchange, content = self._call.exchange, output.content
        if exchange.first_content_at is None:
            self._held.append(content)
            if not output.commits:
                return
            await self._commit()
        elif content:
            self._clock.pause()  # a client that reads slowly is not the back end's fault
            await self._write((content,))
        limit, self._limit_name = self._now() + self._idle, "idle"
        if self._total_at < limit:
            limit, self._limit_name = self._total_at, "total"
        self._clock.move(limit)

    async def _commit(self) -> None:
        """From here on the answer is this back end's. What was held back goes out in one write."""
        exchange, record = self._call.exchange, self._record
        exchange.first_content_at = record.first_content_at = time.perf_counter()
        self._observer.first_content(exchange, record)
        self._is_asking = False
        self._clock.pause()  # a client that reads slowly is not the back end's fault
        await self._write(self._held)
        self._held = []
        if exchange.stream:
            exchange.forget_text()
