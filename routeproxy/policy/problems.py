"""What is wrong with a rules file, as values: where, what, what else. `file.report` collects them and finds
their places in the text."""

from collections.abc import Iterable
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Literal

from msgspec import Struct

KeyPath = tuple[str | int, ...]
"""The keys and indexes that lead to a place in a rules file: `("rules", 2, "match", "model")`."""

Severity = Literal["error", "warning"]


class Code(StrEnum):
    """Stable: scripts and editors filter by these. From RP101 on they are warnings."""

    SYNTAX = "RP001"
    UNKNOWN_KEY = "RP002"
    WRONG_VALUE = "RP003"
    MISSING = "RP004"
    EMPTY = "RP005"
    UNDEFINED = "RP007"
    DUPLICATE = "RP008"
    CONTRADICTION = "RP009"
    BAD_PATTERN = "RP010"
    FORBIDDEN = "RP011"
    LITERAL_SECRET = "RP012"
    NOT_FOR_TYPE = "RP013"
    BROKEN_INVARIANT = "RP014"
    NOT_PROVED = "RP015"
    TEST_FAILED = "RP016"

    REST_UNUSED = "RP101"
    RISKY_FALLBACK = "RP102"
    UNSET_VARIABLE = "RP103"
    NO_EFFECT = "RP104"
    UNREACHABLE = "RP105"
    NEVER_TRUE = "RP106"
    UNUSED = "RP107"
    WORSE_CHAIN = "RP108"
    READABLE_KEY = "RP109"
    EXPIRED = "RP110"
    MISPLACED = "RP111"
    UNUSED_ACCEPTANCE = "RP112"


ACCEPTABLE = tuple(code for code in Code if code.value >= "RP101" and code is not Code.UNUSED_ACCEPTANCE)
"""The warnings that a rules file can accept."""


class Location(Struct, frozen=True):
    """Where a problem is, for people and editors: lines and columns begin with 1."""

    file: str
    line: int
    column: int
    end_column: int
    text: str
    """The line as it stands, literal keys masked."""


class Problem(Struct, frozen=True, kw_only=True):
    """One thing that is wrong, or odd: what, where, and what else could be meant."""

    code: Code
    severity: Severity
    path: KeyPath
    message: str
    expected: str | None = None
    """What should stand there."""
    hint: str | None = None
    """A way out."""
    rule: str | None = None
    """The name of the rule that it is in."""
    location: Location | None = None

    def __str__(self) -> str:
        """As compilers say it: one line for machines and editors, then the line itself with a caret."""
        place = self.location
        where = f"{place.file}:{place.line}:{place.column}: " if place else ""
        lines = [f"{where}{self.severity} {self.code.value}: {self.message}"]
        margin = " "
        if place:
            margin = " " * len(str(place.line))
            # Tabs stay tabs below, so that the caret stands right at any width.
            before = "".join("\t" if c == "\t" else " " for c in place.text[: place.column - 1])
            lines += [
                f"{margin} |",
                f"{place.line} | {place.text}".rstrip(),
                f"{margin} | {before}{'^' * (place.end_column - place.column)}",
            ]
        if self.rule:
            lines.append(f"{margin} = in rule `{self.rule}`")
        if self.expected:
            lines.append(f"{margin} = expected {self.expected}")
        if self.hint:
            lines.append(f"{margin} = {self.hint}")
        return "\n".join(lines)


class AcceptedProblem(Problem, frozen=True, kw_only=True):
    """A warning that the rules file accepts: it counts for nothing."""

    reason: str

    @classmethod
    def of(cls, problem: Problem, reason: str) -> "AcceptedProblem":
        return cls(**{name: getattr(problem, name) for name in Problem.__struct_fields__}, reason=reason)

    def __str__(self) -> str:
        """As a problem that was accepted, with why."""
        lines = super().__str__().replace(f"warning {self.code.value}", f"accepted {self.code.value}", 1)
        margin = " " * len(str(self.location.line)) if self.location else " "
        return f"{lines}\n{margin} = accepted: {self.reason}"


class RulesRefused(Exception):
    """A rules file that must not take effect: all that is wrong with it, and what was noticed besides. As
    text it is what must be mended; warnings would only hide that."""

    def __init__(self, problems: tuple[Problem, ...], accepted: tuple[AcceptedProblem, ...] = ()) -> None:
        errors = [problem for problem in problems if problem.severity == "error"]
        super().__init__("\n\n".join(map(str, errors or problems)))
        self.problems = problems
        self.accepted = accepted
        self.files: tuple[Path, ...] = ()
        """The files and folders that were looked at besides the rules file."""


def visible(text: str) -> str:
    """With escapes for what can't be seen, ends a line or steers a terminal: two values that look alike must
    not."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word that may have been misspelt as `word`."""
    by_lower = {name.lower(): name for name in known}
    nearest = get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[nearest[0]] if nearest else None


def one_of(words: Iterable[str]) -> str:
    """`one of `a`, `b``; of more than 24 words only the first."""
    quoted = [f"`{word}`" for word in words]
    more = [f"{len(quoted) - 24} more"] if len(quoted) > 24 else []
    return quoted[0] if len(quoted) == 1 else f"one of {', '.join(quoted[:24] + more)}"
