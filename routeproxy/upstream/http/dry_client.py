"""A client that does all that ours does but the last thing: nothing is connected to, and nothing sent."""

from typing import NoReturn

from routeproxy.upstream.http.client import Client, OutgoingRequest


class NotSent(BaseException):
    """The request that would have gone out now. It is no `Exception`, since LiteLLM catches those, asks again
    and says them in its own words."""

    def __init__(self, path: str, body: bytes) -> None:
        """`path` is that of its address, with the query. Both may hold what the client sent."""
        super().__init__()
        self.path = path
        self.body = body


class DryClient(Client):
    async def _send(self, request: OutgoingRequest, *, local_only: bool) -> NoReturn:
        request.head()  # raises what serving would
        raise NotSent(request.target, request.body)
