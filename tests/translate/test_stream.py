"""Streams, case by case, under their numbers in wire.md, D. `script` also checks each one's invariants."""

import json
from typing import Any

import msgspec
import pytest
from msgspec import UNSET

from routeproxy.chat.completion import Choice, Chunk, CompletionUsage, Delta, FunctionDelta
from routeproxy.messages.events import Error, MessageDelta, MessageStart, SignatureDelta, accumulate, frame
from routeproxy.messages.reply import Message, StopDetails, ThinkingBlock, ToolUseBlock, Usage
from routeproxy.translate.stop_reasons import STOP_REASONS
from routeproxy.translate.tools import ToolNames
from tests.invariants import check
from tests.translate.answering import (
    blocks,
    call,
    calls,
    carried,
    chunk,
    ends,
    events_of,
    fails,
    script,
    text,
    thinks,
    tool,
    translator,
    uses,
    whole,
)


def message(*chunks: Chunk, **settings: Any) -> Message:
    answer = accumulate(events_of(*chunks, **settings))
    assert isinstance(answer, Message), answer
    return answer


def usage(*chunks: Chunk, **settings: Any) -> Usage:
    return next(event.usage for event in events_of(*chunks, **settings) if isinstance(event, MessageDelta))


def error(*chunks: Chunk, **settings: Any) -> str:
    return script(*chunks, **settings)[-1]


def signatures(*chunks: Chunk, **settings: Any) -> list[tuple[str, Any]]:
    """What the thinking blocks of an answer bring back."""
    return [
        carried(b.signature) for b in message(*chunks, **settings).content if isinstance(b, ThinkingBlock)
    ]


class TestText:
    def test_d01_each_chunk_of_text_is_one_delta(self) -> None:
        assert script(text("Hello"), text(", "), text("world"), ends()) == [
            "start 0 text",
            "delta 0 Hello",
            "delta 0 , ",
            "delta 0 world",
            "stop 0",
            "ends end_turn",
        ]

    def test_d02_a_role_without_text_opens_no_block(self) -> None:
        stream = translator()
        assert stream.feed(text("")) == []
        assert stream.feed(text(None)) == []
        assert stream.feed(Chunk()) == []
        assert [type(event).__name__ for event in stream.feed(text("hi"))] == [
            "MessageStart",
            "ContentBlockStart",
            "ContentBlockDelta",
        ]

    def test_d03_text_beside_an_empty_list_of_calls_is_text(self) -> None:
        assert script(chunk(Delta(content="hey", tool_calls=())), ends()) == [
            "start 0 text",
            "delta 0 hey",
            "stop 0",
            "ends end_turn",
        ]

    def test_d30_text_after_the_finish_reason_belongs_to_the_answer(self) -> None:
        assert script(text("a"), ends(), text("b")) == [
            "start 0 text",
            "delta 0 a",
            "delta 0 b",
            "stop 0",
            "ends end_turn",
        ]

    def test_d45_other_choices_are_ignored(self) -> None:
        other = Chunk(choices=(Choice(index=1, delta=Delta(content="no"), finish_reason="length"),))
        assert script(text("yes"), other, ends()) == script(text("yes"), ends())

    def test_content_in_parts_is_text_and_thinking(self) -> None:
        thought = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
        assert script(text([thought, {"type": "text", "text": "yes"}]), ends()) == [
            "start 0 thinking",
            "delta 0 hm",
            "signature 0",
            "stop 0",
            "start 1 text",
            "delta 1 yes",
            "stop 1",
            "ends end_turn",
        ]

    @pytest.mark.parametrize(
        ("pieces", "whole_text"),
        [
            pytest.param(["a\u2028b\u2029", "c"], "a\u2028b\u2029c", id="line separators"),
            pytest.param(["a\x00b"], "a\x00b", id="NUL"),
            pytest.param(["a\ud83d", "\ude00b"], "a😀b", id="an emoji cut in two"),
            pytest.param(["\ud83d", "\ude00"], "😀", id="an emoji cut in two, and nothing else"),
            pytest.param(["a\ud83d", "b"], "a\ud83db", id="a lone half"),
            pytest.param(["a\ud83d"], "a\ud83d", id="a lone half at the end"),
            pytest.param(["a\ude00"], "a\ude00", id="a lone second half"),
            pytest.param(["👩\u200d", "💻"], "👩\u200d💻", id="an emoji of several"),
        ],
    )
    def test_d56_every_character_arrives(self, pieces: list[str], whole_text: str) -> None:
        events = events_of(*map(text, pieces), ends())
        data = [json.loads(frame(event).split(b"data: ", 1)[1]) for event in events]
        deltas = [item["delta"]["text"] for item in data if item["type"] == "content_block_delta"]
        assert "".join(deltas) == whole_text

    def test_d55_a_delta_becomes_one_event_at_once_and_in_order(self) -> None:
        stream = translator()
        stream.feed(text("0"))
        for n in range(1, 10_000):
            (event,) = stream.feed(text(str(n)))
            assert event.delta.text == str(n)

    def test_an_answer_of_white_space_is_shown_as_it_is(self) -> None:
        assert script(text(" "), text("\n"), ends()) == [
            "start 0 text",
            "delta 0  \n",
            "stop 0",
            "ends end_turn",
        ]

    def test_white_space_before_text_comes_with_it(self) -> None:
        assert script(text("\n"), text("\n"), text("hi"), ends())[:2] == ["start 0 text", "delta 0 \n\nhi"]


