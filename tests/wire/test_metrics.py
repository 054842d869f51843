"""`/metrics` of real servers, and who may see it (docs/metrics.md)."""

import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_open_metrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from routeproxy.metrics.families import FAMILIES
from tests.backend import BackEnd, completion, error, json_answer
from tests.running import Running, Served, get, request, running, serving, until
from tests.wire.asking import answers

RULES = """
[server]
admin_keys = [
    "env:OPERATE",
    {{ name = "reader", key = "env:READ", role = "read" }},
    {{ name = "sums", key = "env:USAGE", role = "usage" }},
    {{ name = "auditor", key = "env:AUDIT", role = "audit" }},
    {{ name = "prometheus", key = "env:SCRAPE", role = "metrics" }},
]

[ledger]
path = "{folder}/usage.db"
users = "plain"

[telemetry]
{telemetry}

[providers.chat]
type = "openai_compatible"
base_url = "{url}/v1"
api_key = "none"
[providers.chat.prices]
"*" = {{ input = 1, output = 10 }}

[teams.search]
keys = "env:SEARCH"
[teams.ads]
keys = "env:ADS"

[[rules]]
name = "stated"
match.model.equals = "stated"
targets = ["chat/down", "chat/stated"]

[default]
targets = "chat/*"
"""
KEYS = {
    name: f"key-of-{name.lower()}"
    for name in ("OPERATE", "READ", "USAGE", "AUDIT", "SCRAPE", "SEARCH", "ADS")
}


@pytest.fixture(scope="module")
def back_end() -> Iterator[BackEnd]:
    with BackEnd() as one:
        yield one


@pytest.fixture
def proxy(back_end: BackEnd, tmp_path: Path) -> Iterator[Running]:
    answers(back_end, json_answer(completion("Hello")))
    text = RULES.format(folder=tmp_path, url=back_end.url, telemetry="metrics = '127.0.0.1:1'")
    with running(text, tmp_path, KEYS) as server:
        yield server


def numbers(text: str) -> dict[str, float]:
    """By name and labels, as they are written."""
    return {
        f"{sample.name.removeprefix('routeproxy_')}{sorted(sample.labels.values()) or ''}": sample.value
        for family in read_text(text)
        for sample in family.samples
    }


def scrape(proxy: Running | Served, key: str = KEYS["SCRAPE"], **headers: str) -> httpx.Response:
    return proxy.get("/metrics", x_api_key=key, **headers)


def ask(proxy: Running | Served, model: str = "stated", key: str = KEYS["SEARCH"]) -> int:
    return proxy.post(request(model=model), x_api_key=key).status_code


def test_a_scrape_counts_all_that_was_over_before(proxy: Running) -> None:
    for number in range(1, 6):
        assert ask(proxy) == 200
        found = numbers(scrape(proxy).text)
        assert found["requests_total['200', 'search', 'stated']"] == number
        assert found["tokens_total['chat', 'down', 'output', 'search']"] == 5 * number


def test_names_that_clients_make_up_are_no_labels(proxy: Running) -> None:
    for number in range(5):
        assert ask(proxy, f"made-up-{number}") == 200
    text = scrape(proxy).text
    assert "made-up" not in text
    assert numbers(text)["attempts_total['_other', 'chat', 'ok']"] == 5


def test_refusals_of_keys_are_counted(proxy: Running) -> None:
    assert ask(proxy, key="wrong") == 401
    assert numbers(scrape(proxy).text)["refusals_total['', 'key']"] == 1


def test_open_metrics_have_exemplars(proxy: Running) -> None:
    ask(proxy)
    reply = scrape(proxy, accept="application/openmetrics-text;version=1.0.0")
    assert reply.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    exemplars = [
        sample.exemplar
        for family in read_open_metrics(reply.text)
        for sample in family.samples
        if sample.exemplar is not None
    ]
    assert re.fullmatch("[0-9a-f]{32}", exemplars[0].labels["request_id"])


def test_reloads_and_the_version_of_the_rules_show(proxy: Running) -> None:
    version = proxy.app.rules.policy.version
    assert numbers(scrape(proxy).text)[f"rules_info['{version}']"] == 1
    proxy.rules.write_text("[providers")
    proxy.post(b"", "/-/reload", x_api_key=KEYS["OPERATE"])
    found = numbers(scrape(proxy).text)
    assert found["config_last_reload_successful"] == 0
    assert found[f"rules_info['{version}']"] == 1


# --- who may see what

PATHS: dict[str, Any] = {
    "metrics": ("GET", "/metrics"),
    "status": ("GET", "/-/status"),
    "usage": ("GET", "/-/usage?by=team"),
    "users": ("GET", "/-/usage?by=user"),
    "route": ("POST", "/v1/route"),
    "reload": ("POST", "/-/reload"),
    "ask": ("POST", "/v1/messages"),
}
MAY = {
    "OPERATE": {"metrics", "status", "usage", "users", "route", "reload"},
    "AUDIT": {"status", "usage", "users", "route"},
    "READ": {"status", "route"},
    "USAGE": {"usage"},
    "SCRAPE": {"metrics"},
    "SEARCH": {"usage", "ask"},
    "": set(),
}


