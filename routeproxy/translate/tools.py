"""Tools: their names on both sides, their translation, and which of them the model may see."""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import msgspec
from msgspec import UNSET, Raw, UnsetType

from routeproxy.chat.request import Function, FunctionChoice, FunctionTool, NamedFunction, WebSearch
from routeproxy.messages.errors import Incapable, InvalidRequest
from routeproxy.messages.request import (
    Tool,
    ToolAddition,
    ToolByName,
    ToolChoice,
    ToolDefinition,
    ToolRemoval,
)
from routeproxy.messages.tools import SharedTools
from routeproxy.translate.builtin_tools import BUILTIN_TOOLS
from routeproxy.translate.profile import ModelProfile, SearchSupport
from routeproxy.translate.raw_json import as_written
from routeproxy.translate.schemas import SchemaRules, clean_schema, is_strict
from routeproxy.translate.web_search import WEB_SEARCH, refusal_of_server_tool, requested_search

PLACEHOLDER = "DeferredToolPlaceholder"
"""The name of Claude Code's dummy, sent to keep the feature of deferred tools alive; no model should see
it."""

_REFUSED_KINDS = ("computer", "browser_toolset", "code_execution", "advisor", "mcp_toolset")
_WITHHELD_KINDS = ("web_search", "web_fetch")
"""Left out with a warning; refused when there are no other tools."""
_SEARCHES = "tool_search_tool"
_ALL_EXPOSED = "tool search is not run here: all deferred tools are exposed"
_CHOICES: Mapping[str, str] = {"auto": "auto", "none": "none"}
_KIND = re.compile(r"[a-z_]*[a-z]")

NameRule = Literal["openai", "gemini"]

_VALID_NAME: dict[NameRule, re.Pattern[str]] = {
    "openai": re.compile(r"[A-Za-z0-9_-]{1,64}\Z"),
    "gemini": re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}\Z"),
}
_INVALID_CHARACTER = re.compile(r"[^A-Za-z0-9_-]")
_TRAINED_PREFIX = re.compile(r"(?:default_api[:.]|functions[.:])+")
_HARMONY_RECIPIENT = re.compile(r"\bto=([^\s<]+)")
_HARMONY_TOKEN = re.compile(r"\s*<\|")


class ToolNames:
    """The names that the client declared, and their wire names, which the back end takes."""

    def __init__(self, declared: Iterable[str], rule: NameRule = "openai") -> None:
        self._rule: NameRule = rule
        self._declared = {self.wire_name(name): name for name in declared}
        """By wire name."""
        self._folded: dict[str, str] | None = None

    def wire_name(self, name: str) -> str:
        """`name` in a form that the back end takes; the same for the same name in every request."""
        if _VALID_NAME[self._rule].match(name):
            return name
        # Any change gets the hash, or `a.b` would meet a declared `a_b`.
        suffix = "_" + hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:8]
        valid = _INVALID_CHARACTER.sub("_", name)
        if not _VALID_NAME[self._rule].match(valid[:1]):
            valid = "_" + valid
        return valid[: 64 - len(suffix)] + suffix

    def extended(self, names: Iterable[str]) -> "ToolNames":
        return ToolNames((*self._declared.values(), *names), self._rule)

    def restore(self, name: str) -> str:
        """The declared name that the model meant: models drop capitals and add prefixes of their training."""
        if declared := self._declared.get(name):
            return declared
        bare = _bare_name(name)
        if declared := self._declared.get(bare):
            return declared
        if self._folded is None:
            self._folded = _names_without_case(self._declared)
        return self._folded.get(bare.casefold(), bare)

    def declares(self, name: str) -> bool:
        """Whether `name`, as a model wrote it, means a tool that the client can run."""
        return self.restore(name) in self._declared.values()


def _bare_name(name: str) -> str:
    """`name` without what models and their servers leave on it: prefixes of their training, and tokens of the
    Harmony format (cookbook.openai.com/articles/openai-harmony), as in `Bash<|channel|>commentary`."""
    bare = name
    if "<|" in name or "to=" in name:
        recipient = _HARMONY_RECIPIENT.search(name)
        bare = recipient[1] if recipient else _HARMONY_TOKEN.split(name, maxsplit=1)[0]
    if prefix := _TRAINED_PREFIX.match(bare):
        bare = bare[prefix.end() :]
    return bare or name


