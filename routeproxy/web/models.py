"""`/v1/models`: what the rules list, to each caller what the caller may ask for."""

from typing import Any

from litestar import Response, get
from litestar.connection import ASGIConnection
from litestar.types import ControllerRouterHandler

from routeproxy.messages.errors import ApiError
from routeproxy.messages.models import ModelInfo, paginate
from routeproxy.policy.model_list import ModelLists
from routeproxy.proxy import Proxy
from routeproxy.web.auth import Authenticator
from routeproxy.web.headers import request_headers
from routeproxy.web.replies import AnyRequest, json_reply


def model_handlers(proxy: Proxy, authenticator: Authenticator) -> list[ControllerRouterHandler]:
    lists = ModelLists()

    def models(connection: ASGIConnection[Any, Any, Any, Any]) -> list[ModelInfo]:
        caller = authenticator.authenticate(request_headers(connection.scope))
        names = lists.of(proxy.rules.policy, caller.team)
        return [ModelInfo(id=name, display_name=name) for name in names]

    @get("/v1/models", sync_to_thread=False)
    def list_models(request: AnyRequest) -> Response[bytes]:
        listed = models(request)
        query = request.query_params
        try:
            limit = int(query.get("limit", "20"))
        except ValueError:
            raise ApiError(400, "limit: Input should be a valid integer") from None
        if not 1 <= limit <= 1000:
            raise ApiError(400, "limit: Input should be between 1 and 1000")
        after_id, before_id = query.get("after_id"), query.get("before_id")
        return json_reply(paginate(listed, limit=limit, after_id=after_id, before_id=before_id))

    @get("/v1/models/{model_id:path}", sync_to_thread=False)
    def show_model(request: AnyRequest) -> Response[bytes]:
        model_id = str(request.path_params["model_id"]).removeprefix("/")
        for model in models(request):
            if model.id == model_id:
                return json_reply(model)
        raise ApiError(404, f"model: {model_id[:256]}")

    return [list_models, show_model]
