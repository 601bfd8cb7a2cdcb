"""The JSON that operators write for a grant."""

from __future__ import annotations

from typing import Annotated

from gateway.core.end_users import USER_CHARACTERS
from gateway.core.key_ids import HOLDER_ID
from gateway.settings.request_section import Checked, RequestSection
from gateway.settings.stored_keys import Amount, Expiry, ShortName
from gateway.settings.value_readers import MODEL_NAME, TextForm

_PRINTABLE = r"[^\x00-\x1f\x7f-\x9f]"
_LIMIT_NAME = TextForm(_PRINTABLE + "{1,2000}", "must be the name of a limit, such as tokens-per-day")
_END_USER = TextForm(
    f"{_PRINTABLE}{{1,{USER_CHARACTERS}}}", f"must be an end user: 1 to {USER_CHARACTERS} printable characters"
)
_KEY_ID = TextForm(
    HOLDER_ID,
    "must be the id of a key: 12 hexadecimal digits, or of tokens: jwt- and 8 hexadecimal digits",
)
_REASON = TextForm(_PRINTABLE + "{1,500}", "must be 1 to 500 printable characters")


class GrantSettings(RequestSection, frozen=True, kw_only=True):
    """`team`, `key`, `user` and `model` say whose limit it is: none of them, the organisation's. `amount` is what it
    adds, in the limit's unit; it ends at `until`: a time, a day (its first moment) or a duration from now."""

    limit: Annotated[str, Checked(_LIMIT_NAME.read)]
    team: ShortName | None = None
    key: Annotated[str, Checked(_KEY_ID.read)] | None = None
    user: Annotated[str, Checked(_END_USER.read)] | None = None
    model: Annotated[str, Checked(MODEL_NAME.read)] | None = None
    amount: Amount
    until: Expiry
    why: Annotated[str, Checked(_REASON.read)]
