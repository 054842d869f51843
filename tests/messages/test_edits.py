"""Edits by span: what is named changes as if the JSON had been decoded, and everything else stays byte for
byte."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import DecodeError

from routeproxy.messages.edits import (
    Span,
    apply_edits,
    find_elements,
    find_members,
    remove_foreign_traces,
    sanitised_id,
    set_members,
)
from routeproxy.messages.errors import InvalidRequest

names = st.text(max_size=4) | st.sampled_from(["model", "messages", "a", "text", "id"])
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4)
)
objects = st.dictionaries(names, values, max_size=6)
spaces = st.sampled_from(["", " ", "\n  ", "\t"])


@st.composite
def texts(draw: st.DrawFn, written: st.SearchStrategy[Any] = objects) -> bytes:
    """JSON as somebody may have written it: with white space anywhere, with escapes or without."""
    ascii_only = draw(st.booleans())

    def write(value: Any) -> str:
        blank = draw(spaces)
        if isinstance(value, dict):
            inner = ",".join(f"{blank}{word(name)}{blank}:{blank}{write(one)}" for name, one in value.items())
            return f"{{{inner}{blank}}}"
        if isinstance(value, list):
            return f"[{','.join(blank + write(one) + blank for one in value)}{blank}]"
        return word(value)

    def word(value: Any) -> str:
        return json.dumps(value, ensure_ascii=ascii_only)

    return (draw(spaces) + write(draw(written)) + draw(spaces)).encode()


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


@given(texts())
def test_members_are_where_they_stand(text: bytes) -> None:
    value = json.loads(text)
    found = find_members(text)
    assert {name: json.loads(text[slice(*member.value)]) for name, member in found.items()} == value
    for name, member in found.items():
        assert json.loads(b"{" + text[slice(*member.whole)] + b"}") == {name: value[name]}


@given(texts(st.lists(values, max_size=5)))
def test_elements_are_where_they_stand(text: bytes) -> None:
    assert [json.loads(text[slice(*span)]) for span in find_elements(text, Span(0, len(text)))] == json.loads(
        text
    )


@given(texts(), objects, st.sets(names))
def test_an_edit_by_span_is_the_edit_of_the_value(text: bytes, new: dict[str, Any], drop: set[str]) -> None:
    drop -= new.keys()
    edited = apply_edits(text, set_members(text, {name: encoded(value) for name, value in new.items()}, drop))
    before = json.loads(text)
    assert json.loads(edited) == {name: value for name, value in (before | new).items() if name not in drop}


@given(texts(), objects, st.sets(names))
def test_what_is_not_named_stays_byte_for_byte(text: bytes, new: dict[str, Any], drop: set[str]) -> None:
    drop -= new.keys()
    edited = apply_edits(text, set_members(text, {name: encoded(value) for name, value in new.items()}, drop))
    old, now = find_members(text), find_members(edited)
    for name in old.keys() - new.keys() - drop:
        assert edited[slice(*now[name].whole)] == text[slice(*old[name].whole)]
    kept = [name for name in old if name not in drop]
    assert [name for name in now if name in old] == kept, "and in its order"


@given(texts())
def test_no_edit_is_the_very_same_object(text: bytes) -> None:
    assert apply_edits(text, set_members(text, {})) is text


@given(texts(), st.data())
def test_a_value_that_is_right_already_is_left_alone(text: bytes, data: st.DataObject) -> None:
    present = find_members(text)
    if present:
        name = data.draw(st.sampled_from(sorted(present)))
        assert set_members(text, {name: text[slice(*present[name].value)]}) == []


@given(st.lists(st.tuples(names, texts(values)), min_size=2, max_size=5), spaces)
def test_a_key_that_stands_twice_is_always_refused(pairs: list[tuple[str, bytes]], blank: str) -> None:
    name = pairs[0][0]
    last = pairs[-1][1]
    text = b",".join(encoded(name) + b":" + value for name, value in [*pairs, (name, last)])
    with pytest.raises(InvalidRequest, match="twice"):
        find_members(b"{" + text + blank.encode() + b"}")


DUPLICATES = [
    pytest.param(b'{"a":1,"a":1}', id="equal"),
    pytest.param(b'{"a":1,"a":12}', id="a longer number after a shorter"),
    pytest.param(b'{"a":12,"a":1}', id="a shorter number after a longer"),
    pytest.param(b'{"a":1,"b":2,"a":1}', id="with another between"),
    pytest.param(b'{"b":{},"a":1,"\\u0061":2}', id="spelled with an escape"),
    pytest.param(b'{"":0,"":0}', id="without a name"),
]


@pytest.mark.parametrize("text", DUPLICATES)
def test_two_readers_may_not_see_two_requests(text: bytes) -> None:
    with pytest.raises(InvalidRequest, match="twice"):
        find_members(text)


@pytest.mark.parametrize("text", [b"[]", b"", b"1", b'{"a":}', b"{", b'{"a":1}x', b'{"\xff":1}'])
def test_what_is_no_object_is_said_to_be_none(text: bytes) -> None:
    with pytest.raises((DecodeError, UnicodeDecodeError)):
        find_members(text)


def test_what_is_nested_too_deeply_is_the_clients_mistake() -> None:
    with pytest.raises(InvalidRequest, match="too deeply"):
        find_members(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}")


# --- traces of other back ends


def body(*messages: Any) -> bytes:
    return json.dumps({"model": "m", "messages": messages}).encode()


def turn(*blocks: Any, role: str = "assistant") -> dict[str, Any]:
    return {"role": role, "content": list(blocks)}


OURS = {"type": "thinking", "thinking": "hm", "signature": "rp1.x"}
THEIRS = {"type": "thinking", "thinking": "hm", "signature": "EqoB"}
EMPTY = {"type": "text", "text": ""}
TEXT = {"type": "text", "text": "hi"}
RESULT = {"type": "tool_result", "tool_use_id": "t"}


def searched(id: str = "srvtoolu_rp1_1", **input: str) -> dict[str, Any]:
    return {"type": "server_tool_use", "id": id, "name": "web_search", "input": input}


def found(content: Any, id: str = "srvtoolu_rp1_1") -> dict[str, Any]:
    return {"type": "web_search_tool_result", "tool_use_id": id, "content": content}


def page(sealed: str = "rp1") -> dict[str, Any]:
    return {"type": "web_search_result", "url": "https://a.b/c", "title": "A", "encrypted_content": sealed}


def cites(*seals: str) -> dict[str, Any]:
    location = {"type": "web_search_result_location", "url": "https://a.b/c", "title": "A", "cited_text": ""}
    return {**TEXT, "citations": [{**location, "encrypted_index": seal} for seal in seals] or None}


FAILED = {"type": "web_search_tool_result_error", "error_code": "unavailable"}


def words(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def cleaned(*messages: Any) -> list[Any]:
    text = body(*messages)
    return list(
        json.loads(apply_edits(text, remove_foreign_traces(text, find_members(text)).edits))["messages"]
    )


CLEANED = [
    pytest.param([turn(OURS, TEXT)], [turn(TEXT)], id="our thinking"),
    pytest.param([turn(THEIRS, TEXT)], [turn(THEIRS, TEXT)], id="Anthropic's thinking"),
    pytest.param([turn(OURS, THEIRS, OURS, TEXT, OURS)], [turn(THEIRS, TEXT)], id="both"),
    pytest.param([turn(TEXT), turn(OURS), turn(EMPTY)], [turn(TEXT)], id="turns that nothing is left of"),
    pytest.param([turn(EMPTY, TEXT, EMPTY)], [turn(TEXT)], id="empty texts"),
    pytest.param(
        [turn({**RESULT, "content": [EMPTY, TEXT]})], [turn({**RESULT, "content": [TEXT]})], id="in a result"
    ),
    pytest.param(
        [turn({**RESULT, "content": [EMPTY]})], [turn({**RESULT, "content": []})], id="alone in a result"
    ),
    pytest.param(
        [turn({**RESULT, "content": ""})], [turn({**RESULT, "content": ""})], id="a result without blocks"
    ),
    pytest.param(
        [turn({**EMPTY, "type": "other"})], [turn({**EMPTY, "type": "other"})], id="an empty text elsewhere"
    ),
    pytest.param(
        [turn(), {"role": "user", "content": "hi"}],
        [turn(), {"role": "user", "content": "hi"}],
        id="no blocks",
    ),
    pytest.param(
        [turn({"type": "document", "id": "a/b"})], [turn({"type": "document", "id": "a/b"})], id="other ids"
    ),
    pytest.param(
        [turn(searched(query="q"), found([page()]), TEXT)],
        [turn(words("[web search: q]\n"), words("[results]\nA https://a.b/c\n"), TEXT)],
        id="a search of another back end",
    ),
    pytest.param(
        [turn(searched(), found([]))],
        [turn(words("[web search]\n"), words("[no results]\n"))],
        id="a search that found nothing",
    ),
    pytest.param(
        [turn(searched(query="q"), found(FAILED))],
        [turn(words("[web search: q]\n"), words("[the search failed]\n"))],
        id="a search that failed",
    ),
    pytest.param(
        [turn(searched("srvtoolu_01", query="q"), found([page("EqgB")], "srvtoolu_01"), cites("Eo8B"), OURS)],
        [turn(searched("srvtoolu_01", query="q"), found([page("EqgB")], "srvtoolu_01"), cites("Eo8B"))],
        id="Anthropic's own search",
    ),
    pytest.param([turn(cites("rp1"))], [turn(cites())], id="our citations"),
    pytest.param([turn(cites("rp1", "Eo8B"))], [turn(cites("Eo8B"))], id="our citations beside Anthropic's"),
    pytest.param(
        [turn({"type": ["odd"], "id": "a/b"}, EMPTY)], [turn({"type": ["odd"], "id": "a/b"})], id="odd types"
    ),
]


@pytest.mark.parametrize(("messages", "expected"), CLEANED)
def test_what_anthropic_would_refuse_is_taken_out(messages: list[Any], expected: list[Any]) -> None:
    assert cleaned(*messages) == expected


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b'{"messages":[{"content":[{"type":"text","text":""},7]}]}', id="a number among blocks"),
        pytest.param(
            b'{"messages":[7,{"content":[{"type":"text","text":""}]}]}', id="a number among messages"
        ),
        pytest.param(b'{"messages":"\\"text\\":\\"\\""}', id="a string for messages"),
        pytest.param(b'{"x":{"text":""}}', id="no messages"),
    ],
)
def test_what_cannot_be_read_is_left_to_the_back_end(text: bytes) -> None:
    assert remove_foreign_traces(text, find_members(text)).edits == []


@given(st.text())
def test_an_id_becomes_one_that_anthropic_takes_and_stays_the_same_for_the_same(tool_id: str) -> None:
    made = sanitised_id(tool_id)
    assert made == sanitised_id(tool_id) == sanitised_id(made)
    assert all(character.isascii() and (character.isalnum() or character in "_-") for character in made)


@given(st.text(), st.text())
def test_two_ids_stay_two(one: str, other: str) -> None:
    assert (sanitised_id(one) == sanitised_id(other)) == (one == other)
