"""What becomes of a conversation of which a target can't be given all: the rule says."""

from routeproxy.exchange import Call
from routeproxy.messages.losses import Losses, in_words
from routeproxy.upstream.failures import UpstreamFailure


def check_losses(losses: Losses, call: Call) -> None:
    """Notes what `call.target` can't be given. Raises `UpstreamFailure` where that may not be dropped."""
    if not losses:
        return
    exchange, decision = call.exchange, call.exchange.decision
    exchange.note_dropped(losses)
    words = in_words(losses)
    if decision is not None and decision.portable == "strict":
        failure = UpstreamFailure(
            "capability",
            f"messages: this model can't be given {words} that another provider wrote, and they may not be"
            " dropped here; start a new conversation, or ask for the model that it began with",
        )
        failure.passes_over = True
        raise failure
    exchange.warn(f"{words} of another provider dropped")
