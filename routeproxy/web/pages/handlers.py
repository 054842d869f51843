"""`/-/`: signing in, and the views, each for whoever may see it."""

from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import parse_qs, parse_qsl, quote, urlencode

from litestar import Response, get, post
from litestar.types import ControllerRouterHandler
from msgspec import Struct

from routeproxy.messages.errors import ApiError
from routeproxy.policy.compile.connections import is_below_localhost, is_loopback
from routeproxy.web.auth import Authenticator
from routeproxy.web.authority import authority_of
from routeproxy.web.front_page import base_url
from routeproxy.web.headers import request_headers
from routeproxy.web.pages.content import View, as_csv
from routeproxy.web.pages.desk import Asked, Desk
from routeproxy.web.pages.explain_view import explain_view
from routeproxy.web.pages.html import ASSETS, HEADERS, Frame, Link, asset, sign_in_page, written
from routeproxy.web.pages.reloads_view import reloads_view
from routeproxy.web.pages.requests_view import request_view, requests_view
from routeproxy.web.pages.rules_view import Assurances, rules_view
from routeproxy.web.pages.sign_in import SignIns
from routeproxy.web.pages.spend_view import spend_view
from routeproxy.web.pages.targets_view import targets_view
from routeproxy.web.pages.viewer import Viewer
from routeproxy.web.replies import AnyRequest
from routeproxy.web.small_requests import note_caller, note_error

SIGN_IN = "/-/sign-in"
LARGEST_KEY = 8 * 1024
"""Bytes of the form by which somebody signs in."""
LARGEST_REQUEST = 4 * 2**20
"""Bytes of a request that is to be explained."""
VIA_A_PROXY = ("forwarded", "via")
NOT_OPEN = (
    "No key is configured, so this page is shown to whoever runs the server and to nobody else: at a "
    "loopback address, and not through a proxy. `[server] admin_keys` lets you sign in."
)


class Page(Struct, frozen=True):
    """A view, with who may see it."""

    name: str
    label: str
    is_for: Callable[[Viewer], bool]
    build: Callable[[Desk, Asked], Awaitable[View]]


