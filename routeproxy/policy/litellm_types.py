"""The types of providers that LiteLLM alone gives us, as data: where each is reached, and in which variables
its key stands. The address is always said to LiteLLM: what it finds in the environment moves nobody. (As in
LiteLLM 1.110.2; importing it to ask takes seconds.)"""

from collections.abc import Mapping

_AT = """
    abliteration        https://api.abliteration.ai/v1
    ai21                https://api.ai21.com/studio/v1
    ai21_chat           https://api.ai21.com/studio/v1
    aiand               https://api.aiand.com/v1
    aihubmix            https://aihubmix.com/v1
    aiml                https://api.aimlapi.com/v1
    apertis             https://api.stima.tech/v1
    assemblyai          https://llm-gateway.assemblyai.com/v1
    baseten             https://inference.baseten.co/v1
    bigmodel            https://open.bigmodel.cn/api/paas/v4
    bytez               https://api.bytez.com/models/v2
    cerebras            https://api.cerebras.ai/v1
    charity_engine      https://api.charityengine.services/remotejobs/v2/inference
    chutes              https://llm.chutes.ai/v1
    clarifai            https://api.clarifai.com/v2/ext/openai/v1
    clf_ai_gateway      https://api.clfaigateway.dev/v1
    codestral           https://codestral.mistral.ai/v1
    cognition           https://api.cognition.ai/v1
    cohere              https://api.cohere.com/v2/chat
    cohere_chat         https://api.cohere.com/v2/chat
    cometapi            https://api.cometapi.com/v1
    compactifai         https://api.compactif.ai/v1
    coralbricks         https://inference.coralbricks.ai/v1
    cortecs             https://api.cortecs.ai/v1
    crusoe              https://api.inference.crusoecloud.com/v1
    darkbloom           https://api.darkbloom.dev/v1
    dashscope           https://dashscope.aliyuncs.com/compatible-mode/v1
    datarobot           https://app.datarobot.com/api/v2
    deepinfra           https://api.deepinfra.com/v1/openai
    deepseek            https://api.deepseek.com/beta
    docker_model_runner http://localhost:22088/engines/llama.cpp
    edenai              https://api.edenai.run/v3
    empiriolabs         https://api.empiriolabs.ai/v1
    empower             https://app.empower.dev/api/v1
    fireworks_ai        https://api.fireworks.ai/inference/v1
    friendliai          https://api.friendli.ai/serverless/v1
    galadriel           https://api.galadriel.com/v1
    github              https://models.inference.ai.azure.com
    gmi                 https://api.gmi-serving.com/v1
    groq                https://api.groq.com/openai/v1
    helicone            https://ai-gateway.helicone.ai
    hostinger_router    https://router.hostinger.com/v1
    huggingface         https://router.huggingface.co/v1
    hyperbolic          https://api.hyperbolic.xyz/v1
    inception           https://api.inceptionlabs.ai/v1
    inferenceapis       https://api.inferenceapis.com/v1
    kyma                https://kymaapi.com/v1
    lambda_ai           https://api.lambda.ai/v1
    langgraph           http://localhost:2024
    lemonade            http://localhost:8000/api/v1
    libertai            https://api.libertai.io/v1
    llamafile           http://127.0.0.1:8080/v1
    llamagate           https://api.llamagate.dev/v1
    meta                https://api.meta.ai/v1
    meta_llama          https://api.llama.com/compat/v1
    minimax             https://api.minimax.io/v1
    mistral             https://api.mistral.ai/v1
    modelscope          https://api-inference.modelscope.cn/v1
    moonshot            https://api.moonshot.ai/v1
    morph               https://api.morphllm.com/v1
    nadir               https://api.getnadir.com/v1
    nano-gpt            https://nano-gpt.com/api/v1
    nebius              https://api.studio.nebius.ai/v1
    neosantara          https://api.neosantara.xyz/v1
    nlp_cloud           https://api.nlpcloud.io/v1/gpu
    novita              https://api.novita.ai/v3/openai
    nscale              https://inference.api.nscale.com/v1
    opencode_go         https://opencode.ai/inference/go/openai/v1
    openinfer           https://api.openinfer.ai/v1
    ovhcloud            https://oai.endpoints.kepler.ai.cloud.ovh.net/v1
    parasail            https://api.parasail.io/v1
    perplexity          https://api.perplexity.ai
    petals              https://chat.petals.dev/api/v1/generate
    pinstripes          https://pinstripes.io/v1
    poe                 https://api.poe.com/v1
    predibase           https://serving.app.predibase.com
    prism               https://api.prisminference.com/v1
    publicai            https://api.publicai.co/v1
    qwen_ai_platform    https://dashscope.aliyuncs.com/compatible-mode/v1
    qwencloud           https://dashscope-intl.aliyuncs.com/compatible-mode/v1
    refuseless          https://api.refuseless.com/v1
    reka                https://api.reka.ai/v1
    replicate           https://api.replicate.com/v1
    sail                https://api.sailresearch.com/v1
    sambanova           https://api.sambanova.ai/v1
    sarvam              https://api.sarvam.ai/v1
    scaleway            https://api.scaleway.ai/v1
    scx-ai              https://api.scx.ai/v1
    streamlake          https://vanchin.streamlake.ai/api/gateway/v1/endpoints
    synthetic           https://api.synthetic.new/openai/v1
    tencent             https://tokenhub-intl.tencentcloudmaas.com/v1
    tensormesh          https://serverless.tensormesh.ai/v1
    v0                  https://api.v0.dev/v1
    veniceai            https://api.venice.ai/api/v1
    vercel_ai_gateway   https://ai-gateway.vercel.sh/v1
    volcengine          https://ark.cn-beijing.volces.com/api/v3
    wally               https://inference.runanywhere.ai/v1
    wandb               https://api.inference.wandb.ai/v1
    xai                 https://api.x.ai/v1
    xiaomi_mimo         https://api.xiaomimimo.com/v1
    zai                 https://api.z.ai/api/paas/v4
    zerogpu             https://api.zerogpu.ai/v1
"""
_ROWS = (line.split() for line in _AT.strip().splitlines())
ADDRESSES: Mapping[str, str] = {row[0]: row[1] for row in _ROWS}
"""Where a type is asked, in the form in which LiteLLM takes an address."""

