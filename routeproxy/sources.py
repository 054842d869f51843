"""Where the policy and the address come from: the command line, a rules file, the environment, a `.env`."""

from collections.abc import Mapping
from pathlib import Path

import tomli
from msgspec import Struct

from routeproxy.policy.compile import compile_rules
from routeproxy.policy.decide import Policy
from routeproxy.policy.environment import environment_policy, read_environment

DEFAULT_RULES = Path("rules.toml")


class Options(Struct, frozen=True, kw_only=True):
    """What the command line says; what is None is left to the rules file, then to the environment, then to a
    default."""

    rules: Path | None = None
    host: str | None = None
    port: int | None = None
    workers: int = 1
    log_level: str | None = None
    process_newlines: bool = False
    preserve_openai_newlines: bool = False
    allow_literal_keys: bool = False


class Sources(Struct, frozen=True):
    """Where the policy comes from: a rules file, or the environment alone; a `.env` beside either."""

    options: Options
    environ: Mapping[str, str]

    @property
    def rules(self) -> Path | None:
        return self.options.rules

    @property
    def files(self) -> list[Path]:
        """All that is read, there or not: what appears later counts too."""
        beside = [self.rules, self.rules.parent / ".env"] if self.rules else []
        return [*beside, Path(".env")]

    def variables(self) -> dict[str, str]:
        """The `.env` file's variables under those of the environment, which win."""
        for file in self.files:
            if file.name == ".env" and file.exists():
                return read_environment(self.environ, file)
        return dict(self.environ)

    def token(self) -> str | None:
        """What clients must show."""
        return self.variables().get("ANTHROPIC_AUTH_TOKEN") or None

    def load(self) -> Policy:
        variables = self.variables()
        if self.rules is None:
            return environment_policy(
                variables,
                process_newlines=self.options.process_newlines,
                preserve_openai_newlines=self.options.preserve_openai_newlines,
            )
        text = self.rules.read_text(encoding="utf-8")
        return compile_rules(
            text, path=self.rules, environ=variables, allow_literal_keys=self.options.allow_literal_keys
        )

    def address(self, policy: Policy) -> tuple[str, int]:
        """Flags, then what the rules file states, then `HOST` and `PORT`, then the default. Raises
        `ValueError`."""
        variables, stated = self.variables(), {}
        if self.rules is not None:
            # The policy has every default filled in, so only the text tells what was said.
            text = self.rules.read_text(encoding="utf-8").removeprefix("\ufeff")
            stated = tomli.loads(text).get("server", {})
        host = self.options.host or (policy.server.host if "host" in stated else variables.get("HOST"))
        if self.options.port is not None:
            port = self.options.port
        elif "port" in stated or not variables.get("PORT"):
            port = policy.server.port
        elif (text := variables["PORT"]).isdecimal() and int(text) < 2**16:
            port = int(text)
        else:
            raise ValueError(f"PORT is `{text}`; expected a number from 0 to 65535")
        return host or policy.server.host, port


def find_rules(named: Path | None) -> Path | None:
    """The rules file that is meant: the one that was named, or the one that is there. Settled once: it does
    not change by itself."""
    return named or (DEFAULT_RULES if DEFAULT_RULES.exists() else None)
