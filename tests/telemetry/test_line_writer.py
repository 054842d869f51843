"""Lines that are written beside the event loop: in order, whole, counted where they are lost; nobody waits
for them."""

import errno
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from routeproxy.telemetry import line_writer, logs
from routeproxy.telemetry.line_writer import FileOutput, LineWriter, Output
from routeproxy.telemetry.logs import LineHandler, configure
from tests.budgets import seconds
from tests.running import until

LINES = [f"line {number} {'x' * 90}\n".encode() for number in range(50)]


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(line_writer, "SETTLED_SECONDS", 0.2)
    monkeypatch.setattr(line_writer, "ABANDON_SECONDS", 0.2)
    yield
    logs._install([])


class Disk(Output):
    """A file that takes as many bytes as it has room for."""

    def __init__(self, room: int = 10**9, at_once: int = 1) -> None:
        self.content = b""
        self.room = room
        self.at_once = at_once

    def write(self, data: bytes) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = data[: self.room]
        self.content += taken
        self.room -= len(taken)
        return len(taken)


class Stalled(Output):
    """Takes nothing until it is let."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.goes_on = threading.Event()

    def write(self, data: bytes) -> int:
        assert self.goes_on.wait(seconds(10))
        self.lines += data.splitlines(keepends=True)
        return len(data)


def put(writer: LineWriter, *lines: bytes) -> None:
    for line in lines:
        writer.put(line)
    assert writer.flush(seconds(5))


# --- whole lines, in order


@pytest.mark.parametrize("at_once", [1, 150, 4096, 2**16])
def test_lines_are_written_in_their_order_however_many_at_once(at_once: int) -> None:
    disk = Disk(at_once=at_once)
    put(LineWriter(disk, "the log"), *LINES)
    assert disk.content == b"".join(LINES)


@pytest.mark.parametrize("step", [1, 7, 99, 100, 101])
def test_a_write_that_takes_a_part_is_completed(step: int) -> None:
    class Slow(Disk):
        def write(self, data: bytes) -> int:
            return super().write(data[:step])

    put(LineWriter(disk := Slow(at_once=4096), "the log"), *LINES)
    assert disk.content == b"".join(LINES)


@pytest.mark.parametrize("at_once", [1, 4096])
@pytest.mark.parametrize("room", [0, 1, 97, 99, 100, 250])
def test_a_full_disk_tears_no_other_line_and_is_said_once_with_its_end(
    room: int, at_once: int, caplog: pytest.LogCaptureFixture
) -> None:
    line = b"x" * 98 + b"\n"
    writer = LineWriter(disk := Disk(room, at_once), "the decision log", "d.jsonl")
    put(writer, *([line] * 10))
    put(writer, *([line] * 10))
    whole = room // 99
    assert writer.lost == 20 - whole
    disk.room = 10**6
    put(writer, b"after\n")
    until(lambda: "written again" in caplog.text, 5)
    assert [text for text in disk.content.splitlines() if text not in (line.strip(), b"after")] == (
        [b"x" * (room % 99)] if room % 99 else []
    )
    assert disk.content.endswith(b"\nafter\n" if room else b"after\n")
    assert [record.getMessage() for record in caplog.records] == [
        "the decision log can't be written: no space is left on its disk (d.jsonl)",
        f"the decision log is written again: {20 - whole} lines are missing",
    ]


def test_a_disk_with_room_for_every_other_line_is_full_once(caplog: pytest.LogCaptureFixture) -> None:
    writer = LineWriter(disk := Disk(0), "the log")
    for _ in range(20):
        disk.room = 0
        put(writer, b"lost\n")
        disk.room = 100
        put(writer, b"kept\n")
    until(lambda: "written again" in caplog.text, 5)
    assert disk.content == b"kept\n" * 20
    assert [record.getMessage() for record in caplog.records] == [
        "the log can't be written: no space is left on its disk",
        "the log is written again: 20 lines are missing",
    ]


def test_what_an_earlier_process_tore_is_ended_first(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b'whole\n{"time":"2026')
    put(LineWriter(FileOutput(tmp_path / "log"), "the log"), b"next\n")
    assert (tmp_path / "log").read_bytes() == b'whole\n{"time":"2026\nnext\n'


LIMITED = """
import logging, resource, sys
from pathlib import Path
from routeproxy.telemetry.line_writer import FileOutput, LineWriter
logging.basicConfig(format="%(message)s")
resource.setrlimit(resource.RLIMIT_FSIZE, (250, resource.RLIM_INFINITY))
writer = LineWriter(FileOutput(Path(sys.argv[1])), "the log")
for _ in range(10):
    writer.put(b"x" * 99 + b"\\n")
    writer.flush()
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
writer.put(b"after\\n")
writer.close()
print(writer.lost)
"""


def test_a_real_file_that_may_not_grow_is_torn_once_and_goes_on_with_a_line_of_its_own(
    tmp_path: Path,
) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "log")], capture_output=True, text=True
    )
    assert (ran.stdout, ran.stderr) == (
        "8\n",
        "the log can't be written: it is as long as this process may make a file\n",
    )
    assert (tmp_path / "log").read_text().splitlines() == ["x" * 99, "x" * 99, "x" * 50, "after"]


# --- nobody waits


def test_what_nobody_takes_is_dropped_counted_and_said_where_it_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(line_writer, "MOST_LINES", 20)
    writer = LineWriter(stalled := Stalled(), "stderr", gap_line=lambda lines: b"%d missing\n" % lines)
    writer.put(b"at hand\n")
    until(lambda: not writer._lines)
    began = time.monotonic()
    for line in LINES:
        writer.put(line)
    assert time.monotonic() - began < seconds(0.5)
    assert not writer.flush(0.01)
    stalled.goes_on.set()
    assert writer.flush(seconds(5))
    put(writer, b"after\n")
    assert stalled.lines == [b"at hand\n", *LINES[:20], b"30 missing\n", b"after\n"]
    assert writer.lost == 30


def test_the_queue_has_a_bound_in_bytes_and_takes_lines_again_once_it_is_half_empty(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(line_writer, "MOST_BYTES", 1000)
    writer = LineWriter(stalled := Stalled(), "stderr", gap_line=lambda lines: b"%d missing\n" % lines)
    writer.put(b"x" * 2000 + b"\n")  # longer than the whole queue
    until(lambda: not writer._lines)
    stalled.goes_on.set()
    put(writer, b"after\n")
    assert stalled.lines == [b"1 missing\n", b"after\n"]


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir], ids=["a pipe that nobody reads", "a folder"])
def test_what_cannot_be_opened_keeps_nobody_waiting(
    tmp_path: Path, make: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    make(tmp_path / "log")
    writer = LineWriter(FileOutput(tmp_path / "log"), "the log")
    put(writer, *LINES)
    assert (writer.lost, caplog.text.count("can't be written")) == (50, 1)


def test_a_file_that_becomes_a_pipe_and_a_file_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "log"
    writer = LineWriter(FileOutput(path), "the log")
    put(writer, b"before\n")
    path.rename(tmp_path / "moved")
    os.mkfifo(path)
    put(writer, b"lost\n")
    path.unlink()
    put(writer, b"after\n")
    until(lambda: "written again: 1 line is missing" in caplog.text, 5)
    assert (path.read_bytes(), (tmp_path / "moved").read_bytes()) == (b"after\n", b"before\n")


def test_a_pipe_whose_reader_stops_and_goes_on_gets_every_line_that_was_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(line_writer, "MOST_BYTES", 2**18)
    os.mkfifo(tmp_path / "log")
    reader = os.open(tmp_path / "log", os.O_RDONLY | os.O_NONBLOCK)
    writer = LineWriter(FileOutput(tmp_path / "log"), "the decision log")
    for number in range(100):  # 64 kB fit into the pipe, 256 kB into the queue
        writer.put(f"{number:04} {'x' * 4994}\n".encode())
    assert "the decision log can't be written: its lines are taken more slowly than they come" in caplog.text
    read = b""
    while writer.unwritten or not read.endswith(b"\n"):
        if select.select([reader], [], [], 0.05)[0]:  # the last line may be here before it counts as written
            read += os.read(reader, 2**16)
    os.close(reader)
    kept = [int(line[:4]) for line in read.splitlines()]
    assert kept == list(range(len(kept)))
    assert len(kept) + writer.lost == 100
    assert writer.lost > 0
    until(lambda: f"written again: {writer.lost} lines are missing" in caplog.text, 5)


def test_one_that_is_given_up_ends_with_its_pipe_still_full(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log")
    reader = os.open(tmp_path / "log", os.O_RDONLY | os.O_NONBLOCK)
    writer = LineWriter(FileOutput(tmp_path / "log"), "the log")
    for _ in range(100):
        writer.put(b"x" * 4999 + b"\n")
    began = time.monotonic()
    assert not writer.close(0)
    assert time.monotonic() - began < seconds(0.1)
    assert writer._thread is not None
    writer._thread.join(seconds(5))
    assert not writer._thread.is_alive()
    os.close(reader)


def test_signals_are_none_of_its_business(tmp_path: Path) -> None:
    """The parent of workers waits for signals that it has blocked: a thread that took one would end it."""
    writer = LineWriter(FileOutput(tmp_path / "log"), "the log")
    put(writer, b"x\n")
    assert writer._thread is not None
    status = Path(f"/proc/self/task/{writer._thread.native_id}/status").read_text()
    blocked = int(next(line for line in status.splitlines() if line.startswith("SigBlk")).split()[1], 16)
    assert all(blocked >> (number - 1) & 1 for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))


# --- the log


def test_a_log_file_that_cannot_be_written_is_said_once_on_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configure({"LOG_FILE": "/dev/full"})
    for number in range(20):
        logging.getLogger("routeproxy").info("line %d", number)
    logs.flush(seconds(5))
    logs.flush(seconds(5))  # what the thread of the file said of it
    text = capsys.readouterr().err
    assert text.count("INFO    routeproxy: line") == 20
    assert text.count("the log file can't be written: no space is left on its disk (/dev/full)") == 1
    assert len(text.splitlines()) == 21
    assert logs.lost_lines() >= 20


def test_an_exit_waits_once_for_what_nobody_takes() -> None:
    handler = LineHandler(stalled := Stalled(), "stderr")
    handler.handle(logging.makeLogRecord({"msg": "for nobody"}))
    handler.flush()
    assert handler.writer.is_stalled
    began = time.monotonic()
    handler.flush()
    handler.close()
    assert time.monotonic() - began < 0.9 * line_writer.EXIT_SECONDS
    stalled.goes_on.set()


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_is_missing_is_said_in_the_form_of_the_log(monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    monkeypatch.setattr(line_writer, "MOST_LINES", 1)
    handler = LineHandler(stalled := Stalled(), "stderr")
    handler.setFormatter(logs.FORMATS[form]())
    for number in range(10):
        handler.handle(logging.makeLogRecord({"msg": f"line {number}"}))
    stalled.goes_on.set()
    handler.close()
    said = stalled.lines[-1].decode()
    assert "lines were dropped here: stderr was not read fast enough" in said
    assert said.startswith("{") == (form == "json")


def test_a_line_that_cannot_be_put_together_is_a_line_too(capfd: pytest.CaptureFixture[str]) -> None:
    disk = Disk()
    handler = LineHandler(disk, "stderr")
    handler.handle(logging.makeLogRecord({"msg": "%d requests", "args": ("many",)}))
    handler.close()
    assert disk.content == b"a line could not be put together: '%d requests' with ('many',)\n"
    assert capfd.readouterr().err == ""  # where Python's own would wait


LAST_WORDS = """
import logging, os, sys
from routeproxy.telemetry.logs import configure
configure({"LOG_FILE": sys.argv[1]})
for number in range(500):
    logging.getLogger("x").info("line %d", number)
