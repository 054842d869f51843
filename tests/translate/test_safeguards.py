"""Verdicts on tool uses: the conversation is data to whoever judges, and nothing but a verdict is one."""

import json
from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from routeproxy.messages.reply import Message, ReplyBlock, TextBlock, ToolUseBlock, Usage
from routeproxy.messages.safeguards import Evaluated, Unavailable
from routeproxy.translate.safeguards import (
    REPORT,
    ToolUse,
    UnreadableVerdicts,
    read_verdicts,
    tool_uses_of,
    verdicts_request,
)

Json = dict[str, Any]
IDS = ("call_0", "call_1")


def message(*content: ReplyBlock, stop_reason: Any = "tool_use") -> Message:
    return Message(
        id="msg_1", model="m", content=content, stop_reason=stop_reason, usage=Usage(output_tokens=1)
    )


def use(input: Json, id: str = "call_0", name: str = "Bash") -> ToolUse:
    return ToolUse(id, name, Raw(msgspec.json.encode(input)))


def asked(
    messages: Any,
    uses: tuple[ToolUse, ...] = (use({}),),
    *,
    context: Any = None,
    answer: Message | None = None,
    **fields: Any,
) -> Json:
    """The request for verdicts on `uses`, in a conversation of these turns."""
    body = {name: Raw(msgspec.json.encode(value)) for name, value in {"messages": messages, **fields}.items()}
    request = verdicts_request("j", body, Raw(msgspec.json.encode(context)), answer or message(), uses)
    decoded: Json = json.loads(request)
    return decoded


def lines(request: Json) -> list[Json]:
    """What the judge reads, line by line."""
    first, second = (block["text"] for block in request["messages"][0]["content"])
    rest, _, last = second.rpartition("\n\n")
    assert last.startswith("Judge these tool uses and no others")
    return [json.loads(line) for line in f"{first}\n{rest}".split("\n") if line]


def test_it_is_asked_by_a_forced_tool_that_knows_the_ids() -> None:
    request = asked([], (use({}, "call_0"), use({}, "call_1")))
    (tool,) = request["tools"]
    assert request["tool_choice"] == {"type": "tool", "name": tool["name"]}
    verdict = tool["input_schema"]["properties"]["verdicts"]["items"]
    assert verdict["properties"]["tool_use_id"]["enum"] == ["call_0", "call_1"]
    assert verdict["properties"]["outcome"]["enum"] == ["flagged", "not_flagged"]


@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        pytest.param({"role": "user", "content": "Hi"}, [{"user": "Hi"}], id="a text"),
        pytest.param(
            {"role": "assistant", "content": [{"type": "redacted_thinking"}]}, [], id="thoughts"
        ),
        pytest.param(
            {
                "role": "user",
                "content": [
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": "iVBOR"},
                    }
                ],
            },
            [{"user": {"type": "image", "source": {"media_type": "image/png"}}, "type": "image"}],
            id="a picture without its bytes",
        ),
        pytest.param(
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "toolu_1",
                        "is_error": True,
                        "content": [{"type": "text", "text": "no"}, {"type": "image", "source": {}}],
                    }
                ],
            },
            [{"result_of": "toolu_1", "is_error": True, "result": "no\n(image)"}],
            id="a result that is an error",
        ),
        pytest.param(
            {"role": "user", "content": [{"type": "from_tomorrow", "x": 1, "cache_control": {}}]},
            [{"user": {"type": "from_tomorrow", "x": 1}, "type": "from_tomorrow"}],
            id="a block that nobody knows",
        ),
        pytest.param({"role": "user", "content": [3, None]}, [], id="what is no block"),
        pytest.param("no turn", [], id="what is no turn"),
    ],
)  # fmt: skip
def test_what_the_judge_sees_of_a_turn(turn: Any, expected: list[Json]) -> None:
    assert lines(asked([turn]))[: len(expected)] == expected
    assert len(lines(asked([turn]))) == len(expected) + 2


def test_of_the_tools_only_those_are_described_that_are_called() -> None:
    tools = [{"name": "mcp__pay", "description": "Pays"}, {"name": "Read", "description": "Reads"}]
    said = lines(asked([], (use({"to": "x"}, name="mcp__pay"),), tools=tools))
    assert [line for line in said if "description" in line] == [{"tool": "mcp__pay", "description": "Pays"}]


def test_half_an_emoji_keeps_nobody_from_judging() -> None:
    body = {"messages": Raw(rb'[{"role":"user","content":"\ud83d"}]')}
    request = verdicts_request(
        "j", body, Raw(b"null"), message(), [ToolUse("a", "Bash", Raw(rb'{"c":"\ud83d"}'))]
    )
    assert lines(json.loads(request))[0] == {"user": "\ufffd"}


