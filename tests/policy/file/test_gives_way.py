"""Rules that are read while requests are answered: by a parser that gives way, and with the same meaning."""

from pathlib import Path

import pytest
import tomli

from routeproxy.policy.file import report
from routeproxy.policy.file.includes import KeptFolder, read_layers
from routeproxy.policy.file.report import Report
from routeproxy.policy.problems import RulesRefused

TEXTS = {
    "a rule": '[[rules]]\nname = "a"\nmatch.model = "opus"\ntargets = ["p/m"]\n',
    "what only TOML 1.1 has": 'match = {\n  model = "\\x6fpus", # a comment\n}\n',
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_both_parsers_read_the_same(text: str) -> None:
    assert Report(text, "rules.toml", gives_way=True).parse() == Report(text, "rules.toml").parse()


def test_the_compiled_parser_is_not_asked_where_others_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(text: str) -> None:
        raise AssertionError("no other thread runs meanwhile")

    monkeypatch.setattr(report.tomli, "loads", refuse)
    assert Report(TEXTS["a rule"], "rules.toml", gives_way=True).parse()["rules"]


@pytest.mark.parametrize("text", ["a = \n", "a = 1\na = 2\n", "a = [[", '[a]\nb = "\n'])
def test_what_is_no_toml_is_reported_in_the_same_words(text: str) -> None:
    said = []
    for gives_way in (False, True):
        with pytest.raises(RulesRefused) as refused:
            Report(text, "rules.toml", gives_way=gives_way).parse()
        said.append(str(refused.value))
    assert said[0] == said[1]
    with pytest.raises(tomli.TOMLDecodeError):
        tomli.loads(text)


def test_included_files_give_way_as_the_file_that_includes_them(tmp_path: Path) -> None:
    folder = KeptFolder({"a.toml": ["a.toml"]}, {"a.toml": b'team = "a"\n'})
    (layer,) = read_layers("a.toml", (), Report("", "rules.toml", gives_way=True), folder, tmp_path)
    assert layer.report.gives_way
