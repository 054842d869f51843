"""`routeproxy health`, and the image's health check, which is that."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.running import ECHO, Running, running

ROOT = Path(__file__).parents[2]
NO_PROXY_ANSWERS = "http://127.0.0.1:1"


def health_check_of_the_image(folder: Path) -> list[str]:
    """Its command, as the Dockerfile has it, with the rules of a test and the program of this tree."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    found = re.search(r"^HEALTHCHECK .*?CMD (\[.*\])$", text, re.MULTILINE)
    assert found is not None
    program, *words = json.loads(found[1])
    assert program == "routeproxy"
    rules = str(folder / "rules.toml")
    words = [word.replace("/etc/routeproxy/rules.toml", rules) for word in words]
    return [sys.executable, "-m", "routeproxy", *words]


def check(folder: Path, *flags: str, environ: Mapping[str, str] | None = None) -> tuple[int, str]:
    ran = subprocess.run(
        [*health_check_of_the_image(folder), *flags],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.getcwd(), **(environ or {})},
        capture_output=True,
        text=True,
        cwd=folder,
    )
    return ran.returncode, ran.stdout + ran.stderr


def port_of(proxy: Running) -> str:
    return proxy.url.rpartition(":")[2]


PROXIES = dict.fromkeys(
    ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"), NO_PROXY_ANSWERS
)


@pytest.mark.parametrize("stated", ["PORT", "[server] port", "--port"])
def test_the_images_health_check_finds_the_server_past_proxies(tmp_path: Path, stated: str) -> None:
    with running(ECHO, tmp_path) as proxy:
        port = port_of(proxy)
        if stated == "[server] port":
            proxy.rules.write_text(f"[server]\nport = {port}\n\n{ECHO}")
        code, said = check(
            tmp_path,
            *(["--port", port] if stated == "--port" else []),
            environ=PROXIES | ({"PORT": port} if stated == "PORT" else {}),
        )
    assert (code, said.startswith(f'0.0.0.0:{port} answers 200: {{"status":"ready"')) == (0, True), said


def test_a_broken_rules_file_makes_no_server_unhealthy(tmp_path: Path) -> None:
    with running(ECHO, tmp_path) as proxy:
        proxy.rules.write_text("this is no TOML")
        assert check(tmp_path, environ={"PORT": port_of(proxy)})[0] == 0


def test_a_server_that_is_told_to_stop_is_not_ready(tmp_path: Path) -> None:
    with running(ECHO, tmp_path) as proxy:
        proxy.app.in_flight.draining = True
        code, said = check(tmp_path, environ={"PORT": port_of(proxy)})
    assert (code, "answers 503" in said) == (1, True)


def test_nobody_there_is_not_ready(tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text(ECHO)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        assert check(tmp_path, environ={"PORT": str(port)}) == (
            1,
            f"0.0.0.0:{port} can't be reached: connection refused\n",
        )


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "did not answer within 0.5 s"),
        (b"SSH-2.0-OpenSSH\r\n", "does not speak HTTP"),
    ],
)
def test_somebody_else_there_is_not_ready(tmp_path: Path, answer: bytes, words: str) -> None:
    (tmp_path / "rules.toml").write_text(ECHO)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        asking = subprocess.Popen(
            [*health_check_of_the_image(tmp_path), "--timeout", "0.5"],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": os.getcwd(), "PORT": str(port)},
            stdout=subprocess.PIPE,
            text=True,
        )
        server.settimeout(30)
        connection, _ = server.accept()
        if answer:
            connection.sendall(answer)
        said, _ = asking.communicate(timeout=30)
        connection.close()
    assert (asking.returncode, words in said) == (1, True), said


def test_the_image_runs_as_a_number(tmp_path: Path) -> None:
    users = re.findall(r"^USER (.+)$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert users == ["10001:10001"]


def test_the_check_has_the_flags_that_the_image_serves_with() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    checked, served = (json.loads(words) for words in re.findall(r"CMD (\[.*\])$", text, re.MULTILINE))
    assert checked[2:] == served[1:]
