"""A client protocol that is added with one file (`LinesProtocol`, here) and one line
(`PROTOCOLS_WITH_LINES`): everything behind it, from the rules to the back ends, serves it as it serves
Messages.

Lines: `stream`, `model: NAME` and `say: TEXT` in; `text: …`, `tool: NAME INPUT`, `end: REASON in/out`,
`error: …` out.
"""

from collections.abc import Iterator, Mapping, Sequence

import httpx
import msgspec
import pytest

from routeproxy.exchange import Endpoint
from routeproxy.messages.errors import ApiError, InvalidRequest
from routeproxy.messages.events import (
    ContentBlockDelta,
    Error,
    Event,
    MessageDelta,
    Ping,
    TextDelta,
    events_of,
)
from routeproxy.messages.relayed import read_events, read_message
from routeproxy.messages.reply import Message
from routeproxy.output import Relayed, TokenCount
from routeproxy.web.protocols import PROTOCOLS, ClientProtocol
from routeproxy.web.response import StreamTimings
from tests.backend import (
    CUT,
    BackEnd,
    Script,
    chunk,
    completion,
    done,
    error,
    event,
    json_answer,
    messages_stream,
    pause,
    sse,
    streamed,
)
from tests.budgets import seconds
from tests.running import Running, running
from tests.wire.asking import OVERLOADED, answers, message

TEXT_HEADERS = (("content-type", "text/plain; charset=utf-8"),)


class LinesProtocol:
    paths: Mapping[Endpoint, str] = {"messages": "/lines", "count_tokens": "/lines/count"}
    stream_headers = TEXT_HEADERS
    reply_headers = TEXT_HEADERS
    relays_errors = False

    def decode_request(self, body: bytes, endpoint: Endpoint) -> bytes:
        request: dict[str, object] = {"max_tokens": 100, "messages": []}
        for line in body.decode().splitlines():
            word, _, value = line.partition(": ")
            match word:
                case "model":
                    request["model"] = value
                case "say":
                    request["messages"] = [{"role": "user", "content": value}]
                case "stream":
                    request["stream"] = True
                case _:
                    raise InvalidRequest(f"{word}: no such line")
        return msgspec.json.encode(request)

    def encode_events(self, events: Sequence[Event]) -> bytes:
        return b"".join(f"{line}\n".encode() for event in events if (line := line_of(event)))

    def encode_message(self, message: Message) -> bytes:
        return self.encode_events(events_of(message))

    def relay_events(self, relayed: Relayed) -> bytes:
        return self.encode_events(read_events(relayed.data))

    def relay_message(self, relayed: Relayed) -> bytes:
        return self.encode_message(read_message(relayed.data))

    def encode_error(self, error: ApiError, request_id: str) -> bytes:
        return f"error: {error.type}: {error.message}\n".encode()

    def encode_token_count(self, count: TokenCount) -> bytes:
        return f"tokens: {count.input_tokens}\n".encode()

    def relay_token_count(self, relayed: Relayed) -> bytes:
        return f"tokens: {msgspec.json.decode(relayed.data)['input_tokens']}\n".encode()


def line_of(event: Event) -> str | None:
    match event:
        case ContentBlockDelta(delta=TextDelta(text)):
            return f"text: {text}"
        case MessageDelta(delta=stop, usage=usage):
            return f"end: {stop.stop_reason} {usage.output_tokens}"
        case Error(error=problem):
            return f"error: {problem.type}: {problem.message}"
        case Ping():
            return "still here"
    return None


PROTOCOLS_WITH_LINES: tuple[ClientProtocol, ...] = (*PROTOCOLS, LinesProtocol())

RULES = """
[server]
url_targets = true
[providers.corp]
type = "openai_compatible"
base_url = "{corp}/v1"
api_key = "none"
zone = "local"
[providers.claude]
type = "anthropic"
base_url = "{claude}"
api_key = "none"
zone = "local"
[[rules]]
match.model = "chat"
targets = ["corp/m", "claude/m"]
[[rules]]
match.model = "forbidden"
deny = "not for you"
[default]
targets = "claude/*"
"""


@pytest.fixture(scope="module")
def corp() -> Iterator[BackEnd]:
    with BackEnd() as back_end:
        yield back_end


@pytest.fixture(scope="module")
def claude() -> Iterator[BackEnd]:
    with BackEnd() as back_end:
        yield back_end


