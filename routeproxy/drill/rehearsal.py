"""One request through the real application, in front of back ends that misbehave, and how it came out."""

import asyncio
import json
import math
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Literal, NamedTuple

import msgspec
from litestar import Litestar
from msgspec.structs import replace

from routeproxy import tokens
from routeproxy.drill.back_end import Asked, BackEnd, well
from routeproxy.drill.formats import FORMATS, TEXT
from routeproxy.drill.scenarios import FIRST, MIDDLE, Scenario
from routeproxy.policy.decide import Denial, Policy
from routeproxy.proxy import Proxy
from routeproxy.upstream.registry import Registry
from routeproxy.upstream.shared_state import SharedState
from routeproxy.web.app import build_app

Verdict = Literal["pass", "partial", "safe", "fail"]
"""Complete and within limits; complete, an advisory limit missed; a clean error; anything else."""


class Got(NamedTuple):
    """What a client got."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float
    first_content: float | None
    """Seconds until the first content of a stream."""
    left: bool = False
    """It did not wait for the end."""

    @property
    def outcome(self) -> str:
        """`complete`, `refusal`, `error TYPE`, `left`, or what is wrong with it."""
        if self.left:
            return "left"
        if self.headers.get("content-type", "").startswith("text/event-stream"):
            return _outcome_of_stream(self.body)
        try:
            body = json.loads(self.body)
        except ValueError:
            return "no JSON"
        if body.get("type") == "error":
            return f"error {body['error']['type']}" if self.status >= 400 else "an error with a status of 200"
        if self.status != 200:
            return f"a message with a status of {self.status}"
        text = "".join(block.get("text", "") for block in body["content"])
        return _outcome(body.get("stop_reason"), text)


def _outcome(stop_reason: str | None, text: str) -> str:
    if stop_reason == "refusal":
        return "refusal"
    return "complete" if stop_reason == "end_turn" and text == TEXT else "truncated, and shown as a success"


def _outcome_of_stream(body: bytes) -> str:
    text, stop_reason, ended = "", None, False
    for data in re.findall(rb"^data: ?(.*)$", body, re.MULTILINE):
        if ended:
            return "something after the end"
        event = json.loads(data)
        match event:
            case {"type": "content_block_delta", "delta": {"text": piece}}:
                text += piece
            case {"type": "message_delta", "delta": {"stop_reason": reason}}:
                stop_reason = reason
            case {"type": "message_stop"}:
                ended = True
            case {"type": "error", "error": {"type": type}}:
                return f"error {type}"
    return _outcome(stop_reason, text) if ended else "cut, without an end or an error"


class Row(NamedTuple):
    scenario: Scenario
    verdict: Verdict
    got: Sequence[Got]
    asked: Sequence[Asked]

    def __str__(self) -> str:
        outcomes = sorted({got.outcome for got in self.got})
        seconds = max(got.seconds for got in self.got)
        targets = " ".join(asked.target for asked in self.asked[:8])
        what = f"{', '.join(outcomes)} in {seconds:.1f} s, asked {targets}"
        return f"{self.scenario.number} {self.verdict:7} {what}"


def judge(scenario: Scenario, got: Sequence[Got], asked: Sequence[Asked], *, alone: bool) -> Verdict:
    """`alone`: there is no other target, so that nobody could be quicker."""
    outcomes = {one.outcome for one in got}
    only_first = all(one.target == FIRST for one in asked)
    if scenario.leaves:
        return "pass" if only_first and all(one.was_let_go for one in asked) else "fail"
    if scenario.may_refuse:
        refused = all(outcome == "refusal" or outcome.startswith("error ") for outcome in outcomes)
        return "pass" if refused and only_first else "fail"
    if any(outcome != "complete" and not outcome.startswith("error ") for outcome in outcomes):
        return "fail"
    if outcomes != {"complete"}:
        return "safe"
    if any(one.seconds > scenario.limit for one in got):
        return "partial" if alone else "fail"
    begun = [one.first_content if one.first_content is not None else one.seconds for one in got]
    is_late = scenario.advised is not None and any(seconds > scenario.advised for seconds in begun)
    is_once = scenario.wants_twice and sum(one.target == FIRST for one in asked) < 2
    told = all(one.headers.get("x-routeproxy-model") for one in got)
    return "pass" if told and not is_late and not is_once and not scenario.misses(asked) else "partial"


async def ask(app: Litestar, *, stream: bool, model: str = "m", patience: float | None = None) -> Got:
    """Asks the application as a client would, but without a socket in between. `patience`: the seconds after
    which the client leaves."""
    loop = asyncio.get_running_loop()
    message = {"role": "user", "content": "Say sixty words."}
    body = {"model": model, "max_tokens": 1024, "stream": stream, "messages": [message]}
    began, first, status, headers, parts = loop.time(), None, 0, dict[str, str](), list[bytes]()
    left = False
    sent = [{"type": "http.request", "body": msgspec.json.encode(body), "more_body": False}]

    async def receive() -> dict[str, Any]:
        nonlocal left
        if sent:
            return sent.pop()
        await asyncio.sleep(patience if patience is not None else math.inf)
        left = True
        return {"type": "http.disconnect"}

    async def send(event: dict[str, Any]) -> None:
        nonlocal status, first
        if event["type"] == "http.response.start":
            status = event["status"]
            headers.update((name.decode(), value.decode("latin-1")) for name, value in event["headers"])
        else:
            parts.append(bytes(event.get("body", b"")))
            if first is None and b"content_block_delta" in parts[-1]:
                first = loop.time() - began

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST",
        "scheme": "http", "path": "/v1/messages", "raw_path": b"/v1/messages", "query_string": b"",
        "headers": [(b"content-type", b"application/json"), (b"host", b"127.0.0.1")],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 1),
        "extensions": {}, "state": {}, "root_path": "",
    }  # fmt: skip
    await app(scope, receive, send)  # type: ignore[arg-type]
    return Got(status, headers, b"".join(parts), loop.time() - began, first, left)


class Rehearsed:
    """The application that serves, without its logs and its watch on the rules."""

    def __init__(self, policy: Policy, upstreams: Registry) -> None:
        self.policy = policy
        """The one in force."""
        self._upstreams = upstreams
        state = SharedState(now=asyncio.get_running_loop().time)
        self.app = build_app(Proxy(self, upstreams, tokens.count, state=state))

    async def reload(self) -> None:
        """From now on another policy is in force, which refuses everything."""
        denial = Denial(status=403, message="the rules have changed")
        rule = replace(self.policy.default, targets=(), deny=denial)
        policy = replace(self.policy, version="reloaded", providers={}, default=rule)
        await self._upstreams.prepare(policy)
        self.policy = policy


@asynccontextmanager
async def application(policy: Policy) -> AsyncIterator[Rehearsed]:
    upstreams = Registry(None, {})
    await upstreams.prepare(policy)
    try:
        yield Rehearsed(policy, upstreams)
    finally:
        await upstreams.aclose()


PolicyOf = Callable[[Sequence[str]], Policy]
"""The policy whose targets have these addresses, without a path."""


async def rehearse(
    scenarios: Sequence[Scenario], formats: Sequence[str | None], policy_of: PolicyOf, *, stream: bool
) -> list[Row]:
    """All at once, each with back ends and an application of its own. `formats`: of each target of the chain,
    by name, the first of which misbehaves; `None`: it needs no back end."""
    async with AsyncExitStack() as stack:
        scenes = [await _prepared(stack, scenario, formats, policy_of) for scenario in scenarios]
        return list(await asyncio.gather(*(_play(scene, stream=stream) for scene in scenes)))


class _Scene(NamedTuple):
    scenario: Scenario
    rehearsed: Rehearsed
    log: list[Asked]
    targets: int


async def _prepared(
    stack: AsyncExitStack, scenario: Scenario, formats: Sequence[str | None], policy_of: PolicyOf
) -> _Scene:
    log: list[Asked] = []
    addresses = []
    for number, format in enumerate(formats, 1):
        if format is None:
            addresses.append("")
            continue
        name, is_first = str(number), str(number) == FIRST
        back_end = BackEnd(name, FORMATS[format], scenario.behaviour if is_first else well, log)
        port = (await stack.enter_async_context(back_end)).port
        scheme, host = (scenario.scheme, scenario.host) if is_first else ("http", "127.0.0.1")
        addresses.append(f"{scheme}://{host}:{port}")
    rehearsed = await stack.enter_async_context(application(policy_of(addresses)))
    return _Scene(scenario, rehearsed, log, len(formats))


async def _play(scene: _Scene, *, stream: bool) -> Row:
    scenario, rehearsed, got = scene.scenario, scene.rehearsed, []
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.TaskGroup() as tasks:
        if scenario.reloads:
            tasks.create_task(_reload_in_the_middle(rehearsed))
        for number in range(scenario.times):
            await asyncio.sleep(began + number * scenario.every - loop.time())
            patience = MIDDLE if scenario.leaves else None
            got.append(await ask(rehearsed.app, stream=stream, patience=patience))
    if scenario.leaves:
        await asyncio.sleep(MIDDLE)
    verdict = judge(scenario, got, scene.log, alone=scene.targets == 1)
    return Row(scenario, verdict, got, scene.log)


async def _reload_in_the_middle(rehearsed: Rehearsed) -> None:
    await asyncio.sleep(MIDDLE)
    await rehearsed.reload()
