"""Access tokens of Google Cloud, fetched by google-auth off the loop and renewed before they end. Whatever it
asks for them travels on our own client, as the provider's requests do."""

import asyncio
import importlib
import ipaddress
import json
import logging
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct
from msgspec.structs import replace

from routeproxy.files import FileStamp, read_file, stamp_of
from routeproxy.policy.providers import Provider
from routeproxy.upstream.ambient import names_google_file
from routeproxy.upstream.failures import UpstreamFailure
from routeproxy.upstream.http.client import Client
from routeproxy.upstream.threads import run_in_daemon_thread

log = logging.getLogger("routeproxy.upstream.google")

SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)

LONGEST_WAIT = 30.0
"""Seconds for one answer of a token's server."""
CONNECT_TIMEOUT = 10.0
"""Seconds."""
LONGEST_ANSWER = 2**20
"""Bytes."""


class GoogleTokens:
    """The credentials of all providers that sign in to Google Cloud. Tokens live in memory only."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._sessions: dict[tuple[str | None, str | None, str | None, str], _Session] = {}

    async def headers(self, provider: Provider) -> Mapping[str, str]:
        """What a request to Google Cloud shows, names in lower case. Raises `UpstreamFailure`: `auth` where
        there are no credentials or Google refuses them."""
        file = credentials_file_of(provider)
        key = file, provider.proxy, provider.ca_file, provider.zone
        if key not in self._sessions:
            self._sessions[key] = _Session(self._client, file)
        return await self._sessions[key].headers(provider)


class NoGoogleTokens(GoogleTokens):
    """Of a dry run, which signs in nowhere."""

    async def headers(self, provider: Provider) -> Mapping[str, str]:
        return {}


def credentials_file_of(provider: Provider) -> str | None:
    """The file that the rules name; `None`: the machine's own credentials."""
    named = provider.options.get("credentials") or provider.litellm_params.get("vertex_credentials")
    return str(named) if named else None


class _Session:
    """One set of credentials, with the token that they got last."""

    def __init__(self, client: Client, file: str | None) -> None:
        self._client = client
        self._file = file
        self._stamp: FileStamp | None = None
        self._credentials: Any = None
        self._refreshing: asyncio.Future[Any] | None = None

    async def headers(self, provider: Provider) -> Mapping[str, str]:
        if self._file is not None and (stamp := stamp_of(self._file)) != self._stamp:
            self._stamp, self._credentials = stamp, None  # another key is there by now
        state = self._credentials.token_state.name if self._credentials is not None else "INVALID"
        if state != "FRESH":
            refreshed = self._refresh(provider)
            if state == "INVALID":
                # Whoever leaves while waiting must not take the token from the others.
                self._credentials = await asyncio.shield(refreshed)
        headers: dict[str, str] = {}
        self._credentials.apply(headers)
        return {name.lower(): value for name, value in headers.items()}

    def _refresh(self, provider: Provider) -> asyncio.Future[Any]:
        """One at a time, for all who wait."""
        if self._refreshing is None or self._refreshing.done():
            request = _TokenRequest(self._client, provider, asyncio.get_running_loop())
            credentials, file = self._credentials, self._file
            self._refreshing = run_in_daemon_thread(
                "Google's token", lambda: _refreshed(credentials, file, request)
            )
            self._refreshing.add_done_callback(_log_failure)
        return self._refreshing


def _log_failure(refreshed: asyncio.Future[Any]) -> None:
    if not refreshed.cancelled() and (error := refreshed.exception()) is not None:
        log.warning("%s", error.operator_message if isinstance(error, UpstreamFailure) else error)


def _refreshed(credentials: Any, file: str | None, request: "_TokenRequest") -> Any:
    """`credentials` with a new token, read from `file` or found on this machine if there are none yet."""
    provider = request.provider.name
    if credentials is None:
        try:
            credentials = _load(file, request)
        except Exception as error:
            raise _load_failure(error, provider, file) from error
    try:
        credentials.refresh(request)
    except Exception as error:
        raise request.failure or _refresh_failure(error, provider) from error
    return credentials


# --- whose they are


class _Loader(Struct, frozen=True):
    """The class of google-auth for one type of credentials, and how it reads their file."""

    module: str
    method: str
    takes_scopes: bool = True


_LOADERS: Mapping[str, _Loader] = {
    "service_account": _Loader("google.oauth2.service_account", "from_service_account_info"),
    "authorized_user": _Loader("google.oauth2.credentials", "from_authorized_user_info"),
    "external_account": _Loader("google.auth.identity_pool", "from_info"),
    "external_account_authorized_user": _Loader(
        "google.auth.external_account_authorized_user", "from_info", takes_scopes=False
    ),
    "impersonated_service_account": _Loader(
        "google.auth.impersonated_credentials", "from_impersonated_service_account_info"
    ),
}
"""By the `type` in their file."""
_AWS = "urn:ietf:params:aws:token-type:aws4_request"


