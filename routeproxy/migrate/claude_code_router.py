"""claude-code-router's `config.json`, of versions 1 and 2. Version 3 keeps its settings in a database.

Its router decides in a fixed order, which becomes the order of our rules: an image in the last message, a
model that is named `provider,model`, a long context, haiku, a tool for web search, thinking, and the default.
"""

import re
from collections.abc import Iterator, Mapping

from msgspec import Struct

from routeproxy.migrate.claude_code_router_transformers import model_fields, read_transformers
from routeproxy.migrate.moved import Moved, sort_leftovers
from routeproxy.migrate.providers import (
    KEYLESS,
    PLACEHOLDER_ADDRESS,
    Address,
    KeyVariables,
    Table,
    is_model_name,
    parse_address,
    provider_section,
    usual_key_variable,
)
from routeproxy.migrate.source import Node, read_json
from routeproxy.migrate.toml import comment, section
from routeproxy.policy.compile.connections import proxy_problem
from routeproxy.policy.facts import requested_model_problem
from routeproxy.policy.provider_types import TYPES


def from_claude_code_router(text: str) -> Moved:
    """Migrates a whole file. Raises `ValueError` with the line, and what was expected there."""
    source = read_json(text)
    return Moved(_Migrator(source).text(), sort_leftovers(source.leftovers()))


INTRO = """\
Moved from claude-code-router by `routeproxy init`. The first rule that matches decides, from top to bottom.
Keys are only named here: they stand in the environment, or in a `.env` beside this file.

What claude-code-router did without a key in its file:
- `/model provider,model` is `/model provider/model` here, for the models that it listed.
- A subagent with <CCR-SUBAGENT-MODEL> in its prompt: say `model: provider/model` in the subagent's own file,
  or write a rule with `match.system`.
- A config.json of a project: let a header tell, as in `match.headers.x-project = "NAME"`."""

PORT = 3456
LONG_CONTEXT = 60_000

ROUTES: Mapping[str, tuple[str, Table]] = {
    "longContext": ("long context", {}),
    "background": ("background", {"model": "haiku"}),
    # A type such as web_search_20250305. A tool of the client's own that is called `web_search` is none.
    "webSearch": ("web search", {"tools": ["web_search_*"]}),
    "think": ("think", {"thinking": True}),
}

REASONS: Mapping[str, str] = {
    "API_TIMEOUT_MS": (
        "it was Claude Code's own limit: set API_TIMEOUT_MS in its settings; how long a provider may take is "
        "said by `timeouts`"
    ),
    "CLAUDE_PATH": "routeproxy does not start Claude Code: set ANTHROPIC_BASE_URL in its settings",
    "CUSTOM_ROUTER_PATH": "there is no code in a rules file: write what it decides as rules above the others",
    "HOT_RELOAD": "nothing to say here: an edit of the rules is live within a second",
    "LOG": "logs go to standard error; set LOG_FILE in .env for a file",
    "LOG_LEVEL": "set LOG_LEVEL in .env, to DEBUG, INFO, WARNING or ERROR",
    "NON_INTERACTIVE_MODE": "it was for starting Claude Code: set CI=true where that runs",
    "Presets": "move the file of each preset by itself",
    "REWRITE_SYSTEM_PROMPT": "prompts are not rewritten here; Claude Code has --system-prompt-file",
    "StatusLine": "it belongs to Claude Code: see `statusLine` in its settings",
    "forceUseImageAgent": "there is no image agent: what has an image goes to the rule `image` whole",
    "presets": "move the file of each preset by itself",
    "transformers": "there is no code in a rules file: see `params` and `transforms` in docs/rules.md",
}
ROUTER_REASONS: Mapping[str, str] = {
    "fallback": "name what follows a failure in the `targets` of the rules, in its order",
    "longContextThreshold": "it means nothing without Router.longContext",
}
PROVIDER_REASONS: Mapping[str, str] = {
    "models": "it is empty: no model can be asked for by name",
    "tokenizer": "nothing to say here: input tokens are estimated without asking anybody",
}
VARIABLE = "nothing to say here: variables come from the environment and from .env"
FALLBACK = (
    "moved, as further targets: there every HTTP error led to the next model, here rate limits, overload, "
    "server errors, time-outs and lost connections do; name more in `fallback.also`"
)

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


class _Provider(Struct, frozen=True):
    name: str
    """In the rules file: in a config.json a name may have spaces and slashes."""
    models: Mapping[str, Node]
    model_fields: Mapping[str, Table]
    """The fields beside a target, for models that have some."""

    def target(self, model: str) -> str | Table:
        target = f"{self.name}/{model}"
        return {"target": target, **self.model_fields[model]} if model in self.model_fields else target


