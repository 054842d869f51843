"""What Claude Code says of its requests in headers: rules, the decision log and prompt caches go by it."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.backend import BackEnd, completion, json_answer
from tests.running import Running, request, running, until
from tests.wire.asking import Reply, ask

RULES = """
[server]
decision_log = "{log}"

[providers.corp]
type = "openai_compatible"
base_url = "{url}/v1"
api_key = "none"
zone = "local"
supports = ["prompt_cache_key"]

[teams.nightly]
keys = "env:NIGHTLY_KEY"
request_headers = {{ x-claude-code-request-class = "auxiliary", x-claude-code-session-id = "night" }}
explain = true

[teams.others]
keys = "env:OTHERS_KEY"
explain = true

[[rules]]
name = "beside"
match.request_class = ["auxiliary", "compaction"]
targets = "corp/small"

[[rules]]
name = "one session"
match.headers.x-claude-code-session-id = "s-1"
targets = "corp/big"

[default]
targets = "corp/default"
"""
KEYS = {"NIGHTLY_KEY": "nightly", "OTHERS_KEY": "others"}
USER_ID = json.dumps({"device_id": "0" * 64, "account_uuid": "", "session_id": "s-2"})


@pytest.fixture(scope="module")
def back_end() -> Iterator[BackEnd]:
    with BackEnd(json_answer(completion())) as back_end:
        yield back_end


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "decisions.jsonl"


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, back_end: BackEnd, log: Path) -> Iterator[Running]:
    text = RULES.format(url=back_end.url, log=log)
    with running(text, tmp_path_factory.mktemp("rules"), KEYS) as proxy:
        yield proxy


def lines_of(log: Path) -> list[str]:
    return log.read_text(encoding="utf-8").splitlines() if log.exists() else []


@pytest.mark.parametrize(
    ("key", "headers", "user_id", "rule", "logged", "cache_key"),
    [
        pytest.param("others", {}, None, "default", {}, None, id="nothing is said"),
        pytest.param(
            "others",
            {"X-Claude-Code-Request-Class": "auxiliary", "X-Claude-Code-Session-Id": "s-1"},
            USER_ID,
            "beside",
            {"request_class": "auxiliary", "session": "s-1"},
            "s-1",
            id="the client says it",
        ),
        pytest.param(
            "others",
            {
                "x-claude-code-request-class": "subagent",
                "x-claude-code-agent-type": "Explore",
                "x-claude-code-session-id": "s-1",
                "x-claude-code-agent-id": "a-7",
            },
            None,
            "one session",
            {"request_class": "subagent", "agent_type": "Explore", "session": "s-1", "agent": "a-7"},
            "s-1",
            id="a rule that writes the header",
        ),
        pytest.param(
            "nightly",
            {"x-claude-code-request-class": "main", "x-claude-code-session-id": "s-1"},
            None,
            "beside",
            {"request_class": "auxiliary", "session": "night"},
            "night",
            id="its team says otherwise",
        ),
        pytest.param(
            "others", {}, USER_ID, "default", {}, "s-2", id="the session stands in the user's id alone"
        ),
        pytest.param("others", {}, "somebody", "default", {}, None, id="an id without a session"),
    ],
)
def test_rules_the_log_and_prompt_caches_go_by_what_is_said(
    proxy: Running,
    back_end: BackEnd,
    log: Path,
    key: str,
    headers: dict[str, str],
    user_id: str | None,
    rule: str,
    logged: dict[str, str],
    cache_key: str | None,
) -> None:
    fields = {"metadata": {"user_id": user_id}} if user_id is not None else {}
    headers = {**headers, "x-api-key": key}
    before = len(lines_of(log))
    assert ask(proxy, path="/v1/route", headers=headers, **fields).json["rule"] == rule
    assert ask(proxy, headers=headers, **fields).said("rule") == rule
    assert back_end.last.json.get("prompt_cache_key") == cache_key
    lines = until(lambda: found if len(found := lines_of(log)) > before else None) or []
    line = json.loads(lines[-1])
    facts = {name: value for name, value in line["facts"].items() if name in logged or "class" in name}
    assert (line["rule"], facts) == (rule, logged)
    assert "headers" not in line["facts"]


def test_two_classes_in_one_request_are_refused(proxy: Running) -> None:
    lines = [("x-claude-code-request-class", "main"), ("x-claude-code-request-class", "auxiliary")]
    reply = httpx.post(f"{proxy.url}/v1/messages", json=request(), headers=[*lines, ("x-api-key", "others")])
    assert Reply(reply).error == (
        400,
        "invalid_request_error",
        "header x-claude-code-request-class: sent more than once, with different values",
    )
