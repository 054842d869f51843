"""`GET /v1/models`: what a model entry and a page of them look like (wire.md §2.9)."""

from collections.abc import Sequence

from msgspec import Struct

# Models carry no creation date here. The API's field is required and the SDKs read RFC 3339, so every entry
# says the same honest nothing.
UNKNOWN_DATE = "1970-01-01T00:00:00Z"


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


def page(
    models: Sequence[ModelInfo], *, limit: int = 20, after_id: str | None = None, before_id: str | None = None
) -> Page:
    """`limit` entries after (or before) a cursor. An unknown cursor gives an empty page, never an error."""
    ids = [model.id for model in models]
    found: Sequence[ModelInfo] = models
    if after_id is not None:
        found = found[ids.index(after_id) + 1 :] if after_id in ids else ()
        shown = found[:limit]
    elif before_id is not None:
        found = found[: ids.index(before_id)] if before_id in ids else ()
        shown = found[-limit:] if limit else ()
    else:
        shown = found[:limit]
    return Page(
        tuple(shown),
        has_more=len(found) > len(shown),
        first_id=shown[0].id if shown else None,
        last_id=shown[-1].id if shown else None,
    )
