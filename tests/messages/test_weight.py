"""A text of more values or escapes than a decoder may take is refused before it is decoded."""

import pytest

from routeproxy.messages import weight
from routeproxy.messages.errors import ApiError

MANY = 2**20


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"[" + b"[]," * MANY + b'"image"]', id="arrays"),
        pytest.param(b"[" * MANY, id="nested"),
        pytest.param(b'[{"a":1},' * (MANY // 4), id="objects"),
        pytest.param(b"{" + b'"a":1,' * (MANY // 4) + b"}", id="members"),
        pytest.param(
            b'{"a":[' + b'{"a":[]},' * 9 + b"{" + b'"a":{},' * 100_001 + b"}]}", id="members within"
        ),
        pytest.param(b'["a","\\\\",' * (MANY // 4), id="strings that end with a backslash"),
        pytest.param(b'["\\"",' * (MANY // 2), id="strings of a quote"),
        pytest.param(b'"' + b"\\n" * (2 * MANY) + b'"', id="escapes"),
        pytest.param(b'"' + b"\\ud83d" * (2 * MANY) + b'"', id="half emojis"),
    ],
)
def test_more_values_or_escapes_than_a_decoder_may_take_are_too_large(text: bytes) -> None:
    with pytest.raises(ApiError, match="Request too large") as refused:
        weight.check_weight(text)
    assert refused.value.status == 413


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b'["' + b"[{,:" * MANY + b'"]', id="text that looks like values"),
        pytest.param(b'["' + b'\\"[{,:' * MANY + b'"]', id="JSON in a string"),
        pytest.param(b'["' + b"f(a, b, [c]);  // plain code\\n" * MANY + b'"]', id="31 MB of code"),
        pytest.param(b"[" + b'{"a":1},' * 120_000 + b"{}]", id="as many members, of many objects"),
        pytest.param(b'["' + b"A" * (31 * MANY) + b'"]', id="31 MB of base64"),
        pytest.param(b"[" + b"1," * (weight.MAX_VALUES - 2) + b"1]", id="as many values as may be"),
    ],
)
def test_what_conversations_hold_is_not_too_large(text: bytes) -> None:
    weight.check_weight(text)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 64])
def test_where_the_slices_end_changes_no_count(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    text = rb'[{"a\\":"\\\",[","\"{":[1,2]},"\\\\",{},":\\\\\\"]'
    monkeypatch.setattr(weight, "SLICE", size)
    for most in range(20):
        monkeypatch.setattr(weight, "MAX_VALUES", most)
        assert is_refused(text) is (most < 11)
    for most in range(5):
        monkeypatch.setattr(weight, "MAX_MEMBERS", most)
        assert is_refused(text) is (most < 2)


def is_refused(text: bytes) -> bool:
    try:
        weight._check_structure(text)
    except ApiError:
        return True
    return False


def test_the_api_takes_as_many_messages() -> None:
    weight.check_weight(b'{"messages":[' + b",".join([b'{"role":"user","content":"a"}'] * 100_000) + b"]}")
