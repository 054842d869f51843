"""A real Claude Code runs its whole loop through routeproxy in front of a back end that speaks OpenAI's format."""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.backend import CUT, BackEnd, Received, Script, chunk, completion, done, json_answer, sse, tool_chunk
from tests.running import running

CLIENT = shutil.which("claude", path=os.environ.get("ROUTEPROXY_TEST_CLIENTS")) or shutil.which("claude")

pytestmark = pytest.mark.skipif(CLIENT is None, reason="Claude Code is not installed (npm install @anthropic-ai/claude-code)")

RULES = """
[providers.corp]
type = "openai_compatible"
base_url = "{url}/v1"
api_key = "none"
zone = "private"

[default]
targets = "corp/some-model"
"""


def claude(prompt: str, url: str, home: Path, *arguments: str) -> dict[str, Any]:
    """One headless run, in an empty home and an environment that holds nothing else."""
    assert CLIENT
    environment = {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_API_KEY": "sk-anything",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_TELEMETRY": "1",
        "DISABLE_AUTOUPDATER": "1",
        "CLAUDE_CODE_MAX_RETRIES": "1",
    }
    ran = subprocess.run(
        [CLIENT, "-p", prompt, "--output-format", "json", *arguments],
        cwd=home, env=environment, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    assert ran.stdout, ran.stderr
    result = json.loads(ran.stdout)
    assert isinstance(result, dict)
    return result


def asked(received: Received) -> Sequence[dict[str, Any]]:
    messages: Sequence[dict[str, Any]] = received.json["messages"]
    return messages


def back_end_that_calls(command: str) -> Any:
    """First a Bash call, then, once its result is there, the result in words."""

    def answer(received: Received) -> Script:
        results = [message["content"] for message in asked(received) if message["role"] == "tool"]
        if not received.json.get("stream"):
            return json_answer(completion("A title"))
        if not received.json.get("tools"):
            return sse(chunk("A title"), done())
        if results:
            return sse(chunk("The tool said: "), chunk(str(results[-1])), done())
        arguments = json.dumps({"command": command, "description": "say hello"})
        return sse(
            chunk("Let me look."),
            tool_chunk(0, "Bash", "", id="call_1"),
            *[tool_chunk(0, arguments=part) for part in (arguments[:9], arguments[9:])],
            done("tool_calls"),
        )

    return answer


def test_a_turn_with_a_tool_goes_round(tmp_path: Path) -> None:
    with BackEnd(back_end_that_calls("echo hello-from-the-tool")) as back_end:
        with running(RULES.format(url=back_end.url), tmp_path) as proxy:
            home = tmp_path / "home"
            home.mkdir()
            result = claude("Say hello with the shell", proxy.url, home, "--allowedTools", "Bash")
    assert result["is_error"] is False
    assert "The tool said: hello-from-the-tool" in result["result"]
    turns = [one for one in back_end.requests if one.json.get("tools")]
    assert len(turns) == 2, "exactly one request a turn: nothing was asked again"


def test_a_turn_in_words_asks_the_back_end_once(tmp_path: Path) -> None:
    with BackEnd(lambda received: sse(chunk("Good "), chunk("morning"), done())) as back_end:
        with running(RULES.format(url=back_end.url), tmp_path) as proxy:
            home = tmp_path / "home"
            home.mkdir()
            result = claude("Say good morning", proxy.url, home)
    assert (result["is_error"], result["result"]) == (False, "Good morning")
    assert len([one for one in back_end.requests if one.json.get("tools")]) == 1


def test_a_back_end_that_breaks_off_is_not_a_success(tmp_path: Path) -> None:
    def answer(received: Received) -> Script:
        return sse(chunk("Half an ans"), CUT)

    with BackEnd(answer) as back_end, running(RULES.format(url=back_end.url), tmp_path) as proxy:
        home = tmp_path / "home"
        home.mkdir()
        result = claude("Say good morning", proxy.url, home)
    assert result["is_error"] is True
