"""Signing in to Google Cloud: where the requests for a token go and how, when a token is renewed, and what is
said when there is none. Real google-auth, a scripted server for its tokens."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from routeproxy.policy.providers import Provider
from routeproxy.upstream.failures import UpstreamFailure
from routeproxy.upstream.google_tokens import GoogleTokens
from routeproxy.upstream.http.client import Client
from tests.backend import CUT, BackEnd, Step, answer, json_answer, pause
from tests.budgets import seconds
from tests.google import token, write_service_account
from tests.upstream.litellm.asking import LOOP


def vertex(file: Path | str | None, **more: Any) -> Provider:
    options = {"project": "proj", "location": "us-central1"} | ({"credentials": str(file)} if file else {})
    return Provider(name="vertex", type="vertex_ai", options=options, **more)


def headers(provider: Provider, tokens: GoogleTokens | None = None) -> dict[str, str]:
    return dict(LOOP.run((tokens or GoogleTokens(LOOP.client)).headers(provider)))


def failure(provider: Provider) -> UpstreamFailure:
    with pytest.raises(UpstreamFailure) as raised:
        headers(provider)
    return raised.value


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "key.json"


@pytest.fixture
def nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BackEnd]:
    """A machine without credentials, whose metadata server is a scripted one."""
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "gcloud"))
    metadata = pytest.importorskip("google.auth.compute_engine._metadata")
    with BackEnd(answer(404)) as server:
        monkeypatch.setenv("GCE_METADATA_IP", server.url.removeprefix("http://"))
        monkeypatch.setattr(metadata, "_GCE_METADATA_HOST", server.url.removeprefix("http://"))
        yield server


# --- what is asked, and when


def test_a_service_account_gets_a_token_and_keeps_it(file: Path) -> None:
    tokens = GoogleTokens(LOOP.client)
    with BackEnd(token()) as server:
        provider = vertex(write_service_account(file, server.url))
        assert headers(provider, tokens) == {"authorization": "Bearer TOKEN-1"}
        assert headers(provider, tokens) == {"authorization": "Bearer TOKEN-1"}
    (asked,) = server.requests
    assert (asked.method, asked.path) == ("POST", "/token")
    assert b"grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer" in asked.body


def test_what_gcloud_left_here_is_a_users_and_names_the_project_that_pays(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with BackEnd(token()) as server:
        monkeypatch.setattr("google.oauth2.credentials._GOOGLE_OAUTH2_TOKEN_ENDPOINT", f"{server.url}/token")
        user = {
            "type": "authorized_user",
            "client_id": "id",
            "client_secret": "secret",
            "refresh_token": "refresh",
            "quota_project_id": "payer",
        }
        file.write_text(json.dumps(user))
        assert headers(vertex(file)) == {
            "authorization": "Bearer TOKEN-1",
            "x-goog-user-project": "payer",
        }
    assert b"refresh_token=refresh" in server.last.body


def test_without_a_file_the_machine_is_asked(nothing_here: BackEnd) -> None:
    def play(request: Any) -> list[Step]:
        if request.path.startswith("/computeMetadata/v1/instance/service-accounts/default/token"):
            return json_answer({"access_token": "OF-THE-VM", "expires_in": 3600, "token_type": "Bearer"})
        if "service-accounts/default/" in request.path:
            account = {"email": "vm@proj", "aliases": ["default"], "scopes": ["all"]}
            return json_answer(account, metadata_flavor="Google")
        return answer(200, b"proj", metadata_flavor="Google", content_type="application/text")

    nothing_here.answers[:] = [play]
    assert headers(vertex(None))["authorization"] == "Bearer OF-THE-VM"
    assert {request.method for request in nothing_here.requests} == {"GET"}


def test_many_who_wait_ask_once(file: Path) -> None:
    async def all_at_once(provider: Provider) -> list[Any]:
        tokens = GoogleTokens(LOOP.client)
        return await asyncio.gather(*(tokens.headers(provider) for _ in range(20)))

    with BackEnd([pause(0.1), *token()]) as server:
        found = LOOP.run(all_at_once(vertex(write_service_account(file, server.url))))
    assert found == [{"authorization": "Bearer TOKEN-1"}] * 20
    assert len(server.requests) == 1


def test_one_who_leaves_while_waiting_takes_nothing_from_the_others(file: Path) -> None:
    async def one_leaves(provider: Provider) -> Any:
        tokens = GoogleTokens(LOOP.client)
        leaving = asyncio.ensure_future(tokens.headers(provider))
        await asyncio.sleep(0.05)
        leaving.cancel()
        return await tokens.headers(provider)

    with BackEnd([pause(0.3), *token()]) as server:
        provider = vertex(write_service_account(file, server.url))
        assert LOOP.run(one_leaves(provider)) == {"authorization": "Bearer TOKEN-1"}
    assert len(server.requests) == 1


def test_a_token_is_renewed_before_it_ends_and_nobody_waits_for_that(file: Path) -> None:
    tokens = GoogleTokens(LOOP.client)
    with BackEnd(token("OLD", seconds=60), [pause(0.3), *token("NEW")]) as server:
        provider = vertex(write_service_account(file, server.url))
        assert headers(provider, tokens)["authorization"] == "Bearer OLD"
        began = time.monotonic()
        assert headers(provider, tokens)["authorization"] == "Bearer OLD"
        assert time.monotonic() - began < 0.25
        limit = time.monotonic() + seconds(5)
        while headers(provider, tokens)["authorization"] == "Bearer OLD":
            assert time.monotonic() < limit
            time.sleep(0.02)
    assert len(server.requests) == 2


def test_a_token_that_has_ended_is_never_shown(file: Path) -> None:
    tokens = GoogleTokens(LOOP.client)
    with BackEnd(token("OLD", seconds=0), token("NEW")) as server:
        provider = vertex(write_service_account(file, server.url))
        headers(provider, tokens)
        assert headers(provider, tokens)["authorization"] == "Bearer NEW"


def test_another_key_in_the_file_is_used_at_once(file: Path) -> None:
    tokens = GoogleTokens(LOOP.client)
    with BackEnd(token("OLD")) as old, BackEnd(token("NEW")) as new:
        provider = vertex(write_service_account(file, old.url))
        headers(provider, tokens)
        write_service_account(file, f"{new.url}/v2")
        assert headers(provider, tokens)["authorization"] == "Bearer NEW"


# --- where the requests for it go


def test_they_take_the_providers_proxy(file: Path) -> None:
    with BackEnd(token()) as proxy:
        write_service_account(file, "http://oauth2.example")
        assert headers(vertex(file, proxy=proxy.url))["authorization"] == "Bearer TOKEN-1"
    assert proxy.last.path == "http://oauth2.example/token"


def test_they_take_the_environments_proxy(file: Path) -> None:
    with BackEnd(token()) as proxy:
        write_service_account(file, "http://oauth2.example")
        client = Client({"HTTP_PROXY": proxy.url})
        assert headers(vertex(file), GoogleTokens(client))["authorization"] == "Bearer TOKEN-1"
        LOOP.run(client.aclose())


def test_a_redirect_is_not_followed(file: Path) -> None:
    with BackEnd(token()) as elsewhere, BackEnd(answer(302, location=elsewhere.url)) as server:
        found = failure(vertex(write_service_account(file, server.url)))
    assert (found.kind, elsewhere.requests) == ("auth", [])


def test_a_local_provider_signs_in_locally_or_not_at_all(file: Path) -> None:
    write_service_account(file, "http://192.0.2.1")
    found = failure(vertex(file, zone="local"))
    assert found.message == (
        "the back end vertex (signing in at 192.0.2.1) has an address that is neither loopback nor private, "
        "and its zone is local"
    )


# --- what went wrong


@pytest.mark.parametrize(
    ("answered", "kind", "message"),
    [
        pytest.param(
            json_answer({"error": "invalid_grant", "error_description": "Invalid JWT canary"}, 400),
            "auth",
            "provider vertex can't sign in to Google: Google refused the credentials",
            id="refused",
        ),
        pytest.param(
            json_answer({"error": "unauthorized_client"}, 401),
            "auth",
            "provider vertex can't sign in to Google: Google refused the credentials",
            id="unknown",
        ),
        pytest.param(
            answer(200, b"<html>canary", content_type="text/html"),
            "connection",
            "provider vertex can't sign in to Google: what its token server answered is no token",
            id="a page",
        ),
        pytest.param(
            json_answer({"error": "internal_failure"}, 503),
            "server_error",
            "provider vertex can't sign in to Google: its token server failed",
            id="down",
        ),
        pytest.param(
            [CUT],
            "connection",
            "the back end vertex (signing in at 127.0.0.1) closed the connection without an answer",
            id="cut",
        ),
    ],
)
def test_a_token_that_is_not_given_is_said_in_our_words(
    file: Path, answered: list[Step], kind: str, message: str
) -> None:
    with BackEnd(answered) as server:
        found = failure(vertex(write_service_account(file, server.url)))
    assert (found.kind, found.message) == (kind, message)


@pytest.mark.parametrize(
    ("written", "why"),
    [
        pytest.param(None, "is not there", id="no file"),
        pytest.param("{", "holds no credentials of a known type", id="no JSON"),
        pytest.param("[]", "holds no credentials of a known type", id="no object"),
        pytest.param("{}", "holds no credentials of a known type", id="no type"),
        pytest.param('{"type": "service_account"}', "holds no credentials of a known type", id="no key"),
        pytest.param('{"type": "canary"}', "holds no credentials of a known type", id="an unknown type"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(file: Path, written: str | None, why: str) -> None:
    if written is not None:
        file.write_text(written)
    found = failure(vertex(file))
    assert found.kind == "auth"
    assert found.message == f"provider vertex can't sign in to Google: its `credentials` file {file} {why}"
    assert found.headers["x-should-retry"] == "false"


def test_without_any_credentials_it_says_where_they_are_looked_for(nothing_here: BackEnd) -> None:
    found = failure(vertex(None))
    assert found.kind == "auth"
    assert "no GOOGLE_APPLICATION_CREDENTIALS" in found.message
    assert "gcloud auth application-default login" in found.message
