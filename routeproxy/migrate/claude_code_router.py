"""claude-code-router's `config.json`, of versions 1 and 2. Version 3 keeps its settings in a database.

Its router asks in a fixed order, which becomes the order of our rules: an image in the last message, a model
that is named `provider,model`, a long context, haiku, a tool for web search, thinking, and the default.
"""

import re
from collections.abc import Callable, Iterator, Mapping

from msgspec import Struct

from routeproxy.migrate.moved import Moved, in_order
from routeproxy.migrate.providers import (
    KEYLESS,
    NOWHERE,
    Address,
    Table,
    Variables,
    address,
    is_model,
    provider_section,
    sampling_of,
    sendable,
    usual_key,
)
from routeproxy.migrate.source import Node, read_json
from routeproxy.migrate.toml import comment, section
from routeproxy.policy.facts import requested_model_problem
from routeproxy.policy.provider_types import TYPES


def from_claude_code_router(text: str) -> Moved:
    """Raises `ValueError` with the line, and what was expected there."""
    source = read_json(text)
    return Moved(_Move(source).text(), in_order(source.left()))


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

# --- transformers

NEEDLESS = "nothing to say here: this is done for every back end that needs it"
OF_YOUR_OWN = "this is code: see whether `params` or `transforms` in docs/rules.md can say it"
TRANSFORMER_REASONS: Mapping[str, str] = {
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
"""Transformers that say what the back end speaks."""


def _params(**tables: Table) -> Table:
    said = {name: table for name, table in tables.items() if table}
    return {"params": said} if said else {}


def _max_tokens(options: Node) -> Table:
    limit = options.at("max_tokens").whole(1)
    return _params(cap={"max_tokens": limit} if limit else {})


def _sampling(options: Node) -> Table:
    asked, penalty = sampling_of(options), options.at("repetition_penalty").number()
    extra = {} if penalty is None else {"repetition_penalty": penalty}
    return _laid_over(_max_tokens(options), _params(set=asked, extra_body=extra))


def _custom_params(options: Node) -> Table:
    return _params(extra_body={node.name: node.plain() for node in options.members if sendable(node)})


def _openrouter(options: Node) -> Table:
    """`referer` and `title` are for its app rankings; the rest goes into the body."""
    names = {"referer": "HTTP-Referer", "title": "X-Title"}
    shown = {header: options.at(option) for option, header in names.items()}
    headers = {header: text for header, node in shown.items() if node.is_sayable() and (text := node.text())}
    order = [name for node in options.at("providerOrder").members if (name := node.text())]
    rest = [node for node in options.members if node.name not in names and node.name != "providerOrder"]
    body = {node.name: node.plain() for node in rest if sendable(node)}
    routing = _params(extra_body={"provider": {"order": order}} if order else {})
    return _laid_over(routing, _params(extra_body=body)) | ({"headers": headers} if headers else {})


EFFECTS: Mapping[str, Callable[[Node], Table]] = {
    "customparams": _custom_params,
    "deepseek": lambda _: _params(cap={"max_tokens": 8192}),
    "maxtoken": _max_tokens,
    "openrouter": _openrouter,
    "sampling": _sampling,
}


def _transformed(use: Node) -> tuple[str | None, Table]:
    """What the back end speaks, if transformers say so, and what they change."""
    type, changes = None, Table()
    for entry in use.members:
        head = entry.members[0] if entry.members else entry
        options = entry.members[1] if len(entry.members) > 1 else entry.at("options")
        name = head.text() or ""
        change = EFFECTS[name](options) if name in EFFECTS else {}
        options.leave_known(OPTION_REASONS)
        if not change and name != "Anthropic":
            entry.leave(TRANSFORMER_REASONS.get(name, OF_YOUR_OWN))
        changes = _laid_over(changes, change)
        type = TYPES_OF.get(name, type)
    return type, changes


def _laid_over(below: Table, above: Table, *path: str) -> Table:
    merged = dict(below)
    for name, value in above.items():
        there = merged.get(name)
        if isinstance(there, dict) and isinstance(value, dict):
            merged[name] = _laid_over(there, value, *path, name)
        elif path == ("params", "cap") and there is not None:
            merged[name] = min(there, value)  # each lowered what was left of it
        else:
            merged[name] = value
    return merged


# --- the file


class _Provider(Struct, frozen=True):
    name: str
    """Ours: theirs may have spaces and slashes."""
    models: Mapping[str, Node]
    changes: Mapping[str, Table]
    """What is done for single models, as it stands beside a target."""

    def target(self, model: str) -> str | Table:
        target = f"{self.name}/{model}"
        return {"target": target, **self.changes[model]} if model in self.changes else target


class _Move:
    def __init__(self, source: Node) -> None:
        self._source = source
        self._router = source.at("Router")
        self._fallback = source.at("fallback")
        self._entries = (source.at("Providers") or source.at("providers")).members
        keys = [_VARIABLE.fullmatch(entry.at("api_key").text() or "") for entry in self._entries]
        self._variables = Variables(key[1] or key[2] for key in keys if key)
        self._proxy = self._usable_proxy()
        self._proxied: list[str] = []
        self._without_proxy: list[str] = []
        self._providers: dict[str, _Provider] = {}
        """By the names that Router uses."""

    def text(self) -> str:
        sections = [comment(INTRO) + "\n", self._server(), *self._provider_sections(), *self._rules()]
        self._explain_proxy()
        self._explain_fallback()
        self._router.leave_known(ROUTER_REASONS)
        variables = {node.name: VARIABLE for node in self._source.members if node.name.endswith("_API_KEY")}
        self._source.leave_known({**REASONS, **variables})
        return "\n".join(sections)

    def _server(self) -> str:
        key, host = self._source.at("APIKEY"), self._source.at("HOST")
        port = self._source.at("PORT").whole(0, 65_535)
        table: Table = {"host": "127.0.0.1", "port": PORT if port is None else port}
        if not key.text():
            # So it was there: without a key it served this machine only, whatever HOST said.
            host.leave("it counted only with APIKEY; set ANTHROPIC_AUTH_TOKEN before you serve others")
            return section(
                "[server]", table, note="claude-code-router's port, so that clients stay as they are"
            )
        key.leave("put it into .env as ANTHROPIC_AUTH_TOKEN; until then nobody gets in")
        if (written := host.text()) and not _VARIABLE.search(written):
            table["host"] = written
        elif written:
            host.leave("write it as `host`, or set HOST in .env and take `host` out")
        table["require_key"] = True
        return section("[server]", table, note="clients have to show ANTHROPIC_AUTH_TOKEN")

    # --- [providers.NAME]

    def _provider_sections(self) -> Iterator[str]:
        for node in self._entries:
            called = node.at("name").text()
            if not called or called in self._providers:
                node.leave(
                    "another provider has this name" if called else "expected a provider with a `name`"
                )
                continue
            yield self._provider_section(called, node)
            node.leave_known(PROVIDER_REASONS)

    def _provider_section(self, called: str, node: Node) -> str:
        name = re.sub(r"[^\w.-]+", "-", called)
        while name in {provider.name for provider in self._providers.values()}:
            name += "-2"
        if name != called:
            node.at("name").leave(f"it is called `{name}` here")
        transformer = node.at("transformer")
        type, changes = _transformed(transformer.at("use"))
        own = _of_models(transformer)
        models = {model.text() or "": model for model in node.at("models").members}
        models |= {model: transformer.at(model) for model in own if model not in models}
        self._providers[called] = _Provider(name, models, own)
        table = _placed(node.at("api_base_url"), type)
        table |= self._key(node.at("api_key"), table["type"], name)
        table |= self._through_proxy(name, table)
        return provider_section(name, table | changes)

    def _key(self, node: Node, type: str, name: str) -> Table:
        written, usual = node.text() or "", usual_key(type)
        if reference := _VARIABLE.fullmatch(written):
            variable: str = reference[1] or reference[2]
        elif type in KEYLESS:
            node.leave(KEYLESS[type])
            return {}
        else:
            variable = self._variables.name(usual or f"{name}_API_KEY", written)
            node.leave(
                f'put the key into .env as {variable}; a back end that needs none has `api_key = "none"`'
            )
        return {} if variable == usual else {"api_key": f"env:{variable}"}

    def _usable_proxy(self) -> str:
        node = self._source.at("PROXY_URL")
        written = node.text() or ""
        if written and not re.fullmatch(r"https?://[^@$\s]+", written):
            node.leave("set HTTPS_PROXY in the environment: passwords and variables can't stand in `proxy`")
            return ""
        return written

    def _through_proxy(self, name: str, table: Table) -> Table:
        kind = TYPES.get(table["type"])
        if not self._proxy or table.get("zone") == "local" or (kind and kind.zone == "local"):
            return {}
        if kind and kind.own_client:
            self._proxied.append(name)
            return {"proxy": self._proxy}
        self._without_proxy.append(name)
        return {}

    def _explain_proxy(self) -> None:
        node, names = self._source.at("PROXY_URL"), ", ".join(self._without_proxy)
        if names:
            node.leave(f"`proxy` can't be said of {names}: set HTTPS_PROXY in the environment for them")
        elif self._proxy and not self._proxied:
            node.leave("no provider here is reached through it")

    # --- [[rules]] and [default]

    def _rules(self) -> Iterator[str]:
        note = "Router.image; there it had to be in the last message"
        yield from self._rule("image", "image", {"images": True}, note)
        for provider in self._providers.values():
            yield from _by_name(provider)
        for key, (name, match) in ROUTES.items():
            if key == "longContext" and self._router.at(key):
                # It had to be more than the threshold; `min` is inclusive.
                threshold = self._router.at("longContextThreshold").whole(0) or LONG_CONTEXT
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
        """That of a route, and after it those of its fallback."""
        first = self._target(self._router.at(key))
        if first is None:
            return None
        # An image counted as `default` there.
        others = self._fallback.at("default" if key == "image" else key).members
        targets = [first]
        for node in others:
            if (target := self._target(node)) and target not in targets:
                targets.append(target)
        return targets if len(targets) > 1 else first

    def _explain_fallback(self) -> None:
        unused = "nothing to follow: Router has no target of this name"
        self._fallback.leave_known({node.name: unused for node in self._fallback.members})
        if self._fallback.members:
            self._fallback.leave(FALLBACK)

    def _target(self, node: Node) -> str | Table | None:
        name, _, model = (node.text() or "").partition(",")
        if not node:
            return None
        if not is_model(model):
            node.leave("expected `provider,model`")
        elif name not in self._providers:
            node.leave("no provider has this name")
        else:
            return self._providers[name].target(model)
        return None


_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


def _of_models(transformer: Node) -> dict[str, Table]:
    found = {}
    for node in transformer.members:
        if node.name == "use":
            continue
        type, changes = _transformed(node.at("use"))
        if type or "headers" in changes:
            node.leave("type and headers belong to a provider: write a second one for this model")
        if beside := {name: change for name, change in changes.items() if name != "headers"}:
            found[node.name] = beside
    return found


def _by_name(provider: _Provider) -> Iterator[str]:
    """What `/model provider,model` was for."""
    plain = []
    for model, node in provider.models.items():
        asked = f"{provider.name}/{model}"
        if problem := requested_model_problem(asked):
            node.leave(f"clients can't ask for it by this name: {problem}")
        elif model in provider.changes:
            yield _named(asked, [asked], provider.target(model))
        else:
            plain.append(asked)
    if plain:
        yield _named(f"{provider.name} by name", plain, f"{provider.name}/*")


def _named(name: str, asked: list[str], target: str | Table) -> str:
    equals = asked if len(asked) > 1 else asked[0]
    table = {"name": name, "match": {"model": {"equals": equals}}, "targets": target}
    return section("[[rules]]", table, note=f"/model {asked[0]}")


def _placed(node: Node, type: str | None) -> Table:
    """A provider's type and where it is."""
    written = node.text() or ""
    where = address(written)
    if _VARIABLE.search(written):
        node.leave(
            "write the address as `base_url`: a variable can hold it, but without the endpoint at its end"
        )
        where = Address(NOWHERE)
    elif where.doubt:
        node.leave(where.doubt)
    elif (type or where.type) == "openai_compatible" and where.url == written:
        node.leave("requests went to this very address; here they go to /chat/completions below it")
    if type == "vertex_ai":
        location = where.host.removesuffix("-aiplatform.googleapis.com")
        known = location != where.host
        return {"type": type, "project": "my-project", "location": location if known else "us-central1"}
    type = type or where.type
    return {"type": type, **where.of(type)}
