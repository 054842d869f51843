"""Conversations in the shape that a back end takes: one list of turns in, one list of messages out."""

import json
from typing import Any

import pytest

from routeproxy.messages.errors import Incapable
from tests.translate.asking import (
    Json,
    ask,
    assistant,
    call,
    chat,
    document,
    image,
    messages,
    quirks,
    refusal,
    result,
    system,
    text,
    tool,
    user,
    warnings,
)

PDF = document({"type": "base64", "media_type": "application/pdf", "data": "aGk="}, title="plan")
LOOKED = [user("look"), assistant(call()), user(result("call_1", "done"), text("and now?"))]


def roles(*turns: Json, **profile: Any) -> list[str]:
    return [message["role"] for message in messages(*turns, profile=quirks(**profile))]


def test_what_is_said_after_a_result_goes_into_it_where_only_the_assistant_may_speak_next() -> None:
    assert roles(*LOOKED) == ["user", "assistant", "tool", "user"]
    sent = messages(*LOOKED, profile=quirks(user_after_tool=False))
    assert [message["role"] for message in sent] == ["user", "assistant", "tool"]
    assert sent[-1]["content"] == "done\n\nand now?"


def test_a_reminder_and_a_picture_after_a_result_go_there_too() -> None:
    turns = [
        user("look"),
        assistant(call()),
        user(result("call_1", text("done"), image())),
        system("be brief"),
        assistant("ok"),
        user("on"),
    ]
    sent = messages(*turns, profile=quirks(user_after_tool=False, mid_system="user"))
    assert [message["role"] for message in sent] == ["user", "assistant", "tool", "assistant", "user"]
    kinds = [part["type"] for part in sent[2]["content"]]
    assert kinds == ["text", "text", "image_url", "text"]
    assert sent[2]["content"][-1]["text"] == "<system-reminder>\nbe brief\n</system-reminder>"


@pytest.mark.parametrize("first", [user("hi"), user(image())], ids=["text", "image"])
def test_a_back_end_without_a_system_role_reads_the_prompt_first(first: Json) -> None:
    sent = messages(first, profile=quirks(system_role=False), system="Be brief.")
    assert [message["role"] for message in sent] == ["user"]
    assert json.dumps(sent[0]).index("Be brief.") < json.dumps(sent[0]).index(
        "hi" if first == user("hi") else "url"
    )


@pytest.mark.parametrize(("takes_null", "content"), [(True, None), (False, "")])
def test_b11_a_turn_of_only_calls(takes_null: bool, content: str | None) -> None:
    sent = messages(*LOOKED, profile=quirks(null_content=takes_null))
    assert sent[1]["content"] == content


@pytest.mark.parametrize("content", [(), ("",), (text(""),)], ids=["nothing", "empty", "an empty block"])
def test_b17_an_empty_result_says_so_where_an_empty_text_is_refused(content: tuple[Any, ...]) -> None:
    turns = [user("look"), assistant(call()), user(result("call_1", *content))]
    assert messages(*turns)[-1]["content"] == ""
    assert messages(*turns, profile=quirks(empty_tool_result="(no output)"))[-1]["content"] == "(no output)"


# --- documents


@pytest.mark.parametrize(
    "turns",
    [[user(PDF)], [user("look"), assistant(call()), user(result("call_1", PDF))]],
    ids=["user", "tool result"],
)
def test_b24_a_document_becomes_a_placeholder_where_there_are_no_files(turns: list[Json]) -> None:
    sent = messages(*turns, profile=quirks(files=False))
    assert "[document omitted: model takes no files]" in json.dumps(sent)
    assert "plan" in json.dumps(sent)
    assert "aGk=" not in json.dumps(sent)
    assert warnings(*turns, profile=quirks(files=False)) == (
        "documents were replaced by a placeholder: the model takes no files",
    )


def test_b24_or_is_refused_as_images_are() -> None:
    with pytest.raises(Incapable, match="capability_rejected: document_block"):
        ask(user(PDF), profile=quirks(files=False, without_vision="refuse"))


# --- a forced tool


TOOLS = [tool("Bash"), tool("Read")]
READ = {"type": "tool", "name": "Read"}


def names(sent: Json) -> list[str]:
    return [one["function"]["name"] for one in sent["tools"]]


def test_c11_a_tool_is_forced_by_being_the_only_one_where_names_are_ignored() -> None:
    sent = chat(user("hi"), tools=TOOLS, tool_choice=READ, profile=quirks(named_tool_choice=False))
    assert (names(sent), sent["tool_choice"]) == (["Read"], "required")
    sent = chat(user("hi"), tools=TOOLS, tool_choice=READ)
    assert names(sent) == ["Bash", "Read"]
    assert sent["tool_choice"] == {"type": "function", "function": {"name": "Read"}}


def test_c11_where_nothing_can_be_forced_that_is_said() -> None:
    profile = quirks(named_tool_choice=False, tool_choice_required=False)
    sent = chat(user("hi"), tools=TOOLS, tool_choice=READ, profile=profile)
    assert (names(sent), sent["tool_choice"]) == (["Read"], "auto")
    assert warnings(user("hi"), tools=TOOLS, tool_choice=READ, profile=profile) == (
        "a forced tool is not supported by this model; auto is used",
    )


def test_c11_a_forced_tool_that_is_not_there_is_refused_all_the_same() -> None:
    profile = quirks(named_tool_choice=False)
    choice = {"type": "tool", "name": "Write"}
    assert refusal(user("hi"), tools=TOOLS, tool_choice=choice, profile=profile) == (
        "Tool 'Write' not found in provided tools"
    )


# --- the schema of the answer

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}


@pytest.mark.parametrize(
    ("schema", "profile", "format"),
    [
        pytest.param(SCHEMA, {}, "json_schema", id="a schema"),
        pytest.param(SCHEMA, {"structured_outputs": False}, None, id="in the prompt only"),
        pytest.param(
            SCHEMA,
            {"structured_outputs": False, "json_mode": True},
            "json_object",
            id="any object, and the prompt",
        ),
        pytest.param(
            {"type": "array", "items": SCHEMA},
            {"structured_outputs": False, "json_mode": True},
            None,
            id="an array is no object",
        ),
    ],
)
def test_c24_structured_outputs(schema: Json, profile: Json, format: str | None) -> None:
    sent = chat(
        user("hi"),
        profile=quirks(**profile),
        output_config={"format": {"type": "json_schema", "schema": schema}},
    )
    assert sent.get("response_format", {}).get("type") == format
    assert ("JSON schema" in json.dumps(sent["messages"])) is (format != "json_schema")
