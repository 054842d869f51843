"""Cases A of wire.md: paths, keys, bodies, headers, errors. Each test bears the number of its case."""

import asyncio
import gzip
import json
import re
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.backend import (
    HANG,
    BackEnd,
    chunk,
    completion,
    done,
    event,
    json_answer,
    messages_stream,
    pause,
    sse,
    streamed,
)
from tests.budgets import seconds
from tests.running import Running, connect, events, receive_until, request, request_bytes, running, until

# Of LiteLLM's own types, noticed when it first uses them.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Item.* on TypedDict class .* using the `ReadOnly` qualifier:UserWarning",
    "ignore:Pydantic serializer warnings:UserWarning",
)

RULES = """
[server]
cors_origins = ["https://app.example"]
models = ["claude-sonnet-5", "claude-haiku-4-5", "vendor/large", "vendor/small"]

[providers.echo]

[providers.claude]
type = "anthropic"
base_url = "{claude}"
api_key = "none"
zone = "private"

[providers.corp]
type = "openai_compatible"
base_url = "{corp}/v1"
api_key = "none"
zone = "private"

[[rules]]
name = "through"
match.model = "through"
targets = ["claude/*"]

[[rules]]
name = "translated"
match.model = "translated"
targets = ["corp/gpt-4.1"]

[[rules]]
name = "refused"
match.model = "refused"
deny = "not today"

[[rules]]
name = "sonnets"
match.model = "claude-sonnet-5"
targets = ["echo/the-sonnet"]

[default]
targets = ["echo/*"]
"""


def whole_message(text: str = "Hello") -> dict[str, object]:
    return {
        "id": "msg_upstream1",
        "type": "message",
        "role": "assistant",
        "model": "claude-served",
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 12, "output_tokens": 3},
    }


@pytest.fixture(scope="module")
def claude() -> Iterator[BackEnd]:
    with BackEnd() as back_end:
        yield back_end


@pytest.fixture(scope="module")
def corp() -> Iterator[BackEnd]:
    with BackEnd() as back_end:
        yield back_end


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, claude: BackEnd, corp: BackEnd) -> Iterator[Running]:
    rules = RULES.format(claude=claude.url, corp=corp.url)
    with running(rules, tmp_path_factory.mktemp("open")) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory, claude: BackEnd, corp: BackEnd) -> Iterator[Running]:
    """Lets in whoever shows `sesame`."""
    rules = RULES.format(claude=claude.url, corp=corp.url)
    with running(rules, tmp_path_factory.mktemp("locked"), {"ANTHROPIC_AUTH_TOKEN": "sesame"}) as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def _usual_answers(claude: BackEnd, corp: BackEnd) -> None:
    claude.answers = [json_answer(whole_message())]
    corp.answers = [json_answer(completion())]
    for back_end in (claude, corp):
        back_end.requests.clear()
        back_end.left_at.clear()


def error_type(answer: httpx.Response) -> str:
    """The type of an error that is in the API's shape; anything else fails the test."""
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert body["type"] == "error"
    assert body["request_id"] == answer.headers["request-id"]
    assert isinstance(body["error"]["message"], str)
    return str(body["error"]["type"])


# --- paths and keys


def test_a01_the_query_is_no_part_of_the_path(proxy: Running) -> None:
    assert proxy.post(request(), "/v1/messages?beta=true").json()["content"][0]["text"] == "Hi"


def test_a01_a_pass_through_sends_the_query_on(proxy: Running, claude: BackEnd) -> None:
    proxy.post(request(model="through"), "/v1/messages?beta=true")
    assert claude.last.path == "/v1/messages?beta=true"


