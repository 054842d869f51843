"""One deployment of LiteLLM's `model_list`: its provider, address and key, and the parameters that it
sets."""

import re
from collections.abc import Iterator, Mapping
from itertools import count
from urllib.parse import urlsplit

from routeproxy.migrate.providers import (
    KEYLESS,
    PLACEHOLDER_ADDRESS,
    KeyVariables,
    Table,
    is_model_name,
    is_sendable,
    parse_address,
    sampling_params,
    usual_key_variable,
)
from routeproxy.migrate.source import Node
from routeproxy.policy.litellm_params import PARAMS_OF_TYPE
from routeproxy.policy.provider_types import ProviderType, provider_type

TYPES_OF: Mapping[str, str] = {"ollama_chat": "ollama", "custom_openai": "openai_compatible"}
"""The type of a prefix, where it isn't the prefix."""

OWNERS: tuple[tuple[str, str], ...] = (
    (r"gpt-|chatgpt-|o[134](-|$)", "openai"),
    (r"claude-", "anthropic"),
    (r"gemini-", "vertex_ai"),  # as in LiteLLM: Google's other API needs `gemini/`
)
"""The type of a model without a prefix."""

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
"""LiteLLM's parameters → options of single types."""
PLACEHOLDERS: Mapping[str, str] = {
    "aws_region_name": "us-west-2",  # LiteLLM's own default
    "base_url": PLACEHOLDER_ADDRESS,
    "project": "my-project",
    "location": "us-central1",
}
"""Values for options that a type needs and the file does not have."""

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
"""Parameters that no client of the Messages API can send, so that they may as well be fixed."""

