"""What `gateway serve --demo` and `--upstream` print: commands to paste, in lines of at most 80 columns unless a
model's name is longer.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import click

from gateway.app.loaded_snapshot import LoadedSnapshot
from gateway.app.process_settings import ProcessSettings
from gateway.core.address import Address
from gateway.settings.demo_credentials import DEMO_ADMIN_TOKEN

_DEMO_ADMIN = Address("127.0.0.1", 9090)


def show_how(key: str, admin_token: str, loaded: LoadedSnapshot, data: Address, admin: Address) -> None:
    data, admin = data.from_here, admin.from_here
    # An alias has the model that it is of.
    models = list(dict.fromkeys(model.name for model in loaded.snapshot.models.values()))
    more = f" (and {len(models) - 1} more)" if len(models) > 1 else ""
    click.echo(f"\nThe gateway serves {models[0]}{more}\nat http://{data}/v1 with the key {key}\n")
    click.echo(f"A plain answer:\n\n{_curl(data, key, models[0], {})}\n")
    click.echo(f"A streamed one:\n\n{_curl(data, key, models[0], {'stream': True})}\n")
    environment = _environment(data, key, models[0])
    click.echo(f"For clients of OpenAI's and Anthropic's APIs (docs/clients/):\n\n{environment}\n")
    if admin_token == DEMO_ADMIN_TOKEN:
        program, address = _program(), "" if admin == _DEMO_ADMIN else f" {admin}"
        reports = "\n".join(f"{program} {report} --demo{address}" for report in ("usage", "limits"))
        click.echo(f"Usage and limits:\n\n{reports}\n")
    click.echo(f"In a browser: http://{admin}/console with the admin token\n{admin_token}")
    click.echo(f"and http://{data}/me with the key\n")
    click.echo(f"Metrics: curl -s http://{admin}/metrics    To stop: Ctrl-C\n")


def show_drain(in_flight: int, settings: ProcessSettings) -> None:
    """On standard error, since standard output is the log."""
    if in_flight:
        what = "1 request" if in_flight == 1 else f"{in_flight} requests"
        minutes = settings.drain.timeout.total_seconds() / 60
        click.echo(f"\nWaiting up to {minutes:g} minutes for {what} to finish. Ctrl-C again stops at once.", err=True)


def _program() -> str:
    """How the shell finds this command again."""
    if shutil.which("gateway"):
        return "gateway"
    started = Path(sys.argv[0])
    return shlex.quote(str(started)) if started.name == "gateway" else f"{shlex.quote(sys.executable)} -m gateway"


def _curl(data: Address, key: str, model: str, more: dict[str, Any]) -> str:
    first = json.dumps({"model": model, **more}, ensure_ascii=False).removesuffix("}")
    messages = json.dumps([{"role": "user", "content": "Say hello."}])
    body = shlex.quote(f'{first},\n       "messages": {messages}}}')
    return (
        f"curl -sN http://{data}/v1/chat/completions \\\n  -H 'Authorization: Bearer {key}' \\\n"
        f"  -H 'Content-Type: application/json' \\\n  -d {body}"
    )


def _environment(data: Address, key: str, model: str) -> str:
    """Claude Code asks for models of Anthropic's unless both of its variables name another."""
    named = {
        "OPENAI_BASE_URL": f"http://{data}/v1",
        "OPENAI_API_KEY": key,
        "ANTHROPIC_BASE_URL": f"http://{data}",
        "ANTHROPIC_API_KEY": key,
        "ANTHROPIC_MODEL": model,
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": model,
    }
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in named.items())
