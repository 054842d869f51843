"""Thinking that comes back in signatures: minted, opened, put where the back end looks (wire.md §1.6)."""

import base64
import os
import re
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routeproxy.translate.thinking import MAX_LENGTH, SignatureContents, Signer, is_ours
from tests.translate.asking import (
    SIGNER,
    Json,
    assistant,
    call,
    called,
    function,
    messages,
    quirks,
    result,
    text,
    thinking,
    user,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(
    st.text(), st.text(), st.sampled_from(["text", "details", "thought_signatures"]), json_values, st.binary()
)
def test_what_was_minted_can_be_opened(family: str, model: str, kind: str, payload: Any, key: bytes) -> None:
    signature = Signer(key).mint(family, model, kind, payload)
    assert Signer(key).open(signature) == SignatureContents(family, model, kind, payload)
    assert re.fullmatch(r"rp1\.[A-Za-z0-9_-]+", signature)


@given(st.text() | st.text().map("rp1.".__add__))
def test_anything_else_opens_to_nothing(signature: str) -> None:
    assert Signer(b"key").open(signature) is None


def test_another_key_opens_nothing() -> None:
    minted = Signer(b"a").mint("openai", "m", "text", "x")
    assert Signer(b"b").open(minted) is None
    assert Signer().open(minted) is None


def test_a_changed_signature_opens_nothing() -> None:
    minted = Signer().mint("openai", "m", "text", "x" * 50)
    assert Signer().open(minted[:20] + ("A" if minted[20] != "A" else "B") + minted[21:]) is None


def test_it_is_ours_by_its_prefix_alone() -> None:
    assert is_ours("rp1.garbage")
    assert not is_ours("ErUBCkYIBhgC")
    assert not is_ours(None)


def test_what_does_not_fit_is_left_behind() -> None:
    signature = Signer().mint("openai", "m", "text", base64.b64encode(os.urandom(MAX_LENGTH)).decode())
    assert len(signature) < 200
    assert Signer().open(signature) == SignatureContents("openai", "m", "nothing")


def test_a_signature_that_unpacks_to_gigabytes_is_not_unpacked() -> None:
    signer = Signer()
    packed = base64.urlsafe_b64encode(zlib.compress(b'["' + b"x" * 30_000_000)).rstrip(b"=").decode()
    assert len(packed) < MAX_LENGTH
    assert signer.open("rp1." + packed + signer._mac(packed)) is None


def minted(kind: str, payload: Any = None, *, family: str = "openai", signer: Signer = SIGNER) -> str:
    return signer.mint(family, "m", kind, payload)


def second_turn(*blocks: Json, **profile: Any) -> Json:
    """What the back end sees of an assistant's turn with these thinking blocks and a call."""
    turns = (user("hi"), assistant(*blocks, call("a", input={})), user(result("a")))
    return messages(*turns, profile=quirks(**profile))[1]


DETAILS = [{"type": "reasoning.encrypted", "data": "zzz", "index": 0}]

RESTORED = [
    pytest.param([thinking(minted("text"), "shown")], {"reasoning_content": "shown"}, id="B29 shown"),
    pytest.param([thinking(minted("text", "hidden"))], {"reasoning_content": "hidden"}, id="B29 hidden"),
    pytest.param(
        [{"type": "redacted_thinking", "data": minted("text", "hidden")}],
        {"reasoning_content": "hidden"},
        id="redacted, ours",
    ),
    pytest.param(
        [thinking(minted("text"), "a"), text(""), thinking(minted("text"), "b")],
        {"reasoning_content": "a\n\nb"},
        id="two",
    ),
    pytest.param(
        [thinking(minted("details", DETAILS), "shown")], {"reasoning_details": DETAILS}, id="details"
    ),
    pytest.param(
        [thinking(minted("nothing"), "shown")], {"reasoning_content": "shown"}, id="what had not fitted"
    ),
    pytest.param([thinking(minted("text", family="gemini"), "shown")], {}, id="of another family"),
    pytest.param([thinking(minted("text", signer=Signer(b"old")), "shown")], {}, id="of another key"),
    pytest.param([thinking("rp1.garbage", "shown")], {}, id="damaged"),
    pytest.param([thinking("ErUBCkYIBhgC", "shown")], {}, id="B30 Anthropic's"),
    pytest.param([{"type": "thinking", "thinking": "shown"}], {}, id="unsigned"),
]


@pytest.mark.parametrize(("blocks", "restored"), RESTORED)
def test_reasoning_comes_back_to_the_family_that_made_it(blocks: list[Json], restored: Json) -> None:
    assert second_turn(*blocks) == called(function("a"), **restored)


def test_b30_foreign_thinking_still_leaves_an_empty_reasoning_where_one_must_be() -> None:
    assert second_turn(thinking("ErUB", "x"), replays_reasoning=True) == called(
        function("a"), reasoning_content=""
    )


def test_a_back_end_that_refuses_reasoning_gets_none() -> None:
    assert second_turn(thinking(minted("text"), "shown"), takes_reasoning=False) == called(function("a"))


def signed(**profile: Any) -> list[Json]:
    block = thinking(minted("thought_signatures", {"b": "sig-b", "": "sig-text"}, family="gemini"))
    turns = (
        user("hi"),
        assistant(block, text("look"), call("a"), call("b")),
        user(result("a"), result("b")),
    )
    return messages(*turns, profile=quirks(family="gemini", **profile))


def test_b34_thought_signatures_come_back_with_their_calls() -> None:
    assert signed()[1] == called(
        function("a"),
        function("b", provider_specific_fields={"thought_signature": "sig-b"}),
        content="look",
        provider_specific_fields={"thought_signatures": ["sig-text"]},
    )


def test_b34_or_in_googles_own_place_where_the_first_call_must_have_one() -> None:
    calls = signed(thought_signatures="extra_content")[1]["tool_calls"]
    assert [one["extra_content"]["google"]["thought_signature"] for one in calls] == [
        "skip_thought_signature_validator",
        "sig-b",
    ]


def test_b34_or_in_that_place_because_they_came_there() -> None:
    signature = SIGNER.mint("openai", "openai/gpt-4.1", "thought_signatures", {"a": "sig"}, "extra_content")
    signed = {"google": {"thought_signature": "sig"}}
    assert second_turn(thinking(signature)) == called(function("a", extra_content=signed))


def test_b34_and_do_not_go_to_another_family() -> None:
    block = thinking(minted("thought_signatures", {"a": "sig"}, family="gemini"))
    assert second_turn(block) == called(function("a"))
