"""Keys: where each of them stands, and how it may be shown. A `file:` key is read elsewhere, at use."""

import datetime
import hashlib
import re
from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

SECRET_HEADERS = frozenset({"authorization", "x-api-key", "cookie"})
"""Request headers that carry a secret, in lower case. No rule reads them, no provider gets the client's."""


SECRET_NAME = re.compile(r"key|secret|passw|authorization|cookie|token$", re.IGNORECASE)
"""In the names of keys, headers and parameters that hold a secret, misspelt ones included."""

USER_IN_ADDRESS = re.compile(r"""(://)([^/@\s"']+)(?=@)""")
"""Before a password, and with it."""


class Secret(Struct, frozen=True):
    """Where a key stands. `value` is that of `env` (`None`: unset) or `literal`; a `file` is read at use. A
    client's key may be known by its hash alone, which then is its `name`."""

    kind: Literal["env", "file", "literal", "none", "sha256"]
    name: str = ""
    value: str | None = None

    @property
    def reference(self) -> str:
        """What may be shown, logged and hashed: `env:OPENAI_API_KEY`, or `literal`."""
        return self.kind if self.kind in {"literal", "none"} else f"{self.kind}:{self.name}"

    @property
    def unset(self) -> bool:
        return self.kind == "env" and not self.value

    def __repr__(self) -> str:
        return f"Secret({self.reference})"


def secret_of(reference: str, environ: Mapping[str, str]) -> Secret:
    """The key that `env:NAME`, `file:PATH` or `none` refers to; any other text is the key itself."""
    if reference == "none":
        return Secret("none")
    scheme, colon, name = reference.partition(":")
    if colon and scheme == "env":
        return Secret("env", name, environ.get(name) or None)
    if colon and scheme == "file":
        return Secret("file", name)
    return Secret("literal", value=reference)


Role = Literal["operate", "read", "usage", "audit", "metrics"]
"""What an admin key is for: all of it, to look, to see sums, to read all that is recorded, to scrape."""


class ClientKey(Struct, frozen=True):
    """A key that clients show. An unset one matches nobody."""

    name: str
    secret: Secret
    expires: datetime.date | None = None
    """The last day on which it works, in UTC."""
    user: str | None = None
    """Who shows it, if that is one person."""
    role: Role = "operate"
    """Of an admin key: what it is for."""

    def expired(self, today: datetime.date) -> bool:
        return self.expires is not None and self.expires < today


def digest_of(key: str) -> str:
    """How a client's key is known: `sha256:…` in a rules file has these 64 hexadecimal digits."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
