"""The content encodings that requests and answers are decompressed from."""

import zlib
from collections.abc import Mapping

_GZIP = (zlib.MAX_WBITS + 16,)

WBITS: Mapping[str, tuple[int, ...]] = {
    "gzip": _GZIP,
    "x-gzip": _GZIP,
    # `deflate` means zlib's format, but some senders leave out its header.
    "deflate": (zlib.MAX_WBITS, -zlib.MAX_WBITS),
}
"""By the name of an encoding, the values for zlib's `wbits` to try, the likelier first."""
