"""Asks back ends that speak Messages: the body goes out as it came but for the spans that must change, and
the answer is relayed (wire.md, "Decided")."""

import asyncio
from contextlib import closing, suppress

import msgspec
from msgspec import Struct

from routeproxy.chat.reported_errors import ReportedError, read_error_body
from routeproxy.exchange import Call
from routeproxy.large_bodies import read_beside
from routeproxy.messages.decoding import UNREADABLE
from routeproxy.messages.edits import apply_edits, remove_foreign_traces
from routeproxy.messages.losses import Losses
from routeproxy.messages.request import OLDEST_VERSION
from routeproxy.output import Emit, Relayed
from routeproxy.policy.targets import Params
from routeproxy.redaction import redact
from routeproxy.upstream.errors.classify import OF_THE_WAY
from routeproxy.upstream.errors.overflow import CAPABILITY_REJECTED, is_in_the_apis_words
from routeproxy.upstream.errors.refusals import is_told_in_the_apis_words
from routeproxy.upstream.failures import Relay, UpstreamFailure, not_a_message
from routeproxy.upstream.http.client import Client, Response, failure_of, read_failure
from routeproxy.upstream.http.headers import join_values, outgoing_headers
from routeproxy.upstream.keys import needed_key
from routeproxy.upstream.messages.assemble import decode_object
from routeproxy.upstream.messages.relay import relay
from routeproxy.upstream.messages.stream_events import is_api_error
from routeproxy.upstream.params import plan_edits, settled_by_rules
from routeproxy.upstream.portability import check_losses

PUBLIC = "https://api.anthropic.com"

COUNTING = 15.0
"""Seconds that a back end's own count of tokens is worth waiting for: there is an estimate."""

LONGEST_COUNT = 2**20
"""Bytes of an answer that is a count of tokens."""

_RELAYED = frozenset({"request-id", "retry-after", "retry-after-ms", "x-should-retry"})
_COUNTED = frozenset({"thinking", "tool_choice", "output_config", "context_management", "mcp_servers"})
"""Parameters that a request to count tokens may have: it is refused for others."""


class MessagesUpstream:
    def __init__(self, client: Client) -> None:
        self._client = client

    async def send(self, call: Call, emit: Emit) -> None:
        response = await self._post(call, "/v1/messages", await _body(call))
        try:
            if not response.ok:
                raise await _failure(response, call)
            call.exchange.relayed_headers = _relayed_headers(response)
            await relay(response, call, emit)
        finally:
            response.close()

    async def count_tokens(self, call: Call) -> Relayed | None:
        provider, timeouts = call.target.provider, call.target.timeouts
        path, body = "/v1/messages/count_tokens", await _body(call, counting=True)
        try:
            async with asyncio.timeout(min(timeouts.first_token or COUNTING, COUNTING)):
                with closing(await self._post(call, path, body)) as response:
                    if response.status != 200:
                        failure = await _failure(response, call)
                        # Its words become a warning.
                        failure.redact(call.exchange.secrets)
                        raise failure
                    count = await response.read_all(LONGEST_COUNT)
                    if not _is_count(count):
                        raise not_a_message(provider.name)
                    call.exchange.relayed_headers = _relayed_headers(response)
                    return Relayed(count)
        except TimeoutError as error:
            raise failure_of(error, provider.name) from error

    async def _post(self, call: Call, path: str, body: bytes) -> Response:
        provider = call.target.provider
        base = (provider.base_url or PUBLIC).rstrip("/").removesuffix("/v1")
        query = call.exchange.inbound.query
        response = await self._client.post(
            provider,
            f"{base}{path}{'?' + query if query else ''}",
            body=body,
            headers=_headers(call),
            connect=call.target.timeouts.connect,
        )
        call.exchange.keep_secret(response.secrets)
        return response


# --- the request


async def _body(call: Call, *, counting: bool = False) -> bytes:
    """The client's body, with as few bytes changed as can be."""
    inbound = call.exchange.inbound
    body, losses = await read_beside(len(inbound.body), inbound.caller, _edited, call, counting)
    if not counting:
        check_losses(losses, call)
    return body


