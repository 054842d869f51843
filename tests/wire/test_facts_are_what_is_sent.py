"""A law: what rules look at is what a back end gets. Each fact is written in every place and spelling that
the wire has for it; then the decision and what arrived, read as a first reader and as a last reader of equal
keys would, agree, or the request was a 400."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpx
import pytest

from tests.backend import BackEnd, completion, json_answer
from tests.budgets import seconds
from tests.running import Running, running
from tests.wire.asking import answers, message

CONDITIONS = {
    "effort": 'effort = "high"',
    "thinking": "thinking = true",
    "images": "images = true",
    "documents": "documents = true",
    "tools": 'tools = "web_search_*"',
    "any tools": "tools = true",
    "system": 'system = "secret"',
    "user": 'user = "u-1"',
    "max_tokens": "max_tokens.min = 100",
    "stream": "stream = true",
}
"""By fact, a condition on it. The model that is asked for says which is asked about."""

PROVIDERS = """
[providers.claude]
type = "anthropic"
base_url = "{claude}"
api_key = "none"

[providers.corp]
type = "openai_compatible"
base_url = "{corp}/v1"
api_key = "none"
supports = ["files", "vision", "user", "tools", "takes_reasoning"]
"""


def rules() -> str:
    lines = [PROVIDERS]
    for fact, condition in CONDITIONS.items():
        for provider in ("claude", "corp"):
            asked = f'match.model.equals = "{provider}-{fact.replace(" ", "-")}"'
            lines += [f'[[rules]]\n{asked}\nmatch.{condition}\ntargets = "{provider}/yes"']
            lines += [f'[[rules]]\n{asked}\ntargets = "{provider}/no"']
    return "\n".join([*lines, '[default]\ndeny = "no"'])


@pytest.fixture(scope="module")
def claude() -> Iterator[BackEnd]:
    with BackEnd(json_answer(message())) as back_end:
        yield back_end


@pytest.fixture(scope="module")
def corp() -> Iterator[BackEnd]:
    with BackEnd(json_answer(completion())) as back_end:
        yield back_end


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, claude: BackEnd, corp: BackEnd) -> Iterator[Running]:
    text = rules().replace("{claude}", claude.url).replace("{corp}", corp.url)
    with running(text, tmp_path_factory.mktemp("rules")) as proxy:
        yield proxy


# --- every place

IMAGE = '{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}'
STORED = '{"type": "image", "source": {"type": "file", "file_id": "f"}}'
IMAGE_URL = '{"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}'
INPUT_IMAGE = '{"type": "input_image", "image_url": "data:image/png;base64,aGk="}'
PDF = '{"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "aGk="}}'
WITH_IMAGE = f'{{"type": "document", "source": {{"type": "content", "content": [{IMAGE}]}}}}'
FILE = '{"type": "file", "file": {"file_data": "data:application/pdf;base64,aGk="}}'
CALL = '{"type": "tool_use", "id": "t1", "name": "read", "input": %s}'
RESULT = '{"type": "tool_result", "tool_use_id": "t1", "content": [%s]}'
SEARCH = '{"type": "web_search_20250305", "name": "web_search"}'
NAMED = '{"name": "web_search_mine", "input_schema": {"type": "object"}}'
READ = '{"name": "read", "input_schema": {"type": "object"}}'
DEFINED = '{"type": "tool_addition", "tool": {"type": "tool_definition", "definition": %s}}'
TEXT = '{"type": "text", "text": "hi"}'
HALF = '{"type": "text", "text": "cut \\ud83d"}'


def user(*blocks: str) -> str:
    return '{{"role": "user", "content": [{}]}}'.format(", ".join(blocks or (TEXT,)))


def assistant(*blocks: str) -> str:
    return '{{"role": "assistant", "content": [{}]}}'.format(", ".join(blocks))


def system_turn(effort: str, extra: str = "") -> str:
    return f'{{"role": "system", "content": "note", "output_config": {{"effort": {effort}}}{extra}}}'


def turns(*written: str) -> dict[str, str]:
    return {"messages": "[{}]".format(", ".join(written))}


def config(effort: str) -> dict[str, str]:
    return {"output_config": f'{{"effort": {effort}}}'}


def in_tool_result(block: str) -> dict[str, str]:
    return {**turns(user(), assistant(CALL % "{}"), user(RESULT % block)), "tools": f"[{READ}]"}


def blocks_of(*kinds: str) -> list[dict[str, str]]:
    """Pictures or documents in every place of a request."""
    places: list[dict[str, str]] = []
    for block in kinds:
        places += [
            turns(user(block)),
            turns(user(TEXT, block, HALF)),
            turns(user(), assistant(TEXT), user(block)),
            in_tool_result(block),
            {"system": f"[{TEXT}, {block}]"},
            turns(f'{{"role": "system", "content": [{block}]}}', user()),
            turns(user(block.replace('"type": ', '"type": "text", "text": "x", "type": ', 1))),
            turns(user(block.replace("{", '{"type": "text", "text": "x", ', 1))),
            turns(user(block.replace("}", ', "type": "text", "text": "x"}', 1)[::1])),
        ]
    return places


PLACES: Mapping[str, list[dict[str, str]]] = {
    "effort": [
        {},
        *(config(effort) for effort in ('"high"', '"low"', "null")),
        *(
            config(f'"{top}"') | turns(user(), *(system_turn(effort) for effort in later))
            for top in ("low", "high")
            for later in (['"high"'], ['"low"'], ['"high"', '"low"'], ['"low"', '"high"'], ['"high"', "null"])
        ),
        turns(system_turn('"high"'), user(HALF)),
        turns(user(), '{"role": "system", "content": [], "output_config": {"effort": "high"}}'),
        turns(user(), system_turn('"high"', ', "clear_at": "next_user_message"'), user()),
        {"output_config": '{"effort": "low", "effort": "high"}'},
        {"output_config": '{"effort": "high", "effort": "low"}'},
        turns(user(), system_turn('"low", "effort": "high"')),
        turns(user(), system_turn('"high", "effort": "low"')),
        turns(user(), system_turn('"high"', ', "output_config": {"effort": "low"}')),
        turns(user(), system_turn('"high"', ', "role": "user"')),
        turns(
            user(), '{"role": "user", "content": "x", "output_config": {"effort": "high"}, "role": "system"}'
        ),
        turns(user(), system_turn("5")),
        turns(user(), '{"role": "system", "content": "note", "output_config": "high"}'),
        turns(user(), '{"role": "system", "content": "note", "output_config": [{"effort": "high"}]}'),
        config("5"),
    ],
    "thinking": [
        {},
        *({"thinking": f'{{"type": "{kind}"}}'} for kind in ("adaptive", "disabled", "between_tools")),
        {"thinking": '{"type": "enabled", "budget_tokens": 1024}', "max_tokens": "2048"},
        {"thinking": '{"type": "disabled", "type": "adaptive"}'},
        {"thinking": '{"type": "adaptive", "type": "disabled"}'},
        {"thinking": "null"},
    ],
    "images": [
        {},
        *blocks_of(IMAGE, STORED, IMAGE_URL, INPUT_IMAGE, WITH_IMAGE),
        {**turns(user(), assistant(CALL % IMAGE), user(RESULT % TEXT)), "tools": f"[{READ}]"},
        {
            **turns(user(), assistant(CALL % '{"k": 1, "k": "image"}'), user(RESULT % TEXT)),
            "tools": f"[{READ}]",
        },
        turns(user('{"type": "text", "text": "an image"}')),
    ],
    "documents": [{}, *blocks_of(PDF, FILE), turns(user(STORED))],
    "tools": [
        {},
        *({"tools": f"[{tool}]"} for tool in (SEARCH, NAMED, READ)),
        *(
            {**turns(user(), '{"role": "system", "content": [%s]}' % (DEFINED % tool)), "tools": f"[{READ}]"}
            for tool in (SEARCH, NAMED, NAMED.replace("web_search_mine", "write"))
        ),
        turns(user(), '{"role": "system", "content": [%s]}' % (DEFINED % NAMED)),
        {"tools": '[{"name": "read", "name": "web_search_mine", "input_schema": {"type": "object"}}]'},
        {"tools": '[{"name": "web_search_mine", "name": "read", "input_schema": {"type": "object"}}]'},
        turns(
            user(),
            '{"role": "system", "content": [%s]}'
            % (DEFINED % NAMED.replace('"name"', '"name": "read", "name"', 1)),
        ),
        {"tools": '[{"name": "web_search_mine", "description": "\\ud83d", "input_schema": {}}]'},
    ],
    "any tools": [
        {},
        {"tools": "[]"},
        {"tools": f"[{READ}]"},
        turns(user(), '{"role": "system", "content": [%s]}' % (DEFINED % READ)),
    ],
    "system": [
        {},
        {"system": '"a secret"'},
        {"system": '[{"type": "text", "text": "a secret"}]'},
        {"system": f'[{TEXT}, {{"type": "text", "text": "a secret \\ude00"}}]'},
        {"system": '[{"type": "text", "text": "a", "text": "a secret"}]'},
        {"system": '[{"type": "text", "text": "a secret", "text": "a"}]'},
        {"system": '{"type": "text", "text": "a secret"}'},
        {"system": '["a secret"]'},
        {"system": '[{"type": "text", "text": ["a secret"]}]'},
        {"system": '[[{"type": "text", "text": "a secret"}]]'},
    ],
    "user": [
        {},
        *({"metadata": f'{{"user_id": {id}}}'} for id in ('"u-1"', '"u-2"', "null", '"u-1 \\ud83d"')),
        {"metadata": '{"user_id": "u-1", "user_id": "u-2"}'},
        {"metadata": '{"user_id": "u-2", "user_id": "u-1"}'},
    ],
    "max_tokens": [{"max_tokens": number} for number in ("5", "500", '5, "max_tokens": 500')],
    "stream": [{"stream": value} for value in ("false", "null", 'false, "stream": true')],
}


# --- every spelling


def escaped(letter: str) -> str:
    return f"\\u{ord(letter):04x}"


SPELLINGS: Mapping[str, Callable[[str], str]] = {
    "plainly": lambda word: word,
    "with an escaped letter": lambda word: escaped(word[0]) + word[1:],
    "in escapes": lambda word: "".join(map(escaped, word)),
    "in escapes with capitals": lambda word: "".join(map(escaped, word)).upper().replace("\\U", "\\u"),
}
WORDS = (
    *(
        "effort",
        "output_config",
        "role",
        "system",
        "high",
        "thinking",
        "type",
        "adaptive",
        "image",
        "document",
    ),
    *("image_url", "file", "tools", "name", "web_search_mine", "tool_definition", "definition", "secret"),
    *("metadata", "user_id", "u-1", "max_tokens", "stream", "messages", "content", "text"),
)


def spelled(body: str, spelling: Callable[[str], str]) -> str:
    for word in WORDS:
        body = body.replace(f'"{word}"', f'"{spelling(word)}"')
    return body


def bodies(fact: str, provider: str) -> Iterator[str]:
    for place in PLACES[fact]:
        fields = {"max_tokens": "50", "messages": f"[{user()}]", **place}
        members = ", ".join(f'"{name}": {value}' for name, value in fields.items())
        for spelling in SPELLINGS.values():
            said = spelled(f"{{{members}}}", spelling)
            yield f'{{"model": "{provider}-{fact.replace(" ", "-")}", {said[1:]}'


# --- what arrived, by readers who know nothing of routeproxy


def first_of_equal_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return dict(reversed(pairs))


def objects(value: Any, key: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(value, list):
        for item in value:
            yield from objects(item, key)
    elif isinstance(value, dict):
        yield key, value
        for name, item in value.items():
            if not (value.get("type") == "tool_use" and name == "input"):
                yield from objects(item, name)


def has_block(body: Any, *types: str) -> bool:
    places = [body.get("messages"), body.get("system")]
    return any(block.get("type") in types and key != "source" for key, block in objects(places))


def effort_in(body: Any) -> str | None:
    said = [(body.get("output_config") or {}).get("effort")]
    said += [
        (turn.get("output_config") or {}).get("effort")
        for turn in body["messages"]
        if turn["role"] == "system"
    ]
    return next((effort for effort in reversed(said) if effort is not None), None)


def tools_in(body: Any) -> list[dict[str, Any]]:
    defined = [
        one["definition"] for _, one in objects(body["messages"]) if one.get("type") == "tool_definition"
    ]
    return [*(body.get("tools") or ()), *defined]


def words_of(tools: list[dict[str, Any]]) -> list[str]:
    return [tool[key] for tool in tools for key in ("name", "type") if tool.get(key)]


def system_of(body: Any) -> str:
    system = body.get("system") or ""
    return system if isinstance(system, str) else " ".join(block.get("text", "") for block in system)


AT_MESSAGES: Mapping[str, Callable[[Any], bool]] = {
    "effort": lambda body: effort_in(body) == "high",
    "thinking": lambda body: (
        (body.get("thinking") or {}).get("type") in ("adaptive", "enabled", "between_tools")
    ),
    "images": lambda body: has_block(body, "image", "image_url", "input_image"),
    "documents": lambda body: has_block(body, "document", "file"),
    "tools": lambda body: any(word.startswith("web_search_") for word in words_of(tools_in(body))),
    "any tools": lambda body: bool(tools_in(body)),
    "system": lambda body: "secret" in system_of(body),
    "user": lambda body: (body.get("metadata") or {}).get("user_id") == "u-1",
    "max_tokens": lambda body: body["max_tokens"] >= 100,
    "stream": lambda body: body.get("stream") is True,
}
AT_CHAT: Mapping[str, Callable[[Any], bool]] = {
    "effort": lambda body: body.get("reasoning_effort") == "high",
    "images": lambda body: "image_url" in json.dumps(body["messages"]),
    "any tools": lambda body: bool(body.get("tools")),
    "system": lambda body: "secret" in json.dumps(body["messages"]),
    "user": lambda body: body.get("user") == "u-1",
    "max_tokens": lambda body: body.get("max_tokens", body.get("max_completion_tokens", 0)) >= 100,
    "stream": lambda body: body.get("stream") is True,
}


def post(client: httpx.Client, proxy: Running, body: str) -> httpx.Response:
    headers = {"content-type": "application/json", "anthropic-version": "2023-06-01"}
    return client.post(f"{proxy.url}/v1/messages", content=body.encode(), headers=headers)


@pytest.mark.parametrize("fact", CONDITIONS)
def test_what_is_decided_on_is_what_a_back_end_of_messages_gets(
    proxy: Running, claude: BackEnd, fact: str
) -> None:
    refused = agreed = 0
    with httpx.Client(timeout=seconds(30)) as client:
        for body in bodies(fact, "claude"):
            answers(claude, json_answer(message()))
            reply = post(client, proxy, body)
            if reply.status_code == 400:
                assert claude.requests == [], body
                refused += 1
                continue
            assert reply.status_code == 200, (body, reply.text)
            received = claude.last.body
            decided = claude.last.json["model"] == "yes"
            for first in (None, first_of_equal_keys):
                assert AT_MESSAGES[fact](json.loads(received, object_pairs_hook=first)) is decided, body
            agreed += 1
    assert agreed >= 2 * len(SPELLINGS), (agreed, refused)


@pytest.mark.parametrize("fact", AT_CHAT)
def test_what_is_decided_on_is_what_a_back_end_of_chat_gets(proxy: Running, corp: BackEnd, fact: str) -> None:
    agreed = 0
    with httpx.Client(timeout=seconds(30)) as client:
        for body in bodies(fact, "corp"):
            answers(corp, json_answer(completion()))
            reply = post(client, proxy, body)
            if reply.status_code == 400:
                assert corp.requests == [], body
                continue
            assert reply.status_code == 200, (body, reply.text)
            received = corp.last.json
            assert AT_CHAT[fact](received) is (received["model"] == "yes"), (body, received)
            agreed += 1
    assert agreed >= 2 * len(SPELLINGS)
