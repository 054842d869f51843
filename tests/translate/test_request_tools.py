"""Conformance cases C of wire.md: tools and parameters."""

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from routeproxy.messages.request import decode_request
from routeproxy.translate.profile import ModelProfile
from routeproxy.translate.request import RequestContext, translate_request
from routeproxy.translate.schemas import is_strict
from routeproxy.translate.tools import ToolNames
from tests.translate.asking import (
    SIGNER,
    Json,
    ask,
    assistant,
    call,
    chat,
    image,
    quirks,
    refusal,
    result,
    system,
    text,
    tool,
    user,
    warnings,
)

HI = user("hi")
WEB_SEARCH = {"type": "web_search_20250305", "name": "web_search", "max_uses": 8}
DEFERRED = tool("Deploy", defer_loading=True)
PLACEHOLDER = tool("DeferredToolPlaceholder", defer_loading=True)


def names(*turns: Json, **options: Any) -> list[str]:
    return [item["function"]["name"] for item in chat(*(turns or (HI,)), **options).get("tools", ())]


def parameters(schema: Any, **profile: Any) -> Any:
    sent = chat(HI, tools=[{"name": "T", "input_schema": schema}], profile=quirks(**profile))
    return sent["tools"][0]["function"]["parameters"]


def test_c01_a_tool_goes_over_without_the_fields_that_are_anthropics() -> None:
    schema = {"type": "object", "properties": {"b": {"type": "string"}, "a": {}}, "required": ["b"]}
    declared = {
        "type": "custom",
        "name": "Bash",
        "description": "runs",
        "input_schema": schema,
        "cache_control": {"type": "ephemeral"},
        "defer_loading": False,
        "eager_input_streaming": True,
        "allowed_callers": ["direct"],
    }
    assert chat(HI, tools=[declared])["tools"] == [
        {"type": "function", "function": {"name": "Bash", "description": "runs", "parameters": schema}}
    ]


def test_c01_a_schema_without_faults_keeps_its_bytes() -> None:
    schema = b'{ "properties":{"z":{"type":"integer"}, "a":{}},"type" :"object"}'
    head = b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"hi"}],'
    head += b'"tools":[{"name":"T","input_schema":'
    translated = translate_request(
        decode_request(head + schema + b"}]}"), ModelProfile(), RequestContext(target="m", signer=SIGNER)
    )
    assert schema in msgspec.json.encode(translated.chat)


def test_examples_of_input_end_the_description() -> None:
    sent = chat(HI, tools=[tool(description="runs", input_examples=[{"command": "ls"}])])
    assert sent["tools"][0]["function"]["description"] == 'runs\n\nExamples of input:\n{"command": "ls"}'


DESCRIPTIONS = [
    pytest.param(
        b'"runs\\n\\"it\\" \xe2\x80\x94 \\/"', b'"runs\\n\\"it\\" \xe2\x80\x94 \\/"', id="as it is written"
    ),
    pytest.param(b'"r\\u00fcn"', b'"r\\u00fcn"', id="an escape stays one"),
    pytest.param(b'"cut \\ud83d"', b'"cut \\ufffd"', id="half an emoji"),
    pytest.param(b'""', None, id="an empty one"),
    pytest.param(b"null", None, id="null"),
]


