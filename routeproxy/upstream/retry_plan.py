"""Which target is tried next, with which key and after which wait, given how the last attempt failed and what
is known of all of them. Nobody is asked here.

What is remembered of failing targets only skips and reorders: a target is passed over where this request may
fall back to another, and on the very failure that it is cooling down after. Where nothing else is left, one
request at a time asks the target that is due first, and the others hear how long to wait.
"""

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from routeproxy.exchange import Exchange
from routeproxy.policy.decide import TIMEOUTS, Decision, FailureKind
from routeproxy.policy.targets import Target
from routeproxy.upstream.failures import (
    KEY_FAILURES,
    LONGEST_RETRY_AFTER,
    UpstreamFailure,
    all_at_their_limits,
    all_cooling_down,
)
from routeproxy.upstream.health import AttemptHealth, Cooling, Health
from routeproxy.upstream.keys import Keys
from routeproxy.upstream.limits import Limits, Place
from routeproxy.upstream.retry_budget import RetryBudget
from routeproxy.upstream.spread import FULL, Spread


class PlannedAttempt(NamedTuple):
    target: Target
    key: str | None
    """`None`: the provider needs no key, or it is not set, which is the attempt's failure to report."""
    health: AttemptHealth
    wait: float = 0.0
    """Seconds before it."""
    place: Place | None = None
    """What it takes up at the target; `None`: it has to be taken, or waited for."""
    instead: tuple["PlannedAttempt", ...] = ()
    """Others that would do as well, if one of them has a place sooner."""


class FailedAttempt(NamedTuple):
    target: Target
    failure: UpstreamFailure
    warnings: tuple[str, ...]
    """Those of the exchange while this attempt ran."""


class Skipped(NamedTuple):
    """A target that is passed over."""

    attempt: PlannedAttempt
    cooling: Cooling


