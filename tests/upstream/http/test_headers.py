"""The headers of a request to a back end: which of two that have the same name goes out."""

from typing import Any

import pytest

from routeproxy.upstream.http.headers import outgoing_headers
from tests.upstream.litellm.asking import call, target


def sent(provider: dict[str, Any], client: dict[str, str], **written: dict[str, str]) -> dict[str, str]:
    written = {"protocol": {}, "credentials": {}, **written}
    headers = outgoing_headers(call(target("openai", None, "m", **provider), **client), **written)
    assert headers.pop("accept-encoding") == "identity"
    return headers


LATER_WINS = [
    pytest.param({}, {}, {}, "protocol", id="what the protocol needs"),
    pytest.param({}, {}, {"credentials": {"x-a": "credentials"}}, "credentials", id="credentials"),
    pytest.param({"forward": ("x-a",)}, {"x_a": "client"}, {}, "client", id="what is forwarded"),
    pytest.param({"forward": ("x-a",)}, {}, {}, "protocol", id="nothing, where the client sends nothing"),
    pytest.param(
        {"forward": ("x-a",)}, {"x_a": "client"}, {"fixed": {"x-a": "fixed"}}, "fixed", id="what is fixed"
    ),
    pytest.param(
        {"headers": {"X-A": "rules"}}, {}, {"fixed": {"x-a": "fixed"}}, "rules", id="the provider's own"
    ),
]


@pytest.mark.parametrize(("provider", "client", "written", "value"), LATER_WINS)
def test_later_ones_win(
    provider: dict[str, Any], client: dict[str, str], written: dict[str, dict[str, str]], value: str
) -> None:
    assert sent(provider, client, protocol={"x-a": "protocol"}, **written) == {"x-a": value}


@pytest.mark.parametrize(
    "name",
    [
        "authorization",
        "connection",
        "content-length",
        "cookie",
        "expect",
        "host",
        "keep-alive",
        "proxy-authorization",
        "te",
        "transfer-encoding",
        "upgrade",
        "x-api-key",
        "x-forwarded-for",
        "x-routeproxy-explain",
    ],
)
def test_what_is_of_a_connection_or_a_secret_is_never_forwarded(name: str) -> None:
    assert sent({"forward": (name,)}, {name: "client"}) == {}


def test_the_organization_is_openais() -> None:
    assert sent({"options": {"organization": "org"}}, {}) == {"openai-organization": "org"}