@pytest.mark.parametrize(("written", "sent"), DESCRIPTIONS)
def test_a_description_comes_through(written: bytes, sent: bytes | None) -> None:
    body = b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"hi"}],"tools":[{"name":"T",'
    body += b'"input_schema":{"type":"object"},"description":' + written + b"}]}"
    translated = translate_request(
        decode_request(body), ModelProfile(), RequestContext(target="m", signer=SIGNER)
    )
    tools = msgspec.json.encode(translated.chat.tools)
    expected = b'"name":"T"' + (b',"description":' + sent if sent else b"") + b',"parameters"'
    assert expected in tools


def reference(name: str) -> tuple[Json, ...]:
    return HI, assistant(call()), user(result("call_1", {"type": "tool_reference", "tool_name": name}))


def added(name: str) -> Json:
    return {"type": "tool_addition", "tool": {"type": "tool_reference", "name": name}}


def removed(name: str) -> Json:
    return {"type": "tool_removal", "tool": {"type": "tool_reference", "name": name}}


def defined(definition: Json) -> Json:
    return {"type": "tool_addition", "tool": {"type": "tool_definition", "definition": definition}}


def compaction(*changes: Json) -> Json:
    return {"type": "compaction", "content": "all of it", "signature": "s", "tool_changes": list(changes)}


EXPOSED = [
    pytest.param([HI], ["Bash"], id="C02 deferred is hidden"),
    pytest.param(reference("Deploy"), ["Bash", "Deploy"], id="C02 referenced is shown"),
    pytest.param(reference("DeferredToolPlaceholder"), ["Bash"], id="C02 the placeholder never is"),
    pytest.param([HI, system(added("Deploy"))], ["Bash", "Deploy"], id="a system turn adds"),
    pytest.param([HI, system(removed("Bash"))], [], id="a system turn removes"),
    pytest.param([HI, system(removed("Bash"), added("Bash"))], ["Bash"], id="the last word counts"),
    pytest.param(
        [HI, system(removed("Bash"), clear_at="next_user_message"), assistant("ok"), HI],
        [],
        id="a change stays when its turn's text is gone",
    ),
    pytest.param(
        [assistant(compaction(added("Deploy"), removed("Bash"))), HI],
        ["Deploy"],
        id="a compaction tells what changed before it",
    ),
    pytest.param([user(compaction(added("Deploy")))], ["Bash", "Deploy"], id="a user's compaction, too"),
    pytest.param([HI, system(added("DeferredToolPlaceholder"))], ["Bash"], id="but not the placeholder"),
    pytest.param(
        [HI, system(defined(tool("Plan")))], ["Bash", "Plan"], id="a system turn brings a tool along"
    ),
    pytest.param(
        [HI, system(defined(tool("Plan")), removed("Plan"))], ["Bash"], id="and takes it away again"
    ),
    pytest.param(
        [HI, system(defined(tool("Plan")), removed("Plan")), HI, system(added("Plan"))],
        ["Bash", "Plan"],
        id="and names it later",
    ),
    pytest.param(
        [assistant(compaction(defined(tool("Plan")))), HI],
        ["Bash", "Plan"],
        id="a compaction brings one along",
    ),
    pytest.param(
        [HI, system(defined({"type": "bash_20250124", "name": "bash"}))],
        ["Bash", "bash"],
        id="one of those that Anthropic defines and clients run",
    ),
    pytest.param(
        [HI, system(defined({"type": "tool_search_tool_bm25_20251119", "name": "search"}))],
        ["Bash", "Deploy"],
        id="a search exposes all",
    ),
]


@pytest.mark.parametrize(("turns", "exposed"), EXPOSED)
def test_deferred_tools_are_hidden_until_they_are_named(turns: list[Json], exposed: list[str]) -> None:
    assert names(*turns, tools=[tool(), DEFERRED, PLACEHOLDER]) == exposed


def test_a_tool_that_a_turn_brings_along_goes_over_like_any_other() -> None:
    plan = tool("plan.it", description="Plans.", input_schema={"properties": {"a": {}}})
    translated = ask(
        HI, system(defined(plan)), tools=[tool()], tool_choice={"type": "tool", "name": "plan.it"}
    )
    sent = json.loads(msgspec.json.encode(translated.chat))
    wire = sent["tools"][1]["function"]["name"]
    assert sent["tools"][1]["function"] == {
        "name": wire,
        "description": "Plans.",
        "parameters": {"type": "object", "properties": {"a": {}}},
    }
    assert sent["tool_choice"]["function"]["name"] == wire
    assert translated.reply.names is not None
    assert translated.reply.names.restore(wire) == "plan.it"


def test_a_tool_that_a_turn_defines_anew_is_the_new_one() -> None:
    sent = chat(HI, system(defined(tool("Bash", description="new"))), tools=[tool("Bash"), tool("Read")])
    assert [(one["function"]["name"], one["function"].get("description")) for one in sent["tools"]] == [
        ("Read", None),
        ("Bash", "new"),
    ]


MCP_CHANGES = [
    pytest.param({"type": "mcp_tool_reference", "server_name": "s", "name": "t"}, id="one tool"),
    pytest.param({"type": "mcp_toolset_reference", "server_name": "s"}, id="all tools of a server"),
]


@pytest.mark.parametrize("change", ["tool_addition", "tool_removal"])
@pytest.mark.parametrize("reference", MCP_CHANGES)
def test_a_change_of_an_mcp_servers_tools_is_left_out_with_a_warning(reference: Json, change: str) -> None:
    turns = (HI, system({"type": change, "tool": reference}))
    assert names(*turns, tools=[tool()]) == ["Bash"]
    assert warnings(*turns) == ("tools of MCP servers are not run here and were left out",)


def test_a_search_that_a_turn_brings_along_is_left_out_with_a_warning() -> None:
    turns = (HI, system(defined(WEB_SEARCH)))
    assert names(*turns, tools=[tool()]) == ["Bash"]
    assert warnings(*turns, tools=[tool()]) == ("web_search is not supported by this model and was left out",)


def test_c03_other_tools_are_always_there() -> None:
    assert names(tools=[tool("A"), tool("B"), DEFERRED], betas=["advanced-tool-use-2025-11-20"]) == ["A", "B"]


WEB_FETCH = {"type": "web_fetch_20250910", "name": "web_fetch"}
NO_SEARCH = (
    "web_search is not supported by this model: its back end has no search of its own. A rule with "
    '`match.tools = ["web_search_*"]` can send such requests to one that has: Gemini, OpenAI or Azure over '
    "Responses, or a provider that speaks Messages, such as anthropic"
)


def elsewhere(kind: str) -> str:
    return (
        f'{kind} is not supported by this model. A rule with `match.tools = ["{kind}*"]` can send such '
        "requests to a provider that speaks Messages, such as anthropic"
    )


TOOL_REFUSALS = [
    pytest.param(
        [HI],
        [DEFERRED],
        "At least one tool must have defer_loading=false. All tools cannot be deferred.",
        id="C04 all deferred",
    ),
    pytest.param(
        reference("x"),
        [tool(), DEFERRED],
        "Tool reference 'x' not found in available tools",
        id="C04 unknown reference",
    ),
    pytest.param([HI], [tool(), tool()], "tools: Tool names must be unique.", id="two of one name"),
    pytest.param([HI], [WEB_SEARCH], NO_SEARCH, id="C16 web search alone"),
    pytest.param([HI], [WEB_FETCH], elsewhere("web_fetch"), id="web fetch alone"),
    pytest.param([HI], [WEB_FETCH, WEB_SEARCH], elsewhere("web_fetch"), id="only what nobody runs"),
    pytest.param(
        [HI],
        [{"type": "computer_20250124", "name": "computer"}, tool()],
        elsewhere("computer"),
        id="computer use",
    ),
    pytest.param(
        [HI],
        [tool(), {"type": "code_execution_20250825", "name": "code_execution"}],
        elsewhere("code_execution"),
        id="code execution",
    ),
    pytest.param(
        [HI],
        [tool(), {"type": "teleport_20270101", "name": "t"}],
        "tools.1: Input tag 'teleport_20270101' found using 'type' does not match any of the expected tags",
        id="a tool that we don't know",
    ),
    pytest.param(
        [HI],
        [tool(), {"type": "mcp_toolset", "mcp_server_name": "s"}],
        elsewhere("mcp_toolset"),
        id="the tools of an MCP server",
    ),
    pytest.param(
        [HI],
        [{"type": "computer_toolset_20260801"}],
        elsewhere("computer_toolset"),
        id="a computer's tools",
    ),
    pytest.param(
        [HI],
        [{"type": "browser_toolset_20260801", "configs": {}}],
        elsewhere("browser_toolset"),
        id="a browser's tools",
    ),
    pytest.param([HI], [{"input_schema": {}}], "tools.0.name: Field required", id="a tool without a name"),
    pytest.param(
        [HI, system(added("x"))],
        [tool()],
        "Tool reference 'x' not found in available tools",
        id="a system turn adds what there isn't",
    ),
    pytest.param(
        [HI, system(defined({"type": "mcp_toolset", "mcp_server_name": "s"}))],
        [tool()],
        elsewhere("mcp_toolset"),
        id="a system turn brings the tools of an MCP server",
    ),
    pytest.param(
        [HI, system(defined({"type": "teleport_20270101", "name": "t"}))],
        [tool()],
        "messages.1.content.0.tool.definition: Input tag 'teleport_20270101' found using 'type' does not "
        "match any of the expected tags",
        id="a system turn brings a tool that we don't know",
    ),
    pytest.param(
        [assistant(compaction(defined({"name": "T", "input_schema": [1]}))), HI],
        [tool()],
        "messages.0.content.0.tool_changes.0.tool.definition.custom.input_schema: Input should be a valid "
        "dictionary",
        id="a compaction brings a schema that is none",
    ),
    pytest.param(
        [HI],
        [{"name": "T", "input_schema": [1]}],
        "tools.0.custom.input_schema: Input should be a valid dictionary",
        id="a schema that is none",
    ),
    pytest.param(
        [HI],
        [tool(description=["runs"])],
        "tools.0.custom.description: Input should be a valid string",
        id="a description that is none",
    ),
]


@pytest.mark.parametrize(("turns", "tools", "words"), TOOL_REFUSALS)
def test_tools_that_cannot_be_had_are_refused(turns: list[Json], tools: list[Json], words: str) -> None:
    assert refusal(*turns, tools=tools) == words


LONG = "mcp__server__" + "x" * 57


@pytest.mark.parametrize(
    ("declared", "rule"),
    [
        pytest.param(LONG, "openai", id="C05 seventy characters"),
        pytest.param("3d_view", "gemini", id="C05 leading digit"),
        pytest.param("a.b/c", "openai", id="C05 odd characters"),
        pytest.param("Bash", "gemini", id="C05 fine as it is"),
    ],
)
def test_c05_a_name_is_made_fit_and_restored(declared: str, rule: str) -> None:
    translated = ask(
        HI,
        assistant(call("c", declared)),
        user(result("c")),
        tools=[tool(declared)],
        profile=quirks(tool_names=rule),
    )
    sent = json.loads(msgspec.json.encode(translated.chat))
    wire = sent["tools"][0]["function"]["name"]
    assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]{0,63}", wire)
    assert sent["messages"][1]["tool_calls"][0]["function"]["name"] == wire
    assert translated.reply.names is not None
    assert translated.reply.names.restore(wire) == declared


def test_c06_long_names_with_the_same_beginning_stay_apart() -> None:
    assert len(set(names(tools=[tool(LONG + "1"), tool(LONG + "2")]))) == 2


@pytest.mark.parametrize(
    ("name", "declared"),
    [
        ("Bash", "Bash"),
        ("bash", "Bash"),
        ("default_api:Bash", "Bash"),
        ("functions.bash", "Bash"),
        ("default_api.Bash", "Bash"),
        ("READ", "READ"),
        ("rEAD", "rEAD"),
        ("nope", "nope"),
        ("functions.nope", "nope"),
        ("Bash<|channel|>commentary", "Bash"),
        ("Bash <|constrain|>json", "Bash"),
        ("functions.bash<|channel|>analysis", "Bash"),
        ("<|channel|>commentary to=functions.Bash", "Bash"),
        ("assistant<|channel|>commentary to=functions.bash <|constrain|>json", "Bash"),
        ("nope<|message|>", "nope"),
        ("<|channel|>commentary", "<|channel|>commentary"),
        ("functions.", "functions."),
    ],
)
def test_c07_a_name_that_the_model_bent_is_put_right(name: str, declared: str) -> None:
    assert ToolNames(["Bash", "Read", "read"]).restore(name) == declared


def test_c08_patterns_that_openai_cannot_compile_are_dropped_and_parameters_of_that_name_kept() -> None:
    schema = {
        "type": "object",
        "properties": {
            "pattern": {"type": "string", "pattern": r"^(?!x)\p{Cc}$"},
            "plain": {"type": "string", "pattern": "^[a-z]+$"},
        },
    }
    kept = {"pattern": {"type": "string"}, "plain": {"type": "string", "pattern": "^[a-z]+$"}}
    assert parameters(schema) == {"type": "object", "properties": kept}
    assert parameters(schema, schemas="gemini") == schema


REPAIRS = [
    pytest.param(None, {"type": "object", "properties": {}}, id="C09 no schema"),
    pytest.param({}, {"type": "object", "properties": {}}, id="C09 nothing in it"),
    pytest.param(
        {"type": "object", "properties": {"a": {}}, "required": None},
        {"type": "object", "properties": {"a": {}}, "required": []},
        id="C09 required null",
    ),
    pytest.param(
        {"properties": {"a": {}}, "required": ["a", "a"]},
        {"type": "object", "properties": {"a": {}}, "required": ["a"]},
        id="C09 required twice, no type",
    ),
    pytest.param(
        {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": {"$schema": {}},
        },
        {"type": "object", "properties": {"$schema": {}}},
        id="C09 $schema",
    ),
    pytest.param(
        {
            "anyOf": [
                {"properties": {"a": {"type": "string"}, "c": {}}, "required": ["a", "c"]},
                {"properties": {"b": {}, "c": {}}, "required": ["b", "c"]},
            ]
        },
        {"type": "object", "properties": {"a": {"type": "string"}, "c": {}, "b": {}}, "required": ["c"]},
        id="alternatives at the root",
    ),
    pytest.param(
        {"$ref": "#/$defs/A", "$defs": {"A": {"properties": {"a": {}}, "required": ["a"]}}},
        {
            "type": "object",
            "properties": {"a": {}},
            "required": ["a"],
            "$defs": {"A": {"properties": {"a": {}}, "required": ["a"]}},
        },
        id="a reference at the root",
    ),
]


@pytest.mark.parametrize(("schema", "repaired"), REPAIRS)
def test_schemas_are_repaired(schema: Any, repaired: Any) -> None:
    assert parameters(schema) == repaired


RICH = {
    "type": "object",
    "properties": {
        "const": {"const": "x", "examples": ["x"]},
        "n": {"type": "integer", "exclusiveMinimum": 0, "format": "int32"},
        "at": {"type": "string", "format": "date-time"},
        "map": {
            "type": "object",
            "propertyNames": {"pattern": "a"},
            "additionalProperties": {"type": "string"},
        },
        "tree": {"$ref": "#/$defs/Node"},
    },
    "$defs": {
        "Node": {
            "type": "object",
            "properties": {"children": {"type": "array", "items": {"$ref": "#/$defs/Node"}}},
        }
    },
}


def test_c10_gemini_gets_what_it_understands() -> None:
    assert parameters(RICH, schemas="gemini") == {
        "type": "object",
        "properties": {
            "const": {"enum": ["x"]},
            "n": {"type": "integer"},
            "at": {"type": "string", "format": "date-time"},
            "map": {"type": "object"},
            "tree": {
                "type": "object",
                "properties": {"children": {"type": "array", "items": {"type": "object"}}},
            },
        },
    }


def test_c10_openai_gets_it_untouched() -> None:
    assert parameters(RICH) == RICH


def test_references_that_double_each_other_do_not_fill_the_memory() -> None:
    defs = {
        f"d{n}": {"properties": {"a": {"$ref": f"#/$defs/d{n + 1}"}, "b": {"$ref": f"#/$defs/d{n + 1}"}}}
        for n in range(40)
    }
    schema = {"type": "object", "properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": defs}
    assert len(json.dumps(parameters(schema, schemas="gemini"))) < 100_000


CHOICES = [
    pytest.param({"type": "auto"}, "auto", id="C11 auto"),
    pytest.param({"type": "any"}, "required", id="C11 any"),
    pytest.param(
        {"type": "tool", "name": "Bash"}, {"type": "function", "function": {"name": "Bash"}}, id="C11 tool"
    ),
    pytest.param({"type": "none"}, "none", id="C11 none"),
]


@pytest.mark.parametrize(("wanted", "sent"), CHOICES)
def test_c11_tool_choice_in_the_words_of_chat(wanted: Json, sent: Any) -> None:
    request = chat(HI, tools=[tool()], tool_choice=wanted)
    assert request["tool_choice"] == sent
    assert len(request["tools"]) == 1


def test_c11_a_back_end_that_cannot_be_forced() -> None:
    translated = ask(
        HI, tools=[tool()], tool_choice={"type": "any"}, profile=quirks(tool_choice_required=False)
    )
    assert (translated.chat.tool_choice, len(translated.warnings)) == ("auto", 1)


@pytest.mark.parametrize(
    "tools",
    [
        pytest.param(None, id="C12 absent"),
        pytest.param([], id="C12 empty"),
        pytest.param([DEFERRED, {"type": "web_search_20250305", "name": "w"}], id="C12 all hidden"),
    ],
)
def test_c12_without_tools_there_is_no_choice(tools: Any) -> None:
    sent = chat(HI, tools=tools, tool_choice={"type": "any", "disable_parallel_tool_use": True})
    assert not sent.keys() & {"tools", "tool_choice", "parallel_tool_calls"}


@pytest.mark.parametrize(("disabled", "sent"), [(True, False), (False, None), (None, None)])
def test_c13_parallel_calls_are_forbidden_only_if_the_client_does(disabled: Any, sent: Any) -> None:
    choice = {"type": "auto", "disable_parallel_tool_use": disabled}
    translated = ask(HI, tools=[tool()], tool_choice=choice)
    assert json.loads(msgspec.json.encode(translated.chat)).get("parallel_tool_calls") is sent
    assert translated.reply.parallel is not disabled or not disabled


@pytest.mark.parametrize(
    ("type", "name", "required"),
    [
        ("bash_20250124", "bash", []),
        ("text_editor_20250728", "str_replace_based_edit_tool", ["command", "path"]),
        ("text_editor_20250124", "str_replace_editor", ["command", "path"]),
        ("memory_20250818", "memory", ["command"]),
    ],
)
def test_c15_anthropics_client_tools_get_their_schemas(type: str, name: str, required: list[str]) -> None:
    sent = chat(HI, tools=[{"type": type, "name": name}])["tools"][0]["function"]
    assert (sent["name"], sent["parameters"]["required"]) == (name, required)
    assert "command" in sent["parameters"]["properties"]


def test_c17_web_search_beside_others_is_left_out_with_a_warning() -> None:
    translated = ask(HI, tools=[WEB_SEARCH, tool()])
    assert [item.function.name for item in translated.chat.tools or ()] == ["Bash"]
    assert translated.warnings == ("web_search is not supported by this model and was left out",)


def test_tool_search_exposes_everything() -> None:
    search = {"type": "tool_search_tool_regex_20251119", "name": "tool_search_tool_regex"}
    assert names(tools=[search, DEFERRED]) == ["Deploy"]
    assert warnings(HI, tools=[search, DEFERRED]) == (
        "tool search is not run here: all deferred tools are exposed",
    )


PARAMETERS = [
    pytest.param(
        {"max_tokens": 128_000},
        {"max_output_tokens": 16_384},
        {"max_tokens": 16_384},
        id="C18 cut to the limit",
    ),
    pytest.param(
        {"temperature": 0.5, "top_p": 0.9},
        {"max_tokens_field": "max_completion_tokens", "sampling": False},
        {"max_completion_tokens": 100},
        id="C19 a reasoning model",
    ),
    pytest.param(
        {"temperature": 0.5, "top_p": 0.9},
        {},
        {"max_tokens": 100, "temperature": 0.5, "top_p": 0.9},
        id="sampling",
    ),
    pytest.param({"top_k": 5}, {"top_k": True}, {"max_tokens": 100, "top_k": 5}, id="top_k where it exists"),
    pytest.param({"top_k": 5}, {}, {"max_tokens": 100}, id="C27 top_k where it does not"),
    pytest.param(
        {"temperature": None, "system": None, "tools": None}, {}, {"max_tokens": 100}, id="null is absent"
    ),
    pytest.param(
        {"stream": True},
        {},
        {"max_tokens": 100, "stream": True, "stream_options": {"include_usage": True}},
        id="stream",
    ),
    pytest.param(
        {"thinking": {"type": "disabled"}},
        {"thinking_off": {"reasoning_effort": "none"}},
        {"max_tokens": 100, "reasoning_effort": "none"},
        id="C22 disabled, by an effort",
    ),
    pytest.param(
        {"thinking": {"type": "disabled"}, "output_config": {"effort": "high"}},
        {"thinking_off": {"thinking": {"type": "disabled"}}},
        {"max_tokens": 100, "thinking": {"type": "disabled"}},
        id="C22 disabled, by a field of its own",
    ),
    pytest.param(
        {"thinking": {"type": "disabled"}, "output_config": {"effort": "high"}},
        {},
        {"max_tokens": 100},
        id="C22 disabled, where no way to do so is known",
    ),
    pytest.param(
        {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}},
        {},
        {"max_tokens": 100, "reasoning_effort": "high"},
        id="C22 adaptive, high",
    ),
    pytest.param({"thinking": {"type": "adaptive"}}, {}, {"max_tokens": 100}, id="C22 adaptive"),
    pytest.param(
        {"thinking": {"type": "enabled", "budget_tokens": 31_999}, "max_tokens": 32_000},
        {"efforts": ("low", "high", "xhigh")},
        {"max_tokens": 32_000, "reasoning_effort": "xhigh"},
        id="C22 a large budget",
    ),
    pytest.param(
        {"thinking": {"type": "enabled", "budget_tokens": 31_999}, "max_tokens": 32_000},
        {},
        {"max_tokens": 32_000, "reasoning_effort": "high"},
        id="C22 a large budget, cut",
    ),
    pytest.param(
        {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 3000},
        {},
        {"max_tokens": 3000, "reasoning_effort": "low"},
        id="C22 a small budget",
    ),
    pytest.param(
        {"output_config": {"effort": "max"}},
        {"efforts": ("medium",)},
        {"max_tokens": 100, "reasoning_effort": "medium"},
        id="C22 max, cut",
    ),
    pytest.param(
        {"output_config": {"effort": "low"}},
        {"efforts": ("high",)},
        {"max_tokens": 100, "reasoning_effort": "high"},
        id="C22 low, where there is only high",
    ),
    pytest.param(
        {"output_config": {"effort": "max"}},
        {"efforts": ()},
        {"max_tokens": 100},
        id="C22 a model that does not reason",
    ),
    pytest.param(
        {"speed": "fast"},
        {"priority_tier": True},
        {"max_tokens": 100, "service_tier": "priority"},
        id="C25 fast",
    ),
    pytest.param({"speed": "fast"}, {}, {"max_tokens": 100}, id="C25 fast, where there is none"),
    pytest.param(
        {"service_tier": "standard_only"},
        {"priority_tier": True},
        {"max_tokens": 100, "service_tier": "default"},
        id="standard tier",
    ),
    pytest.param({"service_tier": "auto"}, {"priority_tier": True}, {"max_tokens": 100}, id="any tier"),
]


