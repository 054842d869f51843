"""A server with rules of every kind and a day of traffic behind it, for whoever looks at its page."""

import asyncio
import datetime
import http.client
import random
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from routeproxy.ledger.rows import AttemptRow, Batch, RequestRow
from routeproxy.ledger.sqlite import SqliteStore
from routeproxy.observe import Observer
from tests.running import Running, Served, running

ENVIRON = {
    "OPS": "key-of-ops",
    "READER": "key-of-reader",
    "FINANCE": "key-of-finance",
    "AUDITOR": "key-of-auditor",
    "SCRAPER": "key-of-scraper",
    "WEB": "key-of-web",
    "SEARCH": "key-of-search",
    "OPENAI_API_KEY": "sk-test",
}
RULES = """
[server]
admin_keys = [
    {{ name = "ops", key = "env:OPS" }},
    {{ name = "reader", key = "env:READER", role = "read" }},
    {{ name = "finance", key = "env:FINANCE", role = "usage" }},
    {{ name = "auditor", key = "env:AUDITOR", role = "audit" }},
    {{ name = "scraper", key = "env:SCRAPER", role = "metrics" }},
]

[ledger]
path = "{folder}/usage.db"
users = "plain"

[providers.openai]
[providers.echo]
[providers.corp]
type = "openai_compatible"
base_url = "http://127.0.0.1:9/v1"
api_key = "env:CORP_KEY"
zone = "private"

[teams.web]
keys = [{{ name = "w1", key = "env:WEB" }}]
explain = true
[teams.search]
keys = [{{ name = "s1", key = "env:SEARCH" }}]

[[invariants]]
name = "search stays inside"
when.team = "search"
never.zone = "public"

[[rules]]
name = "search"
match.team = "search"
targets = "corp/llama"

[[rules]]
name = "<b>never</b> taken"
match.headers.x-kind = "<i>odd</i>"
targets = "echo/x"

[[rules]]
name = "tried"
shadow = true
match.model = "haiku"
targets = "echo/small"

[[rules]]
name = "retired"
match.model.equals = "gpt-3"
deny = "gpt-3 is retired"

[default]
targets = ["openai/gpt-5", "echo/*"]

[[tests]]
name = "search is answered inside"
request = {{ model = "m", team = "search" }}
expect.rule = "search"
"""
NO_KEYS = '[providers.echo]\n[default]\ntargets = "echo/*"\n'


def traffic(number: int = 300) -> Iterator[RequestRow]:
    """Of the last day, with all that may become of a request."""
    dice = random.Random(7)
    now = int(datetime.datetime.now(datetime.UTC).timestamp() * 10**6)
    for index in range(number):
        at = now - index * 80_000_000
        team = dice.choice(("web", "web", "search"))
        is_inside = team == "search"
        provider, model = ("corp", "llama") if is_inside else ("openai", "gpt-5")
        attempts = []
        if index % 20 == 3 and not is_inside:
            attempts.append(
                AttemptRow(number=1, provider=provider, model=model, at=at, duration=10, failure="overloaded")
            )
            provider, model = "echo", "claude-sonnet-5"
        is_cut = index % 25 == 4
        attempts.append(
            AttemptRow(
                number=len(attempts) + 1,
                provider=provider,
                model=model,
                at=at,
                duration=2_000_000,
                let_go=is_cut,
                usage_source="partial" if is_cut else "reported",
                input_uncached=1000,
                cache_read=9000,
                output=500,
                cost_nanousd=None if is_inside else 7_375_000,
                price_source="unknown" if is_inside else "table",
            )
        )
        is_denied = index % 50 == 7
        yield RequestRow(
            id=f"{index:032x}",
            at=at,
            path="/v1/messages",
            stream=True,
            requested_model="gpt-3" if is_denied else "claude-sonnet-5",
            session=f"session-{index % 9}",
            request_class=dice.choice(("main", "subagent")),
            team=team,
            key="laptop",
            user=f"user-{index % 5}@corp.example",
            rule="retired" if is_denied else "search" if is_inside else "default",
            version="0123456789ab",
            facts={"model": "claude-sonnet-5", "team": team, "headers": {"x-kind": None}, "stream": True},
            status=400 if is_denied else 200,
            denied=is_denied,
            client_left=is_cut,
            skipped={"openai/gpt-5": "cooling down for 3 s after overloaded"} if index % 40 == 9 else {},
            shadow={"tried": "echo/small"} if index % 10 == 1 else {},
            first_content=300_000,
            duration=2_100_000,
            attempts=() if is_denied else tuple(attempts),
        )


@contextmanager
def served(folder: Path, observers: Sequence[Observer] = ()) -> Iterator[Running]:
    async def fill() -> None:
        store = SqliteStore(folder / "usage.db")
        rows = list(traffic())
        await store.write(Batch(requests=rows), rows[0].at)
        await store.aclose()

    asyncio.run(fill())
    with running(RULES.format(folder=folder), folder, ENVIRON, observers=observers) as proxy:
        yield proxy


class Reply:
    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.status = answer.status
        self.body = answer.read()
        self.headers = {name.lower(): value for name, value in answer.getheaders()}

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def location(self) -> str:
        return self.headers.get("location", "")


def ask(
    proxy: Running | Served,
    path: str,
    cookie: str = "",
    form: Mapping[str, str] | None = None,
    **headers: str,
) -> Reply:
    """Like a browser that follows nothing. Header names are written with underscores."""
    address = urllib.parse.urlsplit(proxy.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if cookie:
        sent["cookie"] = cookie
    if form is None:
        connection.request("GET", path, headers=sent)
    else:
        sent.setdefault("content-type", "application/x-www-form-urlencoded")
        connection.request("POST", path, urllib.parse.urlencode(form), sent)
    reply = Reply(connection.getresponse())
    connection.close()
    return reply


def signed_in(proxy: Running | Served, key: str) -> str:
    """The cookie of whoever shows this key."""
    reply = ask(proxy, "/-/sign-in", form={"key": key})
    assert reply.status == 303, reply.text
    return reply.headers["set-cookie"].partition(";")[0]
