"""When a target counts as failing, and how long it is left alone then. What a server has seen of a target is
not kept here."""

from msgspec import Struct


class HealthSettings(Struct, frozen=True, kw_only=True):
    """`health` of a provider. Times are in seconds."""

    failures: int = 5
    """So many in a row and the target cools down."""
    ratio: float = 0.5
    """So large a share of the attempts in `window`, too, if there were at least `minimum`."""
    minimum: int = 20
    window: float = 30.0
    cooldown: float = 15.0
    """Doubled each time that the first request after it fails again."""
    max_cooldown: float = 300.0
    """The longest cooldown, and the longest wait that a back end's `retry-after` has a key left alone for."""
