"""Concrete requests for what the solver found: requests that satisfy an assignment, and counterexamples to an
invariant. No request that is made up here counts before the code that serves has decided it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, NamedTuple

from routeproxy.messages.errors import InvalidRequest
from routeproxy.policy.conditions import (
    Begins,
    Check,
    Contains,
    Flag,
    HasTool,
    Matches,
    Present,
    Share,
    Single,
    TextCheck,
    Within,
)
from routeproxy.policy.decide import Policy, Rule
from routeproxy.policy.fact_table import BY_NAME, FACTS, MODEL, TEAM, header_of
from routeproxy.policy.facts import as_line, requested_model_problem
from routeproxy.policy.hypothetical import HypotheticalRequest
from routeproxy.policy.invariants import Invariant
from routeproxy.policy.targets import ReachedTarget, Target
from routeproxy.policy.verify.callers import callers_of, team_headers
from routeproxy.policy.verify.regex_samples import samples
from routeproxy.policy.verify.satisfiability import (
    Assignment,
    Constraint,
    allowed_flag,
    allows_absence,
    holds,
    least_number,
)
from routeproxy.policy.verify.solver import single_checks

USUAL_MODELS = ("claude-opus-4-8", "claude-sonnet-5", "claude-haiku-4-5", "gpt-4.1", "x")


class Violation(NamedTuple):
    """A target that an invariant forbids, and why: "its zone is `public`"."""

    reached: ReachedTarget
    why: str


def violations(invariant: Invariant, targets: Iterable[Target]) -> Iterator[Violation]:
    """The targets that `invariant` forbids, among all that `targets` may come to."""
    for target in targets:
        for reached in target.reached:
            if why := invariant.broken_by(reached):
                yield Violation(reached, why)


class Counterexample(NamedTuple):
    """A request that breaks an invariant, as the real decision shows."""

    request: HypotheticalRequest
    violation: Violation


def find_counterexample(
    policy: Policy, invariant: Invariant, rule: Rule, assignment: Assignment
) -> Counterexample | None:
    """A request that satisfies `assignment`, that `rule` takes, and that breaks `invariant`."""
    for request in _candidate_requests(policy, invariant, rule, assignment):
        for asking in _in_shares(request, rule):
            try:
                decision = policy.decide(policy.facts_of(asking))
            except InvalidRequest:
                continue
            if decision.rule == rule.name and invariant.applies(decision.facts):
                for violation in violations(invariant, decision.contacted):
                    return Counterexample(asking, violation)
    return None


def _in_shares(request: HypotheticalRequest, rule: Rule) -> Iterator[HypotheticalRequest]:
    """`request`, of several sessions where the rule takes a share of them."""
    if not any(isinstance(check, Share) for check in rule.checks) or "session" in request.stated:
        yield request
        return
    for number in range(MOST_SESSIONS):
        yield request.replace(session=f"session-{number}")


def _candidate_requests(
    policy: Policy, invariant: Invariant, rule: Rule, assignment: Assignment
) -> Iterator[HypotheticalRequest]:
    """Requests that satisfy `assignment`: forbidden models first, and forbidden targets in the URL."""
    forbidden = [reached for reached, _ in violations(invariant, rule.contacted)]
    globs = [reached.model for reached in forbidden]
    never = invariant.never
    globs += [target.partition("/")[2] for target in (never.target if never and never.target else ())]
    models = [glob.replace("*", star).replace("?", "x") for glob in globs for star in ("", "x")]
    for request in HypotheticalRequests(policy).satisfying(assignment, models):
        if "url_target" not in request.stated:
            yield request
        else:
            for reached in forbidden:
                yield request.replace(url_target=f"{reached.provider}/{request.stated['model']}")


MOST_SESSIONS = 500
"""That are tried to find one in a rule's share."""


