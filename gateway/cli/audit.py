"""`gateway audit`: who changed what, and when."""

from __future__ import annotations

import json

import click

from gateway.cli.administration import all_pages
from gateway.cli.config_option import config_option
from gateway.cli.output import Row, csv_option, json_option, refuse_both, show_listing, time_cell
from gateway.core.json_object import JsonObject

_HEADINGS = ("at", "who", "did", "to", "before", "after")


@click.command(epilog="Example: gateway audit --last 20")
@config_option
@click.option(
    "--last", metavar="N", type=click.IntRange(1, 10_000), default=100, show_default=True, help="How many changes."
)
@csv_option
@json_option
def audit(config: str, last: int, as_csv: bool, as_json: bool) -> None:
    """Show who changed keys and the configuration.

    The newest change is first. The store keeps the last 10,000; the log has all. Times are in UTC. The table shows what
    differs; --json and --csv have the whole entry.
    """
    refuse_both(as_csv=as_csv, as_json=as_json)
    found = all_pages(config, "audit", {}, last)
    rows = [_row(each, *((each["before"], each["after"]) if as_csv else _difference(each))) for each in found]
    report = {"data": found, "next": None}
    show_listing(report, _HEADINGS, rows, as_csv=as_csv, as_json=as_json, empty="No change is recorded.")


def _row(entry: JsonObject, before: JsonObject | None, after: JsonObject | None) -> Row:
    texts = ["" if not part else json.dumps(part, ensure_ascii=False) for part in (before, after)]
    return [time_cell(entry["at"]), entry["actor"], entry["action"], entry["subject"], *texts]


def _difference(entry: JsonObject) -> tuple[JsonObject, JsonObject]:
    before, after = entry["before"] or {}, entry["after"] or {}
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    if not before:
        return {}, {name: after[name] for name in names if after[name] not in (None, [], {})}
    return {name: before.get(name) for name in names}, {name: after.get(name) for name in names}
