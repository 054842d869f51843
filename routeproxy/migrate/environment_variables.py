"""The older proxies' variables, read as what they have to be. Whatever is wrong is collected and never raised
here: an operator wants to see all of it at once."""

import re
from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

from routeproxy.policy.compile.connections import url_problem
from routeproxy.policy.problems import Code, Problem
from routeproxy.policy.provider_types import Zone

TRUE = frozenset({"true", "1", "yes", "on"})
FALSE = frozenset({"false", "0", "no", "off"})

OTHER_NAMES: Mapping[str, tuple[str, ...]] = {
    "AZURE_API_VERSION": ("AZURE_OPENAI_API_VERSION",),
    "AZURE_OPENAI_ENDPOINT": ("AZURE_API_BASE", "AZURE_BASE_URL"),
    "MAX_OUTPUT_TOKENS": ("MAX_TOKENS_LIMIT",),
    "MIDDLE_MODEL": ("MEDIUM_MODEL",),
    "OPENAI_BASE_URL": ("OPENAI_API_BASE",),
    "TOGETHERAI_API_KEY": ("TOGETHER_API_KEY",),
    "VERTEX_LOCATION": ("VERTEXAI_LOCATION",),
    "VERTEX_PROJECT": ("VERTEXAI_PROJECT",),
}
"""What some forks, and LiteLLM below them, call a variable. Each is taken for it, with a note."""


class EnvironmentVariables:
    """Reads variables by their names. One that is empty is not set."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.errors: list[Problem] = []
        self.notes: list[Problem] = []
        """What is odd, and no error."""

    def get(self, name: str) -> str | None:
        for spelling in (name, *OTHER_NAMES.get(name, ())):
            value = cleaned(self._environ.get(spelling, ""))
            if not value:
                continue
            if is_key(spelling) and is_placeholder(value):
                self.note(Code.UNSET_VARIABLE, spelling, f"{spelling} holds {PLACEHOLDER}: it is not used")
                continue
            if spelling != name:
                self.note(Code.UNSET_VARIABLE, name, f"{name} is not set: {spelling} is taken for it")
            return value
        return None

    def reason_for_missing(self, name: str) -> str:
        """Why `get` finds nothing."""
        value = cleaned(self._environ.get(name, ""))
        return f"{name} holds {PLACEHOLDER}" if value else f"{name} is not set"

    def names(self) -> list[str]:
        """Of all variables that have a value."""
        return [name for name, value in self._environ.items() if cleaned(value)]

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
        elif text and not query and (problem := url_problem(text.rstrip("/"))):
            self.error(
                Code.WRONG_VALUE, name, f"{name} {problem}", expected="an address such as `https://host/v1`"
            )
        elif url is not None and is_placeholder(url.hostname or ""):
            message = f"{name} is at {url.hostname}, {PLACEHOLDER}: put your own there"
            self.note(Code.WRONG_VALUE, name, message)
        return url

    # --- problems

    def wrong_value(self, name: str, text: str, expected: str, *, hint: str | None = None) -> None:
        self.error(Code.WRONG_VALUE, name, f"{name} can't be `{text}`", expected=expected, hint=hint)

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


PLACEHOLDER = "the placeholder of an example"
_PLACEHOLDERS = re.compile(
    r"""
    .*(\.\.\.|\u2026)            # sk-...
    | [*]{3,} | .*[*]{6,}
    | .*<[^<>]*>.*               # <your-key>
    | (|.*[^a-z])your[-_ .].*    # your-api-key
    | .*[-_ ]here                # api-key-here
    | ([a-z]+[-_])*x{3,} | .*x{8,}
    | .*(change|replace)[-_ ]?me.*
    """,
    re.IGNORECASE | re.VERBOSE,
)


def is_placeholder(value: str) -> bool:
    """Whether a value is what an example had in its place, such as `sk-...` or `your-api-key-here`."""
    return _PLACEHOLDERS.fullmatch(value) is not None


def is_key(name: str) -> bool:
    """Whether a variable holds the key of a provider."""
    return name.endswith("_API_KEY")


def without_placeholders(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables without the keys that are placeholders: none of those is ever sent."""
    return {name: value for name, value in environ.items() if not (is_key(name) and is_placeholder(value))}


_QUOTED_WITH_COMMENT = re.compile(r"""(?P<value>(?P<quote>["']).*?(?P=quote))\s+#.*""")


_UNSEEN = " \t\r\n\ufeff\u00a0\u200b\u2060"
"""What nobody sees around a value: blanks, byte order marks, and what web pages have between words."""
_QUOTES = {('"', '"'), ("'", "'"), ("\u201c", "\u201d"), ("\u2018", "\u2019")}
"""The last two are what word processors make of them."""


def cleaned(value: str) -> str:
    """What the author of a variable meant: without the byte order mark, the line break, the pair of quotes
    and the comment behind them that files, secret stores and Docker's `--env-file` leave around it."""
    value = value.strip(_UNSEEN)
    if commented := _QUOTED_WITH_COMMENT.fullmatch(value):
        value = commented["value"]
    if len(value) >= 2 and (value[0], value[-1]) in _QUOTES:
        value = value[1:-1].strip(_UNSEEN)
    return value
