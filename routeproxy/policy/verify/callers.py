"""Who may send a request, and the facts that depend on that: the team, and the headers that a policy states.

These facts are judged together, team by team. All other facts are judged apart.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from routeproxy.policy.conditions import Equals
from routeproxy.policy.decide import Policy
from routeproxy.policy.fact_table import header_fact
from routeproxy.policy.verify.satisfiability import Assignment, Constraint, holds, satisfiable

TeamHeaders = Mapping[str | None, Mapping[str, str]]
"""By team (`None`: a client without one), the headers that the policy states in place of the client's."""


class Callers:
    """The teams that may send a request, `None` among them if a client without a team may."""

    def __init__(self, headers: TeamHeaders) -> None:
        self._headers = headers
        self._header_facts = {header_fact(name).name: name for stated in headers.values() for name in stated}
        """By their facts, the headers that some team states."""

    def satisfiable(self, assignment: Assignment, changed: Collection[str]) -> bool:
        """Whether some request may meet `assignment`, if it could before the `changed` facts changed."""
        of_callers = [fact for fact in changed if fact == "team" or fact in self._header_facts]
        if of_callers and next(self.teams(assignment), _NO_CALLER) is _NO_CALLER:
            return False
        return all(satisfiable(assignment[fact]) for fact in changed if fact not in of_callers)

    def state(self, fact: str) -> bool:
        """Whether some team's requests have a value of this fact that the policy states."""
        return fact in self._header_facts

    def teams(self, assignment: Assignment) -> Iterator[str | None]:
        """The teams that may send a request which meets `assignment`."""
        constraints = assignment.get("team", ())
        for team in self._named_teams(constraints):
            if not holds(constraints, team):
                continue
            headers = self._headers[team]
            if all(
                _header_satisfiable(assignment[fact], headers.get(self._header_facts[fact]))
                for fact in self._header_facts.keys() & assignment.keys()
            ):
                yield team

    def _named_teams(self, constraints: Sequence[Constraint]) -> Iterable[str | None]:
        """Those that conditions name, or all: there may be thousands."""
        for check, positive in constraints:
            if positive and isinstance(check, Equals):
                return [team for team in dict.fromkeys(check.values) if team in self._headers]
        return self._headers


_NO_CALLER = object()


def _header_satisfiable(constraints: Sequence[Constraint], stated: str | None) -> bool:
    return satisfiable(constraints) if stated is None else holds(constraints, stated)


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
