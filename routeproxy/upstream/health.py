"""What a server remembers of failing targets and keys, over all its workers: a circuit breaker for each.

A target counts as failing by what is its own fault, a key by what is the key's; a request that nobody could
have answered, and a client that left, count for nothing. What is remembered reorders and skips within what
the rules decided; it never adds a target.

    closed ──5 failures in a row, or half of 20──▶ open ──the cooldown is over──▶ half-open
      ▲                                             ▲                                │
      └────────────── an answer ────────────────────┼────────────────────────────────┤
                                                    └── another failure, twice the time
"""

import ctypes
import logging
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast, get_args

from routeproxy.exchange import Exchange
from routeproxy.policy.decide import FailureKind
from routeproxy.policy.explain import HEALTHY
from routeproxy.policy.health import HealthSettings
from routeproxy.policy.providers import Provider
from routeproxy.policy.targets import Target
from routeproxy.shared_records import Record, SharedRecords
from routeproxy.upstream.failures import KEY_FAILURES, Kind, UpstreamFailure

log = logging.getLogger("routeproxy.upstream.health")

KINDS: tuple[FailureKind, ...] = get_args(FailureKind)

ONLY_IN_SHARE: frozenset[Kind] = frozenset({"timeout_first_token", "timeout_idle"})
"""Failures of a target that count in its share, not in a row: some requests take long wherever they go."""
OF_TARGET: frozenset[Kind] = ONLY_IN_SHARE | {"connection", "timeout_connect", "server_error", "overloaded"}
"""Failures of a target."""
BUCKETS = 6
"""Into which the window of the share is divided: it moves by one of them at a time."""
PROBE_SECONDS = 60.0
"""How long the first request after a cooldown has the target for itself. If it isn't over by then, whoever
sent it may be gone, and another has its turn."""
CIRCUITS = 1024
"""Targets and keys that are remembered at once, 300 bytes each."""


class Bucket(ctypes.Structure):
    """What happened in one part of the window."""

    _fields_ = (("number", ctypes.c_uint64), ("answers", ctypes.c_uint32), ("failures", ctypes.c_uint32))

    number: int
    answers: int
    failures: int


class Sessions(ctypes.Structure):
    """The last two sessions that something happened to, and when."""

    _fields_ = (("ids", ctypes.c_uint64 * 2), ("at", ctypes.c_double * 2))

    ids: "ctypes.Array[ctypes.c_uint64]"
    at: "ctypes.Array[ctypes.c_double]"

    def add(self, session: int, now: float) -> None:
        place = 0 if self.ids[0] == session else 1 if self.ids[1] == session else 0
        if self.ids[place] != session and self.at[1] < self.at[0]:
            place = 1
        self.ids[place], self.at[place] = session, now

    def several(self, since: float) -> bool:
        return self.at[0] >= since and self.at[1] >= since


class CircuitRecord(Record):
    _fields_ = (
        ("in_a_row", ctypes.c_uint32),
        ("kind", ctypes.c_uint8),
        ("is_open", ctypes.c_bool),
        ("is_limited", ctypes.c_bool),
        ("cooldown", ctypes.c_double),
        ("open_until", ctypes.c_double),
        ("probe_until", ctypes.c_double),
        ("row_began_at", ctypes.c_double),
        ("asked", Sessions),
        ("failed", Sessions),
        ("buckets", Bucket * BUCKETS),
    )

    in_a_row: int
    """Failures since the last answer."""
    kind: int
    """The place in `KINDS` of the failure that opened it."""
    is_open: bool
    """Until an answer comes, also once the cooldown is over."""
    is_limited: bool
    """It is open for the time that the back end named, and then closed without a trial."""
    cooldown: float
    open_until: float
    probe_until: float
    """In the future: one request is finding out whether the target answers again."""
    row_began_at: float
    asked: Sessions
    failed: Sessions
    buckets: "ctypes.Array[Bucket]"


def circuit_records(*, shared: bool) -> SharedRecords[CircuitRecord]:
    return SharedRecords(CircuitRecord, CIRCUITS, shared=shared)


class Cooling(NamedTuple):
    """Why a target is left alone, and for how long."""

    kind: FailureKind
    seconds: float
    """0 where it is being tried again."""
    is_probed: bool = False
    """One request is finding out whether it answers again; others don't wait for that."""

    def __str__(self) -> str:
        if self.is_probed:
            return f"being tried again after {self.kind}"
        return f"cooling down for {self.seconds:.0f} s after {self.kind}"


