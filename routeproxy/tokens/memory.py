"""What was counted before. Its keys are digests: no prompt outlives its request here."""

from os import urandom
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")


def salt() -> bytes:
    """Each kind of pieces has its own, so that one is never taken for another."""
    return urandom(16)


def digest(salt: bytes, piece: bytes) -> int:
    """A key that nobody outside can foresee, made at 2.5 GB/s; BLAKE2 takes five times as long.

    It is Python's own hash, SipHash of 64 bits. Its secret may be known, by `PYTHONHASHSEED`, hence the salt.
    A piece that is taken for another one gets a wrong count, nothing worse, and it takes 2**64 tries divided
    by the number of those that are remembered.
    """
    return hash(salt + piece)


class Remembered(Generic[T]):
    """The newest entries, `entries` to twice as many. What is asked for stays.

    When the young are full they become the old, and the old are forgotten but for those that were asked for:
    nearly the order of a least-recently-used cache, with one look at a dict and no lock.
    """

    def __init__(self, entries: int) -> None:
        self._entries = entries
        self._young: dict[int, T] = {}
        self._old: dict[int, T] = {}
        self._turn = Lock()

    def get(self, key: int) -> T | None:
        found = self._young.get(key)
        if found is None and (found := self._old.get(key)) is not None:
            self[key] = found
        return found

    def __setitem__(self, key: int, value: T) -> None:
        if len(self._young) >= self._entries:
            with self._turn:
                if len(self._young) >= self._entries:  # nobody else was quicker
                    self._young, self._old = {}, self._young
        self._young[key] = value

    def __len__(self) -> int:
        return len(self._young) + len(self._old)
