"""`gateway schema`: the JSON Schema of the configuration."""

from __future__ import annotations

import json

import click

from gateway.settings.schema import json_schema


@click.command(epilog="Example: gateway schema > gateway.schema.json")
def schema() -> None:
    """Print the JSON Schema of the configuration.

    It is for editors and for other programs. An editor with a YAML language server uses it where a
    configuration begins with the line

    \b
    # yaml-language-server: $schema=gateway.schema.json
    """
    click.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))