class Circuit:
    """What is known of one target, or of one key, as one attempt looks at it and adds to it."""

    def __init__(
        self,
        name: str,
        record: CircuitRecord,
        records: SharedRecords[CircuitRecord],
        settings: HealthSettings,
        now: Callable[[], float],
    ) -> None:
        """`name`: what the log calls it. `record` is one of `records`."""
        self._name = name
        self._record = record
        self._records = records
        self._settings = settings
        self._now = now
        self._is_probe = False
        """This attempt is the one that finds out."""

    def cooling(self) -> Cooling | None:
        """`None`: it may be asked, by whoever gets `claim`."""
        record = self._record
        if not record.is_open:
            return None
        now = self._now()
        left = max(0.0, record.open_until - now)
        is_probed = record.probe_until > now
        return Cooling(KINDS[record.kind], left, is_probed) if left or is_probed else None

    def ok(self) -> bool:
        return self.cooling() is None

    def claim(self) -> bool:
        """Whether this attempt may ask. Of those that ask a failing target when, or before, its cooldown is
        over, one does at a time: until `record` or `let_go`."""
        record = self._record
        if not record.is_open or (record.is_limited and self.ok()):
            return True
        with self._records.locked():
            now = self._now()
            if record.probe_until > now:
                return False
            record.probe_until, self._is_probe = now + PROBE_SECONDS, True
            return True

    def let_go(self) -> None:
        """The attempt came to nothing that says anything of the target."""
        if self._is_probe:
            self._record.probe_until, self._is_probe = 0.0, False

    def record(self, kind: Kind | None, session: int, retry_after: float | None = None) -> None:
        """An answer (`None`), or a failure of the target's or the key's own. `retry_after`: how long the back
        end wants to be left alone, in seconds."""
        record = self._record
        with self._records.locked():
            now = self._now()
            record.asked.add(session, now)
            of_probe = self._is_probe
            self.let_go()
            if kind is None:
                self._bucket(now).answers += 1
                self._close(now, of_probe=of_probe)
            else:
                self._bucket(now).failures += 1
                record.failed.add(session, now)
                self._fail(kind, now, min(retry_after or 0.0, self._settings.max_cooldown))

    def _close(self, now: float, *, of_probe: bool) -> None:
        record = self._record
        record.in_a_row = 0
        if not record.is_open or (now < record.open_until and not of_probe):
            return  # an answer to what was asked earlier, or one of the half that are answered
        record.is_open, record.cooldown = False, 0.0
        if not record.is_limited:
            log.warning("%s answers again", self._name)

    def _fail(self, kind: Kind, now: float, wait: float) -> None:
        record, settings = self._record, self._settings
        if kind not in ONLY_IN_SHARE:
            record.row_began_at = record.row_began_at if record.in_a_row else now
            record.in_a_row += 1
        if kind == "rate_limit" and wait:
            self._open(kind, now, wait, "a limit")
            record.is_limited = True
        elif record.is_open and not record.is_limited:
            if now >= record.open_until:  # else it was asked before its time, or is an older request
                record.cooldown = min(record.cooldown * 2, settings.max_cooldown)
                self._open(kind, now, max(record.cooldown, wait), "another failure")
        elif why := self._reason_to_open(now):
            record.cooldown, record.is_limited = settings.cooldown, False
            self._open(kind, now, max(record.cooldown, wait), why)

    def _open(self, kind: Kind, now: float, seconds: float, why: str) -> None:
        record = self._record
        if record.is_open and record.is_limited:
            record.open_until = max(record.open_until, now + seconds)
        else:
            record.open_until = now + seconds
            log.warning("%s cools down for %.3g s after %s (%s)", self._name, seconds, why, kind)
        record.is_open, record.kind = True, KINDS.index(cast(FailureKind, kind))

    def _reason_to_open(self, now: float) -> str | None:
        """One conversation that a back end fails at is no reason, where others ask it too."""
        record, settings = self._record, self._settings
        since = now - settings.window
        alone = not record.asked.several(since)
        if record.in_a_row >= settings.failures and (alone or record.failed.several(record.row_began_at)):
            return f"{record.in_a_row} failures in a row"
        answers, failures = self._counts(now)
        total = answers + failures
        several = alone or record.failed.several(since)
        if several and total >= settings.minimum and failures >= settings.ratio * total:
            return f"{failures} failures in {total} attempts"
        return None

    def _bucket(self, now: float) -> Bucket:
        number = self._number(now)
        bucket = self._record.buckets[number % BUCKETS]
        if bucket.number != number:
            bucket.number, bucket.answers, bucket.failures = number, 0, 0
        return bucket

    def _counts(self, now: float) -> tuple[int, int]:
        """The answers and the failures in the window."""
        oldest = self._number(now) - BUCKETS + 1
        buckets = [bucket for bucket in self._record.buckets if bucket.number >= oldest]
        return sum(bucket.answers for bucket in buckets), sum(bucket.failures for bucket in buckets)

    def _number(self, now: float) -> int:
        return int(now * BUCKETS / self._settings.window)


