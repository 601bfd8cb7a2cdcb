from __future__ import annotations

import json
from contextlib import suppress
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.finance.export_formats import ExportBroken
from gateway.finance.usage_export import UsageExport, read_export

DAY = date(2026, 11, 1)
NEXT = date(2026, 11, 2)
START = 1_793_491_200
"""2026-11-01T00:00:00Z."""

OPENAI_USAGE: dict[str, Any] = {
    "object": "organization.usage.completions.result",
    "input_tokens": 1000,
    "output_tokens": 500,
    "input_cached_tokens": 800,
    "input_cache_write_tokens": 100,
    "input_audio_tokens": 0,
    "num_model_requests": 5,
    "project_id": None,
    "model": "gpt-4o-2024-08-06",
    "batch": None,
}
ANTHROPIC_USAGE: dict[str, Any] = {
    "uncached_input_tokens": 1500,
    "cache_creation": {"ephemeral_1h_input_tokens": 1000, "ephemeral_5m_input_tokens": 500},
    "cache_read_input_tokens": 200,
    "output_tokens": 500,
    "server_tool_use": {"web_search_requests": 10},
    "model": "claude-sonnet-4-5-20250929",
    "service_tier": "standard",
}


def openai_page(*results: Any, start: Any = START, **page: Any) -> dict[str, Any]:
    bucket = {"object": "bucket", "start_time": start, "end_time": START + 86_400, "results": list(results)}
    return {"object": "page", "data": [bucket], "has_more": False, "next_page": None, **page}


def anthropic_page(*results: Any) -> dict[str, Any]:
    bucket = {"starting_at": "2026-11-01T00:00:00Z", "ending_at": "2026-11-02T00:00:00Z", "results": list(results)}
    return {"data": [bucket], "has_more": False, "next_page": None}


def figures(export: UsageExport, model: str, day: date = DAY) -> dict[str, Decimal]:
    return export.cells[day, model].figures


def test_openais_usage_api() -> None:
    export = read_export(json.dumps(openai_page(OPENAI_USAGE, OPENAI_USAGE)))
    assert export.title == "OpenAI usage API"
    assert figures(export, "gpt-4o-2024-08-06") == {
        "requests": 10,
        "input_tokens": 2000,
        "cached_input_tokens": 1600,
        "cache_write_tokens": 200,
        "output_tokens": 1000,
    }


def test_openais_other_usage_endpoints_have_the_figures_that_they_tell() -> None:
    images = {
        "object": "organization.usage.images.result",
        "images": 3,
        "num_model_requests": 2,
        "model": "gpt-image-1",
    }
    assert figures(read_export(json.dumps(openai_page(images))), "gpt-image-1") == {"requests": 2}


def test_openais_costs_api_names_the_model_in_its_line_item() -> None:
    def cost(usd: float, line_item: str | None) -> dict[str, Any]:
        amount = {"value": usd, "currency": "usd"}
        return {"object": "organization.costs.result", "amount": amount, "line_item": line_item, "project_id": None}

    page = openai_page(
        cost(0.06, "gpt-4o-2024-08-06, input"),
        cost(0.04, "gpt-4o-2024-08-06, cached input"),
        cost(1.5, "web search tool calls"),
    )
    export = read_export(json.dumps(page))
    assert export.title == "OpenAI costs API"
    assert figures(export, "gpt-4o-2024-08-06") == {"usd": Decimal("0.10")}
    assert figures(export, "") == {"usd": Decimal("1.5")}


def test_openais_usage_csv_has_minutes_and_rows_of_several_keys() -> None:
    header = (
        "start_time,end_time,start_time_iso,end_time_iso,project_id,num_model_requests,user_id,api_key_id,model,batch,"
        "service_tier,input_tokens,output_tokens,input_cached_tokens,input_uncached_tokens\n"
    )
    export = read_export(
        f"\ufeff{header}"
        f"{START},{START + 60},2026-11-01T00:00:00+00:00,,proj_a,3.0,,key_a,gpt-5,FALSE,,4212.0,1673.0,12,4200\r\n"
        f"{START + 60},{START + 120},2026-11-01T00:01:00+00:00,,proj_a,1.0,,key_b,gpt-5,FALSE,default,100,10,0,100\r\n"
        f"{START + 86_400},{START + 86_460},2026-11-02T00:00:00+00:00,,,,,,,,,,,,\r\n"
    )
    assert export.title == "OpenAI usage CSV"
    assert figures(export, "gpt-5") == {
        "requests": 4,
        "input_tokens": 4312,
        "cached_input_tokens": 12,
        "output_tokens": 1683,
    }
    assert export.days == {DAY, NEXT}


