"""What the targets of a decision could not be given of a request, found by the code that serves: everything
but the sending."""

from collections.abc import Mapping

from routeproxy.exchange import Call, Exchange
from routeproxy.messages.errors import InvalidRequest
from routeproxy.upstream.failover import Upstreams
from routeproxy.upstream.failures import UpstreamFailure


async def losses_by_target(exchange: Exchange, upstreams: Upstreams) -> Mapping[str, tuple[str, ...]]:
    """By the name of each target, in words, what of the request is not carried over; what the target would
    refuse the request for is among them."""
    decision = exchange.decision
    targets = decision.targets if decision is not None else ()
    losses: dict[str, tuple[str, ...]] = {}
    for target in targets:
        try:
            losses[target.name] = await upstreams.of(target.provider).losses(Call(target, None, exchange))
        except (InvalidRequest, UpstreamFailure) as refusal:
            losses[target.name] = (f"anything, it refuses this request: {refusal.message}",)
    return losses
