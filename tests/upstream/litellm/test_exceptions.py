"""What LiteLLM's exceptions become. The table is proved complete against the libraries themselves."""

import builtins
import importlib
import inspect
from contextlib import suppress
from typing import Any

import aiohttp
import httpx
import pytest

from routeproxy.upstream.errors.refusals import Refusal
from routeproxy.upstream.failures import STATUS_OF_KIND
from routeproxy.upstream.litellm.exceptions import MEANINGS, failure_of
from tests.upstream.litellm.asking import LOOP

litellm = LOOP.run(LOOP.litellm.load())
import openai  # noqa: E402  (LiteLLM brings it, and its import takes as long)


def exceptions_of(module: Any) -> set[str]:
    return {
        f"{one.__module__.partition('.')[0]}.{name}"
        for name, one in tuple(vars(module).items())
        if inspect.isclass(one) and issubclass(one, Exception) and not issubclass(one, Warning)
    }


def test_every_exception_of_litellm_and_of_what_is_below_it_has_a_meaning() -> None:
    known = exceptions_of(litellm.exceptions) | exceptions_of(openai) | exceptions_of(httpx)
    assert known - set(MEANINGS) == set()
    besides = {name for name in set(MEANINGS) - known if not name.startswith("builtins.")}
    assert {name for name in besides if class_of(name) is None} == set()


BESIDES: dict[str, list[Any]] = {
    "aiohttp": [aiohttp],
    "botocore": [importlib.import_module("botocore.exceptions")],
    "httpcore": [importlib.import_module("httpcore")],
    "requests": [importlib.import_module("requests.exceptions")],
    "urllib3": [importlib.import_module("urllib3.exceptions")],
}


def class_of(name: str) -> Any:
    """Of a name in the table."""
    library, _, kind = name.partition(".")
    modules: dict[str, list[Any]] = {
        "litellm": [litellm.exceptions],
        "openai": [openai, openai._exceptions],
        "httpx": [httpx],
        "builtins": [builtins],
        **BESIDES,
    }
    return next((found for module in modules[library] if (found := getattr(module, kind, None))), None)


@pytest.mark.parametrize("meaning", sorted({one for one in MEANINGS.values() if isinstance(one, str)}))
def test_a_kind_in_the_table_is_one_that_rules_can_name(meaning: str) -> None:
    assert meaning in STATUS_OF_KIND


def made(name: str, message: str, **more: Any) -> Exception:
    return getattr(litellm.exceptions, name)(message=message, model="m", llm_provider="openai", **more)


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        pytest.param(
            made(
                "ContextWindowExceededError",
                "OpenAIException - maximum context length is 100 tokens. However, it has 120 tokens.",
            ),
            "context_overflow",
            "prompt is too long: 120 tokens > 100 maximum",
            id="overflow with numbers",
        ),
        pytest.param(
            made("ContextWindowExceededError", "too much"),
            "context_overflow",
            "capability_rejected: prompt_too_long (too much)",
            id="overflow without",
        ),
        pytest.param(made("ContentPolicyViolationError", "no"), "content_policy", "no", id="content policy"),
        pytest.param(
            made("RateLimitError", "litellm.RateLimitError: RateLimitError: OpenAIException - slow"),
            "rate_limit",
            "slow",
            id="prefixes",
        ),
        pytest.param(
            made("AuthenticationError", "bad key sk-canarycanary"),
            "auth",
            "the back end corp rejected the proxy's credentials",
            id="key",
        ),
        pytest.param(
            made("BadRequestError", "bad key sk-canarycanary"),
            "invalid_request",
            "bad key ***",
            id="key in words",
        ),
        pytest.param(
            made("InternalServerError", "oh\nTraceback (most recent call last):\n  File x"),
            "server_error",
            "oh",
            id="traceback",
        ),
        pytest.param(
            litellm.exceptions.MidStreamFallbackError(
                "x", "m", "openai", original_exception=made("RateLimitError", "slow")
            ),
            "rate_limit",
            "slow",
            id="wrapped",
        ),
        pytest.param(
            httpx.ConnectTimeout("x"),
            "timeout_connect",
            "the back end corp could not be reached in time",
            id="httpx",
        ),
        pytest.param(
            ModuleNotFoundError("No module named 'google'", name="google"),
            "server_error",
            "provider corp needs the Python package google-auth (and requests), which is not installed",
            id="a package",
        ),
        pytest.param(ValueError("odd"), "server_error", "the back end corp could not be asked", id="plain"),
    ],
)
def test_an_exception_keeps_its_meaning(error: Exception, kind: str, message: str) -> None:
    found = failure_of(error, provider="corp", model="m")
    assert (found.kind, found.message) == (kind, message)


def test_retry_after_is_read_from_where_litellm_puts_it() -> None:
    error = made("RateLimitError", "slow")
    error.litellm_response_headers = httpx.Headers({"Retry-After": "9"})  # type: ignore[attr-defined]
    assert failure_of(error, provider="corp", model="m").retry_after == 9


def test_what_fails_in_a_stream_was_not_the_requests_fault() -> None:
    assert (
        failure_of(made("BadRequestError", "odd"), provider="corp", model="m", in_stream=True).kind
        == "server_error"
    )


INSIDES = [
    "Server disconnected without sending a response.",
    "litellm.APIConnectionError: OpenAIException - [Errno 111] Connect call failed ('10.0.0.7', 443)",
    "'NoneType' object has no attribute 'choices'",
    "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed",
]


def raised(name: str, words: str) -> Exception:
    """An exception of that class, whatever its constructor wants."""
    one = class_of(name)
    error: Exception = one.__new__(one)
    error.args = (words,)
    with suppress(AttributeError):
        error.message = words  # type: ignore[attr-defined]
    return error


@pytest.mark.parametrize("in_stream", [True, False], ids=["in a stream", "before an answer"])
@pytest.mark.parametrize("words", INSIDES)
@pytest.mark.parametrize("name", sorted(MEANINGS))
def test_no_exceptions_own_words_reach_a_client(name: str, words: str, in_stream: bool) -> None:
    found = failure_of(raised(name, words), provider="corp", model="m", in_stream=in_stream)
    assert "back end corp" in found.message
    for part in ("disconnected", "Errno", "NoneType", "SSL", "litellm", "Exception"):
        assert part not in found.message


@pytest.mark.parametrize("name", sorted(MEANINGS))
def test_where_nothing_was_answered_nothing_is_quoted(name: str) -> None:
    """What LiteLLM says of a request that it never sent is about LiteLLM."""
    words = "OpenAIException - LLM Provider NOT provided. Pass in the LLM provider you are trying to call."
    found = failure_of(raised(name, words), provider="corp", model="m", answered=False)
    assert "back end corp" in found.message
    assert "Provider" not in found.message


def test_parameters_that_litellm_will_not_send_are_named() -> None:
    words = (
        "litellm.UnsupportedParamsError: groq does not support parameters: ['top_k', 'seed'], for model=m."
    )
    found = failure_of(
        raised("litellm.UnsupportedParamsError", words), provider="corp", model="m", answered=False
    )
    assert (found.kind, found.message) == ("capability", "the back end corp cannot be given top_k, seed")
    assert found.refusal == Refusal("parameter", ("top_k", "seed"))
