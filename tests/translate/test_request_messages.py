"""Conformance cases B of wire.md: messages and content blocks."""

import json
import re
import time
from typing import Any

import msgspec
import pytest

from routeproxy.messages.errors import InvalidRequest
from routeproxy.messages.request import decode_request
from routeproxy.translate.profile import ModelProfile
from routeproxy.translate.request import RequestContext, translate_request
from routeproxy.translate.tool_ids import for_client
from tests.translate.asking import (
    SIGNER,
    answered,
    ask,
    assistant,
    call,
    called,
    chat,
    document,
    function,
    image,
    image_part,
    image_url,
    messages,
    quirks,
    refusal,
    result,
    said_system,
    said_user,
    system,
    text,
    thinking,
    tool,
    user,
    warnings,
)

PDF = {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="}
PDF_PART = {
    "type": "file",
    "file": {"filename": "document.pdf", "file_data": "data:application/pdf;base64,JVBERg=="},
}
SEARCH = {"type": "search_result", "source": "https://a.b", "title": "A & B", "content": [text("found")]}


def round_of(
    *content: Any, profile: ModelProfile | None = None, calls: tuple[str, ...] = ("call_1",), **params: Any
) -> list[Any]:
    """What follows the assistant's message when the user answers its calls with `content`."""
    turns = (user("hi"), assistant(*(call(id) for id in calls)), user(*content))
    return messages(*turns, profile=profile, **params)[2:]


ORDER = [
    pytest.param([user("hi")], [said_user("hi")], id="B01 string content"),
    pytest.param(
        [user("a"), user(text("b")), assistant("c"), assistant(text("d")), user("e")],
        [said_user("a\n\nb"), {"role": "assistant", "content": "cd"}, said_user("e")],
        id="B10 turns of one role are merged",
    ),
    pytest.param(
        [user("hi"), assistant(call()), user(result("call_1", "ok"))],
        [said_user("hi"), called(function()), answered("call_1", "ok")],
        id="B11 tool_use only has null content",
    ),
    pytest.param(
        [user("hi"), assistant(text("let me"), call()), user(result("call_1", "ok"))],
        [said_user("hi"), called(function(), content="let me"), answered("call_1", "ok")],
        id="B12 text and call in one message",
    ),
    pytest.param(
        [
            user("hi"),
            assistant(call("a"), call("b")),
            user(result("a", "1"), result("b", "2"), text("go on")),
        ],
        [
            said_user("hi"),
            called(function("a"), function("b")),
            answered("a", "1"),
            answered("b", "2"),
            said_user("go on"),
        ],
        id="B13 results and then text",
    ),
    pytest.param(
        [user("hi"), assistant(call("a")), user(text("before"), result("a", "1"))],
        [said_user("hi"), called(function("a")), answered("a", "1"), said_user("before")],
        id="B14 text before the result comes after it",
    ),
    pytest.param(
        [user("hi"), assistant(call("a"), call("b")), user(result("b", "2"), text("x"), result("a", "1"))],
        [
            said_user("hi"),
            called(function("a"), function("b")),
            answered("a", "1"),
            answered("b", "2"),
            said_user("x"),
        ],
        id="B15 results around text",
    ),
    pytest.param(
        [
            user("hi"),
            assistant(*(call(id) for id in ("a1", "a2", "a3", "a4"))),
            user(*(result(id, id) for id in ("a3", "a4", "a2", "a1"))),
        ],
        [
            said_user("hi"),
            called(*(function(id) for id in ("a1", "a2", "a3", "a4"))),
            *(answered(id, id) for id in ("a1", "a2", "a3", "a4")),
        ],
        id="B16 results in the order of the calls",
    ),
    pytest.param(
        [user("hi"), assistant(call("a"), call("b")), user(result("b", "2")), user(result("a", "1"))],
        [said_user("hi"), called(function("a"), function("b")), answered("a", "1"), answered("b", "2")],
        id="B16 results in two turns",
    ),
    pytest.param(
        [user("hi"), system("be brief"), user("there")],
        [said_user("hi"), said_system("be brief"), said_user("there")],
        id="B04 a system turn stays where it is",
    ),
    pytest.param(
        [user("hi"), assistant(call()), system("note"), user(text("x"), result("call_1", "ok"))],
        [said_user("hi"), called(function()), answered("call_1", "ok"), said_system("note"), said_user("x")],
        id="B06 a system turn before the results comes after them",
    ),
    pytest.param(
        [user("hi"), assistant(call()), user(result("call_1", "ok")), system(text("a"), text("b"))],
        [said_user("hi"), called(function()), answered("call_1", "ok"), said_system("a\n\nb")],
        id="B06 a system turn after the results",
    ),
    pytest.param(
        [system(output_config={"effort": "low"}), user("hi")],
        [said_user("hi")],
        id="B08 a directive says nothing",
    ),
    pytest.param(
        [
            user(text(""), text("hi")),
            assistant(text(""), text("yes"), text("")),
            system(text("")),
            user("so"),
        ],
        [said_user("hi"), {"role": "assistant", "content": "yes"}, said_user("so")],
        id="B27 empty texts are dropped",
    ),
    pytest.param(
        [user("hi"), assistant(text("\n\n")), user("there")],
        [said_user("hi\n\nthere")],
        id="B28 an assistant that says white space says nothing",
    ),
    pytest.param(
        [user("a"), assistant("b"), user(text("")), assistant("c"), user("d")],
        [said_user("a"), {"role": "assistant", "content": "bc"}, said_user("d")],
        id="B27 a turn of empty texts was not there",
    ),
    pytest.param(
        [user("hi"), assistant(text("\n"), call()), user(result())],
        [said_user("hi"), called(function()), answered()],
        id="B28 white space beside a call",
    ),
    pytest.param(
        [user("hi"), assistant(thinking("ErUBforeign", "secret"), text("yes")), user("so")],
        [said_user("hi"), {"role": "assistant", "content": "yes"}, said_user("so")],
        id="B30 foreign thinking",
    ),
    pytest.param(
        [user("hi"), assistant(thinking("ErUBforeign", "secret")), user("so")],
        [said_user("hi\n\nso")],
        id="B30 nothing but foreign thinking",
    ),
    pytest.param(
        [user("hi"), assistant({"type": "redacted_thinking", "data": "x"}, text("yes")), user("so")],
        [said_user("hi"), {"role": "assistant", "content": "yes"}, said_user("so")],
        id="B33 redacted thinking",
    ),
    pytest.param(
        [
            user("hi"),
            assistant({"type": "fallback"}, {"type": "compaction", "content": "all of it"}, text("ok")),
            user("so"),
        ],
        [
            said_user("hi\n\nSummary of the conversation so far:\n\nall of it"),
            {"role": "assistant", "content": "ok"},
            said_user("so"),
        ],
        id="a compaction is a summary by the user",
    ),
    pytest.param(
        [
            user("hi"),
            assistant({"type": "container_upload", "file_id": "file_1"}, text("there")),
            user("so"),
        ],
        [
            said_user("hi"),
            {"role": "assistant", "content": "[container_upload file_1]\nthere"},
            said_user("so"),
        ],
        id="a file that a tool of Anthropic's wrote is named",
    ),
]


@pytest.mark.parametrize(("turns", "expected"), ORDER)
def test_turns_come_in_the_order_that_chat_wants(turns: list[Any], expected: list[Any]) -> None:
    assert messages(*turns) == expected


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        pytest.param("be kind", "be kind", id="B02 string"),
        pytest.param([text("a", cache_control={"type": "ephemeral"}), text("b")], "a\n\nb", id="B02 blocks"),
        pytest.param(
            [text("x-anthropic-billing-header: cc_version=2; cch=0a1b2;"), text("a")],
            "a",
            id="B03 attribution block",
        ),
        pytest.param("x-anthropic-billing-header: cch=1;\nbe kind", "be kind", id="B03 attribution line"),
        pytest.param([text(""), text("a")], "a", id="B27 empty block"),
    ],
)
def test_the_system_prompt_is_one_leading_message(prompt: Any, expected: str) -> None:
    assert messages(user("hi"), system=prompt) == [said_system(expected), said_user("hi")]


