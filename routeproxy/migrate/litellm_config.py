"""LiteLLM proxy's `config.yaml`. Each `model_name` becomes a rule, and its deployments the rule's targets.

Rules for names stand first, then those for patterns, the most specific one first. A model that none of them
takes is refused, as it was there.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

from msgspec import Struct

from routeproxy.migrate import litellm_deployment as deployments
from routeproxy.migrate.moved import Moved, sort_leftovers
from routeproxy.migrate.providers import KeyVariables, Table, provider_section
from routeproxy.migrate.source import Node, read_yaml
from routeproxy.migrate.toml import comment, section
from routeproxy.policy.facts import requested_model_problem


def from_litellm(text: str) -> Moved:
    """Migrates a whole file. Raises `ValueError` with the line, and what was expected there."""
    source = read_yaml(text)
    return Moved(_Migrator(source).text(), sort_leftovers(source.leftovers()))


INTRO = """\
Moved from LiteLLM's proxy by `routeproxy init`. The first rule that matches decides, from top to bottom.
Keys are only named here: they stand in the environment, or in a `.env` beside this file.

Clients speak the Messages API here: point ANTHROPIC_BASE_URL at it. LiteLLM listened on all addresses; this
serves one machine until `host` says otherwise."""

PORT = 4000
MOST_ATTEMPTS = 10

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
    """One entry of `model_list`. All entries of one `model_name` are a group."""

    params: Node
    target: Target
    order: float
    """The lower, the earlier."""


class _Migrator:
    def __init__(self, source: Node) -> None:
        self._source = source
        self._router, self._litellm = source.at("router_settings"), source.at("litellm_settings")
        self._general = source.at("general_settings")
        self._variables = KeyVariables(deployments.variables_in_use(source.at("model_list")))
        self._providers: dict[str, Table] = {}
        self._groups: dict[str, list[_Deployment]] = {}
        for entry in source.at("model_list").members:
            self._read_deployment(entry)
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
        for deployment in (deployment for group in self._groups.values() for deployment in group):
            deployment.params.leave_unused(deployments.REASONS)
        for settings in (self._router, self._litellm, self._general):
            settings.use()
            settings.leave_unused(SETTING_REASONS)
        self._source.leave_unused(SETTING_REASONS)
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

    def _read_deployment(self, entry: Node) -> None:
        entry.use()
        name, params, info = entry.at("model_name"), entry.at("litellm_params"), entry.at("model_info")
        group, model = name.text(), params.at("model").text()
        mode = info.at("mode").text() or "chat"
        if not group or not model:
            entry.leave("expected `model_name`, and `model` in `litellm_params`")
        elif mode not in {"chat", "completion", "responses"}:
            entry.leave("only conversations are served here")
        elif (owner := deployments.type_and_model(params, model)) is None:
            entry.leave(OWN_PREFIX if model == "*" else UNKNOWN_OWNER)
        else:
            if any(setting.name != "mode" for setting in info.members):
                info.leave(MODEL_INFO)
            if group in self._groups:
                name.leave(BALANCED)
            self._add_deployment(group, entry, *owner)

    def _add_deployment(self, group: str, entry: Node, type: str, model: str) -> None:
        params = entry.at("litellm_params")
        table = deployments.provider_table(params, type, self._variables)
        name = self._provider_name(table, group)
        target = deployments.target_name(name, type, group, model)
        if target is None:
            entry.leave(OTHER_NAME)
            return
        self._providers.setdefault(name, table)
        target_params = deployments.target_params(params)
        order = params.at("order").number()
        deployment = _Deployment(
            params,
            {"target": target, "params": target_params} if target_params else target,
            float("inf") if order is None else order,
        )
        members = [*self._groups.get(group, ()), deployment]
        self._groups[group] = sorted(members, key=lambda deployment: deployment.order)

    def _provider_name(self, table: Table, group: str) -> str:
        """The name of the provider that has this table already, or a new one."""
        same = (name for name, other in self._providers.items() if other == table)
        free = (name for name in deployments.provider_names(table, group) if name not in self._providers)
        return next(chain(same, free))

    # --- settings that many models share

    def _setting(self, *names: str) -> Node:
        """The first of these settings that is there: `router_settings` win. It may be absent."""
        nodes = [node for name in names for node in (self._router.at(name), self._litellm.at(name)) if node]
        for other in nodes[1:]:
            other.leave(f"{nodes[0].key} counts")
        return nodes[0] if nodes else self._router.at(names[0])

    def _read_aliases(self) -> dict[str, list[str]]:
        """By group, the other names that clients may ask for."""
        aliases: dict[str, list[str]] = {}
        for node in self._setting("model_group_alias").members:
            group = node.text() or node.at("model").text()
            node.at("hidden").leave("what GET /v1/models lists is said by `models` of [server]")
            if problem := requested_model_problem(node.name):
                node.leave(f"clients can't ask for it: {problem}")
            elif group in self._groups and "*" not in group:
                aliases.setdefault(group, []).append(node.name)
            else:
                node.leave(UNKNOWN_GROUP)
        return aliases

    def _read_fallbacks(self, name: str) -> dict[str, list[str]]:
        """By group (`*`: any other), the groups that follow it."""
        setting = self._setting(name)
        fallbacks: dict[str, list[str]] = {}
        for node in (member for mapping in setting.members for member in mapping.members):
            if node.name in self._groups or node.name == "*":
                fallbacks[node.name] = self._named_groups(node)
            else:
                node.leave(UNKNOWN_GROUP)
        if any(fallbacks.values()):
            setting.leave(MOVED_FOR_LONG if name == "context_window_fallbacks" else MOVED)
        return fallbacks

    def _named_groups(self, names: Node) -> list[str]:
        groups = []
        for node in names.members:
            name = node.text()
            if name in self._groups and "*" not in name:
                groups.append(name)
            else:
                node.leave(UNKNOWN_GROUP)
        return groups

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
        names = (name, *self._aliases.get(name, ()))
        allowed = [model for model in names if requested_model_problem(model) is None]
        if name not in allowed:
            first = self._groups[name][0].params.at("model")
            first.leave(f"clients can't ask for its name here: {requested_model_problem(name)}")
        if allowed:
            match = {"model": {"equals": allowed if len(allowed) > 1 else allowed[0]}}
            rule_name = "model default" if name == "default" else name  # that name belongs to [default]
            yield section("[[rules]]", {"name": rule_name, "match": match, **self._action(name)})

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
        for deployment in (deployment for group in groups for deployment in self._groups[group]):
            if deployment.target not in targets:
                targets.append(deployment.target)
        return targets

    def _retry(self, name: str) -> Table:
        node = self._shared_param(name, "num_retries") or self._shared_param(name, "max_retries")
        node = node or self._setting("num_retries")
        retries, pause = node.integer(0), self._setting("retry_after").number(0)
        if retries is None:
            return {}
        if retries >= MOST_ATTEMPTS:
            node.leave(f"{MOST_ATTEMPTS} tries in all are the most")
        backoff = {"backoff": _duration(pause)} if pause else {}
        return {"retry": {"attempts": min(retries + 1, MOST_ATTEMPTS), **backoff}}

    def _timeouts(self, name: str) -> Table:
        total = self._shared_param(name, "timeout") or self._setting("timeout", "request_timeout")
        first = self._shared_param(name, "stream_timeout") or self._setting("stream_timeout")
        seconds = {"first_token": first.number(0.001), "total": total.number(0.001)}
        timeouts = {key: _duration(value) for key, value in seconds.items() if value is not None}
        return {"timeouts": timeouts} if timeouts else {}

    def _shared_param(self, name: str, key: str) -> Node:
        """A parameter that a rule has for all of its targets: the first deployment's."""
        nodes = [deployment.params.at(key) for deployment in self._groups[name]]
        for other in nodes[1:]:
            if other and other.number() != nodes[0].number():
                other.leave("a rule says it for all of its targets: the first one's counts")
        return nodes[0]


def _one_or_all(targets: list[Target]) -> list[Target] | Target:
    return targets if len(targets) > 1 else targets[0]


def _duration(seconds: float) -> str:
    return f"{seconds:.3f}".rstrip("0").rstrip(".") + "s"
