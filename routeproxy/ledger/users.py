"""What the ledger calls users."""

import hashlib
import hmac
from functools import lru_cache

from routeproxy.ledger.opening import ValueOf
from routeproxy.policy.ledger import LedgerSettings


@lru_cache(4096)
def pseudonym_of(user: str, key: bytes) -> str:
    """32 hexadecimal digits, by which nobody without the key can tell the user."""
    return hmac.new(key, user.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:32]


def known_name(user: str, settings: LedgerSettings, value_of: ValueOf) -> str:
    """What the ledger calls a user. Raises `ValueError` where that can't be told."""
    if settings.users != "pseudonym" or settings.pseudonym_key is None:
        return user
    key = value_of(settings.pseudonym_key)
    if key is None:
        reference = settings.pseudonym_key.reference
        raise ValueError(f"users are known by a keyed hash, and its key {reference} is not set")
    return pseudonym_of(user, key.encode("utf-8", "surrogatepass"))