RIGHT, WRONG = "sesame", "open up"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({"authorization": f"Bearer {RIGHT}"}, 200, id="Bearer"),
        pytest.param({"authorization": f"bearer  {RIGHT}"}, 200, id="bearer, loosely written"),
        pytest.param({"x-api-key": RIGHT}, 200, id="x-api-key"),
        pytest.param({"authorization": f"Bearer {RIGHT}", "x-api-key": RIGHT}, 200, id="both"),
        pytest.param({"authorization": f"Bearer {WRONG}", "x-api-key": RIGHT}, 200, id="one of them right"),
        pytest.param({"authorization": f"Bearer {RIGHT}", "x-api-key": WRONG}, 200, id="the other right"),
        pytest.param({}, 401, id="none"),
        pytest.param({"x-api-key": ""}, 401, id="empty"),
        pytest.param({"authorization": "Bearer"}, 401, id="empty Bearer"),
        pytest.param({"authorization": f"Basic {RIGHT}"}, 401, id="another scheme"),
        pytest.param({"x-api-key": WRONG}, 401, id="wrong"),
        pytest.param({"x-api-key": RIGHT + "x"}, 401, id="longer"),
        pytest.param({"authorization": f"Bearer {WRONG}", "x-api-key": WRONG}, 401, id="both wrong"),
    ],
)
@pytest.mark.parametrize(
    "path", ["/v1/messages", "/v1/messages/count_tokens", "/v1/models", "/v1/models/claude-sonnet-5"]
)
def test_a02_a_key_may_be_shown_in_either_way(
    locked: Running, claude: BackEnd, path: str, headers: dict[str, str], status: int
) -> None:
    if path.startswith("/v1/models"):
        answer = httpx.get(locked.url + path, headers=headers)
    else:
        answer = httpx.post(locked.url + path, json=request(model="through"), headers=headers)
    assert answer.status_code == status
    if status == 401:
        assert error_type(answer) == "authentication_error"
        assert claude.requests == []


def test_a02_a_missing_and_a_wrong_key_read_differently(locked: Running) -> None:
    missing, wrong = locked.post(request()), locked.post(request(), x_api_key=WRONG)
    assert missing.json()["error"]["message"] == "x-api-key header is required"
    assert wrong.json()["error"]["message"] == "invalid x-api-key"


def test_a02_a_key_in_other_bytes_than_ascii_is_simply_wrong(locked: Running) -> None:
    with connect(locked.url) as wire:
        wire.sendall(request_bytes(request(), x_api_key="ключ").replace("ключ".encode(), b"\xff\xfe"))
        assert receive_until(wire, b"invalid x-api-key").startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize("path", ["/", "/api/hello", "/healthz", "/readyz"])
def test_a03_probes_need_no_key(locked: Running, path: str) -> None:
    for method in ("GET", "HEAD"):
        answer = locked.get(path, method)
        assert answer.status_code == 200
        assert answer.headers["request-id"].startswith("req_")
        assert method == "GET" or answer.content == b""


def test_a03_the_warm_up_of_a_connection_gets_an_empty_answer(proxy: Running) -> None:
    answer = proxy.get("/api/hello", "HEAD")
    assert (answer.status_code, answer.content) == (200, b"")


def test_claude_codes_own_telemetry_is_taken_and_thrown_away(proxy: Running) -> None:
    assert proxy.post({"events": []}, "/api/event_logging/batch").status_code == 200


# --- bodies


