"""One deployment of LiteLLM's `model_list`: whose model it is, where, with which key, and what it changes."""

import re
from collections.abc import Iterator, Mapping
from itertools import count
from urllib.parse import urlsplit

from routeproxy.migrate.providers import (
    KEYLESS,
    NOWHERE,
    Table,
    Variables,
    address,
    is_model,
    sampling_of,
    sendable,
    usual_key,
)
from routeproxy.migrate.source import Node
from routeproxy.policy.provider_types import ProviderType, provider_type

TYPES_OF: Mapping[str, str] = {"ollama_chat": "ollama", "custom_openai": "openai_compatible"}
"""Prefixes whose type is called otherwise here. All others are types' names."""

OWNERS: tuple[tuple[str, str], ...] = (
    (r"gpt-|chatgpt-|o[134](-|$)", "openai"),
    (r"claude-", "anthropic"),
    (r"gemini-", "vertex_ai"),  # so LiteLLM has it: Google's other API needs `gemini/`
)
"""Whose a model without a prefix is."""

OPTIONS: Mapping[str, str] = {
    "api_version": "api_version",
    "aws_profile_name": "aws_profile_name",
    "aws_region_name": "aws_region_name",
    "keep_alive": "keep_alive",
    "num_ctx": "num_ctx",
    "organization": "organization",
    "vertex_credentials": "credentials",
    "vertex_location": "location",
    "vertex_project": "project",
}
"""LiteLLM's parameters → what types have of their own."""
NEEDED: Mapping[str, str] = {"base_url": NOWHERE, "project": "my-project", "location": "us-central1"}
"""What stands where a type needs something and the file does not say it."""

ONLY_IN_BODY = frozenset(
    {
        "frequency_penalty",
        "logit_bias",
        "min_p",
        "parallel_tool_calls",
        "presence_penalty",
        "reasoning_effort",
        "repetition_penalty",
        "seed",
        "service_tier",
        "verbosity",
    }
)
"""What no client of the Messages API can say, so that it may as well be fixed."""

AN_ORDER = "targets are an order: the first gets all as long as it answers"
DROPPED = "nothing to say here: what a back end does not take is left out, with a warning in the log"
NO_LIMIT = "nothing here counts the requests and tokens of a target"
NO_PRICES = "prices and budgets are not a matter of rules files"
REASONS: Mapping[str, str] = {
    "additional_drop_params": 'write `params = { drop = ["…"] }`, in the names of the Messages API',
    "aws_access_key_id": "set AWS_ACCESS_KEY_ID in the environment",
    "aws_secret_access_key": "set AWS_SECRET_ACCESS_KEY in the environment",
    "aws_session_token": "set AWS_SESSION_TOKEN in the environment",
    "azure_ad_token": "type azure signs in with an api_key",
    "drop_params": DROPPED,
    "input_cost_per_token": NO_PRICES,
    "litellm_credential_name": "write what it names into the provider: base_url, api_key, api_version",
    "max_budget": NO_PRICES,
    "max_completion_tokens": "clients of the Messages API always say max_tokens: `params.cap` limits it",
    "max_parallel_requests": NO_LIMIT,
    "max_retries": "num_retries counts",
    "merge_reasoning_content_in_choices": 'write `transforms = { thinking = "text" }` into the rule',
    "mock_response": "a provider of type echo answers without a back end",
    "output_cost_per_token": NO_PRICES,
    "rpm": NO_LIMIT,
    "tags": "let a header tell: `match.headers.NAME` in the rule",
    "tpm": NO_LIMIT,
    "use_in_pass_through": "there are no pass-through routes; type anthropic gets Messages as they are",
    "weight": AN_ORDER,
}

_VARIABLE = re.compile(r"os\.environ/(\S+)")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


def owner(params: Node, written: str) -> tuple[str, str] | None:
    """Type and model. `None` if LiteLLM would not know either, or we don't know the type."""
    prefix, slash, rest = written.partition("/")
    said = params.at("custom_llm_provider").text()
    if said:
        type, model = said, rest if prefix == said else written
    elif slash:
        type, model = prefix, rest
    else:
        type, model = next((owner for pattern, owner in OWNERS if re.match(pattern, written)), ""), written
    type = TYPES_OF.get(type, type)
    base = params.at("api_base").text() or params.at("base_url").text()
    if type == "openai" and base and address(base).type != "openai":
        type = "openai_compatible"
    kind = provider_type(type)
    return (type, model) if kind and not kind.in_process else None


def variables_in_use(model_list: Node) -> set[str]:
    """Those that the file names for its keys, and those where LiteLLM looked when it said nothing."""
    found = set()
    for params in (entry.at("litellm_params") for entry in model_list.members):
        key = params.at("api_key").text()
        known = owner(params, params.at("model").text() or "")
        if reference := _VARIABLE.fullmatch(key or ""):
            found.add(reference[1])
        elif key is None and known:
            found.add(usual_key(known[0]) or "")
    return found