AN_ORDER = "targets are an order: the first gets all as long as it answers"
DROPPED = "nothing to say here: what a back end does not take is left out, with a warning in the log"
NO_LIMIT = "nothing here counts the requests and tokens of a target"
NO_PRICES = "prices and budgets are not a matter of rules files"
REASONS: Mapping[str, str] = {
    "additional_drop_params": 'write `params = { drop = ["…"] }`, in the names of the Messages API',
    "aws_access_key_id": "set AWS_ACCESS_KEY_ID in the environment",
    "aws_secret_access_key": "set AWS_SECRET_ACCESS_KEY in the environment",
    "aws_session_token": "set AWS_SESSION_TOKEN in the environment",
    "azure_ad_token": 'write `litellm_params.azure_ad_token = "env:NAME"` into the provider',
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


def type_and_model(params: Node, name: str) -> tuple[str, str] | None:
    """The type and the model that `name` means. `None` if LiteLLM could not tell, or if no type fits."""
    prefix, slash, rest = name.partition("/")
    stated = params.at("custom_llm_provider").text()
    if stated:
        type, model = stated, rest if prefix == stated else name
    elif slash:
        type, model = prefix, rest
    else:
        type, model = next((owner for pattern, owner in OWNERS if re.match(pattern, name)), ""), name
    type = TYPES_OF.get(type, type)
    base = params.at("api_base").text() or params.at("base_url").text()
    if type == "openai" and base and parse_address(base).type != "openai":
        type = "openai_compatible"
    kind = provider_type(type)
    return (type, model) if kind and not kind.in_process else None


def variables_in_use(model_list: Node) -> set[str]:
    """The variables that the file names for keys, and those where LiteLLM looked for keys it does not
    have."""
    variables = set()
    for params in (entry.at("litellm_params") for entry in model_list.members):
        key = params.at("api_key").text()
        owner = type_and_model(params, params.at("model").text() or "")
        if reference := _VARIABLE.fullmatch(key or ""):
            variables.add(reference[1])
        elif key is None and owner:
            variables.add(usual_key_variable(owner[0]) or "")
    return variables


def provider_names(table: Table, group: str) -> Iterator[str]:
    """Names for the provider of a model group, the best one first."""
    head, _, rest = group.partition("/")
    if rest == "*" and re.fullmatch(r"[\w.-]+", head):
        yield head  # `head/*` takes it off again
    type, host = table["type"], _short_host(table)
    if type != "openai_compatible":
        yield type
    elif host:
        yield host
    if host:
        yield f"{type}-{host}"
    yield from (f"{type}-{number}" for number in count(2))


def _short_host(table: Table) -> str:
    url = urlsplit(table.get("base_url", ""))
    host = url.hostname or ""
    short = host if host.replace(".", "").isdigit() else host.partition(".")[0]
    return re.sub(r"[^\w-]+", "-", f"{short}-{url.port}" if url.port else short)


def target_name(provider: str, type: str, group: str, model: str) -> str | None:
    """The target for `model`. `None` if LiteLLM sent neither a fixed name nor the requested one."""
    if is_model_name(model):
        return f"{provider}/{model}"
    head, _, rest = group.partition("/")
    kind = provider_type(type) or ProviderType()
    removable = {provider, type, *kind.spellings} - {*kind.vendor_prefixes}
    passed_on = rest if head in removable else group
    return f"{provider}/*" if "*" in model and passed_on == model else None


def provider_table(params: Node, type: str, variables: KeyVariables) -> Table:
    """The fields of `[providers.NAME]`."""
    base = params.at("api_base") or params.at("base_url")
    table: Table = {"type": type, **_address_fields(base, type)}
    table |= _key_fields(params.at("api_key"), table, variables)
    if type == "openai_compatible" and "api_key" not in table:
        base.leave("no key goes there, while LiteLLM sent OPENAI_API_KEY; if it needs one, write `api_key`")
    kind = provider_type(type) or ProviderType()
    for node in params.members:
        option = OPTIONS.get(node.name)
        if option in kind.options:
            table |= _option_fields(node, option)
        elif option or (node.name in PARAMS_OF_TYPE.get(type, ()) and node.name not in REASONS):
            node.leave(f"if it matters: `litellm_params = {{ {node.name} = … }}` of the provider")
    table |= _header_fields(params.at("extra_headers") or params.at("headers"))
    missing = [key for key in kind.required if key not in table]
    present = {OPTIONS.get(node.name) for node in params.members}
    if absent := [key for key in missing if key not in present]:
        params.at("model").leave(f"type {type} needs {' and '.join(absent)}: write it into the provider")
    return table | {key: PLACEHOLDERS[key] for key in missing}


def _key_fields(node: Node, table: Table, variables: KeyVariables) -> Table:
    key, type = node.text(), table["type"]
    usual = usual_key_variable(type)
    if key is None:
        return {}
    if reference := _VARIABLE.fullmatch(key):
        variable: str = reference[1]
    elif key.lower() in {"", "none"}:
        return {"api_key": "none"}
    elif type in KEYLESS:
        node.leave(KEYLESS[type])
        return {}
    else:
        variable = variables.name(usual or f"{_short_host(table) or type}_API_KEY", key)
        node.leave(f"put the key into .env as {variable}")
    return {} if variable == usual else {"api_key": f"env:{variable}"}


def _address_fields(node: Node, type: str) -> Table:
    text = node.text()
    if text is None:
        return {}
    if reference := _VARIABLE.fullmatch(text):
        return {"base_url": f"env:{reference[1]}", "zone": "public"}
    address = parse_address(text)
    if address.doubt:
        node.leave(address.doubt)
    return address.fields(type)


def _option_fields(node: Node, option: str) -> Table:
    value = node.integer(1) if option == "num_ctx" else node.text()
    if not value:
        node.leave(f"write one value as `{option}` of the provider")
    elif isinstance(value, str) and _VARIABLE.match(value):
        node.leave(f"only addresses, keys and headers come from variables: write `{option}` itself")
    elif option == "credentials" and str(value).lstrip().startswith("{"):
        node.leave("it is a secret: put it into a file, and name that in `credentials` of the provider")
    else:
        return {option: value}
    return {}


def _header_fields(node: Node) -> Table:
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


def target_params(params: Node) -> Table:
    """The `params` of the deployment's target."""
    limit, stop = params.at("max_tokens").integer(1), params.at("stop")
    stops = [text for node in (stop.members or (stop,)) if (text := node.text())]
    default = {"max_tokens": limit, **sampling_params(params), "stop_sequences": stops}
    fixed = [node for node in params.members if node.name in ONLY_IN_BODY]
    body = {
        node.name: node.plain() for node in (*fixed, *params.at("extra_body").members) if is_sendable(node)
    }
    # A request may override the defaults, there as here. No client of the Messages API can send the others.
    tables = {
        "default": {name: value for name, value in default.items() if value not in (None, [])},
        "extra_body": body,
    }
    return {name: table for name, table in tables.items() if table}
