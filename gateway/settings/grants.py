"""The JSON that operators write for a grant."""

from __future__ import annotations

from typing import Annotated

from gateway.core.end_users import USER_CHARACTERS
from gateway.settings.base_section import REQUIRED, RequestSection, setting
from gateway.settings.stored_keys import Expiry
from gateway.settings.types import Amount, ModelName, ShortName, text_of

_PRINTABLE = r"[^\x00-\x1f\x7f-\x9f]"

LimitName = Annotated[str, *text_of(_PRINTABLE + "{1,2000}", "must be the name of a limit, such as tokens-per-day")]
EndUserName = Annotated[
    str,
    *text_of(
        f"{_PRINTABLE}{{1,{USER_CHARACTERS}}}", f"must be an end user: 1 to {USER_CHARACTERS} printable characters"
    ),
]
KeyId = Annotated[
    str,
    *text_of(
        "[0-9a-f]{12}|jwt-[0-9a-f]{8}",
        "must be the id of a key: 12 hexadecimal digits, or of tokens: jwt- and 8 hexadecimal digits",
    ),
]
Reason = Annotated[str, *text_of(_PRINTABLE + "{1,500}", "must be 1 to 500 printable characters")]


class GrantSettings(RequestSection):
    """`team`, `key`, `user` and `model` say whose limit it is: none of them, the organisation's."""

    limit: LimitName = setting(REQUIRED, "The name of the limit.")
    team: ShortName | None = setting(None, "The team that has the limit, or whose key or user has.")
    key: KeyId | None = setting(None, "The id of the key that has the limit.")
    user: EndUserName | None = setting(None, "The end user who has the limit, one of the team's `user_limits`.")
    model: ModelName | None = setting(None, "The model that has the limit.")
    amount: Amount = setting(REQUIRED, "What it adds to the limit, in the limit's unit.")
    until: Expiry = setting(REQUIRED, "When it ends: a time, a day (its first moment) or a duration from now.")
    why: Reason = setting(REQUIRED, "The reason, for the audit.")
