"""The `.env` of every example that the older proxies publish, as one table: what it says, what a client asks
for, and what goes out, or why nothing does and the line that mends it.

    python -m tests.wire.older_proxies      writes the table into docs/moving.md

Keys are filled in; what stands in an example otherwise stands here too. `test_older_proxies.py` runs
each row.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

MOVING = Path(__file__).parents[2] / "docs" / "moving.md"
BEGIN, END = "<!-- the older proxies' examples, by tests/wire/older_proxies.py -->", "<!-- their end -->"

OPUS, SONNET, HAIKU = "claude-opus-4-8", "claude-sonnet-5", "claude-haiku-4-5"


class Sent(NamedTuple):
    """What goes out."""

    model: str
    to: str
    """Host, port where it isn't the usual one, path and query."""
    key: str | None = None
    """The variable that has the key; `None`: no key is shown. `ADC`: a token of Google's."""


class Refused(NamedTuple):
    """What is answered 400, or 502 where a key is missing."""

    words: str


class Row(NamedTuple):
    example: str
    dotenv: str
    asks: Mapping[str, Sent | Refused]
    """By what a client asks for: a model, or `/provider:model` in the URL."""
    said: Sequence[str] = ()
    """What start-up says, beside the providers."""
    refused: str | None = None
    """Why the server doesn't start with it."""
    mend: str | None = None
    """The lines to add, or to put in place of those of the same name, with which `asks` come true; a line
    `-NAME` takes one out."""


OPENAI = "api.openai.com/v1/chat/completions"
GEMINI = "generativelanguage.googleapis.com/v1beta/models"
VERTEX = "us-central1-aiplatform.googleapis.com/v1/projects/your-gcp-project-id/locations/us-central1"
ANTHROPIC = "api.anthropic.com/v1/messages"
NIM = "integrate.api.nvidia.com/v1/chat/completions"
OPENROUTER = "openrouter.ai/api/v1/chat/completions"
TOGETHER = "api.together.xyz/v1/chat/completions"
OLLAMA = "localhost:11434/api/chat"
USUAL_VERSION = "2025-02-01-preview"
"""Of Azure's API, where nobody names one."""
OLLAMA_V1 = "localhost:11434/v1/chat/completions"


def gemini(model: str, key: str = "GEMINI_API_KEY") -> Sent:
    return Sent(model, f"{GEMINI}/{model}:generateContent", key)


def vertex(model: str) -> Sent:
    return Sent(model, f"{VERTEX}/publishers/google/models/{model}:generateContent", "ADC")


def claude(model: str) -> Sent:
    return Sent(model, ANTHROPIC, "ANTHROPIC_API_KEY")


def openai(model: str) -> Sent:
    return Sent(model, OPENAI, "OPENAI_API_KEY")


def nim(model: str, key: str = "OPENAI_API_KEY") -> Sent:
    return Sent(model, NIM, key)


def openrouter(model: str, key: str = "OPENAI_API_KEY") -> Sent:
    return Sent(model, OPENROUTER, key)


def together(model: str, key: str = "TOGETHERAI_API_KEY") -> Sent:
    return Sent(model, TOGETHER, key)


def ollama(model: str) -> Sent:
    return Sent(model, OLLAMA)


def azure(
    deployment: str, key: str, version: str = USUAL_VERSION, host: str = "your-resource.openai.azure.com"
) -> Sent:
    place = f"{host}/openai/deployments/{deployment}/chat/completions"
    return Sent(deployment, f"{place}?api-version={version}", key)


PLACEHOLDER = "holds the placeholder of an example"
LLAMA_4 = "meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8"
PRIVATE_URL = "everything here stays with the endpoint of OPENAI_BASE_URL, which is on this machine"

ORIGINAL = "1rgs/claude-code-proxy"
NO_FALLBACK = "the fork with Ollama and custom APIs"
TOGETHER_FORK = "the fork with Together.ai"
AZURE_FORK = "InCerryGit/claude-code-gpt-proxy"
AZURE_ONLY = "InCerryGit/claude-azure-gpt-proxy"
ELGERTAM = "elgertam/claude-code-proxy"
URL_FORK = "Okeysir198/P20260106-claude-code-proxy"
OLLAMA_FORK = "the fork with Ollama"
FUERGAOSI = "fuergaosi233/claude-code-proxy"
WILLER = "willer/claude-code-proxy"
OPEN_CLAUDE_CODE = "kky42/open-claude-code"
ADRIAN = "adrianR84/claude-code-proxy"
SIX = "the fork with six providers"
OAI = "ArtemisAI/Claude-Code-OAI-Proxy"
SUPARIOUS = "suparious/claude-code-proxy"

