"""What a call of a script takes is prepared once for each set of limits."""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

from msgspec.structs import replace

from gateway.core.limits import Limit, Meter, Mode, Per, Scope
from gateway.core.reservation import AdmissionRequest, Charge
from gateway.store.in_redis.arguments import ScriptArguments, SlotBatch, Timing
from gateway.store.in_redis.client import ServerClock
from gateway.store.in_redis.keys import StoreKeys
from gateway.store.in_redis.record_lifetimes import SlotRecord

KEYS = 10_000
AT_MS = 1_764_201_600_000
TIMING = Timing(slack_ms=1_000, step_ms=1_000)
SHARED = Limit("all", Scope.ORGANISATION, "", Meter.USD, Per.MONTH, 10**9, 10**9)
DIFFERENT: dict[str, Any] = {"burst": 11, "meter": Meter.TOKENS, "mode": Mode.SHADOW, "per": Per.DAY}


def arguments() -> ScriptArguments:
    return ScriptArguments(StoreKeys("gw"), ZoneInfo("UTC"), "one", TIMING, by_slot=False)


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


def test_keys_with_limits_of_their_own_share_all_but_names() -> None:
    prepared = arguments()
    first, second = [only(prepared.slot_batches(limits_of(key))) for key in (1, 2)]
    assert first.kind is second.kind
    assert first.slot_key is second.slot_key
    assert sent(first) == sent(second).replace(b"000000000002", b"000000000001")


def test_limits_that_differ_in_a_number_share_nothing() -> None:
    own = limits_of(1)[1]
    others = [replace(own, **{name: value}) for name, value in DIFFERENT.items()]
    prepared = arguments()
    kinds = [only(prepared.slot_batches((SHARED, one))).kind for one in (own, *others)]
    assert len(set(map(id, kinds))) == len(kinds)


def test_a_call_of_another_window_is_prepared_anew() -> None:
    batch = only(arguments().slot_batches(limits_of(1)))
    november, december = AT_MS, AT_MS + 31 * 86_400_000
    sent(batch, november)
    fresh = only(arguments().slot_batches(limits_of(1)))
    assert sent(batch, december) == sent(fresh, december) != sent(fresh, november)


def sent(batch: SlotBatch, at_ms: int = AT_MS) -> bytes:
    charges = [Charge(one, 1) for one in limits_of(1)]
    request, window = AdmissionRequest.of("a", charges, likely=1, most=2), batch.kind.window_at(at_ms)
    return window.admission(batch.keys_part(window), SlotRecord("record"), request, 2, Frozen())


class Frozen(ServerClock):
    """A server whose time stands still, so that calls can be compared."""

    def now_ms(self) -> int:
        return AT_MS
