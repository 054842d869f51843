"""Back ends that speak Messages: a byte pipe. The body goes out as it came but for the spans that must change, and the answer is relayed
frame for frame; a scanner watches for content, usage, errors and the end (wire.md, "Decided" and §3)."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
from msgspec import UNSET, Struct, UnsetType

from routeproxy.exchange import NOTHING_YET, Call, Exchange, Part
from routeproxy.messages.edits import apply, foreign_traces, members, set_members
from routeproxy.messages.events import events_of, frame
from routeproxy.messages.reply import Message, Usage
from routeproxy.messages.request import OLDEST_VERSION
from routeproxy.upstream.chain import needed_key
from routeproxy.upstream.failures import Relay, UpstreamFailure, credentials_refused, from_error_type, from_response
from routeproxy.upstream.http import Client, failure_of
from routeproxy.upstream.params import edits, merged

PUBLIC = "https://api.anthropic.com"

_RELAYED = ("request-id", "retry-after", "x-should-retry")
_NEVER_FORWARDED = frozenset(
    {
        "authorization",
        "x-api-key",
        "cookie",
        "host",
        "content-length",
        "connection",
        "accept-encoding",
        "transfer-encoding",
        "content-encoding",
        "te",
        "upgrade",
        "keep-alive",
        "expect",
    }
)


class MessagesApi:
    def __init__(self, client: Client) -> None:
        self._client = client

    @asynccontextmanager
    async def send(self, call: Call) -> AsyncIterator[AsyncIterator[Part]]:
        exchange, provider = call.exchange, call.target.provider
        try:
            async with self._post(call, "/v1/messages", body_for(call)) as response:
                exchange.relayed = _relayed_headers(response)
                if not 200 <= response.status < 300:
                    raise await _failure(response, call)
                yield _relay(response, call)
        except (aiohttp.ClientError, OSError) as error:
            if isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ClientError):
                raise  # the chain's own clock
            raise failure_of(error, provider.name) from error

    async def count_tokens(self, call: Call) -> bytes | None:
        try:
            async with self._post(call, "/v1/messages/count_tokens", body_for(call)) as response:
                call.exchange.relayed = _relayed_headers(response)
                if response.status != 200:
                    raise await _failure(response, call)
                return await response.read()
        except (aiohttp.ClientError, OSError) as error:
            raise failure_of(error, call.target.provider.name) from error

    def _post(self, call: Call, path: str, body: bytes) -> Any:
        provider = call.target.provider
        base = (provider.base_url or PUBLIC).rstrip("/").removesuffix("/v1")
        query = call.exchange.inbound.query
        return self._client.session(provider).post(
            f"{base}{path}{'?' + query if query else ''}",
            data=body,
            headers=headers_for(call),
            **self._client.options(provider, call.target.timeouts.connect),
        )


def body_for(call: Call) -> bytes:
    """The client's body, with as few bytes changed as can be."""
    exchange, target = call.exchange, call.target
    assert exchange.envelope is not None
    body = exchange.inbound.body
    values = {"model": target.model}
    drop = frozenset[str]()
    if b'"fallbacks"' in body:
        # Which back end answers is the rules' decision alone.
        drop = frozenset({"fallbacks"})
        exchange.warn("fallbacks: dropped, the rules decide who answers")
    for name, extra in target.params.extra_body.items():
        values[name] = merged(_present(body, name), extra)
    return apply(body, edits(body, target.params, values, drop) + foreign_traces(body))


def headers_for(call: Call) -> dict[str, str]:
    inbound, provider = call.exchange.inbound, call.target.provider
    headers = {
        name: ",".join(values)
        for name, values in inbound.headers.items()
        if name.startswith("anthropic-") and name != "anthropic-dangerous-direct-browser-access"
    }
    headers |= {
        name: ",".join(inbound.headers[name])
        for name in map(str.lower, provider.forward)
        if name in inbound.headers and name not in _NEVER_FORWARDED
    }
    if "anthropic-version" not in headers:
        headers["anthropic-version"] = OLDEST_VERSION
    headers |= {"content-type": "application/json", "accept": "application/json", "accept-encoding": "identity"}
    if provider.client_key:
        for name in ("authorization", "x-api-key"):
            if value := inbound.header(name):
                headers[name] = value
    elif key := needed_key(call):
        headers["x-api-key"] = key
        if provider.base_url and not provider.base_url.startswith(PUBLIC):
            # vLLM and some gateways look at Authorization only.
            headers["authorization"] = f"Bearer {key}"
    return headers | {name.lower(): value for name, value in provider.headers.items()}


# --- the answer


async def _relay(response: aiohttp.ClientResponse, call: Call) -> AsyncIterator[Part]:
    exchange = call.exchange
    kind = response.headers.get("content-type", "")
    if not kind.startswith("text/event-stream"):
        body = await response.read()
        yield _whole(body, call)
    elif exchange.stream:
        async for part in _frames(response, call):
            yield part
    else:
        raise UpstreamFailure("connection", f"the back end {call.target.provider.name} answered with a stream unasked")


def _whole(body: bytes, call: Call) -> Part:
    exchange = call.exchange
    try:
        head = _head.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise UpstreamFailure(
            "connection", f"the back end {call.target.provider.name} answered with something that is not a message"
        ) from None
    if head.type == "error" and head.error is not None:
        raise from_error_type(head.error.type, head.error.message)
    if head.usage is not None:
        exchange.note_usage(head.usage)
    if exchange.stream:
        message = msgspec.json.decode(body, type=Message)
        asked = msgspec.structs.replace(message, model=_shown_model(call) or message.model)
        return Part(b"".join(frame(event) for event in events_of(asked)), True)
    if model := _shown_model(call):
        body = apply(body, set_members(body, {"model": msgspec.json.encode(model)}))
    return Part(body, True)


