"""Keeps the garbage collector from sweeping while much is built that stays."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused() -> Iterator[None]:
    """No sweeps until the block ends: each would go through all that is being built and find nothing to free.
    Nor does the first sweep behind it, which would hold up all threads. It holds for all of them, so the
    block must be short."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            if not gc.get_freeze_count():  # what others have frozen stays so
                _make_old()
            gc.enable()


def _make_old() -> None:
    """Leaves all that there is to full sweeps, as if it had survived the others."""
    gc.freeze()
    gc.unfreeze()
