"""Rows of FOCUS 1.2, by the rules of the specification, and by its own validator where that is installed.

The rules are those of https://focus.finops.org/focus-specification/v1-2/ (Cost and Usage, requirements of each column).
`make test-focus` installs the package focus-validator, which needs Python 3.12, and sets FOCUS_VALIDATOR.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from gateway.finance.focus import FOCUS_COLUMNS, GROUPED_BY, focus_rows

UTC, BERLIN = ZoneInfo("UTC"), ZoneInfo("Europe/Berlin")

# MUST be present, whatever the provider supports.
MANDATORY = {
    *("BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency", "BillingPeriodEnd"),
    *("BillingPeriodStart", "ChargeCategory", "ChargeClass", "ChargeDescription", "ChargePeriodEnd"),
    *("ChargePeriodStart", "ContractedCost", "EffectiveCost", "InvoiceIssuerName", "ListCost", "PricingQuantity"),
    *("PricingUnit", "ProviderName", "PublisherName", "ServiceCategory", "ServiceName"),
}
# MUST be present for what a gateway supports: usage is measured, there are sub accounts and tags.
CONDITIONAL = {"ConsumedQuantity", "ConsumedUnit", "PricingCategory", "SubAccountId", "SubAccountName", "Tags"}
MAY_BE_NULL = {"ChargeClass", "CommitmentDiscountStatus", "InvoiceId", "x_CostCenter"}
DECIMALS = {"BilledCost", "ContractedCost", "EffectiveCost", "ListCost", "ConsumedQuantity", "PricingQuantity"}
TIMES = {"BillingPeriodStart", "BillingPeriodEnd", "ChargePeriodStart", "ChargePeriodEnd"}
VALIDATOR = os.environ.get("FOCUS_VALIDATOR", "")
SUPPORTED = "ACCOUNT_NAMING,SUB_ACCOUNT,TAGGING,USAGE_MEASUREMENT,MULTIPLE_PRICING_CATEGORIES"


def used(**changes: Any) -> dict[str, Any]:
    groups = ("2026-11-03", "search", "0123456789ab", "openai/gpt", "inducta", "4711", "")
    figures = {
        "requests": 3,
        "input_tokens": 1_000_000,
        "cached_input_tokens": 10,
        "output_tokens": 50,
        "estimated_tokens": 2,
        "usd": 1234.000001,
    }
    return dict(zip(GROUPED_BY, groups, strict=True)) | figures | changes


REPORT = {
    "rows": [
        used(),
        used(day="2026-12-31", upstream="", cost_center="", usd=1e-06),
        used(day="2026-11-01", late="2026-10"),
        used(input_tokens=0, output_tokens=0, cached_input_tokens=0, usd=0.0, model='pictures "large", ü'),
    ]
}


def as_csv(zone: ZoneInfo = UTC) -> str:
    written = io.StringIO()
    writer = csv.DictWriter(written, FOCUS_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(focus_rows(REPORT, zone))
    return written.getvalue()


def rows(zone: ZoneInfo = UTC) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(as_csv(zone))))


def test_every_column_is_there_and_others_have_the_prefix_of_custom_ones() -> None:
    columns = set(FOCUS_COLUMNS)
    assert columns >= MANDATORY | CONDITIONAL
    assert {name for name in columns - MANDATORY - CONDITIONAL if not name.startswith("x_")} == {
        *("ChargeFrequency", "CommitmentDiscountStatus", "InvoiceId", "ServiceSubcategory")
    }
    assert all(set(row) == columns for row in rows())


def test_what_must_not_be_null_is_not() -> None:
    for row in rows():
        assert {name for name, value in row.items() if not value} <= MAY_BE_NULL


@pytest.mark.parametrize("zone", [UTC, BERLIN])
def test_formats_are_those_of_the_specification(zone: ZoneInfo) -> None:
    for row in rows(zone):
        assert all(re.fullmatch(r"\d+\.\d+", row[name]) for name in DECIMALS)
        assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", row[name]) for name in TIMES)
        assert isinstance(json.loads(row["Tags"]), dict)
        assert row["BillingCurrency"] == "USD"
        assert (row["ChargeCategory"], row["ChargeFrequency"]) == ("Usage", "Usage-Based")
        assert row["BillingPeriodStart"] < row["BillingPeriodEnd"]
        assert row["ChargePeriodStart"] < row["ChargePeriodEnd"]


def test_periods_are_a_day_of_a_month_in_utc() -> None:
    first, last, *_ = rows(BERLIN)
    assert [first[name] for name in sorted(TIMES)] == [
        *("2026-11-30T23:00:00Z", "2026-10-31T23:00:00Z", "2026-11-03T23:00:00Z", "2026-11-02T23:00:00Z")
    ]
    assert (last["BillingPeriodEnd"], last["ChargePeriodEnd"]) == ("2026-12-31T23:00:00Z",) * 2
    # Clocks went back on 25 October.
    assert rows(BERLIN)[2]["ChargePeriodStart"] == "2026-09-30T22:00:00Z"


def test_what_is_late_is_a_correction_of_its_month_in_the_open_one() -> None:
    late = rows()[2]
    assert late["ChargeClass"] == "Correction"
    assert late["BillingPeriodStart"] == "2026-11-01T00:00:00Z"
    assert (late["ChargePeriodStart"], late["ChargePeriodEnd"]) == ("2026-10-01T00:00:00Z", "2026-11-01T00:00:00Z")
    assert [row["ChargeClass"] for row in rows()] == ["", "", "Correction", ""]


def test_money_and_quantities_are_those_of_the_ledger() -> None:
    first, tiny, _, pictures = rows()
    costs = ("BilledCost", "EffectiveCost", "ListCost", "ContractedCost")
    assert {first[name] for name in costs} == {"1234.000001"}
    assert {tiny[name] for name in costs} == {"0.000001"}
    assert (first["PricingQuantity"], first["PricingUnit"]) == ("1000050.0", "Tokens")
    assert (pictures["ConsumedQuantity"], pictures["ConsumedUnit"]) == ("3.0", "Requests")
    assert (tiny["ProviderName"], tiny["SubAccountId"], tiny["x_CostCenter"]) == ("(none)", "search", "")
    assert json.loads(first["Tags"]) == {"key": "0123456789ab", "model": "openai/gpt", "cost_center": "4711"}


@pytest.mark.skipif(not VALIDATOR, reason="make test-focus installs focus-validator and sets FOCUS_VALIDATOR")
@pytest.mark.parametrize("zone", [UTC, BERLIN])
def test_the_validator_of_the_specification_finds_no_failure(tmp_path: Path, zone: ZoneInfo) -> None:
    file = tmp_path / "focus.csv"
    file.write_text(as_csv(zone))
    program = Path(VALIDATOR).absolute()
    # It looks for its table of currencies in the folder that it is started in.
    [folder] = program.parent.parent.glob("lib/python*/site-packages")
    criteria = ",".join(f"{name}_SUPPORTED" for name in SUPPORTED.split(","))
    options = ("--validate-version", "1.2", "--focus-dataset", "CostAndUsage", "--block-download")
    command = [str(program), "--data-file", str(file), *options, "--applicability-criteria", criteria]
    found = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=True).stdout
    assert re.search(r"Pass: 1\d\d ", found), found
    # An invoice's id is given or null: of these two rules one always fails, and the rule of both holds.
    assert set(re.findall(r"(\S+): FAIL", found)) == {"InvoiceId-C-005-C"}, found
    assert "InvoiceId-C-003-C: PASS" in found
