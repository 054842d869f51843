"""The audit trail of one process: a gate before the first connection of each request, and an observer of all
that is recorded besides."""

import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import routeproxy
from routeproxy.audit.records import (
    AdminActed,
    Begun,
    Contact,
    Ended,
    Reloaded,
    ReloadRefused,
    Started,
)
from routeproxy.audit.versions import KeptVersions
from routeproxy.audit.writing import ChainWriting, ValueOf, signing_key
from routeproxy.exchange import AttemptRecord, Exchange
from routeproxy.messages.errors import ApiError
from routeproxy.observe import Observer
from routeproxy.policy.audit import AuditSettings
from routeproxy.policy.decide import Policy
from routeproxy.policy.live.versions import Bundle, NoSuchVersion
from routeproxy.policy.logged import recorded_facts
from routeproxy.telemetry.decisions import now

log = logging.getLogger("routeproxy.audit")


def audit_problem(settings: AuditSettings, value_of: ValueOf) -> str | None:
    """Why there can be no trail; `None`: there can."""
    try:
        signing_key(settings, value_of)
        folder = Path(settings.path)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except ValueError as problem:
        return str(problem)
    except OSError as error:
        return f"[audit] path {settings.path}: {error.strerror}"
    return None if os.access(folder, os.W_OK) else f"[audit] path {folder}: this user may not write there"


class AuditTrail(Observer):
    def __init__(
        self,
        policy: Policy,
        bundle_of: Callable[[str], Bundle],
        value_of: ValueOf,
        tell: Callable[[bytes], object] = lambda line: os.write(sys.stderr.fileno(), line),
    ) -> None:
        """`bundle_of`: what a version of the rules was compiled from; raises `NoSuchVersion` or `OSError`.
        `tell`: takes the line of a signed head that goes to stderr."""
        self._policy = policy
        self._bundle_of = bundle_of
        self._value_of = value_of
        self._tell = tell
        self._writing: ChainWriting | None = None
        self._ended: list[ChainWriting] = []
        """Those of earlier rules, which wait for the end of their requests."""
        self._begun: dict[str, ChainWriting] = {}
        """By request, the chain that has its beginning."""
        self._lost_before = 0

    @property
    def status(self) -> Mapping[str, object]:
        """For an operator; empty without a trail."""
        writing = self._writing
        if writing is None:
            return {}
        return {"audit_problem": writing.problem, "audit_records_lost": self._lost_before + writing.lost}

    def start(self) -> None:
        """In the process that serves."""
        self.update(self._policy)

    def update(self, policy: Policy) -> None:
        """From now on `policy` says where the trail is. Nothing is waited for."""
        self._policy = policy
        before = self._writing
        if policy.audit == (before.settings if before is not None else None):
            return
        if before is not None:
            self._lost_before += before.lost
            before.end("the rules have another trail" if policy.audit is not None else "the rules have none")
            self._ended = [*(one for one in self._ended if one.is_alive), before]
        self._writing = None
        if policy.audit is not None:
            self._writing = ChainWriting(policy.audit, self._started, self._value_of, self._tell)
            self._writing.start()

    def close(self) -> None:
        """Every request is over."""
        if self._writing is not None:
            self._writing.end("the server stopped")
        for writing in (*self._ended, *([self._writing] if self._writing is not None else [])):
            writing.join()
        self._writing = None

    def _started(self, writer: str) -> Started:
        version = self._policy.version
        return Started(
            at=now(),
            writer=writer,
            process=os.getpid(),
            routeproxy=routeproxy.__version__,
            version=version,
            rules_sha256=self._kept(version),
        )

    def _kept(self, version: str) -> str | None:
        """Keeps a version of the rules; the hash of its file."""
        if self._policy.audit is None:
            return None
        try:
            return KeptVersions(Path(self._policy.audit.path)).keep(self._bundle_of(version))
        except (NoSuchVersion, OSError) as error:
            log.error("version %s of the rules is not kept for the audit trail: %s", version, error)
            return None

    # --- requests

    def begin(self, exchange: Exchange) -> None:
        """Before anybody is asked. Raises `ApiError` where that must not be without a record."""
        writing, decision, facts = self._writing, exchange.decision, exchange.facts
        if writing is None or decision is None or facts is None:
            return
        inbound = exchange.inbound
        record = Begun(
            at=now(),
            id=exchange.request_id,
            version=exchange.policy.version,
            team=inbound.team,
            key=inbound.key_name,
            rule=decision.rule,
            denied=decision.deny is not None,
            targets=tuple(target.name for target in decision.targets),
            facts=recorded_facts(facts, exchange.policy),
        )
        if writing.add(record):
            self._begun[exchange.request_id] = writing
            writing.open_requests += 1
        elif writing.settings.on_failure == "refuse":
            raise ApiError(503, "the audit trail can't be written, so nobody was asked", type="api_error")

    def request_done(self, exchange: Exchange) -> None:
        writing = self._begun.pop(exchange.request_id, None)
        if writing is None:
            return
        record = Ended(
            at=now(),
            id=exchange.request_id,
            contacts=tuple(_contacts(exchange)),
            status=exchange.status,
            error=exchange.error,
            client_left=exchange.client_left,
        )
        writing.add(record)
        writing.open_requests -= 1

    # --- the rules, and who changes or looks at what

    def reload_succeeded(self, before: Policy, after: Policy) -> None:
        if self._writing is not None and before.version != after.version:
            sha256 = self._kept(after.version)
            self._writing.add(
                Reloaded(at=now(), before=before.version, version=after.version, rules_sha256=sha256)
            )

    def reload_failed(self, in_force: Policy, problem: str) -> None:
        if self._writing is not None:
            self._writing.add(ReloadRefused(at=now(), version=in_force.version, problem=problem))

    def admin_action(self, action: str, key_name: str | None, outcome: str) -> None:
        if self._writing is not None:
            self._writing.add(AdminActed(at=now(), action=action, key=key_name, outcome=outcome))


def _contacts(exchange: Exchange) -> Iterator[Contact]:
    for attempt in (*exchange.attempts, *([exchange.safeguards] if exchange.safeguards else [])):
        target = attempt.target
        (reached, *_) = target.reached
        yield Contact(
            provider=target.provider.name,
            model=target.model,
            zone=reached.zone,
            region=reached.region,
            purpose=attempt.purpose,
            outcome=_outcome(attempt),
        )


def _outcome(attempt: AttemptRecord) -> str:
    return attempt.failure or ("let_go" if attempt.let_go else "ok")
