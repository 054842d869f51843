"""What is known of back ends and models, and what is not."""

from typing import Any

import pytest

from routeproxy.translate.profile import ModelProfile
from routeproxy.upstream.chat.profiles import Limits, profile_of
from routeproxy.upstream.chat.quirks import QUIRKS
from tests.upstream.litellm.asking import LITELLMS_WARNINGS, LOOP, target

pytestmark = LITELLMS_WARNINGS


def profile(type: str, model: str, base_url: str | None = None, **more: Any) -> ModelProfile:
    return profile_of(target(type, base_url, model, **more))


def test_a_server_of_which_nothing_is_known_is_assumed_able() -> None:
    # But for a tool that is forced by its name, which llama.cpp ignores without a word.
    assert profile("openai_compatible", "corp/large-3") == ModelProfile(named_tool_choice=False)


@pytest.mark.parametrize(
    ("type", "model", "known"),
    [
        pytest.param(
            "openai",
            "gpt-4.1",
            {"efforts": (), "sampling": True, "max_tokens_field": "max_completion_tokens", "stop_limit": 4},
            id="gpt-4.1",
        ),
        pytest.param(
            "openai",
            "o3",
            {
                "efforts": ("low", "medium", "high"),
                "sampling": False,
                "stop_limit": 0,
                "parallel_tool_calls": False,
            },
            id="o3",
        ),
        pytest.param("openai", "o4-mini-2025-04-16", {"sampling": False}, id="o4-mini"),
        pytest.param(
            "openai",
            "gpt-5-mini",
            {
                "efforts": ("low", "medium", "high"),
                "thinking_off": {"reasoning_effort": "minimal"},
                "sampling": False,
                "stop_limit": 0,
            },
            id="gpt-5-mini",
        ),
        pytest.param(
            "openai",
            "gpt-5.1",
            {"efforts": ("low", "medium", "high"), "thinking_off": {"reasoning_effort": "none"}},
            id="gpt-5.1",
        ),
        pytest.param("openai", "gpt-5.4", {"efforts": ("low", "medium", "high", "xhigh")}, id="gpt-5.4"),
        pytest.param("openai", "gpt-5-chat-latest", {"efforts": (), "sampling": True}, id="gpt-5-chat"),
        pytest.param(
            "openai_compatible",
            "corp/GPT-5",
            {"max_tokens_field": "max_completion_tokens", "sampling": False, "family": "openai"},
            id="gpt-5 behind a gateway",
        ),
        pytest.param(
            "openai_compatible",
            "openai/gpt-oss-20b",
            {"sampling": True, "max_tokens_field": "max_tokens"},
            id="gpt-oss",
        ),
        pytest.param(
            "openai_compatible", "deepseek-ai/DeepSeek-V3.2", {"replays_reasoning": True}, id="deepseek"
        ),
        pytest.param(
            "together_ai", "moonshotai/Kimi-K2", {"replays_reasoning": True, "top_k": True}, id="kimi"
        ),
        pytest.param(
            "openai_compatible", "Mistral-Large", {"tool_call_ids": "mistral"}, id="mistral elsewhere"
        ),
        pytest.param(
            "mistral", "mistral-large-latest", {"tool_call_ids": "mistral", "user": False}, id="mistral"
        ),
        pytest.param(
            "gemini",
            "gemini-2.5-pro",
            {
                "family": "gemini",
                "schemas": "gemini",
                "tool_names": "gemini",
                "mid_system": "user",
                "top_k": True,
                "structured_outputs_with_tools": False,
            },
            id="gemini",
        ),
        pytest.param(
            "vertex_ai",
            "claude-sonnet-4",
            {"family": "anthropic", "schemas": "openai"},
            id="claude on vertex",
        ),
        pytest.param(
            "ollama",
            "llama3.3:70b",
            {"top_k": True, "stop_limit": None, "tool_choice_required": False},
            id="ollama",
        ),
        pytest.param("openrouter", "openai/gpt-4o", {"family": "openrouter", "top_k": True}, id="openrouter"),
        pytest.param(
            "nvidia_nim", "nvidia/nemotron", {"top_k": False, "tools": True, "vision": True}, id="nvidia"
        ),
    ],
)
def test_what_is_known(type: str, model: str, known: dict[str, Any]) -> None:
    found = profile(type, model)
    assert {name: getattr(found, name) for name in known} == known