class TestThinking:
    def test_d04_reasoning_then_text(self) -> None:
        assert script(thinks("Let me"), thinks(" see."), text("Yes."), ends()) == [
            "start 0 thinking",
            "delta 0 Let me",
            "delta 0  see.",
            "signature 0",
            "stop 0",
            "start 1 text",
            "delta 1 Yes.",
            "stop 1",
            "ends end_turn",
        ]

    def test_d05_an_empty_signed_thinking_block_is_accepted(self) -> None:
        empty = [{"type": "thinking", "thinking": "", "signature": "sig"}]
        assert script(chunk(Delta(thinking_blocks=empty)), text("hi"), ends()) == script(text("hi"), ends())

    def test_d06_reasoning_alone_is_an_answer(self) -> None:
        assert script(thinks("hm"), ends()) == [
            "start 0 thinking",
            "delta 0 hm",
            "signature 0",
            "stop 0",
            "ends end_turn",
        ]

    def test_d07_omitted_thinking_is_carried_and_not_shown(self) -> None:
        chunks = thinks("sec"), thinks("ret"), text("hi"), ends()
        assert script(*chunks, display="omitted") == [
            "start 0 thinking",
            "signature 0",
            "stop 0",
            "start 1 text",
            "delta 1 hi",
            "stop 1",
            "ends end_turn",
        ]
        assert signatures(*chunks, display="omitted") == [("text", "secret")]

    def test_shown_thinking_is_not_carried_twice(self) -> None:
        assert signatures(thinks("shown"), text("hi"), ends()) == [("text", None)]

    def test_a_client_that_switched_thinking_off_sees_none(self) -> None:
        assert script(thinks("hm"), text("hi"), ends(), thinking=False) == script(text("hi"), ends())

    def test_reasoning_sent_in_two_fields_is_shown_once(self) -> None:
        delta = Delta(reasoning="hm", reasoning_content="hm", reasoning_details=[{"text": "hm"}])
        assert script(chunk(delta), ends())[:2] == ["start 0 thinking", "delta 0 hm"]

    @pytest.mark.parametrize(
        "delta",
        [
            pytest.param(Delta(reasoning_content="hm"), id="DeepSeek, vLLM"),
            pytest.param(Delta(reasoning="hm"), id="OpenRouter, Ollama"),
            pytest.param(Delta(thinking_blocks=[{"type": "thinking", "thinking": "hm"}]), id="LiteLLM"),
            pytest.param(Delta(reasoning_details=[{"type": "reasoning.text", "text": "hm"}]), id="details"),
            pytest.param(Delta(content=[{"type": "thinking", "thinking": "hm"}]), id="Mistral"),
        ],
    )
    def test_reasoning_is_found_wherever_it_is(self, delta: Delta) -> None:
        assert script(chunk(delta), ends())[:2] == ["start 0 thinking", "delta 0 hm"]

    def test_blank_reasoning_makes_no_block(self) -> None:
        assert script(thinks("\n\n"), text("hi"), ends()) == script(text("hi"), ends())

    def test_white_space_between_two_thoughts_does_not_part_them(self) -> None:
        assert script(thinks("a"), text("\n"), thinks("b"), ends()) == [
            "start 0 thinking",
            "delta 0 a",
            "delta 0 b",
            "signature 0",
            "stop 0",
            "start 1 text",
            "delta 1 \n",
            "stop 1",
            "ends end_turn",
        ]

    def test_d11_the_first_delta_of_every_block_is_kept(self) -> None:
        assert script(
            text("a"), thinks("b"), text("c"), tool(0, "id", "read", '{"d":1}'), text("e"), ends("tool_calls")
        ) == [
            "start 0 text",
            "delta 0 a",
            "stop 0",
            "start 1 thinking",
            "delta 1 b",
            "signature 1",
            "stop 1",
            "start 2 text",
            "delta 2 c",
            "stop 2",
            "start 3 tool_use id read",
            'delta 3 {"d":1}',
            "stop 3",
            "start 4 text",
            "delta 4 e",
            "stop 4",
            "ends tool_use",
        ]

    def test_openrouters_details_come_back_in_one_piece(self) -> None:
        def details(**detail: Any) -> Chunk:
            return chunk(Delta(reasoning_details=[{"type": "reasoning.text", "index": 0, **detail}]))

        encrypted = {"type": "reasoning.encrypted", "data": "xyz"}
        last = chunk(Delta(reasoning_details=[encrypted]))
        chunks = details(text="a"), details(text="b"), details(signature="s"), last, text("hi"), ends()
        whole = {"type": "reasoning.text", "index": 0, "text": "ab", "signature": "s"}
        assert signatures(*chunks) == [("details", [whole, encrypted])]

    @pytest.mark.parametrize(
        "fields",
        [
            pytest.param({"provider_specific_fields": {"thought_signature": "sig"}}, id="LiteLLM"),
            pytest.param({"extra_content": {"google": {"thought_signature": "sig"}}}, id="Google"),
        ],
    )
    def test_geminis_thought_signature_stands_before_its_call(self, fields: dict[str, Any]) -> None:
        chunks = text("hi"), tool(0, "c1", "read", "{}", **fields), ends("tool_calls")
        assert script(*chunks)[3:] == [
            "start 1 thinking",
            "signature 1",
            "stop 1",
            "start 2 tool_use c1 read",
            "stop 2",
            "ends tool_use",
        ]
        assert signatures(*chunks) == [("thought_signatures", {"c1": "sig"})]

    def test_a_thought_signature_joins_the_thinking_before_its_call(self) -> None:
        signed = tool(0, "c1", "read", "{}", provider_specific_fields={"thought_signature": "sig"})
        assert signatures(thinks("hm"), signed, ends()) == [("thought_signatures", {"c1": "sig"})]

    def test_litellms_signature_in_the_id_is_taken_out_of_it(self) -> None:
        chunks = tool(0, "call_1__thought__c2ln", "read", "{}"), ends()
        assert "start 1 tool_use call_1 read" in script(*chunks)
        assert signatures(*chunks) == [("thought_signatures", {"call_1": "c2ln"})]

    def test_a_signature_is_one_delta_however_long(self) -> None:
        events = events_of(*[thinks(str(n)) for n in range(3000)], ends(), display="omitted")
        deltas = [event.delta for event in events if event.__struct_config__.tag == "content_block_delta"]
        assert [type(delta) for delta in deltas] == [SignatureDelta]


