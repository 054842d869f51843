"""The tables of a rules file, field for field. They say what may stand where, and nothing of what it means.

Every key is optional here, because one that was refused leaves a gap: what is needed is asked for where it is
used. A key that a later version will enforce is refused by name, so that nobody relies on it.
"""

import datetime
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from routeproxy.policy.audit import OnFailure
from routeproxy.policy.file.values import Count, Duration, Period, Positive, Strings
from routeproxy.policy.ledger import Users
from routeproxy.policy.provider_types import Zone
from routeproxy.policy.secrets import Role
from routeproxy.policy.telemetry import Always


class Table(Struct, forbid_unknown_fields=True):
    """A table of the file."""


# --- conditions


class TextTable(Table):
    equals: Strings | None = None
    prefix: Strings | None = None
    contains: Strings | None = None
    glob: Strings | None = None
    regex: Strings | None = None


class HeaderTable(TextTable):
    present: bool | None = None


class RangeTable(Table):
    min: Count | None = None
    max: Count | None = None


class MatchTable(Table):
    """Conditions, which all hold together. Its keys are those of `fact_table`, besides
    `percent`, `any` and `not`."""

    team: Strings | None = None
    model: str | list[str] | TextTable | None = None
    headers: dict[str, str | list[str] | HeaderTable] | None = None
    request_class: str | list[str] | HeaderTable | None = None
    agent_type: str | list[str] | HeaderTable | None = None
    session: str | list[str] | HeaderTable | None = None
    agent: str | list[str] | HeaderTable | None = None
    input_tokens: RangeTable | None = None
    max_tokens: RangeTable | None = None
    stream: bool | None = None
    images: bool | None = None
    documents: bool | None = None
    tools: bool | str | list[str] | None = None
    thinking: bool | None = None
    effort: Strings | None = None
    system: str | list[str] | TextTable | None = None
    user: str | list[str] | HeaderTable | None = None
    url_target: bool | None = None
    percent: int | float | None = None
    any: "list[MatchTable] | None" = None
    not_: "MatchTable | list[MatchTable] | None" = field(name="not", default=None)


# --- what a rule does


class ParamsTable(Table):
    set: dict[str, Any] | None = None
    default: dict[str, Any] | None = None
    cap: dict[str, int | float] | None = None
    drop: list[str] | None = None
    extra_body: dict[str, Any] | None = None


class TransformsTable(Table):
    strip_attribution: bool | None = None
    think_tags: bool | None = None
    text_tool_calls: bool | None = None
    thinking: Literal["keep", "drop", "text"] | None = None
    newlines: Literal["keep", "unescape", "escape"] | None = None
    model_name: Literal["requested", "served"] | None = None

    @property
    def only_model_name(self) -> bool:
        """Whether nothing is asked for that a pass-through can't do."""
        return all(getattr(self, key) is None for key in self.__struct_fields__ if key != "model_name")


class TimeoutsTable(Table):
    connect: Duration | None = None
    first_token: Duration | None = None
    idle: Duration | None = None
    total: Duration | None = None


class TargetTable(Table):
    target: str | None = None
    params: ParamsTable | None = None
    transforms: TransformsTable | None = None
    timeouts: TimeoutsTable | None = None


Targets = str | list[str | TargetTable] | TargetTable


class MemberTable(TargetTable):
    """One target of a pool."""

    weight: int | float | None = None
    max_concurrent: Positive | None = None


class PoolTable(Table):
    members: list[str | MemberTable] | None = None
    by: Literal["session", "load"] | None = None
    sticky: Duration | None = None


class DenyTable(Table):
    message: str | None = None
    status: Literal[400, 402, 404, 413, 429] | None = None


class FallbackTable(Table):
    on: list[str] | None = None
    also: list[str] | None = None


class RetryTable(Table):
    attempts: Annotated[int, Meta(ge=1, le=10)] | None = None
    backoff: Duration | None = None
    on: list[str] | None = None


class HealthTable(Table):
    """When a target counts as failing, and how long it is left alone then."""

    failures: Positive | None = None
    ratio: int | float | None = None
    minimum: Positive | None = None
    window: Duration | None = None
    cooldown: Duration | None = None
    max_cooldown: Duration | None = None