class HypotheticalRequests:
    """Makes up requests for one policy, from the texts that its conditions name."""

    def __init__(self, policy: Policy, most_texts: int | None = None) -> None:
        """Of the texts that the policy names, `most_texts` are tried for each fact, where those fail that
        are made for a request; `None`: all."""
        self._callers = callers_of(policy)
        self._headers = team_headers(policy)
        self._texts = _texts_by_fact(policy, most_texts)

    def plain(self, checks: Sequence[Check]) -> HypotheticalRequest | None:
        """The request that states what `checks` name, of a range its end, and nothing else. Nobody asked
        whether it meets them. `None`: it takes more to make one up."""
        fields: dict[str, Any] = {}
        headers: dict[str, tuple[str, ...]] = {}
        if len({check.fact for check in checks if isinstance(check, Single)}) < len(checks):
            return None
        for check in checks:
            assert isinstance(check, Single)
            value, header = _plain_value(check), check.subject.header
            if header is None or check.fact in BY_NAME:
                fields[check.fact] = value
            elif value is not None:
                headers[header] = (as_line(value),)
        team = fields.pop("team", None if None in self._headers else next(iter(self._headers)))
        model = fields.pop("model", USUAL_MODELS[0])
        if team not in self._headers or requested_model_problem(model):
            return None
        if fields.pop("url_target", False):
            fields["url_target"] = f"*/{model}"
        return HypotheticalRequest(model=model, team=team, headers=headers, **fields)

    def satisfying(self, assignment: Assignment, models: Sequence[str]) -> Iterator[HypotheticalRequest]:
        """Requests that satisfy `assignment`, for `models` first. Where it wants a target in the URL, the
        `url_target` of the request only says that there is one: `*/model`."""
        for team in self._callers.teams(assignment):
            stated = self._headers.get(team, {})
            fields: dict[str, Any] = {"team": team}
            headers: dict[str, tuple[str, ...]] = {}
            for fact, constraints in assignment.items():
                texts = self._texts.get(fact, ())
                header = header_of(fact)
                if header in stated:
                    continue  # in place of whatever the client sends
                if header is not None and fact not in BY_NAME:
                    text = _text_or_absent(constraints, texts)
                    if text is not None:
                        headers[header] = (as_line(text),)
                elif fact not in {"team", "model"}:
                    fields[fact] = _value(constraints, texts)
            by_url = fields.pop("url_target", False)
            for model in self._models(assignment.get("model", ()), models):
                url_target = f"*/{model}" if by_url else None
                yield HypotheticalRequest(model=model, headers=headers, url_target=url_target, **fields)

    def _models(self, constraints: Sequence[Constraint], first: Sequence[str]) -> Iterator[str]:
        """The names of models that meet `constraints`, each once."""
        names = (first, self._texts.get("model", ()), USUAL_MODELS)
        if constraints:
            text = _sample_text(constraints, chain(*names))
            candidates = chain((text,) if text is not None else (), *names)
        else:
            candidates = chain(USUAL_MODELS, *names)
        seen = set()
        for name in candidates:
            # A name that violates a constraint is tried too if another text meets them all.
            if name and name not in seen and not requested_model_problem(name):
                seen.add(name)
                if _sample_text(constraints, (name,)) is not None:
                    yield name


def _value(constraints: Sequence[Constraint], texts: Sequence[str]) -> object:
    """A value of their fact, for the field of a request that has the same name."""
    match BY_NAME[constraints[0].fact].kind:
        case "flag" | "presence":
            return allowed_flag(constraints)
        case "number":
            return None if allows_absence(constraints) else least_number(constraints)
        case "tools":
            return tuple(_tools(constraints))
    return _text_or_absent(constraints, texts)


def _plain_value(check: Single) -> Any:
    """A value that `check` names, for the field of a request that has the name of its fact."""
    match check:
        case Flag() if check.subject.kind == "tools":
            return ("tool",) if check.value else ()
        case Flag():
            return check.value
        case Present():
            return "x" if check.value else None
        case Within():
            return check.min if check.max is None else check.max
        case HasTool():
            return (_without_wildcards(check.globs[0]),)
        case Matches(syntax="regex"):
            return next(samples(check.values[0]), "")
        case Matches():
            return _without_wildcards(check.values[0])
        case TextCheck():
            return check.values[0]
    raise TypeError(check)


