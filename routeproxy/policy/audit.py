"""Where the audit trail is kept, and what holds if it can't be. Nothing here decides a request."""

from typing import Literal

from msgspec import Struct

from routeproxy.policy.secrets import Secret

OnFailure = Literal["continue", "refuse"]
"""What becomes of requests whose record can't be written: they are answered, and counted as lost, or refused
before anybody is asked."""


class AuditSettings(Struct, frozen=True, kw_only=True):
    """`[audit]`. Times are in seconds."""

    path: str
    """A folder."""
    signing_key: Secret
    """Where an Ed25519 key stands, as PEM."""
    anchor_every: float = 300.0
    """How often the heads of the chains are signed and told, if something was added."""
    anchors: str = "stderr"
    """Where signed heads go: `stderr`, or the address that they are posted to."""
    on_failure: OnFailure = "continue"