@pytest.mark.parametrize(
    ("body", "words"),
    [
        pytest.param(b"{", "invalid JSON", id="half an object"),
        pytest.param(b"", "invalid JSON", id="nothing"),
        pytest.param(b"hello", "invalid JSON", id="no JSON"),
        pytest.param(b"[]", "request body must be a JSON object", id="a list"),
        pytest.param(b"null", "request body must be a JSON object", id="null"),
        pytest.param(
            b'{"model": 7, "messages": []}', "model: Input should be a valid string", id="a wrong type"
        ),
        pytest.param(
            b'{"model": "m", "messages": [], "max_tokens": -1}',
            "max_tokens: Input should be greater than or equal to 0",
            id="a number that no rule could be about",
        ),
        pytest.param(b'{"messages": []}', "model: Field required", id="no model"),
        pytest.param(b'{"model": "m"}', "messages: Field required", id="no messages"),
        pytest.param(b'{"model": "\xff"}', "invalid JSON", id="bytes that are no text"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
def test_a04_a_body_that_is_no_request_is_a_400_with_its_path(
    proxy: Running, path: str, body: bytes, words: str
) -> None:
    answer = proxy.post(body, path)
    assert answer.status_code == 400
    assert error_type(answer) == "invalid_request_error"
    assert words in answer.json()["error"]["message"]
    assert answer.headers["x-routeproxy-rules-version"]


def test_a05_more_than_32_mb_is_too_large_and_31_are_not(proxy: Running, claude: BackEnd) -> None:
    sizes = {33: 413, 31: 200}
    for megabytes, status in sizes.items():
        answer = proxy.post(request("x" * megabytes * 2**20, model="through"))
        assert answer.status_code == status
        if status == 413:
            assert error_type(answer) == "request_too_large"
            assert "32MB" in answer.json()["error"]["message"]
            assert claude.requests == []


def test_a05_a_client_that_asks_before_it_sends_is_told_at_once(proxy: Running) -> None:
    with connect(proxy.url) as wire:
        wire.sendall(request_bytes(b"", expect="100-continue", content_length=str(33 * 2**20)))
        assert receive_until(wire, b"request_too_large").startswith(b"HTTP/1.1 413")


def test_a_client_that_asks_before_it_sends_may_go_on(proxy: Running) -> None:
    head, _, body = request_bytes(request(), expect="100-continue").partition(b"\r\n\r\n")
    with connect(proxy.url) as wire:
        wire.sendall(head + b"\r\n\r\n")
        assert receive_until(wire, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        wire.sendall(body)
        assert receive_until(wire, b"end_turn").startswith(b"HTTP/1.1 200")


def test_a_client_that_offers_http_2_is_answered_all_the_same(proxy: Running) -> None:
    offer = {
        "connection": "Upgrade, HTTP2-Settings",
        "upgrade": "h2c",
        "http2_settings": "AAMAAABkAAQCAAAAAAIAAAAA",
    }
    with connect(proxy.url) as wire:
        wire.sendall(request_bytes(request("in Java"), **offer))
        assert b"in Java" in receive_until(wire, b"end_turn")


def test_a_body_without_a_length_is_read_in_chunks(proxy: Running) -> None:
    body = json.dumps(request("in chunks")).encode()
    head = request_bytes(b"").replace(b"content-length: 0", b"transfer-encoding: chunked")
    with connect(proxy.url) as wire:
        wire.sendall(head)
        for start in range(0, len(body), 40):
            wire.sendall(b"%x\r\n%b\r\n" % (len(body[start : start + 40]), body[start : start + 40]))
        wire.sendall(b"0\r\n\r\n")
        assert b"in chunks" in receive_until(wire, b"end_turn")


def compressed(body: bytes, wbits: int) -> bytes:
    compressor = zlib.compressobj(wbits=wbits)
    return compressor.compress(body) + compressor.flush()


@pytest.mark.parametrize(
    ("encoding", "wbits"),
    [
        ("gzip", 31),
        ("x-gzip", 31),
        ("GZIP", 31),
        ("deflate", 15),
        pytest.param("deflate", -15, id="deflate, bare"),
    ],
)
@pytest.mark.parametrize("size", [10, 200_000])
def test_a06_a_compressed_body_is_understood(proxy: Running, encoding: str, wbits: int, size: int) -> None:
    body = json.dumps(request("y" * size)).encode()
    answer = proxy.post(compressed(body, wbits), content_encoding=encoding)
    assert answer.json()["content"][0]["text"] == "y" * size


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, br"])
def test_a06_another_encoding_is_refused_by_name(proxy: Running, encoding: str) -> None:
    answer = proxy.post(b"...", content_encoding=encoding)
    assert answer.status_code == 400
    assert answer.json()["error"]["details"]["error_code"] == "request_body_encoding_unsupported"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"not gzip at all", id="not compressed"),
        pytest.param(gzip.compress(json.dumps(request()).encode())[:-12], id="cut off"),
    ],
)
def test_a06_a_broken_gzip_body_is_a_400(proxy: Running, body: bytes) -> None:
    answer = proxy.post(body, content_encoding="gzip")
    assert (answer.status_code, error_type(answer)) == (400, "invalid_request_error")


def test_a06_a_body_that_swells_beyond_the_limit_is_too_large(proxy: Running) -> None:
    bomb = gzip.compress(b" " * 33 * 2**20)
    answer = proxy.post(bomb, content_encoding="gzip")
    assert answer.status_code == 413
    assert answer.json()["error"]["details"]["error_code"] == "request_body_too_large_after_decoding"


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens", "/v1/route"])
@pytest.mark.parametrize("content", [b"[" + b"[]," * 2**20 + b'"image"]', b'"' + b"\\ud83d" * 2**21 + b'"'])
def test_a_body_of_more_values_or_escapes_than_a_decoder_may_take_is_too_large(
    proxy: Running, path: str, content: bytes
) -> None:
    body = b'{"model":"claude-sonnet-5","max_tokens":9,"messages":[{"role":"user","content":%b}]}' % content
    answer = proxy.post(gzip.compress(body), path, content_encoding="gzip")
    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (413, "request_too_large")
    assert error["message"].startswith("Request too large (max ")


def test_the_limit_is_the_rules_files(tmp_path: Path) -> None:
    with running(
        "[server]\nmax_body_mb = 1\n[providers.echo]\n[default]\ntargets = ['echo/*']", tmp_path
    ) as proxy:
        answer = proxy.post(request("x" * 2**20))
    assert (answer.status_code, answer.json()["error"]["message"]) == (413, "Request too large (max 1MB)")


# --- streamed or not


def test_a07_the_body_alone_decides_whether_it_is_a_stream(proxy: Running) -> None:
    streamed = proxy.post(request(stream=True), accept="application/json")
    whole = proxy.post(request(), accept="text/event-stream")
    assert streamed.headers["content-type"].startswith("text/event-stream")
    assert events(streamed.text)[-1] == "message_stop"
    assert whole.headers["content-type"] == "application/json"


NEW, OLD = "2026-10-21", "2023-06-01"
DOCUMENT = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "d"}}
CITED = [
    {
        "type": "char_location",
        "cited_text": "x",
        "document_index": 0,
        "start_char_index": 0,
        "end_char_index": 1,
    }
]