ROWS: Mapping[str, Sequence[Row]] = {
    ORIGINAL: [
        Row(
            "`.env.example`, one key filled in",
            """
            ANTHROPIC_API_KEY="your-anthropic-api-key" # Needed if proxying *to* Anthropic
            OPENAI_API_KEY="key-o"
            GEMINI_API_KEY="your-google-ai-studio-key"
            PREFERRED_PROVIDER="openai"
            OPENAI_BASE_URL="https://api.openai.com/v1"
            """,
            {
                OPUS: openai("gpt-4.1"),
                HAIKU: openai("gpt-4.1-mini"),
                "claude-3-5-sonnet-20241022": openai("gpt-4.1"),
                "o3-mini": Sent("o3-mini", "api.openai.com/v1/responses", "OPENAI_API_KEY"),
                "openai/gpt-4o": openai("gpt-4o"),
                "gemini-2.5-pro": Refused(f"`gemini` is not set up here: GEMINI_API_KEY {PLACEHOLDER}"),
                "anthropic/claude-opus-4-8": Refused(f"ANTHROPIC_API_KEY {PLACEHOLDER}"),
            },
            said=[f"GEMINI_API_KEY {PLACEHOLDER}", f"ANTHROPIC_API_KEY {PLACEHOLDER}"],
        ),
        Row(
            "`.env.example`, Google mapping; README, example 2a",
            """
            OPENAI_API_KEY="key-o"
            GEMINI_API_KEY="key-g"
            PREFERRED_PROVIDER="google"
            BIG_MODEL="gemini-2.5-pro"
            SMALL_MODEL="gemini-2.5-flash"
            """,
            {
                OPUS: gemini("gemini-2.5-pro"),
                HAIKU: gemini("gemini-2.5-flash"),
                "gpt-4o": openai("gpt-4o"),
                "gemini/gemini-3-pro": gemini("gemini-3-pro"),
            },
        ),
        Row(
            "`.env.example`, Google with Vertex",
            """
            PREFERRED_PROVIDER="google"
            USE_VERTEX_AUTH=true
            BIG_MODEL="gemini-2.5-pro"
            SMALL_MODEL="gemini-2.5-flash"
            """,
            {OPUS: vertex("gemini-2.5-pro")},
            refused="VERTEX_PROJECT is not set, but USE_VERTEX_AUTH is true",
            mend="""
            VERTEX_PROJECT=your-gcp-project-id
            VERTEX_LOCATION=us-central1
            GOOGLE_APPLICATION_CREDENTIALS={credentials}
            """,
        ),
        Row(
            "README, example 2b: Vertex",
            """
            OPENAI_API_KEY="key-o" # Needed for fallback
            PREFERRED_PROVIDER="google"
            VERTEX_PROJECT="your-gcp-project-id"
            VERTEX_LOCATION="us-central1"
            USE_VERTEX_AUTH=true
            GOOGLE_APPLICATION_CREDENTIALS={credentials}
            """,
            {
                OPUS: vertex("gemini-2.5-pro"),
                HAIKU: vertex("gemini-2.5-flash"),
                "gemini/gemini-2.5-pro": vertex("gemini-2.5-pro"),
                "gpt-4o": openai("gpt-4o"),
            },
        ),
        Row(
            "README, example 3: just an Anthropic proxy",
            """
            ANTHROPIC_API_KEY="key-a"
            PREFERRED_PROVIDER="anthropic"
            """,
            {
                OPUS: claude(OPUS),
                HAIKU: claude(HAIKU),
                "anthropic/claude-opus-4-1": claude("claude-opus-4-1"),
            },
        ),
        Row(
            "README, example 4: specific OpenAI models",
            """
            OPENAI_API_KEY="key-o"
            GEMINI_API_KEY="key-g"
            PREFERRED_PROVIDER="openai"
            BIG_MODEL="gpt-4o" # Example specific model
            SMALL_MODEL="gpt-4o-mini" # Example specific model
            """,
            {
                OPUS: openai("gpt-4o"),
                "claude-3-haiku-20240307": openai("gpt-4o-mini"),
                "gemini-2.5-flash": gemini("gemini-2.5-flash"),
            },
        ),
        Row(
            "models of its first README, of 2025",
            """
            GEMINI_API_KEY="key-g"
            PREFERRED_PROVIDER="google"
            BIG_MODEL="gemini-2.5-pro-preview-03-25"
            SMALL_MODEL="gemini-2.0-flash"
            """,
            {OPUS: gemini("gemini-2.5-pro-preview-03-25"), HAIKU: gemini("gemini-2.0-flash")},
        ),
    ],
    NO_FALLBACK: [
        Row(
            "example 5: Ollama",
            """
            PREFERRED_PROVIDER="ollama"
            OLLAMA_BASE_URL="http://localhost:11434"
            BIG_MODEL="llama3.3:70b"
            SMALL_MODEL="llama3.2:latest"
            """,
            {
                OPUS: ollama("llama3.3:70b"),
                HAIKU: ollama("llama3.2:latest"),
                "gpt-4o": ollama("gpt-4o"),
                "openai/gpt-4o": Refused("everything here goes to `ollama`"),
                "/openai:gpt-4o": Refused("everything here stays with PREFERRED_PROVIDER=ollama"),
                "/ollama:qwen3:8b": ollama("qwen3:8b"),
            },
        ),
        Row(
            "example 6: a corporate API",
            """
            PREFERRED_PROVIDER="custom"
            CUSTOM_BASE_URL="https://your-corporate-api.example.com/v1"
            CUSTOM_API_KEY="key-c"
            BIG_MODEL="gpt-4-corporate"
            SMALL_MODEL="gpt-3.5-corporate"
            """,
            {
                OPUS: Sent(
                    "gpt-4-corporate", "your-corporate-api.example.com/v1/chat/completions", "CUSTOM_API_KEY"
                ),
                HAIKU: Sent(
                    "gpt-3.5-corporate",
                    "your-corporate-api.example.com/v1/chat/completions",
                    "CUSTOM_API_KEY",
                ),
                "gemini/gemini-2.5-pro": Refused("everything here goes to `custom`"),
                "/gemini:gemini-2.5-pro": Refused("everything here stays with PREFERRED_PROVIDER=custom"),
            },
            said=[
                "CUSTOM_BASE_URL is at your-corporate-api.example.com, the placeholder of an example",
                "CUSTOM_BASE_URL is at your-corporate-api.example.com, which is taken for public",
            ],
        ),
        Row(
            "example 7: Azure",
            """
            PREFERRED_PROVIDER="openai"
            OPENAI_BASE_URL="https://your-resource.openai.azure.com/openai/deployments/your-deployment"
            OPENAI_API_KEY="key-o"
            BIG_MODEL="gpt-4"
            SMALL_MODEL="gpt-35-turbo"
            """,
            {
                OPUS: azure("gpt-4", "OPENAI_API_KEY"),
                HAIKU: azure("gpt-35-turbo", "OPENAI_API_KEY"),
                "/azure:my-gpt": azure("my-gpt", "OPENAI_API_KEY"),
                "/openai:gpt-4": Refused("OPENAI_BASE_URL and OPENAI_API_KEY are Azure's"),
            },
            said=["OPENAI_BASE_URL names the deployment `your-deployment`"],
        ),
    ],
    TOGETHER_FORK: [
        Row(
            "README, setup",
            """
            ANTHROPIC_API_KEY=key-a
            OPENAI_API_KEY=key-o
            GEMINI_API_KEY=key-g
            TOGETHER_API_KEY=key-t

            PREFERRED_PROVIDER=together
            """,
            {OPUS: together(LLAMA_4, "TOGETHER_API_KEY"), HAIKU: together(LLAMA_4, "TOGETHER_API_KEY")},
            said=["TOGETHERAI_API_KEY is not set: TOGETHER_API_KEY is taken for it"],
        ),
        Row(
            "README, configuration",
            f"""
            TOGETHERAI_API_KEY=key-t
            PREFERRED_PROVIDER=together
            TOGETHER_MODEL={LLAMA_4}
            """,
            {
                OPUS: together(LLAMA_4),
                f"together_ai/{LLAMA_4}": together(LLAMA_4),
                "/together:Qwen/Qwen3-Coder": together("Qwen/Qwen3-Coder"),
            },
        ),
    ],
    AZURE_FORK: [
        Row(
            "`.env.example`, Azure demo",
            """
            ANTHROPIC_AUTH_TOKEN=sk-your-anthropic-auth-token
            PREFERRED_PROVIDER=azure
            BIG_MODEL=gpt-5.2-codex
            SMALL_MODEL=gpt-5.2
            AZURE_OPENAI_ENDPOINT=https://your.cognitiveservices.azure.com/openai/responses?api-version=2025-04-01-preview
            AZURE_OPENAI_API_KEY=key-z
            AZURE_API_VERSION=2025-04-01-preview
            LOG_LEVEL=INFO
            LOG_FILE=./logs/proxy-%Y%m%d.log
            LOG_FILE_MAX_BYTES=10000000
            LOG_FILE_BACKUP_COUNT=5
            """,
            {
                OPUS: Sent(
                    "gpt-5.2-codex",
                    "your.cognitiveservices.azure.com/openai/responses?api-version=2025-04-01-preview",
                    "AZURE_OPENAI_API_KEY",
                ),
                HAIKU: Sent(
                    "gpt-5.2",
                    "your.cognitiveservices.azure.com/openai/responses?api-version=2025-04-01-preview",
                    "AZURE_OPENAI_API_KEY",
                ),
            },
            said=[
                "ANTHROPIC_AUTH_TOKEN is the placeholder of an example: anybody may know it",
                "LOG_FILE_MAX_BYTES has no effect: LOG_FILE is rotated at midnight",
            ],
        ),
        Row(
            "README, Azure",
            """
            AZURE_OPENAI_ENDPOINT="https://your-resource.openai.azure.com/"
            AZURE_OPENAI_API_KEY="key-z"
            AZURE_API_VERSION="2024-10-01"
            PREFERRED_PROVIDER="azure"
            BIG_MODEL="gpt-4o"   # deployment name
            SMALL_MODEL="gpt-4o-mini" # deployment name
            """,
            {
                OPUS: azure("gpt-4o", "AZURE_OPENAI_API_KEY", "2024-10-01"),
                HAIKU: azure("gpt-4o-mini", "AZURE_OPENAI_API_KEY", "2024-10-01"),
                "azure/other": azure("other", "AZURE_OPENAI_API_KEY", "2024-10-01"),
            },
        ),
    ],
    AZURE_ONLY: [
        Row(
            "`.env.sample`",
            """
            BIG_MODEL=gpt-5.2-codex
            SMALL_MODEL=gpt-5.2
            BIG_EFFORT=high
            SMALL_EFFORT=medium
            AZURE_OPENAI_ENDPOINT=https://your-resource.openai.azure.com/
            AZURE_OPENAI_API_KEY=key-z
            AZURE_API_VERSION=2024-10-21
            """,
            {
                OPUS: Sent(
                    "gpt-5.2-codex",
                    "your-resource.openai.azure.com/openai/responses?api-version=2024-10-21",
                    "AZURE_OPENAI_API_KEY",
                )
            },
            said=["BIG_EFFORT has no effect"],
            mend="PREFERRED_PROVIDER=azure",
        ),
    ],
    ELGERTAM: [
        Row(
            "README, Azure",
            """
            AZURE_OPENAI_API_KEY=key-z
            AZURE_OPENAI_ENDPOINT=https://your-resource.openai.azure.com
            AZURE_OPENAI_API_VERSION=2024-10-21
            PREFERRED_PROVIDER=azure
            BIG_MODEL=my-gpt-4o-deployment
            SMALL_MODEL=my-gpt-4o-mini-deployment
            """,
            {
                OPUS: azure("my-gpt-4o-deployment", "AZURE_OPENAI_API_KEY", "2024-10-21"),
                HAIKU: azure("my-gpt-4o-mini-deployment", "AZURE_OPENAI_API_KEY", "2024-10-21"),
            },
            said=["AZURE_API_VERSION is not set: AZURE_OPENAI_API_VERSION is taken for it"],
        ),
        Row(
            "README, several providers",
            """
            PREFERRED_PROVIDER=azure
            AZURE_OPENAI_API_KEY=key-z
            AZURE_OPENAI_ENDPOINT=https://your-resource.openai.azure.com
            BIG_MODEL=gpt-4o-deployment
            SMALL_MODEL=gpt-35-turbo-deployment  # Cheaper option
            OPENAI_API_KEY=key-o
            GEMINI_API_KEY=key-g
            """,
            {
                OPUS: azure("gpt-4o-deployment", "AZURE_OPENAI_API_KEY"),
                HAIKU: azure("gpt-35-turbo-deployment", "AZURE_OPENAI_API_KEY"),
                "gpt-4o": azure("gpt-4o", "AZURE_OPENAI_API_KEY"),
                "openai/gpt-4.1": openai("gpt-4.1"),
            },
        ),
    ],
    URL_FORK: [
        Row(
            "option 1: NVIDIA NIM",
            """
            PREFERRED_PROVIDER="openai"
            OPENAI_BASE_URL="https://integrate.api.nvidia.com/v1"
            OPENAI_API_KEY="key-o"
            NVIDIA_API_KEY="key-n"
            NVIDIA_BASE_URL="https://integrate.api.nvidia.com/v1"
            NVIDIA_REASONING_BUDGET=16384   # max thinking tokens for nemotron models
            NVIDIA_ENABLE_THINKING=true
            BIG_MODEL="nvidia/nemotron-3-ultra-550b-a55b"
            SMALL_MODEL="nvidia/nemotron-3-ultra-550b-a55b"
            GEMINI_API_KEY="key-g"
            ANTHROPIC_API_KEY="key-a"
            """,
            {
                OPUS: nim("nvidia/nemotron-3-ultra-550b-a55b"),
                HAIKU: nim("nvidia/nemotron-3-ultra-550b-a55b"),
                "openai/gpt-oss-120b": nim("openai/gpt-oss-120b"),
                "/openai:nvidia/nemotron-3-nano-30b-a3b": nim("nvidia/nemotron-3-nano-30b-a3b"),
                "/gemini:gemini-2.5-pro": gemini("gemini-2.5-pro"),
                "/google:gemini-2.5-pro": gemini("gemini-2.5-pro"),
                "/anthropic:claude-sonnet-4": claude("claude-sonnet-4"),
                "/ollama:glm-4.7-flash:latest": ollama("glm-4.7-flash:latest"),
                "/openrouter:qwen/qwen3-coder": Refused("OPENROUTER_API_KEY is not set"),
                "/mistral:large": Refused("one of nvidia, openai, gemini, anthropic, ollama"),
            },
        ),
        Row(
            "option 1, another model",
            """
            PREFERRED_PROVIDER="openai"
            OPENAI_BASE_URL="https://integrate.api.nvidia.com/v1"
            OPENAI_API_KEY="key-o"
            BIG_MODEL="openai/gpt-oss-120b"  # has streaming issues
            """,
            {OPUS: nim("openai/gpt-oss-120b"), HAIKU: nim("openai/gpt-oss-120b")},
        ),
        Row(
            "option 2: Ollama",
            """
            PREFERRED_PROVIDER="ollama"
            OLLAMA_API_BASE="http://localhost:11434"
            OLLAMA_NUM_CTX=128000
            BIG_MODEL="gpt-oss:20b"
            SMALL_MODEL="gpt-oss:20b"
            """,
            {OPUS: ollama("gpt-oss:20b"), "/ollama:gpt-oss:20b": ollama("gpt-oss:20b")},
        ),
        Row(
            "option 2, with Docker",
            """
            PREFERRED_PROVIDER="ollama"
            OLLAMA_API_BASE="http://host.docker.internal:11434"
            BIG_MODEL="gpt-oss:20b"
            """,
            {OPUS: Sent("gpt-oss:20b", "host.docker.internal:11434/api/chat")},
            said=["OLLAMA_API_BASE is at host.docker.internal, which is taken for private"],
        ),
        Row(
            "option 3: Ollama's OpenAI-compatible API",
            """
            PREFERRED_PROVIDER="openai"
            OPENAI_API_KEY="ollama-dummy-key"
            OPENAI_BASE_URL="http://localhost:11434/v1"
            BIG_MODEL="qwen2.5-coder:32b"
            SMALL_MODEL="qwen2.5-coder:14b"
            """,
            {
                OPUS: Sent("qwen2.5-coder:32b", OLLAMA_V1, "OPENAI_API_KEY"),
                HAIKU: Sent("qwen2.5-coder:14b", OLLAMA_V1, "OPENAI_API_KEY"),
                "/gemini:gemini-2.5-pro": Refused(PRIVATE_URL),
            },
        ),
        Row(
            "option 4: OpenAI",
            """
            PREFERRED_PROVIDER="openai"
            OPENAI_API_KEY="key-o"
            OPENAI_BASE_URL="https://api.openai.com/v1"
            BIG_MODEL="gpt-4.1"
            SMALL_MODEL="gpt-4.1-mini"
            """,
            {OPUS: openai("gpt-4.1"), "/openai:gpt-4.1": openai("gpt-4.1")},
        ),
        Row(
            "README, Gemini without a preference",
            """
            GEMINI_API_KEY="key-g"
            BIG_MODEL="gemini-2.5-pro"
            SMALL_MODEL="gemini-2.5-flash"
            """,
            {OPUS: gemini("gemini-2.5-pro"), HAIKU: gemini("gemini-2.5-flash")},
        ),
        Row(
            "option 6: Vertex",
            """
            PREFERRED_PROVIDER="google"
            USE_VERTEX_AUTH=true
            VERTEX_PROJECT="your-gcp-project-id"
            VERTEX_LOCATION="us-central1"
            BIG_MODEL="gemini-2.5-pro"
            SMALL_MODEL="gemini-2.5-flash"
            """,
            {OPUS: vertex("gemini-2.5-pro"), "/gemini:gemini-2.5-pro": vertex("gemini-2.5-pro")},
            mend="GOOGLE_APPLICATION_CREDENTIALS={credentials}",
        ),
        Row(
            "option 8: OpenRouter",
            """
            PREFERRED_PROVIDER="openai"
            OPENAI_API_KEY="key-o"
            OPENAI_BASE_URL="https://openrouter.ai/api/v1"
            BIG_MODEL="anthropic/claude-sonnet-4"              # Claude Sonnet 4
            SMALL_MODEL="google/gemini-2.0-flash-exp:free"
            """,
            {
                OPUS: openrouter("anthropic/claude-sonnet-4"),
                HAIKU: openrouter("google/gemini-2.0-flash-exp:free"),
                "openai/gpt-4.1": openrouter("openai/gpt-4.1"),
                "/openai:stepfun/step-3.5-flash:free": openrouter("stepfun/step-3.5-flash:free"),
                "/gemini:gemini-2.5-pro": Refused("GEMINI_API_KEY is not set"),
            },
        ),
        Row(
            "README, all providers",
            """
            PREFERRED_PROVIDER="ollama"
            OLLAMA_API_BASE="http://localhost:11434"
            OLLAMA_NUM_CTX=60000
            BIG_MODEL="gpt-oss:20b"
            SMALL_MODEL="gpt-oss:20b"
            OPENROUTER_API_KEY="key-r"
            OPENROUTER_BASE_URL="https://openrouter.ai/api/v1"
            NVIDIA_API_KEY="key-n"
            NVIDIA_BASE_URL="https://integrate.api.nvidia.com/v1"
            """,
            {
                OPUS: ollama("gpt-oss:20b"),
                "/openai:stepfun/step-3.5-flash:free": Refused("PREFERRED_PROVIDER=ollama"),
                "/openrouter:stepfun/step-3.5-flash:free": Refused("PREFERRED_PROVIDER=ollama"),
            },
        ),
        Row(
            "README, all providers, beside OpenRouter",
            """
            PREFERRED_PROVIDER="openrouter"
            OLLAMA_API_BASE="http://localhost:11434"
            BIG_MODEL="stepfun/step-3.5-flash:free"
            OPENROUTER_API_KEY="key-r"
            NVIDIA_API_KEY="key-n"
            """,
            {
                OPUS: openrouter("stepfun/step-3.5-flash:free", "OPENROUTER_API_KEY"),
                "/openrouter:x-ai/grok-3-beta": openrouter("x-ai/grok-3-beta", "OPENROUTER_API_KEY"),
                "/nvidia:nvidia/nemotron-3-nano-30b-a3b": nim(
                    "nvidia/nemotron-3-nano-30b-a3b", "NVIDIA_API_KEY"
                ),
                "/ollama:gpt-oss:20b": ollama("gpt-oss:20b"),
            },
        ),
        Row(
            "README, NVIDIA NIM alone",
            """
            NVIDIA_API_KEY="key-n"
            NVIDIA_BASE_URL="https://integrate.api.nvidia.com/v1"
            NVIDIA_REASONING_BUDGET=16384
            NVIDIA_ENABLE_THINKING=true
            """,
            {OPUS: nim("nvidia/nemotron-3-nano-30b-a3b", "NVIDIA_API_KEY")},
            said=[
                "PREFERRED_PROVIDER is not set, so Claude's names go to OpenAI, which has no key: "
                "set PREFERRED_PROVIDER=nvidia"
            ],
            mend="""
            PREFERRED_PROVIDER=nvidia
            BIG_MODEL=nvidia/nemotron-3-nano-30b-a3b
            """,
        ),
    ],
    OLLAMA_FORK: [
        Row(
            "example 3: Ollama",
            """
            PREFERRED_PROVIDER="ollama"
            OLLAMA_API_BASE="http://localhost:11434" # Optional, this is the default
            OPENAI_API_KEY="key-o" # Needed for fallback
            BIG_MODEL="llama3" # Choose your Ollama model
            SMALL_MODEL="llama3:8b" # Choose your Ollama model
            """,
            {
                OPUS: ollama("llama3"),
                HAIKU: ollama("llama3:8b"),
                "ollama/llama3:70b": ollama("llama3:70b"),
                "openai/gpt-4o": Refused("everything here goes to `ollama`"),
            },
        ),
    ],
    FUERGAOSI: [
        Row(
            "`.env.example`, with a key",
            """
            OPENAI_API_KEY="key-o"
            ANTHROPIC_API_KEY="your-expected-anthropic-api-key"
            OPENAI_BASE_URL="https://api.openai.com/v1"
            BIG_MODEL="gpt-4o"
            MIDDLE_MODEL="gpt-4.1"
            SMALL_MODEL="gpt-4o-mini"
            HOST="0.0.0.0"
            PORT="8082"
            LOG_LEVEL="INFO"
            MAX_TOKENS_LIMIT="4096"
            MIN_TOKENS_LIMIT="4096"
            REQUEST_TIMEOUT="90"
            MAX_RETRIES="2"
            """,
            {OPUS: openai("gpt-4o"), SONNET: openai("gpt-4.1"), HAIKU: openai("gpt-4o-mini")},
            said=[
                "MAX_OUTPUT_TOKENS is not set: MAX_TOKENS_LIMIT is taken for it",
                "MIN_TOKENS_LIMIT has no effect",
                "REQUEST_TIMEOUT has no effect: `timeouts` does in a rules file",
            ],
            refused="anybody who can reach 0.0.0.0 could use this server",
            mend="ANTHROPIC_AUTH_TOKEN=key-s",
        ),
        Row(
            "`.env.example`, Azure",
            """
            OPENAI_API_KEY="key-o"
            OPENAI_BASE_URL="https://your-resource-name.openai.azure.com/openai/deployments/your-deployment-name"
            AZURE_API_VERSION="2024-03-01-preview"
            BIG_MODEL="gpt-4"
            MIDDLE_MODEL="gpt-4"
            SMALL_MODEL="gpt-35-turbo"
            """,
            {
                OPUS: azure(
                    "gpt-4", "OPENAI_API_KEY", "2024-03-01-preview", "your-resource-name.openai.azure.com"
                ),
                HAIKU: azure(
                    "gpt-35-turbo",
                    "OPENAI_API_KEY",
                    "2024-03-01-preview",
                    "your-resource-name.openai.azure.com",
                ),
            },
            said=["OPENAI_BASE_URL names the deployment `your-deployment-name`"],
        ),
        Row(
            "`.env.example`, local models",
            """
            OPENAI_API_KEY="dummy-key"  # Required but can be any value for local models
            OPENAI_BASE_URL="http://localhost:11434/v1"
            BIG_MODEL="llama3.1:70b"
            MIDDLE_MODEL="llama3.1:70b"
            SMALL_MODEL="llama3.1:8b"
            """,
            {
                OPUS: Sent("llama3.1:70b", OLLAMA_V1, "OPENAI_API_KEY"),
                HAIKU: Sent("llama3.1:8b", OLLAMA_V1, "OPENAI_API_KEY"),
                "gpt-4o": Sent("gpt-4o", OLLAMA_V1, "OPENAI_API_KEY"),
            },
        ),
        Row(
            "`.env.example`, its own headers, and a key for clients",
            """
            OPENAI_API_KEY="key-o"
            ANTHROPIC_API_KEY="shared-secret"
            MIDDLE_MODEL="gpt-4o"
            CUSTOM_HEADER_X_CLIENT_ID="client"
            """,
            {OPUS: openai("gpt-4.1")},
            said=[
                "CUSTOM_HEADER_X_CLIENT_ID has no effect: `headers = { x-client-id = "
                '"env:CUSTOM_HEADER_X_CLIENT_ID" }`',
                "what clients must show is ANTHROPIC_AUTH_TOKEN",
            ],
        ),
        Row(
            "OpenRouter, as ZenMux and others describe it",
            """
            OPENAI_API_KEY="key-o"
            OPENAI_BASE_URL="https://openrouter.ai/api/v1"
            BIG_MODEL="anthropic/claude-opus-4.1"
            MIDDLE_MODEL="anthropic/claude-sonnet-4"
            SMALL_MODEL="openai/gpt-4o-mini"
            """,
            {
                OPUS: openrouter("anthropic/claude-opus-4.1"),
                SONNET: openrouter("anthropic/claude-sonnet-4"),
                HAIKU: openrouter("openai/gpt-4o-mini"),
            },
        ),
    ],
    WILLER: [
        Row(
            "`.env.example`",
            """
            OPENAI_API_KEY="key-o" # Required for OpenAI models (openai/*)
            GEMINI_API_KEY="your-google-ai-studio-key" # Required for Gemini models (gemini/*)
            BIG_MODEL="openai/gpt-4.1" # Model to use for "sonnet" requests
            SMALL_MODEL="openai/gpt-4.1-mini" # Model to use for "haiku" requests
            LOGLEVEL="INFO" # Options: DEBUG, INFO, WARN, ERROR
            """,
            {OPUS: openai("gpt-4.1"), HAIKU: openai("gpt-4.1-mini")},
            said=["LOGLEVEL has no effect: LOG_LEVEL does", f"GEMINI_API_KEY {PLACEHOLDER}"],
        ),
        Row(
            "example 2: Gemini",
            """
            OPENAI_API_KEY="key-o" # Needed for openai/ models
            GEMINI_API_KEY="key-g" # Needed for gemini/ models
            BIG_MODEL="gemini/gemini-2.5-pro-preview-03-25" # Maps 'sonnet' to Gemini
            SMALL_MODEL="gemini/gemini-2.0-flash" # Maps 'haiku' to Gemini
            """,
            {OPUS: gemini("gemini-2.5-pro-preview-03-25"), HAIKU: gemini("gemini-2.0-flash")},
        ),
        Row(
            "example 4: passthrough",
            """
            ANTHROPIC_API_KEY="key-a" # Required for passthrough mode
            OPENAI_API_KEY="key-o" # Needed for non-Anthropic models
            BIG_MODEL="passthrough" # Special value
            SMALL_MODEL="openai/gpt-4o-mini"
            """,
            {OPUS: claude(OPUS), "openai/gpt-4o-mini": openai("gpt-4o-mini")},
            refused="BIG_MODEL can't be `passthrough`",
            mend="""
            PREFERRED_PROVIDER=anthropic
            -BIG_MODEL
            """,
        ),
    ],
    OPEN_CLAUDE_CODE: [
        Row(
            "example 4: OpenRouter",
            """
            OPENROUTER_API_KEY="key-r"
            OPENAI_API_KEY="key-o" # Needed for fallback
            PREFERRED_PROVIDER="openrouter"
            BIG_MODEL="anthropic/claude-3.5-sonnet"
            SMALL_MODEL="anthropic/claude-3-haiku"
            """,
            {
                OPUS: openrouter("anthropic/claude-3.5-sonnet", "OPENROUTER_API_KEY"),
                HAIKU: openrouter("anthropic/claude-3-haiku", "OPENROUTER_API_KEY"),
                "openrouter/qwen/qwen3-coder": openrouter("qwen/qwen3-coder", "OPENROUTER_API_KEY"),
                "openai/gpt-4o": openai("gpt-4o"),
            },
        ),
        Row(
            "example 5: DeepSeek",
            """
            DEEPSEEK_API_KEY="key-d"
            PREFERRED_PROVIDER="deepseek"
            BIG_MODEL="deepseek-chat"
            SMALL_MODEL="deepseek-chat"
            """,
            {OPUS: Sent("deepseek-chat", "api.deepseek.com/v1/chat/completions", "OPENAI_API_KEY")},
            refused="PREFERRED_PROVIDER can't be `deepseek`",
            mend="""
            -PREFERRED_PROVIDER
            OPENAI_BASE_URL=https://api.deepseek.com/v1
            OPENAI_API_KEY=key-d
            """,
        ),
        Row(
            "example 6: an OpenAI-compatible API",
            """
            OPENAI_COMPATIBLE_API_KEY="key-c"
            OPENAI_COMPATIBLE_BASE_URL="https://api.example.com/v1"
            OPENAI_API_KEY="key-o" # Needed for fallback
            PREFERRED_PROVIDER="openai-compatible"
            BIG_MODEL="big-model"
            SMALL_MODEL="small-model"
            """,
            {
                OPUS: Sent("big-model", "api.example.com/v1/chat/completions", "CUSTOM_API_KEY"),
                HAIKU: Sent("small-model", "api.example.com/v1/chat/completions", "CUSTOM_API_KEY"),
            },
            refused="PREFERRED_PROVIDER can't be `openai-compatible`",
            mend="""
            PREFERRED_PROVIDER=custom
            CUSTOM_BASE_URL=https://api.example.com/v1
            CUSTOM_API_KEY=key-c
            -OPENAI_COMPATIBLE_BASE_URL
            """,
        ),
    ],
    ADRIAN: [
        Row(
            "README, custom provider",
            """
            OPENAI_API_KEY=key-o
            CUSTOM_MODEL=qwen/qwen3-235b-a22b
            CUSTOM_API_KEY=key-c
            CUSTOM_BASE_URL=https://api.example.com/v1/gateway/v1
            PREFERRED_PROVIDER=openai
            OPENAI_BASE_URL=
            BIG_MODEL=gpt-5.5
            SMALL_MODEL=gpt-5.4-mini
            """,
            {
                OPUS: Sent(
                    "qwen/qwen3-235b-a22b",
                    "api.example.com/v1/gateway/v1/chat/completions",
                    "CUSTOM_API_KEY",
                ),
                HAIKU: Sent(
                    "qwen/qwen3-235b-a22b",
                    "api.example.com/v1/gateway/v1/chat/completions",
                    "CUSTOM_API_KEY",
                ),
            },
            refused="CUSTOM_MODEL has no effect, and requests would go elsewhere",
            mend="""
            PREFERRED_PROVIDER=custom
            BIG_MODEL=qwen/qwen3-235b-a22b
            -SMALL_MODEL
            -CUSTOM_MODEL
            """,
        ),
        Row(
            "README, custom endpoint and model mapping",
            """
            CUSTOM_API_KEY=key-c
            CUSTOM_BASE_URL=https://api.example.com/v1/gateway/v1
            PREFERRED_PROVIDER=custom
            BIG_MODEL=gpt-5.5
            SMALL_MODEL=gpt-5.4-mini
            """,
            {
                OPUS: Sent("gpt-5.5", "api.example.com/v1/gateway/v1/chat/completions", "CUSTOM_API_KEY"),
                HAIKU: Sent(
                    "gpt-5.4-mini", "api.example.com/v1/gateway/v1/chat/completions", "CUSTOM_API_KEY"
                ),
            },
        ),
    ],
    OAI: [
        Row(
            "README, any OpenAI-compatible API",
            """
            OPENAI_API_KEY=key-o
            OPENAI_BASE_URL=https://your-endpoint.com/v1
            BIG_MODEL=large
            SMALL_MODEL=small
            OPUS_MODEL=largest
            """,
            {
                OPUS: Sent("largest", "your-endpoint.com/v1/chat/completions", "OPENAI_API_KEY"),
                SONNET: Sent("large", "your-endpoint.com/v1/chat/completions", "OPENAI_API_KEY"),
                HAIKU: Sent("small", "your-endpoint.com/v1/chat/completions", "OPENAI_API_KEY"),
                "gemini/gemini-2.5-pro": Refused("a target in the URL can"),
            },
            said=["OPENAI_BASE_URL is at your-endpoint.com, the placeholder of an example"],
        ),
    ],
    SIX: [
        Row(
            "provider 1: DeepSeek's Messages API",
            """
            PREFERRED_PROVIDER=anthropic
            ANTHROPIC_API_KEY=key-a        # or DeepSeek key
            ANTHROPIC_BASE_URL=https://api.deepseek.com/anthropic   # omit for official Anthropic
            BIG_MODEL=deepseek-v4-pro
            MEDIUM_MODEL=deepseek-v4-flash
            SMALL_MODEL=deepseek-v4-flash
            """,
            {OPUS: Sent("deepseek-v4-pro", "api.deepseek.com/v1/chat/completions", "OPENAI_API_KEY")},
            refused="ANTHROPIC_BASE_URL is for clients, and requests would go to api.anthropic.com",
            mend="""
            -PREFERRED_PROVIDER
            -ANTHROPIC_BASE_URL
            OPENAI_BASE_URL=https://api.deepseek.com/v1
            OPENAI_API_KEY=key-d
            """,
        ),
        Row(
            "provider 2: Gemini",
            """
            PREFERRED_PROVIDER=gemini
            GEMINI_API_KEY=key-g
            BIG_MODEL=gemini-2.5-pro
            MEDIUM_MODEL=gemini-2.5-flash
            SMALL_MODEL=gemini-2.5-flash
            """,
            {OPUS: gemini("gemini-2.5-pro"), SONNET: gemini("gemini-2.5-flash")},
            said=["MIDDLE_MODEL is not set: MEDIUM_MODEL is taken for it"],
            refused="PREFERRED_PROVIDER can't be `gemini`",
            mend="PREFERRED_PROVIDER=google",
        ),
        Row(
            "provider 3: Gemini's OpenAI-compatible API",
            """
            PREFERRED_PROVIDER=gemini-openai
            GEMINI_API_KEY=key-g
            GEMINI_BASE_URL=https://generativelanguage.googleapis.com/v1beta/openai
            BIG_MODEL=gemini-2.5-pro
            SMALL_MODEL=gemini-2.5-flash
            """,
            {OPUS: gemini("gemini-2.5-pro")},
            refused="GEMINI_BASE_URL has no effect, and requests would go elsewhere",
            mend="""
            PREFERRED_PROVIDER=google
            -GEMINI_BASE_URL
            """,
        ),
    ],
    SUPARIOUS: [
        Row(
            "`.env.example`, one key filled in",
            """
            MODEL="nvidia_nim/z-ai/glm4.7"
            MODEL_OPUS=
            NVIDIA_NIM_API_KEY=key-n
            OPENROUTER_API_KEY=***
            OLLAMA_BASE_URL="http://localhost:11434"
            HOST="0.0.0.0"
            PORT=8082
            ANTHROPIC_AUTH_TOKEN=key-s
            """,
            {OPUS: nim("z-ai/glm4.7", "NVIDIA_NIM_API_KEY")},
            said=["MODEL has no effect: BIG_MODEL does", f"OPENROUTER_API_KEY {PLACEHOLDER}"],
            mend="""
            PREFERRED_PROVIDER=nvidia
            BIG_MODEL=nvidia_nim/z-ai/glm4.7
            """,
        ),
    ],
}


