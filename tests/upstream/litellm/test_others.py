"""Any other provider that LiteLLM knows: what it sends goes through our own client, with our key, to our
address and nowhere else."""

from routeproxy.upstream.litellm.setup import import_litellm
from tests.backend import BackEnd, chunk, done, sse
from tests.upstream.litellm.asking import (
    LITELLMS_WARNINGS,
    LOOP,
    ask,
    call,
    target,
)

pytestmark = LITELLMS_WARNINGS


def test_a_deployment_with_the_name_of_a_model_of_mistrals_is_still_asked_at_azure() -> None:
    """LiteLLM takes `azure/M` to OpenAI's path, with the key as a token, once it knows a `mistral/M`."""
    with BackEnd(sse(chunk("a"), done())) as back_end:
        ask(call(target("mistral", f"{back_end.url}/v1", "large", engine="litellm")))
        ask(call(target("azure", back_end.url, "large", engine="litellm")))
    assert back_end.last.path.startswith("/openai/deployments/large/chat/completions")
    assert back_end.last.header("api-key") == "KEY-1"


def test_a_client_that_litellm_lets_go_does_not_take_ours_with_it() -> None:
    litellm = import_litellm()

    async def close() -> bool:
        await litellm.aclient_session.aclose()
        return bool(litellm.aclient_session.is_closed)

    assert not LOOP.run(close())
    with BackEnd(sse(chunk("a"), done())) as back_end:
        assert ask(call(target("mistral", f"{back_end.url}/v1", "large", engine="litellm")))
