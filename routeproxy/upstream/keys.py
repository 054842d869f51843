"""Keys: read at use, so that a changed `file:` takes effect without a reload; the keys of a provider are
tried one after the other. No key is kept anywhere else, nor shown."""

import logging
from collections.abc import Iterator

from routeproxy.exchange import Call
from routeproxy.files import FileStamp, read_file, stamp_of
from routeproxy.policy.decide import Policy
from routeproxy.policy.providers import Provider
from routeproxy.policy.secrets import Secret
from routeproxy.upstream.failures import key_missing, key_unusable

log = logging.getLogger("routeproxy.upstream.keys")


class SecretFiles:
    """The present values of secrets. Of a file that vanished the last value counts, and it is reported
    once."""

    def __init__(self) -> None:
        self._stamps: dict[str, FileStamp] = {}
        self._values: dict[str, str] = {}
        self._reported: set[str] = set()

    def value(self, secret: Secret) -> str | None:
        """None where it is not set, or empty."""
        if secret.kind != "file":
            return (secret.value or "").strip() or None
        path = secret.name
        stamp = stamp_of(path)
        if stamp is None or stamp != self._stamps.get(path):
            self._stamps[path] = stamp
            self._read(path)
        return self._values.get(path)

    def changed(self) -> bool:
        """Whether a file that was read is another by now."""
        return any(stamp_of(path) != stamp for path, stamp in self._stamps.items())

    def _read(self, path: str) -> None:
        try:
            value = read_file(path).decode().strip()
        except (OSError, UnicodeDecodeError):
            value = ""
        if value:
            self._values[path] = value
            self._reported.discard(path)
        elif path in self._values and path not in self._reported:
            self._reported.add(path)
            log.warning("the key file %s is gone or empty: the key that it held before stays in use", path)


class Keys:
    """The keys of all providers. Remembers which key of a list was not refused last."""

    def __init__(self) -> None:
        self._first: dict[tuple[str, tuple[Secret, ...]], str] = {}
        """By provider and its keys (a team may have its own), the key to begin with."""
        self._files = SecretFiles()

    def of(self, provider: Provider) -> list[str]:
        """The keys that are set, the one to begin with in front. Each is tried at most once a request."""
        values = [value for secret in provider.keys if (value := self._files.value(secret))]
        first = self._first.get((provider.name, provider.keys)) if len(values) > 1 else None
        place = values.index(first) if first in values else 0
        return values[place:] + values[:place]

    def value(self, secret: Secret) -> str | None:
        return self._files.value(secret)

    def refused(self, provider: Provider, key: str) -> None:
        """This key was refused or limited: the next request begins with the one after it."""
        values = self.of(provider)
        # Of many requests that are refused at once with the key in front, the first moves on; the others must
        # not move back.
        if len(values) > 1 and values[0] == key:
            self._first[provider.name, provider.keys] = values[1]


def secrets_of(policy: Policy, token: str | None, files: SecretFiles) -> Iterator[str]:
    """All that nobody may see: keys of providers, teams and admins, and what else is shown to back ends."""
    providers = [*policy.providers.values()]
    providers += [provider for team in policy.teams.values() for provider in team.providers.values()]
    clients = [key for team in policy.teams.values() for key in team.keys]
    secrets = [secret for provider in providers for secret in provider.keys]
    secrets += [key.secret for key in (*clients, *policy.server.admin_keys)]
    secrets += [policy.server.signing_key] if policy.server.signing_key is not None else []
    if policy.ledger is not None:
        secrets += filter(None, (policy.ledger.url, policy.ledger.pseudonym_key))
    if policy.audit is not None:
        secrets.append(policy.audit.signing_key)
    yield from filter(None, (token, *(files.value(secret) for secret in secrets)))
    yield from (value for provider in providers for value in provider.secret_values)


def needed_key(call: Call) -> str | None:
    """The key of this attempt, `None` where the provider needs none. Raises failure `auth` when it is not set
    or can't stand in a header."""
    provider = call.target.provider
    if call.key is None and provider.keys:
        raise key_missing(provider.name, " or ".join(secret.reference for secret in provider.keys))
    if call.key is not None and not (call.key.isascii() and call.key.isprintable()):
        raise key_unusable(provider.name)
    return call.key
