"""Strings that go out as the client wrote them, as JSON, escapes and all: prompts and descriptions are most
of what is sent, and reading them only to write them again takes as long as the rest of a translation."""

from collections.abc import Sequence

from msgspec import Raw

from routeproxy.messages.decoding import without_lone_surrogates
from routeproxy.messages.errors import InvalidRequest


def as_written(value: Raw, at: str) -> bytes:
    """The string `value`, quotes included, fit for a back end. Raises `InvalidRequest` if it is none, and
    `UnicodeDecodeError`."""
    text = bytes(value)
    if not text.startswith(b'"'):
        raise InvalidRequest(f"{at}: Input should be a valid string")
    text.decode()
    return without_lone_surrogates(text)


def joined(texts: Sequence[bytes], between: bytes) -> Raw:
    """One string of several; `between` is JSON, too."""
    return Raw(texts[0] if len(texts) == 1 else b'"%b"' % between.join(text[1:-1] for text in texts))
