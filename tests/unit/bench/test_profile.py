from __future__ import annotations

import time

from bench.profile import shown
from bench.sampled import Sampler, Samples

BUSY_S = 0.2


def burn(seconds: float) -> int:
    deadline, rounds = time.process_time() + seconds, 0
    while time.process_time() < deadline:
        rounds += 1
    return rounds


async def test_a_profile_names_what_was_running() -> None:
    sampler = Sampler()
    sampler.start()
    burn(BUSY_S)
    samples = sampler.stop()
    assert samples.total > 5
    assert dict(samples.functions)["bench/test_profile.py burn"] > samples.total / 2
    assert dict(samples.files)["bench/test_profile.py"] > samples.total / 2


def test_what_runs_before_the_event_loop_is_left_out() -> None:
    sampler = Sampler()
    sampler.start()
    burn(BUSY_S)
    assert sampler.stop().total == 0


def test_a_report_gives_shares() -> None:
    text = shown("streams", Samples(200, [("a.py", 100)], [("a.py f", 150)], [("a.py f, line 3", 50)]))
    assert "50.0%  a.py" in text
    assert "75.0%  a.py f" in text
    assert "25.0%  a.py f, line 3" in text