WRITTEN = [
    pytest.param(b'"a \\u2014 \xe2\x80\x94 \\/"', b'"a \\u2014 \xe2\x80\x94 \\/"', id="escapes stay"),
    pytest.param(b'"cut \\ud83d"', b'"cut \\ufffd"', id="half an emoji"),
    pytest.param(b'"\\ud83d\\ude00"', b'"\\ud83d\\ude00"', id="a whole one"),
]


def with_system(blocks: bytes) -> bytes:
    body = (
        b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"hi"}],"system":' + blocks + b"}"
    )
    translated = translate_request(
        decode_request(body), ModelProfile(), RequestContext(target="m", signer=SIGNER)
    )
    return msgspec.json.encode(translated.chat.messages[0])


@pytest.mark.parametrize(("written", "sent"), WRITTEN)
def test_a_system_prompt_goes_out_as_it_was_written(written: bytes, sent: bytes) -> None:
    block = b'{"type":"text","text":%b}' % written
    assert with_system(b"[%b]" % block) == b'{"role":"system","content":%b}' % sent
    both = b'"%b\\n\\n%b"' % (sent[1:-1], sent[1:-1])
    assert with_system(b"[%b,%b]" % (block, block)) == b'{"role":"system","content":%b}' % both


@pytest.mark.parametrize("written", [b"5", b"null", b'["a"]'])
def test_a_system_prompt_that_is_no_text_is_the_clients_mistake(written: bytes) -> None:
    with pytest.raises(InvalidRequest, match=r"system\.1\.text"):
        with_system(b'[{"type":"text","text":"a"},{"type":"text","text":%b}]' % written)


