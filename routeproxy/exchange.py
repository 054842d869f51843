"""One request and what became of it: filled in as it passes through the proxy, read by the answer's headers
and by the log."""

import os
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

from msgspec import UNSET, Struct
from msgspec.structs import replace

from routeproxy.messages.body import Body
from routeproxy.messages.reply import Usage
from routeproxy.messages.request import Envelope
from routeproxy.policy.decide import Decision, Policy
from routeproxy.policy.explain import explain
from routeproxy.policy.facts import Facts
from routeproxy.policy.logged import logged_facts
from routeproxy.policy.targets import Target
from routeproxy.telemetry.decisions import LoggedDecision, now
from routeproxy.telemetry.logs import RequestRecord


class Inbound(Struct, frozen=True, kw_only=True):
    """What came over the wire. Header names are in lower case; a header that came on several lines has
    several values."""

    body: bytes
    query: str = ""
    headers: Mapping[str, tuple[str, ...]] = {}
    url_target: str | None = None
    """`provider/model`, where the client named a target in the URL."""
    team: str | None = None
    """Whose key was shown."""
    no_fallback: bool = False
    """The client wants no other target than the first."""
    explain: bool = False
    """The client wants to hear why, and may."""

    def header(self, name: str) -> str | None:
        values = self.headers.get(name)
        return values[0] if values else None


class Output(NamedTuple):
    """One write to the client: whole frames of a stream, or a whole reply."""

    data: bytes
    commits: bool
    """Whether content is in it: from here on the answer is this back end's, for better or worse."""


KEEPALIVE = Output(b"", False)
"""A sign of life from a back end that has nothing to relay: it resets the idle clock."""

Emit = Callable[[Output], Awaitable[None]]
"""Where a back end's parts go as they come. It returns once there is room for more."""

Write = Callable[[bytes], Awaitable[None]]
"""The same for what the client gets."""


PATHS = {
    "messages": "/v1/messages",
    "count_tokens": "/v1/messages/count_tokens",
    "route": "/v1/route",
}


class AttemptRecord(NamedTuple):
    """One attempt."""

    target: str
    failure: str | None
    """Its class; `None` if it did not fail."""