def turns(*contents: object) -> list[dict[str, object]]:
    return [
        {"role": "user" if n % 2 == 0 else "assistant", "content": content}
        for n, content in enumerate(contents)
    ]


@pytest.mark.parametrize(
    ("version", "fields", "status"),
    [
        pytest.param(NEW, {"temperature": 1.0}, 400, id="A08 temperature, new version"),
        pytest.param(OLD, {"temperature": 1.0}, 200, id="A08 temperature, old version"),
        pytest.param(
            NEW, {"messages": turns("Hi", [DOCUMENT], "and?")}, 400, id="A09 the assistant's document"
        ),
        pytest.param(
            NEW,
            {
                "messages": turns(
                    "Hi",
                    [
                        {
                            "type": "server_tool_use",
                            "id": "srvtoolu_1",
                            "name": "web_fetch",
                            "input": {"url": "u"},
                        },
                        {
                            "type": "web_fetch_tool_result",
                            "tool_use_id": "srvtoolu_1",
                            "content": {"type": "web_fetch_result", "url": "u", "content": DOCUMENT},
                        },
                        {"type": "text", "text": "read"},
                    ],
                    "and?",
                )
            },
            200,
            id="A09 a document within a fetched page",
        ),
        pytest.param(
            NEW,
            {"messages": turns([{"type": "text", "text": "Hi", "citations": CITED}])},
            400,
            id="A10 the user's citations",
        ),
        pytest.param(
            NEW,
            {"messages": turns([{"type": "text", "text": "Hi", "citations": []}])},
            200,
            id="A10 no citations",
        ),
        pytest.param(
            NEW,
            {"messages": turns("Hi", [{"type": "text", "text": "x", "citations": CITED}], "and?")},
            200,
            id="A10 the assistant's citations",
        ),
    ],
)
def test_a08_to_a10_the_two_versions_of_the_api_differ(
    proxy: Running, corp: BackEnd, version: str, fields: dict[str, object], status: int
) -> None:
    answer = proxy.post(request(model="translated") | fields, anthropic_version=version)
    assert answer.status_code == status, answer.text
    assert len(corp.requests) == (1 if status == 200 else 0)


def test_a11_an_unknown_field_is_left_out_with_a_warning_where_the_request_is_translated(
    proxy: Running, corp: BackEnd
) -> None:
    answer = proxy.post(request(model="translated", foo=1))
    assert answer.status_code == 200
    assert "foo" in answer.headers["x-routeproxy-warning"]
    assert "foo" not in corp.last.json


