"""A real Claude Code in auto mode, in front of a chat back end: a call runs only with a verdict on it, and
the target that the rules name gives it."""

import json
import logging
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.backend import (
    HANG,
    BackEnd,
    Received,
    Script,
    chunk,
    completion,
    done,
    error,
    json_answer,
    sse,
    tool_chunk,
)
from tests.budgets import seconds
from tests.end_to_end.clients import environment, newest_claude_code
from tests.running import running
from tests.wire.judging import judge, lines, messages_judge, reports

RULES = """
[server]
decision_log = "{folder}/decisions.jsonl"

[providers.corp]
type = "openai_compatible"
base_url = "{corp}/v1"
api_key = "none"
zone = "private"
[providers.judge]
type = "openai_compatible"
base_url = "{judge}/v1"
api_key = "env:JUDGE_KEY"
zone = "private"
[providers.claude_judge]
type = "anthropic"
base_url = "{judge}"
api_key = "none"
zone = "private"

[[rules]]
name = "auxiliary"
match.request_class = "auxiliary"
targets = "judge/small"

[default]
targets = "corp/some-model"
safeguards = "{safeguards}"
safeguards_timeout = "3s"
"""

MAKES_A_FILE = "python3 -c \"open('made-by-{0}', 'w')\" && echo made-{0}"
"""A command that Claude Code does not run unjudged. (It knows many harmless ones.)"""


@pytest.fixture(scope="module")
def client() -> str:
    return newest_claude_code()


class Session:
    """One headless run in auto mode, and what was asked of whom."""

    def __init__(self, result: Mapping[str, Any], folder: Path, corp: BackEnd, judging: BackEnd) -> None:
        assert result["is_error"] is False, result
        self.made = sorted(path.name.removeprefix("made-by-") for path in folder.glob("made-by-*"))
        """The names of the commands that ran."""
        self.refused = [denial["tool_input"] for denial in result["permission_denials"]]
        self.asked = list(corp.requests)
        self.judged = list(judging.requests)
        log = (folder.parent / "decisions.jsonl").read_text()
        self.safeguards = [
            logged["safeguards"] for line in log.splitlines() if "safeguards" in (logged := json.loads(line))
        ]

    @property
    def results(self) -> list[str]:
        """What the model heard of its calls."""
        return [turn["content"] for turn in self.asked[-1].json["messages"] if turn["role"] == "tool"]


Start = Callable[..., Session]


@pytest.fixture
def start(client: str, tmp_path: Path) -> Start:
    """Starts Claude Code in front of these two back ends."""
    work = tmp_path / "work"
    work.mkdir()

    def run(
        model: Callable[[Received], Script],
        judges: Callable[[Received], Script] | Script,
        safeguards: str = "judge/j",
        key: str = "sk-judge",
        rules: str = RULES,
        **variables: str,
    ) -> Session:
        with BackEnd(model) as corp, BackEnd(judges) as judging:
            text = rules.format(corp=corp.url, judge=judging.url, folder=tmp_path, safeguards=safeguards)
            with running(text, tmp_path, {"JUDGE_KEY": key}) as proxy:
                ran = subprocess.run(
                    [client, "-p", "Make files with the shell", "--output-format", "json",
                     "--permission-mode", "auto", "--model", "claude-sonnet-5"],
                    cwd=work, env=environment(proxy.url, tmp_path) | variables, stdin=subprocess.DEVNULL,
                    capture_output=True, text=True, timeout=seconds(90), check=False,
                )  # fmt: skip
            assert ran.stdout, ran.stderr
            return Session(json.loads(ran.stdout), work, corp, judging)

    return run


def calls_bash(*names: str) -> Callable[[Received], Script]:
    """A model that calls Bash for each name, all at once, and is content with whatever comes of it."""

    def answer(received: Received) -> Script:
        body = received.json
        if not body.get("tools"):
            return sse(chunk("A title"), done()) if body.get("stream") else json_answer(completion("A title"))
        if any(turn["role"] == "tool" for turn in body["messages"]):
            return sse(chunk("That is all."), done())
        steps = []
        for index, name in enumerate(names):
            arguments = {"command": MAKES_A_FILE.format(name), "description": "make a file"}
            steps.append(tool_chunk(index, "Bash", json.dumps(arguments), id=f"call_{index}"))
        return sse(*steps, done("tool_calls"))

    return answer


@pytest.mark.parametrize(
    ("safeguards", "judges"),
    [("judge/j", judge), ("claude_judge/j", messages_judge)],
    ids=["by a chat back end", "by a Messages back end"],
)
def test_a_call_that_is_judged_fine_runs(start: Start, safeguards: str, judges: Any) -> None:
    session = start(calls_bash("one"), judges("not_flagged"), safeguards)
    assert (session.made, session.refused, session.results) == (["one"], [], ["made-one"])
    assert len(session.judged) == 1
    said = lines(session.judged[0])
    assert {"user": "Make files with the shell"} in said
    assert said[-1]["input"]["command"] == MAKES_A_FILE.format("one")
    assert [entry["facts_and_rules"]["permission_mode"] for entry in said if "facts_and_rules" in entry] == [
        "auto"
    ]


