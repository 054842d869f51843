"""Collects the problems of one rules file, and gives each its place and the line that may be shown of it. It
judges nothing itself, but for text that is no TOML."""

import re
import tomllib
from collections.abc import Iterable
from contextlib import suppress
from functools import cached_property
from typing import Any

import tomli

from routeproxy.policy.file.source_map import MOST_LEVELS, Place, SourceMap
from routeproxy.policy.problems import (
    Code,
    KeyPath,
    Location,
    Problem,
    RulesRefused,
    Severity,
    closest,
    one_of,
    visible,
)
from routeproxy.policy.secrets import SECRET_NAME, USER_IN_ADDRESS


class Report:
    """Collects the problems of one file and gives each its place."""

    def __init__(self, text: str, file: str, *, gives_way: bool = False) -> None:
        """`file` is what problems call the file; `gives_way`: other threads wait for what they do."""
        self.file = file
        self.gives_way = gives_way
        self.document: dict[str, Any] = {}
        self.map = SourceMap(text)
        self._problems: list[Problem] = []
        self._errors: dict[KeyPath, set[Code]] = {}
        """By a path, the codes of the errors there and below."""

    def parse(self) -> dict[str, Any]:
        """The text as TOML. Raises `RulesRefused` if it isn't: nothing more can be said about such a file."""
        try:
            self.document = _tables_in(self.map.text, gives_way=self.gives_way)
        except tomli.TOMLDecodeError as error:
            hint = _hint_for(error, self.map.text)
            self._add(Code.SYNTAX, (), _lower_first(error.msg), "error", None, hint, self.map.at(error.pos))
            raise self.refused() from None
        except RecursionError:
            self.error(Code.SYNTAX, (), _TOO_DEEP)
            raise self.refused() from None
        self.map = SourceMap.of(self.map.text)
        if len(self.map.deepest) > MOST_LEVELS:
            self.error(Code.SYNTAX, self.map.deepest, _TOO_DEEP)
            raise self.refused()
        return self.document

    @cached_property
    def _masked_map(self) -> SourceMap:
        """The text as it may be shown. A file without problems never needs it."""
        return _masked(self.map)

    def error(
        self,
        code: Code,
        path: KeyPath,
        message: str,
        *,
        expected: str | None = None,
        hint: str | None = None,
        key: bool = False,
    ) -> None:
        """`expected`: what should stand there. `hint`: a way out. `key`: the key itself is at fault, not what
        stands behind it."""
        place = self.map.key(path) if key else self.map.value(path)
        self._add(code, path, message, "error", expected, hint, place)

    def warn(
        self, code: Code, path: KeyPath, message: str, *, hint: str | None = None, key: bool = False
    ) -> None:
        place = self.map.key(path) if key else self.map.value(path)
        self._add(code, path, message, "warning", None, hint, place)

    def unknown(
        self,
        code: Code,
        path: KeyPath,
        message: str,
        word: str,
        known: Iterable[str],
        *,
        key: bool = False,
        hint: str = "",
    ) -> None:
        """Reports a word that isn't one of `known`, with the nearest of these and with all of them."""
        known = sorted(known)
        near = closest(word, known)
        self.error(
            code,
            path,
            message + (f"; did you mean `{near}`?" if near else ""),
            expected=one_of(known) if known else None,
            hint=hint or None,
            key=key,
        )

    def faulty(self, path: KeyPath, *codes: Code) -> bool:
        """Whether an error (of one of `codes`) was found at `path` or below, so that no more need be said."""
        found = self._errors.get(path, set())
        return not found.isdisjoint(codes) if codes else bool(found)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """In the order of the text."""
        return tuple(sorted(self._problems, key=_position))

    @property
    def count(self) -> int:
        """How many problems were found."""
        return len(self._problems)

    @property
    def failed(self) -> bool:
        """Whether there is an error among them."""
        return bool(self._errors)

    def refused(self) -> RulesRefused:
        return RulesRefused(self.problems)

    def _add(
        self,
        code: Code,
        path: KeyPath,
        message: str,
        severity: Severity,
        expected: str | None,
        hint: str | None,
        place: Place,
    ) -> None:
        for length in range(len(path) + 1) if severity == "error" else ():
            self._errors.setdefault(path[:length], set()).add(code)
        text = self._masked_map.line(place.line)
        self._problems.append(
            Problem(
                code=code,
                severity=severity,
                path=path,
                message=visible(message),
                expected=expected and visible(expected),
                hint=hint and visible(hint),
                rule=self._rule(path),
                location=Location(self.file, place.line, place.column, place.end_column, text),
            )
        )

    def _rule(self, path: KeyPath) -> str | None:
        """The name of the rule that a place is in."""
        match path:
            case ("default", *_):
                return "default"
            case ("rules", int(index), *_):
                rule = self.document["rules"][index]
                name = rule.get("name") if isinstance(rule, dict) else None
                return visible(name) if isinstance(name, str) and name else unnamed_rule(index)
        return None


