"""HTTP: raw bytes of clients at the protocol and the application that serve them, over a transport in memory.

An input is a line with the sizes of the reads that bring it, and then what a client sends on one connection.
"""

import asyncio
import json
import logging
import re
import socket
import tempfile
import zlib
from collections.abc import Iterator
from functools import cache
from itertools import cycle
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import uvicorn
from uvicorn.server import ServerState

from routeproxy.serve import App, live_rules
from routeproxy.sources import Options, Sources
from routeproxy.web.http_protocol import HttpProtocol, Room
from tests.fuzz.mutate import mutate_bytes, mutate_json, mutate_parts
from tests.fuzz.surface import BrokenLaw, Surface, logged
from tests.running import request, request_bytes

PROVIDER_KEY = "sk-canary-0123456789abcdef"
CLIENT_KEY, EXPLAINED_KEY, ADMIN_KEY = (
    "client-0123456789abcdef",
    "second-0123456789abcdef",
    "admin-0123456789abcdef",
)
SECRETS = (PROVIDER_KEY, CLIENT_KEY, EXPLAINED_KEY, ADMIN_KEY)
ENVIRONMENT = {"KEY": PROVIDER_KEY, "CLIENT": CLIENT_KEY, "SECOND": EXPLAINED_KEY, "ADMIN": ADMIN_KEY}

RULES = """
[server]
url_targets = true
admin_keys = ["env:ADMIN"]
max_body_mb = 1

[providers.echo]

[providers.claude]
type = "anthropic"
api_key = "env:KEY"

[teams.one]
keys = ["env:CLIENT"]
targets = ["echo/*"]

[teams.two]
keys = ["env:SECOND"]
targets = ["echo/*"]
explain = true

[aliases]
fast = "echo/small"

[[rules]]
name = "denied"
match.model.equals = "denied"
deny = "not here"

[[rules]]
name = "tools"
match.tools = "Bash"
targets = ["echo/tools"]

[default]
targets = ["echo/*"]
"""


class _Seen(NamedTuple):
    """A request as the application gets it, and the status that it starts its answer with."""

    method: str
    path: str
    statuses: list[int]


class _Watched:
    """The application, with what it is asked and what it raises noted down."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.seen: list[_Seen] = []
        self.raised: list[BaseException] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._app, name)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        seen = _Seen(scope["method"], scope["path"], [])
        self.seen.append(seen)

        async def watched_send(message: Any) -> None:
            if message["type"] == "http.response.start":
                seen.statuses.append(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, watched_send)
        except Exception as error:
            self.raised.append(error)
            raise


class _Transport(asyncio.Transport):
    """A connection in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closing = self.paused = False
        self._sockets = socket.socketpair()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        known = {"socket": self._sockets[0], "sockname": ("127.0.0.1", 80), "peername": ("127.0.0.1", 9)}
        return known.get(name, default)

    def write(self, data: Any) -> None:
        if not self.closing:
            self.written += data

    def write_eof(self) -> None: ...

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = True

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def let_go(self) -> None:
        for one in self._sockets:
            one.close()


@cache
def _server() -> tuple[asyncio.AbstractEventLoop, uvicorn.Config, _Watched]:
    folder = Path(tempfile.mkdtemp(prefix="fuzz-http-"))
    (folder / "rules.toml").write_text(RULES, "utf-8")
    sources = Sources(Options(rules=folder / "rules.toml"), ENVIRONMENT)
    app = App(sources, live_rules(sources, folder / "versions"))
    loop = asyncio.new_event_loop()
    config = uvicorn.Config(
        app.build, factory=True, ws="none", lifespan="off", log_config=None, access_log=False,
        server_header=False, proxy_headers=False, timeout_keep_alive=86_400,
    )  # fmt: skip
    config.load()
    watched = config.loaded_app = _Watched(config.loaded_app)
    return loop, config, watched


class Served(NamedTuple):
    """What became of one connection."""

    written: bytes
    seen: list[_Seen]
    raised: list[BaseException]
    records: list[logging.LogRecord]
    closed: bool


def serve(data: bytes, sizes: tuple[int, ...]) -> Served:
    loop, config, watched = _server()
    watched.seen, watched.raised = [], []
    with logged("routeproxy", "uvicorn.error", "asyncio") as records:
        written, closed = loop.run_until_complete(_serve(data, sizes, loop, config))
    return Served(written, watched.seen, watched.raised, records, closed)