FindRecord = Callable[[int], CircuitRecord]
"""By its number."""


class Health:
    """What is known of all targets and keys."""

    def __init__(
        self, records: SharedRecords[CircuitRecord], now: Callable[[], float] = time.monotonic
    ) -> None:
        self._records = records
        self._now = now

    def attempt(self, target: Target, key: str | None, session: int) -> "AttemptHealth":
        find = self._records.find
        return AttemptHealth(self._of_target(target, find), self._of_key(target.provider, key, find), session)

    def words(self, target: Target, keys: Sequence[str]) -> str:
        """In words, for people. To look leaves nothing behind, and takes nobody's place."""
        circuits = [self._of_key(target.provider, key, self._look) for key in keys or (None,)]
        limits = [circuit.cooling() if circuit is not None else None for circuit in circuits]
        of_target = self._of_target(target, self._look)
        cooling = of_target.cooling() if of_target is not None else None
        if cooling is None and None not in limits:  # no key can be asked with
            cooling = min((limit for limit in limits if limit is not None), key=lambda one: one.seconds)
        return str(cooling) if cooling is not None else HEALTHY

    def words_of_key(self, provider: Provider, key: str | None) -> str:
        """The same of a key alone."""
        circuit = self._of_key(provider, key, self._look)
        cooling = circuit.cooling() if circuit is not None else None
        return str(cooling) if cooling is not None else HEALTHY

    def _look(self, id: int) -> CircuitRecord:
        return self._records.get(id) or CircuitRecord(id)

    def _of_target(self, target: Target, find: FindRecord) -> Circuit | None:
        """`None`: nobody wants it to be remembered."""
        return self._circuit(target.name, target.provider, find, "target", target.model)

    def _of_key(self, provider: Provider, key: str | None, find: FindRecord) -> Circuit | None:
        """`None` also where each client shows its own key."""
        if provider.client_key:
            return None
        name = f"a key of {provider.name}" if key else provider.name
        return self._circuit(name, provider, find, "key", key or "")

    def _circuit(
        self, name: str, provider: Provider, find: FindRecord, kind: str, what: str
    ) -> Circuit | None:
        if provider.health is None:
            return None
        id = self._records.id_of(kind, provider.name, provider.base_url or "", what)
        return Circuit(name, find(id), self._records, provider.health, self._now)

    def session(self, exchange: Exchange) -> int:
        """The number of the session that a request belongs to. Where it names none, whoever asks counts as
        one."""
        facts, caller = exchange.facts, exchange.inbound.caller
        session = facts.session_id if facts is not None else None
        names = ("session", session) if session else ("caller", *(str(name) for name in caller))
        return self._records.id_of(*names)


class AttemptHealth:
    """What one attempt is told of its target and its key, and what it adds to that."""

    def __init__(self, target: Circuit | None, key: Circuit | None, session: int) -> None:
        self._target = target
        self._key = key
        self._session = session

    def cooling(self) -> Cooling | None:
        """Why this target had better be left alone."""
        for circuit in (self._target, self._key):
            if circuit is not None and (cooling := circuit.cooling()) is not None:
                return cooling
        return None

    def target_cooling(self) -> Cooling | None:
        """The same of the target alone, whatever the key."""
        return self._target.cooling() if self._target is not None else None

    def seconds_to_wait_for_key(self) -> float:
        cooling = self._key.cooling() if self._key is not None else None
        return cooling.seconds if cooling is not None else 0.0

    def claim(self) -> bool:
        """As of `Circuit`."""
        if self._target is not None and not self._target.claim():
            return False
        if self._key is not None and not self._key.claim():
            self.let_go()
            return False
        return True

    def answered(self) -> None:
        """The first content is there."""
        for circuit in (self._target, self._key):
            if circuit is not None:
                circuit.record(None, self._session)

    def failed(self, failure: UpstreamFailure) -> None:
        """Before the first content or after it."""
        of_key = failure.kind in KEY_FAILURES
        blamed = self._key if of_key else self._target
        if blamed is not None and failure.blames_target and (of_key or failure.kind in OF_TARGET):
            blamed.record(failure.kind, self._session, failure.retry_after)
        self.let_go()

    def let_go(self) -> None:
        for circuit in (self._target, self._key):
            if circuit is not None:
                circuit.let_go()
