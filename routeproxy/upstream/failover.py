"""A decision's targets, tried in order: keys, retries, fallback, time. The first content that goes out
commits: after it a failure is an `error` event, never a silent switch and never a fake end
(docs/internals/architecture.md)."""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Protocol

import msgspec

from routeproxy.exchange import AttemptRecord, Call, Exchange
from routeproxy.messages.errors import InvalidRequest
from routeproxy.messages.events import error_event
from routeproxy.observe import Observer
from routeproxy.output import Content, Emit, Output, Relayed, Write
from routeproxy.policy.decide import Policy
from routeproxy.policy.explain import HEALTHY
from routeproxy.policy.providers import Provider
from routeproxy.policy.targets import Target
from routeproxy.tracebacks import forget_tracebacks
from routeproxy.upstream.deadline import BACK_END_CLOCK, BackEndClock, MovingTimeout
from routeproxy.upstream.failures import InvariantBroken, Kind, UpstreamFailure
from routeproxy.upstream.first_token import first_token_timeout
from routeproxy.upstream.health import Health
from routeproxy.upstream.in_flight import InFlightCounts
from routeproxy.upstream.keys import Keys, needed_key
from routeproxy.upstream.limits import Limits
from routeproxy.upstream.places import Places
from routeproxy.upstream.retry_budget import RetryBudget
from routeproxy.upstream.retry_plan import FailedAttempt, PlannedAttempt, RetryPlan
from routeproxy.upstream.shared_state import SharedState
from routeproxy.upstream.spread import FULL, Spread
from routeproxy.upstream.synthetic import refusal
from routeproxy.upstream.waiting import Waiting

log = logging.getLogger("routeproxy.upstream.chain")


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


class Failover:
    """Asks one target after the other, with what is known of all of them."""

    def __init__(
        self,
        upstreams: Upstreams,
        keys: Keys,
        observer: Observer,
        check_of: CheckOf,
        state: SharedState,
    ) -> None:
        """`state`: what other workers know, too."""
        self._upstreams = upstreams
        self._keys = keys
        self._observer = observer
        self._check_of = check_of
        self.health = Health(state.circuits, state.now)
        self._budget = RetryBudget(state.loads)
        in_flight = InFlightCounts(state.in_flight, state.workers)
        self.limits = Limits(in_flight)
        self.places = Places(self.limits, Waiting(state.queues, state.turns, in_flight, state.now))
        self.spread = Spread(state.moved, self.limits, self._health_of, state.now)

    def state_of(self, target: Target, policy: Policy) -> str:
        """Whether it may be asked, in words for people."""
        words = self._health_of(target)
        is_full = words == HEALTHY and self.limits.full(target, policy.server.replicas) is not None
        return FULL if is_full else words

    def states_of_keys(self, provider: Provider) -> list[str]:
        """Of each of its keys, whether it may be asked with, in words for people."""
        return [
            self.health.words_of_key(provider, value) if (value := self._keys.value(key)) else "not set"
            for key in provider.keys
        ]

    def _health_of(self, target: Target) -> str:
        return self.health.words(target, self._keys.of(target.provider))

    async def answer(self, exchange: Exchange, write: Write) -> None:
        """Writes the first answer that a target gives. Raises the `UpstreamFailure` to show when none
        does."""
        async with self.places.of_team(exchange):
            await self._answer(exchange, write)

    async def _answer(self, exchange: Exchange, write: Write) -> None:
        now = asyncio.get_running_loop().time
        plan = RetryPlan(exchange, self._keys, self.health, self._budget, self.spread, self.limits, now)
        with self._budget.request(), closing(plan):
            if not await self._ask_in_turn(plan, exchange, write):
                await _show_failure(plan.verdict(), exchange, write)

    async def _ask_in_turn(self, plan: RetryPlan, exchange: Exchange, write: Write) -> bool:
        """Whether anything was answered, if only with the end of a stream that broke."""
        planned: PlannedAttempt | None = plan.first()
        while planned is not None:
            planned = await self._placed(planned, plan, exchange)
            if planned is None:
                break
            call = Call(planned.target, planned.key, exchange)
            try:
                await self._attempt(planned, call, plan, write)
                return True
            except UpstreamFailure as failure:
                _log_failure(failure, call, self._keys)
                forget_tracebacks(failure)  # it is kept while other targets are asked
                if failure.shows_address and exchange.inbound.shows_addresses:
                    failure.message = failure.operator_message
                if exchange.first_content_at is not None:
                    exchange.error = failure.type
                    await write([_end_of_broken_stream(failure, exchange)])
                    return True
                planned = plan.after(failure, tuple(exchange.warnings))
            except InvalidRequest:
                # The client's own mistake, which nobody else would be asked to forgive; unless it only shows
                # here, and waiting helps.
                if not plan.has_retryable_failure:
                    raise
                break
        return False

    async def _placed(
        self, planned: PlannedAttempt, plan: RetryPlan, exchange: Exchange
    ) -> PlannedAttempt | None:
        """The attempt once its time has come and there is a place for it, or another that would do as well;
        `None`: there is no place in time."""
        try:
            if planned.wait:
                await asyncio.sleep(planned.wait)
            if planned.place is not None:
                return planned
            return await self.places.of_attempt(planned, plan, exchange)
        except asyncio.CancelledError:
            planned.health.let_go()
            raise

    async def _attempt(self, planned: PlannedAttempt, call: Call, plan: RetryPlan, write: Write) -> None:
        """What the target's health has to know of it is told, however it ends."""
        health = planned.health
        try:
            check = self._check_of(call)
            attempt = Attempt(
                call,
                plan.deadline,
                write,
                self._observer,
                check,
                on_content=lambda: self._answered(planned, plan, call.exchange),
                may_fall_back=plan.may_fall_back,
            )
            await attempt.run(self._upstreams.of(planned.target.provider))
        except UpstreamFailure as failure:
            health.failed(failure)
            raise
        finally:
            health.let_go()
            if planned.place is not None:
                planned.place.give_back()

    def _answered(self, planned: PlannedAttempt, plan: RetryPlan, exchange: Exchange) -> None:
        planned.health.answered()
        self.spread.answered(exchange, plan.order, planned.target)


