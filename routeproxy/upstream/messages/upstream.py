"""Back ends that speak Messages: a byte pipe. The body goes out as it came but for the spans that must
change, and the answer is relayed frame for frame; a scanner watches for content, usage, errors and the end
(wire.md, "Decided" and §3)."""

import asyncio
import re
from contextlib import closing, suppress

import msgspec
from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from routeproxy.exchange import KEEPALIVE, Call, Emit, Output
from routeproxy.messages.decoding import UNREADABLE
from routeproxy.messages.edits import Span, apply, foreign_traces, members, set_members
from routeproxy.messages.errors import InvalidRequest
from routeproxy.messages.reply import Usage
from routeproxy.messages.request import OLDEST_VERSION
from routeproxy.policy.targets import Params
from routeproxy.upstream.failover import needed_key
from routeproxy.upstream.failures import (
    HIDDEN,
    Relay,
    UpstreamFailure,
    credentials_refused,
    from_error_type,
    from_response,
    redirected,
)
from routeproxy.upstream.http.client import Client, Response, failure_of, forwarded, line_of
from routeproxy.upstream.messages import assemble
from routeproxy.upstream.params import edits, settled_by_rules

PUBLIC = "https://api.anthropic.com"

LONGEST_ERROR = 2**20
LONGEST_REPLY = 2**26
LONGEST_FRAME = 2**24
"""Bytes. What is longer is no answer to a person's question, and must not fill the memory that all requests
share."""

COUNTING = 15.0
"""Seconds that a back end's own count of tokens is worth waiting for: there is an estimate."""

_RELAYED = frozenset({"request-id", "retry-after", "retry-after-ms", "x-should-retry"})
_COUNTED = frozenset({"thinking", "tool_choice", "output_config", "context_management", "mcp_servers"})
"""Parameters that a request to count tokens may have: it is refused for others."""


class MessagesUpstream:
    def __init__(self, client: Client) -> None:
        self._client = client

    async def send(self, call: Call, emit: Emit) -> None:
        response = await self._post(call, "/v1/messages", body_for(call))
        try:
            if not 200 <= response.status < 300:
                raise await _failure(response, call)
            call.exchange.relayed = _relayed_headers(response, call)
            await _relay(response, call, emit)
        finally:
            response.close()

    async def count_tokens(self, call: Call) -> bytes | None:
        provider, timeouts = call.target.provider, call.target.timeouts
        path, body = "/v1/messages/count_tokens", body_for(call, counting=True)
        try:
            async with asyncio.timeout(min(timeouts.first_token, COUNTING)):
                with closing(await self._post(call, path, body)) as response:
                    if response.status != 200:
                        failure = await _failure(response, call)
                        failure.hide([call.key] if call.key else [])  # its words become a warning
                        raise failure
                    counted = await response.whole(LONGEST_ERROR)
                    if not _counts(counted):
                        raise _not_a_message(call)
                    call.exchange.relayed = _relayed_headers(response, call)
                    return counted
        except TimeoutError as error:
            raise failure_of(error, provider.name) from error

    async def _post(self, call: Call, path: str, body: bytes) -> Response:
        provider = call.target.provider
        base = (provider.base_url or PUBLIC).rstrip("/").removesuffix("/v1")
        query = call.exchange.inbound.query
        return await self._client.post(
            provider,
            f"{base}{path}{'?' + query if query else ''}",
            body=body,
            headers=headers_for(call),
            connect=call.target.timeouts.connect,
        )


def body_for(call: Call, *, counting: bool = False) -> bytes:
    """The client's body, with as few bytes changed as can be."""
    exchange, target = call.exchange, call.target
    body, params = exchange.body, target.params
    if counting:
        params = _only_counted(params)
    settled = settled_by_rules(body.members, target)
    exchange.warn(*settled.values())
    changes = edits(body, params, {"model": target.model}, frozenset(settled), params.extra_body)
    return apply(body.text, changes + foreign_traces(body.text, body.members))


def _only_counted(params: Params) -> Params:
    return Params(
        default={name: value for name, value in params.default.items() if name in _COUNTED},
        set={name: value for name, value in params.set.items() if name in _COUNTED},
        drop=params.drop,
    )


def headers_for(call: Call) -> dict[str, str]:
    inbound, provider = call.exchange.inbound, call.target.provider
    headers = {
        name: line_of(values)
        for name, values in inbound.headers.items()
        if name.startswith("anthropic-") and name != "anthropic-dangerous-direct-browser-access"
    }
    headers |= forwarded(provider, inbound)
    headers.setdefault("anthropic-version", OLDEST_VERSION)
    headers |= {
        "content-type": "application/json",
        "accept": "application/json",
        "accept-encoding": "identity",
    }
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