def _names_without_case(declared: dict[str, str]) -> dict[str, str]:
    """The declared names by their wire names in lower case, but for those that differ only in case."""
    folded: dict[str, str] = {}
    clashes: set[str] = set()
    for wire_name, name in declared.items():
        if folded.setdefault(wire_name.casefold(), name) != name:
            clashes.add(wire_name.casefold())
    return {key: name for key, name in folded.items() if key not in clashes}


class DeclaredTools:
    """The tools of a request, as back ends with these rules may see them."""

    def __init__(
        self, tools: Sequence[Tool], names: NameRule, schemas: SchemaRules, search: SearchSupport | None
    ) -> None:
        self._tools = tools
        self._search_support = search
        self._schemas = schemas
        self._functions: dict[int, FunctionTool] = {}
        self.names = ToolNames((tool.name for tool in tools), names)
        self.warnings: list[str] = []
        self.exposed: dict[str, bool] = {}
        """By name: whether the model may see the tool before any turn has exposed or hidden one."""
        for index, tool in enumerate(tools):
            _check_name(tool, f"tools.{index}")
            if tool.name in self.exposed:
                raise InvalidRequest("tools: Tool names must be unique.")
            self.exposed[tool.name] = not tool.defer_loading
        if tools and not any(self.exposed.values()):
            raise InvalidRequest(
                "At least one tool must have defer_loading=false. All tools cannot be deferred."
            )
        self.search: Tool | None = None
        """The web search, if the back end makes it itself."""
        self.withheld = self._withhold_server_tools()
        """The kinds of the tools that a server runs, by name. They are no functions for the model to call."""

    def _withhold_server_tools(self) -> dict[str, str]:
        server_tools = [tool for tool in self._tools if not _is_custom(tool) and _builtin(tool) is None]
        kinds = {_kind(tool) for tool in self._tools}
        is_served = WEB_SEARCH in kinds and self._search_support is not None
        nothing_left = not is_served and all(kind.startswith(_WITHHELD_KINDS) for kind in kinds)
        for tool in server_tools:
            kind = _kind(tool)
            if kind == WEB_SEARCH and self._search_support is not None:
                self.search = self.search or tool
            elif kind.startswith(_SEARCHES):
                self.warnings.append(_ALL_EXPOSED)
                self.exposed = dict.fromkeys(self.exposed, True)
            elif not kind.startswith(_REFUSED_KINDS + _WITHHELD_KINDS):
                raise _unknown_type(tool, f"tools.{self._tools.index(tool)}")
            elif kind.startswith(_REFUSED_KINDS) or nothing_left:
                raise _not_supported(kind)
            else:
                self.warnings.append(_left_out(kind))
        withheld = {tool.name: _kind(tool) for tool in server_tools}
        self.exposed.update(dict.fromkeys(withheld, False))
        if PLACEHOLDER in self.exposed:
            self.exposed[PLACEHOLDER] = False
        return withheld

    def functions(self, exposed: Mapping[str, bool]) -> tuple[FunctionTool, ...]:
        """The tools that are exposed, in the client's order."""
        return tuple(
            self._function(index, tool) for index, tool in enumerate(self._tools) if exposed[tool.name]
        )

    def _function(self, index: int, tool: Tool) -> FunctionTool:
        if index not in self._functions:
            self._functions[index] = self.translate(tool, f"tools.{index}")
        return self._functions[index]

    def translate(self, tool: Tool, path: str) -> FunctionTool:
        """A tool that clients run; it may be another than those of the request. Raises `InvalidRequest`."""
        name = self.names.wire_name(tool.name)
        if builtin := _builtin(tool):
            return FunctionTool(msgspec.structs.replace(builtin, name=name))
        path += ".custom"
        try:
            parameters = clean_schema(tool.input_schema, self._schemas)
        except ValueError:
            raise InvalidRequest(f"{path}.input_schema: Input should be a valid dictionary") from None
        strict = is_strict(parameters) if tool.strict else UNSET
        return FunctionTool(Function(name, _description(tool, path), parameters, strict))


