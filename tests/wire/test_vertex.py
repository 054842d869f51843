"""Vertex: Gemini by our own engine, signed in by google-auth, everything else through LiteLLM; the two are
held to each other over real bytes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from routeproxy.policy.targets import Target
from routeproxy.proxy import Proxy
from routeproxy.upstream.chat.endpoints import endpoint_of
from routeproxy.upstream.registry import Registry
from tests.backend import BackEnd, json_answer
from tests.google import token, write_service_account
from tests.policy.asking import policy
from tests.running import Running, running
from tests.upstream.litellm.asking import LITELLMS_WARNINGS
from tests.upstream.litellm.test_gemini import TALK, part
from tests.wire.asking import answers, ask
from tests.wire.test_engines_agree import READ, REQUESTS, outcome
from tests.wire.test_gemini_engines_agree import (
    MORE,
    STREAMS,
    WHOLES,
    differently,
    in_our_words,
    streamed_or_whole,
)
from tests.wire.test_guard import Fixed, unproved
from tests.wire.test_guard import outcome as outcome_of

pytestmark = LITELLMS_WARNINGS

PROVIDER = """
[providers.{name}]
type = "vertex_ai"
base_url = "{url}"
zone = "local"
project = "proj"
location = "europe-west1"
credentials = "{credentials}"
{more}
"""
RULE = '[[rules]]\nname = "{name}"\nmatch.model = "{name}"\ntargets = "{target}"\n'
TARGETS = {
    "direct": "direct/gemini-2.5-pro",
    "litellm": "oracle/gemini-2.5-pro",
    "newer": "direct/gemini-3-pro-preview",
    "newer-oracle": "oracle/gemini-3-pro-preview",
    "claude": "direct/claude-sonnet-4-5",
}


@pytest.fixture(scope="module")
def back_end() -> Iterator[BackEnd]:
    with BackEnd(TALK) as back_end:
        yield back_end


@pytest.fixture(scope="module")
def tokens() -> Iterator[BackEnd]:
    with BackEnd(token()) as tokens:
        yield tokens


@pytest.fixture(scope="module")
def proxy(back_end: BackEnd, tokens: BackEnd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("vertex")
    file = write_service_account(folder / "key.json", tokens.url)
    tables = [
        PROVIDER.format(name=name, url=back_end.url, credentials=file, more=more)
        for name, more in (("direct", ""), ("oracle", 'engine = "litellm"'))
    ]
    rules = [RULE.format(name=name, target=target) for name, target in TARGETS.items()]
    log = f'[server]\ndecision_log = "{folder}/decisions.jsonl"\n'
    with running("\n".join([log, *tables, *rules, '[default]\ndeny = "no"']), folder) as proxy:
        yield proxy


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_comes_to_the_same(proxy: Running, back_end: BackEnd, name: str) -> None:
    found = []
    for engine in ("direct", "litellm"):
        answers(back_end, STREAMS[name])
        found.append(in_our_words(outcome(ask(proxy, engine, stream=True, tools=[READ]), True)))
        found[-1] = found[-1]._replace(said=str(found[-1].said).replace("oracle", "direct"))
    assert found[0] == found[1]


@pytest.mark.parametrize("name", WHOLES)
def test_a_whole_answer_comes_to_the_same(proxy: Running, back_end: BackEnd, name: str) -> None:
    found = []
    for engine in ("direct", "litellm"):
        answers(back_end, WHOLES[name])
        found.append(outcome(ask(proxy, engine, tools=[READ]), False))
        found[-1] = found[-1]._replace(said=str(found[-1].said).replace("oracle", "direct"))
    assert found[0] == found[1]


@pytest.mark.parametrize("engines", [("direct", "litellm"), ("newer", "newer-oracle")], ids=["2.5", "3"])
@pytest.mark.parametrize("streams", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("name", REQUESTS | MORE)
def test_the_same_is_asked(
    proxy: Running, back_end: BackEnd, name: str, streams: bool, engines: tuple[str, str]
) -> None:
    asked = []
    for engine in engines:
        answers(back_end, streamed_or_whole(part({"text": "x"}, finish="STOP", usage=True), streams))
        fields = {"stream": streams, "tools": [READ], **(REQUESTS | MORE)[name]}
        reply = ask(proxy, engine, **fields)
        assert reply.status == 200, reply.body
        sent = back_end.last
        keys = sent.header("x-goog-api-key"), sent.header("authorization")
        asked.append((sent.path, keys, differently(sent.json)))
    assert asked[0] == asked[1]
    assert asked[0][1] == (None, "Bearer TOKEN-1")
    method = "streamGenerateContent?alt=sse" if streams else "generateContent"
    model = TARGETS[engines[0]].partition("/")[2]
    place = "/v1/projects/proj/locations/europe-west1/publishers/google/models/"
    assert asked[0][0] == f"{place}{model}:{method}"


def test_another_model_goes_through_litellm_with_the_same_token(
    proxy: Running, back_end: BackEnd, tokens: BackEnd
) -> None:
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": [{"type": "text", "text": "Hello"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 3, "output_tokens": 2},
    }
    answers(back_end, json_answer(message))
    reply = ask(proxy, "claude")
    assert reply.json["content"] == [{"type": "text", "text": "Hello"}]
    assert back_end.last.header("authorization") == "Bearer TOKEN-1"
    assert "/locations/europe-west1/publishers/anthropic/models/claude-sonnet-4-5:" in back_end.last.path
    assert len(tokens.requests) == 1, "one token for both engines"


def test_explain_and_the_decision_log_say_who_speaks(proxy: Running, back_end: BackEnd) -> None:
    answers(back_end, TALK)
    ask(proxy, "direct", stream=True)
    decided = proxy.post({"model": "claude", "messages": []}, "/v1/route").json()
    assert decided["targets"][0]["engine"] == "litellm"
    decided = proxy.post({"model": "newer", "messages": []}, "/v1/route").json()
    assert decided["targets"][0]["engine"] == "direct"
    log = (proxy.rules.parent / "decisions.jsonl").read_text().splitlines()
    assert '"targets":["direct/gemini-2.5-pro"],"engines":["direct"]' in log[-1]


def test_a_refused_token_is_a_failure_of_kind_auth_and_the_back_end_hears_nothing(tmp_path: Path) -> None:
    with BackEnd(json_answer({"error": "invalid_grant"}, 400)) as tokens, BackEnd(TALK) as back_end:
        file = write_service_account(tmp_path / "key.json", tokens.url)
        rules = PROVIDER.format(name="v", url=back_end.url, credentials=file, more="")
        with running(rules + '[default]\ntargets = "v/gemini-2.5-pro"', tmp_path) as proxy:
            reply = ask(proxy, "m")
    assert (reply.status, reply.error[1:]) == (
        502,
        ("api_error", "provider v can't sign in to Google: Google refused the credentials"),
    )
    assert reply.headers["x-should-retry"] == "false"
    assert back_end.requests == []


def test_an_invariant_that_forbids_the_target_forbids_its_token_too(tmp_path: Path) -> None:
    """Nothing is asked of anybody."""
    with BackEnd(token()) as tokens, BackEnd(TALK) as back_end:
        file = write_service_account(tmp_path / "key.json", tokens.url)
        rules = PROVIDER.format(name="v", url=back_end.url, credentials=file, more="")
        rules += (
            '[default]\ntargets = "v/gemini-2.5-pro"\n[[invariants]]\nname = "never"\nnever.zone = "local"\n'
        )
        proxy = Proxy(Fixed(unproved(rules)), Registry(), len)
        assert outcome_of(proxy).startswith("502 refused: this request may not go")
    assert (tokens.requests, back_end.requests) == ([], [])


# --- where it is


@pytest.mark.parametrize(
    ("location", "host"),
    [
        ("europe-west1", "https://europe-west1-aiplatform.googleapis.com"),
        ("global", "https://aiplatform.googleapis.com"),
        ("us", "https://aiplatform.us.rep.googleapis.com"),
        ("eu", "https://aiplatform.eu.rep.googleapis.com"),
    ],
)
def test_a_location_has_its_host(location: str, host: str) -> None:
    (provider,) = policy(
        f'[providers.vertex]\ntype = "vertex_ai"\nproject = "p"\nlocation = "{location}"\n'
        '[default]\ntargets = "vertex/gemini-2.5-pro"'
    ).providers.values()
    target = Target(provider=provider, model="gemini-2.5-pro")
    url = endpoint_of(provider).url(provider, target.model, "generateContent")
    place = f"/v1/projects/p/locations/{location}/publishers/google/models/gemini-2.5-pro:generateContent"
    assert url == host + place
