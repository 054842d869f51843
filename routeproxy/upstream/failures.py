"""What can go wrong at a back end: the kind of failure that rules name, and the answer that a client gets for
it. How a foreign status, body or exception becomes one of these is not said here: `errors/classify.py` and
the modules that import a transport do that. Messages are for clients: no key, no traceback, 2 kB at most.

    kind                 status  retried?    falls back?
    rate_limit           429     yes         yes
    overloaded           529     yes         yes
    server_error         500     yes         yes
    timeout_connect      504     yes         yes
    timeout_first_token  504     yes         yes
    timeout_idle         504     yes         yes
    connection           502     yes         yes
    auth                 502     no          if a rule says so
    not_found            404     no          if a rule says so
    invalid_request      400     no          if a rule says so
    content_policy       400     no          if a rule says so
    context_overflow     400     no          if a rule says so
    capability           400     no          if a rule says so
    timeout_total        504     no          never

The status is the usual one: the back end may have been more exact, as with 402, 409 or 413, and its own error
is relayed as it came (`Relay`). Retried means by us where a rule has `retry`, else by the client, unless the
back end says in `x-should-retry` that this is in vain. After `auth` and `rate_limit` the provider's other
keys are tried first. A rule names the failures after which the next target is tried; those with "yes" are the
usual ones. A client gets to see `content_policy` as a message whose stop reason is `refusal`, with status
200.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from routeproxy.messages.errors import NO_RETRY, ApiError
from routeproxy.policy.decide import USUAL_FAILURES, FailureKind
from routeproxy.redaction import redact, redact_bytes
from routeproxy.upstream.errors.refusals import Refusal

Kind = FailureKind | Literal["timeout_total"]
"""No rule can name `timeout_total`: the time for the whole answer is used up for every target."""

STATUS_OF_KIND: Mapping[Kind, int] = {
    "rate_limit": 429,
    "overloaded": 529,
    "server_error": 500,
    "timeout_connect": 504,
    "timeout_first_token": 504,
    "timeout_idle": 504,
    "timeout_total": 504,
    "connection": 502,
    "context_overflow": 400,
    "auth": 502,
    "not_found": 404,
    "invalid_request": 400,
    "content_policy": 400,
    "capability": 400,
}

RETRYABLE: frozenset[Kind] = frozenset(USUAL_FAILURES)

KEY_FAILURES: frozenset[Kind] = frozenset({"auth", "rate_limit"})
"""Failures of a key, which another key may not have."""

LONGEST_MESSAGE = 2000
"""Characters."""
DEFAULT_RETRY_AFTER = 5.0
"""Seconds that a client is told to wait where a back end that is busy names none."""
LONGEST_RETRY_AFTER = 60.0
"""Seconds."""


class Relay(Struct, frozen=True):
    """A Messages back end's own error answer, which goes to the client byte for byte."""

    status: int
    content_type: str
    headers: tuple[tuple[str, str], ...]
    """Names are in lower case."""
    body: bytes

    def with_retry_after(self, seconds: float) -> "Relay":
        headers = tuple(header for header in self.headers if not header[0].startswith("retry-after"))
        return replace(self, headers=(*headers, ("retry-after", _whole_seconds(seconds))))

    def redacted(self, secrets: frozenset[str]) -> "Relay":
        headers = tuple((name, redact(value, secrets)) for name, value in self.headers)
        return replace(self, headers=headers, body=redact_bytes(self.body, secrets))


