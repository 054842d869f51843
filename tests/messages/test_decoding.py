"""What is wrong with a client's JSON is said in the API's words, whatever the library that found it says."""

import itertools
import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from routeproxy.messages import decoding
from routeproxy.messages.decoding import LARGEST_SEARCHED, explain_undecodable
from routeproxy.messages.request import Envelope, MessagesRequest, decode_request

HI = {"role": "user", "content": "hi"}
SOUND: dict[str, Any] = {"model": "m", "max_tokens": 10, "messages": [HI]}


def message_of(text: bytes) -> str:
    return explain_undecodable(text, MessagesRequest).message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param(b"", "the request body is empty", id="nothing"),
        pytest.param(b" \n", "the request body is empty", id="white space"),
        pytest.param(b'{"model": ', "the request body ends too early", id="cut before a value"),
        pytest.param(b'{"model": "cla', "the request body ends too early", id="cut within a text"),
        pytest.param(b'{"a": "\\ud83d', "the request body ends too early", id="cut within an emoji"),
        pytest.param(b'{"model": "\xff"}', "a text in it is not valid UTF-8", id="no UTF-8"),
        pytest.param(b"\xff", "a text in it is not valid UTF-8", id="nothing but a byte"),
        pytest.param(b'{"a": nul}', 'unexpected "n" at line 1, column 7', id="half a word"),
        pytest.param(b'{"a": 1}\n}', 'unexpected "}" at line 2, column 1', id="more after the end"),
        pytest.param(b'{"a" "b"}', 'unexpected "\\"" at line 1, column 6', id="no colon"),
        pytest.param(b"{'a': 1}", 'unexpected "\'" at line 1, column 2', id="Python's quotes"),
        pytest.param(b"\xef\xbb\xbf{}", 'unexpected "\\ufeff" at line 1, column 1', id="a byte order mark"),
        pytest.param(b'{"a": NaN}', "it has a number that can't be read", id="no number"),
        pytest.param(b'{"a": ' + b"9" * 5000 + b"}", "it has a number that can't be read", id="5000 digits"),
        pytest.param(b"[" * 9000, "nested too deeply", id="9000 lists"),
        pytest.param(
            b'{"a": "' + b"x" * LARGEST_SEARCHED,
            "the request body has an error in its syntax",
            id="a long text",
        ),
    ],
)
def test_broken_json_is_told_where_it_breaks(text: bytes, words: str) -> None:
    assert message_of(text) == f"invalid JSON: {words}"


def with_block(block: Any) -> dict[str, Any]:
    return SOUND | {"messages": [HI, {"role": "user", "content": [{"type": "text", "text": "hi"}, block]}]}


WRONG_TAG = "found using 'type' does not match any of the expected tags"


@pytest.mark.parametrize(
    ("request_body", "words"),
    [
        pytest.param([], "request body must be a JSON object", id="a list"),
        pytest.param({"messages": [HI]}, "model: Field required", id="a field missing"),
        pytest.param(
            SOUND | {"messages": [{"content": "hi"}]}, "messages.0.role: Field required", id="deeper"
        ),
        pytest.param(SOUND | {"model": 7}, "model: Input should be a valid string", id="a wrong type"),
        pytest.param(
            SOUND | {"max_tokens": "10"}, "max_tokens: Input should be a valid integer or null", id="a text"
        ),
        pytest.param(
            SOUND | {"max_tokens": 1.5}, "max_tokens: Input should be a valid integer or null", id="1.5"
        ),
        pytest.param(
            SOUND | {"max_tokens": -1}, "max_tokens: Input should be greater than or equal to 0", id="a bound"
        ),
        pytest.param(
            SOUND | {"stream": 1}, "stream: Input should be a valid boolean or null", id="no boolean"
        ),
        pytest.param(
            SOUND | {"system": 7},
            "system: Input should be a valid string or a valid list or null",
            id="of several",
        ),
        pytest.param(
            SOUND | {"thinking": {"type": "often"}},
            "thinking.type: Input should be 'adaptive', 'between_tools', 'disabled' or 'enabled'",
            id="not one of the words",
        ),
        pytest.param(
            with_block("hi"), "messages.1.content.1: Input should be a valid dictionary", id="no block"
        ),
        pytest.param(
            with_block({}), "messages.1.content.1.type: Field required", id="a block without a type"
        ),
        pytest.param(
            with_block({"type": 7}),
            "messages.1.content.1.type: Input should be a valid string",
            id="a type of 7",
        ),
        pytest.param(
            with_block({"type": "hologram"}),
            f"messages.1.content.1: Input tag 'hologram' {WRONG_TAG}",
            id="new",
        ),
        pytest.param(
            with_block({"type": "image", "source": {"type": "base64", "data": ""}}),
            "messages.1.content.1.source.media_type: Field required",
            id="a source without a media type",
        ),
        pytest.param(
            SOUND | {"messages": [HI] * 100_001},
            "messages: Input should have at most 100000 items",
            id="too many",
        ),
    ],
)
def test_a_value_of_a_wrong_type_is_named_by_its_path(request_body: Any, words: str) -> None:
    assert message_of(json.dumps(request_body).encode()) == words


# Each field with what it may hold and what it may not.
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats(0, 2)
    | st.sampled_from(["text", "user", "auto", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "text", "role", "content", "source", "name", "id", "input"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(MessagesRequest.__struct_fields__), values, max_size=5))
@example({"system": [{"text": None}, None]})
@pytest.mark.parametrize("kind", [Envelope, MessagesRequest])
def test_whatever_the_decoder_refuses_is_found_where_it_found_it(kind: Any, fields: dict[str, Any]) -> None:
    text = json.dumps(SOUND | fields).encode()
    if (place := refused_at(text, kind)) is not None:
        message = explain_undecodable(text, kind).message
        # What is missing is named by its own path, and a wrong tag by that of its block.
        assert message.startswith(place.removesuffix(".type"))
        assert re.search("Field required$|Input ", message)


def refused_at(text: bytes, kind: Any) -> str | None:
    """The path at which msgspec refuses `text`; `None` where it takes it."""
    try:
        msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError as error:
        found = re.search(r" - at `\$\.?(.*)`$", str(error))
        return found[1].replace("[", ".").replace("]", "") if found else ""
    return None


def test_what_can_be_read_after_all_is_not_blamed() -> None:
    assert decode_request(json.dumps(SOUND).encode()).model == "m"


HALVES = [rb"\ud83d", rb"\ude00", rb"\\", rb"\uD83D", rb"\uDE00", rb"\u00e9", rb"\"", b"a"]


@pytest.mark.parametrize("size", [7, 13, 2**18])
def test_half_emojis_are_mended_wherever_a_piece_of_the_text_ends(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "REPAIRED_AT_ONCE", size)
    for parts in itertools.product(HALVES, repeat=4):
        text = b"".join(parts) + b"."
        one_by_one = decoding.replace_lone_surrogates(text, lambda _: rb"\ufffd")
        assert decoding.without_lone_surrogates(text) == one_by_one
