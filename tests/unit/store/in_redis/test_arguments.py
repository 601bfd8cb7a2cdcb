"""What a call of a script takes is prepared once for each set of limits."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from gateway.core.limits import Limit, Meter, Per, Scope
from gateway.core.reservation import AdmissionRequest, Charge
from gateway.store.in_redis.arguments import ScriptArguments, SlotBatch, SlotCall, Timing
from gateway.store.in_redis.client import ServerClock
from gateway.store.in_redis.keys import StoreKeys

KEYS = 10_000
AT_MS = 1_764_201_600_000
TIMING = Timing(slack_ms=1_000, step_ms=1_000)
SHARED = Limit("all", Scope.ORGANISATION, "", Meter.USD, Per.MONTH, 10**9, 10**9)


def arguments() -> ScriptArguments:
    return ScriptArguments(StoreKeys("gw"), ZoneInfo("UTC"), "one", by_slot=False)


def limits_of(key: int) -> tuple[Limit, ...]:
    return (SHARED, Limit("own", Scope.KEY, f"{key:012x}", Meter.REQUESTS, Per.MINUTE, 10, 10))


def only(batches: tuple[SlotBatch, ...]) -> SlotBatch:
    (batch,) = batches
    return batch


def test_ten_thousand_keys_that_take_turns_are_each_prepared_once() -> None:
    prepared, keys = arguments(), [limits_of(key) for key in range(KEYS)]
    first = [only(prepared.slot_batches(limits)) for limits in keys]
    again = [only(prepared.slot_batches(limits)) for limits in keys]
    assert all(before is after for before, after in zip(first, again, strict=True))


def test_a_call_of_a_later_second_differs_in_its_record_only() -> None:
    batch = only(arguments().slot_batches(limits_of(1)))
    first, later = batch.call_at(AT_MS, AT_MS, TIMING), batch.call_at(AT_MS + 7_000, AT_MS + 7_000, TIMING)
    assert (first.record, later.record) == (f"{batch.slot_key}1764201600", f"{batch.slot_key}1764201607")
    assert sent(later) == sent(first).replace(first.record.encode(), later.record.encode())


def test_a_call_of_another_window_is_prepared_anew() -> None:
    batch = only(arguments().slot_batches(limits_of(1)))
    november, december = AT_MS, AT_MS + 31 * 86_400_000
    batch.call_at(november, november, TIMING)
    moved = batch.call_at(december, december, TIMING)
    fresh = only(arguments().slot_batches(limits_of(1))).call_at(december, december, TIMING)
    assert sent(moved) == sent(fresh)


def sent(call: SlotCall) -> bytes:
    charges = [Charge(one, 1) for one in limits_of(1)]
    return call.command(AdmissionRequest.of("a", charges, likely=1, most=2), 2, Frozen())


class Frozen(ServerClock):
    """A server whose time stands still, so that calls can be compared."""

    def now_ms(self) -> int:
        return AT_MS
