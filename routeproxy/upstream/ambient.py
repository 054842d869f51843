"""Credentials that nobody writes into the rules, since a cloud's own library finds them on the machine:
whether there are any, as far as that can be told without waiting for somebody."""

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from routeproxy.policy.providers import Provider


class CredentialsFile(Struct, frozen=True):
    """A file that a cloud's own tools leave."""

    below_home: str
    moved_by: str
    """The variable that names another file, or another folder for this one."""
    by_folder: bool = False

    def place(self, environ: Mapping[str, str]) -> Path:
        if named := environ.get(self.moved_by):
            return Path(named, Path(self.below_home).name) if self.by_folder else Path(named)
        return Path(environ.get("HOME") or Path.home()) / self.below_home


class Ambient(Struct, frozen=True):
    """Where a cloud's library looks for credentials before it asks the machine that it runs on."""

    types: frozenset[str]
    variables: tuple[str, ...]
    files: tuple[CredentialsFile, ...]
    stated_by: tuple[str, ...]
    """The keys of a provider that make all of this unneeded."""
    hint: str


GOOGLE = Ambient(
    frozenset({"vertex_ai", "vertex_ai_beta"}),
    variables=("GOOGLE_APPLICATION_CREDENTIALS",),
    files=(
        CredentialsFile(
            ".config/gcloud/application_default_credentials.json", "CLOUDSDK_CONFIG", by_folder=True
        ),
    ),
    stated_by=("credentials", "vertex_credentials"),
    hint="write `credentials`, or run `gcloud auth application-default login`",
)
AWS = Ambient(
    frozenset({"bedrock", "bedrock_mantle", "sagemaker", "sagemaker_chat", "sagemaker_nova"}),
    variables=(
        "AWS_ACCESS_KEY_ID",
        "AWS_PROFILE",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    ),
    files=(
        CredentialsFile(".aws/credentials", "AWS_SHARED_CREDENTIALS_FILE"),
        CredentialsFile(".aws/config", "AWS_CONFIG_FILE"),
    ),
    stated_by=(
        "aws_profile_name",
        "aws_access_key_id",
        "aws_role_name",
        "aws_session_token",
        "aws_web_identity_token",
    ),
    hint="set AWS_PROFILE or AWS_ACCESS_KEY_ID, or write `aws_profile_name`",
)
AMBIENT = (GOOGLE, AWS)
"""Google: https://cloud.google.com/docs/authentication/application-default-credentials. AWS:
https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html."""


def is_found(kind: Ambient, environ: Mapping[str, str]) -> bool:
    """Whether a variable or a file says where credentials are; not whether they are any good."""
    return any(environ.get(name) for name in kind.variables) or any(
        file.place(environ).exists() for file in kind.files
    )


def without_credentials(provider: Provider, environ: Mapping[str, str]) -> str | None:
    """What to say at start of a provider that signs in with what the machine has; `None` where something was
    found, or nothing of the kind is needed."""
    kind = next((kind for kind in AMBIENT if provider.type in kind.types), None)
    if kind is None or any(secret.kind != "none" for secret in provider.keys):
        return None
    if any(provider.options.get(name) or provider.litellm_params.get(name) for name in kind.stated_by):
        return None
    if is_found(kind, environ):
        return None
    looked = ", ".join([*kind.variables, *(str(file.place(environ)) for file in kind.files)])
    return (
        f"{provider.name}: no credentials found (looked in {looked}), so the machine's own account will be "
        f"asked at the first request; {kind.hint}"
    )
