"""The command line `gateway`. Each command is a module of `cli/`, loaded when it is called for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import click
from click.exceptions import NoArgsIsHelpError

COMMANDS = {
    "init": "gateway.cli.init:init",
    "serve": "gateway.cli.serve:serve",
    "supervise": "gateway.cli.supervise:command",
    "worker": "gateway.cli.worker:worker",
    "check": "gateway.cli.check:check",
    "diff": "gateway.cli.diff:diff",
    "keys": "gateway.cli.keys:keys",
    "audit": "gateway.cli.audit:audit",
    "usage": "gateway.cli.usage:usage",
    "limits": "gateway.cli.limits:limits",
    "explain": "gateway.cli.explain:explain",
    "requests": "gateway.cli.requests:requests",
    "losses": "gateway.cli.losses:losses",
    "upstreams": "gateway.cli.upstreams:upstreams",
    "reload": "gateway.cli.reload:reload",
    "top": "gateway.cli.top:top",
    "notify": "gateway.cli.notify:notify",
    "prices": "gateway.cli.prices:prices",
    "reconcile": "gateway.cli.reconcile:reconcile",
    "schema": "gateway.cli.schema:schema",
    "demo-upstream": "gateway.cli.demo_upstream:demo_upstream",
}


class Commands(click.Group):
    """Loads only the command that is called, so that a running gateway does not hold the others in memory."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command = getattr(import_module(module), name)
        assert isinstance(command, click.Command), f"{COMMANDS[cmd_name]} is no command"
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and (near := get_close_matches(args[0], COMMANDS, n=1)):
            ctx.fail(f"No such command '{args[0]}'. Did you mean {near[0]}?")
        return super().resolve_command(ctx, args)

    def make_context(self, *args: Any, **options: Any) -> click.Context:
        with _usage_errors_in_one_line():
            return super().make_context(*args, **options)

    def invoke(self, ctx: click.Context) -> Any:
        with _usage_errors_in_one_line(ctx):
            try:
                return super().invoke(ctx)
            except UnicodeEncodeError as error:
                if not "\udc80" <= error.object[error.start] <= "\udcff":
                    raise
                raise click.UsageError("An argument is not UTF-8 text.", ctx) from None


class _UsageErrorInOneLine(click.ClickException):
    exit_code = click.UsageError.exit_code


@contextmanager
def _usage_errors_in_one_line(group: click.Context | None = None) -> Iterator[None]:
    """click shows them in four lines. A group without a command still shows its help."""
    try:
        yield
    except NoArgsIsHelpError:
        raise
    except click.UsageError as error:
        message = " ".join(error.format_message().split())
        end = "" if message.endswith((".", "?")) else "."
        command = _called(group) if error.ctx is None else error.ctx.command_path
        raise _UsageErrorInOneLine(f"{message}{end} Help: {command} --help") from None


def _called(group: click.Context | None) -> str:
    """The command of an error that has no context, as those of click's parser: the group knows what it called."""
    return f"gateway {group.invoked_subcommand}" if group and group.invoked_subcommand else "gateway"


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: gateway serve --demo",
)
@click.version_option(package_name="inducta-gateway", prog_name="gateway")
def main() -> None:
    """A gateway between an organisation's programs and its language models."""


if __name__ == "__main__":
    main()
