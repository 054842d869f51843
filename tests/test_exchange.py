"""What an answer says of itself: true of the attempt that answered, and safe in a header whatever a rule is
called."""

from pathlib import Path

import pytest

from routeproxy.exchange import Exchange, Inbound
from routeproxy.messages.reply import Usage
from routeproxy.messages.request import decode_envelope
from routeproxy.policy.compile import compile_rules
from routeproxy.policy.facts import Facts


def exchange(name: str = "a rule") -> Exchange:
    rule = f'[[rules]]\nname = "{name}"\nmatch.stream = false\ntargets = ["echo/größe"]\n'
    rules = f'[providers.echo]\n{rule}[default]\ndeny = "no"\n'
    policy = compile_rules(rules, path=Path("rules.toml"), environ={})
    made = Exchange(Inbound(body=b'{"model":"m","messages":[]}'), policy)
    made.envelope = decode_envelope(made.inbound.body)
    made.decision = policy.decide(Facts(made.envelope, {}, count=lambda: 1))
    return made


def header(exchange: Exchange, name: str) -> str | None:
    return dict(exchange.headers()).get(name)


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
    asked.relayed = [("request-id", "req_first")]
    asked.note_usage(Usage(output_tokens=5))
    assert asked.shown_id == "req_first"
    asked.begin_attempt(target)
    asked.warn("of the second")
    assert header(asked, "x-routeproxy-warning") == "of the request; of the second"
    assert header(asked, "x-routeproxy-attempts") == "2"
    assert header(asked, "request-id") == asked.shown_id == asked.request_id
    assert asked.tokens() == (None, None)


def test_warnings_are_ascii_and_not_endless() -> None:
    asked = exchange()
    asked.warn("größe", *(f"warning {number}" for number in range(1000)))
    value = header(asked, "x-routeproxy-warning") or ""
    assert value.isascii()
    assert len(value) <= 2000
