"""Subjects while they run: started until they answer, checked, asked, paused between their turns."""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any, Protocol

from hop.load import LIMIT, Answer, Refused, http, once, one_after_another
from hop.processes import LOAD_CORE, PROXY_CORE, Program
from hop.scripts import Script
from hop.subjects import BENCHMARKS, BareCall, Hop, Place, request_of


class Subject(Protocol):
    key: str
    title: str

    @property
    def program(self) -> Program | None:
        """Nothing, if it is the back end itself."""

    async def batch(self, size: str, script: Script, seconds: float, least: int) -> list[Answer]:
        """The answers of so many seconds, one after another. Raises `Refused`."""


class BackEnd:
    """The scripted back end, and how it is told what to say."""

    def __init__(self, port: int, folder: Path) -> None:
        self.port = port
        env = {"PYTHONPATH": str(BENCHMARKS)}
        self.program = Program(python("hop.back_end", str(port)), LOAD_CORE, folder / "back-end.log", env)

    async def ready(self) -> None:
        until = time.monotonic() + 10
        while time.monotonic() < until and not self.program.ended:
            try:
                await self.play(Script())
                return
            except Refused:
                await asyncio.sleep(0.02)
        raise Refused(f"the back end did not start: {self.program.last_words()}")

    async def play(self, script: Script) -> None:
        body = json.dumps(script._asdict()).encode()
        await once(self.port, http("PUT", "/script", {}, body))

    async def asked(self) -> dict[str, Any]:
        """The body of the last request that it answered."""
        answer = await once(self.port, http("GET", "/asked", {}))
        body: dict[str, Any] = json.loads(answer.body)
        return body


class RunningHop:
    def __init__(self, hop: Hop, program: Program | None) -> None:
        self.hop = hop
        self.key = hop.key
        self.title = hop.title
        self.program = program
        self._requests: dict[tuple[str, bool], bytes] = {}

    def request(self, size: str, *, stream: bool) -> bytes:
        if (size, stream) not in self._requests:
            self._requests[size, stream] = request_of(self.hop, size, stream=stream)
        return self._requests[size, stream]

    async def batch(self, size: str, script: Script, seconds: float, least: int) -> list[Answer]:
        request = self.request(size, stream=script.streamed)
        return await one_after_another(self.hop.port, request, seconds, least)

    async def check(self, size: str, script: Script) -> None:
        """Raises `Refused` unless the text comes through whole."""
        request = self.request(size, stream=script.streamed)
        answer = await once(self.hop.port, request, limit=30)
        if answer.status != 200:
            raise Refused(f"status {answer.status}: {answer.body[:300].decode(errors='replace')}")
        said = said_by(answer.body, self.hop.wire, streamed=script.streamed)
        if said.strip() != script.text.strip():
            raise Refused(f"another text than the back end's: `{said[:40]}…`, {len(said)} characters")


class RunningCall:
    """`litellm.acompletion`, asked for what the back end was asked for by routeproxy through LiteLLM."""

    def __init__(self, call: BareCall, program: Program) -> None:
        self.key = call.key
        self.title = call.title
        self.program = program
        self.fields: dict[tuple[str, bool], dict[str, Any]] = {}

    async def batch(self, size: str, script: Script, seconds: float, least: int) -> list[Answer]:
        fields = self.fields.get((size, script.streamed))
        if fields is None:
            raise Refused("nothing to ask for, since routeproxy through LiteLLM was not asked")
        order = json.dumps({"fields": fields, "seconds": seconds, "least": least})
        stdin = self.program.process.stdin
        assert stdin is not None
        stdin.write(f"{order}\n")
        stdin.flush()
        answer = json.loads(await self.line("{"))
        if "problem" in answer:
            raise Refused(answer["problem"])
        return [Answer(200, first, whole, b"") for first, whole in answer["times"]]

    async def line(self, beginning: str) -> str:
        """The next line that begins so: LiteLLM has things to say, too."""
        stdout = self.program.process.stdout
        assert stdout is not None
        try:
            async with asyncio.timeout(LIMIT):
                while line := await asyncio.to_thread(stdout.readline):
                    if line.startswith(beginning):
                        return line
        except TimeoutError:
            self.program.end()  # or the thread would read for ever
            raise Refused(f"no answer within {LIMIT:.0f} s") from None
        raise Refused(f"it ended: {self.program.last_words()}")


def started(hop: Hop, place: Place) -> RunningHop:
    if not hop.command:
        return RunningHop(hop, None)
    log = place.of(hop.key) / "output.log"
    return RunningHop(hop, Program(hop.command, PROXY_CORE, log, hop.env))


def started_call(call: BareCall, place: Place) -> RunningCall:
    log = place.of(call.key) / "output.log"
    return RunningCall(call, Program(call.command, PROXY_CORE, log, call.env, piped=True))


async def first_answer(running: RunningHop) -> None:
    """Asks until there is a 200. Raises `Refused` when the hop's patience is over, or the hop itself."""
    request = running.request("1 kB", stream=False)
    until = time.monotonic() + running.hop.patience
    last = "no connection"
    while (left := until - time.monotonic()) > 0:
        if running.program is not None and running.program.ended:
            raise Refused(f"it ended: {running.program.last_words()}")
        try:
            answer = await once(running.hop.port, request, limit=left)
            if answer.status == 200:
                return
            last = f"status {answer.status}: {answer.body[:200].decode(errors='replace')}"
            await asyncio.sleep(0.02)
        except Refused as refused:
            last = str(refused)
            await asyncio.sleep(0.005)
    raise Refused(f"not ready in {running.hop.patience:.0f} s: {last}")


async def ready_call(running: RunningCall) -> None:
    await running.line("ready")


def python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def said_by(body: bytes, wire: str, *, streamed: bool) -> str:
    """The text of an answer."""
    if not streamed:
        whole = json.loads(body)
        if wire == "chat":
            return str(whole["choices"][0]["message"]["content"])
        return "".join(block.get("text", "") for block in whole["content"])
    lines = [line[5:].strip() for line in body.decode().splitlines() if line.startswith("data:")]
    events = [json.loads(line) for line in lines if line and line != "[DONE]"]
    if wire == "chat":
        deltas = [choice["delta"] for event in events for choice in event["choices"]]
        return "".join(delta.get("content") or "" for delta in deltas)
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    return "".join(delta.get("text", "") for delta in deltas)
