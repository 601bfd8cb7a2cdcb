"""Finds the end user of a request: the person or program behind the caller, whom `user_limits` bind.

The first of these that is present counts, from what is proved to what is only claimed:

1. the claim of a token (`jwt.user`), which the caller cannot choose;
2. the header of the team's own service (`end_user.header`);
3. the body: `user`, then `safety_identifier`; in Anthropic's API `metadata.user_id`.

A caller can invent names. So each process counts at most `end_user.most` end users of a team a day; all others share
the counters of `OTHER_USERS`. Names that tokens prove are not counted: an identity provider has only so many people.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from gateway.core.calendar import DAY_MS
from gateway.core.errors import FieldInvalid

OTHER_USERS = "(others)"
"""The end user that represents all those beyond `end_user.most`."""

USER_CHARACTERS = 512
"""The longest name."""

MOST_USERS = 10_000
"""The default of `end_user.most`."""


_CLAUDE_CODE = re.compile(r"user_([0-9a-f]{1,128})_account_([0-9A-Za-z-]{0,64})_session_[0-9A-Za-z-]{1,64}")
"""What Claude Code before 2.1.78 sends in `metadata.user_id`."""


class EndUserRule(msgspec.Struct, frozen=True):
    """The settings of a team. `header` is in lower case, and empty if no header is trusted."""

    header: str = ""
    required: bool = False
    most: int = MOST_USERS


class _ClaudeCodeUser(msgspec.Struct):
    """What Claude Code sends from 2.1.78 on, as JSON in the text."""

    account_uuid: str | None = None
    device_id: str | None = None


def account_in(user_id: str) -> str:
    """The account in Claude Code's `metadata.user_id`, or else the device: the text also names the session, so that
    each session would be another user. Any other text is returned unchanged."""
    if user_id.startswith("user_") and (old := _CLAUDE_CODE.fullmatch(user_id)):
        return old[2] or old[1]
    if user_id.startswith("{"):
        try:
            user = msgspec.json.decode(user_id, type=_ClaudeCodeUser)
        except (msgspec.DecodeError, RecursionError):
            return user_id
        return user.account_uuid or user.device_id or user_id
    return user_id


def user_in_header(rule: EndUserRule, headers: Mapping[str, str]) -> str:
    """The end user that the team's service names, or an empty text. Raises FieldInvalid for a name that is too long."""
    if not rule.header:
        return ""
    user = headers.get(rule.header, "").strip()
    if len(user) > USER_CHARACTERS:
        raise FieldInvalid(
            f"The header {rule.header!r} names the end user and has at most {USER_CHARACTERS} characters.",
            param=rule.header,
        )
    return user if user.isascii() else user.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def unnamed_user(rule: EndUserRule) -> str:
    """The end user of a request that names none, an empty text. Raises FieldInvalid where the team must name one."""
    if not rule.required:
        return ""
    how = f"Send the header {rule.header!r}, or" if rule.header else "Send"
    raise FieldInvalid(
        f"Requests of this team must name their end user. {how} 'user' in the body"
        " ('metadata.user_id' in Anthropic's API).",
        param="user",
    )


class EndUserCounts:
    """The end users of each team today (in UTC), as far as each has its own counters."""

    def __init__(self) -> None:
        self._day = 0
        self._seen: dict[str, set[str]] = {}

    def counted_as(self, user: str, team: str, most: int, now_ms: int) -> str:
        """The user whose counters a request is charged to: itself, or OTHER_USERS."""
        day = now_ms // DAY_MS
        if day != self._day:
            self._day = day
            self._seen.clear()
        seen = self._seen.setdefault(team, set())
        if user not in seen:
            if len(seen) >= most:
                return OTHER_USERS
            seen.add(user)
        return user
