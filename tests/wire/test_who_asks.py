"""Two credentials in one request: the key that opens the proxy, and the client's own login for the back
end."""

from collections.abc import Iterator

import pytest

from tests.backend import BackEnd, json_answer
from tests.running import Running, request, running

RULES = """
[providers.login]
type = "anthropic"
base_url = "{url}"
api_key = "client"

[default]
targets = "login/*"
"""
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-5",
    "content": [],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 1, "output_tokens": 1},
}


@pytest.fixture(scope="module")
def back_end() -> Iterator[BackEnd]:
    with BackEnd(json_answer(MESSAGE)) as back_end:
        yield back_end


@pytest.fixture(scope="module")
def proxy(back_end: BackEnd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    rules = RULES.format(url=back_end.url)
    with running(rules, tmp_path_factory.mktemp("door"), {"ANTHROPIC_AUTH_TOKEN": "ours"}) as proxy:
        yield proxy


@pytest.mark.parametrize(
    ("shown", "goes_on"),
    [
        pytest.param(
            {"x_api_key": "ours", "authorization": "Bearer oauth"},
            {"authorization": "Bearer oauth", "x-api-key": None},
            id="our key beside the client's login",
        ),
        pytest.param(
            {"x_api_key": "sk-ant", "authorization": "Bearer ours"},
            {"authorization": None, "x-api-key": "sk-ant"},
            id="the other way round",
        ),
        pytest.param(
            {"x_api_key": "ours", "authorization": "Bearer ours"},
            {"authorization": None, "x-api-key": None},
            id="nothing but ours",
        ),
    ],
)
def test_the_key_of_the_proxy_never_travels_on(
    proxy: Running, back_end: BackEnd, shown: dict[str, str], goes_on: dict[str, str | None]
) -> None:
    assert proxy.post(request(), **shown).status_code == 200
    assert {name: back_end.last.header(name) for name in goes_on} == goes_on
