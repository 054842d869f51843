"""The second lock: even where the proof was wrong, or the rules became stricter meanwhile, no connection to a
forbidden target is used."""

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from routeproxy.exchange import Call, Endpoint, Exchange, Inbound
from routeproxy.messages.errors import ApiError
from routeproxy.output import Content, Emit, Output, Relayed
from routeproxy.policy.compile.compiler import Compilation, compile_rules
from routeproxy.policy.decide import Policy
from routeproxy.policy.providers import Provider
from routeproxy.proxy import Proxy
from routeproxy.upstream.failures import UpstreamFailure
from tests.backend import BackEnd, json_answer, pause
from tests.running import running, until
from tests.wire.asking import ask, message

RULES = """
[providers.inside]
type = "openai_compatible"
base_url = "http://inside.example/v1"
api_key = ["env:A", "env:B"]
zone = "private"
[providers.outside]
type = "openai_compatible"
base_url = "http://outside.example/v1"
api_key = "none"
[providers.inside.models]
m = {}
[[rules]]
name = "phi"
match.headers.x-data-class = "phi"
targets = ["inside/m", "outside/m"]
[default]
targets = ["inside/m", "outside/m"]
[[invariants]]
name = "phi stays inside"
when.headers.x-data-class = "phi"
never.zone = "public"
"""
ENVIRON = {"A": "a", "B": "b"}


def unproved(text: str) -> Policy:
    """A policy that a wrong proof would let through."""
    return Compilation(text, Path("rules.toml"), ENVIRON).policy(len, prove=False)


class Fixed:
    def __init__(self, policy: Policy) -> None:
        self.policy = policy


class Recording:
    """Back ends that note who is asked, and fail or answer as told."""

    def __init__(self, *outcomes: str | None, before: Callable[[str], None] = lambda target: None) -> None:
        self.asked: list[str] = []
        self._outcomes = iter(outcomes)
        self._before = before

    def of(self, provider: Provider) -> "Recording":
        return self

    async def send(self, call: Call, emit: Emit) -> None:
        self.asked.append(f"{call.target.name} {call.key}")
        self._before(call.target.name)
        if kind := next(self._outcomes, None):
            raise UpstreamFailure(kind, "failed")  # type: ignore[arg-type]
        await emit(Output(Relayed(b"answer"), True))

    async def count_tokens(self, call: Call) -> Relayed | None:
        self.asked.append(f"count {call.target.name}")
        return Relayed(b'{"input_tokens":1}')


def text_of(content: Content) -> str:
    assert isinstance(content, Relayed)
    return content.data.decode()


def outcome(
    proxy: Proxy, data_class: str = "phi", endpoint: Endpoint = "messages", team: str | None = None
) -> str:
    """What a client gets: the answer, or the status and words of the error."""
    body = msgspec.json.encode({"model": "x", "max_tokens": 5, "messages": []})
    exchange: Exchange = proxy.receive(
        Inbound(body=body, headers={"x-data-class": (data_class,)}, team=team), endpoint
    )

    async def asking() -> str:
        if endpoint == "count_tokens":
            return text_of(await proxy.count_tokens(exchange))
        written: list[str] = []

        async def write(contents: Sequence[Content]) -> None:
            written.extend(map(text_of, contents))

        await proxy.answer(exchange, write)
        return "".join(written)

    try:
        return asyncio.run(asking())
    except ApiError as error:
        again = {"false": "; no retry"}.get(error.headers.get("x-should-retry", ""), "")
        return f"{error.status} {error.message}{again}"


REFUSED = (
    "502 refused: this request may not go where it was about to go (invariant `phi stays inside`); no retry"
)


def test_a_fallback_to_a_forbidden_target_is_refused_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    back_ends = Recording("overloaded")
    proxy = Proxy(Fixed(unproved(RULES)), back_ends, len)
    with caplog.at_level(logging.ERROR):
        assert outcome(proxy) == REFUSED
    assert back_ends.asked == ["inside/m a"]
    assert proxy.upstreams.refused == {"phi stays inside": 1}
    assert "outside/m refused by invariant phi stays inside" in caplog.text
    assert "its zone is `public`" in caplog.text


def test_rotated_keys_pass_the_lock_too() -> None:
    back_ends = Recording("rate_limit", "rate_limit")
    proxy = Proxy(Fixed(unproved(RULES)), back_ends, len)
    assert outcome(proxy) == REFUSED
    assert back_ends.asked == ["inside/m a", "inside/m b"]


def test_no_next_target_is_tried_after_a_refusal() -> None:
    text = RULES.replace('targets = ["inside/m", "outside/m"]', 'targets = ["outside/m", "inside/m"]', 1)
    back_ends = Recording()
    assert outcome(Proxy(Fixed(unproved(text)), back_ends, len)) == REFUSED
    assert back_ends.asked == []


def test_who_is_not_meant_is_not_refused() -> None:
    back_ends = Recording("overloaded")
    proxy = Proxy(Fixed(unproved(RULES)), back_ends, len)
    assert outcome(proxy, "public") == "answer"
    assert back_ends.asked == ["inside/m a", "outside/m None"]
    assert proxy.upstreams.refused == {}