def found(content: bytes, tool: bytes = b"code_execution") -> bytes:
    """A turn with the result of a tool that a server ran."""
    return (
        b'"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":[{"type":"%b_tool_result",'
        b'"tool_use_id":"srvtoolu_1","content":%b}]},{"role":"user","content":"so"}]' % (tool, content)
    )


# What goes out without being read.
UNREAD = [
    pytest.param(b'"system":[{"type":"text","text":"\xff"}]', id="the system prompt"),
    pytest.param(b'"tools":[{"name":"T","input_schema":{},"description":"\xff"}]', id="a description"),
    pytest.param(b'"tools":[{"name":"T","input_schema":{},"input_examples":["\xff"]}]', id="an example"),
    pytest.param(
        b'"messages":[{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"T","input":'
        b'{"a":"\xff"}}]}]',
        id="a call",
    ),
    pytest.param(found(b'"\xff"'), id="what a server's tool found"),
    pytest.param(found(b'{"error_code":"e","type":"\xff"}'), id="the type of that"),
    pytest.param(found(b'{"return_code":1e400}'), id="a number that is too large"),
    pytest.param(found(b'{"return_code":-1e999}'), id="one that is too small"),
    pytest.param(found(b"1" + b"0" * 5000), id="one of 5,000 digits"),
    pytest.param(found(b'{"\xff":1}'), id="a name"),
    pytest.param(found(b'{"tool_references":[{"tool_name":"\xff"}]}', b"tool_search"), id="a reference"),
]


@pytest.mark.parametrize("field", UNREAD)
def test_what_is_no_utf_8_is_the_clients_mistake(field: bytes) -> None:
    hi = b"" if b"messages" in field else b',"messages":[{"role":"user","content":"hi"}]'
    body = b'{"model":"m","max_tokens":1%b,%b}' % (hi, field)
    with pytest.raises(InvalidRequest, match="not valid UTF-8"):
        translate_request(decode_request(body), ModelProfile(), RequestContext(target="m", signer=SIGNER))


def test_b03_attribution_stays_if_the_back_end_wants_it() -> None:
    prompt = [text("x-anthropic-billing-header: a"), text("b")]
    assert messages(user("hi"), system=prompt, profile=quirks(strip_attribution=False))[0] == said_system(
        "x-anthropic-billing-header: a\n\nb"
    )


def test_b05_a_system_turn_sets_the_effort() -> None:
    sent = chat(
        user("hi"),
        system(text("be brief"), output_config={"effort": "low"}),
        output_config={"effort": "high"},
    )
    assert (sent["reasoning_effort"], sent["messages"][1]) == ("low", said_system("be brief"))


def test_b05_the_latest_effort_wins() -> None:
    turns = (user("a"), system(output_config={"effort": "low"}), system(output_config={"effort": "medium"}))
    assert chat(*turns)["reasoning_effort"] == "medium"


def test_b07_a_back_end_without_system_turns_gets_them_as_user_text_after_the_results() -> None:
    turns = (
        system("first"),
        user("hi"),
        assistant(call()),
        system("note"),
        user(result("call_1", "ok"), text("x")),
    )
    assert messages(*turns, system="top", profile=quirks(mid_system="user")) == [
        said_system("top\n\nfirst"),
        said_user("hi"),
        called(function()),
        answered("call_1", "ok"),
        said_user("<system-reminder>\nnote\n</system-reminder>\n\nx"),
    ]


@pytest.mark.parametrize("role", ["tool", "developer"])
def test_b09_other_roles_are_refused_in_the_words_that_clients_know(role: str) -> None:
    turns = (user("hi"), {"role": role, "content": "x"})
    assert refusal(*turns) == "messages.1.role: Input should be 'user' or 'assistant'"


@pytest.mark.parametrize(
    ("blocks", "content"),
    [
        ([text("I look."), call(), text("And now?")], "I look.\n\nAnd now?"),
        ([text("I look.\n"), call(), text("And now?")], "I look.\nAnd now?"),
        ([text("I look."), call(), text("\nAnd now?")], "I look.\nAnd now?"),
        ([text("I look."), call(), text(""), text("And"), text(" now?")], "I look.\n\nAnd now?"),
        ([text("I look."), thinking("ErUB"), text("And now?"), call()], "I look.\n\nAnd now?"),
        ([text("I "), text("look."), call()], "I look."),
    ],
)
def test_texts_with_something_between_them_are_not_glued(blocks: list[Any], content: str) -> None:
    sent = messages(user("hi"), assistant(*blocks), user(result()))
    assert sent[1] == called(function(), content=content)


def test_one_tool_id_may_come_again_in_another_turn() -> None:
    again = (assistant(call("a", input={"n": 2})), user(result("a", "two")))
    sent = messages(user("hi"), assistant(call("a")), user(result("a", "one")), *again, *again)
    assert sent[1:] == [
        called(function("a")),
        answered("a", "one"),
        called(function("a-2", arguments='{"n":2}')),
        answered("a-2", "two"),
        called(function("a-3", arguments='{"n":2}')),
        answered("a-3", "two"),
    ]


