"""What the translator of an answer must know of the request that it answers."""

from typing import Literal

from msgspec import Struct

from routeproxy.translate.thinking import Signer
from routeproxy.translate.tools import ToolNames

Display = Literal["summarized", "omitted"]


class ReplyContext(Struct, frozen=True, kw_only=True):
    model: str
    """What `model` says in the answer."""
    names: ToolNames | None = None
    thinking: bool = True
    """False: the client switched thinking off, so no thinking block may appear."""
    display: Display = "summarized"
    """`omitted`: thinking blocks show nothing, and are there only if a signature has something to carry."""
    parallel: bool = True
    """False: the client wants one tool call at most."""
    stop_sequences: tuple[str, ...] = ()
    """All that the client asked for."""
    scan: tuple[str, ...] = ()
    """Those of them that the back end was not told: the answer is searched for them."""
    speed: str | None = None
    """What `usage.speed` says, when the request had `speed`."""
    signer: Signer
    family: str
    target_model: str
    """Family and model that a signature is minted for: `signer.mint(family, target_model, kind, payload)`."""
    tool_ids: frozenset[str] = frozenset()
    """The ids of all tool calls so far: clients drop a call that repeats one (wire.md I17)."""