class Pages:
    def __init__(self, desk: Desk, authenticator: Authenticator, sign_ins: SignIns, bound_host: str) -> None:
        self._desk = desk
        self._authenticator = authenticator
        self._sign_ins = sign_ins
        self._bound_host = bound_host
        assurances = Assurances()

        async def rules(desk: Desk, asked: Asked) -> View:
            return await rules_view(desk, asked, assurances)

        self._pages = (
            Page("rules", "Rules", lambda viewer: viewer.reads_rules, rules),
            Page("targets", "Targets", lambda viewer: viewer.reads_rules, targets_view),
            Page("spend", "Spend", lambda viewer: viewer.reads_usage, spend_view),
            Page("requests", "Requests", lambda viewer: viewer.reads_requests, requests_view),
            Page("explain", "Explain", lambda viewer: viewer.may_explain, explain_view),
            Page("reloads", "Reloads", lambda viewer: viewer.reads_rules, reloads_view),
        )

    def handlers(self) -> list[ControllerRouterHandler]:
        @get("/-", status_code=200)
        async def first(request: AnyRequest) -> Response[bytes]:
            viewer = self._viewer(request)
            if isinstance(viewer, Response):
                return viewer
            page = next((page for page in self._pages if page.is_for(viewer)), None)
            return _redirect(f"/-/{page.name}" if page is not None else SIGN_IN)

        @get([f"/-/{page.name}" for page in self._pages], status_code=200)
        async def view(request: AnyRequest) -> Response[bytes]:
            return await self._answer(request, {})

        @post("/-/explain", status_code=200, request_max_body_size=LARGEST_REQUEST)
        async def explained(request: AnyRequest) -> Response[bytes]:
            viewer = self._viewer(request)
            if isinstance(viewer, Response):
                return viewer
            form = parse_qsl((await request.body()).decode("utf-8", "replace"), keep_blank_values=True)
            return await self._answer(request, dict(form))

        @get("/-/requests/{request_id:str}", status_code=200)
        async def one_request(request: AnyRequest) -> Response[bytes]:
            request_id = str(request.path_params["request_id"]).removeprefix("req_")

            async def build(desk: Desk, asked: Asked) -> View:
                return await request_view(desk, asked, request_id)

            page = self._named("requests")
            return await self._answer(request, {}, Page(page.name, page.label, page.is_for, build))

        @get(SIGN_IN, status_code=200, sync_to_thread=False)
        def sign_in_form(request: AnyRequest) -> Response[bytes]:
            return self._sign_in("", request.query_params.get("next", "/-/"))

        @post(SIGN_IN, status_code=200, request_max_body_size=LARGEST_KEY)
        async def sign_in(request: AnyRequest) -> Response[bytes]:
            _refuse_other_sites(request)
            form = parse_qs((await request.body()).decode("utf-8", "replace"))
            next_path = form.get("next", ["/-/"])[0]
            try:
                cookie = self._sign_ins.cookie(form.get("key", [""])[0], is_secure=_is_secure(request))
            except ApiError as refused:
                note_error(request.scope, refused.type)
                return self._sign_in(refused.message, next_path, refused.status)
            return _redirect(_own_path(next_path), {"set-cookie": cookie})

        @post("/-/sign-out", status_code=200, request_max_body_size=LARGEST_KEY)
        async def sign_out(request: AnyRequest) -> Response[bytes]:
            _refuse_other_sites(request)
            return _redirect(SIGN_IN, {"set-cookie": self._sign_ins.sign_out(is_secure=_is_secure(request))})

        @get("/-/assets/{name:str}", status_code=200, sync_to_thread=False)
        def file(request: AnyRequest) -> Response[bytes]:
            name = str(request.path_params["name"])
            if name not in ASSETS:
                raise ApiError(404, f"/-/assets/{name[:100]} is not here")
            headers = {**HEADERS, "cache-control": "public, max-age=31536000, immutable"}
            return Response(asset(name), media_type=ASSETS[name], headers=headers)

        return [first, view, explained, one_request, sign_in_form, sign_in, sign_out, file]

    def _named(self, name: str) -> Page:
        return next(page for page in self._pages if page.name == name)

    async def _answer(
        self, request: AnyRequest, form: Mapping[str, str], page: Page | None = None
    ) -> Response[bytes]:
        viewer = self._viewer(request)
        if isinstance(viewer, Response):
            return viewer
        note_caller(request.scope, viewer.caller)
        path = request.scope["path"].rstrip("/")
        page = page or self._named(path.rpartition("/")[2])
        query = {name: str(value) for name, value in request.query_params.items()}
        frame = Frame(
            links=tuple(
                Link(each.label, f"/-/{each.name}", each.name == page.name)
                for each in self._pages
                if each.is_for(viewer)
            ),
            viewer=viewer.words,
            can_sign_out=not viewer.is_operator,
            rules_version=self._desk.policy.version if viewer.reads_rules else "",
        )
        if not page.is_for(viewer):
            return _html(
                _refusal(403, f"“{page.label}” is not for this key ({viewer.words})"), frame, path, 403
            )
        try:
            view = await page.build(self._desk, Asked(viewer=viewer, path=path, query=query, form=form))
        except ApiError as refused:
            note_error(request.scope, refused.type)
            return _html(_refusal(refused.status, refused.message), frame, path, refused.status)
        if (name := query.get("csv")) is not None:
            table = view.table(name)
            if table is None:
                raise ApiError(404, f"this view has no table `{name[:100]}`")
            disposition = f'attachment; filename="routeproxy-{page.name}-{table.name}.csv"'
            headers = {**HEADERS, "content-disposition": disposition}
            return Response(as_csv(table), media_type="text/csv", headers=headers)
        return _html(view, frame, path, query=urlencode(query))

    def _viewer(self, request: AnyRequest) -> Viewer | Response[bytes]:
        """Who looks, or where they have to go first."""
        headers = request_headers(request.scope)
        if self._authenticator.is_open:
            if not self._is_for_nobody_else(headers):
                return self._sign_in(NOT_OPEN, "/-/", 403, is_possible=False)
            return Viewer(self._authenticator.authenticate(headers, admin=True))
        caller = self._sign_ins.caller(headers.get("cookie", ()))
        if caller is None and ("x-api-key" in headers or "authorization" in headers):
            caller = self._authenticator.authenticate(headers, admin=True)
            if not caller.admin and caller.team is None:
                caller = None
        if caller is not None:
            return Viewer(caller)
        path = request.scope["path"]
        return _redirect(SIGN_IN if path.rstrip("/") == "/-" else f"{SIGN_IN}?next={quote(path)}")

    def _is_for_nobody_else(self, headers: Mapping[str, tuple[str, ...]]) -> bool:
        """Whether whoever asks is on this machine, as far as can be told."""
        bound = authority_of(self._bound_host)
        host = bound.host if bound is not None else self._bound_host
        if not (is_loopback(host) or is_below_localhost(host)):
            return False
        return not any(name in VIA_A_PROXY or name.startswith("x-forwarded-") for name in headers)

    def _sign_in(
        self, problem: str, next_path: str, status: int = 200, *, is_possible: bool = True
    ) -> Response[bytes]:
        body = sign_in_page(problem, _own_path(next_path), is_possible=is_possible)
        return Response(body, status_code=status, media_type="text/html", headers=dict(HEADERS))


def _refusal(status: int, message: str) -> View:
    titles: Mapping[int, str] = {403: "Not for this key", 404: "Not here"}
    return View(title=titles.get(status, "That did not work"), lead=message, parts=())


def _html(view: View, frame: Frame, path: str, status: int = 200, query: str = "") -> Response[bytes]:
    body = written(view, frame, path, query)
    return Response(body, status_code=status, media_type="text/html", headers=dict(HEADERS))


def _redirect(path: str, headers: Mapping[str, str] | None = None) -> Response[bytes]:
    return Response(
        b"", status_code=303, media_type="text/html", headers={**HEADERS, "location": path, **(headers or {})}
    )


def _own_path(path: str) -> str:
    """`path`, if it is one of ours."""
    return path if path.startswith("/-/") and not path.startswith("/-//") and "\\" not in path else "/-/"


def _is_secure(request: AnyRequest) -> bool:
    return base_url(request.scope, request_headers(request.scope)).startswith("https:")


def _refuse_other_sites(request: AnyRequest) -> None:
    """Raises `ApiError` for a form that a page of another site sends."""
    sites: tuple[str, ...] = request_headers(request.scope).get("sec-fetch-site", ())
    if any(site not in ("same-origin", "none") for site in sites):
        raise ApiError(403, "this form is sent from its own page")