raise SystemExit(1) if sys.argv[2] == "exit" else ValueError("a bug")
"""


@pytest.mark.parametrize("end", ["exit", "crash"])
def test_the_last_line_before_an_end_is_written(tmp_path: Path, end: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", LAST_WORDS, str(tmp_path / "log"), end], capture_output=True, text=True
    )
    assert ran.returncode == 1
    assert "line 499" in ran.stderr
    lines = (tmp_path / "log").read_text().splitlines()
    assert [line.rpartition(": ")[2] for line in lines] == [f"line {number}" for number in range(500)]


CLOSED = """
import logging, os, socket, sys
from routeproxy.telemetry.logs import configure
configure({"LOG_FILE": sys.argv[1]})
sock = socket.socket()
logging.getLogger("x").info("number %d", sock.fileno())
os.write(2, b"for nobody")
"""


def test_a_stderr_that_is_closed_at_start_is_no_sockets_number(tmp_path: Path) -> None:
    ran = subprocess.run(
        ["sh", "-c", f'exec "{sys.executable}" -c "$0" "$1" 2>&-', CLOSED, str(tmp_path / "log")]
    )
    assert ran.returncode == 0
    assert int((tmp_path / "log").read_text().split()[-1]) > 2


def test_lines_that_come_one_by_one_are_written_some_at_once_and_the_first_without_delay() -> None:
    class Counting(Disk):
        writes = 0

        def write(self, data: bytes) -> int:
            self.writes += 1
            return super().write(data)

    disk = Counting(at_once=2**16)
    writer = LineWriter(disk, "a disk")
    writer.put(b"first\n")
    assert until(lambda: disk.content) == b"first\n"
    began = time.perf_counter()
    number = 0
    while time.perf_counter() - began < 0.2:
        writer.put(b"line\n")
        number += 1
        time.sleep(0.0002)
    assert writer.close(seconds(5))
    assert disk.content == b"first\n" + b"line\n" * number
    assert disk.writes < 2 + (time.perf_counter() - began) / line_writer.PAUSE_SECONDS