@pytest.mark.parametrize(("params", "profile", "sent"), PARAMETERS)
def test_parameters_in_the_words_of_the_back_end(params: Json, profile: Json, sent: Json) -> None:
    request = chat(HI, **params, profile=quirks(**profile))
    assert {key: value for key, value in request.items() if key != "messages"} == sent


CLEAR_ALL = {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}
CLEAR_TOOLS = {"edits": [{"type": "clear_tool_uses_20250919"}]}

WARNED = [
    pytest.param({"top_k": 5}, {}, ["top_k is not supported by this model and was left out"], id="C27"),
    pytest.param(
        {"temperature": 1},
        {"sampling": False},
        ["temperature and top_p are not supported by this model and were left out"],
        id="C19",
    ),
    pytest.param({"speed": "fast"}, {}, ["speed fast is not supported by this model"], id="C25"),
    pytest.param({"context_management": CLEAR_ALL}, {}, [], id="C26 what happens anyway"),
    pytest.param(
        {"context_management": CLEAR_TOOLS},
        {},
        ["context_management edit clear_tool_uses_20250919 is not supported and was ignored"],
        id="C26 another edit",
    ),
    pytest.param(
        {"fallbacks": "default"}, {}, ["fallbacks is not supported and was ignored"], id="fallbacks"
    ),
    pytest.param(
        {"output_config": {"task_budget": {"type": "tokens", "total": 5}}},
        {},
        ["output_config.task_budget is not supported and was ignored"],
        id="task budget",
    ),
    pytest.param(
        {"inference_geo": "us", "billing_policy": {}},
        {},
        [
            "field inference_geo is not supported and was ignored",
            "field billing_policy is not supported and was ignored",
        ],
        id="fields without effect",
    ),
]


