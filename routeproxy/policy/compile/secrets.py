"""References to keys and variables in a rules file: what they lead to, and what must not stand there."""

from collections.abc import Mapping

from routeproxy.policy.file.report import Report
from routeproxy.policy.problems import Code, KeyPath
from routeproxy.policy.secrets import Secret, secret_of

PROVIDER_KEYS = '`"env:NAME"`, `"file:PATH"` or `"none"`'


class SecretResolver:
    """Follows the references of one rules file. `environ` answers `env:NAME`; a `file:` is not opened."""

    def __init__(self, report: Report, environ: Mapping[str, str], allow_literal_keys: bool) -> None:
        self.report = report
        self.environ = environ
        self.allow_literal_keys = allow_literal_keys

    def resolve(self, reference: str, path: KeyPath, *, expected: str = PROVIDER_KEYS) -> Secret:
        """Reports a key that is written out, a missing name, and a variable that is not set."""
        secret = secret_of(reference, self.environ)
        if secret.kind == "literal" and not self.allow_literal_keys:
            self.report.error(
                Code.LITERAL_SECRET,
                path,
                "a key does not belong in this file",
                expected=expected,
                hint="--allow-literal-keys accepts it all the same",
            )
        elif secret.kind in {"env", "file"} and not secret.name:
            self.report.error(Code.EMPTY, path, f"a name is missing after `{secret.kind}:`")
        elif secret.unset:
            self.report.warn(Code.UNSET_VARIABLE, path, f"the variable `{secret.name}` is not set")
        return secret

    def resolve_variable(self, reference: str, path: KeyPath) -> str:
        """The value of `env:NAME`; empty, with an error reported, if it is not set."""
        name = reference.removeprefix("env:")
        value = self.environ.get(name, "")
        if not value:
            self.report.error(Code.UNDEFINED, path, f"the variable `{name}` is not set")
        return value
