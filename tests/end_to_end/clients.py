"""Where the clients are that the end-to-end tests drive. They are no dependencies of ours: `.ci/run` installs
them, and tests skip without."""

import os
import shutil
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
