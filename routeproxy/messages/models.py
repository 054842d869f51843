"""`GET /v1/models`: the entry of a model, and a page of entries (wire.md §2.9)."""

from collections.abc import Sequence

from msgspec import Struct

UNKNOWN_DATE = "1970-01-01T00:00:00Z"
"""The field is required and the SDKs read RFC 3339, while nobody here knows when a model was made."""


class ModelInfo(Struct, frozen=True, kw_only=True, tag="model"):
    id: str
    display_name: str
    created_at: str = UNKNOWN_DATE
    lifecycle: str = "active"
    max_input_tokens: int | None = None
    max_tokens: int | None = None
    deprecated_at: str | None = None
    retires_at: str | None = None


class Page(Struct, frozen=True):
    data: tuple[ModelInfo, ...]
    has_more: bool
    first_id: str | None
    last_id: str | None


def paginate(
    models: Sequence[ModelInfo], *, limit: int = 20, after_id: str | None = None, before_id: str | None = None
) -> Page:
    """`limit` entries after (or before) a cursor. An unknown cursor gives an empty page, never an error."""
    ids = [model.id for model in models]
    remaining: Sequence[ModelInfo] = models
    if after_id is not None:
        remaining = models[ids.index(after_id) + 1 :] if after_id in ids else ()
        entries = remaining[:limit]
    elif before_id is not None:
        remaining = models[: ids.index(before_id)] if before_id in ids else ()
        entries = remaining[-limit:] if limit else ()
    else:
        entries = remaining[:limit]
    return Page(
        tuple(entries),
        has_more=len(remaining) > len(entries),
        first_id=entries[0].id if entries else None,
        last_id=entries[-1].id if entries else None,
    )
