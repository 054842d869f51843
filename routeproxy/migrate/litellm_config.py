"""LiteLLM proxy's `config.yaml`. Each `model_name` becomes a rule, and its deployments the rule's targets.

Names are asked first, then patterns from the most to the least specific, and what nobody takes is refused, as
it was there.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

from msgspec import Struct

from routeproxy.migrate import litellm_deployment as deployments
from routeproxy.migrate.moved import Moved, in_order
from routeproxy.migrate.providers import Table, Variables, provider_section
from routeproxy.migrate.source import Node, read_yaml
from routeproxy.migrate.toml import comment, section
from routeproxy.policy.facts import requested_model_problem


def from_litellm(text: str) -> Moved:
    """Raises `ValueError` with the line, and what was expected there."""
    source = read_yaml(text)
    return Moved(_Move(source).text(), in_order(source.left()))


INTRO = """\
Moved from LiteLLM's proxy by `routeproxy init`. The first rule that matches decides, from top to bottom.
Keys are only named here: they stand in the environment, or in a `.env` beside this file.

Clients speak the Messages API here: point ANTHROPIC_BASE_URL at it. LiteLLM listened on all addresses; this
serves one machine until `host` says otherwise."""

PORT = 4000
MOST_TRIES = 10

DATABASE = "there is no database here, so nothing to set up"
LOGGED = "there are no callbacks here; docs/running.md says what logs tell"
NO_CACHE = "answers are not cached here; providers' prompt caches go on working"
NO_COOLDOWN = "a target that failed is asked again by the next request: nothing cools down"
SHARED = "processes share nothing here"
SETTING_REASONS: Mapping[str, str] = {
    "alerting": "nothing here sends messages",
    "allowed_fails": NO_COOLDOWN,
    "allowed_fails_policy": NO_COOLDOWN,
    "background_health_checks": "targets are not asked while no client asks",
    "cache": NO_CACHE,
    "cache_params": NO_CACHE,
    "callback_settings": LOGGED,
    "callbacks": LOGGED,
    "content_policy_fallbacks": (
        "not moved: the next one would get what this one has found fault with; if you mean it, name more "
        'targets and `fallback = { also = ["content_policy"] }`'
    ),
    "cooldown_time": NO_COOLDOWN,
    "credential_list": "write what it names into the providers: base_url, api_key, api_version",
    "custom_auth": "clients show a key: ANTHROPIC_AUTH_TOKEN, or one of `[teams.NAME]`",
    "database_connection_pool_limit": DATABASE,
    "database_url": f"{DATABASE}; teams and their keys are `[teams.NAME]`",
    "disable_cooldowns": NO_COOLDOWN,
    "drop_params": deployments.DROPPED,
    "enable_pre_call_checks": "a rule with `match.input_tokens.min` sends long prompts elsewhere",
    "failure_callback": LOGGED,
    "guardrails": "rules can refuse by what they match; texts are not looked through",
    "include": "move that file too, and put what comes of it into this one",
    "json_logs": LOGGED,
    "mcp_servers": "tool servers are the client's affair here",
    "modify_params": "nothing to say here: requests are made to fit what a back end takes",
    "redis_host": SHARED,
    "redis_password": SHARED,
    "redis_port": SHARED,
    "redis_url": SHARED,
    "retry_policy": "`retry.attempts` is one number for all failures; `fallback.on` names those that lead on",
    "routing_strategy": deployments.AN_ORDER,
    "set_verbose": "set LOG_LEVEL in .env",
    "ssl_verify": "name the certificate of your authority: `ca_file` of a provider",
    "store_model_in_db": DATABASE,
    "success_callback": LOGGED,
    "turn_off_message_logging": "nothing to say here: contents are not logged",
}

MODEL_INFO = "it told LiteLLM about the model; nothing here reads it"
OWN_PREFIX = (
    "LiteLLM took the provider from the name that was asked for: write a rule for each, such as "
    '`match.model.prefix = "openai/"` with `targets = "openai/*"`'
)
UNKNOWN_OWNER = "whose model is it? expected `provider/model`, of a provider that docs/rules.md knows"
OTHER_NAME = "`provider/*` passes on the name that was asked for, and this changes it: name each model"
UNKNOWN_GROUP = "no `model_name` in this file is like this"
BALANCED = f"one more of this name; {deployments.AN_ORDER}"
MOVED = (
    "moved, as further targets: there every error led to the next group, here rate limits, overload, server "
    "errors, time-outs and lost connections do; name more in `fallback.also`"
)
MOVED_FOR_LONG = (
    "moved, as further targets with `context_overflow` added: each failure that a rule names leads to all of "
    "its targets"
)


Target = str | Table


class _Deployment(Struct, frozen=True):
    params: Node
    target: Target
    order: float
    """The lower, the earlier."""


class _Move:
    def __init__(self, source: Node) -> None:
        self._source = source
        self._router, self._litellm = source.at("router_settings"), source.at("litellm_settings")
        self._general = source.at("general_settings")
        self._variables = Variables(deployments.variables_in_use(source.at("model_list")))
        self._providers: dict[str, Table] = {}
        self._groups: dict[str, list[_Deployment]] = {}
        for entry in source.at("model_list").members:
            self._read(entry)
        self._aliases = self._read_aliases()
        self._fallbacks = self._read_fallbacks("fallbacks")
        self._for_long_prompts = self._read_fallbacks("context_window_fallbacks")
        self._last_resort = self._named_groups(self._setting("default_fallbacks"))

    def text(self) -> str:
        sections = [comment(INTRO) + "\n", self._server()]
        sections += [provider_section(name, table) for name, table in self._providers.items()]
        sections += self._rules()
        for variable in self._source.at("environment_variables").members:
            variable.leave(f"put it into .env as {variable.name}")
        for one in (one for group in self._groups.values() for one in group):
            one.params.leave_known(deployments.REASONS)
        for settings in (self._router, self._litellm, self._general):
            settings.take()
            settings.leave_known(SETTING_REASONS)
        self._source.leave_known(SETTING_REASONS)
        return "\n".join(sections)

    def _server(self) -> str:
        key = self._general.at("master_key")
        note = "LiteLLM's port, so that clients stay as they are"
        if not key.text():
            return section("[server]", {"port": PORT}, note=note)
        key.leave(
            "put it into .env as ANTHROPIC_AUTH_TOKEN, which is what clients show; until then nobody gets in"
        )
        return section("[server]", {"port": PORT, "require_key": True}, note=note)

    # --- model_list

    def _read(self, entry: Node) -> None:
        entry.take()
        name, params, info = entry.at("model_name"), entry.at("litellm_params"), entry.at("model_info")
        asked, model = name.text(), params.at("model").text()
        mode = info.at("mode").text() or "chat"
        if not asked or not model:
            entry.leave("expected `model_name`, and `model` in `litellm_params`")
        elif mode not in {"chat", "completion", "responses"}:
            entry.leave("only conversations are served here")
        elif (owner := deployments.owner(params, model)) is None:
            entry.leave(OWN_PREFIX if model == "*" else UNKNOWN_OWNER)
        else:
            if any(told.name != "mode" for told in info.members):
                info.leave(MODEL_INFO)
            if asked in self._groups:
                name.leave(BALANCED)
            self._add(asked, entry, *owner)

    def _add(self, asked: str, entry: Node, type: str, model: str) -> None:
        params = entry.at("litellm_params")
        table = deployments.provider(params, type, self._variables)
        name = self._name(table, asked)
        target = deployments.target(name, type, asked, model)
        if target is None:
            entry.leave(OTHER_NAME)
            return
        self._providers.setdefault(name, table)
        changes = deployments.changes(params)
        order = params.at("order").number()
        one = _Deployment(
            params,
            {"target": target, "params": changes} if changes else target,
            float("inf") if order is None else order,
        )
        self._groups[asked] = sorted([*self._groups.get(asked, ()), one], key=lambda one: one.order)

    def _name(self, table: Table, asked: str) -> str:
        """That of the provider that this one is, or a new one."""
        same = (name for name, other in self._providers.items() if other == table)
        free = (name for name in deployments.names(table, asked) if name not in self._providers)
        return next(chain(same, free))

    # --- settings that many models share

    def _setting(self, *names: str) -> Node:
        """The first that is there: `router_settings` win."""
        found = [node for name in names for node in (self._router.at(name), self._litellm.at(name)) if node]
        for other in found[1:]:
            other.leave(f"{found[0].key} counts")
        return found[0] if found else self._router.at(names[0])

    def _read_aliases(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for node in self._setting("model_group_alias").members:
            group = node.text() or node.at("model").text()
            node.at("hidden").leave("what GET /v1/models lists is said by `models` of [server]")
            if problem := requested_model_problem(node.name):
                node.leave(f"clients can't ask for it: {problem}")
            elif group in self._groups and "*" not in group:
                found.setdefault(group, []).append(node.name)
            else:
                node.leave(UNKNOWN_GROUP)
        return found

    def _read_fallbacks(self, name: str) -> dict[str, list[str]]:
        setting = self._setting(name)
        found: dict[str, list[str]] = {}
        for node in (member for mapping in setting.members for member in mapping.members):
            if node.name in self._groups or node.name == "*":
                found[node.name] = self._named_groups(node)
            else:
                node.leave(UNKNOWN_GROUP)
        if any(found.values()):
            setting.leave(MOVED_FOR_LONG if name == "context_window_fallbacks" else MOVED)
        return found

    def _named_groups(self, names: Node) -> list[str]:
        found = []
        for node in names.members:
            name = node.text()
            if name in self._groups and "*" not in name:
                found.append(name)
            else:
                node.leave(UNKNOWN_GROUP)
        return found

    # --- [[rules]] and [default]

    def _rules(self) -> Iterator[str]:
        patterns = sorted((name for name in self._groups if "*" in name), key=len, reverse=True)
        for name in (name for name in self._groups if "*" not in name):
            yield from self._named_rule(name)
        for name in patterns:
            if name != "*":
                rule = {"name": name, "match": {"model": {"glob": name}}, **self._action(name)}
                yield section("[[rules]]", rule)
        yield self._default()

    def _named_rule(self, name: str) -> Iterator[str]:
        asked = [one for one in (name, *self._aliases.get(name, ())) if requested_model_problem(one) is None]
        if name not in asked:
            first = self._groups[name][0].params.at("model")
            first.leave(f"clients can't ask for its name here: {requested_model_problem(name)}")
        if asked:
            match = {"model": {"equals": asked if len(asked) > 1 else asked[0]}}
            called = "model default" if name == "default" else name  # that name belongs to [default]
            yield section("[[rules]]", {"name": called, "match": match, **self._action(name)})

    def _default(self) -> str:
        if "*" in self._groups:
            return section("[default]", self._action("*"), note='model_name "*"')
        if self._last_resort:
            targets = self._targets(self._last_resort)
            return section("[default]", {"targets": _one_or_all(targets)}, note="default_fallbacks")
        deny = {"message": "this model is not offered here", "status": 404}
        return section("[default]", {"deny": deny}, note="what no model_name takes was refused there, too")

    def _action(self, name: str) -> Table:
        general = self._fallbacks.get(name, self._fallbacks.get("*", self._last_resort))
        for_long = self._for_long_prompts.get(name, self._for_long_prompts.get("*", []))
        targets = self._targets([name, *for_long, *general])
        action: Table = {"targets": _one_or_all(targets)}
        if for_long and len(targets) > 1:
            action["fallback"] = {"also": ["context_overflow"]}
        return action | self._retry(name) | self._timeouts(name)

    def _targets(self, groups: Iterable[str]) -> list[Target]:
        targets: list[Target] = []
        for target in (one.target for group in groups for one in self._groups[group]):
            if target not in targets:
                targets.append(target)
        return targets

    def _retry(self, name: str) -> Table:
        node = self._shared(name, "num_retries") or self._shared(name, "max_retries")
        node = node or self._setting("num_retries")
        more, pause = node.whole(0), self._setting("retry_after").number(0)
        if more is None:
            return {}
        if more >= MOST_TRIES:
            node.leave(f"{MOST_TRIES} tries in all are the most")
        backoff = {"backoff": _duration(pause)} if pause else {}
        return {"retry": {"attempts": min(more + 1, MOST_TRIES), **backoff}}

    def _timeouts(self, name: str) -> Table:
        whole = self._shared(name, "timeout") or self._setting("timeout", "request_timeout")
        first = self._shared(name, "stream_timeout") or self._setting("stream_timeout")
        said = {"first_token": first.number(0.001), "total": whole.number(0.001)}
        times = {key: _duration(value) for key, value in said.items() if value is not None}
        return {"timeouts": times} if times else {}

    def _shared(self, name: str, key: str) -> Node:
        """What a rule says for all of its targets: the first one's."""
        nodes = [one.params.at(key) for one in self._groups[name]]
        for other in nodes[1:]:
            if other and other.number() != nodes[0].number():
                other.leave("a rule says it for all of its targets: the first one's counts")
        return nodes[0]


def _one_or_all(targets: list[Target]) -> list[Target] | Target:
    return targets if len(targets) > 1 else targets[0]


def _duration(seconds: float) -> str:
    return f"{seconds:.3f}".rstrip("0").rstrip(".") + "s"
