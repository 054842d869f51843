"""The files that a policy comes from, and whether they have changed. What is made of them is not known
here."""

import hashlib
import os
import time
from collections.abc import Iterable
from pathlib import Path

from routeproxy.files import FileStamp, read_file, stamp_of

SETTLE = 0.1
"""Seconds that a file must stay as it is before it is read: an editor may still be writing."""


class WatchedFiles:
    """Files and folders, there or not, and how they were when they were last remembered. Reads and sleeps, so
    it is asked in a thread."""

    def __init__(self, always: Iterable[Path]) -> None:
        """`always` are watched whatever else is."""
        self._always = tuple(dict.fromkeys(always))
        self.paths = self._always
        self.remember()

    def watch(self, others: Iterable[Path]) -> None:
        """Watches `others` besides what is always watched, and no longer what was watched besides before."""
        paths = tuple(dict.fromkeys((*self._always, *others)))
        if paths != self.paths:
            self.paths = paths
            self.remember()

    def watch_also(self, others: Iterable[Path]) -> None:
        self.watch((*self.paths, *others))

    def remember(self) -> None:
        """Takes the files as they are for unchanged."""
        self._stamps = self._stamp()
        self._contents = self._read()
        self._were_good = True

    def distrust(self) -> None:
        """What was made of the remembered files was no good, and not always for what they hold: from now on
        whatever changes about one of them counts, who may read it for one."""
        self._were_good = False

    def have_changed(self) -> bool:
        """Whether their contents are others than those remembered. Waits while somebody is writing."""
        if self._stamp() == self._stamps:
            return False
        self._stamps = self._settled_stamps()
        return not self._were_good or self._read() != self._contents  # else a file was saved as it was

    def digest(self) -> str:
        """Of the remembered contents, but for variables: these have no part in a rollback."""
        digest = hashlib.sha256()
        for path, content in zip(self.paths, self._contents, strict=True):
            if path.name != ".env" and content is not None:
                digest.update(b"%b\0%d\0%b" % (os.fsencode(path), len(content), content))
        return digest.hexdigest()

    def _settled_stamps(self) -> tuple[FileStamp, ...]:
        stamps = self._stamp()
        for _ in range(5):
            time.sleep(SETTLE)
            before, stamps = stamps, self._stamp()
            if stamps == before:
                break
        return stamps

    def _stamp(self) -> tuple[FileStamp, ...]:
        return tuple(map(stamp_of, self.paths))

    def _read(self) -> tuple[bytes | None, ...]:
        return tuple(map(_content_of, self.paths))


def _content_of(path: Path) -> bytes | None:
    try:
        if path.is_dir():  # of a folder its names count
            return b"\0".join(sorted(map(os.fsencode, os.listdir(path))))
        return read_file(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:  # it is there, and should not be taken for nothing
        return f"\0{error}".encode()