class ActionTable(Table):
    """What `[default]` and every rule may say."""

    deny: str | DenyTable | None = None
    targets: Targets | None = None
    fallback: bool | FallbackTable | None = None
    retry: RetryTable | None = None
    deadline: Duration | None = None
    hold: Literal["whole"] | None = None
    portable: Literal["drop", "strict"] | None = None
    sticky: Duration | None = None
    timeouts: TimeoutsTable | None = None
    params: ParamsTable | None = None
    transforms: TransformsTable | None = None
    safeguards: str | bool | None = None
    safeguards_timeout: Duration | None = None
    record: Literal["content"] | None = None
    accept: dict[str, str] | None = None


class RuleTable(ActionTable):
    name: str | None = None
    match: MatchTable | None = None
    include: str | None = None
    shadow: bool | None = None


# --- the rest of the file


Ability = Literal[
    "cache_marks",
    "files",
    "images_in_tool_messages",
    "json_mode",
    "named_tool_choice",
    "null_content",
    "parallel_tool_calls",
    "prefill",
    "priority_tier",
    "prompt_cache_key",
    "replays_reasoning",
    "sampling",
    "structured_outputs",
    "structured_outputs_with_tools",
    "system_role",
    "takes_reasoning",
    "tool_choice_required",
    "tools",
    "top_k",
    "user",
    "user_after_tool",
    "vision",
]
"""What a provider may be said to support: the switches of `translate.profile.ModelProfile`, which a test
holds equal."""


class ModelTable(Table):
    """What is known of a model, or of all models that a glob names. What is left out is the provider's, or
    not known."""

    region: str | None = None
    labels: Strings | None = None
    context_window: Positive | None = None
    max_output_tokens: Positive | None = None
    vision: bool | None = None
    tools: bool | None = None
    thinking: bool | None = None


class PriceTable(Table):
    """What the tokens of some models cost. What is left out is not known; free is 0."""

    currency: str = "USD"
    per: Literal["1M tokens", "1K tokens", "1 token"] = "1M tokens"
    input: int | float | None = None
    output: int | float | None = None
    cache_read: int | float | None = None
    cache_write_5m: int | float | None = None
    cache_write_1h: int | float | None = None
    request: int | float | None = None
    web_search: int | float | None = None
    from_: datetime.date | None = field(name="from", default=None)


class ProviderTable(Table):
    type: str | None = None
    base_url: str | None = None
    api_key: Strings | None = None
    zone: Zone | None = None
    region: str | None = None
    labels: Strings | None = None
    models: dict[str, ModelTable] | None = None
    prices: dict[str, PriceTable | list[PriceTable]] | None = None
    discount: int | float | None = None
    engine: Literal["direct", "litellm"] | None = None
    api: Literal["chat", "responses"] | None = None
    headers: dict[str, str] | None = None
    forward: list[str] | None = None
    params: ParamsTable | None = None
    transforms: TransformsTable | None = None
    timeouts: TimeoutsTable | None = None
    health: HealthTable | bool | None = None
    max_concurrent: Positive | None = None
    proxy: str | None = None
    ca_file: str | None = None
    supports: list[Ability] | None = None
    mid_system: Literal["keep", "user"] | None = None
    without_vision: Literal["placeholder", "refuse"] | None = None
    litellm_params: dict[str, Any] | None = None
    # The keys that only some types have: `provider_types.TYPES` says which.
    api_version: str | None = None
    aws_profile_name: str | None = None
    aws_region_name: str | None = None
    credentials: str | None = None
    deployment: str | None = None
    keep_alive: str | None = None
    location: str | None = None
    num_ctx: Positive | None = None
    organization: str | None = None
    project: str | None = None


class KeyTable(Table):
    """A client's key. It works up to and on the day `expires`, in UTC."""

    name: str | None = None
    key: str | None = None
    expires: datetime.date | None = None
    user: str | None = None
    """Of a team's key: who shows it."""
    role: Role | None = None
    """Of an admin key."""


Keys = str | list[str | KeyTable] | KeyTable


class TeamTable(Table):
    keys: Keys | None = None
    models: Strings | None = None
    targets: Strings | None = None
    labels: dict[str, str] | None = None
    request_headers: dict[str, str] | None = None
    provider_keys: dict[str, Strings] | None = None
    max_concurrent: Positive | None = None
    weight: int | float | None = None
    explain: bool = False


class QueueTable(Table):
    """How long requests wait where there is no place for them, and how many."""

    wait: Duration | None = None
    length: Count | None = None


