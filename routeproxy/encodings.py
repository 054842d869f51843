"""The content encodings that we undo, of requests and of answers."""

import zlib
from collections.abc import Mapping

_GZIP = (zlib.MAX_WBITS + 16,)

WBITS: Mapping[str, tuple[int, ...]] = {
    "gzip": _GZIP,
    "x-gzip": _GZIP,
    # What is called deflate has a zlib header around it, but not everywhere.
    "deflate": (zlib.MAX_WBITS, -zlib.MAX_WBITS),
}
"""What zlib is told, by name; where there are two, the likelier first."""