# --- as text


def lines_of(dotenv: str) -> list[str]:
    return [line.strip() for line in dotenv.strip().splitlines()]


def mended(row: Row) -> str:
    """The `.env` with the lines of `mend`."""
    lines = lines_of(row.dotenv)
    for line in lines_of(row.mend or ""):
        name = line.lstrip("-").partition("=")[0]
        lines = [old for old in lines if old.partition("=")[0] != name]
        if line and not line.startswith("-"):
            lines.append(line)
    return "\n".join(lines) + "\n"


def table() -> str:
    """What docs/moving.md shows of the rows."""
    parts = ["| example | asked for | what goes out |", "|---|---|---|"]
    for proxy, rows in ROWS.items():
        parts.append(f"| **{proxy}** | | |")
        parts += [line for row in rows for line in _lines_of_table(row)]
    return "\n".join(parts) + "\n"


def _lines_of_table(row: Row) -> list[str]:
    variables = "<br>".join(
        f"`{re.sub(r'  *#.*', '', line)}`" for line in lines_of(row.dotenv) if line and not _is_key(line)
    ).replace("{credentials}", "key.json")
    example = f"{row.example}:<br>{variables}"
    lines = []
    if row.refused or row.mend:
        mend = ", ".join(
            f"without `{line[1:]}`" if line.startswith("-") else f"`{line}`"
            for line in lines_of(row.mend or "")
        ).replace("{credentials}", "key.json")
        why = f"does not start: {row.refused}" if row.refused else "starts, and says why it can't ask"
        lines.append(f"| {example} | – | {why}. **With** {mend}: |")
        example = ""
    for asked, outcome in row.asks.items():
        if isinstance(outcome, Refused):
            goes = f"400: … {outcome.words} …"
        else:
            key = {"ADC": ", a token of Google's", None: ", no key"}.get(outcome.key, f", `{outcome.key}`")
            goes = f"`{outcome.model}` at `{outcome.to}`{key}"
        lines.append(f"| {example} | `{asked}` | {goes} |")
        example = ""
    return lines


def _is_key(line: str) -> bool:
    return "_API_KEY=" in line and "your-" not in line and "***" not in line


def main() -> None:
    text = MOVING.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    MOVING.write_text(f"{before}{BEGIN}\n\n{table()}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