@pytest.mark.parametrize("rule", ["any", "openai", "mistral"])
def test_it_stays_within_the_rule_of_the_back_end_and_apart_from_others(rule: Any) -> None:
    ids = ["functions.Bash:0", "x" * 80, "a", "a-2", "a", "x" * 80, "functions.Bash:0"]
    turns = [turn for id in map(for_client, ids) for turn in (assistant(call(id)), user(result(id)))]
    sent = messages(user("hi"), *turns, profile=quirks(tool_call_ids=rule))
    called_ids = [turn["tool_calls"][0]["id"] for turn in sent if turn["role"] == "assistant"]
    assert called_ids == [turn["tool_call_id"] for turn in sent if turn["role"] == "tool"]
    assert len(set(called_ids)) == len(ids)
    longest = {"any": 99, "openai": 40, "mistral": 9}[rule]
    assert all(len(id) <= longest for id in called_ids)


def test_b11_arguments_are_compact_json_in_the_clients_order() -> None:
    body = b"""{"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "Edit",
            "input": {"z": 1, "a": {"b": [1, 2], "text": "k: \\"v\\",  w"}}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c"}]}]}"""
    translated = translate_request(
        decode_request(body), ModelProfile(), RequestContext(target="m", signer=SIGNER)
    )
    arguments = json.loads(msgspec.json.encode(translated.chat))["messages"][1]["tool_calls"][0]["function"][
        "arguments"
    ]
    assert arguments == '{"z":1,"a":{"b":[1,2],"text":"k: \\"v\\",  w"}}'


RESULTS = [
    pytest.param({"type": "tool_result", "tool_use_id": "call_1"}, "", id="B17 no content"),
    pytest.param(result("call_1"), "", id="B17 empty list"),
    pytest.param(result("call_1", ""), "", id="B17 empty string"),
    pytest.param(result("call_1", "no such file", is_error=True), "Error: no such file", id="B18 error"),
    pytest.param(result("call_1", "Error: no", is_error=True), "Error: no", id="B18 error that says so"),
    pytest.param(result("call_1", is_error=True), "Error: the tool failed", id="B18 error without words"),
    pytest.param(result("call_1", text("a"), text("b")), "a\nb", id="B19 texts"),
    pytest.param(result("call_1", text(""), text("b")), "b", id="B27 empty text"),
    pytest.param(
        result("call_1", SEARCH),
        '<search_result source="https://a.b" title="A &amp; B">\nfound\n</search_result>',
        id="B26 search result",
    ),
]


@pytest.mark.parametrize(("block", "content"), RESULTS)
def test_what_a_tool_answered_is_text(block: Any, content: str) -> None:
    assert round_of(block) == [answered("call_1", content)]


def test_b17_a_back_end_that_needs_words_gets_some() -> None:
    assert round_of(result(), profile=quirks(empty_tool_result="(no output)")) == [
        answered("call_1", "(no output)")
    ]


def test_b20_an_image_in_a_result_follows_in_a_user_message() -> None:
    assert round_of(result("call_1", text("seen"), image()), text("so?")) == [
        answered("call_1", "seen\n[image attached below]"),
        said_user(text("From the result of tool call call_1:"), image_part(), text("so?")),
    ]


def test_b21_images_of_several_results_come_after_the_last_tool_message() -> None:
    assert round_of(result("b", image()), result("a", image_url("https://i/a.png")), calls=("a", "b")) == [
        answered("a", "[image attached below]"),
        answered("b", "[image attached below]"),
        said_user(
            text("From the result of tool call a:"),
            image_part("https://i/a.png"),
            text("From the result of tool call b:"),
            image_part(),
        ),
    ]


def test_b20_back_ends_that_take_images_in_tool_messages_get_them_there() -> None:
    assert round_of(
        result("call_1", text("seen"), image()), profile=quirks(images_in_tool_messages=True)
    ) == [answered("call_1", [text("seen"), image_part()])]


def test_b22_an_image_url_is_kept() -> None:
    assert messages(user(image_url("https://i/a.png"), text("what?"))) == [
        said_user(image_part("https://i/a.png"), text("what?"))
    ]


def test_b23_a_model_without_vision_gets_a_placeholder_and_the_client_a_warning() -> None:
    translated = ask(user(text("see"), image(), image()), profile=quirks(vision=False))
    assert json.loads(msgspec.json.encode(translated.chat))["messages"] == [
        said_user("see\n\n[image omitted: model has no vision]\n\n[image omitted: model has no vision]")
    ]
    assert translated.warnings == ("images were replaced by a placeholder: the model has no vision",)


def test_b23_or_refuses() -> None:
    profile = quirks(vision=False, without_vision="refuse")
    assert refusal(user(image()), profile=profile) == "capability_rejected: image_block"


def test_b24_a_pdf_is_a_file_part() -> None:
    assert messages(user(document(PDF), text("sum up"))) == [said_user(PDF_PART, text("sum up"))]


