"""What becomes of requests, as rows. On the event loop a row is made and put into a queue, and no more."""

import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from routeproxy.exchange import AttemptRecord, Exchange
from routeproxy.ledger.opening import ValueOf, open_store
from routeproxy.ledger.pipeline import Recorded, RecordPipeline, Sink, Unpriced
from routeproxy.ledger.rows import AttemptRow, OpenRow, RequestRow, UsageSource
from routeproxy.ledger.writer import LedgerWriter
from routeproxy.messages.token_usage import TokenUsage
from routeproxy.observe import Observer
from routeproxy.policy.decide import Policy
from routeproxy.policy.fact_table import BY_NAME
from routeproxy.policy.facts import Facts
from routeproxy.policy.ledger import LedgerSettings
from routeproxy.policy.logged import SESSION_IN_BODY, recorded_facts
from routeproxy.policy.targets import Target

log = logging.getLogger("routeproxy.ledger")

PERSONAL = ("user", "session", SESSION_IN_BODY)
"""Facts that name somebody: they have columns of their own."""
PROMPT_ID = "x-claude-code-prompt-id"
LONGEST = 256
"""Characters of what clients call their sessions and users."""
OPEN_AFTER = 1.0
"""Seconds after which a request that is under way is written down as that."""
MICRO = 10**6
NO_TOKENS = TokenUsage()


class Recorder(Observer):
    """Tells of every request for an answer: the ledger, and who else keeps count. Counts of tokens and
    `/v1/route` ask no model, so they are no part of it."""

    def __init__(self, policy: Policy, value_of: ValueOf, counts: Sequence[Sink] = ()) -> None:
        """`value_of`: what a secret is at the moment. `counts`: who is told besides the ledger."""
        self._value_of = value_of
        self._settings: LedgerSettings | None = None
        self._writer: LedgerWriter | None = None
        self._dropped_before = 0
        """Rows that writers before this one have dropped."""
        self._under_way: dict[str, Exchange] = {}
        self._opened: set[str] = set()
        self._names = StatedModels()
        self._pipeline = RecordPipeline([self._write, *counts])
        self._is_started = False
        self.update(policy)

    def update(self, policy: Policy) -> None:
        """From now on `policy` says where the ledger is. Nothing waits for what is still to be written."""
        self._is_on = policy.keeps_books
        if self._is_on and self._is_started:
            self._pipeline.start()
        settings = policy.ledger
        if settings == self._settings:
            return
        before, self._writer, self._settings = self._writer, None, settings
        if before is not None:
            self._dropped_before += before.dropped
            threading.Thread(target=self._end, args=(before,), name="ledger before", daemon=True).start()
        if settings is None:
            return
        key = self._value_of(settings.pseudonym_key) if settings.pseudonym_key is not None else None
        if settings.users == "pseudonym" and key is None and settings.pseudonym_key is not None:
            reference = settings.pseudonym_key.reference
            log.warning("the ledger knows no users: their names can't be hashed, %s is not set", reference)
        self._writer = LedgerWriter(
            settings,
            partial(open_store, settings, self._value_of),
            key.encode("utf-8", "surrogatepass") if key is not None else None,
        )
        self._writer.opened_rows = self._newly_open
        if self._is_started:
            self._writer.start()

    def start(self) -> None:
        """In the process that serves."""
        self._is_started = True
        if self._is_on:
            self._pipeline.start()
        if self._writer is not None:
            self._writer.start()

    def flush(self) -> None:
        """Whoever keeps count knows of all that is over once this returns."""
        self._pipeline.flush()

    def close(self) -> None:
        self._pipeline.close()
        if self._writer is not None:
            self._writer.close()

    @property
    def spooled_bytes(self) -> int:
        return self._writer.spooled_bytes if self._writer is not None else 0

    @property
    def dropped(self) -> int:
        """Rows of requests and attempts that are in no ledger and will never be."""
        return self._dropped_before + (self._writer.dropped if self._writer is not None else 0)

    @property
    def status(self) -> Mapping[str, object]:
        """For an operator; empty without a ledger."""
        if self._writer is None:
            return {}
        return {
            "ledger_problem": self._writer.problem,
            "ledger_spool_bytes": self.spooled_bytes,
            "ledger_rows_dropped": self.dropped,
        }

    def _end(self, writer: LedgerWriter) -> None:
        """What was over before another ledger took its place is still written."""
        self._pipeline.flush()
        writer.close()

    def _write(self, recorded: Sequence[Recorded]) -> None:
        by_ledger: dict[Sink, list[Recorded]] = {}
        if self._writer is not None:  # there may be requests that are newly open, and none that is over
            by_ledger[self._writer.put] = []
        for each in recorded:
            if each.ledger is not None:
                by_ledger.setdefault(each.ledger, []).append(each)
        for ledger, of_ledger in by_ledger.items():
            ledger(of_ledger)

    # --- what happens, on the event loop

    def request_decided(self, exchange: Exchange) -> None:
        if exchange.endpoint == "messages" and self._writer is not None:
            self._under_way[exchange.request_id] = exchange

    def first_content(self, exchange: Exchange, attempt: AttemptRecord) -> None:
        if exchange.logged_facts is None and exchange.facts is not None and self._writer is not None:
            exchange.logged_facts = recorded_facts(exchange.facts, exchange.policy)

    def request_done(self, exchange: Exchange) -> None:
        self._under_way.pop(exchange.request_id, None)
        self._opened.discard(exchange.request_id)
        if exchange.endpoint != "messages" or not self._is_on:
            return
        # Whoever shows no key fills no ledger.
        writer = self._writer if exchange.decision is not None or exchange.status != 401 else None
        self._pipeline.put(recorded(exchange, self._names, writer))

    def _newly_open(self) -> list[OpenRow]:
        """In the writer's thread."""
        since = time.perf_counter() - OPEN_AFTER
        found = []
        for id, exchange in tuple(self._under_way.items()):
            if exchange.started < since and id not in self._opened:
                self._opened.add(id)
                found.append(_open_row(exchange))
        return found


