"""The older proxies' variables, read as what they have to be. Whatever is wrong is collected and never raised
here: an operator wants to see all of it at once."""

from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

from routeproxy.policy.problems import Code, Problem
from routeproxy.policy.provider_types import Zone

TRUE = frozenset({"true", "1", "yes", "on"})
FALSE = frozenset({"false", "0", "no", "off"})


class EnvironmentVariables:
    """Reads variables by their names. One that is empty is not set."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.errors: list[Problem] = []
        self.notes: list[Problem] = []
        """What is odd, and no error."""

    def get(self, name: str) -> str | None:
        return cleaned(self._environ.get(name, "")) or None

    def flag(self, name: str, *, default: bool) -> bool:
        text = (self.get(name) or str(default)).lower()
        if text not in TRUE | FALSE:
            self.wrong_value(name, text, "`true` or `false`")
        return text in TRUE

    def number(self, name: str, default: int, most: int = 2**31) -> int:
        text = self.get(name) or str(default)
        if text.isascii() and text.isdigit() and int(text) <= most:
            return int(text)
        self.wrong_value(name, text, f"a whole number of at most {most}")
        return default

    def url(self, name: str, *, query: bool = False) -> SplitResult | None:
        """An address, with a query only if `query` allows it."""
        text = self.get(name)
        url = _split(text) if text else None
        if text and (url is None or (url.query and not query)):
            # Its text is not repeated: it may hold a password.
            expected = "an address such as `https://host/v1`, without a password in it"
            self.error(Code.WRONG_VALUE, name, f"{name} is not an address", expected=expected)
        return url

    # --- problems

    def wrong_value(self, name: str, text: str, expected: str) -> None:
        self.error(Code.WRONG_VALUE, name, f"{name} can't be `{text}`", expected=expected)

    def require(self, name: str, reason: str, hint: str) -> None:
        """An error if the variable is not set."""
        if self.get(name) is None:
            self.error(Code.MISSING, name, f"{name} is not set, but {reason}", hint=hint)

    def error(
        self, code: Code, name: str, message: str, *, expected: str | None = None, hint: str | None = None
    ) -> None:
        problem = Problem(
            code=code, severity="error", path=(name,), message=message, expected=expected, hint=hint
        )
        if problem not in self.errors:
            self.errors.append(problem)

    def note(self, code: Code, name: str, message: str, *, hint: str | None = None) -> None:
        note = Problem(code=code, severity="warning", path=(name,), message=message, hint=hint)
        if note not in self.notes:
            self.notes.append(note)


def _split(text: str) -> SplitResult | None:
    try:
        url = urlsplit(text.rstrip("/"))
        valid = url.scheme in {"http", "https"} and url.hostname and "@" not in url.netloc and url.port != 0
    except ValueError:
        return None
    return url._replace(fragment="") if valid else None


INTERNAL_NAMES = (
    ".internal",
    ".local",
    ".localdomain",
    ".lan",
    ".home",
    ".home.arpa",
    ".corp",
    ".intranet",
    ".private",
)
"""Ends of names that the public DNS does not have."""


def zone_of(url: SplitResult) -> Zone:
    """The zone of an endpoint, by its host alone: whatever may stand in the public DNS is public."""
    host = (url.hostname or "").rstrip(".")
    try:
        address = ip_address(host)
    except ValueError:
        if host == "localhost" or host.endswith(".localhost"):
            return "local"
        return "private" if "." not in host or host.endswith(INTERNAL_NAMES) else "public"
    address = getattr(address, "ipv4_mapped", None) or address
    return "local" if address.is_loopback else "public" if address.is_global else "private"


def cleaned(value: str) -> str:
    """What the author of a variable meant: without the byte order mark, the line break and the pair of quotes
    that files, secret stores and Docker's `--env-file` leave around it."""
    value = value.strip("\ufeff \t\r\n")
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
        value = value[1:-1].strip("\ufeff \t\r\n")
    return value
