"""`/v1/models`: what is listed when nobody says what, and whether the SDK reads it."""

from collections.abc import Iterator
from pathlib import Path

import anthropic
import pytest

from tests.backend import BackEnd, json_answer
from tests.running import Running, request, running

RULES = """
[providers.echo]

[[rules]]
name = "whole names"
match.model.equals = ["house-model", "claude-house"]
targets = ["echo/large"]

[[rules]]
name = "part of a name"
match.model = "haiku"
targets = ["echo/small"]

[default]
targets = ["echo/*"]
"""


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(RULES, tmp_path_factory.mktemp("rules")) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def client(proxy: Running) -> anthropic.Anthropic:
    return anthropic.Anthropic(
        base_url=proxy.url, api_key="any", max_retries=0, _strict_response_validation=True
    )


def listed(proxy: Running) -> list[str]:
    return [model["id"] for model in proxy.get("/v1/models?limit=1000").json()["data"]]


def test_names_that_rules_state_whole_are_listed(proxy: Running) -> None:
    assert {"house-model", "claude-house"} <= set(listed(proxy))
    assert "haiku" not in listed(proxy)


def test_each_listed_name_is_answered_and_shown(proxy: Running) -> None:
    for model in listed(proxy):
        assert proxy.post(request(model=model)).status_code == 200
        assert proxy.get(f"/v1/models/{model}").json()["id"] == model


def test_claude_codes_discovery_finds_a_name(proxy: Running) -> None:
    assert [model for model in listed(proxy) if "claude" in model or "anthropic" in model]


def test_the_sdk_reads_lists_and_models_strictly(client: anthropic.Anthropic, proxy: Running) -> None:
    assert [model.id for model in client.models.list(limit=1)] == listed(proxy)
    assert client.models.retrieve("claude-house").id == "claude-house"
    with pytest.raises(anthropic.NotFoundError) as missing:
        client.models.retrieve("nope")
    assert missing.value.request_id


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "many", ""])
def test_a_limit_that_is_none_is_a_400(proxy: Running, limit: str) -> None:
    answer = proxy.get(f"/v1/models?limit={limit}")
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
    assert answer.json()["error"]["message"].startswith("limit: Input should be")


def test_other_parameters_are_ignored(proxy: Running) -> None:
    assert proxy.get("/v1/models?lifecycle[]=active&beta=true&limit=1000").json()["data"]


STARS = """
[providers.openai]
base_url = "{url}/v1"
api_key = "none"

[providers.corp]
type = "anthropic"
base_url = "{url}"
api_key = "none"
[providers.corp.models]
"claude-house" = {{}}
"claude-house-small" = {{}}

[[rules]]
name = "ours"
match.model.prefix = "claude-"
targets = "corp/*"

[default]
targets = "openai/*"
"""


def test_what_stars_can_serve_is_listed_and_nobody_is_asked(tmp_path: Path) -> None:
    with BackEnd(json_answer({})) as back_end, running(STARS.format(url=back_end.url), tmp_path) as proxy:
        names = listed(proxy)
        assert names[:2] == ["claude-house", "claude-house-small"]
        assert {"gpt-4.1", "gpt-5"} <= {*names}
        paged: list[str] = []
        while True:
            after = f"&after_id={paged[-1]}" if paged else ""
            page = proxy.get(f"/v1/models?limit=7{after}").json()
            paged += [model["id"] for model in page["data"]]
            if not page["has_more"]:
                break
        assert paged == names
        before = proxy.get(f"/v1/models?limit=2&before_id={names[3]}").json()
        assert [model["id"] for model in before["data"]] == names[1:3]
        assert proxy.get("/v1/models/gpt-4.1").json()["id"] == "gpt-4.1"
        assert proxy.get("/v1/models/gpt-nobody").status_code == 404
        assert back_end.requests == []
