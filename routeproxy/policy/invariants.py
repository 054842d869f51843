"""Invariants: which targets a request must never reach, whatever the rules say. They judge a target by what
is stated of it, so one that lacks what they ask for is judged guilty.

The same test serves the proof at load, the lock before each connection, `[teams.T] targets` and a test's
`never`.
"""

from collections.abc import Iterator, Mapping
from typing import Literal

from msgspec import Struct

from routeproxy.policy.conditions import Check, first_miss
from routeproxy.policy.facts import Facts, ascii_lower
from routeproxy.policy.patterns import covers, overlap
from routeproxy.policy.targets import Reached

Answer = Literal["yes", "no", "unknown"]


class Reach(Struct, frozen=True, kw_only=True):
    """What a target may be like. What is left out is not asked."""

    zone: tuple[str, ...] | None = None
    region: tuple[str, ...] | None = None
    labels: tuple[str, ...] | None = None
    provider: tuple[str, ...] | None = None
    target: tuple[str, ...] | None = None
    """Globs over `provider/model`."""

    def never(self, reached: Reached) -> str | None:
        """Why this target, which must not be so, is or may be; `None` if it surely is not."""
        answers = list(self._answers(reached))
        if any(answer == "no" for answer, _ in answers):
            return None
        return " and ".join(words for _, words in answers)

    def only(self, reached: Reached) -> str | None:
        """Why this target, which must be so, is not or may not be; `None` if it surely is."""
        return next((words for answer, words in self._answers(reached) if answer != "yes"), None)

    def _answers(self, reached: Reached) -> Iterator[tuple[Answer, str]]:
        for name in ("zone", "region", "provider"):
            if (wanted := getattr(self, name)) is not None:
                value = getattr(reached, name)
                yield _among(value, wanted), _stated(name, value)
        if self.labels is not None:
            labels = reached.labels
            answer: Answer = "unknown" if labels is None else "yes" if labels & {*self.labels} else "no"
            yield answer, _stated("labels", ", ".join(sorted(labels)) if labels else None)
        if self.target is not None:
            answer = self._names(reached.name)
            patterns = " or ".join(f"`{pattern}`" for pattern in self.target)
            yield answer, f"it {_BEING[answer]} {patterns}"

    def _names(self, name: str) -> Answer:
        if any(covers(pattern, name) for pattern in self.target or ()):
            return "yes"
        # A back end may take a name in other capitals for the same one.
        lowered = ascii_lower(name)
        doubt = any(overlap(ascii_lower(pattern), lowered) for pattern in self.target or ())
        return "unknown" if doubt else "no"

    @property
    def words(self) -> str:
        """`zone = "public"`"""
        said = [
            f"{name} = " + " or ".join(f'"{value}"' for value in values)
            for name in self.__struct_fields__
            if (values := getattr(self, name)) is not None
        ]
        return ", ".join(said)


def _among(value: str | None, wanted: tuple[str, ...]) -> Answer:
    if value is None:
        return "unknown"
    return "yes" if value in wanted else "no"


_BEING: Mapping[Answer, str] = {"yes": "is", "no": "is not", "unknown": "may be"}


def _stated(name: str, value: str | None) -> str:
    verb = "are" if name == "labels" else "is"
    return f"its {name} {verb} not stated" if value is None else f"its {name} {verb} `{value}`"


class Invariant(Struct, frozen=True, kw_only=True):
    name: str
    where: str
    """`rules.toml:41`"""
    path: tuple[str | int, ...]
    """Its place in the rules file."""
    when: tuple[Check, ...] = ()
    never: Reach | None = None
    only: Reach | None = None
    implied: bool = False
    """It follows from `[teams.T] targets`."""

    def applies(self, facts: Facts) -> bool:
        return first_miss(self.when, facts) is None

    def broken_by(self, reached: Reached) -> str | None:
        """Why a request that it applies to must not reach this target: "its zone is `public`"."""
        for reach, judge in ((self.never, Reach.never), (self.only, Reach.only)):
            if reach is not None and (why := judge(reach, reached)):
                return why
        return None

    @property
    def words(self) -> str:
        said = [f"never {self.never.words}"] if self.never else []
        return "; ".join([*said, *([f"only {self.only.words}"] if self.only else [])])
