"""How memory goes back to the system."""

import ctypes
from contextlib import suppress

M_MMAP_THRESHOLD = -3
"""As glibc's malloc.h has it."""

LARGE_BLOCK = 2**20
"""Bytes."""


def return_large_blocks() -> None:
    """From now on a large block goes back to the system when it is freed. glibc raises its limit for that to
    32 MB with the first block of that size that is freed, and keeps the next ones between small blocks that
    stay: after fifty bodies of 31 MB the process was 160 MB larger than before. Other C libraries do what
    they do."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK)


def return_free_memory() -> None:
    """Gives back what is free between blocks that stay: a body comes in parts of 256 kB, and after fifty of
    31 MB the process was 107 MB larger than before. It may take some milliseconds, without the interpreter's
    lock."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
