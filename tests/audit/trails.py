"""Trails to verify, written by the code that writes them, and what somebody does to them afterwards."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from routeproxy.audit.chain import Chain
from routeproxy.audit.records import (
    AnyRecord,
    Begun,
    Contact,
    Ended,
    Head,
    Place,
    Reloaded,
    SignedHead,
    Started,
    Stopped,
    hash_of,
    line_of,
    record_in,
)
from routeproxy.audit.report import InvariantReport, Reporter
from routeproxy.audit.requests import TrailReading, meets, parsed_query
from routeproxy.audit.signing import Anchor, signed
from routeproxy.audit.verify import Verification, verify
from routeproxy.audit.versions import KeptVersions
from routeproxy.policy.live.versions import Bundle
from routeproxy.sources import Options, Sources

RULES = """
[providers.outside]
type = "openai_compatible"
base_url = "http://outside.example/v1"
api_key = "env:OUTSIDE"
zone = "public"

[providers.inside]
type = "openai_compatible"
base_url = "http://inside.example/v1"
api_key = "env:INSIDE"
zone = "private"

[teams.claims]
keys = ["env:CLAIMS"]

[[invariants]]
name = "claims stay inside"
when.team = "claims"
never.zone = "public"

[[invariants]]
name = "secrets stay inside"
when.headers.x-secret = "yes"
never.zone = "public"

[[rules]]
name = "claims"
match.any = [{ team = "claims" }, { headers.x-secret = "yes" }]
targets = "inside/m"

[default]
targets = "outside/m"
"""
OUTSIDE = Contact(provider="outside", model="m", zone="public", outcome="ok")
INSIDE = Contact(provider="inside", model="m", zone="private", outcome="ok")


SERVER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
NOON = "2026-12-01T12:00:00.000Z"


def public_key(key: Ed25519PrivateKey = SERVER_KEY) -> Ed25519PublicKey:
    return key.public_key()


class Writer:
    """A process that writes its chain, and tells its heads to a store outside."""

    def __init__(self, folder: Path, told: list[tuple[str, Anchor]]) -> None:
        self.folder = folder
        self.chain = Chain(folder)
        self._told = told
        self.chain.add(
            Started(at=NOON, writer=self.name, process=1, routeproxy="1", version="v1", rules_sha256=None)
        )

    @property
    def name(self) -> str:
        return self.chain.writer

    @property
    def path(self) -> Path:
        return self.chain.path

    def answer(self, *ids: str, **fields: Any) -> None:
        for request_id in ids:
            self.begin(request_id, **fields)
            self.end(request_id)

    def begin(self, request_id: str, facts: dict[str, Any] | None = None, **fields: Any) -> None:
        stated: dict[str, Any] = {
            "version": "v1",
            "team": None,
            "key": None,
            "rule": "default",
            "denied": False,
            "targets": ("echo/m",),
            **fields,
        }
        self.chain.add(Begun(at=NOON, id=request_id, facts={"model": "m", **(facts or {})}, **stated))

    def end(self, request_id: str, *contacts: Contact, status: int = 200) -> None:
        reached = contacts or (Contact(provider="echo", model="m", zone="local", outcome="ok"),)
        record = Ended(at=NOON, id=request_id, contacts=reached, status=status, error=None, client_left=False)
        self.chain.add(record)

    def sign(self, *others: "Writer", key: Ed25519PrivateKey = SERVER_KEY) -> None:
        """A signed head, into the chain and to the store."""
        anchors: list[Anchor] = []

        def make(place: Place) -> AnyRecord:
            places = {other.name: other.chain.place for other in others}
            anchor = signed(Head(writer=self.name, at=NOON, own=place, others=places), key)
            anchors.append(anchor)
            return SignedHead(at=NOON, head=anchor.audit_head, signature=anchor.signature)

        self.chain.add_made(make)
        self._told.append((f"store:{len(self._told) + 1}", anchors[0]))

    def stop(self) -> None:
        self.chain.add(Stopped(at=NOON, reason="the server stopped"))
        self.sign()
        self.chain.close()

    # --- what somebody does to it

    @property
    def lines(self) -> list[bytes]:
        return self.path.read_bytes().splitlines()

    def rewrite(self, change: Callable[[list[bytes]], object]) -> None:
        lines = self.lines
        change(lines)
        self.path.write_bytes(b"".join(line + b"\n" for line in lines))

    def rechain(self, change: Callable[[list[bytes]], object]) -> None:
        """Whoever knows how the chain is made also makes it whole again."""

        def whole(lines: list[bytes]) -> None:
            change(lines)
            before = "0" * 64
            for index, line in enumerate(lines):
                record = record_in(line)
                record.n, record.prev = index + 1, before
                lines[index] = line_of(record)
                before = hash_of(lines[index])

        self.rewrite(whole)


class Trail:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told: list[tuple[str, Anchor]] = []
        """What the store outside has."""

    def writer(self) -> Writer:
        return Writer(self.folder, self.told)

    def verified(
        self, *, anchors: bool = True, keys: Sequence[Ed25519PublicKey] | None = None
    ) -> Verification:
        return verify(self.folder, [public_key()] if keys is None else keys, self.told if anchors else None)

    def faults(self, **how: Any) -> list[str]:
        """`1:12 what is wrong`: the chain's number, the line, the words."""
        names = {path.name: str(n) for n, path in enumerate(sorted(self.folder.glob("*.jsonl")), 1)}
        found = []
        for finding in self.verified(**how).findings:
            if finding.severity == "broken":
                path, _, line = finding.where.rpartition(":")
                place = f"{names.get(Path(path).name, path)}:{line}" if path else Path(finding.where).name
                found.append(f"{place} {finding.words}")
        return found


