"""The audit trail of one process: a gate before the first connection of each request, and an observer of all
that is recorded besides."""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

import routeproxy
from routeproxy.audit.chain import Chain, chains_in, is_being_written, last_place
from routeproxy.audit.records import (
    AdminActed,
    AnyRecord,
    Begun,
    Contact,
    Ended,
    Head,
    Place,
    Reloaded,
    ReloadRefused,
    SignedHead,
    Started,
    Stopped,
)
from routeproxy.audit.versions import KeptVersions
from routeproxy.exchange import AttemptRecord, Exchange
from routeproxy.messages.errors import ApiError
from routeproxy.observe import Observer
from routeproxy.policy.audit import AuditSettings
from routeproxy.policy.decide import Policy
from routeproxy.policy.live.versions import Bundle, NoSuchVersion
from routeproxy.policy.logged import recorded_facts
from routeproxy.policy.secrets import Secret
from routeproxy.telemetry.decisions import now

if TYPE_CHECKING:  # whoever keeps no trail has no use for these: they take megabytes
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from routeproxy.audit.signing import Anchor

log = logging.getLogger("routeproxy.audit")

ValueOf = Callable[[Secret], str | None]
ENDED_LATELY = 86_400.0
"""Seconds since the last line of a chain for which others still name its head."""
POST_SECONDS = 10.0
MOST_UNSENT = 1000
"""Signed heads that wait for the address they are posted to."""
TRY_AGAIN = 1.0
"""Seconds before a chain that could not be begun is tried anew."""


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


