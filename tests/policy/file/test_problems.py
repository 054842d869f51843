import copy
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import tomli
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from routeproxy.policy.problems import Problem
from tests.policy.asking import brief, policy, problems

FILES = Path(__file__).parents[1] / "files"
BAD = sorted((FILES / "bad").glob("*.toml"))
GOOD = sorted((FILES / "good").glob("*.toml"))


@pytest.mark.parametrize("file", BAD, ids=lambda file: file.stem)
def test_every_problem_of_a_file_is_found_at_its_place(file: Path) -> None:
    """Each file ends with what is wrong with it, one `#!` line a problem."""
    text = file.read_text(encoding="utf-8")
    expected = [line.removeprefix("#! ") for line in text.splitlines() if line.startswith("#! ")]
    reported = problems(text, {"OPENAI_API_KEY": "x", "ANTHROPIC_API_KEY": "x"})
    assert [brief(problem) for problem in reported] == expected


@pytest.mark.parametrize("file", GOOD, ids=lambda file: file.stem)
def test_a_good_file_has_no_problem(file: Path) -> None:
    environ = dict.fromkeys(["OPENAI_API_KEY", "GEMINI_API_KEY", "ANTHROPIC_API_KEY", "CORP_API_KEY"], "x")
    environ |= dict.fromkeys(["AZURE_OPENAI_API_KEY", "ROUTEPROXY_SIGNING_KEY", "ANTHROPIC_AUTH_TOKEN"], "x")
    assert policy(file.read_text(encoding="utf-8"), environ).warnings == ()


def the_problem(text: str) -> Problem:
    (problem,) = problems(dedent(text))
    return problem


def test_a_problem_reads_as_a_compiler_would_say_it() -> None:
    problem = the_problem("""\
        [providers.openai]
        [[rules]]
        name = "background work"
        match.modle = "haiku"
        targets = "openai/gpt-4.1-mini"
        [default]
        targets = "openai/gpt-4.1"
    """)
    assert str(problem) == dedent("""\
        rules.toml:4:7: error RP002: unknown key `modle`; did you mean `model`?
          |
        4 | match.modle = "haiku"
          |       ^^^^^
          = in rule `background work`
          = expected one of `agent`, `agent_type`, `any`, `documents`, `effort`, `headers`, `images`, \
`input_tokens`, `max_tokens`, `model`, `not`, `percent`, `request_class`, `session`, `stream`, `system`, \
`team`, `thinking`, `tools`, `url_target`, `user`""")


def test_the_caret_stands_right_behind_tabs() -> None:
    problem = the_problem("[default]\n\ttargets =\t'nobody'\n")
    assert str(problem).splitlines()[2:4] == ["2 | \ttargets =\t'nobody'", "  | \t         \t^^^^^^^^"]


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        pytest.param(
            '[providers.openai]\n[aliases]\ngpt-4.1 = "openai/gpt-4.1"\n[default]\ntargets = "openai/x"',
            'quote the name: "gpt-4.1" = …',
            id="an unquoted dot in an alias",
        ),
        pytest.param(
            '[[rules]]\n[rules.match]\nmodel = "x"\ntargets = "openai/x"\n[default]\ndeny = "no"',
            "what follows `[rules.match]` is part of it: put `targets` above, or write `match.model = …`",
            id="targets below a match header",
        ),
        pytest.param(
            '[rules]\nname = "x"\n[default]\ndeny = "no"',
            "each rule begins with `[[rules]]`, in double brackets",
            id="single brackets around rules",
        ),
        pytest.param(
            '[default]\ntargets = ["gemini/x"]',
            "the line `[providers.gemini]` is a whole provider",
            id="no provider",
        ),
        pytest.param("[default]\ntargets = [openai/gpt]", "text needs quotes around it", id="no quotes"),
        pytest.param(
            '[default]\ndeny = "no"\n[[rules]]\nmatch.model = "x"',
            'write `targets = "provider/model"`',
            id="no targets",
        ),
    ],
)
def test_common_slips_get_a_hint(text: str, hint: str) -> None:
    assert the_problem(text).hint == hint


@pytest.mark.parametrize(
    "line",
    [
        'api_key = "sk-hidden"',
        "api_key = 'sk-hidden'",
        'api_key = ["sk-hidden", "env:X"]',
        'apikey = "sk-hidden"',
        'api-key = """sk-hidden"""',
        'headers = { authorization = "Bearer sk-hidden", "a b" = "x" }',
        'base_url = "http://me:sk-hidden@host/?x=1"',
        'api_key = "sk-hidden',
        "api_key = sk-hidden",
        'api_key = ["sk-hidden"',
        'base_url = "http://me:sk-hidden@host',
    ],
)
def test_no_excerpt_shows_a_secret(line: str) -> None:
    reported = problems(f'[providers.anthropic]\n{line}\n[default]\ndeny = "no"\n')
    assert reported
    assert not [problem for problem in reported if "hidden" in str(problem) or "hidden" in repr(problem)]


