"""A real routeproxy on loopback: the parts that `serve` builds, under a real uvicorn."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from routeproxy.serve import App, Options, Server, Sources, listen
from routeproxy.web.streaming import Patience


class Running:
    def __init__(self, url: str, app: App, rules: Path) -> None:
        self.url = url
        self.app = app
        self.rules = rules

    def post(self, body: object, path: str = "/v1/messages", **headers: str) -> httpx.Response:
        """A POST, answered whole. Header names are written with underscores."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        with httpx.Client(timeout=30) as client:
            if isinstance(body, bytes):
                return client.post(self.url + path, content=body, headers=named)
            return client.post(self.url + path, json=body, headers=named)

    def get(self, path: str, method: str = "GET", **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        with httpx.Client(timeout=30) as client:
            return client.request(method, self.url + path, headers=named)


@contextmanager
def running(
    rules: str,
    folder: Path,
    environ: Mapping[str, str] | None = None,
    *,
    options: Options | None = None,
    patience: Patience | None = None,
) -> Iterator[Running]:
    """Serves `rules` (TOML) until the block ends. Only the variables in `environ` exist for it."""
    path = folder / "rules.toml"
    path.write_text(rules, encoding="utf-8")
    app = App(Sources(options or Options(rules=path), dict(environ or {})), patience=patience)
    sock = listen("127.0.0.1", 0)
    server = Server(app)
    thread = threading.Thread(target=server.run, args=([sock],), daemon=True)
    thread.start()
    limit = time.monotonic() + 10
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        assert time.monotonic() < limit, "the server did not start in time"
        time.sleep(0.005)
    try:
        yield Running(f"http://127.0.0.1:{sock.getsockname()[1]}", app, path)
    finally:
        server.stop(at_once=True)
        thread.join(15)


def request(text: str = "Hi", **fields: object) -> dict[str, object]:
    """The smallest request, and what a test adds to it."""
    return {
        "model": "claude-sonnet-5",
        "max_tokens": 100,
        "messages": [{"role": "user", "content": text}],
        **fields,
    }
