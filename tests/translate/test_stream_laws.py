"""Laws that hold for any answer, however it is cut into chunks and whatever a back end puts in them."""

import itertools
import json
from typing import Any

from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message as SdkMessage
from anthropic.types import RawMessageStreamEvent
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec import Struct
from pydantic import TypeAdapter

from routeproxy.chat.completion import (
    Choice,
    Chunk,
    CompletionTokensDetails,
    CompletionUsage,
    Delta,
    FunctionDelta,
    PromptTokensDetails,
    ToolCallDelta,
    coalesce_chunks,
)
from routeproxy.messages.events import Error, Event, accumulate, frame
from routeproxy.messages.reply import Message, encode
from routeproxy.translate.transforms import Transforms
from tests.budgets import examples
from tests.invariants import check
from tests.translate.answering import TOOLS, call, calls, ends, reply, text, thinks, translator, whole

lawful = examples(40)

# Anything at all

surrogates = st.sampled_from(["\ud83d", "\ude00", "\ud83d\ude00"])
TAGS = [
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "[TOOL_CALLS]",
    "<function=read>",
    "</function>",
]
BITS = ['{"name":"read","arguments":{"a":1}}', "END", "EN", "D", "\\", "n", "\n", " ", "x", "é", "😀"]
fragments = st.sampled_from([*TAGS, *BITS])
json_pieces = st.sampled_from(
    ['{"a":1}', '{"a"', ":1}", "{}", "{", "}", '"', '"{\\"a\\":1}"', "null", "", '{"a":{"a":1}}']
)
junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | fragments | surrogates,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def maybe(*likely: Any) -> st.SearchStrategy[Any]:
    """`None` mostly, something likely often, and sometimes what has no business there."""
    return st.none() | st.one_of(*likely) | junk


texts = fragments | st.text(max_size=8) | surrogates
details = st.lists(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["reasoning.text", "text", "thinking"]), "text": texts, "thinking": texts}
    ),
    max_size=2,
)
functions = st.builds(
    FunctionDelta,
    maybe(st.sampled_from([*TOOLS, "bash", "fly"])),
    maybe(json_pieces, st.dictionaries(texts, junk, max_size=2)),
)
tool_calls = st.builds(
    ToolCallDelta,
    maybe(st.integers(-1, 3)),
    maybe(st.sampled_from(["c1", "c2", "functions.read:0", "c3__thought__sig", ""])),
    st.none() | functions,
    maybe(st.just({"google": {"thought_signature": "sig"}})),
    maybe(st.just({"thought_signature": "sig"})),
)
deltas = st.builds(
    Delta,
    content=maybe(texts, details),
    reasoning_content=maybe(texts),
    reasoning=maybe(texts),
    reasoning_details=maybe(details),
    thinking_blocks=maybe(details),
    refusal=maybe(texts),
    tool_calls=st.none() | st.lists(tool_calls, max_size=3).map(tuple),
    function_call=st.none() | functions,
)
words = st.sampled_from(["stop", "length", "tool_calls", "content_filter", "error", "model_length", "?"])
choices = st.builds(
    Choice,
    index=st.just(0) | maybe(),
    delta=st.none() | deltas,
    message=st.none() | deltas,
    finish_reason=maybe(words),
    stop_reason=maybe(st.just("END")),
)
usages = st.builds(
    CompletionUsage,
    maybe(st.integers(0, 99)),
    maybe(st.integers(0, 99)),
    st.none() | st.builds(PromptTokensDetails, maybe(st.integers(0, 99)), maybe(st.integers(0, 99))),
    st.none() | st.builds(CompletionTokensDetails, maybe(st.integers(0, 99))),
)
chunks = st.builds(
    Chunk,
    st.lists(choices, max_size=2).map(tuple),
    st.none() | usages,
    maybe(st.just("gpt")),
    st.none() | st.none() | st.none() | junk,
)
transforms = st.builds(
    Transforms,
    think_tags=st.booleans(),
    text_tool_calls=st.booleans(),
    thinking=st.sampled_from(["keep", "drop", "text"]),
    newlines=st.sampled_from(["keep", "unescape", "escape"]),
)
settings_of_request = st.fixed_dictionaries(
    {
        "thinking": st.booleans(),
        "display": st.sampled_from(["summarized", "omitted"]),
        "parallel": st.booleans(),
        "stop_sequences": st.sampled_from([(), ("END",)]),
        "scan": st.sampled_from([(), ("END",), ("\n", "EN")]),
        "speed": st.sampled_from([None, "standard"]),
        "transforms": transforms,
    }
)


