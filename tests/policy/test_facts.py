from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routeproxy.messages.errors import InvalidRequest
from routeproxy.messages.request import decode_envelope
from routeproxy.policy.facts import Facts, requested_model_problem
from tests.policy.asking import request, rules


def conversation(messages: bytes) -> Facts:
    return Facts(decode_envelope(b'{"model":"m","messages":' + messages + b"}"), {})


@pytest.mark.parametrize(
    "name",
    [
        "claude-opus-4-8",
        "claude-opus-4-8[1m]",
        "openai/gpt-4.1",
        "ollama/llama3.3:70b",
        "a" * 256,
        "@cf/meta/x",
        "a.b",
        "x+y",
    ],
)
def test_a_models_name_may_look_like_this(name: str) -> None:
    assert requested_model_problem(name) is None


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a" * 257,
        "a b",
        "a\n",
        "ü",
        "a..b",
        "../x",
        "a//b",
        "a?b",
        "a%2e",
        "a\\b",
        "[1m]",
        "openai/",
        "openai/[1m]",
    ],
)
def test_a_models_name_may_not_look_like_this(name: str) -> None:
    assert requested_model_problem(name)


@pytest.mark.parametrize(
    ("messages", "found"),
    [
        pytest.param(rb'[{"content":[{"type":"image"}]}]', True, id="plainly"),
        pytest.param(rb'[{"content":[{"type":"\u0069mage"}]}]', True, id="with an escaped letter"),
        pytest.param(rb'[{"content":[{"type":"im\u0061\u0067e"}]}]', True, id="with two"),
        pytest.param(rb'[{"content":[{"t\u0079pe":"image"}]}]', True, id="with an escaped key"),
        pytest.param(rb'[{"content":"look, an image"}]', False, id="only in words"),
        pytest.param(rb'[{"content":"\\u0069mage"}]', False, id="only as an escaped escape"),
        pytest.param(rb'[{"content":["\ude00 cut", {"type":"image"}]}]', True, id="beside half an emoji"),
        pytest.param('["ü", {"type":"image"}]'.encode(), True, id="beside an umlaut"),
        pytest.param(rb'[{"k":"image","n":%b}]' % (b"1" * 900), False, id="beside a very long number"),
    ],
)
def test_an_image_is_found_however_it_is_spelled(messages: bytes, found: bool) -> None:
    assert conversation(messages).images is found


@given(st.text(alphabet="image", min_size=5, max_size=5), st.lists(st.booleans(), min_size=5, max_size=5))
def test_the_quick_no_is_never_wrong(word: str, escaped: list[bool]) -> None:
    spelled = "".join(f"\\u{ord(char):04X}" if by else char for char, by in zip(word, escaped, strict=True))
    messages = f'[{{"content":[{{"type":"{spelled}"}}]}}]'.encode()
    assert conversation(messages).images is (word == "image")
    assert conversation(messages.replace(b"\\u006D", b"\\u006d")).images is (word == "image")


def test_a_number_that_nobody_can_read_hides_nothing() -> None:
    assert conversation(b'[{"k":"image","n":%b}]' % (b"1" * 5000)).images is False
    assert conversation(b'[{"type":"image","n":%b}]' % (b"1" * 5000)).images is True


def test_a_conversation_that_is_too_deep_to_read_is_refused() -> None:
    facts = conversation(b"[" * 900 + b'"image"' + b"]" * 900)

    def ask_from(depth: int) -> bool:
        return facts.images if depth == 0 else ask_from(depth - 1)

    with pytest.raises(InvalidRequest, match="nested too deeply"):
        ask_from(300)


@pytest.mark.parametrize(
    ("system", "text"),
    [
        (None, ""),
        ("You ARE", "you are"),
        ([], ""),
        ([{"type": "text", "text": "A"}, {"type": "text", "text": "B"}], "a\nb"),
        ([{"type": "text", "text": "x-anthropic-billing-header: cch=1"}, {"type": "text", "text": "B"}], "b"),
        ([{"type": "text", "text": "A"}, {"type": "text", "text": "x-anthropic-b"}], "a\nx-anthropic-b"),
        ([{"type": "of tomorrow"}, {"type": "text", "text": "ÄB"}], "Äb"),
    ],
    ids=str,
)
def test_the_system_text_is_all_of_it_but_the_attribution(system: Any, text: str) -> None:
    assert request(system=system).system == text