def _edited(call: Call, counting: bool) -> tuple[bytes, Losses]:
    exchange, target = call.exchange, call.target
    body, params = exchange.body, target.params
    if counting:
        params = _params_that_count(params)
    settled = settled_by_rules(body.members, target)
    exchange.warn(*settled.values())
    edits = plan_edits(body, params, {"model": target.model}, frozenset(settled), params.extra_body)
    removed = remove_foreign_traces(body.text, body.members)
    return apply_edits(body.text, edits + removed.edits), removed.losses


def _params_that_count(params: Params) -> Params:
    return Params(
        default={name: value for name, value in params.default.items() if name in _COUNTED},
        set={name: value for name, value in params.set.items() if name in _COUNTED},
        drop=params.drop,
    )


def _headers(call: Call) -> dict[str, str]:
    protocol = {
        name: join_values(values)
        for name, values in call.exchange.inbound.headers.items()
        if name.startswith("anthropic-") and name != "anthropic-dangerous-direct-browser-access"
    }
    protocol.setdefault("anthropic-version", OLDEST_VERSION)
    return outgoing_headers(
        call,
        protocol=protocol,
        credentials=_credentials(call),
        fixed={"content-type": "application/json", "accept": "application/json"},
    )


def _credentials(call: Call) -> dict[str, str]:
    inbound, provider = call.exchange.inbound, call.target.provider
    if provider.client_key:
        names = ("authorization", "x-api-key")
        return {name: value for name in names if (value := inbound.header(name))}
    key = needed_key(call)
    if not key:
        return {}
    credentials = {"x-api-key": key}
    if provider.base_url and not provider.base_url.startswith(PUBLIC):
        # vLLM and some gateways look at Authorization only.
        credentials["authorization"] = f"Bearer {key}"
    return credentials


# --- the answer


def _relayed_headers(response: Response) -> list[tuple[str, str]]:
    return [
        (name, redact(value, response.secrets))
        for name, value in response.headers
        if name.startswith("anthropic-") or name in _RELAYED
    ]


async def _failure(response: Response, call: Call) -> UpstreamFailure:
    status = response.status
    failure, body = await read_failure(response, call.target.model)
    if status in (401, 403) and call.target.provider.client_key:
        # The client showed its own login, and it is the one to hear of it.
        failure = UpstreamFailure("auth", "the client's own login was refused", status=status)
    elif status in (401, 403) or failure.kind == "auth" or not _is_of_the_api(status):
        return failure
    if _is_api_error(body) and _keeps_its_words(failure, status, body):
        # Clients match an error's wording and act on it, so it goes out as it came.
        failure.relay = Relay(status, "application/json", tuple(_relayed_headers(response)), body)
    return failure


def _is_api_error(body: bytes) -> bool:
    with suppress(ValueError, RecursionError):
        return is_api_error(decode_object(body))
    return False


def _is_of_the_api(status: int) -> bool:
    return 400 <= status < 600 and status not in OF_THE_WAY


def _keeps_its_words(failure: UpstreamFailure, status: int, body: bytes) -> bool:
    """Whether a client can act on the back end's own answer. Servers that only look like the API have its
    shape, and their own words for a prompt that does not fit, or for what they cannot take; and some say that
    for a fault of their own."""
    if status >= 500 and failure.status < 500:
        return False
    reported = read_error_body(body.decode("utf-8", "replace")) or ReportedError()
    if failure.kind == "context_overflow":
        return "request_too_large" in reported.codes or is_in_the_apis_words(reported.message)
    if failure.message.startswith(CAPABILITY_REJECTED):
        return is_told_in_the_apis_words(reported.message)
    return True


class _Count(Struct, frozen=True):
    input_tokens: int


_decode_count = msgspec.json.Decoder(_Count).decode


def _is_count(body: bytes) -> bool:
    with suppress(*UNREADABLE):
        return _decode_count(body).input_tokens >= 0
    return False
