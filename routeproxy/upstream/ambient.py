"""Credentials that are no key in the rules: a cloud's own library finds them on the machine, or they are
parameters. Says whether there are any that can be used, as far as that can be told without asking anybody."""

import configparser
import json
import os
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from msgspec import Struct

from routeproxy.files import read_file
from routeproxy.policy.litellm_params import stated_sign_in
from routeproxy.policy.litellm_types import AWS as AWS_TYPES
from routeproxy.policy.providers import Provider

Environ = Mapping[str, str]


class SignIn(Struct, frozen=True):
    """How providers of some types sign in where no key is shown."""

    types: frozenset[str]
    problem: Callable[[Provider, Environ], str | None]
    """Why a provider's requests will be refused, or who will be asked instead; `None` where something usable
    was found."""
    hint: str
    variables: tuple[str, ...] = ()
    """What the cloud's own library reads."""
    shows_keys: bool = True
    """Whether a key would do in place of all that."""


def sign_in_problem(provider: Provider, environ: Environ) -> str | None:
    """What to say of a provider that has no credentials; `None` where there are some, or none are needed."""
    for sign_in in SIGN_INS:
        if provider.type in sign_in.types:
            has_key = sign_in.shows_keys and any(secret.kind != "none" for secret in provider.keys)
            problem = None if has_key else sign_in.problem(provider, environ)
            return f"{provider.name}: {problem}; {sign_in.hint}" if problem else None
    return None


def export_credentials(variables: Environ) -> None:
    """Lets the clouds' own libraries see what a `.env` says of their credentials: they look at the process
    alone."""
    for sign_in in SIGN_INS:
        for name in sign_in.variables:
            if value := variables.get(name):
                os.environ.setdefault(name, value)


def _home(environ: Environ) -> Path:
    return Path(environ.get("HOME") or Path.home())


def _shown(file: Path, environ: Environ) -> str:
    """As people write it."""
    home = _home(environ)
    return f"~/{file.relative_to(home)}" if file.is_relative_to(home) else str(file)


def _nothing_found(looked: Sequence[str], but: Sequence[str] = ()) -> str:
    found = f"; {'; '.join(but)}" if but else ""
    return (
        f"no credentials found (looked in {', '.join(looked)}{found}), so the machine's own account will be "
        "asked at the first request"
    )


# --- Google: https://cloud.google.com/docs/authentication/application-default-credentials

_FIELDS_OF_CREDENTIALS: Mapping[str, tuple[str, ...]] = {
    "service_account": ("client_email", "private_key"),
    "authorized_user": ("client_id", "client_secret", "refresh_token"),
    "external_account": ("audience", "credential_source"),
    "external_account_authorized_user": ("refresh_token",),
    "impersonated_service_account": ("service_account_impersonation_url", "source_credentials"),
}
"""What a file must have in it, by its `type`."""


def _google_file_problem(file: str | Path) -> str | None:
    """Why Google's library can't use a file of credentials, to stand behind its name."""
    try:
        info: Any = json.loads(read_file(file))
    except (FileNotFoundError, NotADirectoryError):
        return "is not there"
    except OSError as error:
        return f"can't be read ({error.strerror})"
    except ValueError:
        return "is no JSON"
    needed = _FIELDS_OF_CREDENTIALS.get(str(info.get("type"))) if isinstance(info, dict) else None
    if needed is None:
        return "holds no credentials of a known type"
    missing = [field for field in needed if not info.get(field)]
    return f"lacks `{'` and `'.join(missing)}`" if missing else None


def _google_default_file(environ: Environ) -> Path:
    folder = environ.get("CLOUDSDK_CONFIG") or _home(environ) / ".config" / "gcloud"
    return Path(folder) / "application_default_credentials.json"


def names_google_file(environ: Environ) -> bool:
    """Whether something says where Google's credentials are; not whether they are any good."""
    named = environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    return bool(named) or _google_default_file(environ).exists()


def _google_problem(provider: Provider, environ: Environ) -> str | None:
    options = {**provider.options, **provider.litellm_params}
    if stated := options.get("credentials") or options.get("vertex_credentials"):
        problem = _google_file_problem(str(stated))
        return f"its `credentials` file {stated} {problem}: every request will fail" if problem else None
    if named := environ.get("GOOGLE_APPLICATION_CREDENTIALS"):
        problem = _google_file_problem(named)
        what = f"the file {named}, which GOOGLE_APPLICATION_CREDENTIALS names,"
        return f"{what} {problem}: every request will fail" if problem else None
    default = _google_default_file(environ)
    if (problem := _google_file_problem(default)) is None:
        return None
    shown = _shown(default, environ)
    but = [] if problem == "is not there" else [f"{shown} {problem}"]
    return _nothing_found(["GOOGLE_APPLICATION_CREDENTIALS", shown], but)