class StatedModels:
    """What metrics call the models of a policy: clients may name ever new ones, and a metric has only those
    that the rules state."""

    OTHER = "_other"

    def __init__(self) -> None:
        self._policy: Policy | None = None
        self._stated: frozenset[tuple[str, str]] = frozenset()

    def label_of(self, target: Target, policy: Policy) -> str:
        if policy is not self._policy:
            self._policy, self._stated = policy, _stated_models(policy)
        return target.model if (target.provider.name, target.model) in self._stated else self.OTHER


def _stated_models(policy: Policy) -> frozenset[tuple[str, str]]:
    rules = (*policy.rules, policy.default)
    stated = {(target.provider.name, target.model) for rule in rules for target in rule.contacted}
    stated |= {(name, model) for name, provider in policy.providers.items() for model in provider.models}
    return frozenset((name, model) for name, model in stated if "*" not in model)


def recorded(exchange: Exchange, names: StatedModels, writer: LedgerWriter | None) -> Recorded:
    """The row of a request that is over, and what its attempts took, still without a price. `writer`: of the
    ledger that is to have it; without one nobody needs its facts."""
    now, now_at = time.perf_counter(), time.time_ns() // 1000
    facts, decision, inbound = exchange.facts, exchange.decision, exchange.inbound

    def at(moment: float) -> int:
        return now_at - int((now - moment) * MICRO)

    logged = exchange.logged_facts
    if logged is None and writer is not None and facts is not None and not facts.text_is_forgotten:
        logged = recorded_facts(facts, exchange.policy)
    records = [*exchange.attempts, *([exchange.safeguards] if exchange.safeguards is not None else [])]
    attempts = tuple(_attempt_row(number, record, at, now) for number, record in enumerate(records, 1))
    team = exchange.policy.teams.get(inbound.team) if inbound.team is not None else None
    user, user_source = _user_of(exchange.policy, exchange)
    content_at = exchange.first_content_at
    row = RequestRow(
        id=exchange.request_id.removeprefix("req_"),
        at=at(exchange.started),
        path=inbound.path,
        stream=exchange.stream,
        requested_model=_cut(exchange.envelope.model) if exchange.envelope is not None else None,
        session=_cut(facts.session_id) if facts is not None else None,
        prompt_id=_cut(facts.header(PROMPT_ID)) if facts is not None else None,
        request_class=_request_class(facts),
        team=inbound.team,
        labels=team.labels if team is not None else {},
        key=inbound.key_name,
        user=user,
        user_source=user_source,
        rule=decision.rule if decision is not None else None,
        version=exchange.policy.version,
        facts=_impersonal(logged) if logged else {},
        status=exchange.status,
        error=exchange.error,
        denied=decision is not None and decision.deny is not None,
        skipped=dict(exchange.skipped) if exchange.skipped else {},
        shadow=exchange.shadow,
        client_left=exchange.client_left,
        queued=int(exchange.queued * MICRO),
        first_content=int((content_at - exchange.started) * MICRO) if content_at is not None else None,
        duration=int((now - exchange.started) * MICRO),
        attempts=attempts,
    )
    unpriced = (
        Unpriced(
            record.target.provider,
            record.tokens,
            names.label_of(record.target, exchange.policy),
            record.span_id,
        )
        for record in records
    )
    ledger = writer.put if writer is not None else None
    return Recorded(row, tuple(unpriced), ledger, exchange.trace)