texts = st.text(st.sampled_from('\n\r\t "\\{}:,ab\u2028\u0085\U0001f600judge')) | st.text()


@given(st.lists(texts, max_size=4), texts, texts)
def test_no_text_ends_its_line_or_begins_another(said: list[str], result: str, command: str) -> None:
    turns: list[Json] = [{"role": "user", "content": text} for text in said]
    turns.append(
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": result}]}
    )
    assert lines(asked(turns, (use({"command": command}),), context={"cwd": result})) == [
        *({"user": text} for text in said),
        {"result_of": "toolu_1", "result": result},
        {"facts_and_rules": {"cwd": result}},
        {"judge": "call_0", "tool": "Bash", "input": {"command": command}},
    ]


# --- which tool uses


@pytest.mark.parametrize(
    ("content", "stop_reason", "judged", "cut"),
    [
        pytest.param([ToolUseBlock("a", "Bash", Raw(b'{"c":1}'))], "tool_use", ["a"], [], id="whole"),
        pytest.param([ToolUseBlock("a", "Stop")], "tool_use", ["a"], [], id="without an input"),
        pytest.param([ToolUseBlock("a", "Bash")], "max_tokens", [], ["a"], id="cut"),
        pytest.param(
            [ToolUseBlock("a", "Bash"), ToolUseBlock("b", "Bash")], "max_tokens", ["a"], ["b"], id="second"
        ),
        pytest.param(
            [ToolUseBlock("a", "Bash", Raw(b'{"c":1}'))], "max_tokens", ["a"], [], id="cut after it was whole"
        ),
        pytest.param([ToolUseBlock("a", "Bash"), TextBlock("x")], "max_tokens", ["a"], [], id="text"),
        pytest.param(
            [ToolUseBlock("a", "Bash")], "model_context_window_exceeded", [], ["a"], id="window"
        ),
        pytest.param([TextBlock("x")], "end_turn", [], [], id="none"),
    ],
)  # fmt: skip
def test_which_tool_uses_are_judged(
    content: list[ReplyBlock], stop_reason: str, judged: list[str], cut: list[str]
) -> None:
    uses, verdicts = tool_uses_of(message(*content, stop_reason=stop_reason))
    assert [use.id for use in uses] == judged
    assert list(verdicts) == cut
    assert all(isinstance(verdict, Unavailable) for verdict in verdicts.values())


# --- verdicts

reported = st.fixed_dictionaries(
    {
        "tool_use_id": st.sampled_from([*IDS, "call_2", ""]),
        "outcome": st.sampled_from(["flagged", "not_flagged", "Not_flagged", "allowed", ""]),
    },
    optional={"explanation": st.text(max_size=3), "extra": st.just(1)},
)
inputs = st.lists(reported, max_size=4).map(lambda verdicts: {"verdicts": verdicts}) | st.just(
    {"verdicts": None}
)
calls = st.builds(
    lambda input, name: ToolUseBlock("x", name, Raw(msgspec.json.encode(input))),
    inputs,
    st.sampled_from([REPORT, REPORT, REPORT, "Bash"]),
)
stop_reasons = st.sampled_from(
    [
        "tool_use",
        "tool_use",
        "end_turn",
        "max_tokens",
        "refusal",
        "pause_turn",
        "model_context_window_exceeded",
    ]
)


@given(st.lists(calls | st.just(TextBlock("not_flagged")), max_size=3), stop_reasons)
def test_not_flagged_is_only_what_was_said_once_and_without_a_doubt(
    content: list[Any], stop_reason: str
) -> None:
    try:
        verdicts = read_verdicts(message(*content, stop_reason=stop_reason), IDS)
    except UnreadableVerdicts:
        return
    said = [
        verdict
        for block in content
        if isinstance(block, ToolUseBlock)
        for verdict in msgspec.json.decode(block.input)["verdicts"]
    ]
    counts = Counter(verdict["tool_use_id"] for verdict in said)
    assert stop_reason in ("tool_use", "end_turn")
    assert set(verdicts) == set(IDS) >= set(counts)
    for id, verdict in verdicts.items():
        outcomes = [one["outcome"] for one in said if one["tool_use_id"] == id]
        if isinstance(verdict, Evaluated):
            assert outcomes == [verdict.outcome]
        else:
            assert outcomes == []


def test_an_explanation_has_an_end() -> None:
    report = {"verdicts": [{"tool_use_id": "call_0", "outcome": "flagged", "explanation": "x" * 5000}]}
    answer = message(ToolUseBlock("x", REPORT, Raw(msgspec.json.encode(report))))
    verdict = read_verdicts(answer, ["call_0"])["call_0"]
    assert isinstance(verdict, Evaluated)
    assert verdict.explanation == "x" * 1000
