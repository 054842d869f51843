"""Files that others put where we read: what they hold, and by what a change is known without reading them.
Nobody who may put a pipe or a device there keeps a server waiting for it."""

import errno
import os
import stat
from pathlib import Path

FileStamp = tuple[int, ...] | None
"""Device, inode, mode, size and times; what the system says of a file that can't be looked at, and None for
one that is not there."""

LARGEST = 64 * 2**20
"""Bytes of a file that is still read."""

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def stamp_of(file: str | Path) -> FileStamp:
    """The stamp of what `file` leads to, symlinks included."""
    try:
        # The change time is there for copies that keep the modification time of another file.
        found = os.stat(file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return (error.errno or 0,)
    return found.st_dev, found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def is_there(file: str | Path) -> bool:
    """Whether there is something of this name, if only something that can't be read. A link that leads
    nowhere is nothing."""
    return stamp_of(file) is not None


def read_file(file: str | Path) -> bytes:
    """What a file holds. Raises `OSError`, also for what is no file or too long."""
    # Without the first flag a pipe would be waited for until somebody writes into it.
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        for is_of, kind in _KINDS:
            if is_of(mode):
                raise OSError(errno.EINVAL, f"it is {kind}, and no file", str(file))
        with os.fdopen(descriptor, "rb", closefd=False) as opened:
            content = opened.read(LARGEST + 1)
    finally:
        os.close(descriptor)
    if len(content) > LARGEST:
        raise OSError(errno.EFBIG, f"it is longer than {LARGEST // 2**20} MB", str(file))
    return content


def names_in(folder: str | Path) -> list[str]:
    """The names in a folder, in order; none for a folder that is not there. Raises `OSError` for one that
    can't be read: `Path.glob` would find it empty."""
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


def is_pipe(file: Path) -> bool:
    """Whether it can be read but once: a shell's `<(…)`, or what stands at the other end of `|`."""
    try:
        mode = file.stat().st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISSOCK(mode)


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all, and to the disk before it is there: it is for the day after a crash.
    Raises `OSError`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    # A key may be written in it, and the folder may be open to others.
    with open(temporary, "wb", opener=_for_its_owner) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _for_its_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