class _Migrator:
    def __init__(self, source: Node) -> None:
        self._source = source
        self._router = source.at("Router")
        self._fallback = source.at("fallback")
        self._entries = (source.at("Providers") or source.at("providers")).members
        keys = [_VARIABLE.fullmatch(entry.at("api_key").text() or "") for entry in self._entries]
        self._variables = KeyVariables(key[1] or key[2] for key in keys if key)
        self._proxy = self._read_proxy()
        self._with_proxy: list[str] = []
        """Names of the providers that are reached through it."""
        self._without_proxy: list[str] = []
        """Names of those that can't be, by their type."""
        self._providers: dict[str, _Provider] = {}
        """By their names in the config.json."""

    def text(self) -> str:
        sections = [comment(INTRO) + "\n", self._server(), *self._provider_sections(), *self._rules()]
        self._explain_proxy()
        self._explain_fallback()
        self._router.leave_unused(ROUTER_REASONS)
        variables = {node.name: VARIABLE for node in self._source.members if node.name.endswith("_API_KEY")}
        self._source.leave_unused({**REASONS, **variables})
        return "\n".join(sections)

    def _server(self) -> str:
        key, host = self._source.at("APIKEY"), self._source.at("HOST")
        port = self._source.at("PORT").integer(0, 65_535)
        table: Table = {"host": "127.0.0.1", "port": PORT if port is None else port}
        if not key.text():
            # As it was there: without a key it served this machine only, whatever HOST was.
            host.leave("it counted only with APIKEY; set ANTHROPIC_AUTH_TOKEN before you serve others")
            return section(
                "[server]", table, note="claude-code-router's port, so that clients stay as they are"
            )
        key.leave("put it into .env as ANTHROPIC_AUTH_TOKEN; until then nobody gets in")
        if (address := host.text()) and not _VARIABLE.search(address):
            table["host"] = address
        elif address:
            host.leave("write it as `host`, or set HOST in .env and take `host` out")
        table["require_key"] = True
        return section("[server]", table, note="clients have to show ANTHROPIC_AUTH_TOKEN")

    # --- [providers.NAME]

    def _provider_sections(self) -> Iterator[str]:
        for node in self._entries:
            original_name = node.at("name").text()
            if not original_name:
                node.leave("expected a provider with a `name`")
            elif original_name in self._providers:
                node.leave("another provider has this name")
            else:
                yield self._provider_section(original_name, node)
                node.leave_unused(PROVIDER_REASONS)

    def _provider_section(self, original_name: str, node: Node) -> str:
        name = re.sub(r"[^\w.-]+", "-", original_name)
        while name in {provider.name for provider in self._providers.values()}:
            name += "-2"
        if name != original_name:
            node.at("name").leave(f"it is called `{name}` here")
        transformer = node.at("transformer")
        transformed = read_transformers(transformer.at("use"))
        fields_of_models = model_fields(transformer)
        models = {model.text() or "": model for model in node.at("models").members}
        models |= {model: transformer.at(model) for model in fields_of_models if model not in models}
        self._providers[original_name] = _Provider(name, models, fields_of_models)
        table = _type_and_address(node.at("api_base_url"), transformed.type)
        table |= self._key_fields(node.at("api_key"), table["type"], name)
        table |= self._proxy_fields(name, table)
        return provider_section(name, table | transformed.fields)

    def _key_fields(self, node: Node, type: str, name: str) -> Table:
        key, usual = node.text() or "", usual_key_variable(type)
        if reference := _VARIABLE.fullmatch(key):
            variable: str = reference[1] or reference[2]
        elif type in KEYLESS:
            node.leave(KEYLESS[type])
            return {}
        else:
            variable = self._variables.name(usual or f"{name}_API_KEY", key)
            node.leave(
                f'put the key into .env as {variable}; a back end that needs none has `api_key = "none"`'
            )
        return {} if variable == usual else {"api_key": f"env:{variable}"}

    def _read_proxy(self) -> str:
        node = self._source.at("PROXY_URL")
        address = node.text() or ""
        if address and not re.fullmatch(r"https?://[^@$\s]+", address):
            node.leave("set HTTPS_PROXY in the environment: passwords and variables can't stand in `proxy`")
            return ""
        if address and (problem := proxy_problem(address)):
            node.leave(f"it {problem}")
            return ""
        return address

    def _proxy_fields(self, name: str, table: Table) -> Table:
        kind = TYPES.get(table["type"])
        if not self._proxy or table.get("zone") == "local" or (kind and kind.zone == "local"):
            return {}
        if kind and kind.own_client:
            self._with_proxy.append(name)
            return {"proxy": self._proxy}
        self._without_proxy.append(name)
        return {}

    def _explain_proxy(self) -> None:
        node, names = self._source.at("PROXY_URL"), ", ".join(self._without_proxy)
        if names:
            node.leave(f"`proxy` can't be said of {names}: set HTTPS_PROXY in the environment for them")
        elif self._proxy and not self._with_proxy:
            node.leave("no provider here is reached through it")

    # --- [[rules]] and [default]

    def _rules(self) -> Iterator[str]:
        note = "Router.image; there it had to be in the last message"
        yield from self._rule("image", "image", {"images": True}, note)
        for provider in self._providers.values():
            yield from _rules_by_name(provider)
        for key, (name, match) in ROUTES.items():
            if key == "longContext" and self._router.at(key):
                # It had to be more than the threshold; `min` is inclusive.
                threshold = self._router.at("longContextThreshold").integer(0) or LONG_CONTEXT
                match = {"input_tokens": {"min": threshold + 1}}
            yield from self._rule(key, name, match, f"Router.{key}")
        if targets := self._targets("default"):
            yield section("[default]", {"targets": targets}, note="Router.default")
        else:
            deny = {"message": "no rule is for this model, and there is no default", "status": 404}
            yield section("[default]", {"deny": deny}, note="Router.default named no target")

    def _rule(self, key: str, name: str, match: Table, note: str) -> Iterator[str]:
        if targets := self._targets(key):
            yield section("[[rules]]", {"name": name, "match": match, "targets": targets}, note=note)

    def _targets(self, key: str) -> list[str | Table] | str | Table | None:
        """The target of a route, and after it the targets of its fallback."""
        first = self._target(self._router.at(key))
        if first is None:
            return None
        # An image counted as `default` there.
        fallbacks = self._fallback.at("default" if key == "image" else key).members
        targets = [first]
        for node in fallbacks:
            if (target := self._target(node)) and target not in targets:
                targets.append(target)
        return targets if len(targets) > 1 else first

    def _explain_fallback(self) -> None:
        unused = "nothing to follow: Router has no target of this name"
        self._fallback.leave_unused({node.name: unused for node in self._fallback.members})
        if self._fallback.members:
            self._fallback.leave(FALLBACK)

    def _target(self, node: Node) -> str | Table | None:
        name, _, model = (node.text() or "").partition(",")
        if not node:
            return None
        if not is_model_name(model):
            node.leave("expected `provider,model`")
        elif name not in self._providers:
            node.leave("no provider has this name")
        else:
            return self._providers[name].target(model)
        return None