def test_a_reference_to_a_key_is_shown() -> None:
    problem = the_problem('[providers.openai]\napi_key = "env:NOT_SET"\n[default]\ndeny = "no"\n')
    assert problem.location is not None
    assert problem.location.text == 'api_key = "env:NOT_SET"'


def test_a_byte_order_mark_and_line_ends_of_windows_are_no_problem() -> None:
    text = '\ufeff[providers.openai]\r\n[default]\r\ntargets = "openai/x"\r\n'
    assert problems(text) == []
    assert [brief(problem) for problem in problems(text.replace("targets", "target"))] == [
        "3:1 RP002 unknown key `target`; did you mean `targets`?"
    ]


def test_a_problem_of_an_unnamed_rule_names_it_by_its_position() -> None:
    assert the_problem('[default]\ndeny = "no"\n[[rules]]\ndeny = 5').rule == "rule 1"


WHOLE = tomli.loads((FILES / "good" / "whole.toml").read_text(encoding="utf-8"))
ODD_VALUES = st.recursive(
    st.sampled_from(["", "x", "*", "openai/x", "env:", "(", 0, -1, 5, 1.5, True, False, "default", "5s"]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                ["", "target", "model", "min", "max", "not", "any", "equals", "regex", "x", "on"]
            ),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=5,
)


@given(st.data())
def test_any_file_is_taken_or_refused_with_places(data: st.DataObject) -> None:
    document = copy.deepcopy(WHOLE)
    for _ in range(data.draw(st.integers(1, 4))):
        parent: Any = document
        while True:
            key = data.draw(st.sampled_from(list(parent) if isinstance(parent, dict) else range(len(parent))))
            if (
                not (isinstance(parent[key], dict | list) and parent[key])
                or data.draw(st.integers(0, 3)) == 0
            ):
                break
            parent = parent[key]
        parent[key] = data.draw(ODD_VALUES)
    for problem in problems(tomli_w.dumps(document)):
        assert problem.location is not None
        assert str(problem)


def test_an_alias_with_a_problem_is_blamed_once() -> None:
    reported = problems('[aliases]\nbig = "nobody/x"\n[default]\ntargets = ["big", "big"]')
    assert [brief(problem) for problem in reported] == ["2:7 RP007 there is no provider `nobody`"]


UNSEEN = r'"one\r\ntwo\u001b[31m\u202e"'
WITH_UNSEEN = {
    "a table": f"[{UNSEEN}]\n",
    "a key": f"[server]\n{UNSEEN} = 1\n",
    "a provider": f"[providers.{UNSEEN}]\n",
    "a type": f"[providers.p]\ntype = {UNSEEN}\n",
    "an address": f'[providers.p]\ntype = "ollama"\nbase_url = {UNSEEN}\n',
    "a target": f'[[rules]]\nname = "r"\ntargets = {UNSEEN}\n',
    "a rule": f'[[rules]]\nname = {UNSEEN}\ntargets = "nowhere/x"\n',
    "a condition": f'[[rules]]\nname = "r"\nmatch.{UNSEEN} = 1\ntargets = "echo/x"\n',
    "a pattern": f'[[rules]]\nname = "r"\nmatch.effort = {UNSEEN}\ntargets = "echo/x"\n',
    "a header": f'[[rules]]\nname = "r"\nmatch.headers.{UNSEEN} = "1"\ntargets = "echo/x"\n',
    "an alias": f"[aliases]\n{UNSEEN} = {UNSEEN}\n",
    "a team": f"[teams.{UNSEEN}]\n",
    "a zone": f"[providers.p]\nzone = {UNSEEN}\n",
    "a file": f"include = [{UNSEEN}]\n",
    "an invariant": f"[[invariants]]\nname = {UNSEEN}\nnever.zone = {UNSEEN}\n",
    "a test": f"[[tests]]\nname = {UNSEEN}\nrequest.model = {UNSEEN}\nexpect.target = {UNSEEN}\n",
}


@pytest.mark.parametrize("text", WITH_UNSEEN.values(), ids=list(WITH_UNSEEN))
def test_what_cannot_be_seen_is_written_out_in_every_word_of_a_problem(text: str) -> None:
    reported = problems(f'{text}[providers.echo]\n[default]\ntargets = "echo/x"\n')
    assert reported
    for problem in reported:
        assert str(problem).replace("\n", "").isprintable(), str(problem)
        assert problem.message.isprintable()
