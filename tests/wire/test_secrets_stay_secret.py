"""A canary in every secret that there can be, and nothing of any of them, in whatever encoding, in anything
that routeproxy writes or answers: back ends say back all that they were shown, in every kind of answer."""

import base64
import hashlib
import io
import json
import logging
import os
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest

from routeproxy.policy.secrets import digest_of
from routeproxy.sources import Options
from routeproxy.telemetry.logs import FORMATS
from tests.backend import (
    BackEnd,
    Received,
    Script,
    answer,
    chunk,
    completion,
    data,
    done,
    event,
    json_answer,
    messages_stream,
    sse,
    streamed,
)
from tests.budgets import part, seconds
from tests.google import write_service_account
from tests.running import Served, request, running, serving, until


def canary(name: str) -> str:
    """As long as keys are, and unlike any other from its first to its last characters."""
    return "sk-" + hashlib.sha256(name.encode()).hexdigest()[:40]


IN_VARIABLES = (
    "CHAT_KEY", "FIRST_KEY", "SECOND_KEY", "CLAUDE_KEY", "GEMINI_KEY", "AZURE_KEY", "LITELLM_KEY",
    "HEADER", "AWS_SECRET", "AWS_TOKEN", "AZURE_SECRET", "TEAM_KEY", "TEAMS_OWN_KEY", "ADMIN_KEY",
    "SIGNING_KEY", "ANTHROPIC_AUTH_TOKEN", "OPENAI_API_KEY", "ANTHROPIC_API_KEY",
)  # fmt: skip
OTHERS = (
    "file", "literal", "literal header", "proxy", "all_proxy", "google", "login", "literal param",
    "hashed team key",
)  # fmt: skip
CANARIES: Mapping[str, str] = {name: canary(name) for name in (*IN_VARIABLES, *OTHERS)}
"""Where each stands, and the secret."""
HASH = digest_of(CANARIES["hashed team key"])
"""All that the rules know of that one. Operators may see it, clients may not."""

RULES = """
[server]
decision_log = "decisions.jsonl"
signing_key = "env:SIGNING_KEY"
admin_keys = ["env:ADMIN_KEY"]
[teams.payments]
keys = ["env:TEAM_KEY", "sha256:{hash}"]
explain = true
provider_keys.teams-own = "env:TEAMS_OWN_KEY"
[providers.chat]
type = "openai_compatible"
base_url = "{url}/v1"
api_key = "env:CHAT_KEY"
headers = { x-gateway = "env:HEADER", authorization = "Bearer {literal header}" }
[providers.bearer]
type = "openai_compatible"
base_url = "{url}/v1"
api_key = "env:CHAT_KEY"
[providers.in-a-file]
type = "openai_compatible"
base_url = "{url}/v1"
api_key = "file:provider.key"
[providers.written]
type = "openai_compatible"
base_url = "{url}/v1"
api_key = "{literal}"
[providers.two-keys]
type = "openai_compatible"
base_url = "{url}/v1"
api_key = ["env:FIRST_KEY", "env:SECOND_KEY"]
[providers.responses]
type = "openai_compatible"
base_url = "{url}/v1"
api_key = "env:CHAT_KEY"
api = "responses"
[providers.behind-a-proxy]
type = "openai_compatible"
base_url = "http://chat.example/v1"
zone = "public"
api_key = "env:CHAT_KEY"
proxy = "http://user:{proxy}@{host}"
[providers.behind-the-proxy]
type = "openai_compatible"
base_url = "http://other.example/v1"
zone = "public"
api_key = "env:CHAT_KEY"
[providers.teams-own]
type = "openai_compatible"
base_url = "{url}/v1"
api_key = "env:CHAT_KEY"
[providers.claude]
type = "anthropic"
base_url = "{url}"
api_key = "env:CLAUDE_KEY"
[providers.login]
type = "anthropic"
base_url = "{url}"
api_key = "client"
[providers.gemini]
base_url = "{url}"
api_key = "env:GEMINI_KEY"
[providers.azure]
base_url = "{url}"
api_key = "env:AZURE_KEY"
[providers.litellm]
type = "openai_compatible"
base_url = "{url}/v1"
api_key = "env:LITELLM_KEY"
engine = "litellm"
headers = { x-gateway = "env:HEADER" }
[providers.bedrock]
base_url = "{url}"
zone = "local"
aws_region_name = "eu-west-1"
[providers.bedrock.litellm_params]
aws_access_key_id = "AKIAIOSFODNN7EXAMPLE"
aws_secret_access_key = "env:AWS_SECRET"
aws_session_token = "env:AWS_TOKEN"
[providers.vertex_ai]
base_url = "{url}"
project = "p"
location = "europe-west1"
credentials = "account.json"
[providers.unreachable]
type = "openai_compatible"
base_url = "http://127.0.0.1:1/v1"
api_key = "env:CHAT_KEY"
headers = { x-gateway = "env:HEADER" }
{rules}
[default]
deny = "nobody"
"""
TARGETS = {
    "chat": "m", "bearer": "m", "in-a-file": "m", "written": "m", "two-keys": "m", "responses": "gpt-5",
    "behind-a-proxy": "m", "behind-the-proxy": "m", "teams-own": "m", "claude": "claude-opus-4-8",
    "login": "claude-opus-4-8", "gemini": "gemini-2.5-pro", "azure": "gpt-4.1", "litellm": "m",
    "bedrock": "anthropic.claude-sonnet-4-6", "vertex_ai": "gemini-2.5-pro", "unreachable": "m",
}  # fmt: skip
"""The model that is asked for of each provider."""


