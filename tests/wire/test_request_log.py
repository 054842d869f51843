"""The log of requests: whatever comes, a line of its own with its method and path, once."""

import json
import logging
import re
from collections.abc import Iterator

import pytest

from tests.backend import HANG, BackEnd, error, json_answer, streamed
from tests.running import Running, connect, receive_until, request, request_bytes, running, until
from tests.wire.asking import answers, message

RULES = """
[server]
require_key = false
admin_keys = {{ name = "ops", key = "env:ADMIN_KEY" }}
max_body_mb = 1
{server}
[teams.payments]
keys = {{ name = "laptop", key = "env:PAYMENTS_KEY" }}
explain = true
[providers.claude]
type = "anthropic"
base_url = "{url}"
api_key = "none"
zone = "private"
[[rules]]
name = "no images"
match.images = true
deny = "no images"
[default]
targets = ["claude/m"]
"""
KEYS = {"PAYMENTS_KEY": "secret-of-payments", "ADMIN_KEY": "secret-of-ops"}
PAYMENTS, ADMIN = {"x-api-key": KEYS["PAYMENTS_KEY"]}, {"x-api-key": KEYS["ADMIN_KEY"]}


@pytest.fixture(scope="module")
def back_end() -> Iterator[BackEnd]:
    with BackEnd() as back_end:
        yield back_end


@pytest.fixture(scope="module", params=["", 'cors_origins = ["https://app.example"]'], ids=["", "cors"])
def proxy(
    request: pytest.FixtureRequest, back_end: BackEnd, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """With origins, requests come by the router; without, past it."""
    rules = RULES.format(url=back_end.url, server=request.param)
    with running(rules, tmp_path_factory.mktemp("rules"), KEYS) as proxy:
        yield proxy


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, back_end: BackEnd) -> pytest.LogCaptureFixture:
    answers(back_end, json_answer(message()))
    caplog.set_level(logging.INFO)
    return caplog


def lines(log: pytest.LogCaptureFixture) -> list[str]:
    """Those about requests, without what differs from run to run."""
    found = until(lambda: [one.getMessage() for one in log.records if one.name == "routeproxy.requests"])
    return [re.sub(r" (time|first|policy)=\S+| id=req_[0-9a-f]+", "", line) for line in found]


def sent(body: object, path: str = "/v1/messages", method: str = "POST", **headers: str) -> bytes:
    return request_bytes(body, path, method, connection="close", **headers)


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
ASKED = "claude-sonnet-5 -> claude/m"


