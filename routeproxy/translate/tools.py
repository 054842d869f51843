"""Tools: their names on both sides, and which of them the model may see."""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import msgspec
from msgspec import UNSET, Raw, UnsetType

from routeproxy.chat.request import Function, FunctionChoice, FunctionTool, NamedFunction
from routeproxy.messages.errors import Incapable, InvalidRequest
from routeproxy.messages.request import Tool, ToolChoice
from routeproxy.messages.tools import SharedTools
from routeproxy.translate.builtin_tools import BUILTIN_TOOLS
from routeproxy.translate.profile import ModelProfile
from routeproxy.translate.raw_json import as_written
from routeproxy.translate.schemas import SchemaRules, clean, is_strict

PLACEHOLDER = "DeferredToolPlaceholder"
"""Claude Code's dummy, sent to keep the feature of deferred tools alive; no model should see it."""

_REFUSED = ("computer", "browser_toolset", "code_execution", "advisor", "mcp_toolset")
_WITHHELD = ("web_search", "web_fetch")
_CHOICES: Mapping[str, str] = {"auto": "auto", "any": "required", "none": "none"}
_KIND = re.compile(r"[a-z_]*[a-z]")

NameRule = Literal["openai", "gemini"]

_FITS: dict[NameRule, re.Pattern[str]] = {
    "openai": re.compile(r"[A-Za-z0-9_-]{1,64}\Z"),
    "gemini": re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}\Z"),
}
_UNFIT = re.compile(r"[^A-Za-z0-9_-]")
_PREFIX = re.compile(r"(?:default_api[:.]|functions[.:])+")


class ToolNames:
    """The names that the client declared, and what they are called on the wire. Works both ways."""

    def __init__(self, declared: Iterable[str], rule: NameRule = "openai") -> None:
        self._rule: NameRule = rule
        self._declared = {self.wire(name): name for name in declared}
        self._folded: dict[str, str] | None = None

    def wire(self, name: str) -> str:
        """`name` in a form that the back end takes; the same for the same name in every request."""
        if _FITS[self._rule].match(name):
            return name
        # Any change gets the hash, or `a.b` would meet a declared `a_b`.
        suffix = "_" + hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:8]
        fit = _UNFIT.sub("_", name)
        if not _FITS[self._rule].match(fit[:1]):
            fit = "_" + fit
        return fit[: 64 - len(suffix)] + suffix

    def restore(self, name: str) -> str:
        """The declared name that the model meant: models drop capitals and add prefixes of their training."""
        if declared := self._declared.get(name):
            return declared
        bare = _PREFIX.sub("", name, count=1) if _PREFIX.match(name) else name
        if declared := self._declared.get(bare):
            return declared
        if self._folded is None:
            self._folded = _unambiguous(self._declared)
        return self._folded.get(bare.casefold(), bare if bare else name)

    def declares(self, name: str) -> bool:
        """Whether `name`, as a model wrote it, means a tool that the client can run."""
        return self.restore(name) in self._declared.values()


def _unambiguous(declared: dict[str, str]) -> dict[str, str]:
    folded: dict[str, str] = {}
    clashes: set[str] = set()
    for wire, name in declared.items():
        if folded.setdefault(wire.casefold(), name) != name:
            clashes.add(wire.casefold())
    return {key: name for key, name in folded.items() if key not in clashes}


class Declared:
    """The tools of a request, as back ends of one kind may see them."""

    def __init__(self, tools: Sequence[Tool], names: NameRule, schemas: SchemaRules) -> None:
        self._tools = tools
        self._schemas = schemas
        self._functions: dict[int, FunctionTool] = {}
        self.names = ToolNames((tool.name for tool in tools), names)
        self.warnings: list[str] = []
        self.shown: dict[str, bool] = {}
        """Those that the model may see before any turn names others."""
        for tool in tools:
            if tool.name in self.shown:
                raise InvalidRequest("tools: Tool names must be unique.")
            self.shown[tool.name] = not tool.defer_loading
        if tools and not any(self.shown.values()):
            raise InvalidRequest(
                "At least one tool must have defer_loading=false. All tools cannot be deferred."
            )
        self.withheld = self._withhold_server_tools()

    def _withhold_server_tools(self) -> dict[str, str]:
        server = [tool for tool in self._tools if not _is_custom(tool) and _builtin(tool) is None]
        nothing_else = all(_kind(tool).startswith(_WITHHELD) for tool in self._tools)
        for tool in server:
            kind = _kind(tool)
            if kind.startswith("tool_search_tool"):
                self.warnings.append("tool search is not run here: all deferred tools are exposed")
                self.shown = dict.fromkeys(self.shown, True)
            elif not kind.startswith(_REFUSED + _WITHHELD):
                tag = f"Input tag '{tool.type}' found using 'type' does not match any of the expected tags"
                raise InvalidRequest(f"tools.{self._tools.index(tool)}: {tag}")
            elif kind.startswith(_REFUSED) or nothing_else:
                raise Incapable(f"{kind} is not supported by this model")
            else:
                self.warnings.append(f"{kind} is not supported by this model and was left out")
        withheld = {tool.name: _kind(tool) for tool in server}
        self.shown.update(dict.fromkeys(withheld, False))
        if PLACEHOLDER in self.shown:
            self.shown[PLACEHOLDER] = False
        return withheld

    def functions(self, shown: Mapping[str, bool]) -> tuple[FunctionTool, ...]:
        """Those of the tools that are shown, in the client's order."""
        return tuple(
            self._function(position, tool) for position, tool in enumerate(self._tools) if shown[tool.name]
        )

    def _function(self, position: int, tool: Tool) -> FunctionTool:
        if position not in self._functions:
            self._functions[position] = FunctionTool(self._translated(position, tool))
        return self._functions[position]

    def _translated(self, position: int, tool: Tool) -> Function:
        name = self.names.wire(tool.name)
        if builtin := _builtin(tool):
            return msgspec.structs.replace(builtin, name=name)
        at = f"tools.{position}.custom"
        try:
            parameters = clean(tool.input_schema, self._schemas)
        except ValueError:
            raise InvalidRequest(f"{at}.input_schema: Input should be a valid dictionary") from None
        strict = is_strict(parameters) if tool.strict else UNSET
        return Function(name, _description(tool, at), parameters, strict)