def test_b24_a_document_at_an_address_is_fetched_by_back_ends_that_do_that() -> None:
    at_an_address = document({"type": "url", "url": "https://a/b.pdf"}, context="The contract.")
    assert messages(user(at_an_address), profile=quirks(file_urls="fetched")) == [
        said_user(
            text("<document>\nThe contract.\n</document>"),
            {"type": "file", "file": {"file_url": "https://a/b.pdf"}},
        )
    ]
    assert warnings(user(at_an_address), profile=quirks(file_urls="fetched")) == ()
    for takes_none in (quirks(), quirks(files=False, file_urls="fetched")):
        assert "[document at https://a/b.pdf]" in str(messages(user(at_an_address), profile=takes_none))


def test_b24_a_pdf_in_a_result_follows_in_a_user_message() -> None:
    assert round_of(result("call_1", document(PDF))) == [
        answered("call_1", "[document attached below]"),
        said_user(text("From the result of tool call call_1:"), PDF_PART),
    ]


DOCUMENTS = [
    pytest.param(
        document({"type": "text", "media_type": "text/plain", "data": "words"}, title='A "B"', context="why"),
        ['<document title="A &quot;B&quot;">\nwhy\nwords\n</document>'],
        id="B25 text",
    ),
    pytest.param(
        document({"type": "content", "content": [text("a"), image(), text("b")]}, title="T"),
        [text('<document title="T">\na\nb\n</document>'), image_part()],
        id="B25 content with an image",
    ),
    pytest.param(
        document({"type": "content", "content": "plain"}),
        ["<document>\nplain\n</document>"],
        id="B25 content as text",
    ),
    pytest.param(
        document({"type": "url", "url": "https://a/b.pdf"}),
        ["<document>\n[document at https://a/b.pdf]\n</document>"],
        id="B25 url",
    ),
    pytest.param(
        document({"type": "base64", "media_type": "text/plain", "data": "aGk="}),
        ["<document>\nhi\n</document>"],
        id="B25 text in base64",
    ),
    pytest.param(
        SEARCH,
        ['<search_result source="https://a.b" title="A &amp; B">\nfound\n</search_result>'],
        id="B26 search result",
    ),
]


@pytest.mark.parametrize(("block", "content"), DOCUMENTS)
def test_documents_become_text_and_images(block: Any, content: list[Any]) -> None:
    assert messages(user(block)) == [said_user(*content)]


def test_citations_that_nobody_will_make_are_warned_of() -> None:
    block = document({"type": "text", "media_type": "text/plain", "data": "x"}, citations={"enabled": True})
    assert warnings(user(block)) == ("citations are not produced by this model",)


def test_b31_a_back_end_that_wants_its_reasoning_back_gets_an_empty_one_at_least() -> None:
    turns = (user("hi"), assistant("first"), user("and"), assistant(call()), user(result()))
    assert messages(*turns, profile=quirks(replays_reasoning=True))[1:4:2] == [
        {"role": "assistant", "content": "first"},
        called(function(), reasoning_content=""),
    ]


def tool_round(id: str, **profile: Any) -> tuple[str, str]:
    sent = messages(user("hi"), assistant(call(id)), user(result(id)), profile=quirks(**profile))
    return sent[1]["tool_calls"][0]["id"], sent[2]["tool_call_id"]


def test_b34_an_id_that_carried_a_signature_fits_another_back_end() -> None:
    called_as, answered_as = tool_round(for_client("call_1__thought__" + "ab+/" * 40 + "=="))
    assert called_as == answered_as
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,40}", called_as)


@pytest.mark.parametrize("id", ["functions.Bash:0", "call 1", "é", "toolu_rp1_x", "call_1"])
def test_b35_an_id_that_clients_cannot_hold_comes_back_unchanged(id: str) -> None:
    wrapped = for_client(id)
    assert re.fullmatch(r"[A-Za-z0-9_-]+", wrapped)
    assert tool_round(wrapped) == (id, id)


@pytest.mark.parametrize(
    ("rule", "pattern"), [("openai", r"[A-Za-z0-9_-]{1,40}"), ("mistral", r"[A-Za-z0-9]{9}")]
)
def test_b36_long_ids_are_shortened_and_pairs_stay_pairs(rule: str, pattern: str) -> None:
    ids = ["x" * 79 + "1", "x" * 79 + "2"]
    turns = (user("hi"), assistant(*(call(id) for id in ids)), user(*(result(id, id) for id in ids)))
    sent = messages(*turns, profile=quirks(tool_call_ids=rule))
    called_as = [item["id"] for item in sent[1]["tool_calls"]]
    assert called_as == [item["tool_call_id"] for item in sent[2:]]
    assert len(set(called_as)) == 2
    assert all(re.fullmatch(pattern, id) for id in called_as)
    assert messages(*turns, profile=quirks(tool_call_ids=rule)) == sent


