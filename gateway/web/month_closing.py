"""The closing of a month of the ledger, with its line in the audit: one implementation under the admin API and the
command line.

Closing a month again changes nothing, and leaves no line. The ledger is closed first: if the store stops answering
after that, the error says that the line is missing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from gateway.core.errors import StoreUnavailable
from gateway.core.json_object import JsonObject
from gateway.identity.contract import AuditEntry
from gateway.store.contract import Store
from gateway.store.operator_reports import close_month


class ClosingNotNoted(StoreUnavailable):
    """The month is closed, and the store did not take the line of the audit."""

    def __init__(self, month: str, cause: StoreUnavailable) -> None:
        self.consequence = f"{month} is closed, but this is not in the audit."
        super().__init__(f"{cause.message} {self.consequence}", retry_after_ms=cause.retry_after_ms)


async def close_and_note(
    store: Store, query: Mapping[str, str], actor: str, note: Callable[[AuditEntry], Awaitable[object]]
) -> JsonObject:
    """As `close_month`. `note` adds to the audit. Raises FieldInvalid, StoreUnavailable, ClosingNotNoted."""
    before = await store.closed_until()
    closed = await close_month(store, query)
    after = await store.closed_until()
    if after != before:
        name = closed["month"]["name"]
        entry = AuditEntry(actor, "usage.close", name, {"closed_until": before or None}, {"closed_until": after})
        try:
            await note(entry)
        except StoreUnavailable as error:
            raise ClosingNotNoted(name, error) from None
    return closed