def test_openais_cost_csv_may_be_separated_by_tabs() -> None:
    export = read_export(
        "start_time\tend_time\tstart_time_iso\tamount_value\tamount_currency\tline_item\n"
        f"{START}\t{START + 86_400}\t2026-11-01T00:00:00+00:00\t0.8958740000000000\tusd\t\n"
    )
    assert export.title == "OpenAI cost CSV"
    assert figures(export, "") == {"usd": Decimal("0.895874")}
    assert not export.names_models


def test_anthropics_usage_api_counts_cached_and_written_input_beside_the_rest() -> None:
    export = read_export(json.dumps(anthropic_page(ANTHROPIC_USAGE)))
    assert export.title == "Anthropic usage API"
    assert figures(export, "claude-sonnet-4-5-20250929") == {
        "input_tokens": 3200,
        "cached_input_tokens": 200,
        "cache_write_tokens": 1500,
        "output_tokens": 500,
    }


def test_anthropics_cost_api_counts_cents() -> None:
    cost = {"currency": "USD", "amount": "123.78912", "cost_type": "tokens", "model": "claude-haiku-4-5"}
    export = read_export(json.dumps(anthropic_page(cost)))
    assert export.title == "Anthropic cost API"
    assert figures(export, "claude-haiku-4-5") == {"usd": Decimal("1.2378912")}


def test_anthropics_console_usage_csv() -> None:
    export = read_export(
        "usage_date_utc,model_version,api_key,workspace,usage_type,context_window,usage_input_tokens_no_cache,"
        "usage_input_tokens_cache_write_5m,usage_input_tokens_cache_write_1h,usage_input_tokens_cache_read,"
        "usage_output_tokens,web_search_count,inference_geo,speed\n"
        "2026-11-01,claude-haiku-4-5-20251001,key,Default,standard,≤ 200k,100,20,3,4000,50,0,global,\n"
    )
    assert export.title == "Anthropic Console usage CSV"
    assert figures(export, "claude-haiku-4-5-20251001") == {
        "input_tokens": 4123,
        "cached_input_tokens": 4000,
        "cache_write_tokens": 23,
        "output_tokens": 50,
    }


def test_anthropics_console_cost_csv_is_rounded_to_cents_in_each_row() -> None:
    export = read_export(
        "usage_date_utc,model,workspace,api_key,usage_type,context_window,token_type,cost_usd,list_price_usd,cost_type\n"
        "2026-11-01,Claude Haiku 4.5,Default,key,message,≤ 200k,input_no_cache,0.19,0.19,token\n"
        "2026-11-01,Claude Haiku 4.5,Default,key,message,≤ 200k,output,0.02,0.02,token\n"
    )
    assert export.title == "Anthropic Console cost CSV"
    cell = export.cells[DAY, "Claude Haiku 4.5"]
    assert (cell.figures, cell.rounding) == ({"usd": Decimal("0.21")}, Decimal("0.01"))


CSV = "start_time,num_model_requests,model,input_tokens\n"


def test_pages_are_read_together_and_a_missing_one_is_noticed() -> None:
    pages = [openai_page(OPENAI_USAGE), openai_page(OPENAI_USAGE, start=START + 86_400)]
    export = read_export(json.dumps(pages))
    assert (export.days, export.is_complete) == ({DAY, NEXT}, True)
    assert not read_export(json.dumps(openai_page(OPENAI_USAGE, has_more=True))).is_complete


FIRST = openai_page(OPENAI_USAGE, start=START, has_more=True)
LAST = openai_page(OPENAI_USAGE, start=START + 3_600)


@pytest.mark.parametrize(
    "text",
    [
        json.dumps([FIRST, LAST]),
        json.dumps([LAST, FIRST]),
        json.dumps(FIRST) + json.dumps(LAST),
        f"{json.dumps(FIRST)}\n{json.dumps(LAST, indent=2)}\n\n",
        "\n".join(json.dumps(bucket) for page in (FIRST, LAST) for bucket in page["data"]),
        json.dumps([*FIRST["data"], *LAST["data"]]),
    ],
)
def test_pages_may_be_a_list_or_follow_one_another_in_any_order(text: str) -> None:
    """As `curl` appends them to a file, or `jq` takes them apart. Two buckets of an hour are of one day."""
    export = read_export(text)
    assert (export.days, export.is_complete) == ({DAY}, True)
    (cell,) = export.cells.values()
    assert cell.figures["requests"] == 2 * OPENAI_USAGE["num_model_requests"]


def test_a_page_that_is_there_twice_is_not_counted_twice() -> None:
    with pytest.raises(
        ExportBroken, match=r"\[2\]\.data\[0\] is the same as \[0\]\.data\[0\]: a page is in the file twice"
    ):
        read_export(json.dumps([FIRST, LAST, FIRST]))


