"""How one process of the gateway starts another: the same program, with a value as JSON in its last argument."""

from __future__ import annotations

import sys
from typing import Any

import click
import msgspec


def program() -> list[str]:
    """The command that started this process, without what was given to it: the same Python, the same code."""
    return [sys.executable, *sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv) + 1]]


class JsonArgument(click.ParamType[Any]):
    """An argument that is a value of this kind, as JSON."""

    name = "json"

    def __init__(self, kind: Any) -> None:
        self._kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return msgspec.json.decode(value, type=self._kind)
        except msgspec.DecodeError as error:
            self.fail(str(error), param, ctx)


def json_argument(value: Any) -> str:
    return msgspec.json.encode(value).decode()
