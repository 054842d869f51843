"""LiteLLM's objects in our own structs, whatever their shape."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routeproxy.chat.completion import Chunk
from routeproxy.upstream.chat.lenient import salvage_usage
from routeproxy.upstream.litellm.chunks import chunk_of
from tests.backend import chunk, completion, tool_chunk

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "choices",
                    "delta",
                    "message",
                    "content",
                    "tool_calls",
                    "function",
                    "arguments",
                    "usage",
                    "model",
                    "id",
                    "index",
                    "error",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(ANYTHING)
def test_no_answer_makes_it_raise(answer: Any) -> None:
    assert isinstance(chunk_of(answer), Chunk)
    salvage_usage(answer)


def test_what_is_odd_is_left_out_and_the_rest_kept() -> None:
    odd = chunk("Hello", tool_calls=[{"index": 0, "id": "c", "function": "odd"}, None, 7])
    odd["usage"] = {"prompt_tokens": 3, "prompt_tokens_details": "odd"}
    found = chunk_of(odd)
    assert found.choices[0].delta is not None
    assert found.choices[0].delta.content == "Hello"
    assert [call.id for call in found.choices[0].delta.tool_calls or ()] == ["c", None]
    assert found.usage is not None
    assert (found.usage.prompt_tokens, found.usage.prompt_tokens_details) == (3, None)


@pytest.mark.parametrize("answer", [chunk("a"), tool_chunk(0, "f", "{}", id="c"), completion("b")])
def test_objects_and_mappings_give_the_same(answer: dict[str, Any]) -> None:
    assert chunk_of(as_object(answer)) == chunk_of(answer)


def as_object(value: Any) -> Any:
    match value:
        case dict():
            return SimpleNamespace(**{name: as_object(one) for name, one in value.items()})
        case list():
            return [as_object(one) for one in value]
    return value


def test_a_thought_signature_in_an_id_is_taken_out() -> None:
    found = chunk_of(tool_chunk(0, "f", "{}", id="call_1__thought__c2ln"))
    assert found.choices[0].delta is not None
    assert [call.id for call in found.choices[0].delta.tool_calls or ()] == ["call_1"]
