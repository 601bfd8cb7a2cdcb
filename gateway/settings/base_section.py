"""What every group of settings has in common.

A section is frozen, refuses unknown names, describes each of its settings, and knows its path in the file, so that
checks across sections can name a line.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, model_validator

from gateway.settings.diagnostics import Path
from gateway.settings.document import DocumentMapping

REQUIRED: Any = ...


def setting(default: Any, means: str, **constraints: Any) -> Any:
    """A setting: its default as one would write it in the file, and what it means."""
    return Field(default=default, description=means, **constraints)


class BaseSection(BaseModel):
    """A setting that is nothing (`limits:` and no more) counts as left out.

    pydantic builds a section's validator when the section is first checked by itself. Most are only checked as a part
    of the whole configuration, and its one validator covers them: one for each section as well would take 1 MiB more.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=True, defer_build=True
    )

    @cached_property
    def path(self) -> Path:
        """Its path in the file; empty for settings built in code."""
        return ()

    @classmethod
    def filled(cls, written: dict[Any, Any]) -> dict[Any, Any]:
        """What was written, with defaults that depend on it."""
        return written

    @model_validator(mode="wrap")
    @classmethod
    def _place(cls, given: Any, build: ModelWrapValidatorHandler[Self]) -> Self:
        written = {} if given is None else given
        if isinstance(written, dict):
            if None in written.values():
                names = cls.model_fields
                written = {name: value for name, value in written.items() if value is not None or name not in names}
            written = cls.filled(written)
        section = build(written)
        if isinstance(given, DocumentMapping):
            # As if it were computed already: a private attribute of pydantic's costs ten times as much.
            section.__dict__["path"] = given.path
        return section
