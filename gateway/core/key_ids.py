"""The ids by which logs, reports, counters and operators know keys and tokens, without the secret."""

from __future__ import annotations

_DIGITS = 12

KEY_ID = f"[0-9a-f]{{{_DIGITS}}}"
"""The pattern of a key's id."""

JWT_IDS = "jwt-"
"""The beginning of what tokens have in place of a key's id."""

HOLDER_ID = f"{KEY_ID}|{JWT_IDS}[0-9a-f]{{8}}"
"""The pattern of the id of a key, or of the tokens of an identity provider whose bearers may do the same."""


def key_id_of(sha256: str) -> str:
    """The id of the key with this digest, which is written in hexadecimal digits."""
    return sha256[:_DIGITS]
