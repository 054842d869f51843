"""By what a file is known to have changed without being read."""

import os
from pathlib import Path

FileStamp = tuple[int, ...] | None
"""Device, inode, size and times; None for a file that is not there."""


def stamp_of(file: str | Path) -> FileStamp:
    """The stamp of what `file` leads to, symlinks included."""
    try:
        # The change time is there for copies that keep the modification time of another file.
        stat = os.stat(file)
    except OSError:
        return None
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
