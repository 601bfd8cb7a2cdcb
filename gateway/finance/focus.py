"""The ledger as cost data of the FinOps Open Cost and Usage Specification (FOCUS), version 1.2, for tools that read the
bills of clouds in this form (https://focus.finops.org/focus-specification/v1-2/).

A row is one day of one team, key, model, upstream and cost centre. The upstream is provider, publisher and issuer of
the invoice, because it gets the money; the team is the sub account. The ledger has one sum of money for a row, of
possibly several prices, so there are no unit prices: all four costs are this sum, and the quantity is the tokens, or
the requests of a model without tokens. Columns that FOCUS does not have begin with `x_`, as it requires.

A request that was settled after its month was closed is a correction of that month, in the month that was open.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

GROUPED_BY = ("day", "team", "key", "model", "upstream", "cost_center", "late")
"""The groups that the usage report needs."""

FOCUS_COLUMNS = (
    *("BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency", "BillingPeriodEnd"),
    *("BillingPeriodStart", "ChargeCategory", "ChargeClass", "ChargeDescription", "ChargeFrequency"),
    *(
        "ChargePeriodEnd",
        "ChargePeriodStart",
        "CommitmentDiscountStatus",
        "ConsumedQuantity",
        "ConsumedUnit",
        "ContractedCost",
        "EffectiveCost",
    ),
    *("InvoiceId", "InvoiceIssuerName", "ListCost", "PricingCategory", "PricingQuantity", "PricingUnit"),
    *("ProviderName", "PublisherName", "ServiceCategory", "ServiceName", "ServiceSubcategory", "SubAccountId"),
    *("SubAccountName", "Tags", "x_CachedInputTokens", "x_CostCenter", "x_EstimatedTokens", "x_InputTokens", "x_KeyId"),
    *("x_Model", "x_OutputTokens", "x_Requests"),
)

NO_UPSTREAM = "(none)"
"""The provider of rows without an upstream (not sent to one, or settled by a gateway of the version before): FOCUS
requires a name."""


def focus_rows(report: Mapping[str, Any], zone: ZoneInfo) -> Iterator[dict[str, str]]:
    """The rows of a usage report that is grouped by GROUPED_BY, with days in this time zone."""
    for row in report["rows"]:
        day = date.fromisoformat(row["day"])
        yield _periods(day, row["late"], zone) | _parties(row) | _amounts(row)


def _periods(day: date, late: str, zone: ZoneInfo) -> dict[str, str]:
    billing = day.replace(day=1)
    charge, after = (day, day + timedelta(days=1))
    if late:
        # Of which day of the month it was, the ledger does not say.
        charge = date.fromisoformat(f"{late}-01")
        after = _next_month(charge)
    return {
        "BillingPeriodStart": _instant(billing, zone),
        "BillingPeriodEnd": _instant(_next_month(billing), zone),
        "ChargePeriodStart": _instant(charge, zone),
        "ChargePeriodEnd": _instant(after, zone),
        "ChargeClass": "Correction" if late else "",
    }


def _parties(row: Mapping[str, Any]) -> dict[str, str]:
    upstream = row["upstream"] or NO_UPSTREAM
    tags = {"key": row["key"], "model": row["model"]} | (
        {"cost_center": row["cost_center"]} if row["cost_center"] else {}
    )
    return {
        "BillingAccountId": upstream,
        "BillingAccountName": upstream,
        "ProviderName": upstream,
        "PublisherName": upstream,
        "InvoiceIssuerName": upstream,
        # Nothing is invoiced, and there are no commitments; rules on other columns speak of these.
        "InvoiceId": "",
        "CommitmentDiscountStatus": "",
        "SubAccountId": row["team"],
        "SubAccountName": row["team"],
        "ServiceCategory": "AI and Machine Learning",
        "ServiceSubcategory": "Generative AI",
        "ServiceName": "Model inference",
        "ChargeCategory": "Usage",
        "ChargeFrequency": "Usage-Based",
        "ChargeDescription": _ascii(f"Requests of team {row['team']} to {row['model']} at {upstream}"),
        "PricingCategory": "Standard",
        "Tags": json.dumps(tags, ensure_ascii=False),
        "x_CostCenter": row["cost_center"],
        "x_KeyId": row["key"],
        "x_Model": row["model"],
    }


def _amounts(row: Mapping[str, Any]) -> dict[str, str]:
    tokens = row["input_tokens"] + row["output_tokens"]
    quantity, unit = (tokens, "Tokens") if tokens else (row["requests"], "Requests")
    costs = dict.fromkeys(("BilledCost", "ContractedCost", "EffectiveCost", "ListCost"), f"{row['usd']:.6f}")
    quantities = dict.fromkeys(("ConsumedQuantity", "PricingQuantity"), f"{quantity}.0")
    units = dict.fromkeys(("ConsumedUnit", "PricingUnit"), unit)
    more = {
        "x_Requests": row["requests"],
        "x_InputTokens": row["input_tokens"],
        "x_CachedInputTokens": row["cached_input_tokens"],
        "x_OutputTokens": row["output_tokens"],
        "x_EstimatedTokens": row["estimated_tokens"],
    }
    currency = {"BillingCurrency": "USD"}
    return currency | costs | quantities | units | {name: str(figure) for name, figure in more.items()}


def _ascii(text: str) -> str:
    """ASCII only, as a description has to be; other columns have the complete names."""
    return text.encode("ascii", "replace").decode()


def _next_month(first: date) -> date:
    return (first + timedelta(days=31)).replace(day=1)


def _instant(day: date, zone: ZoneInfo) -> str:
    """The beginning of a day, as FOCUS writes it."""
    begins = datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)
    return begins.strftime("%Y-%m-%dT%H:%M:%SZ")
