"""`/v1/models`: what the rules list, to each caller what the caller may ask for. Nobody else is asked."""

import asyncio
from typing import Any

from litestar import Response, get
from litestar.connection import ASGIConnection
from litestar.types import ControllerRouterHandler

from routeproxy.messages.errors import ApiError
from routeproxy.messages.models import ModelInfo, paginate
from routeproxy.policy.decide import Policy
from routeproxy.policy.model_list import ModelLists, UnreachableTarget, models_at
from routeproxy.proxy import Proxy
from routeproxy.upstream.litellm.model_table import models_of
from routeproxy.web.auth import Authenticator
from routeproxy.web.headers import request_headers
from routeproxy.web.replies import AnyRequest, json_reply
from routeproxy.web.small_requests import note_caller
from routeproxy.web.targets import target_in_url

AnyConnection = ASGIConnection[Any, Any, Any, Any]

PATH = "/v1/models"


class Models:
    """The answers about models."""

    def __init__(self, proxy: Proxy, authenticator: Authenticator) -> None:
        self._proxy = proxy
        self._authenticator = authenticator
        self._lists = ModelLists(models_of)

    def handlers(self) -> list[ControllerRouterHandler]:
        @get(PATH)
        async def list_models(request: AnyRequest) -> Response[bytes]:
            return await self._page(request, None)

        @get(f"{PATH}/{{model_id:path}}")
        async def show_model(request: AnyRequest) -> Response[bytes]:
            return await self._model(request, str(request.path_params["model_id"]).removeprefix("/"), None)

        return [list_models, show_model]

    def names(self, policy: Policy, team: str | None) -> tuple[str, ...]:
        """What a team's clients can ask for. Not for the event loop: it takes a decision for each of a
        thousand names, and reads a table."""
        return self._lists.of(policy, team)

    async def answer_with_target(self, request: AnyRequest, path: str) -> Response[bytes] | None:
        """The answer for `/{provider}:{model}/v1/models`, and for a model there; `None` for other paths."""
        named, found, rest = path[1:].partition(PATH)
        if not found or not named or (rest and not rest.startswith("/")):
            return None
        if request.method != "GET":
            raise ApiError(405, f"{request.method} is not allowed here, GET is", headers={"allow": "GET"})
        return await (self._model(request, rest[1:], named) if rest else self._page(request, named))

    async def _page(self, request: AnyRequest, named: str | None) -> Response[bytes]:
        listed = await self._listed(request, named)
        query = request.query_params
        try:
            limit = int(query.get("limit", "20"))
        except ValueError:
            raise ApiError(400, "limit: Input should be a valid integer") from None
        if not 1 <= limit <= 1000:
            raise ApiError(400, "limit: Input should be between 1 and 1000")
        after_id, before_id = query.get("after_id"), query.get("before_id")
        return json_reply(paginate(listed, limit=limit, after_id=after_id, before_id=before_id))

    async def _model(self, request: AnyRequest, model_id: str, named: str | None) -> Response[bytes]:
        for model in await self._listed(request, named):
            if model.id == model_id:
                return json_reply(model)
        raise ApiError(404, f"model: {model_id[:256]}")

    async def _listed(self, connection: AnyConnection, named: str | None) -> list[ModelInfo]:
        policy = self._proxy.rules.policy
        caller = self._authenticator.authenticate(request_headers(connection.scope))
        note_caller(connection.scope, caller)
        team = caller.team
        if named is not None:
            names = _names_at(policy, team, target_in_url(named, policy))
        elif (known := self._lists.kept(policy, team)) is not None:
            names = known
        else:
            loop = asyncio.get_running_loop()
            names = await loop.run_in_executor(None, self.names, policy, team)
        return [ModelInfo(id=name, display_name=name) for name in names]


def _names_at(policy: Policy, team: str | None, url_target: str) -> tuple[str, ...]:
    try:
        return models_at(policy, team, url_target)
    except UnreachableTarget as unreachable:
        denial = unreachable.denial
        if denial is None:
            return ()
        raise ApiError(denial.status, denial.message) from None