FAILURES = [word for word, reason in STOP_REASONS.items() if reason == "failed"]

ONE_CALL = ["start 0 tool_use c1 read", 'delta 0 {"path":"a"}', "stop 0", "ends tool_use"]
TWO_CALLS = [
    "start 0 tool_use c1 read",
    'delta 0 {"a":1}',
    "stop 0",
    "start 1 tool_use c2 write",
    'delta 1 {"b":2}',
    "stop 1",
    "ends tool_use",
]


def joined(lines: list[str]) -> list[str]:
    """`lines` with all deltas of a block in one."""
    out: list[str] = []
    for line in lines:
        kind, index, *rest = line.split(" ", 2)
        if kind == "delta" and out and out[-1].startswith(f"delta {index} "):
            out[-1] += rest[0]
        else:
            out.append(line)
    return out


class TestToolCalls:
    def test_d08_arguments_in_pieces_are_one_block(self) -> None:
        assert script(
            tool(0, "c1", "read", ""),
            tool(0, arguments='{"pa'),
            tool(0, arguments='th":"a"}'),
            ends("tool_calls"),
        ) == [
            "start 0 tool_use c1 read",
            'delta 0 {"pa',
            'delta 0 th":"a"}',
            "stop 0",
            "ends tool_use",
        ]

    def test_d09_a_call_in_one_chunk(self) -> None:
        assert script(tool(0, "c1", "read", '{"path":"a"}'), ends("tool_calls")) == ONE_CALL

    def test_d10_text_and_a_call_in_one_chunk(self) -> None:
        both = chunk(Delta(content="hi", tool_calls=(call(0, "c1", "read", '{"path":"a"}'),)))
        assert blocks(message(both, ends("tool_calls"))) == [
            ("text", "hi"),
            ("tool_use", "read", '{"path":"a"}'),
        ]

    @pytest.mark.parametrize(
        "chunks",
        [
            pytest.param(
                [tool(0, "c1", "read", '{"a":'), tool(0, arguments="1}"), tool(1, "c2", "write", '{"b":2}')],
                id="D12 one after the other",
            ),
            pytest.param(
                [
                    tool(0, "c1", "read", ""),
                    tool(1, "c2", "write", ""),
                    tool(0, arguments='{"a"'),
                    tool(1, arguments='{"b"'),
                    tool(0, arguments=":1}"),
                    tool(1, arguments=":2}"),
                ],
                id="D13 interleaved",
            ),
            pytest.param(
                [calls(call(0, "c1", "read", '{"a":1}'), call(1, "c2", "write", '{"b":2}'))],
                id="D14 in one chunk",
            ),
            pytest.param(
                [calls(call(None, "c1", "read", '{"a":1}'), call(None, "c2", "write", '{"b":2}'))],
                id="D14 in one chunk without indexes",
            ),
            pytest.param(
                [tool(0, "c1", "read", '{"a":1}'), tool(0, "c2", "write", '{"b":2}')],
                id="D15 the same index again",
            ),
            pytest.param(
                [
                    tool(0, "c1", "read", ""),
                    tool(0, "c2", "write", '{"b":2}'),
                    tool(0, "c1", None, '{"a":1}'),
                ],
                id="D16 all at index 0, told apart by id",
            ),
            pytest.param(
                [
                    tool(None, "c1", "read"),
                    tool(None, None, None, '{"a":1}'),
                    tool(None, "c2", "write"),
                    tool(None, None, None, '{"b":2}'),
                ],
                id="D16 no index, by order",
            ),
            pytest.param(
                [
                    calls(call(1, "c2", "write", '{"b":'), call(0, "c1", "read", '{"a":1}')),
                    tool(1, arguments="2}"),
                ],
                id="told in the order of their indexes",
            ),
        ],
    )
    def test_parallel_calls(self, chunks: list[Chunk]) -> None:
        assert joined(script(*chunks, ends("tool_calls"))) == TWO_CALLS

    def test_d17_a_name_may_come_with_each_piece(self) -> None:
        assert (
            joined(
                script(
                    tool(0, "c1", "read", '{"pa'),
                    tool(0, "c1", "read", 'th":'),
                    tool(0, "", "read", '"a"}'),
                    tool(0, None, "read", ""),
                    ends("tool_calls"),
                )
            )
            == ONE_CALL
        )

    @pytest.mark.parametrize("name", ["", None, 7, ["read"], "  "])
    @pytest.mark.parametrize("finish_reason", ["tool_calls", "stop"])
    def test_d18_a_call_without_a_name_is_a_failure(self, name: Any, finish_reason: str) -> None:
        nameless = "error api_error: upstream called a tool without a name"
        assert script(tool(0, "c1", name, '{"a":1}'), ends(finish_reason)) == [nameless]
        assert script(text("hi"), tool(0, "c1", name), ends(finish_reason))[-1] == nameless
        assert script(text("hi"), tool(0, None, name, '{"a":1}'), ends(finish_reason))[-1] == nameless

    def test_d18_of_an_answer_that_was_cut_it_is_only_the_end(self) -> None:
        assert script(text("hi"), tool(0, "c1", None), ends("length"))[-1] == "ends max_tokens"
        assert script(text("hi"), tool(0, "c1", None), ends("content_filter"))[-1] == "ends refusal"

    def test_a_call_with_nothing_in_it_is_no_call(self) -> None:
        assert script(tool(0, None, None, ""), text("hi"), ends())[-1] == "ends end_turn"
        assert script(tool(0, "", "", None), *[tool(0, "c1", "read", '{"path":"a"}'), ends()]) == ONE_CALL

    def test_d19_a_nameless_call_beside_another_is_a_failure(self) -> None:
        nameless = tool(0, "c0", "", '{"a":1}')
        assert script(nameless, tool(1, "c1", "read", '{"path":"a"}'), ends("tool_calls")) == [
            *ONE_CALL[:2],
            "error api_error: upstream called a tool without a name",
        ]

    def test_d20_the_id_may_come_after_the_name(self) -> None:
        without_function = calls(call(0, "c1").__class__(0, "c1"))
        assert (
            joined(
                script(tool(0, None, "read", '{"path":'), without_function, tool(0, arguments='"a"}'), ends())
            )
            == ONE_CALL
        )

    def test_the_name_may_come_after_the_arguments(self) -> None:
        assert script(tool(0, "c1", None, '{"path":"a"}'), tool(0, None, "read"), ends()) == ONE_CALL

    def test_d21_an_id_that_never_comes_is_minted(self) -> None:
        assert script(tool(0, None, "read", '{"path":"a"}'), ends())[0] == "start 0 tool_use toolu_1 read"

    def test_d22_the_second_of_two_equal_ids_is_minted_anew(self) -> None:
        lines = script(tool(0, "c1", "read", '{"a":1}'), tool(1, "c1", "write", '{"b":2}'), ends())
        assert [line for line in lines if line.startswith("start")] == [
            "start 0 tool_use c1 read",
            "start 1 tool_use toolu_1 write",
        ]

    def test_an_id_of_an_earlier_turn_is_minted_anew(self) -> None:
        lines = script(tool(0, "call_0", "read", "{}"), ends(), tool_ids=frozenset({"call_0", "toolu_1"}))
        assert lines[0] == "start 0 tool_use toolu_2 read"

    def test_an_id_that_clients_refuse_is_wrapped(self) -> None:
        assert script(tool(0, "functions.read:0", "read", "{}"), ends())[0].startswith(
            "start 0 tool_use toolu_rp1_"
        )

    def test_a_new_id_with_each_piece_is_still_one_call(self) -> None:
        chunks = tool(0, "c1", "read", '{"pa'), tool(0, "c2", None, 'th":"a"}'), ends()
        assert joined(script(*chunks)) == ONE_CALL

    @pytest.mark.parametrize(
        "pieces",
        [
            pytest.param([{"path": "a"}], id="an object"),
            pytest.param([{"path": ""}, {"path": "a"}], id="objects, each more complete"),
            pytest.param([json.dumps('{"path":"a"}')], id="JSON in a JSON string"),
            pytest.param(['"{\\"path\\":', '\\"a\\"}"'], id="JSON in a JSON string, in pieces"),
            pytest.param(['{"pa', '{"path":"', '{"path":"a"}'], id="snapshots"),
            pytest.param(['{"path":', '{"path":"a"}'], id="snapshots that may be a nested object"),
            pytest.param(['{"pa', 'th":"a"}', '{"path":"a"}'], id="the whole once more at the end"),
            pytest.param(['{"path":"a"}', '{"path":"a"}'], id="twice the same"),
            pytest.param(["{}", '{"path":"a"}'], id="an empty object first"),
            pytest.param(['{"path":"a"}}'], id="a brace too many"),
            pytest.param(['{"path":"a"'], id="a brace too few"),
        ],
    )
    def test_d23_arguments_in_odd_shapes_are_one_object(self, pieces: list[Any]) -> None:
        chunks = [
            tool(0, "c1", "read", ""),
            *[tool(0, arguments=piece) for piece in pieces],
            ends("tool_calls"),
        ]
        assert blocks(message(*chunks)) == [("tool_use", "read", '{"path":"a"}')]

    def test_a_nested_object_that_begins_like_the_outer_one_is_no_snapshot(self) -> None:
        chunks = tool(0, "c1", "read", '{"q":'), tool(0, arguments='{"q":1}'), tool(0, arguments="}"), ends()
        assert blocks(message(*chunks)) == [("tool_use", "read", '{"q":{"q":1}}')]

    def test_line_breaks_inside_strings_are_escaped(self) -> None:
        chunks = (
            tool(0, "c1", "read", '{\n"path":"a'),
            tool(0, arguments="\nb\\"),
            tool(0, arguments='"c"}'),
            ends(),
        )
        (block,) = message(*chunks).content
        assert isinstance(block, ToolUseBlock)
        assert json.loads(bytes(block.input)) == {"path": 'a\nb"c'}

    @pytest.mark.parametrize("arguments", ["", None, "null", "{}", {}, [], "[]", '""'])
    def test_d24_no_arguments_are_an_empty_object(self, arguments: Any) -> None:
        assert script(tool(0, "c1", "read", arguments), ends("tool_calls")) == [
            "start 0 tool_use c1 read",
            "stop 0",
            "ends tool_use",
        ]

    def test_d25_arguments_cut_by_the_limit_are_shown_as_far_as_they_go(self) -> None:
        assert script(tool(0, "c1", "write", '{"text":"long'), ends("length")) == [
            "start 0 tool_use c1 write",
            'delta 0 {"text":"long',
            "stop 0",
            "ends max_tokens",
        ]

    @pytest.mark.parametrize(
        "arguments",
        [
            pytest.param('{"text":"long', id="cut in a string"),
            pytest.param('{"n":12', id="cut in a number"),
            pytest.param('{"a":1,', id="cut after a comma"),
            pytest.param("not json", id="no JSON"),
            pytest.param('{"a":1}{"b":2}', id="two objects"),
            pytest.param("[1]", id="a list"),
            pytest.param('"text"', id="a string"),
            pytest.param('{"a":' + "[" * 5000 + "]" * 5000 + "}", id="nested without end"),
        ],
    )
    @pytest.mark.parametrize("finish_reason", ["tool_calls", "stop", "content_filter"])
    def test_d26_arguments_that_are_no_object_are_an_error(self, arguments: str, finish_reason: str) -> None:
        assert error(tool(0, "c1", "write", arguments), ends(finish_reason)).startswith("error api_error: ")

    def test_d26_arguments_that_lack_only_brackets_are_repaired(self) -> None:
        chunks = tool(0, "c1", "write", '{"a":[{"b":"c"'), ends("tool_calls")
        assert blocks(message(*chunks)) == [("tool_use", "write", '{"a":[{"b":"c"}]}')]

    def test_d27_stop_with_a_call_is_tool_use(self) -> None:
        assert script(tool(0, "c1", "read", '{"path":"a"}'), ends("stop")) == ONE_CALL

    @pytest.mark.parametrize("finish_reason", ["tool_calls", "function_call", "TOOL_CALL"])
    def test_d28_tool_calls_without_a_call_is_a_failure(self, finish_reason: str) -> None:
        no_call = "error api_error: upstream said that it calls a tool, and there is no call that can be read"
        assert script(text("hi"), ends(finish_reason))[-1] == no_call
        assert script(ends(finish_reason)) == [no_call]

    def test_a_call_that_was_cut_is_not_closed(self) -> None:
        chunks = tool(0, "c1", "write", '{"a":[{"b":"c"'), ends("length")
        assert script(*chunks) == [
            "start 0 tool_use c1 write",
            'delta 0 {"a":[{"b":"c"',
            "stop 0",
            "ends max_tokens",
        ]

    def test_d29_white_space_around_calls_is_dropped(self) -> None:
        assert (
            script(
                text("\n"),
                tool(0, "c1", "read", '{"a":1}'),
                text("\n\n"),
                tool(1, "c2", "write", '{"b":2}'),
                text(" "),
                ends(),
            )
            == TWO_CALLS
        )

    def test_d29_text_after_a_call_is_a_block(self) -> None:
        assert blocks(message(tool(0, "c1", "read", "{}"), text("\n"), text("Done."), ends())) == [
            ("tool_use", "read", "{}"),
            ("text", "\nDone."),
        ]

    def test_text_waits_for_arguments_that_are_not_finished(self) -> None:
        chunks = (
            tool(0, "c1", "read", '{"a"'),
            text("so"),
            thinks("hm"),
            text("!"),
            tool(0, arguments=":1}"),
            ends(),
        )
        assert blocks(message(*chunks)) == [
            ("tool_use", "read", '{"a":1}'),
            ("text", "so"),
            ("thinking", "hm"),
            ("text", "!"),
        ]

    def test_d57_arguments_are_shown_as_they_come(self) -> None:
        stream = translator()
        stream.feed(tool(0, "c1", "write", ""))
        pieces = ["{", '"te', 'xt":', '"a', "b", '"}']
        shown = [[event.delta.partial_json for event in stream.feed(tool(0, arguments=p))] for p in pieces]
        assert shown == [[], ['{"te'], ['xt":'], ['"a'], ["b"], ['"}']]

    @pytest.mark.parametrize("wire", ["bash", "BASH", "default_api:Bash", "functions.bash", "Bash"])
    def test_c07_a_name_that_the_model_bent_is_straightened(self, wire: str) -> None:
        assert script(tool(0, "c1", wire, "{}"), ends())[0] == "start 0 tool_use c1 Bash"

    def test_c14_a_client_that_wants_one_call_gets_the_first(self) -> None:
        chunks = (
            calls(call(0, "c1", "read", '{"path":"a"}'), call(1, "c2", "write", '{"b":2}')),
            ends("tool_calls"),
        )
        assert script(*chunks, parallel=False) == ONE_CALL

    def test_a_call_of_a_tool_that_was_not_declared_goes_to_the_client(self) -> None:
        """It has more tools than it declares, and answers a call of one that it has not."""
        assert blocks(message(tool(0, "c1", "fly", '{"to":"a"}'), ends("tool_calls"))) == [
            ("tool_use", "fly", '{"to":"a"}')
        ]

    def test_beside_other_content_too(self) -> None:
        chunks = (text("hi"), tool(0, "c0", "fly", "{}"), tool(1, "c1", "read", "{}"), ends("tool_calls"))
        assert [block[:2] for block in blocks(message(*chunks))] == [
            ("text", "hi"),
            ("tool_use", "fly"),
            ("tool_use", "read"),
        ]

    def test_what_a_server_leaves_of_the_harmony_format_is_no_part_of_a_name(self) -> None:
        chunks = (tool(0, "c1", "Bash<|channel|>commentary", "{}"), ends("tool_calls"))
        assert script(*chunks)[0] == "start 0 tool_use c1 Bash"

    def test_without_names_any_tool_passes(self) -> None:
        stream = translator(names=None)
        stream.feed(tool(0, "c1", "fly", "{}"))
        stream.feed(ends())
        assert not isinstance(stream.finish()[-1], Error)

    def test_a_long_name_comes_back_in_full(self) -> None:
        name = "mcp__a_very_long_server_name__" + "x" * 60
        names = ToolNames([name])
        stream = translator(names=names)
        events = [
            *stream.feed(tool(0, "c1", names.wire_name(name), "{}")),
            *stream.feed(ends()),
            *stream.finish(),
        ]
        assert check(events) == []

    def test_the_old_function_call_is_a_call(self) -> None:
        def piece(name: str | None, arguments: str) -> Chunk:
            return chunk(Delta(function_call=FunctionDelta(name, arguments)))

        chunks = piece("read", ""), piece(None, '{"path":'), piece(None, '"a"}'), ends("function_call")
        assert blocks(message(*chunks)) == [("tool_use", "read", '{"path":"a"}')]


