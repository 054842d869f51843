"""The names of headers in a rules file."""

from collections.abc import Iterable
from re import findall

from routeproxy.policy.file.report import Report
from routeproxy.policy.problems import Code, KeyPath


def check_header_names(names: Iterable[str], path: KeyPath, report: Report) -> None:
    """Reports names that no header has, and names that are one header: capitals make no difference."""
    first_spellings: dict[str, str] = {}
    for name in names:
        if not name or not name.isascii() or findall(r"[^A-Za-z0-9!#$%&'*+.^_`|~-]", name):
            report.error(Code.WRONG_VALUE, (*path, name), f"`{name}` is not a header's name", key=True)
        if (first := first_spellings.setdefault(name.lower(), name)) != name:
            message = f"`{name}` and `{first}` are one header"
            report.error(Code.DUPLICATE, (*path, name), message, key=True)
