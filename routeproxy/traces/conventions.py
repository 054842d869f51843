"""What spans are called and what they say: OpenTelemetry's semantic conventions for generative AI, version
1.37, and for HTTP, as far as they fit; the rest begins with `routeproxy`. All of their names stand here.

Their input includes what was read from a cache and written into one, where the ledger tells it apart.
"""

from collections.abc import Mapping

from routeproxy.ledger.rows import AttemptRow, RequestRow

SCHEMA = "https://opentelemetry.io/schemas/1.37.0"

PROVIDER_NAMES: Mapping[str, str] = {
    "anthropic": "anthropic",
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "bedrock": "aws.bedrock",
    "cohere_chat": "cohere",
    "deepseek": "deepseek",
    "gemini": "gcp.gemini",
    "groq": "groq",
    "mistral": "mistral_ai",
    "openai": "openai",
    "perplexity": "perplexity",
    "vertex_ai": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}
"""By our type of provider, the conventions' name of it. Others are called by their type."""

Attributes = dict[str, str | int | float | bool]


def request_name(row: RequestRow) -> str:
    return f"POST {row.path}"


def request_attributes(row: RequestRow) -> Attributes:
    return _known(
        {
            "http.request.method": "POST",
            "url.path": row.path,
            "http.response.status_code": row.status,
            "error.type": row.error,
            "gen_ai.request.model": row.requested_model,
            "gen_ai.conversation.id": row.session,
            "routeproxy.request_id": f"req_{row.id}",
            "routeproxy.team": row.team,
            "routeproxy.key": row.key,
            "routeproxy.rule": row.rule,
            "routeproxy.rules_version": row.version,
            "routeproxy.request_class": row.request_class,
            "routeproxy.denied": row.denied or None,
            "routeproxy.client_left": row.client_left or None,
            "routeproxy.queued_ms": row.queued / 1000 if row.queued else None,
        }
    )


def attempt_name(row: AttemptRow) -> str:
    return f"chat {row.model}"


def attempt_attributes(row: AttemptRow, provider_type: str) -> Attributes:
    parts = (
        row.input_uncached,
        row.cache_read,
        row.cache_write_5m,
        row.cache_write_1h,
        row.cache_write_other,
    )
    known = [part for part in parts if part is not None]
    written = [part for part in parts[2:] if part is not None]
    return _known(
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": PROVIDER_NAMES.get(provider_type, provider_type),
            "gen_ai.request.model": row.model,
            "gen_ai.response.model": row.served_model,
            "gen_ai.usage.input_tokens": sum(known) if known else None,
            "gen_ai.usage.output_tokens": row.output,
            "gen_ai.usage.cache_read.input_tokens": row.cache_read,
            "gen_ai.usage.cache_creation.input_tokens": sum(written) if written else None,
            "error.type": row.failure,
            "routeproxy.provider": row.provider,
            "routeproxy.purpose": row.purpose,
            "routeproxy.let_go": row.let_go or None,
            "routeproxy.usage_source": row.usage_source,
            "routeproxy.cost_usd": row.cost_nanousd / 10**9 if row.cost_nanousd is not None else None,
            "routeproxy.time_to_first_token_ms": row.first_content / 1000
            if row.first_content is not None
            else None,
        }
    )


def _known(attributes: Mapping[str, str | int | float | bool | None]) -> Attributes:
    """What is not known is not said."""
    return {name: value for name, value in attributes.items() if value is not None}
