"""Anthropic's Messages API, which is what Claude Code and the Anthropic SDKs speak (wire.md). What a Messages
back end wrote goes through byte for byte."""

from collections.abc import Mapping, Sequence

from routeproxy.exchange import Endpoint
from routeproxy.messages.errors import ApiError, error_body
from routeproxy.messages.events import Event, frame
from routeproxy.messages.reply import Message, encode
from routeproxy.output import Relayed, TokenCount

STREAM_HEADERS = (
    ("content-type", "text/event-stream; charset=utf-8"),
    ("cache-control", "no-cache"),
    ("x-accel-buffering", "no"),
)
JSON_HEADERS = (("content-type", "application/json"),)


class MessagesProtocol:
    paths: Mapping[Endpoint, str] = {
        "messages": "/v1/messages",
        "count_tokens": "/v1/messages/count_tokens",
        "route": "/v1/route",
    }
    stream_headers = STREAM_HEADERS
    reply_headers = JSON_HEADERS
    relays_errors = True

    def decode_request(self, body: bytes, endpoint: Endpoint) -> bytes:
        return body

    def encode_events(self, events: Sequence[Event]) -> bytes:
        return frame(events[0]) if len(events) == 1 else b"".join([frame(event) for event in events])

    def encode_message(self, message: Message) -> bytes:
        return encode(message)

    def relay_events(self, relayed: Relayed) -> bytes:
        return relayed.data

    def relay_message(self, relayed: Relayed) -> bytes:
        return relayed.data

    def encode_error(self, error: ApiError, request_id: str) -> bytes:
        return error_body(error, request_id)

    def encode_token_count(self, count: TokenCount) -> bytes:
        return b'{"input_tokens":%d}' % count.input_tokens

    def relay_token_count(self, relayed: Relayed) -> bytes:
        return relayed.data