def names(table: Table, asked: str) -> Iterator[str]:
    """What a provider may be called, best first."""
    head, _, rest = asked.partition("/")
    if rest == "*" and re.fullmatch(r"[\w.-]+", head):
        yield head  # `head/*` takes it off again
    type, place = table["type"], _place(table)
    if type != "openai_compatible":
        yield type
    elif place:
        yield place
    if place:
        yield f"{type}-{place}"
    yield from (f"{type}-{number}" for number in count(2))


def _place(table: Table) -> str:
    """The host in short."""
    url = urlsplit(table.get("base_url", ""))
    host = url.hostname or ""
    short = host if host.replace(".", "").isdigit() else host.partition(".")[0]
    return re.sub(r"[^\w-]+", "-", f"{short}-{url.port}" if url.port else short)


def target(provider: str, type: str, asked: str, model: str) -> str | None:
    """`None` if the back end would be asked for neither a fixed name nor the one that was asked for."""
    if is_model(model):
        return f"{provider}/{model}"
    head, _, rest = asked.partition("/")
    kind = provider_type(type) or ProviderType()
    taken_off = {provider, type, *kind.spellings} - {*kind.vendor_prefixes}
    passed_on = rest if head in taken_off else asked
    return f"{provider}/*" if "*" in model and passed_on == model else None


def provider(params: Node, type: str, variables: Variables) -> Table:
    """What `[providers.NAME]` says for it."""
    base = params.at("api_base") or params.at("base_url")
    table: Table = {"type": type, **_where(base, type)}
    table |= _key(params.at("api_key"), table, variables)
    if type == "openai_compatible" and "api_key" not in table:
        base.leave("no key goes there, while LiteLLM sent OPENAI_API_KEY; if it needs one, write `api_key`")
    kind = provider_type(type) or ProviderType()
    for node in params.members:
        option = OPTIONS.get(node.name)
        if option in kind.options:
            table |= _option(node, option)
        elif option or (node.name.startswith(("aws_", "vertex_")) and node.name not in REASONS):
            node.leave(f"if it matters: `litellm_params = {{ {node.name} = … }}` of the provider")
    table |= _headers(params.at("extra_headers") or params.at("headers"))
    missing = [key for key in kind.required if key not in table]
    said = {OPTIONS.get(node.name) for node in params.members}
    if unsaid := [key for key in missing if key not in said]:
        params.at("model").leave(f"type {type} needs {' and '.join(unsaid)}: write it into the provider")
    return table | {key: NEEDED[key] for key in missing}


def _key(node: Node, table: Table, variables: Variables) -> Table:
    written, type = node.text(), table["type"]
    usual = usual_key(type)
    if written is None:
        return {}
    if reference := _VARIABLE.fullmatch(written):
        variable: str = reference[1]
    elif written.lower() in {"", "none"}:
        return {"api_key": "none"}
    elif type in KEYLESS:
        node.leave(KEYLESS[type])
        return {}
    else:
        wanted = usual or f"{_place(table) or type}_API_KEY"
        variable = variables.name(wanted, written)
        node.leave(f"put the key into .env as {variable}")
    return {} if variable == usual else {"api_key": f"env:{variable}"}


def _where(node: Node, type: str) -> Table:
    written = node.text()
    if written is None:
        return {}
    if reference := _VARIABLE.fullmatch(written):
        return {"base_url": f"env:{reference[1]}", "zone": "public"}
    where = address(written)
    if where.doubt:
        node.leave(where.doubt)
    return where.of(type)


def _option(node: Node, option: str) -> Table:
    value = node.whole(1) if option == "num_ctx" else node.text()
    if not value:
        node.leave(f"write one value as `{option}` of the provider")
    elif isinstance(value, str) and _VARIABLE.match(value):
        node.leave(f"only addresses, keys and headers come from variables: write `{option}` itself")
    elif option == "credentials" and str(value).lstrip().startswith("{"):
        node.leave("it is a secret: put it into a file, and name that in `credentials` of the provider")
    else:
        return {option: value}
    return {}


def _headers(node: Node) -> Table:
    headers = {}
    for header in node.members:
        value = header.text() or ""
        if not value or not _HEADER.fullmatch(header.name):
            header.leave("this is no header")
        elif header.looks_secret or _VARIABLE.search(value):
            header.leave('put it into .env; then the provider can have `headers = { NAME = "env:VARIABLE" }`')
        else:
            headers[header.name] = value
    return {"headers": headers} if headers else {}


def changes(params: Node) -> Table:
    """The `params` of its target."""
    limit, stop = params.at("max_tokens").whole(1), params.at("stop")
    stops = [text for one in (stop.members or (stop,)) if (text := one.text())]
    default = {"max_tokens": limit, **sampling_of(params), "stop_sequences": stops}
    fixed = [node for node in params.members if node.name in ONLY_IN_BODY]
    body = {node.name: node.plain() for node in (*fixed, *params.at("extra_body").members) if sendable(node)}
    # A request may override the first, there as here. No client of the Messages API can say the second.
    said = {
        "default": {name: value for name, value in default.items() if value not in (None, [])},
        "extra_body": body,
    }
    return {key: table for key, table in said.items() if table}
