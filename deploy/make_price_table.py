"""Writes the table of list prices that routeproxy ships: routeproxy/ledger/price_table.json.

    pip install genai-prices
    python deploy/make_price_table.py [--check]

It is made from LiteLLM's table of models, which is read as the file that it is, and from genai-prices (MIT)
for models that LiteLLM does not have. Where both have a model and differ, nobody knows its price: it is left
out, and named in the file. A price of 0 is left out too, since in these tables it mostly means that nobody
knows. `--check` says what differs, and writes nothing."""

import argparse
import datetime
import json
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parent.parent / "routeproxy" / "ledger" / "price_table.json"

TIERS = {"": "", "_batches": "batch", "_flex": "flex", "_priority": "priority"}
"""By the end of a column's name, the service tier."""
COLUMNS = (
    "input_cost_per_token",
    "output_cost_per_token",
    "cache_read_input_token_cost",
    "cache_creation_input_token_cost",
    "cache_creation_input_token_cost_above_1hr",
)
CONVERSATIONS = {"chat", "responses"}

Line = list[Any]
"""Tier, from how many tokens of input on, and the prices: `price_table.Line`."""


def litellm_lines(row: Mapping[str, Any]) -> Iterator[Line]:
    lengths = {0} | {
        int(found[1]) * 1000 for name in row if (found := re.search(r"_above_(\d+)k_tokens", name))
    }
    searches = row.get("search_context_cost_per_query") or {}
    search = searches.get("search_context_size_medium") if isinstance(searches, dict) else None
    for end, tier in TIERS.items():
        for length in sorted(lengths):
            above = f"_above_{length // 1000}k_tokens" if length else ""
            prices = [_price(row.get(f"{column}{above}{end}")) for column in COLUMNS]
            if prices[0] is not None and prices[1] is not None:
                yield [tier, length, *prices, _price(search)]


def _price(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        return None
    return format(Decimal(repr(value)).normalize(), "f")


def of_litellm() -> dict[str, list[Line]]:
    spec = find_spec("litellm")
    assert spec is not None, "LiteLLM is not installed"
    assert spec.submodule_search_locations
    file = Path(spec.submodule_search_locations[0], "model_prices_and_context_window_backup.json")
    found = {}
    for name, row in json.loads(file.read_text()).items():
        if row.get("mode") in CONVERSATIONS and "*" not in name and (lines := list(litellm_lines(row))):
            found[name] = lines
    return found


TYPE_OF = {
    "anthropic": "anthropic",
    "openai": "openai",
    "google": "gemini",
    "azure": "azure",
    "x-ai": "xai",
    "groq": "groq",
    "deepseek": "deepseek",
    "mistral": "mistral",
    "together": "together_ai",
    "fireworks": "fireworks_ai",
    "cerebras": "cerebras",
    "openrouter": "openrouter",
    "perplexity": "perplexity",
    "cohere": "cohere",
    "moonshotai": "moonshot",
}  # fmt: skip """By genai-prices' name of a provider, our type."""


def of_genai_prices() -> dict[str, list[Line]]:
    from genai_prices.data import providers

    found: dict[str, list[Line]] = {}
    for provider in providers:
        if (type := TYPE_OF.get(provider.id)) is None:
            continue
        for model in provider.models:
            prices = _prices_today(model.prices)
            if lines := list(_genai_lines(prices)):
                found[f"{type}/{model.id}"] = lines
    return found


def _prices_today(prices: Any) -> Any:
    """The latest that has begun and does not depend on the time of day."""
    if not isinstance(prices, list):
        return prices
    today, chosen = datetime.date.today(), None
    for each in prices:
        constraint = each.constraint
        begun = constraint is None or getattr(constraint, "start_date", datetime.date.max) <= today
        if begun:
            chosen = each.prices
    return chosen


def _genai_lines(prices: Any) -> Iterator[Line]:
    def at(name: str, length: int) -> str | None:
        value = getattr(prices, name, None)
        if value is None:
            return None
        if hasattr(value, "base"):
            amount = value.base
            for tier in sorted(value.tiers, key=lambda tier: tier.start):
                if tier.start <= length:
                    amount = tier.price
            value = amount
        return _price(float(Decimal(str(value)) / 1_000_000))

    if prices is None:
        return
    names = ("input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok")
    lengths = {0}
    for name in names:
        lengths |= {tier.start for tier in getattr(getattr(prices, name, None), "tiers", ())}
    for length in sorted(lengths):
        line = [at(name, length) for name in names]
        if line[0] is not None and line[1] is not None:
            yield ["", length, *line, None, None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    litellm, genai = of_litellm(), of_genai_prices()
    models, disputed = dict(litellm), []
    for name, lines in genai.items():
        type, _, model = name.partition("/")
        names = (name, model) if type in {"anthropic", "openai"} else (name,)
        own_name = next((each for each in names if each in litellm), None)
        if own_name is None:
            models[name] = lines
        elif litellm[own_name][0][2:4] != lines[0][2:4]:
            disputed.append(own_name)
            models.pop(own_name, None)
            if check:
                print(f"{name}: LiteLLM {litellm[own_name][0][2:4]}, genai-prices {lines[0][2:4]}")
    if check:
        return
    made: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "disputed": sorted(disputed),
        "sources": [f"litellm {version('litellm')}", f"genai-prices {version('genai-prices')}"],
    }
    rows = ",\n".join(f"{json.dumps(name)}:{_compact(lines)}" for name, lines in sorted(models.items()))
    head = json.dumps(made, separators=(",", ":"))[:-1]
    TARGET.write_text(f'{head},"models":{{\n{rows}\n}}}}\n', encoding="utf-8")
    own = len(models.keys() - litellm.keys())
    print(f"{TARGET.name}: {len(models)} models, {own} of them from genai-prices alone")


def _compact(lines: list[Line]) -> str:
    for line in lines:
        while line and line[-1] is None:
            line.pop()
    return json.dumps(lines, separators=(",", ":"))


if __name__ == "__main__":
    main()
