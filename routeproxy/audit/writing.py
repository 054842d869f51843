"""A chain while its process writes it: records of whoever calls, and every so often a signed head, in a
thread of its own."""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from routeproxy.audit.chain import Chain, chains_in, is_being_written, last_place
from routeproxy.audit.records import AnyRecord, Head, Place, SignedHead, Started, Stopped
from routeproxy.policy.audit import AuditSettings
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
LAST_REQUESTS = 60.0
"""Seconds for which a chain that other rules have ended waits for the end of its requests."""


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


class ChainWriting:
    def __init__(
        self,
        settings: AuditSettings,
        started: Callable[[str], Started],
        value_of: ValueOf,
        tell: Callable[[bytes], object],
    ) -> None:
        """`started`: the first record of a chain of this name. `tell`: takes the line of a signed head that
        goes to stderr."""
        self.settings = settings
        self.open_requests = 0
        """Whose beginning is in the chain, and whose end is not."""
        self.problem: str | None = None
        """Why nothing can be written; `None`: it can."""
        self.lost = 0
        """Records that are in no chain."""
        self._started = started
        self._value_of = value_of
        self._tell = tell
        self._chain: Chain | None = None
        self._tried_at = -TRY_AGAIN
        self._untold_losses = 0
        self._signed = Place(0, "")
        """What was signed last."""
        self._unsent: list[Anchor] = []
        self._reason = ""
        self._is_ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)

    def start(self) -> None:
        self._begin()
        self._thread.start()

    def end(self, reason: str) -> None:
        """The chain ends once its requests are over. Returns at once."""
        self._reason = reason
        self._is_ended.set()

    def join(self) -> None:
        """Until the last head is told, or not for long."""
        self._thread.join(POST_SECONDS)

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def add(self, record: AnyRecord) -> bool:
        """Whether it is written. May be called in any thread."""
        if self._chain is None:
            self._begin()
        if self._chain is not None:
            record.lost = self._untold_losses
            try:
                self._chain.add(record)
            except OSError as error:
                self._note_problem(f"{self._chain.path}: {error.strerror}")
            else:
                self._untold_losses = 0
                if self.problem is not None:
                    log.warning("the audit trail is written again; %d records were lost", self.lost)
                    self.problem = None
                return True
        self.lost += 1
        self._untold_losses += 1
        return False

    def _begin(self) -> None:
        if time.monotonic() < self._tried_at + TRY_AGAIN:
            return
        self._tried_at = time.monotonic()
        try:
            chain = Chain(Path(self.settings.path))
        except OSError as error:
            self._note_problem(f"{self.settings.path}: {error.strerror}")
            return
        self._chain = chain
        self.add(self._started(chain.writer))

    def _note_problem(self, problem: str) -> None:
        if self.problem is None:
            log.error("the audit trail can't be written: %s", problem)
        self.problem = problem

    # --- the thread

    def _run(self) -> None:
        while not self._is_ended.wait(self.settings.anchor_every):
            self._anchor_safely()
        until = time.monotonic() + LAST_REQUESTS
        while self.open_requests and time.monotonic() < until:
            time.sleep(0.05)
        if self._chain is not None:
            self.add(Stopped(at=now(), reason=self._reason))
            self._anchor_safely()
            self._chain.close()

    def _anchor_safely(self) -> None:
        try:
            self._anchor()
        except Exception:
            log.exception("no head was signed: this is a bug in routeproxy")

    def _anchor(self) -> None:
        """Signs what was added since, and tells it."""
        from routeproxy.audit.signing import signed

        chain, anchor = self._chain, None
        if chain is not None and chain.place.n > self._signed.n:
            try:
                key, others = signing_key(self.settings, self._value_of), _others(chain)

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
        if self.settings.anchors == "stderr":
            for anchor in self._unsent:
                with suppress(OSError, ValueError):
                    self._tell(msgspec.json.encode(anchor) + b"\n")
            self._unsent = []
        elif self._unsent:
            self._post(self.settings.anchors)

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


def _others(own: Chain) -> dict[str, Place]:
    """The heads of the chains that are being written, and of those that ended lately."""
    found = {}
    for path in chains_in(own.path.parent):
        with suppress(OSError):
            is_late = path.stat().st_mtime > time.time() - ENDED_LATELY
            is_named = path != own.path and (is_late or is_being_written(path))
            if is_named and (place := last_place(path)) is not None:
                found[path.stem] = place
    return found
