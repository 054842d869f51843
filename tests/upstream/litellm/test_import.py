"""LiteLLM's late import, in processes of their own."""

import subprocess
import sys
from pathlib import Path

from tests.budgets import seconds

TICKS = """
import asyncio, time
from routeproxy.upstream.google_tokens import GoogleTokens
from routeproxy.upstream.http.client import Client
from routeproxy.upstream.litellm.backend import LiteLLMBackEnd

async def main():
    over, worst = asyncio.Event(), 0.0
    async def ticks():
        nonlocal worst
        while not over.is_set():
            before = time.process_time()  # what other processes take is not ours to be measured
            await asyncio.sleep(0.001)
            worst = max(worst, time.process_time() - before)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(ticks())
        await LiteLLMBackEnd(client := Client({}), GoogleTokens(client)).load()
        over.set()
    print(worst)

asyncio.run(main())
"""

BROKEN_ONCE = """
import asyncio, pathlib, sys
folder = pathlib.Path(sys.argv[1])
sys.path.insert(0, str(folder))
from routeproxy.upstream.failures import UpstreamFailure
from routeproxy.upstream.google_tokens import GoogleTokens
from routeproxy.upstream.http.client import Client
from routeproxy.upstream.litellm.backend import LiteLLMBackEnd

async def main():
    litellm = LiteLLMBackEnd(client := Client({}), GoogleTokens(client))
    for _ in range(2):
        try:
            await litellm.load()
        except UpstreamFailure as failure:
            print(failure.kind, failure.message)
    (folder / "litellm.py").unlink()
    print((await litellm.load()).__name__)

asyncio.run(main())
"""

QUIET = """
import asyncio, logging
from routeproxy.upstream.google_tokens import GoogleTokens
from routeproxy.upstream.http.client import Client
from routeproxy.upstream.litellm.backend import LiteLLMBackEnd

litellm = asyncio.run(LiteLLMBackEnd(client := Client({}), GoogleTokens(client)).load())
print(litellm.success_callback, litellm.failure_callback, litellm.callbacks, litellm.telemetry)
print([name for name in ("LiteLLM", "httpx", "openai") if logging.getLogger(name).isEnabledFor(logging.INFO)])
"""


def lines(script: str, *arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=seconds(60)
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_loop_goes_on_while_it_is_imported() -> None:
    assert float(lines(TICKS)[0]) < 0.25  # 0.025 on an idle machine


def test_an_import_that_failed_is_told_and_tried_again(tmp_path: Path) -> None:
    (tmp_path / "litellm.py").write_text("raise ImportError('half installed')")
    told = (
        "server_error this provider is reached through LiteLLM, which could not be imported: the log says why"
    )
    assert lines(BROKEN_ONCE, str(tmp_path)) == [told, told, "litellm"]


def test_it_reports_to_nobody_and_keeps_quiet() -> None:
    assert lines(QUIET) == ["[] [] [] False", "[]"]
