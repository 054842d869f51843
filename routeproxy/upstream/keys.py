"""Provider keys: read at use, so that a changed `file:` takes effect without a reload; tried one after the other."""

import logging
from pathlib import Path

from routeproxy.policy.decide import Provider, Secret

log = logging.getLogger(__name__)


class Keys:
    """The keys of all providers. Remembers which one of a list answered last, and what a file held before it vanished."""

    def __init__(self) -> None:
        self._first: dict[str, int] = {}
        self._last_value: dict[str, str] = {}

    def of(self, provider: Provider) -> list[str]:
        """The keys that are set, the one that worked last in front. Each is tried at most once a request."""
        values = [value for secret in provider.keys if (value := self._read(secret))]
        first = self._first.get(provider.name, 0) % len(values) if values else 0
        return values[first:] + values[:first]

    def refused(self, provider: Provider) -> None:
        """The key in front was refused or limited: the next request begins with the one after it."""
        self._first[provider.name] = self._first.get(provider.name, 0) + 1

    def _read(self, secret: Secret) -> str | None:
        if secret.kind != "file":
            return secret.value
        try:
            value = Path(secret.name).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            value = ""
        if value:
            self._last_value[secret.name] = value
        elif secret.name in self._last_value:
            log.warning("the key file %s is gone or empty: the key that it held before stays in use", secret.name)
        return self._last_value.get(secret.name)
