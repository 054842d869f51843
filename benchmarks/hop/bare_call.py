"""`litellm.acompletion` and nothing around it, in a process of its own: `python -m hop.bare_call URL`.

Each line of its input is a batch: the fields of a chat request, and for how long and how often at least to
make the call, one after another. It answers with the seconds to the first and to the last chunk of each, or
with what went wrong.
"""

import asyncio
import json
import sys
import time
from typing import Any

import litellm
import uvloop

QUIETLY = {"_skip_mcp_handler": True}
"""LiteLLM alone, without its proxy's dependencies, can't look for MCP servers among tools."""


async def call(base_url: str, fields: dict[str, Any]) -> tuple[float, float]:
    began = time.perf_counter()
    answer = await litellm.acompletion(**fields, api_base=base_url, api_key="none", **QUIETLY)
    first = time.perf_counter() - began
    if hasattr(answer, "__aiter__"):
        async for _ in answer:
            pass
    return first, time.perf_counter() - began


async def batch(base_url: str, order: dict[str, Any]) -> list[tuple[float, float]]:
    asked: dict[str, Any] = order["fields"]
    fields = {**asked, "model": f"openai/{asked['model']}", "allowed_openai_params": list(asked)}
    until = time.perf_counter() + order["seconds"]
    times: list[tuple[float, float]] = []
    while len(times) < order["least"] or time.perf_counter() < until:
        times.append(await call(base_url, fields))
    return times


async def serve(base_url: str) -> None:
    print("ready", flush=True)
    # In a thread, so that what LiteLLM left for later is done meanwhile.
    while line := await asyncio.to_thread(sys.stdin.readline):
        try:
            answer: dict[str, Any] = {"times": await batch(base_url, json.loads(line))}
        except Exception as error:
            answer = {"problem": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    litellm.suppress_debug_info = True
    uvloop.run(serve(sys.argv[1]))
