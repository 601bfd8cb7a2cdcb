"""What every group of settings has in common: it is frozen, refuses unknown keys, describes each of
its settings, and knows where in the file it stands, so that checks across groups can say so too.
"""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, PrivateAttr, model_validator

from gateway.settings.problems import Path

REQUIRED: Any = ...


def setting(default: Any, means: str, **constraints: Any) -> Any:
    """A setting: its default as one would write it in the file, and what it means."""
    return Field(default=default, description=means, **constraints)


class Section(BaseModel):
    """A setting that is nothing (`limits:` and no more) counts as left out."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=True)

    _path: Path = PrivateAttr(default=())

    @property
    def path(self) -> Path:
        """Where it stands in the file; empty for settings built in code."""
        return self._path

    @classmethod
    def filled(cls, written: dict[Any, Any]) -> dict[Any, Any]:
        """What was written, with defaults that depend on it."""
        return written

    @model_validator(mode="wrap")
    @classmethod
    def _place(cls, given: Any, build: ModelWrapValidatorHandler[Self]) -> Self:
        written = {} if given is None else given
        if isinstance(written, dict):
            names = cls.model_fields
            written = {name: value for name, value in written.items() if value is not None or name not in names}
            written = cls.filled(written)
        section = build(written)
        if hasattr(given, "path") and not isinstance(given, cls):
            section._path = given.path
        return section
