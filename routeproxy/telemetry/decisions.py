"""The decision log: one JSON line a request, so that it can be explained and decided again later. Names,
sizes and what rules look at; nothing of prompts, answers or keys."""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType


class LoggedDecision(Struct, frozen=True, kw_only=True):
    time: str
    """`2026-11-25T22:23:28.123Z`"""
    id: str
    shown_id: str | UnsetType = UNSET
    """What the client was told instead: the id of the back end whose answer was relayed."""
    path: str
    version: str
    rule: str | None
    facts: dict[str, Any] | None
    """What rules could look at, by name (`policy.logged` says what is kept). `None`: the request was refused
    before its facts were known."""
    targets: tuple[str, ...] = ()
    attempts: tuple[tuple[str, str | None], ...] = ()
    """Each target that was tried, and the class of its failure."""
    status: int = 0
    error: str | None = None
    client_left: bool = False


class DecisionLog:
    """Appends. Each line is one write, which the system keeps whole, so several workers may share the file.
    One that was moved away is opened anew, so `logrotate` needs to tell nobody."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1
        self._inode = (0, 0)

    def write(self, decision: LoggedDecision) -> None:
        self._open()
        os.write(self._file, msgspec.json.encode(decision) + b"\n")

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _open(self) -> None:
        with suppress(FileNotFoundError):
            found = self._path.stat()
            if self._file >= 0 and (found.st_dev, found.st_ino) == self._inode:
                return
        self.close()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # It names people and what they did: not for everybody on the machine.
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        found = os.fstat(self._file)
        self._inode = (found.st_dev, found.st_ino)


def now() -> str:
    seconds = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds * 1000) % 1000:03d}Z"


def read(path: Path) -> Iterator[LoggedDecision]:
    """Raises `ValueError` with the line that is not one of ours."""
    decode = msgspec.json.Decoder(LoggedDecision).decode
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError):
                    raise ValueError(f"{path}:{number}: not a logged decision") from None


def find(path: Path, request_id: str) -> LoggedDecision:
    """The latest of this id. Raises `ValueError`."""
    found = None
    for decision in read(path):
        if request_id in (decision.id, decision.shown_id):
            found = decision
    if found is None:
        raise ValueError(f"{path} has no decision `{request_id}`")
    return found