WRONG_TAG = "found using 'type' does not match any of the expected tags"
ORPHAN = " Each `tool_result` block must have a corresponding `tool_use` block in the previous message."
MISSING = " Each `tool_use` block must have a corresponding `tool_result` block in the next message."

REFUSALS = [
    pytest.param(
        [user(text("x"), result("call_9"))],
        "messages.0.content.1: unexpected `tool_use_id` found in `tool_result` blocks: call_9." + ORPHAN,
        id="B37 orphan",
    ),
    pytest.param(
        [user("hi"), assistant(call()), user("no")],
        "messages.1: `tool_use` ids were found without `tool_result` blocks immediately after: call_1."
        + MISSING,
        id="B38 unanswered",
    ),
    pytest.param(
        [
            user("hi"),
            assistant(call("a"), call("b"), call("c")),
            user(result("b")),
            assistant("x"),
            user("y"),
        ],
        "messages.1: `tool_use` ids were found without `tool_result` blocks immediately after: a, c."
        + MISSING,
        id="B38 partly unanswered",
    ),
    pytest.param(
        [user("hi"), assistant(call())],
        "messages.1: `tool_use` ids were found without `tool_result` blocks immediately after: call_1."
        + MISSING,
        id="B38 unanswered at the end",
    ),
    pytest.param(
        [user("hi"), assistant(call("a"), call("a")), user(result("a"))],
        "messages.1: `tool_use` ids must be unique",
        id="B39 twice in a turn",
    ),
    pytest.param(
        [user("hi"), assistant(call("a")), assistant(call("a")), user(result("a"))],
        "messages.2: `tool_use` ids must be unique",
        id="B39 twice in two turns that are one",
    ),
    pytest.param(
        [user("hi"), assistant(call("a")), user(result("a"), result("a"))],
        "messages.2.content.1: each tool_use must have a single result. "
        "Found multiple `tool_result` blocks with id: a",
        id="two results of one call",
    ),
    pytest.param(
        [user("hi"), assistant("Sure: ")],
        "This model does not support assistant message prefill. "
        "The conversation must end with a user message.",
        id="B40 prefill",
    ),
    pytest.param([user("")], "messages: text content blocks must be non-empty", id="nothing is said"),
    pytest.param(
        [user(text("x"), call())],
        "messages.0.content.1: `tool_use` blocks can only be in `assistant` messages",
        id="a user calls a tool",
    ),
    pytest.param(
        [user("x"), assistant(result())],
        "messages.1.content.0: `tool_result` blocks can only be in `user` messages",
        id="an assistant answers",
    ),
    pytest.param(
        [user(text("a"), {"type": "container_upload", "file_id": "f"})],
        "messages.0.content.1: container_upload blocks are not supported by this model",
        id="a block that chat has nothing for",
    ),
    pytest.param(
        [user(text("a"), thinking("s"))],
        "messages.0.content.1: `thinking` blocks can only be in `assistant` messages",
        id="a user thinks",
    ),
    pytest.param(
        [user("hi"), system(image())],
        "messages.1.content.0: `image` blocks can only be in `user` messages",
        id="the system shows a picture",
    ),
    pytest.param(
        [user({"type": "browser_state", "tabs": []})],
        "messages.0.content.0: `browser_state` blocks can only be in `tool_result` blocks",
        id="a browser's state outside of a result",
    ),
    pytest.param([{"role": "user"}], "messages.0.content: Field required", id="a user says nothing at all"),
    pytest.param(
        [user("hi"), {"role": "system", "content": None, "output_config": {}}],
        "messages.1: a system message needs `content` or `output_config`",
        id="a system turn without a word and without a setting",
    ),
    pytest.param(
        [user({"type": "image", "source": {"type": "file", "file_id": "f"}})],
        "messages.0.content.0.source: files of the Files API are not supported by this model",
        id="a file by its id",
    ),
]


@pytest.mark.parametrize(("turns", "words"), REFUSALS)
def test_a_broken_conversation_is_refused_in_anthropics_words(turns: list[Any], words: str) -> None:
    assert refusal(*turns) == words


TABS = [{"tab_id": "1", "title": "Orders", "url": "https://shop", "active": True}]
OPENED = [{"type": "tab_opened", "tab_id": "1"}]


def test_what_a_browser_looks_like_is_told_in_the_result() -> None:
    state = {"type": "browser_state", "tabs": TABS, "state_changes": OPENED}
    sent = messages(user("hi"), assistant(call()), user(result("call_1", text("clicked"), state)))
    assert sent[-1]["content"].splitlines() == [
        "clicked",
        "Open tabs: 1",
        json.dumps(TABS[0]),
        "Since the last call:",
        json.dumps(OPENED[0]),
    ]


def test_a_listing_of_an_mcp_server_is_left_out_with_a_warning() -> None:
    listing = {"type": "mcp_tool_listing", "mcp_server_name": "s", "tools": []}
    turns = (user("hi"), assistant(listing, text("ok")), user("so"))
    assert messages(*turns)[1] == {"role": "assistant", "content": "ok"}
    assert warnings(*turns) == ("an mcp_tool_listing is of no use to this model and was left out",)


