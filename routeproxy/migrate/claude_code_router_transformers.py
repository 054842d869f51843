"""claude-code-router's transformers: the type of a provider that some of them imply, and the fields of a
rules file that have the effect of others.

Transformers are code. One whose effect no rules file can have, or that does by itself what routeproxy always
does, is left with a reason.
"""

from collections.abc import Callable, Mapping

from msgspec import Struct

from routeproxy.migrate.providers import Table, is_sendable, sampling_params
from routeproxy.migrate.source import Node

NEEDLESS = "nothing to say here: this is done for every back end that needs it"
OF_YOUR_OWN = "this is code: see whether `params` or `transforms` in docs/rules.md can say it"
REASONS: Mapping[str, str] = {
    "OpenAI": NEEDLESS,
    "cerebras": NEEDLESS,
    "cleancache": NEEDLESS,
    "customparams": "it has no options",
    "enhancetool": "nothing to say here: arguments of tool calls are mended for every back end",
    "forcereasoning": "models are not told to think aloud here; what they write between <think> tags becomes "
    "thinking with `transforms = { think_tags = true }`",
    "gemini": NEEDLESS,
    "groq": NEEDLESS,
    "maxcompletiontokens": "type openai does this by itself; elsewhere max_tokens is what is sent",
    "maxtoken": "expected the option `max_tokens`, a whole number",
    "openai-responses": 'the Responses API can be had for type azure, with `api = "responses"`',
    "openrouter": NEEDLESS,
    "reasoning": "reasoning is read from every back end; one that waits for enable_thinking gets it with "
    "`params = { extra_body = { enable_thinking = true } }`",
    "sampling": "it has no options",
    "streamoptions": NEEDLESS,
    "tooluse": "tools are not forced on models here; one that won't use them may with "
    '`params = { set = { tool_choice = { type = "any" } } }`',
    "vercel": NEEDLESS,
    "vertex-claude": "moved as type vertex_ai: write its `project`, which stood in GOOGLE_CLOUD_PROJECT",
    "vertex-gemini": "moved as type vertex_ai: write its `project`, which stood in GOOGLE_CLOUD_PROJECT",
}
OPTION_REASONS: Mapping[str, str] = {
    "UseBearer": "type anthropic gets its key as x-api-key",
    "providerOrder": "it is empty",
}
TYPES_OF: Mapping[str, str] = {
    "Anthropic": "anthropic",
    "gemini": "gemini",
    "vertex-claude": "vertex_ai",
    "vertex-gemini": "vertex_ai",
}
"""Transformers that imply a type."""


class Transformed(Struct, frozen=True):
    """What a list of transformers comes to."""

    type: str | None
    """The type of the provider, if one of them implies it."""
    fields: Table
    """Fields of the provider: `params`, `headers`."""


def read_transformers(use: Node) -> Transformed:
    """Reads the `use` of a provider or of a model. Leaves the transformers that have no effect here."""
    type, fields = None, Table()
    for entry in use.members:
        head = entry.members[0] if entry.members else entry
        options = entry.members[1] if len(entry.members) > 1 else entry.at("options")
        name = head.text() or ""
        effect = EFFECTS[name](options) if name in EFFECTS else {}
        options.leave_unused(OPTION_REASONS)
        if not effect and name != "Anthropic":
            entry.leave(REASONS.get(name, OF_YOUR_OWN))
        fields = _merge(fields, effect)
        type = TYPES_OF.get(name, type)
    return Transformed(type, fields)


def model_fields(transformer: Node) -> dict[str, Table]:
    """By model, the fields beside a target that its own transformers come to."""
    fields_of = {}
    for node in transformer.members:
        if node.name == "use":
            continue
        transformed = read_transformers(node.at("use"))
        if transformed.type or "headers" in transformed.fields:
            node.leave("type and headers belong to a provider: write a second one for this model")
        if fields := {name: table for name, table in transformed.fields.items() if name != "headers"}:
            fields_of[node.name] = fields
    return fields_of


# --- the effects of single transformers


def _params(**tables: Table) -> Table:
    params = {name: table for name, table in tables.items() if table}
    return {"params": params} if params else {}


def _max_tokens(options: Node) -> Table:
    limit = options.at("max_tokens").integer(1)
    return _params(cap={"max_tokens": limit} if limit else {})


def _sampling(options: Node) -> Table:
    sampling, penalty = sampling_params(options), options.at("repetition_penalty").number()
    extra = {} if penalty is None else {"repetition_penalty": penalty}
    return _merge(_max_tokens(options), _params(set=sampling, extra_body=extra))


def _custom_params(options: Node) -> Table:
    return _params(extra_body={node.name: node.plain() for node in options.members if is_sendable(node)})


def _openrouter(options: Node) -> Table:
    """`referer` and `title` are for its app rankings; the rest goes into the body."""
    names = {"referer": "HTTP-Referer", "title": "X-Title"}
    nodes = {header: options.at(option) for option, header in names.items()}
    headers = {
        header: text for header, node in nodes.items() if node.is_expressible() and (text := node.text())
    }
    order = [name for node in options.at("providerOrder").members if (name := node.text())]
    rest = [node for node in options.members if node.name not in names and node.name != "providerOrder"]
    body = {node.name: node.plain() for node in rest if is_sendable(node)}
    routing = _params(extra_body={"provider": {"order": order}} if order else {})
    return _merge(routing, _params(extra_body=body)) | ({"headers": headers} if headers else {})


EFFECTS: Mapping[str, Callable[[Node], Table]] = {
    "customparams": _custom_params,
    "deepseek": lambda _: _params(cap={"max_tokens": 8192}),
    "maxtoken": _max_tokens,
    "openrouter": _openrouter,
    "sampling": _sampling,
}


def _merge(below: Table, above: Table, *path: str) -> Table:
    """`below` with the fields of `above`, which win."""
    merged = dict(below)
    for name, value in above.items():
        present = merged.get(name)
        if isinstance(present, dict) and isinstance(value, dict):
            merged[name] = _merge(present, value, *path, name)
        elif path == ("params", "cap") and present is not None:
            merged[name] = min(present, value)  # each transformer lowered the limit that it found
        else:
            merged[name] = value
    return merged