# --- what back ends say


def echo(received: Received) -> list[str]:
    """All that was shown to it, in every encoding, and the ends of each word."""
    shown = f"{received.path} {json.dumps(received.headers)}"
    values = [value for _, value in received.headers if len(value) > 20]
    words = [word for value in values for word in value.split(" ")]
    plain = [base64.b64decode(word).decode() for word in words if value_of_basic(word)]
    words += plain
    encoded = [base64.b64encode(word.encode()).decode() for word in [*words, *values]]
    escaped = [quote(word, safe="") for word in words]
    ends = [part for word in words for part in (word[:12], word[-12:], word[:-4] + "****")]
    return [shown, *words, *encoded, *escaped, *ends]


def value_of_basic(word: str) -> bool:
    try:
        return b":" in base64.b64decode(word, validate=True)
    except ValueError:
        return False


def as_json(status: int) -> Any:
    def reply(received: Received) -> Script:
        said = " ".join(echo(received))
        error = {"message": f"refused: {said}", "type": "invalid_request_error", "code": said, "param": said}
        headers = {f"anthropic-{place}": text for place, text in enumerate(echo(received)[1:6])}
        body = {"type": "error", "error": error, "detail": said, "echo": echo(received)}
        return json_answer(body, status, request_id=said[:4000], retry_after=said[:200], **headers)

    return reply


def as_text(status: int) -> Any:
    return lambda received: answer(status, " ".join(echo(received)).encode(), content_type="text/plain")


def as_stream(received: Received) -> Script:
    """An error in an answer that had begun well, in all formats at once."""
    said = " ".join(echo(received))
    error = {"type": "api_error", "message": said, "code": said}
    if "/messages" in received.path:
        return streamed(event("error", error=error))
    if received.path.endswith("/responses"):
        return streamed(event("response.failed", response={"error": {"code": said, "message": said}}))
    return streamed(data({"error": error}))


def as_garbage(received: Received) -> Script:
    return answer(200, ("<html>" + " ".join(echo(received))).encode(), content_type="text/html")


def as_answer(received: Received, words: str, headers: Mapping[str, str], more: Any = None) -> Script:
    """What was asked for, in the format of each back end: the model says `words`. `more`: fields that nobody
    knows, and the name of the model that served."""
    if received.path.endswith("/token"):  # of Google's, behind the proxy
        return json_answer({"access_token": CANARIES["google"], "expires_in": 3600})
    served = more or "served"
    if "count_tokens" in received.path:
        return json_answer({"input_tokens": 3, "more": more}, **headers)
    if received.path.endswith("/messages"):
        if b'"stream":true' in received.body.replace(b" ", b""):
            return streamed(*messages_stream(words, served), **headers)
        usage = {"input_tokens": 1, "output_tokens": 2}
        content = [{"type": "text", "text": words}]
        message = {"id": "msg_1", "type": "message", "role": "assistant", "model": served, "content": content}
        ending = {"stop_reason": "end_turn", "stop_sequence": None, "usage": usage, "debug": more}
        return json_answer(message | ending, **headers)
    if "generateContent" in received.path.replace("streamG", "g"):
        candidate = {"content": {"role": "model", "parts": [{"text": words}]}, "finishReason": "STOP"}
        body = {"candidates": [candidate], "modelVersion": served, "debug": more}
        return streamed(data(body), **headers) if "stream" in received.path else json_answer(body, **headers)
    if received.path.endswith("/responses"):
        item = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": words}]}
        response = {"id": "r", "status": "completed", "model": served, "output": [item], "debug": more}
        if received.json.get("stream"):
            delta = event("response.output_text.delta", output_index=0, content_index=0, delta=words)
            return streamed(delta, event("response.completed", response=response), **headers)
        return json_answer(response, **headers)
    if "/converse" in received.path:
        output = {"message": {"role": "assistant", "content": [{"text": words}]}}
        usage = {"inputTokens": 1, "outputTokens": 2, "totalTokens": 3}
        return json_answer({"output": output, "stopReason": "end_turn", "usage": usage}, **headers)
    if received.json.get("stream"):
        first = chunk(words) | {"model": served, "debug": more, "system_fingerprint": served}
        return sse(first, done(), **headers)
    return json_answer(completion(words) | {"model": served, "debug": more}, **headers)