PER_GENERATION = [
    # functionResponse.parts came with Gemini 3; before it images in a tool's result kill the request
    ("gemini", "gemini-2.5-pro", {"images_in_tool_messages": False}),
    ("gemini", "gemini-2.5-flash-lite", {"images_in_tool_messages": False}),
    ("gemini", "gemma-3-27b-it", {"images_in_tool_messages": False}),
    ("gemini", "gemini-3-pro-preview", {"images_in_tool_messages": True}),
    ("gemini", "gemini-flash-latest", {"images_in_tool_messages": True}),
    ("vertex_ai", "gemini-2.5-flash", {"images_in_tool_messages": False}),
    ("gemini", "gemini-2.0-flash", {"efforts": ()}),
    ("gemini", "gemini-3-pro-preview", {"efforts": ("low", "high")}),
    # who may speak after a tool, and where a system turn may stand
    ("mistral", "mistral-large-latest", {"user_after_tool": False, "mid_system": "user"}),
    ("openai_compatible", "mistralai/Devstral-Small-2", {"user_after_tool": False, "mid_system": "user"}),
    ("openai_compatible", "Qwen/Qwen3.5-9B", {"user_after_tool": True, "mid_system": "user"}),
    ("openai_compatible", "Qwen/Qwen3-8B", {"user_after_tool": True, "mid_system": "keep"}),
    ("openai_compatible", "google/gemma-3-27b-it", {"system_role": False}),
    ("openai_compatible", "google/gemma-4-31b-it", {"system_role": True}),
    # structured outputs
    ("deepseek", "deepseek-chat", {"structured_outputs": False, "json_mode": True}),
    ("openai", "gpt-4-turbo", {"structured_outputs": False, "json_mode": True}),
    ("openai", "gpt-4o", {"structured_outputs": True}),
    # documents
    ("openai", "gpt-4o", {"files": True}),
    ("openrouter", "qwen/qwen3-coder", {"files": True}),
    ("hosted_vllm", "m", {"files": False}),
    ("groq", "llama-3.3-70b-versatile", {"files": False}),
    # texts that are empty
    ("xai", "grok-4", {"null_content": False, "empty_tool_result": "(no output)"}),
    ("zai", "glm-5", {"null_content": True, "empty_tool_result": "(no output)"}),
    ("openai", "gpt-4o", {"null_content": True, "empty_tool_result": ""}),
    # a tool that is forced by its name
    ("openai_compatible", "m", {"named_tool_choice": False}),
    ("ollama", "m", {"named_tool_choice": False, "tool_choice_required": False}),
    ("hosted_vllm", "m", {"named_tool_choice": True}),
]


@pytest.mark.parametrize(("type", "model", "known"), PER_GENERATION)
def test_one_row_is_for_a_generation_and_not_for_a_vendor(
    type: str, model: str, known: dict[str, Any]
) -> None:
    found = profile(type, model)
    assert {name: getattr(found, name) for name in known} == known


BLIND = [
    "gpt-3.5-turbo",
    "gpt-4-0613",
    "gpt-4-1106-preview",
    "o1-mini",
    "o3-mini",
    "gpt-oss-20b",
    "deepseek-chat",
    "DeepSeek-V3.2",
    "deepseek-r1:14b",
    "moonshotai/Kimi-K2-Instruct",
    "kimi-k2-thinking",
    "glm-4.6",
    "glm-4.5-air",
    "codellama",
    "mixtral-8x7b",
    "qwen2.5-coder:32b",
    "qwen3-coder",
    "llama2:13b",
    "llama3:8b",
    "llama3.1:70b",
    "llama3.3:70b",
    "meta-llama/Meta-Llama-3.1-8B-Instruct",
    "llama-3.3-70b-versatile",
    "accounts/fireworks/models/llama-v3p1-405b-instruct",
]
SEEING = [
    "gpt-4",
    "gpt-4-turbo",
    "gpt-4-vision-preview",
    "gpt-4o",
    "gpt-4.1",
    "gpt-5",
    "o1",
    "o3",
    "o4-mini",
    "gemini-2.5-pro",
    "kimi-k2.5",
    "glm-4.5v",
    "glm-4.6v-flash",
    "llama3.2-vision:11b",
    "meta-llama/Llama-3.2-90B-Vision-Instruct",
    "llama-v3p2-11b",
    "llama-4-maverick",
    "llama4:scout",
    "qwen2.5vl:7b",
    "qwen3-vl",
    "pixtral-12b",
    "mistral-small",
    "gemma3:27b",
    "llama-3.1-nemotron-nano-vl-8b-v1",
    "corp/large-3",
]


