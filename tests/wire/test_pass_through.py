"""A back end that speaks Messages gets the client's bytes and gives its own (wire.md G01 to G10, A11, B45,
F14)."""

import gzip
import hashlib
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.backend import BackEnd, answer, event, json_answer, messages_stream, streamed
from tests.running import Running, request, running
from tests.wire.asking import KEY, Reply, answers, ask, message, resized

RULES = """
[providers.claude]
type = "anthropic"
base_url = "{url}"
api_key = "env:KEY"
headers = {{ x-corp-app = "routeproxy" }}
forward = ["x-cost-center", "X-Trace", "x-routeproxy-inside", "te"]

[providers.login]
type = "anthropic"
base_url = "{url}"
api_key = "client"

[[rules]]
match.model.equals = "as-served"
targets = ["claude/served"]
transforms = {{ model_name = "served" }}

[[rules]]
match.model.equals = "login"
targets = ["login/*"]

[providers.europe]
type = "anthropic"
base_url = "{url}"
api_key = "env:KEY"
region = "eu"

[[rules]]
match.model.equals = "in-europe"
targets = ["europe/served"]
params.default.inference_geo = "eu"

[[rules]]
match.model.equals = "other-name"
targets = ["claude/served"]

[[rules]]
match.model.equals = "by-the-rule"
targets = ["claude/served"]
params.extra_body = {{ provider = {{ allow_fallbacks = false }} }}

[[rules]]
match.model.equals = "tuned"
targets = ["claude/served"]
params.default.temperature = 0.5
params.set.top_k = 5
params.cap.max_tokens = 2000
params.drop = ["metadata"]
params.extra_body.x_corp.a = 1

[default]
targets = ["claude/*"]
"""


@pytest.fixture(scope="module")
def back_end() -> Iterator[BackEnd]:
    with BackEnd() as back_end:
        yield back_end


