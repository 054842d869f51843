"""Who is asking: the key that a client must show, as Bearer or as `x-api-key`, and whose it is."""

import datetime
import hashlib
import hmac
import logging
import secrets
from collections.abc import Callable, Iterator, Mapping
from typing import Literal, get_args

from msgspec import Struct

from routeproxy.messages.errors import ApiError
from routeproxy.policy.decide import Policy
from routeproxy.policy.secrets import ClientKey, Role
from routeproxy.upstream.keys import SecretFiles

log = logging.getLogger("routeproxy.web.auth")

Headers = Mapping[str, tuple[str, ...]]

KeyNeed = Literal["none", "optional", "required"]


class Caller(Struct, frozen=True, kw_only=True):
    """Who sent a request, as far as its key says."""

    headers: Headers
    """The request's, without our own key, which is nobody else's business: a provider may be handed the
    other."""
    team: str | None = None
    key_name: str | None = None
    """What the rules call the key that was shown; `None` for `ANTHROPIC_AUTH_TOKEN` and for no key."""
    admin: bool = False
    role: Role | None = None
    """Of the admin key that was shown."""
    may_explain: bool = False
    is_operator: bool = False
    """Nobody needs a key here, and there is none: whoever asks runs the server."""
    keys_version: int = 0
    """What counted when the key was looked at, by `Authenticator.is_current`."""
    expires: datetime.date | None = None
    """The last day of the key that was shown."""

    def may(self, role: Role) -> bool:
        """Whether the key that was shown is for this."""
        return self.role is not None and role in ROLES[self.role]


ROLES: Mapping[Role, frozenset[Role]] = {
    "operate": frozenset(get_args(Role)),
    "audit": frozenset(("audit", "usage", "read")),
    "usage": frozenset(("usage",)),
    "read": frozenset(("read",)),
    "metrics": frozenset(("metrics",)),
}
"""By the role of an admin key, what it may do: whoever may do all may do each, and whoever reads records may
see their sums."""


class _KeyOwner(Struct, frozen=True):
    team: str | None
    """`None`: whoever has `ANTHROPIC_AUTH_TOKEN`, or an admin key."""
    admin: bool
    key: ClientKey | None
    digest: bytes


def today_in_utc() -> datetime.date:
    return datetime.datetime.now(datetime.UTC).date()