def _end_of_broken_stream(failure: UpstreamFailure, exchange: Exchange) -> Content:
    """How a stream ends that can't go on."""
    if failure.event is not None:
        return Relayed(failure.event)
    return [error_event(failure.type, failure.message, exchange.shown_id)]


def _log_failure(failure: UpstreamFailure, call: Call, keys: Keys) -> None:
    provider = call.target.provider
    failure.redact((*keys.of(provider), *provider.secret_values, *call.exchange.secrets))
    words = "" if failure.quotes_back_end else f": {failure.operator_message}"
    request_id, target = call.exchange.request_id, call.target.name
    log.warning("%s %s failed (%s)%s", request_id, target, failure.kind, words)


async def _show_failure(shown: FailedAttempt, exchange: Exchange, write: Write) -> None:
    """The client gets what this attempt came to. Raises its failure, unless the API says it with a 200."""
    exchange.target = shown.target
    exchange.warnings = list(shown.warnings)
    exchange.usage = None
    exchange.relayed_headers = list(shown.failure.relay.headers) if shown.failure.relay else []
    if shown.failure.kind == "content_policy" and shown.failure.relay is None:
        await write([refusal(exchange, shown.failure.message).content])
        return
    raise shown.failure


OWN_WORK = 300.0
"""Seconds that an attempt may wait for what is ours: a free thread, an import, a name's address. Nobody waits
so long for it; it only keeps a request from waiting for ever."""

TIMEOUT_FAILURES: Mapping[str, tuple[Kind, str]] = {
    "own_work": ("timeout_connect", "could not be asked in time: routeproxy was busy"),
    "first_token": ("timeout_first_token", "gave no token in time"),
    "deadline": ("timeout_first_token", "gave no token before the deadline of the rule"),
    "deadline of the whole": ("timeout_first_token", "was not done before the deadline of the rule"),
    "idle": ("timeout_idle", "went silent in the middle of its answer"),
    "total": ("timeout_total", "did not finish in time"),
}
"""The failure that it is when a time limit has passed."""


MOST_HELD = 32 * 2**20
"""Bytes of a stream that is held until it is whole."""


