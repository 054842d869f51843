"""aimock, somebody else's idea of how the providers answer, as a process on loopback. The formats are its
own, the words a test's."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.budgets import seconds
from tests.end_to_end.clients import AIMOCK
from tests.running import until


class Aimock:
    def __init__(self, url: str) -> None:
        self.url = url

    def forget(self) -> None:
        httpx.post(f"{self.url}/__aimock/reset/journal", timeout=seconds(5), verify=False).raise_for_status()

    @property
    def asked(self) -> list[dict[str, Any]]:
        """The requests since `forget`, whatever format they came in, as chat completions."""
        return [entry["body"] for entry in self._journal()]

    @property
    def paths(self) -> list[str]:
        return [entry["path"] for entry in self._journal()]

    def _journal(self) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = httpx.get(
            f"{self.url}/__aimock/journal", timeout=seconds(5), verify=False
        ).json()
        return entries


@contextmanager
def aimock(folder: Path, fixtures: Sequence[dict[str, Any]]) -> Iterator[Aimock]:
    """aimock with these fixtures, of which the first that matches answers."""
    path, log = folder / "fixtures.json", folder / "aimock.txt"
    path.write_text(json.dumps({"fixtures": fixtures}), encoding="utf-8")
    node = shutil.which("node")
    assert node
    with log.open("wb") as said:
        process = subprocess.Popen(
            [node, str(AIMOCK), "--port", "0", "--fixtures", str(path), "--validate-on-load"],
            env={"PATH": os.environ["PATH"], "HOME": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
        )
    try:
        found = until(
            lambda: re.search(r"listening on (\S+)", log.read_text()) or process.poll() is not None, 15
        )
        assert isinstance(found, re.Match), log.read_text()
        yield Aimock(found[1])
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
