"""`/`: a page for browsers, JSON for the rest; what strangers may see, and that what is shown to be copied
works."""

import html
import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest

import routeproxy
from routeproxy.policy.decide import Denial
from routeproxy.web.front_page import (
    FrontPage,
    ListedProvider,
    ListedRule,
    base_url,
    is_here,
    prefers_html,
    write_page,
)
from tests.browser import Browser, Scheme, browsing
from tests.budgets import seconds
from tests.running import ECHO, Running, running, until

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"

RULES = """
[server]
url_targets = true

[providers.echo]

[providers.corp]
type = "openai_compatible"
base_url = "http://127.0.0.1:9/v1"
api_key = "none"
zone = "private"

[[rules]]
name = "whole <b>names</b>"
match.model.equals = ["house-model", "claude-it's"]
targets = ["echo/large", "corp/llama-3.3"]

[[rules]]
name = "inside"
match.headers.x-data-class = "internal"
targets = ["corp/llama-3.3", "echo/large"]
fallback = false

[[rules]]
name = "no opus"
match.model = "opus"
deny = { message = "not <i>that</i> & not here", status = 402 }

[default]
targets = "echo/*"
"""


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(RULES, tmp_path_factory.mktemp("rules")) as proxy:
        yield proxy


def page_of(proxy: Running, path: str = "/", **headers: str) -> str:
    answer = proxy.get(path, accept=BROWSER, **headers)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    return answer.text


def text_of(page: str) -> str:
    """What a reader sees, in one line."""
    body = page.partition("<body>")[2]
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def commands_in(page: str) -> dict[str, list[str]]:
    """What is there to be copied, by its heading."""
    sections = re.findall(r"<h3 id=\"([\w-]+)\">(.*?)</section>", page, re.DOTALL)
    return {
        id: [html.unescape(text) for text in re.findall(r"<pre[^>]*><code>(.*?)</code>", section, re.DOTALL)]
        for id, section in sections
    }


# --- who gets what


@pytest.mark.parametrize(
    ("accept", "page"),
    [
        pytest.param((), False, id="none"),
        pytest.param(("",), False, id="an empty one"),
        pytest.param(("*/*",), False, id="curl"),
        pytest.param(("application/json",), False, id="the SDKs"),
        pytest.param(("application/json, text/plain, */*",), False, id="axios"),
        pytest.param((BROWSER,), True, id="Chromium"),
        pytest.param(
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",), True, id="Firefox"
        ),
        pytest.param(("text/html",), True, id="a page alone"),
        pytest.param(("TEXT/HTML",), True, id="in capitals"),
        pytest.param(("text/html;charset=utf-8",), True, id="with a parameter"),
        pytest.param(("text/html; q=0.5",), True, id="a page alone, however little wanted"),
        pytest.param(("text/*",), True, id="some text"),
        pytest.param(("text/html, */*",), True, id="a page by its name, JSON by a star"),
        pytest.param(("text/html, application/json",), False, id="both alike"),
        pytest.param(("text/html;q=0.9, application/json",), False, id="JSON rather"),
        pytest.param(("text/html, application/json;q=0.9",), True, id="the page rather"),
        pytest.param(("application/json;q=0.2,text/html;q=0.3",), True, id="the page a little rather"),
        pytest.param(("text/html;q=0.5, */*;q=0.8",), False, id="anything rather"),
        pytest.param(("text/html;q=0, */*",), False, id="anything but a page"),
        pytest.param(("text/html;q=0",), False, id="no page and nothing else"),
        pytest.param(("text/html;q=0.0, application/json;q=0",), False, id="neither"),
        pytest.param(("*/*, application/json;q=0",), True, id="anything but JSON"),
        pytest.param(("image/png",), False, id="neither is taken"),
        pytest.param(("text/html;q=many",), False, id="a quality that is none"),
        pytest.param(("text/html;q=inf",), False, id="a quality without end"),
        pytest.param(("text/html;q=nan, */*",), False, id="a quality that is no number"),
        pytest.param(("text/html;q=2",), False, id="a quality above 1"),
        pytest.param(("text/html;q=",), False, id="an empty quality"),
        pytest.param(("text/html ; Q=1.000",), True, id="spaces and capitals"),
        pytest.param((",;,text/html;,",), True, id="nothing between commas"),
        pytest.param(("text/plain", "text/html"), True, id="two lines"),
        pytest.param(("application/xhtml+xml",), False, id="XHTML, which this is not"),
        pytest.param(("text/htmlx",), False, id="another type"),
    ],
)
def test_a_page_is_for_who_would_rather_have_one(accept: tuple[str, ...], page: bool) -> None:
    assert prefers_html(accept) == page


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("accept", "type"),
    [
        ("*/*", "application/json"),
        ("application/json", "application/json"),
        (BROWSER, "text/html; charset=utf-8"),
    ],
)
def test_both_forms_say_that_there_are_two_and_are_kept_by_nobody(
    proxy: Running, method: str, accept: str, type: str
) -> None:
    answer = proxy.get("/", method, accept=accept)
    assert (answer.status_code, bool(answer.content)) == (200, method == "GET")
    assert {name: answer.headers[name] for name in ("content-type", "vary", "cache-control")} == {
        "content-type": type,
        "vary": "Accept",
        "cache-control": "no-store",
    }
    assert int(answer.headers["content-length"]) == len(proxy.get("/", accept=accept).content)
    assert answer.headers["request-id"].startswith("req_")


