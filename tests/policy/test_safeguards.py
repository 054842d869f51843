"""`safeguards` of the rules: who judges tool uses, for which rules, and that it is a path of every proof."""

from pathlib import Path

import pytest

from routeproxy.policy.compile.compiler import compile_rules
from routeproxy.policy.decide import Policy
from routeproxy.policy.explain import explain
from routeproxy.policy.file.includes import KeptFolder
from routeproxy.policy.problems import RulesRefused
from routeproxy.policy.verify.diff import compare_policies
from routeproxy.policy.verify.proof import prove
from tests.policy.asking import ask, brief, policy, problems, request

BEGINNING = """
[server]
port = 8082
{server}
[providers.corp]
type = "openai_compatible"
base_url = "https://llm.corp.example/v1"
api_key = "none"
zone = "private"
[providers.openai]
[providers.anthropic]
[aliases]
one = "openai/gpt-4.1-mini"
tuned = {{ target = "corp/j", params = {{ set = {{ temperature = 0 }} }} }}
two = ["corp/a", "corp/b"]
"""


def written(rules: str, server: str = "", default: str = 'targets = "corp/d"') -> str:
    return f"{BEGINNING.format(server=server)}\n{rules}\n[default]\n{default}\n"


BY_J = "its tool uses are judged by corp/j within 20 s"
BY_NOBODY = "its tool uses are judged by nobody"
MINI = "openai/gpt-4.1-mini 20"


def judge(compiled: Policy, model: str = "m") -> str | None:
    """Who judges for such a request, and for how long at most."""
    safeguards = ask(compiled, model).safeguards
    return f"{safeguards.target.name} {safeguards.timeout:g}" if safeguards is not None else None


def of_rule(rule: str, server: str = "") -> str | None:
    return judge(policy(written(f'[[rules]]\nname = "r"\nmatch.model = "m"\n{rule}', server)))


@pytest.mark.parametrize(
    ("rule", "server", "expected"),
    [
        pytest.param('targets = "corp/m"', "", None, id="nobody says anything"),
        pytest.param('targets = "corp/m"\nsafeguards = "corp/j"', "", "corp/j 20", id="the rule"),
        pytest.param('targets = "corp/m"', 'safeguards = "corp/j"', "corp/j 20", id="the server"),
        pytest.param('targets = "corp/m"', 'safeguards = "one"', MINI, id="by an alias"),
        pytest.param(
            'targets = "corp/m"\nsafeguards = "corp/k"',
            'safeguards = "corp/j"',
            "corp/k 20",
            id="the rule wins",
        ),
        pytest.param('targets = "corp/m"\nsafeguards = false', 'safeguards = "corp/j"', None, id="off"),
        pytest.param('targets = "corp/m"', "safeguards = false", None, id="off for the server"),
        pytest.param(
            'targets = "corp/m"\nfallback = false', 'safeguards = "corp/j"', None, id="guarantee"
        ),
        pytest.param(
            'targets = "corp/m"\nfallback = false\nsafeguards = "corp/k"',
            'safeguards = "corp/j"',
            "corp/k 20",
            id="unless it says so",
        ),
        pytest.param('targets = ["corp/m", "corp/n"]', 'safeguards = "corp/j"', "corp/j 20", id="list"),
        pytest.param(
            'targets = "corp/m"', 'safeguards = "corp/j"\nsafeguards_timeout = "5s"', "corp/j 5", id="time"
        ),
        pytest.param(
            'targets = "corp/m"\nsafeguards_timeout = "1500ms"',
            'safeguards = "corp/j"\nsafeguards_timeout = "5s"',
            "corp/j 1.5",
            id="the rule's time",
        ),
        pytest.param(
            'targets = "corp/m"\nsafeguards = "corp/k"',
            'safeguards = "corp/j"\nsafeguards_timeout = "5s"',
            "corp/k 5",
            id="another judge in the server's time",
        ),
        pytest.param('targets = "anthropic/*"', 'safeguards = "corp/j"', None, id="Messages"),
        pytest.param(
            'targets = ["anthropic/*", "corp/m"]', 'safeguards = "corp/j"', "corp/j 20", id="one of two does"
        ),
        pytest.param('deny = "no"', 'safeguards = "corp/j"', None, id="a denial"),
    ],
)  # fmt: skip
def test_who_judges(rule: str, server: str, expected: str | None) -> None:
    assert of_rule(rule, server) == expected


def test_a_client_that_wants_one_supplier_gets_no_second_one_from_the_server() -> None:
    facts = request("m")
    facts.no_fallback = True
    by_server = policy(written("", 'safeguards = "corp/j"'))
    by_rule = policy(written("", default='targets = "corp/d"\nsafeguards = "corp/j"'))
    assert by_server.decide(facts).safeguards is None
    assert by_rule.decide(facts).safeguards is not None


