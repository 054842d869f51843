"""Keys: read at use, so that a changed `file:` takes effect without a reload; those of a provider are tried
one after the other."""

import logging
import os
from pathlib import Path

from routeproxy.policy.providers import Provider
from routeproxy.policy.secrets import Secret

log = logging.getLogger("routeproxy.upstream.keys")

Stamp = tuple[int, ...] | None


class SecretFiles:
    """What secrets hold now. Of a file that vanished the last value counts, and it is reported once."""

    def __init__(self) -> None:
        self._stamps: dict[str, Stamp] = {}
        self._values: dict[str, str] = {}
        self._gone: set[str] = set()

    def value(self, secret: Secret) -> str | None:
        if secret.kind != "file":
            return (secret.value or "").strip() or None
        path = secret.name
        stamp = _stamp(path)
        if stamp is None or stamp != self._stamps.get(path):
            self._stamps[path] = stamp
            self._read(path)
        return self._values.get(path)

    def changed(self) -> bool:
        """Whether a file that was read is not as it was."""
        return any(_stamp(path) != stamp for path, stamp in self._stamps.items())

    def _read(self, path: str) -> None:
        try:
            value = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            value = ""
        if value:
            self._values[path] = value
            self._gone.discard(path)
        elif path in self._values and path not in self._gone:
            self._gone.add(path)
            log.warning("the key file %s is gone or empty: the key that it held before stays in use", path)


def _stamp(path: str) -> Stamp:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


class Keys:
    """The keys of all providers. Remembers which one of a list answered last."""

    def __init__(self) -> None:
        self._front: dict[tuple[str, tuple[Secret, ...]], str] = {}
        """By provider and its keys (a team may have its own), the key to begin with."""
        self._files = SecretFiles()

    def of(self, provider: Provider) -> list[str]:
        """The keys that are set, the one that worked last in front. Each is tried at most once a request."""
        values = [value for secret in provider.keys if (value := self._files.value(secret))]
        front = self._front.get((provider.name, provider.keys)) if len(values) > 1 else None
        first = values.index(front) if front in values else 0
        return values[first:] + values[:first]

    def refused(self, provider: Provider, key: str) -> None:
        """This key was refused or limited: the next request begins with the one after it."""
        values = self.of(provider)
        # Of many requests that are refused at once with the key in front, the first moves on; the others must
        # not move back.
        if len(values) > 1 and values[0] == key:
            self._front[provider.name, provider.keys] = values[1]