def _rules_by_name(provider: _Provider) -> Iterator[str]:
    """The rules for `/model provider/model`, which was `/model provider,model`."""
    plain = []
    for model, node in provider.models.items():
        name = f"{provider.name}/{model}"
        if problem := requested_model_problem(name):
            node.leave(f"clients can't ask for it by this name: {problem}")
        elif model in provider.model_fields:
            yield _rule_for_models(name, [name], provider.target(model))
        else:
            plain.append(name)
    if plain:
        yield _rule_for_models(f"{provider.name} by name", plain, f"{provider.name}/*")


def _rule_for_models(name: str, models: list[str], target: str | Table) -> str:
    match = {"model": {"equals": models if len(models) > 1 else models[0]}}
    table = {"name": name, "match": match, "targets": target}
    return section("[[rules]]", table, note=f"/model {models[0]}")


def _type_and_address(node: Node, type: str | None) -> Table:
    """The type of a provider, unless transformers imply it, and the fields for its address."""
    text = node.text() or ""
    address = parse_address(text)
    if _VARIABLE.search(text):
        node.leave(
            "write the address as `base_url`: a variable can hold it, but without the endpoint at its end"
        )
        address = Address(PLACEHOLDER_ADDRESS)
    elif address.doubt:
        node.leave(address.doubt)
    elif (type or address.type) == "openai_compatible" and address.url == text:
        node.leave("requests went to this very address; here they go to /chat/completions below it")
    if type == "vertex_ai":
        location = address.host.removesuffix("-aiplatform.googleapis.com")
        known = location != address.host
        return {"type": type, "project": "my-project", "location": location if known else "us-central1"}
    type = type or address.type
    return {"type": type, **address.fields(type)}
