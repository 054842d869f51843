"""LiteLLM is set up with every policy, and a thousand reloads leave it as the first."""

import importlib

from routeproxy.upstream.litellm.setup import import_litellm


def test_what_is_set_up_again_is_wrapped_once() -> None:
    import_litellm()
    aws = importlib.import_module("litellm.llms.bedrock.base_aws_llm").BaseAWSLLM
    first = aws.get_credentials
    import_litellm()
    assert aws.get_credentials is first
