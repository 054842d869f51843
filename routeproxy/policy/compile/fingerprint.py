"""The version of a policy: a hash of what it means. Comments, spelling and the order of keys don't count, nor
does the value of a secret."""

import hashlib
from operator import itemgetter
from typing import Any

import msgspec
from msgspec.structs import asdict

from routeproxy.policy.compile.rules import WrittenMatches
from routeproxy.policy.decide import Policy, Rule, Team
from routeproxy.policy.fact_table import FACTS
from routeproxy.policy.file.tables import MatchTable, ProviderTable, RulesFile, TeamTable
from routeproxy.policy.providers import Provider
from routeproxy.policy.secrets import ClientKey
from routeproxy.policy.targets import Target


def fingerprint(policy: Policy, file: RulesFile, matches: WrittenMatches) -> str:
    """Twelve hexadecimal digits."""
    server = policy.server
    targets = _Targets()
    meaning: dict[str, Any] = {
        "server": {
            **asdict(server),
            "signing_key": server.signing_key and server.signing_key.reference,
            "admin_keys": [_key(key) for key in server.admin_keys],
        },
        "providers": {
            name: _provider(provider, file.providers[name]) for name, provider in policy.providers.items()
        },
        "teams": {name: _team(team, file.teams[name]) for name, team in policy.teams.items()},
        "rules": [_rule(rule, *matches[rule.file, rule.path], targets) for rule in policy.rules],
        "default": _rule(policy.default, None, None, targets),
        "invariants": [(invariant.name, invariant.never, invariant.only) for invariant in policy.invariants],
        "when": [_conditions(table.when) for table in file.invariants],
    }
    if policy.shadow_rules:
        meaning["shadow_rules"] = [
            (shadow.place, _rule(shadow.rule, *matches[shadow.rule.file, shadow.rule.path], targets))
            for shadow in policy.shadow_rules
        ]
    if policy.audit is not None:
        meaning["audit"] = {**asdict(policy.audit), "signing_key": policy.audit.signing_key.reference}
    return hashlib.sha256(msgspec.json.encode(meaning, order="deterministic")).hexdigest()[:12]


def _provider(provider: Provider, table: ProviderTable) -> dict[str, Any]:
    meaning = asdict(provider)
    del meaning["prices"], meaning["discount"]  # they have no part in what becomes of a request
    return {
        **meaning,
        "keys": [key.reference for key in provider.keys],
        # As written: a variable may hold a secret.
        "base_url": table.base_url or provider.base_url,
        "headers": table.headers,
        "litellm_params": table.litellm_params,
    }


def _team(team: Team, table: TeamTable) -> dict[str, Any]:
    return {
        "keys": [_key(key) for key in team.keys],
        "models": table.models,
        "targets": table.targets,
        "request_headers": team.request_headers,
        "provider_keys": {
            name: [key.reference for key in provider.keys] for name, provider in team.providers.items()
        },
        "max_concurrent": team.max_concurrent,
        "weight": team.weight,
        "explain": team.explain,
    }


def _key(key: ClientKey) -> tuple[str | None, ...]:
    expires = key.expires.isoformat() if key.expires is not None else None
    return key.name, key.secret.reference, expires, *([key.role] if key.role != "operate" else [])


class _Targets:
    """Encodes targets, each once: thousands of rules may share a few."""

    def __init__(self) -> None:
        self._encoded: dict[int, tuple[Target, msgspec.Raw]] = {}
        """By the id of the target, which is kept beside it so that the id stays its own."""

    def __getitem__(self, target: Target) -> msgspec.Raw:
        if id(target) not in self._encoded:
            meaning = {**asdict(target), "provider": target.provider.name}
            encoded = msgspec.json.encode(meaning, order="deterministic")
            self._encoded[id(target)] = target, msgspec.Raw(encoded)
        return self._encoded[id(target)][1]


def _rule(rule: Rule, team: str | None, match: MatchTable | None, targets: _Targets) -> dict[str, Any]:
    return {
        "name": rule.name,
        "team": team,
        "match": _conditions(match),
        "deny": rule.deny,
        "targets": [targets[target] for target in rule.targets],
        "fallback": rule.fallback,
        "retry": rule.retry,
        "deadline": rule.deadline,
        "hold": rule.hold,
        "portable": rule.portable,
        "sticky": rule.sticky,
        "safeguards": rule.safeguards and (targets[rule.safeguards.target], rule.safeguards.timeout),
    }


def _conditions(match: MatchTable | None) -> dict[str, Any] | None:
    """A header that has a short name is one condition, whichever way it is written."""
    if match is None:
        return None
    conditions = asdict(match)
    headers = [(name.lower(), written) for name, written in (match.headers or {}).items()]
    headers += [(header, conditions.pop(name, None)) for name, header in _SHORT_NAMES.items()]
    headers = [(name, written) for name, written in headers if written is not None]
    nested = match.not_
    return {
        **conditions,
        "headers": sorted(headers, key=itemgetter(0)),
        "any": [*map(_conditions, match.any or ())],
        "not_": [*map(_conditions, nested)] if isinstance(nested, list) else _conditions(nested),
    }


_SHORT_NAMES = {fact.name: fact.header for fact in FACTS if fact.header is not None}
"""By the short names of headers, the headers."""