class TestEndings:
    @pytest.mark.parametrize(
        ("finish_reason", "stop_reason"),
        [(word, reason) for word, reason in STOP_REASONS.items() if reason not in ("failed", "tool_use")]
        + [("STOP", "end_turn"), ("MAX_TOKENS", "max_tokens")],
    )
    def test_finish_reasons(self, finish_reason: str, stop_reason: str) -> None:
        assert script(text("hi"), ends(finish_reason))[-1] == f"ends {stop_reason}"

    @pytest.mark.parametrize("finish_reason", [*FAILURES, "MALFORMED_FUNCTION_CALL"])
    def test_a_failure_is_an_error_and_no_stop_reason(self, finish_reason: str) -> None:
        assert script(ends(finish_reason)) == [f"error api_error: upstream failed: {finish_reason}"]
        assert error(thinks("hm"), ends(finish_reason)).startswith("error api_error")

    @pytest.mark.parametrize("finish_reason", [*FAILURES, "MALFORMED_FUNCTION_CALL", "OTHER", "NO_IMAGE"])
    def test_it_is_one_after_text_and_after_a_call_too(self, finish_reason: str) -> None:
        failed = f"error api_error: upstream failed: {finish_reason}"
        assert script(text("hi"), ends(finish_reason)) == ["start 0 text", "delta 0 hi", failed]
        assert script(tool(0, "c1", "read", '{"path":"a"}'), ends(finish_reason)) == [*ONE_CALL[:2], failed]

    @pytest.mark.parametrize("finish_reason", ["never heard of it", "MALFORMED_SOMETHING", True, {"a": 1}])
    def test_a_finish_reason_that_is_not_known_is_a_failure(self, finish_reason: Any) -> None:
        unknown = f"upstream ended its answer with a finish reason that is not known: {finish_reason}"
        assert script(text("hi"), ends(finish_reason))[-1] == f"error api_error: {unknown}"
        assert script(ends(finish_reason)) == [f"error api_error: {unknown}"]

    @pytest.mark.parametrize("no_reason", ["", "null", "not_finished", False, 0])
    def test_what_says_that_it_goes_on_is_no_finish_reason(self, no_reason: Any) -> None:
        assert script(text("hi"), ends(no_reason), ends("length"))[-1] == "ends max_tokens"
        assert script(text("hi"), ends(no_reason))[-1].startswith("error api_error: upstream closed")

    @pytest.mark.parametrize(
        ("first", "second", "end"),
        [
            ("stop", "MALFORMED_FUNCTION_CALL", "error"),
            ("error", "stop", "error"),
            ("length", "stop", "ends max_tokens"),
            ("content_filter", "stop", "ends refusal"),
            ("stop", "length", "ends max_tokens"),
            ("abort", "length", "error"),
        ],
    )
    def test_of_two_finish_reasons_the_worse_counts(self, first: str, second: str, end: str) -> None:
        assert script(text("hi"), ends(first), ends(second))[-1].startswith(end)

    def test_an_empty_stop_is_an_empty_message(self) -> None:
        assert script(ends("stop")) == ["ends end_turn"]

    def test_d35_an_end_without_a_finish_reason_is_an_error(self) -> None:
        closed = "error api_error: upstream closed the stream before completing"
        assert script(text("hi")) == ["start 0 text", "delta 0 hi", closed]
        assert script() == [closed]
        assert error(tool(0, "c1", "read", "{}")) == closed

    @pytest.mark.parametrize(
        ("pictures", "left_out"),
        [
            (chunk(Delta(images=[{"type": "image_url"}])), "images"),
            (chunk(Delta(audio={"id": "a", "data": "UklGRg=="})), "audio"),
            (text([{"type": "image_url", "image_url": {"url": "data:"}}]), "image_url"),
            (text({"type": "input_audio"}), "input_audio"),
            (chunk(Delta(reasoning_content="hm", images=["x"])), "images"),
            (chunk(Delta(content=" ", images=["x"])), "images"),
        ],
    )
    def test_an_answer_of_nothing_but_pictures_or_sound_is_a_failure(
        self, pictures: Chunk, left_out: str
    ) -> None:
        nothing = f"api_error: upstream answered with nothing that can be handed on: {left_out}"
        assert error(pictures, ends()) == f"error {nothing}"
        assert script(pictures, ends("content_filter"))[-1] == "ends refusal"
        stream = translator()
        stream.feed(text("Look:"))
        stream.feed(pictures)
        stream.feed(ends())
        assert [type(event).__name__ for event in stream.finish()][-1] == "MessageStop"
        assert stream.warnings == [f"the answer had more in it than can be handed on: {left_out}"]

    @pytest.mark.parametrize("content", [7, True, {"a": 1}, ["a", 7], [{"type": 7}], [["a"]]])
    def test_content_that_nobody_can_read_is_a_failure(self, content: Any) -> None:
        unreadable = "error api_error: upstream answered with content that cannot be read"
        assert script(text("hi"), text(content), text("no"), ends())[-1] == unreadable

    def test_a_part_that_cites_is_beside_the_answer(self) -> None:
        parts = [{"type": "text", "text": "so"}, {"type": "reference", "reference_ids": [1]}, None, ""]
        assert script(text(parts), ends()) == ["start 0 text", "delta 0 so", "stop 0", "ends end_turn"]

    @pytest.mark.parametrize(
        ("reported", "event"),
        [
            ({"message": "boom", "code": 500}, "api_error: boom"),
            ("boom", "api_error: boom"),
            ({"message": "slow down", "code": 429}, "rate_limit_error: slow down"),
            ({"message": "slow down", "code": "rate_limit_exceeded"}, "rate_limit_error: slow down"),
            ({"message": "busy", "type": "overloaded_error"}, "overloaded_error: busy"),
            ({"message": "The engine is overloaded"}, "overloaded_error: The engine is overloaded"),
            ({"message": "too long", "code": "context_length_exceeded"}, "invalid_request_error: too long"),
            ({"message": "late", "code": "504"}, "timeout_error: late"),
            (
                {"message": "bad key sk-123", "code": 401},
                "api_error: upstream rejected the proxy's credentials",
            ),
            ({"message": None, "code": []}, "api_error: upstream reported an error"),
            (["?"], "api_error: upstream reported an error"),
        ],
    )
    def test_d36_an_error_in_a_chunk_ends_the_stream(self, reported: Any, event: str) -> None:
        assert script(text("hi"), fails(reported), text("no"), ends()) == [
            "start 0 text",
            "delta 0 hi",
            f"error {event}",
        ]

    def test_d39_an_error_before_anything_else_stands_alone(self) -> None:
        (event,) = translator().feed(fails({"message": "boom"}))
        assert isinstance(event, Error)

    def test_a_long_error_message_is_cut(self) -> None:
        assert len(error(fails("x" * 100_000))) < 2048

    def test_d46_a_refusal_is_text_and_a_stop_reason(self) -> None:
        answer = message(chunk(Delta(refusal="I can't")), chunk(Delta(refusal=" do that.")), ends("stop"))
        assert blocks(answer) == [("text", "I can't do that.")]
        assert answer.stop_reason == "refusal"
        assert answer.stop_details == StopDetails(explanation="I can't do that.")

    def test_d47_a_content_filter_without_text_is_an_empty_refusal(self) -> None:
        answer = message(ends("content_filter"))
        assert (answer.content, answer.stop_reason, answer.stop_details) == ((), "refusal", StopDetails())