class Authenticator:
    """Tells who sends a request by the key that it shows. Everybody may send one while no key was written for
    any team and there is no token, unless a key is required all the same: then nobody may."""

    def __init__(
        self, policy: Policy, token: str | None, today: Callable[[], datetime.date] = today_in_utc
    ) -> None:
        self._today = today
        self._keys_version = 0
        self._salt = secrets.token_bytes(32)
        self._files = SecretFiles()
        self.update(policy, token)

    def update(self, policy: Policy, token: str | None) -> None:
        """What counts from now on, for requests too whose bodies are still to come."""
        self._policy = policy
        self._by_team = any(team.keys for team in policy.teams.values())
        self._token = token if not self._by_team else None
        self.needs_key = policy.server.require_key or self._token is not None
        self._owners = self._owners_by_digest()
        self._open = not self.needs_key and not self._by_team and not policy.server.admin_keys

    @property
    def key_need(self) -> KeyNeed:
        """What a client has to show. Only where it is `none` may strangers see what is in force: else the
        names of rules and targets are some team's."""
        if self.needs_key:
            return "required"
        return "optional" if self._by_team else "none"

    @property
    def has_admin_keys(self) -> bool:
        return bool(self._policy.server.admin_keys)

    def authenticate(self, headers: Headers, *, admin: bool = False) -> Caller:
        """`admin`: whether an admin key opens this path too.

        Raises 401 (never 403: Claude Code then shows its login screen) unless a key that is shown is right.
        """
        if self._open:
            return Caller(
                headers=headers, may_explain=True, is_operator=True, keys_version=self._keys_version
            )
        lines = [(name, line) for name in ("authorization", "x-api-key") for line in headers.get(name, ())]
        keys = [(name, line, key) for name, line in lines if (key := _key_in(name, line))]
        known = {(name, line): owner for name, line, key in keys if (owner := self._owner(key))}
        owners = {
            (owner.team, owner.admin): owner for owner in known.values() if not self._has_expired(owner)
        }
        if not owners:
            self._check_needed(list(known.values()), any_key=bool(keys))
            return Caller(headers=headers, may_explain=not self._by_team, keys_version=self._keys_version)
        if len(owners) > 1:
            raise ApiError(401, "invalid x-api-key: two keys were shown, and they are not of one team")
        (owner,) = owners.values()
        if owner.admin and not admin:
            raise ApiError(401, "invalid x-api-key: an admin key is for /-/ and /v1/route")
        return self._caller(owner, _without(headers, known))

    def _caller(self, owner: _KeyOwner, headers: Headers) -> Caller:
        team = self._policy.teams[owner.team] if owner.team is not None else None
        return Caller(
            headers=headers,
            team=owner.team,
            key_name=owner.key.name if owner.key is not None else None,
            admin=owner.admin,
            role=owner.key.role if owner.admin and owner.key is not None else None,
            may_explain=(owner.admin and owner.key is not None and "read" in ROLES[owner.key.role])
            or (team.explain if team else not self._by_team),
            keys_version=self._keys_version,
            expires=owner.key.expires if owner.key is not None else None,
        )

    @property
    def is_open(self) -> bool:
        """Whether no key of any kind is configured, and none is needed."""
        return self._open

    def owners(self) -> Iterator[tuple[bytes, Caller]]:
        """Whoever has a key that counts now, with the SHA-256 of the key: for a page that somebody has signed
        in to. Whoever has `ANTHROPIC_AUTH_TOKEN` is nobody."""
        for owner in self._current_owners().values():
            if owner.key is not None and not self._has_expired(owner):
                yield owner.digest, self._caller(owner, {})

    def is_current(self, caller: Caller) -> bool:
        """Whether `authenticate` would come to the same now: no rules, token or key file changed since, and
        the day of the key is not over. Nothing is hashed for that."""
        if not self._open:
            self._current_owners()
        return caller.keys_version == self._keys_version and (
            caller.expires is None or caller.expires >= self._today()
        )

    def _check_needed(self, expired_keys: list[_KeyOwner], *, any_key: bool) -> None:
        """Raises 401 unless no key is needed. Whoever shows a key that was right knows it, and may hear that
        it has expired."""
        if expired_keys and expired_keys[0].key is not None:
            raise ApiError(401, f"invalid x-api-key: this key expired on {expired_keys[0].key.expires}")
        if self.needs_key:
            raise ApiError(401, "invalid x-api-key" if any_key else "x-api-key header is required")

    # --- whose key

    def _owner(self, key: str) -> _KeyOwner | None:
        digest = _digest(key)
        # Found by a keyed hash, of which nobody outside can choose or learn a single bit, so the time that it
        # takes tells nothing; the digests themselves are compared in constant time.
        owner = self._current_owners().get(self._blinded(digest))
        return owner if owner is not None and hmac.compare_digest(owner.digest, digest) else None

    def _current_owners(self) -> Mapping[bytes, _KeyOwner]:
        if self._files.changed():
            self._owners = self._owners_by_digest()
        return self._owners

    def _owners_by_digest(self) -> dict[bytes, _KeyOwner]:
        self._keys_version += 1
        found: dict[bytes, _KeyOwner] = {}
        twice: set[bytes] = set()
        for owner in self._all_owners():
            blinded = self._blinded(owner.digest)
            if found.setdefault(blinded, owner) != owner:
                twice.add(blinded)
        for blinded in twice:
            # Two key files with one content: neither team can be told from the other.
            log.error("a key that belongs to several teams opens nothing: one is %s", found.pop(blinded).team)
        return found

    def _all_owners(self) -> Iterator[_KeyOwner]:
        if self._token is not None:
            yield _KeyOwner(None, False, None, _digest(self._token))
        held: list[tuple[str | None, bool, ClientKey]] = [
            (team.name, False, key) for team in self._policy.teams.values() for key in team.keys
        ]
        held += [(None, True, key) for key in self._policy.server.admin_keys]
        for team, admin, key in held:
            if digest := self._digest_of(key):
                yield _KeyOwner(team, admin, key, digest)

    def _digest_of(self, key: ClientKey) -> bytes | None:
        """An unset or empty key matches nobody."""
        if key.secret.kind == "sha256":
            return bytes.fromhex(key.secret.name)
        value = self._files.value(key.secret)
        return _digest(value) if value else None

    def _has_expired(self, owner: _KeyOwner) -> bool:
        return owner.key is not None and owner.key.expires is not None and owner.key.expired(self._today())

    def _blinded(self, digest: bytes) -> bytes:
        return hashlib.blake2b(digest, key=self._salt, digest_size=32).digest()


def _without(headers: Headers, ours: Mapping[tuple[str, str], _KeyOwner]) -> Headers:
    kept = dict(headers)
    for name, line in ours:
        lines = tuple(other for other in kept[name] if other != line)
        if lines:
            kept[name] = lines
        else:
            del kept[name]
    return kept


def _key_in(name: str, line: str) -> str:
    if name == "x-api-key":
        return line
    scheme, _, key = line.strip().partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
