"""Who may send a request, and the facts that depend on that: the team, and the headers that a policy states.

These facts are judged together, team by team. All other facts are judged apart.
"""

from collections.abc import Iterable, Iterator, Mapping

from routeproxy.policy.decide import Policy
from routeproxy.policy.verify.satisfiability import Assignment, holds, satisfiable

TeamHeaders = Mapping[str | None, Mapping[str, str]]
"""By team (`None`: a client without one), the headers that the policy states in place of the client's."""


class Callers:
    """The teams that may send a request, `None` among them if a client without a team may."""

    def __init__(self, headers: TeamHeaders) -> None:
        self._headers = headers
        self._header_facts = frozenset(f"header {name}" for stated in headers.values() for name in stated)
        """The headers that some team states."""

    def satisfiable(self, assignment: Assignment, changed: Iterable[str]) -> bool:
        """Whether some request may meet `assignment`, if it could before the `changed` facts changed."""
        changed = set(changed)
        if changed & self._header_facts or "team" in changed:
            if next(self.teams(assignment), _NO_CALLER) is _NO_CALLER:
                return False
            changed -= self._header_facts | {"team"}
        return all(satisfiable(assignment[fact]) for fact in changed)

    def teams(self, assignment: Assignment) -> Iterator[str | None]:
        """The teams that may send a request which meets `assignment`."""
        for team, headers in self._headers.items():
            if not holds(assignment.get("team", ()), team):
                continue
            if all(
                _header_satisfiable(fact, headers, assignment)
                for fact in self._header_facts & assignment.keys()
            ):
                yield team


_NO_CALLER = object()


def _header_satisfiable(fact: str, headers: Mapping[str, str], assignment: Assignment) -> bool:
    value = headers.get(fact.removeprefix("header "))
    return satisfiable(assignment[fact]) if value is None else holds(assignment[fact], value)


def team_headers(policy: Policy) -> TeamHeaders:
    """The headers that `policy` states for each team that may send a request."""
    headers: dict[str | None, Mapping[str, str]] = {
        name: team.request_headers for name, team in policy.teams.items()
    }
    # Where no team has a key every client is without a team, with `ANTHROPIC_AUTH_TOKEN` or without.
    if not policy.server.require_key or not any(team.keys for team in policy.teams.values()):
        headers[None] = {}
    return headers


def callers_of(policy: Policy) -> Callers:
    return Callers(team_headers(policy))