def in_headers(received: Received) -> Script:
    said = echo(received)
    named = {f"anthropic-{place}": text for place, text in enumerate(said[1:6])}
    return as_answer(received, "Hello", named | {"request_id": " ".join(said)[:4000]})


def in_other_fields(received: Received) -> Script:
    words = [word for value in received.headers for word in value[1].split(" ") if word in CANARIES.values()]
    return as_answer(received, "Hello", {}, " ".join(words))


def in_its_words(received: Received) -> Script:
    words = [word for value in received.headers for word in value[1].split(" ") if word in CANARIES.values()]
    return as_answer(received, f"You showed {words}.", {})


ANSWERS: Mapping[str, Any] = {
    "in headers": in_headers,
    "in other fields": in_other_fields,
    "in its words": in_its_words,
}

KINDS: Mapping[str, Any] = {
    **{str(status): as_json(status) for status in (400, 401, 403, 404, 413, 429, 500, 529)},
    **{f"{status} in text": as_text(status) for status in (400, 401, 500)},
    "in a stream": as_stream,
    "garbage": as_garbage,
}


def forms(secret: str) -> Iterator[tuple[str, str]]:
    """What of it must not be seen."""
    yield "its beginning", secret[:11]
    yield "its end", secret[-8:]
    for offset in range(3):
        # Whatever stands before it, two thirds of its Base64 are the same.
        encoded = base64.b64encode(b"x" * offset + secret.encode()).decode()
        yield "Base64", encoded[4 : 4 + 20]
    yield "URL", quote(secret[3:14], safe="")


def leaks(surfaces: Mapping[str, str], *, of_clients: bool = False) -> list[str]:
    """`of_clients`: clients see these."""
    hashes = [f"hash in {surface}" for surface, text in surfaces.items() if of_clients and HASH[:16] in text]
    return hashes + [
        f"{form} of {secret} in {surface}"
        for secret, value in CANARIES.items()
        for form, text in forms(value)
        for surface, content in surfaces.items()
        if text in content
    ]


# --- the server


class Case(NamedTuple):
    server: Served
    back_end: BackEnd
    folder: Path


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    with started(tmp_path_factory.mktemp("canaries")) as case:
        yield case


@contextmanager
def started(folder: Path, *more_flags: str) -> Iterator[Case]:
    with ExitStack() as stack:
        back_end = stack.enter_context(BackEnd(json_answer({})))
        tokens = stack.enter_context(
            BackEnd(
                json_answer({"access_token": CANARIES["google"], "expires_in": 3600, "token_type": "Bearer"})
            )
        )
        write_rules(folder, back_end, tokens)
        flags = ("--rules", "rules.toml", "--port", "0", "--log-level", "DEBUG", "--allow-literal-keys")
        flags += ("--last-good", "kept", *more_flags)
        server = stack.enter_context(serving(folder, *flags, environ=environ(back_end)))
        until(lambda: server.get("/readyz").status_code == 200, 30)
        yield Case(server, back_end, folder)


def write_rules(folder: Path, back_end: BackEnd, tokens: BackEnd) -> None:
    rules = "\n".join(
        f'[[rules]]\nmatch.model.equals = "{name}"\ntargets = "{name}/{model}"'
        for name, model in TARGETS.items()
    )
    text = RULES.replace("{rules}", rules).replace("{url}", back_end.url)
    text = text.replace("{host}", back_end.url.removeprefix("http://")).replace("{hash}", HASH)
    for name, value in CANARIES.items():
        text = text.replace(f"{{{name}}}", value)
    (folder / "rules.toml").write_text(text, encoding="utf-8")
    (folder / "provider.key").write_text(CANARIES["file"], encoding="utf-8")
    (folder / "provider.key").chmod(0o600)
    write_service_account(folder / "account.json", tokens.url)


