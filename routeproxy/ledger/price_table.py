"""The table of list prices that is shipped, for what the rules state no price of. It was made on the day that
its version names, by `deploy/make_price_table.py`, from LiteLLM's table and from genai-prices."""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from functools import cache, lru_cache
from importlib.resources import files

import msgspec
from msgspec import Raw, Struct

from routeproxy.messages.token_usage import TokenUsage
from routeproxy.policy.prices import Rates
from routeproxy.policy.provider_types import provider_type
from routeproxy.policy.providers import Provider

FILE = "price_table.json"

USUAL_TIERS = frozenset({"", "standard", "default", "auto", "on_demand", "standard_only"})
"""What back ends call the service whose price is the usual one."""
TIER_OF: Mapping[str, str] = {"batch": "batch", "flex": "flex", "priority": "priority"}
"""By what they call another: as the table has it."""

PREFIXES: Mapping[str, tuple[str, ...]] = {
    "anthropic": ("", "anthropic/"),
    "openai": ("", "openai/"),
    "azure": ("azure/",),
    "bedrock": ("bedrock/", ""),
    "vertex_ai": ("vertex_ai/", ""),
}
"""By type of provider, the prefixes under which the table may have its models; usually the type."""

ADDRESSED = frozenset({"azure", "vertex_ai", "bedrock"})
"""Types whose customers have addresses of their own, for which the list prices hold all the same."""


class Line(Struct, frozen=True, array_like=True):
    """The prices of a model for one service tier, from so many tokens of input on: US dollars per token, and
    per search."""

    tier: str
    above: int
    input: str | None = None
    output: str | None = None
    cache_read: str | None = None
    cache_write_5m: str | None = None
    cache_write_1h: str | None = None
    web_search: str | None = None

    @property
    def rates(self) -> Rates:
        return _rates(self)


@lru_cache(1024)
def _rates(line: Line) -> Rates:
    names = ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h", "web_search")
    stated = {name: value for name in names if (value := getattr(line, name)) is not None}
    return Rates(**{name: Decimal(value) for name, value in stated.items()})


class _File(Struct, frozen=True):
    date: str
    disputed: tuple[str, ...]
    """The models of which two sources tell different prices: nobody knows theirs."""
    sources: tuple[str, ...]
    models: dict[str, Raw]


_decode_lines = msgspec.json.Decoder(tuple[Line, ...]).decode


class PriceTable:
    def __init__(self, file: _File) -> None:
        self._models = file.models
        self._lines: dict[str, tuple[Line, ...]] = {}
        """Those of the models that were asked for."""
        self.version = f"table {file.date}"
        self.sources = file.sources

    def rates_of(
        self, provider: Provider, model: str, served: str | None, tokens: TokenUsage
    ) -> Rates | None:
        """Those that hold for an answer; `None`: the table does not have them. `served`: what the back end
        calls the model, where `model` may be the name of a deployment."""
        if not _has_list_prices(provider):
            return None
        tier = tokens.service_tier or ""
        wanted = "" if tier in USUAL_TIERS else TIER_OF.get(tier)
        for name in (*_names(provider, model), *(_names(provider, served) if served else ())):
            if (raw := self._models.get(name)) is not None:
                if name not in self._lines:
                    self._lines[name] = _decode_lines(raw)
                lines = [line for line in self._lines[name] if line.tier == wanted]
                return _for_length(lines, _input(tokens))
        return None


def _for_length(lines: Sequence[Line], length: int) -> Rates | None:
    """A long request has the higher price for all of its tokens."""
    fitting = [line for line in lines if line.above < length or line.above == 0]
    return max(fitting, key=lambda line: line.above).rates if fitting else None


def _input(tokens: TokenUsage) -> int:
    return tokens.total - (tokens.output or 0)


def _has_list_prices(provider: Provider) -> bool:
    """Whether it is the back end whose prices the table has, and not something that only speaks like it."""
    kind = provider_type(provider.type)
    if kind is None or kind.in_process:
        return False
    return provider.type in ADDRESSED or provider.base_url == kind.base_url


def _names(provider: Provider, model: str) -> Iterator[str]:
    """Under which the table may have it, the likeliest first."""
    region = provider.options.get("aws_region_name") or provider.options.get("location")
    for prefix in PREFIXES.get(provider.type) or (f"{provider.type}/",):
        if region and prefix:
            yield f"{prefix}{region}/{model}"
        yield f"{prefix}{model}"


@cache
def load() -> PriceTable:
    """It takes some milliseconds to read."""
    return PriceTable(msgspec.json.decode(files(__package__).joinpath(FILE).read_bytes(), type=_File))