def signing_key(settings: AuditSettings, value_of: ValueOf) -> "Ed25519PrivateKey":
    """Raises `ValueError`."""
    from routeproxy.audit.signing import private_key_in

    reference = settings.signing_key.reference
    value = value_of(settings.signing_key)
    if value is None:
        raise ValueError(f"[audit] signing_key {reference} is not set, or not there")
    try:
        return private_key_in(value)
    except ValueError as problem:
        hint = "`routeproxy audit new-key FILE` makes one"
        raise ValueError(f"[audit] signing_key {reference}: {problem}; {hint}") from None


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
        self._settings: AuditSettings | None = None
        self._chain: Chain | None = None
        self._tried_at = -TRY_AGAIN
        self._begun: set[str] = set()
        self._problem: str | None = None
        self.lost = 0
        """Records that are in no chain."""
        self._untold_losses = 0
        self._signed = Place(0, "")
        """What was signed last."""
        self._unsent: list[Anchor] = []
        self._is_closed = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def status(self) -> Mapping[str, object]:
        """For an operator; empty without a trail."""
        if self._settings is None:
            return {}
        return {"audit_problem": self._problem, "audit_records_lost": self.lost}

    def start(self) -> None:
        """In the process that serves."""
        self.update(self._policy)

    def update(self, policy: Policy) -> None:
        """From now on `policy` says where the trail is."""
        self._policy = policy
        if policy.audit == self._settings:
            return
        self._end("the rules say another place" if policy.audit is not None else "the rules ended the trail")
        self._settings = policy.audit
        if self._settings is not None:
            self._is_closed = threading.Event()
            self._add_started()
            self._thread = threading.Thread(
                target=self._anchor_all, args=(self._settings, self._is_closed), name="audit", daemon=True
            )
            self._thread.start()

    def close(self) -> None:
        self._end("the server stopped")

    def _end(self, reason: str) -> None:
        if self._settings is None:
            return
        self._is_closed.set()
        if self._thread is not None:
            self._thread.join(POST_SECONDS)
        if self._chain is not None:
            self._add(Stopped(at=now(), reason=reason))
            self._anchor(self._settings)
            self._chain.close()
        self._chain, self._settings = None, None
        self._signed = Place(0, "")

    # --- requests

    def begin(self, exchange: Exchange) -> None:
        """Before anybody is asked. Raises `ApiError` where that must not be without a record."""
        settings, decision, facts = self._settings, exchange.decision, exchange.facts
        if settings is None or decision is None or facts is None:
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
        if self._add(record):
            self._begun.add(exchange.request_id)
        elif settings.on_failure == "refuse":
            raise ApiError(503, "the audit trail can't be written, so nobody was asked", type="api_error")

    def request_done(self, exchange: Exchange) -> None:
        if exchange.request_id not in self._begun:
            return
        self._begun.discard(exchange.request_id)
        self._add(
            Ended(
                at=now(),
                id=exchange.request_id,
                contacts=tuple(_contacts(exchange)),
                status=exchange.status,
                error=exchange.error,
                client_left=exchange.client_left,
            )
        )

    # --- the rules, and who changes or looks at what

    def reload_succeeded(self, before: Policy, after: Policy) -> None:
        if self._settings is not None and before.version != after.version:
            sha256 = self._kept(after.version)
            self._add(Reloaded(at=now(), before=before.version, version=after.version, rules_sha256=sha256))

    def reload_failed(self, in_force: Policy, problem: str) -> None:
        if self._settings is not None:
            self._add(ReloadRefused(at=now(), version=in_force.version, problem=problem))

    def admin_action(self, action: str, key_name: str | None, outcome: str) -> None:
        if self._settings is not None:
            self._add(AdminActed(at=now(), action=action, key=key_name, outcome=outcome))

    # --- the chain

    def _add_started(self) -> None:
        settings = self._settings
        if settings is None or time.monotonic() < self._tried_at + TRY_AGAIN:
            return
        self._tried_at = time.monotonic()
        try:
            chain = Chain(Path(settings.path))
        except OSError as error:
            self._note_problem(f"{settings.path}: {error.strerror}")
            return
        version = self._policy.version
        started = Started(
            at=now(),
            writer=chain.writer,
            process=os.getpid(),
            routeproxy=routeproxy.__version__,
            version=version,
            rules_sha256=self._kept(version),
        )
        self._chain = chain
        self._add(started)

    def _kept(self, version: str) -> str | None:
        """Keeps a version of the rules; the hash of its file."""
        assert self._settings is not None
        try:
            return KeptVersions(Path(self._settings.path)).keep(self._bundle_of(version))
        except (NoSuchVersion, OSError) as error:
            log.error("version %s of the rules is not kept for the audit trail: %s", version, error)
            return None

    def _add(self, record: AnyRecord) -> bool:
        """Whether it is written."""
        if self._chain is None:
            self._add_started()
        if self._chain is not None:
            record.lost = self._untold_losses
            try:
                self._chain.add(record)
            except OSError as error:
                self._note_problem(f"{self._chain.path}: {error.strerror}")
            else:
                self._untold_losses = 0
                if self._problem is not None:
                    log.warning("the audit trail is written again; %d records were lost", self.lost)
                    self._problem = None
                return True
        self.lost += 1
        self._untold_losses += 1
        return False

    def _note_problem(self, problem: str) -> None:
        if self._problem is None:
            log.error("the audit trail can't be written: %s", problem)
        self._problem = problem

    # --- signed heads, in a thread of their own

    def _anchor_all(self, settings: AuditSettings, is_closed: threading.Event) -> None:
        while not is_closed.wait(settings.anchor_every):
            try:
                self._anchor(settings)
            except Exception:
                log.exception("no head was signed: this is a bug in routeproxy")

    def _anchor(self, settings: AuditSettings) -> None:
        """Signs what was added since, and tells it."""
        from routeproxy.audit.signing import signed

        chain, anchor = self._chain, None
        if chain is not None and chain.place.n > self._signed.n:
            try:
                key, others = signing_key(settings, self._value_of), self._others(chain)

                def sign(place: Place) -> SignedHead:
                    nonlocal anchor
                    anchor = signed(Head(writer=chain.writer, at=now(), own=place, others=others), key)
                    return SignedHead(at=now(), head=anchor.audit_head, signature=anchor.signature)

                self._signed = chain.add_made(sign)
                chain.sync()
            except (OSError, ValueError) as error:
                log.error("no head of the audit trail is signed: %s", error)
                return
            if anchor is not None:
                self._unsent = [*self._unsent, anchor][-MOST_UNSENT:]
        if settings.anchors == "stderr":
            for anchor in self._unsent:
                with suppress(OSError, ValueError):
                    self._tell(msgspec.json.encode(anchor) + b"\n")
            self._unsent = []
        elif self._unsent:
            self._post(settings.anchors)

    def _others(self, own: Chain) -> dict[str, Place]:
        """The heads of the chains that are being written, and of those that ended lately."""
        found = {}
        for path in chains_in(own.path.parent):
            with suppress(OSError):
                is_late = path.stat().st_mtime > time.time() - ENDED_LATELY
                is_named = path != own.path and (is_late or is_being_written(path))
                if is_named and (place := last_place(path)) is not None:
                    found[path.stem] = place
        return found

    def _post(self, address: str) -> None:
        import httpx

        try:
            with httpx.Client(timeout=POST_SECONDS) as client:
                while self._unsent:
                    client.post(
                        address,
                        content=msgspec.json.encode(self._unsent[0]) + b"\n",
                        headers={"content-type": "application/json"},
                    ).raise_for_status()
                    self._unsent = self._unsent[1:]
        except httpx.HTTPError as error:
            words = "%d signed heads wait: the address of `[audit] anchors` does not take them (%s)"
            log.error(words, len(self._unsent), type(error).__name__)


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
