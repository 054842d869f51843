"""Every example of every older proxy, end to end: a real server on that `.env` and nothing else, with all the
world's hosts on loopback. Whom it asks for what, which key it shows, and that it shows no other."""

import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp.connector
import pytest
from aiohttp.abc import ResolveResult
from aiohttp.resolver import ThreadedResolver

from routeproxy.policy.problems import RulesRefused
from tests.backend import BackEnd, Received, Script, completion, json_answer
from tests.google import token, write_service_account
from tests.running import Running, request, running_without_rules
from tests.wire.older_proxies import BEGIN, END, MOVING, ROWS, Refused, Row, Sent, lines_of, mended, table

HOSTS = (
    "*.openai.com", "*.anthropic.com", "*.googleapis.com", "*.api.nvidia.com", "openrouter.ai",
    "*.together.xyz", "*.openai.azure.com", "*.cognitiveservices.azure.com", "*.deepseek.com",
    "*.example.com", "your-endpoint.com",
)  # fmt: skip

GEMINI = {
    "candidates": [
        {"content": {"role": "model", "parts": [{"text": "Hello"}]}, "finishReason": "STOP", "index": 0}
    ],
    "usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 15},
}
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [{"type": "text", "text": "Hello"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 1, "output_tokens": 1},
}
RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "status": "completed",
    "model": "m",
    "output": [
        {
            "id": "item_1",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "Hello", "annotations": []}],
        }
    ],
    "usage": {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15},
}
OLLAMA = {
    "model": "m",
    "message": {"role": "assistant", "content": "Hello"},
    "done": True,
    "done_reason": "stop",
    "prompt_eval_count": 10,
    "eval_count": 5,
}


def everywhere(received: Received) -> Script:
    """What any of them answers."""
    path = received.path.partition("?")[0]
    if path.endswith("/token"):
        return token()
    answers: dict[str, Any] = {
        "/messages": MESSAGE,
        ":generateContent": GEMINI,
        "/responses": RESPONSE,
        "/api/chat": OLLAMA,
    }
    return json_answer(next((value for end, value in answers.items() if path.endswith(end)), completion()))


class World:
    """All hosts: one back end behind port 443, one behind all others."""

    def __init__(self, secure: BackEnd, plain: BackEnd) -> None:
        self._secure = secure
        self._plain = plain

    @property
    def asked(self) -> list[Received]:
        requests = [*self._secure.requests, *self._plain.requests]
        return [one for one in requests if not one.path.endswith("/token")]

    @property
    def peers(self) -> tuple[BackEnd, BackEnd]:
        return self._secure, self._plain

    def forget(self) -> None:
        self._secure.requests.clear()
        self._plain.requests.clear()

    def address_of(self, host: str, port: int) -> list[ResolveResult]:
        peer = self._secure if port == 443 else self._plain
        return [
            ResolveResult(
                hostname=host,
                host="127.0.0.1",
                port=peer.port,
                family=socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
        ]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed, which makes the certificate for this test")
    folder = tmp_path_factory.mktemp("ca")
    made, key = folder / "cert.pem", folder / "key.pem"
    names = ",".join(f"DNS:{host}" for host in HOSTS)
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=all"
    )
    arguments = ["-addext", f"subjectAltName={names}", "-keyout", str(key), "-out", str(made)]
    subprocess.run([*command.split(), *arguments], check=True, capture_output=True)
    return made, key


@pytest.fixture(scope="module")
def peers(certificate: tuple[Path, Path]) -> Iterator[World]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with BackEnd(everywhere, tls=context) as secure, BackEnd(everywhere) as plain:
        yield World(secure, plain)


