"""What is measured: a direct call, hops that change nothing, and routeproxy in three ways.

A hop is a command, the port that it listens on, and how it wants to be asked. The peers are in `peers.py`.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import routeproxy
from hop import bodies
from hop.load import http
from hop.processes import free_port

KEY = "sk-bench-0123456789abcdef0123456789abcdef"
"""What the client shows. Every hop that can ask for a key asks for this one."""

BENCHMARKS = Path(__file__).parent.parent


class NotHere(Exception):
    """A subject that can't be measured on this machine, and why."""


@dataclass(frozen=True)
class Place:
    """Where the subjects of one run live."""

    folder: Path
    back_end: int
    """Its port."""

    def of(self, key: str) -> Path:
        folder = self.folder / key
        folder.mkdir(exist_ok=True)
        return folder


@dataclass(frozen=True)
class Hop:
    key: str
    """What the command line calls it."""
    title: str
    command: list[str]
    """Nothing to start: the back end itself."""
    port: int
    env: dict[str, str] = field(default_factory=dict)
    path: str = "/v1/messages"
    wire: Literal["messages", "chat"] = "messages"
    headers: dict[str, str] = field(default_factory=dict)
    note: str = ""
    patience: float = 20.0
    """Seconds that it may take until it answers."""
    baseline: bool = False


def direct(place: Place) -> Hop:
    return Hop("direct", "direct call", [], place.back_end)


NGINX = """\
daemon off;
master_process off;
worker_rlimit_nofile 16384;
pid {folder}/pid;
error_log stderr warn;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_max_body_size 0;
    client_body_buffer_size 4m;
    keepalive_requests 10000000;
    upstream back_end {{
        server 127.0.0.1:{back_end};
        keepalive 2048;
        keepalive_requests 10000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://back_end;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_read_timeout 600s;
        }}
    }}
}}
"""


def nginx(place: Place) -> Hop:
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise NotHere("nginx is not installed")
    folder, port = place.of("nginx"), free_port()
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, back_end=place.back_end, port=port))
    number = _first(r"nginx/(\S+)", [found, "-v"])
    # Without -e it opens the log of the installation first, which may not be ours to write.
    command = [found, "-e", "stderr", "-p", str(folder), "-c", str(config)]
    return Hop("nginx", f"nginx {number}", command, port, baseline=True)


def relay(place: Place) -> Hop:
    port = free_port()
    command = [sys.executable, "-m", "hop.relay", str(port), str(place.back_end)]
    env = {"PYTHONPATH": str(BENCHMARKS)}
    note = "the relay passes bytes on and parses no HTTP"
    return Hop("relay", "bare relay", command, port, env, note=note, baseline=True)


RULES = """\
[server]
models = ["claude-opus-4-8", "claude-sonnet-5", "claude-haiku-4-5"]

[providers.bench]
{kind}
base_url = "http://127.0.0.1:{back_end}{base}"
api_key = "env:BENCH_BACK_END_KEY"
zone = "local"

[providers.elsewhere]
{kind}
base_url = "http://127.0.0.1:9{base}"
api_key = "env:BENCH_BACK_END_KEY"

[teams.research]
keys = ["env:BENCH_KEY"]

[teams.payments]
keys = ["env:BENCH_OTHER_KEY"]
request_headers = {{ x-data-class = "internal" }}
targets = "bench/*"

[[rules]]
name = "no web search"
match.tools = ["web_search_*"]
deny = "web search is not enabled here"

[[rules]]
name = "private data stays inside"
match.headers.x-data-class = ["internal", "phi"]
targets = "bench/private"
fallback = false

[[rules]]
name = "background work"
match.model = "haiku"
targets = ["bench/small", "elsewhere/small"]

[[rules]]
name = "long prompts of the batch team"
match.headers.x-app = "batch"
match.input_tokens.min = 150_000
targets = "bench/long"

[[rules]]
name = "hard work"
match.model.regex = '^claude-opus-'
match.effort = ["high", "max"]
targets = ["elsewhere/large", "bench/large"]

[default]
targets = ["bench/served", "elsewhere/served"]

[[invariants]]
name = "labelled data never leaves"
when.headers.x-data-class = ["internal", "phi"]
never.zone = "public"
"""

