"""The official TypeScript SDK, which is stricter about streams than Python's: it throws where a
`message_stop` is missing."""

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.backend import CUT, BackEnd, chunk, done, sse, tool_chunk
from tests.budgets import seconds
from tests.end_to_end.clients import NODE_MODULES, environment, needs_typescript_sdk
from tests.running import running

pytestmark = needs_typescript_sdk

RULES = """
[providers.corp]
type = "openai_compatible"
base_url = "{url}/v1"
api_key = "none"
zone = "private"

[default]
targets = "corp/some-model"
"""

SCRIPT = """
const Anthropic = require("@anthropic-ai/sdk").default;
const client = new Anthropic({ maxRetries: 0 });
const schema = { type: "object", properties: { city: { type: "string" } } };
const tools = [{ name: "get_weather", input_schema: schema }];
const messages = [{ role: "user", content: "Weather?" }];
client.messages
  .stream({ model: "claude-sonnet-5", max_tokens: 100, tools, messages })
  .finalMessage()
  .then((message) => console.log(JSON.stringify(message)))
  .catch((error) => console.log(JSON.stringify({ error: String(error.message) })));
"""


def ask(url: str, folder: Path) -> Any:
    ran = subprocess.run(
        ["node", "-e", SCRIPT],
        env={**environment(url, folder), "NODE_PATH": str(NODE_MODULES)},
        capture_output=True, text=True, timeout=seconds(30), check=False,
    )  # fmt: skip
    assert ran.stdout, ran.stderr
    return json.loads(ran.stdout)


def test_a_streamed_turn_with_a_tool(tmp_path: Path) -> None:
    answer = sse(
        chunk(reasoning_content="Where?"),
        chunk("Looking."),
        tool_chunk(0, "get_weather", "", id="call_1"),
        tool_chunk(0, arguments='{"city": "Os'),
        tool_chunk(0, arguments='lo"}'),
        done("tool_calls"),
    )
    with BackEnd(answer) as back_end, running(RULES.format(url=back_end.url), tmp_path) as proxy:
        message = ask(proxy.url, tmp_path)
    assert [block["type"] for block in message["content"]] == ["thinking", "text", "tool_use"]
    assert message["content"][2]["input"] == {"city": "Oslo"}
    assert message["stop_reason"] == "tool_use"


def test_a_stream_that_breaks_off_is_an_error(tmp_path: Path) -> None:
    with (
        BackEnd(sse(chunk("Half an ans"), CUT)) as back_end,
        running(RULES.format(url=back_end.url), tmp_path) as proxy,
    ):
        assert "error" in ask(proxy.url, tmp_path)


def test_an_ordinary_answer_ends_well(tmp_path: Path) -> None:
    with (
        BackEnd(sse(chunk("Fine"), done())) as back_end,
        running(RULES.format(url=back_end.url), tmp_path) as proxy,
    ):
        assert ask(proxy.url, tmp_path)["content"][0]["text"] == "Fine"
