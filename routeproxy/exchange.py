"""One request and what became of it. Data alone: it is filled in as the request passes through the proxy, and
read by the answer's headers and by observers."""

import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

import uuid_utils
from msgspec import UNSET, Struct
from msgspec.structs import replace

from routeproxy.messages.body import Body
from routeproxy.messages.losses import Loss
from routeproxy.messages.reply import Usage
from routeproxy.messages.request import Envelope
from routeproxy.messages.token_usage import TokenUsage
from routeproxy.policy.decide import Decision, Policy
from routeproxy.policy.facts import Facts
from routeproxy.policy.targets import Target
from routeproxy.redaction import maskable

LONGEST_SEARCHED = 4 * 2**20
"""Bytes of a request that are searched for secrets which the client knows: on the event loop, in two ms.
Of a longer one nobody can tell what it has in it, and its answer stays as it is."""

Endpoint = Literal["messages", "count_tokens", "route"]
"""What is asked for: an answer, a count of its tokens, or (`route`) what would become of the request."""


class Inbound(Struct, frozen=True, kw_only=True):
    """The request as it came over the wire. Header names are in lower case; a header that came on several
    lines has several values."""

    body: bytes
    """A Messages request, whatever protocol the client speaks."""
    method: str = "POST"
    path: str = "/v1/messages"
    """As the client's protocol has it, without a target that was named in the URL."""
    url_path: str | None = None
    """As the client wrote it, out of its escapes."""
    query: str = ""
    headers: Mapping[str, tuple[str, ...]] = {}
    url_target: str | None = None
    """`provider/model`, where the client named a target in the URL."""
    team: str | None = None
    """Whose key was shown."""
    key_name: str | None = None
    """What the rules call the key that was shown; never the key."""
    address: str | None = None
    """Where the connection comes from."""
    no_fallback: bool = False
    """The client wants no other target than the first."""
    explain: bool = False
    """The client wants to hear why, and may."""
    shows_addresses: bool = False
    """The client may hear where back ends are: nobody needs a key here, so it is the operator."""

    @property
    def caller(self) -> tuple[str | None, ...]:
        """Who takes turns with others for what there is little of: a key, or an address without one."""
        if self.key_name is not None or self.team is not None:
            return self.team, self.key_name
        return None, None, self.address

    def header(self, name: str) -> str | None:
        values = self.headers.get(name)
        return values[0] if values else None


class SmallRequest(Struct, kw_only=True):
    """A request that is no exchange (models, probes, an operator's, what is not here or is no HTTP) and what
    became of it. `None` is what nobody knows."""

    method: str | None
    path: str | None
    """Without its query, out of its escapes."""
    is_probe: bool = False
    """It comes every few seconds, and only wants to know whether anybody is here."""
    is_exchange: bool = False
    """It turned out to be one after all, and is told of as such."""
    started: float | None = None
    """On the clock of `time.perf_counter`."""
    request_id: str | None = None
    team: str | None = None
    key_name: str | None = None
    status: int = 0
    error: str | None = None
    client_left: bool = False


class AskedContent(Struct, frozen=True):
    """What a model was asked, as JSON."""

    system: bytes
    messages: bytes


class Trace(Struct, frozen=True, kw_only=True):
    """What a request is known by in distributed traces (W3C Trace Context). All ids are hexadecimal."""

    trace_id: str
    span_id: str
    parent_id: str | None = None
    """The client's span."""
    is_sampled: bool = False
    asked: AskedContent | None = None
    """Only where a rule wants it recorded."""
    is_asked_left_out: bool = False
    """It was to be recorded, and is too long."""


class AttemptRecord(Struct, kw_only=True):
    """One attempt at one target. Times are those of `time.perf_counter`, in seconds."""

    target: Target
    started: float
    first_content_at: float | None = None
    ended: float | None = None
    asked_again: str | None = None
    """What of the request the back end refused in words that said how it wants it: then it was asked once
    more, in that shape."""
    dropped: Mapping[Loss, int] = {}
    """What of the conversation the target can't be given, and how many of each."""
    failure: str | None = None
    """The class of the failure that ended it; `None` while it runs, once it answered, or if it was let go."""
    let_go: bool = False
    """It did not come to its end: the client left, the server stopped, or an invariant refused it."""
    usage: Usage | None = None
    """As far as this back end reported it."""
    tokens: TokenUsage | None = None
    """What it took; `None`: nothing is known of it."""
    served_model: str | None = None
    """What the back end calls the model that answered."""
    purpose: Literal["answer", "safeguards"] = "answer"
    """What the target was asked for: an answer, or verdicts on the tool uses of one."""
    verdicts: Mapping[str, int] = {}
    """How many of each there were: `flagged`, `not_flagged`, `unavailable`."""
    span_id: str | None = None
    """What it is known by in the request's trace."""