@pytest.fixture(scope="module")
def proxy(back_end: BackEnd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    rules = RULES.format(url=back_end.url)
    with running(rules, tmp_path_factory.mktemp("rules"), {"KEY": KEY}) as proxy:
        yield proxy


def post(proxy: Running, body: bytes, path: str = "/v1/messages", **headers: str) -> Reply:
    return Reply(proxy.post(body, path, **headers))


# --- the request


ODD_BODIES = [
    pytest.param(b'{"model":"m","max_tokens":1,"messages":[]}', id="small"),
    pytest.param(
        b' {\n  "messages" : [ {"role":"user","content":"caf\\u00e9 \\ud83d\\ude00 \xc3\xa9"} ] ,'
        b'\t"temperature": 1.0e0, "model": "m" }\n',
        id="escapes, white space, numbers",
    ),
    pytest.param(
        b'{"model":"m","max_tokens":9,"foo":{"b":1,"a":[1,2.50,1e400,true,null]},"messages":[{"role":"user","content":'
        b'[{"type":"hologram","data":"x"},{"type":"text","text":"hi","new":0}],"clear_at":5}],"system":[{"type":"text","text":'
        b'"x-anthropic-billing-header: cc_version=2; nonce"}]}',
        id="fields and blocks that nobody here knows",
    ),
    pytest.param(
        b'{"model":"m","max_tokens":9,"messages":[{"role":"assistant","content":[{"type":"thinking","thinking":"","signature":"Er=="},'
        b'{"type":"redacted_thinking","data":"zz"},{"type":"tool_use","id":"toolu_1","name":"a","input":{"text":""}}]}]}',
        id="Anthropic's own thinking",
    ),
    pytest.param(
        b'{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"' + b"x" * 3_000_000 + b'"}]}',
        id="3 MB",
    ),
]


@pytest.mark.parametrize("body", ODD_BODIES)
def test_g01_the_body_goes_through_byte_for_byte(proxy: Running, back_end: BackEnd, body: bytes) -> None:
    answers(back_end, json_answer(message(model="m")))
    assert post(proxy, body).status == 200
    assert hashlib.sha256(back_end.last.body).digest() == hashlib.sha256(body).digest()


def test_g01_only_the_model_is_spliced(proxy: Running, back_end: BackEnd) -> None:
    body = (
        b'{ "max_tokens":1, "a":"other-name", "model" : "other-name"  ,"messages":[{"model":"other-name"}] }'
    )
    answers(back_end, json_answer(message()))
    post(proxy, body)
    assert back_end.last.body == body.replace(b'"model" : "other-name"', b'"model" : "served"')


def test_a11_an_unknown_field_is_no_reason_for_a_warning(proxy: Running, back_end: BackEnd) -> None:
    answers(back_end, json_answer(message()))
    assert ask(proxy, foo=1).said("warning") is None
    assert back_end.last.json["foo"] == 1


def test_b45_an_unknown_block_is_the_back_ends_affair(proxy: Running, back_end: BackEnd) -> None:
    answers(back_end, json_answer(message()))
    turn = {"role": "user", "content": [{"type": "hologram", "depth": 3}]}
    assert ask(proxy, messages=[turn]).status == 200
    assert back_end.last.json["messages"] == [turn]


def test_the_query_is_forwarded(proxy: Running, back_end: BackEnd) -> None:
    answers(back_end, json_answer(message()))
    ask(proxy, path="/v1/messages?beta=true&x=%2Fa+b")
    assert back_end.last.path == "/v1/messages?beta=true&x=%2Fa+b"


def test_g02_headers_of_the_api_are_forwarded_as_they_are_and_no_others(
    proxy: Running, back_end: BackEnd
) -> None:
    answers(back_end, json_answer(message()))
    beta = "claude-code-20250219,brand-new-2031-01-01 , x"
    sent = {
        "anthropic-version": "2026-10-21",
        "anthropic-beta": beta,
        "anthropic-workspace-id": "wrkspc_1",
        "x-cost-center": "Zürich".encode(),
        "x-trace": "t",
        "x-routeproxy-inside": "no",
        "te": "trailers",
        "cookie": "a=b",
        "x-forwarded-for": "10.0.0.1",
        "proxy-authorization": "Basic x",
        "x-stainless-lang": "python",
        "x-claude-code-session-id": "s",
        "user-agent": "claude-cli/2",
        "accept-encoding": "gzip, br",
        "authorization": "Bearer client-key",
        "x-api-key": "client-key",
    }
    ask(proxy, headers=list(sent.items()))
    received = {name.lower(): value for name, value in back_end.last.headers}
    assert received.pop("x-cost-center").encode("latin-1").decode() == "Zürich"
    assert received.pop("user-agent").startswith("routeproxy/")
    assert received.pop("content-length") == str(len(back_end.last.body))
    assert received == {
        "host": f"127.0.0.1:{back_end.port}",
        "anthropic-version": "2026-10-21",
        "anthropic-beta": beta,
        "anthropic-workspace-id": "wrkspc_1",
        "x-trace": "t",
        "x-corp-app": "routeproxy",
        "x-api-key": KEY,
        "authorization": f"Bearer {KEY}",
        "content-type": "application/json",
        "accept": "application/json",
        "accept-encoding": "identity",
    }


def test_g03_the_providers_key_goes_out_once_and_the_clients_never(proxy: Running, back_end: BackEnd) -> None:
    answers(back_end, json_answer(message()))
    ask(proxy, headers={"x-api-key": "client-key", "authorization": "Bearer client-key"})
    assert [value for name, value in back_end.last.headers if name.lower() == "x-api-key"] == [KEY]
    assert "client-key" not in str(back_end.last.headers)


def test_the_clients_own_login_is_forwarded_where_the_rules_say_so(proxy: Running, back_end: BackEnd) -> None:
    answers(back_end, json_answer(message()))
    ask(proxy, "login", headers={"authorization": "Bearer oauth-token"})
    assert back_end.last.header("authorization") == "Bearer oauth-token"
    assert back_end.last.header("x-api-key") is None


def test_a_refused_login_of_the_client_is_the_clients_to_see(proxy: Running, back_end: BackEnd) -> None:
    refusal = {
        "type": "error",
        "error": {"type": "authentication_error", "message": "OAuth token has expired"},
    }
    answers(back_end, json_answer(refusal, 401))
    assert ask(proxy, "login").error == (401, "authentication_error", "OAuth token has expired")


def test_g05_our_own_thinking_is_taken_out_and_anthropics_is_not(proxy: Running, back_end: BackEnd) -> None:
    answers(back_end, json_answer(message()))
    ours = '{"type":"thinking","thinking":"hm","signature":"rp1.abc"}'
    theirs = '{"type": "thinking", "thinking": "", "signature": "EqoB=="}'
    body = '{"model":"m","messages":[{"role":"assistant","content":[%s]}]}'
    post(proxy, (body % f'{theirs}, {ours},{{"type":"text","text":"rp1."}}').encode())
    assert back_end.last.body.decode() == body % f'{theirs},{{"type":"text","text":"rp1."}}'


def test_a_turn_that_was_nothing_but_our_thinking_goes(proxy: Running, back_end: BackEnd) -> None:
    answers(back_end, json_answer(message()))
    thought = {"role": "assistant", "content": [{"type": "thinking", "thinking": "", "signature": "rp1.x"}]}
    question = {"role": "user", "content": "hi"}
    ask(proxy, messages=[question, thought, question])
    assert back_end.last.json["messages"] == [question, question]


def test_g06_ids_of_other_back_ends_become_ids_that_anthropic_takes(
    proxy: Running, back_end: BackEnd
) -> None:
    answers(back_end, json_answer(message()))
    call = {"type": "tool_use", "id": "functions.Bash:0", "name": "Bash", "input": {"id": "a/b"}}
    other = {"type": "tool_use", "id": "functions_Bash_0-x", "name": "Bash", "input": {}}
    results = [{"type": "tool_result", "tool_use_id": one["id"], "content": "ok"} for one in (call, other)]
    ask(
        proxy,
        messages=[{"role": "assistant", "content": [call, other]}, {"role": "user", "content": results}],
    )
    (made, kept), (answered, also_kept) = (turn["content"] for turn in back_end.last.json["messages"])
    assert made["id"] == answered["tool_use_id"] != "functions.Bash:0"
    assert made["id"].replace("_", "").isalnum()
    assert made["input"] == {"id": "a/b"}
    assert kept["id"] == also_kept["tool_use_id"] == "functions_Bash_0-x"


def test_g09_empty_text_blocks_are_taken_out(proxy: Running, back_end: BackEnd) -> None:
    answers(back_end, json_answer(message()))
    empty, full = {"type": "text", "text": ""}, {"type": "text", "text": "hi"}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [empty]}
    ask(
        proxy,
        messages=[
            {"role": "user", "content": [empty, full, result]},
            {"role": "assistant", "content": [empty]},
        ],
    )
    assert back_end.last.json["messages"] == [{"role": "user", "content": [full, {**result, "content": []}]}]