class TestStopStrings:
    @pytest.mark.parametrize("field", ["stop_reason", "matched_stop", "stop_str"])
    def test_a_call_that_the_back_end_cut_at_one_is_no_call_to_run(self, field: str) -> None:
        chunks = text("hi"), tool(0, "c1", "write", '{"text":"a'), ends("stop", **{field: "END"})
        assert script(*chunks, stop_sequences=("END",))[-4:] == [
            "start 1 tool_use c1 write",
            'delta 1 {"text":"a',
            "stop 1",
            "ends max_tokens",
        ]
        assert script(*chunks)[-1].startswith("error")
        whole_call = tool(0, "c1", "read", '{"path":"a"}'), ends("stop", **{field: "END"})
        assert script(*whole_call, stop_sequences=("END",)) == ONE_CALL

    def test_d48_a_stop_string_is_found_across_chunks(self) -> None:
        assert script(
            text("one "),
            text("EN"),
            text("D two"),
            text("three"),
            ends("length"),
            scan=("END",),
            stop_sequences=("END",),
        ) == ["start 0 text", "delta 0 one ", "stop 0", "ends stop_sequence 'END'"]

    def test_what_only_began_like_a_stop_string_is_text(self) -> None:
        assert joined(script(text("one EN"), text("E"), text(" EN"), ends(), scan=("END",))) == [
            "start 0 text",
            "delta 0 one ENE EN",
            "stop 0",
            "ends end_turn",
        ]

    def test_the_stop_string_that_is_complete_first_counts(self) -> None:
        assert script(text("xab"), text("cd"), ends(), scan=("abcd", "bc"))[-1] == "ends stop_sequence 'bc'"

    def test_nothing_counts_after_a_stop_string_but_usage(self) -> None:
        chunks = text("a.b"), thinks("hm"), tool(0, "c1", "read", "{}"), ends("tool_calls"), uses(10, 5)
        assert script(*chunks, scan=(".",)) == [
            "start 0 text",
            "delta 0 a",
            "stop 0",
            "ends stop_sequence '.'",
        ]
        assert usage(*chunks, scan=(".",)).output_tokens == 5

    def test_after_a_stop_string_the_answer_is_whole(self) -> None:
        assert script(text("a.b"), fails("boom"), scan=(".",))[-1] == "ends stop_sequence '.'"

    def test_a_stop_string_at_the_start_leaves_an_empty_message(self) -> None:
        assert script(text("END"), ends(), scan=("END",)) == ["ends stop_sequence 'END'"]

    def test_a_stop_string_after_a_call_still_runs_the_call(self) -> None:
        chunks = tool(0, "c1", "read", '{"path":'), text("a.b"), tool(0, arguments='"a"}'), ends()
        assert script(*chunks, scan=(".",))[-1] == "ends tool_use"

    def test_vllms_stop_reason_is_the_stop_string(self) -> None:
        chunks = text("a"), ends("stop", stop_reason="END")
        assert script(*chunks, stop_sequences=("END",))[-1] == "ends stop_sequence 'END'"
        assert script(*chunks)[-1] == "ends end_turn"
        assert (
            script(text("a"), ends("stop", stop_reason=128009), stop_sequences=("END",))[-1]
            == "ends end_turn"
        )