async def _serve(
    data: bytes,
    sizes: tuple[int, ...],
    loop: asyncio.AbstractEventLoop,
    config: uvicorn.Config,
) -> tuple[bytes, bool]:
    """What is written, and whether the connection was closed."""
    state, transport = ServerState(), _Transport()
    protocol = HttpProtocol(config=config, server_state=state, app_state={}, _loop=loop, room=Room(1000))
    protocol.connection_made(transport)
    size, at = cycle(sizes), 0
    try:
        while at < len(data) and not transport.closing:
            if transport.paused:
                await _settle(protocol, state)
                if transport.paused:
                    break
            length = next(size)
            protocol.data_received(data[at : at + length])
            at += length
            await asyncio.sleep(0)
        await _settle(protocol, state)
        written, closed = transport.written, transport.closing
    finally:
        transport.closing = True
        protocol.connection_lost(None)
        for _ in range(1000):
            if not state.tasks:
                break
            await asyncio.sleep(0.002)
        transport.let_go()
    if state.tasks:
        raise BrokenLaw("a request outlives its client")
    return written, closed


async def _settle(protocol: HttpProtocol, state: ServerState) -> None:
    """Returns once the application waits for the client, or has answered."""
    for turn in range(2000):
        answered = protocol._answered
        waits = answered is not None and answered is protocol.cycle and answered.more_body and turn > 20
        if turn > 3 and (not state.tasks or waits):
            return
        await asyncio.sleep(0 if turn < 50 else 0.002)
    raise BrokenLaw("a request that is complete is not answered within 4 s")


# --- laws


def check(data: bytes) -> None:
    head, _, sent = data.partition(b"\n")
    sizes = tuple(int(word) or 1 for word in head[:100].split() if word.isdigit() and len(word) < 6)
    came = serve(sent, sizes or (len(sent) + 1,))
    _check_log(came)
    answers = _answers(came)
    for answer in answers:
        _check_answer(answer)
    other = serve(sent, (len(sent) + 1,) if sizes else (1 if len(sent) < 300 else 37,))
    others = _answers(other)
    if not all(answer.is_of_application for answer in (*answers, *others)):
        return  # whether a key or what is no HTTP is seen first depends on what comes together
    if came.seen and not came.seen[0].statuses and other.seen and other.seen[0].statuses:
        raise BrokenLaw("a request that came together with others is not answered")
    # Where one is refused before its body has come, what is still answered depends on when that comes.
    pairs = zip(_comparable(answers), _comparable(others), strict=False)
    if (different := next((pair for pair in pairs if pair[0] != pair[1]), None)) is not None:
        raise BrokenLaw(f"other answers, as reads cut it: {different}")


def _check_log(came: Served) -> None:
    if came.raised:
        raise came.raised[0]
    for record in came.records:
        words = record.getMessage()
        if record.exc_info or "bug in routeproxy" in words:
            raise BrokenLaw(f"an exception in the log: {words}: {record.exc_info}")
        if "\n" in words or any(secret in words for secret in SECRETS):
            raise BrokenLaw(f"a line of the log: {words[:300]!r}")


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes
    asked: _Seen | None
    """What it answers; `None` if the application was not asked."""

    @property
    def is_of_application(self) -> bool:
        return self.asked is not None and bool(self.asked.statuses)


_STATUS = re.compile(rb"HTTP/1\.1 ([1-5]\d\d) [ -~]*\r\n")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ?([\t\x20-\x7e\x80-\xff]*)\r\n")


def _answers(came: Served) -> list[Answer]:
    """The answers on a connection, as a strict client reads them."""
    rest, seen, answers = came.written, iter(came.seen), []
    while rest:
        if (status := _STATUS.match(rest)) is None:
            raise BrokenLaw(f"no HTTP: {rest[:200]!r}")
        rest, headers = rest[status.end() :], {}
        while header := _HEADER.match(rest):
            name = header[1].decode().lower()
            if name in headers and name in ("content-length", "content-type", "transfer-encoding"):
                raise BrokenLaw(f"{name} twice")
            headers[name], rest = header[2].decode("latin-1"), rest[header.end() :]
        if not rest.startswith(b"\r\n"):
            raise BrokenLaw(f"no header: {rest[:200]!r}")
        rest = rest[2:]
        if int(status[1]) == 100:
            continue
        asked = next(seen, None)
        body, rest = _body(int(status[1]), headers, rest, asked, came.closed)
        answers.append(Answer(int(status[1]), headers, body, asked))
    return answers


