"""Keeps the garbage collector from sweeping while much is built that stays."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused() -> Iterator[None]:
    """No sweeps until the block ends: each would go through all that is being built and find nothing to free.
    It holds for all threads, so the block must be short."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
