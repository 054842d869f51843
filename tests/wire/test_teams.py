"""Whose key opens what: keys of teams, of admins, none at all; what a team may ask for, says and reaches."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.backend import BackEnd, json_answer
from tests.running import Running, request, running, until
from tests.wire.asking import answers, ask, message

SHA = hashlib.sha256(b"research-ci").hexdigest()

RULES = """
[server]
admin_keys = ["env:ADMIN_KEY"]
url_targets = true

[providers.shared]
type = "anthropic"
base_url = "{url}"
api_key = "env:SHARED_KEY"
zone = "private"
forward = ["x-data-class"]

[providers.echo]

[teams.payments]
keys = ["env:PAYMENTS_KEY", {{ name = "old", key = "env:OLD_KEY", expires = 2020-01-01 }}]
models = ["*haiku*", "sonnet-?"]
request_headers = {{ X-Data-Class = "internal" }}
provider_keys = {{ shared = "env:PAYMENTS_OWN_KEY" }}
explain = true

[teams.research]
keys = [{{ name = "ci", key = "sha256:{sha}" }}, "file:{folder}/key", "env:UNSET", "env:EMPTY"]
provider_keys = {{ shared = "env:UNSET" }}

[teams.others]
keys = "env:OTHERS_KEY"

[[rules]]
name = "internal"
match.headers.x-data-class = "internal"
targets = "shared/internal"

[[rules]]
name = "research"
match.team = "research"
targets = "shared/research"

[[rules]]
name = "not for teams"
match.not.team = ["payments", "research", "others"]
targets = "shared/strangers"

[[rules]]
name = "secret"
match.team = "others"
match.model.equals = "claude-secret"
targets = "echo/secret"

