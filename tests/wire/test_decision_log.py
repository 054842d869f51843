"""The decision log: one line a request, enough to explain it and to decide it again; nothing of prompts."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from routeproxy import cli
from tests.backend import BackEnd, json_answer
from tests.budgets import seconds
from tests.running import Running, request, running, until
from tests.wire.asking import OVERLOADED, answers, ask, message

RULES = """
[server]
decision_log = "{log}"
[providers.first]
type = "anthropic"
base_url = "{url}"
api_key = "env:KEY"
zone = "local"
[providers.second]
type = "anthropic"
base_url = "{url}"
api_key = "env:KEY"
zone = "local"

[[rules]]
name = "labelled"
match.headers.x-label.present = true
match.input_tokens.min = 2
targets = ["first/a", "second/b"]

[[rules]]
name = "named"
match.user = "somebody"
deny = "not you"

[default]
targets = ["first/a", "second/b"]
"""
KEY = "sk-canary-0123456789"
PROMPT = "the secret of the canary"


@pytest.fixture(scope="module")
def back_end() -> Iterator[BackEnd]:
    with BackEnd(json_answer(message())) as back_end:
        yield back_end


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "decisions.jsonl"


@pytest.fixture
def proxy(tmp_path: Path, back_end: BackEnd, log: Path) -> Iterator[Running]:
    answers(back_end, json_answer(message()))
    with running(RULES.format(url=back_end.url, log=log), tmp_path, {"KEY": KEY}) as proxy:
        yield proxy


def lines(log: Path, number: int) -> list[Any]:
    """Once there are so many: a line is written after the answer."""
    return until(lambda: found if len(found := _lines(log)) >= number else None) or []


def _lines(log: Path) -> list[Any]:
    whole = log.read_text().rpartition("\n")[0] if log.exists() else ""  # the last may still be written
    return [json.loads(line) for line in whole.splitlines()]


def test_a_line_says_who_was_tried_and_what_came_of_it(proxy: Running, back_end: BackEnd, log: Path) -> None:
    answers(back_end, json_answer(OVERLOADED, 529), json_answer(message()))
    reply = ask(proxy, "claude-x", headers={"x-label": "red", "x-other": "blue"}, tools=[{"name": "read"}])
    (line,) = lines(log, 1)
    assert line.pop("time")[:2] == "20"
    tokens = line["facts"].pop("input_tokens")
    assert tokens > 2
    assert 0 < line.pop("first_content_ms") <= line.pop("duration_ms") < seconds(30) * 1000
    assert line == {
        "id": reply.headers["request-id"],
        "path": "/v1/messages",
        "version": reply.said("rules-version"),
        "key": None,
        "rule": "labelled",
        "facts": {
            "model": "claude-x",
            "headers": {"x-label": "red"},
            "max_tokens": 100,
            "tools": ["read"],
            "user": None,  # a rule looks at it, and the request has none
        },
        "targets": ["first/a", "second/b"],
        "engines": ["direct", "direct"],
        "attempts": [["first/a", "overloaded"], ["second/b", None]],
        "status": 200,
        "error": None,
        "client_left": False,
        "input_tokens": 12,
        "output_tokens": 7,
    }


def test_nothing_of_prompts_and_keys_is_in_it(proxy: Running, log: Path) -> None:
    ask(proxy, PROMPT.replace(" ", "-"), system=PROMPT)
    proxy.post(request(PROMPT), x_other=PROMPT, authorization=f"Bearer {KEY}")
    proxy.post(b'{"model": "x", "messages": "' + PROMPT.encode())
    text = (lines(log, 3), log.read_text())[1]
    assert KEY not in text
    assert PROMPT not in text
    assert lines(log, 3)[2]["facts"] is None


def test_the_users_id_is_logged_only_where_rules_look_at_it(proxy: Running, log: Path) -> None:
    assert ask(proxy, metadata={"user_id": "somebody"}).status == 400
    (line,) = lines(log, 1)
    assert (line["rule"], line["facts"]["user"]) == ("named", "somebody")
    text = proxy.rules.read_text()
    proxy.rules.write_text(text.replace('match.user = "somebody"', "match.images = true"))
    until(lambda: ask(proxy, metadata={"user_id": "somebody"}).status == 200)
    until(lambda: _lines(log)[-1]["status"] == 200)
    assert "user" not in _lines(log)[-1]["facts"]


def test_a_request_is_found_by_the_id_that_its_client_was_told(
    proxy: Running, back_end: BackEnd, log: Path
) -> None:
    answers(back_end, json_answer(message(), request_id="req_of_the_back_end"))
    assert ask(proxy).headers["request-id"] == "req_of_the_back_end"
    (line,) = lines(log, 1)
    assert line["shown_id"] == "req_of_the_back_end" != line["id"]
    code, said = run("explain", "--rules", str(proxy.rules), "--decision", "req_of_the_back_end")
    assert (code, "✓ default" in said, "assumed" in said) == (0, True, False)


def test_to_ask_why_is_no_request(proxy: Running, log: Path) -> None:
    assert ask(proxy, path="/v1/route").json["rule"] == "default"
    ask(proxy)
    assert [line["path"] for line in lines(log, 1)] == ["/v1/messages"]


def test_it_is_not_for_everybody_on_the_machine(proxy: Running, log: Path) -> None:
    ask(proxy)
    lines(log, 1)
    assert log.stat().st_mode & 0o007 == 0


def test_a_log_that_was_moved_away_begins_anew(proxy: Running, log: Path) -> None:
    ask(proxy)
    lines(log, 1)
    os.rename(log, log.with_suffix(".1"))
    ask(proxy)
    assert len(lines(log, 1)) == 1


def test_a_log_that_cannot_be_written_stops_nobody(
    proxy: Running, log: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log.mkdir(parents=True)
    assert {ask(proxy).status for _ in range(3)} == {200}
    until(lambda: "the decision log can't be written: it is a folder" in caplog.text)
    assert caplog.text.count("the decision log can't be written") == 1


def test_without_the_key_nothing_is_written(tmp_path: Path, back_end: BackEnd) -> None:
    rules = RULES.format(url=back_end.url, log="x").replace('decision_log = "x"', "port = 0")
    with running(rules, tmp_path, {"KEY": KEY}) as proxy:
        assert ask(proxy).status == 200
    assert not list(tmp_path.glob("*.jsonl"))


# --- decided once more


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli.app, list(words), env={"KEY": KEY})
    return result.exit_code, result.output


def test_a_logged_decision_is_explained_by_its_id(proxy: Running, log: Path) -> None:
    found = ask(proxy, headers={"x-label": "red"}).headers["request-id"]
    lines(log, 1)
    code, said = run("explain", "--rules", str(proxy.rules), "--decision", found)
    assert code == 0
    assert "✓ labelled" in said
    code, said = run("explain", "--rules", str(proxy.rules), "--decision", "req_nobody")
    assert (code, said) == (2, f"routeproxy: {log} has no decision `req_nobody`\n")


def test_a_difference_names_the_logged_requests_that_come_out_otherwise(
    proxy: Running, log: Path, tmp_path: Path
) -> None:
    red = ask(proxy, headers={"x-label": "red"}).headers["request-id"]
    plain = ask(proxy).headers["request-id"]
    lines(log, 2)
    new = tmp_path / "new.toml"
    new.write_text(
        proxy.rules.read_text().replace('targets = ["first/a", "second/b"]', 'targets = "second/c"', 1)
    )
    code, said = run("diff", str(proxy.rules), str(new), "--log", str(log))
    assert code == 1
    assert "rule `labelled`: to second/c instead of to first/a, second/b" in said
    assert red in said
    assert "  before  labelled: first/a, second/b\n  after   labelled: second/c" in said
    assert plain not in said


def test_a_file_in_which_nothing_is_a_decision_is_refused(tmp_path: Path, proxy: Running) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"id": 5}\n')
    code, said = run("explain", "--rules", str(proxy.rules), "--decision", "x", "--log", str(bad))
    assert (code, said) == (2, f"routeproxy: {bad}: no line of it is a logged decision\n")


def test_what_is_torn_is_left_out_and_counted(proxy: Running, log: Path, tmp_path: Path) -> None:
    first, second, third = (ask(proxy, headers={"x-label": "red"}).headers["request-id"] for _ in range(3))
    lines(log, 3)
    whole = log.read_bytes().splitlines(keepends=True)
    torn = tmp_path / "torn.jsonl"
    half, garbage = whole[1][:200], b"\xff\x00\n"
    # Another worker wrote the third line behind the half of the second.
    torn.write_bytes(whole[0] + garbage + half + whole[2] + half)
    say = ("--rules", str(proxy.rules), "--log", str(torn), "--decision")
    note = f"routeproxy: {torn}: 3 lines are not readable, and left out\n"
    for found in (first, third):
        code, said = run("explain", *say, found)
        assert (code, "✓ labelled" in said, note in said) == (0, True, True)
    code, said = run("explain", *say, second)
    assert (code, said) == (
        2,
        f"routeproxy: {torn} has no decision `{second}` in the lines that can be read; "
        "3 lines are not readable\n",
    )
    new = tmp_path / "new.toml"
    new.write_text(
        proxy.rules.read_text().replace('targets = ["first/a", "second/b"]', 'targets = "second/c"', 1)
    )
    code, said = run("diff", str(proxy.rules), str(new), "--log", str(torn))
    assert (code, first in said, third in said, second in said, note in said) == (1, True, True, False, True)
    code, said = run("diff", str(proxy.rules), str(new), "--log", str(torn), "--json")
    assert json.loads(said.replace(note, ""))["unreadable_lines"] == 3


def test_what_a_shadow_rule_would_have_done_stands_in_the_line(
    tmp_path: Path, back_end: BackEnd, log: Path
) -> None:
    rule = '[[rules]]\nname = "tried"\nshadow = true\nmatch.input_tokens.min = 2\ntargets = "second/c"\n'
    rules = RULES.format(url=back_end.url, log=log)
    place = rules.index("[[rules]]")
    answers(back_end, json_answer(message()))
    with running(rules[:place] + rule + rules[place:], tmp_path, {"KEY": KEY}) as proxy:
        ask(proxy)
        (line,) = lines(log, 1)
    assert line["shadow"] == {"tried": "second/c"}
    assert line["targets"] != ["second/c"]
