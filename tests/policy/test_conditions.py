from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routeproxy.policy.problems import RulesRefused
from tests.policy.asking import ask, request, rules


def takes(match: str, **how: Any) -> bool:
    """Whether a rule with these conditions takes the request."""
    lines = "\n".join(f"match.{line}" for line in match.split("; "))
    return ask(rules(f'[[rules]]\nname = "it"\n{lines}\ntargets = "echo/it"'), **how).rule == "it"


def headers(**values: str) -> dict[str, dict[str, str]]:
    return {"headers": {name.replace("_", "-"): value for name, value in values.items()}}


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
PDF = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "aGk="}}


def turn(*blocks: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(blocks)}]}


def result(content: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": "toolu_1", "content": content}


def thinking(kind: str) -> dict[str, Any]:
    return {"thinking": {"type": kind}}


def tools(*heads: dict[str, str]) -> dict[str, Any]:
    return {"tools": list(heads)}


BASH = {"name": "Bash", "input_schema": "{}"}
SEARCH = {"type": "web_search_20250305", "name": "web_search"}
BILLING = {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1; cch=abc"}


@pytest.mark.parametrize(
    ("match", "how"),
    [
        # model
        ('model = "opus"', {}),
        ('model = "OPUS"', {"model": "Claude-Opus-4-8"}),
        ('model = ["haiku", "opus"]', {}),
        ('model = { prefix = "claude-", contains = ["haiku", "opus"] }', {}),
        ('model.equals = "claude-opus-4-8"', {"model": "CLAUDE-opus-4-8"}),
        ('model.glob = "claude-*-4-?"', {}),
        ('model.glob = "*[1m]"', {"model": "claude-opus-4-8[1m]"}),
        ("model.regex = 'opus-[0-9]'", {}),
        ("model.regex = ['^haiku', '8$']", {}),
        # headers
        ('headers.x-team = "payments"', headers(x_team=" \tpayments ")),
        ('headers.X-Team = ["a", "b"]', headers(x_team="b")),
        ('headers.x-team.glob = "pay*"', headers(x_team="pay")),
        ("headers.x-team.regex = '(?i)PAY'", headers(x_team="payments")),
        ("headers.x-team.present = true", headers(x_team="")),
        ("headers.x-team.present = false", {}),
        ('headers.x-city = "Köln"', headers(x_city="Köln".encode().decode("latin-1"))),
        ("headers.x-city.regex = '^K.ln$'", headers(x_city="Köln".encode().decode("latin-1"))),
        # numbers
        ("input_tokens.min = 10", {"tokens": 10}),
        ("input_tokens = { min = 1, max = 10 }", {"tokens": 10}),
        ("max_tokens.max = 10", {"max_tokens": 10}),
        ("max_tokens.min = 0", {"max_tokens": 0}),
        # yes and no
        ("stream = true", {"stream": True}),
        ("stream = false", {"stream": None}),
        ("images = true", turn(IMAGE)),
        ("images = true", turn(result([IMAGE]))),
        ("images = true", turn({"type": "document", "source": {"type": "content", "content": [IMAGE]}})),
        ("images = true", turn({"type": "block_of_tomorrow", "inner": {"content": [IMAGE]}})),
        ("images = false", turn({"type": "text", "text": 'an "image"'})),
        ("images = false", turn({"type": "tool_use", "id": "t", "name": "draw", "input": {"type": "image"}})),
        ("documents = true", turn(PDF)),
        ("documents = true", turn(result([PDF]))),
        ("documents = false", turn(IMAGE)),
        ("thinking = true", thinking("enabled")),
        ("thinking = true", thinking("adaptive")),
        ("thinking = true", thinking("between_tools")),
        ("thinking = false", thinking("disabled")),
        ("thinking = false", {}),
        ("url_target = true", {"url": "echo/it"}),
        ("url_target = false", {}),
        # tools
        ("tools = true", tools(BASH)),
        ("tools = false", {}),
        ("tools = false", tools()),
        ('tools = ["web_search_*"]', tools(BASH, SEARCH)),
        ('tools = "Ba?h"', tools(BASH)),
        # the rest
        ('effort = ["high", "max"]', {"output_config": {"effort": "max"}}),
        ('system = "you are CLAUDE"', {"system": "You are Claude Code"}),
        ('system.prefix = "you"', {"system": [BILLING, {"type": "text", "text": "You are Claude Code"}]}),
        ('user = "user_1"', {"metadata": {"user_id": "user_1"}}),
        ("user.present = false", {"metadata": {}}),
        # together
        ('model = "opus"; stream = true', {"stream": True}),
        ('any = [{ model = "haiku" }, { stream = false, thinking = false }]', {}),
        ('not.model = "haiku"', {}),
        ('not.headers.x-team = "payments"', {}),
        ("not.max_tokens.min = 5", {}),
        ('not = [{ model = "haiku" }, { model = "opus", stream = true }]', {}),
        ('not.not.model = "opus"', {}),
        ('any = [{ not.model = "opus" }, { not = [{ model = "haiku" }] }]', {}),
    ],
    ids=str,
)
def test_a_rule_takes_what_its_conditions_describe(match: str, how: dict[str, Any]) -> None:
    assert takes(match, **how)


@pytest.mark.parametrize(
    ("match", "how"),
    [
        ('model = "haiku"', {}),
        ('model.equals = "opus"', {}),
        ('model.prefix = ["opus", "haiku"]', {}),
        ('model = { prefix = "claude-", contains = "haiku" }', {}),
        ('model.glob = "opus"', {}),
        ('model.glob = "claude?opus"', {}),
        ('model.glob = "claude.opus*"', {}),
        ("model.regex = '^opus'", {}),
        ('model.equals = "claude-opus-4-8"', {"model": "claude-opus-4-8[1m]"}),
        ('headers.x-team = "pay"', headers(x_team="payments")),
        ('headers.x-team = "Payments"', headers(x_team="payments")),
        ('headers.x-team = "a"', headers(x_team="a, b")),
        ("headers.x-team.present = true", {}),
        ("headers.x-team.present = false", headers(x_team="")),
        ('headers.x-team.glob = "*"', {}),
        ("headers.x-team.regex = '.*'", {}),
        ("input_tokens.min = 11", {"tokens": 10}),
        ("input_tokens.max = 9", {"tokens": 10}),
        ("max_tokens.max = 10", {}),
        ("max_tokens.min = 0", {}),
        ("stream = true", {}),
        ("images = true", {}),
        ("tools = true", tools()),
        ('tools = ["web_search"]', tools(BASH)),
        ('tools = ["bash"]', tools(BASH)),
        ("thinking = true", thinking("disabled")),
        ("thinking = true", thinking("of_tomorrow")),
        ('effort = "high"', {}),
        ('effort = "high"', {"output_config": {"effort": "low"}}),
        ('system = "x-anthropic"', {"system": [BILLING, {"type": "text", "text": "You"}]}),
        ('system = "x"', {}),
        ('user = "user"', {"metadata": {"user_id": "user_1"}}),
        ('user = "user"', {}),
        ('model = "opus"; stream = true', {}),
        ('any = [{ model = "haiku" }, { stream = true }]', {}),
        ('not.model = "opus"', {}),
        ("not.headers.x-team.present = false", {}),
        ('not = [{ model = "haiku" }, { model = "opus", stream = false }]', {}),
    ],
    ids=str,
)
def test_a_rule_takes_nothing_else(match: str, how: dict[str, Any]) -> None:
    assert not takes(match, **how)


@pytest.mark.parametrize(
    ("match", "how", "why"),
    [
        ("input_tokens.min = 60_000", {"tokens": 58211}, "input_tokens is 58,211, needs at least 60,000"),
        (
            "input_tokens = { min = 1, max = 9 }",
            {"tokens": 10},
            "input_tokens is 10, needs at least 1 and at most 9",
        ),
        ("max_tokens.max = 5", {}, "max_tokens is not given, needs at most 5"),
        ('model = ["haiku", "x"]', {}, "model is `claude-opus-4-8`, needs to contain `haiku` or `x`"),
        ('model.glob = "x*"', {}, "model is `claude-opus-4-8`, needs to match `x*`"),
        ('headers.x-a = "b"', {}, "header x-a is missing, needs to be `b`"),
        ("headers.x-a.present = false", headers(x_a="1"), "header x-a is present, needs to be missing"),
        ("stream = true", {}, "stream is false, needs to be true"),
        (
            'tools = ["web_*"]',
            tools(BASH),
            "the request has the tools `Bash`, needs to have one like `web_*`",
        ),
        ('system = "x"', {"system": "You"}, "system is 3 characters of text, needs to contain `x`"),
        ('not.model = "opus"', {}, "model is `claude-opus-4-8`, must not contain `opus`"),
        ("not.stream = false", {}, "stream is false, must not be false"),
        (
            'not = [{ model = "haiku" }, { model = "opus", stream = false }]',
            {},
            "model is `claude-opus-4-8`, must not contain `opus` and stream is false, must not be false",
        ),
        (
            'any = [{ model = "haiku" }, { stream = true }]',
            {},
            "none of `any` holds: model is `claude-opus-4-8`, needs to contain `haiku`; "
            "stream is false, needs to be true",
        ),
        (
            'not = [{ any = [{ model = "opus" }, { stream = true }] }]',
            {},
            "model is `claude-opus-4-8`, must not contain `opus`",
        ),
        ("not.not.stream = true", {}, "stream is false, needs to be true"),
    ],
    ids=str,
)
def test_a_miss_says_what_was_there_and_what_was_asked(match: str, how: dict[str, Any], why: str) -> None:
    policy = rules(f'[[rules]]\nmatch.{match}\ntargets = "echo/it"')
    assert policy.decide(request(**how)).steps[0].why == why


def test_tokens_are_counted_only_for_a_rule_that_can_still_match() -> None:
    policy = rules("""
        [[rules]]
        match.input_tokens.min = 5
        match.model = "haiku"
        match.system = "x"
        targets = "echo/it"
        [[rules]]
        match.any = [{ input_tokens.min = 5 }]
        match.stream = true
        targets = "echo/it"
        [[rules]]
        match.not.input_tokens.min = 5
        match.thinking = true
        targets = "echo/it"
    """)
    facts = request()
    counted: list[int] = []
    facts.count = lambda: counted.append(1) or 7
    policy.decide(facts)
    assert counted == []
    facts = request("haiku", stream=True, thinking={"type": "enabled"}, system="x")
    facts.count = lambda: counted.append(1) or 7
    policy.decide(facts)
    assert counted == [1]


def test_a_regex_takes_linear_time() -> None:
    assert not takes("system.regex = '^(a+)+$'", system="a" * 50_000 + "b")
    assert not takes('system.glob = "' + "*a" * 30 + '"', system="a" * 20 + "b" * 50_000)


@pytest.mark.parametrize("pattern", ["(?=a)", "(?<!a)b", r"(a)\1", "(", "a{2000}", r"\p{Nonsense}"])
def test_a_pattern_without_a_linear_meaning_is_refused(pattern: str) -> None:
    with pytest.raises(RulesRefused, match="RP010"):
        rules(f"[[rules]]\nmatch.model.regex = '{pattern}'\ntargets = \"echo/x\"")


# --- laws

TEXT = st.text(max_size=12)


@given(glob=st.text(alphabet="ab*?.\\", min_size=1, max_size=6), text=st.text(alphabet="ab.\\\n", max_size=6))
def test_a_glob_means_what_a_glob_means(glob: str, text: str) -> None:
    quoted = "".join(f"\\u{ord(char):04x}" for char in glob)
    assert takes(f'system.glob = "{quoted}"', system=text) == by_hand(glob, text)


def by_hand(glob: str, text: str) -> bool:
    if not glob:
        return not text
    if glob[0] == "*":
        return any(by_hand(glob[1:], text[start:]) for start in range(len(text) + 1))
    return bool(text) and glob[0] in {"?", text[0]} and by_hand(glob[1:], text[1:])


EVERYTHING = rules("""
    [[rules]]
    match.any = [
        { model.regex = 'x{3}', system.glob = "*a*" },
        { headers.x-a.regex = 'b', user.prefix = "c" },
        { headers.x-a = "d", tools = ["*e*"] },
        { images = true, documents = true, effort = "high" },
        { input_tokens.min = 5, max_tokens.max = 5 },
        { not.system = "q" },
    ]
    match.not = [{ user.glob = "*" }, { tools = "?" }]
    targets = "echo/it"
""")


@given(
    model=st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20),
    header=st.text(alphabet=st.characters(max_codepoint=255), max_size=12),
    system=st.one_of(
        st.none(), TEXT, st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": TEXT}))
    ),
    content=st.recursive(
        st.one_of(TEXT, st.none(), st.integers(), st.sampled_from(["image", "document"])),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(st.sampled_from(["type", "content", "source", "input"]), inner),
        ),
    ),
    user=st.one_of(st.none(), TEXT),
)
def test_no_request_makes_a_condition_fail(
    model: str, header: str, system: Any, content: Any, user: Any
) -> None:
    facts = request(
        model,
        headers={"x-a": header},
        system=system,
        messages=[{"role": "user", "content": content}],
        metadata={"user_id": user},
        tools=[{"name": header}],
    )
    decision = EVERYTHING.decide(facts)
    assert [step.why for step in decision.steps if step.missed] or decision.rule == "rule 1"
