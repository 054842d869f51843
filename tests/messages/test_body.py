"""A body that is scanned once says what it says when it is read as a whole; and tools that come back are read
once, whatever else has their length or their end."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routeproxy.messages.body import Body
from routeproxy.messages.errors import ApiError
from routeproxy.messages.request import Tool, decode_envelope, decode_request
from routeproxy.messages.tools import CACHE, CACHED_LISTS, LONGEST_CACHED
from routeproxy.translate.profile import ModelProfile
from routeproxy.translate.request import RequestContext, translate_request
from routeproxy.translate.thinking import Signer

CAPTURED = sorted((Path(__file__).parents[1] / "wire" / "claude-code").glob("*.json"))
HI = {"role": "user", "content": "hi"}


def tool(name: str = "Bash", **more: Any) -> dict[str, Any]:
    return {"name": name, "input_schema": {"type": "object", "properties": {}}, **more}


def what(read: Callable[[], object]) -> object:
    """What comes of it: the value, or what the client is told."""
    try:
        return read()
    except ApiError as error:
        return error.status, error.message


def reads_the_same(text: bytes) -> bool:
    return what(lambda: Body(text).envelope()) == what(lambda: decode_envelope(text)) and what(
        lambda: Body(text).request()
    ) == what(lambda: decode_request(text))


# Right, wrong and null, for each field that is read.
FIELDS: dict[str, list[Any]] = {
    "model": ["m", 5, None],
    "messages": [[HI], [], [{"role": "user"}], [{"role": "user", "content": [{"type": "odd"}]}], "hi", None],
    "system": ["be kind", [{"type": "text", "text": "größe"}], [{"type": "text"}], 5, None],
    "tools": [[tool()], [tool(), tool("Read", defer_loading=True)], [{"name": 5}], [5], {}, None],
    "max_tokens": [10, -1, "many", None],
    "stream": [True, "yes", None],
    "thinking": [{"type": "enabled", "budget_tokens": 1024}, {"type": "odd"}, [], None],
    "metadata": [{"user_id": "u"}, {"user_id": 5}, None],
    "unheard_of": [{"a": [1]}],
}


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    names = draw(st.lists(st.sampled_from(sorted(FIELDS)), unique=True))
    names += [name for name in ("model", "messages") if name not in names and draw(st.booleans())]
    separators = draw(st.sampled_from([(",", ":"), (", ", ": ")]))
    fields = {name: draw(st.sampled_from(FIELDS[name])) for name in names}
    return json.dumps(fields, separators=separators, ensure_ascii=draw(st.booleans())).encode()


@given(requests())
def test_a_request_reads_the_same_in_parts_and_as_a_whole(text: bytes) -> None:
    assert reads_the_same(text)


@pytest.mark.parametrize("file", CAPTURED, ids=lambda file: file.stem)
def test_so_does_what_claude_code_sends(file: Path) -> None:
    captured = json.loads(file.read_text())["body"]
    assert captured["tools"]
    for separators in (",", ":"), (", ", ": "):
        assert reads_the_same(json.dumps(captured, separators=separators, ensure_ascii=False).encode())


BROKEN = [
    pytest.param(b"", id="nothing"),
    pytest.param(b"[]", id="no object"),
    pytest.param(b'{"model":"m","messages":[', id="cut short"),
    pytest.param(b'{"model":"m","messages":[]}x', id="something behind it"),
    pytest.param(b'{"model":"m","messages":[{"role":"user","content":"cut \\ud83d"}]}', id="half an emoji"),
    pytest.param(b'{"model":"m","messages":[],"odd \\ud83d":1}', id="half an emoji in a name"),
    pytest.param(b'{"model":"m\\ud83d","messages":[]}', id="half an emoji in the model"),
    pytest.param(b'{"model":"m","messages":[],"tools":[{"name":"\\ud83d"}]}', id="half an emoji in a tool"),
    pytest.param(b'{"model":"m","messages":[{"role":"user","content":"\xff"}]}', id="no UTF-8"),
]


@pytest.mark.parametrize("text", BROKEN)
def test_what_is_broken_is_mended_or_refused_in_the_same_words(text: bytes) -> None:
    assert reads_the_same(text)


def test_a_name_that_is_no_utf_8_is_the_clients_mistake() -> None:
    with pytest.raises(ApiError, match="not valid UTF-8"):
        Body(b'{"model":"m","messages":[],"\xff":1}')


# --- tools that come back


def body(*tools: dict[str, Any]) -> Body:
    return Body(json.dumps({"model": "m", "messages": [HI], "max_tokens": 5, "tools": tools}).encode())


def tools_of(read: Body) -> tuple[Tool, ...]:
    tools = read.request().tools
    assert tools is not None
    return tools


def test_tools_that_come_back_are_not_read_again() -> None:
    assert tools_of(body(tool(), tool("Read"))) is tools_of(body(tool(), tool("Read")))


def test_tools_of_one_length_and_one_end_are_not_taken_for_each_other() -> None:
    for name in ("Bash", "Grep", "Bash", "Glob"):
        read = body(tool(name), tool("Read"))
        assert [one.name for one in tools_of(read)] == [name, "Read"]
        assert [head.name for head in read.envelope().tools or ()] == [name, "Read"]


def test_what_a_turn_exposes_is_hidden_again_in_the_next_request() -> None:
    deferred = [tool("Bash"), tool("Read", defer_loading=True), tool("Grep", defer_loading=True)]
    addition = {"type": "tool_addition", "tool": {"type": "tool_reference", "name": "Read"}}
    naming = {"role": "system", "content": [addition]}

    def shown(*messages: dict[str, Any], profile: ModelProfile | None = None) -> list[str]:
        fields = {"model": "m", "messages": messages, "max_tokens": 5, "tools": deferred}
        request = Body(json.dumps(fields).encode()).request()
        context = RequestContext(target="m", signer=Signer(None))
        tools = translate_request(request, profile or ModelProfile(), context).chat.tools
        return [one.function.name for one in tools or ()]

    assert shown(HI) == ["Bash"]
    assert shown(naming, HI) == ["Bash", "Read"]
    assert shown(HI) == ["Bash"]
    assert shown(naming, HI, profile=ModelProfile(tool_names="gemini", schemas="gemini")) == ["Bash", "Read"]


def test_each_kind_of_back_end_gets_its_own_names_and_schemas() -> None:
    odd = tool("1st tool")

    def names(profile: ModelProfile) -> list[str]:
        context = RequestContext(target="m", signer=Signer(None))
        tools = translate_request(body(odd).request(), profile, context).chat.tools
        return [one.function.name for one in tools or ()]

    openai, gemini = ModelProfile(), ModelProfile(tool_names="gemini", schemas="gemini")
    first = names(openai), names(gemini)
    assert first[0] != first[1]
    assert (names(openai), names(gemini)) == first


def test_a_tool_that_is_refused_is_refused_each_time() -> None:
    read = body(tool(), tool())
    for _ in range(2):
        with pytest.raises(ApiError, match="unique"):
            translate_request(read.request(), ModelProfile(), RequestContext(target="m", signer=Signer(None)))


def test_only_so_many_lists_are_remembered_and_none_that_is_long() -> None:
    for number in range(CACHED_LISTS * 2):
        tools_of(body(tool("T" * (number + 1))))
    assert len(CACHE) == CACHED_LISTS
    long = tool(description="x" * LONGEST_CACHED)
    assert tools_of(body(long)) is not tools_of(body(long))
    assert len(CACHE) == CACHED_LISTS


def test_what_is_remembered_holds_nothing_else_of_its_request() -> None:
    read = body(tool("Kept"))
    tools_of(read)
    text = list(CACHE._lists.values())[-1].text
    assert b"Kept" in bytes(text)
    assert memoryview(text).obj is not read.text
    assert len(memoryview(text)) < len(read.text)


def test_several_threads_may_read_tools_at_once() -> None:
    lists = [[tool("T" * (number + 1))] for number in range(CACHED_LISTS + 8)]

    def read(turn: int) -> bool:
        tools = lists[turn * 7 % len(lists)]
        return [one.name for one in tools_of(body(*tools))] == [one["name"] for one in tools]

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(read, range(2000)))
    assert len(CACHE) <= CACHED_LISTS
