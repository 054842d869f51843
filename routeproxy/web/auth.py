"""Who is asking: the key that a client must show, as Bearer or as `x-api-key`, compared in constant time."""

import hashlib
import hmac
from collections.abc import Mapping

from routeproxy.messages.errors import ApiError


class Door:
    """Open when there is no token to show, unless a key is required all the same: then nobody gets in."""

    def __init__(self, token: str | None) -> None:
        self.expect(token)

    def expect(self, token: str | None) -> None:
        """From now on. Whoever is in already stays."""
        self._wanted = _digest(token) if token else None

    def check(self, headers: Mapping[str, tuple[str, ...]], *, require_key: bool) -> None:
        """Raises 401 (never 403: Claude Code then shows its login screen) unless one of the keys shown is
        right."""
        if self._wanted is None and not require_key:
            return
        shown = [
            value.split(None, 1)[1].strip()
            for value in headers.get("authorization", ())
            if value[:7].lower() == "bearer " and value[7:].strip()
        ]
        shown += headers.get("x-api-key", ())
        if not shown:
            raise ApiError(401, "x-api-key header is required")
        # Every key is compared, in constant time, so that the time taken tells nothing.
        right = [
            self._wanted is not None and hmac.compare_digest(_digest(key), self._wanted) for key in shown
        ]
        if not any(right):
            raise ApiError(401, "invalid x-api-key")


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