def test_what_no_rule_takes_is_judged_too() -> None:
    assert judge(policy(written("", 'safeguards = "corp/j"'))) == "corp/j 20"


def test_what_the_rule_does_to_its_requests_is_not_done_to_the_judges() -> None:
    rule = 'match.model = "m"\ntargets = "corp/m"\nsafeguards = "tuned"'
    rule += '\nparams.set.top_p = 0.5\ntimeouts.total = "3s"'
    safeguards = ask(policy(written(f"[[rules]]\n{rule}")), "m").safeguards
    assert safeguards is not None
    assert safeguards.target.params.set == {"temperature": 0}
    assert safeguards.target.timeouts.total is None


def test_a_team_has_its_own_key_for_it() -> None:
    team = '[teams.t]\nkeys = "env:T"\nprovider_keys = { openai = "env:MINE" }\n'
    compiled = policy(written(team, 'safeguards = "one"'), {"T": "t", "MINE": "m", "OPENAI_API_KEY": "o"})
    facts = request()
    facts.team = "t"
    safeguards = compiled.decide(facts).safeguards
    assert safeguards is not None
    assert [key.reference for key in safeguards.target.provider.keys] == ["env:MINE"]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ('safeguards = "two"', "RP003 the alias `two` stands for 2 targets, and one judges: no fallback"),
        (
            'safeguards = "corp/*"',
            "RP003 `corp/*` is another model for each request, and one judges them all",
        ),
        ("safeguards = true", "RP003 `true` says nobody: safeguards are the target that judges tool uses"),
        ('safeguards = "onne"', "RP007 there is no alias `onne`"),
        ('safeguards = "crop/j"', "RP007 there is no provider `crop`"),
        ('safeguards = ["corp/a"]', "RP003 "),
        ('safeguards = ""', "RP005 "),
        ('safeguards = "corp/j"\nsafeguards_timeout = "soon"', "RP003 "),
        (
            'safeguards = "corp/j"\nsafeguards_timeout = "0s"',
            "RP003 `safeguards_timeout`: in no time at all nobody judges; `safeguards = false` asks nobody",
        ),
        ('safeguard = "corp/j"', "RP002 unknown key `safeguard`; did you mean `safeguards`?"),
        (
            'safeguards_timeout = "5s"',
            "RP104 `safeguards_timeout` has no effect: nobody is asked to judge tool uses",
        ),
        (
            'safeguards = false\nsafeguards_timeout = "5s"',
            "RP104 `safeguards_timeout` has no effect: nobody is asked to judge tool uses",
        ),
    ],
)
def test_check_says_what_is_wrong(rule: str, expected: str) -> None:
    for text in (
        written(f'[[rules]]\nname = "r"\nmatch.model = "m"\ntargets = "corp/m"\n{rule}'),
        written("", server=rule),
        written("", default=f'targets = "corp/d"\n{rule}'),
    ):
        found = [brief(problem).partition(" ")[2] for problem in problems(text)]
        assert any(words.startswith(expected) for words in found), found


def test_a_denial_has_no_judge() -> None:
    found = [
        brief(problem) for problem in problems(written("", default='deny = "no"\nsafeguards = "corp/j"'))
    ]
    assert any("`safeguards` means nothing beside `deny`" in words for words in found)


def test_a_judge_that_is_never_asked_is_a_warning() -> None:
    rule = '[[rules]]\nmatch.model = "m"\ntargets = "anthropic/*"\nsafeguards = "corp/j"'
    assert any("nobody is asked: all targets" in brief(problem) for problem in problems(written(rule)))


def test_the_version_and_the_difference_know_it() -> None:
    rule = '[[rules]]\nname = "r"\nmatch.model = "m"\ntargets = "corp/m"\n'
    old = policy(written(rule))
    by_rule = policy(written(f'{rule}safeguards = "corp/j"'))
    by_server = policy(written(rule, 'safeguards = "corp/j"'))
    longer = policy(written(rule, 'safeguards = "corp/j"\nsafeguards_timeout = "30s"'))
    assert len({one.version for one in (old, by_rule, by_server, longer)}) == 4
    assert compare_policies(old, by_rule) == [f"rule `r`: {BY_J} instead of {BY_NOBODY}"]
    assert compare_policies(old, by_server) == ["[server] safeguards is corp/j instead of nothing"]
    assert compare_policies(by_server, longer) == ["[server] safeguards_timeout is 30 s instead of 20 s"]
    kept = policy(written(f"{rule}fallback = false", 'safeguards = "corp/j"'))
    assert compare_policies(by_server, kept) == [f"rule `r`: {BY_NOBODY} instead of {BY_J}"]


