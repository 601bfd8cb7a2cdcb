"""`gateway init`: writes a first configuration, and an environment file with new credentials."""

from __future__ import annotations

import json
import os
import shlex
from importlib.resources import files
from pathlib import Path

import click

from gateway.identity.administration import new_key
from gateway.settings.schema import json_schema

_ENVIRONMENT = """\
# What {file} takes from the environment. It has credentials: keep it out of version control.
# Load it into a shell: set -a; . ./.env; set +a

# The key that clients send.
INDUCTA_API_KEY={key}
# The token of the admin API and of commands that ask the running gateway.
GATEWAY_ADMIN_TOKEN={token}
# The model server and its key. This one is `gateway demo-upstream --port 9000`.
UPSTREAM_URL=http://127.0.0.1:9000/v1
UPSTREAM_API_KEY=
"""

_NEXT_STEPS = """\
Wrote {file}, .env with a new key for clients and a token for the admin
API, and gateway.schema.json, with which editors complete {file}.

1. Load .env into this shell and check the configuration:

{folder}set -a; . ./.env; set +a
gateway check -c {file}

2. Start a scripted model server to try it with, or put the address of your own
   into UPSTREAM_URL and its models into {file}:

gateway demo-upstream --port 9000 &

3. Start the gateway:

gateway serve -c {file}

4. Ask it, from a shell that has loaded .env:

curl -sN http://127.0.0.1:8080/v1/chat/completions \\
  -H "Authorization: Bearer $INDUCTA_API_KEY" \\
  -H 'Content-Type: application/json' \\
  -d '{{"model": "openai/gpt-oss-120b", "stream": true,
       "messages": [{{"role": "user", "content": "Say hello."}}]}}'
"""


@click.command(epilog="Example: gateway init my-gateway")
@click.argument("place", metavar="[FOLDER|FILE]", default=".", type=click.Path(path_type=Path))
def init(place: Path) -> None:
    """Write a first configuration, its .env and its schema.

    FOLDER gets gateway.yaml, .env and gateway.schema.json. It is created if it is missing; the default is the current
    folder. A FILE that ends in .yaml or .yml names the configuration, and the others are beside it. Existing
    files are never overwritten. The key and the admin token in .env are new ones, and only its owner may read it.
    """
    folder, name = (place.parent, place.name) if place.suffix in (".yaml", ".yml") else (place, "gateway.yaml")
    starter = (files(__package__) / "starter.yaml").read_text(encoding="utf-8")
    environment = _ENVIRONMENT.format(key=new_key(), token=new_key(), file=name)
    schema = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    contents = {
        folder / name: (starter, 0o644),
        folder / ".env": (environment, 0o600),
        folder / "gateway.schema.json": (schema, 0o644),
    }
    existing = [str(path) for path in contents if os.path.lexists(path)]
    if existing:
        raise click.ClickException(
            f"{' and '.join(existing)} exist{'s' if len(existing) == 1 else ''}. Nothing was written."
            " Name another folder: gateway init FOLDER"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, (text, mode) in contents.items():
            _create(path, text, mode)
    except OSError as error:
        raise click.ClickException(f"{error.filename} cannot be written: {error.strerror}.") from None
    enter = "" if folder == Path() else f"cd {shlex.quote(str(folder))}\n"
    click.echo(_NEXT_STEPS.format(folder=enter, file=shlex.quote(name)), nl=False)


def _create(path: Path, text: str, mode: int) -> None:
    """The file has its mode from its creation on: no other user can open it before."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
        file.write(text)
