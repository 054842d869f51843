"""What `GET /v1/models` lists, to each caller only what the caller may ask for."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import chain, islice

from routeproxy.messages.errors import InvalidRequest
from routeproxy.policy.conditions import Equals
from routeproxy.policy.decide import Decision, Denial, Policy, Rule
from routeproxy.policy.fact_table import TEAM
from routeproxy.policy.facts import requested_model_problem
from routeproxy.policy.hypothetical import HypotheticalRequest
from routeproxy.policy.patterns import is_glob
from routeproxy.policy.providers import Provider

KnownModels = Callable[[Provider], Sequence[str]]
"""The models that a provider of this type is known to have, by its own names."""

MOST_MODELS = 1_000
"""In a list: as many as a client may ask for at once."""

SHOWN = ("claude", "anthropic")
"""Claude Code shows only names that have one of these in them."""


class ModelLists:
    """The lists of the policy in force, by team, as they are asked for: one takes decisions for each name.

    What they are kept for is a version: a policy would stay alive with its lists.
    """

    def __init__(self, known: KnownModels) -> None:
        self._known = known
        self._lists: dict[tuple[str, str | None], tuple[str, ...]] = {}

    def kept(self, policy: Policy, team: str | None) -> tuple[str, ...] | None:
        """The list, if it was made before."""
        return self._lists.get((policy.version, team))

    def of(self, policy: Policy, team: str | None) -> tuple[str, ...]:
        names = self.kept(policy, team)
        if names is None:
            names = models_for(policy, team, self._known)
            others = {key: kept for key, kept in self._lists.items() if key[0] == policy.version}
            self._lists = others | {(policy.version, team): names}
        return names


def models_for(policy: Policy, team: str | None, known: KnownModels) -> tuple[str, ...]:
    """The names that a caller may choose from: those of `[server] models`, else those that rules state whole,
    and then what a provider is known to have that rules ask for whatever is requested (`P/*`)."""
    asked = _Asked(policy, team)
    if policy.server.models:
        return tuple(name for name in policy.server.models if not asked.is_unknown(name))
    # A name that stands in the rule of one team is no other's to see.
    rules = [rule for rule in (*policy.rules, policy.default) if _is_for(rule, team)]
    stated = dict.fromkeys(name for rule in rules for name in rule.stated_models)
    targets = [target for rule in rules for target in rule.targets]
    answered = chain(
        (name for name in stated if asked.targets(name)),
        (t.model for t in targets if t.model != "*" and asked.leads_to(t.model, t.name)),
    )
    # Each name is two decisions: those beyond the list are not asked about.
    names = dict.fromkeys(islice(_distinct(answered), MOST_MODELS))
    if len(names) == MOST_MODELS:
        return tuple(names)
    found = dict.fromkeys(asked.with_twins([*names]))
    providers = {target.provider.name: target.provider for target in targets if target.model == "*"}
    had = (
        model
        for provider in providers.values()
        for model in _models_of(provider, known)
        if asked.leads_to(model, f"{provider.name}/{model}")
    )
    found |= dict.fromkeys(asked.with_twins([*islice(had, MOST_MODELS)]))
    return tuple(islice(found, MOST_MODELS))


def models_at(policy: Policy, team: str | None, url_target: str) -> tuple[str, ...]:
    """What a caller may choose from who names a target in the URL, as `provider/model`: that model, under
    each name that Claude Code shows. Raises `UnreachableTarget` if no request gets there."""
    asked = _Asked(policy, team, url_target)
    model = url_target.partition("/")[2]
    if not asked.targets(model):
        raise UnreachableTarget(asked.decisions(model)[0].deny)
    return asked.with_twins([model])


class UnreachableTarget(Exception):
    """No request gets to the target that the URL names."""

    def __init__(self, denial: Denial | None) -> None:
        super().__init__(denial)
        self.denial = denial


class _Asked:
    """What becomes of a team's requests, by the model that they ask for: of the smallest, and of one such as
    Claude Code makes."""

    def __init__(self, policy: Policy, team: str | None, url_target: str | None = None) -> None:
        self._policy = policy
        smallest = HypotheticalRequest(model="x", team=team, url_target=url_target)
        usual = smallest.replace(stream=True, tools=("Bash",), max_tokens=32_000, request_class="main")
        self._requests = (smallest, usual)
        self.decisions = cache(self._decisions)

    def _decisions(self, model: str) -> tuple[Decision, ...]:
        decisions = []
        for request in self._requests:
            try:
                decisions.append(self._policy.decide(self._policy.facts_of(request.replace(model=model))))
            except InvalidRequest:
                continue
        return tuple(decisions)

    def targets(self, model: str) -> set[tuple[str, ...]]:
        """The targets that such requests may reach, if any."""
        found = {tuple(target.name for target in decision.targets) for decision in self.decisions(model)}
        return found - {()}

    def leads_to(self, model: str, target: str) -> bool:
        """Whether `target` is the first to be asked."""
        if requested_model_problem(model):
            return False
        return any(targets[0] == target for targets in self.targets(model))

    def is_unknown(self, model: str) -> bool:
        return all(one.deny is not None and one.deny.status == 404 for one in self.decisions(model))

    def with_twins(self, names: Sequence[str]) -> tuple[str, ...]:
        """Claude Code shows only some names, so one that it doesn't gets a twin `anthropic/NAME`, where
        asking for the twin comes to the same."""
        unseen = [name for name in names if not any(word in name.lower() for word in SHOWN)]
        twins = {f"anthropic/{name}": name for name in unseen}
        return (*names, *(twin for twin, name in twins.items() if self._come_to_the_same(twin, name)))

    def _come_to_the_same(self, twin: str, name: str) -> bool:
        return not requested_model_problem(twin) and self.targets(twin) == self.targets(name)


def _models_of(provider: Provider, known: KnownModels) -> Iterator[str]:
    """What its table of models names whole, else what it is known to have and may be asked for."""
    whole = [name for name in provider.models if not is_glob(name)]
    names: Iterable[str] = whole or known(provider)
    yield from (name for name in names if provider.admits(name))


def _distinct(names: Iterable[str]) -> Iterator[str]:
    seen: set[str] = set()
    for name in names:
        if name not in seen:
            seen.add(name)
            yield name


def _is_for(rule: Rule, team: str | None) -> bool:
    return not any(
        isinstance(check, Equals) and check.subject is TEAM and team not in check.values
        for check in rule.checks
    )
