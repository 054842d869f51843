"""The versions that were in force, and what each changed for whom."""

import asyncio

from routeproxy.policy.decide import Policy
from routeproxy.policy.live.versions import NoSuchVersion
from routeproxy.policy.problems import RulesRefused
from routeproxy.policy.verify.diff import compare_policies
from routeproxy.web.pages.content import Cell, Column, Part, Table, View, Words
from routeproxy.web.pages.desk import Asked, Desk

MOST = 10
"""Versions that are compared: each is compiled for that."""
MOST_LINES = 20


async def reloads_view(desk: Desk, asked: Asked) -> View:
    lead = "The versions of the rules that were in force, the latest first, with what each changed for whom."
    parts: list[Part] = []
    control = desk.control
    if control is not None and (problem := control.problem):
        parts.append(
            Words(title="What is on disk was not taken", lines=tuple(problem.splitlines()), tone="bad")
        )
    history = control.history if control is not None else (desk.policy.version,)
    shown = tuple(reversed(history))[:MOST]
    rows = await asyncio.to_thread(_rows, desk, shown, history)
    parts.append(
        Table(
            name="reloads",
            title="Versions",
            columns=(Column("Version", "narrow"), Column("What it changed")),
            rows=rows,
            empty="None.",
            lead=f"The last {MOST} of {len(history)}." if len(history) > MOST else "",
        )
    )
    return View(title="Reloads", lead=lead, parts=tuple(parts))


def _rows(desk: Desk, shown: tuple[str, ...], history: tuple[str, ...]) -> tuple[tuple[Cell, ...], ...]:
    policies: dict[str, Policy | str] = {}

    def policy(version: str) -> Policy | str:
        if version not in policies:
            policies[version] = _policy(desk, version)
        return policies[version]

    rows = []
    for place, version in enumerate(shown):
        index = len(history) - 1 - place
        before = history[index - 1] if index > 0 else None
        note = "in force" if place == 0 else ""
        changes = (
            _changes(policy(before), policy(version)) if before is not None else "the first that is known"
        )
        rows.append((Cell(version, note=note, tone="good" if place == 0 else ""), Cell(changes)))
    return tuple(rows)


def _policy(desk: Desk, version: str) -> Policy | str:
    """The rules of a version, or why there are none."""
    if version == desk.policy.version:
        return desk.policy
    if desk.earlier is None:
        return "is not kept"
    try:
        return desk.earlier(version)
    except NoSuchVersion:
        return "is not kept"
    except RulesRefused:
        return "is refused by now"
    except OSError as error:
        return f"can't be read: {error.strerror}"


def _changes(before: Policy | str, after: Policy | str) -> str:
    for policy, words in ((before, "the version before"), (after, "this version")):
        if isinstance(policy, str):
            return f"not known: {words} {policy}"
    assert not isinstance(before, str)
    assert not isinstance(after, str)
    lines = compare_policies(before, after)
    if not lines:
        return "nothing that decides a request"
    more = [f"and {len(lines) - MOST_LINES} more"] if len(lines) > MOST_LINES else []
    return "\n".join([*lines[:MOST_LINES], *more])
