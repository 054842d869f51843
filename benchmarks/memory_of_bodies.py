"""What waves of large bodies at once do to a server's memory: `python benchmarks/memory_of_bodies.py [BODIES
[MEGABYTES]]`. Linux only."""

import asyncio
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import httpx

from routeproxy.listening import Address, listen

RULES = '[providers.echo]\n[default]\ntargets = "echo/*"\n'
WAVES = 3


def megabytes(pid: int, field: str) -> int:
    match = re.search(rf"{field}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(match[1]) // 1024 if match else 0


def body(size: int) -> bytes:
    head = b'{"model":"claude-sonnet-5","max_tokens":9,"messages":[{"role":"user","content":"'
    return head + b"x" * size + b'"}]}'


async def measure(url: str, pid: int, bodies: int, size: int) -> None:
    limits = httpx.Limits(max_connections=bodies)
    async with httpx.AsyncClient(base_url=url, timeout=300, limits=limits) as client:

        async def ask(content: bytes) -> int:
            return (await client.post("/v1/messages", content=content)).status_code

        while True:
            try:
                await ask(body(1))
                break
            except httpx.TransportError:
                await asyncio.sleep(0.1)
        print(f"at the start: {megabytes(pid, 'VmRSS')} MB")
        content = body(size)
        for _ in range(WAVES):
            started = time.perf_counter()
            statuses = Counter(await asyncio.gather(*[ask(content) for _ in range(bodies)]))
            took = time.perf_counter() - started
            await asyncio.sleep(2)
            peak, now = megabytes(pid, "VmHWM"), megabytes(pid, "VmRSS")
            print(f"{bodies} bodies: {dict(statuses)} in {took:.1f} s, peak {peak} MB, then {now} MB")


def main() -> None:
    bodies, size = (*map(int, sys.argv[1:3]), *(50, 31)[len(sys.argv) - 1 :])
    with listen(Address("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "rules.toml").write_text(RULES)
        command = [sys.executable, "-m", "routeproxy", "serve", "--port", str(port)]
        with subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL) as process:
            try:
                asyncio.run(measure(f"http://127.0.0.1:{port}", process.pid, bodies, size * 10**6))
            finally:
                process.terminate()


if __name__ == "__main__":
    main()
