"""JSON strings that go out as the client wrote them, escapes and all: prompts and descriptions are most of a
request, and decoding them only to encode them again takes as long as the rest of a translation."""

from collections.abc import Sequence

from msgspec import Raw

from routeproxy.messages.decoding import without_lone_surrogates
from routeproxy.messages.errors import InvalidRequest


def as_written(value: Raw, path: str) -> bytes:
    """The JSON string `value`, quotes included, fit for a back end. Raises `UnicodeDecodeError`, and
    `InvalidRequest`, which names `path`, if it is no string."""
    text = bytes(value)
    if not text.startswith(b'"'):
        raise InvalidRequest(f"{path}: Input should be a valid string")
    text.decode()
    return without_lone_surrogates(text)


def join_strings(texts: Sequence[bytes], between: bytes) -> Raw:
    """One JSON string of several. `between`, what stands between them, is JSON without its quotes."""
    return Raw(texts[0] if len(texts) == 1 else b'"%b"' % between.join(text[1:-1] for text in texts))