def test_half_an_emoji_goes_through_as_it_came(proxy: Running, back_end: BackEnd) -> None:
    """JavaScript clients cut texts where they like, and write what is left as `\\ud83d`."""
    answers(back_end, json_answer(message()))
    said = rb'{"role":"user","content":"cut \\ud83d"}'.replace(rb"\\u", rb"\u")
    thought = rb'{"role":"assistant","content":[{"type":"thinking","thinking":"","signature":"rp1.x"}]}'
    body = b'{"model":"%b","max_tokens":5,"metadata":{"user_id":"\\ude00"},"messages":[%b,%b,%b]}'
    sent = body % (b"tuned", said, thought, said)
    assert post(proxy, sent).status == 200
    assert back_end.last.body.count(rb"cut \ud83d") == 2
    assert b"rp1.x" not in back_end.last.body


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("fallbacks", ["claude-haiku-4-5"]),
        ("models", ["a", "b"]),
        ("route", "fallback"),
        ("provider", {"order": ["elsewhere"]}),
        ("fallback_models", ["a"]),
        ("preset", "cheap"),
        ("providerOptions", {"gateway": {"order": ["elsewhere"]}}),
        ("api_base", "http://elsewhere.example"),
        ("user_config", {"model_list": []}),
        ("fallback", ["a"]),
        ("fallback_model", "a"),
        ("extra_body", {"models": ["a"]}),
        ("custom_llm_provider", "elsewhere"),
        ("mock_response", "nobody was asked"),
        ("mock_testing_fallbacks", True),
        ("num_retries", 3),
        ("plugins", [{"id": "web"}]),
        ("router_settings_override", {"fallbacks": []}),
        ("specific_deployment", True),
        ("tags", ["paid"]),
        ("litellm_metadata", {"tags": ["paid"]}),
    ],
)
def test_whom_the_client_would_have_asked_is_dropped_with_a_warning(
    proxy: Running, back_end: BackEnd, field: str, value: object
) -> None:
    answers(back_end, json_answer(message()))
    reply = ask(proxy, **{field: value}, metadata={"user_id": f'"{field}"'})
    assert field not in back_end.last.json
    assert reply.said("warning") == f"{field}: dropped, the rules decide who answers"


