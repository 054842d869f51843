"""Where the policy and the address come from: the command line, a rules file, the environment, a `.env`."""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import tomli
from msgspec import Struct

from routeproxy import tokens
from routeproxy.files import is_pipe, is_there, read_file
from routeproxy.listening import DEFAULT, Address, Origin, check_address
from routeproxy.migrate.environment import environment_policy, environment_rules, read_environment
from routeproxy.policy.compile.compiler import Lint, compile_rules
from routeproxy.policy.decide import Policy
from routeproxy.policy.file.includes import CopyingFolder, Disk, KeptFolder
from routeproxy.policy.live.versions import Bundle, Loaded
from routeproxy.policy.problems import RulesRefused
from routeproxy.policy.server import ServerSettings
from routeproxy.upstream.ambient import sign_in_problem

DEFAULT_RULES = Path("rules.toml")


class Options(Struct, frozen=True, kw_only=True):
    """The options of `serve`. None leaves a value to the rules file, then to the environment, then to a
    default."""

    rules: Path | None = None
    host: str | None = None
    port: int | None = None
    workers: int = 1
    log_level: str | None = None
    log_format: str | None = None
    process_newlines: bool = False
    preserve_openai_newlines: bool = False
    allow_literal_keys: bool = False
    insecure: bool = False
    skip_tests: bool = False
    last_good: Path | None = None
    session_of: int | None = None
    """The process with which the server ends: a client for which it was started."""