# --- AWS: https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html

_AWS_VARIABLES: tuple[tuple[str, ...], ...] = (
    ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    ("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"),
    ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",),
    ("AWS_CONTAINER_CREDENTIALS_FULL_URI",),
)
"""Each line is of use only when all of it is set."""
_AWS_SETTINGS: tuple[tuple[str, ...], ...] = (
    ("aws_access_key_id", "aws_secret_access_key"),
    ("role_arn", "source_profile"),
    ("role_arn", "credential_source"),
    ("role_arn", "web_identity_token_file"),
    ("credential_process",),
    ("sso_session",),
    ("sso_start_url",),
    ("login_session",),
)
"""The same of a profile's settings."""
_AWS_FILES = (("AWS_SHARED_CREDENTIALS_FILE", "credentials"), ("AWS_CONFIG_FILE", "config"))


def _aws_problem(provider: Provider, environ: Environ) -> str | None:
    if stated_sign_in(provider.type, provider.litellm_params):
        return None
    named = provider.options.get("aws_profile_name") or environ.get("AWS_PROFILE")
    files = [Path(environ.get(name) or _home(environ) / ".aws" / file) for name, file in _AWS_FILES]
    profile = str(named or "default")
    if any(_has_profile(file, profile) for file in files):
        return None
    if provider.options.get("aws_profile_name"):
        where = " or ".join(_shown(file, environ) for file in files)
        return f"no profile `{profile}` with credentials is in {where}: every request will fail"
    but = []
    for names in _AWS_VARIABLES:
        unset = [name for name in names if not environ.get(name)]
        if not unset:
            return None
        if len(unset) < len(names):
            but.append(f"{names[0] if names[0] not in unset else names[1]} is set without {unset[0]}")
    if named:
        but.append(f"AWS_PROFILE is `{profile}`, and no such profile has credentials")
    looked = [name for names in _AWS_VARIABLES for name in names]
    return _nothing_found([*looked, "AWS_PROFILE", *(_shown(file, environ) for file in files)], but)


def _has_profile(file: Path, profile: str) -> bool:
    """Whether a file of AWS's has something in this profile that can be used."""
    parser = configparser.RawConfigParser(strict=False, default_section="")
    try:
        parser.read_string(read_file(file).decode())
    except (OSError, ValueError, configparser.Error):
        return False
    for section in (profile, f"profile {profile}"):
        if parser.has_section(section):
            settings = dict(parser.items(section))
            if any(all(settings.get(name) for name in names) for names in _AWS_SETTINGS):
                return True
    return False


# --- those whose credentials are parameters


def _azure_ai_problem(provider: Provider, environ: Environ) -> str | None:
    stated = stated_sign_in(provider.type, provider.litellm_params)
    if stated is not None and stated != ("azure_ad_token",) and not _is_installed("azure.identity"):
        return (
            "signing in by `litellm_params` needs the Python package azure-identity, which is not installed"
        )
    return None


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # nor what it would be in
        return False


def _watsonx_problem(provider: Provider, environ: Environ) -> str | None:
    if stated_sign_in(provider.type, provider.litellm_params):
        return None
    return (
        "a key is exchanged for a token at IBM's sign-in, which is not its base_url: every request will fail"
    )


SIGN_INS = (
    SignIn(
        frozenset({"vertex_ai", "vertex_ai_beta"}),
        _google_problem,
        "write `credentials`, or run `gcloud auth application-default login`",
        variables=("GOOGLE_APPLICATION_CREDENTIALS", "CLOUDSDK_CONFIG"),
    ),
    SignIn(
        frozenset(AWS_TYPES),
        _aws_problem,
        "set AWS_PROFILE, or AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY, or write `aws_profile_name`; "
        'Bedrock takes `api_key = "env:AWS_BEARER_TOKEN_BEDROCK"`',
        variables=(
            *(name for names in _AWS_VARIABLES for name in names),
            "AWS_PROFILE",
            "AWS_SESSION_TOKEN",
            *(name for name, _ in _AWS_FILES),
        ),
    ),
    SignIn(frozenset({"azure_ai"}), _azure_ai_problem, "write `azure_ad_token`, or `api_key`"),
    SignIn(
        frozenset({"watsonx"}),
        _watsonx_problem,
        'write `api_key = "none"` and `litellm_params.token` or `litellm_params.zen_api_key`',
        shows_keys=False,
    ),
)
