"""Where the clients are that the end-to-end tests drive. They are no dependencies of ours: `.ci/run` installs
them, and tests skip without."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

_FOLDER = os.environ.get("ROUTEPROXY_TEST_CLIENTS", "")
"""A folder with `node_modules` (Claude Code, the TypeScript SDK, aimock) and `agent` (a virtual environment
with the Agent SDK)."""

BIN = Path(_FOLDER, "node_modules", ".bin")
NODE_MODULES = Path(_FOLDER, "node_modules")
CLAUDE_CODE = shutil.which("claude", path=str(BIN)) or shutil.which("claude")
AGENT_PYTHON = Path(_FOLDER, "agent", "bin", "python")

needs_claude_code = pytest.mark.skipif(
    CLAUDE_CODE is None, reason="Claude Code is not installed (npm install @anthropic-ai/claude-code)"
)
needs_agent_sdk = pytest.mark.skipif(
    not (_FOLDER and AGENT_PYTHON.exists() and CLAUDE_CODE),
    reason="the Agent SDK is not installed (pip install claude-agent-sdk)",
)
needs_typescript_sdk = pytest.mark.skipif(
    not (_FOLDER and (NODE_MODULES / "@anthropic-ai" / "sdk").exists() and shutil.which("node")),
    reason="the TypeScript SDK is not installed (npm install @anthropic-ai/sdk)",
)

AUTO_MODE = (2, 1, 332)
"""The first Claude Code that is known to have its tool uses judged by the back end."""


def newest_claude_code() -> str:
    """The newest Claude Code that is installed, be it the one in the Agent SDK. Skips the test where none is
    of this year's last quarter, with auto mode."""
    bundled = Path(_FOLDER, "agent").glob("lib/python*/site-packages/claude_agent_sdk/_bundled/claude")
    found = {path: _version(path) for path in {CLAUDE_CODE, *map(str, bundled)} if path}
    newest = max(found, key=lambda path: found[path], default="")
    if not newest or found[newest] < AUTO_MODE:
        wanted = ".".join(map(str, AUTO_MODE))
        pytest.skip(f"no Claude Code {wanted} or newer is installed (pip install claude-agent-sdk has one)")
    return newest


def _version(path: str) -> tuple[int, ...]:
    ran = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    number = re.match(r"[\d.]+", ran.stdout)
    return tuple(map(int, number[0].split("."))) if number else ()


AIMOCK = NODE_MODULES / "@copilotkit" / "aimock" / "dist" / "cli.js"
needs_aimock = pytest.mark.skipif(
    not (_FOLDER and AIMOCK.exists() and shutil.which("node")),
    reason="aimock is not installed (npm install @copilotkit/aimock)",
)


def environment(url: str, home: Path) -> dict[str, str]:
    """All the variables that a client sees: an empty home and the address of the proxy."""
    return {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_API_KEY": "sk-anything",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_TELEMETRY": "1",
        "DISABLE_AUTOUPDATER": "1",
        "CLAUDE_CODE_MAX_RETRIES": "1",
    }