class Attempt:
    """One target, once, within its times. What comes before the content is held back, since another target
    may still answer; where the rule holds streams, all of it is."""

    def __init__(
        self,
        call: Call,
        deadline: float | None,
        write: Write,
        observer: Observer,
        check: ToolUseCheck | None = None,
        on_content: Callable[[], None] = lambda: None,
        may_fall_back: bool = False,
    ) -> None:
        """`on_content` hears of the first content. `may_fall_back`: another target would be asked after a
        time-out."""
        self._call = call
        self._on_content = on_content
        self._write = write
        self._observer = observer
        self._check = check
        self._record: AttemptRecord
        self._now = asyncio.get_running_loop().time
        self._held: list[Content] = []
        decision = call.exchange.decision
        self._holds = decision is not None and decision.hold and call.exchange.stream
        self._held_bytes = 0
        """Of what is held although there is content in it."""
        started, timeouts = self._now(), call.target.timeouts
        self._idle = timeouts.idle
        self._first_token = first_token_timeout(call.exchange, timeouts, may_fall_back=may_fall_back)
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
        except InvariantBroken:
            record.failure = "invariant"
            raise
        except BaseException:
            record.let_go = True
            raise
        finally:
            record.ended, record.usage = time.perf_counter(), exchange.usage
            record.tokens, record.served_model = exchange.tokens, exchange.served_model
            self._observer.attempt_ended(exchange, record)

    async def _send(self, upstream: Upstream) -> None:
        needed_key(self._call)
        provider = self._call.target.provider.name
        back_end_clock = BackEndClock(self._request_sent, self._bytes_came, self._request_over)
        clock_before = BACK_END_CLOCK.set(back_end_clock)
        try:
            async with self._clock:
                self._is_asking = True
                await self._ask(upstream, self._relay if self._check is None else self._relay_checked)
                if self._held_bytes:
                    await self._commit()
        except TimeoutError:
            if not self._clock.expired:
                raise
            kind, words = TIMEOUT_FAILURES[self._limit_name]
            failure = UpstreamFailure(kind, f"the back end {provider} {words}")
            failure.blames_target = self._limit_name in {"first_token", "idle"}
            raise failure from None
        finally:
            self._is_asking = False
            back_end_clock.let_go()
            BACK_END_CLOCK.reset(clock_before)
        if self._call.exchange.first_content_at is None:
            raise UpstreamFailure("connection", f"the back end {provider} answered with nothing")

    def _request_sent(self) -> None:
        """The back end has it, as far as we know: from now on `first_token` runs."""
        if self._is_asking:
            self._limit_wait(self._now() + self._first_token.first, "first_token")

    def _bytes_came(self) -> None:
        """The back end has sent something, if no content yet."""
        if self._is_asking and self._first_token.between is not None:
            self._limit_wait(self._now() + self._first_token.between, "first_token")

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
            self._held, self._held_bytes = [], 0
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
            if not output.commits and not self._held_bytes:
                return
            if self._holds:
                self._hold(content)
            else:
                await self._commit()
        elif content:
            self._clock.pause()  # a client that reads slowly is not the back end's fault
            await self._write((content,))
        limits = [(self._now() + self._idle, "idle"), (self._total_at, "total")]
        if self._held_bytes:
            limits.append((self._deadline, "deadline of the whole"))
        limit, self._limit_name = min(limits)
        self._clock.move(limit)

    def _hold(self, content: Content) -> None:
        """There is content, and it waits for the rest. Raises `UpstreamFailure` where that is too long."""
        self._is_asking = False
        self._held_bytes += (
            len(content.data) if isinstance(content, Relayed) else len(msgspec.json.encode(content))
        )
        if self._held_bytes > MOST_HELD:
            provider = self._call.target.provider.name
            words = "answered with more than 32 MB, which is more than can be held until it is whole"
            raise UpstreamFailure("server_error", f"the back end {provider} {words}")

    async def _commit(self) -> None:
        """From here on the answer is this back end's. What was held back goes out in one write."""
        exchange, record = self._call.exchange, self._record
        exchange.first_content_at = record.first_content_at = time.perf_counter()
        self._on_content()
        self._observer.first_content(exchange, record)
        self._is_asking = False
        self._clock.pause()  # a client that reads slowly is not the back end's fault
        await self._write(self._held)
        self._held, self._held_bytes = [], 0
        if exchange.stream:
            exchange.forget_text()
