"""Lines that keep nobody waiting: a thread writes them to where writing may take its time, stop or fail.

What was put first is written first. A line that does not fit into the queue, or that can't be written, is
lost and counted, and how many are missing is said once lines are written again.
"""

import errno
import logging
import math
import os
import select
import signal
import stat
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

log = logging.getLogger("routeproxy.serve")

MOST_LINES = 20_000
MOST_BYTES = 4 * 2**20
"""What one queue holds. Once it is full, lines are lost until it is half empty, so that how many are missing
is said now and then and not after every line."""
PAUSE_SECONDS = 0.005
"""After a write that has emptied the queue: lines that come one by one, a thousand a second, are written
some at once. The first line after a silence is not held up."""
SETTLED_SECONDS = 2.0
"""How long lines must have been written without a failure before that is called the end of one: a disk with
room for every other line is said to be full once."""
EXIT_SECONDS = 1.0
"""How long an exit waits for lines to be written."""
ABANDON_SECONDS = 5.0
"""How long what is no longer written to has for the lines that it was given before."""

REASONS = {
    errno.ENOSPC: "no space is left on its disk",
    errno.EDQUOT: "the quota of its disk is used up",
    errno.EFBIG: "it is as long as this process may make a file",
    errno.ENXIO: "it is a pipe that nobody reads, or a socket",
    errno.EPIPE: "whoever read it has gone",
    errno.EBADF: "it is closed",
    errno.EISDIR: "it is a folder",
    errno.ENOTDIR: "what should be its folder is a file",
    errno.EACCES: "this user may not write it",
    errno.EPERM: "this user may not write it",
    errno.EROFS: "its disk can only be read",
    errno.EIO: "its disk or its terminal fails",
    errno.EMFILE: "no file descriptor is left",
    errno.ENFILE: "no file descriptor is left",
    errno.EAGAIN: "nobody takes its lines",
}
TOO_SLOW = "its lines are taken more slowly than they come"


class Output:
    """Where lines go. Its methods are called in one thread, and may hold it."""

    until = math.inf
    """The time of the first line that needs `open` again."""
    at_once = select.PIPE_BUF
    """Bytes of several lines that may be one write: others who write there too see them whole."""
    torn = False
    """Whether the last line has no end."""

    def open(self, created: float) -> None:
        """Before the first of some lines, which was made at this time. Raises `OSError`."""

    def write(self, data: bytes) -> int:
        """How many bytes were taken. Raises `OSError`; `BlockingIOError` where `wait` helps."""
        raise NotImplementedError

    def wait(self, limit: float) -> None:
        """Until it takes something, or `limit` seconds."""
        time.sleep(limit)

    def close(self) -> None:
        """Until the next `open`."""


class DescriptorOutput(Output):
    """A descriptor that is open and stays so, as that of stderr."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, data: bytes) -> int:
        return os.write(self._descriptor, data)

    def wait(self, limit: float) -> None:
        wait_for_room(self._descriptor, limit)


class TextOutput(Output):
    """A text stream without a descriptor."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, data: bytes) -> int:
        self._stream.write(data.decode())
        self._stream.flush()
        return len(data)


class FileOutput(Output):
    """A file that is appended to, which several processes may do. One that was moved away is opened anew, so
    `logrotate` needs to tell nobody. A pipe that nobody reads is a failure, not a wait."""

    def __init__(self, path: Path, mode: int = 0o666) -> None:
        self._path = path
        self._mode = mode
        self._descriptor = -1
        self._identity = (0, 0)

    def open(self, created: float) -> None:
        if self._descriptor >= 0:
            try:
                found = os.stat(self._path)
            except FileNotFoundError:
                pass
            else:
                if (found.st_dev, found.st_ino) == self._identity:
                    return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._open(self._path)

    def write(self, data: bytes) -> int:
        return os.write(self._descriptor, data)

    def wait(self, limit: float) -> None:
        wait_for_room(self._descriptor, limit)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self, path: Path) -> None:
        # Without O_NONBLOCK this would wait for somebody to read a pipe.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        descriptor = os.open(path, flags, self._mode)
        self.close()
        self._descriptor = descriptor
        found = os.fstat(descriptor)
        self._identity = (found.st_dev, found.st_ino)
        is_file = stat.S_ISREG(found.st_mode)
        self.at_once = 2**16 if is_file else select.PIPE_BUF
        self.torn = is_file and _is_torn(path)


