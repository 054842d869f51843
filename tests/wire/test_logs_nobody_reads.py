"""Logs that stall, fail or fill up: requests go on, and what is missing is said."""

import json
import os
import pty
import re
import select
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.budgets import seconds
from tests.running import ECHO, Served, request, running, serving, until

ADMIN = {"ADMIN_KEY": "an-admin-key-of-the-tests"}
RULES = f'[server]\ndecision_log = "decisions.jsonl"\nadmin_keys = ["env:ADMIN_KEY"]\n\n{ECHO}'


@contextmanager
def serving_to(
    stderr: int, folder: Path, *flags: str, environ: Mapping[str, str] | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """`routeproxy serve` with this descriptor as its stderr."""
    (folder / "rules.toml").write_text(RULES)
    process = subprocess.Popen(
        [sys.executable, "-m", "routeproxy", "serve", "rules.toml", "--port", "0", *flags],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.getcwd(), **ADMIN, **(environ or {})},
        stderr=stderr,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def read_address(descriptor: int) -> str:
    """The server's address, once all is said that is said at start; from then on nothing is read."""
    read = b""
    limit = time.monotonic() + seconds(15)
    while not re.search(rb'AUTH_TOKEN=\S+ claude"?', read):
        assert time.monotonic() < limit, read
        if select.select([descriptor], [], [], 0.1)[0]:
            read += os.read(descriptor, 4096)
    found = re.search(rb"http://[\w.:]+", read)
    assert found is not None
    return found[0].decode()


def drained(descriptor: int) -> bytes:
    """All that is still to come until everybody has closed the other end."""
    read = b""
    while select.select([descriptor], [], [], seconds(5))[0]:
        try:
            data = os.read(descriptor, 2**16)
        except OSError:  # a terminal whose other end is closed
            break
        if not data:
            break
        read += data
    return read


def ask_much(url: str, number: int) -> None:
    """Requests that leave a line of 300 characters each."""
    with httpx.Client(base_url=url, timeout=seconds(15)) as client:
        for _ in range(number):
            assert client.get("/" + "x" * 230).status_code == 404


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_stderr_that_nobody_drains_stops_no_request_and_loses_no_line(
    tmp_path: Path, workers: int, form: str
) -> None:
    reader, writer = os.pipe()
    flags = ("--log-format", form, "--workers", str(workers))
    with serving_to(writer, tmp_path, *flags) as process:
        os.close(writer)
        url = read_address(reader)
        ask_much(url, 400)  # 120 kB
        assert httpx.post(f"{url}/v1/messages", json=request()).status_code == 200
        status = httpx.get(f"{url}/-/status", headers={"x-api-key": ADMIN["ADMIN_KEY"]}).json()
        assert status["log_lines_lost"] == 0
        read = b""
        while read.count(b" 404") < 400:
            assert select.select([reader], [], [], seconds(5))[0]
            read += os.read(reader, 4096)
        process.send_signal(signal.SIGTERM)
        process.wait(seconds(10))
    read += drained(reader)
    os.close(reader)
    lines = read.decode().splitlines()
    assert sum(" 404" in line for line in lines) == 400
    if form == "json":
        assert {json.loads(line)["level"] for line in lines} <= {"INFO"}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_server_whose_stderr_nobody_drains_stops_when_it_is_told_to(tmp_path: Path, workers: int) -> None:
    reader, writer = os.pipe()
    with serving_to(writer, tmp_path, "--workers", str(workers)) as process:
        os.close(writer)
        url = read_address(reader)
        ask_much(url, 400)
        process.send_signal(signal.SIGTERM)
        assert process.wait(seconds(10)) == 0
    os.close(reader)


def test_a_terminal_that_is_stopped_stops_no_request(tmp_path: Path) -> None:
    terminal, shell = pty.openpty()
    with serving_to(shell, tmp_path) as process:
        url = read_address(terminal)
        os.write(terminal, b"\x13")  # Ctrl-S
        ask_much(url, 100)
        os.write(terminal, b"\x11")  # Ctrl-Q
        read = b""
        while read.count(b"GET") < 100:
            assert select.select([terminal], [], [], seconds(5))[0]
            read += os.read(terminal, 2**16)
        process.send_signal(signal.SIGTERM)
        os.close(shell)
        assert process.wait(seconds(10)) == 0
    os.close(terminal)


@pytest.mark.parametrize("end", ["the reader is gone", "its disk is full"])
def test_a_stderr_that_fails_stops_no_request_and_is_said_in_the_log_file(tmp_path: Path, end: str) -> None:
    reader, writer = os.pipe()
    with serving_to(
        writer if end == "the reader is gone" else os.open("/dev/full", os.O_WRONLY),
        tmp_path,
        environ={"LOG_FILE": "proxy.log", "PORT": "0"},
    ) as process:
        os.close(writer)
        os.close(reader)
        log = tmp_path / "proxy.log"
        port = until(lambda: listening_port(process.pid), 15)
        ask_much(f"http://127.0.0.1:{port}", 5)
        until(lambda: log.exists() and log.read_text().count(" 404") == 5)
        assert log.read_text().count("stderr can't be written") == 1


def listening_port(process: int) -> int | None:
    """The TCP port that a process listens on."""
    inodes = set()
    for link in Path(f"/proc/{process}/fd").iterdir():
        try:
            inodes.add(os.readlink(link))
        except OSError:
            continue
    for line in Path(f"/proc/{process}/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
            return int(fields[1].rpartition(":")[2], 16)
    return None


# --- the decision log


def break_log(path: Path, kind: str) -> None:
    if kind == "a pipe that nobody reads":
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/full")


@pytest.mark.parametrize("at", ["from the start", "later"])
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("a pipe that nobody reads", "it is a pipe that nobody reads, or a socket"),
        ("a folder", "it is a folder"),
        ("a full disk", "no space is left on its disk"),
    ],
)
def test_a_decision_log_that_cannot_be_written_stops_nobody_and_is_said_once_with_its_end(
    tmp_path: Path, kind: str, reason: str, at: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "decisions.jsonl"
    if at == "from the start":
        break_log(path, kind)
    rules = RULES.replace("decisions.jsonl", str(path))
    with running(rules, tmp_path, ADMIN) as proxy:
        if at == "later":
            assert proxy.post(request()).status_code == 200
            until(path.exists)
            path.unlink()
            break_log(path, kind)
        began = time.monotonic()
        assert {proxy.post(request()).status_code for _ in range(5)} == {200}
        assert time.monotonic() - began < seconds(3)
        until(lambda: lost(proxy) == 5)
        path.unlink() if not path.is_dir() else path.rmdir()
        assert proxy.post(request()).status_code == 200
        until(lambda: "the decision log is written again: 5 lines are missing" in caplog.text, 6)
        assert len(path.read_text().splitlines()) == 1
        assert stat.S_IMODE(path.stat().st_mode) & 0o007 == 0
    said = [record.getMessage() for record in caplog.records if "can't be written" in record.getMessage()]
    assert said == [f"the decision log can't be written: {reason} ({path})"]


def lost(proxy: Any) -> int:
    answer = proxy.get("/-/status", x_api_key=ADMIN["ADMIN_KEY"]).json()
    return int(answer["decisions_lost"])


def test_a_decision_log_whose_reader_is_slow_keeps_no_request_waiting(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with running(RULES.replace("decisions.jsonl", str(path)), tmp_path, ADMIN) as proxy:
        with httpx.Client(base_url=proxy.url, timeout=seconds(5)) as client:
            for _ in range(200):  # 64 kB fit into a pipe
                assert client.post("/v1/messages", json=request()).status_code == 200
        os.set_blocking(reader, True)
        read = b""
        while read.count(b"\n") < 200:
            read += os.read(reader, 4096)
        assert len({json.loads(line)["id"] for line in read.splitlines()}) == 200
        assert lost(proxy) == 0
    os.close(reader)


def test_a_decision_is_written_before_the_process_ends(tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text(RULES)
    with serving(tmp_path, "rules.toml", "--port", "0", environ=ADMIN) as served:
        until(lambda: is_ready(served), 15)
        answers = [served.post(request()).headers["request-id"] for _ in range(20)]
        served.send_signal(signal.SIGTERM)
        assert served.exit_code(10) == 0
    logged = [json.loads(line)["id"] for line in (tmp_path / "decisions.jsonl").read_text().splitlines()]
    assert logged == answers


def is_ready(served: Served) -> bool:
    try:
        return served.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def test_a_log_file_that_is_a_pipe_nobody_reads_delays_no_start(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "proxy.log")
    (tmp_path / "rules.toml").write_text(ECHO)
    environ = {"LOG_FILE": "proxy.log"}
    with serving(tmp_path, "rules.toml", "--port", "0", environ=environ) as served:
        until(lambda: is_ready(served), 15)
        assert served.post(request()).status_code == 200
        until(lambda: "the log file can't be written: it is a pipe that nobody reads" in served.stderr)
        assert served.stderr.count("can't be written") == 1