def test_a_spreadsheet_may_have_written_semicolons() -> None:
    export = read_export(f"{CSV}{START},3,gpt-5,10\n".replace(",", ";"))
    assert export.cells[DAY, "gpt-5"].figures == {"requests": 3, "input_tokens": 10}


def test_days_without_usage_are_covered() -> None:
    pages = [openai_page(OPENAI_USAGE), openai_page(start=START + 2 * 86_400)]
    export = read_export(json.dumps(pages))
    assert export.span == [DAY, NEXT, date(2026, 11, 3)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it is empty"),
        ("\ufeff \n", "it is empty"),
        ("<!DOCTYPE html>", "line 1: it is neither JSON nor a CSV with the columns of"),
        (
            '{"error": {"message": "Invalid key.\\u001b[2J"}}',
            "error: the API has answered an error instead of usage: Inv",
        ),
        ('{"error": null}', "error: the API has answered an error instead of usage"),
        (json.dumps(openai_page()), "it has no usage at all"),
        (f"{CSV[:-1]},input_tokens\n{START},1,gpt-5,1,1\n", "line 1: the column input_tokens is there twice"),
        (f"{CSV}{START},,gpt-5,\n", "it has no usage at all"),
        ("a,b\n1,2\n", "line 1: it is neither JSON nor a CSV with the columns of"),
        ('{"data":\n [1,}', "line 2: it is not JSON"),
        ('{"data": NaN}', "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
        ("[1]", "[0].data must be a list of buckets"),
        ('{"data": {}}', "data must be a list of buckets"),
        ('{"data": [{"start_time": 1}]}', "data[0] must be a bucket with `results`"),
        ('{"data": []}', "it has no usage at all"),
        (json.dumps(openai_page(7)), "data[0].results[0] is neither usage nor cost"),
        (json.dumps(openai_page(OPENAI_USAGE, start=None)), "data[0]: start_time is missing"),
        (json.dumps(openai_page(OPENAI_USAGE, start=10**17)), "data[0]: start_time must be a time"),
        (json.dumps(openai_page(OPENAI_USAGE, start=0)), "data[0]: start_time must be a time"),
        (json.dumps(openai_page(OPENAI_USAGE, start=253_402_300_799)), "data[0]: start_time must be a time"),
        (json.dumps(openai_page(OPENAI_USAGE | {"output_tokens": -1})), "output_tokens must be a whole number from 0"),
        (json.dumps(openai_page(OPENAI_USAGE | {"output_tokens": 0.5})), "output_tokens must be a whole number from 0"),
        (json.dumps(openai_page(OPENAI_USAGE | {"output_tokens": [1]})), "output_tokens must be a number"),
        (json.dumps(openai_page(OPENAI_USAGE | {"model": 3})), "data[0].results[0]: model must be text"),
        (json.dumps(openai_page({"amount": 3})), "data[0].results[0]: amount must be an object"),
        (
            json.dumps(openai_page({"amount": {"value": 3, "currency": "eur"}})),
            "data[0].results[0].amount: currency must be USD",
        ),
        (
            json.dumps(openai_page(OPENAI_USAGE, {"amount": {"value": 3}})),
            "data[0].results[1] is of the OpenAI costs API, what precedes it of the OpenAI usage API",
        ),
        (json.dumps(anthropic_page(ANTHROPIC_USAGE | {"cache_creation": 1})), "cache_creation must be an object"),
        (f"{CSV}{START},1,gpt-5\n", "line 2: it has fewer columns than the header"),
        (f"{CSV}{START},1,gpt-5,1,1\n", "line 2: it has more columns than the header"),
        (f"{CSV}{START},1,gpt-5,10\n{START},1,gpt-5,many\n", "line 3: input_tokens must be a number"),
        (f"{CSV}{START},1,gpt-5,1e400\n", "line 2: input_tokens must be a number"),
        (f"{CSV}yesterday,1,gpt-5,1\n", "line 2: start_time must be a number"),
        (f'{CSV}{START},1,"gpt-5,1\n', "it is not CSV"),
    ],
)
def test_a_file_that_is_broken_says_where(text: str, said: str) -> None:
    with pytest.raises(ExportBroken) as broken:
        read_export(text)
    assert said in str(broken.value)
    assert "\n" not in str(broken.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["data", "results", "start_time", "starting_at", "amount", "num_model_requests", "model"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(json_values | st.text())
@example('"')
def test_whatever_the_file_holds_it_is_read_or_refused(value: object) -> None:
    with suppress(ExportBroken):
        read_export(value if isinstance(value, str) else json.dumps(value))
