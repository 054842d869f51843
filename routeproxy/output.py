"""What an answer is made of between the back end that gives it and the client's protocol, which alone writes
bytes: events of a translated stream, a whole message, or what a Messages back end wrote, as it stands."""

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from msgspec import Struct

from routeproxy.messages.events import Event
from routeproxy.messages.reply import Message
from routeproxy.policy.explain import Explanation


class Relayed(Struct, frozen=True):
    """Whole frames of a Messages stream, or a whole Messages reply, byte for byte as a back end wrote it."""

    data: bytes


class TokenCount(Struct, frozen=True):
    """An estimate of ours, where no back end counts."""

    input_tokens: int


Content = Sequence[Event] | Message | Relayed | TokenCount | Explanation


class Output(NamedTuple):
    """What one read of a back end's answer brought."""

    content: Content
    commits: bool
    """Whether the model's own words are in it: from here on the answer is this back end's, for better or
    worse."""


KEEPALIVE = Output((), False)
"""A sign of life from a back end that has nothing to relay: it resets the idle clock."""

Emit = Callable[[Output], Awaitable[None]]
"""Where a back end's output goes as it comes. It returns once there is room for more."""

Write = Callable[[Sequence[Content]], Awaitable[None]]
"""Where what the client gets goes, in one write. It returns once there is room for more."""
