"""Claude Code, pointed at a server: at one that runs, or at one that is started for the session and ends with
it.

This process becomes Claude Code, so that the terminal, signals and the exit code are its own. The server that
was started watches for the end of its parent, which is then Claude Code.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any, NoReturn
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, Request, build_opener

import msgspec
from msgspec import Struct

from routeproxy.claude_code import (
    NO_KEY,
    client_variables,
    in_shell,
    other_route_variables,
    overriding_settings,
    passes_logins_on,
)
from routeproxy.listening import Address, listen, url_of
from routeproxy.policy.compile.connections import is_loopback
from routeproxy.policy.secrets import USER_IN_ADDRESS
from routeproxy.policy.server import ServerSettings
from routeproxy.sources import Sources

ANSWER_SECONDS = 5
"""How long a server has for a question."""
START_SECONDS = 60
"""How long a server has from its start until it is ready; rules by the thousand are proved meanwhile."""
READY = re.compile(r"routeproxy \S+: (http://[^\s\"]+)")
"""What a server says once it listens, in either form of the log; what is odd about a `.env` comes before."""

DEFAULT_URL = url_of(ServerSettings().host, ServerSettings().port)

Say = Callable[[str], None]
"""Writes one line for whoever started us."""


class NotStarted(Exception):
    """Why Claude Code was not started, in words that say what to do."""


class Server(Struct, frozen=True):
    """A routeproxy that answers."""

    url: str
    rules: str
    version: str
    problem: str | None = None
    """Why what is on its disk is not in force."""
    keeps_login: bool = False
    """Whether the client's own credentials go on to a provider."""


class Wishes(Struct, frozen=True, kw_only=True):
    """What the command line says besides Claude Code's own arguments."""

    sources: Sources
    rules_named: bool = False
    """Whether the rules file was named: another server's rules are then no substitute."""
    url: str | None = None
    key: str | None = None
    """Where the key stands, as `env:NAME` or `file:PATH`."""
    keeps_login: bool = False


def start_claude_code(wishes: Wishes, arguments: Sequence[str], say: Say) -> NoReturn:
    """Becomes Claude Code. Raises `NotStarted`, `RulesRefused`, `OSError` or `ValueError` while it can't; no
    server is then left behind."""
    server = _running_server(wishes, say)
    program = shutil.which("claude")
    if program is None:
        raise NotStarted(_not_installed(server))
    process: subprocess.Popen[bytes] | None = None
    if server is None:
        server, process = _start_server(wishes, say)
    try:
        environ, settings = _prepared(wishes, server, arguments, say)
        _become(program, [*settings, *arguments], environ)
    finally:  # not reached once this process is Claude Code
        if process is not None:
            _end(process)


def _become(program: str, arguments: Sequence[str], environ: Mapping[str, str]) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and what it becomes would, too
        signal.signal(number, signal.SIG_DFL)
    os.execve(program, ["claude", *arguments], dict(environ))


def _not_installed(server: Server | None) -> str:
    url = server.url if server is not None else DEFAULT_URL
    start = "" if server is not None else ", once `routeproxy serve` runs"
    return (
        "Claude Code is not installed: there is no `claude` in PATH. Install it with\n"
        "    npm install -g @anthropic-ai/claude-code\n"
        f"Any other Anthropic client takes these variables{start}:\n"
        f"    {in_shell(client_variables(url, NO_KEY))}"
    )


# --- a server that runs


