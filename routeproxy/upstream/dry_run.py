"""What would become of a request at each target of its decision, found by the code that serves: all of an
attempt but the sending."""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any
from urllib.parse import unquote

import msgspec
from msgspec import Raw

from routeproxy.exchange import Call, Exchange
from routeproxy.large_bodies import read_beside
from routeproxy.messages.body import Body
from routeproxy.messages.errors import ApiError
from routeproxy.observe import Observer
from routeproxy.policy.explain import DryRun, Refused
from routeproxy.policy.targets import Target
from routeproxy.upstream.chat.ollama_abilities import is_asked_for
from routeproxy.upstream.failover import Attempt, Upstreams
from routeproxy.upstream.failures import UpstreamFailure
from routeproxy.upstream.http.dry_client import NotSent
from routeproxy.upstream.params import settled_by_rules, with_params

NO_KEY = "routeproxy-dry-run"
"""Stands for the provider's key. No real one is read."""

Place = tuple[str, ...]

PLACES: Mapping[str, tuple[Place, ...]] = {
    "max_tokens": (
        ("max_tokens",),
        ("max_completion_tokens",),
        ("max_output_tokens",),
        ("generationConfig", "maxOutputTokens"),
        ("options", "num_predict"),
        ("inferenceConfig", "maxTokens"),
    ),
    "effort": (
        ("reasoning_effort",),
        ("reasoning", "effort"),
        ("output_config", "effort"),
        ("additionalModelRequestFields", "output_config", "effort"),
        ("generationConfig", "thinkingConfig", "thinkingLevel"),
        ("think",),
    ),
    "thinking budget": (
        ("thinking", "budget_tokens"),
        ("generationConfig", "thinkingConfig", "thinkingBudget"),
        ("additionalModelRequestFields", "thinking", "budget_tokens"),
    ),
}
"""Where the formats of back ends have what people ask about. The first place that is there counts."""

_MODEL_IN_PATH = re.compile(r"/(?:models|model|deployments|endpoints)/([^/?]+?)(?::\w+)?(?:[/?]|$)")


async def dry_runs(exchange: Exchange, upstreams: Upstreams) -> Mapping[str, DryRun]:
    """By the name of each target. `upstreams` are dry ones."""
    decision = exchange.decision
    targets = decision.targets if decision is not None else ()
    return {target.name: await _dry_run(target, exchange.afresh(), upstreams) for target in targets}


async def _dry_run(target: Target, exchange: Exchange, upstreams: Upstreams) -> DryRun:
    call = Call(target, NO_KEY if target.provider.keys else None, exchange)
    attempt = Attempt(call, None, _discard, Observer())
    try:
        await attempt.run(upstreams.of(target.provider))
    except NotSent as request:
        inbound = exchange.inbound
        sends, changes = await read_beside(len(inbound.body), inbound.caller, _compared, request, call)
        if is_asked_for(call):
            changes.append("whether it is told to think, its back end says when it is asked first")
        return DryRun(loses=tuple(exchange.warnings), sends=sends, changes=tuple(changes))
    except ApiError as error:
        return DryRun(loses=tuple(exchange.warnings), refused=_refused(error, target))
    return DryRun(loses=tuple(exchange.warnings))


async def _discard(contents: object) -> None:
    """Where an answer goes that needs no back end."""


def _refused(error: ApiError, target: Target) -> Refused:
    if not isinstance(error, UpstreamFailure):
        return Refused(error.status, "invalid_request", error.message)
    error.redact(target.provider.secret_values)
    return Refused(error.status, error.kind, error.operator_message)


# --- what would be sent


def _compared(request: NotSent, call: Call) -> tuple[dict[str, Any], list[str]]:
    """What is sent, and what of it otherwise than it was asked for."""
    sends = _sent(request)
    return sends, [*_changes(sends, request, call)]


def _sent(request: NotSent) -> dict[str, Any]:
    body = _fields(request.body)
    named = _MODEL_IN_PATH.search(request.path)
    model = body.get("model") or (unquote(named[1]) if named else None)
    sends = {"model": model} | {name: _first(body, places) for name, places in PLACES.items()}
    return {name: value for name, value in sends.items() if value is not None}


_SHOWN = frozenset(("model", *(place[0] for places in PLACES.values() for place in places)))
"""The fields that are looked at: none of them is long."""

_raw_fields: msgspec.json.Decoder[dict[str, Raw]] = msgspec.json.Decoder(dict[str, Raw])


def _fields(body: bytes) -> dict[str, Any]:
    """Those that are `_SHOWN`."""
    try:
        fields = _raw_fields.decode(body)
        return {name: msgspec.json.decode(fields[name]) for name in _SHOWN & fields.keys()}
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}


def _first(body: Mapping[str, Any], places: tuple[Place, ...]) -> Any:
    for place in places:
        value: Any = body
        for name in place:
            value = value.get(name) if isinstance(value, dict) else None
        if value is not None:
            return value
    return None


def _changes(sends: Mapping[str, Any], request: NotSent, call: Call) -> Iterator[str]:
    """What is sent otherwise than it was asked for, and on whose account."""
    if call.target.provider.speaks_messages:
        before = call.exchange.body
        yield from _edits(before, Body(request.body), settled_by_rules(before.members, call.target))
        return
    body, facts = call.exchange.body, call.exchange.facts
    asked, ruled, sent = (
        _max_tokens(body),
        _max_tokens(with_params(body, call.target.params)),
        sends.get("max_tokens"),
    )
    if sent != asked:
        source = "the params of the rule" if sent == ruled else "what the model takes"
        yield f"max_tokens {_shown(asked)} → {_shown(sent)}: {source}"
    effort, budget = sends.get("effort"), sends.get("thinking budget")
    if facts is not None and facts.effort is not None and effort != facts.effort:
        instead = f"a thinking budget of {budget}" if effort is None and budget else _shown(effort)
        yield f"effort {_shown(facts.effort)} → {instead}: what the model takes"


def _max_tokens(body: Body) -> Any:
    return _fields(body.text).get("max_tokens")


def _edits(before: Body, after: Body, told: Collection[str]) -> Iterator[str]:
    """The fields of a Messages request that are not sent as the client wrote them, but for those that are
    `told` of in a warning."""
    for name in dict.fromkeys((*before.members, *after.members)):
        old, new = before.fields.get(name), after.fields.get(name)
        if old == new or name in told or name == "model":
            continue
        if new is None:
            yield f"{name[:_LONGEST_SHOWN]} left out"
        elif _is_short(old) and _is_short(new):
            yield f"{name} {_shown(old)} → {_shown(new)}"
        else:
            yield f"{name[:_LONGEST_SHOWN]} edited"


_LONGEST_SHOWN = 40
"""Characters of a value, or of a name that a client made up."""


def _is_short(value: Raw | None) -> bool:
    return value is None or len(bytes(value)) <= _LONGEST_SHOWN


def _shown(value: Any) -> str:
    return "none" if value is None else msgspec.json.encode(value).decode()