CHAT = """\
type = "openai_compatible"
engine = "{engine}"
transforms = {{ think_tags = true, newlines = "unescape" }}"""


def routeproxy_direct(place: Place) -> Hop:
    """To a chat back end, without LiteLLM."""
    return _routeproxy(place, "routeproxy", "to chat", CHAT.format(engine="direct"), "/v1")


COUNTING = """
[ledger]
path = "usage.db"
pseudonym_key = "env:BENCH_KEY"

[telemetry]
metrics = "127.0.0.1:{port}"

[providers.bench.prices]
"*" = {{ input = 1.25, output = 10, cache_read = 0.125 }}
"""


def routeproxy_counting(place: Place) -> Hop:
    """To a chat back end, with the ledger and the metrics on."""
    more = COUNTING.format(port=free_port())
    return _routeproxy(
        place,
        "routeproxy-counting",
        "to chat, ledger and metrics on",
        CHAT.format(engine="direct"),
        "/v1",
        more,
    )


def routeproxy_messages(place: Place) -> Hop:
    """To a back end that speaks Messages."""
    return _routeproxy(place, "routeproxy-messages", "to Messages", 'type = "anthropic"', "")


def routeproxy_litellm(place: Place) -> Hop:
    """To a chat back end, through LiteLLM as a library."""
    kind = CHAT.format(engine="litellm")
    return _routeproxy(place, "routeproxy-litellm", "to chat, LiteLLM engine", kind, "/v1")


def _routeproxy(place: Place, key: str, way: str, kind: str, base: str, more: str = "") -> Hop:
    folder, port = place.of(key), free_port()
    rules = folder / "rules" / "rules.toml"  # its folder is watched: nobody keeps a log there
    rules.parent.mkdir(exist_ok=True)
    rules.write_text(RULES.format(kind=kind, base=base, back_end=place.back_end) + more)
    program = [sys.executable, "-m", "routeproxy"]
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "LOG_LEVEL": "INFO",
        "BENCH_KEY": KEY,
        "BENCH_OTHER_KEY": f"{KEY}-of-another-team",
        "BENCH_BACK_END_KEY": "none-but-long-enough",
    }
    checked = subprocess.run(
        [*program, "check", str(rules)], env=env, cwd=folder, capture_output=True, text=True
    )
    if checked.returncode:
        lines = (checked.stderr + checked.stdout).strip().splitlines()
        said = next((line for line in lines if "error" in line.lower()), lines[-1])
        raise NotHere(f"`routeproxy check` refuses its rules: {said.replace(f'{folder}/', '')}")
    command = [*program, "serve", "--rules", str(rules), "--port", str(port)]
    return Hop(key, f"routeproxy {routeproxy.__version__} {way}", command, port, env, headers=KEYS)


KEYS = {"x-api-key": KEY}


@dataclass(frozen=True)
class BareCall:
    """`litellm.acompletion` in a loop: what the LiteLLM engine of routeproxy is compared with."""

    key: str
    title: str
    command: list[str]
    env: dict[str, str]


def bare_call(place: Place) -> BareCall:
    command = [sys.executable, "-m", "hop.bare_call", f"http://127.0.0.1:{place.back_end}/v1"]
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(BENCHMARKS),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    return BareCall("acompletion", f"litellm.acompletion {version('litellm')}", command, env)


def request_of(hop: Hop, size: str, *, stream: bool) -> bytes:
    """All bytes of a request, its head included."""
    body = bodies.as_messages(size, stream=stream)
    content = bodies.encoded(bodies.as_chat(body) if hop.wire == "chat" else body)
    return http("POST", hop.path, {**bodies.headers(), **hop.headers}, content)


def machine() -> str:
    """The processor, its cores, the system and Python: what figures are worth nothing without."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    cores = f"{os.cpu_count()} cores"
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{model or platform.machine()}, {cores}, Linux {platform.release()}, {python}"


def _first(pattern: str, command: list[str]) -> str:
    said = subprocess.run(command, capture_output=True, text=True)
    found = re.search(pattern, said.stdout + said.stderr)
    return found[1] if found else ""
