"""The rows of the ledger, as they are written, spooled and summed up. Their fields are the columns."""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct

from routeproxy.messages.token_usage import TokenUsage

UsageSource = Literal["reported", "partial", "estimated", "none"]
"""Where the tokens of an attempt come from: its back end told all of them; it told what is there, of an
answer that did not come to its end; they are estimated by bytes; nothing is known."""

PriceSource = Literal["rules", "table", "provider", "unknown", ""]
"""Where a cost comes from: the rules file, the table that is shipped, the back end itself. `unknown`: there
are tokens, and no price for all of them. Empty: there is nothing to price."""


class AttemptRow(Struct, kw_only=True, omit_defaults=True, gc=False):
    """One attempt at one target. Times are in microseconds."""

    number: int
    """From 1 on, in the order of their beginning."""
    purpose: str = "answer"
    """`answer`, or `safeguards`: verdicts on the tool uses of one."""
    provider: str
    model: str
    """The model that was asked for at the provider."""
    served_model: str | None = None
    """What the back end calls the model that answered."""
    engine: str = "direct"
    at: int
    """Since 1970, in UTC."""
    first_content: int | None = None
    """Since the attempt began."""
    duration: int
    failure: str | None = None
    """The class of the failure that ended it."""
    let_go: bool = False
    """It did not come to its end: the client left, or the server stopped."""
    asked_again: str | None = None
    dropped: Mapping[str, int] = {}
    usage_source: UsageSource = "none"
    input_uncached: int | None = None
    cache_read: int | None = None
    cache_write_5m: int | None = None
    cache_write_1h: int | None = None
    cache_write_other: int | None = None
    output: int | None = None
    reasoning_output: int | None = None
    web_searches: int | None = None
    service_tier: str | None = None
    batch: bool = False
    cost_nanousd: int | None = None
    """`None`: nobody knows."""
    price_source: PriceSource = ""
    price_version: str | None = None

    @property
    def tokens(self) -> TokenUsage:
        return TokenUsage(**{name: getattr(self, name) for name in _TOKEN_FIELDS})


_TOKEN_FIELDS = tuple(
    name for name in TokenUsage.__struct_fields__ if name not in ("cost_nanousd", "is_estimate")
)


class RequestRow(Struct, kw_only=True, omit_defaults=True, gc=False):
    """One request, whatever became of it. Times are in microseconds."""

    id: str
    """A UUID of version 7, in 32 hexadecimal digits."""
    at: int
    """When it began, since 1970, in UTC."""
    path: str
    stream: bool = False
    requested_model: str | None = None
    session: str | None = None
    prompt_id: str | None = None
    request_class: str | None = None
    team: str | None = None
    labels: Mapping[str, str] = {}
    """Those that the team had then."""
    key: str | None = None
    user: str | None = None
    user_source: Literal["key", "claimed"] | None = None
    rule: str | None = None
    version: str
    facts: Mapping[str, Any] = {}
    """What rules could look at, as in the decision log, without the user and the session."""
    status: int = 0
    error: str | None = None
    denied: bool = False
    """A rule refused it, and nobody was asked."""
    skipped: Mapping[str, str] = {}
    """The targets that were passed over, and why."""
    shadow: Mapping[str, str] = {}
    """What shadow rules would have done with it, by their names."""
    client_left: bool = False
    queued: int = 0
    first_content: int | None = None
    duration: int = 0
    attempts: tuple[AttemptRow, ...] = ()

    @property
    def last(self) -> int | None:
        """The number of the last attempt at an answer: where it went, the request is counted. `None`: nobody
        was asked."""
        return max((attempt.number for attempt in self.attempts if attempt.purpose == "answer"), default=None)


class OpenRow(Struct, kw_only=True, omit_defaults=True, gc=False):
    """A request that is under way: what is known of it if its process does not live to see its end."""

    id: str
    at: int
    team: str | None = None
    key: str | None = None
    rule: str | None = None
    process: int


class Batch(Struct, kw_only=True):
    """What is written in one transaction."""

    requests: list[RequestRow] = []
    opened: list[OpenRow] = []

    @property
    def rows(self) -> int:
        return len(self.requests) + sum(len(row.attempts) for row in self.requests) + len(self.opened)


def without_surrogates(batch: Batch) -> Batch:
    """The same, but for halves of characters, which no database holds."""
    return msgspec.convert(_clean(msgspec.to_builtins(batch)), Batch)


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_clean(key): _clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    return value


LATE = 3600 * 10**6
"""Microseconds. A row that is written so long after its request is late: sums that were read before lacked
it."""
