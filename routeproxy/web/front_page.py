"""`GET /`: what this server is, what is in force and how to connect; a page for browsers, JSON for the rest.
No key is looked at: where clients have one, nothing is said of rules, models, providers and teams."""

import asyncio
import base64
import datetime
import hashlib
import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

import msgspec
from litestar import Response, route
from litestar.types import ControllerRouterHandler, Scope
from msgspec import UNSET, Struct, UnsetType

import routeproxy
from routeproxy.claude_code import NO_KEY, SOME_KEY, client_variables, in_shell, passes_logins_on
from routeproxy.policy.compile.connections import is_below_localhost, is_loopback
from routeproxy.policy.decide import Denial, Policy, Rule
from routeproxy.proxy import Proxy
from routeproxy.web.admin import Control
from routeproxy.web.auth import Authenticator, Headers, KeyNeed
from routeproxy.web.authority import Authority, authority_of
from routeproxy.web.headers import request_headers
from routeproxy.web.models import Models
from routeproxy.web.replies import AnyRequest
from routeproxy.web.response import InFlight

if TYPE_CHECKING:
    from jinja2 import Template

MESSAGE = "routeproxy: Anthropic clients in front, any model behind"
EXAMPLE_MODEL = "claude-sonnet-5"
"""What the examples ask for where no model may be named, or none is known."""
KEPT_ANSWERS = 16
"""Answers that are kept for the next who asks: one for each form and each address that clients use."""


class ListedProvider(Struct, frozen=True, omit_defaults=True):
    name: str
    type: str
    zone: str
    client_key: bool = False
    """It gets the client's own credentials."""


class ListedRule(Struct, frozen=True, omit_defaults=True):
    rule: str
    targets: tuple[str, ...] = ()
    """In the order in which they are tried."""
    deny: Denial | None = None


class FrontPage(Struct, frozen=True, kw_only=True):
    """What `/` says, as JSON. The names of its fields are for programs to rely on. `UNSET` is what a stranger
    is not told."""

    name: str = "routeproxy"
    message: str = MESSAGE
    version: str
    status: Literal["ready", "draining"]
    base_url: str
    """What clients set as their base URL: the address by which this was asked for."""
    key: KeyNeed
    env: dict[str, str]
    """The variables that point Claude Code here. `YOUR_KEY` stands for the client's key."""
    rules_problem: str | UnsetType = UNSET
    """Why what is on disk is not in force; `UNSET`: it is."""
    rules: str | UnsetType = UNSET
    """The rules file, or what else the policy came from."""
    rules_version: str | UnsetType = UNSET
    rules_since: datetime.datetime | UnsetType = UNSET
    """When this process put the version in force."""
    models: tuple[str, ...] | UnsetType = UNSET
    """As `GET /v1/models` lists them."""
    providers: tuple[ListedProvider, ...] | UnsetType = UNSET
    routing: tuple[ListedRule, ...] | UnsetType = UNSET
    """Every rule in its order, `default` as the last."""


class FrontDoor:
    """The answers at `/`."""

    def __init__(
        self,
        proxy: Proxy,
        authenticator: Authenticator,
        models: Models,
        in_flight: InFlight,
        control: Control | None,
    ) -> None:
        self._proxy = proxy
        self._authenticator = authenticator
        self._models = models
        self._in_flight = in_flight
        self._control = control
        self._kept: dict[object, bytes] = {}

    def handlers(self) -> list[ControllerRouterHandler]:
        @route("/", http_method=["GET", "HEAD"])
        async def front_page(request: AnyRequest) -> Response[bytes]:
            return await self.answer(request)

        @route("/favicon.ico", http_method=["GET", "HEAD"], sync_to_thread=False)
        def no_icon() -> Response[bytes]:
            """The page has its icon in it; who looks at JSON asks here."""
            return Response(b"", status_code=204, headers={"cache-control": "max-age=86400"})

        @route("/robots.txt", http_method=["GET", "HEAD"], sync_to_thread=False)
        def robots() -> Response[bytes]:
            return Response(b"User-agent: *\nDisallow: /\n", media_type="text/plain")

        return [front_page, no_icon, robots]

    async def answer(self, request: AnyRequest) -> Response[bytes]:
        headers = request_headers(request.scope)
        as_page = prefers_html(headers.get("accept", ()))
        body = await self._body(base_url(request.scope, headers), as_page=as_page)
        return Response(
            body,
            media_type="text/html" if as_page else "application/json",
            headers=(_page_headers() if as_page else {}) | COMMON_HEADERS,
        )

    async def _body(self, url: str, *, as_page: bool) -> bytes:
        policy = self._proxy.rules.policy
        page = self._strangers_page(url)
        key = (as_page, policy.version, page.status, url, page.rules_problem, page.rules_since, page.key)
        if (kept := self._kept.get(key)) is None:
            # The list of models is a thousand decisions, and a template library an import.
            write = write_page if as_page else msgspec.json.encode
            loop = asyncio.get_running_loop()
            kept = await loop.run_in_executor(None, lambda: write(self._whole(page, policy)))
            latest = list(self._kept.items())[1 - KEPT_ANSWERS :]
            self._kept = {**dict(latest), key: kept}
        return kept

    def _strangers_page(self, url: str) -> FrontPage:
        """What everybody may see."""
        key = self._authenticator.key_need
        keeps_login = passes_logins_on(self._proxy.rules.policy)
        shown = SOME_KEY if key != "none" else "" if keeps_login else NO_KEY
        return FrontPage(
            version=routeproxy.__version__,
            status="draining" if self._in_flight.draining else "ready",
            base_url=url,
            key=key,
            env=client_variables(url, shown, keeps_login=keeps_login),
            rules_problem=rules_problem(self._control, key) or UNSET,
            rules_since=self._control.since if self._control is not None and key == "none" else UNSET,
        )

    def _whole(self, page: FrontPage, policy: Policy) -> FrontPage:
        """`page`, and what is in force if strangers may see that."""
        if page.key != "none":
            return page
        return msgspec.structs.replace(
            page,
            rules=policy.source,
            rules_version=policy.version,
            models=self._models.names(policy, None),
            providers=tuple(
                ListedProvider(provider.name, provider.type, provider.zone, provider.client_key)
                for provider in policy.providers.values()
            ),
            routing=tuple(_listed(rule) for rule in (*policy.rules, policy.default)),
        )


