"""A real `routeproxy serve` with one worker, for the benchmarks that look at it from outside."""

import http.client
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def serving(
    rules: str, port: int, environ: Mapping[str, str] | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """Serves `rules` (TOML) on loopback until the block ends, with these variables besides our own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rules.toml")
        path.write_text(rules, encoding="utf-8")
        server = subprocess.Popen(
            [sys.executable, "-m", "routeproxy", "serve", "--rules", str(path), "--port", str(port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **(environ or {})},
        )
        try:
            _wait_until_ready(port)
            yield server
        finally:
            server.terminate()
            server.wait(30)


def _wait_until_ready(port: int) -> None:
    for _ in range(600):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise SystemExit("the server did not start")