def test_json_has_all_that_the_page_shows(proxy: Running) -> None:
    document = proxy.get("/").json()
    since = document.pop("rules_since")
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", since)
    assert document == {
        "name": "routeproxy",
        "message": "routeproxy: Anthropic clients in front, any model behind",
        "version": routeproxy.__version__,
        "status": "ready",
        "base_url": proxy.url,
        "key": "none",
        "env": {"ANTHROPIC_BASE_URL": proxy.url, "ANTHROPIC_AUTH_TOKEN": "anything"},
        "rules": str(proxy.rules),
        "rules_version": proxy.get("/readyz").json()["rules_version"],
        "models": [model["id"] for model in proxy.get("/v1/models?limit=1000").json()["data"]],
        "providers": [
            {"name": "echo", "type": "echo", "zone": "local"},
            {"name": "corp", "type": "openai_compatible", "zone": "private"},
        ],
        "routing": [
            {"rule": "whole <b>names</b>", "targets": ["echo/large", "corp/llama-3.3"]},
            {"rule": "inside", "targets": ["corp/llama-3.3"]},
            {"rule": "no opus", "deny": {"message": "not <i>that</i> & not here", "status": 402}},
            {"rule": "default", "targets": ["echo/*"]},
        ],
    }
    shown = text_of(page_of(proxy))
    names = [document[name] for name in ("version", "rules", "rules_version")] + document["models"]
    names += [provider["zone"] for provider in document["providers"]]
    names += [rule["rule"] for rule in document["routing"]] + ["not <i>that</i> & not here"]
    assert [name for name in names if name not in shown] == []


def test_a_target_that_is_never_asked_is_not_shown(proxy: Running) -> None:
    assert "inside corp/llama-3.3 3 no opus" in text_of(page_of(proxy))


def test_the_page_loads_nothing_runs_nothing_and_is_framed_by_nobody(proxy: Running) -> None:
    headers = proxy.get("/", accept=BROWSER).headers
    assert re.fullmatch(
        "default-src 'none'; style-src 'sha256-[^']+'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'",
        headers["content-security-policy"],
    )
    assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
    assert not re.search(r"<script|<img|<iframe|<form|\son\w+=|javascript:|@import|url\(", page_of(proxy))


def test_what_browsers_ask_for_by_themselves_is_answered(proxy: Running) -> None:
    icon, robots = proxy.get("/favicon.ico"), proxy.get("/robots.txt")
    assert (icon.status_code, icon.content) == (204, b"")
    assert (robots.status_code, robots.text) == (200, "User-agent: *\nDisallow: /\n")
    assert robots.headers["content-type"] == "text/plain; charset=utf-8"


def test_the_root_of_a_target_in_the_url_has_the_page_too(proxy: Running) -> None:
    assert page_of(proxy, "/echo:any-model/") == page_of(proxy)


# --- the address