def declared_tools(
    tools: Sequence[Tool], names: NameRule, schemas: SchemaRules, search: SearchSupport | None
) -> DeclaredTools:
    """Made once for tools that come again and again, as those of a conversation do (`SharedTools`)."""
    if isinstance(tools, SharedTools):
        return tools.derive(DeclaredTools, names, schemas, search)
    return DeclaredTools(tools, names, schemas, search)


NO_TOOLS = SharedTools()


class Toolbox:
    """The tools of one request: checked at once, exposed as turns name them, handed over at the end."""

    def __init__(self, tools: Sequence[Tool], profile: ModelProfile, warn: Callable[[str], None]) -> None:
        if not profile.tools and any(_kind(tool) != WEB_SEARCH for tool in tools):
            raise _no_tools()
        self._declared = declared_tools(tools, profile.tool_names, profile.schemas, profile.web_search)
        self._profile = profile
        self._warn = warn
        self._exposed = dict(self._declared.exposed)
        self._search = self._declared.search
        self._defined: dict[str, FunctionTool] = {}
        """The tools that turns brought along, by name."""
        for warning in self._declared.warnings:
            warn(warning)

    @property
    def names(self) -> ToolNames:
        """Those of all tools. Turns may bring more."""
        if not self._defined:
            return self._declared.names
        return self._declared.names.extended(self._defined)

    def wire_name(self, name: str) -> str:
        """The name of any tool, in a form that the back end takes."""
        return self._declared.names.wire_name(name)

    def change(self, change: ToolAddition | ToolRemoval, path: str) -> None:
        """Does what a turn says of a tool. Raises `InvalidRequest`, and `Incapable`."""
        match change.tool:
            case ToolByName(name=name) if isinstance(change, ToolAddition):
                self.expose(name)
            case ToolByName(name=name):
                self.hide(name)
            case ToolDefinition(definition=tool):
                self._define(tool, f"{path}.tool.definition")
            case _:
                self._warn("tools of MCP servers are not run here and were left out")

    def change_all(self, changes: Iterable[ToolAddition | ToolRemoval], path: str) -> None:
        """Does what a compaction says of the tools, which is a block at `path`."""
        for index, change in enumerate(changes):
            self.change(change, f"{path}.tool_changes.{index}")

    def _define(self, tool: Tool, path: str) -> None:
        if not self._profile.tools:
            raise _no_tools()
        _check_name(tool, path)
        if not _is_custom(tool) and _builtin(tool) is None:
            self._define_server_tool(_kind(tool), tool, path)
            return
        self._defined[tool.name] = self._declared.translate(tool, path)
        self._exposed[tool.name] = tool.name != PLACEHOLDER

    def _define_server_tool(self, kind: str, tool: Tool, path: str) -> None:
        if kind.startswith(_SEARCHES):
            self._warn(_ALL_EXPOSED)
            for name in self._exposed:
                self.expose(name)
        elif kind == WEB_SEARCH and self._profile.web_search is not None:
            self._search = tool
        elif kind.startswith(_WITHHELD_KINDS):
            self._warn(_left_out(kind))
        elif kind.startswith(_REFUSED_KINDS):
            raise _not_supported(kind)
        else:
            raise _unknown_type(tool, path)

    def expose(self, name: str) -> None:
        """Shows the model a deferred tool that a turn names. Raises `InvalidRequest` if there is none."""
        if name not in self._exposed:
            raise InvalidRequest(f"Tool reference '{name}' not found in available tools")
        self._exposed[name] = name != PLACEHOLDER and name not in self._declared.withheld

    def expose_if_known(self, name: str) -> None:
        if name in self._exposed:
            self.expose(name)

    def hide(self, name: str) -> None:
        if name in self._exposed:
            self._exposed[name] = False

    def functions(self) -> tuple[FunctionTool, ...]:
        """The exposed tools, in the client's order."""
        if not self._defined:
            return self._declared.functions(self._exposed)
        declared = self._declared.functions(self._exposed | dict.fromkeys(self._defined, False))
        return declared + tuple(tool for name, tool in self._defined.items() if self._exposed[name])

    def search(self, choice: ToolChoice | None) -> WebSearch | UnsetType:
        """The back end's own web search, if the client wants one. It may hide the functions: call it after
        the last turn, and before `choice` and `functions`."""
        tool, support = self._search, self._profile.web_search
        if tool is None or support is None or (choice is not None and choice.type == "none"):
            return UNSET
        has_functions = any(self._exposed.values())
        forced = is_forced(tool.name, choice, alone=not has_functions)
        if has_functions and not support.beside_tools:
            if not forced:
                self._warn("web_search was left out: this model does not search beside other tools")
                return UNSET
            self._warn("the other tools were left out: this model does not search beside them")
            self._exposed = dict.fromkeys(self._exposed, False)
        return requested_search(tool, support, forced=forced, warn=self._warn)

    def choice(self, choice: ToolChoice | None) -> str | FunctionChoice | UnsetType:
        """Chat's `tool_choice`. It may expose a tool: call it after the last turn and before `functions`."""
        if choice is not None and choice.type == "tool":
            if self._search is not None and choice.name == self._search.name:
                return UNSET
            if (kind := self._declared.withheld.get(choice.name or "")) is not None:
                raise _not_supported(kind)
            return self._function_choice(choice.name)
        if choice is None or not any(self._exposed.values()):
            return UNSET
        if choice.type == "any":
            return self._required_choice("tool_choice any")
        return _CHOICES[choice.type]

    def _function_choice(self, name: str | None) -> str | FunctionChoice:
        if name is None:
            raise InvalidRequest("tool_choice.tool.name: Field required")
        if kind := self._declared.withheld.get(name):
            raise _not_supported(kind)
        if name not in self._exposed:
            raise InvalidRequest(f"Tool '{name}' not found in provided tools")
        self.expose(name)
        if self._profile.named_tool_choice:
            return FunctionChoice(NamedFunction(self.wire_name(name)))
        self._exposed = dict.fromkeys(self._exposed, False) | {name: self._exposed[name]}
        return self._required_choice("a forced tool")

    def _required_choice(self, wanted: str) -> str:
        if self._profile.tool_choice_required:
            return "required"
        self._warn(f"{wanted} is not supported by this model; auto is used")
        return "auto"