@pytest.mark.parametrize("name", MAY)
def test_a_key_opens_what_its_role_says_and_nothing_else(proxy: Running, name: str) -> None:
    ask(proxy, key=KEYS["ADS"])
    opened = set()
    for what, (method, path) in PATHS.items():
        headers = {"x_api_key": KEYS[name]} if name else {}
        body = request(model="stated")
        reply = proxy.post(body, path, **headers) if method == "POST" else proxy.get(path, **headers)
        if reply.status_code == 200:
            opened.add(what)
        else:
            assert reply.status_code in (401, 403), reply.text
            assert reply.json()["error"]["message"]
    assert opened == MAY[name]


def test_a_teams_key_sees_its_own_usage(proxy: Running) -> None:
    for team, times in (("SEARCH", 2), ("ADS", 3)):
        for _ in range(times):
            ask(proxy, key=KEYS[team])

    def usage(key: str, query: str = "by=team") -> Any:
        return proxy.get(f"/-/usage?{query}", x_api_key=KEYS[key]).json()

    def requests(key: str, query: str = "by=team") -> dict[str, int]:
        return {row["team"]: row["requests"] for row in usage(key, query)["rows"]}

    until(lambda: requests("USAGE") == {"search": 2, "ads": 3}, 5)
    assert requests("SEARCH") == {"search": 2}
    assert requests("SEARCH", "by=team&only=team%3Dsearch") == {"search": 2}
    assert usage("SEARCH", "by=team&only=team%3Dads")["error"]["type"] == "permission_error"
    assert usage("SEARCH", "by=session")["error"]["type"] == "permission_error"
    assert usage("SEARCH", "by=rule&only=user%3Dann")["error"]["type"] == "permission_error"
    assert usage("USAGE", "by=nonsense")["error"]["message"].startswith("by nonsense: expected some of")
    assert usage("USAGE", "nonsense=1")["error"]["message"].startswith("nonsense: expected some of")
    assert usage("USAGE", "top=0")["error"]["message"] == "top 0: expected a number above 0"


def test_without_a_ledger_and_metrics_neither_is_there(back_end: BackEnd, tmp_path: Path) -> None:
    rules = '[server]\nadmin_keys = "env:OPERATE"\n[providers.echo]\n[default]\ntargets = "echo/x"\n'
    with running(rules, tmp_path, KEYS) as proxy:
        for path, words in (("/metrics", "turns it on"), ("/-/usage", "`[ledger]` turns it on")):
            reply = proxy.get(path, x_api_key=KEYS["OPERATE"])
            assert reply.status_code == 404
            assert words in reply.json()["error"]["message"]


# --- a listener of its own, and several workers


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def test_a_listener_of_its_own_needs_no_key_and_has_nothing_else(back_end: BackEnd, tmp_path: Path) -> None:
    answers(back_end, json_answer(completion("Hello")))
    port = _free_port()
    text = RULES.format(folder=tmp_path, url=back_end.url, telemetry=f'metrics = "127.0.0.1:{port}"')
    (tmp_path / "rules.toml").write_text(text)
    own = f"http://127.0.0.1:{port}"
    flags = ("--rules", "rules.toml", "--port", "0", "--workers", "2")
    with serving(tmp_path, *flags, environ=KEYS) as server:
        until(lambda: _is_ready(server), 10)
        assert server.get("/metrics").status_code == 401
        for path, method, status in (
            ("/v1/messages", "POST", 404), ("/", "GET", 404), ("/-/status", "GET", 404),
            ("/metrics", "POST", 405),
            ("/metrics", "HEAD", 200),
        ):  # fmt: skip
            assert get(own, path, method).status_code == status

        def total() -> float:
            found = numbers(get(own, "/metrics", host="prometheus.example").text)
            return found.get("requests_total['200', 'search', 'stated']", 0)

        def all_requests() -> float:
            found = numbers(get(own, "/metrics").text)
            return sum(value for name, value in found.items() if name.startswith("requests_total"))

        for _ in range(30):
            assert ask(server) == 200
        until(lambda: total() == 30, 5)
        assert {name.removesuffix("_total") for name in FAMILIES} == {
            family.name.removesuffix("_total") for family in read_text(get(own, "/metrics").text)
        }
        before = server.workers
        os.kill(sorted(before)[0], signal.SIGKILL)
        until(lambda: len(server.workers) == 2 and server.workers != before, 10)
        until(lambda: _is_ready(server), 10)
        assert total() == 30
        answers(back_end, error(503, "down"))
        for _ in range(10):
            assert _asked_until_answered(server) == 529
        until(lambda: all_requests() >= 40, 5)  # another worker tells of its own within a second
        assert numbers(get(own, "/metrics").text)["build_info['0.1.0']"] == 1


def _asked_until_answered(server: Served) -> int:
    """A connection may still be one that the killed worker had taken."""

    def once() -> int | None:
        try:
            return ask(server)
        except httpx.TransportError:
            return None

    return until(once, 5) or 0


def test_a_port_that_is_taken_keeps_the_server_from_starting(back_end: BackEnd, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = RULES.format(folder=tmp_path, url=back_end.url, telemetry=f'metrics = "127.0.0.1:{port}"')
        (tmp_path / "rules.toml").write_text(text)
        with serving(tmp_path, "--rules", "rules.toml", "--port", "0", environ=KEYS) as server:
            assert server.exit_code(10) == 2
            assert str(port) in server.stderr


def _is_ready(server: Served) -> bool:
    try:
        return server.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False
