"""`gateway keys`: manages the keys in the store. A change counts in every gateway at once, without a reload."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import click

from gateway.cli.administration import Ask, administer, all_pages, ask_once
from gateway.cli.config_option import config_option
from gateway.cli.output import (
    WHOLE,
    Row,
    csv_option,
    json_option,
    refuse_both,
    show_json,
    show_listing,
    table,
    team_option,
    time_cell,
)
from gateway.core.json_object import JsonObject
from gateway.core.key_ids import KEY_ID
from gateway.identity.administration import IMPORTED_MAX
from gateway.identity.key_listing import STATUSES

_HEADINGS = ("id", "name", "team", "status", "source", "models", "limits", "expires at", "last used at")
_CHANGED = {
    "name": "name",
    "expires": "expires_at",
    "models": "models",
    "network": "networks",
    "limit": "limits",
    "metadata": "metadata",
}
"""What options change, as the admin API names it."""

_CLEARED = {
    "expires": "expires_at",
    "models": "models",
    "networks": "networks",
    "limits": "limits",
    "metadata": "metadata",
}

_LIMIT = re.compile(r"(?P<meter>[a-z_]+)=(?P<amount>[0-9_.]+)(/(?P<per>[a-z]+))?")


@click.group(epilog="Example: gateway keys create --team search --name search-prod --expires 90d")
def keys() -> None:
    """Create, list and revoke keys while gateways run.

    These keys are in the store, in addition to those in the configuration. With a store in Redis no gateway
    needs to run; with memory:// the command asks the running gateway at its admin listener.
    """


def _limit(_context: click.Context, _parameter: click.Parameter, given: tuple[str, ...]) -> list[JsonObject]:
    limits: list[JsonObject] = []
    for text in given:
        parts = _LIMIT.fullmatch(text)
        if parts is None:
            raise click.BadParameter("must be METER=AMOUNT/WINDOW such as requests=60/minute, or concurrent=8")
        amount = parts["amount"].replace("_", "")
        number: Any = int(amount) if amount.isdecimal() else amount
        limits.append({parts["meter"]: number} | ({"per": parts["per"]} if parts["per"] else {}))
    return limits


def _metadata(_context: click.Context, _parameter: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    pairs = [text.partition("=") for text in given]
    if any(not equals for _, equals, _ in pairs):
        raise click.BadParameter("must be NAME=TEXT such as owner=alice")
    names = [name for name, _, _ in pairs]
    if len(set(names)) < len(names):
        raise click.BadParameter("has a name twice")
    return {name: text for name, _, text in pairs}


_limit_option = click.option(
    "--limit", metavar="LIMIT", multiple=True, callback=_limit, help="A limit on the key, such as requests=60/minute."
)
_metadata_option = click.option("--metadata", metavar="NAME=TEXT", multiple=True, callback=_metadata, help="A note.")


@keys.command(epilog="Example: gateway keys create --team search --name batch --limit requests=60/minute")
@config_option
@click.option("--team", metavar="TEAM", required=True, help="Its team: one of the configuration.")
@click.option("--name", metavar="NAME", required=True, help="Its name in logs and reports.")
@click.option("--expires", metavar="WHEN", help="90d, 2027-01-01 or 2027-01-01T18:00:00Z. Default: never.")
@click.option(
    "--models", metavar="GLOB", multiple=True, help="Models that it may use. Default: all models of its team."
)
@click.option("--network", metavar="CIDR", multiple=True, help="Addresses that it may be used from. Default: all.")
@_limit_option
@_metadata_option
@json_option
def create(config: str, expires: str | None, as_json: bool, **given: Any) -> None:
    """Make a key and print it, once: only its hash is kept."""
    body = {"team": given["team"], "name": given["name"], "limits": given["limit"], "metadata": given["metadata"]}
    if expires is not None:
        body["expires_at"] = expires
    if given["models"]:
        body["models"] = list(given["models"])
    if given["network"]:
        body["networks"] = list(given["network"])
    _show_made(ask_once(config, "POST", "keys", body=body), as_json)


@keys.command(epilog="Example: gateway keys change 3f2a9c0b71de --limit requests=120/minute --clear expires")
@config_option
@click.argument("key_id", metavar="ID")
@click.option("--name", metavar="NAME", help="Its name in logs and reports.")
@click.option("--expires", metavar="WHEN", help="90d, 2027-01-01 or 2027-01-01T18:00:00Z.")
@click.option("--models", metavar="GLOB", multiple=True, help="Models that it may use.")
@click.option("--network", metavar="CIDR", multiple=True, help="Addresses that it may be used from.")
@_limit_option
@_metadata_option
@click.option("--clear", type=click.Choice(tuple(_CLEARED)), multiple=True, help="Reset this to what a new key has.")
@json_option
def change(config: str, key_id: str, clear: tuple[str, ...], as_json: bool, **given: Any) -> None:
    """Change a key. Each option replaces the whole value of its setting; all others stay.

    A change counts in every gateway within a second. A limit that keeps its name keeps what was used.
    """
    body: JsonObject = {_CLEARED[name]: None for name in clear}
    for option, member in _CHANGED.items():
        if given[option]:
            if member in body:
                raise click.UsageError(f"--{option} and --clear cannot be combined here.")
            body[member] = list(given[option]) if isinstance(given[option], tuple) else given[option]
    if not body:
        raise click.UsageError("Nothing is to be changed: name at least one option.")
    _show(ask_once(config, "PATCH", _path(key_id), body=body), as_json)


@keys.command("list", epilog="Example: gateway keys list --team search --unused 30d")
@config_option
@team_option
@click.option("--status", type=click.Choice(STATUSES), help="Only those with this status.")
@click.option(
    "--source", type=click.Choice(["config", "store"]), help="Only keys of the file, or only keys of the store."
)
@click.option("--unused", metavar="DAYS", help="Only keys that were not used for so long, such as 30d.")
@csv_option
@json_option
def list_keys(config: str, as_csv: bool, as_json: bool, **query: str | None) -> None:
    """List keys, in the order in which they were made."""
    refuse_both(as_csv=as_csv, as_json=as_json)
    found = all_pages(config, "keys", {name: text for name, text in query.items() if text is not None})
    rows = [_row(key) for key in found]
    report = {"data": found, "next": None}
    show_listing(report, _HEADINGS, rows, as_csv=as_csv, as_json=as_json, empty="There are no such keys.")


@keys.command(epilog="Example: gateway keys show 3f2a9c0b71de")
@config_option
@click.argument("key_id", metavar="ID")
@json_option
def show(config: str, key_id: str, as_json: bool) -> None:
    """Show one key."""
    _show(ask_once(config, "GET", _path(key_id)), as_json)


@keys.command(epilog="Example: gateway keys disable 3f2a9c0b71de")
@config_option
@click.argument("key_id", metavar="ID")
@json_option
def disable(config: str, key_id: str, as_json: bool) -> None:
    """Refuse a key until it is enabled again."""
    _show(ask_once(config, "PATCH", _path(key_id), body={"disabled": True}), as_json)


@keys.command(epilog="Example: gateway keys enable 3f2a9c0b71de")
@config_option
@click.argument("key_id", metavar="ID")
@json_option
def enable(config: str, key_id: str, as_json: bool) -> None:
    """Accept a disabled key again."""
    _show(ask_once(config, "PATCH", _path(key_id), body={"disabled": False}), as_json)


@keys.command(epilog="Example: gateway keys revoke 3f2a9c0b71de")
@config_option
@click.argument("key_id", metavar="ID")
@json_option
def revoke(config: str, key_id: str, as_json: bool) -> None:
    """Refuse a key permanently, in every gateway within a second."""
    _show(ask_once(config, "DELETE", _path(key_id)), as_json)


@keys.command(epilog="Example: gateway keys rotate 3f2a9c0b71de --overlap 24h")
@config_option
@click.argument("key_id", metavar="ID")
@click.option("--overlap", metavar="TIME", default="24h", show_default=True, help="How long the old key still works.")
@click.option("--expires", metavar="WHEN", help="Expiry of the new key. Default: that of the old key.")
@json_option
def rotate(config: str, key_id: str, overlap: str, expires: str | None, as_json: bool) -> None:
    """Make a key that replaces another, and print it, once.

    Both keys share the counters of their limits. After a leak, end the old key at once: --overlap 0s.
    """
    body = {"overlap": overlap} | ({"expires_at": expires} if expires is not None else {})
    _show_made(ask_once(config, "POST", f"{_path(key_id)}/rotate", body=body), as_json)


@keys.command("export", epilog="Example: gateway keys export > keys.json")
@config_option
@team_option
def export_keys(config: str, team: str | None) -> None:
    """Print keys and their hashes as JSON, for `gateway keys import`.

    The keys are those of the store; another store imports them.
    """
    show_json({"keys": all_pages(config, "keys/export", {"team": team} if team else {})})


@keys.command("import", epilog="Example: gateway keys import keys.json")
@config_option
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True), metavar="FILE")
@json_option
def import_keys(config: str, file: str, as_json: bool) -> None:
    """Import the keys that `gateway keys export` prints.

    FILE - is standard input. Existing keys stay as they are.
    """
    given = _read_export(file)

    async def work(ask: Ask) -> JsonObject:
        done: JsonObject = {"imported": [], "skipped": []}
        for at in range(0, len(given), IMPORTED_MAX):
            page = await ask("POST", "keys/import", body={"keys": given[at : at + IMPORTED_MAX]})
            done = {name: done[name] + page[name] for name in done}
        return done

    done = administer(config, work)
    if as_json:
        show_json(done)
    else:
        click.echo(f"Imported {len(done['imported'])} keys; {len(done['skipped'])} existed already.")


def _read_export(file: str) -> list[Any]:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
        written = json.loads(text)
    except (OSError, ValueError) as error:
        raise click.BadParameter(f"{file} cannot be read as JSON: {error}", param_hint="FILE") from None
    given = written.get("keys") if isinstance(written, dict) else None
    if not isinstance(given, list):
        raise click.BadParameter(f"{file} is not what `gateway keys export` prints.", param_hint="FILE")
    return given


def _path(key_id: str) -> str:
    if not re.fullmatch(KEY_ID, key_id):
        raise click.BadParameter("must be the id of a key: 12 hexadecimal digits, as `gateway keys list` shows them.")
    return f"keys/{key_id}"


def _show_made(key: JsonObject, as_json: bool) -> None:
    if as_json:
        show_json(key)
        return
    secret = key.pop("key")
    _show(key, as_json=False)
    click.echo("\nThis is the key. It is shown this once, and is not kept anywhere:\n", err=True)
    click.echo(secret)


def _show(key: JsonObject, as_json: bool) -> None:
    if as_json:
        show_json(key)
        return
    shown = dict(zip(_HEADINGS, _row(key), strict=True))
    notes = ", ".join(f"{name}={text}" for name, text in key["metadata"].items())
    shown |= {"networks": ", ".join(key["networks"]), "metadata": notes, "created at": time_cell(key["created_at"])}
    rows = [(name, text) for name, text in shown.items() if text and name != "id"]
    click.echo(table(("key", str(key["id"])), rows, WHOLE))


def _row(key: JsonObject) -> Row:
    limits = ", ".join(limit["name"] for limit in key["limits"])
    named = [key[name] for name in ("id", "name", "team", "status", "source")]
    return [*named, ", ".join(key["models"]), limits, time_cell(key["expires_at"]), time_cell(key["last_used_at"])]
