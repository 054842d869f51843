"""How long an attempt waits for its first content. What a rule states holds; where it states nothing, a
target is given less time while another one may still be asked."""

from typing import NamedTuple

from routeproxy.exchange import Exchange
from routeproxy.policy.targets import Timeouts

LAST_TARGET = 300.0
"""Seconds, where nobody else can be asked: as long as clients wait."""
USUAL = 60.0
"""Seconds for the first token of a stream; and between two signs of life of an answer that is none yet."""
LONG_BODY = 200_000
"""Bytes: some 50,000 tokens, which a model may read for a minute."""
TOKENS_A_SECOND = 50
"""That a slow model writes, of an answer that comes as a whole."""


class FirstTokenTimeout(NamedTuple):
    first: float
    """Seconds from when the request was sent."""
    between: float | None = None
    """Seconds from each read of the answer's body, which counts anew. `None`: that doesn't."""


def first_token_timeout(exchange: Exchange, timeouts: Timeouts, *, may_fall_back: bool) -> FirstTokenTimeout:
    """`may_fall_back`: another target would be asked after a time-out."""
    if timeouts.first_token is not None:
        return FirstTokenTimeout(timeouts.first_token)
    facts = exchange.facts
    if not may_fall_back or facts is None:
        return FirstTokenTimeout(LAST_TARGET)
    if exchange.stream:
        takes_long = facts.thinking or len(exchange.inbound.body) > LONG_BODY
        return FirstTokenTimeout(LAST_TARGET) if takes_long else FirstTokenTimeout(USUAL, USUAL)
    if facts.max_tokens is None:
        return FirstTokenTimeout(LAST_TARGET, USUAL)
    return FirstTokenTimeout(min(LAST_TARGET, USUAL + facts.max_tokens / TOKENS_A_SECOND), USUAL)
