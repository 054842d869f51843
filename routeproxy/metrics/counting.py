"""What has become of requests, in numbers. Requests come from the ledger's pipeline, in its thread; what else
happens is counted where it happens."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import routeproxy
from routeproxy.exchange import SmallRequest
from routeproxy.ledger.pipeline import Recorded, Unpriced
from routeproxy.ledger.rows import AttemptRow, RequestRow
from routeproxy.messages.token_usage import KINDS
from routeproxy.metrics import families
from routeproxy.metrics.snapshot import Exemplar, Snapshot, merged
from routeproxy.observe import Observer
from routeproxy.policy.decide import Policy

MICRO = 10**6

Gauges = Callable[[Snapshot], None]
"""Fills in what is so at this moment."""


class Metrics(Observer):
    """The numbers of this process."""

    def __init__(self, policy: Policy) -> None:
        self._counted = Snapshot({}, {})
        self._lock = threading.Lock()
        self._policy = policy
        self._reloaded_at = time.time()
        self._is_current = True
        self.gauges: list[Gauges] = []
        """Who is asked for the numbers of the moment."""

    def count(self, recorded: Sequence[Recorded]) -> None:
        """In any thread."""
        with self._lock:
            for each in recorded:
                count_request(self._counted, each)

    def snapshot(self) -> Snapshot:
        """Of this moment. On the event loop."""
        with self._lock:
            snapshot = merged((self._counted,))
        snapshot.set(families.BUILD, 1, routeproxy.__version__)
        snapshot.set(families.RULES, 1, self._policy.version)
        snapshot.set(families.RELOAD_OK, int(self._is_current))
        snapshot.set(families.RELOAD_AT, round(self._reloaded_at, 3))
        for fill in self.gauges:
            fill(snapshot)
        return snapshot

    # --- what happens besides, on the event loop

    def small_request_done(self, request: SmallRequest) -> None:
        if (kind := _REFUSALS.get(request.status)) is not None:
            with self._lock:
                self._counted.add(families.REFUSALS, 1, kind, "")

    def reload_succeeded(self, before: Policy, after: Policy) -> None:
        self._policy, self._reloaded_at, self._is_current = after, time.time(), True

    def reload_failed(self, in_force: Policy, problem: str) -> None:
        self._is_current = False


_REFUSALS: Mapping[int, str] = {401: "key", 529: "overload"}
"""By the status of a request that did not get as far as a rule, what refused it."""


def count_request(counted: Snapshot, recorded: Recorded) -> None:
    row, team, rule = recorded.row, recorded.row.team or "", recorded.row.rule or ""
    code = 499 if row.client_left and row.first_content is None else row.status
    counted.add(families.REQUESTS, 1, team, rule, str(code))
    if row.denied:
        counted.add(families.REFUSALS, 1, "rule", rule)
    elif row.rule is None and (kind := _REFUSALS.get(row.status)) is not None:
        counted.add(families.REFUSALS, 1, kind, "")
    attempts = list(zip(row.attempts, recorded.attempts, strict=True))
    for attempt, unpriced in attempts:
        _count_attempt(counted, team, attempt, unpriced)
    answers = [attempt for attempt in row.attempts if attempt.purpose == "answer"]
    for before, after in pairwise(answers):
        if (before.provider, before.model) != (after.provider, after.model):
            counted.add(families.FALLBACKS, 1, rule, before.failure or "let_go")
    if row.skipped and answers:
        counted.add(families.FALLBACKS, 1, rule, "unhealthy")
    if answers:
        _observe_times(counted, row, attempts[len(answers) - 1])


def _count_attempt(counted: Snapshot, team: str, attempt: AttemptRow, unpriced: Unpriced) -> None:
    provider, model = attempt.provider, unpriced.model_label
    outcome = attempt.failure or ("let_go" if attempt.let_go else "ok")
    counted.add(families.ATTEMPTS, 1, provider, model, outcome)
    tokens = 0
    for kind in KINDS:
        if count := getattr(attempt, kind):
            tokens += count
            counted.add(families.TOKENS, count, team, provider, model, kind)
    if attempt.cost_nanousd is not None:
        counted.add(families.COST, attempt.cost_nanousd, team, provider, model)
    elif attempt.price_source == "unknown":
        counted.add(families.UNPRICED, tokens, provider, model)


def _observe_times(counted: Snapshot, row: RequestRow, last: tuple[AttemptRow, Unpriced]) -> None:
    attempt, unpriced = last
    labels = attempt.provider, unpriced.model_label
    ended = (row.at + row.duration) / MICRO
    duration = row.duration / MICRO
    stream = "true" if row.stream else "false"
    counted.observe(families.DURATION, duration, Exemplar(row.id, duration, ended), *labels, stream)
    if row.first_content is not None:
        first = row.first_content / MICRO
        counted.observe(families.FIRST_TOKEN, first, Exemplar(row.id, first, ended), *labels)
