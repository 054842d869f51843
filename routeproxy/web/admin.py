"""`/-/`: what an operator may ask of a running server, and do to the rules in force, with an admin key."""

import datetime
import os
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec
from litestar import Response, get, post
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.types import ControllerRouterHandler

from routeproxy.messages.decoding import decode_leniently
from routeproxy.messages.errors import ApiError, InvalidRequest
from routeproxy.observe import Observer
from routeproxy.policy.live.versions import NoSuchVersion
from routeproxy.policy.problems import RulesRefused
from routeproxy.policy.secrets import Role
from routeproxy.proxy import Proxy
from routeproxy.web.auth import Authenticator, Caller
from routeproxy.web.headers import request_headers
from routeproxy.web.replies import AnyRequest, json_reply
from routeproxy.web.small_requests import note_caller, small_request_of

AnyConnection = ASGIConnection[Any, Any, Any, Any]


class Control(Protocol):
    """What an operator may do to the rules that are in force."""

    @property
    def history(self) -> tuple[str, ...]:
        """The versions that were in force, the latest last."""

    @property
    def problem(self) -> str | None:
        """Why what is on disk is not in force."""

    @property
    def since(self) -> datetime.datetime:
        """When the version in force took effect."""

    async def reload(self) -> bool:
        """Whether what is on disk is now in force."""

    async def rollback(self, version: str | None, *, confirm: Callable[[], object]) -> object:
        """`confirm` is called once no other change is under way, and may raise. Raises `NoSuchVersion`,
        `RulesRefused` or `ValueError`."""


def admin_handlers(
    proxy: Proxy,
    authenticator: Authenticator,
    control: Control | None,
    observer: Observer,
    counters: Callable[[], Mapping[str, object]],
) -> list[ControllerRouterHandler]:
    """Without `control` the rules stay as they are, and nothing is here."""

    def admin_of(connection: AnyConnection, role: Role = "operate") -> Caller:
        """Whoever asks, with an admin key for this. Raises `ApiError` for everybody else."""
        if control is None or not proxy.rules.policy.server.admin_keys:
            raise ApiError(404, f"{connection.scope['path']} is not here: `[server] admin_keys` turns it on")
        caller = authenticator.authenticate(request_headers(connection.scope), admin=True)
        note_caller(connection.scope, caller)
        if caller.team is not None:
            raise ApiError(403, "this takes an admin key, and a team's was shown")
        if not caller.admin:
            raise ApiError(401, "x-api-key header is required: an admin key")
        if not caller.may(role):
            raise ApiError(
                403, f"this takes an admin key with the role `{role}`, this one has `{caller.role}`"
            )
        return caller

    def note_started(connection: AnyConnection) -> None:
        if (request := small_request_of(connection.scope)) is not None:
            observer.small_request_started(request)

    def needs_admin_key(connection: AnyConnection, _: BaseRouteHandler) -> None:
        admin_of(connection)
        note_started(connection)

    def needs_key_to_read(connection: AnyConnection, _: BaseRouteHandler) -> None:
        admin_of(connection, "read")
        note_started(connection)

    def status_of(control: Control) -> dict[str, object]:
        return {
            "rules": proxy.rules.policy.source,
            "rules_version": proxy.rules.policy.version,
            "history": control.history,
            "rules_problem": control.problem,
            "refused_by_invariants": proxy.upstreams.refused.total(),
            "targets": target_states(proxy),
            "waiting": proxy.waiting(),
            **counters(),
            "process": os.getpid(),
        }

    @get("/-/status", guards=[needs_key_to_read], sync_to_thread=False)
    def status() -> Response[bytes]:
        assert control is not None
        return json_reply(status_of(control))

    @post("/-/reload", guards=[needs_admin_key], status_code=200)
    async def reload(request: AnyRequest) -> Response[bytes]:
        assert control is not None
        key_name = admin_of(request).key_name  # what is read may have it no more
        reloaded = await control.reload()
        observer.admin_action("reload", key_name, "reloaded" if reloaded else "refused")
        return json_reply(status_of(control) | {"reloaded": reloaded}, 200 if reloaded else 409)

    @post("/-/rollback", guards=[needs_admin_key], status_code=200)
    async def rollback(request: AnyRequest) -> Response[bytes]:
        assert control is not None
        body = await request.body()
        key_name = admin_of(request).key_name
        try:
            # An older version may know keys that were taken back since: the one that asks must still count
            # when it is this action's turn.
            await control.rollback(_version_in(body), confirm=lambda: admin_of(request))
        except (NoSuchVersion, RulesRefused, OSError, ValueError) as refused:
            observer.admin_action("rollback", key_name, "refused")
            raise ApiError(409, f"nothing was rolled back: {refused}") from refused
        observer.admin_action("rollback", key_name, proxy.rules.policy.version)
        return json_reply(status_of(control))

    return [status, reload, rollback]


def target_states(proxy: Proxy) -> dict[str, str]:
    """Whether each target of the rules in force may be asked, in words; but of `P/*`, which is many."""
    policy = proxy.rules.policy
    targets = {
        target.name: target
        for rule in (*policy.rules, policy.default)
        for target in rule.contacted
        if target.model != "*"
    }
    return {name: proxy.state_of(target) for name, target in targets.items()}


class _Rollback(msgspec.Struct):
    version: str | None = None


_rollback = msgspec.json.Decoder(_Rollback)


def _version_in(body: bytes) -> str | None:
    if not body.strip():
        return None
    try:
        return decode_leniently(_rollback, body).version
    except InvalidRequest as error:
        raise ApiError(400, f'expected nothing, or {{"version": "…"}}: {error.message}') from None
