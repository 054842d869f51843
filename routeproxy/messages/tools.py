"""The tools of a request, which come back with every turn as they were: decoded once, and kept together with
the values that others have derived from them."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import cached_property
from typing import Any, TypeVar, TypeVarTuple

from msgspec import Raw
from msgspec.json import Decoder

from routeproxy.messages.edits import Span, find_elements, find_members
from routeproxy.messages.request import Tool, ToolHead

CACHED_LISTS = 32
LONGEST_CACHED = 2**18
"""Bytes of one list."""

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")

_heads: Decoder[tuple[ToolHead, ...] | None] = Decoder(tuple[ToolHead, ...] | None)
_tools: Decoder[tuple[Tool, ...] | None] = Decoder(tuple[Tool, ...] | None)


class SharedTools(tuple[Tool, ...]):
    """Tools that are the very same object in every request that sends them again."""

    @cached_property
    def _derived(self) -> dict[tuple[Hashable, ...], Any]:
        return {}

    def derive(self, make: Callable[["SharedTools", *Arguments], T], *arguments: *Arguments) -> T:
        """`make(self, *arguments)`, made once for all requests with these tools: nobody may change it."""
        key = (make, *arguments)
        made: T | None = self._derived.get(key)
        if made is None:
            made = self._derived[key] = make(self, *arguments)
        return made


class LazyTools:
    """A list of tools that is decoded when it is wanted. Raises `DecodeError` for a text that is none."""

    def __init__(self, text: Raw) -> None:
        self.text = text

    @cached_property
    def heads(self) -> tuple[ToolHead, ...] | None:
        """Raises `InvalidRequest` for a tool that has a key twice: its readers may see different tools."""
        heads = _heads.decode(self.text)
        text = bytes(self.text)
        for place in find_elements(text, Span(0, len(text))) if heads else ():
            find_members(text, *place)
        return heads

    @cached_property
    def whole(self) -> SharedTools | None:
        tools = _tools.decode(self.text)
        return None if tools is None else SharedTools(tools)


class ToolsCache:
    """The lists of tools that were used last. One that is longer than `LONGEST_CACHED` is never kept."""

    def __init__(self) -> None:
        self._lists: OrderedDict[tuple[int, bytes], LazyTools] = OrderedDict()
        """By length and end, since hashing 80 kB takes as long as decoding them. The last used is last."""

    def read(self, text: Raw) -> LazyTools:
        view = memoryview(text)
        if len(view) > LONGEST_CACHED:
            return LazyTools(text)
        key = len(view), bytes(view[-32:])
        # Another thread may be here, too: each step leaves the cache in order.
        tools = self._lists.pop(key, None)
        if tools is None or tools.text != text:
            tools = LazyTools(text.copy())
        self._lists[key] = tools
        if len(self._lists) > CACHED_LISTS:
            self._lists.popitem(last=False)
        return tools

    def __len__(self) -> int:
        return len(self._lists)


CACHE = ToolsCache()
"""Shared by all requests of this process."""
