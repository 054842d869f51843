"""Conversations that go on at another provider: what it can't be given is dropped and said, or it is not
asked (docs/rules.md, "portable")."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.backend import BackEnd, completion, error, json_answer
from tests.running import Running, running, until
from tests.wire.asking import Reply, answers, ask

RULES = """
[server]
decision_log = "{log}"

[providers.claude]
type = "anthropic"
base_url = "{claude}"
api_key = "none"

[providers.chat]
type = "openai_compatible"
base_url = "{chat}/v1"
api_key = "none"

[providers.gemini]
type = "gemini"
base_url = "{other}"
api_key = "none"

[providers.echo]

[[rules]]
match.model.equals = "from-claude"
targets = ["claude/m", "chat/m", "gemini/m", "claude/n"]
portable = "strict"

[[rules]]
match.model.equals = "from-chat"
targets = ["chat/m", "claude/m"]
portable = "strict"
fallback.on = ["server_error", "capability"]

[[rules]]
match.model.equals = "only-chat"
targets = "chat/m"
portable = "strict"

[[rules]]
match.model.equals = "echo"
targets = ["claude/m", "echo/m"]
portable = "strict"

[default]
targets = ["claude/m", "chat/m"]
"""

DOWN = error(500, {"type": "error", "error": {"type": "api_error", "message": "down"}})


@pytest.fixture(scope="module")
def back_ends() -> Iterator[dict[str, BackEnd]]:
    with BackEnd() as claude, BackEnd() as chat, BackEnd() as other:
        yield {"claude": claude, "chat": chat, "other": other}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rules")


@pytest.fixture(scope="module")
def proxy(back_ends: dict[str, BackEnd], folder: Path) -> Iterator[Running]:
    urls = {name: back_end.url for name, back_end in back_ends.items()}
    with running(RULES.format(log=folder / "decisions.jsonl", **urls), folder) as proxy:
        yield proxy


def message(model: str = "m") -> dict[str, Any]:
    content = [{"type": "text", "text": f"claude/{model}"}]
    usage = {"input_tokens": 1, "output_tokens": 1}
    return {
        "id": "msg_1", "type": "message", "role": "assistant", "model": model, "content": content,
        "stop_reason": "end_turn", "stop_sequence": None, "usage": usage,
    }  # fmt: skip


@pytest.fixture
def claude(back_ends: dict[str, BackEnd]) -> BackEnd:
    return answers(back_ends["claude"], json_answer(message()))


@pytest.fixture
def chat(back_ends: dict[str, BackEnd]) -> BackEnd:
    return answers(back_ends["chat"], json_answer(completion("chat/m")))


@pytest.fixture
def other(back_ends: dict[str, BackEnd]) -> BackEnd:
    return answers(back_ends["other"], DOWN)


THINKING = {"type": "thinking", "thinking": "Hm.", "signature": "ErUBCkYIBxgC"}
HIDDEN = {"type": "redacted_thinking", "data": "EmwKAhgBEgy3va3pzix"}
SEARCH = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "q"}}
PAGE = {"type": "web_search_result", "title": "T", "url": "https://x.example", "encrypted_content": "Eqg"}
FOUND = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [PAGE]}
OUR_SEARCH = {**SEARCH, "id": "srvtoolu_rp1_1"}
OUR_FOUND = {**FOUND, "tool_use_id": "srvtoolu_rp1_1"}
RAN = {
    "type": "code_execution_tool_result", "tool_use_id": "srvtoolu_1",
    "content": {"type": "code_execution_result", "stdout": "4", "return_code": 0, "content": []},
}  # fmt: skip
FOUND_TOOLS = {
    "type": "tool_search_tool_result", "tool_use_id": "srvtoolu_1",
    "content": {"type": "tool_search_tool_search_result", "tool_references": []},
}  # fmt: skip


def after(*blocks: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": [*blocks, {"type": "text", "text": "a"}]},
        {"role": "user", "content": "go on"},
    ]


def ask_after(proxy: Running, model: str, *blocks: dict[str, Any]) -> Reply:
    return ask(proxy, model, messages=after(*blocks))


def logged(folder: Path, reply: Reply) -> dict[str, Any]:
    id = reply.headers["request-id"]
    (line,) = until(lambda: [line for line in _lines(folder) if id in line])
    decision: dict[str, Any] = json.loads(line)
    return decision


def _lines(folder: Path) -> list[str]:
    log = folder / "decisions.jsonl"
    return log.read_text().rpartition("\n")[0].splitlines() if log.exists() else []


LOSSES = [
    pytest.param([THINKING], {"thinking": 1}, "1 thinking block", id="thinking"),
    pytest.param([HIDDEN], {"signatures": 1}, "1 block of hidden thinking", id="redacted thinking"),
    pytest.param(
        [{**THINKING, "thinking": ""}], {"signatures": 1}, "1 block of hidden thinking", id="omitted thinking"
    ),
    pytest.param([SEARCH, FOUND], {"server_tool_results": 1}, "1 result of a server tool", id="a search"),
    pytest.param([SEARCH, RAN], {"server_tool_results": 1}, "1 result of a server tool", id="code that ran"),
    pytest.param(
        [THINKING, THINKING, SEARCH, FOUND],
        {"thinking": 2, "server_tool_results": 1},
        "2 thinking blocks and 1 result of a server tool",
        id="several",
    ),
]


@pytest.mark.parametrize(("blocks", "dropped", "words"), LOSSES)
def test_what_a_fallback_drops_is_in_the_decision_log_and_the_warnings(
    proxy: Running,
    folder: Path,
    claude: BackEnd,
    chat: BackEnd,
    blocks: list[dict[str, Any]],
    dropped: dict[str, int],
    words: str,
) -> None:
    answers(claude, DOWN)
    reply = ask_after(proxy, "anything", *blocks)
    assert reply.text == "chat/m"
    assert reply.said("warning") == f"{words} of another provider dropped"
    assert logged(folder, reply)["dropped"] == {"chat/m": dropped}


@pytest.mark.parametrize(("blocks", "dropped", "words"), LOSSES)
def test_where_nothing_may_be_dropped_a_fallback_that_would_is_passed_over(
    proxy: Running,
    folder: Path,
    claude: BackEnd,
    chat: BackEnd,
    other: BackEnd,
    blocks: list[dict[str, Any]],
    dropped: dict[str, int],
    words: str,
) -> None:
    answers(claude, DOWN, json_answer(message("n")))
    reply = ask_after(proxy, "from-claude", *blocks)
    assert reply.text == "claude/n"
    assert (len(chat.requests), len(other.requests)) == (0, 0)
    decision = logged(folder, reply)
    assert decision["attempts"] == [
        ["claude/m", "server_error"],
        ["chat/m", "capability"],
        ["gemini/m", "capability"],
        ["claude/n", None],
    ]
    assert decision["dropped"] == {"chat/m": dropped, "gemini/m": dropped}


@pytest.mark.parametrize(("blocks", "dropped", "words"), LOSSES)
def test_of_the_first_target_the_client_hears_what_would_be_lost(
    proxy: Running, chat: BackEnd, blocks: list[dict[str, Any]], dropped: dict[str, int], words: str
) -> None:
    status, type, told = ask_after(proxy, "only-chat", *blocks).error
    assert (status, type) == (400, "invalid_request_error")
    assert f"this model can't be given {words} that another provider wrote" in told
    assert chat.requests == []


def test_where_all_others_are_passed_over_the_first_failure_is_shown(
    proxy: Running, claude: BackEnd, chat: BackEnd, other: BackEnd
) -> None:
    answers(claude, DOWN)
    assert ask_after(proxy, "from-claude", THINKING).error == (500, "api_error", "down")
    assert [request.json["model"] for request in claude.requests] == ["m", "n"]


@pytest.mark.parametrize(
    "blocks", [[], [SEARCH, FOUND_TOOLS]], ids=["nothing of it", "tools that were found"]
)
def test_a_conversation_with_nothing_to_lose_falls_back(
    proxy: Running, claude: BackEnd, chat: BackEnd, blocks: list[dict[str, Any]]
) -> None:
    answers(claude, DOWN)
    reply = ask_after(proxy, "from-claude", *blocks)
    assert reply.text == "chat/m"
    assert reply.said("warning") is None


def test_a_target_gets_its_own_thinking_back_and_nobody_else_does(
    proxy: Running, folder: Path, claude: BackEnd, chat: BackEnd
) -> None:
    answers(chat, json_answer(completion("chat/m", reasoning_content="Hm.")))
    first = ask(proxy, "only-chat", thinking={"type": "enabled", "budget_tokens": 1024}, max_tokens=2000)
    own = first.json["content"][0]
    assert own["type"] == "thinking"
    assert ask_after(proxy, "only-chat", own).status == 200

    answers(chat, DOWN)
    shown = ask_after(proxy, "from-chat", own)
    assert shown.status == 500
    assert claude.requests == []
    assert logged(folder, shown)["dropped"] == {"claude/m": {"thinking": 1}}

    assert ask_after(proxy, "anything", own).text == "claude/m"
    assert [block["type"] for block in claude.last.json["messages"][1]["content"]] == ["text"]


def test_a_search_of_ours_is_lost_at_the_api_itself_and_nowhere_else(
    proxy: Running, folder: Path, claude: BackEnd, chat: BackEnd
) -> None:
    assert ask_after(proxy, "from-chat", OUR_SEARCH, OUR_FOUND).text == "chat/m"
    answers(chat, DOWN)
    shown = ask_after(proxy, "from-chat", OUR_SEARCH, OUR_FOUND)
    assert shown.status == 500
    assert logged(folder, shown)["dropped"] == {"claude/m": {"server_tool_results": 1}}


def test_a_first_target_that_is_passed_over_leads_on_where_the_rule_says_so(
    proxy: Running, claude: BackEnd, chat: BackEnd
) -> None:
    assert ask_after(proxy, "from-chat", THINKING).text == "claude/m"
    assert chat.requests == []


COOLING = """
[providers.claude]
type = "anthropic"
base_url = "{claude}"
api_key = "none"
health = {{ failures = 1, cooldown = "30s" }}

