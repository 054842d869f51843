"""`/{provider}:{model}/v1/messages`: the URL names a target of the rule that takes the request, and only such
a one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backend import BackEnd, json_answer
from tests.running import ECHO, Running, request, running

RULES = """
[server]
url_targets = true

[providers.echo]

[providers.claude]
type = "anthropic"
base_url = "{url}"
api_key = "none"
zone = "private"

[[rules]]
name = "listed"
match.model = "listed"
targets = ["claude/listed", "echo/listed"]

[default]
targets = ["echo/*"]
"""

MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 1, "output_tokens": 1},
}


@pytest.fixture(scope="module")
def back_end() -> Iterator[BackEnd]:
    with BackEnd(json_answer(MESSAGE)) as back_end:
        yield back_end


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, back_end: BackEnd) -> Iterator[Running]:
    rules = RULES.format(url=back_end.url)
    with running(rules, tmp_path_factory.mktemp("rules"), {"ANTHROPIC_AUTH_TOKEN": "sesame"}) as proxy:
        yield proxy


def ask(proxy: Running, path: str, **fields: object) -> tuple[int, str | None]:
    """Status, and who answered or why nobody did."""
    answer = proxy.post(request(**fields), path, x_api_key="sesame")
    if answer.status_code != 200:
        return answer.status_code, answer.json()["error"]["message"]
    return 200, f"{answer.headers['x-routeproxy-provider']}/{answer.headers['x-routeproxy-model']}"


@pytest.mark.parametrize(
    ("named", "served"),
    [
        ("echo:any-model", "echo/any-model"),
        ("ECHO:any-model", "echo/any-model"),
        ("echo:vendor/large", "echo/vendor/large"),
        ("echo:llama3:8b", "echo/llama3:8b"),
        ("echo%3Aany-model", "echo/any-model"),
        ("echo:vendor%2Flarge", "echo/vendor/large"),
    ],
)
def test_the_url_names_the_target(proxy: Running, named: str, served: str) -> None:
    assert ask(proxy, f"/{named}/v1/messages") == (200, served)
    assert ask(proxy, f"/{named}/v1/messages?beta=true") == (200, served)


def test_tokens_are_counted_there_too(proxy: Running) -> None:
    answer = proxy.post(request(), "/echo:any-model/v1/messages/count_tokens", x_api_key="sesame")
    assert list(answer.json()) == ["input_tokens"]


def test_the_model_of_the_url_wins_over_that_of_the_body(proxy: Running) -> None:
    assert ask(proxy, "/echo:from-the-url/v1/messages", model="listed") == (200, "echo/from-the-url")
    assert ask(proxy, "/claude:listed/v1/messages", model="whatever") == (200, "claude/listed")


def test_only_a_target_of_the_rule_can_be_named(proxy: Running, back_end: BackEnd) -> None:
    back_end.requests.clear()
    assert ask(proxy, "/claude:not-listed/v1/messages") == (404, "model: claude/not-listed")
    assert back_end.requests == []


def test_there_is_no_fallback_from_it(proxy: Running, back_end: BackEnd) -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    back_end.answers = [json_answer(error, 529), json_answer(MESSAGE)]
    assert ask(proxy, "/claude:listed/v1/messages")[0] == 529


@pytest.mark.parametrize("named", ["echo", "echo:", ":model", "nobody:model", "v2"])
def test_a_bad_form_names_the_providers(proxy: Running, named: str) -> None:
    answer = proxy.post(request(), f"/{named}/v1/messages", x_api_key="sesame")
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
    assert answer.json()["error"]["message"] == f"{named}: expected provider:model with one of echo, claude"
    assert answer.headers["x-routeproxy-rules-version"]


def test_a_key_is_needed_here_too(proxy: Running) -> None:
    for named in ("echo:any-model", "nobody:model"):
        assert proxy.post(request(), f"/{named}/v1/messages").status_code == 401


def test_a_wrong_verb_is_a_405(proxy: Running) -> None:
    answer = proxy.get("/echo:any-model/v1/messages")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def shown(proxy: Running, path: str) -> tuple[int, object]:
    """Status, and the ids of a page, the id of a model or why there is neither."""
    answer = proxy.get(path, x_api_key="sesame")
    body = answer.json()
    if answer.status_code != 200:
        return answer.status_code, body["error"]["message"]
    return 200, body["id"] if body.get("type") == "model" else [model["id"] for model in body["data"]]


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/echo:any-model/v1/models", (200, ["any-model", "anthropic/any-model"])),
        ("/echo:any-model/v1/models/?limit=1000", (200, ["any-model", "anthropic/any-model"])),
        ("/echo:claude-x/v1/models?limit=1000", (200, ["claude-x"])),
        ("/echo:vendor/large/v1/models", (200, ["vendor/large", "anthropic/vendor/large"])),
        ("/claude:listed/v1/models", (200, ["listed", "anthropic/listed"])),
        ("/echo:any-model/v1/models?limit=1", (200, ["any-model"])),
        ("/echo:any-model/v1/models?after_id=any-model", (200, ["anthropic/any-model"])),
        ("/echo:any-model/v1/models?before_id=anthropic/any-model", (200, ["any-model"])),
        ("/echo:any-model/v1/models?limit=0", (400, "limit: Input should be between 1 and 1000")),
        ("/echo:any-model/v1/models/any-model", (200, "any-model")),
        ("/echo:vendor/large/v1/models/anthropic/vendor/large", (200, "anthropic/vendor/large")),
        ("/echo:any-model/v1/models/other", (404, "model: other")),
        ("/claude:not-listed/v1/models", (404, "model: claude/not-listed")),
        ("/nobody:x/v1/models", (400, "nobody:x: expected provider:model with one of echo, claude")),
        ("/echo:any-model/v1/modelsx", (404, "/echo:any-model/v1/modelsx is not here")),
    ],
)
def test_the_models_behind_it_are_the_one_that_it_names(
    proxy: Running, back_end: BackEnd, path: str, answer: tuple[int, object]
) -> None:
    back_end.requests.clear()
    assert shown(proxy, path) == answer
    assert back_end.requests == []


def test_each_model_that_is_listed_behind_it_is_answered_there(proxy: Running) -> None:
    for model in ("any-model", "anthropic/any-model"):
        assert ask(proxy, "/echo:any-model/v1/messages", model=model) == (200, "echo/any-model")


def test_its_models_are_for_those_who_have_a_key_and_who_get_them(proxy: Running) -> None:
    assert proxy.get("/echo:any-model/v1/models").status_code == 401
    answer = proxy.post({}, "/echo:any-model/v1/models", x_api_key="sesame")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")


def test_no_models_are_behind_targets_that_are_off(tmp_path: Path) -> None:
    with running(ECHO, tmp_path) as proxy:
        assert proxy.get("/echo:any-model/v1/models").status_code == 404


@pytest.mark.parametrize("path", ["/echo:any-model/", "/echo:any-model", "/echo:vendor/large/"])
def test_its_root_answers_like_the_servers(proxy: Running, path: str) -> None:
    assert proxy.get(path).json() == proxy.get("/").json()


def test_clients_warm_up_their_connection_there(proxy: Running) -> None:
    answer = proxy.get("/echo:any-model/api/hello", "HEAD")
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize("path", ["/echo:m/v1/nope", "/echo:m/api/nope", "/echo:", "/nope", "/a/b:c/"])
def test_nothing_else_is_there(proxy: Running, path: str) -> None:
    assert proxy.get(path).status_code == 404


def test_a_name_that_is_none_is_a_404(proxy: Running) -> None:
    assert ask(proxy, "/echo:../v1/messages")[0] in (400, 404)
    assert ask(proxy, "/echo:a%20b/v1/messages") == (404, "model: a b")


def test_rules_files_have_them_off_unless_they_say_so(tmp_path: Path) -> None:
    with running(ECHO, tmp_path) as proxy:
        answer = proxy.post(request(), "/echo:any-model/v1/messages")
        assert answer.status_code == 404
        assert "[server] url_targets turns them on" in answer.json()["error"]["message"]
        assert answer.headers["x-routeproxy-rules-version"]
        assert proxy.get("/echo:any-model/").status_code == 404