def _running_server(wishes: Wishes, say: Say) -> Server | None:
    """The server to use, or None if one has to be started. Raises `NotStarted` if the one that was named does
    not answer."""
    variables = wishes.sources.variables()
    named = (("--url", wishes.url), ("ROUTEPROXY_URL", variables.get("ROUTEPROXY_URL")))
    for origin, url in named:
        if url is not None and (url or origin == "--url"):
            return _named_server(_checked_url(origin, url), origin, say)
    stated = wishes.sources.address()
    places = [url_of(stated.host, stated.port)]
    if "dotenv" in {stated.host_from.kind, stated.port_from.kind}:
        places.append(DEFAULT_URL)  # a folder's `.env` may mean another program by HOST and PORT
    version = wishes.sources.load().version if wishes.rules_named else None
    for url in dict.fromkeys(places):
        found = ask_server(url)
        if isinstance(found, str):
            continue
        if version is not None and found.version != version:
            say(f"the server at {url} has other rules ({found.rules}, version {found.version})")
            continue
        _say_which(found, say)
        return found
    return None


def _named_server(url: str, origin: str, say: Say) -> Server:
    found = ask_server(url, of_a_session=True)
    if isinstance(found, str):
        raise NotStarted(f"{origin} is {url}, where {found}. Start one there, or leave {origin} out")
    _say_which(found, say)
    return found


def _say_which(server: Server, say: Say) -> None:
    say(f"using the server at {server.url} ({server.rules}, version {server.version})")
    if server.problem is not None:
        say(f"warning: its rules are older than the file: {server.problem.partition(chr(10))[0]}")


def _checked_url(origin: str, text: str) -> str:
    try:
        parts = urlsplit(text)
        valid = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
        alone = not (parts.query or parts.fragment or parts.username or parts.password)
    except ValueError:
        valid = alone = False
    if not valid or not alone or re.search(r"\s", text):
        shown = USER_IN_ADDRESS.sub(r"\1***", text.partition("?")[0])  # what stands there may be a password
        what = "is empty" if not text.strip() else f"is `{shown}`, which is no address of a server"
        raise ValueError(f"{origin} {what}: expected one such as http://127.0.0.1:8082")
    return re.sub(r"/v1(/messages)?$", "", text.rstrip("/"))


def ask_server(url: str, *, of_a_session: bool = False) -> Server | str:
    """The routeproxy that answers at `url`, or what is there instead, in words. A server that ends with
    somebody else's session counts only if `of_a_session`."""
    try:
        state = _get(f"{_without_target(url)}/readyz")
        greeting = _get(f"{url}/")
    except HTTPError as error:
        error.close()
        if error.code == 503:
            return "a server is stopping"
        return "something answers that is no routeproxy"
    except (URLError, HTTPException, OSError) as error:
        return f"nothing answers ({_reason(error)})"
    except ValueError:
        return "something answers that is no routeproxy"
    # A server whose clients have keys names its rules to nobody else, but always their version.
    rules, version = greeting.get("rules") or "rules of its own", state.get("rules_version")
    if not str(greeting.get("message")).startswith("routeproxy") or not version:
        return "something answers that is no routeproxy"
    if state.get("of_a_session") and not of_a_session:
        return "a server of another session answers"
    problem = greeting.get("rules_problem")
    return Server(url, str(rules), str(version), problem=str(problem) if problem else None)


def _without_target(url: str) -> str:
    """A server's URL without the target, as `/openai:gpt-4.1`, that may end it."""
    parts = urlsplit(url)
    return parts._replace(path=re.sub(r"/[^/:]+:.*$", "", parts.path)).geturl()


def _reason(error: Exception) -> str:
    cause = error.reason if isinstance(error, URLError) else error
    if isinstance(cause, TimeoutError):
        return f"not within {ANSWER_SECONDS} s"
    if isinstance(cause, OSError) and cause.errno is not None and cause.errno > 0:
        return os.strerror(cause.errno).lower()
    return (
        "its host is not known"
        if type(cause).__name__ == "gaierror"
        else "no HTTP, or no trusted certificate"
    )