def environ(back_end: BackEnd) -> dict[str, str]:
    proxy = back_end.url.replace("://", f"://user:{CANARIES['all_proxy']}@")
    return {name: CANARIES[name] for name in IN_VARIABLES} | {
        "LOG_FILE": "routeproxy.log",
        "ALL_PROXY": proxy,
    }


def shown(**headers: str) -> dict[str, str]:
    return {"x_api_key": CANARIES["TEAM_KEY"], "anthropic_version": "2023-06-01", **headers}


@pytest.mark.parametrize("kind", part(KINDS))
def test_what_a_back_end_says_back_is_not_said_on(case: Case, kind: str) -> None:
    case.back_end.answers = [KINDS[kind]]
    surfaces = {}
    for model in TARGETS:
        for stream in (False, True):
            login = {"authorization": f"Bearer {CANARIES['login']}"} if model == "login" else {}
            headers = shown(x_routeproxy_explain="1", **login)
            reply = case.server.post(request(model=model, stream=stream), **headers)
            surfaces[f"{model} {stream}"] = whole(reply)
        reply = case.server.post(request(model=model), "/v1/messages/count_tokens", **headers)
        surfaces[f"{model} counted"] = whole(reply)
    assert case.back_end.requests
    assert leaks(surfaces, of_clients=True) == []


@pytest.mark.parametrize("kind", ANSWERS)
def test_what_a_back_end_says_back_in_an_answer_is_not_said_on(case: Case, kind: str) -> None:
    """Whole secrets, in the words of an answer: what resembles one may be a model's."""
    case.back_end.answers = [ANSWERS[kind]]
    surfaces, statuses = {}, set()
    for model in TARGETS:
        if model == "unreachable" or (model == "bedrock" and kind != "in headers"):
            continue
        for stream in (False, True):
            if model == "bedrock" and stream:
                continue  # its streams are in a binary format
            login = {"authorization": f"Bearer {CANARIES['login']}"} if model == "login" else {}
            headers = shown(x_routeproxy_explain="1", **login)
            reply = case.server.post(request(model=model, stream=stream), **headers)
            surfaces[f"{model} {stream}"] = whole(reply)
            statuses.add((model, reply.status_code))
        reply = case.server.post(request(model=model), "/v1/messages/count_tokens", **headers)
        surfaces[f"{model} counted"] = whole(reply)
    assert {status for _, status in statuses} == {200}, statuses
    assert leaks(surfaces, of_clients=True) == []


def test_a_client_that_knows_a_key_gets_it_back_in_an_answer(case: Case) -> None:
    """It may be at work on the file in which that stands."""
    case.back_end.answers = [in_its_words]
    for model in ("bearer", "claude"):
        for stream in (False, True):
            key = CANARIES["CHAT_KEY" if model == "bearer" else "CLAUDE_KEY"]
            told = [{"role": "user", "content": f"curl -H 'authorization: Bearer {key}'"}]
            known = case.server.post(request(model=model, stream=stream, messages=told), **shown())
            assert key in known.text
            unknown = case.server.post(request(model=model, stream=stream), **shown())
            assert "*" * len(key) in unknown.text


def whole(reply: Any) -> str:
    return f"{reply.status_code} {reply.headers.multi_items()}\n{reply.text}"


def test_what_the_server_says_of_itself_shows_none(case: Case) -> None:
    surfaces = {}
    admin = {"x_api_key": CANARIES["ADMIN_KEY"]}
    hashed = {"x_api_key": CANARIES["hashed team key"]}
    for path in ("/", "/readyz", "/healthz", "/v1/models", "/-/status", "/nowhere", "/v1/models/x"):
        for who, headers in (("team", shown()), ("hashed", hashed), ("admin", admin), ("nobody", {})):
            for accept in ("application/json", "text/html"):
                reply = case.server.get(path, accept=accept, **headers)
                surfaces[f"{path} {who} {accept}"] = whole(reply)
    for model in (*TARGETS, "unknown"):
        surfaces[f"route {model}"] = whole(case.server.post(request(model=model), "/v1/route", **shown()))
    for path in ("/-/reload", "/-/rollback"):
        surfaces[path] = whole(case.server.post({}, path, **admin))
    reply = case.server.post(request(model="chat"), x_routeproxy_explain="1", **hashed)
    assert reply.status_code != 401
    surfaces["explained to a hashed key"] = whole(reply)
    for name, value in CANARIES.items():  # as keys that are wrong, and in places that are none
        for path in ("/v1/messages", "/v1/route", "/-/status"):
            surfaces[f"{path} with {name}"] = whole(case.server.post(request(), path, x_api_key=f"{value}x"))
    assert leaks(surfaces, of_clients=True) == []


