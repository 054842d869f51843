"""What a rule may have done to an answer: the same for whole ones and for streams in pieces of any size."""

import json
from typing import Any

import pytest

from routeproxy.chat.completion import Choice, Chunk, Delta
from routeproxy.messages.events import MessageStart, accumulate
from routeproxy.messages.reply import Message
from routeproxy.translate.transforms import Transforms, text_pipeline
from tests.translate.answering import blocks, call, calls, ends, events_of, reply, script, text, thinks, whole

THINK = Transforms(think_tags=True)
CALLS = Transforms(text_tool_calls=True)
UNESCAPE = Transforms(newlines="unescape")
ESCAPE = Transforms(newlines="escape")


def answer(content: str, transforms: Transforms, **settings: Any) -> list[tuple[str, ...]]:
    """The blocks that `content` becomes: the same, whole and in pieces of any size."""
    told = blocks(reply(whole(content=content), transforms=transforms, **settings))
    for size in range(1, len(content) + 1):
        pieces = [text(content[at : at + size]) for at in range(0, len(content), size)]
        streamed = accumulate(events_of(*pieces, ends(), transforms=transforms, **settings))
        assert blocks(streamed) == told, f"in pieces of {size}"
    return told


def test_without_transforms_text_is_untouched_and_costs_nothing() -> None:
    raw = "<think>a</think><tool_call>{}</tool_call>\\n\n"
    assert answer(raw, Transforms()) == [("text", raw)]
    assert text_pipeline(Transforms(), (), lambda name: True, is_json=False) is None


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("<think>hm</think>yes", [("thinking", "hm"), ("text", "yes")]),
        (
            "a<think>b</think>c<think>d</think>",
            [("text", "a"), ("thinking", "b"), ("text", "c"), ("thinking", "d")],
        ),
        ("<think>never ends", [("thinking", "never ends")]),
        ("<think></think>yes", [("text", "yes")]),
        ("<think>\n\n</think>\n\nyes", [("text", "\n\nyes")]),
        ("a < b, </think> and <thin", [("text", "a < b, </think> and <thin")]),
        ("<think>a <b </thin c</think>", [("thinking", "a <b </thin c")]),
    ],
)
def test_d44_think_tags_become_thinking(content: str, expected: list[tuple[str, ...]]) -> None:
    assert answer(content, THINK) == expected


READ = ("tool_use", "read", '{"path":"a"}')


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(
            '<tool_call>{"name":"read","arguments":{"path":"a"}}</tool_call>', [READ], id="Hermes, Qwen"
        ),
        pytest.param(
            'Let me.\n<tool_call>\n{"name": "read", "arguments": {"path": "a"}}\n</tool_call>\n',
            [("text", "Let me.\n"), READ],
            id="after text",
        ),
        pytest.param(
            '<tool_call>{"name":"read","arguments":"{\\"path\\":\\"a\\"}"}</tool_call>',
            [READ],
            id="arguments in a string",
        ),
        pytest.param('<tool_call>{"name":"read","arguments":{"path":"a"}}', [READ], id="never closed"),
        pytest.param('<function=read>{"path":"a"}</function>', [READ], id="Llama"),
        pytest.param(
            "<tool_call>\n<function=read>\n<parameter=path>\na\n</parameter>\n</function>\n</tool_call>",
            [READ],
            id="Qwen Coder",
        ),
        pytest.param(
            '[TOOL_CALLS][{"name":"read","arguments":{"path":"a"}},{"name":"write","arguments":{}}]',
            [READ, ("tool_use", "write", "{}")],
            id="Mistral",
        ),
        pytest.param(
            '<tool_call>{"name":"read","arguments":{"path":"a"}}</tool_call>\n'
            '<tool_call>{"name":"write","parameters":{}}</tool_call>',
            [READ, ("tool_use", "write", "{}")],
            id="two",
        ),
        pytest.param(
            '<tool_call>{"name":"BASH"}</tool_call>', [("tool_use", "Bash", "{}")], id="with another case"
        ),
        *[
            pytest.param(raw, [("text", raw)], id=why)
            for why, raw in {
                "an unknown tool": '<tool_call>{"name":"fly","arguments":{}}</tool_call>',
                "no JSON": "<tool_call>read a</tool_call> and on",
                "no name": '<tool_call>{"arguments":{}}</tool_call>',
                "only a tag": "write <tool_call> to call",
                "one of two unknown": '[TOOL_CALLS][{"name":"read"},{"name":"fly"}]',
            }.items()
        ],
    ],
)
def test_calls_written_as_text_become_calls(content: str, expected: list[tuple[str, ...]]) -> None:
    assert answer(content, CALLS) == expected