def declared(tools: Sequence[Tool], names: NameRule, schemas: SchemaRules) -> Declared:
    """Worked out once for tools that come back."""
    if isinstance(tools, SharedTools):
        return tools.derive(Declared, names, schemas)
    return Declared(tools, names, schemas)


NO_TOOLS = SharedTools()


class Toolbox:
    """The tools of one request: checked at once, exposed as turns name them, handed over at the end."""

    def __init__(self, tools: Sequence[Tool], profile: ModelProfile, warn: Callable[[str], None]) -> None:
        if tools and not profile.tools:
            raise Incapable("tools are not supported by this model")
        self._declared = declared(tools, profile.tool_names, profile.schemas)
        self._profile = profile
        self._warn = warn
        self._shown = dict(self._declared.shown)
        self.names = self._declared.names
        for warning in self._declared.warnings:
            warn(warning)

    def expose(self, name: str) -> None:
        """A deferred tool that the conversation names, from here on."""
        if name not in self._shown:
            raise InvalidRequest(f"Tool reference '{name}' not found in available tools")
        self._shown[name] = name != PLACEHOLDER and name not in self._declared.withheld

    def expose_if_known(self, name: str) -> None:
        if name in self._shown:
            self.expose(name)

    def hide(self, name: str) -> None:
        if name in self._shown:
            self._shown[name] = False

    def functions(self) -> tuple[FunctionTool, ...]:
        """The exposed tools, in the client's order."""
        return self._declared.functions(self._shown)

    def choice(self, wanted: ToolChoice | None) -> str | FunctionChoice | UnsetType:
        """`tool_choice` for the exposed tools; call it after the last turn and before `functions`."""
        if wanted is not None and wanted.type == "tool":
            return self._named(wanted.name)
        if wanted is None or not any(self._shown.values()):
            return UNSET
        if wanted.type == "any" and not self._profile.tool_choice_required:
            self._warn("tool_choice any is not supported by this model; auto is used")
            return "auto"
        return _CHOICES[wanted.type]

    def _named(self, name: str | None) -> FunctionChoice:
        if name is None:
            raise InvalidRequest("tool_choice.tool.name: Field required")
        if kind := self._declared.withheld.get(name):
            raise Incapable(f"{kind} is not supported by this model")
        if name not in self._shown:
            raise InvalidRequest(f"Tool '{name}' not found in provided tools")
        self.expose(name)
        return FunctionChoice(NamedFunction(self.names.wire(name)))


def _is_custom(tool: Tool) -> bool:
    return tool.type is None or tool.type == "custom"


def _kind(tool: Tool) -> str:
    """`web_search` of `web_search_20250305`; letters only, for it goes into warnings."""
    found = _KIND.match(tool.type or "custom")
    return found[0] if found else ""


def _builtin(tool: Tool) -> Function | None:
    if _is_custom(tool):
        return None
    return next(
        (function for kind, function in BUILTIN_TOOLS.items() if (tool.type or "").startswith(kind)), None
    )


def _description(tool: Tool, at: str) -> Raw | UnsetType:
    nothing = bytes(tool.description) in (b"null", b'""')
    written = b"" if nothing else as_written(tool.description, f"{at}.description")
    if not tool.input_examples:
        return Raw(written) if written else UNSET
    text = msgspec.json.decode(written, type=str) if written else ""
    examples = "\n".join(bytes(example).decode() for example in tool.input_examples)
    return Raw(msgspec.json.encode(f"{text}\n\nExamples of input:\n{examples}".strip()))
