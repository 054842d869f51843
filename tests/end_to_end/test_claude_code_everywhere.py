"""Today's Claude Code in front of each format that a back end may speak: what it does in a day."""

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.backend import BackEnd, Received, Script
from tests.budgets import seconds
from tests.end_to_end.back_ends import rules
from tests.end_to_end.clients import environment, newest_claude_code
from tests.end_to_end.formats import FORMATS, Seen, said
from tests.running import running
from tests.wire.judging import judge

KINDS = ("openai_compatible", "openai-reasoning", "gemini", "anthropic")
"""Chat completions, Responses, Gemini's own API, Messages."""

ALLOWED = "Bash,Agent,CronList,mcp__own__add"

Json = dict[str, Any]
Turn = tuple[str, Sequence[tuple[str, Json]]]
"""A text, and the tools that are called beside it."""
Model = Callable[[Seen], Turn]


def bash(command: str) -> tuple[str, Json]:
    return "Bash", {"command": command, "description": "say hello"}


class Session:
    """One headless run, and what the back end was asked."""

    def __init__(self, result: Json, seen: list[Seen]) -> None:
        self.result = result
        self.seen = seen
        """By the requests that had tools: the turns of the conversation."""


@pytest.fixture(scope="module")
def client() -> str:
    return newest_claude_code()


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


Run = Callable[..., Session]


@pytest.fixture
def run(client: str, kind: str, tmp_path: Path) -> Run:
    """Runs Claude Code once in front of a back end of this kind."""
    work = tmp_path / "work"
    work.mkdir()

    def start(model: Model, *arguments: str, prompt: str = "Say hello with the shell") -> Session:
        seen: list[Seen] = []
        whole = f"{FIRST}{rules_of(kind)}"
        with BackEnd(answering(kind, model, seen)) as back_end:
            with running(whole.replace("URL", back_end.url), tmp_path, {"KEY": "sk-1"}) as proxy:
                result = claude(client, proxy.url, work, prompt, *arguments)
        return Session(result, seen)

    return start


FIRST = """
[[rules]]
name = "no"
match.system = "FORBIDDEN-TOPIC"
deny = "this topic is not for here"
"""


def rules_of(kind: str) -> str:
    """All requests go to a back end of this kind, whatever their model is."""
    text = rules({kind: "URL"})
    return text.replace('[default]\ndeny = "no such kind"', "").replace(
        f'[[rules]]\nname = "{kind}"\nmatch.model.equals = "{kind}"\n', "[default]\n"
    )


def answering(kind: str, model: Model, seen: list[Seen]) -> Callable[[Received], Script]:
    """A back end with this model. What Claude Code asks on the side, without tools, gets a title."""

    def answer(received: Received) -> Script:
        body = received.json
        stream = bool(body.get("stream")) or "streamGenerateContent" in received.path
        if "count_tokens" in received.path:
            return said(kind, False, "-")
        if not body.get("tools"):
            return said(kind, stream, "<summary>A title</summary>")
        read = FORMATS[kind].read(body)
        seen.append(read)
        text, calls = model(read)
        return said(kind, stream, text, *calls)

    return answer


def claude(
    client: str, url: str, work: Path, prompt: str, *arguments: str, allowed: str = ALLOWED, **variables: str
) -> Json:
    home = work.parent / "home"
    home.mkdir(exist_ok=True)
    ran = subprocess.run(
        [client, "-p", prompt, "--output-format", "json", "--allowedTools", allowed, *arguments],
        cwd=work, env=environment(url, home) | variables, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=seconds(90), check=False,
    )  # fmt: skip
    assert ran.stdout, ran.stderr
    result: Json = json.loads(ran.stdout)
    return result


def calls_once(*calls: tuple[str, Json]) -> Model:
    """Calls all at once, then says what came of it."""

    def model(seen: Seen) -> Turn:
        if seen.results:
            # Claude Code sends results in any order.
            return "The tools said: " + " and ".join(sorted(map(_plain, seen.results))), ()
        return "Let me look.", calls

    return model


def _plain(result: str) -> str:
    """The text of a result; Gemini's come as objects."""
    try:
        return str(json.loads(result)["response"]["content"]).strip()
    except ValueError:
        return result.strip()


def test_a_turn_in_words(run: Run) -> None:
    session = run(lambda seen: ("Good morning", ()), prompt="Say good morning")
    assert (session.result["is_error"], session.result["result"]) == (False, "Good morning")
    assert len(session.seen) == 1


def test_a_tool_goes_round(run: Run) -> None:
    session = run(calls_once(bash("echo hello-from-the-tool")))
    assert session.result["result"] == "The tools said: hello-from-the-tool"
    assert len(session.seen) == 2, "one request a turn: nothing was asked again"


def test_parallel_tools_go_round(run: Run) -> None:
    session = run(calls_once(bash("echo a"), bash("echo b"), bash("echo c")))
    assert session.result["result"] == "The tools said: a and b and c"
    assert len(session.seen) == 2


def test_a_tool_that_was_not_declared_is_the_clients_to_answer(run: Run) -> None:
    session = run(calls_once(("NoSuchTool", {"x": 1})))
    assert "No such tool available: NoSuchTool" in session.result["result"]
    assert len(session.seen) == 2


