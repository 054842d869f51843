"""Targets that clients name in the URL: `/{provider}:{model}/v1/messages`."""

from routeproxy.messages.errors import ApiError
from routeproxy.policy.decide import Policy


def target_in_url(written: str, policy: Policy) -> str:
    """`provider:model` of a URL as `provider/model`."""
    provider, colon, model = written.partition(":")
    if not policy.server.url_targets:
        hint = ": targets in the URL are off, [server] url_targets turns them on" if colon else ""
        raise ApiError(404, f"/{written[:200]} is not here{hint}")
    known = policy.providers.values()
    if not model or not any(provider == one.name or provider.lower() in one.spellings for one in known):
        absent = policy.absent_providers.get(provider.lower()) if model else None
        problem = f"{provider}: {absent}; expected" if absent else f"{written[:200]}: expected"
        askable = [name for name in policy.providers if name not in policy.absent_providers]
        raise ApiError(400, f"{problem} provider:model with one of {', '.join(askable)}")
    return f"{provider}/{model}"
