"""Who is signed in: a cookie that names a key by a keyed hash of it, for twelve hours. It holds no key, opens
nothing but the page, and counts no longer than its key does."""

import hashlib
import hmac
import time
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie

from routeproxy.messages.errors import ApiError
from routeproxy.web.auth import Authenticator, Caller

NAME = "routeproxy_page"
SECONDS = 12 * 3600
NO_PAGE = "this key opens no page: it takes an admin key, or a team's for its own part"


class SignIns:
    def __init__(
        self, authenticator: Authenticator, secret: bytes, now: Callable[[], float] = time.time
    ) -> None:
        """`secret`: the same at all workers."""
        self._authenticator = authenticator
        self._secret = hmac.new(secret, b"cookies of the page", hashlib.sha256).digest()
        self._now = now

    def cookie(self, key: str, *, is_secure: bool) -> str:
        """The `Set-Cookie` of whoever shows this key. Raises `ApiError` (401) for a key that opens nothing
        here."""
        digest = hashlib.sha256(key.strip().encode("utf-8", "surrogateescape")).digest()
        for own, caller in self._authenticator.owners():
            if hmac.compare_digest(own, digest):
                if caller.role == "metrics":
                    raise ApiError(403, "this key is for metrics, and shows no page")
                begun = str(int(self._now()))
                value = f"{begun}.{self._name_of(digest)}"
                return self._written(f"{value}.{self._mac(value)}", SECONDS, is_secure=is_secure)
        raise ApiError(401, NO_PAGE)

    def sign_out(self, *, is_secure: bool) -> str:
        return self._written("", 0, is_secure=is_secure)

    def caller(self, headers: tuple[str, ...]) -> Caller | None:
        """Whoever has this cookie; `None`: nobody, nobody any more, or not for so long."""
        value = _value_in(headers)
        begun, _, rest = value.partition(".")
        name, _, mac = rest.partition(".")
        if not hmac.compare_digest(mac.encode(), self._mac(f"{begun}.{name}").encode()):
            return None
        if not 0 <= self._now() - int(begun) < SECONDS:
            return None
        for digest, caller in self._authenticator.owners():
            if hmac.compare_digest(self._name_of(digest), name):
                return caller
        return None

    def _written(self, value: str, seconds: int, *, is_secure: bool) -> str:
        secure = "; Secure" if is_secure else ""
        return f"{NAME}={value}; Path=/-/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}"

    def _name_of(self, digest: bytes) -> str:
        return hmac.new(self._secret, b"key" + digest, hashlib.sha256).hexdigest()[:32]

    def _mac(self, value: str) -> str:
        return hmac.new(self._secret, b"cookie" + value.encode(), hashlib.sha256).hexdigest()


def _value_in(headers: tuple[str, ...]) -> str:
    """That of our cookie, in ASCII; empty: there is none."""
    for line in headers:
        try:
            cookie = SimpleCookie(line).get(NAME)
        except CookieError:
            continue
        if cookie is not None and cookie.value.isascii():
            return cookie.value
    return ""