@lawful
@given(st.lists(chunks, max_size=8), settings_of_request)
def test_no_chunk_makes_a_stream_that_is_not_one(sent: list[Chunk], settings: dict[str, Any]) -> None:
    stream = translator(**settings)
    events: list[Event] = []
    for chunk in sent:
        events += stream.feed(chunk)
    events += stream.finish()
    assert check(events, requested_model="claude-opus-4-8") == []
    assert stream.feed(text("more")) == stream.finish() == []


@lawful
@given(st.lists(texts.map(text) | chunks, max_size=12), settings_of_request)
def test_what_came_together_says_the_same_in_fewer_chunks(
    sent: list[Chunk], settings: dict[str, Any]
) -> None:
    fewer = list(coalesce_chunks(sent))
    assert len(fewer) <= len(sent)
    assert accumulate(streamed(fewer, **settings)) == accumulate(streamed(sent, **settings))


def test_neighbours_that_are_only_text_become_one() -> None:
    sent = [thinks("hm"), text("a"), text("b"), text("c\ud83d"), text("\ude00d"), ends("stop"), text("e")]
    fewer = [thinks("hm"), text("abc\ud83d"), text("\ude00d"), ends("stop"), text("e")]
    assert list(coalesce_chunks(sent)) == fewer


@lawful
@given(chunks, settings_of_request)
def test_no_completion_makes_a_reply_that_is_not_one(completion: Chunk, settings: dict[str, Any]) -> None:
    answer = reply(completion, **settings)
    json.loads(encode(answer))
    assert isinstance(answer, Message | Error)


# Answers as they should be


class Answer(Struct, frozen=True):
    reasoning: str
    text: str
    calls: tuple[tuple[str, str], ...]
    finish_reason: str


keys = st.sampled_from("ab")
values = st.recursive(
    st.integers() | st.text(max_size=4), lambda inner: st.dictionaries(keys, inner, max_size=2), max_leaves=4
)
arguments = st.dictionaries(keys, values, max_size=2)
answers = st.builds(
    Answer,
    st.text(max_size=12),
    st.lists(fragments | st.text(max_size=4), max_size=8).map("".join),
    st.lists(st.tuples(st.sampled_from(TOOLS), arguments.map(json.dumps)), max_size=3).map(tuple),
    st.sampled_from(["stop", "length", "tool_calls"]),
).filter(lambda answer: bool(answer.calls) or answer.finish_reason != "tool_calls")


def pieces(draw: st.DrawFn, whole_text: str) -> list[str]:
    cuts = sorted(draw(st.sets(st.integers(1, max(1, len(whole_text) - 1)), max_size=4)))
    return [
        piece
        for start, end in itertools.pairwise([0, *cuts, len(whole_text)])
        if (piece := whole_text[start:end])
    ]


@st.composite
def streams(draw: st.DrawFn, answer: Answer) -> list[Chunk]:
    """One way to send `answer`: its text cut anywhere, in emojis too; its calls' arguments interleaved."""
    units = zip(*[iter(answer.text.encode("utf-16-le"))] * 2, strict=True)
    half_characters = "".join(chr(int.from_bytes(unit, "little")) for unit in units)
    sent = [thinks(piece) for piece in pieces(draw, answer.reasoning)]
    sent += [text(as_decoded(piece)) for piece in pieces(draw, half_characters)]
    sent += [calls(call(n, f"c{n}", name, "")) for n, (name, _) in enumerate(answer.calls)]
    rest = [[(n, piece) for piece in pieces(draw, input)] for n, (_, input) in enumerate(answer.calls)]
    while any(rest):
        n, piece = draw(st.sampled_from([queue for queue in rest if queue])).pop(0)
        sent.append(calls(call(n, None, None, piece)))
    return [*sent, ends(answer.finish_reason)]