def _is_torn(path: Path) -> bool:
    """Whether whoever wrote last could not end the line: a full disk, or the end of the process."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:  # it may only be written
        return False
    try:
        size = -1
        while (now := os.fstat(descriptor).st_size) != size:
            size = now
            if size == 0 or os.pread(descriptor, 1, size - 1) == b"\n":
                return False
            time.sleep(0.05)  # another process may be in the middle of its lines
        return True
    finally:
        os.close(descriptor)


def wait_for_room(descriptor: int, limit: float) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    poll.poll(limit * 1000)


class _Gap:
    """Lines that are missing at this place of the queue."""

    def __init__(self) -> None:
        self.lines = 0


class LineWriter:
    """Writes lines to an output, in a thread of its own."""

    def __init__(
        self,
        output: Output,
        name: str,
        where: object = None,
        *,
        gap_line: Callable[[int], bytes] | None = None,
    ) -> None:
        """`name` and `where`: what the log calls the output. `gap_line`: the line that stands in the output
        itself for as many as did not fit into the queue; without one the log says so."""
        self._output = output
        self._name = name
        self._where = f" ({where})" if where is not None else ""
        self._gap_line = gap_line
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._done = threading.Condition(self._lock)
        self._hurry = threading.Event()
        """Somebody waits for what is in the queue."""
        self._lines: deque[tuple[float, bytes] | _Gap] = deque()
        self._bytes = 0
        self._is_full = False
        self._is_waiting = False
        self._unwritten = 0
        """Lines and gaps in the queue, and those that the thread has at hand."""
        self._thread: threading.Thread | None = None
        self._closed_at: float | None = None
        self._problem: str | None = None
        self._missing = 0
        """Lines that were lost since the problem began."""
        self._written_since: float | None = None
        """Since when lines have been written, while there is a problem."""
        self._is_stalled = False
        self.lost = 0
        """Lines that were not written, in all."""

    def put(self, line: bytes, created: float = 0.0) -> None:
        """`line` ends with a newline. Returns at once; may be called from any thread."""
        began = False
        with self._lock:
            if self._closed_at is not None:
                self.lost += 1
                return
            if self._is_full or self._bytes + len(line) > MOST_BYTES or len(self._lines) >= MOST_LINES:
                began = not self._is_full
                self._lose_one()
            else:
                self._lines.append((created, line))
                self._bytes += len(line)
                self._unwritten += 1
            if self._is_waiting:
                self._is_waiting = False
                self._work.notify()
            elif self._thread is None:
                self._start()
        if began and self._gap_line is None:
            self._note_failure(TOO_SLOW, 0)

    def flush(self, limit: float = EXIT_SECONDS) -> bool:
        """Waits until all is written that was put before, or `limit` seconds: whether it was."""
        self._hurry.set()
        with self._lock:
            written = self._done.wait_for(lambda: self._unwritten == 0, limit)
            self._is_stalled = not written
        if self._closed_at is None:
            self._hurry.clear()
        return written

    def close(self, limit: float = EXIT_SECONDS) -> bool:
        """What was put is still written, and nothing more is taken. Waits as `flush` does."""
        with self._lock:
            if self._closed_at is None:
                self._closed_at = time.monotonic()
                self._hurry.set()
                self._is_waiting = False
                self._work.notify()
        return self.flush(limit)

    @property
    def is_stalled(self) -> bool:
        """Whether it was waited for in vain, and nothing has been written since."""
        return self._is_stalled

    @property
    def unwritten(self) -> int:
        return self._unwritten

    def _lose_one(self) -> None:
        self._is_full = True
        self.lost += 1
        if not (self._lines and isinstance(gap := self._lines[-1], _Gap)):
            gap = _Gap()
            self._lines.append(gap)
            self._unwritten += 1
        gap.lines += 1

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name=f"lines of {self._name}", daemon=True)
        # The thread inherits the mask. A signal that it took would end the parent of workers, which waits for
        # signals with all of them blocked.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self._thread.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    # --- in the thread

    def _run(self) -> None:
        while True:
            taken = self._take()
            if taken is None:
                break
            if isinstance(taken, _Gap):
                self._write_gap(taken.lines)
            elif taken:
                self._write(taken)
            with self._lock:
                self._unwritten -= 1 if isinstance(taken, _Gap) else len(taken)
                self._is_stalled = False
                if not self._unwritten:
                    self._done.notify_all()
            self._note_end()
            if not self._lines:
                self._hurry.wait(PAUSE_SECONDS)
        self._output.close()

    def _take(self) -> "list[tuple[float, bytes]] | _Gap | None":
        """Lines for one write, or a gap between lines. Nothing while there is none and the end of a problem
        may have to be told; `None` once there will be no more."""
        with self._lock:
            while not self._lines:
                if self._closed_at is not None:
                    return None
                self._is_waiting = True
                if not self._work.wait(SETTLED_SECONDS / 4 if self._problem is not None else None):
                    return []
            self._is_waiting = False
            first = self._lines.popleft()
            if isinstance(first, _Gap):
                self._is_full = self._is_full and not self._is_half_empty()
                return first
            lines, size = [first], len(first[1])
            while self._lines and not isinstance(following := self._lines[0], _Gap):
                if size + len(following[1]) > self._output.at_once or following[0] >= self._output.until:
                    break
                self._lines.popleft()
                lines.append(following)
                size += len(following[1])
            self._bytes -= size
            self._is_full = self._is_full and not self._is_half_empty()
            return lines

    def _is_half_empty(self) -> bool:
        return self._bytes <= MOST_BYTES // 2 and len(self._lines) <= MOST_LINES // 2

    def _write(self, lines: list[tuple[float, bytes]]) -> None:
        output, written, data, end = self._output, 0, b"", 0
        try:
            output.open(lines[0][0])
            end = int(output.torn)
            data = b"\n" * end + b"".join(line for _, line in lines)
            while written < len(data):
                try:
                    written += output.write(data[written:] if written else data)
                except BlockingIOError:
                    if self._is_abandoned():
                        raise
                    output.wait(0.1)
            output.torn = False
        except (OSError, ValueError) as failure:  # ValueError: a stream that is closed
            if written:
                output.torn = data[written - 1 : written] != b"\n"
            lost = 0
            for _, line in lines:
                end += len(line)
                lost += end > written
            with self._lock:
                self.lost += lost
            self._note_failure(reason_of(failure), lost)
            torn = output.torn
            output.close()
            output.torn = torn
        else:
            if self._problem is not None and self._written_since is None:
                self._written_since = time.monotonic()

    def _write_gap(self, lines: int) -> None:
        if self._gap_line is not None:
            self._write([(time.time(), self._gap_line(lines))])
        else:
            self._note_failure(TOO_SLOW, lines)
            self._written_since = time.monotonic()

    def _is_abandoned(self) -> bool:
        return self._closed_at is not None and time.monotonic() > self._closed_at + ABANDON_SECONDS

    # --- what the log hears of it

    def _note_failure(self, reason: str, lost: int) -> None:
        with self._lock:
            first = self._problem is None
            self._problem = self._problem or reason
            self._missing += lost
            self._written_since = None
        if first:
            log.error("%s can't be written: %s%s", self._name, reason, self._where, extra={"about": self})

    def _note_end(self) -> None:
        since = self._written_since
        if self._problem is None or since is None or time.monotonic() < since + SETTLED_SECONDS:
            return
        with self._lock:
            missing, self._missing, self._problem, self._written_since = self._missing, 0, None, None
        log.warning(
            "%s is written again: %s", self._name, counted_lines(missing, "is missing", "are missing")
        )


def counted_lines(lines: int, one: str, several: str) -> str:
    return f"{lines:,} {f'line {one}' if lines == 1 else f'lines {several}'}"


def reason_of(failure: Exception) -> str:
    """Why nothing can be written, in our words where we have some."""
    code = failure.errno if isinstance(failure, OSError) else errno.EBADF
    if code in REASONS:
        return REASONS[code]
    return os.strerror(code).lower() if code else str(failure)
