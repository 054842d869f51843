"""Other gateways, where they are installed: LiteLLM's proxy, claude-code-router, Portkey's gateway.

Each is one process with logs off, told to send everything to the scripted back end as chat completions.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from hop.processes import free_port
from hop.subjects import KEY, KEYS, Hop, NotHere, Place

LITELLM = "litellm[proxy]"
CCR = "@musistudio/claude-code-router"
PORTKEY = "@portkey-ai/gateway"

LITELLM_CONFIG = """\
model_list:
  - model_name: "*"
    litellm_params:
      model: openai/served
      api_base: http://127.0.0.1:{back_end}/v1
      api_key: none
litellm_settings:
  drop_params: true
  num_retries: 0
  telemetry: false
  # Otherwise it would ask for the Responses API.
  use_chat_completions_url_for_anthropic_messages: true
general_settings:
  master_key: {key}
"""


def litellm(place: Place, program: Path) -> Hop:
    folder, port = place.of("litellm"), free_port()
    config = folder / "config.yaml"
    config.write_text(LITELLM_CONFIG.format(back_end=place.back_end, key=KEY))
    command = [str(program), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    env = {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "HOME": str(folder),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOG": "ERROR",
    }
    title = f"LiteLLM proxy {_litellm_version(program)}".strip()
    return Hop("litellm", title, command, port, env, headers=KEYS, patience=120)


def ccr(place: Place, program: Path) -> Hop:
    folder, port = place.of("ccr"), free_port()
    home = folder / ".claude-code-router"
    home.mkdir(exist_ok=True)
    provider = {
        "name": "bench",
        "api_base_url": f"http://127.0.0.1:{place.back_end}/v1/chat/completions",
        "api_key": "none",
        "models": ["served"],
    }
    config = {
        "HOST": "127.0.0.1",
        "PORT": port,
        "APIKEY": KEY,
        "LOG": False,
        "NON_INTERACTIVE_MODE": True,
        "Providers": [provider],
        "Router": {"default": "bench,served"},
    }
    (home / "config.json").write_text(json.dumps(config))
    env = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    title = f"claude-code-router {_npm_version(program)}".strip()
    return Hop("ccr", title, [str(program), "start"], port, env, headers=KEYS, patience=30)


def portkey(place: Place, program: Path) -> Hop:
    folder, port = place.of("portkey"), free_port()
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "NODE_ENV": "production"}
    headers = {
        "authorization": "Bearer none",
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": f"http://127.0.0.1:{place.back_end}/v1",
    }
    title = f"Portkey gateway {_npm_version(program)}".strip()
    return Hop(
        "portkey", title, [str(program), f"--port={port}", "--headless"], port, env,
        path="/v1/chat/completions", wire="chat", headers=headers, patience=30,
        note="Portkey's gateway turns no Messages into chat completions: it is asked for chat completions, "
        "translates nothing and asks for no key",
    )  # fmt: skip


PEERS: dict[str, Callable[[Place, Path], Hop]] = {"litellm": litellm, "ccr": ccr, "portkey": portkey}


def install(key: str, folder: Path, say: Callable[[str], None]) -> Path:
    """The program of a peer, installed into a folder by its ordinary package manager."""
    say(f"installing {key}")
    folder.mkdir(parents=True)
    if key == "litellm":
        _run([sys.executable, "-m", "venv", str(folder)])
        _run([str(folder / "bin" / "pip"), "install", "--quiet", LITELLM])
        return folder / "bin" / "litellm"
    npm = shutil.which("npm")
    if npm is None:
        raise NotHere("npm is not installed")
    package, program = {"ccr": (CCR, "ccr"), "portkey": (PORTKEY, "gateway")}[key]
    _run([npm, "install", "--silent", "--prefix", str(folder), package])
    return folder / "node_modules" / ".bin" / program


def _run(command: list[str]) -> None:
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        raise NotHere(f"`{Path(command[0]).name} …` failed: {ended.stderr.strip()[-300:]}")


def _litellm_version(program: Path) -> str:
    python = program.resolve().parent / "python"
    asked = "from importlib.metadata import version; print(version('litellm'))"
    said = subprocess.run([str(python), "-c", asked], capture_output=True, text=True)
    return said.stdout.strip()


def _npm_version(program: Path) -> str:
    for folder in program.resolve().parents:
        package = folder / "package.json"
        if package.exists() and (found := re.search(r'"version":\s*"([^"]+)"', package.read_text())):
            return found[1]
    return ""