def _attempt_row(number: int, record: AttemptRecord, at: Any, now: float) -> AttemptRow:
    tokens = record.tokens if record.tokens is not None else NO_TOKENS
    ended, content_at = record.ended if record.ended is not None else now, record.first_content_at
    return AttemptRow(
        number=number,
        purpose=record.purpose,
        provider=record.target.provider.name,
        model=record.target.model,
        served_model=record.served_model,
        engine=record.target.engine,
        at=at(record.started),
        first_content=int((content_at - record.started) * MICRO) if content_at is not None else None,
        duration=int((ended - record.started) * MICRO),
        failure=record.failure,
        let_go=record.let_go,
        asked_again=record.asked_again,
        dropped={str(loss): count for loss, count in record.dropped.items()} if record.dropped else {},
        usage_source=usage_source_of(record),
        input_uncached=tokens.input_uncached,
        cache_read=tokens.cache_read,
        cache_write_5m=tokens.cache_write_5m,
        cache_write_1h=tokens.cache_write_1h,
        cache_write_other=tokens.cache_write_other,
        output=tokens.output,
        reasoning_output=tokens.reasoning_output,
        web_searches=tokens.web_searches,
        service_tier=tokens.service_tier,
        batch=tokens.service_tier == "batch",
    )


def usage_source_of(record: AttemptRecord) -> UsageSource:
    if record.tokens is None:
        return "none"
    if record.tokens.is_estimate:
        return "estimated"
    came_to_its_end = record.failure is None and not record.let_go
    return "reported" if came_to_its_end and record.tokens.output is not None else "partial"


def _open_row(exchange: Exchange) -> OpenRow:
    started = time.time_ns() // 1000 - int((time.perf_counter() - exchange.started) * MICRO)
    decision = exchange.decision
    return OpenRow(
        id=exchange.request_id.removeprefix("req_"),
        at=started,
        team=exchange.inbound.team,
        key=exchange.inbound.key_name,
        rule=decision.rule if decision is not None else None,
        process=os.getpid(),
    )


def _user_of(policy: Policy, exchange: Exchange) -> tuple[str | None, Any]:
    """Who asked: whoever the key belongs to, else whom the client says."""
    team = policy.teams.get(exchange.inbound.team or "")
    for key in team.keys if team is not None else ():
        if key.name == exchange.inbound.key_name and key.user is not None:
            return key.user, "key"
    claimed = exchange.facts.claimed_user if exchange.facts is not None else None
    return (_cut(claimed), "claimed") if claimed is not None else (None, None)


def _request_class(facts: Facts | None) -> str | None:
    """One of those that clients are known to send: sums are made by it, and others may be anything."""
    stated = facts.header("x-claude-code-request-class") if facts is not None else None
    if stated is None:
        return None
    return stated if stated in BY_NAME["request_class"].known else StatedModels.OTHER


def _cut(text: str | None) -> str | None:
    """What a client says of itself may be as long as it likes."""
    return text[:LONGEST] if text is not None else None


def _impersonal(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """A copy: the decision log has its own."""
    kept = {**facts}
    for name in PERSONAL:
        kept.pop(name, None)
    return kept