def test_a11_an_unknown_field_goes_through_as_it_came(proxy: Running, claude: BackEnd) -> None:
    body = b'{"foo" : 1,"model":"through","messages":[ {"role":"user","content":"\\u0048i"} ],"max_tokens":5}'
    assert proxy.post(body).status_code == 200
    assert claude.last.body == body


def test_a12_an_unknown_beta_is_accepted(proxy: Running) -> None:
    answer = proxy.post(
        request(model="translated"), anthropic_beta="tomorrow-2031-01-01, context-1m-2025-08-07"
    )
    assert answer.status_code == 200


# --- what every answer bears


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        pytest.param("POST", "/v1/messages", request(), 200, id="a message"),
        pytest.param("POST", "/v1/messages", request(stream=True), 200, id="a stream"),
        pytest.param("POST", "/v1/messages/count_tokens", request(), 200, id="a count"),
        pytest.param("POST", "/v1/messages", {}, 400, id="a bad request"),
        pytest.param("POST", "/v1/messages", request(model="refused"), 400, id="a denial"),
        pytest.param("POST", "/v1/messages", request(model="no//name"), 404, id="no name of a model"),
        pytest.param("GET", "/v1/messages", None, 405, id="a wrong verb"),
        pytest.param("OPTIONS", "/v1/models", None, 204, id="options"),
        pytest.param("GET", "/v1/models", None, 200, id="models"),
        pytest.param("GET", "/v1/models/nope", None, 404, id="no such model"),
        pytest.param("GET", "/v1/models?limit=none", None, 400, id="a bad query"),
        pytest.param("GET", "/nope", None, 404, id="nothing there"),
        pytest.param("GET", "/v1/nope/nope", None, 404, id="nothing there, below v1"),
        pytest.param("DELETE", "/readyz", None, 405, id="a wrong verb elsewhere"),
        pytest.param("PROPFIND", "/nope", None, 405, id="a verb nobody knows"),
        pytest.param("GET", "/%ff%00%zz", None, 404, id="a path that is no text"),
        pytest.param("POST", "/api/event_logging/batch", {}, 200, id="telemetry"),
    ],
)
def test_a13_every_answer_has_an_id(
    proxy: Running, method: str, path: str, body: object, status: int
) -> None:
    with connect(proxy.url) as wire:
        wire.sendall(request_bytes(b"" if body is None else body, path, method, connection="close"))
        head, _, content = receive_until(wire).partition(b"\r\n\r\n")
    headers = httpx.Headers([tuple(line.split(": ", 1)) for line in head.decode().split("\r\n")[1:]])
    assert int(head.split()[1]) == status
    assert headers["request-id"].startswith("req_")
    if status >= 400:
        assert json.loads(content)["request_id"] == headers["request-id"]


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
def test_every_answer_says_which_rules_made_it(proxy: Running, path: str) -> None:
    answered, denied, broken = (
        proxy.post(body, path).headers for body in (request(), request(model="refused"), b"{")
    )
    assert answered["x-routeproxy-rule"] == "sonnets"
    assert denied["x-routeproxy-rule"] == "refused"
    assert "x-routeproxy-rule" not in broken
    assert len({headers["x-routeproxy-rules-version"] for headers in (answered, denied, broken)}) == 1
    assert [headers["x-routeproxy-attempts"] for headers in (answered, denied, broken)][1:] == ["0", "0"]
    if path == "/v1/messages":
        assert (answered["x-routeproxy-provider"], answered["x-routeproxy-model"]) == ("echo", "the-sonnet")


def test_a14_what_is_not_here_is_a_404_and_a_wrong_verb_a_405(proxy: Running) -> None:
    nowhere, wrong_verb, elsewhere = (
        proxy.get("/nope"),
        proxy.get("/v1/messages"),
        proxy.get("/v1/models", "PUT"),
    )
    assert (nowhere.status_code, error_type(nowhere)) == (404, "not_found_error")
    assert (wrong_verb.status_code, error_type(wrong_verb)) == (405, "invalid_request_error")
    assert wrong_verb.headers["allow"] == "POST"
    assert (elsewhere.status_code, error_type(elsewhere)) == (405, "invalid_request_error")
    assert "GET" in elsewhere.headers["allow"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
def test_a14_messages_are_posted(proxy: Running, method: str, path: str) -> None:
    answer = proxy.get(path, method)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert answer.headers["x-routeproxy-rules-version"]


def test_a14_a_base_url_with_v1_in_it_is_explained(proxy: Running) -> None:
    answer = proxy.post(request(), "/v1/v1/messages")
    assert answer.status_code == 404
    assert "leave /v1 out of the base URL" in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["//v1/messages", "/v1/messages/", "/v1//messages"])