def as_decoded(half_characters: str) -> str:
    """A decoder joins the halves that it meets in one string."""
    return half_characters.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def streamed(sent: list[Chunk], **settings: Any) -> list[Event]:
    stream = translator(**settings)
    return [event for chunk in sent for event in stream.feed(chunk)] + stream.finish()


def in_one_piece(answer: Answer) -> Chunk:
    return whole(
        reasoning_content=answer.reasoning,
        content=answer.text,
        tool_calls=tuple(call(n, f"c{n}", name, input) for n, (name, input) in enumerate(answer.calls)),
        finish_reason=answer.finish_reason,
    )


@lawful
@given(st.data(), answers, settings_of_request)
def test_i37_streamed_and_whole_answers_agree(
    data: st.DataObject, answer: Answer, settings: dict[str, Any]
) -> None:
    message = reply(in_one_piece(answer), **settings)
    assert accumulate(streamed(data.draw(streams(answer)), **settings)) == message


@lawful
@given(st.data(), answers)
def test_i38_text_arrives_as_it_was_sent(data: st.DataObject, answer: Answer) -> None:
    message = accumulate(streamed(data.draw(streams(answer))))
    assert isinstance(message, Message)
    shown_text = "".join(block.text for block in message.content if block.__struct_config__.tag == "text")
    blank_beside_calls = answer.calls and not answer.text.strip()
    assert shown_text == ("" if blank_beside_calls else answer.text)


@lawful
@given(st.data(), answers)
def test_arguments_arrive_as_they_were_sent(data: st.DataObject, answer: Answer) -> None:
    message = accumulate(streamed(data.draw(streams(answer))))
    assert isinstance(message, Message)
    inputs = [
        bytes(block.input).decode() for block in message.content if block.__struct_config__.tag == "tool_use"
    ]
    assert inputs == [input for _, input in answer.calls]


@lawful
@given(
    st.data(),
    arguments.map(json.dumps),
    st.sampled_from(["as they are", "in a string", "snapshots", "twice"]),
)
def test_odd_arguments_arrive_however_they_are_cut(data: st.DataObject, input: str, how: str) -> None:
    assume(input != "{}")
    sent = pieces(data.draw, json.dumps(input) if how == "in a string" else input)
    if how == "snapshots":
        sent = list(itertools.accumulate(sent))
    elif how == "twice":
        sent.append(input)
    events = streamed(
        [calls(call(0, "c1", "read", "")), *[calls(call(0, None, None, piece)) for piece in sent], ends()]
    )
    message = accumulate(events)
    assert isinstance(message, Message), message
    (block,) = message.content
    assert json.loads(bytes(block.input)) == json.loads(input)


sdk_event: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)


@lawful
@given(st.data(), answers)
def test_the_sdk_adds_a_stream_up_to_the_whole_message(data: st.DataObject, answer: Answer) -> None:
    snapshot: Any = None
    json_bufs: dict[int, bytes] = {}
    events = streamed(data.draw(streams(answer)))
    for event in events:
        parsed = sdk_event.validate_json(frame(event).split(b"data: ", 1)[1])
        snapshot = accumulate_event(event=parsed, current_snapshot=snapshot, json_bufs=json_bufs)
    message = accumulate(events)
    assert isinstance(message, Message)
    expected = SdkMessage.model_validate_json(encode(message))
    assert [b.model_dump() for b in snapshot.content] == [b.model_dump() for b in expected.content]
    assert (snapshot.stop_reason, snapshot.usage.output_tokens) == (
        expected.stop_reason,
        expected.usage.output_tokens,
    )
