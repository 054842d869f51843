"""`request_class`, `agent_type`, `session` and `agent`: headers of Claude Code by short names. Each is one
fact with the header, however rules, teams and requests write it."""

import json
from typing import Any

import pytest

from routeproxy.messages.errors import InvalidRequest
from routeproxy.policy.decide import Policy
from routeproxy.policy.facts import session_in
from routeproxy.policy.hypothetical import HypotheticalRequest
from routeproxy.policy.logged import logged_facts, logged_request
from tests.policy.asking import request, rules

SHORT_NAMES = {
    "request_class": "x-claude-code-request-class",
    "agent_type": "x-claude-code-agent-type",
    "session": "x-claude-code-session-id",
    "agent": "x-claude-code-agent-id",
}
FORMS = [
    pytest.param('"abc"', "abc", "ab", id="plain"),
    pytest.param('["abc", "b"]', "b", "c", id="a list"),
    pytest.param('{ equals = "abc" }', "abc", "Abc", id="equals"),
    pytest.param('{ prefix = "ab" }', "abc", "bab", id="prefix"),
    pytest.param('{ contains = ["b", "x"] }', "abc", "ac", id="contains"),
    pytest.param('{ glob = "a?c" }', "abc", "ac", id="glob"),
    pytest.param("{ regex = '^a.*c$' }", "abc", "abcd", id="regex"),
    pytest.param("{ present = true }", "", None, id="present"),
    pytest.param("{ present = false }", None, "", id="missing"),
]


def decided(policy: Policy, **how: Any) -> str:
    return policy.decide(request(**how)).rule


@pytest.mark.parametrize("name", SHORT_NAMES)
@pytest.mark.parametrize(("form", "taken", "left"), FORMS)
def test_a_short_name_takes_every_form_that_its_header_takes(
    name: str, form: str, taken: str | None, left: str | None
) -> None:
    header = SHORT_NAMES[name]
    for spelling in (name, f"headers.{header}", f"headers.{header.title()}"):
        policy = rules(f"[[rules]]\nname = 'it'\nmatch.{spelling} = {form}\ntargets = 'echo/it'")
        for value, rule in ((taken, "it"), (left, "default")):
            assert decided(policy, headers={header: value} if value is not None else {}) == rule


BOTH = """
[[rules]]
name = "it"
match.request_class = ["main", "subagent"]
match.headers.x-claude-code-request-class = ["subagent", "workflow"]
targets = "echo/it"
"""


@pytest.mark.parametrize(
    ("value", "rule"), [("main", "default"), ("subagent", "it"), ("workflow", "default")]
)
def test_both_spellings_in_one_rule_must_hold(value: str, rule: str) -> None:
    assert decided(rules(BOTH), headers={SHORT_NAMES["request_class"]: value}) == rule


def test_the_index_looks_up_both_spellings() -> None:
    spellings = ("request_class", "headers.X-Claude-Code-Request-Class")
    policy = rules(
        "\n".join(
            f"[[rules]]\nname = '{n}'\nmatch.{spellings[n % 2]} = 'class-{n}'\ntargets = 'echo/{n}'"
            for n in range(50)
        )
    )
    for n in (0, 1, 48, 49):
        decision = policy.decide(request(headers={SHORT_NAMES["request_class"]: f"class-{n}"}))
        assert decision.rule == str(n)


def test_the_spelling_is_no_part_of_the_version_and_the_value_is() -> None:
    def version(condition: str) -> str:
        return rules(f"[[rules]]\nname = 'r'\nmatch.{condition}\ntargets = 'echo/it'").version

    one = version("request_class = 'main'")
    assert version("headers.x-claude-code-request-class = 'main'") == one
    assert version("headers.X-Claude-Code-Request-Class = 'main'") == one
    assert version("any = [{ request_class = 'main' }]") == version(
        "any = [{ headers.x-claude-code-request-class = 'main' }]"
    )
    others = [
        version("request_class = 'subagent'"),
        version("agent_type = 'main'"),
        version("headers.x-class = 'main'"),
        version("not.request_class = 'main'"),
        version("any = [{ request_class = 'main' }]"),
        version("any = [{ request_class = 'subagent' }]"),
    ]
    assert len({one, *others}) == 1 + len(others)