[providers.chat]
type = "openai_compatible"
base_url = "{chat}/v1"
api_key = "none"

[default]
targets = ["claude/m", "chat/m"]
portable = "strict"
"""


def test_a_target_that_cools_down_is_asked_where_nobody_else_can_be_given_all(
    claude: BackEnd, chat: BackEnd, tmp_path: Path
) -> None:
    answers(claude, DOWN)
    with running(COOLING.format(claude=claude.url, chat=chat.url), tmp_path, remembers=True) as proxy:
        assert ask_after(proxy, "m").text == "chat/m"
        assert ask_after(proxy, "m").text == "chat/m"
        assert len(claude.requests) == 1, "it cools down"
        assert ask_after(proxy, "m", THINKING).error[0] == 500
        assert (len(claude.requests), len(chat.requests)) == (2, 2)


def test_counting_tokens_refuses_nothing(proxy: Running, chat: BackEnd) -> None:
    reply = ask(proxy, "only-chat", path="/v1/messages/count_tokens", messages=after(THINKING))
    assert reply.status == 200


def test_a_question_where_it_would_go_says_who_would_not_be_asked(proxy: Running) -> None:
    targets = ask(proxy, "from-claude", path="/v1/route", messages=after(THINKING)).json["targets"]
    refused = [target["refuses"] and target["refuses"]["kind"] for target in targets]
    assert refused == [None, "capability", "capability", None]
    assert "1 thinking block" in targets[1]["refuses"]["message"]