def test_a_written_call_is_tool_use_and_is_shown_when_it_is_written() -> None:
    written = text('<tool_call>{"name":"read","arguments":{}}</tool_call>')
    assert script(written, text("Done."), ends("stop"), transforms=CALLS) == [
        "start 0 tool_use toolu_1 read",
        "stop 0",
        "start 1 text",
        "delta 1 Done.",
        "stop 1",
        "ends tool_use",
    ]


def test_a_written_call_beside_a_real_one() -> None:
    written = '<tool_call>{"name":"read","arguments":{"path":"a"}}</tool_call>'
    real = calls(call(0, "c1", "write", "{}"))
    assert blocks(accumulate(events_of(text(written), real, ends(), transforms=CALLS))) == [
        READ,
        ("tool_use", "write", "{}"),
    ]


@pytest.mark.parametrize(
    ("transforms", "content", "expected"),
    [
        (UNESCAPE, r"a\nb\tc\\", "a\nb\\tc\\\\"),
        (UNESCAPE, "a\\", "a\\"),
        (ESCAPE, "a\nb\n", r"a\nb\n"),
    ],
)
def test_newlines(transforms: Transforms, content: str, expected: str) -> None:
    assert answer(content, transforms) == [("text", expected)]


def test_newlines_in_arguments_are_left_alone() -> None:
    both = whole(content=r"a\nb", tool_calls=(call(0, "c1", "read", r'{"path":"a\nb"}'),))
    assert blocks(reply(both, transforms=UNESCAPE)) == [
        ("text", "a\nb"),
        ("tool_use", "read", r'{"path":"a\nb"}'),
    ]


@pytest.mark.parametrize(
    ("thinking", "expected"),
    [
        ("keep", [("thinking", r"h\nm"), ("text", "y\ns")]),
        ("drop", [("text", "y\ns")]),
        ("text", [("text", "h\nm"), ("text", "y\ns")]),
    ],
)
@pytest.mark.parametrize("tagged", [False, True], ids=["in its own field", "in tags"])
def test_what_becomes_of_thinking(thinking: Any, expected: list[tuple[str, ...]], tagged: bool) -> None:
    transforms = Transforms(thinking=thinking, think_tags=True, newlines="unescape")
    if tagged:
        assert answer(r"<think>h\nm</think>y\ns", transforms) == expected
    else:
        chunks = thinks("h\\"), thinks("nm"), text("y\\"), text("ns"), ends()
        assert blocks(accumulate(events_of(*chunks, transforms=transforms))) == expected


def test_thinking_as_text_that_ends_in_a_backslash_is_whole() -> None:
    transforms = Transforms(thinking="text", newlines="unescape")
    assert blocks(accumulate(events_of(thinks("a\\"), text("b"), ends(), transforms=transforms))) == [
        ("text", "a\\"),
        ("text", "b"),
    ]


def test_a_stop_string_is_looked_for_in_the_text_that_the_client_sees() -> None:
    transforms = Transforms(think_tags=True, newlines="unescape")
    assert answer(r"<think>a. b</think>c\nd. e", transforms, scan=(". ",)) == [
        ("thinking", "a. b"),
        ("text", "c\nd"),
    ]
    assert answer(r"a\nb", transforms, scan=("\n",)) == [("text", "a")]


def test_the_model_that_served_may_be_named() -> None:
    def model(served: Any) -> str:
        chunk = Chunk(choices=(Choice(delta=Delta(content="hi")),), model=served)
        start = events_of(chunk, ends(), transforms=Transforms(model_name="served"))[0]
        assert isinstance(start, MessageStart)
        return start.message.model

    assert model("gpt-5-2026") == "gpt-5-2026"
    assert model(None) == model("") == model(7) == "claude-opus-4-8"


def test_a_written_calls_arguments_keep_their_characters() -> None:
    written = '<tool_call>{"name":"write","arguments":{"text":"é\\n😀"}}</tool_call>'
    told = reply(whole(content=written), transforms=CALLS)
    assert isinstance(told, Message)
    assert json.loads(blocks(told)[0][2]) == {"text": "é\n😀"}