def _listed(rule: Rule) -> ListedRule:
    return ListedRule(rule.name, tuple(target.name for target in rule.reachable), rule.deny)


def rules_problem(control: Control | None, key: KeyNeed) -> str | None:
    """Why what is on disk is not in force, as far as strangers may hear it: the words name rules, providers
    and files."""
    problem = control.problem if control is not None else None
    if problem is None or key == "none":
        return problem
    return "the rules on disk may not be in force; the server's log says why"


# --- who asks, and by which address


def prefers_html(accept: Sequence[str]) -> bool:
    """Whether a client would rather have a page than JSON. What names neither gets JSON, and so does what
    takes both alike: programs do."""
    ranges = [_media_range(text) for text in ",".join(accept).split(",")]
    return _preference("text/html", ranges) > _preference("application/json", ranges)


def _media_range(text: str) -> tuple[str, float]:
    """The type and its quality, which is 0 for what can't be read."""
    type, *params = (part.strip().lower() for part in text.split(";"))
    weights = [value.strip() for name, _, value in (p.partition("=") for p in params) if name.strip() == "q"]
    if not weights:
        return type, 1.0
    return type, float(weights[0]) if _QUALITY.fullmatch(weights[0]) else 0.0


_QUALITY = re.compile(r"0?\.[0-9]+|0|1(\.0*)?|0\.")


def _preference(type: str, ranges: Sequence[tuple[str, float]]) -> tuple[float, int]:
    """The quality of `type`, and how exactly it is named; the least if it is not taken."""
    for exactness, pattern in ((2, type), (1, f"{type.partition('/')[0]}/*"), (0, "*/*")):
        if found := [quality for named, quality in ranges if named == pattern]:
            return (max(found), exactness) if max(found) else _NOT_TAKEN
    return _NOT_TAKEN


_NOT_TAKEN = (0.0, -1)


def base_url(scope: Scope, headers: Headers) -> str:
    """The address by which a client has reached us. Behind a proxy that ends TLS it says so."""
    forwarded = headers.get("x-forwarded-proto", ("",))[0].partition(",")[0].strip().lower()
    scheme = forwarded if forwarded in ("http", "https") else scope["scheme"]
    (host, *others) = headers.get("host", ("",))
    authority = authority_of(host) if not others else None
    # What is shown to be copied into a shell must be an address and nothing else. Without brackets nobody
    # can tell which part of an IPv6 address is the port.
    if authority is None or (":" in authority.host and not host.startswith("[")):
        address, port = scope["server"] or ("127.0.0.1", None)
        authority = Authority(address, str(port or ""), is_address=True)
    return f"{scheme}://{authority}"


def is_here(url: str) -> bool:
    """Whether its host is the machine of whoever looks at the page."""
    host = urlsplit(url).hostname or ""
    return is_loopback(host) or is_below_localhost(host)


# --- how it looks


def write_page(page: FrontPage) -> bytes:
    """As HTML, whatever stands in it."""
    return (
        _template()
        .render(
            page=page,
            key=page.env.get("ANTHROPIC_AUTH_TOKEN", SOME_KEY),
            model=page.models[0] if page.models else EXAMPLE_MODEL,
            keeps_login="ANTHROPIC_AUTH_TOKEN" not in page.env,
            here=is_here(page.base_url),
        )
        .encode()
    )


COMMON_HEADERS = {"cache-control": "no-store", "vary": "Accept", "x-content-type-options": "nosniff"}


@cache
def _page_headers() -> dict[str, str]:
    """Nothing but the page's own style is ever loaded, and nobody may frame it."""
    digest = base64.b64encode(hashlib.sha256(_file("front_page.css").encode()).digest()).decode()
    policy = (
        "default-src 'none'",
        f"style-src 'sha256-{digest}'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
    return {"content-security-policy": "; ".join(policy), "referrer-policy": "no-referrer"}


@cache
def _template() -> "Template":
    """Everything that it is given is escaped."""
    import jinja2  # 80 ms, for those who open the page
    import markupsafe

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= FILTERS
    environment.globals |= {"style": markupsafe.Markup(_file("front_page.css"))}
    return environment.from_string(_file("front_page.html"))


FILTERS: Mapping[str, Callable[..., str]] = {
    "shell": shlex.quote,
    "variables": in_shell,
    "json": lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent),
    "minute": lambda time: f"{time:%Y-%m-%d %H:%M} UTC",
}
"""For words of a shell, strings of JSON, Python and TypeScript, and for people."""


@cache
def _file(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")
