"""Who is asking: the key that a client must show, as Bearer or as `x-api-key`, compared in constant time."""

import hashlib
import hmac
from collections.abc import Mapping

from routeproxy.messages.errors import ApiError

Headers = Mapping[str, tuple[str, ...]]


class Door:
    """Open when there is no token to show, unless a key is required all the same: then nobody gets in."""

    def __init__(self, token: str | None) -> None:
        self.expect(token)

    def expect(self, token: str | None) -> None:
        """From now on. Whoever is in already stays."""
        self._wanted = _digest(token) if token else None

    def enter(self, headers: Headers, *, require_key: bool) -> Headers:
        """The headers without our own key, which is nobody else's business: a provider may be handed the
        other.

        Raises 401 (never 403: Claude Code then shows its login screen) unless one of the keys shown is right.
        """
        if self._wanted is None and not require_key:
            return headers
        lines = [(name, line) for name in ("authorization", "x-api-key") for line in headers.get(name, ())]
        shown = [(name, line, key) for name, line in lines if (key := _key_in(name, line))]
        if not shown:
            raise ApiError(401, "x-api-key header is required")
        # Every key is compared, in constant time, so that the time taken tells nothing.
        ours = {(name, line) for name, line, key in shown if self._is_right(key)}
        if not ours:
            raise ApiError(401, "invalid x-api-key")
        kept = {name: tuple(line for line in headers[name] if (name, line) not in ours) for name, _ in ours}
        return {name: kept.get(name, values) for name, values in headers.items() if kept.get(name, values)}

    def _is_right(self, key: str) -> bool:
        return self._wanted is not None and hmac.compare_digest(_digest(key), self._wanted)


def _key_in(name: str, line: str) -> str:
    if name == "x-api-key":
        return line
    scheme, _, key = line.strip().partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