@pytest.mark.parametrize(
    ("headers", "url"),
    [
        pytest.param({"host": ("localhost:8082",)}, "http://localhost:8082", id="as it was asked for"),
        pytest.param({"host": ("proxy.corp.example",)}, "http://proxy.corp.example", id="a name"),
        pytest.param({"host": ("my_container:80",)}, "http://my_container:80", id="a container"),
        pytest.param({"host": ("[::1]:8082",)}, "http://[::1]:8082", id="IPv6"),
        pytest.param({"host": ("::1",)}, "http://10.0.0.7:8082", id="IPv6 without brackets"),
        pytest.param({"host": ("[:::::]",)}, "http://10.0.0.7:8082", id="what only looks like IPv6"),
        pytest.param({}, "http://10.0.0.7:8082", id="none"),
        pytest.param({"host": ("",)}, "http://10.0.0.7:8082", id="an empty one"),
        pytest.param({"host": ("a", "b")}, "http://10.0.0.7:8082", id="two"),
        pytest.param({"host": ("$(reboot)",)}, "http://10.0.0.7:8082", id="a command"),
        pytest.param({"host": ("a;reboot",)}, "http://10.0.0.7:8082", id="another command"),
        pytest.param({"host": ("-oProxyCommand",)}, "http://10.0.0.7:8082", id="a flag"),
        pytest.param({"host": ("a\n",)}, "http://10.0.0.7:8082", id="a line's end"),
        pytest.param({"host": ("<script>",)}, "http://10.0.0.7:8082", id="a tag"),
        pytest.param({"host": ("user@evil.example",)}, "http://10.0.0.7:8082", id="a user"),
        pytest.param({"host": ("a/b",)}, "http://10.0.0.7:8082", id="a path"),
        pytest.param({"host": ("a:port",)}, "http://10.0.0.7:8082", id="a port that is none"),
        pytest.param({"host": ("a" * 300,)}, "http://10.0.0.7:8082", id="a long one"),
        pytest.param({"host": ("ä.example",)}, "http://10.0.0.7:8082", id="not ASCII"),
        pytest.param(
            {"host": ("p.example",), "x-forwarded-proto": ("https",)}, "https://p.example", id="behind TLS"
        ),
        pytest.param(
            {"host": ("p.example",), "x-forwarded-proto": ("HTTPS, http",)},
            "https://p.example",
            id="two proxies",
        ),
        pytest.param(
            {"host": ("p.example",), "x-forwarded-proto": ("javascript",)}, "http://p.example", id="no scheme"
        ),
    ],
)
def test_the_address_is_the_one_that_was_asked_for(headers: dict[str, tuple[str, ...]], url: str) -> None:
    scope = {"type": "http", "scheme": "http", "server": ("10.0.0.7", 8082)}
    assert base_url(scope, headers) == url  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("http://localhost:8082", True),
        ("http://a.localhost", True),
        ("http://127.0.0.1:1", True),
        ("http://[::1]:8082", True),
        ("http://10.0.0.7", False),
        ("http://localhost.example", False),
    ],
)
def test_routeproxys_own_command_is_shown_on_the_machine_itself(url: str, loopback: bool) -> None:
    assert is_here(url) == loopback


# --- what is shown to be copied


@pytest.fixture(scope="module")
def commands(proxy: Running) -> dict[str, list[str]]:
    return commands_in(page_of(proxy))


def test_the_line_for_claude_code_gives_it_the_address(
    commands: dict[str, list[str]], proxy: Running, tmp_path: Path
) -> None:
    claude = tmp_path / "claude"
    claude.write_text('#!/bin/sh\necho "$ANTHROPIC_BASE_URL $ANTHROPIC_AUTH_TOKEN"\n')
    claude.chmod(0o755)
    own, session, settings = commands["claude-code"]
    assert own == f"routeproxy claude --url {proxy.url}"
    environ = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    ran = subprocess.run(["sh", "-c", session], env=environ, capture_output=True, text=True, check=True)
    assert ran.stdout == f"{proxy.url} anything\n"
    assert json.loads(settings)["env"] == {
        "ANTHROPIC_BASE_URL": proxy.url,
        "ANTHROPIC_AUTH_TOKEN": "anything",
    }