class Exchange:
    def __init__(self, inbound: Inbound, policy: Policy, *, endpoint: Endpoint = "messages") -> None:
        self.inbound = inbound
        self.policy = policy
        """The version that is in force once the request is complete, and that it keeps."""
        self.endpoint = endpoint
        self.request_id = new_request_id()
        self.started = time.perf_counter()
        self._body: Body | None = None
        self.trace: Trace | None = None
        self.envelope: Envelope | None = None
        self.facts: Facts | None = None
        self.shadow: Mapping[str, str] = {}
        """What shadow rules would have done with it, by their names (`policy.shadow`)."""
        self.logged_facts: Mapping[str, Any] | None = None
        """What the decision log tells of the facts, once it was worked out: before the text is forgotten."""
        self.decision: Decision | None = None
        self.target: Target | None = None
        """The target that answers, or whose failure is shown."""
        self.attempts: list[AttemptRecord] = []
        self.skipped: dict[str, str] = {}
        """The targets that were passed over since they failed lately, and in words why."""
        self.queued = 0.0
        """The seconds that it waited for a place."""
        self.safeguards: AttemptRecord | None = None
        """The attempt to have the tool uses of the answer judged."""
        self.warnings: list[str] = []
        self._warnings_of_request = 0
        self.relayed_headers: list[tuple[str, str]] = []
        """Headers of a Messages back end's answer that are the client's to see."""
        self.secrets: frozenset[str] = frozenset()
        """What back ends were shown for this request, and nobody else is."""
        self.masked: tuple[bytes, ...] = ()
        """Those that must not be seen in an answer either, should a back end say them back."""
        self.usage: Usage | None = None
        """Of the answer that the client gets."""
        self.tokens: TokenUsage | None = None
        """What the answer took, so far."""
        self.served_model: str | None = None
        """What the back end calls the model that answers."""
        self.first_content_at: float | None = None
        self.status = 0
        self.error: str | None = None
        self.client_left = False
        self.on_text_forgotten: Callable[[], object] | None = None
        """Hears once that the conversation is let go."""

    def afresh(self) -> "Exchange":
        """The same request with the same decision, of which nothing has become yet: to be answered, whatever
        was asked for."""
        exchange = Exchange(replace(self.inbound, path="/v1/messages"), self.policy)
        exchange._body, exchange.envelope = self._body, self.envelope
        exchange.facts, exchange.decision = self.facts, self.decision
        return exchange

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
    def has_asked_again(self) -> bool:
        return any(attempt.asked_again is not None for attempt in self.attempts)

    @property
    def shown_id(self) -> str:
        """What the answer is known by: the back end's own id where its answer is relayed."""
        return next((value for name, value in self.relayed_headers if name == "request-id"), self.request_id)

    def note_dropped(self, losses: Mapping[Loss, int]) -> None:
        """The target that is being asked can't be given these."""
        if self.attempts:
            self.attempts[-1].dropped = dict(losses)

    def begin_anew(self, policy: Policy) -> None:
        """What was known of the request before its body was complete counts no more."""
        self.policy = policy
        self.warnings = []

    def begin_attempt(self, target: Target) -> AttemptRecord:
        """What an earlier attempt reported is no longer true of the answer."""
        attempt = AttemptRecord(target=target, started=time.perf_counter())
        self.target = target
        self.attempts.append(attempt)
        self.warnings[self._warnings_of_request :] = []
        self.relayed_headers = []
        self.usage = self.tokens = self.served_model = None
        self.error = None
        return attempt

    def begin_safeguards(self, target: Target) -> AttemptRecord:
        """What is known of the answer stays."""
        self.safeguards = AttemptRecord(target=target, started=time.perf_counter(), purpose="safeguards")
        return self.safeguards

    def keep_secret(self, secrets: frozenset[str]) -> None:
        """A back end was shown these. Only while the conversation is there."""
        if secrets <= self.secrets:
            return
        if len(self.inbound.body) <= LONGEST_SEARCHED:
            self.masked = (*self.masked, *maskable(secrets - self.secrets, self.inbound.body))
        self.secrets |= secrets

    def add_count_attempt(self, target: Target, failure: str | None = None) -> None:
        """A back end was asked to count tokens. `failure` is the class of what ended that."""
        now = time.perf_counter()
        self.attempts.append(AttemptRecord(target=target, started=now, ended=now, failure=failure))

    def forget_text(self) -> None:
        """Nobody else will be asked, so the conversation is let go: it is long, and its answer may take
        minutes. Facts that were worked out of it stay."""
        if self.facts is None:
            return
        self.facts.forget_text()
        self.envelope = self.facts.envelope
        self.inbound = replace(self.inbound, body=b"")
        self._body = None
        if self.on_text_forgotten is not None:
            self.on_text_forgotten()

    def warn_of_request(self, *warnings: str) -> None:
        """A warning that holds whoever answers. Only before the first attempt."""
        self.warn(*warnings)
        self._warnings_of_request = len(self.warnings)

    def warn(self, *warnings: str) -> None:
        self.warnings += [warning for warning in warnings if warning not in self.warnings]

    def input_and_output_tokens(self) -> tuple[int | None, int | None]:
        """The tokens of the answer, those that were read from a cache included; `None` where not reported."""
        if self.usage is None:
            return None, None
        parts = (
            self.usage.input_tokens,
            self.usage.cache_read_input_tokens,
            self.usage.cache_creation_input_tokens,
        )
        known = [part for part in parts if part is not UNSET]
        return (sum(known) if known else None), self.usage.output_tokens


class Call(Struct, frozen=True):
    """What a back end is asked in one attempt, and with which key."""

    target: Target
    key: str | None
    exchange: Exchange


def new_request_id() -> str:
    """A UUID of version 7 (RFC 9562): later ones sort after earlier ones, so a ledger adds at its end."""
    return f"req_{uuid_utils.uuid7().hex}"
