"""The numbers of all workers of a server: each publishes its own in a file, and whoever is asked reads them
all.

The parent keeps what a dead worker has counted, in one file with those that died before: counters never fall
because a process is replaced, and gauges are those of the living.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from routeproxy.metrics.snapshot import Snapshot, merged

OF_WORKER = "worker-{process}.metrics"
OF_DEAD = "dead.metrics"

_encode = msgspec.msgpack.Encoder().encode


class _Dead(Struct):
    snapshot: Snapshot
    processes: list[int]
    """Those whose numbers are in it: their own files may still be there for a moment."""


_decode = msgspec.msgpack.Decoder(Snapshot).decode
_decode_dead = msgspec.msgpack.Decoder(_Dead).decode


class MetricsFolder:
    """Where the workers of one server publish. Used by each of them, and by their parent."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def publish(self, snapshot: Snapshot) -> None:
        """What this process has counted so far. Raises `OSError`."""
        _replace(self._path / OF_WORKER.format(process=os.getpid()), _encode(snapshot))

    def read(self) -> Snapshot:
        """Of all workers, dead ones too. Raises `OSError`."""
        # The dead first: whose file vanishes meanwhile is then in neither, and never in both.
        for _ in range(5):
            before = self._dead_stamp()
            dead = self._dead()
            found = [dead.snapshot, *self._living(dead)]
            if self._dead_stamp() == before:
                break
        return merged(found)

    def bury(self, process: int) -> None:
        """A worker is gone: what it has counted is kept. Only in the parent. Raises `OSError`."""
        file = self._path / OF_WORKER.format(process=process)
        try:
            last = _decode(file.read_bytes())
        except FileNotFoundError:
            return
        except msgspec.DecodeError:
            last = Snapshot({}, {})
        dead = self._dead()
        kept = _Dead(merged((dead.snapshot, last.without_gauges())), [*dead.processes, process])
        _replace(self._path / OF_DEAD, _encode(kept))
        file.unlink(missing_ok=True)
        # The number of a process may come again: only while its file is there does it say anything.
        kept.processes.remove(process)
        _replace(self._path / OF_DEAD, _encode(kept))

    def _living(self, dead: _Dead) -> Iterator[Snapshot]:
        for file in self._path.glob(OF_WORKER.format(process="*")):
            process = int(file.stem.partition("-")[2])
            if process not in dead.processes:
                with suppress(FileNotFoundError, msgspec.DecodeError):
                    yield _decode(file.read_bytes())

    def _dead(self) -> _Dead:
        try:
            return _decode_dead((self._path / OF_DEAD).read_bytes())
        except (FileNotFoundError, msgspec.DecodeError):
            return _Dead(Snapshot({}, {}), [])

    def _dead_stamp(self) -> tuple[int, int] | None:
        try:
            found = (self._path / OF_DEAD).stat()
        except FileNotFoundError:
            return None
        return found.st_mtime_ns, found.st_ino


def _replace(file: Path, data: bytes) -> None:
    """Whole, or not at all."""
    temporary = file.with_suffix(f".{os.getpid()}")
    temporary.write_bytes(data)
    temporary.replace(file)
