"""What Tab offers in place of a name: those of the rules that the command line means so far. A file that has
errors, or can't be read, offers nothing, and nothing is said of it while somebody types."""

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from routeproxy.policy.decide import Policy
from routeproxy.policy.fact_table import BY_NAME

Completion = Callable[..., Sequence[str]]
"""Of `ctx`, the options that stand before, and `incomplete`, the beginning of the word: typer knows these
parameters by their names."""


def _names(choose: Callable[[Policy], Iterable[str]]) -> Completion:
    def complete(ctx: Any, incomplete: str) -> Sequence[str]:
        policy = _policy_of(ctx)
        found = dict.fromkeys(choose(policy)) if policy is not None else ()
        return [name for name in found if name.startswith(incomplete)]

    return complete


def _policy_of(context: Any) -> Policy | None:
    from routeproxy.cli.running import sources_of
    from routeproxy.policy.problems import RulesRefused
    from routeproxy.sources import find_rules

    named = context.params.get("rules") or context.params.get("file")
    if named is None and context.args and any(param.name == "file" for param in context.command.params):
        named = context.args[0]  # an option that still waits for its value keeps arguments from their names
    logging.disable()
    try:
        rules = find_rules(Path(named) if named else None)
        return sources_of(rules, allow_literal_keys=True).unproved()
    except (RulesRefused, OSError, ValueError):
        return None
    finally:
        logging.disable(logging.NOTSET)


def _models(policy: Policy) -> Iterable[str]:
    """Those that are listed, and those that rules state whole."""
    rules = (*policy.rules, policy.default)
    return (*policy.server.models, *(name for rule in rules for name in rule.stated_models))


def _targets(policy: Policy) -> Iterable[str]:
    rules = (*policy.rules, policy.default)
    return (target.name for rule in rules for target in rule.targets if not target.name.endswith("/*"))


team_names = _names(lambda policy: policy.teams)
model_names = _names(_models)
_OF_FACTS = {"team": team_names, "model": model_names, "url_target": _names(_targets)}


def completion_of(fact: str) -> Completion | None:
    """What is offered as the value of the option of a fact."""
    if fact in _OF_FACTS:
        return _OF_FACTS[fact]
    known = BY_NAME[fact].known
    return (lambda incomplete: [word for word in known if word.startswith(incomplete)]) if known else None