def test_a_count_is_a_way_out_too() -> None:
    text = RULES.replace('["inside/m", "outside/m"]', '"outside/m"')
    back_ends = Recording()
    assert outcome(Proxy(Fixed(unproved(text)), back_ends, len), endpoint="count_tokens") == REFUSED
    assert back_ends.asked == []


def accepted(text: str) -> Policy:
    return compile_rules(text, path=Path("rules.toml"), environ=ENVIRON)


LAX = RULES.partition("[[invariants]]")[0]


@pytest.mark.parametrize(
    "stricter",
    [
        pytest.param(
            lambda lax: replace(lax, invariants=unproved(RULES).invariants), id="an invariant is new"
        ),
        pytest.param(lambda lax: unproved(RULES), id="the whole file is"),
    ],
)
def test_a_request_under_way_obeys_what_became_stricter(stricter: Callable[[Policy], Policy]) -> None:
    rules = Fixed(accepted(LAX))

    def change(target: str) -> None:
        rules.policy = stricter(rules.policy)

    back_ends = Recording("overloaded", before=change)
    assert outcome(Proxy(rules, back_ends, len)) == REFUSED
    assert back_ends.asked == ["inside/m a"]


def test_a_target_that_turned_out_to_be_public_is_refused_although_it_was_private() -> None:
    text = RULES.replace(
        'base_url = "http://outside.example/v1"', 'base_url = "http://outside.example/v1"\nzone = "private"'
    )
    private = accepted(text)
    rules = Fixed(private)

    def change(target: str) -> None:
        rules.policy = unproved(RULES)

    back_ends = Recording("overloaded", before=change)
    assert outcome(Proxy(rules, back_ends, len)) == REFUSED
    assert back_ends.asked == ["inside/m a"]


def test_a_header_that_only_the_live_rules_read_must_not_be_ambiguous() -> None:
    deaf = accepted(RULES.partition("[[rules]]")[0] + '[default]\ntargets = ["inside/m", "outside/m"]\n')
    rules = Fixed(deaf)
    back_ends = Recording("overloaded", before=lambda target: setattr(rules, "policy", unproved(RULES)))
    proxy = Proxy(rules, back_ends, len)
    body = msgspec.json.encode({"model": "x", "messages": []})
    exchange = proxy.receive(Inbound(body=body, headers={"x-data-class": ("public", "phi")}))

    async def write(data: bytes) -> None:
        pytest.fail("there was nobody to emit anything")

    with pytest.raises(ApiError, match="refused") as refused:
        asyncio.run(proxy.answer(exchange, write))
    assert refused.value.status == 502
    assert back_ends.asked == ["inside/m a"]


def test_the_live_rules_are_asked_about_what_they_say_of_the_team_themselves() -> None:
    team = '[teams.clinic]\nkeys = ["env:A"]\nrequest_headers = {{ x-data-class = "{}" }}\n'
    rules = Fixed(accepted(LAX + team.format("public")))
    stricter = unproved(RULES + team.format("phi"))
    back_ends = Recording("overloaded", before=lambda target: setattr(rules, "policy", stricter))
    assert outcome(Proxy(rules, back_ends, len), "public", team="clinic") == REFUSED
    assert back_ends.asked == ["inside/m a"]


def test_a_model_that_the_live_rules_no_longer_list_is_of_no_region() -> None:
    listed = '[providers.outside.models.m]\nregion = "eu"\n'
    rules = Fixed(accepted(LAX + listed))
    only_eu = RULES.replace('never.zone = "public"', 'only.region = "eu"')
    live = unproved(
        only_eu.replace('api_key = "none"', 'api_key = "none"\nregion = "eu"')
        .replace('"outside/m"', '"outside/n"')
        .replace("m = {}", 'm = { region = "eu" }')
        + listed.replace("models.m", "models.n")
    )
    back_ends = Recording("overloaded", before=lambda target: setattr(rules, "policy", live))
    assert outcome(Proxy(rules, back_ends, len)) == REFUSED
    assert back_ends.asked == ["inside/m a"]


def test_over_the_wire_a_request_that_waits_meets_the_new_invariant(tmp_path: Path) -> None:
    """A back end that fails late, and rules that are saved meanwhile."""
    overloaded = json_answer({"type": "error", "error": {"type": "overloaded_error", "message": ""}}, 529)
    with BackEnd([pause(1.5), *overloaded]) as slow, BackEnd(json_answer(message())) as other:
        provider = '[providers.{0}]\ntype = "anthropic"\napi_key = "none"\nbase_url = "{1}"\nzone = "{2}"\n'
        lax = provider.format("slow", slow.url, "local") + provider.format("other", other.url, "public")
        default = '[default]\ntargets = ["slow/m", "other/m"]\n'
        strict = '[[invariants]]\nname = "nothing leaves"\nnever.zone = "public"\n'
        with running(lax + default, tmp_path) as proxy:
            found = []
            asking = threading.Thread(target=lambda: found.append(ask(proxy)))
            asking.start()
            until(lambda: slow.requests)
            before = proxy.get("/readyz").json()["rules_version"]
            proxy.rules.write_text(lax + default.replace(', "other/m"', "") + strict)
            until(lambda: proxy.get("/readyz").json()["rules_version"] != before)
            asking.join()
    assert (found[0].status, found[0].said("rules-version")) == (502, before)
    assert "nothing leaves" in found[0].error[2]
    assert other.requests == []