@pytest.mark.parametrize(
    ("wire", "line"),
    [
        pytest.param(
            sent(request()), f"POST /v1/messages 200 {ASKED} rule=default attempts=1 in=12 out=7", id="answer"
        ),
        pytest.param(
            sent(request(), **PAYMENTS),
            f"POST /v1/messages 200 {ASKED} team=payments key=laptop rule=default attempts=1 in=12 out=7",
            id="a team's key has a name",
        ),
        pytest.param(
            sent(request(), "/v1/messages?beta=true"),
            f"POST /v1/messages 200 {ASKED} rule=default attempts=1 in=12 out=7",
            id="a query is not shown",
        ),
        pytest.param(
            sent(request(), "/claude:other/v1/messages"),
            "POST /claude:other/v1/messages 404 error=not_found_error attempts=0",
            id="a target in the URL",
        ),
        pytest.param(
            sent(request(), "/v1/messages/count_tokens"),
            "POST /v1/messages/count_tokens 200 claude-sonnet-5 rule=default attempts=1",
            id="a token count that its back end does not know",
        ),
        pytest.param(
            sent(request(), "/v1/route", **PAYMENTS),
            "POST /v1/route 200 claude-sonnet-5 team=payments key=laptop rule=default attempts=0",
            id="an explanation",
        ),
        pytest.param(
            sent(request(), "/v1/route"),
            "POST /v1/route 401 error=authentication_error attempts=0",
            id="an explanation that needs a key",
        ),
        pytest.param(
            sent(request(messages=[{"role": "user", "content": [IMAGE]}])),
            'POST /v1/messages 400 claude-sonnet-5 rule="no images" error=invalid_request_error attempts=0',
            id="a denial",
        ),
        pytest.param(
            sent(b"", method="GET"),
            "GET /v1/messages 405 error=invalid_request_error attempts=0",
            id="another method",
        ),
        pytest.param(
            sent(b"", method="DELETE", **PAYMENTS),
            "DELETE /v1/messages 405 error=invalid_request_error attempts=0",
            id="another method, with a key",
        ),
        pytest.param(
            sent(request(), **ADMIN),
            "POST /v1/messages 401 error=authentication_error attempts=0",
            id="an admin key is for other things",
        ),
        pytest.param(
            sent(b"{", **PAYMENTS),
            "POST /v1/messages 400 team=payments key=laptop error=invalid_request_error attempts=0",
            id="no JSON",
        ),
        pytest.param(
            sent(b"x" * 1_048_577, **PAYMENTS),
            "POST /v1/messages 413 team=payments key=laptop error=request_too_large attempts=0",
            id="too large",
        ),
        pytest.param(
            sent(request(), x_routeproxy_no_fallback="maybe", **PAYMENTS),
            "POST /v1/messages 400 team=payments key=laptop error=invalid_request_error attempts=0",
            id="a header that can't be read",
        ),
        pytest.param(sent(b"", "/v1/models", "GET"), "GET /v1/models 200", id="models"),
        pytest.param(
            sent(b"", "/v1/models?limit=0", "GET", **PAYMENTS),
            "GET /v1/models 400 team=payments key=laptop error=invalid_request_error",
            id="models, with a key and a mistake",
        ),
        pytest.param(
            sent(b"", "/v1/models/nothing", "GET"),
            "GET /v1/models/nothing 404 error=not_found_error",
            id="a model that is not there",
        ),
        pytest.param(
            sent(b"", "/v1/models", "POST"),
            "POST /v1/models 405 error=invalid_request_error",
            id="models, another method",
        ),
        pytest.param(
            sent(b"", "/wp-login.php?x=1", "GET"), "GET /wp-login.php 404 error=not_found_error", id="404"
        ),
        pytest.param(sent(b"", "/", "GET"), "GET / 200", id="the page"),
        pytest.param(
            sent(b"{}", "/api/event_logging/batch"), "POST /api/event_logging/batch 200", id="telemetry"
        ),
        pytest.param(sent(b"", "/healthz"), "POST /healthz 405 error=invalid_request_error", id="no probe"),
        pytest.param(
            sent(b"", "/-/status", "GET"), "GET /-/status 401 error=authentication_error", id="admin, no key"
        ),
        pytest.param(
            sent(b"", "/-/status", "GET", **PAYMENTS),
            "GET /-/status 403 team=payments key=laptop error=permission_error",
            id="admin, a team's key",
        ),
        pytest.param(sent(b"", "/-/status", "GET", **ADMIN), "GET /-/status 200 key=ops", id="admin"),
        pytest.param(
            sent(b'{"version": "none"}', "/-/rollback", **ADMIN),
            "POST /-/rollback 409 key=ops error=conflict_error",
            id="admin, in vain",
        ),
        pytest.param(
            sent(b"", "/v1/%0A2026-12-01%20ERROR%20forged%1b[31m", "GET"),
            r'GET "/v1/\n2026-12-01 ERROR forged\u001b[31m" 404 error=not_found_error',
            id="a path that forges a line",
        ),
        pytest.param(
            sent(b"", "/%E2%80%AE%C2%9B%C2%85%E2%80%A8x", "GET"),
            r'GET "/\u202e\u009b\u0085\u2028x" 404 error=not_found_error',
            id="a path that steers a terminal",
        ),
        pytest.param(
            sent(b"", "/%C3%BCber", "GET"), 'GET "/über" 404 error=not_found_error', id="a path in German"
        ),
        pytest.param(
            sent(b"", "/" + "x" * 20_000, "GET"),
            f'GET "/{"x" * 199}…" 404 error=not_found_error',
            id="a long path",
        ),
        pytest.param(
            sent(request(model="m" * 240)),
            f'POST /v1/messages 200 "{"m" * 200}…" -> claude/m rule=default attempts=1 in=12 out=7',
            id="a long model",
        ),
        pytest.param(b"\x16\x03\x01\x02\x00\x01", "- - 400 error=invalid_request_error", id="TLS"),
        pytest.param(b"FETCH / HTTP/1.1\r\n\r\n", "- - 400 error=invalid_request_error", id="no method"),
        pytest.param(
            b"GET /v1/models?key=x HTTP/1.1\r\nbad header\r\n\r\n",
            "GET /v1/models 400 error=invalid_request_error",
            id="a header that is none",
        ),
        pytest.param(
            b"GET /a\x1b[31m HTTP/1.1\r\n\r\n", "- - 400 error=invalid_request_error", id="control in a path"
        ),
        pytest.param(
            b"POST /v1/messages HTTP/1.1\r\nhost: [::1]\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
            "POST /v1/messages 400 error=invalid_request_error attempts=0",
            id="a body that is no HTTP",
        ),
        pytest.param(
            b"POST /-/rollback HTTP/1.1\r\nhost: [::1]\r\nx-api-key: secret-of-ops\r\n"
            b"transfer-encoding: chunked\r\n\r\nzz\r\n",
            "POST /-/rollback 400 key=ops error=invalid_request_error",
            id="an operator's body that is no HTTP",
        ),
    ],
)
def test_each_request_leaves_one_line(
    proxy: Running, log: pytest.LogCaptureFixture, wire: bytes, line: str
) -> None:
    with connect(proxy.url) as client:
        client.sendall(wire)
        answer = receive_until(client)
    assert lines(log) == [line]
    (status, *_) = re.findall(r" (\d{3})\b", line)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    shown = re.search(rb"\r\nrequest-id: (\S+)", answer)
    if shown is not None:
        assert shown[1].decode() in [one.getMessage().rpartition("id=")[2] for one in log.records]
    assert [one.getMessage() for one in log.records if one.name.startswith(("uvicorn", "litestar"))] == []