def _body(
    status: int, headers: dict[str, str], rest: bytes, asked: _Seen | None, closed: bool
) -> tuple[bytes, bytes]:
    if status in (204, 304) or (asked is not None and asked.method == "HEAD"):
        return b"", rest
    if headers.get("transfer-encoding") == "chunked":
        parts = []
        while chunk := re.match(rb"([0-9a-f]+)\r\n", rest):
            size = int(chunk[1], 16)
            part, rest = rest[chunk.end() :][:size], rest[chunk.end() + size :]
            if len(part) < size or not rest.startswith(b"\r\n"):
                raise BrokenLaw("half a chunk")
            rest = rest[2:]
            if not size:
                return b"".join(parts), rest
            parts.append(part)
        raise BrokenLaw("chunks without an end")
    if "content-length" in headers:
        size = int(headers["content-length"])
        if len(rest) < size:
            raise BrokenLaw(f"{len(rest)} of {size} bytes")
        return rest[:size], rest[size:]
    if not closed:
        raise BrokenLaw("a body without a length on a connection that stays open")
    return rest, b""


API = ("/v1/messages", "/v1/messages/count_tokens", "/v1/route", "/v1/models")


def _check_answer(answer: Answer) -> None:
    said = answer.body.decode("utf-8")
    if answer.status == 500 or answer.status > 599:
        raise BrokenLaw(f"status {answer.status}: {said[:200]}")
    if "request-id" not in answer.headers:
        raise BrokenLaw(f"an answer without a request-id: {answer.status} {answer.headers}")
    everything = said + repr(answer.headers)
    for word in (*SECRETS, "Traceback", "litestar", "uvicorn", "msgspec"):
        if word in everything.lower() and answer.status >= 400:
            raise BrokenLaw(f"an error has `{word}` in it: {said[:200]}")
    if PROVIDER_KEY in everything:
        raise BrokenLaw("an answer tells a key")
    if answer.status < 400 or not answer.body:
        return
    if answer.asked is None or answer.asked.path.startswith("/v1/"):
        error = json.loads(said)
        if answer.headers.get("content-type") != "application/json" or not (
            error.get("type") == "error"
            and isinstance(error["error"].get("type"), str)
            and isinstance(error["error"].get("message"), str)
            and error["error"]["message"]
        ):
            raise BrokenLaw(f"an error in another shape: {said[:200]}")
        if len(error["error"]["message"]) > 2000:
            raise BrokenLaw(f"an error of {len(error['error']['message'])} characters")


_MADE_UP = re.compile(r"(req|msg|toolu)_\w+|\"[0-9T:.Z-]{20,}\"")


def _comparable(answers: list[Answer]) -> list[Any]:
    return [
        (answer.status, _MADE_UP.sub("", answer.body.decode())[:500])
        for answer in answers
        # When a stream is told that its body is no body depends on when that comes.
        if answer.headers.get("content-type", "").startswith("application/json")
    ]


# --- inputs

HEADERS = {"x-api-key": CLIENT_KEY, "anthropic-version": "2023-06-01", "content-type": "application/json"}


def _request(body: object = b"", path: str = "/v1/messages", method: str = "POST", **headers: str) -> bytes:
    return request_bytes(
        body, path, method, **{name: value for name, value in {**HEADERS, **headers}.items() if value}
    )


def _chunked(body: bytes, *trailers: bytes) -> bytes:
    head = _request().replace(b"content-length: 0", b"transfer-encoding: chunked")
    return head + b"%x\r\n%b\r\n0\r\n" % (len(body), body) + b"".join(trailers) + b"\r\n"