def _without_wildcards(glob: str) -> str:
    return glob.replace("*", "").replace("?", "x")


def _tools(constraints: Sequence[Constraint]) -> Iterator[str]:
    globs = [check.globs[0] for check, positive in constraints if positive and isinstance(check, HasTool)]
    yield from (glob.replace("*", "x").replace("?", "x") for glob in globs)
    if not globs and allowed_flag(constraints):
        yield "tool"


def _text_or_absent(constraints: Sequence[Constraint], texts: Sequence[str]) -> str | None:
    return None if allows_absence(constraints) else _sample_text(constraints, texts)


def _sample_text(constraints: Sequence[Constraint], texts: Iterable[str]) -> str | None:
    """A text that meets all `constraints`: a text that they name themselves, or one of `texts`."""
    return next((text for text in chain(_own_texts(constraints), texts) if holds(constraints, text)), None)


def _own_texts(constraints: Sequence[Constraint]) -> Iterator[str]:
    """Texts that meet some of `constraints`, made of what they name."""
    checks = [check for check, positive in constraints if positive and isinstance(check, TextCheck)]
    prefixes = [value for check in checks if isinstance(check, Begins) for value in check.values] or [""]
    parts = "".join(check.values[0] for check in checks if isinstance(check, Contains))
    for check in checks:
        for value in check.values:
            if isinstance(check, Matches) and check.syntax == "regex":
                for sample in samples(value):
                    yield from (sample, *(prefix + parts + sample for prefix in prefixes), sample + parts)
            else:
                yield value.replace("*", "").replace("?", "x")
                yield value.replace("*", "x").replace("?", "x")
                yield value.replace("*", parts).replace("?", "x")
    for prefix in prefixes:
        yield from (prefix + parts, f"{prefix}-{parts}", f"{prefix}{parts}x")
    yield "x"


def _texts_by_fact(policy: Policy, most: int | None) -> Mapping[str, tuple[str, ...]]:
    """The texts that conditions of the policy name, by their facts, `most` of each."""
    texts: dict[str, dict[str, None]] = {}
    checks = [check for rule in policy.rules for check in rule.checks]
    checks += [check for invariant in policy.invariants for check in invariant.when]
    for check in single_checks(checks):
        if isinstance(check, TextCheck):
            texts.setdefault(check.fact, {}).update(dict.fromkeys(check.values))
    return {fact: tuple(islice(values, most)) for fact, values in texts.items()}


def describe_request(request: HypotheticalRequest) -> str:
    """`a request for `claude-opus-4-8` by team `payments` with x-data-class: phi`"""
    stated = request.stated
    words = [f"a request for `{stated.get('model', '')}`"]
    if "url_target" in stated:
        words = [f"a request with the target `{stated['url_target']}` in its URL"]
    if request.team is not None:
        words.append(f"by team `{request.team}`")
    details = [f"`{name}: {lines[0]}`" for name, lines in stated.get("headers", {}).items()]
    facts = [fact for fact in FACTS if fact.in_match and fact is not MODEL and fact is not TEAM]
    details += [fact.name for fact in facts if fact.kind == "flag" and fact.name in stated]
    details += [
        f"{fact.name} {stated[fact.name]}"
        for fact in facts
        if fact.kind in {"number", "word", "text"} and fact.shown and stated.get(fact.name)
    ]
    details += [
        f"the {fact.name} text `{stated[fact.name]}`"
        for fact in facts
        if not fact.shown and stated.get(fact.name)
    ]
    details += [f"the tool `{name}`" for name in stated.get("tools", ())]
    return " ".join([*words, *(["with", ", ".join(details)] if details else [])])