def test_a_rule_may_say_what_a_gateway_is_to_do_in_place_of_the_client(
    proxy: Running, back_end: BackEnd
) -> None:
    answers(back_end, json_answer(message()))
    ask(proxy, model="by-the-rule", provider={"order": ["elsewhere"]}, models=["x"])
    assert back_end.last.json["provider"] == {"allow_fallbacks": False}
    assert "models" not in back_end.last.json


def test_a_place_that_the_client_wants_is_dropped_where_the_rules_state_one(
    proxy: Running, back_end: BackEnd
) -> None:
    answers(back_end, json_answer(message()))
    reply = ask(proxy, model="in-europe", inference_geo="us")
    assert back_end.last.json["inference_geo"] == "eu"
    assert reply.said("warning") == "inference_geo: dropped, the rules say that `eu` answers"
    reply = ask(proxy, inference_geo="us")
    assert back_end.last.json["inference_geo"] == "us"
    assert reply.said("warning") is None


def test_params_are_spliced_and_the_rest_stays(proxy: Running, back_end: BackEnd) -> None:
    answers(back_end, json_answer(message()))
    body = (
        b'{"model":"tuned", "max_tokens":64000,"metadata":{"user_id":"u"},'
        b'"messages":[ {"role":"user","content":"hi"} ],'
        b'"thinking":{"type":"enabled","budget_tokens":31999}}'
    )
    post(proxy, body)
    assert back_end.last.body == (
        b'{"temperature":0.5,"top_k":5,"x_corp":{"a":1},"model":"served", "max_tokens":2000,'
        b'"messages":[ {"role":"user","content":"hi"} ],'
        b'"thinking":{"type":"enabled","budget_tokens":1999}}'
    )


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"model":"m","messages":[],"model":"other"}', id="the model"),
        pytest.param(b'{"model":"m","messages":[],"x":1,"x":1}', id="any field"),
        pytest.param(b'{"model":"m","messages":[],"mod\\u0065l":"m"}', id="in another spelling"),
        pytest.param(
            b'{"model":"m","messages":[],"thinking":{"type":"disabled","type":"enabled"}}', id="thinking"
        ),
        pytest.param(
            b'{"model":"m","messages":[],"output_config":{"effort":"low", "effort":"high"}}', id="effort"
        ),
        pytest.param(
            b'{"model":"m","messages":[],"metadata":{"user_id":"a","user\\u005fid":"b"}}', id="the user"
        ),
        pytest.param(
            b'{"model":"m","messages":[],"tools":[{"name":"a"}, {"name":"b","name":"c"}]}', id="a tool"
        ),
    ],
)
def test_a_body_that_two_readers_would_read_differently_is_refused(
    proxy: Running, back_end: BackEnd, body: bytes
) -> None:
    answers(back_end, json_answer(message()))
    status, kind, words = post(proxy, body).error
    assert (status, kind) == (400, "invalid_request_error")
    assert "twice" in words
    assert back_end.requests == []