[default]
targets = ["echo/*"]
"""
KEYS = {
    "ADMIN_KEY": "admin",
    "SHARED_KEY": "sk-shared",
    "PAYMENTS_KEY": "pay",
    "OLD_KEY": "old",
    "PAYMENTS_OWN_KEY": "sk-payments",
    "OTHERS_KEY": "others",
    "EMPTY": "",
    "ANTHROPIC_AUTH_TOKEN": "token",
}


@pytest.fixture(scope="module")
def back_end() -> Iterator[BackEnd]:
    with BackEnd(json_answer(message())) as back_end:
        yield back_end


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teams")
    (folder / "key").write_text("from a file\n")
    return folder


@pytest.fixture(scope="module")
def proxy(back_end: BackEnd, folder: Path) -> Iterator[Running]:
    rules = RULES.format(url=back_end.url, sha=SHA, folder=folder)
    with running(rules, folder, KEYS) as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def asked_anew(back_end: BackEnd) -> None:
    answers(back_end, json_answer(message()))


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


PATHS = {
    "messages": ("POST", "/v1/messages"),
    "count": ("POST", "/v1/messages/count_tokens"),
    "route": ("POST", "/v1/route"),
    "models": ("GET", "/v1/models"),
    "model": ("GET", "/v1/models/claude-haiku"),
    "URL target": ("POST", "/echo:m/v1/messages"),
    "URL target, count": ("POST", "/echo:m/v1/messages/count_tokens"),
}


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize(
    ("shown", "words"),
    [
        pytest.param({}, "x-api-key header is required", id="none"),
        pytest.param({"x-api-key": ""}, "x-api-key header is required", id="empty"),
        pytest.param({"x-api-key": "wrong"}, "invalid x-api-key", id="wrong"),
        pytest.param(bearer("PAY"), "invalid x-api-key", id="in capitals"),
        pytest.param({"x-api-key": SHA}, "invalid x-api-key", id="the hash instead of the key"),
        pytest.param({"x-api-key": f"sha256:{SHA}"}, "invalid x-api-key", id="the line of the file"),
        pytest.param({"x-api-key": "token"}, "invalid x-api-key", id="the token of an open server"),
        pytest.param(
            bearer("old"), "invalid x-api-key: this key expired on 2020-01-01", id="one that is over"
        ),
        pytest.param(
            bearer("pay") | {"x-api-key": "others"},
            "invalid x-api-key: two keys were shown, and they are not of one team",
            id="two teams'",
        ),
    ],
)
def test_nobody_gets_in_with_the_wrong_key_and_no_back_end_is_asked(
    proxy: Running, back_end: BackEnd, path: tuple[str, str], shown: Mapping[str, str], words: str
) -> None:
    method, where = path
    found = (
        proxy.post(request(), where, **shown) if method == "POST" else proxy.get(where, **shown)
    )  # header names have no underscores here
    body = found.json()
    assert (found.status_code, body["error"]["type"], body["error"]["message"]) == (
        401,
        "authentication_error",
        words,
    )
    assert found.headers["request-id"] == body["request_id"]
    assert back_end.requests == []


@pytest.mark.parametrize(
    ("shown", "provider"),
    [
        pytest.param({"x-api-key": "others"}, "echo", id="x-api-key"),
        pytest.param(bearer("others"), "echo", id="Bearer"),
        pytest.param(bearer("wrong") | {"x-api-key": "others"}, "echo", id="one right, one wrong"),
        pytest.param(bearer("others") | {"x-api-key": "others"}, "echo", id="twice the same"),
    ],
)
def test_the_right_key_opens_in_either_header(
    proxy: Running, shown: Mapping[str, str], provider: str
) -> None:
    assert ask(proxy, headers=shown).said("provider") == provider


@pytest.mark.parametrize("key", ["research-ci", "from a file"])
def test_a_key_may_be_known_by_its_hash_or_stand_in_a_file(proxy: Running, key: str) -> None:
    assert ask(proxy, headers=bearer(key)).said("rule") == "research"


def test_a_key_file_that_changes_counts_at_once(proxy: Running, folder: Path) -> None:
    (folder / "key").write_text("rotated")
    try:
        assert ask(proxy, headers=bearer("rotated")).said("rule") == "research"
        assert ask(proxy, headers=bearer("from a file")).status == 401
        (folder / "key").unlink()  # the last one stays
        assert ask(proxy, headers=bearer("rotated")).said("rule") == "research"
        (folder / "key").write_text("others")  # a key that is another team's: nobody could tell
        assert ask(proxy, headers=bearer("others")).status == 401
    finally:
        (folder / "key").write_text("from a file\n")


# --- what a team may ask for and says


@pytest.mark.parametrize(
    ("model", "status"),
    [
        ("claude-haiku-4-5", 200),
        ("CLAUDE-HAIKU-4-5", 200),
        ("sonnet-5", 200),
        ("sonnet-51", 404),
        ("claude-opus-4-8", 404),
    ],
)
def test_a_team_is_told_that_what_it_may_not_ask_for_does_not_exist(
    proxy: Running, back_end: BackEnd, model: str, status: int
) -> None:
    found = ask(proxy, model, headers=bearer("pay"))
    assert found.status == status
    if status == 404:
        assert found.error == (404, "not_found_error", f"model: {model}")
        assert back_end.requests == []


def test_tokens_of_what_a_team_may_not_ask_for_are_counted_here_alone(
    proxy: Running, back_end: BackEnd
) -> None:
    counted = ask(proxy, "claude-opus-4-8", path="/v1/messages/count_tokens", headers=bearer("pay"))
    assert (counted.status, counted.json.keys(), back_end.requests) == (200, {"input_tokens"}, [])


def test_a_target_in_the_url_does_not_get_around_a_teams_models(proxy: Running, back_end: BackEnd) -> None:
    found = ask(proxy, path="/shared:internal/v1/messages", headers=bearer("pay"))
    assert found.error == (404, "not_found_error", "model: shared/internal")
    assert back_end.requests == []


def test_a_teams_header_replaces_what_the_client_says(proxy: Running, back_end: BackEnd) -> None:
    for said in ({}, {"x-data-class": "public"}, {"X-DATA-CLASS": "public"}):
        assert ask(proxy, "haiku", headers=bearer("pay") | said).said("rule") == "internal"
        assert back_end.last.header("x-data-class") == "internal"
    assert (
        ask(proxy, "haiku", headers=bearer("others") | {"x-data-class": "public"}).said("rule") == "default"
    )


def test_a_team_has_a_provider_key_of_its_own(proxy: Running, back_end: BackEnd) -> None:
    ask(proxy, "haiku", headers=bearer("pay"))
    assert back_end.last.header("x-api-key") == "sk-payments"
    ask(proxy, headers=bearer("others") | {"x-data-class": "internal"})
    assert back_end.last.header("x-api-key") == "sk-shared"


def test_a_team_whose_own_key_is_not_set_never_gets_the_shared_one(proxy: Running, back_end: BackEnd) -> None:
    found = ask(proxy, headers=bearer("research-ci"))
    assert found.error == (502, "api_error", "the key of provider shared is not set: env:UNSET is empty")
    assert back_end.requests == []


def test_models_are_shown_to_those_who_may_ask_for_them(proxy: Running) -> None:
    def shown(key: str) -> set[str]:
        return {model["id"] for model in proxy.get("/v1/models", x_api_key=key).json()["data"]}

    assert "claude-secret" in shown("others")
    assert "claude-secret" not in shown("pay") | shown("research-ci")
    assert proxy.get("/v1/models/claude-secret", x_api_key="others").status_code == 200
    assert proxy.get("/v1/models/claude-secret", x_api_key="pay").status_code == 404


# --- admins, explanations


def test_an_admin_key_opens_nothing_that_reaches_a_back_end(proxy: Running, back_end: BackEnd) -> None:
    assert ask(proxy, headers=bearer("admin")).error[2] == (
        "invalid x-api-key: an admin key is for /-/ and /v1/route"
    )
    assert proxy.get("/v1/models", x_api_key="admin").status_code == 401
    assert back_end.requests == []


@pytest.mark.parametrize(
    ("key", "query", "status", "rule"),
    [
        pytest.param("pay", "", 200, "internal", id="a team that may"),
        pytest.param("others", "", 403, None, id="a team that may not"),
        pytest.param("admin", "?team=research", 200, "research", id="an admin, for a team"),
        pytest.param("admin", "", 200, "not for teams", id="an admin, for nobody"),
        pytest.param("admin", "?team=nobody", 400, None, id="a team that is not there"),
        pytest.param("pay", "?team=research", 200, "internal", id="a team can't ask for another"),
    ],
)
def test_why_may_be_asked_by_those_who_may(
    proxy: Running, back_end: BackEnd, key: str, query: str, status: int, rule: str | None
) -> None:
    found = ask(proxy, "haiku", path=f"/v1/route{query}", headers=bearer(key))
    assert (found.status, found.json.get("rule")) == (status, rule)
    assert back_end.requests == []


def test_an_explanation_comes_with_the_answer_to_those_who_may(proxy: Running) -> None:
    asking = {"x-routeproxy-explain": "1"}
    found = ask(proxy, "haiku", headers=bearer("pay") | asking)
    assert '"rule":"internal"' in found.headers["x-routeproxy-explain"]
    other = ask(proxy, headers=bearer("others") | asking)
    assert "x-routeproxy-explain" not in other.headers
    assert other.said("warning") == "x-routeproxy-explain: not for this key"
    assert "x-routeproxy-explain" not in ask(proxy, "haiku", headers=bearer("pay")).headers
    wrong = ask(proxy, "haiku", headers=bearer("pay") | {"x-routeproxy-explain": "please"})
    assert wrong.error == (400, "invalid_request_error", "x-routeproxy-explain: expected `1`")


# --- without a key


ANYBODY = """
[server]
{server}
[providers.echo]
[teams.known]
keys = "env:KNOWN_KEY"
explain = true
[[rules]]
name = "known"
match.team = "known"
targets = "echo/known"
[default]
targets = "echo/anybody"
"""


def test_keys_that_are_written_but_not_set_lock_everybody_out(tmp_path: Path) -> None:
    with running(ANYBODY.format(server="port = 0"), tmp_path, {"ANTHROPIC_AUTH_TOKEN": "token"}) as proxy:
        for shown in ({}, {"x-api-key": ""}, bearer("token")):
            assert ask(proxy, headers=shown).status == 401


def test_a_key_may_be_optional_and_still_says_who_asks(tmp_path: Path) -> None:
    rules = ANYBODY.format(server="require_key = false")
    with running(rules, tmp_path, {"KNOWN_KEY": "known"}) as proxy:
        assert ask(proxy, headers=bearer("known")).said("rule") == "known"
        assert ask(proxy).said("rule") == "default"
        assert ask(proxy, headers=bearer("anything")).said("rule") == "default"
        assert ask(proxy, path="/v1/route").status == 401  # not every stranger's to ask
        assert ask(proxy, path="/v1/route", headers=bearer("known")).status == 200


def test_where_nobody_has_a_key_anybody_may_ask_why(tmp_path: Path) -> None:
    with running('[providers.echo]\n[default]\ntargets = "echo/m"', tmp_path) as proxy:
        assert ask(proxy, path="/v1/route").json["rule"] == "default"
        assert proxy.get("/-/status").status_code == 404  # no admin, no doors for one


def test_a_key_that_is_taken_away_opens_nothing_any_more(tmp_path: Path) -> None:
    rules = ANYBODY.format(server="port = 0")
    with running(rules, tmp_path, {"KNOWN_KEY": "known", "NEW_KEY": "new"}) as proxy:
        assert ask(proxy, headers=bearer("known")).status == 200
        proxy.rules.write_text(rules.replace("KNOWN_KEY", "NEW_KEY"))
        until(lambda: ask(proxy, headers=bearer("known")).status == 401)
        assert ask(proxy, headers=bearer("new")).said("rule") == "known"


# --- narrowing by the client


FALLING = """
[server]
{server}
[providers.first]
type = "anthropic"
base_url = "{url}"
api_key = "none"
zone = "local"
[providers.echo]
[default]
targets = ["first/m", "echo/m"]
"""


@pytest.mark.parametrize(
    ("header", "status"),
    [
        pytest.param({}, 200, id="left out"),
        pytest.param({"x-routeproxy-no-fallback": "1"}, 529, id="1"),
        pytest.param({"X-Routeproxy-No-Fallback": "true"}, 529, id="true"),
        pytest.param({"x-routeproxy-no-fallback": "0"}, 200, id="0"),
        pytest.param({"x-routeproxy-no-fallback": "yes please"}, 400, id="something else"),
    ],
)
def test_a_client_may_forbid_fallback(
    tmp_path: Path, back_end: BackEnd, header: Mapping[str, str], status: int
) -> None:
    answers(
        back_end, json_answer({"type": "error", "error": {"type": "overloaded_error", "message": ""}}, 529)
    )
    with running(FALLING.format(url=back_end.url, server="port = 0"), tmp_path) as proxy:
        assert ask(proxy, headers=header).status == status


def test_a_server_may_refuse_to_be_narrowed_and_says_so(tmp_path: Path, back_end: BackEnd) -> None:
    rules = FALLING.format(url=back_end.url, server="no_fallback_header = false")
    with running(rules, tmp_path) as proxy:
        found = ask(proxy, headers={"x-routeproxy-no-fallback": "1"})
        assert found.error == (
            400,
            "invalid_request_error",
            "x-routeproxy-no-fallback: this server does not take it",
        )
    assert back_end.requests == []


# --- what clients make of a refusal

REFUSING = """
[server]
require_key = true
[providers.echo]
[default]
deny = "not today"
"""


@pytest.mark.parametrize("key", [{}, {"x-api-key": "wrong"}], ids=["no key", "a wrong key"])
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/models", "/v1/messages/count_tokens"])
def test_nobody_asks_again_without_a_right_key(tmp_path: Path, path: str, key: dict[str, str]) -> None:
    with running(REFUSING, tmp_path, {"ANTHROPIC_AUTH_TOKEN": "right"}) as server:
        method = "GET" if path == "/v1/models" else "POST"
        refusal = server.get(path, method, **{name.replace("-", "_"): value for name, value in key.items()})
    assert (refusal.status_code, refusal.headers["x-should-retry"]) == (401, "false")


@pytest.mark.parametrize(
    ("user_agent", "type"),
    [
        pytest.param("claude-cli/2.1.332 (external, cli)", "billing_error", id="Claude Code"),
        pytest.param("Anthropic/Python 2.11.0", "invalid_request_error", id="an SDK"),
    ],
)
def test_a_denial_is_final_for_whoever_hears_it(tmp_path: Path, user_agent: str, type: str) -> None:
    """Claude Code asks six times after a 400 of any other type."""
    with running(REFUSING, tmp_path, {"ANTHROPIC_AUTH_TOKEN": "right"}) as server:
        denied = ask(server, headers={"x-api-key": "right", "user-agent": user_agent})
    assert denied.error == (400, type, "not today")
    assert denied.headers["x-should-retry"] == "false"
