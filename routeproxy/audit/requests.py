"""The requests of a trail, each with its beginning and its end, and which of them a question is about."""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from routeproxy.audit.chain import chains_in, is_being_written, lines_of
from routeproxy.audit.records import Begun, Contact, Ended, Reloaded, Started, record_in
from routeproxy.policy.fact_table import BY_NAME, Fact
from routeproxy.policy.facts import ascii_lower
from routeproxy.policy.logged import HEADERS, NOT_RECORDED
from routeproxy.policy.patterns import glob

NOT_A_CONTACT = "invariant"
"""The outcome of an attempt that was stopped before its target was asked."""


class AuditedRequest(Struct, frozen=True, kw_only=True):
    where: str
    """`audit/20261201T…jsonl:12`: its beginning."""
    begun: Begun
    ended: Ended | None
    """`None`: no end was recorded."""
    is_under_way: bool = False
    """It has no end since its process goes on."""
    rules_sha256: str | None
    """Of the file that keeps the rules it was decided by; `None`: not known."""

    @property
    def contacts(self) -> tuple[Contact, ...]:
        """The targets that were asked."""
        ended = self.ended.contacts if self.ended is not None else ()
        return tuple(contact for contact in ended if contact.outcome != NOT_A_CONTACT)


class TrailReading:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lost = 0
        """Records that could not be written, as the chains that were read say."""

    def requests(self, since: str = "", until: str = "~") -> Iterator[AuditedRequest]:
        """Those that began in this time, as records write it. What can't be read ends its chain: verification
        says so. Raises `OSError`."""
        for path in chains_in(self.folder):
            yield from self._requests_of(path, since, until)

    def _requests_of(self, path: Path, since: str, until: str) -> Iterator[AuditedRequest]:
        open_ones: dict[str, tuple[str, Begun, str | None]] = {}
        kept: dict[str, str | None] = {}
        for number, line, _ in lines_of(path):
            try:
                record = record_in(line)
            except ValueError:
                break
            if since <= record.at < until:
                self.lost += record.lost
            match record:
                case Started() | Reloaded():
                    kept[record.version] = record.rules_sha256
                case Begun() if since <= record.at < until:
                    open_ones[record.id] = f"{path}:{number}", record, kept.get(record.version)
                case Ended() if record.id in open_ones:
                    where, begun, sha256 = open_ones.pop(record.id)
                    yield AuditedRequest(where=where, begun=begun, ended=record, rules_sha256=sha256)
        lives = is_being_written(path) if open_ones else False
        for where, begun, sha256 in open_ones.values():
            yield AuditedRequest(
                where=where, begun=begun, ended=None, is_under_way=lives, rules_sha256=sha256
            )


# --- which of them

UNKNOWN = object()
OF_REQUEST: dict[str, Callable[[AuditedRequest], Any]] = {
    "id": lambda request: request.begun.id,
    "key": lambda request: request.begun.key,
    "rule": lambda request: request.begun.rule,
    "version": lambda request: request.begun.version,
    "denied": lambda request: request.begun.denied,
    "status": lambda request: request.ended.status if request.ended is not None else UNKNOWN,
}
OF_CONTACT: dict[str, Callable[[Contact], str | None]] = {
    "zone": lambda contact: contact.zone,
    "region": lambda contact: contact.region,
    "provider": lambda contact: contact.provider,
    "target": lambda contact: contact.target,
    "outcome": lambda contact: contact.outcome,
    "purpose": lambda contact: contact.purpose,
}
TIMES = ("since", "until")
FACT_NAMES = tuple(name for name in BY_NAME if name not in (HEADERS, "system"))
_PART = re.compile(r"""\s*([\w.-]+)\s*=\s*("(?:[^"\\]|\\.)*"|'[^']*'|[^\s"']+)\s*""")
_AND = re.compile(r"and\b\s*", re.IGNORECASE)


class Condition(Struct, frozen=True):
    name: str
    value: str

    @property
    def fits(self) -> Callable[[Any], bool]:
        """Whether a value is this one. `*` and `?` stand for what they do in globs; empty: there is none."""
        wanted = self.value
        if any(sign in wanted for sign in "*?["):
            matches = glob(wanted)
            return lambda value: isinstance(value, str) and bool(matches(value.encode("utf-8", "replace")))
        return lambda value: _in_words(value) == wanted


def _in_words(value: Any) -> str:
    if value is None:
        return ""
    return ("false", "true")[value] if isinstance(value, bool) else str(value)


def parsed_query(text: str) -> list[Condition]:
    """`team = "claims" and zone = "public" and since = 30d`. Raises `ValueError`."""
    conditions = []
    rest = text.strip()
    while rest:
        part = _PART.match(rest)
        if part is None:
            raise ValueError(f"`{rest[:40]}`: expected NAME = VALUE, joined by `and`")
        name, value = part[1], part[2]
        if value[0] in "\"'":
            value = re.sub(r"\\(.)", r"\1", value[1:-1]) if value[0] == '"' else value[1:-1]
        known = (*OF_REQUEST, *OF_CONTACT, *TIMES, *FACT_NAMES)
        if name not in known and not name.startswith("headers."):
            raise ValueError(f"`{name}` is nothing to ask for; known: {', '.join(known)}, headers.NAME")
        conditions.append(Condition(name, value))
        rest = rest[part.end() :]
        if rest:
            joined = _AND.match(rest)
            if joined is None or joined.end() == len(rest):
                raise ValueError(f"`{rest[:40]}`: expected `and` and one more NAME = VALUE")
            rest = rest[joined.end() :]
    return conditions


def meets(request: AuditedRequest, conditions: Sequence[Condition]) -> bool | None:
    """Whether it meets all but those on times; `None`: that hangs on what was not recorded. What is asked of
    contacts has to be so of one of them."""
    result: bool | None = True
    holds: bool | None
    of_contact = [condition for condition in conditions if condition.name in OF_CONTACT]
    if of_contact and not any(
        all(condition.fits(OF_CONTACT[condition.name](contact)) for condition in of_contact)
        for contact in request.contacts
    ):
        if request.ended is not None:
            return False
        result = None
    for condition in conditions:
        if condition.name in OF_CONTACT or condition.name in TIMES:
            continue
        if condition.name in OF_REQUEST:
            value = OF_REQUEST[condition.name](request)
            holds = None if value is UNKNOWN else condition.fits(value)
        else:
            holds = _fact_fits(condition, request.begun.facts)
        if holds is False:
            return False
        if holds is None:
            result = None
    return result


def _fact_fits(condition: Condition, facts: dict[str, Any]) -> bool | None:
    if condition.name.startswith("headers."):
        header = condition.name.removeprefix("headers.").lower()
        headers = facts.get(HEADERS) or {}
        return condition.fits(headers[header]) if header in headers else None
    fact: Fact = BY_NAME[condition.name]
    if fact.name in facts.get(NOT_RECORDED, ()) or (fact.logged != "always" and fact.name not in facts):
        return None
    value = facts.get(fact.name, False if fact.kind == "flag" else None)
    if isinstance(value, list | tuple):
        return any(condition.fits(item) for item in value)
    return condition.fits(ascii_lower(value) if fact.folded and isinstance(value, str) else value)
