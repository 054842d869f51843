"""The headers of every request to a back end, written in one place. Headers of the client's connection, its
secrets and what it says to us alone are never passed on."""

from collections.abc import Mapping

from routeproxy.exchange import Call, Inbound
from routeproxy.policy.providers import Provider
from routeproxy.redaction import words_of

HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}  # and `proxy-*`
)
"""Headers of a connection: each of its ends writes its own."""

BODY_FRAMING = frozenset({"content-encoding", "content-length", "transfer-encoding"})
"""Headers that say how a body is carried, which changes when it is read and written anew."""

_CREDENTIALS = (
    "authorization",
    "api-key",
    "cookie",
    "proxy-authorization",
    "x-amz-security-token",
    "x-api-key",
    "x-goog-api-key",
)

TRACEPARENT = "traceparent"

_NEVER_FORWARDED = (
    HOP_BY_HOP
    | BODY_FRAMING
    | {"accept-encoding", "authorization", "cookie", "expect", "host", "x-api-key"}
    | {"baggage", "tracestate"}  # they say of a client's systems what no back end has to know
)
_NEVER_FORWARDED_PREFIXES = ("x-routeproxy-", "x-forwarded-", "proxy-")


def outgoing_headers(
    call: Call,
    *,
    protocol: Mapping[str, str],
    credentials: Mapping[str, str],
    fixed: Mapping[str, str] = {},
) -> dict[str, str]:
    """The headers of the request that `call` makes, names in lower case.

    Later ones win: what the `protocol` needs, the `credentials`, the client's headers that the provider's
    `forward` names, what is `fixed` whatever the client says, the provider's own `headers`.
    """
    provider = call.target.provider
    headers = {**protocol, **credentials, "accept-encoding": "identity"}
    if organization := provider.options.get("organization"):
        headers["openai-organization"] = str(organization)
    headers |= _forwarded_headers(provider, call.exchange.inbound)
    headers |= _trace_headers(call)
    headers |= fixed
    headers |= {name.lower(): value for name, value in provider.headers.items()}
    return headers


def secrets_in(headers: Mapping[str, str], provider: Provider) -> frozenset[str]:
    """What of them no client and no log may see, should the back end say it back."""
    credentials = [headers[name] for name in _CREDENTIALS if name in headers]
    return frozenset([*provider.secret_values, *(word for value in credentials for word in words_of(value))])


def _forwarded_headers(provider: Provider, inbound: Inbound) -> dict[str, str]:
    return {
        name: join_values(inbound.headers[name])
        for name in provider.forward
        if name in inbound.headers
        and name not in _NEVER_FORWARDED
        and not name.startswith(_NEVER_FORWARDED_PREFIXES)
    }


def _trace_headers(call: Call) -> dict[str, str]:
    """Our trace goes on to back ends of our own, and to a public one only if `forward` names its header."""
    exchange, provider = call.exchange, call.target.provider
    trace, attempts = exchange.trace, exchange.attempts
    if trace is None or not attempts or attempts[-1].span_id is None:
        return {}
    if provider.zone == "public" and TRACEPARENT not in provider.forward:
        return {}
    return {TRACEPARENT: f"00-{trace.trace_id}-{attempts[-1].span_id}-{int(trace.is_sampled):02x}"}


def join_values(values: tuple[str, ...]) -> str:
    """Several lines of a header as one. It came as bytes, which we read as Latin-1 and the HTTP client writes
    as UTF-8."""
    joined = ",".join(values)
    if joined.isascii():
        return joined
    return joined.encode("latin-1").decode("utf-8", "replace")