@pytest.mark.parametrize(("models", "vision"), [(BLIND, False), (SEEING, True)], ids=["blind", "seeing"])
def test_b23_only_a_model_that_is_known_to_be_blind_gets_no_images(models: list[str], vision: bool) -> None:
    assert [model for model in models if profile("openai_compatible", model).vision is not vision] == []
    assert profile("openai_compatible", "gpt-3.5-turbo", supports=frozenset({"vision"})).vision


EFFORTLESS = [
    ("ollama", "llama3.3:70b"),
    ("ollama", "qwen2.5-coder:32b"),
    ("ollama", "qwen3-coder:30b"),
    ("ollama", "qwen3:30b-a3b-instruct"),
    ("groq", "llama-3.3-70b-versatile"),
    ("xai", "grok-3"),
    ("xai", "grok-4"),
    ("gemini", "gemma-3-27b-it"),
]
THINKING = {
    ("ollama", "qwen3:1.7b"): ("low", "medium", "high"),
    ("ollama", "deepseek-r1:14b"): ("low", "medium", "high"),
    ("ollama", "gpt-oss:20b"): ("low", "medium", "high"),
    ("groq", "openai/gpt-oss-120b"): ("low", "medium", "high"),
    ("xai", "grok-3-mini"): ("low", "high"),
}


def test_c22_where_an_effort_is_an_error_none_is_sent() -> None:
    assert [one for one in EFFORTLESS if profile(*one).efforts] == []
    assert {one: profile(*one).efforts for one in THINKING} == THINKING


def test_what_the_provider_says_counts_most() -> None:
    found = profile(
        "openai", "gpt-4.1", supports=frozenset({"top_k"}), mid_system="user", without_vision="refuse"
    )
    assert (found.top_k, found.mid_system, found.without_vision) == (True, "user", "refuse")


def test_responses_knows_no_stop_strings() -> None:
    assert profile("azure", "dep", api="responses").stop_limit == 0


def test_googles_own_openai_api_has_its_own_place_for_signatures() -> None:
    base_url = "https://generativelanguage.googleapis.com/v1beta/openai"
    assert profile("openai_compatible", "gemini-2.5-pro", base_url).thought_signatures == "extra_content"


@pytest.mark.parametrize(
    ("type", "model", "limit"),
    [
        ("openai", "gpt-4o", 16384),
        ("gemini", "gemini-2.5-pro", 65536),
        ("azure", "gpt-4.1", 32768),
        ("openai", "nobody-knows", None),
        ("openai_compatible", "gpt-4o", None),
    ],
)
def test_output_limits_are_those_of_litellms_table_once_it_is_there(
    type: str, model: str, limit: int | None
) -> None:
    LOOP.run(LOOP.litellm.load())
    assert LOOP.litellm.profile(target(type, None, model)).max_output_tokens == limit


def test_a_limit_is_kept() -> None:
    assert profile_of(target("openai", None, "m"), Limits(7)).max_output_tokens == 7


@pytest.mark.parametrize("quirk", QUIRKS, ids=lambda quirk: f"{'+'.join(quirk.types)[:20]} {quirk.models}")
def test_every_row_names_its_source_and_only_fields_that_exist(quirk: Any) -> None:
    assert quirk.source
    ModelProfile(**quirk.changes)
