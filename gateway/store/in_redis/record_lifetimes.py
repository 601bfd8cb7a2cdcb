"""The records of reservations that this process makes, second by second, until settlement lets them end.

A record has the reservations of one second in one slot. Once every reservation of a second is settled, and this process
knows it, nothing can come again but a repetition within the hour, and its records may end then. What this process never
learned about stays for LONG_MS, until a journal can have settled it.
"""

from __future__ import annotations

from gateway.store.in_redis.scripts import bulk

_QUIET_MS = 2_000
"""A second is over when it is this far behind: clocks are only nearly the same."""


class SlotRecord:
    """The key of a record, also as the part of a command."""

    __slots__ = ("key", "part")

    def __init__(self, key: str) -> None:
        self.key = key
        self.part = bulk(key)


class ReservationSecond:
    """How many reservations of a second were made and were settled, and its records."""

    __slots__ = ("_records", "made", "number", "settled")

    def __init__(self, number: int) -> None:
        """`number`: seconds since 1970."""
        self.number = number
        self.made = self.settled = 0
        self._records: dict[str, SlotRecord] = {}

    def record_in(self, slot_key: str) -> SlotRecord:
        """That of the slot in which records have keys that begin so."""
        record = self._records.get(slot_key)
        if record is None:
            record = self._records[slot_key] = SlotRecord(f"{slot_key}{self.number}")
        return record

    @property
    def record_keys(self) -> list[str]:
        return [record.key for record in self._records.values()]


class RecordLifetimes:
    """The seconds of which not everything is known to be settled, or whose records have not been shortened yet."""

    def __init__(self) -> None:
        self._seconds: dict[int, ReservationSecond] = {}
        self._latest = ReservationSecond(0)

    def second_of(self, at_ms: int) -> ReservationSecond:
        latest, number = self._latest, at_ms // 1000
        if latest.number != number:
            known = self._seconds.get(number)
            if known is None:
                known = self._seconds[number] = ReservationSecond(number)
            self._latest = latest = known
        return latest

    def settled(self, now_ms: int) -> list[ReservationSecond]:
        """Each second that is over and of which everything is settled, until it is forgotten."""
        over = (now_ms - _QUIET_MS) // 1000
        return [one for number, one in self._seconds.items() if number < over and one.settled >= one.made]

    def forget(self, second: ReservationSecond) -> None:
        self._seconds.pop(second.number, None)
        if self._latest is second:
            self._latest = ReservationSecond(0)
