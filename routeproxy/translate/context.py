"""What the translator of an answer must know besides the answer."""

from collections.abc import Callable
from typing import Literal

from msgspec import Raw, Struct

from routeproxy.translate.thinking import Signer
from routeproxy.translate.tools import ToolNames
from routeproxy.translate.transforms import UNTOUCHED, Transforms
from routeproxy.translate.web_search import Search

Display = Literal["summarized", "omitted"]


class ReplyContext(Struct, frozen=True, kw_only=True):
    """What the request says of its answer. The translation of the request makes it."""

    model: str
    """What `model` says in the answer."""
    names: ToolNames | None = None
    """`None`: any tool counts as declared."""
    thinking: bool = True
    """False: the client switched thinking off, so no thinking block may appear."""
    display: Display = "summarized"
    """`omitted`: thinking blocks show nothing, and are there only if a signature has something to carry."""
    parallel: bool = True
    """False: the client wants one tool call at most."""
    stop_sequences: tuple[str, ...] = ()
    """All the client's stop sequences."""
    scan: tuple[str, ...] = ()
    """Those that the back end does not look for, so that the answer is searched for them."""
    schema: Raw | None = None
    """The JSON schema that the answer is to conform to."""
    speed: str | None = None
    """What `usage.speed` says, when the request had `speed`."""
    signer: Signer
    family: str
    target_model: str
    """Family and model that a signature is minted for: `signer.mint(family, target_model, kind, payload)`."""
    web_search: Search = "none"
    allowed_domains: tuple[str, ...] = ()
    """Of the search: those that it may show. Empty: all."""
    tool_ids: frozenset[str] = frozenset()
    """The ids of all tool calls so far: clients drop a call that repeats one (wire.md I17)."""


class ReplyOptions(Struct, frozen=True, kw_only=True):
    """What the request does not say of its answer: it comes from the exchange and the rules."""

    message_id: str
    input_tokens: int | None
    """An estimate, for `message_start`."""
    new_tool_id: Callable[[], str]
    """Makes an id for a tool call that has none, or one that the client has seen before."""
    transforms: Transforms = UNTOUCHED
