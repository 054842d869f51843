"""Memory that bodies took goes back to the system."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import re
from pathlib import Path
from routeproxy.allocator import return_large_blocks

def megabytes():
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024

return_large_blocks()
before = megabytes()
bytearray(b"x") * (31 * 2**20)  # glibc takes the size of what is freed for usual from now on
kept = []
for _ in range(2):
    bodies = []
    for _ in range(10):
        bodies.append(b"x" * (5 * 2**20))
        kept.append(b"y" * 50_000)
    bodies.clear()
print(megabytes() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc's")
def test_large_blocks_go_back_though_small_ones_between_them_stay() -> None:
    result = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert int(result.stdout) < 10
