"""What other clients feel while one sends bodies that are made to hold the server.

    python benchmarks/hostile_bodies.py [NAME ...]

A real `routeproxy serve` with one worker gets each body while `/healthz` is asked every 5 ms over a
connection of its own. Printed are the status, how long the body took, and the median and the longest time
that `/healthz` took to answer meanwhile (ms). The law: 50 in the median, 100 at most, on two idle cores.
"""

import argparse
import gzip
import http.client
import statistics
import threading
import time
from collections.abc import Callable

from serving import serving

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


def _measure(name: str, port: int) -> None:
    body = BODIES[name]()
    packed = gzip.compress(body, 6)
    ways = [("/v1/messages", body, {}), ("/v1/messages", packed, {"content_encoding": "gzip"})]
    ways += [(path, body, {}) for path in ("/v1/messages/count_tokens", "/v1/route")]
    for path, sent, headers in ways:
        watch = _Watch(port)
        watch.start()
        begun = time.perf_counter()
        status = _send(port, path, sent, **headers)
        took = (time.perf_counter() - begun) * 1000
        watch.stop()
        how = f"{path}{' gzip' if headers else ''}"
        print(
            f"{name:20} {how:26} {status} {took:8.0f} ms   /healthz median"
            f" {statistics.median(watch.times):6.1f}  longest {max(watch.times):7.1f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *BODIES], metavar="NAME")
    parser.add_argument("--port", type=int, default=18_482)
    arguments = parser.parse_args()
    with serving(RULES, arguments.port):
        for name in arguments.names or BODIES:
            _measure(name, arguments.port)


if __name__ == "__main__":
    main()