class ServerTable(Table):
    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8082
    max_body_mb: Positive = 32
    body_memory_mb: Positive = 512
    url_targets: bool = False
    no_fallback_header: bool = True
    require_key: bool | None = None
    admin_keys: Keys | None = None
    models: list[str] | None = None
    signing_key: str | None = None
    decision_log: str | None = None
    cors_origins: list[str] | None = None
    hosts: list[str] | None = None
    header_timeout: Duration = "10s"
    body_timeout: Duration = "20s"
    keep_alive: Duration = "75s"
    drain: Duration = "30s"
    health: HealthTable | bool | None = None
    memory_limit_mb: Positive | None = None
    queue: QueueTable | None = None
    replicas: Positive = 1
    safeguards: str | bool | None = None
    safeguards_timeout: Duration | None = None


class LedgerTable(Table):
    """Where every request and its cost is written down."""

    path: str | None = None
    url: str | None = None
    retention: Period | None = None
    rollup_retention: Period | None = None
    spool: str | None = None
    spool_mb: Positive | None = None
    users: Users | None = None
    pseudonym_key: str | None = None
    migrate: bool | None = None
    synchronous: Literal["normal", "full"] | None = None
    record_headers: list[str] | None = None


class AuditTable(Table):
    """Where every request is recorded so that nobody can change it unseen."""

    path: str | None = None
    signing_key: str | None = None
    anchor_every: Duration | None = None
    anchors: str | None = None
    on_failure: OnFailure | None = None


class TracesTable(Table):
    """Where traces of requests go, and which."""

    endpoint: str | None = None
    ratio: int | float | None = None
    always: list[Always] | None = None


class TelemetryTable(Table):
    metrics: str | None = None
    traces: TracesTable | None = None


class ReachTable(Table):
    """What a target may be like: the keys hold together, a list means any of its values."""

    zone: Zone | list[Zone] | None = None
    region: Strings | None = None
    labels: Strings | None = None
    provider: Strings | None = None
    target: Strings | None = None
    record: Literal["content"] | None = None


class InvariantTable(Table):
    name: str | None = None
    when: MatchTable | None = None
    never: ReachTable | None = None
    only: ReachTable | None = None


class RequestTable(Table):
    """A request by its facts, whose keys are those of `fact_table` besides `body`. What is left out is the
    smallest request's."""

    body: str | None = None
    model: str | None = None
    team: str | None = None
    headers: dict[str, str] | None = None
    request_class: str | None = None
    agent_type: str | None = None
    session: str | None = None
    agent: str | None = None
    input_tokens: Count | None = None
    max_tokens: Count | None = None
    stream: bool | None = None
    images: bool | None = None
    documents: bool | None = None
    tools: bool | Strings | None = None
    thinking: bool | None = None
    effort: str | None = None
    system: str | None = None
    user: str | None = None
    url_target: str | None = None
    no_fallback: bool | None = None


class ExpectTable(Table):
    rule: str | None = None
    targets: Strings | None = None
    fallback: bool | None = None
    denied: bool | str | None = None
    transforms: TransformsTable | None = None


class CaseTable(Table):
    name: str | None = None
    request: RequestTable | None = None
    expect: ExpectTable | None = None
    never: ReachTable | None = None


class LintsTable(Table):
    accept: dict[str, str] | None = None


class RulesFile(Table):
    schema_version: Literal[1] = 1
    server: ServerTable = field(default_factory=ServerTable)
    providers: dict[str, ProviderTable] = field(default_factory=dict)
    aliases: dict[str, Targets] = field(default_factory=dict)
    pools: dict[str, PoolTable] = field(default_factory=dict)
    teams: dict[str, TeamTable] = field(default_factory=dict)
    rules: list[RuleTable] = field(default_factory=list)
    default: ActionTable | None = None
    invariants: list[InvariantTable] = field(default_factory=list)
    tests: list[CaseTable] = field(default_factory=list)
    ledger: LedgerTable | None = None
    audit: AuditTable | None = None
    telemetry: TelemetryTable | None = None
    lints: LintsTable = field(default_factory=LintsTable)


class LayerFile(Table):
    """An included file: the rules of one team."""

    team: str | None = None
    rules: list[RuleTable] = field(default_factory=list)
    tests: list[CaseTable] = field(default_factory=list)
    lints: LintsTable = field(default_factory=LintsTable)