def test_a_target_in_the_url_is_the_requested_model() -> None:
    facts = request("claude-opus-4-8", url="openai/Meta/Llama")
    assert (facts.requested, facts.model, facts.has_url_target) == ("Meta/Llama", "meta/llama", True)


def test_facts_that_cost_are_worked_out_once() -> None:
    counted: list[int] = []
    facts = Facts(
        decode_envelope(b'{"model":"m","messages":[]}'), {}, count=lambda: len(counted.append(1) or counted)
    )
    assert (facts.input_tokens, facts.input_tokens, len(counted)) == (1, 1, 1)


POLICY = rules("""
    [[rules]]
    match.not.any = [{ headers.X-Team = "a" }]
    targets = "echo/x"
""")


def test_a_header_that_rules_read_must_have_one_value() -> None:
    POLICY.check_headers({"x-team": ("a", " a\t"), "x-other": ("a", "b")})
    POLICY.check_headers({})
    with pytest.raises(InvalidRequest, match="header x-team: sent more than once, with different values"):
        POLICY.check_headers({"x-team": ("a", "b")})


def test_facts_need_no_more_than_an_envelope() -> None:
    facts = Facts(decode_envelope(msgspec.json.encode({"model": "m", "messages": []})), {})
    assert (facts.images, facts.tools, facts.system, facts.user, facts.effort, facts.input_tokens) == (
        False,
        (),
        "",
        None,
        None,
        0,
    )


def brought(definition: bytes, key: bytes = b"tool_changes") -> bytes:
    addition = b'{"type":"tool_addition","tool":{"type":"tool_definition","definition":' + definition + b"}}"
    return b'[{"role":"user","content":[{"type":"compaction","' + key + b'":[' + addition + b"]}]}]"


BROUGHT = [
    pytest.param(brought(b'{"name":"deploy","input_schema":{}}'), ("deploy",), id="a tool of the client"),
    pytest.param(
        brought(b'{"type":"bash_20250124","name":"bash"}'), ("bash", "bash_20250124"), id="one with a type"
    ),
    pytest.param(brought(b'{"type":"mcp_toolset"}'), ("mcp_toolset",), id="a set of tools"),
    pytest.param(
        brought(b'{"name":"deploy"}').replace(b"tool_definition", b"tool\\u005fdefiniti\\u006fn"),
        ("deploy",),
        id="spelled oddly",
    ),
    pytest.param(
        brought(b'{"name":"deploy","n":' + b"9" * 5000 + b"}"), ("deploy",), id="a number of 5000 digits"
    ),
    pytest.param(brought(b"7"), (), id="a definition that is none"),
    pytest.param(
        brought(b'{"name":"deploy"}').replace(b"compaction", b"tool_use").replace(b"tool_changes", b"input"),
        (),
        id="what a model wrote",
    ),
    pytest.param(b'[{"role":"user","content":"a tool_definition"}]', (), id="a word in a text"),
]


@pytest.mark.parametrize(("messages", "words"), BROUGHT)
def test_tools_that_a_turn_brings_along_are_tools_of_the_request(
    messages: bytes, words: tuple[str, ...]
) -> None:
    facts = conversation(messages)
    assert (facts.has_tools, facts.tools) == (bool(words), words)


def test_a_rule_about_tools_holds_for_those_that_a_turn_brings_along() -> None:
    policy = rules("""
        [[rules]]
        match.tools = "deploy*"
        targets = "echo/careful"
        [[rules]]
        match.tools = false
        targets = "echo/without"
    """)
    addition = {
        "type": "tool_addition",
        "tool": {"type": "tool_definition", "definition": {"name": "deploy_now"}},
    }
    system = {"role": "system", "content": [addition]}
    turns = [{"role": "user", "content": "hi"}, system]
    assert policy.decide(request(messages=turns)).targets[0].model == "careful"
    assert policy.decide(request()).targets[0].model == "without"
    assert policy.decide(request(tools=[{"name": "other"}])).targets[0].model == "default"


@pytest.mark.parametrize(
    "definition",
    [
        b'{"name":"deploy","name":"harmless"}',
        b'{"name":"a"},"definition":{"name":"deploy"}',
        b'{"name":"a","type":"b","t\\u0079pe":"c"}',
    ],
)
def test_a_tool_that_two_readers_would_take_for_two_is_refused(definition: bytes) -> None:
    with pytest.raises(InvalidRequest, match="a key stands twice"):
        _ = conversation(brought(definition)).tools