def test_nothing_that_is_written_to_disk_or_to_a_terminal_shows_one(case: Case) -> None:
    """But for a key that the rules file itself has in it, in the versions of it that are kept; and these are
    for its owner alone."""
    test_what_a_back_end_says_back_is_not_said_on(case, "401")
    for kind in ANSWERS:
        test_what_a_back_end_says_back_in_an_answer_is_not_said_on(case, kind)
    (case.folder / "rules.toml").write_text((case.folder / "rules.toml").read_text() + "\n[oops\n")
    case.server.post({}, "/-/reload", x_api_key=CANARIES["ADMIN_KEY"])
    written = {"provider.key", "rules.toml", "account.json"}
    files = [path for path in case.folder.rglob("*") if path.is_file() and path.name not in written]
    surfaces = {str(path.relative_to(case.folder)): path.read_text("utf-8", "replace") for path in files}
    kept = {name for name in surfaces if name.startswith("kept/")}
    assert {"decisions.jsonl", "routeproxy.log", "stderr.txt"} <= surfaces.keys()
    assert kept
    in_the_file = {"literal", "literal header", "proxy", "literal param"}
    secrets_of_the_file = {name: text for name, text in surfaces.items() if name in kept}
    assert leaks({name: text for name, text in surfaces.items() if name not in kept}) == []
    assert [
        leak for leak in leaks(secrets_of_the_file) if not any(name in leak for name in in_the_file)
    ] == []
    assert {stat.S_IMODE((case.folder / name).stat().st_mode) for name in kept} == {0o600}


def test_a_log_in_json_shows_none_either(tmp_path: Path) -> None:
    with started(tmp_path, "--log-format", "json") as case:
        for kind in (KINDS["401"], KINDS["in a stream"], in_headers):
            case.back_end.answers = [kind]
            for model in ("chat", "claude", "gemini", "behind-a-proxy"):
                case.server.post(request(model=model, stream=True), **shown(x_routeproxy_explain="1"))
        (tmp_path / "rules.toml").write_text((tmp_path / "rules.toml").read_text() + "\n[oops\n")
        case.server.post({}, "/-/reload", x_api_key=CANARIES["ADMIN_KEY"])
    written = {name: (tmp_path / name).read_text("utf-8") for name in ("stderr.txt", "routeproxy.log")}
    assert all(json.loads(line) for line in written["stderr.txt"].splitlines())
    assert leaks(written) == []


class _Quoting(Exception):
    """As libraries say what went wrong."""


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("name", ["CHAT_KEY", "file", "TEAM_KEY", "proxy"])
def test_a_traceback_shows_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, name: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise _Quoting(f"header x: {CANARIES[name]}") from ValueError(f"{CANARIES[name]!r} is no number")

    monkeypatch.chdir(tmp_path)
    lines = io.StringIO()
    with BackEnd(json_answer(completion())) as back_end:
        write_rules(tmp_path, back_end, back_end)
        text = (tmp_path / "rules.toml").read_text()
        options = Options(rules=tmp_path / "rules.toml", allow_literal_keys=True)
        with running(text, tmp_path, environ(back_end), options=options) as server:
            monkeypatch.setattr("routeproxy.upstream.chat.upstream.ChatUpstream.send", fail)
            handler = logging.StreamHandler(lines)
            handler.setFormatter(FORMATS[form]())
            log = logging.getLogger("routeproxy.web.streaming")
            log.addHandler(handler)
            monkeypatch.setattr(log, "propagate", False)  # whoever formats first does so for all
            try:
                reply = server.post(request(model="chat"), **shown())
            finally:
                log.removeHandler(handler)
    assert reply.status_code == 500
    assert "_Quoting" in lines.getvalue()
    assert "***" in lines.getvalue()
    assert leaks({"the answer": whole(reply), "the log": lines.getvalue()}) == []


# --- the commands

