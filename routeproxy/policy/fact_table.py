"""The table of facts: all that rules may look at, and all that is to be known of each.

A new fact is a row of `FACTS`, and a key of `MatchTable` and `RequestTable` in `file.tables`. Conditions,
tests of rules, `explain`, the proof, the decision log, the JSON Schema and the command line follow from the
row. How facts of a kind are compiled, solved or logged stands where that is done.
"""

from collections.abc import Callable, Mapping
from functools import partial
from operator import attrgetter
from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import replace

from routeproxy.policy.facts import Facts

Kind = Literal["word", "text", "number", "flag", "presence", "tools", "headers"]
"""How `match` compares a fact, and what a request states (a test's `request`, `explain`, the decision log):

| kind       | a condition wants                                  | a request states           |
|------------|----------------------------------------------------|----------------------------|
| `word`     | one of several words                               | the word                   |
| `text`     | a text, its beginning, a part of it, a pattern     | the text                   |
| `number`   | a range                                            | the number                 |
| `flag`     | yes or no                                          | yes or no                  |
| `presence` | whether it is there                                | the text                   |
| `tools`    | whether there are any, or one that matches a glob  | their names                |
| `headers`  | the same as of a `text`, for each by its name      | their lines, by their names |
"""


class Option(Struct, frozen=True):
    """An option of the command line that states a fact."""

    flag: str
    """`--max-tokens`"""
    help: str
    metavar: str | None = None
    """`None`: it takes no value."""


class Fact(Struct, frozen=True, kw_only=True, eq=False):
    """A row of the table. Checks compare what `read` gives."""

    name: str
    """The key in `match`, in a test's `request`, and in the decision log."""
    kind: Kind
    read: Callable[[Facts], Any]
    """`None`: the request doesn't have it."""

    # what conditions need
    in_match: bool = True
    """Conditions may look at it."""
    provable: bool = True
    """Conditions of an invariant may look at it: the proof can go by it."""
    cost: int = 0
    """0: free. 1: reads text or the conversation. 2: counts tokens."""
    optional: bool = False
    """`read` gives `None` for some requests."""
    folded: bool = False
    """It is compared in ASCII lower case."""
    plain: Literal["equals", "contains"] = "equals"
    """What a text means that stands in `match` by itself."""
    known: tuple[str, ...] = ()
    """The words that clients are known to send. Others may come."""
    absent: str = "missing"
    """What explanations call it where the request doesn't have it."""
    shown: bool = True
    """Explanations show its value. Long texts are not repeated."""

    # what requests state
    state: Callable[[Any], Mapping[str, Any]] | None = None
    """The fields of a body that state a value. `None`: it is not of the body, and is stated beside one."""
    header: str | None = None
    """The header that it is read from and stated by, in lower case."""
    stated: Callable[[Facts], Any] | None = None
    """What a request states to come to this fact, where that is not what `read` gives."""
    assumed: str = ""
    """What `explain` says when it is left out. Empty: nothing."""
    logged: Literal["always", "if read", "never"] = "always"
    """Whether the decision log has it, `if read` only where some rule looks at it."""

    # what people read
    condition: str = ""
    """What it is as a condition, for the JSON Schema."""
    statement: str = ""
    """What it is in a request, for the JSON Schema."""
    option: Option | None = None


def _from_header(name: str, facts: Facts) -> str | None:
    return facts.header(name)


def header_fact(name: str) -> Fact:
    """The fact that `headers.NAME` looks at; `name` is in lower case. A header that has a short name is one
    fact, whichever way it is written."""
    return _BY_HEADER.get(name) or Fact(
        name=f"{_HEADER}{name}", kind="text", read=partial(_from_header, name), optional=True, header=name
    )


def header_of(fact: str) -> str | None:
    """The header that the fact of this name is read from."""
    row = BY_NAME.get(fact)
    return row.header if row is not None else fact.removeprefix(_HEADER)


_HEADER = "header "
"""How the names of facts begin that are read from headers without a short name."""