AWS = ("bedrock", "bedrock_mantle", "sagemaker", "sagemaker_chat", "sagemaker_nova")
"""Those that sign with AWS's credentials. They have tables of their own (`policy/provider_types.py`)."""

ON_THIS_MACHINE = frozenset({"docker_model_runner", "langgraph", "lemonade", "llamafile"})
"""Servers for one's own machine."""

WITHOUT_ADDRESS = frozenset(
    {
        "azure_ai", "cloudflare", "databricks", "gdc", "heroku", "hosted_vllm", "litellm_proxy", "lm_studio",
        "ragflow", "sap", "snowflake", "triton", "watsonx", "xinference",
    }
)  # fmt: skip
"""Types whose address is somebody's own, so that the rules must give it: LiteLLM would take it out of the
environment, or ask OpenAI."""

AT_ONE_ADDRESS = frozenset({"bytez", "replicate"})
"""Types that LiteLLM asks at their own address, whatever it is told."""

ELSEWHERE = frozenset({"chatgpt", "gigachat", "github_copilot", "oci"})
"""Types that have several addresses, by region or for signing in: which domains they are under is known
(`upstream/litellm/providers.py`)."""

NAMES: tuple[str, ...] = tuple(sorted([*ADDRESSES, *WITHOUT_ADDRESS, *ELSEWHERE]))

# These sign in by other means, run on one's own machine, or take a key only if one was set up.
_KEYLESS = """
    chatgpt docker_model_runner gdc github_copilot hosted_vllm langgraph lemonade litellm_proxy llamafile
    lm_studio oci petals sap triton xinference
"""
_KEY_VARIABLES: Mapping[str, tuple[str, ...]] = {
    "cohere_chat": ("COHERE_API_KEY",),
    "huggingface": ("HF_TOKEN", "HUGGINGFACE_API_KEY"),
    "perplexity": ("PERPLEXITYAI_API_KEY", "PERPLEXITY_API_KEY"),
    "apertis": ("STIMA_API_KEY", "APERTIS_API_KEY"),
    "nano-gpt": ("NANOGPT_API_KEY", "NANO_GPT_API_KEY"),
    "scaleway": ("SCW_SECRET_KEY", "SCALEWAY_API_KEY"),
    "scx-ai": ("SCX_API_KEY", "SCX_AI_API_KEY"),
    "tensormesh": ("TENSORMESH_INFERENCE_API_KEY", "TENSORMESH_API_KEY"),
    "veniceai": ("VENICE_AI_API_KEY", "VENICEAI_API_KEY"),
    **dict.fromkeys(_KEYLESS.split(), ()),
}


def key_variables(name: str) -> tuple[str, ...]:
    """The variables in which the key of this type usually stands; empty: no key is needed."""
    return _KEY_VARIABLES.get(name, (f"{name.upper().replace('-', '_')}_API_KEY",))