def test_the_line_for_curl_is_answered(commands: dict[str, list[str]]) -> None:
    (line,) = commands["curl"]
    ran = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=seconds(30), check=True)
    assert json.loads(ran.stdout)["type"] == "message"


def test_the_lines_of_python_are_answered(
    commands: dict[str, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    (lines,) = commands["python"]
    run_and_close(lines)
    assert "Hello" in capsys.readouterr().out


def test_the_lines_of_typescript_are_answered(commands: dict[str, list[str]]) -> None:
    clients = Path(os.environ.get("ROUTEPROXY_TEST_CLIENTS", "clients-not-installed"))
    if not (clients / "node_modules/@anthropic-ai/sdk").exists():
        pytest.skip("ROUTEPROXY_TEST_CLIENTS names no folder with @anthropic-ai/sdk")
    (lines,) = commands["typescript"]
    ran = subprocess.run(
        ["node", "--input-type=module", "-e", lines],
        cwd=clients,
        capture_output=True,
        text=True,
        timeout=seconds(60),
        check=False,
    )
    assert "Hello" in ran.stdout, ran.stderr


@pytest.mark.parametrize(
    "name",
    [
        "it's",
        'a"b',
        "a\\b",
        "$(reboot)",
        "`reboot`",
        "a;b&c",
        "</code><b>",
        "{{ 7 * 7 }}",
        "ä \u2028",
        "&lt;b",
    ],
)
def test_a_name_is_what_it_is_wherever_it_stands(name: str) -> None:
    """Whatever the rules file lets through, today or later."""
    page = FrontPage(
        version=name,
        status="ready",
        base_url="http://localhost:1",
        key="none",
        env={"ANTHROPIC_BASE_URL": name},
        rules_problem=name,
        rules=name,
        rules_version=name,
        models=(name,),
        providers=(ListedProvider(name, name, name, client_key=True),),
        routing=(ListedRule(name, (name,)), ListedRule("denied", deny=Denial(name)), ListedRule("default")),
    )
    text = write_page(page).decode()
    commands = commands_in(text)
    *_, body = shlex.split(commands["curl"][0])
    assert json.loads(body)["model"] == name
    for language in ("python", "typescript"):
        (written,) = re.findall(r"\bmodel\W+(\".*\"),$", commands[language][0], re.MULTILINE)
        assert json.loads(written) == name
    assert text_of(text).count(" ".join(name.split())) >= 10
    assert not re.search(r"<b>|<b\b", text)


# --- strangers

WITH_KEYS = """
[server]
{server}

[providers.secret-provider]
type = "openai_compatible"
base_url = "http://secret-host.example/v1"
api_key = "none"

[teams.secret-team]
keys = ["env:KEY"]

[[rules]]
name = "secret-rule"
match.model.equals = ["secret-model"]
targets = "secret-provider/secret-target"

[default]
targets = "secret-provider/*"
"""

BROKEN = "[default]\ntargets = 'secret-mistake/*'\n"


@pytest.mark.parametrize(
    ("rules", "environ", "key"),
    [
        pytest.param(
            WITH_KEYS.format(server="url_targets = true"), {"KEY": "sesame"}, "required", id="teams have keys"
        ),
        pytest.param(
            WITH_KEYS.format(server="url_targets = true"),
            {"KEY": ""},
            "required",
            id="teams have keys, and none is set",
        ),
        pytest.param(
            WITH_KEYS.format(server="require_key = false"),
            {"KEY": "sesame"},
            "optional",
            id="keys may be shown",
        ),
        pytest.param(
            WITH_KEYS.partition("[teams")[0].format(server="require_key = true") + "[default]\n"
            "targets = 'secret-provider/secret-target'\n",
            {},
            "required",
            id="a key is required and none is set",
        ),
        pytest.param(
            WITH_KEYS.partition("[teams")[0].format(server="url_targets = true") + "[default]\n"
            "targets = 'secret-provider/secret-target'\n",
            {"ANTHROPIC_AUTH_TOKEN": "sesame"},
            "required",
            id="a token",
        ),
    ],
)
def test_where_clients_have_keys_strangers_see_only_that_it_is_a_routeproxy(
    rules: str, environ: dict[str, str], key: str, tmp_path: Path
) -> None:
    (tmp_path / "secret-folder").mkdir()
    with running(rules, tmp_path / "secret-folder", environ) as proxy:
        told = {
            "name": "routeproxy",
            "message": "routeproxy: Anthropic clients in front, any model behind",
            "version": routeproxy.__version__,
            "status": "ready",
            "base_url": proxy.url,
            "key": key,
            "env": {"ANTHROPIC_BASE_URL": proxy.url, "ANTHROPIC_AUTH_TOKEN": "YOUR_KEY"},
        }
        for shown in ({}, {"x_api_key": "sesame"}, {"authorization": "Bearer wrong"}):
            assert proxy.get("/", **shown).json() == told
        proxy.rules.write_text(BROKEN)
        problem = "the rules on disk may not be in force; the server's log says why"
        until(lambda: "rules_problem" in proxy.get("/readyz").json())
        assert proxy.get("/").json() == told | {"rules_problem": problem}
        assert proxy.get("/readyz").json()["rules_problem"] == problem
        page = page_of(proxy)
        for text in (page, proxy.get("/").text, proxy.get("/readyz").text, proxy.get("/x/y:z").text):
            assert "secret" not in text
            assert "sesame" not in text
        assert "The rules on disk may not be in force." in text_of(page)
        assert "YOUR_KEY" in page


def run_and_close(lines: str) -> None:
    """Runs Python as the page shows it; a script's end would close its client."""
    names: dict[str, Any] = {}
    try:
        exec(lines, names)
    finally:
        names["client"].close()


def test_a_key_has_its_place_in_every_example(tmp_path: Path) -> None:
    with running(ECHO, tmp_path, {"ANTHROPIC_AUTH_TOKEN": "sesame"}) as proxy:
        commands = commands_in(page_of(proxy))
        assert [id for id, texts in commands.items() if "YOUR_KEY" not in "".join(texts)] == []
        line = commands["curl"][0].replace("YOUR_KEY", "sesame")
        ran = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True)
        assert json.loads(ran.stdout)["type"] == "message"
        (lines,) = commands["python"]
        with pytest.raises(anthropic.AuthenticationError):
            run_and_close(lines)
        run_and_close(lines.replace("YOUR_KEY", "sesame"))


def test_admin_keys_alone_hide_nothing(tmp_path: Path) -> None:
    rules = f'[server]\nadmin_keys = ["env:ADMIN"]\n{ECHO}'
    with running(rules, tmp_path, {"ADMIN": "sesame"}) as proxy:
        assert proxy.get("/").json()["routing"] == [{"rule": "default", "targets": ["echo/*"]}]


def test_keys_that_a_reload_brings_hide_what_was_shown(tmp_path: Path) -> None:
    with running(ECHO, tmp_path, {"KEY": "sesame"}) as proxy:
        assert "routing" in proxy.get("/").json()
        assert "echo/*" in page_of(proxy)
        proxy.rules.write_text(f'{ECHO}\n[teams.a]\nkeys = ["env:KEY"]\n')
        until(lambda: proxy.get("/").json()["key"] == "required")
        assert "routing" not in proxy.get("/").json()
        assert "echo/*" not in page_of(proxy)


# --- what is in force


def test_an_edit_shows_at_once_and_a_broken_one_is_said_with_its_words(tmp_path: Path) -> None:
    with running(ECHO, tmp_path) as proxy:
        before = proxy.get("/").json()
        proxy.rules.write_text(ECHO.replace("echo/*", "echo/other"))
        until(lambda: proxy.get("/").json()["rules_version"] != before["rules_version"])
        after = proxy.get("/").json()
        assert after["rules_since"] > before["rules_since"]
        assert "echo/other" in page_of(proxy)
        proxy.rules.write_text(ECHO.replace("echo/*", "<b>/*"))
        until(lambda: "rules_problem" in proxy.get("/").json())
        broken = proxy.get("/").json()
        assert (broken["rules_version"], broken["rules_since"]) == (
            after["rules_version"],
            after["rules_since"],
        )
        page = page_of(proxy)
        assert "there is no provider `<b>`" in text_of(
            page.replace("&lt;b&gt;", "&amp;lt;b&amp;gt;")
        ).replace("&lt;", "<").replace("&gt;", ">")
        assert "<b>" not in page
        proxy.rules.write_text(ECHO.replace("echo/*", "echo/other") + "# mended\n")
        until(lambda: "rules_problem" not in proxy.get("/").json())
        assert proxy.get("/").json()["rules_since"] == after["rules_since"]
        assert "may not be in force" not in page_of(proxy)


def test_a_server_that_stops_says_so(tmp_path: Path) -> None:
    with running(ECHO, tmp_path) as proxy:
        proxy.app.in_flight.draining = True
        assert proxy.get("/").json()["status"] == "draining"
        assert "Shutting down" in page_of(proxy)


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        pytest.param(ECHO, "There are none besides default", id="no rules"),
        pytest.param(ECHO, "Only the built-in echo answers so far", id="echo alone"),
        pytest.param(ECHO, "No rule names a model whole, so none is listed", id="no models"),
        pytest.param(
            '[providers.own]\ntype = "anthropic"\napi_key = "client"\n[default]\ntargets = "own/*"\n',
            "Your own login or key goes on to own : Claude Code stays signed in as it is",
            id="the client's own key",
        ),
        pytest.param(
            '[default]\ndeny = "closed"\n',
            "None: every request is refused until the rules name one",
            id="nothing",
        ),
    ],
)
def test_what_is_not_there_is_said(rules: str, words: str, tmp_path: Path) -> None:
    with running(rules, tmp_path) as proxy:
        assert words in text_of(page_of(proxy))


