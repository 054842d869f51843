"""Ways around what is proved of a policy: names that two readers take for different ones, files that keep a
reload from ending, requests that show one thing to the rules and another to the back end."""

import os
from pathlib import Path

import pytest

from routeproxy.messages.errors import InvalidRequest
from routeproxy.messages.request import decode_envelope
from routeproxy.policy.compile.compiler import compile_rules
from routeproxy.policy.facts import Facts
from routeproxy.policy.hypothetical import HypotheticalRequest
from routeproxy.policy.problems import RulesRefused

DEFAULT = """
[providers.corp]
type = "openai_compatible"
base_url = "http://corp.example/v1"
api_key = "none"
zone = "private"
[default]
targets = "corp/m"
"""


def problems(text: str, folder: Path = Path(), **environ: str) -> list[str]:
    try:
        compile_rules(text, path=folder / "rules.toml", environ=environ)
    except RulesRefused as refused:
        return [problem.message for problem in refused.problems]
    return []


# --- names


def test_a_target_is_one_model_and_no_pattern() -> None:
    said = problems('[aliases]\nsmall = "corp/a?b"\n' + DEFAULT)
    assert said == ["`a?b` is not a model: a star stands only alone, `corp/*`, for the model asked for"]


@pytest.mark.parametrize("char", ["*", "?"])
def test_a_provider_is_one_and_no_pattern(char: str) -> None:
    said = problems(f'[providers."corp{char}"]\ntype = "echo"\n' + DEFAULT)
    assert said == [f"a provider's name can't contain `{char}`"]


@pytest.mark.parametrize(
    ("models", "asked", "region"),
    [
        ('"us.*" = { region = "us" }\n"*" = { region = "eu" }', "us.claude", "us"),
        ('"us.*" = { region = "us" }\n"*" = { region = "eu" }', "US.claude", None),
        ('"US.*" = { region = "us" }\n"*" = { region = "eu" }', "us.claude", None),
        ('"us.*" = { region = "us" }\n"*" = { region = "eu" }', "EU.claude", "eu"),
        ('"US.claude" = { region = "eu" }\n"us.*" = { region = "us" }', "US.claude", "eu"),
        ('"us.*" = { region = "eu", tools = false }\n"*" = { region = "eu" }', "US.claude", "eu"),
    ],
)
def test_a_name_in_other_capitals_is_not_taken_for_a_model_of_another_region(
    models: str, asked: str, region: str | None
) -> None:
    text = DEFAULT.replace('"corp/m"', '"corp/*"') + f"[providers.corp.models]\n{models}\n"
    policy = compile_rules(text, path=Path("rules.toml"), environ={})
    targets = policy.decide(policy.facts_of(HypotheticalRequest(model=asked))).targets
    assert [one.reached[0].region for one in targets] == ([region] if region else [])


def test_nothing_is_known_of_a_model_that_is_not_listed() -> None:
    text = DEFAULT.replace('zone = "private"', 'zone = "private"\nregion = "eu"')
    policy = compile_rules(text + "[providers.corp.models.m]\n", path=Path("rules.toml"), environ={})
    assert policy.providers["corp"].facts_of("m").region == "eu"
    assert policy.providers["corp"].facts_of("other").region is None


def test_a_variable_moves_no_provider_whatever_zone_was_meant_for_where_it_leads() -> None:
    text = DEFAULT + "[providers.mistral]\n"
    assert problems(text, MISTRAL_API_KEY="k") == []
    moved = {"MISTRAL_API_KEY": "k", "MISTRAL_API_BASE": "http://elsewhere.example"}
    said = "the variable `MISTRAL_API_BASE` moves nobody: type mistral is asked at https://api.mistral.ai/v1"
    assert problems(text + 'zone = "private"\n', **moved) == [said]
    policy = compile_rules(text, path=Path("rules.toml"), environ=moved)
    assert policy.providers["mistral"].base_url == "https://api.mistral.ai/v1"
    assert policy.providers["mistral"].zone == "public"
    assert said in [warning.message for warning in policy.warnings]


# --- files that are made to harm


