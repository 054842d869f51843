"""Whether a trail is what was written: every line holds on to the one before, and signed heads to the lines
that they name."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from msgspec import Struct

from routeproxy.audit.chain import chains_in, is_being_written, lines_of
from routeproxy.audit.records import (
    NOTHING_BEFORE,
    AnyRecord,
    Begun,
    Ended,
    Head,
    Place,
    Reloaded,
    SignedHead,
    Started,
    Stopped,
    hash_of,
    record_in,
)
from routeproxy.audit.signing import Anchor, ForgedHead, verified
from routeproxy.audit.versions import KeptVersions
from routeproxy.policy.live.versions import NoSuchVersion

Severity = Literal["broken", "open", "unseen"]
"""The trail was tampered with; a record is without its other; what nobody can tell by what is here."""

MOST_NAMED = 10
"""Requests without an end that are named."""


class Finding(Struct, frozen=True, kw_only=True):
    severity: Severity
    where: str
    """`audit/20261201T…jsonl:12`"""
    words: str


class Verification(Struct, kw_only=True):
    findings: list[Finding] = []
    chains: int = 0
    records: int = 0
    requests: int = 0
    lost: int = 0
    """Records that could not be written when they were due, as the trail itself says."""
    heads: int = 0
    """Signed heads that hold."""

    @property
    def is_whole(self) -> bool:
        return not any(finding.severity == "broken" for finding in self.findings)


def verify(
    folder: Path,
    keys: Iterable[Ed25519PublicKey] = (),
    anchors: Iterable[tuple[str, Anchor]] | None = None,
) -> Verification:
    """`keys`: the public keys that may have signed; without any, no head is looked at. `anchors`: signed
    heads from outside, each with its place; `None`: there are none. Raises `OSError`."""
    return _Verifier(folder, list(keys)).run(anchors)


class _Verifier:
    def __init__(self, folder: Path, keys: list[Ed25519PublicKey]) -> None:
        self._folder = folder
        self._keys = keys
        self._result = Verification(findings=[])
        self._anchored: dict[str, dict[int, tuple[str, str]]] = {}
        """By chain and number, the hash that a signed head names, an anchor or one in a chain, and where."""

    def run(self, anchors: Iterable[tuple[str, Anchor]] | None) -> Verification:
        paths = {path.stem: path for path in chains_in(self._folder)}
        if not paths:
            self._note("broken", str(self._folder), "there is no chain in this folder")
        for where, anchor in anchors or ():
            self._read_anchor(where, anchor)
        # What lies outside of their reach counts as vouched for only by these.
        outside = {writer: max(places) for writer, places in self._anchored.items()}
        for path in paths.values() if self._keys else ():
            self._read_heads(path)
        for writer, path in paths.items():
            last = None if anchors is None else outside.get(writer, 0)
            self._read_chain(writer, path, last_anchored=last)
        for writer, places in self._anchored.items():
            if writer not in paths:
                number, (_, where) = max(places.items())
                words = f"the chain {writer} is missing: {where} names its record {number}"
                self._note("broken", str(self._folder), words)
        self._note_what_is_unseen(anchors)
        return self._result

    def _note_what_is_unseen(self, anchors: object) -> None:
        where = str(self._folder)
        if not self._keys:
            words = "without a public key nobody can tell whether a chain was written anew from some line on"
            self._note("unseen", where, words)
        elif anchors is None:
            words = "without --anchors nobody can tell what stood behind the last signed head of each chain"
            self._note(
                "unseen", where, f"{words}, nor whether the chains that named another are gone with it"
            )

    def _note(self, severity: Severity, where: str, words: str) -> None:
        self._result.findings.append(Finding(severity=severity, where=where, words=words))

    def _verified(self, head: Anchor | SignedHead) -> Head:
        for key in self._keys:
            try:
                return verified(head, key)
            except ForgedHead:
                continue
        raise ForgedHead("none of the public keys signed it")

    def _read_anchor(self, where: str, anchor: Anchor) -> None:
        try:
            head = self._verified(anchor)
        except ForgedHead as forged:
            self._note("broken", where, f"a forged head: {forged}")
            return
        self._result.heads += 1
        self._note_places({head.writer: head.own, **head.others}, where)

    def _note_places(self, places: Mapping[str, Place], where: str) -> None:
        for writer, place in places.items():
            known = self._anchored.setdefault(writer, {}).setdefault(place.n, (place.hash, where))
            if known[0] != place.hash:
                words = f"two signed heads name different records {place.n} of {writer}: see {known[1]}"
                self._note("broken", where, words)

    def _read_heads(self, path: Path) -> None:
        """What the heads in a chain say of the other chains. Those that are forged are found later."""
        for number, line, _ in lines_of(path):
            if line.startswith(b'{"kind":"head"'):
                with suppress(ValueError):
                    if isinstance(record := record_in(line), SignedHead):
                        self._note_places(self._verified(record).others, f"{path}:{number}")

    def _read_chain(self, writer: str, path: Path, *, last_anchored: int | None) -> None:
        """`last_anchored`: the last record that a head from outside vouches for; `None`: there are none."""
        self._result.chains += 1
        chain = _ChainReader(path, self._anchored.get(writer, {}), self._verified if self._keys else None)
        for finding in chain.read():
            self._result.findings.append(finding)
        self._result.records += chain.records
        self._result.requests += chain.requests
        self._result.lost += chain.lost
        self._result.heads += chain.heads
        for number, (version, sha256) in chain.versions.items():
            try:
                KeptVersions(self._folder).bundle(version, sha256)
            except NoSuchVersion as missing:
                self._note("broken", f"{path}:{number}", str(missing))
        lives = is_being_written(path)
        if chain.begun and not lives:
            named = ", ".join(list(chain.begun)[:MOST_NAMED])
            more = f" and {len(chain.begun) - MOST_NAMED} more" if len(chain.begun) > MOST_NAMED else ""
            words = f"requests without an end, since their process did not live to see it: {named}{more}"
            self._note("open", str(path), words)
        if chain.lost:
            words = f"{chain.lost} records could not be written when they were due, as the chain itself says"
            self._note("open", str(path), words)
        last = chain.signed if last_anchored is None else last_anchored
        # The record of a signed head itself stands behind what it signs.
        behind = chain.records - last - (1 if chain.signed_place == last + 1 else 0)
        if behind > 0 and self._keys:
            by = "signed head" if last_anchored is None else "anchor"
            words = f"the last {behind} records are behind the last {by}: nobody vouches for them"
            self._note("unseen", str(path), words)


class _ChainReader:
    """Goes through one file."""

    def __init__(
        self,
        path: Path,
        anchored: Mapping[int, tuple[str, str]],
        verified_by: Callable[[SignedHead], Head] | None,
    ) -> None:
        self._path = path
        self._anchored = anchored
        self._verified = verified_by
        self.records = self.requests = self.lost = self.heads = 0
        self.signed = 0
        """The last record that a head in this chain signs."""
        self.signed_place = 0
        """The record that this head is."""
        self.has_stopped = False
        self.begun: dict[str, int] = {}
        """Requests that have no end so far, with the number of their beginning."""
        self.versions: dict[int, tuple[str, str]] = {}
        self._before = Place(0, NOTHING_BEFORE)

    def read(self) -> Iterator[Finding]:
        """Up to the first line that does not hold: what follows it hangs in the air."""
        seen = dict(self._anchored)
        lines = _with_next(lines_of(self._path))
        for (number, line, is_whole), after in lines:
            where = f"{self._path}:{number}"
            try:
                record = record_in(line)
            except ValueError:
                if not is_whole and is_being_written(self._path):
                    return  # it is being written
                yield self._broken(where, "this line is no record: it was changed, or torn")
                return
            if problem := self._problem(number, record, line):
                yield self._broken(where, problem)
                return
            digest = hash_of(line)
            if (anchor := seen.pop(number, None)) is not None and anchor[0] != digest:
                since = f"{self._path}:{self.signed + 1}" if self.signed + 1 < number else where
                words = f"{anchor[1]} names another record {number}: this line was changed, or one before it"
                yield self._broken(
                    since, words if since == where else f"between here and line {number}, {words}"
                )
                return
            if after is not None and self._is_changed(number, digest, *after):
                yield self._broken(where, f"it was changed: line {number + 1} holds on to another one")
                return
            self._before = Place(number, digest)
            if faults := [*self._take(record, where)]:
                yield from faults
                return
            self.records = number
        if seen:
            last = max(seen)
            words = f"the end is cut off: {seen[last][1]} names record {last}, and the last here is"
            yield self._broken(f"{self._path}:{self.records + 1}", f"{words} {self.records}")

    def _is_changed(self, number: int, digest: str, after: bytes, after_next: bytes | None) -> bool:
        """Whether this line is not the one that the next one followed, though the next one is what its own
        successor followed: else it is the next one that was changed."""
        try:
            following = record_in(after)
        except ValueError:
            return False
        if following.n != number + 1 or following.prev == digest:
            return False
        if after_next is None:
            return True
        try:
            return record_in(after_next).prev == hash_of(after)
        except ValueError:
            return True

    def _problem(self, number: int, record: AnyRecord, line: bytes) -> str | None:
        if self.has_stopped and not isinstance(record, SignedHead):
            return "this line was appended: its process had ended its chain before"
        if number == 1 and not (isinstance(record, Started) and record.n == 1):
            return f"the beginning is missing: the first line here is record {record.n}"
        if isinstance(record, Started) and record.writer != self._path.stem:
            return f"this is the chain {record.writer} under another name"
        if record.n > number:
            one = record.n == number + 1
            missing = f"record {number} is" if one else f"records {number} to {record.n - 1} are"
            return f"{missing} missing or elsewhere: this is record {record.n}"
        if record.n < number:
            return f"this is record {record.n}, which stands before: it was moved or copied here"
        if record.prev != self._before.hash:
            return "it does not hold on to the line before: that one was changed, or this one is forged"
        return None

    def _take(self, record: AnyRecord, where: str) -> Iterator[Finding]:
        self.lost += record.lost
        match record:
            case Begun():
                self.requests += 1
                self.begun[record.id] = record.n
            case Ended():
                if self.begun.pop(record.id, None) is None:
                    yield Finding(
                        severity="broken", where=where, words=f"{record.id} ends here and never began"
                    )
            case (
                Started(version=version, rules_sha256=str(sha256))
                | Reloaded(version=version, rules_sha256=str(sha256))
            ):
                self.versions[record.n] = version, sha256
            case SignedHead() if self._verified is not None:
                try:
                    head = self._verified(record)
                except ForgedHead as forged:
                    yield self._broken(where, f"a forged head: {forged}")
                    return
                if head.writer != self._path.stem or head.own != Place(record.n - 1, record.prev):
                    words = (
                        f"this head signs another record {head.own.n} of {head.writer}: something was "
                        f"changed, put in or taken out between record {self.signed + 1} and here"
                    )
                    yield self._broken(where, words)
                    return
                self.heads += 1
                self.signed, self.signed_place = head.own.n, record.n
            case Stopped():
                self.has_stopped = True

    def _broken(self, where: str, words: str) -> Finding:
        return Finding(severity="broken", where=where, words=words)


Line = tuple[int, bytes, bool]


def _with_next(lines: Iterable[Line]) -> Iterator[tuple[Line, tuple[bytes, bytes | None] | None]]:
    """Each line with the two that follow it."""
    window: list[Line] = []
    for line in lines:
        window.append(line)
        if len(window) == 3:
            yield window[0], (window[1][1], window[2][1])
            window.pop(0)
    if len(window) == 2:
        yield window[0], (window[1][1], None)
        window.pop(0)
    if window:
        yield window[0], None