def test_a_team_states_it_in_place_of_the_client() -> None:
    policy = rules("""
        [teams.nightly]
        request_headers = { X-Claude-Code-Request-Class = "auxiliary" }
        [[rules]]
        name = "it"
        match.request_class = "auxiliary"
        targets = "echo/it"
    """)
    said = HypotheticalRequest(model="m", team="nightly", request_class="main")
    facts = policy.facts_of(said)
    assert (policy.decide(facts).rule, logged_facts(facts, policy)["request_class"]) == ("it", "auxiliary")


def test_two_values_are_refused_where_rules_look_and_are_nobodys_choice_in_the_log_elsewhere() -> None:
    twice = {SHORT_NAMES["request_class"]: ("main", "subagent")}
    seeing = rules("[[rules]]\nmatch.request_class = 'main'\ntargets = 'echo/it'")
    with pytest.raises(InvalidRequest, match="x-claude-code-request-class: sent more than once"):
        seeing.check_headers(twice)
    blind = rules("")
    blind.check_headers(twice)
    logged = logged_facts(request("m", headers=twice), blind)
    assert logged == {"model": "m", "not_recorded": ("request_class",)}


def test_the_log_has_them_whether_rules_look_or_not_and_once() -> None:
    headers = {**{header: f"a {name}" for name, header in SHORT_NAMES.items()}, "x-team": "t"}
    expected = {"model": "m", **{name: f"a {name}" for name in SHORT_NAMES}}
    blind, seeing = (
        rules(""),
        rules("""
        [[rules]]
        match.headers.x-claude-code-session-id.present = true
        match.headers.x-team = "u"
        targets = "echo/it"
    """),
    )
    assert logged_facts(request("m", headers=headers), blind) == expected
    logged = logged_facts(request("m", headers=headers), seeing)
    assert logged == {**expected, "headers": {"x-team": "t"}}
    again = seeing.facts_of(logged_request(logged))
    assert {name: again.header(header) for name, header in SHORT_NAMES.items()} == {
        name: f"a {name}" for name in SHORT_NAMES
    }


def test_what_rules_do_not_look_at_is_not_assumed() -> None:
    policy = rules("[[rules]]\nmatch.session.present = true\ntargets = 'echo/it'")
    assert {"no session", "no agent"} & {*policy.assumed_of(HypotheticalRequest(model="m"))} == {"no session"}


# --- the session that a request belongs to

OLD = "user_0123abcd_account_11111111-2222_session_33333333-4444-5555"
NEW = json.dumps({"device_id": "0" * 64, "account_uuid": "", "session_id": "33333333-4444-5555"})


@pytest.mark.parametrize(
    ("user_id", "session"),
    [
        (NEW, "33333333-4444-5555"),
        (OLD, "33333333-4444-5555"),
        ("user_0123abcd_account__session_3333", "3333"),
        ("", None),
        ("somebody", None),
        ("my_session_1", None),
        (OLD.removesuffix("_session_33333333-4444-5555"), None),
        ('{"session_id": ""}', None),
        ('{"session_id": 7}', None),
        ('{"session_id": null}', None),
        ('{"session": "x"}', None),
        ('{"session_id": "x"', None),
        ('{"session_id": "\\ud83d"}', None),
        ('["session_id"]', None),
        ("{" * 100_000, None),
    ],
)
def test_claude_code_says_its_session_in_the_users_id_too(user_id: str, session: str | None) -> None:
    assert session_in(user_id) == session


@pytest.mark.parametrize(
    ("header", "user_id", "session"),
    [
        ("h", NEW, "h"),
        (" h ", None, "h"),
        ("", NEW, "33333333-4444-5555"),
        (None, NEW, "33333333-4444-5555"),
        (None, "somebody", None),
        (None, None, None),
    ],
)
def test_the_header_goes_before_the_users_id(
    header: str | None, user_id: str | None, session: str | None
) -> None:
    headers = {SHORT_NAMES["session"]: header} if header is not None else {}
    facts = request("m", headers=headers, metadata={"user_id": user_id})
    assert facts.session_id == session


def test_a_rule_looks_at_the_header_alone() -> None:
    policy = rules("[[rules]]\nname = 'it'\nmatch.session.present = true\ntargets = 'echo/it'")
    assert decided(policy, metadata={"user_id": NEW}) == "default"