@pytest.mark.parametrize(("params", "profile", "sentences"), WARNED)
def test_what_is_dropped_with_a_meaning_is_warned_of(
    params: Json, profile: Json, sentences: list[str]
) -> None:
    assert list(warnings(HI, **params, profile=quirks(**profile))) == sentences


REFUSED = [
    pytest.param({"max_tokens": None}, "max_tokens: Field required", id="no max_tokens"),
    pytest.param({"temperature": 1.5}, "temperature: Input should be less than or equal to 1", id="too hot"),
    pytest.param({"top_k": -1}, "top_k: Input should be greater than or equal to 0", id="below nothing"),
    pytest.param(
        {"stop_sequences": [" "]},
        "stop_sequences: each stop sequence must contain non-whitespace",
        id="white stop",
    ),
    pytest.param(
        {
            "thinking": {"type": "enabled", "budget_tokens": 2000},
            "tools": [tool()],
            "tool_choice": {"type": "any"},
            "max_tokens": 5000,
        },
        "Thinking may not be enabled when tool_choice forces tool use.",
        id="C23",
    ),
    pytest.param(
        {"thinking": {"type": "enabled", "budget_tokens": 2000}, "max_tokens": 2000},
        "`max_tokens` must be greater than `thinking.budget_tokens`",
        id="no room to answer",
    ),
    pytest.param(
        {"thinking": {"type": "enabled", "budget_tokens": 5}},
        "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024",
        id="too little thinking",
    ),
    pytest.param(
        {"output_config": {"effort": "huge"}},
        "output_config.effort: Input should be 'low', 'medium', 'high', 'xhigh' or 'max'",
        id="an effort that is none",
    ),
    pytest.param(
        {"tool_choice": {"type": "tool", "name": "X"}, "tools": [tool()]},
        "Tool 'X' not found in provided tools",
        id="a choice of nothing",
    ),
    pytest.param({"mcp_servers": [{"type": "url"}]}, "mcp_servers is not supported by this model", id="MCP"),
    pytest.param({"container": {"skills": []}}, "container is not supported by this model", id="container"),
    pytest.param({"messages": []}, "messages: at least one message is required", id="no messages"),
    pytest.param(
        {"output_config": {"format": {"type": "xml"}}},
        "output_config.format.type: Input should be 'json_schema'",
        id="a format that is none",
    ),
]


