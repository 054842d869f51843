"""What an answer says of itself: true of the attempt that answered, and safe in a header whatever a rule is
called. And how long a request is held."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from routeproxy.exchange import Call, Exchange, Inbound
from routeproxy.messages.events import Ping
from routeproxy.messages.reply import Usage
from routeproxy.messages.request import decode_envelope
from routeproxy.output import Content, Emit, Output, Relayed
from routeproxy.policy.compile.compiler import compile_rules
from routeproxy.policy.decide import Policy
from routeproxy.policy.facts import Facts
from routeproxy.policy.providers import Provider
from routeproxy.proxy import Proxy
from routeproxy.telemetry.decisions import DecisionLog, logged_decision
from routeproxy.web.headers import answer_headers


def exchange(name: str = "a rule") -> Exchange:
    rule = f'[[rules]]\nname = "{name}"\nmatch.stream = false\ntargets = ["echo/größe"]\n'
    rules = f'[providers.echo]\n{rule}[default]\ndeny = "no"\n'
    policy = compile_rules(rules, path=Path("rules.toml"), environ={})
    made = Exchange(Inbound(body=b'{"model":"m","messages":[]}'), policy)
    made.envelope = decode_envelope(made.inbound.body)
    made.decision = policy.decide(Facts(made.envelope, {}, count=lambda: 1))
    return made


def header(exchange: Exchange, name: str) -> str | None:
    return dict(answer_headers(exchange)).get(name)


NAMES = ["plain words", "größe 日本 😀", "100 % sure", "a, b; c=d"]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_of_a_rule_can_stand_in_a_header(name: str) -> None:
    value = header(exchange(name), "x-routeproxy-rule") or ""
    assert value.isascii()
    assert value.isprintable()
    assert value.strip() == value != ""


def test_words_in_ascii_are_shown_as_they_are() -> None:
    assert header(exchange("phi: stays (inside), 100"), "x-routeproxy-rule") == "phi: stays (inside), 100"


def test_what_a_failed_attempt_said_is_forgotten() -> None:
    asked = exchange()
    assert asked.decision is not None
    asked.warn_of_request("of the request")
    target = asked.decision.targets[0]
    asked.begin_attempt(target)
    asked.warn("of the first attempt", "of the first attempt")
    asked.relayed_headers = [("request-id", "req_first")]
    asked.usage = Usage(output_tokens=5)
    assert asked.shown_id == "req_first"
    asked.begin_attempt(target)
    asked.warn("of the second")
    assert header(asked, "x-routeproxy-warning") == "of the request; of the second"
    assert header(asked, "x-routeproxy-attempts") == "2"
    assert header(asked, "request-id") == asked.shown_id == asked.request_id
    assert asked.input_and_output_tokens() == (None, None)


def test_warnings_are_ascii_and_not_endless() -> None:
    asked = exchange()
    asked.warn("größe", *(f"warning {number}" for number in range(1000)))
    value = header(asked, "x-routeproxy-warning") or ""
    assert value.isascii()
    assert len(value) <= 2000


# --- while an answer streams

STREAMING = """
[providers.corp]
type = "anthropic"
base_url = "http://127.0.0.1:1"
api_key = "none"
zone = "local"
[[rules]]
name = "long"
match.input_tokens.min = 100_000
match.headers.x-long.present = true
targets = "corp/long"
[default]
targets = "corp/m"
"""
PICTURE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}


class Fixed:
    def __init__(self, policy: Policy) -> None:
        self.policy = policy


class Streams:
    """A back end that looks, between two parts of its answer, who still holds the request."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.holders: list[int] = []

    def of(self, provider: Provider) -> "Streams":
        return self

    async def send(self, call: Call, emit: Emit) -> None:
        for commits in (False, True, True):
            await emit(Output((Ping(),), commits))
            self.holders.append(sys.getrefcount(self._body))

    async def count_tokens(self, call: Call) -> Relayed | None:
        return None


def streamed(server: str = "") -> tuple[list[int], Exchange]:
    """How many hold the body after each part, beyond those that always do; and the exchange."""
    content = [PICTURE, {"type": "text", "text": "x" * 100_000}]
    fields = {"model": "m", "stream": True, "messages": [{"role": "user", "content": content}]}
    body = msgspec.json.encode(fields)
    policy = compile_rules(server + STREAMING, path=Path("rules.toml"), environ={})
    back_end = Streams(body)
    proxy = Proxy(Fixed(policy), back_end, len, DecisionLog(policy))
    unheld = sys.getrefcount(body)
    asked = proxy.receive(Inbound(body=body, headers={"x-long": ("1",)}))

    async def write(contents: Sequence[Content]) -> None:
        answer_headers(asked)

    asyncio.run(proxy.answer(asked, write))
    return [holders - unheld for holders in back_end.holders], asked


def test_nobody_holds_a_request_whose_answer_streams() -> None:
    """Until there is content another target may have to be asked."""
    (waiting, begun, going_on), _ = streamed()
    assert waiting > 0
    assert (begun, going_on) == (0, 0)


def test_what_is_logged_of_it_is_worked_out_before(tmp_path: Path) -> None:
    holders, asked = streamed(f'[server]\ndecision_log = "{tmp_path / "decisions.jsonl"}"\n')
    assert holders[1:] == [0, 0]
    facts = logged_decision(asked).facts
    assert facts is not None
    assert (facts["model"], facts["images"], facts["stream"]) == ("m", True, True)
    assert "documents" not in facts
    assert facts["input_tokens"] > 100_000
