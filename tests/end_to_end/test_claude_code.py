"""A real Claude Code runs its whole loop through routeproxy in front of a back end that speaks OpenAI's
format."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.backend import (
    CUT,
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
from tests.end_to_end.clients import (
    AGENT_PYTHON,
    CLAUDE_CODE,
    environment,
    needs_agent_sdk,
    needs_claude_code,
)
from tests.running import running

RULES = """
[providers.corp]
type = "openai_compatible"
base_url = "{url}/v1"
api_key = "none"
zone = "private"

[default]
targets = "corp/some-model"
"""


def claude(prompt: str, url: str, folder: Path, *arguments: str) -> dict[str, Any]:
    """One headless run; its result as Claude Code reports it."""
    assert CLAUDE_CODE
    home = folder / "home"
    home.mkdir()
    ran = subprocess.run(
        [CLAUDE_CODE, "-p", prompt, "--output-format", "json", *arguments],
        cwd=home, env=environment(url, home), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=seconds(60), check=False,
    )  # fmt: skip
    assert ran.stdout, ran.stderr
    result: dict[str, Any] = json.loads(ran.stdout)
    return result


def asked(received: Received) -> Sequence[dict[str, Any]]:
    messages: Sequence[dict[str, Any]] = received.json["messages"]
    return messages


def turns(back_end: BackEnd) -> list[Received]:
    """The requests of the conversation itself; what Claude Code asks on the side has no tools."""
    return [received for received in back_end.requests if received.json.get("tools")]


def calls_bash(*commands: str) -> Any:
    """A back end that first calls Bash with each command, all at once, and then says what came of it."""

    def answer(received: Received) -> Script:
        results = [str(message["content"]) for message in asked(received) if message["role"] == "tool"]
        if not received.json.get("tools"):
            return (
                sse(chunk("A title"), done())
                if received.json.get("stream")
                else json_answer(completion("A title"))
            )
        if results:
            return sse(chunk("The tools said: "), chunk(" and ".join(results)), done())
        steps = [chunk("Let me look.")]
        for index, command in enumerate(commands):
            arguments = json.dumps({"command": command, "description": "say hello"})
            steps.append(tool_chunk(index, "Bash", "", id=f"call_{index}"))
            steps += [tool_chunk(index, arguments=part) for part in (arguments[:9], arguments[9:])]
        return sse(*steps, done("tool_calls"))

    return answer


@needs_claude_code
def test_a_turn_with_a_tool_goes_round(tmp_path: Path) -> None:
    with BackEnd(calls_bash("echo hello-from-the-tool")) as back_end:
        with running(RULES.format(url=back_end.url), tmp_path) as proxy:
            result = claude("Say hello with the shell", proxy.url, tmp_path, "--allowedTools", "Bash")
    assert result["is_error"] is False
    assert "The tools said: hello-from-the-tool" in result["result"]
    assert len(turns(back_end)) == 2, "one request a turn: nothing was asked again"


@needs_claude_code
def test_parallel_tools_go_round(tmp_path: Path) -> None:
    with BackEnd(calls_bash("echo one", "echo two", "echo three")) as back_end:
        with running(RULES.format(url=back_end.url), tmp_path) as proxy:
            result = claude("Say hello thrice", proxy.url, tmp_path, "--allowedTools", "Bash")
    assert result["result"] == "The tools said: one and two and three"
    assert len(turns(back_end)) == 2


@needs_claude_code
def test_a_turn_in_words_asks_the_back_end_once(tmp_path: Path) -> None:
    with BackEnd(lambda received: sse(chunk("Good "), chunk("morning"), done())) as back_end:
        with running(RULES.format(url=back_end.url), tmp_path) as proxy:
            result = claude("Say good morning", proxy.url, tmp_path)
    assert (result["is_error"], result["result"]) == (False, "Good morning")
    assert len(turns(back_end)) == 1


@needs_claude_code
def test_a_back_end_that_breaks_off_is_not_a_success(tmp_path: Path) -> None:
    with BackEnd(lambda received: sse(chunk("Half an ans"), CUT)) as back_end:
        with running(RULES.format(url=back_end.url), tmp_path) as proxy:
            result = claude("Say good morning", proxy.url, tmp_path)
    assert result["is_error"] is True


@needs_claude_code
def test_an_overflow_in_vllms_newest_words_is_mended_by_the_client(tmp_path: Path) -> None:
    def answer(received: Received) -> Script:
        asked_for = received.json.get("max_tokens") or received.json.get("max_completion_tokens") or 0
        if asked_for <= 10_000:
            return sse(chunk("Good morning"), done())
        words = (
            f"This model's maximum context length is 24000 tokens. However, you requested {asked_for} "
            f"output tokens and your prompt contains at least 15000 input tokens, for a total of at least "
            f"{15_000 + asked_for} tokens. (parameter=input_tokens, value=15000)"
        )
        return error(400, words, "BadRequestError")

    with BackEnd(answer) as back_end:
        with running(RULES.format(url=back_end.url), tmp_path) as proxy:
            result = claude("Say good morning", proxy.url, tmp_path)
    assert (result["is_error"], result["result"]) == (False, "Good morning")
    assert len(turns(back_end)) == 2


AGENT = """
import asyncio
from claude_agent_sdk import AssistantMessage, ClaudeAgentOptions, ResultMessage, query

async def main():
    options = ClaudeAgentOptions(cli_path={client!r}, allowed_tools=["Bash"])
    async for message in query(prompt="Say hello with the shell", options=options):
        if isinstance(message, ResultMessage):
            print("result:", message.is_error, message.result)

asyncio.run(main())
"""


@needs_agent_sdk
def test_the_agent_sdk_runs_its_loop(tmp_path: Path) -> None:
    with BackEnd(calls_bash("echo hello-from-the-tool")) as back_end:
        with running(RULES.format(url=back_end.url), tmp_path) as proxy:
            ran = subprocess.run(
                [str(AGENT_PYTHON), "-c", AGENT.format(client=CLAUDE_CODE)],
                cwd=tmp_path, env=environment(proxy.url, tmp_path),
                capture_output=True, text=True, timeout=seconds(60), check=False,
            )  # fmt: skip
    assert "result: False The tools said: hello-from-the-tool" in ran.stdout, ran.stderr
