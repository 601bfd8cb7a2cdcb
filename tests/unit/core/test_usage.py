from __future__ import annotations

import msgspec

from gateway.core.usage import Usage, UsageSource


def test_the_total_is_input_and_output_whose_parts_do_not_count_again() -> None:
    assert Usage(12, 5, cached_input=10, reasoning=4, cache_write=2, audio_output=5).total == 17


def test_usage_that_was_written_before_it_had_these_parts_is_read() -> None:
    written = b'{"input":3,"output":2,"cached_input":1,"reasoning":0,"source":"estimated"}'
    assert msgspec.json.decode(written, type=Usage) == Usage(3, 2, cached_input=1, source=UsageSource.ESTIMATED)
