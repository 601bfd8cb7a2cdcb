"""`gateway demo-upstream`: the scripted upstream alone, for tests, demonstrations and benchmarks."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any, get_type_hints

import click
import msgspec
import uvloop

from gateway.demo.script import DemoScript
from gateway.demo.server import DEFAULT_MODEL, DemoUpstream

EXAMPLE = "Example: gateway demo-upstream --port 9000 --tokens-per-second 50 --usage never"


def _flags() -> list[click.Option]:
    """One flag for each field of the script, with the field's description as its help."""
    described = get_type_hints(DemoScript, include_extras=True)
    return [_flag(field, described[field.name]) for field in msgspec.structs.fields(DemoScript)]


def _flag(field: msgspec.structs.FieldInfo, described: Any) -> click.Option:
    name = "--" + field.name.replace("_", "-")
    text = next(note.description for note in described.__metadata__ if note.description)
    if field.type is bool or field.default is False:
        return click.Option([name], is_flag=True, default=None, help=text)
    return click.Option([name], help=text, metavar=_metavar(field.name))


def _metavar(name: str) -> str:
    return name.rpartition("_")[2].upper()


def script_from(given: dict[str, Any]) -> DemoScript:
    """The script that these flags describe. Raises click.BadParameter."""
    pace, body = given.pop("tokens_per_second", None), given.pop("body", None)
    changes = {name: _value(text) for name, text in given.items() if text is not None}
    if body is not None:
        changes["body"] = _body(body)
    if pace:
        changes["chunk_delay_ms"] = 1000 / pace
    try:
        return msgspec.convert(changes, DemoScript, strict=False)
    except msgspec.ValidationError as error:
        raise click.BadParameter(str(error)) from error


def _body(text: str) -> str:
    """The text itself or, after an @, the content of a file, byte for byte."""
    if not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"{text[1:]} cannot be read as UTF-8: {error}", param_hint="--body") from error


def _value(text: str | bool) -> Any:
    """What is JSON is read as JSON, everything else is text."""
    if isinstance(text, bool):
        return text
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


@click.command("demo-upstream", epilog=EXAMPLE)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=9000,
    show_default=True,
    help="The port to listen on; 0 takes a free one.",
)
@click.option("--model", "models", multiple=True, default=(DEFAULT_MODEL,), show_default=True, help="A model to list.")
@click.option("--seed", default=0, show_default=True, help="Seed of random failures and pieces.")
@click.option(
    "--tokens-per-second", type=click.FloatRange(min=0, min_open=True), help="Another way to say chunk delay."
)
def demo_upstream(host: str, port: int, models: tuple[str, ...], seed: int, **script: Any) -> None:
    """Serve an OpenAI-compatible API that plays a script.

    A request changes the script for itself with an object `demo` in its JSON body. GET /__truth shows what was
    really served, DELETE /__truth forgets it, POST /__script sets another script.
    """
    uvloop.run(_serve(DemoUpstream(script_from(script), models=models, host=host, port=port, seed=seed)))


demo_upstream.params += _flags()


async def _serve(upstream: DemoUpstream) -> None:
    stopped = asyncio.Event()
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signal_number, stopped.set)
    try:
        await upstream.start()
    except OSError as error:
        raise click.ClickException(
            f"{upstream.host}:{upstream.port} cannot be listened on: {error.strerror}"
        ) from error
    click.echo(f"The demo upstream listens on {upstream.base_url}")
    await stopped.wait()
    await upstream.stop()