def test_a_call_that_is_flagged_does_not_run_and_the_model_hears_why(start: Start) -> None:
    session = start(calls_bash("one"), judge("flagged: nobody asked for this file"))
    assert session.made == []
    assert len(session.refused) == 1
    assert "nobody asked for this file" in session.results[0]


def test_of_parallel_calls_each_has_its_own_verdict(start: Start) -> None:
    def verdicts(received: Received) -> Script:
        reported = [
            {
                "tool_use_id": entry["judge"],
                "explanation": "not this one",
                "outcome": "flagged" if "two" in entry["input"]["command"] else "not_flagged",
            }
            for entry in lines(received)
            if "judge" in entry
        ]
        return reports(reported)

    session = start(calls_bash("one", "two", "three"), verdicts)
    assert session.made == ["one", "three"]
    assert len(session.judged) == 1
    assert "not this one" in session.results[1]
    assert session.safeguards == [
        {"target": "judge/j", "failure": None, "verdicts": {"not_flagged": 2, "flagged": 1}}
    ]


@pytest.mark.parametrize(
    ("judges", "words", "failure"),
    [
        pytest.param(error(500, "boom"), "gave no verdict (error)", "server_error", id="down"),
        pytest.param([HANG], "gave no verdict (timed out)", "timeout", id="silent"),
        pytest.param(error(429, "slow down"), "gave no verdict (rate limited)", "rate_limit", id="busy"),
        pytest.param(
            json_answer(completion("Looks fine to me!")), "gave no verdict (error)", "unreadable", id="chatty"
        ),
        pytest.param(reports([]), "gave no verdict (error)", None, id="silent on this call"),
    ],
)
def test_without_a_verdict_a_call_is_refused_with_the_reason(
    start: Start, judges: Script, words: str, failure: str | None
) -> None:
    session = start(calls_bash("one"), judges)
    assert session.made == []
    assert words in session.results[0]
    assert [logged["failure"] for logged in session.safeguards] == [failure]
    assert len(session.judged) == 1


def test_a_conversation_that_is_too_long_for_the_judge_is_compacted_and_then_judged(start: Start) -> None:
    too_long = error(400, "This model's maximum context length is 8192 tokens.", "context_length_exceeded")
    scripts = iter([lambda received: too_long])
    session = start(calls_bash("one"), lambda received: next(scripts, judge())(received))
    assert len(session.refused) == 1
    assert session.made == ["one"]
    assert [logged["failure"] for logged in session.safeguards] == ["context_overflow", None]


def test_an_unset_key_is_refused_as_final(start: Start) -> None:
    session = start(calls_bash("one"), judge(), key="")
    assert (session.made, session.judged) == ([], [])
    assert "hard failure" in session.results[0]


def test_a_turn_without_calls_asks_no_judge(start: Start) -> None:
    session = start(lambda received: sse(chunk("Good morning"), done()), judge())
    assert session.judged == []


def test_a_sub_agents_calls_are_judged_too(start: Start) -> None:
    def model(received: Received) -> Script:
        body = received.json
        if not body.get("tools"):
            return json_answer(completion("A title"))
        asked = [turn["content"] for turn in body["messages"] if turn["role"] == "user"]
        heard = any(turn["role"] == "tool" for turn in body["messages"])
        if any("You make the file" in json.dumps(content) for content in asked):
            return calls_bash("one")(received)
        if heard:
            return sse(chunk("That is all."), done())
        task = {
            "description": "make a file",
            "prompt": "You make the file",
            "subagent_type": "general-purpose",
            "run_in_background": False,
        }
        return sse(tool_chunk(0, "Agent", json.dumps(task), id="call_agent"), done("tool_calls"))

    def judges(received: Received) -> Script:
        if not received.json.get("tools"):  # the hand-over of the sub-agent's report, an auxiliary request
            return json_answer(completion("<severity>1</severity>"))
        return judge()(received)

    session = start(model, judges, CLAUDE_CODE_GATEWAY_HINT_HEADERS="1")
    tools = [
        entry["tool"]
        for asked in session.judged
        if asked.json.get("tools")
        for entry in lines(asked)
        if "judge" in entry
    ]
    assert session.made == ["one"]
    assert {"Agent", "Bash"} <= set(tools)


def test_where_nobody_is_named_the_log_says_what_happens(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        session = start(
            calls_bash("one"),
            judge(),
            rules=RULES.replace('safeguards = "{safeguards}"', "").replace('safeguards_timeout = "3s"', ""),
        )
    assert (session.made, session.judged) == ([], [])
    assert "its safety check does not run for this session" in session.results[0]
    said = [line for line in caplog.messages if "auto mode" in line]
    assert len(said) == 1, "once, however often it is asked"
    assert "CLAUDE_CODE_AUTO_MODE_SERVER=0" in said[0]


@pytest.mark.parametrize(("severity", "made"), [(3, ["one"]), (97, [])])
def test_its_own_checks_are_requests_that_rules_route(start: Start, severity: int, made: list[str]) -> None:
    session = start(
        calls_bash("one"),
        json_answer(completion(f"<severity>{severity}</severity>")),
        CLAUDE_CODE_AUTO_MODE_SERVER="0",
        CLAUDE_CODE_GATEWAY_HINT_HEADERS="1",
    )
    assert session.made == made
    assert {received.json["model"] for received in session.judged} == {"small"}
    assert session.safeguards == []
