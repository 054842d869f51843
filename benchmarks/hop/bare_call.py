"""`litellm.acompletion` and nothing around it, in a process of its own: `python -m hop.bare_call URL`.

Each line of its input is a batch: the fields of a chat request, and for how long and how often at least to
make the call, one after another. It answers with the seconds to the first and to the last byte of each.
"""

import asyncio
import json
import sys
import time
from typing import Any

import litellm
import uvloop

READY = "ready"


async def call(base_url: str, fields: dict[str, Any]) -> tuple[float, float]:
    began = time.perf_counter()
    answer = await litellm.acompletion(**fields, api_base=base_url, api_key="none")
    first = time.perf_counter() - began
    if hasattr(answer, "__aiter__"):
        async for _ in answer:
            pass
    return first, time.perf_counter() - began


async def serve(base_url: str) -> None:
    print(READY, flush=True)
    # In a thread, so that what LiteLLM left for later is done meanwhile.
    while line := await asyncio.to_thread(sys.stdin.readline):
        batch = json.loads(line)
        fields = {**batch["fields"], "model": f"openai/{batch['fields']['model']}"}
        fields["allowed_openai_params"] = list(batch["fields"])
        until = time.perf_counter() + batch["seconds"]
        times = []
        while len(times) < batch["least"] or time.perf_counter() < until:
            times.append(await call(base_url, fields))
        print(json.dumps(times), flush=True)


if __name__ == "__main__":
    litellm.suppress_debug_info = True
    uvloop.run(serve(sys.argv[1]))