def _tables_in(text: str, *, gives_way: bool) -> dict[str, Any]:
    """Raises `tomli.TOMLDecodeError` or `RecursionError`.

    tomli is compiled, and lets no other thread run before it is done: a server would answer nobody for 0.2 s
    of a reload of 10,000 rules. Python's own parser, the same code, takes three times as long and gives way.
    """
    if gives_way:
        with suppress(ValueError, RecursionError):  # tomli knows more of TOML, and says where an error is
            return tomllib.loads(text)
    return tomli.loads(text)


def _position(problem: Problem) -> tuple[int, int]:
    return (problem.location.line, problem.location.column) if problem.location else (0, 0)


_TOO_DEEP = f"nested more than {MOST_LEVELS} levels deep"


def unnamed_rule(index: int) -> str:
    """What a rule without a name is called."""
    return f"rule {index + 1}"


def _hint_for(error: tomli.TOMLDecodeError, text: str) -> str | None:
    if re.search(r"^(?:<{7}|={7}|>{7})", text, re.MULTILINE):
        return "the marks of a merge that was not finished are in it"
    if error.pos >= len(text.rstrip()):
        return "the file ends here: was it saved whole?"
    return next((hint for start, hint in _SYNTAX_HINTS.items() if error.msg.startswith(start)), None)


_SYNTAX_HINTS = {
    "Illegal character '\\n'": "the closing quote is missing",
    "Invalid value": "text needs quotes around it",
    "Cannot mutate immutable": "a table in braces is complete: write all of its keys inside them, or none",
    "Cannot overwrite": "this key stands twice, or as a value and as a table",
    "Cannot declare": "this table stands twice",
}

_REFERENCE = re.compile(r"""["']*(?:env:|file:|sha256:|none\b|client\b)""")
_KEY_IN_ADDRESS = re.compile(
    r"""(://[^\s"']*?[?&][\w-]*(?:key|secret|passw|token|sig)[\w-]*=)([^&\s"']+)""", re.IGNORECASE
)
_AFTER_SECRET_NAME = re.compile(
    r"""((?:key|secret|passw|authorization|cookie|token(?!s))[\w-]*["']?\s*=\s*\[?\s*["']*+)(?!env:|file:|sha256:)([^"'\n]+)""",
    re.IGNORECASE,
)


def _masked(map: SourceMap) -> SourceMap:
    """The text with dots for literal keys and passwords: excerpts of it end up in build logs.

    A text that could not be parsed has no known values: dots stand for what follows a telling name.
    """
    text = USER_IN_ADDRESS.sub(_mask_second, map.text)
    text = _KEY_IN_ADDRESS.sub(_mask_second, text)
    if not map.values:
        return SourceMap(_AFTER_SECRET_NAME.sub(_mask_second, text))
    for path, (start, end) in map.values.items():
        named = [part for part in path if isinstance(part, str)]
        # Of a table the name says it too; but the first two are a kind, and what somebody called it, and the
        # `keys` of a team may be tables that say which is the secret.
        is_secret = any(SECRET_NAME.search(name) for name in (*named[2:], *named[-1:]) if name != "keys")
        is_secret = is_secret or named[-1:] == ["keys"]
        value = text[start:end]
        if value[0] in "\"'" and is_secret and not _REFERENCE.match(value):
            text = text[:start] + _dots(value) + text[end:]
    return SourceMap(text)


def _mask_second(match: re.Match[str]) -> str:
    return match[1] + _dots(match[2])


def _dots(text: str) -> str:
    """As long as `text`, so that carets below it stand right."""
    return re.sub(r"[^\n]", "•", text)


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
