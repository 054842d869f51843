"""What other clients feel while one sends bodies that are made to hold the server.

    python benchmarks/hostile_bodies.py [--back-end KIND] [NAME ...]

A real `routeproxy serve` with one worker gets each body, for each kind of back end, while `/healthz` is asked
every 5 ms over a connection of its own. Printed are the status, how long the body took, and the median and
the longest time that `/healthz` took to answer meanwhile (ms). The law: 50 in the median, 100 at most, on two
idle cores.
"""

import argparse
import gzip
import http.client
import http.server
import multiprocessing
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from serving import serving

BACK_ENDS = {
    "chat": """type = "openai_compatible"\nbase_url = "http://127.0.0.1:{port}/v1" """,
    "responses": """type = "openai"\napi = "responses"\nbase_url = "http://127.0.0.1:{port}/v1" """,
    "gemini": """type = "gemini"\nbase_url = "http://127.0.0.1:{port}/v1beta" """,
    "ollama": """type = "ollama"\nbase_url = "http://127.0.0.1:{port}" """,
    "messages": """type = "anthropic"\nbase_url = "http://127.0.0.1:{port}" """,
    "litellm": """type = "openai_compatible"\nengine = "litellm"\nbase_url = "http://127.0.0.1:{port}/v1" """,
}
"""Besides `echo`. They refuse every request."""

RULES = """
[providers.echo]

[[rules]]
name = "pictures"
match.images = true
targets = "echo/pictures"

[default]
targets = "echo/*"
"""
SIZE = 31 * 2**20


def _rules(port: int) -> str:
    """With the address of the back ends."""
    providers = "".join(
        f'[providers.{name}]\n{settings.format(port=port)}\napi_key = "none"\n'
        f'[[rules]]\nname = "{name}"\nmatch.headers.x-back-end = "{name}"\ntargets = "{name}/m"\n'
        for name, settings in BACK_ENDS.items()
    )
    return providers + RULES


def _in_message(content: bytes) -> bytes:
    return b'{"model":"m","max_tokens":9,"messages":[{"role":"user","content":%b}]}' % content


def _beside_message(field: bytes) -> bytes:
    return b'{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"}],%b}' % field


def _of_messages(message: bytes, count: int) -> bytes:
    return b'{"model":"m","max_tokens":9,"messages":%b}' % _array(message, count - 1)


def _array(item: bytes, count: int | None = None) -> bytes:
    count = SIZE // (len(item) + 1) if count is None else count
    return b"[" + (item + b",") * count + item + b"]"


