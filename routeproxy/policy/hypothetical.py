"""Requests by their facts, for those who ask without sending one: `explain`, `[[tests]]`, the proof, and the
decision log, whose requests are decided once more."""

import json
from collections.abc import Callable, Container, Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from routeproxy.messages.body import Body
from routeproxy.messages.request import Envelope, decode_envelope
from routeproxy.policy.fact_table import BY_NAME, FACTS, INPUT_TOKENS, TEAM
from routeproxy.policy.facts import Facts, as_line
from routeproxy.policy.invariants import TargetCondition
from routeproxy.policy.problems import KeyPath

Headers = Mapping[str, tuple[str, ...]]
"""Lower-case names; values as HTTP servers hand them over."""


class HypotheticalRequest:
    """A request by its facts. What it does not state is the smallest request's, or that of its `body`."""

    def __init__(self, *, body: bytes | None = None, **stated: Any) -> None:
        """`stated` are values by the names of their facts. `None`, false, no tools and no headers state
        nothing, nor does, beside a `body`, what is of the body. Raises `TypeError` for what is no fact."""
        if unknown := stated.keys() - BY_NAME.keys():
            raise TypeError(f"no facts: {', '.join(sorted(unknown))}")
        self.body = body
        something = [name for name, value in stated.items() if not _is_nothing(value)]
        self.stated: Mapping[str, Any] = {name: stated[name] for name in sorted(something, key=_order)}
        """In the order of the table."""

    def __repr__(self) -> str:
        return f"HypotheticalRequest(body={self.body!r}, stated={self.stated!r})"

    def replace(self, **stated: Any) -> "HypotheticalRequest":
        """The same request with other values of these facts."""
        return HypotheticalRequest(body=self.body, **{**self.stated, **stated})

    @property
    def team(self) -> str | None:
        return self.stated.get("team")

    @property
    def headers(self) -> Headers:
        """Its headers, with a line more for each that a fact of its own states."""
        headers = {**self.stated.get("headers", {})}
        for fact in _READ_FROM_HEADERS:
            if fact.name in self.stated:
                headers[fact.header] = (*headers.get(fact.header, ()), as_line(self.stated[fact.name]))
        return headers

    def facts(self, headers: Headers, count: Callable[[bytes], int]) -> Facts:
        """With `headers` as the team has them. Raises `InvalidRequest` if `body` is none."""
        body, stated = self.body, self.stated
        tokens = stated.get("input_tokens")
        return Facts(
            self._envelope() if body is None else Body(body).envelope(),
            headers,
            url_target=stated.get("url_target"),
            team=stated.get("team"),
            no_fallback=stated.get("no_fallback", False),
            count=lambda: tokens if tokens is not None else count(body) if body is not None else 0,
        )

    def _envelope(self) -> Envelope:
        in_body = self.stated.keys() & _READ_FROM_BODY
        if in_body == {"model"} and str(self.stated["model"]).isascii():
            return replace(_SMALLEST, model=self.stated["model"])
        body: dict[str, Any] = {"model": "", "messages": []}
        for name, value in self.stated.items():
            if value != "" and (state := BY_NAME[name].state) is not None:
                for field, content in state(value).items():
                    # Two facts may be about one list, such as the messages, or about one object.
                    body[field] = _joined(body.get(field), content)
        # Not by msgspec: half an emoji on the command line is a text like any other.
        return decode_envelope(json.dumps(body).encode())

    def assumed(self, *, teams: bool, headers: Container[str]) -> tuple[str, ...]:
        """What the request leaves out, and what that is taken for. `teams`: whether there are any. `headers`:
        those that are missed if they are not there."""
        return tuple(
            fact.assumed
            for fact in FACTS
            if fact.assumed
            and not self.stated.get(fact.name)
            and (teams or fact is not TEAM)
            and (fact.header is None or fact.header in headers)
            # A body says all that is of it, and its tokens are counted.
            and (self.body is None or (fact.state is None and fact is not INPUT_TOKENS))
        )


_order = {fact.name: place for place, fact in enumerate(FACTS)}.__getitem__
_SMALLEST = decode_envelope(b'{"model": "", "messages": []}')
_READ_FROM_BODY = frozenset(fact.name for fact in FACTS if fact.state is not None)
_READ_FROM_HEADERS = [fact for fact in FACTS if fact.header is not None]


def _is_nothing(value: Any) -> bool:
    return value is None or value is False or value in ((), {})


def _joined(first: Any, second: Any) -> Any:
    match first, second:
        case dict(), dict():
            return {**first, **second}
        case list(), list():
            return [*first, *second]
    return second


class Expected(Struct, frozen=True, kw_only=True):
    """What must become of a test's request. What is `None` is not looked at."""

    rule: str | None = None
    targets: tuple[str, ...] | None = None
    fallback: bool | None = None
    denied: bool | str | None = None
    """`True`, `False`, or the words of the denial."""
    transforms: Mapping[str, object] | None = None
    """Of every target."""


class Case(Struct, frozen=True, kw_only=True):
    """One of `[[tests]]`."""

    name: str
    where: str
    """`rules.toml:41`"""
    file: int
    """The number of the file that it stands in."""
    path: KeyPath
    question: HypotheticalRequest
    expect: Expected | None = None
    never: TargetCondition | None = None