def _seeds() -> Iterator[bytes]:
    body = json.dumps(request(stream=False)).encode()
    streamed = json.dumps(request(stream=True)).encode()
    tools = [{"name": "Bash", "input_schema": {"type": "object"}}]
    packed = zlib.compress(body)
    whole = [
        _request(body),
        _request(streamed),
        _request(
            request(tools=tools, thinking={"type": "enabled", "budget_tokens": 1024}),
            authorization="Bearer x",
        ),
        _request(request(model="denied")),
        _request(body, **{"x-api-key": EXPLAINED_KEY, "x-routeproxy-explain": "1"}),
        _request(body, "/v1/route", **{"x-api-key": ADMIN_KEY}),
        _request(body, "/v1/messages/count_tokens?beta=true"),
        _request(body, "/echo:small/v1/messages"),
        _request(body, "/v1/complete"),
        _request(body, **{"x-api-key": ""}),
        _request(body, **{"x-api-key": "wrong", "authorization": f"Bearer {CLIENT_KEY}"}),
        _request(b"{", **{"x-routeproxy-no-fallback": "1"}),
        _request(packed, **{"content-encoding": "deflate"}),
        _request(packed[:9], **{"content-encoding": "gzip"}),
        _request(body, **{"content-encoding": "br"}),
        _request(body, expect="100-continue"),
        _request(body, origin="https://a.example", host="evil.example"),
        _request(body, upgrade="h2c", connection="upgrade, http2-settings"),
        _chunked(body),
        _chunked(streamed, b"x-api-key: other\r\n", b"content-length: 3\r\n"),
        _request(body) * 3,
        _request(body, connection="close") + _request(body),
        _request(body).replace(b"HTTP/1.1", b"HTTP/1.0"),
        _request(body, "http://127.0.0.1/v1/messages"),
        _request(b"", "*", "OPTIONS"),
        *(
            _request(b"", path, method, accept=accept)
            for path in (
                "/",
                "/healthz",
                "/readyz",
                "/v1/models",
                "/v1/models/fast",
                "/-/status",
                "/api/hello",
                "/x",
            )
            for method, accept in (("GET", "text/html"), ("HEAD", "*/*"))
        ),
        _request(b"", "/-/reload", "POST", **{"x-api-key": ADMIN_KEY}),
        _request(b"", "/-/status", "GET", **{"x-api-key": ADMIN_KEY}),
        _request(b"", "/-/rollback?to=1", "POST", **{"x-api-key": ADMIN_KEY}),
        _request(b"", "/v1/models?limit=1&after_id=x", "GET"),
    ]
    for number, sent in enumerate(whole):
        yield (b"\n", b"50\n", b"7 200\n")[number % 3] + sent


WORDS = (
    *(
        "model",
        "messages",
        "max_tokens",
        "stream",
        "tools",
        "role",
        "content",
        "system",
        "fast",
        "denied",
        "user",
    ),
    *("claude-x", "metadata", "thinking", "type", "text", "name", "Bash", "input_schema", "stop_sequences"),
)
_BYTES = (
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b" ",
        b"\t",
        b": ",
        b"\r\n\r\n",
        b"%00",
        b"%2e%2e",
        b"%ff",
        b"//",
        b"?",
        b"#",
    ),
    *(
        b"transfer-encoding: chunked\r\n",
        b"content-length: 0\r\n",
        b"content-length: 99\r\n",
        b"expect: x\r\n",
    ),
    *(
        b"connection: close\r\n",
        b"content-encoding: gzip\r\n",
        b"x-api-key: " + CLIENT_KEY.encode() + b"\r\n",
    ),
    *(
        b"anthropic-version: 1\r\n",
        b"host: \r\n",
        b"host: [::1\r\n",
        b"origin: null\r\n",
        b"GET",
        b"HEAD",
        b"POST",
    ),
    *(
        b"PUT",
        b"DELETE",
        b"CONNECT",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"HTTP/1.0",
        b"HTTP/2.0",
        b"ffffffffffffffff",
    ),
    *(
        b"/v1/messages",
        b"/v1/models/",
        b"/echo:a/v1/messages",
        b"/fast:/v1/route",
        b"http://",
        b"/-/",
        b"\x80",
        b"*",
    ),
    *(
        b"x-routeproxy-explain: 1\r\n",
        b"x-routeproxy-no-fallback: 2\r\n",
        b"accept: text/html\r\n",
        b"; a=b",
        b"-1",
    ),
    *(
        b"anthropic-beta: a\r\n",
        b"user-agent: claude-cli/2.1\r\n",
        b"access-control-request-method: POST\r\n",
    ),
)


def mutate(data: bytes, random: Random) -> bytes:
    sizes, _, sent = data.partition(b"\n")
    for _ in range(random.choice((1, 1, 2, 3))):
        head, blank, body = sent.partition(b"\r\n\r\n")
        match random.randrange(8):
            case 0:
                sizes = b" ".join(
                    b"%d" % random.choice((1, 2, 5, 40, 300)) for _ in range(random.randrange(3))
                )
            case 1 | 2:
                sent = mutate_bytes(sent, random, _BYTES)
            case 3 | 4 if body.startswith(b"{"):
                body = mutate_json(body, random, WORDS)
                if random.random() < 0.8:
                    head = re.sub(rb"content-length: \d+", b"content-length: %d" % len(body), head)
                sent = head + blank + body
            case 5:
                sent += random.choice(SURFACE.seeds).partition(b"\n")[2]
            case _:
                lines = mutate_parts(
                    head.split(b"\r\n"), random, lambda line, r: mutate_bytes(line, r, _BYTES)
                )
                sent = b"\r\n".join(lines) + blank + body
    return sizes + b"\n" + sent


SURFACE = Surface(tuple(_seeds()), mutate, check)
