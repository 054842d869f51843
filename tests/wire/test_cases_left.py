"""Cases of wire.md that no other file shows under their number, over real sockets."""

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from routeproxy.upstream.errors.classify import classify_error
from tests.backend import BackEnd, chunk, data, done, json_answer, pause, sse, streamed
from tests.running import Running, request, running
from tests.upstream.litellm.asking import LITELLMS_WARNINGS
from tests.wire.asking import ask

pytestmark = LITELLMS_WARNINGS

RULES = """
[providers.corp]
type = "openai_compatible"
base_url = "{url}/v1"
api_key = "none"
[providers.ollama]
base_url = "{url}"
zone = "local"
[[rules]]
name = "text only"
match.model = "blind"
targets = "corp/deepseek-chat"
[[rules]]
name = "llama"
match.model = "llama"
targets = "ollama/llama3.3:70b"
[[rules]]
name = "qwen"
match.model = "qwen"
targets = "ollama/qwen3:30b"
[default]
targets = "corp/m"
"""


@pytest.fixture(scope="module")
def back_end() -> Iterator[BackEnd]:
    with BackEnd() as back_end:
        yield back_end


@pytest.fixture(scope="module")
def proxy(back_end: BackEnd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(RULES.format(url=back_end.url), tmp_path_factory.mktemp("rules")) as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def _unasked(back_end: BackEnd) -> None:
    back_end.requests.clear()
    back_end.answers = [sse(chunk("Hello"), done())]


def test_c20_a_request_that_only_warms_a_cache_reaches_nobody(proxy: Running, back_end: BackEnd) -> None:
    reply = ask(proxy, max_tokens=0)
    assert (reply.status, reply.json["content"], reply.json["stop_reason"]) == (200, [], "max_tokens")
    assert isinstance(reply.json["usage"]["input_tokens"], int)
    assert ask(proxy, max_tokens=0, stream=True).status == 400
    assert back_end.requests == []


def test_c28_a_count_is_one_number_and_nothing_else(proxy: Running, back_end: BackEnd) -> None:
    turn = {"role": "user", "content": "hi"}
    for fields in ({}, {"tools": []}, {"system": "s"}):
        body = {"model": "m", "messages": [turn], **fields}
        counted = proxy.post(body, "/v1/messages/count_tokens").json()
        assert list(counted) == ["input_tokens"]
        assert counted["input_tokens"] >= 1
    assert back_end.requests == []


def test_d42_data_on_several_lines_is_one_chunk(proxy: Running, back_end: BackEnd) -> None:
    lines = json.dumps(chunk("Hello"), indent=1).replace("\n", "\ndata: ")
    back_end.answers = [streamed(f": hi\n\ndata: {lines}\n\n".encode(), data(done()), b"data: [DONE]\n\n")]
    assert ask(proxy, stream=True).script == ["text Hello", "end_turn"]


def test_d55_the_first_byte_is_passed_on_at_once(proxy: Running, back_end: BackEnd) -> None:
    back_end.answers = [sse(pause(0.2), chunk("first"), pause(0.6), chunk("last"), done())]
    body = request(model="m", stream=True)
    ask(proxy, stream=True)  # what is only made once is made
    with httpx.Client() as client, client.stream("POST", proxy.url + "/v1/messages", json=body) as answer:
        began = time.monotonic()
        parts: list[tuple[float, bytes]] = []
        for part in answer.iter_raw():
            parts.append((time.monotonic() - began, part))
    first, last = (next(at for at, part in parts if word in part) for word in (b'"first"', b'"last"'))
    assert last - first > 0.3  # of the 0.6 that the back end paused: the first part did not wait for it


WRAPPED = [
    "litellm.BadRequestError: OpenAIException - bad tool",
    'litellm.BadRequestError: OpenAIException - {"error": {"message": "bad tool"}}',
    "litellm.BadRequestError: AzureException BadRequestError - bad tool",
    "AzureException APIError - bad tool",
    "BadRequestError: bad tool",
]


@pytest.mark.parametrize("words", WRAPPED)
def test_f10_what_litellm_puts_before_a_message_is_taken_off(words: str) -> None:
    assert classify_error(400, words, provider="corp").message == "bad tool"


PICTURE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}


def test_b23_a_model_known_to_see_nothing_gets_words_for_an_image(proxy: Running, back_end: BackEnd) -> None:
    turn = {"role": "user", "content": [{"type": "text", "text": "see"}, PICTURE]}
    reply = ask(proxy, "blind", stream=True, messages=[turn])
    assert reply.script == ["text Hello", "end_turn"]
    assert back_end.last.json["messages"] == [
        {"role": "user", "content": "see\n\n[image omitted: model has no vision]"}
    ]
    assert reply.said("warning") == "images were replaced by a placeholder: the model has no vision"


@pytest.mark.parametrize(("model", "think"), [("llama", None), ("qwen", True)])
def test_c22_ollama_is_told_to_think_only_where_that_is_no_error(
    proxy: Running, back_end: BackEnd, model: str, think: Any
) -> None:
    message = {"role": "assistant", "content": "Hello"}
    back_end.answers = [
        json_answer({"model": model, "message": message, "done": True, "done_reason": "stop"})
    ]
    wanted = {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}
    assert ask(proxy, model, **wanted).text == "Hello"
    assert back_end.last.json.get("think") is think