# --- the answer


def test_a_whole_reply_comes_back_with_the_name_that_was_asked_for_and_nothing_else_changed(
    proxy: Running, back_end: BackEnd
) -> None:
    body = (
        b'{"id":"msg_1", "model":"served","type":"message","new":{"model":"x"},"content":'
        b'[{"type":"hologram"}],"usage":{"odd":null}}'
    )
    answers(back_end, answer(200, body, content_type="application/json"))
    reply = ask(proxy, "other-name")
    assert reply.body == body.replace(b'"served"', b'"other-name"')
    assert (reply.said("provider"), reply.said("model"), reply.said("attempts")) == ("claude", "served", "1")


def test_the_served_name_is_shown_where_the_rules_say_so(proxy: Running, back_end: BackEnd) -> None:
    answers(back_end, json_answer(message(model="served-2031")))
    assert ask(proxy, "as-served").json["model"] == "served-2031"


STREAM = [
    event("message_start", message=message(model="m", content=[], stop_reason=None)),
    event("ping"),
    b": a comment\n\n",
    event("content_block_start", index=0, content_block={"type": "hologram", "depth": 3}),
    event("brand_new", index=0, anything={"model": "served"}),
    event("content_block_delta", index=0, delta={"type": "hologram_delta", "é": "\u2028😀"}),
    event("content_block_stop", index=0),
    event(
        "message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 3}, context_management={}
    ),
    event("message_stop"),
]


def crlf(frames: bytes) -> bytes:
    return frames.replace(b"\n", b"\r\n")


def without_spaces(frames: bytes) -> bytes:
    return frames.replace(b"data: ", b"data:").replace(b"event: ", b"event:")


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 100_000])
@pytest.mark.parametrize(
    "written",
    [
        pytest.param(bytes, id="plain"),
        pytest.param(crlf, id="crlf"),
        pytest.param(without_spaces, id="without spaces"),
    ],
)
def test_g04_frames_are_relayed_as_they_came_however_they_were_cut(
    proxy: Running, back_end: BackEnd, written: Any, size: int
) -> None:
    frames = written(b"".join(STREAM))
    answers(back_end, resized(frames, size))
    assert ask(proxy, stream=True).body == frames


def test_g04_a_stream_that_is_cut_at_any_byte_is_the_same_stream(proxy: Running, back_end: BackEnd) -> None:
    frames = (
        "".join(one.decode() for one in messages_stream("né😀", model="served"))
        .replace("\\u00e9", "é")
        .encode()
    )
    expected = frames.replace(b'"served"', b'"other-name"')
    with httpx.Client() as client:
        for at in range(1, len(frames), 3):
            answers(back_end, streamed(frames[:at], frames[at:]))
            response = client.post(proxy.url + "/v1/messages", json=request(model="other-name", stream=True))
            assert response.content == expected


@pytest.mark.parametrize(
    "before", [b"", b": a comment\n\n", b"\n\n"], ids=["first", "after a comment", "blank"]
)
@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
def test_events_without_a_name_are_looked_into_too(
    proxy: Running, back_end: BackEnd, before: bytes, end: bytes
) -> None:
    frames = [b"data: " + one.partition(b"data: ")[2] for one in messages_stream("x", model="served")]
    body = (before + b"".join(frames)).replace(b"\n", end)
    answers(back_end, streamed(body))
    reply = ask(proxy, "other-name", stream=True)
    assert reply.body == body.replace(b'"served"', b'"other-name"')