COMMANDS = (
    ("check", "rules.toml", "--allow-literal-keys"),
    ("check", "rules.toml"),
    ("check", "rules.toml", "--format", "json"),
    ("check", "rules.toml", "--format", "github"),
    ("check", "rules.toml", "--format", "sarif"),
    ("check", "broken.toml"),
    ("check", "broken.toml", "--format", "json"),
    ("check", "wrong.toml", "--format", "json"),
    ("check", "wrong.toml"),
    ("explain", "--rules", "rules.toml", "--model", "chat", "--allow-literal-keys"),
    ("explain", "--rules", "rules.toml", "--model", "behind-a-proxy", "--allow-literal-keys", "--json"),
    ("explain", "--rules", "rules.toml", "--request", "request.json", "--allow-literal-keys"),
    ("explain",  "--model", "claude-opus-4-8"),
    ("prove", "rules.toml", "--allow-literal-keys"),
    ("test", "rules.toml", "--allow-literal-keys"),
    ("diff", "rules.toml", "other.toml", "--allow-literal-keys", "--json"),
    ("diff", "rules.toml", "other.toml", "--allow-literal-keys"),
    ("diff", "other.toml", "rules.toml", "--allow-literal-keys"),
    ("init", "--from-env", "--output", "-"),
    ("schema",),
    ("count", "request.json"),
    ("health", "rules.toml", "--port", "1"),
    ("health", "broken.toml", "--port", "1"),
    ("claude", "--rules", "rules.toml", "--allow-literal-keys"),
    ("claude", "--rules", "rules.toml"),
    ("claude", "--rules", "broken.toml"),
    ("claude", "--url", "http://user:{proxy}@127.0.0.1:1"),
    ("claude", "--key", "{literal}"),
    ("serve", "--rules", "broken.toml"),
    ("serve", "--rules", "wrong.toml"),
    ("serve", "--host", "0.0.0.0", "--rules", "rules.toml"),
    ("--version",),
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_command_prints_one(tmp_path: Path, command: tuple[str, ...]) -> None:
    with BackEnd(json_answer({})) as back_end:
        write_rules(tmp_path, back_end, back_end)
        variables = environ(back_end)
        text = (tmp_path / "rules.toml").read_text()
        (tmp_path / "broken.toml").write_text(text.replace("[providers.gemini]", "[providers.gemini"))
        (tmp_path / "wrong.toml").write_text(_wrong(text))
        (tmp_path / "other.toml").write_text(
            text.replace("sk-", "sk-x").replace("env:HEADER", "env:AZURE_KEY")
        )
        (tmp_path / "request.json").write_text(json.dumps(request(model="litellm")))
        client = tmp_path / "bin" / "claude"
        client.parent.mkdir()
        client.write_text("#!/bin/sh\necho done\n")
        client.chmod(0o755)
        for name, value in CANARIES.items():
            command = tuple(word.replace(f"{{{name}}}", value) for word in command)
        if "--from-env" in command or command[1:2] == ("--model",):
            (tmp_path / "rules.toml").unlink()
            url = f"http://user:{CANARIES['proxy']}@llm.example/v1?key={CANARIES['literal']}"
            variables |= {"OPENAI_BASE_URL": url}
        ran = subprocess.run(
            [sys.executable, "-m", "routeproxy", *command],
            cwd=tmp_path,
            env={
                "PATH": f"{client.parent}{os.pathsep}{os.environ['PATH']}",
                "PYTHONPATH": os.getcwd(),
                "HOME": str(tmp_path),
                **variables,
            },
            capture_output=True,
            text=True,
            timeout=seconds(60),
            check=False,
        )
    assert ran.stdout or ran.stderr
    assert leaks({"stdout": ran.stdout, "stderr": ran.stderr}) == []


def _wrong(text: str) -> str:
    """The same file with a mistake at each secret."""
    literal = CANARIES["literal"]
    return (
        text.replace('proxy = "http://user', 'proxy = "socks5://user')
        .replace('"env:AWS_SECRET"', f'"{literal}"\naws_secret = "{literal}"\napi_key = "{literal}"')
        .replace('[providers.gemini]\nbase_url = "', f'[providers.gemini]\nbase_url = "http://u:{literal}@x/?key={literal}')
        .replace('"Bearer sk-', f'"Bearer env:HEADER {literal} sk-')
        .replace('api_key = "env:CLAUDE_KEY"', f'api_key = {{ a = "{literal}" }}\napikey = "{literal}"')
        .replace('signing_key = "env', f'signing_key = "{literal} env')
        .replace('keys = ["env:TEAM_KEY"]', f'keys = ["{literal}"]')
    )  # fmt: skip
