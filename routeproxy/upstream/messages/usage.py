"""The usage that Messages back ends report: for the client, and for the ledger."""

from collections.abc import Mapping
from typing import Any

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from routeproxy.exchange import Exchange
from routeproxy.messages.reply import Usage
from routeproxy.messages.token_usage import TokenUsage, first_count, nanousd, short_text
from routeproxy.upstream.messages.stream_events import UsageHead


class UsageTally:
    """The usage of an answer, as its parts report it."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._usage = UsageHead()

    def add(self, usage: UsageHead | None) -> None:
        if usage is None:
            return
        reported = {
            name: value for name in usage.__struct_fields__ if (value := getattr(usage, name)) is not None
        }
        total = self._usage = replace(self._usage, **reported)
        self._exchange.usage = Usage(
            input_tokens=_or_unset(total.input_tokens),
            cache_creation_input_tokens=_or_unset(total.cache_creation_input_tokens),
            cache_read_input_tokens=_or_unset(total.cache_read_input_tokens),
            output_tokens=total.output_tokens or 0,
        )
        self._exchange.tokens = tokens_of(total)


def tokens_of(usage: UsageHead) -> TokenUsage:
    """Its input is told without what was read from the cache or written into it."""
    by_time = _fields(usage.cache_creation)
    for_5m = first_count(by_time.get("ephemeral_5m_input_tokens"))
    for_1h = first_count(by_time.get("ephemeral_1h_input_tokens"))
    written = first_count(usage.cache_creation_input_tokens)
    # Nothing is written twice: what the times account for is left out of the rest.
    rest = max(0, written - (for_5m or 0) - (for_1h or 0)) if written is not None else None
    return TokenUsage(
        input_uncached=first_count(usage.input_tokens),
        cache_read=first_count(usage.cache_read_input_tokens),
        cache_write_5m=for_5m,
        cache_write_1h=for_1h,
        cache_write_other=rest if rest or not by_time else None,
        output=first_count(usage.output_tokens),
        reasoning_output=first_count(_fields(usage.output_tokens_details).get("thinking_tokens")),
        web_searches=first_count(_fields(usage.server_tool_use).get("web_search_requests")),
        service_tier=short_text(usage.service_tier),
        cost_nanousd=nanousd(usage.cost),
    )


def _fields(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _or_unset(value: int | None) -> int | UnsetType:
    return UNSET if value is None else value
