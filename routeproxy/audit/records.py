"""The records of a chain, one JSON line each. Every record has its number and the hash of the line before it,
so whoever changes, drops or moves a line has to change all that follow; signed heads say what they were."""

import hashlib
from typing import Any

import msgspec
from msgspec import Struct

NOTHING_BEFORE = "0" * 64
"""What the first record has in the place of a hash."""


class Record(Struct, kw_only=True, tag_field="kind"):
    n: int = 0
    """From 1 on."""
    prev: str = NOTHING_BEFORE
    """SHA-256 of the line before, without its end, in hexadecimal."""
    at: str
    """`2026-12-01T12:00:00.123Z`"""
    lost: int = 0
    """How many records before this one could not be written."""


class Started(Record, tag="started", kw_only=True):
    """A process begins its chain."""

    writer: str
    """The name of the chain, and of its file."""
    process: int
    routeproxy: str
    version: str
    """Of the rules in force."""
    rules_sha256: str | None
    """Of the file that keeps this version; `None`: it could not be kept."""


class Begun(Record, tag="begun", kw_only=True):
    """A request is decided, and nobody was asked yet."""

    id: str
    version: str
    team: str | None
    key: str | None
    rule: str
    denied: bool
    targets: tuple[str, ...]
    """Whom it may reach, in order."""
    facts: dict[str, Any]
    """What rules could look at (`policy.logged`)."""


class Contact(Struct, frozen=True, kw_only=True):
    """One target that was asked, as the rules described it then."""

    provider: str
    model: str
    zone: str
    region: str | None = None
    purpose: str = "answer"
    outcome: str
    """`ok`, `let_go`, or the class of the failure."""

    @property
    def target(self) -> str:
        return f"{self.provider}/{self.model}"


class Ended(Record, tag="ended", kw_only=True):
    """A request is over."""

    id: str
    contacts: tuple[Contact, ...]
    status: int
    error: str | None
    client_left: bool


class Reloaded(Record, tag="reloaded", kw_only=True):
    """Other rules are in force, by a reload or a rollback."""

    before: str
    version: str
    rules_sha256: str | None


class ReloadRefused(Record, tag="reload_refused", kw_only=True):
    """What is on disk was not taken."""

    version: str
    """That which stays in force."""
    problem: str


class AdminActed(Record, tag="admin", kw_only=True):
    """Somebody used an admin key: `reload`, `rollback`, or a look at what users did."""

    action: str
    key: str | None
    outcome: str


class SignedHead(Record, tag="head", kw_only=True):
    """What was written so far, signed."""

    head: str
    """A `Head` as JSON: the bytes that are signed."""
    signature: str
    """Ed25519, in base64."""


class Stopped(Record, tag="stopped", kw_only=True):
    """The process ends its chain."""

    reason: str


AnyRecord = Started | Begun | Ended | Reloaded | ReloadRefused | AdminActed | SignedHead | Stopped


class Place(Struct, frozen=True, array_like=True):
    """The last line of a chain."""

    n: int
    hash: str


class Head(Struct, frozen=True, kw_only=True):
    writer: str
    at: str
    own: Place
    others: dict[str, Place] = {}
    """Those of the other chains: of all that are being written, and of those that ended lately."""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(AnyRecord).decode
decode_head = msgspec.json.Decoder(Head).decode


def line_of(record: AnyRecord) -> bytes:
    """Without its end."""
    return _encode(record)


def record_in(line: bytes) -> AnyRecord:
    """Raises `ValueError` for what is no record."""
    return _decode(line)


def hash_of(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()
