"""Responses and conversations of the Responses API that an upstream keeps, by the id that it gave them.

An id belongs to the team whose request made it. Requests with the id go to the upstream that has it.
"""

from __future__ import annotations

import re
from enum import StrEnum

import msgspec

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,255}")


class ObjectKind(StrEnum):
    RESPONSE = "response"
    CONVERSATION = "conversation"


class ObjectName(msgspec.Struct, frozen=True):
    """`id` is what a client says it is."""

    kind: ObjectKind
    id: str


class StoredObject(msgspec.Struct, frozen=True):
    """`model` is the name that clients know, of the model that made it."""

    name: ObjectName
    team: str
    upstream: str
    model: str


def is_object_id(text: object) -> bool:
    """Whether an id can be in a path. One that no server gives belongs to no team."""
    return isinstance(text, str) and _ID.fullmatch(text) is not None
