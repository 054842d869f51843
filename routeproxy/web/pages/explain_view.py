"""A box that says where a request would go and what would be sent, and sends nothing."""

import json

from routeproxy.exchange import Inbound
from routeproxy.messages.errors import ApiError
from routeproxy.messages.weight import check_weight
from routeproxy.policy.facts import as_line
from routeproxy.web.pages.content import Field, Form, Part, View, Words
from routeproxy.web.pages.desk import Asked, Desk

EXAMPLE = {
    "model": "claude-sonnet-5",
    "max_tokens": 1024,
    "messages": [{"role": "user", "content": "Hello"}],
}
NOBODY = "nobody’s key"


async def explain_view(desk: Desk, asked: Asked) -> View:
    form = asked.form
    body = form.get("body", json.dumps(EXAMPLE, indent=2))
    fields = [
        Field(name="body", label="Request", value=body, rows=11, hint="JSON, as a client would send it")
    ]
    if asked.viewer.team is None:
        teams = (NOBODY, *desk.policy.teams)
        fields.append(Field(name="team", label="Key of", value=form.get("team", NOBODY), options=teams))
    fields.append(
        Field(
            name="headers",
            label="Headers",
            value=form.get("headers", ""),
            rows=3,
            hint="one a line, as in x-claude-code-request-class: subagent",
        )
    )
    box = Form(
        title="A request",
        action=asked.path,
        fields=tuple(fields),
        button="Explain",
        lead="It is decided, and translated for each target. Nobody is asked.",
    )
    parts: list[Part] = [box]
    if form:
        parts.append(await _explained(desk, asked, body))
    return View(title="Explain", lead="Where would a request go, and why?", parts=tuple(parts))


async def _explained(desk: Desk, asked: Asked, body: str) -> Words:
    try:
        inbound = _inbound(desk, asked, body)
        exchange = desk.proxy.receive(inbound, "route")
        explanation = await desk.proxy.explain(exchange)
    except ApiError as refused:
        return Words(title="Refused", text=f"{refused.status}: {refused.message}", tone="bad")
    return Words(title="What would become of it", lines=tuple(str(explanation).splitlines()))


def _inbound(desk: Desk, asked: Asked, body: str) -> Inbound:
    """Raises `ApiError` for what is no request."""
    viewer = asked.viewer
    team = viewer.team
    if team is None and (named := asked.form.get("team", NOBODY)) != NOBODY:
        if named not in desk.policy.teams:
            raise ApiError(400, f"team: there is no `{named[:100]}`")
        team = named
    content = body.encode("utf-8", "replace")
    check_weight(content)
    headers: dict[str, tuple[str, ...]] = {"anthropic-version": ("2023-06-01",)}
    for line in asked.form.get("headers", "").splitlines():
        name, colon, value = line.partition(":")
        if not line.strip():
            continue
        if not colon or not name.strip():
            raise ApiError(400, f"headers: `{line[:100]}` is not NAME: VALUE")
        key = name.strip().lower()
        headers[key] = (*headers.get(key, ()), as_line(value.strip()))
    return Inbound(
        body=content,
        path="/v1/route",
        headers=desk.policy.headers_of(team, headers),
        team=team,
        key_name=viewer.caller.key_name,
        shows_addresses=viewer.is_operator,
    )
