"""The usage that a back end reports, in the Messages API's terms (wire.md §2.7)."""

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from routeproxy.chat.completion import CompletionTokensDetails, CompletionUsage, PromptTokensDetails
from routeproxy.messages.reply import OutputTokensDetails, Usage
from routeproxy.messages.token_usage import TokenUsage, first_count, nanousd, short_text

_FIELDS = CompletionUsage.__struct_fields__
_NO_PROMPT_DETAILS = PromptTokensDetails()
_NO_COMPLETION_DETAILS = CompletionTokensDetails()


def later_usage(earlier: CompletionUsage | None, later: CompletionUsage) -> CompletionUsage:
    """Usage so far. Each report counts everything, but some leave out what an earlier one had."""
    if earlier is None:
        return later
    known = {
        name: value for name in _FIELDS if getattr(later, name) is None and (value := getattr(earlier, name))
    }
    return msgspec.structs.replace(later, **known) if known else later


def translate_usage(reported: CompletionUsage | None, *, output_estimate: int, speed: str | None) -> Usage:
    """Tokens as the back end reported them, in the API's terms: `input_tokens` is without the cached ones.

    A back end that does not know a number reports 0 or nothing: neither is passed on. `output_estimate` is
    for one that reports no output.
    """
    reported = reported or CompletionUsage()
    completion_details = reported.completion_tokens_details or _NO_COMPLETION_DETAILS

    prompt = first_count(reported.prompt_tokens)
    cache_read, cache_creation = _cache_read(reported), _cache_written(reported)
    uncached: int | UnsetType = UNSET
    if prompt:
        if cache_read is not None:
            cache_read = min(cache_read, prompt)
            cache_creation = min(cache_creation or 0, prompt - cache_read)
        elif cache_creation is not None:
            cache_creation = min(cache_creation, prompt)
        uncached = prompt - (cache_read or 0) - (cache_creation or 0)

    thinking = first_count(completion_details.reasoning_tokens)
    return Usage(
        input_tokens=uncached,
        cache_creation_input_tokens=UNSET if cache_creation is None else cache_creation,
        cache_read_input_tokens=UNSET if cache_read is None else cache_read,
        # `message_start` has reported 1, and the number is cumulative.
        output_tokens=max(1, first_count(reported.completion_tokens) or output_estimate),
        output_tokens_details=UNSET if thinking is None else OutputTokensDetails(thinking),
        speed=speed or UNSET,
    )


def _cache_read(reported: CompletionUsage) -> int | None:
    details = reported.prompt_tokens_details or _NO_PROMPT_DETAILS
    return first_count(
        details.cached_tokens,
        reported.prompt_cache_hit_tokens,
        reported.cache_read_input_tokens,
        reported.cached_tokens,
    )


def _cache_written(reported: CompletionUsage) -> int | None:
    details = reported.prompt_tokens_details or _NO_PROMPT_DETAILS
    return first_count(
        details.cache_write_tokens,
        details.cache_creation_tokens,
        details.created_cache_tokens,
        reported.cache_creation_input_tokens,
    )


def tokens_of_completion(
    reported: CompletionUsage | None,
    *,
    input_estimate: int,
    output_estimate: int,
    web_searches: int | None = None,
    service_tier: Any = None,
) -> TokenUsage:
    """Tokens as the back end reported them, each counted once: its input includes what was cached, its output
    the reasoning. Without a number of its own for both, all of it is an estimate, and says so."""
    reported = reported or CompletionUsage()
    usage = translate_usage(reported, output_estimate=output_estimate, speed=None)
    prompt, output = first_count(reported.prompt_tokens), first_count(reported.completion_tokens)
    if output == 0 and output_estimate > 1:  # it does not know
        output = None
    details = reported.completion_tokens_details or _NO_COMPLETION_DETAILS
    return TokenUsage(
        input_uncached=_or_none(usage.input_tokens) if prompt else input_estimate,
        cache_read=_or_none(usage.cache_read_input_tokens),
        # The API's usage has a 0 where none was told of.
        cache_write_other=_or_none(usage.cache_creation_input_tokens)
        if _cache_written(reported) is not None
        else None,
        output=output_estimate if output is None else output,
        reasoning_output=first_count(details.reasoning_tokens),
        web_searches=web_searches,
        service_tier=short_text(service_tier),
        cost_nanousd=nanousd(reported.cost),
        is_estimate=not prompt or output is None,
    )


def _or_none(count: int | UnsetType) -> int | None:
    return None if count is UNSET else count