def test_the_model_is_spliced_into_a_start_that_stands_on_several_lines(
    proxy: Running, back_end: BackEnd
) -> None:
    start = b'event: message_start\r\ndata: {"type":"message_start",\r\ndata: "message":{"model":\r\n'
    start += b'data:"served"}}\r\n\r\n'
    answers(back_end, streamed(start, *STREAM[3:]))
    reply = ask(proxy, "other-name", stream=True)
    data = b"".join(line.removeprefix(b"data:") for line in reply.body.split(b"\r\n\r\n")[0].splitlines()[1:])
    assert json.loads(data) == {"type": "message_start", "message": {"model": "other-name"}}


def test_g07_a_compressed_stream_is_delivered_decoded(proxy: Running, back_end: BackEnd) -> None:
    frames = b"".join(STREAM)
    packed = gzip.compress(frames)
    answers(back_end, streamed(packed[:50], packed[50:], content_encoding="gzip"))
    reply = ask(proxy, stream=True)
    assert reply.body == frames
    assert "content-encoding" not in reply.headers


def test_g08_what_the_back_end_says_to_its_client_is_relayed_and_what_it_says_to_its_proxy_is_not(
    proxy: Running, back_end: BackEnd
) -> None:
    relayed = {
        "anthropic-ratelimit-requests-remaining": "7",
        "anthropic-organization-id": "org_1",
        "request-id": "req_upstream",
        "x-should-retry": "false",
    }
    answers(back_end, json_answer(message(), **relayed, server="cloudflare", set_cookie="a=b", cf_ray="1"))
    reply = ask(proxy)
    assert {name: reply.headers[name] for name in relayed} == relayed
    assert not {"server", "set-cookie", "cf-ray"} & set(reply.headers)


def test_f14_an_error_of_the_api_is_relayed_byte_for_byte(proxy: Running, back_end: BackEnd) -> None:
    error = '{"type":"invalid_request_error","message":"é: Extra inputs"}'
    body = f'{{"type":"error", "error":{error},"request_id":"req_up"}} '
    answers(back_end, answer(400, body.encode(), content_type="application/json", request_id="req_up"))
    reply = ask(proxy, stream=True)
    assert (reply.status, reply.body) == (400, body.encode())
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers.get_list("request-id") == ["req_up"]


def test_an_error_in_another_shape_is_said_in_the_apis(proxy: Running, back_end: BackEnd) -> None:
    words = "request (5000 tokens) exceeds the available context size (4096 tokens), try increasing it"
    answers(
        back_end,
        json_answer({"error": {"code": 400, "message": words, "type": "exceed_context_size_error"}}, 400),
    )
    assert ask(proxy).error == (
        400,
        "invalid_request_error",
        "prompt is too long: 5000 tokens > 4096 maximum",
    )


# --- both forms


TOOL = {
    "type": "tool_use",
    "id": "toolu_1",
    "name": "Bash",
    "input": {"command": "ls", "n": [1, {"é": None}]},
}
THOUGHT = {"type": "thinking", "thinking": "hm", "signature": "Er=="}
UNKNOWN = {"type": "hologram", "depth": [3]}


def test_d53_a_whole_reply_to_who_wants_a_stream_is_played_as_one(proxy: Running, back_end: BackEnd) -> None:
    answers(
        back_end,
        json_answer(message(content=[THOUGHT, {"type": "text", "text": "é"}, TOOL], stop_reason="tool_use")),
    )
    reply = ask(proxy, "other-name", stream=True)
    assert reply.script == [
        "thinking hm",
        "text é",
        "tool Bash",
        'input {"command":"ls","n":[1,{"\\u00e9":null}]}',
        "tool_use",
    ]
    assert reply.events[0]["message"]["model"] == "other-name"