@pytest.fixture
def world(peers: World, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> World:
    peers.forget()
    trusting = ssl.create_default_context(cafile=str(certificate[0]))
    monkeypatch.setattr(aiohttp.connector, "_SSL_CONTEXT_VERIFIED", trusting)

    async def resolve(self: object, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        return peers.address_of(host, port)

    monkeypatch.setattr(ThreadedResolver, "resolve", resolve)
    monkeypatch.setenv("NO_GCE_CHECK", "true")  # no host of this world is the machine's metadata server
    return peers


CASES = [
    pytest.param(row, id=f"{proxy}, {row.example}".replace("`", ""))
    for proxy, rows in ROWS.items()
    for row in rows
]


def write(row: Row, text: str, folder: Path) -> None:
    account = folder / "key.json"
    if "{credentials}" in text:
        write_service_account(account, "https://oauth2.googleapis.com")
    (folder / ".env").write_text(text.replace("{credentials}", str(account)), encoding="utf-8")


def keys_of(text: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in lines_of(text))
    return {
        name: value.partition(" #")[0].strip('" ')
        for name, _, value in pairs
        if "KEY" in name or "TOKEN" in name
    }


def shown(asked: Received) -> dict[str, str]:
    """The headers that carry a key."""
    names = ("authorization", "x-api-key", "api-key", "x-goog-api-key")
    return {name: value for name in names if (value := asked.header(name)) is not None}


def header_for(sent: Sent, keys: Mapping[str, str]) -> dict[str, str]:
    if sent.key is None:
        return {}
    if sent.key == "ADC":
        return {"authorization": "Bearer TOKEN-1"}
    names = {"api.anthropic.com": "x-api-key", "generativelanguage.googleapis.com": "x-goog-api-key"}
    host = sent.to.partition("/")[0]
    name = "api-key" if host.endswith(".azure.com") else names.get(host, "authorization")
    value = keys[sent.key]
    return {name: f"Bearer {value}" if name == "authorization" else value}


def model_of(asked: Received) -> str:
    path = asked.path.partition("?")[0]
    if ":generateContent" in path:
        return path.rpartition("/")[2].partition(":")[0]
    model = asked.json["model"]
    assert isinstance(model, str)
    return model


@pytest.mark.parametrize("row", CASES)
def test_an_older_proxys_example_works_or_says_why(
    row: Row, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(row, "\n".join(lines_of(row.dotenv)), tmp_path)
    lines: list[str] = []
    if row.refused is not None:
        with pytest.raises((RulesRefused, ValueError)) as refused, running_without_rules(tmp_path):
            pass
        assert row.refused in str(refused.value)
    elif row.mend is not None:
        with running_without_rules(tmp_path) as (server, lines):
            answer = server.post(request(model="claude-opus-4-8"))
        assert answer.status_code in (400, 401, 502), answer.text
        assert world.asked == []
    text = mended(row)
    write(row, text, tmp_path)
    keys = keys_of(text)
    with running_without_rules(tmp_path) as (server, now):
        missing = [words for words in row.said if not any(words in line for line in (*lines, *now))]
        assert missing == [], "\n".join([*lines, *now])
        for asked_for, expected in row.asks.items():
            assert outcome(server, world, asked_for, keys) == expected_of(expected, keys), asked_for


class Outcome(NamedTuple):
    status: int
    model: str | None = None
    to: str | None = None
    shown: Mapping[str, str] = {}


def outcome(server: Running, world: World, asked_for: str, keys: Mapping[str, str]) -> Outcome | str:
    """Whom the server asked for what, or the words of its refusal."""
    world.forget()
    path, model = "/v1/messages", asked_for
    if asked_for.startswith("/"):
        path, model = f"{asked_for}/v1/messages", "claude-sonnet-5"
    answer = server.post(request(model=model), path, x_api_key=keys.get("ANTHROPIC_AUTH_TOKEN", "none"))
    if answer.status_code != 200:
        assert world.asked == []
        return Words(f"{answer.status_code}: {answer.json()['error']['message']}")
    assert answer.json()["content"] == [{"type": "text", "text": "Hello"}]
    (asked,) = world.asked
    return Outcome(200, model_of(asked), f"{asked.header('host')}{asked.path}", shown(asked))


class Words(str):
    """Equal to words that it has among its own."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and str(other) in str(self)


def expected_of(expected: Sent | Refused, keys: Mapping[str, str]) -> Outcome | str:
    if isinstance(expected, Refused):
        return expected.words
    return Outcome(200, expected.model, expected.to, header_for(expected, keys))


# --- the same, written as people write

WRITTEN = [
    pytest.param(
        b"\xef\xbb\xbfPREFERRED_PROVIDER=custom\r\nCUSTOM_BASE_URL=http://localhost:9/v1\r\nCUSTOM_API_KEY='key-c'\r\nBIG_MODEL=m\r\n",
        {},
        Sent("m", "localhost:9/v1/chat/completions", "CUSTOM_API_KEY"),
        [],
        id="on Windows, with a byte order mark",
    ),
    pytest.param(
        "OPENAI_API_KEY=key-o\r\nBIG_MODEL=gpt-5\r\n".encode("utf-16"),
        {},
        Sent("gpt-5", "api.openai.com/v1/responses", "OPENAI_API_KEY"),
        [],
        id="by PowerShell's >",
    ),
    pytest.param(
        b"export OPENAI_API_KEY=key-o\nexport BIG_MODEL='gpt-4o'\n",
        {},
        Sent("gpt-4o", "api.openai.com/v1/chat/completions", "OPENAI_API_KEY"),
        [],
        id="for a shell, with export",
    ),
    pytest.param(
        "OPENAI_API_KEY=\u201ckey-o\u201d\nBIG_MODEL=\u2018gpt-4o\u2019\u200b\n".encode(),
        {},
        Sent("gpt-4o", "api.openai.com/v1/chat/completions", "OPENAI_API_KEY"),
        [],
        id="by way of a word processor",
    ),
    pytest.param(
        b'OPENAI_API_KEY = key-o\nBIG_MODEL = "gpt-4o"   # the large one\n',
        {},
        Sent("gpt-4o", "api.openai.com/v1/chat/completions", "OPENAI_API_KEY"),
        [],
        id="with blanks and comments",
    ),
    pytest.param(
        b"MODEL_NAME=gpt-4o\nOPENAI_API_KEY=key-o\nBIG_MODEL=${MODEL_NAME}-mini\nSMALL_MODEL=${NOTHING:-gpt-4.1}\n",
        {},
        Sent("gpt-4o-mini", "api.openai.com/v1/chat/completions", "OPENAI_API_KEY"),
        [],
        id="with ${…}",
    ),
    pytest.param(
        b"OPENAI_API_KEY=key-o\nBIG_MODEL=gpt-4o\nBIG_MODEL=gpt-4.1\n",
        {},
        Sent("gpt-4.1", "api.openai.com/v1/chat/completions", "OPENAI_API_KEY"),
        ["LOG .env:3 is in force for BIG_MODEL, not line 2"],
        id="twice",
    ),
    pytest.param(
        b'OPENAI_API_KEY=key-o\nOPENAI_BASE_URL=\nBIG_MODEL=""\nSMALL_MODEL\nMAX_OUTPUT_TOKENS=\n',
        {},
        Sent("gpt-4.1", "api.openai.com/v1/chat/completions", "OPENAI_API_KEY"),
        [],
        id="with empty values",
    ),
    pytest.param(
        b"OPENAI_API_KEY=key-o\nbig_model=gpt-4o\n",
        {},
        Sent("gpt-4.1", "api.openai.com/v1/chat/completions", "OPENAI_API_KEY"),
        ["big_model has no effect: variables are written in capitals, BIG_MODEL"],
        id="in lower case",
    ),
    pytest.param(
        b"OPENAI_API_KEY=sk-...\n",
        {},
        Refused("the key of provider openai is not set"),
        ["OPENAI_API_KEY holds the placeholder of an example: it is not used"],
        id="with a placeholder left in",
    ),
    pytest.param(
        b"OPENAI_API_KEY=key-o\nBIG MODEL=gpt-4o\n",
        {},
        Sent("gpt-4.1", "api.openai.com/v1/chat/completions", "OPENAI_API_KEY"),
        ["LOG .env:2 has no effect: it is not of the form NAME=value"],
        id="with a line that says nothing",
    ),
    pytest.param(
        b"",
        {"OPENAI_API_KEY": '"key-o" # mine', "BIG_MODEL": "'gpt-4o' # large", "PORT": '"8083"\r'},
        Sent("gpt-4o", "api.openai.com/v1/chat/completions", "OPENAI_API_KEY"),
        [],
        id="by docker run --env-file, which keeps quotes and comments",
    ),
    pytest.param(
        b"OPENAI_API_BASE=http://localhost:9/v1\nOPENAI_API_KEY=key-o\nBIG_MODEL=m\n",
        {},
        Sent("m", "localhost:9/v1/chat/completions", "OPENAI_API_KEY"),
        ["OPENAI_BASE_URL is not set: OPENAI_API_BASE is taken for it"],
        id="by LiteLLM's name",
    ),
    pytest.param(
        b"OPENAI_BASE_URL=https://r.openai.azure.com/openai/deployments/d?api-version=2024-10-21\nOPENAI_API_KEY=key-o\n",
        {},
        Sent(
            "d",
            "r.openai.azure.com/openai/deployments/d/chat/completions?api-version=2024-10-21",
            "OPENAI_API_KEY",
        ),
        [],
        id="a deployment's address and no model",
    ),
]


@pytest.mark.parametrize(("content", "environ", "expected", "said"), WRITTEN)
def test_however_it_is_written_it_means_what_its_author_meant(
    content: bytes,
    environ: dict[str, str],
    expected: Sent | Refused,
    said: list[str],
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_bytes(content)
    keys = {"OPENAI_API_KEY": "key-o", "CUSTOM_API_KEY": "key-c"}
    with running_without_rules(tmp_path, environ) as (server, lines):
        assert outcome(server, world, "claude-opus-4-8", keys) == expected_of(expected, keys)
    everything = [*lines, *(f"LOG {record.getMessage()}" for record in caplog.records)]
    assert [words for words in said if not any(words in line for line in everything)] == [], everything


def test_the_table_in_the_documentation_is_this_one() -> None:
    """`python -m tests.wire.older_proxies` writes it."""
    text = MOVING.read_text(encoding="utf-8")
    assert f"{BEGIN}\n\n{table()}\n{END}" in text