def test_a_deferred_tool_that_is_called_directly_runs(run: Run) -> None:
    session = run(calls_once(("CronList", {})))
    assert "CronList" not in session.seen[0].tools, "it has to be one that is not declared"
    assert "CronList" in " ".join((*session.seen[0].system, *session.seen[0].user))
    assert session.result["result"] == "The tools said: No scheduled jobs."
    assert len(session.seen) == 2


def test_a_sub_agent_does_its_work(run: Run) -> None:
    task = {"description": "count", "prompt": "SUBTASK: count the files", "subagent_type": "general-purpose"}

    def model(seen: Seen) -> Turn:
        if any("SUBTASK" in text for text in seen.user):
            return "There are seven files.", ()
        if seen.results:
            return "The agent said: " + " ".join(seen.results), ()
        return "I'll ask.", [
            ("Agent" if "Agent" in seen.tools else "Task", task | {"run_in_background": False})
        ]

    session = run(model)
    assert session.result["is_error"] is False
    assert "There are seven files." in session.result["result"]


def test_an_mcp_server_is_asked(run: Run, tmp_path: Path) -> None:
    server = tmp_path / "server.py"
    server.write_text(MCP_SERVER)
    config = {"mcpServers": {"own": {"command": sys.executable, "args": [str(server)]}}}
    session = run(
        calls_once(("mcp__own__add", {"a": 2, "b": 3})),
        "--mcp-config",
        json.dumps(config),
        "--strict-mcp-config",
    )
    assert session.result["result"] == "The tools said: five"


def test_a_structured_output_is_one(run: Run) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}

    def model(seen: Seen) -> Turn:
        if seen.results:
            return "Done.", ()
        return "Here.", [("StructuredOutput", {"n": 5})]

    session = run(model, "--json-schema", json.dumps(schema))
    assert session.result["is_error"] is False
    assert session.result["structured_output"] == {"n": 5}


def test_a_conversation_is_compacted(run: Run, kind: str) -> None:
    def model(seen: Seen) -> Turn:
        return "<summary>We said hello.</summary>", ()

    session = run(model, prompt="Hello")
    again = run(model, "--resume", session.result["session_id"], prompt="/compact")
    assert again.result["is_error"] is False, again.result


@pytest.mark.parametrize("outcome", ["not_flagged", "flagged: nobody asked for this file"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "anthropic"])
def test_in_auto_mode_a_call_runs_if_it_is_judged_fine(
    client: str, kind: str, outcome: str, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    seen: list[Seen] = []
    model = calls_once(bash("python3 -c \"open('made', 'w')\" && echo made"))
    with BackEnd(answering(kind, model, seen)) as back_end, BackEnd(judge(outcome)) as judging:
        text = JUDGING.replace("URL", judging.url) + rules_of(kind).replace("URL", back_end.url)
        with running(text, tmp_path, {"KEY": "sk-1"}) as proxy:
            arguments = (
                "--permission-mode",
                "auto",
                "--model",
                "claude-sonnet-5",
                "--disallowedTools",
                "Read",
            )
            result = claude(client, proxy.url, work, "Make a file", *arguments, allowed="CronList")
    is_fine = outcome == "not_flagged"
    assert (work / "made").exists() is is_fine
    assert ("made" if is_fine else "nobody asked for this file") in result["result"]
    assert len(judging.requests) == 1


JUDGING = """
[server]
safeguards = "judge/j"
[providers.judge]
type = "openai_compatible"
base_url = "URL/v1"
api_key = "none"
zone = "private"
"""


def test_a_rules_denial_is_asked_once(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "routeproxy")
    session = run(
        lambda seen: ("never", ()), "--append-system-prompt", "FORBIDDEN-TOPIC", prompt="Say good morning"
    )
    assert session.result["is_error"] is True
    assert "this topic is not for here" in session.result["result"]
    assert session.seen == []
    assert len([line for line in requests_in(caplog) if "rule=no " in line]) == 1


def requests_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The lines that requests for an answer left in the log."""
    return [line for record in caplog.records if "/v1/messages" in (line := record.getMessage())]


MCP_SERVER = """
import json, sys

TOOL = {
    "name": "add",
    "description": "adds",
    "inputSchema": {
        "type": "object",
        "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
        "required": ["a", "b"],
    },
}

for line in sys.stdin:
    asked = json.loads(line)
    if "id" not in asked:
        continue
    match asked["method"]:
        case "initialize":
            result = {
                "protocolVersion": asked["params"]["protocolVersion"],
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "own", "version": "1"},
            }
        case "tools/list":
            result = {"tools": [TOOL]}
        case "tools/call":
            assert asked["params"]["arguments"] == {"a": 2, "b": 3}
            result = {"content": [{"type": "text", "text": "five"}]}
        case _:
            result = {}
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}), flush=True)
"""


def test_a_wrong_key_is_tried_once(client: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    work = tmp_path / "work"
    work.mkdir()
    text = """
        [teams.a]
        keys = ["env:TEAM_KEY"]
        [providers.echo]
        [default]
        targets = "echo/*"
        """
    with (
        caplog.at_level(logging.INFO, "routeproxy"),
        running(text, tmp_path, {"TEAM_KEY": "sk-right"}) as proxy,
    ):
        result = claude(client, proxy.url, work, "Say good morning", CLAUDE_CODE_MAX_RETRIES="5")
    assert result["is_error"] is True
    assert len(requests_in(caplog)) == 1