def _short_name(name: str, header: str, **fields: Any) -> Fact:
    """The row of a header that rules may call `name`."""
    return Fact(
        name=name, kind="text", read=partial(_from_header, header), optional=True, header=header, **fields
    )


def _content(block_type: str) -> Callable[[bool], Mapping[str, Any]]:
    turn = {"role": "user", "content": [{"type": block_type}]}
    return lambda _: {"messages": [turn]}


FACTS: tuple[Fact, ...] = (
    Fact(
        name="model",
        kind="text",
        read=attrgetter("model"),
        folded=True,
        plain="contains",
        state=lambda name: {"model": name},
        stated=attrgetter("requested"),
        condition="The model asked for, in lower case; a plain text is a part of the name.",
        statement="The model that it asks for.",
        option=Option("--model", "The model that the request asks for.", "NAME"),
    ),
    Fact(
        name="team",
        kind="word",
        read=attrgetter("team"),
        optional=True,
        absent="nobody's",
        assumed="nobody's key",
        condition="Whose key was shown.",
        statement="The team whose key it shows; left out, nobody's.",
        option=Option("--team", "The team whose key it shows.", "NAME"),
    ),
    Fact(
        name="headers",
        kind="headers",
        read=attrgetter("headers"),
        assumed="no headers",
        logged="if read",
        condition="A header of the request; a plain text is the whole of it.",
        statement="Its headers.",
        option=Option(
            "--header", "A header of the request, as curl takes it; may be repeated.", "'NAME: VALUE'"
        ),
    ),
    _short_name(
        "request_class",
        "x-claude-code-request-class",
        known=("main", "subagent", "workflow", "compaction", "auxiliary", "side_reply"),
        assumed="no request class",
        condition="What Claude Code makes the request for: the header `x-claude-code-request-class`.",
        statement="Its header `x-claude-code-request-class`.",
        option=Option("--request-class", "What Claude Code makes it for.", "CLASS"),
    ),
    _short_name(
        "agent_type",
        "x-claude-code-agent-type",
        assumed="no agent type",
        condition="The kind of sub-agent that asks: the header `x-claude-code-agent-type`.",
        statement="Its header `x-claude-code-agent-type`.",
        option=Option("--agent-type", "The kind of Claude Code's sub-agent.", "TYPE"),
    ),
    _short_name(
        "session",
        "x-claude-code-session-id",
        assumed="no session",
        condition="Claude Code's session: the header `x-claude-code-session-id`.",
        statement="Its header `x-claude-code-session-id`.",
        option=Option("--session", "Claude Code's session.", "ID"),
    ),
    _short_name(
        "agent",
        "x-claude-code-agent-id",
        assumed="no agent",
        condition="The sub-agent that asks: the header `x-claude-code-agent-id`.",
        statement="Its header `x-claude-code-agent-id`.",
        option=Option("--agent", "Claude Code's sub-agent.", "ID"),
    ),
    Fact(
        name="input_tokens",
        kind="number",
        read=attrgetter("input_tokens"),
        provable=False,
        cost=2,
        stated=attrgetter("counted"),
        assumed="0 input tokens",
        condition="Our estimate of the prompt's tokens.",
        statement="How many input tokens it has.",
        option=Option("--tokens", "How many input tokens it has.", "NUMBER"),
    ),
    Fact(
        name="max_tokens",
        kind="number",
        read=attrgetter("max_tokens"),
        optional=True,
        state=lambda number: {"max_tokens": number},
        assumed="no max_tokens",
        condition="The `max_tokens` that the client asked for.",
        statement="Its `max_tokens`.",
        option=Option("--max-tokens", "Its max_tokens.", "NUMBER"),
    ),
    Fact(
        name="stream",
        kind="flag",
        read=attrgetter("stream"),
        state=lambda stream: {"stream": stream},
        assumed="not streamed",
        condition="Whether the answer is to be streamed.",
        statement="Whether it wants a stream.",
        option=Option("--stream", "It wants a stream."),
    ),
    Fact(
        name="images",
        kind="flag",
        read=attrgetter("images"),
        cost=1,
        state=_content("image"),
        assumed="no images",
        condition="Whether an image is anywhere in the conversation.",
        statement="Whether it has images.",
        option=Option("--images", "It has images."),
    ),
    Fact(
        name="documents",
        kind="flag",
        read=attrgetter("documents"),
        cost=1,
        state=_content("document"),
        assumed="no documents",
        condition="Whether a document is anywhere in the conversation.",
        statement="Whether it has documents.",
        option=Option("--documents", "It has documents."),
    ),
    Fact(
        name="tools",
        kind="tools",
        read=attrgetter("tools"),
        cost=1,
        state=lambda names: {"tools": [{"name": name} for name in names]},
        stated=attrgetter("tool_names"),
        assumed="no tools",
        condition="Whether there are tools, or whether the name or type of one matches a glob.",
        statement="The names of its tools, or whether it has any.",
        option=Option("--tool", "A tool that it brings; may be repeated.", "NAME"),
    ),
    Fact(
        name="thinking",
        kind="flag",
        read=attrgetter("thinking"),
        state=lambda _: {"thinking": {"type": "enabled"}},
        assumed="no thinking",
        condition="Whether thinking is on.",
        statement="Whether it asks for thinking.",
        option=Option("--thinking", "It asks for thinking."),
    ),
    Fact(
        name="effort",
        kind="word",
        read=attrgetter("effort"),
        optional=True,
        cost=1,
        known=("none", "minimal", "low", "medium", "high", "xhigh", "max"),
        state=lambda level: {"output_config": {"effort": level}},
        assumed="no effort",
        condition="The effort in force: that of the last system turn with one, or `output_config.effort`.",
        statement="Its `output_config.effort`.",
        option=Option("--effort", "Its output_config.effort.", "LEVEL"),
    ),
    Fact(
        name="system",
        kind="text",
        read=attrgetter("system"),
        provable=False,
        cost=1,
        folded=True,
        plain="contains",
        shown=False,
        state=lambda text: {"system": text},
        assumed="no system text",
        logged="never",
        condition="The system text in lower case; a plain text is a part of it.",
        statement="Its system text.",
        option=Option("--system", "Its system text.", "TEXT"),
    ),
    Fact(
        name="user",
        kind="text",
        read=attrgetter("user"),
        provable=False,
        optional=True,
        state=lambda user_id: {"metadata": {"user_id": user_id}},
        assumed="no user",
        logged="if read",
        condition="The `metadata.user_id`; a plain text is the whole of it.",
        statement="Its `metadata.user_id`.",
        option=Option("--user", "Its metadata.user_id.", "ID"),
    ),
    Fact(
        name="url_target",
        kind="presence",
        read=attrgetter("has_url_target"),
        provable=False,
        stated=attrgetter("url_target"),
        assumed="no target in the URL",
        condition="Whether the client named a target in the URL.",
        statement="The target that its URL names, as `provider/model`.",
        option=Option("--url-target", "The target that its URL names.", "PROVIDER/MODEL"),
    ),
    Fact(
        name="no_fallback",
        kind="flag",
        read=attrgetter("no_fallback"),
        in_match=False,
        statement="Whether its client forbids fallback.",
        option=Option("--no-fallback", "Its client allows no other target than the first."),
    ),
)

BY_NAME: Mapping[str, Fact] = {fact.name: fact for fact in FACTS}
_BY_HEADER: Mapping[str, Fact] = {fact.header: fact for fact in FACTS if fact.header is not None}
MODEL, TEAM, INPUT_TOKENS, TOOLS = (BY_NAME[name] for name in ("model", "team", "input_tokens", "tools"))

HAS_TOOLS = replace(TOOLS, read=attrgetter("has_tools"))
"""Whether there are any tools: `tools = true` looks at no name."""