def test_d53_a_block_that_nobody_knows_is_played_whole(proxy: Running, back_end: BackEnd) -> None:
    answers(back_end, json_answer(message(content=[UNKNOWN])))
    assert ask(proxy, stream=True).events[1]["content_block"] == UNKNOWN


def test_d53_a_stream_for_who_wants_a_whole_reply_is_added_up(proxy: Running, back_end: BackEnd) -> None:
    frames = [
        event(
            "message_start",
            message=message(content=[], stop_reason=None, usage={"input_tokens": 12, "output_tokens": 1}),
        ),
        event(
            "content_block_start",
            index=0,
            content_block={"type": "thinking", "thinking": "", "signature": ""},
        ),
        event("content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": "h"}),
        event("content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": "m"}),
        event("content_block_delta", index=0, delta={"type": "signature_delta", "signature": "Er=="}),
        event("content_block_stop", index=0),
        event("content_block_start", index=1, content_block=UNKNOWN),
        event("content_block_stop", index=1),
        event("content_block_start", index=2, content_block={**TOOL, "input": {}}),
        event(
            "content_block_delta",
            index=2,
            delta={"type": "input_json_delta", "partial_json": '{"command":"ls",'},
        ),
        event(
            "content_block_delta",
            index=2,
            delta={"type": "input_json_delta", "partial_json": '"n":[1,{"é":null}]}'},
        ),
        event("content_block_stop", index=2),
        event(
            "message_delta",
            delta={"stop_reason": "tool_use", "stop_sequence": None},
            usage={"output_tokens": 9},
        ),
        event("message_stop"),
    ]
    answers(back_end, streamed(*frames))
    assert ask(proxy, "other-name").json == message(
        model="other-name",
        content=[THOUGHT, UNKNOWN, TOOL],
        stop_reason="tool_use",
        usage={"input_tokens": 12, "output_tokens": 9},
    )


# --- counting


def test_g10_tokens_are_counted_by_the_back_end_itself(proxy: Running, back_end: BackEnd) -> None:
    answers(back_end, json_answer({"input_tokens": 4711}, request_id="req_up"))
    body = b'{"model":"other-name", "messages":[{"role":"user","content":[{"type":"hologram"}]}],"tools":[]}'
    reply = post(
        proxy, body, "/v1/messages/count_tokens?beta=true", anthropic_beta="token-counting-2024-11-01"
    )
    assert reply.json == {"input_tokens": 4711}
    assert back_end.last.path == "/v1/messages/count_tokens?beta=true"
    assert back_end.last.header("anthropic-beta") == "token-counting-2024-11-01"
    assert back_end.last.body == body.replace(b"other-name", b"served")


def test_g10_counting_gets_no_parameters_that_it_would_be_refused_for(
    proxy: Running, back_end: BackEnd
) -> None:
    answers(back_end, json_answer({"input_tokens": 1}))
    post(proxy, b'{"model":"tuned","messages":[]}', "/v1/messages/count_tokens")
    assert back_end.last.body == b'{"model":"served","messages":[]}'


@pytest.mark.parametrize(
    "no_count",
    [
        pytest.param(json_answer({"error": "no such thing"}, 404), id="not there"),
        pytest.param(json_answer({"tokens": 5}), id="no number"),
        pytest.param(answer(200, b"<html>", content_type="text/html"), id="garbage"),
    ],
)
def test_g10_a_back_end_that_cannot_count_is_replaced_by_an_estimate(
    proxy: Running, back_end: BackEnd, no_count: Any
) -> None:
    answers(back_end, no_count)
    body, version = json.dumps(request()).encode(), "2023-06-01"
    reply = post(proxy, body, "/v1/messages/count_tokens", anthropic_version=version)
    assert reply.status == 200
    assert 1 <= reply.json["input_tokens"] < 50
    assert (reply.said("warning") or "").startswith("input_tokens is an estimate")
