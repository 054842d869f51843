"""The chain of one process: a file to which it alone adds lines, locked while it does."""

import errno
import fcntl
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from routeproxy.audit.records import NOTHING_BEFORE, AnyRecord, Place, hash_of, line_of, record_in

ENDING = ".jsonl"
LAST = 1 << 20
"""Bytes of the end of a chain in which its last line is looked for."""


class Chain:
    """Whoever adds to it waits until the line is written. It may be called in any thread."""

    def __init__(self, folder: Path) -> None:
        """Raises `OSError`."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.writer = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}-{secrets.token_hex(4)}"
        self.path = folder / f"{self.writer}{ENDING}"
        self._lock = threading.Lock()
        self._file = os.open(
            self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o640
        )
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._size = 0
        self._place = Place(0, NOTHING_BEFORE)
        self._is_torn = False
        """Part of a line was written, and could not be taken back."""

    @property
    def place(self) -> Place:
        return self._place

    def add(self, record: AnyRecord) -> Place:
        """Raises `OSError` where it can't be written: then nothing of it is."""
        return self.add_made(lambda _: record)

    def add_made(self, make: Callable[[Place], AnyRecord]) -> Place:
        """The same, with a record that has to know what stands before it."""
        with self._lock:
            record = make(self._place)
            record.n, record.prev = self._place.n + 1, self._place.hash
            line = line_of(record)
            self._write(line + b"\n")
            self._place = Place(record.n, hash_of(line))
            return self._place

    def sync(self) -> None:
        """What was added survives the loss of power. Raises `OSError`."""
        os.fsync(self._file)

    def close(self) -> None:
        os.close(self._file)

    def _write(self, data: bytes) -> None:
        if self._is_torn:
            os.ftruncate(self._file, self._size)
            self._is_torn = False
        view = memoryview(data)
        try:
            while view:
                written = os.write(self._file, view)
                if written == 0:
                    raise OSError(errno.EIO, "nothing was written", str(self.path))
                self._is_torn = True
                view = view[written:]
        except OSError:
            if self._is_torn:
                os.ftruncate(self._file, self._size)
            self._is_torn = False
            raise
        self._is_torn = False
        self._size += len(data)


def chains_in(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{ENDING}"))


def is_being_written(path: Path) -> bool:
    """Whether its process lives, on this host."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def last_place(path: Path) -> Place | None:
    """Of what is in a file now; `None`: it has no whole line that is a record. Raises `OSError`."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - LAST))
        lines = file.read().split(b"\n")
    if len(lines) < 2:
        return None
    try:  # behind the last line end there may be a line that is being written
        return Place(record_in(lines[-2]).n, hash_of(lines[-2]))
    except ValueError:
        return None


def lines_of(path: Path) -> Iterator[tuple[int, bytes, bool]]:
    """Each line with its number and whether it has its end. Raises `OSError`."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            yield number, line.removesuffix(b"\n"), line.endswith(b"\n")
