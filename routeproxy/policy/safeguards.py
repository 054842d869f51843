"""Who judges the tool uses of an answer in auto mode, where the target that gives it can't."""

from msgspec import Struct

from routeproxy.policy.targets import Target

USUAL_TIMEOUT = 20.0
"""Seconds that verdicts may take, unless the rules say otherwise."""


class Safeguards(Struct, frozen=True):
    """A target that is asked for verdicts: named by a decision, as those are that are asked for answers."""

    target: Target
    timeout: float = USUAL_TIMEOUT
    """Seconds."""
    inherited: bool = False
    """It is `[server]` that says so, and not the rule."""
