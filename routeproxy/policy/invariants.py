"""Invariants: which targets a request must never reach, whatever the rules say. They judge a target by what
is stated of it, so one that lacks what they ask for is judged guilty.

The same judgement serves the proof at load, the guard before each connection, `[teams.T] targets` and a
test's `never`.
"""

from collections.abc import Iterator, Mapping
from typing import Literal

from msgspec import Struct

from routeproxy.policy.conditions import Check, first_miss
from routeproxy.policy.facts import Facts, ascii_lower
from routeproxy.policy.patterns import covers, overlap
from routeproxy.policy.problems import KeyPath
from routeproxy.policy.targets import ReachedTarget

Answer = Literal["yes", "no", "unknown"]


class TargetCondition(Struct, frozen=True, kw_only=True):
    """What a target may be like: all fields hold, each by one of its values. `None` is not asked."""

    zone: tuple[str, ...] | None = None
    region: tuple[str, ...] | None = None
    labels: tuple[str, ...] | None = None
    provider: tuple[str, ...] | None = None
    target: tuple[str, ...] | None = None
    """Globs over `provider/model`."""
    record: tuple[str, ...] | None = None
    """What is recorded of a conversation with it."""

    def never(self, reached: ReachedTarget) -> str | None:
        """Why this target, which must not meet it, does or may; `None` if it surely does not."""
        answers = list(self._answers(reached))
        if any(answer == "no" for answer, _ in answers):
            return None
        return " and ".join(words for _, words in answers)

    def only(self, reached: ReachedTarget) -> str | None:
        """Why this target, which must meet it, does not or may not; `None` if it surely does."""
        return next((words for answer, words in self._answers(reached) if answer != "yes"), None)

    def _answers(self, reached: ReachedTarget) -> Iterator[tuple[Answer, str]]:
        for name in ("zone", "region", "provider"):
            if (allowed := getattr(self, name)) is not None:
                value = getattr(reached, name)
                yield _is_among(value, allowed), _stated(name, value)
        if self.labels is not None:
            labels = reached.labels
            answer: Answer = "unknown" if labels is None else "yes" if labels & {*self.labels} else "no"
            yield answer, _stated("labels", ", ".join(sorted(labels)) if labels else None)
        if self.target is not None:
            answer = self._matches(reached.name)
            patterns = " or ".join(f"`{pattern}`" for pattern in self.target)
            yield answer, f"it {_VERBS[answer]} {patterns}"
        if self.record is not None:
            is_recorded = reached.record in self.record
            yield ("yes", "what is asked of it is recorded") if is_recorded else ("no", "nothing is recorded")

    def _matches(self, name: str) -> Answer:
        if any(covers(pattern, name) for pattern in self.target or ()):
            return "yes"
        # A back end may take a name in other capitals for the same one.
        lowered = ascii_lower(name)
        may_match = any(overlap(ascii_lower(pattern), lowered) for pattern in self.target or ())
        return "unknown" if may_match else "no"

    @property
    def words(self) -> str:
        """`zone = "public"`"""
        fields = [
            f"{name} = " + " or ".join(f'"{value}"' for value in values)
            for name in self.__struct_fields__
            if (values := getattr(self, name)) is not None
        ]
        return ", ".join(fields)


def _is_among(value: str | None, values: tuple[str, ...]) -> Answer:
    if value is None:
        return "unknown"
    return "yes" if value in values else "no"


_VERBS: Mapping[Answer, str] = {"yes": "is", "no": "is not", "unknown": "may be"}


def _stated(name: str, value: str | None) -> str:
    verb = "are" if name == "labels" else "is"
    return f"its {name} {verb} not stated" if value is None else f"its {name} {verb} `{value}`"


class Invariant(Struct, frozen=True, kw_only=True):
    """What must hold of the targets of all requests that meet `when`."""

    name: str
    where: str
    """`rules.toml:41`"""
    path: KeyPath
    """Its place in the rules file."""
    when: tuple[Check, ...] = ()
    never: TargetCondition | None = None
    only: TargetCondition | None = None
    implied: bool = False
    """It follows from `[teams.T] targets`."""

    def applies(self, facts: Facts) -> bool:
        return first_miss(self.when, facts) is None

    def forbids_recording(self, facts: Facts) -> bool:
        """Whether it may: that is for the proof to tell, and nothing is recorded on its account."""
        return self.never is not None and self.never.record is not None and self.applies(facts)

    def broken_by(self, reached: ReachedTarget) -> str | None:
        """Why a request that it applies to must not reach this target: "its zone is `public`"."""
        if self.never is not None and (why := self.never.never(reached)):
            return why
        return self.only.only(reached) if self.only is not None else None

    @property
    def words(self) -> str:
        """`never zone = "public"`"""
        never = [f"never {self.never.words}"] if self.never else []
        only = [f"only {self.only.words}"] if self.only else []
        return "; ".join(never + only)