UNTIL_THEN = {"clear_at": "next_user_message"}

CLEARED = [
    pytest.param(
        [user("hi"), system("hurry", **UNTIL_THEN)],
        [said_user("hi"), said_system("hurry")],
        id="it is there for the user's turn that it follows",
    ),
    pytest.param(
        [user("hi"), system("hurry", **UNTIL_THEN), assistant("ok"), system("slow"), user("so")],
        [said_user("hi"), {"role": "assistant", "content": "ok"}, said_system("slow"), said_user("so")],
        id="it is gone once the user speaks again",
    ),
    pytest.param(
        [user("hi"), system("hurry", **UNTIL_THEN), assistant(call()), user(result())],
        [said_user("hi"), called(function()), answered()],
        id="a tool's result is a turn of the user",
    ),
    pytest.param(
        [user("hi"), system("stay", clear_at="never"), assistant("ok"), user("so")],
        [said_user("hi"), said_system("stay"), {"role": "assistant", "content": "ok"}, said_user("so")],
        id="never",
    ),
    pytest.param(
        [user("hi"), system("stay", clear_at=None), assistant("ok"), user("so")],
        [said_user("hi"), said_system("stay"), {"role": "assistant", "content": "ok"}, said_user("so")],
        id="null is as good as nothing",
    ),
]


@pytest.mark.parametrize(("turns", "sent"), CLEARED)
def test_a_system_turn_holds_as_long_as_it_says(turns: list[Any], sent: list[Any]) -> None:
    assert messages(*turns) == sent


def test_the_effort_of_a_system_turn_outlives_its_text() -> None:
    quick = system("hurry", **UNTIL_THEN, output_config={"effort": "low"})
    assert chat(user("hi"), quick, assistant("ok"), user("so"))["reasoning_effort"] == "low"


def test_a_system_turn_may_set_the_effort_without_a_word() -> None:
    quiet = {"role": "system", "output_config": {"effort": "low"}}
    sent = chat(user("hi"), quiet)
    assert (sent["reasoning_effort"], sent["messages"]) == ("low", [said_user("hi")])


def test_b40_a_back_end_that_continues_gets_its_prefill() -> None:
    assert messages(user("hi"), assistant("Sure"), profile=quirks(prefill=True))[-1] == {
        "role": "assistant",
        "content": "Sure",
    }


def test_b45_an_unknown_block_type_is_refused_with_its_position() -> None:
    body = json.dumps(
        {"model": "m", "messages": [user(text("a"), {"type": "hologram"})], "max_tokens": 1}
    ).encode()
    with pytest.raises(
        InvalidRequest, match=r"messages\.0\.content\.1: Input tag 'hologram' found using 'type'"
    ):
        decode_request(body)


SERVER_RESULTS = [
    pytest.param(
        [{"type": "web_search_result", "title": "T", "url": "https://t", "encrypted_content": "zzz"}],
        "T https://t",
        id="B41 hits",
    ),
    pytest.param([], "(no results)", id="B41 empty"),
    pytest.param(
        {"type": "web_search_tool_result_error", "error_code": "max_uses_exceeded"},
        "max_uses_exceeded",
        id="B41 error",
    ),
]


@pytest.mark.parametrize(("content", "line"), SERVER_RESULTS)
def test_b41_what_a_server_tool_found_stays_in_the_context(content: Any, line: str) -> None:
    turns = (
        user("hi"),
        assistant(
            {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "q"}},
            {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": content},
            text("So."),
        ),
        user("thanks"),
    )
    content = f'[web_search {{"query": "q"}}]\n[web_search_tool_result]\n{line}\nSo.'
    assert messages(*turns)[1] == {"role": "assistant", "content": content}


def test_b42_a_tool_reference_exposes_the_tool() -> None:
    tools = [tool("ToolSearch"), tool("Deploy", defer_loading=True), tool("Other", defer_loading=True)]
    turns = (
        user("hi"),
        assistant(call("c", "ToolSearch")),
        user(result("c", {"type": "tool_reference", "tool_name": "Deploy"})),
    )
    sent = chat(*turns, tools=tools)
    assert sent["messages"][-1] == answered("c", "Tool Deploy is now available.")
    assert [item["function"]["name"] for item in sent["tools"]] == ["ToolSearch", "Deploy"]


def test_b43_cache_control_is_stripped_everywhere_and_any_number_is_fine() -> None:
    mark = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    turns = (
        user(text("a", **mark), {**image(), **mark}),
        assistant(text("b", **mark), {**call(), **mark}),
        user(result("call_1", text("c", **mark), **mark)),
    )
    translated = ask(*turns, system=[text("s", **mark)], tools=[tool(**mark)], **mark)
    assert b"cache_control" not in msgspec.json.encode(translated.chat)
    assert translated.warnings == ()