def test_hundreds_of_rules_make_a_page_that_can_be_read(tmp_path: Path) -> None:
    rules = "".join(
        f"[[rules]]\nname = 'rule {n}'\nmatch.model.equals = 'model-{n}'\ntargets = 'echo/large'\n"
        for n in range(300)
    )
    with running(ECHO + rules, tmp_path) as proxy:
        page, document = text_of(page_of(proxy)), proxy.get("/").json()
        assert [rule["rule"] for rule in document["routing"]] == [
            *(f"rule {n}" for n in range(300)),
            "default",
        ]
        assert (
            "200 rule 199 echo/large … 100 more rules: this page as JSON has them all default echo/*" in page
        )
        assert f"{len(document['models']) - 60} more names" in page


# --- in a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing() as browser:
        yield browser


LONG = "long-name" * 30

LONG_RULES = f"""
{ECHO}
[[rules]]
name = "{LONG}"
match.model.equals = ["{LONG}"]
targets = "echo/{LONG}"

[[rules]]
name = "denied"
match.model = "opus"
deny = "{LONG}"
"""

CONTRASTS = """
(() => {
  const parse = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = parse(getComputedStyle(at).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
  };
  const found = {};
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    if (!texts.currentNode.data.trim()) continue;
    const element = texts.currentNode.parentElement;
    const [one, other] = [light(parse(getComputedStyle(element).color)), light(behind(element))];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    const name = element.tagName + "." + element.className;
    found[name] = Math.min(found[name] ?? 21, Math.round(ratio * 10) / 10);
  }
  return found;
})()
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1600])
@pytest.mark.parametrize("state", ["good", "broken", "with keys"])
def test_it_looks_right(browser: Browser, scheme: Scheme, width: int, state: str, tmp_path: Path) -> None:
    environ = {"ANTHROPIC_AUTH_TOKEN": "sesame"} if state == "with keys" else {}
    with running(LONG_RULES, tmp_path, environ) as proxy:
        if state == "broken":
            proxy.rules.write_text(LONG_RULES.replace("echo/long", "nobody/long"))
            until(lambda: "rules_problem" in proxy.get("/").json())
        browser.open(proxy.url + "/", width=width, scheme=scheme)
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
        # Its style was taken, and the scheme that was asked for.
        background = browser.evaluate("getComputedStyle(document.body).backgroundColor")
        assert background == {"light": "rgb(251, 251, 249)", "dark": "rgb(20, 24, 26)"}[scheme]
        contrasts = browser.evaluate(CONTRASTS)
        assert {name: ratio for name, ratio in contrasts.items() if ratio < 4.5} == {}
        assert contrasts
        assert browser.asked_for == [proxy.url + "/"]
        assert browser.complaints == []