def test_a_slash_too_many_does_no_harm(proxy: Running, path: str) -> None:
    with connect(proxy.url) as wire:
        wire.sendall(request_bytes(request("found"), path))
        assert b'"found"' in receive_until(wire, b"end_turn")


def test_a15_models_are_listed_at_once_and_without_a_redirect(locked: Running) -> None:
    started = time.monotonic()
    answer = locked.get("/v1/models?limit=1000", x_api_key=RIGHT)
    assert time.monotonic() - started < seconds(1)
    assert (answer.status_code, answer.history) == (200, [])
    assert any("claude" in model["id"] or "anthropic" in model["id"] for model in answer.json()["data"])


def test_a16_a_model_is_shown_by_its_id_also_one_with_a_slash(proxy: Running) -> None:
    for model in ("claude-sonnet-5", "vendor/large"):
        shown = proxy.get(f"/v1/models/{model}").json()
        assert (shown["type"], shown["id"], shown["lifecycle"]) == ("model", model, "active")
    missing = proxy.get("/v1/models/nope")
    assert (missing.status_code, error_type(missing)) == (404, "not_found_error")


@pytest.mark.parametrize(
    ("query", "ids", "more"),
    [
        ("", ["claude-sonnet-5", "claude-haiku-4-5", "vendor/large", "vendor/small"], False),
        ("?limit=1", ["claude-sonnet-5"], True),
        ("?limit=2&after_id=claude-sonnet-5", ["claude-haiku-4-5", "vendor/large"], True),
        ("?after_id=vendor/large", ["vendor/small"], False),
        ("?limit=1&before_id=vendor/large", ["claude-haiku-4-5"], True),
        ("?before_id=claude-sonnet-5", [], False),
        ("?after_id=unknown", [], False),
    ],
)
def test_a17_models_come_in_pages(proxy: Running, query: str, ids: list[str], more: bool) -> None:
    page = proxy.get(f"/v1/models{query}").json()
    assert [model["id"] for model in page["data"]] == ids
    assert page["has_more"] is more
    assert (page["first_id"], page["last_id"]) == ((ids[0], ids[-1]) if ids else (None, None))


# --- the stream's own headers


@pytest.mark.parametrize("stream", [False, True])
def test_a18_nothing_is_compressed(proxy: Running, claude: BackEnd, stream: bool) -> None:
    claude.answers = [streamed(*messages_stream()) if stream else json_answer(whole_message())]
    for model in ("through", "claude-sonnet-5"):
        answer = proxy.post(request(model=model, stream=stream), accept_encoding="gzip, br, zstd")
        assert "content-encoding" not in answer.headers


def test_a19_a_stream_is_neither_cached_nor_buffered(proxy: Running) -> None:
    headers = proxy.post(request(stream=True)).headers
    assert headers["content-type"].startswith("text/event-stream")
    assert headers["cache-control"] == "no-cache"
    assert headers["x-accel-buffering"] == "no"
    assert "content-length" not in headers


def test_a20_json_says_that_it_is_json(proxy: Running) -> None:
    answers = [
        proxy.post(request()),
        proxy.post(request(), "/v1/messages/count_tokens"),
        proxy.post(request(model="through")),
        proxy.post(b"{"),
        *(
            proxy.get(path)
            for path in ("/", "/v1/models", "/v1/models/claude-sonnet-5", "/nope", "/healthz", "/readyz")
        ),
    ]
    assert {answer.headers["content-type"] for answer in answers} == {"application/json"}


# --- clients that leave; test_clients_that_leave.py has the rest


