"""`gateway usage`: reports tokens, requests and cost from the ledger."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import click

from gateway.cli.config_option import config_option
from gateway.cli.configuration import demo_option, settings_or_end
from gateway.cli.output import Row, csv_option, json_option, show_csv_objects, show_json, table, team_option
from gateway.cli.reports import report_or_end
from gateway.core.key_ids import HOLDER_ID
from gateway.finance.focus import FOCUS_COLUMNS, GROUPED_BY, focus_rows
from gateway.settings.diagnostics import closest
from gateway.settings.models import Settings
from gateway.store.ledger import GROUPS

USAGE_HEADINGS = {
    "requests": "requests",
    "input_tokens": "input",
    "cached_input_tokens": "cached",
    "cache_write_tokens": "cache writes",
    "cache_write_1h_tokens": "for 1 h",
    "output_tokens": "output",
    "reasoning_tokens": "reasoning",
    "estimated_tokens": "estimated",
    "audio_input_tokens": "audio in",
    "image_input_tokens": "image in",
    "audio_output_tokens": "audio out",
    "image_output_tokens": "image out",
    "images": "images",
    "searches": "searches",
    "audio_ms": "audio ms",
    "characters": "characters",
    "estimated_audio_ms": "estimated ms",
    "usd": "USD",
}
"""The figures of a row by their names in JSON, and what people read."""

_ALWAYS = {
    *("requests", "input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens", "estimated_tokens", "usd")
}
"""The others are in a table where they are not zero."""


@click.command(epilog="Example: gateway usage --since month --by user,model --team search --sort usd --top 10")
@config_option
@demo_option
@team_option
@click.option("--key", metavar="ID", help="Only this key.")
@click.option("--model", metavar="MODEL", help="Only this model.")
@click.option("--user", metavar="NAME", help="Only this end user.")
@click.option("--upstream", metavar="NAME", help="Only this upstream.")
@click.option("--cost-center", metavar="NAME", help="Only teams of this cost centre.")
@click.option("--month", metavar="MONTH", help="This month, such as 2026-10, in place of --since and --until.")
@click.option("--final", is_flag=True, help="Close the month and all before it: they do not change afterwards.")
@click.option("--since", metavar="DAY", help="From this day on: 2026-11-01, 7d (seven days with today) or month.")
@click.option("--until", metavar="DAY", help="Up to the end of the day before this one.")
@click.option(
    "--by",
    multiple=True,
    metavar="GROUPS",
    default=("team,model",),
    show_default=True,
    callback=lambda _context, _parameter, given: ",".join(given),
    help=f"A row for each: any of {', '.join(GROUPS)}, with commas or several times.",
)
@click.option("--sort", metavar="FIGURE", help="The largest first: usd, or another figure by its name in JSON.")
@click.option("--top", metavar="N", help="Only the first N rows; by usd unless --sort names another figure.")
@csv_option
@click.option("--focus", "as_focus", is_flag=True, help="As CSV of FinOps FOCUS 1.2, a row for each day.")
@json_option
@click.pass_context
def usage(
    context: click.Context,
    /,
    config: str,
    demo: str | None,
    final: bool,
    as_csv: bool,
    as_focus: bool,
    as_json: bool,
    **query: str | None,
) -> None:
    """Show tokens, requests and cost from the ledger.

    Cached tokens and cache writes are parts of the input, reasoning is a part of the output. Estimated tokens are those
    that no model server reported. Days begin in the configuration's time zone. The total is that of all rows, also of
    those that are not shown.
    """
    if as_csv + as_focus + as_json > 1:
        raise click.UsageError("--csv, --focus and --json cannot be combined.")
    if final and not query["month"]:
        raise click.UsageError("--final closes a month: name it with --month, such as --month 2026-10.")
    if as_focus:
        _refuse_beside_focus(context)
        query["by"] = ",".join(GROUPED_BY)
    settings = settings_or_end(config, demo)
    report = report_or_end("usage", settings, query, closes_month=final)
    groups = list(dict.fromkeys(name for name in (query["by"] or "").split(",") if name))
    if as_focus:
        _write_focus(focus_rows(report, settings.timezone))
    elif as_json:
        show_json(report)
    elif as_csv:
        show_csv_objects([*groups, *USAGE_HEADINGS], report["rows"])
    else:
        _show_table(report, groups)
    if "month" in report and not as_json:
        _say_whether_final(report["month"])
    if not report["rows"] and demo is None:
        for hint in hints_at_names(query, settings):
            click.echo(hint, err=True)


def hints_at_names(query: Mapping[str, str | None], settings: Settings) -> Iterator[str]:
    """If a report has no rows: what is wrong with those of its names that the configuration does not have. They are no
    error, because the ledger still has the teams, models and upstreams of earlier configurations."""
    aliases = {alias: name for name, model in settings.models.items() for alias in model.aliases}
    known: dict[str, Collection[str]] = {
        "team": settings.teams,
        "model": settings.models,
        "upstream": settings.upstreams,
    }
    for what, names in known.items():
        name = query[what]
        if not name or name in names:
            continue
        if what == "model" and name in aliases:
            yield f"{name!r} is another name of the model {aliases[name]!r}, under which its usage is."
        else:
            meant = closest(name, names)
            yield f"The configuration has no {what} {name!r}." + (f" Did you mean {meant}?" if meant else "")
    if (key := query["key"]) and not re.fullmatch(HOLDER_ID, key):
        yield f"{key!r} is not the id of a key: `gateway keys list` shows the ids."


def _refuse_beside_focus(context: click.Context) -> None:
    for name in ("by", "sort", "top"):
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--focus has rows of its own: leave --{name} out.")


def _say_whether_final(month: dict[str, Any]) -> None:
    what = "is final: it does not change any more" if month["final"] else "is not final: more may be added to it"
    click.echo(f"{month['name']} {what}.", err=True)


def _write_focus(rows: Iterable[dict[str, str]]) -> None:
    """Names as they are: programs read it and compare them, and callers choose none of them."""
    writer = csv.DictWriter(sys.stdout, FOCUS_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def _show_table(report: dict[str, Any], groups: list[str]) -> None:
    if not report["rows"]:
        click.echo("Nothing was used.")
        return
    total = report["total"]
    shown = [name for name in USAGE_HEADINGS if name in _ALWAYS or total[name]]
    rows: list[Row] = [[row[name] for name in (*groups, *shown)] for row in report["rows"]] if groups else []
    blanks = ["total", *[""] * (len(groups) - 1)] if groups else []
    rows.append([*blanks, *(total[name] for name in shown)])
    click.echo(table([*groups, *(USAGE_HEADINGS[name] for name in shown)], rows))