def test_explain_names_it() -> None:
    compiled = policy(written("", 'safeguards = "one"\nsafeguards_timeout = "5s"'))
    explanation = explain(ask(compiled), compiled)
    assert explanation.safeguards is not None
    assert explanation.safeguards.target == "openai/gpt-4.1-mini"
    assert str(explanation).splitlines()[-2:] == [
        "tool uses in auto mode: judged within 5 s by",
        "   openai/gpt-4.1-mini  zone public, engine direct, key env:OPENAI_API_KEY set",
    ]


# --- the proof

PHI = """
[[rules]]
name = "phi"
match.headers.x-data = "phi"
targets = "corp/m"
{rule}
[[invariants]]
name = "phi stays inside"
when.headers.x-data = "phi"
never.zone = "public"
"""


@pytest.mark.parametrize(
    ("rule", "server", "is_kept"),
    [
        pytest.param("", "", True, id="nobody judges"),
        pytest.param("", 'safeguards = "corp/j"', True, id="an inside judge"),
        pytest.param("", 'safeguards = "one"', False, id="a public judge of the server"),
        pytest.param('safeguards = "one"', "", False, id="a public judge of the rule"),
        pytest.param("safeguards = false", 'safeguards = "one"', True, id="switched off where it matters"),
        pytest.param('safeguards = "corp/j"', 'safeguards = "one"', True, id="another one where it matters"),
        pytest.param("fallback = false", 'safeguards = "one"', True, id="a rule with one supplier"),
    ],
)
def test_a_prompt_goes_to_the_judge_so_invariants_hold_it(rule: str, server: str, is_kept: bool) -> None:
    text = written(PHI.format(rule=rule), server)
    broken = [brief(problem) for problem in problems(text) if "phi stays inside" in problem.message]
    assert bool(broken) is not is_kept
    if not is_kept:
        assert "may reach `openai/gpt-4.1-mini` (its safeguards): its zone is `public`" in broken[0]


def test_the_problem_stands_where_the_judge_is_written_and_says_the_way_out() -> None:
    text = written(PHI.format(rule='safeguards = "one"'))
    (problem,) = (problem for problem in problems(text) if "phi stays inside" in problem.message)
    assert problem.location is not None
    assert text.splitlines()[problem.location.line - 1] == 'safeguards = "one"'
    assert "`safeguards = false` in this rule" in (problem.expected or "")


def test_the_targets_of_a_team_bound_its_judge() -> None:
    team = '[teams.t]\nkeys = "env:T"\ntargets = "corp/*"\n'
    environ = {"T": "t", "OPENAI_API_KEY": "o", "ANTHROPIC_API_KEY": "a"}
    refused = [brief(problem) for problem in problems(written(team, 'safeguards = "one"'), environ)]
    assert any("`[teams.t] targets` is broken" in words for words in refused)
    assert policy(written(team, 'safeguards = "corp/j"'), environ)


@pytest.mark.parametrize(("target", "is_kept"), [("corp/j", True), ("openai/j", False)])
def test_an_included_file_may_name_a_judge_within_its_teams_targets(target: str, is_kept: bool) -> None:
    main = written(
        '[teams.t]\nkeys = "env:T"\ntargets = "corp/*"\n[[rules]]\ninclude = "t.toml"', default='deny = "no"'
    )
    layer = f'team = "t"\n[[rules]]\ntargets = "corp/m"\nsafeguards = "{target}"\n'
    folder = KeptFolder({"t.toml": ["t.toml"]}, {"t.toml": layer.encode()})
    environ = {"T": "t", "OPENAI_API_KEY": "o", "ANTHROPIC_API_KEY": "a"}
    if is_kept:
        assert compile_rules(main, path=Path("rules.toml"), environ=environ, folder=folder)
        return
    with pytest.raises(RulesRefused) as refused:
        compile_rules(main, path=Path("rules.toml"), environ=environ, folder=folder)
    assert any("(its safeguards)" in problem.message for problem in refused.value.problems)


def test_a_test_that_says_never_looks_at_the_judge() -> None:
    case = '[[tests]]\nname = "inside"\nrequest = { model = "m" }\nnever = { zone = "public" }\n'
    found = [problem.message for problem in problems(written(case, 'safeguards = "one"'))]
    assert any("the test `inside` fails: never zone" in message for message in found), found


def test_the_proof_of_what_is_allowed_counts_it() -> None:
    compiled = policy(written("", 'safeguards = "one"') + '[[invariants]]\nnever.provider = "anthropic"\n')
    assert [verdict.holds for verdict in prove(compiled).verdicts] == [True]
