"""What a body is, by its first byte: servers and gateways send JSON as an event stream, events as JSON, and
pages of their own in place of both, whatever the `content-type`."""

from collections.abc import Mapping
from typing import Literal

Form = Literal["json", "events", "page"]

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
BLANK = b" \t\r\n"

_FORMS: Mapping[bytes, Form] = {
    b"{": "json",
    b"[": "json",
    b"<": "page",
    # `data:`, `event:`, `id:`, `retry:` and comments
    b"d": "events",
    b"e": "events",
    b"i": "events",
    b"r": "events",
    b":": "events",
}


def is_form_open(start: bytes) -> bool:
    """Whether more must come of a body that starts so: it is blank, or ends within a byte order mark."""
    return BYTE_ORDER_MARK.startswith(start) or not start.removeprefix(BYTE_ORDER_MARK).lstrip(BLANK)


def form_of(start: bytes, content_type: str = "") -> Form:
    """Of a body that starts so. Where its first byte says nothing, its `content_type` does."""
    first = start.lstrip(BLANK)[:1]
    declared: Form = "json" if content_type == "application/json" else "events"
    return _FORMS.get(first, declared)