@pytest.fixture(scope="module")
def proxy(corp: BackEnd, claude: BackEnd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    rules = RULES.format(corp=corp.url, claude=claude.url)
    timings = StreamTimings(hold=0.3, ping=0.2)
    folder = tmp_path_factory.mktemp("rules")
    with running(rules, folder, timings=timings, protocols=PROTOCOLS_WITH_LINES) as server:
        yield server


def ask(proxy: Running, *lines: str, path: str = "/lines") -> tuple[int, list[str]]:
    with httpx.Client(timeout=seconds(30)) as client:
        answer = client.post(proxy.url + path, content="\n".join(lines).encode())
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["request-id"]
    return answer.status_code, answer.text.splitlines()


def text_in(lines: list[str]) -> str:
    """In how many lines it comes is a matter of how the back end's chunks arrived."""
    return "".join(line.removeprefix("text: ") for line in lines if line.startswith("text: "))


CHAT = ("model: chat", "say: Hi")
CLAUDE = ("model: claude-sonnet-5", "say: Hi")
CHAT_STREAM: Script = sse(chunk("Hel"), chunk("lo"), done())


def test_a_whole_answer_of_a_chat_back_end(proxy: Running, corp: BackEnd) -> None:
    answers(corp, json_answer(completion("Hello")))
    assert ask(proxy, *CHAT) == (200, ["text: Hello", "end: end_turn 5"])
    assert corp.last.json["messages"] == [{"role": "user", "content": "Hi"}]


def test_a_streamed_answer_of_a_chat_back_end(proxy: Running, corp: BackEnd) -> None:
    answers(corp, CHAT_STREAM)
    status, lines = ask(proxy, *CHAT, "stream")
    assert (status, text_in(lines), lines[-1]) == (200, "Hello", "end: end_turn 5")


def test_a_whole_answer_of_a_messages_back_end(proxy: Running, claude: BackEnd) -> None:
    answers(claude, json_answer(message("Hello")))
    assert ask(proxy, *CLAUDE) == (200, ["text: Hello", "end: end_turn 7"])


def test_a_streamed_answer_of_a_messages_back_end(proxy: Running, claude: BackEnd) -> None:
    answers(claude, streamed(*messages_stream("Hello")))
    status, lines = ask(proxy, *CLAUDE, "stream")
    assert (status, text_in(lines)) == (200, "Hello")
    assert lines[-1].startswith("end: end_turn ")


def test_the_next_target_answers_when_the_first_is_overloaded(
    proxy: Running, corp: BackEnd, claude: BackEnd
) -> None:
    answers(corp, error(529, "busy"))
    answers(claude, json_answer(message("from the second")))
    assert ask(proxy, *CHAT) == (200, ["text: from the second", "end: end_turn 7"])


def test_a_denial_has_the_rules_words(proxy: Running) -> None:
    assert ask(proxy, "model: forbidden", "say: Hi") == (400, ["error: invalid_request_error: not for you"])


def test_a_request_that_is_none_of_its_own_is_refused_in_its_own_words(proxy: Running) -> None:
    assert ask(proxy, "sing: loud") == (400, ["error: invalid_request_error: sing: no such line"])


@pytest.mark.parametrize("lines", [CLAUDE, (*CLAUDE, "stream")], ids=["whole", "streamed"])
def test_an_error_of_a_messages_back_end_is_told_in_its_own_words(
    proxy: Running, claude: BackEnd, lines: tuple[str, ...]
) -> None:
    answers(claude, json_answer(OVERLOADED, 529))
    assert ask(proxy, *lines) == (529, ["error: overloaded_error: Overloaded"])


def test_a_stream_that_is_cut_ends_with_an_error(proxy: Running, corp: BackEnd) -> None:
    answers(corp, sse(chunk("Hel"), CUT))
    status, lines = ask(proxy, *CHAT, "stream")
    assert (status, text_in(lines)) == (200, "Hel")
    assert lines[-1].startswith("error: api_error: ")


def test_an_error_event_of_a_messages_back_end_is_told_in_its_own_words(
    proxy: Running, claude: BackEnd
) -> None:
    failing = event("error", error=OVERLOADED["error"])
    answers(claude, streamed(*messages_stream("Hello")[:4], failing))
    _, lines = ask(proxy, *CLAUDE, "stream")
    assert lines[-1] == "error: overloaded_error: Overloaded"


def test_silence_is_filled_with_its_own_ping(proxy: Running, corp: BackEnd) -> None:
    answers(corp, sse(pause(0.8), chunk("Hello"), done()))
    _, lines = ask(proxy, *CHAT, "stream")
    assert lines[0] == "still here"
    assert lines[-2:] == ["text: Hello", "end: end_turn 5"]


def test_tokens_are_counted_by_us_or_by_the_back_end(proxy: Running, claude: BackEnd) -> None:
    status, (line,) = ask(proxy, *CHAT, path="/lines/count")
    assert status == 200
    assert int(line.removeprefix("tokens: ")) > 0
    answers(claude, json_answer({"input_tokens": 42}))
    assert ask(proxy, *CLAUDE, path="/lines/count") == (200, ["tokens: 42"])


def test_a_target_may_stand_in_the_url(proxy: Running, claude: BackEnd) -> None:
    answers(claude, json_answer(message("Hello")))
    assert ask(proxy, *CLAUDE, path="/claude:claude-opus-4-8/lines") == (
        200,
        ["text: Hello", "end: end_turn 7"],
    )
    assert claude.last.json["model"] == "claude-opus-4-8"


def test_messages_are_served_beside_it(proxy: Running, claude: BackEnd) -> None:
    answers(claude, json_answer(message("Hello")))
    reply = proxy.post(
        {"model": "claude-sonnet-5", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
    )
    assert reply.json()["content"] == [{"type": "text", "text": "Hello"}]