class Sources(Struct, frozen=True):
    """Where the policy comes from: a rules file, or the environment alone; a `.env` beside either."""

    options: Options
    environ: Mapping[str, str]
    piped: str | None = None
    """The rules, where they came from a pipe: nobody could read them again."""

    @classmethod
    def opened(cls, options: Options, environ: Mapping[str, str]) -> "Sources":
        """Takes what a pipe holds. Raises `OSError` or `ValueError`."""
        piped = options.rules is not None and is_pipe(options.rules)
        text = options.rules.read_text(encoding="utf-8") if piped and options.rules is not None else None
        return cls(options, environ, text)

    @property
    def rules(self) -> Path | None:
        return self.options.rules

    @property
    def files(self) -> list[Path]:
        """The files that every load reads, whether or not they exist: one that appears later counts too."""
        beside = [self.rules, self.rules.parent / ".env"] if self.rules and self.piped is None else []
        return [*beside, Path(".env")]

    def _text(self, rules: Path) -> str:
        return read_file(rules).decode() if self.piped is None else self.piped

    def variables(self) -> dict[str, str]:
        """The variables of the first `.env` that exists, under those of the environment, which win."""
        return read_environment(self.environ, self._dotenv())

    def _dotenv(self) -> Path | None:
        return next((file for file in self.files if file.name == ".env" and is_there(file)), None)

    def token(self) -> str | None:
        """`ANTHROPIC_AUTH_TOKEN`, the key that clients must show; None if it is unset or empty."""
        return self.variables().get("ANTHROPIC_AUTH_TOKEN") or None

    def load(self, *, also: Lint | None = None) -> Policy:
        """The policy, compiled, proved and tested. `also` looks for more problems. Raises as `read` does."""
        return self.read(also=also).policy

    def unproved(self) -> Policy:
        """The policy whether or not it keeps its own promises, for commands that show why it does not. Raises
        as `read` does."""
        return self.read(promises=False).policy

    def read(self, *, promises: bool = True, also: Lint | None = None, gives_way: bool = False) -> Loaded:
        """The policy, the bundle that it was compiled from, and the other files that were looked at.

        `promises`: whether invariants are proved and tests run. `gives_way`: other threads, which answer
        requests, have to go on meanwhile. Raises `RulesRefused`, whose `files` are the
        files that were looked at, `OSError` or `ValueError`.
        """
        variables = self.variables()
        if self.rules is None:
            policy = environment_policy(
                variables,
                process_newlines=self.options.process_newlines,
                preserve_openai_newlines=self.options.preserve_openai_newlines,
                sign_in_problem=partial(sign_in_problem, environ=variables),
            )
            text = environment_rules(variables)
            return Loaded(policy, Bundle(version=policy.version, source=policy.source, text=text))
        disk = Disk(self.rules.parent if self.piped is None else Path())
        copies = CopyingFolder(disk)
        text = self._text(self.rules)
        try:
            policy = compile_rules(
                text,
                path=self.rules,
                environ=variables,
                allow_literal_keys=self.options.allow_literal_keys,
                folder=copies,
                count=tokens.count,
                skip_proof=not promises,
                skip_tests=not promises or self.options.skip_tests,
                also=also,
                sign_in_problem=partial(sign_in_problem, environ=variables),
                gives_way=gives_way,
            )
        except RulesRefused as refused:
            refused.files = tuple(disk.looked_at)
            raise
        bundle = Bundle(
            version=policy.version,
            source=policy.source,
            text=text,
            found=copies.found,
            contents=copies.contents,
        )
        return Loaded(policy, bundle, tuple(disk.looked_at))

    def restore(self, bundle: Bundle) -> Policy:
        """The policy of an earlier version, proved anew; its tests passed when it was first loaded. Raises
        `RulesRefused`."""
        return compile_rules(
            bundle.text,
            path=Path(bundle.source),
            environ=self.variables(),
            allow_literal_keys=self.options.allow_literal_keys,
            folder=KeptFolder(bundle.found, bundle.contents),
            skip_tests=True,
            gives_way=True,
        )

    def recall(self, bundle: Bundle) -> Policy:
        """The policy of a version that was in force once, on another machine perhaps: its secrets need not be
        here, and it is not proved. Raises `RulesRefused`."""
        texts = (bundle.text, *(content.decode("utf-8", "replace") for content in bundle.contents.values()))
        named = {name for text in texts for name in _VARIABLE.findall(text)}
        return compile_rules(
            bundle.text,
            path=Path(bundle.source),
            environ={**{name: f"not-known-here-{name}" for name in named}, **self.variables()},
            allow_literal_keys=True,
            folder=KeptFolder(bundle.found, bundle.contents),
            skip_proof=True,
            skip_tests=True,
        )

    def address(self, policy: Policy | None = None) -> Address:
        """Host and port: of the flags, then as the rules file states them, then `HOST` and `PORT`, then the
        default. Raises `ValueError` for what is none.

        Without a policy they are those of the file as it is, whether or not it could be served.
        """
        stated = self._stated()
        settings = policy.server if policy is not None else _settings(stated)
        host, host_from = self._host(stated, settings)
        port, port_from = self._port(stated, settings)
        address = Address(host, port, host_from, port_from)
        check_address(address)
        return address

    def _host(self, stated: Mapping[str, Any], settings: ServerSettings) -> tuple[str, Origin]:
        if self.options.host is not None:
            return self.options.host, Origin("--host")
        if "host" in stated:
            return settings.host, Origin(f"[server] host of {self.rules}", "key")
        if host := self.variables().get("HOST"):
            return host, self._origin_of("HOST")
        return settings.host, DEFAULT

    def _port(self, stated: Mapping[str, Any], settings: ServerSettings) -> tuple[int, Origin]:
        if self.options.port is not None:
            return self.options.port, Origin("--port")
        if "port" in stated:
            return settings.port, Origin(f"[server] port of {self.rules}", "key")
        if not (digits := self.variables().get("PORT")):
            return settings.port, DEFAULT
        origin = self._origin_of("PORT")
        if not digits.isdecimal() or int(digits) >= 2**16:
            raise ValueError(f"{origin.words} is `{digits}`; expected a number from 0 to 65535")
        return int(digits), origin

    def _stated(self) -> Mapping[str, Any]:
        """What `[server]` states: the policy has every default filled in, so only the text tells."""
        if self.rules is None:
            return {}
        return _server_table(self._text(self.rules).removeprefix("\ufeff"))

    def _origin_of(self, variable: str) -> Origin:
        file = None if variable in self.environ else self._dotenv()
        return Origin(variable, "variable") if file is None else Origin(f"{variable} in {file}", "dotenv")


_VARIABLE = re.compile(r"\benv:(\w+)")


def _server_table(text: str) -> Mapping[str, Any]:
    """`[server]` as it is written. The file may be broken by now, if an older version was taken in its
    place."""
    try:
        server = tomli.loads(text).get("server", {})
    except (tomli.TOMLDecodeError, RecursionError):
        return {}
    return server if isinstance(server, dict) else {}


def _settings(server: Mapping[str, Any]) -> ServerSettings:
    """Where a `[server]` table listens, as far as it says so in the right way."""
    host, port = server.get("host"), server.get("port")
    usual = ServerSettings()
    return ServerSettings(
        host=host if isinstance(host, str) else usual.host,
        port=port if type(port) is int and 0 <= port < 2**16 else usual.port,
    )


def find_rules(named: Path | None) -> Path | None:
    """The rules file that was named, else `rules.toml` if it exists, else None, for the environment alone. A
    server asks once: a `rules.toml` that appears later does not replace the environment."""
    return named or (DEFAULT_RULES if DEFAULT_RULES.exists() else None)
