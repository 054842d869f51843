"""Provider keys: read at use, so that a changed `file:` takes effect without a reload; tried one after the
other."""

import logging
from pathlib import Path

from routeproxy.policy.decide import Provider, Secret

log = logging.getLogger(__name__)


class Keys:
    """The keys of all providers. Remembers which one of a list answered last, and what a file held before it
    vanished."""

    def __init__(self) -> None:
        self._front: dict[str, str] = {}
        """By provider, the key to begin with."""
        self._last_value: dict[str, str] = {}
        """By key file."""
        self._gone: set[str] = set()
        """Key files that were reported as gone: once is enough."""

    def of(self, provider: Provider) -> list[str]:
        """The keys that are set, the one that worked last in front. Each is tried at most once a request."""
        values = [value for secret in provider.keys if (value := self._read(secret))]
        front = self._front.get(provider.name)
        first = values.index(front) if front in values else 0
        return values[first:] + values[:first]

    def refused(self, provider: Provider, key: str) -> None:
        """This key was refused or limited: the next request begins with the one after it."""
        values = self.of(provider)
        # Of many requests that are refused at once with the key in front, the first moves on; the others must
        # not move back.
        if len(values) > 1 and values[0] == key:
            self._front[provider.name] = values[1]

    def _read(self, secret: Secret) -> str | None:
        if secret.kind != "file":
            return (secret.value or "").strip() or None
        try:
            value = Path(secret.name).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            value = ""
        if value:
            self._last_value[secret.name] = value
            self._gone.discard(secret.name)
        elif secret.name in self._last_value and secret.name not in self._gone:
            self._gone.add(secret.name)
            log.warning(
                "the key file %s is gone or empty: the key that it held before stays in use", secret.name
            )
        return self._last_value.get(secret.name)
