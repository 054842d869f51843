"""How clients ask and how they are answered: one file a protocol, and all that is behind them speaks
Messages.

To add one, write its file and add it to `PROTOCOLS`.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from routeproxy.exchange import Endpoint
from routeproxy.messages.errors import ApiError
from routeproxy.messages.events import Event
from routeproxy.messages.reply import Message
from routeproxy.output import Relayed, TokenCount
from routeproxy.web.protocols.messages import MessagesProtocol

Headers = tuple[tuple[str, str], ...]


class ClientProtocol(Protocol):
    """Pure: bytes of a request in, a Messages body out; what is answered in, bytes out."""

    @property
    def paths(self) -> Mapping[Endpoint, str]:
        """Where each endpoint that it has is asked for. All of them are asked with POST."""

    @property
    def stream_headers(self) -> Headers:
        """Of an answer that is streamed, its content type among them."""

    @property
    def reply_headers(self) -> Headers:
        """Of an answer that comes whole, errors included."""

    @property
    def relays_errors(self) -> bool:
        """Whether a Messages back end's error body is what its clients read, and goes to them as it is."""

    def decode_request(self, body: bytes, endpoint: Endpoint) -> bytes:
        """The request as a Messages body. Raises `InvalidRequest` for what is none of this protocol's."""

    def encode_events(self, events: Sequence[Event]) -> bytes:
        """A part of a stream; an `Error` among the events ends it. Nothing where the protocol has no word for
        an event."""

    def encode_message(self, message: Message) -> bytes:
        """The body of an answer that comes whole."""

    def relay_events(self, relayed: Relayed) -> bytes:
        """Whole frames of a Messages stream: as they are, or read with `messages.events.read_events` and
        encoded."""

    def relay_message(self, relayed: Relayed) -> bytes:
        """A whole Messages reply: as it is, or read with `messages.reply.read_message` and encoded."""

    def encode_error(self, error: ApiError, request_id: str) -> bytes:
        """The body of an answer that is an error."""

    def encode_token_count(self, count: TokenCount) -> bytes:
        """The body of an answer to `count_tokens`, where the count is ours."""

    def relay_token_count(self, relayed: Relayed) -> bytes:
        """The same, where it is a Messages back end's."""


PROTOCOLS: tuple[ClientProtocol, ...] = (MessagesProtocol(),)