class TestUsage:
    def test_d31_usage_may_come_after_the_end(self) -> None:
        assert usage(text("hi"), ends(), uses(100, 20)) == Usage(input_tokens=100, output_tokens=20)

    def test_d32_the_last_usage_counts(self) -> None:
        assert usage(text("hi"), uses(100, 1), text("!"), uses(100, 2), ends()).output_tokens == 2

    def test_d33_unknown_output_is_estimated_and_unknown_input_left_out(self) -> None:
        unknown = usage(text("four words of text"), ends())
        assert (unknown.input_tokens, unknown.output_tokens) == (UNSET, 5)

    @pytest.mark.parametrize("zeros", [uses(0, 0), uses(None, None), uses("many", -1), uses(True, 1.5e400)])
    def test_numbers_that_cannot_be_true_are_left_out(self, zeros: Chunk) -> None:
        assert usage(text("four words of text"), ends(), zeros) == Usage(output_tokens=5)

    @pytest.mark.parametrize(
        ("reported", "expected"),
        [
            pytest.param(uses(100, 5, cached=60), (40, 60, 0), id="D34 OpenAI"),
            pytest.param(uses(100, 5, prompt_cache_hit_tokens=60), (40, 60, 0), id="DeepSeek"),
            pytest.param(
                uses(100, 5, cache_read_input_tokens=60, cache_creation_input_tokens=30),
                (10, 60, 30),
                id="LiteLLM",
            ),
            pytest.param(uses(100, 5, cache_creation_input_tokens=30), (70, UNSET, 30), id="only written"),
            pytest.param(uses(100, 5, cached=100), (0, 100, 0), id="all cached"),
            pytest.param(uses(100, 5, cached=400), (0, 100, 0), id="more cached than there is"),
            pytest.param(uses(100, 5), (100, UNSET, UNSET), id="nothing known of caches"),
        ],
    )
    def test_cached_tokens_are_no_input_tokens(self, reported: Chunk, expected: tuple[Any, ...]) -> None:
        got = usage(text("hi"), ends(), reported)
        assert (got.input_tokens, got.cache_read_input_tokens, got.cache_creation_input_tokens) == expected

    def test_reasoning_is_part_of_the_output(self) -> None:
        got = usage(text("hi"), ends(), uses(10, 50, reasoning=40))
        assert got.output_tokens == 50
        assert got.output_tokens_details is not UNSET
        assert got.output_tokens_details.thinking_tokens == 40

    @pytest.mark.parametrize(
        ("told", "shown"),
        [
            ({"prompt": 100, "completion": 1}, Usage(input_tokens=100, output_tokens=1)),
            (
                {"prompt": 100, "completion": 3, "cached": 60},
                Usage(
                    input_tokens=40,
                    cache_read_input_tokens=60,
                    cache_creation_input_tokens=0,
                    output_tokens=1,
                ),
            ),
            ({"prompt": 0, "completion": 0}, Usage(input_tokens=7, output_tokens=1)),
        ],
    )
    def test_message_start_has_the_counts_that_came_before_the_text(
        self, told: dict[str, int], shown: Usage
    ) -> None:
        first = msgspec.structs.replace(text("hi"), usage=uses(**told).usage)
        start = events_of(first, ends(), uses(100, 5))[0]
        assert isinstance(start, MessageStart)
        assert start.message.usage == shown

    def test_a_later_report_without_details_does_not_take_them_back(self) -> None:
        first = msgspec.structs.replace(text("hi"), usage=uses(100, 1, cached=60).usage)
        told = usage(first, ends(), uses(100, 5))
        assert (told.input_tokens, told.cache_read_input_tokens, told.output_tokens) == (40, 60, 5)

    def test_d54_message_start_names_the_model_asked_for_and_an_estimate(self) -> None:
        served = Chunk(choices=(Choice(delta=Delta(content="hi")),), model="gpt-5-2026")
        start = events_of(served, ends(), uses(100, 5, cached=40))[0]
        assert isinstance(start, MessageStart)
        assert start.message.model == "claude-opus-4-8"
        assert start.message.usage == Usage(input_tokens=7, output_tokens=1)

    def test_an_unknown_estimate_is_no_zero(self) -> None:
        start = events_of(text("hi"), ends(), input_tokens=None)[0]
        assert isinstance(start, MessageStart)
        assert start.message.usage.input_tokens == 1

    def test_speed_is_reported_when_asked(self) -> None:
        assert usage(text("hi"), ends(), speed="standard").speed == "standard"


def test_d53_a_whole_completion_becomes_a_stream() -> None:
    completion = whole(
        reasoning_content="hm",
        content="hi",
        tool_calls=(call(None, "c1", "read", '{"path":"a"}'),),
        finish_reason="tool_calls",
        usage=CompletionUsage(prompt_tokens=9, completion_tokens=3),
    )
    assert script(completion) == [
        "start 0 thinking",
        "delta 0 hm",
        "signature 0",
        "stop 0",
        "start 1 text",
        "delta 1 hi",
        "stop 1",
        "start 2 tool_use c1 read",
        'delta 2 {"path":"a"}',
        "stop 2",
        "ends tool_use",
    ]


def test_a_whole_message_after_its_chunks_is_not_said_twice() -> None:
    assert blocks(message(text("hi"), whole(content="hi"))) == [("text", "hi")]


def test_d43_d58_each_frame_has_its_name_and_nothing_else_is_sent() -> None:
    raw = b"".join(map(frame, events_of(text("hi"), tool(0, "c1", "read", "{}"), ends(), uses(1, 1))))
    assert check(raw, requested_model="claude-opus-4-8") == []
    assert b"[DONE]" not in raw
    assert raw.count(b"event: ") == raw.count(b"\n\n") == raw.count(b"data: ")