def test_a_bad_request_behind_a_good_one_is_told_of_besides(
    proxy: Running, log: pytest.LogCaptureFixture
) -> None:
    with connect(proxy.url) as client:
        client.sendall(request_bytes(b"", "/v1/models", "GET"))
        receive_until(client, b"200", b"has_more")
        client.sendall(b"rubbish\r\n\r\n")
        assert receive_until(client).startswith(b"HTTP/1.1 400 ")
    assert until(lambda: len(found := lines(log)) == 2 and found) == [
        "GET /v1/models 200",
        "- - 400 error=invalid_request_error",
    ]


def test_what_is_no_http_is_answered_as_the_api_does(proxy: Running) -> None:
    with connect(proxy.url) as client:
        client.sendall(b"rubbish\r\n\r\n")
        head, _, body = receive_until(client).partition(b"\r\n\r\n")
    error = json.loads(body)
    assert error["error"]["type"] == "invalid_request_error"
    assert f"request-id: {error['request_id']}".encode() in head


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("/v1/messages", "POST /v1/messages 499 team=payments key=laptop attempts=0 client-left"),
        (
            "/x:y/v1/messages",
            "POST /x:y/v1/messages 404 team=payments key=laptop error=not_found_error attempts=0",
        ),
    ],
)
def test_a_client_that_leaves_before_its_body_is_complete(
    proxy: Running, log: pytest.LogCaptureFixture, path: str, line: str
) -> None:
    with connect(proxy.url) as client:
        head = (
            f"POST {path} HTTP/1.1\r\nhost: [::1]\r\ncontent-length: 100\r\nx-api-key: {KEYS['PAYMENTS_KEY']}"
        )
        client.sendall(f"{head}\r\n\r\n{{".encode())
    assert lines(log) == [line]


def test_an_operator_who_leaves_before_the_body_is_complete(
    proxy: Running, log: pytest.LogCaptureFixture
) -> None:
    with connect(proxy.url) as client:
        head = (
            f"POST /-/rollback HTTP/1.1\r\nhost: [::1]\r\ncontent-length: 9\r\nx-api-key: {KEYS['ADMIN_KEY']}"
        )
        client.sendall(f"{head}\r\n\r\n{{".encode())
    assert lines(log) == ["POST /-/rollback 499 key=ops client-left"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/api/hello", "/claude:m/api/hello"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_probes_are_for_debug(proxy: Running, log: pytest.LogCaptureFixture, method: str, path: str) -> None:
    proxy.get(path, method)
    proxy.get("/nowhere")
    assert lines(log) == ["GET /nowhere 404 error=not_found_error"]
    log.clear()
    log.set_level(logging.DEBUG)
    proxy.get(path, method)
    status = 404 if ":" in path else 200
    assert lines(log)[0].startswith(f"{method} {path} {status}")
    assert {one.levelname for one in log.records if one.name == "routeproxy.requests"} == {"DEBUG"}


def test_a_long_request_shows_at_debug_when_it_begins(
    proxy: Running, back_end: BackEnd, log: pytest.LogCaptureFixture
) -> None:
    log.set_level(logging.DEBUG)
    answers(back_end, streamed(HANG))
    with connect(proxy.url) as client:
        whole = request_bytes(request(stream=True), **PAYMENTS)
        client.sendall(whole[:-10])
        assert lines(log) == ["POST /v1/messages started team=payments key=laptop"]
        client.sendall(whole[-10:])
        assert until(lambda: len(found := lines(log)) == 2 and found)[1] == (
            f"POST /v1/messages decided {ASKED} team=payments key=laptop rule=default stream"
        )
    assert until(lambda: len(found := lines(log)) == 3 and found)[2] == (
        f"POST /v1/messages 499 {ASKED} team=payments key=laptop rule=default attempts=1 stream client-left"
    )
    ids = {one.getMessage().rpartition("id=")[2] for one in log.records if one.name == "routeproxy.requests"}
    assert len(ids) == 1


def test_unknown_tokens_are_not_zero(
    proxy: Running, back_end: BackEnd, log: pytest.LogCaptureFixture
) -> None:
    answers(back_end, error(529, "busy"))
    proxy.post(request())
    (line,) = lines(log)
    assert line == f"POST /v1/messages 529 {ASKED} rule=default error=overloaded_error attempts=1"
