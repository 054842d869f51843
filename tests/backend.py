"""A scripted back end on loopback: real bytes over a real socket, stalls, resets and all.

    with BackEnd(sse(chunk("Hel"), chunk("lo"), done())) as back_end:
        ...  # back_end.url is where it listens, back_end.requests what it was asked

Each request takes the next answer; the last one is repeated. An answer is a list of steps: bytes to write,
`pause(seconds)`, `RESET` (the connection is torn down), `CUT` (closed in mid-answer) or `HANG` (silence until
the client leaves).
"""

import asyncio
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from tests.budgets import seconds


class Received(NamedTuple):
    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


class pause(float):
    """Seconds of silence."""


class _Ending(str):
    __slots__ = ()


RESET = _Ending("reset")
CUT = _Ending("cut")
HANG = _Ending("hang")

Step = bytes | pause | _Ending
Script = Sequence[Step]
Answer = Script | Callable[[Received], Script]

REASONS = {200: "OK", 302: "Found"}


def answer(status: int = 200, body: bytes = b"", **headers: str) -> list[Step]:
    """A whole answer with a content-length. `content_type="…"` and the like become headers."""
    return [_head(status, {"content-length": str(len(body)), **headers}), body]


def json_answer(value: object, status: int = 200, **headers: str) -> list[Step]:
    return answer(status, json.dumps(value).encode(), **{"content_type": "application/json", **headers})


def error(
    status: int, message: str, code: str | None = None, type: str = "invalid_request_error", **headers: str
) -> list[Step]:
    """An error as OpenAI says it."""
    return json_answer({"error": {"message": message, "type": type, "code": code}}, status, **headers)


def streamed(*steps: Step, status: int = 200, **headers: str) -> list[Step]:
    """An event stream in HTTP chunks, one for each bytes step, ended properly unless a step ends it
    otherwise."""
    headers = {"content_type": "text/event-stream", **headers}
    script: list[Step] = [_head(status, {"transfer-encoding": "chunked", **headers})]
    for step in steps:
        if isinstance(step, bytes):
            script.append(b"%x\r\n%b\r\n" % (len(step), step))
        else:
            script.append(step)
            if isinstance(step, _Ending):
                return script
    return [*script, b"0\r\n\r\n"]


def sse(*chunks: "dict[str, Any] | Step", **headers: str) -> list[Step]:
    """A chat completions stream: dicts become `data:` lines, then `[DONE]`."""
    steps = [data(step) if isinstance(step, dict) else step for step in chunks]
    return streamed(
        *steps,
        *([] if any(isinstance(step, _Ending) for step in steps) else [b"data: [DONE]\n\n"]),
        **headers,
    )


def data(value: object) -> bytes:
    return b"data: %b\n\n" % json.dumps(value).encode()


def chunk(
    text: str | None = None, *, finish: str | None = None, usage: Any = None, **delta: Any
) -> dict[str, Any]:
    """One chunk of a chat completions stream."""
    if text is not None:
        delta["content"] = text
    made: dict[str, Any] = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "served-model",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }
    return made | ({"usage": usage} if usage else {})


def done(finish: str = "stop", prompt: int = 10, completion: int = 5) -> dict[str, Any]:
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return chunk(finish=finish, usage=usage)


def tool_chunk(
    index: int, name: str | None = None, arguments: str | None = None, *, id: str | None = None
) -> dict[str, Any]:
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    call = {"index": index, "type": "function", "function": function} | ({"id": id} if id else {})
    return chunk(tool_calls=[call])


def completion(text: str | None = "Hello", *, finish: str = "stop", **message: Any) -> dict[str, Any]:
    """A whole chat completion."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "served-model",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, **message},
                "finish_reason": finish,
            }
        ],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }


def event(type: str, **fields: Any) -> bytes:
    """One frame of a Messages stream."""
    return f"event: {type}\ndata: {json.dumps({'type': type, **fields})}\n\n".encode()


def messages_stream(
    text: str = "Hello", model: str = "claude-served", *, chunks: Iterable[str] = ()
) -> list[bytes]:
    """The frames of a Messages stream, for `streamed(*…)`."""
    message = {
        "id": "msg_upstream1",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 12, "output_tokens": 1},
    }
    deltas = [
        event("content_block_delta", index=0, delta={"type": "text_delta", "text": part})
        for part in chunks or [text]
    ]
    return [
        event("message_start", message=message),
        event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        event("ping"),
        *deltas,
        event("content_block_stop", index=0),
        event(
            "message_delta",
            delta={"stop_reason": "end_turn", "stop_sequence": None},
            usage={"output_tokens": 7},
        ),
        event("message_stop"),
    ]


def _head(status: int, headers: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


class BackEnd:
    def __init__(self, *answers: Answer, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.answers: list[Answer] = list(answers)
        self.requests: list[Received] = []
        self.left_at: list[float] = []
        """When a client went away before its answer was complete (`time.monotonic()`)."""
        self.connections = 0
        self.most_at_once = 0
        """How many requests were being answered at once, at most."""
        self._at_once = 0
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def __enter__(self) -> "BackEnd":
        self._thread.start()
        assert self._ready.wait(5)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(5)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def last(self) -> Received:
        return self.requests[-1]

    def wait_until_left(self, usual: float = 3.0) -> float:
        """When the client went away; fails the test when it did not in `seconds(usual)`."""
        limit = time.monotonic() + seconds(usual)
        while not self.left_at:
            assert time.monotonic() < limit, "the back end was not let go"
            time.sleep(0.01)
        return self.left_at[-1]

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, ssl=self._tls, backlog=256)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._over.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while received := await _read_request(reader):
                self.requests.append(received)
                script = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                self._at_once += 1
                self.most_at_once = max(self.most_at_once, self._at_once)
                try:
                    if not await self._play(script(received) if callable(script) else script, reader, writer):
                        break
                finally:
                    self._at_once -= 1
        except (ConnectionError, asyncio.IncompleteReadError):
            self.left_at.append(time.monotonic())
        except asyncio.CancelledError:
            pass
        finally:
            writer.close()

    async def _play(self, script: Script, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection may carry another request."""
        for step in script:
            if isinstance(step, bytes):
                writer.write(step)
                await writer.drain()
                continue
            if step == CUT:
                return False
            if step == RESET:
                sock: socket.socket = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
                return False
            try:
                left = await asyncio.wait_for(reader.read(1), None if step == HANG else float(step))
            except TimeoutError:
                continue
            assert left == b"", "a client that pipelines is not in any script"
            self.left_at.append(time.monotonic())
            return False
        return True


async def _read_request(reader: asyncio.StreamReader) -> Received | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    method, path, _ = first.split(" ", 2)
    headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    lower = {name.lower(): value for name, value in headers}
    if "chunked" in lower.get("transfer-encoding", ""):
        body = b""
        while size := int(await reader.readline(), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
    else:
        body = await reader.readexactly(int(lower.get("content-length", 0)))
    return Received(method, path, headers, body)