@pytest.mark.parametrize(
    "match",
    [
        "match" + ".not" * 900 + ".stream = true",
        "match = " + "{ not = " * 300 + "{ stream = true }" + " }" * 300,
        "match = " + "{ any = [" * 900 + "{ stream = true }" + "] }" * 900,
    ],
    ids=["dotted", "inline", "too deep for the parser"],
)
def test_conditions_of_conditions_of_conditions_are_refused(match: str) -> None:
    assert problems(f'{DEFAULT}[[rules]]\ntargets = "corp/m"\n{match}\n') == [
        "nested more than 50 levels deep"
    ]


def hostile(rules: int) -> str:
    """Rules whose conditions can be combined in very many ways, above one that reaches too far. Without a
    bound the proof takes minutes."""

    def tables(count: int, shift: int) -> str:
        return ", ".join(
            f'{{ headers = {{ h{shift % 13} = "a{n}", g{shift % 11} = "b{n}" }} }}' for n in range(count)
        )

    many = (
        f'[[rules]]\nname = "r{n}"\ntargets = "corp/m"\n'
        f"match.any = [{tables(9, 7 * n)}]\nmatch.not = [{tables(2, 3 * n)}]\n"
        for n in range(rules)
    )
    return f"""{DEFAULT}
[providers.openai]
api_key = "none"
[[invariants]]
name = "phi"
when.headers.x-class = "phi"
never.zone = "public"
{"".join(many)}
[[rules]]
name = "last"
targets = "openai/gpt-4.1"
match.headers.x-class = ["phi", "other"]
"""


def test_a_file_that_nobody_could_prove_is_refused_in_time() -> None:
    assert problems(hostile(100)) == [
        "not proved: `last` and `phi` may overlap, and this may reach `openai/gpt-4.1`: its zone is `public`"
    ]


LAYERED = (
    DEFAULT
    + """
[teams.t]
targets = "corp/*"
[[rules]]
targets = "corp/own"
match.team = "t"
match.stream = true
[[rules]]
include = "teams/*.toml"
"""
)
LAYER = 'team = "t"\n[[rules]]\ntargets = "corp/theirs"\n'


def test_a_rule_without_a_name_does_not_clash_with_one_of_an_included_file(tmp_path: Path) -> None:
    (tmp_path / "teams").mkdir()
    (tmp_path / "teams" / "t.toml").write_text(LAYER)
    policy = compile_rules(LAYERED, path=tmp_path / "rules.toml", environ={})
    assert [rule.name for rule in policy.rules] == ["rule 1", "teams/t.toml rule 1"]


def test_a_pipe_among_included_files_does_not_hold_up_a_reload(tmp_path: Path) -> None:
    (tmp_path / "teams").mkdir()
    os.mkfifo(tmp_path / "teams" / "t.toml")
    assert "`teams/t.toml` can't be read: it is a pipe, and no file" in problems(LAYERED, tmp_path)


# --- requests that two readers read differently


BLOCKS_WITH_A_KEY_TWICE = [
    '{"type":"image","type":"text","text":"x"}',
    '{"type":"text","text":"x","type":"image"}',
    '{"type":"tool_result","content":[{"type":"image"}],"content":"x"}',
    r'{"type":"text","t\u0079pe":"image"}',
]
INPUTS = ['{"type":"image"}', '{"kind":"image"}', '{"kind":"image","kind":"image"}']


def facts_of_block(block: str) -> Facts:
    body = f'{{"model":"m","messages":[{{"role":"user","content":[{block}]}}]}}'
    return Facts(decode_envelope(body.encode()), {})


@pytest.mark.parametrize("block", BLOCKS_WITH_A_KEY_TWICE)
def test_a_block_that_has_a_key_twice_is_refused_where_rules_look_for_images(block: str) -> None:
    facts = facts_of_block(block)
    with pytest.raises(InvalidRequest, match="a key stands twice"):
        _ = facts.images


@pytest.mark.parametrize("written", INPUTS)
def test_what_a_model_wrote_as_a_tools_input_is_no_image(written: str) -> None:
    assert facts_of_block(f'{{"type":"tool_use","input":{written}}}').images is False
