"""Views as HTML. Everything that comes from outside is escaped, and nothing but our own files is loaded."""

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from msgspec import Struct

import routeproxy
from routeproxy.web.pages.content import View

if TYPE_CHECKING:
    from jinja2 import Template
    from markupsafe import Markup

ASSETS: Mapping[str, str] = {"page.css": "text/css", "page.js": "text/javascript"}
"""Files of the page, with their media types."""
HEADERS: Mapping[str, str] = {
    "content-security-policy": "; ".join(
        (
            "default-src 'none'",
            "style-src 'self'",
            "script-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'self'",
            "frame-ancestors 'none'",
        )
    ),
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class Link(Struct, frozen=True):
    label: str
    href: str
    is_here: bool = False


class Frame(Struct, frozen=True, kw_only=True):
    """What stands around a view."""

    links: tuple[Link, ...] = ()
    viewer: str = ""
    """Who looks; empty: nobody is signed in."""
    can_sign_out: bool = False
    rules_version: str = ""


def written(view: View, frame: Frame, path: str, query: str) -> bytes:
    """`query`: what the view was asked for, without a question mark."""
    return _template().render(view=view, frame=frame, path=path, query_without_csv=query).encode()


def sign_in_page(problem: str, next_path: str, *, is_possible: bool) -> bytes:
    """`problem`: why the last key was not taken, or nobody may look. `is_possible`: a key would help."""
    return (
        _template()
        .render(view=None, frame=Frame(), problem=problem, next_path=next_path, is_possible=is_possible)
        .encode()
    )


def asset_address(name: str) -> str:
    """With its hash, so that it may be kept for good."""
    return f"/-/assets/{name}?{hashlib.sha256(asset(name)).hexdigest()[:12]}"


@cache
def asset(name: str) -> bytes:
    return (files(__package__) / name).read_bytes()


def _coded(text: str) -> "Markup":
    """Escaped, and what stands in backquotes as code."""
    from markupsafe import Markup, escape

    pieces = text.split("`")
    if len(pieces) % 2 == 0:  # a backquote without its other
        return escape(text)
    return Markup("").join(
        Markup("<code>{}</code>").format(piece) if index % 2 else escape(piece)
        for index, piece in enumerate(pieces)
    )


def _kind(part: object) -> str:
    return type(part).__name__.lower()


@cache
def _template() -> "Template":
    import jinja2  # for those who open the page

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals |= {"version": routeproxy.__version__, "asset": asset_address, "kind": _kind}
    environment.filters["coded"] = _coded
    environment.globals |= {"path": "", "query_without_csv": ""}
    return environment.from_string(asset("page.html").decode())