@pytest.mark.parametrize(("params", "words"), REFUSED)
def test_parameters_are_refused_in_anthropics_words(params: Json, words: str) -> None:
    turns = () if "messages" in params else (HI,)
    assert refusal(*turns, **params) == words


def test_interleaved_thinking_may_have_a_budget_above_one_answer() -> None:
    budget = {"type": "enabled", "budget_tokens": 5000}
    assert ask(HI, thinking=budget, max_tokens=2000, betas=["interleaved-thinking-2025-05-14"])


def warmup(**params: Any) -> bool:
    return ask(HI, **params).warms_cache


def test_c20_a_request_for_no_tokens_only_warms_a_cache() -> None:
    assert warmup(max_tokens=0)
    assert not warmup(max_tokens=1)


@pytest.mark.parametrize(
    ("params", "what"),
    [
        ({"stream": True}, "stream"),
        ({"tools": [tool()], "tool_choice": {"type": "any"}}, "a tool_choice that forces a tool"),
        ({"output_config": {"format": {"type": "json_schema", "schema": {}}}}, "output_config.format"),
    ],
)
def test_c20_and_what_does_not_go_with_it_is_refused(params: Json, what: str) -> None:
    assert refusal(HI, max_tokens=0, **params) == f"max_tokens: 0 cannot be combined with {what}"