def test_a21_a_client_that_leaves_before_the_first_token_lets_the_back_end_go(
    proxy: Running, claude: BackEnd
) -> None:
    claude.answers = [[HANG]]
    with connect(proxy.url) as wire:
        wire.sendall(request_bytes(request(model="through", stream=True)))
        until(lambda: claude.requests)
        left = time.monotonic()
    assert claude.wait_until_left() - left < 1


def test_a22_a_client_that_leaves_in_mid_stream_lets_the_back_end_go(
    proxy: Running, claude: BackEnd, caplog: pytest.LogCaptureFixture
) -> None:
    claude.answers = [streamed(*messages_stream()[:4], HANG)]
    with connect(proxy.url) as wire:
        wire.sendall(request_bytes(request(model="through", stream=True)))
        receive_until(wire, b"text_delta")
        left = time.monotonic()
    assert claude.wait_until_left() - left < 1
    assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []


# --- many at once


def test_a23_slow_streams_hold_nobody_up(proxy: Running, claude: BackEnd) -> None:
    frames = messages_stream()
    claude.answers = [streamed(*frames[:4], pause(1.5), *frames[4:])]

    async def many() -> tuple[list[int], float, list[str]]:
        async with httpx.AsyncClient(
            base_url=proxy.url, timeout=seconds(20), limits=httpx.Limits(max_connections=None)
        ) as client:
            slow = [
                asyncio.ensure_future(client.post("/v1/messages", json=request(model="through", stream=True)))
                for _ in range(2)
            ]
            await asyncio.to_thread(until, lambda: len(claude.requests) == 2)
            started = time.monotonic()
            counts = await asyncio.gather(
                *(client.post("/v1/messages/count_tokens", json=request(f"text {n}")) for n in range(50))
            )
            took = time.monotonic() - started
            return (
                [count.status_code for count in counts],
                took,
                [events((await one).text)[-1] for one in slow],
            )

    statuses, took, ends = asyncio.run(many())
    assert statuses == [200] * 50
    assert took < seconds(1)
    assert ends == ["message_stop"] * 2


def test_requests_that_are_sent_without_waiting_are_answered_in_order(proxy: Running) -> None:
    with connect(proxy.url) as wire:
        wire.sendall(b"".join(request_bytes(request(f"number {n}", stream=n == 1)) for n in range(3)))
        heard = receive_until(wire, b"number 0", b"number", b"message_stop", b"number 2")
    assert heard.count(b"HTTP/1.1 200") == 3
    assert heard.index(b"number 0") < heard.index(b"message_stop") < heard.index(b"number 2")


def test_a_connection_is_kept_for_the_next_request(proxy: Running) -> None:
    with connect(proxy.url) as wire:
        for words in ("one", "two", "three"):
            wire.sendall(request_bytes(request(words)))
            assert b"keep-alive: timeout" not in (heard := receive_until(wire, b"end_turn")).lower()
            assert words.encode() in heard
            assert b"connection: close" not in heard.lower()


def test_a_connection_is_kept_after_an_answer_that_came_before_the_body_was_read(locked: Running) -> None:
    with connect(locked.url) as wire:
        wire.sendall(request_bytes(request("z" * 2**20)))
        assert receive_until(wire, b"authentication_error").startswith(b"HTTP/1.1 401")
        wire.sendall(request_bytes(request("now with a key"), x_api_key=RIGHT))
        assert b"now with a key" in receive_until(wire, b"end_turn")


@pytest.mark.parametrize(
    "model",
    ["claude-sonnet-5-20260929", "Claude-SONNET-5", "claude-sonnet-5[1m]", "anthropic/claude-sonnet-5"],
)
def test_a24_a_name_is_recognised_however_it_is_written(proxy: Running, model: str) -> None:
    answer = proxy.post(request(model=model))
    assert (answer.status_code, answer.headers["x-routeproxy-rule"]) == (200, "sonnets")
    assert answer.json()["model"] == model


# --- browsers


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens", "/v1/models"])
def test_a_page_of_a_named_origin_may_ask(proxy: Running, path: str) -> None:
    wanted = "authorization,x-api-key,anthropic-version,content-type"
    preflight = proxy.get(
        path,
        "OPTIONS",
        origin="https://app.example",
        access_control_request_method="POST",
        access_control_request_headers=wanted,
    )
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == "https://app.example"
    assert "POST" in preflight.headers["access-control-allow-methods"]
    allowed = preflight.headers["access-control-allow-headers"].lower()
    assert all(name in allowed for name in wanted.split(","))


