"""The profile of every model at every type of provider, as `golden/profiles.txt` has it: what differs from a
server about which nothing is known. After a change that is meant, write it anew and read the diff:

    UPDATE_GOLDEN=1 pytest tests/upstream/chat/test_profiles_golden.py

Without that variable nothing is written.
"""

import os
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec

from routeproxy.policy.provider_types import TYPES, provider_type
from routeproxy.policy.targets import Target
from routeproxy.translate.profile import ModelProfile
from routeproxy.upstream.chat.profiles import Limits, explain_profile, profile_of
from routeproxy.upstream.chat.quirks import QUIRKS
from tests.upstream.litellm.asking import target

GOLDEN = Path(__file__).parent / "golden" / "profiles.txt"
UPDATE = bool(os.environ.get("UPDATE_GOLDEN"))

PROVIDER_TYPES = sorted(
    {type for type, kind in TYPES.items() if not kind.speaks_messages}
    | {type for quirk in QUIRKS for type in quirk.types if type in TYPES}
)
_MODELS = """
    gpt-3.5-turbo gpt-4 gpt-4-0613 gpt-4-turbo gpt-4o gpt-4o-mini gpt-4.1 chatgpt-4o-latest
    o1 o1-mini o1-preview o3 o3-mini o4-mini-2025-04-16 codex-mini-latest
    gpt-5 gpt-5-mini gpt-5-codex gpt-5-pro gpt-5-chat-latest gpt-5-search-api
    gpt-5.1 gpt-5.1-codex gpt-5.1-chat-latest gpt-5.2 gpt-5.2-pro gpt-5.4 gpt-6 gpt-10
    openai/gpt-oss-20b
    gemini-1.5-pro gemini-2.5-pro gemini-2.5-flash gemini-2.5-flash-lite gemini-3-pro-preview
    gemini-3.5-flash gemini-3.7-flash gemini-3.1-flash-lite gemma-3-27b-it learnlm-2.0
    claude-sonnet-4-5 anthropic.claude-sonnet-4-5-v1:0 amazon.nova-pro-v1:0
    deepseek-chat deepseek-reasoner deepseek-r1:14b deepseek-ai/DeepSeek-V3.2
    moonshotai/Kimi-K2-Instruct kimi-k2-thinking kimi-k2.5 kimi-k3 glm-4.6 glm-4.5v glm-5.3
    minimax-m2 minimax-m3
    llama3.1:70b llama3.2-vision:11b meta-llama/Llama-3.3-70B-Instruct-Turbo llama-4-maverick codellama
    mistral-large-latest mistral-medium-latest ministral-8b magistral-small codestral-latest devstral
    pixtral-12b mixtral-8x7b
    qwen3:8b qwen3.5-plus qwen3-coder qwen3-vl qwen2.5-coder:32b qwq
    grok-2 grok-3 grok-3-mini grok-4 grok-4.3 grok-4.5 grok-code-fast-1
    sonar nvidia/nemotron corp/large-3
"""
MODELS = _MODELS.split()


def target_at(type: str, model: str) -> Target:
    kind = provider_type(type)
    assert kind is not None
    return target(type, kind.base_url, model, engine=kind.engines[0])


def differences(profile: ModelProfile) -> dict[str, Any]:
    usual = ModelProfile()
    return {
        name: value
        for name in profile.__struct_fields__
        if (value := getattr(profile, name)) != getattr(usual, name)
    }


def profiles_at(type: str) -> str:
    """The models at providers of this type, those with the same profile together."""
    shared: dict[str, list[str]] = {}
    for model in MODELS:
        lines = [
            f"    {name} = {msgspec.json.encode(value).decode()}\n"
            for name, value in differences(profile_of(target_at(type, model))).items()
        ]
        shared.setdefault("".join(lines).replace(model, "MODEL"), []).append(model)
    return "".join(f"{', '.join(models)}\n{lines}\n" for lines, models in shared.items())


def matrix(types: Iterable[str]) -> str:
    """Types with the same profiles for all models together."""
    found = sorted((profiles_at(type), type) for type in types)
    groups = [
        ([type for _, type in group], profiles)
        for profiles, group in groupby(found, key=lambda profiles_and_type: profiles_and_type[0])
    ]
    return "".join(f"[{', '.join(names)}]\n\n{profiles}\n" for names, profiles in sorted(groups))


def test_the_profiles_are_what_they_were() -> None:
    written = matrix(PROVIDER_TYPES)
    if UPDATE:
        GOLDEN.write_text(written, encoding="utf-8")
    assert written == GOLDEN.read_text(encoding="utf-8")


def test_an_explanation_says_what_the_profile_says() -> None:
    for type in PROVIDER_TYPES:
        for model in MODELS:
            asked = target_at(type, model)
            for limits in (None, Limits(), Limits(7, vision=False)):
                explained = {name: setting.value for name, setting in explain_profile(asked, limits).items()}
                assert ModelProfile(**explained) == profile_of(asked, limits)


def test_an_explanation_names_who_has_the_last_word() -> None:
    blind = target("openai", None, "gpt-4o", supports=frozenset({"top_k"}), without_vision="refuse")
    explained = explain_profile(blind, Limits(7, vision=False))
    assert {
        name: explained[name].source
        for name in ("files", "efforts", "vision", "max_output_tokens", "top_k", "without_vision")
    } == {
        "files": "nothing is known of it",
        "efforts": "these do not reason: reasoning_effort is 400",
        "vision": "the table of models",
        "max_output_tokens": "the table of models",
        "top_k": "`supports` of provider corp",
        "without_vision": "`without_vision` of provider corp",
    }
