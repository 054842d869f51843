import io
import json
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from routeproxy.cli.check import run_check
from routeproxy.cli.explain import run_explain
from routeproxy.cli.fact_options import parse_headers
from routeproxy.policy.decide import Policy
from routeproxy.policy.hypothetical import HypotheticalRequest
from routeproxy.sources import Options, Sources
from tests.policy.asking import KEYS, policy, rules

POLICY = rules("""
    [[rules]]
    name = "payments"
    match.headers.x-team = "payments"
    match.images = true
    deny = "no pictures"

    [[rules]]
    name = "long"
    match.input_tokens.min = 60_000
    targets = "gemini/gemini-2.5-pro"

    [[rules]]
    name = "background work"
    match.model = "haiku"
    targets = ["openai/gpt-4.1-mini", "anthropic/*"]
    fallback.on = ["rate_limit"]
    retry.attempts = 2
    deadline = "40s"
""")


def explained(
    question: HypotheticalRequest, *headers: str, policy: Policy = POLICY, **how: Any
) -> tuple[int, str]:
    out = io.StringIO()

    def asked(policy: Policy) -> HypotheticalRequest:
        return question.replace(headers=parse_headers(headers))

    code = run_explain(lambda: policy, asked, out=out, **how)
    return code, out.getvalue()


def test_explain_shows_every_rule_in_order_and_then_where_it_goes() -> None:
    code, text = explained(
        HypotheticalRequest(model="claude-haiku-4-5", input_tokens=58211, stream=True), "x-team: payments"
    )
    assert code == 0
    assert text == dedent(f"""\
        rules.toml, version {POLICY.version}

        - payments         rules.toml:8  images is false, needs to be true
        - long             rules.toml:14  input_tokens is 58,211, needs at least 60,000
        ✓ background work  rules.toml:19  matches

        1. openai/gpt-4.1-mini  zone public, engine direct, key env:OPENAI_API_KEY set
        2. anthropic/claude-haiku-4-5  zone public, engine direct, key env:ANTHROPIC_API_KEY set
           falls back after rate_limit
           passes over what fails at the time: only a server knows that (/v1/route)
           tries each target 2 times
           gives up after 40 s

        assumed: no max_tokens, no images, no documents, no tools, no thinking, no effort, no system text, \
no user, no target in the URL
        """)


def test_explain_shows_a_denial() -> None:
    _, text = explained(HypotheticalRequest(model="x", images=True), "X-Team:payments")
    assert "✓ payments  rules.toml:8  matches\n\ndenied with 400: no pictures\n" in text


def test_explain_as_json_is_the_same_decision() -> None:
    code, text = explained(HypotheticalRequest(model="claude-haiku-4-5"), json=True)
    explanation = json.loads(text)["explanation"]
    assert code == 0
    assert [step["why"] for step in explanation["steps"]] == [
        "header x-team is missing, needs to be `payments`",
        "input_tokens is 0, needs at least 60,000",
        "",
    ]
    assert [target["target"] for target in explanation["targets"]] == [
        "openai/gpt-4.1-mini",
        "anthropic/claude-haiku-4-5",
    ]


@pytest.mark.parametrize(
    ("question", "headers", "message"),
    [
        pytest.param(
            HypotheticalRequest(model="../x"),
            (),
            "refused with 404 before any rule: model: ../x",
            id="no name",
        ),
        pytest.param(
            HypotheticalRequest(model="x"),
            ("x-team: a", "x-team: b"),
            "refused with 400 before any rule: header x-team",
            id="two",
        ),
    ],
)
def test_explain_shows_what_no_rule_is_asked_about(
    question: HypotheticalRequest, headers: tuple[str, ...], message: str
) -> None:
    code, text = explained(question, *headers)
    assert (code, text.startswith(message)) == (0, True)


def test_explain_refuses_a_header_without_a_colon() -> None:
    with pytest.raises(ValueError, match="`x-team` is not a header: write `name: value`"):
        explained(HypotheticalRequest(model="x"), "x-team")


@pytest.mark.parametrize(
    ("fact", "match"),
    [
        (HypotheticalRequest(model="x", stream=True), "match.stream = true"),
        (HypotheticalRequest(model="x", images=True), "match.images = true"),
        (HypotheticalRequest(model="x", documents=True), "match.documents = true"),
        (HypotheticalRequest(model="x", tools=("web_search_1",)), 'match.tools = "web_*"'),
        (HypotheticalRequest(model="x", thinking=True), "match.thinking = true"),
        (HypotheticalRequest(model="x", effort="high"), 'match.effort = "high"'),
        (HypotheticalRequest(model="x", system="You are"), 'match.system = "you"'),
        (HypotheticalRequest(model="x", user="u"), 'match.user = "u"'),
        (HypotheticalRequest(model="x", max_tokens=5), "match.max_tokens.min = 5"),
        (HypotheticalRequest(model="x", url_target="echo/it"), "match.url_target = true"),
    ],
)
def test_a_question_can_state_every_fact(fact: HypotheticalRequest, match: str) -> None:
    compiled = rules(f'[[rules]]\nname = "it"\n{match}\ntargets = "echo/it"')
    assert compiled.decide(compiled.facts_of(fact)).rule == "it"
    assert compiled.decide(compiled.facts_of(HypotheticalRequest(model="x"))).rule == "default"


# --- check

GOOD = '[providers.openai]\n[default]\ntargets = "openai/x"\n'
ODD = '[providers.openai]\n[default]\ntargets = ["openai/x", "openai/y"]\nfallback = false\n'
BAD = '[default]\ntargets = "openai/x"\n'


def checked(folder: Path, text: str | bytes, **how: Any) -> tuple[int, str]:
    file = folder / "rules.toml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    out = io.StringIO()
    code = run_check(Sources(Options(rules=file), KEYS), out=out, **how)
    return code, out.getvalue().replace(f"{folder}/", "")


@pytest.mark.parametrize(
    ("text", "strict", "code"),
    [
        pytest.param(GOOD, False, 0, id="good"),
        pytest.param(GOOD, True, 0, id="good, strict"),
        pytest.param(ODD, False, 0, id="odd"),
        pytest.param(ODD, True, 1, id="odd, strict"),
        pytest.param(BAD, False, 1, id="bad"),
        pytest.param("x", False, 1, id="no TOML"),
    ],
)
def test_check_says_by_its_exit_code_whether_the_file_would_be_taken(
    tmp_path: Path, text: str | bytes, strict: bool, code: int
) -> None:
    assert checked(tmp_path, text, strict=strict)[0] == code


def test_check_ends_with_a_line_that_sums_up(tmp_path: Path) -> None:
    version = policy(GOOD).version
    assert checked(tmp_path, GOOD)[1] == f"rules.toml: no rules and a default, version {version}\n"
    assert checked(tmp_path, ODD)[1].endswith("; 1 warning\n")
    assert checked(tmp_path, BAD)[1].endswith("\n\nrules.toml: 1 error\n")


def test_check_as_json_has_every_problem_with_its_place(tmp_path: Path) -> None:
    code, out = checked(tmp_path, BAD, format="json")
    report = json.loads(out)
    assert (code, report["ok"], report["version"]) == (1, False, None)
    (problem,) = report["problems"]
    assert (problem["code"], problem["severity"], problem["location"]["line"]) == ("RP007", "error", 2)
