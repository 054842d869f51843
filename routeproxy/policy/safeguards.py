"""Who judges the tool uses of an answer in auto mode, where the target that gives it can't."""

from msgspec import Struct

from routeproxy.policy.server import SAFEGUARDS_TIMEOUT
from routeproxy.policy.targets import Target


class Safeguards(Struct, frozen=True):
    """A target that is asked for verdicts: named by a decision, as those are that are asked for answers."""

    target: Target
    timeout: float = SAFEGUARDS_TIMEOUT
    """Seconds."""
    inherited: bool = False
    """It is `[server]` that says so, and not the rule."""
