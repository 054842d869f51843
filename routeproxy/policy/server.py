"""The settings of the server as they are compiled, with every default filled in. Nothing here decides a
request."""

from msgspec import Struct

from routeproxy.policy.secrets import ClientKey, Secret

SAFEGUARDS_TIMEOUT = 20.0
"""Seconds that verdicts on tool uses may take, unless the rules say otherwise."""


class ServerSettings(Struct, frozen=True, kw_only=True):
    """`[server]`. What stands beside it on the command line wins over it."""

    host: str = "127.0.0.1"
    port: int = 8082
    max_body_mb: int = 32
    body_memory_mb: int = 512
    """What the bodies of all requests may take at once, in each process."""
    url_targets: bool = False
    no_fallback_header: bool = True
    require_key: bool = False
    """Whether nobody gets in without a key, even while none is set."""
    admin_keys: tuple[ClientKey, ...] = ()
    models: tuple[str, ...] = ()
    """What `GET /v1/models` lists. Empty: the names that rules state."""
    signing_key: Secret | None = None
    decision_log: str | None = None
    """The path of a file."""
    cors_origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    """Names, in lower case, that a server without keys answers to besides its own."""
    header_timeout: float = 10.0
    """The seconds in which a request's headers must be complete."""
    body_timeout: float = 20.0
    """The seconds that may pass without a byte of a body."""
    keep_alive: float = 75.0
    """The seconds that a connection is kept without a request. The usual 5 s race the pools of clients."""
    drain: float = 30.0
    """The seconds that running answers have to finish when the server stops."""
    memory_limit_mb: int | None = None
    """What a process may take before it refuses new requests."""
    queue_wait: float = 5.0
    """The seconds that a request may wait where there is no place for it."""
    queue_length: int = 100
    """How many may wait for the same."""
    replicas: int = 1
    """How many servers share what `max_concurrent` allows."""
    safeguards: str | None = None
    """Who judges tool uses, `provider/model`, for the rules that don't say it and may get it from here."""
    safeguards_timeout: float = SAFEGUARDS_TIMEOUT
    """Seconds."""
