"""What judges tool uses in tests: scripted back ends, in chat's format and in Messages'."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.backend import Received, Script, completion, json_answer
from tests.wire.asking import message

Json = dict[str, Any]
Outcome = str | Mapping[str, str]
"""`not_flagged`, or one by the name of the tool; `flagged: why` flags."""

SAFEGUARDS = [
    {
        "type": "dangerous_tool_use",
        "classifier_context": {
            "v": 1,
            "permission_mode": "auto",
            "live_cwd": "/home/me/work",
            "rules": {"allow": [], "deny": ["Bash(git push:*)"], "ask": []},
        },
    }
]
"""As Claude Code 2.1.332 asks, shortened."""


def asked_ids(received: Received) -> list[str]:
    """The ids of the tool uses that a request for verdicts asks about."""
    tools = received.json["tools"]
    schema = tools[0].get("input_schema") or tools[0]["function"]["parameters"]
    ids: list[str] = schema["properties"]["verdicts"]["items"]["properties"]["tool_use_id"]["enum"]
    return ids


def texts(received: Received) -> list[str]:
    """All texts of a request for verdicts, in order."""
    return re.findall(r'"text":"((?:[^"\\]|\\.)*)"', json.dumps(received.json, separators=(",", ":")))


def lines(received: Received) -> list[Json]:
    """What a request for verdicts says of the conversation, of the place and of the tool uses."""
    content = received.json["messages"][-1]["content"]
    text = content if isinstance(content, str) else "\n".join(part["text"] for part in content)
    return [json.loads(line) for line in text.split("\n") if line.startswith("{")]


def verdicts(received: Received, outcome: Outcome) -> list[Json]:
    """A verdict on each tool use that was asked about."""
    names = {entry["judge"]: entry["tool"] for entry in lines(received) if "judge" in entry}
    return [
        verdict(id, outcome if isinstance(outcome, str) else outcome[names[id]]) for id in asked_ids(received)
    ]


def verdict(id: str, outcome: str = "not_flagged") -> Json:
    word, _, explanation = outcome.partition(": ")
    return {"tool_use_id": id, "explanation": explanation, "outcome": word}


def reports(*calls: Any, finish: str = "tool_calls", **more: Any) -> Script:
    """A chat completion that calls `report_verdicts` with each of these inputs."""
    tool_calls = [
        {
            "id": f"call_{number}",
            "type": "function",
            "function": {
                "name": "report_verdicts",
                "arguments": call if isinstance(call, str) else json.dumps({"verdicts": call}),
            },
        }
        for number, call in enumerate(calls)
    ]
    return json_answer(completion(None, finish=finish, tool_calls=tool_calls, **more))


def judge(outcome: Outcome = "not_flagged") -> Callable[[Received], Script]:
    """A chat back end that judges each tool use so."""
    return lambda received: reports(verdicts(received, outcome))


def messages_judge(outcome: Outcome = "not_flagged") -> Callable[[Received], Script]:
    """A Messages back end that does."""

    def answer(received: Received) -> Script:
        input = {"verdicts": verdicts(received, outcome)}
        block = {"type": "tool_use", "id": "toolu_j", "name": "report_verdicts", "input": input}
        return json_answer(message(content=[block], stop_reason="tool_use"))

    return answer


def results(answer: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> Any:
    """What an answer, whole or as its events, says of its tool uses: the status of the check, if anything."""
    if isinstance(answer, Mapping):
        found = answer.get("safeguard_results")
    else:
        deltas = [event["delta"] for event in answer if event["type"] == "message_delta"]
        found = deltas[-1].get("safeguard_results")
    if found is None:
        return None
    (result,) = found
    assert result["type"] == "dangerous_tool_use"
    return result["status"]


def outcomes(status: Any) -> dict[str, str]:
    """By id, in short: `not_flagged`, `flagged: why`, `unavailable timeout`."""
    assert status["type"] == "available", status
    return {id: _in_short(one) for id, one in status["tool_uses"].items()}


def _in_short(one: Mapping[str, Any]) -> str:
    if one["type"] == "evaluated":
        return one["outcome"] + (f": {one['explanation']}" if "explanation" in one else "")
    assert one["explanation"]
    return f"{one['type']} {one['reason']}"