@pytest.mark.parametrize(
    ("limit", "sent", "scanned"),
    [
        pytest.param(4, 4, 2, id="C21 OpenAI"),
        pytest.param(0, 0, 6, id="C21 takes none"),
        pytest.param(None, 6, 0, id="C21 takes any number"),
    ],
)
def test_c21_stop_sequences_beyond_the_limit_are_looked_for_in_the_answer(
    limit: Any, sent: int, scanned: int
) -> None:
    sequences = list("abcdef")
    translated = ask(HI, stop_sequences=[*sequences, "a"], profile=quirks(stop_limit=limit))
    assert list(translated.chat.stop or ()) == sequences[:sent]
    assert list(translated.reply.scan) == sequences[sent:]
    assert len(translated.reply.scan) == scanned


OPTIONAL = {
    "type": "object",
    "properties": {"a": {}, "b": {}},
    "required": ["a"],
    "additionalProperties": False,
}
ALL_REQUIRED = {**OPTIONAL, "required": ["b", "a"]}


@pytest.mark.parametrize(("schema", "strict"), [(OPTIONAL, False), (ALL_REQUIRED, True)])
@pytest.mark.parametrize("field", ["output_config", "output_format"])
def test_c24_a_schema_is_strict_only_if_it_is_already(schema: Json, strict: bool, field: str) -> None:
    format = {"type": "json_schema", "schema": schema}
    sent = chat(HI, **{field: {"format": format} if field == "output_config" else format})
    assert sent["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "output", "schema": schema, "strict": strict},
    }


