"""What the claims of a verified token say about its bearer: end user, team, models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.core.end_users import USER_CHARACTERS
from gateway.core.errors import KeyUnknown
from gateway.core.issuers import TokenIssuer

PATTERNS_MAX = 100
PATTERN_CHARACTERS = 256
"""Limits of the claim of models."""


class Bearer(msgspec.Struct, frozen=True):
    """Who has the token. `models` None: all of its team's; in one order, since providers list them in any."""

    user: str
    team: str
    models: tuple[str, ...] | None = None


def bearer(claims: Mapping[str, Any], issuer: TokenIssuer) -> Bearer:
    """The bearer that the claims describe. Raises KeyUnknown, which names the claim that is missing or wrong."""
    return Bearer(_user(claims, issuer.claims.user), _team(claims, issuer), _models(claims, issuer.claims.models))


def _user(claims: Mapping[str, Any], name: str) -> str:
    user = _claim(claims, name)
    if not isinstance(user, str) or not user:
        raise KeyUnknown(
            f"The token does not say whose it is: its claim {name!r} is missing or is not text. Ask your platform team"
            " to have the identity provider add it, or to set `jwt.user` to another claim.",
            why="token_user",
        )
    if len(user) > USER_CHARACTERS:
        message = f"The token's claim {name!r} has more than {USER_CHARACTERS} characters."
        raise KeyUnknown(message, why="token_user")
    # Some providers write it as text.
    if name == "email" and claims.get("email_verified") in (False, "false"):
        raise KeyUnknown(
            "The identity provider has not verified the email address of this token. Verify it there, and get a new"
            " token.",
            why="token_user",
        )
    return user


def _team(claims: Mapping[str, Any], issuer: TokenIssuer) -> str:
    teams = dict(issuer.teams)
    if issuer.claims.team:
        named = _claim(claims, issuer.claims.team)
        if isinstance(named, str) and named:
            return teams.get(named, named)
    groups = _texts(_claim(claims, issuer.claims.groups)) or ()
    for group, team in issuer.teams:
        if group in groups:
            return team
    if not issuer.default_team:
        raise KeyUnknown(
            f"The token is valid, but belongs to no team here: none of its groups (claim {issuer.claims.groups!r}) is"
            " known. Ask your platform team to add one of them to `jwt.teams`.",
            why="token_team",
        )
    return issuer.default_team


def _models(claims: Mapping[str, Any], name: str) -> tuple[str, ...] | None:
    value = _claim(claims, name) if name else None
    if value is None:
        return None
    models = _texts(value)
    if models is None or len(models) > PATTERNS_MAX or any(len(model) > PATTERN_CHARACTERS for model in models):
        raise KeyUnknown(
            f"The token's claim {name!r} must be a list of models, or text with a space between them: at most"
            f" {PATTERNS_MAX}.",
            why="token_models",
        )
    return tuple(sorted(set(models)))


def _texts(value: Any) -> tuple[str, ...] | None:
    """A list of texts, or one text with spaces between them as OAuth writes scopes (RFC 8693, section 4.2)."""
    if isinstance(value, str):
        return (value, *value.split()) if " " in value else (value,)
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return tuple(value)
    return None


def _claim(claims: Mapping[str, Any], name: str) -> Any:
    """A claim by its name, which may contain dots (https://example.com/groups), or else by a path of names
    (realm_access.roles)."""
    if name in claims:
        return claims[name]
    value: Any = claims
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
