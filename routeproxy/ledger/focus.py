"""Usage in the columns of FinOps FOCUS 1.2 (focus.finops.org), for what finance reads invoices with: a row
for each day, team, key, provider and model. A cost that nobody knows is left empty, where FOCUS would have a
number."""

import datetime
from typing import Any

from routeproxy.ledger.usage import Usage, UsageRow

COLUMNS = ("day", "team", "label", "key", "provider", "model")
"""What the usage must have been asked by."""


def focus_rows(usage: Usage) -> list[dict[str, Any]]:
    return [_row(row, usage) for row in sorted(usage.rows, key=lambda row: row.by) if row.sums.attempts]


def _row(row: UsageRow, usage: Usage) -> dict[str, Any]:
    day, team, labels, key, provider, model = row.by
    zone, sums = usage.question.zone, row.sums
    begin = datetime.datetime.combine(datetime.date.fromisoformat(day), datetime.time(), zone)
    end = datetime.datetime.combine(begin.date() + datetime.timedelta(days=1), datetime.time(), zone)
    month = begin.replace(day=1)
    next_month = (month + datetime.timedelta(days=32)).replace(day=1)
    is_unknown = sums.unpriced_tokens > 0
    cost = "" if is_unknown and not sums.cost_nanousd else f"{row.dollars:f}"
    return {
        "BillingAccountId": "routeproxy",
        "BillingCurrency": "USD",
        "BillingPeriodStart": _utc(month),
        "BillingPeriodEnd": _utc(next_month),
        "ChargeCategory": "Usage",
        "ChargeDescription": f"{model} at {provider}",
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodStart": _utc(begin),
        "ChargePeriodEnd": _utc(end),
        "BilledCost": cost,
        "EffectiveCost": cost,
        "ConsumedQuantity": row.input + sums.output,
        "ConsumedUnit": "Tokens",
        "ProviderName": provider,
        "PublisherName": provider,
        "InvoiceIssuerName": provider,
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": provider,
        "ResourceId": model,
        "ResourceName": model,
        "SubAccountId": team,
        "SubAccountName": team,
        "Tags": labels or "{}",
        "x_Key": key,
        "x_Requests": sums.requests,
        "x_InputTokens": sums.input_uncached,
        "x_CacheReadTokens": sums.cache_read,
        "x_CacheWriteTokens": sums.cache_write_5m + sums.cache_write_1h + sums.cache_write_other,
        "x_OutputTokens": sums.output,
        "x_UnpricedTokens": sums.unpriced_tokens,
    }


def _utc(moment: datetime.datetime) -> str:
    return moment.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
