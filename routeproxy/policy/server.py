"""What a rules file says to the server itself: `[server]`, with every default filled in."""

from msgspec import Struct

from routeproxy.policy.secrets import ClientKey, Secret


class ServerSettings(Struct, frozen=True, kw_only=True):
    host: str = "127.0.0.1"
    port: int = 8082
    max_body_mb: int = 32
    url_targets: bool = False
    no_fallback_header: bool = True
    require_key: bool = False
    """Whether nobody gets in without a key, even while none is set."""
    admin_keys: tuple[ClientKey, ...] = ()
    models: tuple[str, ...] = ()
    signing_key: Secret | None = None
    decision_log: str | None = None
    cors_origins: tuple[str, ...] = ()
    drain: float = 30.0
    """How many seconds running answers may take to finish when the server stops."""