class Books:
    """A trail with the rules that its requests were decided by."""

    def __init__(self, folder: Path) -> None:
        self.trail = Trail(folder)
        self.writer = self.trail.writer()
        self.version = self.put_in_force(RULES)

    def put_in_force(self, text: str) -> str:
        recalled = Sources.opened(Options(), {}).recall(Bundle(version="", source="rules.toml", text=text))
        bundle = Bundle(version=recalled.version, source="rules.toml", text=text)
        sha256 = KeptVersions(self.trail.folder).keep(bundle)
        self.writer.chain.add(Reloaded(at=NOON, before="v1", version=recalled.version, rules_sha256=sha256))
        self.version = recalled.version
        return recalled.version

    def asked(
        self,
        request_id: str,
        *contacts: Contact,
        team: str | None = None,
        rule: str = "default",
        **fields: Any,
    ) -> None:
        facts = {"headers": {"x-secret": None}, **fields.pop("facts", {})}
        if team is not None:
            facts["team"] = team
        targets = tuple(contact.target for contact in contacts)
        self.writer.begin(
            request_id, facts, team=team, rule=rule, targets=targets, version=self.version, **fields
        )
        if contacts:
            self.writer.end(request_id, *contacts)

    def report(self, invariant: str = "claims stay inside") -> InvariantReport:
        sources = Sources.opened(Options(), {})
        return Reporter(TrailReading(self.trail.folder), sources.recall, invariant).run("", "~")

    def numbers(self, invariant: str = "claims stay inside") -> tuple[int, int, int, int]:
        found = self.report(invariant)
        return found.held, found.broken, found.not_decidable, found.records_lost

    def counted(self, question: str) -> tuple[int, int]:
        """How many it is so of, and of how many that can't be told."""
        answers = [
            meets(request, parsed_query(question)) for request in TrailReading(self.trail.folder).requests()
        ]
        return answers.count(True), answers.count(None)


def changed(line: bytes, **fields: Any) -> bytes:
    return msgspec.json.encode({**json.loads(line), **fields})