def _no_tools() -> Incapable:
    return Incapable("tools are not supported by this model")


def _not_supported(kind: str) -> Incapable:
    return Incapable(refusal_of_server_tool(kind), final=kind.startswith(_WITHHELD_KINDS))


def _left_out(kind: str) -> str:
    return f"{kind} is not supported by this model and was left out"


def _unknown_type(tool: Tool, path: str) -> InvalidRequest:
    tag = f"Input tag '{tool.type}' found using 'type' does not match any of the expected tags"
    return InvalidRequest(f"{path}: {tag}")


def _check_name(tool: Tool, path: str) -> None:
    """Sets of tools have no name, and none of them can be had here; all other tools must have one."""
    if tool.name:
        return
    if not _is_custom(tool) and (kind := _kind(tool)).startswith(_REFUSED_KINDS):
        raise _not_supported(kind)
    raise InvalidRequest(f"{path}.name: Field required")


def is_forced(name: str, choice: ToolChoice | None, *, alone: bool) -> bool:
    """Whether `choice` forces the tool `name`, which may be the only one (`alone`)."""
    if choice is None:
        return False
    return choice.name == name if choice.type == "tool" else alone and choice.type == "any"


def _is_custom(tool: Tool) -> bool:
    return tool.type is None or tool.type == "custom"


def _kind(tool: Tool) -> str:
    """`web_search` of `web_search_20250305`; letters only, for it goes into warnings."""
    match = _KIND.match(tool.type or "custom")
    return match[0] if match else ""


def _builtin(tool: Tool) -> Function | None:
    if _is_custom(tool):
        return None
    return next(
        (function for kind, function in BUILTIN_TOOLS.items() if (tool.type or "").startswith(kind)), None
    )


def _description(tool: Tool, path: str) -> Raw | UnsetType:
    """The description and the examples of input, as JSON."""
    is_empty = bytes(tool.description) in (b"null", b'""')
    description = b"" if is_empty else as_written(tool.description, f"{path}.description")
    if not tool.input_examples:
        return Raw(description) if description else UNSET
    text = msgspec.json.decode(description, type=str) if description else ""
    examples = "\n".join(bytes(example).decode() for example in tool.input_examples)
    return Raw(msgspec.json.encode(f"{text}\n\nExamples of input:\n{examples}".strip()))
