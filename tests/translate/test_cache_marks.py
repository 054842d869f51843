"""The marks up to which a client wants its prompt cached, where a back end takes them."""

from typing import Any

import pytest

from routeproxy.translate.profile import ModelProfile
from routeproxy.upstream.chat.profiles import profile_of
from tests.translate.asking import (
    Json,
    assistant,
    call,
    chat,
    image,
    quirks,
    result,
    system,
    text,
    tool,
    user,
)
from tests.upstream.litellm.asking import target

MARK = {"type": "ephemeral"}
HOUR = {"type": "ephemeral", "ttl": "1h"}
TAKES = quirks(cache_marks=True)


def sent(*turns: Json, profile: ModelProfile = TAKES, **fields: Any) -> Json:
    return chat(*turns, profile=profile, **fields)


def marks(value: Any, path: str = "") -> list[str]:
    """Where there are marks, in order."""
    match value:
        case {"cache_control": mark, **rest}:
            return [*marks(rest, path), f"{path}={mark.get('ttl', '5m')}"]
        case dict():
            return [found for name, inner in value.items() for found in marks(inner, f"{path}.{name}")]
        case list():
            return [found for index, inner in enumerate(value) for found in marks(inner, f"{path}.{index}")]
    return []


CLAUDE_CODE: dict[str, Any] = {
    "system": [
        text("x-anthropic-billing-header: cc_version=2"),
        text("You are Claude Code."),
        text("Be kind.", cache_control=HOUR),
    ],
    "tools": [tool("Read"), tool("Bash", cache_control=HOUR)],
}
TURNS = [
    user(text("look", cache_control=MARK)),
    assistant(call(name="Bash")),
    user({**result("call_1", "done"), "cache_control": MARK}),
]


def test_b43_each_mark_goes_where_it_was() -> None:
    body = sent(*TURNS, **CLAUDE_CODE)
    assert marks(body) == [
        ".messages.0.content.1=1h",
        ".messages.1.content.0=5m",
        ".messages.3.content.0=5m",
        ".tools.1=1h",
    ]
    assert [part["text"] for part in body["messages"][0]["content"]] == ["You are Claude Code.", "Be kind."]
    assert body["messages"][3] == {
        "role": "tool",
        "tool_call_id": "call_1",
        "content": [{"type": "text", "text": "done", "cache_control": MARK}],
    }
    assert body["tools"][0] == {
        "type": "function",
        "function": {"name": "Read", "parameters": {"type": "object", "properties": {}}},
    }


def test_b43_nobody_else_gets_any() -> None:
    body = sent(*TURNS, profile=ModelProfile(), **CLAUDE_CODE)
    assert marks(body) == []
    assert [message["content"] for message in body["messages"]] == [
        "You are Claude Code.\n\nBe kind.",
        "look",
        None,
        "done",
    ]


@pytest.mark.parametrize(
    ("turns", "where"),
    [
        pytest.param([user({**image(), "cache_control": MARK})], [".messages.0.content.0=5m"], id="an image"),
        pytest.param(
            [user("a"), assistant(text("b", cache_control=MARK)), user("c")],
            [".messages.1.content.0=5m"],
            id="a text of the assistant",
        ),
        pytest.param(
            [user("a"), assistant({**call(), "cache_control": MARK}), user(result("call_1", "done"))],
            [".messages.2.content.0=5m"],
            id="a call: chat has a place only on its result",
        ),
        pytest.param(
            [
                user("a"),
                assistant(call()),
                user(result("call_1", text("x"), text("y", cache_control=MARK))),
            ],
            [".messages.2.content.1=5m"],
            id="within a result",
        ),
        pytest.param(
            [user("a"), system(text("be brief", cache_control=MARK))],
            [".messages.1.content.0=5m"],
            id="a system turn",
        ),
        pytest.param([user(text("", cache_control=MARK), text("a"))], [], id="an empty text can have none"),
        pytest.param(
            [user("a"), assistant(call()), user({**result("call_1"), "cache_control": MARK})],
            [],
            id="an empty result can have none",
        ),
        pytest.param([user(text("a", cache_control=None))], [], id="null"),
    ],
)
def test_b43_marks_of_all_blocks(turns: list[Json], where: list[str]) -> None:
    assert marks(sent(*turns)) == where


def test_b43_a_mark_of_the_whole_request_stands_at_its_end() -> None:
    body = sent(user("a"), assistant("b"), user("c"), cache_control=HOUR)
    assert marks(body) == [".messages.2.content.0=1h"]
    assert marks(sent(user("a"), profile=ModelProfile(), cache_control=HOUR)) == []


def test_b43_four_at_most_and_the_last_ones() -> None:
    turns = [user(*(text(str(n), cache_control=MARK) for n in range(4)))]
    body = sent(*turns, **CLAUDE_CODE)
    assert marks(body) == [f".messages.1.content.{n}=5m" for n in range(4)]


@pytest.mark.parametrize(
    ("type", "model", "taken"),
    [
        ("openrouter", "anthropic/claude-sonnet-4.5", True),
        ("openrouter", "google/gemini-2.5-pro", True),
        ("openrouter", "openai/gpt-5", False),
        ("openai", "gpt-5", False),
        ("openai_compatible", "anthropic/claude-sonnet-4.5", False),
    ],
)
def test_who_takes_them(type: str, model: str, taken: bool) -> None:
    assert profile_of(target(type, None, model)).cache_marks is taken


def test_a_gateway_takes_them_if_that_is_said() -> None:
    said = target("openai_compatible", None, "claude-sonnet-4.5", supports=frozenset({"cache_marks"}))
    assert profile_of(said).cache_marks