def _string(text: bytes, size: int = SIZE) -> bytes:
    return b'"' + text * (size // len(text)) + b'"'


VALUES, MEMBERS, ESCAPES = 590_000, 99_000, 1_900_000
"""Just below the bounds of `routeproxy/messages/weight.py`."""

BODIES: dict[str, Callable[[], bytes]] = {
    "arrays": lambda: _in_message(_array(b"[]")[:-1] + b',"image"]'),
    "nested": lambda: _in_message(b"[" * (SIZE // 2) + b'"image"' + b"]" * (SIZE // 2)),
    "objects": lambda: _in_message(_array(b'{"a":1}')),
    "arrays-allowed": lambda: _in_message(_array(b"[]", VALUES // 2)),
    "objects-allowed": lambda: _in_message(_array(b'{"a":1}', VALUES // 3)),
    "messages-allowed": lambda: _of_messages(b'{"role":"user","content":"a"}', 100_000),
    "blocks-allowed": lambda: _in_message(_array(b'{"type":"text","text":"a"}', VALUES // 5)),
    "results-allowed": lambda: _in_message(
        _array(
            b'{"type":"tool_result","tool_use_id":"a","content":[{"type":"text","text":"a"}]}', VALUES // 12
        )
    ),
    "half-emojis": lambda: _in_message(_string(b"\\ud83d")),
    "half-emojis-allowed": lambda: _in_message(_string(b"\\ud83d", ESCAPES * 6)),
    "backslashes": lambda: _in_message(_string(b"\\\\")),
    "escapes-allowed": lambda: _in_message(_string(b"\\nabcdefghijklm", ESCAPES * 15)),
    "controls-allowed": lambda: _in_message(_string(b"\\u0001", ESCAPES * 6)),
    "code": lambda: _in_message(_string(b"return f(a, b, [c]) # it {\\n")),
    "plain": lambda: _in_message(_string(b"plain ")),
    "digits": lambda: _beside_message(b'"temperature":' + b"9" * 1_000_000),
    "long-key": lambda: _beside_message(_string(b"k") + b":1"),
    "keys": lambda: _beside_message(b",".join(b'"k%d":1' % at for at in range(1_000_000))),
    "keys-allowed": lambda: _beside_message(b",".join(b'"k%d":1' % at for at in range(MEMBERS))),
    "metadata-allowed": lambda: _beside_message(
        b'"metadata":{' + b",".join(b'"k%d":1' % at for at in range(MEMBERS)) + b"}"
    ),
    "tools-allowed": lambda: _beside_message(
        b'"tools":' + _array(b'{"name":"a","input_schema":{}}', VALUES // 6)
    ),
    "schema-allowed": lambda: _beside_message(
        b'"tools":[{"name":"a","input_schema":{"enum":' + _array(b'{"a":1}', VALUES // 3) + b"}}]"
    ),
    "no-utf-8": lambda: _in_message(_string(b"\xff")),
    "cut": lambda: _in_message(_string(b"plain "))[:-5],
    "wrong-type": lambda: _in_message(_array(b"1", VALUES)),
}


class _Refusing(http.server.BaseHTTPRequestHandler):
    """Reads a request and refuses it."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        left = int(self.headers["content-length"] or 0)
        while left and (piece := self.rfile.read(min(left, 1_048_576))):
            left -= len(piece)
        body = b'{"error":{"message":"no"}}'
        self.send_response(400)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def _back_ends(port: int) -> Iterator[None]:
    """In a process of their own."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), _Refusing)
    process = multiprocessing.get_context("fork").Process(target=server.serve_forever)
    process.start()
    server.socket.close()
    try:
        yield
    finally:
        process.terminate()
        process.join()


class _Watch(threading.Thread):
    """Asks `/healthz` until it is stopped."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._port, self._stopped = port, threading.Event()
        self.times: list[float] = []

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port)
        while not self._stopped.is_set():
            begun = time.perf_counter()
            connection.request("GET", "/healthz")
            connection.getresponse().read()
            self.times.append((time.perf_counter() - begun) * 1000)
            time.sleep(0.005)

    def stop(self) -> None:
        self._stopped.set()
        self.join()


def _send(port: int, path: str, body: bytes, **headers: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("POST", path, body, {"content-type": "application/json", **named})
    answer = connection.getresponse()
    answer.read()
    return answer.status


def _measure(name: str, back_end: str, port: int) -> None:
    body = BODIES[name]()
    to = {"x_back_end": back_end}
    ways = [("/v1/messages", body, to)]
    if back_end == "echo":
        ways += [("/v1/messages", gzip.compress(body, 6), {"content_encoding": "gzip"})]
        ways += [("/v1/messages/count_tokens", body, {})]
    if back_end != "litellm":
        ways += [("/v1/route", body, to)]
    for path, sent, headers in ways:
        watch = _Watch(port)
        watch.start()
        begun = time.perf_counter()
        status = _send(port, path, sent, **headers)
        took = (time.perf_counter() - begun) * 1000
        watch.stop()
        how = f"{path}{' gzip' if 'content_encoding' in headers else ''}"
        print(
            f"{name:20} {back_end:9} {how:26} {status} {took:8.0f} ms   /healthz median"
            f" {statistics.median(watch.times):6.1f}  longest {max(watch.times):7.1f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *BODIES], metavar="NAME")
    parser.add_argument("--port", type=int, default=18_482)
    parser.add_argument("--back-end", action="append", choices=["echo", *BACK_ENDS], help="all if left out")
    arguments = parser.parse_args()
    with _back_ends(arguments.port + 1), serving(_rules(arguments.port + 1), arguments.port):
        for name in arguments.names or BODIES:
            for back_end in arguments.back_end or ["echo", *BACK_ENDS]:
                _measure(name, back_end, arguments.port)


if __name__ == "__main__":
    main()
