"""`gateway losses`: what was lost or is at risk, in the last 24 hours and since counting began."""

from __future__ import annotations

from collections.abc import Iterator

import click

from gateway.cli.administration import ask_once
from gateway.cli.config_option import config_option
from gateway.cli.configuration import demo_option
from gateway.cli.output import Row, json_option, show_json, table, time_cell
from gateway.core.json_object import JsonObject
from gateway.web.admin_losses import LIST

_HEADINGS = ("what", "is", "last 24 h", "in all", "last at")


@click.command(epilog="Example: gateway losses")
@config_option
@demo_option
@json_option
def losses(config: str, demo: str | None, as_json: bool) -> None:
    """Show what was lost or is at risk.

    Settlements, notifications, records, log lines and spans that were lost; streams that broke; settlements that
    wait; outages of the store; estimated usage. Reads the store, where every gateway counts, and asks every process;
    with memory:// the running gateway.
    """
    report = ask_once(config, "GET", LIST, demo=demo)
    if as_json:
        show_json(report)
        return
    for line in _verdict(report):
        click.echo(line)
    if rows := [_row(kind) for kind in report["data"] if kind["total"]]:
        click.echo(table(_HEADINGS, rows))
    if report["problem"]:
        click.echo(report["problem"], err=True)


def _verdict(report: JsonObject) -> Iterator[str]:
    lost = [f"{kind['what'].lower()} ({kind['last_day']:,})" for kind in report["data"] if _is_lost_today(kind)]
    if lost:
        yield f"Lost in the last 24 hours: {', '.join(lost)}."
    elif report["lost"]["total"]:
        yield f"Nothing was lost in the last 24 hours. What was lost before, since {_time(report['counted_since'])}:"
    else:
        yield f"Nothing was lost since {_time(report['counted_since'])}."
    waiting, store, charged = report["waiting"], report["store"], report["charged_tokens"]["last_day"]
    if waiting["highest"]:
        most = f"{waiting['highest']:,} at once at most, in the ten minutes from {_time(waiting['highest_at'])}"
        yield f"Settlements that wait: {waiting['now']:,} now, {most}."
    if report["journal_fails"]:
        yield "A journal cannot be written: what waits there is only in memory, and ends with its process."
    if store["problem"]:
        yield f"The store {store['problem'].rstrip('.')}."
    if store["times"]:
        last = _time(store["times"][-1]["at"])
        yield f"The store did not answer for {store['out_s']:,} s in the last 24 hours, last at {last}."
    estimated = next(kind["last_day"] for kind in report["data"] if kind["kind"] == "estimated_tokens")
    if estimated:
        yield f"Of {charged:,} tokens in the last 24 hours {estimated / charged:.1%} are estimated."


def _is_lost_today(kind: JsonObject) -> bool:
    return bool(kind["class"] == "lost" and kind["last_day"])


def _row(kind: JsonObject) -> Row:
    last_at = _time(kind["last_at"]) if kind["last_at"] else ""
    return [kind["what"], kind["class"], kind["last_day"], kind["total"], last_at]


def _time(written: str) -> str:
    """To the minute: what is counted is known by ten of them."""
    return time_cell(written)[:16] + " UTC"