class UpstreamFailure(ApiError):
    """A back end did not answer as it should. `kind` is what rules name; the rest is what the client gets if
    no other target answers."""

    def __init__(
        self,
        kind: Kind,
        message: str,
        *,
        status: int | None = None,
        type: str | None = None,
        retry_after: float | None = None,
        should_retry: bool | None = None,
        relay: Relay | None = None,
        quotes_back_end: bool = False,
        refusal: Refusal | None = None,
        operator_message: str | None = None,
        shows_address: bool = False,
    ) -> None:
        """`retry_after`: seconds that the back end asks to wait. `should_retry`: what it says of another try,
        if it says anything. `quotes_back_end`: the message is in its words, which may quote the prompt, so it
        is for the client and not for a log. `refusal`: what of the request the back end cannot take.
        `operator_message`: the message with the address that was asked, which is nobody else's business.
        `shows_address`: that is what its reader needs, if it may be read."""
        headers = {}
        status = status or STATUS_OF_KIND[kind]
        wait = DEFAULT_RETRY_AFTER if retry_after is None and status in (429, 529) else retry_after
        if wait is not None and should_retry is not False:
            headers["retry-after"] = _whole_seconds(wait)
        if should_retry is not None:
            headers["x-should-retry"] = "true" if should_retry else "false"
        super().__init__(status, message[:LONGEST_MESSAGE], type=type, headers=headers)
        self.kind: Kind = kind
        self.retry_after = retry_after
        self.retryable = kind in RETRYABLE and should_retry is not False
        self.relay = relay
        self.quotes_back_end = quotes_back_end
        self.refusal = refusal
        self.operator_message = (operator_message or message)[:LONGEST_MESSAGE]
        self.shows_address = shows_address
        self.adapted_to: str | None = None
        """What was refused, where the target is asked without that from now on, and may well answer."""
        self.event: bytes | None = None
        """The back end's own error event, in a stream that has begun: clients match its wording."""
        self.passes_over = False
        """Nobody was asked, and nothing is wrong: another target may take the conversation as it is."""
        self.blames_target = True
        """Whether it says anything of the target or its key: a time limit of the rule that was nearly over
        does not, nor does a key that was never shown."""

    def set_retry_after(self, seconds: float) -> None:
        """The client is told to wait so long, whatever the back end said."""
        if self.relay is not None:
            self.relay = self.relay.with_retry_after(seconds)
        self.headers = {**self.headers, "retry-after": _whole_seconds(seconds)}

    def redact(self, secrets: Iterable[str]) -> None:
        """Takes keys out of what the client will see: some back ends quote the key that they refuse."""
        known = frozenset(secrets)
        self.message = redact(self.message, known)
        self.operator_message = redact(self.operator_message, known)
        if self.relay is not None:
            self.relay = self.relay.redacted(known)


def failed_at(
    kind: Kind, provider: str, words: str, address: object | None, *, shows_address: bool
) -> UpstreamFailure:
    """What happened on the way to a back end; operators hear the address, too. `shows_address`: as of
    `UpstreamFailure`."""
    at = f" ({address})" if address is not None else ""
    return UpstreamFailure(
        kind,
        f"the back end {provider} {words}",
        operator_message=f"the back end {provider}{at} {words}",
        shows_address=shows_address,
    )


def _whole_seconds(seconds: float) -> str:
    return str(math.ceil(min(max(seconds, 0.0), LONGEST_RETRY_AFTER)))


def credentials_refused(provider: str) -> UpstreamFailure:
    # Never 401 or 403: the client would take its own key for bad, and Claude Code shows its login screen.
    return UpstreamFailure(
        "auth", f"the back end {provider} rejected the proxy's credentials", should_retry=False
    )


def redirect_refused(provider: str) -> UpstreamFailure:
    return UpstreamFailure(
        "connection", f"the back end {provider} answered with a redirect, which is never followed"
    )


def not_a_completion(provider: str) -> UpstreamFailure:
    return UpstreamFailure(
        "connection", f"the back end {provider} answered with something that is not a completion"
    )


def not_a_message(provider: str) -> UpstreamFailure:
    return UpstreamFailure(
        "connection", f"the back end {provider} answered with something that is not a message"
    )


def page_instead(provider: str) -> UpstreamFailure:
    words = "answered with a web page in place of a completion: is its base_url right?"
    return UpstreamFailure("connection", f"the back end {provider} {words}")


def stream_cut() -> UpstreamFailure:
    return UpstreamFailure("connection", "upstream closed the stream before completing")


def key_missing(provider: str, where: str) -> UpstreamFailure:
    return _blameless("auth", f"the key of provider {provider} is not set: {where} is empty")


def key_unusable(provider: str) -> UpstreamFailure:
    return _blameless("auth", f"the key of provider {provider} has characters that no header can hold")


def _blameless(kind: Kind, message: str) -> UpstreamFailure:
    failure = UpstreamFailure(kind, message, should_retry=False)
    failure.blames_target = False
    return failure


def all_cooling_down(wait: float) -> UpstreamFailure:
    message = "every target of this request failed lately and is left alone for now; try again"
    return UpstreamFailure("overloaded", message, retry_after=wait)


def no_place(wait: float) -> UpstreamFailure:
    message = "every target of this request is busy with as many others as it may have at once; try again"
    return UpstreamFailure("overloaded", message, retry_after=wait)


def too_many_at_once(wait: float) -> UpstreamFailure:
    message = "your team has as many requests under way as it may have at once; try again"
    return UpstreamFailure("rate_limit", message, retry_after=wait)


def all_at_their_limits(wait: float) -> UpstreamFailure:
    message = "every target of this request is at its limit; try again"
    return UpstreamFailure("rate_limit", message, retry_after=wait)


class InvariantBroken(ApiError):
    """Nobody is asked, the next target neither: if this is ever raised, the proof or the decision has a bug,
    or the rules became stricter while the request was under way."""

    def __init__(self, invariant: str) -> None:
        message = f"refused: this request may not go where it was about to go (invariant `{invariant}`)"
        super().__init__(502, message, headers=NO_RETRY)