class Exchange:
    def __init__(self, inbound: Inbound, policy: Policy, *, endpoint: str = "messages") -> None:
        self.inbound = inbound
        self.policy = policy
        """The version that this request arrived under, and keeps."""
        self.endpoint = endpoint
        self.request_id = new_request_id()
        self.started = time.perf_counter()
        self._body: Body | None = None
        self.envelope: Envelope | None = None
        self.facts: Facts | None = None
        self._logged_facts: dict[str, Any] | None = None
        """Once the text that they are worked out of is forgotten."""
        self.decision: Decision | None = None
        self.target: Target | None = None
        self.attempts = 0
        self.tried: list[AttemptRecord] = []
        self.warnings: list[str] = []
        self._warnings_of_request = 0
        self.relayed: list[tuple[str, str]] = []
        """Headers of a Messages back end's answer that are the client's to see."""
        self.usage: Usage | None = None
        self.first_content_at: float | None = None
        self.status = 0
        self.error: str | None = None
        self.client_left = False

    @property
    def body(self) -> Body:
        """What the client sent. Raises `InvalidRequest` where that can't be read."""
        if self._body is None:
            self._body = Body(self.inbound.body)
        return self._body

    @property
    def stream(self) -> bool:
        return bool(self.envelope and self.envelope.stream) and self.endpoint == "messages"

    @property
    def shown_id(self) -> str:
        """What the answer is known by: the back end's own id where its answer is relayed."""
        return next((value for name, value in self.relayed if name == "request-id"), self.request_id)

    def begin_attempt(self, target: Target) -> None:
        """What an earlier attempt said of itself is no longer true of the answer."""
        self.target = target
        self.attempts += 1
        self.tried.append(AttemptRecord(target.name, None))
        self.warnings[self._warnings_of_request :] = []
        self.relayed = []
        self.usage = None
        self.error = None

    def attempt_failed(self, kind: str) -> None:
        self.tried[-1] = AttemptRecord(self.tried[-1].target, kind)

    def forget_text(self) -> None:
        """Nobody else will be asked. What was said is as long as the conversation, and its answer may take
        minutes."""
        facts = self.facts
        if facts is None:
            return
        if self.policy.server.decision_log is not None:
            self._logged_facts = logged_facts(facts, self.policy)
        facts.forget_text()
        self.facts, self.envelope = None, facts.envelope
        self.inbound = replace(self.inbound, body=b"")
        self._body = None

    def warn_of_request(self, *warnings: str) -> None:
        """A warning that holds whoever answers. Only before the first attempt."""
        self.warn(*warnings)
        self._warnings_of_request = len(self.warnings)

    def warn(self, *warnings: str) -> None:
        self.warnings += [warning for warning in warnings if warning not in self.warnings]

    def note_usage(self, usage: Usage) -> None:
        self.usage = usage

    def tokens(self) -> tuple[int | None, int | None]:
        """Input (the cached ones included) and output, where known."""
        if self.usage is None:
            return None, None
        parts = (
            self.usage.input_tokens,
            self.usage.cache_read_input_tokens,
            self.usage.cache_creation_input_tokens,
        )
        known = [part for part in parts if part is not UNSET]
        return (sum(known) if known else None), self.usage.output_tokens

    def headers(self) -> list[tuple[str, str]]:
        """What every answer says of itself: ids, the rule, who served. Values are ASCII."""
        relayed = {name for name, _ in self.relayed}
        headers = [] if "request-id" in relayed else [("request-id", self.request_id)]
        headers += self.relayed
        headers.append(("x-routeproxy-rules-version", self.policy.version))
        if self.decision is not None:
            headers.append(("x-routeproxy-rule", _ascii(self.decision.rule)))
        if self.target is not None:
            headers.append(("x-routeproxy-provider", _ascii(self.target.provider.name)))
            headers.append(("x-routeproxy-model", _ascii(self.target.model)))
        headers.append(("x-routeproxy-attempts", str(self.attempts)))
        if self.inbound.explain and self.decision is not None:
            headers.append(("x-routeproxy-explain", explain(self.decision, self.policy).in_a_header()))
        if self.warnings:
            headers.append(("x-routeproxy-warning", _ascii("; ".join(self.warnings))[:2000]))
        return headers

    def record(self) -> RequestRecord:
        """What the log says of it: names, sizes and times; nothing of prompts or keys."""
        input_tokens, output_tokens = self.tokens()
        first = self.first_content_at
        return RequestRecord(
            request_id=self.request_id,
            method="POST",
            path=PATHS[self.endpoint],
            status=self.status,
            duration_ms=(time.perf_counter() - self.started) * 1000,
            ttft_ms=None if first is None else (first - self.started) * 1000,
            client_model=self.envelope.model if self.envelope else None,
            team=self.inbound.team,
            rule=self.decision.rule if self.decision else None,
            version=self.policy.version,
            provider=self.target.provider.name if self.target else None,
            model=self.target.model if self.target else None,
            attempts=self.attempts,
            error_type=self.error,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            stream=self.stream,
            client_left=self.client_left,
        )

    def logged_decision(self) -> LoggedDecision:
        """What the decision log says of it."""
        decision = self.decision
        facts = self._logged_facts or (logged_facts(self.facts, self.policy) if self.facts else None)
        return LoggedDecision(
            time=now(),
            id=self.request_id,
            shown_id=self.shown_id if self.shown_id != self.request_id else UNSET,
            path=PATHS[self.endpoint],
            version=self.policy.version,
            rule=decision.rule if decision else None,
            facts=facts,
            targets=tuple(target.name for target in decision.targets) if decision else (),
            attempts=tuple(self.tried),
            status=self.status,
            error=self.error,
            client_left=self.client_left,
        )


class Call(Struct, frozen=True):
    """One attempt: what a back end is asked, and with which key."""

    target: Target
    key: str | None
    exchange: Exchange


def new_request_id() -> str:
    return f"req_{os.urandom(16).hex()}"


_SAFE = " !#$&'()*+,-./:;<=>?@[]^_`{|}~\""
"""What a header may hold as it is, beside letters and digits: all that ASCII can print but `%` and `\\`."""

_PLAIN = re.compile(f"[A-Za-z0-9{re.escape(_SAFE)}]*")


def _ascii(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else quote(text, safe=_SAFE)
