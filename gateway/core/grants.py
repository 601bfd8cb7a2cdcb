"""Grants: what operators add to a limit for a while.

A grant raises the amount of its limit (of a rate also the size of the bucket) from its creation until its end, by the
store's clock. Grants of one limit add up. A rate refills at the raised pace exactly while the grant lasts, whenever the
counter is read.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

GRANT_ID_BYTES = 6
"""Of a grant's id, so that a store that counts in doubles keeps it exactly."""

GRANT_ID = f"[0-9a-f]{{{2 * GRANT_ID_BYTES}}}"
"""The pattern of a grant's id."""


class Grant(msgspec.Struct, frozen=True):
    """`amount` is in the limit's unit."""

    id: str
    amount: int
    until_ms: int


Grants = tuple[Grant, ...]
"""The grants of one limit, ordered by their end."""


def total(grants: Sequence[Grant]) -> int:
    return sum([grant.amount for grant in grants])


def with_grant(grants: Grants, added: Grant) -> Grants:
    """A grant that exists already is replaced by itself."""
    return tuple(sorted((*without_grant(grants, added), added), key=lambda grant: grant.until_ms))


def without_grant(grants: Grants, removed: Grant) -> Grants:
    return tuple([grant for grant in grants if grant.id != removed.id])


def unended(grants: Grants, now_ms: int) -> Grants:
    return tuple([grant for grant in grants if grant.until_ms > now_ms])
