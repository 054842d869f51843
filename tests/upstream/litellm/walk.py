"""What LiteLLM would send for each type of provider under the environment of this process:

    OUR_KEY=… python -m tests.upstream.litellm.walk > requests.json

In a process of its own, since much is read when it is imported. Nothing leaves the machine: what would go out
is written down at our transport, and whoever goes past that finds no network.
"""

import json
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx

from routeproxy.exchange import Call
from routeproxy.policy.compile.compiler import compile_rules
from routeproxy.policy.problems import RulesRefused
from routeproxy.policy.provider_types import TYPE_NAMES, provider_type
from routeproxy.policy.targets import Target
from routeproxy.upstream.failures import UpstreamFailure
from routeproxy.upstream.keys import Keys
from routeproxy.upstream.litellm.transport import Failed, LiteLLMTransport
from tests.upstream.litellm.asking import LOOP, call, chat

MODELS: Mapping[str, str] = {
    "clarifai": "openai.chat.gpt",
    "ragflow": "chat/1/m",
    "vertex_ai": "claude-sonnet-4-5",
}
"""Names of models, where not any will do."""
NEVER_THE_SAME = ("x-amz-date", "rquid")

KEYS: Mapping[str, str] = {
    "aws_region_name": '"eu-central-1"',
    "base_url": '"https://corp.example/v1"',
    "location": '"europe-west1"',
    "project": '"p"',
}
"""What a type may need."""
_AWS = '{ aws_access_key_id = "OUR-ID", aws_secret_access_key = "env:OUR_KEY" }'
PARAMS: Mapping[str, str] = {
    **dict.fromkeys(("bedrock", "bedrock_mantle", "sagemaker", "sagemaker_chat", "sagemaker_nova"), _AWS),
    "predibase": '{ predibase_tenant_id = "t" }',
    "watsonx": '{ project_id = "p", token = "env:OUR_KEY" }',
}
"""`litellm_params`, without which a type has nobody to be."""


def rules_of(type: str) -> str | None:
    """A rules file with one provider of this type, spoken to through LiteLLM; `None` if it never is."""
    kind = provider_type(type)
    assert kind is not None
    if "litellm" not in kind.engines:
        return None
    lines = ["[providers.corp]", f'type = "{type}"']
    lines += ['engine = "litellm"'] if "direct" in kind.engines else []
    lines += [f"{key} = {KEYS[key]}" for key in kind.required]
    lines += ['api_key = "env:OUR_KEY"'] if kind.key_variables or "project" in kind.required else []
    lines += [f"litellm_params = {PARAMS[type]}"] if type in PARAMS else []
    return "\n".join([*lines, "[default]", 'deny = "nobody"'])


RULES = {type: rules for type in TYPE_NAMES if (rules := rules_of(type)) is not None}


class Walk:
    """What was asked of whom, in the order in which it was."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    @contextmanager
    def recording(self) -> Iterator[None]:
        walk = self

        async def send(transport: LiteLLMTransport, request: httpx.Request) -> httpx.Response:
            transport.provider_for(request)
            headers = transport.headers(request.headers)
            if headers.get("authorization", "").startswith("AWS4"):
                headers["authorization"] = headers["authorization"].partition("/")[0]
            body = transport._completed_body(await request.aread(), request.url.path)
            walk.asked.append(
                {
                    "url": str(request.url),
                    "headers": {
                        name: headers[name] for name in sorted(headers) if name not in NEVER_THE_SAME
                    },
                    "body": body.decode("utf-8", "replace"),
                }
            )
            raise Failed(UpstreamFailure("connection", "written down"))

        def past_us(*arguments: Any, **_: Any) -> Any:
            walk.asked.append({"past us": repr(arguments)})
            raise OSError("no network")

        with (
            patch.object(LiteLLMTransport, "send", send),
            patch.object(socket, "getaddrinfo", past_us),
            patch.object(socket.socket, "connect", past_us),
        ):
            yield

    def of(self, type: str, rules: str, environ: Mapping[str, str]) -> Any:
        """The requests that a type makes, or why it makes none."""
        try:
            policy = compile_rules(rules, path=Path("rules.toml"), environ=environ)
        except RulesRefused as refused:
            return [problem.message for problem in refused.problems]
        provider = policy.providers["corp"]
        target = Target(provider=provider, model=MODELS.get(type, "some-model"))
        key = next(iter(Keys().of(provider)), None)
        self.asked.clear()
        failed = LOOP.run(self._ask(call(target, key)))
        return list(self.asked) or failed

    def of_all(self, environ: Mapping[str, str]) -> dict[str, Any]:
        LOOP.run(LOOP.litellm.load())
        with self.recording():
            return {type: self.of(type, rules, environ) for type, rules in RULES.items()}

    async def _ask(self, one: Call) -> str:
        try:
            async for _ in await LOOP.litellm.open(chat(), one):
                pass
        except Exception as error:
            return str(error)
        return ""


if __name__ == "__main__":
    json.dump(Walk().of_all({"OUR_KEY": os.environ["OUR_KEY"]}), sys.stdout)