class RetryPlan:
    def __init__(
        self,
        exchange: Exchange,
        keys: Keys,
        health: Health,
        budget: RetryBudget,
        spread: Spread,
        limits: Limits,
        now: Callable[[], float],
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`now` in seconds, on any clock; `jitter` between 0 and 1."""
        decision = exchange.decision
        assert decision is not None
        self.deadline = now() + decision.deadline if decision.deadline else None
        self._exchange = exchange
        self._decision: Decision = decision
        self._keys = keys
        self._health = health
        self._session = health.session(exchange)
        self._budget = budget
        self._now = now
        self._jitter = jitter
        self._limits = limits
        self._replicas = exchange.policy.server.replicas
        self.order = spread.order(exchange)
        exchange.skipped.update(self.order.passed_over)
        self._left: Sequence[Target] = self.order.targets
        """The targets that were neither asked nor skipped."""
        self._passed_over: list[Skipped] = []
        """Those that were skipped since they cool down."""
        self._failed: list[FailedAttempt] = []
        self._current: PlannedAttempt
        self._refused_keys: set[str] = set()
        """Keys of the current target that were tried in vain."""
        self._retries = 0
        """How often the current target was tried again."""
        self._is_retrying = False
        """The current attempt counts in the budget."""

    def first(self) -> PlannedAttempt:
        """Raises `UpstreamFailure` if none of the targets can be asked at present."""
        planned, skipped = self._next_target()
        if planned is None:
            raise _nobody_to_ask([one.cooling for one in skipped])
        return planned

    def close(self) -> None:
        """No attempt is under way."""
        if self._is_retrying:
            self._budget.give_back()
            self._is_retrying = False

    def after(self, failure: UpstreamFailure, warnings: tuple[str, ...] = ()) -> PlannedAttempt | None:
        self.close()
        target, key = self._current.target, self._current.key
        self._failed.append(FailedAttempt(target, failure, warnings))
        if self._too_late():
            return None
        return (
            self._with_next_key(target, key, failure)
            or self._retried(target, failure)
            or self._next_after(failure)
        )

    @property
    def may_fall_back(self) -> bool:
        """Whether another target would be asked if the present one took too long."""
        fallback = self._decision.fallback
        return bool(self._left) and fallback.enabled and "timeout_first_token" in fallback.on

    @property
    def has_retryable_failure(self) -> bool:
        """Whether waiting may help against some failure."""
        return any(attempt.failure.retryable for attempt in self._failed)

    def verdict(self) -> FailedAttempt:
        """The failed attempt that the client gets to see: the first that is worth a retry, with the shortest
        wait, else the last one."""
        retryable = [attempt for attempt in self._failed if attempt.failure.retryable]
        if not retryable:
            asked = [attempt for attempt in self._failed if not attempt.failure.passes_over]
            if not asked and self._passed_over:  # those that could take it may be asked again later
                waits_for = self._passed_over[0].attempt.target
                return FailedAttempt(
                    waits_for, _nobody_to_ask([one.cooling for one in self._passed_over]), ()
                )
            return (asked or self._failed)[-1]
        waits = [wait for attempt in retryable if (wait := attempt.failure.retry_after) is not None]
        if len(self._failed) > 1 and waits:
            retryable[0].failure.set_retry_after(min(waits))
        return retryable[0]

    # --- the same target again

    def _with_next_key(
        self, target: Target, key: str | None, failure: UpstreamFailure
    ) -> PlannedAttempt | None:
        if key is None or failure.kind not in KEY_FAILURES:
            return None
        self._keys.refused(target.provider, key)
        self._refused_keys.add(key)
        unused = [other for other in self._keys.of(target.provider) if other not in self._refused_keys]
        if not unused:
            return None
        planned = self._with_best_key(target, unused)
        if self._left and self._may_be_skipped(planned.health.cooling()):
            return None
        self._current = planned
        return planned

    def _retried(self, target: Target, failure: UpstreamFailure) -> PlannedAttempt | None:
        retry = self._decision.retry
        if not failure.retryable or failure.kind not in retry.on or self._retries + 1 >= retry.attempts:
            return None
        if failure.kind in TIMEOUTS and self._falls_back_on(failure) and self._left:
            return None  # it has taken its time already: somebody else may be quicker
        planned = self._with_best_key(target, self._keys.of(target.provider))
        if self._left and self._may_be_skipped(planned.health.target_cooling()):
            return None
        wait = max(failure.retry_after or 0.0, self._jitter() * retry.backoff * 2**self._retries)
        if wait > LONGEST_RETRY_AFTER or self._too_late(wait) or not self._budget.take():
            return None
        self._is_retrying = True
        self._retries += 1
        self._current = planned._replace(wait=wait)
        return self._current

    # --- another target

    def _next_after(self, failure: UpstreamFailure) -> PlannedAttempt | None:
        # `timeout_total` is in no list: the time for the whole answer is used up, and another target would
        # not make it shorter.
        if not self._falls_back_on(failure) and not (failure.passes_over and self._came_by_fallback()):
            return None
        planned, _ = self._next_target()
        return planned

    def _next_target(self) -> tuple[PlannedAttempt | None, list[Skipped]]:
        """The first that need not be passed over; else of those that fail the one that is due first, if
        nobody is asking it. With all that were passed over."""
        skipped: list[Skipped] = []
        full: list[PlannedAttempt] = []
        for place, target in enumerate(self._left, 1):
            attempt = self._with_best_key(target, self._keys.of(target.provider))
            cooling = attempt.health.cooling()
            if cooling is None and not attempt.health.claim():
                cooling = attempt.health.cooling()  # somebody else was quicker to try it again
            if cooling is None or not self._may_be_skipped(cooling):
                taken = self._limits.take(target, self._replicas)
                if taken is None and self._may_be_passed_over("overloaded"):
                    attempt.health.let_go()
                    full.append(attempt)
                    self._exchange.skipped[target.name] = FULL
                    continue
                self._left = self._left[place:]
                self._passed_over += skipped
                return self._begin(attempt._replace(place=taken)), skipped
            skipped.append(Skipped(attempt, cooling))
            self._exchange.skipped[target.name] = str(cooling)
        self._left = ()
        if full:  # better to wait for one that answers than to ask one that fails
            return self._begin(full[0]._replace(instead=tuple(full[1:]))), skipped
        self._passed_over += skipped
        nobody_was_asked = all(attempt.failure.passes_over for attempt in self._failed)
        left = self._passed_over if nobody_was_asked else skipped
        failing = [one for one in left if one.cooling.kind not in KEY_FAILURES]
        if failing:
            attempt = min(failing, key=lambda one: one.cooling.seconds).attempt
            if attempt.health.claim():
                return self._begin(attempt), skipped
        return None, skipped

    def placed(self, attempt: PlannedAttempt, place: Place) -> PlannedAttempt:
        """`attempt` is one that was planned, or that would do instead."""
        for other in (self._current, *self._current.instead):
            if other is not attempt:
                self._exchange.skipped[other.target.name] = FULL
        self._exchange.skipped.pop(attempt.target.name, None)
        self._current = attempt._replace(place=place, wait=0.0, instead=())
        return self._current

    def no_place(self, failure: UpstreamFailure) -> None:
        """Nobody had a place for it in time, and nobody else is asked."""
        self._failed.append(FailedAttempt(self._current.target, failure, ()))

    def _begin(self, attempt: PlannedAttempt) -> PlannedAttempt:
        self._exchange.skipped.pop(attempt.target.name, None)
        self._refused_keys = set()
        self._retries = 0
        self._current = attempt
        return attempt

    def _with_best_key(self, target: Target, keys: Sequence[str]) -> PlannedAttempt:
        """`target` with the first key that may be asked with, else with the one that is due first."""
        attempts = [
            PlannedAttempt(target, key, self._health.attempt(target, key, self._session))
            for key in keys or (None,)
        ]
        if len(attempts) == 1:
            return attempts[0]
        return min(attempts, key=lambda attempt: attempt.health.seconds_to_wait_for_key())

    def _may_be_skipped(self, cooling: Cooling | None) -> bool:
        return cooling is not None and self._may_be_passed_over(cooling.kind)

    def _may_be_passed_over(self, kind: FailureKind) -> bool:
        """A hard guarantee stays one: where the rule does not fall back on this, the target is asked."""
        fallback = self._decision.fallback
        return fallback.enabled and len(self._decision.targets) > 1 and kind in fallback.on

    def _falls_back_on(self, failure: UpstreamFailure) -> bool:
        return self._decision.fallback.enabled and failure.kind in self._decision.fallback.on

    def _came_by_fallback(self) -> bool:
        """The current target is not the one that the rule names first."""
        return self._decision.fallback.enabled and self._current.target is not self.order.targets[0]

    def _too_late(self, wait: float = 0.0) -> bool:
        return self.deadline is not None and self._now() + wait >= self.deadline


def _nobody_to_ask(reasons: Sequence[Cooling]) -> UpstreamFailure:
    wait = max(1.0, min(cooling.seconds for cooling in reasons))
    if all(cooling.kind == "rate_limit" for cooling in reasons):
        return all_at_their_limits(wait)
    return all_cooling_down(wait)