def _get(url: str, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The JSON object that is there. Raises `HTTPError`, `OSError`, `HTTPException` or `ValueError`."""
    request = Request(url, headers={"accept": "application/json", **(headers or {})})
    opener = build_opener(*([ProxyHandler({})] if is_here(url) else []))
    with opener.open(request, timeout=ANSWER_SECONDS) as response:
        document = json.loads(response.read(2**20))
    if not isinstance(document, dict):
        raise ValueError("no JSON object")
    return document


def is_here(url: str) -> bool:
    """Whether the host of a URL is this machine."""
    return is_loopback(urlsplit(url).hostname or "")


# --- a server of our own


def _start_server(wishes: Wishes, say: Say) -> tuple[Server, "subprocess.Popen[bytes]"]:
    """A server for this session, once it is ready. It listens on this machine only. Raises `NotStarted` with
    what it said if it ends instead."""
    sources = wishes.sources
    if sources.piped is not None:
        raise NotStarted(
            f"{sources.rules} is no file, and would have to be read twice: expected a rules file"
        )
    port = _free_or_zero(sources.address().port, say)
    number, name = tempfile.mkstemp(prefix="routeproxy-claude-", suffix=".log")
    log = Path(name)
    words = ["serve", "--host", "127.0.0.1", "--port", str(port), "--session-of", str(os.getpid())]
    words += ["--allow-literal-keys"] if sources.options.allow_literal_keys else []
    words += ["--rules", str(sources.rules)] if sources.rules is not None else []
    with os.fdopen(number, "wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "routeproxy", *words],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is Claude Code's
        )
    try:
        policy = sources.load()  # while it starts: what is wrong with the rules is said here, not in a file
        server = _wait_until_ready(process, log)
        say(f"serving {policy.source}, version {policy.version}, at {server.url} for this session, log {log}")
        return msgspec.structs.replace(server, keeps_login=passes_logins_on(policy)), process
    except BaseException:
        _end(process)
        log.unlink(missing_ok=True)
        raise


def _free_or_zero(port: int, say: Say) -> int:
    """The port, or 0 if something else has it."""
    try:
        listen(Address("127.0.0.1", port)).close()
    except OSError:
        say(f"port {port} is something else's: another is taken")
        return 0
    return port


def _wait_until_ready(process: "subprocess.Popen[bytes]", log: Path) -> Server:
    limit = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < limit:
        if address := READY.search(log.read_text(encoding="utf-8", errors="replace")):
            server = ask_server(address[1], of_a_session=True)
            if isinstance(server, Server):
                return server
        time.sleep(0.02)
    said = log.read_text(encoding="utf-8", errors="replace").strip()
    if process.poll() is None:
        raise NotStarted(f"the server was not ready within {START_SECONDS} s\n{said}".rstrip())
    raise NotStarted(said.removeprefix("routeproxy: ") or "the server ended without a word")


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


# --- what Claude Code is given


def _prepared(
    wishes: Wishes, server: Server, arguments: Sequence[str], say: Say
) -> tuple[dict[str, str], list[str]]:
    """Claude Code's environment, and the arguments that come before its own. Raises `NotStarted` if the
    server takes none of the keys that there are, `ValueError` if the key that was named can't be read."""
    environ = dict(os.environ)
    for name in other_route_variables(environ):
        say(f"warning: {name} is kept from Claude Code, which would go past the server")
        del environ[name]
    own = _credentials(wishes, server, say)
    keeps_login = wishes.keeps_login or server.keeps_login
    if environ.get("ANTHROPIC_API_KEY") and "ANTHROPIC_API_KEY" not in own and not keeps_login:
        say("warning: ANTHROPIC_API_KEY is kept from Claude Code: keys of providers are the server's")
        del environ["ANTHROPIC_API_KEY"]
    for name in ("ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_CUSTOM_HEADERS"):
        if name == "ANTHROPIC_AUTH_TOKEN" or name in own:
            environ.pop(name, None)
    environ |= own
    if is_here(server.url):
        _past_proxies(environ, urlsplit(server.url).hostname or "")
    return environ, list(_settings(own, arguments, say))


def _past_proxies(environ: dict[str, str], host: str) -> None:
    """Claude Code would ask a server on this machine through the proxy, too."""
    names = [f"{kind}_proxy" for kind in ("http", "https", "all")]
    if any(environ.get(name) or environ.get(name.upper()) for name in names):
        exempt = environ.get("NO_PROXY") or environ.get("no_proxy") or ""
        environ["NO_PROXY"] = environ["no_proxy"] = ",".join(filter(None, (exempt, host)))


def _credentials(wishes: Wishes, server: Server, say: Say) -> dict[str, str]:
    """The variables with the address and the first key that the server takes."""
    keeps_login = wishes.keeps_login or server.keeps_login
    refusal = ""
    for key in _keys(wishes, server):
        variables = client_variables(server.url, key, keeps_login=keeps_login)
        refusal = _refusal(server.url, key)
        if not refusal:
            return variables
        if wishes.key is not None:
            break
    own = os.environ.get("ANTHROPIC_API_KEY")
    if own and wishes.key is None and not keeps_login and not _refusal(server.url, own):
        return {"ANTHROPIC_BASE_URL": server.url, "ANTHROPIC_API_KEY": own}
    shown = f"that of --key {wishes.key}" if wishes.key else "a key of a team, or the server's token"
    raise NotStarted(
        f"the server at {server.url} needs a key ({refusal}): expected {shown} to open it. Set "
        "ANTHROPIC_AUTH_TOKEN to the key, or name the variable that has it, as --key env:NAME"
    )


def _keys(wishes: Wishes, server: Server) -> Iterator[str]:
    """The keys to try, the best first. An empty one stands for none."""
    if wishes.key is not None:
        yield _read_key(wishes.key, wishes.sources.variables())
        return
    keeps_login = wishes.keeps_login or server.keeps_login
    if (token := os.environ.get("ANTHROPIC_AUTH_TOKEN")) and not keeps_login:
        yield token
        return
    yield "" if keeps_login else NO_KEY
    # That of the `.env` is the server's: what its clients have to show.
    if is_here(server.url) and (token := wishes.sources.token()):
        yield token


def _read_key(reference: str, variables: Mapping[str, str]) -> str:
    kind, colon, name = reference.partition(":")
    if kind == "env" and colon and name:
        key = variables.get(name, "")
        missing = f"the variable {name} is not set"
    elif kind == "file" and colon and name:
        key = Path(name).expanduser().read_text(encoding="utf-8").strip()
        missing = f"the file {name} is empty"
    else:
        # Not repeated: it may be the key itself, and everybody on the machine sees a command's words.
        raise ValueError("--key names where the key stands: expected env:NAME or file:PATH")
    if not key:
        raise ValueError(f"--key {reference}: {missing}")
    return key


def _refusal(url: str, key: str) -> str:
    """Why the server does not take a key, in its own words; empty if it does."""
    try:
        _get(f"{url}/v1/models", {"authorization": f"Bearer {key}"} if key else {})
    except HTTPError as error:
        if error.code == 401:
            with error:
                return _message(error.read(2**16))
        error.close()
    except (OSError, HTTPException, ValueError):
        pass  # what is wrong shows with the first request
    return ""


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return "401"


def _settings(own: Mapping[str, str], arguments: Sequence[str], say: Say) -> Iterator[str]:
    """The `--settings` that Claude Code needs where its settings would win over its environment."""
    found = overriding_settings(own, os.environ, Path.cwd())
    managed = [setting for setting in found if setting.managed]
    for setting in managed:
        say(f"warning: {setting.file} sets {setting.name}, which wins over this server")
    if not (others := [setting for setting in found if not setting.managed]):
        return
    if any(re.match(r"--settings(=|$)", word) for word in arguments):
        for setting in others:
            say(f"warning: {setting.file} sets {setting.name}, which wins, since a --settings was given")
        return
    for setting in others:
        say(f"warning: {setting.file} sets {setting.name}, which does not count in this session")
    yield "--settings"
    yield json.dumps({"env": {setting.name: own.get(setting.name, "") for setting in others}})
