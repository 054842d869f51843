"""What a target could not be given of a request, found by translating it and sending nothing."""

from routeproxy.messages.body import Body
from routeproxy.messages.errors import InvalidRequest
from routeproxy.messages.request import OLDEST_VERSION
from routeproxy.policy.decide import Target
from routeproxy.translate.request import RequestContext, translate_request
from routeproxy.translate.thinking import Signer
from routeproxy.upstream.chat.profiles import profile_of
from routeproxy.upstream.params import settled_by_rules, with_params


def losses(body: Body, target: Target) -> tuple[str, ...]:
    """In words; what it would be refused for among them. A back end that speaks Messages gets everything."""
    if target.provider.speaks_messages:
        return tuple(settled_by_rules(body.members, target).values())
    try:
        body = with_params(body, target.params)
        context = RequestContext(
            version=OLDEST_VERSION,
            betas=frozenset(),
            target=target.model,
            signer=Signer(None),
            session_id=None,
            fields=tuple(body.members),
            by_rule=frozenset(target.params.set) | frozenset(target.params.default),
        )
        return tuple(translate_request(body.request(), profile_of(target), context).warnings)
    except InvalidRequest as refused:
        return (f"anything, it refuses this request: {refused.message}",)