USER_ID = json.dumps({"device_id": "0" * 64, "account_uuid": "", "session_id": "1" * 36, "more": "x" * 60})


@pytest.mark.parametrize(
    ("user_id", "pattern"),
    [
        pytest.param(USER_ID, "[0-9a-f]{64}", id="B44 Claude Code's"),
        pytest.param("someone@example.com", "[0-9a-f]{64}", id="B44 odd characters"),
        pytest.param("user_1-a", "user_1-a", id="B44 fine as it is"),
    ],
)
def test_b44_the_user_is_short_safe_and_stable(user_id: str, pattern: str) -> None:
    sent = chat(user("hi"), metadata={"user_id": user_id})
    assert re.fullmatch(pattern, sent["user"])
    assert chat(user("hi"), metadata={"user_id": user_id}) == sent


def test_b44_the_session_is_the_key_of_a_prompt_cache() -> None:
    assert chat(user("hi"), session="s-1", profile=quirks(prompt_cache_key=True))["prompt_cache_key"] == "s-1"
    assert "prompt_cache_key" not in chat(user("hi"), session="s-1")


def long_history(rounds: int) -> bytes:
    turns: list[Any] = [user("hi")]
    for number in range(rounds):
        turns += [assistant(text("x"), call(f"c{number}")), user(result(f"c{number}", image("aGk=" * 200)))]
    return json.dumps({"model": "m", "max_tokens": 5, "messages": turns}).encode()


def best_of_five(body: bytes) -> float:
    request, context = decode_request(body), RequestContext(target="m", signer=SIGNER)
    times = []
    for _ in range(5):
        start = time.thread_time()
        translate_request(request, ModelProfile(), context)
        times.append(time.thread_time() - start)
    return min(times)


def test_b46_a_history_eight_times_as_long_takes_no_more_than_sixteen_times_as_long() -> None:
    assert best_of_five(long_history(800)) < 16 * best_of_five(long_history(100))


def test_b46_the_request_stays_as_it_is() -> None:
    request = decode_request(long_history(100))
    before = msgspec.json.encode(request)
    translate_request(request, ModelProfile(), RequestContext(target="m", signer=SIGNER))
    assert msgspec.json.encode(request) == before


# --- version 2026-10-21

NEW = "2026-10-21"
CITED = text("x", citations=[{"type": "char_location"}])


@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k"])
def test_a08_sampling_is_refused_by_the_new_version_and_taken_by_the_old(name: str) -> None:
    assert refusal(user("hi"), version=NEW, **{name: 1}) == f"{name}: Extra inputs are not permitted"
    assert ask(user("hi"), **{name: 1})


def test_a08_an_unknown_version_counts_as_the_newest() -> None:
    assert (
        refusal(user("hi"), version="2027-01-01", temperature=1)
        == "temperature: Extra inputs are not permitted"
    )


A_DOCUMENT = document({"type": "text", "media_type": "text/plain", "data": "words"})


def test_a09_a_document_of_the_assistant_is_refused_by_the_new_version() -> None:
    turns = (user("hi"), assistant(text("a"), A_DOCUMENT), user("so"))
    words = "messages.1.content.1: `document` blocks can only be in `user` messages"
    assert refusal(*turns, version=NEW) == words
    assert messages(*turns)[1] == {"role": "assistant", "content": "a<document>\nwords\n</document>"}


def test_a09_a_document_that_was_fetched_is_fine() -> None:
    fetched = {"type": "web_fetch_result", "url": "https://a", "content": A_DOCUMENT}
    block = {"type": "web_fetch_tool_result", "tool_use_id": "srvtoolu_1", "content": fetched}
    sent = messages(user("hi"), assistant(block), user("so"), version=NEW)
    assert sent[1]["content"] == "[web_fetch_tool_result]\nhttps://a\nwords\n"


@pytest.mark.parametrize(
    ("block", "at"),
    [
        pytest.param(CITED, "messages.0.content.0.citations", id="A10 text"),
        pytest.param(
            {**SEARCH, "content": [CITED]}, "messages.0.content.0.content.0.citations", id="A10 search result"
        ),
    ],
)
def test_a10_citations_by_the_user_are_refused_by_the_new_version(block: Any, at: str) -> None:
    assert refusal(user(block), version=NEW) == f"{at}: Extra inputs are not permitted"
    assert ask(user(block))


def test_a10_empty_citations_and_the_assistants_are_fine() -> None:
    assert ask(user(text("x", citations=[])), assistant(CITED), user("y"), version=NEW).warnings == ()


def test_a11_an_unknown_field_is_warned_of_and_ignored() -> None:
    assert warnings(user("hi"), foo=1) == ("field foo is not supported and was ignored",)


def test_warnings_are_fit_for_a_header() -> None:
    for sentence in warnings(
        user("hi"), **{"é\r\nx-evil: 1": 1}, context_management={"edits": [{"type": "é\n"}]}
    ):
        assert re.fullmatch(r"[ -~]+", sentence)