def test_c24_a_back_end_without_schemas_is_told_in_the_prompt() -> None:
    sent = chat(
        HI,
        system="be kind",
        output_config={"format": {"type": "json_schema", "schema": OPTIONAL}},
        tools=[tool()],
        profile=quirks(structured_outputs_with_tools=False),
    )
    assert "response_format" not in sent
    assert sent["messages"][0]["content"].startswith("be kind\n\nAnswer with a JSON value only")


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        pytest.param(ALL_REQUIRED, True, id="closed"),
        pytest.param(OPTIONAL, False, id="optional"),
        pytest.param(
            {**ALL_REQUIRED, "properties": {"a": {"type": "object"}, "b": {}}}, False, id="open inside"
        ),
        pytest.param({**ALL_REQUIRED, "properties": {"a": ALL_REQUIRED, "b": {}}}, True, id="closed inside"),
        pytest.param([], False, id="none at all"),
    ],
)
def test_strict_is_forwarded_only_for_schemas_that_are(schema: Any, strict: bool) -> None:
    assert is_strict(msgspec.Raw(json.dumps(schema).encode())) is strict
    if schema:
        assert (
            chat(HI, tools=[{"name": "T", "input_schema": schema, "strict": True}])["tools"][0]["function"][
                "strict"
            ]
            is strict
        )


