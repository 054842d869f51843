"""What traces tell of what was asked, and whom they tell nothing of (docs/metrics.md, "What was asked")."""

import json
from typing import Any

import msgspec
import pytest

from routeproxy.exchange import AskedContent, Exchange, Inbound, Trace
from routeproxy.messages.request import Envelope
from routeproxy.policy.decide import Policy
from routeproxy.policy.facts import Facts
from routeproxy.traces.content import MOST, content_attributes
from routeproxy.traces.ids import LONGEST, TraceIds
from tests.policy.asking import policy

TRACED = """
[telemetry]
traces = { endpoint = "http://127.0.0.1:1/v1/traces", ratio = 1 }

[providers.echo]

[[rules]]
name = "looked into"
match.model = "looked-into"
targets = "echo/x"
record = "content"

[default]
targets = "echo/x"
"""
SECRECY = """
[[invariants]]
name = "claims are nobody's business"
when.headers.x-data-class = "claims"
never.record = "content"
"""


def asked(system: Any, *messages: Any) -> Trace:
    encode = msgspec.json.encode
    return Trace(trace_id="1", span_id="2", asked=AskedContent(encode(system), encode(messages)))


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def test_texts_tool_calls_and_results_are_told_in_the_conventions_shape() -> None:
    call = {"type": "tool_use", "id": "toolu_1", "name": "ls", "input": {"path": "."}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "a b"}]}
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    attributes = content_attributes(
        asked(
            [{"type": "text", "text": "Be brief."}],
            user("What is here?"),
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "Look."}, call]},
            user([result, picture]),
        )
    )
    assert json.loads(str(attributes["gen_ai.system_instructions"])) == [
        {"type": "text", "content": "Be brief."}
    ]
    assert json.loads(str(attributes["gen_ai.input.messages"])) == [
        {"role": "user", "parts": [{"type": "text", "content": "What is here?"}]},
        {
            "role": "assistant",
            "parts": [
                {"type": "reasoning", "content": "Look."},
                {"type": "tool_call", "id": "toolu_1", "name": "ls", "arguments": {"path": "."}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {
                    "type": "tool_call_response",
                    "id": "toolu_1",
                    "response": [{"type": "text", "content": "a b"}],
                },
                {"type": "image"},
            ],
        },
    ]
    assert attributes.keys() == {"gen_ai.system_instructions", "gen_ai.input.messages"}


def test_of_a_long_conversation_the_latest_messages_are_told_and_how_many_are_not() -> None:
    attributes = content_attributes(asked(None, *(user(f"{number} " + "x" * 1000) for number in range(1000))))
    told = json.loads(str(attributes["gen_ai.input.messages"]))
    assert len(str(attributes["gen_ai.input.messages"]).encode()) <= MOST
    assert len(told) + int(attributes["routeproxy.messages_left_out"]) == 1000
    assert told[-1]["parts"][0]["content"].startswith("999 ")


@pytest.mark.parametrize("messages", [b"[", b"[1]", b"7", b'[{"role":"user","content":[3]}]', b'["\\ud800"]'])
def test_what_no_back_end_could_read_is_said_to_be_left_out(messages: bytes) -> None:
    trace = Trace(trace_id="1", span_id="2", asked=AskedContent(b"null", messages))
    assert content_attributes(trace) == {"routeproxy.content_left_out": "it could not be read"}


# --- of whom


def ended(rules: Policy, live: Policy | None = None, *, text: str = "hi", **of_trace: Any) -> Trace:
    """The trace of a request that is over, under `rules`, while `live` are in force."""
    model, headers = of_trace.pop("model", "looked-into"), of_trace.pop("headers", {})
    exchange = Exchange(Inbound(body=b""), rules)
    exchange.trace = Trace(trace_id="1", span_id="2", **{"is_sampled": True, **of_trace})
    exchange.envelope = Envelope(model=model, messages=msgspec.Raw(msgspec.json.encode([user(text)])))
    exchange.facts = Facts(exchange.envelope, headers)
    exchange.decision = rules.decide(exchange.facts)
    TraceIds(live or rules).request_done(exchange)
    return exchange.trace


def test_only_a_rule_that_wants_it_has_it_told() -> None:
    rules = policy(TRACED)
    told = ended(rules).asked
    assert told is not None
    assert b"hi" in told.messages
    assert ended(rules, model="another").asked is None


def test_nothing_is_kept_that_nobody_will_hear_of() -> None:
    rules = policy(TRACED)
    assert ended(rules, is_sampled=False).asked is None
    afterwards = policy(TRACED.replace("ratio = 1", 'ratio = 0, always = ["error"]'))
    assert ended(afterwards, is_sampled=False).asked is not None


def test_a_conversation_that_is_too_long_is_said_to_be_left_out() -> None:
    trace = ended(policy(TRACED), text="x" * LONGEST)
    assert trace.asked is None
    assert content_attributes(trace) == {"routeproxy.content_left_out": "too long"}


def test_an_invariant_of_the_rules_in_force_keeps_it_out_even_of_a_request_that_began_before() -> None:
    allowing = policy(TRACED)
    forbidding = policy(TRACED.replace('record = "content"\n', "") + SECRECY)
    claims = {"x-data-class": ("claims",)}
    assert ended(allowing, headers=claims).asked is not None
    assert ended(allowing, forbidding, headers=claims).asked is None
    assert ended(allowing, forbidding).asked is not None
