"""A hundred reloads during 500 requests a second: what is lost, what goes astray, how long requests take.

    python benchmarks/reloads.py [--reloads 100] [--rate 500] [--rules 200]

A real `serve` with `echo` alone. Every version of the rules sends all requests to a model of its own name, so
an answer whose version and model don't belong together was routed by two policies. Half of the reloads are
saved files that the server finds by itself, half are asked for by an admin, and every tenth is a rollback.
Prints what was asked, lost and misrouted, and the time of requests with and without reloads. All on loopback.
"""

import argparse
import asyncio
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import aiohttp

BODY = b'{"model":"claude-sonnet-5","max_tokens":10,"messages":[{"role":"user","content":"Hi"}]}'
ADMIN = {"authorization": "Bearer admin"}


def rules(name: str, number: int) -> str:
    lines = ['[server]\nadmin_keys = "env:ADMIN_KEY"\n[providers.echo]']
    lines += [
        f'[[rules]]\nname = "rule {place}"\nmatch.headers.x-team = "team-{place}"\ntargets = "echo/{place}"'
        for place in range(number)
    ]
    return "\n".join([*lines, f'[default]\ntargets = "echo/{name}"', ""])


class Load:
    """Requests at a steady rate, whatever becomes of the earlier ones."""

    def __init__(self, session: aiohttp.ClientSession, url: str, rate: float) -> None:
        self._session = session
        self._url = url
        self._rate = rate
        self.asked = 0
        self.statuses: Counter[int | str] = Counter()
        self.routes: Counter[tuple[str, str]] = Counter()
        self.times: list[float] = []

    async def run(self, over: asyncio.Event) -> None:
        due = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            while not over.is_set():
                due += 1 / self._rate
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                self.asked += 1
                tasks.create_task(self._one())

    async def _one(self) -> None:
        started = time.perf_counter()
        try:
            async with self._session.post(f"{self._url}/v1/messages", data=BODY) as answer:
                await answer.read()
                self.statuses[answer.status] += 1
                headers = answer.headers
                self.routes[headers["x-routeproxy-rules-version"], headers["x-routeproxy-model"]] += 1
        except (aiohttp.ClientError, OSError) as error:
            self.statuses[type(error).__name__] += 1
        self.times.append(time.perf_counter() - started)


async def measure(url: str, file: Path, arguments: argparse.Namespace) -> None:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(
        connector=connector, headers={"anthropic-version": "2023-06-01"}
    ) as session:
        calm = Load(session, url, arguments.rate)
        over = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(calm.run(over))
            await asyncio.sleep(3)
            over.set()
        load, over, expected = Load(session, url, arguments.rate), asyncio.Event(), {}
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(load.run(over))
            expected[await version(session, url)] = "m0"
            for number in range(1, arguments.reloads + 1):
                await reload(session, url, file, number, arguments.rules, expected)
            over.set()
    astray = {route: count for route, count in load.routes.items() if expected.get(route[0]) != route[1]}
    report(calm, "without reloads")
    report(load, f"with {arguments.reloads} reloads of {arguments.rules} rules, {len(expected)} versions")
    lost = load.asked - load.statuses[200]
    print(f"lost {lost}, misrouted {sum(astray.values())}, of {load.asked}")
    if lost or astray:
        sys.exit(f"{dict(load.statuses)} {astray}")


async def reload(
    session: aiohttp.ClientSession, url: str, file: Path, number: int, size: int, expected: dict[str, str]
) -> None:
    before = await version(session, url)
    if number % 10 == 0:
        async with session.post(f"{url}/-/rollback", headers=ADMIN) as answer:
            assert answer.status == 200, await answer.text()
        return
    fresh = file.with_name(".fresh")
    fresh.write_text(rules(f"m{number}", size))
    fresh.replace(file)
    if number % 2:
        async with session.post(f"{url}/-/reload", headers=ADMIN) as answer:
            assert answer.status == 200, await answer.text()
    while (now := await version(session, url)) == before:
        await asyncio.sleep(0.02)
    expected[now] = f"m{number}"


async def version(session: aiohttp.ClientSession, url: str) -> str:
    async with session.get(f"{url}/readyz") as answer:
        return str((await answer.json())["rules_version"])


def report(load: Load, name: str) -> None:
    times = sorted(load.times)
    at = [times[min(len(times) - 1, int(len(times) * share))] * 1000 for share in (0.5, 0.99)]
    shown = f"p50 {at[0]:.1f} ms, p99 {at[1]:.1f} ms, max {times[-1] * 1000:.1f} ms"
    print(f"{name}: {load.asked} requests, {shown}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--reloads", type=int, default=100)
    parser.add_argument("--rate", type=float, default=500)
    parser.add_argument("--rules", type=int, default=200)
    arguments = parser.parse_args()
    print(f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as folder:
        file, log = Path(folder, "rules.toml"), Path(folder, "log")
        file.write_text(rules("m0", arguments.rules))
        with log.open("wb") as stderr:
            server = subprocess.Popen(
                [sys.executable, "-m", "routeproxy", "serve", "--rules", str(file), "--port", "0"],
                env={**os.environ, "ADMIN_KEY": "admin", "LOG_LEVEL": "WARNING"},
                stderr=stderr,
            )
        try:
            while not (found := re.search(r"http://\S+", log.read_text())):
                assert server.poll() is None, log.read_text()
                time.sleep(0.05)
            with suppress(KeyboardInterrupt):
                asyncio.run(measure(found[0], file, arguments))
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
