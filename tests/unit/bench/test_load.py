from __future__ import annotations

import pytest

from bench.load import LoadFailed, Seen, Target, connect, run
from bench.measures import latency_of
from gateway.demo import DemoScript, DemoUpstream


async def test_a_connection_asks_until_it_is_told_to_stop() -> None:
    async with DemoUpstream(DemoScript(chunks=3)) as upstream:
        target, seen = Target("direct", upstream.port, "k"), Seen()
        left = iter([target.request("m"), target.request("m", stream=True)])
        await run([await connect(target, seen, lambda: next(left, None))])
        assert (len(seen.durations_ns), len(seen.first_byte_ns), seen.events) == (2, 2, 5)
        assert all(first <= whole for first, whole in zip(seen.first_byte_ns, seen.durations_ns, strict=True))
        assert upstream.truth.tallies["m", "k"].completed == 2


async def test_the_longest_time_between_two_pieces_is_seen() -> None:
    async with DemoUpstream(DemoScript(chunks=3, chunk_delay_ms=30)) as upstream:
        target, seen = Target("direct", upstream.port, "k"), Seen()
        left = iter([target.request("m", stream=True)])
        await run([await connect(target, seen, lambda: next(left, None))])
        assert 25_000_000 < seen.longest_gap_ns <= seen.durations_ns[0]


async def test_a_load_of_refusals_takes_nothing_else() -> None:
    async with DemoUpstream(DemoScript(status=429)) as upstream:
        target, seen = Target("direct", upstream.port, "k", status=429), Seen()
        left = iter([target.request("m")])
        await run([await connect(target, seen, lambda: next(left, None))])
        assert len(seen.durations_ns) == 1
    async with DemoUpstream(DemoScript()) as upstream:
        target = Target("direct", upstream.port, "k", status=429)
        with pytest.raises(LoadFailed):
            await run([await connect(target, Seen(), lambda: target.request("m"))])


@pytest.mark.parametrize("script", [DemoScript(status=503), DemoScript(halt="close")])
async def test_a_load_that_is_not_answered_in_full_fails(script: DemoScript) -> None:
    async with DemoUpstream(script) as upstream:
        target = Target("direct", upstream.port, "k")
        with pytest.raises(LoadFailed):
            await run([await connect(target, Seen(), lambda: target.request("m"))])


def test_quantiles_are_of_the_times_in_order() -> None:
    times_ns = [number * 1_000_000 for number in range(100, 0, -1)]
    assert (latency_of(times_ns).p50_ms, latency_of(times_ns).p99_ms) == (51.0, 100.0)