async def _relay(response: Response, call: Call, emit: Emit) -> None:
    if response.content_type != "text/event-stream":
        await emit(await _whole(response, call))
    elif call.exchange.stream:
        await _frames(response, call, emit)
    else:
        await emit(await _folded(response, call))


async def _whole(response: Response, call: Call) -> Output:
    """A whole reply, for a client that asked for one or for a stream."""
    body = await response.whole(LONGEST_REPLY)
    try:
        head = _head.decode(body)
    except UNREADABLE:
        raise _not_a_message(call) from None
    if head.error is not None:
        raise from_error_type(head.error.type, head.error.message)
    if head.type != "message":
        raise _not_a_message(call)
    _Scanner(call).note(head.usage)
    try:
        if model := _shown_model(call):
            body = apply(body, set_members(body, {"model": msgspec.json.encode(model)}))
        if call.exchange.stream:
            body = assemble.frames_of(assemble.read(body))
    except (InvalidRequest, ValueError, LookupError, TypeError):
        raise _not_a_message(call) from None
    return Output(body, True)


async def _folded(response: Response, call: Call) -> Output:
    """A stream that came although a whole reply was asked for."""
    parts: list[bytes] = []

    async def keep(part: Output) -> None:
        parts.append(part.data)

    await _frames(response, call, keep)
    try:
        message = assemble.message_of(b"".join(parts))
    except (ValueError, LookupError, TypeError):
        raise _not_a_message(call) from None
    if message.get("type") == "error":
        error = msgspec.convert(message, _ReplyHead).error or _ErrorHead()
        raise from_error_type(error.type, error.message)
    return Output(assemble.write(message), True)


def _not_a_message(call: Call) -> UpstreamFailure:
    return UpstreamFailure(
        "connection",
        f"the back end {call.target.provider.name} answered with something that is not a message",
    )


class _UsageSoFar(Struct, frozen=True):
    """Of the many numbers those that we count; whatever else stands there is none of our business."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None


class _ErrorHead(Struct, frozen=True):
    type: str = "api_error"
    message: str = ""


class _ReplyHead(Struct, frozen=True):
    type: str = ""
    usage: _UsageSoFar | None = None
    error: _ErrorHead | None = None


class _StartedMessage(Struct, frozen=True):
    usage: _UsageSoFar | None = None


class _EventHead(Struct, frozen=True):
    type: str = ""
    message: _StartedMessage | None = None
    usage: _UsageSoFar | None = None
    error: _ErrorHead | None = None


class _Count(Struct, frozen=True):
    input_tokens: int


_head = msgspec.json.Decoder(_ReplyHead)
_event_head = msgspec.json.Decoder(_EventHead)
_count = msgspec.json.Decoder(_Count)

_NOTABLE = re.compile(
    rb'^(?:event: ?|data: ?\{\s*"type"\s*:\s*")'
    rb"(message_start|message_delta|message_stop|content_block_start|error)\b",
    re.MULTILINE,
)


_WORDS = (b"message_", b"content_block_start", b"error")
"""One of them stands in everything notable. To look for a word is much faster than to look for a line."""


def _notable_in(frames: bytes, at: int) -> re.Match[bytes] | None:
    """The first line from `at` on that tells of a notable event."""
    places = [place for word in _WORDS if (place := frames.find(word, at)) >= 0]
    return _NOTABLE.search(frames, max(at, frames.rfind(b"\n", at, min(places)) + 1)) if places else None


def _end_of_frames(text: bytes, start: int, stop: int | None = None) -> int:
    """Where the last frame that ends in there ends; 0 if none does."""
    bare, full = text.rfind(b"\n\n", start, stop), text.rfind(b"\n\r\n", start, stop)
    return max(bare + 2 if bare >= 0 else 0, full + 3 if full >= 0 else 0)


async def _frames(response: Response, call: Call, emit: Emit) -> None:
    """Whole frames, as many at a time as one read brought."""
    scanner = _Scanner(call)
    rest = b""
    while data := await response.read():
        new = max(0, len(rest) - 3)
        rest = rest + data if rest else data
        end = _end_of_frames(rest, new)
        if not end:
            if len(rest) > LONGEST_FRAME:
                raise UpstreamFailure(
                    "connection", f"the back end {call.target.provider.name} sends no end of an event"
                )
            await emit(KEEPALIVE)
            continue
        await emit(scanner.part(rest[:end]))
        if scanner.over:
            await response.drain()
            return
        rest = rest[end:]
    if _is_complete(rest):  # some leave out the very last line break
        await emit(scanner.part(rest.rstrip() + b"\n\n"))
    if not scanner.over:
        raise UpstreamFailure("connection", "upstream closed the stream before completing")


def _is_complete(frame: bytes) -> bool:
    with suppress(*UNREADABLE):
        msgspec.json.decode(assemble.data_of(frame), type=msgspec.Raw)
        return True
    return False


class _Scanner:
    """Reads along. Frames are looked into only where their event is one of `_NOTABLE`'s."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._usage = _UsageSoFar()
        self._content = False
        self.over = False

    def part(self, frames: bytes) -> Output:
        kept: list[bytes] = []
        at = 0
        while notable := _notable_in(frames, at):
            line = notable.start()
            begin = max(at, _end_of_frames(frames, at, line))
            end = found.end() if (found := assemble.FRAME_END.search(frames, line)) else len(frames)
            kept += (frames[at:begin], self._look_into(frames[begin:end], notable[1]))
            at = end
            if self.over:  # nothing may follow the end
                return Output(b"".join(kept), self._content)
        if not kept:
            return Output(frames, self._content)
        return Output(b"".join((*kept, frames[at:])), self._content)

    def _look_into(self, one: bytes, event: bytes) -> bytes:
        match event:
            case b"message_start":
                return self._started(one)
            case b"content_block_start":
                self._content = True
            case b"message_delta":
                self._content = True
                self.note(_event(one).usage)
            case b"message_stop":
                self.over = True
            case b"error":
                return self._failed(one)
        return one

    def _started(self, one: bytes) -> bytes:
        head = _event(one)
        self.note(head.message.usage if head.message else None)
        model = _shown_model(self._call)
        lines = list(assemble.DATA.finditer(one))
        if model is None or not lines:
            return one
        data = assemble.data_of(one)
        where = _model_in(data)
        if where is None:
            return one
        spliced = data[: where.start] + msgspec.json.encode(model) + data[where.end :]
        return one[: lines[0].start(1)] + spliced.replace(b"\n", b"\ndata: ") + one[lines[-1].end(1) :]

    def _failed(self, one: bytes) -> bytes:
        error = _event(one).error or _ErrorHead()
        if not self._content:
            raise from_error_type(error.type, error.message)
        self._call.exchange.error = error.type
        self.over = True
        return one.replace(self._call.key.encode(), HIDDEN.encode()) if self._call.key else one

    def note(self, usage: _UsageSoFar | None) -> None:
        if usage is None:
            return
        news = {
            name: value for name in usage.__struct_fields__ if (value := getattr(usage, name)) is not None
        }
        so_far = self._usage = replace(self._usage, **news)
        self._call.exchange.note_usage(
            Usage(
                input_tokens=_or_unset(so_far.input_tokens),
                cache_creation_input_tokens=_or_unset(so_far.cache_creation_input_tokens),
                cache_read_input_tokens=_or_unset(so_far.cache_read_input_tokens),
                output_tokens=so_far.output_tokens or 0,
            )
        )