class _UsageSoFar(Struct, frozen=True):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None


class _ErrorHead(Struct, frozen=True):
    type: str = "api_error"
    message: str = ""


class _ReplyHead(Struct, frozen=True):
    type: str = "message"
    usage: Usage | None = None
    error: _ErrorHead | None = None


class _StartedMessage(Struct, frozen=True):
    usage: _UsageSoFar | None = None


class _EventHead(Struct, frozen=True):
    type: str
    message: _StartedMessage | None = None
    usage: _UsageSoFar | None = None
    error: _ErrorHead | None = None


_head = msgspec.json.Decoder(_ReplyHead)
_event_head = msgspec.json.Decoder(_EventHead)

_FRAME_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_NOTABLE = re.compile(
    rb'^(?:event: ?|data: ?\{\s*"type"\s*:\s*")(message_start|message_delta|message_stop|content_block_start|error)\b',
    re.MULTILINE,
)
_DATA = re.compile(rb"^data: ?(.*?)\r?$", re.MULTILINE)


async def _frames(response: aiohttp.ClientResponse, call: Call) -> AsyncIterator[Part]:
    """Whole frames, as many at a time as one read brought."""
    scanner = _Scanner(call)
    rest = b""
    async for data in response.content.iter_any():
        rest += data
        end = max(rest.rfind(b"\n\n") + 2, rest.rfind(b"\r\n\r\n") + 4, rest.rfind(b"\r\r") + 2)
        if end <= 3 and not rest[:end].strip():
            yield NOTHING_YET
            continue
        whole, rest = rest[:end], rest[end:]
        yield scanner.part(whole)
        if scanner.over:
            return
    if rest.strip():
        yield scanner.part(rest + b"\n\n")
    if not scanner.over:
        raise UpstreamFailure("connection", "upstream closed the stream before completing")


class _Scanner:
    """Reads along. Frames are looked into only where their event is one of `_NOTABLE`'s."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._usage = _UsageSoFar()
        self._content = False
        self.over = False

    def part(self, frames: bytes) -> Part:
        if not _NOTABLE.search(frames):
            return Part(frames, self._content)
        kept, at = [], 0
        while at < len(frames):
            end = found.end() if (found := _FRAME_END.search(frames, at)) else len(frames)
            kept.append(self._look_into(frames[at:end]))
            at = end
            if self.over:
                break  # nothing may follow the end
        return Part(b"".join(kept), self._content)

    def _look_into(self, one: bytes) -> bytes:
        notable, data = _NOTABLE.search(one), _DATA.search(one)
        if notable is None or data is None:
            return one
        match notable[1]:
            case b"message_start":
                return self._started(one, data)
            case b"content_block_start":
                self._content = True
            case b"message_delta":
                self._content = True
                self._note(_read(data[1]).usage)
            case b"message_stop":
                self.over = True
            case b"error":
                self._failed(_read(data[1]).error or _ErrorHead())
        return one

    def _started(self, one: bytes, data: re.Match[bytes]) -> bytes:
        head = _read(data[1])
        self._note(head.message.usage if head.message else None)
        model = _shown_model(self._call)
        if model is None:
            return one
        message = members(data[1]).get("message")
        inside = members(data[1], *message.value) if message else {}
        if "model" not in inside:
            return one
        start, end = inside["model"].value
        return one[: data.start(1) + start] + msgspec.json.encode(model) + one[data.start(1) + end :]

    def _failed(self, error: _ErrorHead) -> None:
        if not self._content:
            raise from_error_type(error.type, error.message)
        self._call.exchange.error = error.type
        self.over = True

    def _note(self, usage: _UsageSoFar | None) -> None:
        if usage is None:
            return
        news = {name: value for name in usage.__struct_fields__ if (value := getattr(usage, name)) is not None}
        self._usage = msgspec.structs.replace(self._usage, **news)
        known = {name: _or_unset(getattr(self._usage, name)) for name in usage.__struct_fields__ if name != "output_tokens"}
        self._call.exchange.note_usage(Usage(output_tokens=self._usage.output_tokens or 0, **known))


def _or_unset(value: int | None) -> int | UnsetType:
    return UNSET if value is None else value


def _read(data: bytes) -> _EventHead:
    try:
        return _event_head.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _EventHead("")


def _shown_model(call: Call) -> str | None:
    """What `model` must say instead of what the back end wrote; None where that is right already."""
    asked = call.exchange.envelope.model if call.exchange.envelope else None
    if call.target.transforms.model_name == "served" or asked == call.target.model:
        return None
    return asked


def _relayed_headers(response: aiohttp.ClientResponse) -> list[tuple[str, str]]:
    return [
        (name.lower(), value)
        for name, value in response.headers.items()
        if name.lower().startswith("anthropic-") or name.lower() in _RELAYED
    ]


async def _failure(response: aiohttp.ClientResponse, call: Call) -> UpstreamFailure:
    provider = call.target.provider.name
    if 300 <= response.status < 400:
        return UpstreamFailure("connection", f"the back end {provider} answered with a redirect, which is never followed")
    body = await response.read()
    if response.status in (401, 403) and not call.target.provider.client_key:
        return credentials_refused(provider)
    failure = from_response(
        response.status,
        {name.lower(): value for name, value in response.headers.items()},
        body.decode("utf-8", "replace"),
        provider=provider,
    )
    kind = response.headers.get("content-type", "")
    if kind.startswith("application/json"):
        # Clients match an error's wording and act on it, so it goes out as it came.
        failure.relay = Relay(response.status, kind, tuple(_relayed_headers(response)), body)
    return failure


def _present(body: bytes, name: str) -> Any:
    where = members(body).get(name)
    return msgspec.json.decode(body[slice(*where.value)]) if where else None
