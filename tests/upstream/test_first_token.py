"""How long the first content may take where no rule says it (docs/rules.md, "The first token")."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from routeproxy.exchange import Exchange, Inbound
from routeproxy.messages.request import decode_envelope
from routeproxy.policy.compile.compiler import compile_rules
from routeproxy.policy.facts import Facts
from routeproxy.policy.targets import Timeouts
from routeproxy.upstream.first_token import FirstTokenTimeout, first_token_timeout

POLICY = compile_rules('[providers.echo]\n[default]\ntargets = "echo/*"', path=Path("rules.toml"), environ={})


def times(stated: float | None = None, *, may_fall_back: bool = True, text: str = "Hi", **fields: Any) -> Any:
    body = msgspec.json.encode({"model": "m", "messages": [{"role": "user", "content": text}], **fields})
    exchange = Exchange(Inbound(body=body), POLICY)
    exchange.envelope = decode_envelope(body)
    exchange.facts = Facts(exchange.envelope, {})
    return first_token_timeout(exchange, Timeouts(first_token=stated), may_fall_back=may_fall_back)


THINKS = {"type": "enabled", "budget_tokens": 1024}


@pytest.mark.parametrize(
    ("case", "first", "between"),
    [
        pytest.param({"stream": True}, 60, 60, id="a stream"),
        pytest.param({"stream": True, "thinking": THINKS}, 300, None, id="a stream that thinks first"),
        pytest.param({"stream": True, "text": "a" * 200_000}, 300, None, id="a long prompt"),
        pytest.param({"max_tokens": 1_000}, 80, 60, id="whole"),
        pytest.param({"max_tokens": 64_000}, 300, 60, id="whole and long"),
        pytest.param({}, 300, 60, id="whole, of any length"),
        pytest.param({"stream": True, "may_fall_back": False}, 300, None, id="nobody else can be asked"),
        pytest.param({"max_tokens": 1_000, "may_fall_back": False}, 300, None, id="nor for a whole answer"),
        pytest.param({"stream": True, "stated": 7.0}, 7, None, id="as the rule says"),
        pytest.param({"stated": 7.0, "may_fall_back": False}, 7, None, id="also on the last target"),
    ],
)
def test_it_depends_on_the_request_and_on_who_else_may_be_asked(
    case: dict[str, Any], first: float, between: float | None
) -> None:
    assert times(**case) == FirstTokenTimeout(first, between)