def _or_unset(value: int | None) -> int | UnsetType:
    return UNSET if value is None else value


def _event(frame: bytes) -> _EventHead:
    try:
        return _event_head.decode(assemble.data_of(frame))
    except UNREADABLE:
        return _EventHead()


def _model_in(data: bytes) -> Span | None:
    """Where `message.model` stands in a `message_start`. Whatever cannot be read goes to the client as it
    is."""
    with suppress(*UNREADABLE, InvalidRequest):
        if message := members(data).get("message"):
            model = members(data, *message.value).get("model")
            return model.value if model else None
    return None


def _shown_model(call: Call) -> str | None:
    """What `model` must say instead of what the back end wrote; None where that is right already."""
    asked = call.exchange.envelope.model if call.exchange.envelope else None
    if call.target.transforms.model_name == "served":
        return None
    return asked


def _relayed_headers(response: Response, call: Call) -> list[tuple[str, str]]:
    return [
        (name, value if call.key is None else value.replace(call.key, HIDDEN))
        for name, value in response.headers
        if name.startswith("anthropic-") or name in _RELAYED
    ]


async def _failure(response: Response, call: Call) -> UpstreamFailure:
    provider, status = call.target.provider, response.status
    if 300 <= status < 400:
        return redirected(provider.name)
    if status in (401, 403) and not provider.client_key:
        return credentials_refused(provider.name)
    body = await response.whole(LONGEST_ERROR)
    failure = from_response(
        status, dict(response.headers), body.decode("utf-8", "replace"), provider=provider.name
    )
    if _is_api_error(body):
        # Clients match an error's wording and act on it, so it goes out as it came.
        failure.relay = Relay(status, "application/json", tuple(_relayed_headers(response, call)), body)
    elif status in (401, 403):
        failure = UpstreamFailure("auth", "the client's own login was refused", status=status)
    return failure


def _is_api_error(body: bytes) -> bool:
    """Whether it has the shape that Anthropic's clients read; other shapes lose what they say."""
    try:
        head = _head.decode(body)
    except UNREADABLE:
        return False
    return head.type == "error" and head.error is not None and bool(head.error.message)


def _counts(body: bytes) -> bool:
    with suppress(*UNREADABLE):
        return _count.decode(body).input_tokens >= 0
    return False
