"""The JSON Schema of the rules file, for editors: what may stand where, and what each key means.

It is drawn from `policy/file/tables.py`, so it knows forms, bounds and closed lists, but no names: whether a
provider is there is `check`'s to say. What it refuses, `check` refuses too.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import NODEFAULT
from msgspec import inspect as kinds

from routeproxy.policy.compile.actions import FAILURES
from routeproxy.policy.compile.params import CAPPED, PARAMS
from routeproxy.policy.fact_table import FACTS
from routeproxy.policy.file.tables import (
    ActionTable,
    CaseTable,
    DenyTable,
    ExpectTable,
    FallbackTable,
    HeaderTable,
    InvariantTable,
    KeyTable,
    LayerFile,
    MatchTable,
    ModelTable,
    ParamsTable,
    ProviderTable,
    RangeTable,
    ReachTable,
    RequestTable,
    RetryTable,
    RulesFile,
    RuleTable,
    ServerTable,
    TargetTable,
    TeamTable,
    TextTable,
    TimeoutsTable,
    TransformsTable,
)
from routeproxy.policy.provider_types import TYPE_NAMES

Schema = dict[str, Any]

DRAFT = "http://json-schema.org/draft-07/schema#"
"""The newest that Taplo, and so "Even Better TOML", is sure to follow."""

NEEDED: Mapping[type, tuple[str, ...]] = {
    RulesFile: ("default",),
    LayerFile: ("team",),
    CaseTable: ("request",),
    DenyTable: ("message",),
    KeyTable: ("key",),
    TargetTable: ("target",),
}
"""No table is whole without these. Where one of several will do, none is named here."""

CLOSED: Mapping[tuple[type, str], tuple[str, ...]] = {
    (FallbackTable, "on"): (*FAILURES, "timeout"),
    (FallbackTable, "also"): (*FAILURES, "timeout"),
    (ParamsTable, "set"): tuple(sorted(PARAMS)),
    (ParamsTable, "default"): tuple(sorted(PARAMS)),
    (ParamsTable, "cap"): tuple(sorted(CAPPED)),
    (ParamsTable, "drop"): tuple(sorted(PARAMS)),
    (ProviderTable, "type"): TYPE_NAMES,
}
"""Words, or keys of a table, that the types leave open and `compile` holds against a list."""

SUGGESTED: Mapping[tuple[type, str], tuple[str, ...]] = {
    (table, fact.name): fact.known for table in (MatchTable, RequestTable) for fact in FACTS if fact.known
}
"""Words that are known, where others may come."""


def schema(*, layer: bool = False) -> Schema:
    """The schema of a rules file, or of an included file."""
    writer = _Writer()
    root = writer.table(LayerFile if layer else RulesFile)
    title = f"{'An included file' if layer else 'A rules file'} of routeproxy"
    return {"$schema": DRAFT, "title": title, **root, "definitions": writer.definitions}


class _Writer:
    """Walks the types. Every table but the outermost becomes a definition, since `match` may hold itself."""

    def __init__(self) -> None:
        self.definitions: dict[str, Schema] = {}

    def table(self, cls: type) -> Schema:
        kind = kinds.type_info(cls)
        assert isinstance(kind, kinds.StructType)
        needed = {"required": list(NEEDED[cls])} if cls in NEEDED else {}
        properties = {entry.encode_name: self._property(cls, entry) for entry in kind.fields}
        return {
            "description": TABLES[cls],
            "type": "object",
            "properties": properties,
            **needed,
            "additionalProperties": False,
        }

    def _property(self, cls: type, entry: kinds.Field) -> Schema:
        key = (cls, entry.encode_name)
        value = self._value(entry.type)
        if key in CLOSED:
            value = _among(CLOSED[key], value)
        if "$ref" in value:  # draft 7 reads nothing that stands beside a reference
            value = {"allOf": [value]}
        examples = {"examples": list(SUGGESTED[key])} if key in SUGGESTED else {}
        default = {"default": entry.default} if entry.default not in (NODEFAULT, None) else {}
        return {"description": _description(*key), **value, **examples, **default}

    def _value(self, kind: kinds.Type) -> Schema:
        match kind:
            case kinds.AnyType():
                return {}
            case kinds.Metadata():
                return self._value(kind.type)
            case kinds.StructType():
                return self._reference(kind.cls)
            case kinds.UnionType():
                # TOML has no null: `None` stands for a key that is left out.
                members = [member for member in kind.types if not isinstance(member, kinds.NoneType)]
                return _any_of([self._value(member) for member in members])
            case kinds.DictType():
                values = self._value(kind.value_type)
                return {"type": "object", "minProperties": 1, "additionalProperties": values}
            case kinds.ListType():
                return {"type": "array", "minItems": 1, "items": self._value(kind.item_type)}
        return _leaf(kind)

    def _reference(self, cls: type) -> Schema:
        name = cls.__name__
        if name not in self.definitions:
            self.definitions[name] = {}  # it may hold itself
            self.definitions[name] = self.table(cls)
        return {"$ref": f"#/definitions/{name}"}


def _leaf(kind: kinds.Type) -> Schema:
    match kind:
        case kinds.LiteralType():
            return {"enum": list(kind.values)}
        case kinds.StrType():
            return {"type": "string", "pattern": kind.pattern} if kind.pattern else _TEXT
        case kinds.DateType():
            return {"type": "string", "format": "date"}  # as validators of TOML see a date
        case kinds.BoolType():
            return {"type": "boolean"}
        case kinds.FloatType():
            return {"type": "number"}
        case kinds.IntType():
            bounds = {"minimum": kind.ge, "maximum": kind.le}
            return {"type": "integer", **{name: bound for name, bound in bounds.items() if bound is not None}}
    raise NotImplementedError(f"the rules file has no {kind}")


_TEXT: Schema = {"type": "string", "minLength": 1}


def _any_of(members: list[Schema]) -> Schema:
    """Members of different types become one schema: a mistake in one of them is then said exactly, and not as
    "none of these"."""
    plain = [member for member in members if "type" in member]
    others = [member for member in members if "type" not in member]
    if len(plain) > 1:
        merged = {key: value for member in plain for key, value in member.items()}
        plain = [{**merged, "type": [member["type"] for member in plain]}]
    choices = plain + others
    return choices[0] if len(choices) == 1 else {"anyOf": choices}


def _among(names: Iterable[str], value: Schema) -> Schema:
    """`value`, with its words or its keys taken from `names`."""
    match value["type"]:
        case "string":
            return {"enum": list(names)}
        case "array":
            return {**value, "items": {"enum": list(names)}}
    properties = {
        name: {"description": f"`{name}` of the Messages API.", **value["additionalProperties"]}
        for name in names
    }
    return {**value, "properties": properties, "additionalProperties": False}


def _description(cls: type, key: str) -> str:
    """A key means the same in every table that inherits it."""
    return next(KEYS[base][key] for base in cls.__mro__ if key in KEYS.get(base, ()))


# --- what everything means

TABLES: Mapping[type, str] = {
    RulesFile: "Who answers which request: the first rule that matches decides.",
    LayerFile: "An included file: the rules of one team, and tests of them.",
    ServerTable: "Where and how the server listens; its flags on the command line win.",
    ProviderTable: "How to reach a back end.",
    ModelTable: "What is so of one model, or of all models that a glob names.",
    TeamTable: "Whose keys open the proxy, and what their requests may ask for and reach.",
    KeyTable: "A client's key, with a name or a last day.",
    RuleTable: "A rule: which requests it takes, and what becomes of them.",
    ActionTable: "What becomes of a request.",
    MatchTable: "Conditions on a request; all of them hold together.",
    TextTable: "Ways to compare a text; several hold together, and a list means any of its values.",
    HeaderTable: "Ways to compare a value that may be missing; several hold together.",
    RangeTable: "A range of whole numbers, both ends included.",
    DenyTable: "A denial with a status of its own.",
    TargetTable: "A target with parameters and transforms of its own.",
    FallbackTable: "After which failures the next target is tried.",
    RetryTable: "How often one target is tried before the next.",
    TimeoutsTable: "How long one attempt may take.",
    ParamsTable: "What is done to the request's parameters: default, set, cap, drop, then extra_body.",
    TransformsTable: "What is done to the answer, streamed or not, and to the system text.",
    InvariantTable: "A promise about where requests go, proved of all requests before the file takes effect.",
    ReachTable: "What a target may be like; several keys hold together, and a list means any of its values.",
    CaseTable: "A test of the rules, run before the file takes effect.",
    RequestTable: "A request by its facts; what is left out is the smallest request's.",
    ExpectTable: "What must become of a test's request; what is left out is not looked at.",
}

KEYS: Mapping[type, Mapping[str, str]] = {
    RulesFile: {
        "schema_version": "The version of this language; there is only one.",
        "server": "Where and how the server listens.",
        "providers": "The back ends, by the names that targets begin with.",
        "aliases": "Short names for a target or for a list of targets, but never for another alias.",
        "teams": "Who the clients are, by their keys.",
        "rules": "The rules, asked in this order; the first that matches decides.",
        "default": "What becomes of a request that no rule takes.",
        "invariants": "What must hold of all requests, whatever the rules say.",
        "tests": "Requests, and what must become of them.",
    },
    LayerFile: {
        "team": "The team that this file belongs to: its rules take only that team's requests.",
        "rules": "The team's rules, which stand where this file is included.",
        "tests": "Requests of the team, and what must become of them.",
    },
    ServerTable: {
        "host": "The address to listen on; left out, `HOST` of the environment counts first.",
        "port": "The port to listen on; left out, `PORT` of the environment counts first.",
        "max_body_mb": "The largest body in megabytes; a larger one is answered 413.",
        "url_targets": "Whether clients may name a target in the URL.",
        "no_fallback_header": "Whether clients may forbid fallback with `x-routeproxy-no-fallback`.",
        "require_key": "Whether everybody needs a key; left out, it is so once a team has keys.",
        "admin_keys": "The keys for the administration's own addresses; without one there are none.",
        "models": "What `GET /v1/models` lists; left out, the names that rules state whole.",
        "signing_key": "The key that protects signatures of thinking blocks, as `env:NAME` or `file:PATH`.",
        "decision_log": "The file that gets one line of JSON for each request, without prompts and answers.",
        "cors_origins": 'The web pages that may call, such as "https://tools.example", or "*" for any.',
        "drain": "How long running answers may take when the server stops.",
    },
    ProviderTable: {
        "type": "What kind of back end it is; left out, the table's name says it.",
        "base_url": "Its address, or `env:NAME`, which then needs a `zone`; left out, the type's public one.",
        "api_key": "Where its key is: `env:NAME`, `file:PATH`, `none`, a list, or `client` for the client's.",
        "zone": 'Where the bytes go; left out, the type\'s usual zone, or "public" once `base_url` is set.',
        "region": "Where its models run, for invariants.",
        "labels": "Words of your own that say what it is fit for, for invariants.",
        "models": "Its models by name or glob; once there is one, no other may be asked for.",
        "engine": "Who speaks to it; each type has only one choice.",
        "api": "Which API of OpenAI it is spoken to with.",
        "headers": "Headers sent with every request; a value may be `env:NAME`.",
        "forward": "Headers of the client that are passed on.",
        "params": "What is done to the parameters of requests to its models.",
        "transforms": "What is done to the answers of its models.",
        "timeouts": "How long one attempt at one of its models may take.",
        "proxy": "The HTTP proxy that leads to it.",
        "ca_file": "The certificates to trust, a PEM file; left out, the system's.",
        "supports": "What it takes although routeproxy does not expect it.",
        "mid_system": 'What becomes of system turns in mid-conversation: "user" makes them user text.',
        "without_vision": "What becomes of images for a model that sees none.",
        "litellm_params": "Whatever else LiteLLM takes.",
        "api_version": "The version of Azure's API.",
        "aws_profile_name": "The profile of AWS's credentials.",
        "aws_region_name": "The region of AWS.",
        "credentials": "A key file for Vertex; left out, application-default credentials.",
        "deployment": "The deployment of Azure that is asked, whatever the target's model is called.",
        "keep_alive": 'How long Ollama keeps a model loaded, such as "30m".',
        "location": "The location of Vertex.",
        "num_ctx": "The context window that Ollama is asked for, in tokens.",
        "organization": "The organization of OpenAI.",
        "project": "The Google Cloud project of Vertex.",
    },
    ModelTable: {
        "region": "Where it runs; left out, the provider's region.",
        "labels": "Words of your own for invariants; left out, the provider's labels.",
        "context_window": "How many tokens its context window has.",
        "max_output_tokens": "How many tokens it can answer with.",
        "vision": "Whether it sees images.",
        "tools": "Whether it can use tools.",
        "thinking": "Whether it can think.",
    },
    TeamTable: {
        "keys": "The keys of its clients: `env:NAME`, `file:PATH` or `sha256:…`, one or a list.",
        "models": "What it may ask for, as names or globs; left out, anything.",
        "targets": "What its requests may ever reach, as aliases or globs over `provider/model`; proved.",
        "request_headers": "Headers that its requests have, in place of what the client sent.",
        "provider_keys": "The keys that its requests use at a provider, in place of the provider's own.",
        "explain": "Whether its clients may ask why a request went where it did.",
    },
    KeyTable: {
        "name": "What `check` and `diff` call the key.",
        "key": "Where the key is: `env:NAME` or `file:PATH`, or its hash as `sha256:…`.",
        "expires": "The last day on which it works, in UTC; a date without quotes.",
    },
    RuleTable: {
        "name": "What logs, headers and `explain` call the rule.",
        "match": "Which requests it takes; left out, all of them.",
        "include": "A file, or a glob of files, whose rules stand here; nothing else may stand beside it.",
    },
    ActionTable: {
        "deny": "What the client is told instead of an answer; nobody is asked.",
        "targets": "Who is asked, in order: `provider/model`, `provider/*` (the model asked for), an alias.",
        "fallback": "Which failures lead to the next target; left out, the usual ones if there is one.",
        "retry": "How often one target is tried; left out, once.",
        "deadline": "How long all attempts together may take until content comes.",
        "timeouts": "How long one attempt may take.",
        "params": "What is done to the request's parameters.",
        "transforms": "What is done to the answer.",
    },
    MatchTable: {
        **{fact.name: fact.condition for fact in FACTS if fact.in_match},
        "any": "At least one of these tables holds.",
        "not": "This one condition does not hold, or none of these tables.",
    },
    TextTable: {
        "equals": "It is this text.",
        "prefix": "It begins with this text.",
        "contains": "It has this text in it.",
        "glob": "The whole of it matches; `*` is any text, `?` one character.",
        "regex": "This RE2 expression is found in it; write it in single quotes.",
    },
    HeaderTable: {
        "present": "Whether it is there at all, be it empty.",
    },
    RangeTable: {
        "min": "At least this many.",
        "max": "At most this many.",
    },
    DenyTable: {
        "message": "The words that the client sees.",
        "status": "The status of the answer; left out, 400.",
    },
    TargetTable: {
        "target": "`provider/model`, `provider/*` (the model asked for) or an alias.",
        "params": "What is done to the parameters of requests to this target.",
        "transforms": "What is done to the answers of this target.",
    },
    FallbackTable: {
        "on": "These failures, and no others, lead to the next target.",
        "also": "These failures lead to the next target besides the usual ones.",
    },
    RetryTable: {
        "attempts": "How often one target is tried in all; left out, once.",
        "backoff": "The wait before the second attempt, doubled each time; left out, 500ms.",
    },
    TimeoutsTable: {
        "connect": "How long connecting may take; left out, 10s.",
        "first_token": "The wait for the first text, thinking or tool call; left out, 300s.",
        "idle": "How long it may be silent after that; left out, 300s.",
        "total": "How long the whole attempt may take; left out, there is no limit.",
    },
    ParamsTable: {
        "set": "Parameters with these values, whatever the client says.",
        "default": "Parameters with these values, if the client says nothing.",
        "cap": "The most that a parameter may be.",
        "drop": "Parameters that are taken out.",
        "extra_body": "What only the back end knows, merged deep into its body.",
    },
    TransformsTable: {
        "strip_attribution": "Takes out Claude Code's attribution block, which defeats prompt caches.",
        "think_tags": "Turns `<think>…</think>` in the text into a thinking block.",
        "text_tool_calls": "Turns a tool call that the model wrote as text into a `tool_use` block.",
        "thinking": "What becomes of reasoning: thinking blocks (keep), nothing (drop) or plain text (text).",
        "newlines": "Turns a literal `\\n` in text into a line break (unescape), or the reverse (escape).",
        "model_name": "Which name `model` has in the answer.",
    },
    InvariantTable: {
        "name": "What proofs and refusals call it.",
        "when": "Which requests it is about; left out, all of them.",
        "never": "What no target that they reach may be.",
        "only": "What every target that they reach must be.",
    },
    ReachTable: {
        "zone": "Where the bytes go.",
        "region": "Where the model runs; a target that does not state it is judged guilty.",
        "labels": "Words of which it has at least one; a target that states none is judged guilty.",
        "provider": "The provider's name.",
        "target": "A glob over `provider/model`.",
    },
    CaseTable: {
        "name": "What it is called when it fails.",
        "request": "The request that is decided.",
        "expect": "What must become of it.",
        "never": "What none of its targets may be.",
    },
    RequestTable: {
        "body": "A file with a real request, beside or below this one.",
        **{fact.name: fact.statement for fact in FACTS},
    },
    ExpectTable: {
        "rule": "The name of the rule that takes it.",
        "targets": "All targets that it may reach, in their order.",
        "fallback": "Whether the next target is tried after a failure.",
        "denied": "Whether it is denied, or the words that it is denied with.",
        "transforms": "What is done to the answers of all its targets.",
    },
}
"""One sentence for every key; those of a table count for the tables that inherit them too."""