def _load(file: str | None, request: "_TokenRequest") -> Any:
    if file is None:
        credentials, _ = importlib.import_module("google.auth").default(scopes=SCOPES, request=request)
        return credentials
    info = json.loads(read_file(file))
    loader = _LOADERS[info["type"]]
    if info.get("subject_token_type") == _AWS:
        loader = replace(loader, module="google.auth.aws")
    elif "executable" in (info.get("credential_source") or {}):
        loader = replace(loader, module="google.auth.pluggable")
    load: Callable[..., Any] = getattr(importlib.import_module(loader.module).Credentials, loader.method)
    return load(info, scopes=list(SCOPES)) if loader.takes_scopes else load(info)


# --- what went wrong

_UNUSABLE_FILES: tuple[tuple[type[Exception], str], ...] = (
    (FileNotFoundError, "is not there"),
    (OSError, "can't be read"),
    (Exception, "holds no credentials of a known type"),
)
_NOTHING_FOUND = (
    "there is no `credentials` file, no GOOGLE_APPLICATION_CREDENTIALS, nothing of `gcloud auth "
    "application-default login`, and no service account of this machine"
)
_NOTHING_USABLE = (
    "what GOOGLE_APPLICATION_CREDENTIALS names, or `gcloud auth application-default login` left, "
    "can't be used"
)


def _load_failure(error: Exception, provider: str, file: str | None) -> UpstreamFailure:
    if isinstance(error, ModuleNotFoundError):
        words = f"provider {provider} needs the Python package google-auth, which is not installed"
        return UpstreamFailure("server_error", words)
    if file is not None:
        why = next(words for kind, words in _UNUSABLE_FILES if isinstance(error, kind))
        why = f"its `credentials` file {file} {why}"
    else:
        why = _NOTHING_USABLE if names_google_file(os.environ) else _NOTHING_FOUND
    return _auth_failure(provider, why)


def _refresh_failure(error: Exception, provider: str) -> UpstreamFailure:
    """What google-auth's exception stands for, without its words, which quote what it was answered."""
    exceptions = importlib.import_module("google.auth.exceptions")
    if not isinstance(error, exceptions.GoogleAuthError):
        words = f"provider {provider} can't sign in to Google: what its token server answered is no token"
        return UpstreamFailure("connection", words)
    if getattr(error, "retryable", False):
        words = f"provider {provider} can't sign in to Google: its token server failed"
        return UpstreamFailure("server_error", words)
    if isinstance(error, exceptions.ReauthFailError):
        return _auth_failure(provider, "Google wants the user to sign in once more")
    return _auth_failure(provider, "Google refused the credentials")


def _auth_failure(provider: str, why: str) -> UpstreamFailure:
    words = f"provider {provider} can't sign in to Google: {why}"
    return UpstreamFailure("auth", words, should_retry=False)


# --- what is asked for a token


class _TokenAnswer(Struct, frozen=True):
    """As google-auth reads it."""

    status: int
    headers: Mapping[str, str]
    data: bytes


class _TokenRequest:
    """What google-auth asks with, in a thread: our own client, on the loop, with the provider's proxy,
    certificates and zone."""

    def __init__(self, client: Client, provider: Provider, loop: asyncio.AbstractEventLoop) -> None:
        self.provider = provider
        self.failure: UpstreamFailure | None = None
        """Of the last request."""
        self._client = client
        self._loop = loop

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **_: Any,
    ) -> _TokenAnswer:
        wait = min(timeout or LONGEST_WAIT, LONGEST_WAIT)
        content = body.encode() if isinstance(body, str) else body or b""
        asking = self._ask(str(url), method, content, headers or {}, wait)
        answer: Future[_TokenAnswer] = asyncio.run_coroutine_threadsafe(asking, self._loop)
        exceptions = importlib.import_module("google.auth.exceptions")
        try:
            self.failure = None
            return answer.result(wait + 5)
        except UpstreamFailure as failure:
            self.failure = failure
            raise exceptions.TransportError(failure.message) from failure
        except TimeoutError as error:  # the loop has no time, or is closed
            answer.cancel()
            raise exceptions.TransportError("no answer in time") from error

    async def _ask(
        self, url: str, method: str, body: bytes, headers: Mapping[str, str], wait: float
    ) -> _TokenAnswer:
        host = urlsplit(url).hostname or ""
        provider = replace(self.provider, name=f"{self.provider.name} (signing in at {host})", base_url=url)
        if _is_metadata_server(host):  # it is on the machine's own link, where no proxy is
            provider = replace(provider, proxy=None, zone="local")
        lowered = {name.lower(): str(value) for name, value in headers.items()}
        try:
            async with asyncio.timeout(wait):
                response = await self._client.request(
                    provider,
                    url,
                    method=method,
                    body=body,
                    headers={**lowered, "accept-encoding": "identity"},
                    connect=min(wait, CONNECT_TIMEOUT),
                )
                try:
                    data = await response.read_all(LONGEST_ANSWER)
                finally:
                    with suppress(Exception):
                        response.close()
        except TimeoutError as error:
            words = f"the back end {provider.name} gave no answer in time"
            raise UpstreamFailure("timeout_first_token", words) from error
        return _TokenAnswer(response.status, dict(response.headers), data)


def _is_metadata_server(host: str) -> bool:
    if host == "metadata.google.internal":
        return True
    try:
        return ipaddress.ip_address(host).is_link_local
    except ValueError:
        return False
