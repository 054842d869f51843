"""What is taken out of others' words: a secret whole, encoded and cut off, with the rest of its word."""

import base64
import time
from pathlib import Path
from urllib.parse import quote

import pytest

from routeproxy.exchange import LONGEST_SEARCHED, Exchange, Inbound
from routeproxy.policy.compile.compiler import compile_rules
from routeproxy.redaction import mask, maskable, redact, redact_bytes, words_of
from tests.budgets import seconds

KEY = "sk-proj-0123/456+789abcdefghij"


@pytest.mark.parametrize(
    ("written", "left"),
    [
        pytest.param(f"key {KEY} is wrong", "key *** is wrong", id="whole"),
        pytest.param(f"key {KEY[:12]}*** is wrong", "key *** is wrong", id="its beginning"),
        pytest.param(f"key ...{KEY[-8:]}, wrong", "key ***, wrong", id="its end"),
        pytest.param(f"x={quote(KEY, safe='')}&y=1", "***&y=1", id="in a query"),
        pytest.param(KEY.replace("/", r"\/"), "***", id="in JSON that escapes slashes"),
        pytest.param(f'"{KEY}","{KEY}"', '"***","***"', id="twice"),
        pytest.param("no key of ours", "no key of ours", id="not at all"),
        *(
            pytest.param(
                f"basic {base64.b64encode((before + KEY + behind).encode()).decode()}.",
                "basic ***",
                id=f"in Base64 between {before} and {behind}",
            )
            for before in ("", "u:", "us:", "user:")
            for behind in ("", "x", "xy")
        ),
    ],
)
def test_a_secret_goes_with_its_word(written: str, left: str) -> None:
    assert redact(written, [KEY]) == left
    assert redact_bytes(written.encode(), [KEY]) == left.encode()


def test_a_short_secret_goes_alone() -> None:
    assert redact("the key test123 is refused", ["test123"]) == "the key *** is refused"


@pytest.mark.parametrize(
    ("secret", "text"),
    [
        pytest.param("a", "the back end had a bad day", id="a letter"),
        pytest.param("key", "the key is wrong", id="three letters"),
        pytest.param("ollama", "ollama-cloud and my_ollama are no such models", id="a part of names"),
    ],
)
def test_what_could_be_any_word_stays(secret: str, text: str) -> None:
    assert redact(text, [secret]) is text


def test_what_holds_none_is_the_very_same_object() -> None:
    content = b"\xff\xfe and so on"
    assert redact_bytes(content, [KEY]) is content


@pytest.mark.parametrize("text", [KEY[:8] * 150_000, "x" * 2**20 + KEY, (KEY[-8:] + " ") * 100_000])
def test_a_megabyte_takes_no_time(text: str) -> None:
    started = time.perf_counter()
    assert KEY[-8:] not in redact(text, [KEY])
    assert time.perf_counter() - started < seconds(2)


@pytest.mark.parametrize(
    ("credential", "secrets"),
    [
        ("Bearer abc", ["abc"]),
        ("abc", ["abc"]),
        (f"Basic {base64.b64encode(b'user:pass').decode()}", ["dXNlcjpwYXNz", "pass"]),
        ("Basic nonsense", ["nonsense"]),
        ("AWS4-HMAC-SHA256 Credential=AKIA/x, SignedHeaders=host, Signature=abc", []),
    ],
)
def test_a_credential_is_secret_without_its_scheme(credential: str, secrets: list[str]) -> None:
    assert list(words_of(credential)) == secrets


def test_a_secret_is_masked_at_its_length_unless_it_is_known() -> None:
    secrets = maskable({"Bearer sk-0123456789abcdef", "short"}, b"a request")
    assert mask(b'{"text":"it is sk-0123456789abcdef, short"}', secrets) == (
        b'{"text":"it is *******************, short"}'
    )
    assert maskable({"sk-0123456789abcdef"}, b"KEY=sk-0123456789abcdef") == ()


def test_of_a_request_that_is_too_long_to_be_searched_nothing_is_masked() -> None:
    policy = compile_rules('[default]\ndeny = "no"\n', path=Path("rules.toml"), environ={})
    secret = frozenset({"sk-0123456789abcdef"})
    for size, masked in ((10, (b"sk-0123456789abcdef",)), (LONGEST_SEARCHED + 1, ())):
        exchange = Exchange(Inbound(body=b" " * size), policy)
        exchange.keep_secret(secret)
        assert (exchange.secrets, exchange.masked) == (secret, masked)