def test_the_answer_is_told_what_it_must_know() -> None:
    reply = ask(
        HI, thinking={"type": "adaptive", "display": "omitted"}, speed="fast", stop_sequences=["x"]
    ).reply
    assert (reply.model, reply.thinking, reply.display, reply.speed) == ("opus", True, "omitted", "standard")
    assert (reply.stop_sequences, reply.family, reply.target_model) == (("x",), "openai", "openai/gpt-4.1")
    assert ask(HI, thinking={"type": "adaptive", "display": "updates"}).reply.display == "summarized"
    assert not ask(HI, thinking={"type": "disabled"}).reply.thinking


def test_the_answer_knows_the_ids_that_are_taken() -> None:
    assert ask(HI, assistant(text("x"), call("a")), user(result("a", image()))).reply.tool_ids == {"a"}


RECORDED = Path(__file__).parents[1] / "wire" / "claude-code"


@pytest.mark.skipif(not RECORDED.is_dir(), reason="no recorded requests in this checkout")
@pytest.mark.parametrize("name", ["first-turn", "haiku-enabled-thinking", "tool-result-turn"])
@pytest.mark.parametrize("family", ["openai", "gemini"])
def test_what_claude_code_sends_goes_over_without_a_warning(name: str, family: str) -> None:
    body = json.loads((RECORDED / f"{name}.json").read_text())["body"]
    request = decode_request(json.dumps(body).encode())
    profile = quirks(schemas=family, tool_names=family)
    translated = translate_request(
        request, profile, RequestContext(target="m", signer=SIGNER, fields=tuple(body))
    )
    assert translated.warnings == ()
    assert len(translated.chat.tools or ()) == len(body["tools"])
    assert b"x-anthropic-billing-header" not in msgspec.json.encode(translated.chat)
