"""The closing of a month of the ledger, with its line in the audit: one implementation under the admin API and the
command line.

To close a month again changes nothing, and leaves no line. The ledger is closed first: where the store then stops to
answer, the error says that the line is missing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from gateway.core.errors import StoreUnavailable
from gateway.core.json_object import JsonObject
from gateway.identity.contract import AuditEntry
from gateway.store.contract import Store
from gateway.store.operator_reports import close_month


async def close_and_note(
    store: Store, query: Mapping[str, str], actor: str, note: Callable[[AuditEntry], Awaitable[object]]
) -> JsonObject:
    """As `close_month`. `note` adds to the audit."""
    before = await store.closed_until()
    closed = await close_month(store, query)
    after = await store.closed_until()
    if after != before:
        name = closed["month"]["name"]
        entry = AuditEntry(actor, "usage.close", name, {"closed_until": before or None}, {"closed_until": after})
        try:
            await note(entry)
        except StoreUnavailable as error:
            message = f"{error.message} {not_noted(name)}"
            raise StoreUnavailable(message, retry_after_ms=error.retry_after_ms) from None
    return closed


def not_noted(month: str) -> str:
    """What the error says of a month whose closing the audit lacks."""
    return f"{month} is closed, but this is not in the audit."