def test_a_page_of_a_named_origin_sees_our_headers_errors_included(proxy: Running) -> None:
    for body in (request(), request(stream=True), b"{"):
        headers = proxy.post(body, origin="https://app.example").headers
        assert headers["access-control-allow-origin"] == "https://app.example"
        assert headers["access-control-expose-headers"] == "*"


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "https://app.example.evil", "https://xapp.example", "null"]
)
def test_a_page_of_another_origin_may_not(proxy: Running, origin: str) -> None:
    preflight = proxy.get("/v1/messages", "OPTIONS", origin=origin, access_control_request_method="POST")
    answer = proxy.post(request(), origin=origin)
    assert "access-control-allow-origin" not in preflight.headers
    assert "access-control-allow-origin" not in answer.headers


def test_without_cors_origins_no_page_may(tmp_path: Path) -> None:
    with running("[providers.echo]\n[default]\ntargets = ['echo/*']", tmp_path) as proxy:
        answer = proxy.post(request(), origin="https://app.example")
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_translated_streams_come_as_they_are_made(proxy: Running, corp: BackEnd) -> None:
    corp.answers = [sse(chunk("Hel"), pause(0.5), chunk("lo"), done())]
    with connect(proxy.url) as wire:
        wire.sendall(request_bytes(request(model="translated", stream=True)))
        assert b'"lo"' not in receive_until(wire, b'"Hel"')
        assert b"message_stop" in receive_until(wire, b"message_stop")


def test_an_error_of_a_back_end_is_an_error_of_ours(proxy: Running, claude: BackEnd) -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    claude.answers = [json_answer(error, 529, retry_after="7")]
    answer = proxy.post(request(model="through", stream=True))
    assert (answer.status_code, answer.headers["retry-after"]) == (529, "7")
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-routeproxy-attempts"] == "1"


def test_an_error_within_a_stream_ends_it(proxy: Running, claude: BackEnd) -> None:
    error = event("error", error={"type": "overloaded_error", "message": "Overloaded"})
    claude.answers = [streamed(*messages_stream()[:4], error)]
    answer = proxy.post(request(model="through", stream=True))
    assert events(answer.text)[-2:] == ["content_block_delta", "error"]


def test_a_missing_version_is_taken_for_the_oldest_and_said_so(proxy: Running) -> None:
    warning = "x-routeproxy-warning"
    assert proxy.post(request()).headers[warning] == "anthropic-version: missing, taken for 2023-06-01"
    assert warning not in proxy.post(request(), anthropic_version="2023-06-01").headers


# --- what comes behind a request in the same read


GARBAGE = [
    pytest.param(b"rubbish\r\n\r\n", id="no request"),
    pytest.param(b"}", id="a byte more than was announced"),
    pytest.param(b"\r\n\r\n  x", id="blank lines and a word"),
    pytest.param(b"\x16\x03\x01\x02\x00\x01", id="TLS"),
    pytest.param(b"GET /\x1b HTTP/1.1\r\n\r\n", id="a control character"),
    pytest.param(b"POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n", id="a length that is none"),
    pytest.param(b"POST / HTTP/1.1\r\na b: c\r\n\r\n", id="a header that is none"),
    pytest.param(b"GET / HTTP/1.1\r\nx: " + b"a" * 600_000, id="a header that does not end"),
    pytest.param(
        b"POST /v1/messages HTTP/1.1\r\nhost: [::1]\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        id="a body that is no HTTP",
    ),
]


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("before", [1, 3], ids=["one request", "three requests"])
def test_whole_requests_are_answered_before_what_comes_behind_them_is_refused(
    proxy: Running, before: int, stream: bool, garbage: bytes
) -> None:
    one = request_bytes(request("Hi", stream=stream))
    with connect(proxy.url) as client:
        client.sendall(one * before + garbage)
        answer = receive_until(client)
    statuses = re.findall(rb"HTTP/1\.1 (\d+) ", answer)
    assert statuses == [b"200"] * before + [b"431" if len(garbage) > 65_536 else b"400"]
