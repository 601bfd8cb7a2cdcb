"""What a request used: tokens by kind, and the units that are billed by the piece.

usage_tables.py says where each API reports it, usage_fields.py how its parts are called there, usage_reading.py and
usage_report.py read it, pricing.py computes its cost.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class UsageSource(StrEnum):
    REPORTED = "reported"
    ESTIMATED = "estimated"


class Usage(msgspec.Struct, frozen=True, gc=False):
    """What one answer used.

    `input` is all input tokens, `output` all output tokens; the other token counts are parts of one of
    them, never more than it. Cached input and cache writes exclude each other; a token of audio or of an
    image may also be cached.
    """

    input: int = 0
    output: int = 0
    cached_input: int = 0
    reasoning: int = 0
    source: UsageSource = UsageSource.REPORTED
    cache_write: int = 0
    """Input written to a cache for five minutes, or for a time that the answer does not name."""
    cache_write_1h: int = 0
    audio_input: int = 0
    image_input: int = 0
    audio_output: int = 0
    image_output: int = 0
    images: int = 0
    searches: int = 0
    audio_ms: int = 0
    """Milliseconds of sound, where the answer is billed by its length."""
    characters: int = 0
    estimated_ms: int = 0
    """Of `audio_ms` what no upstream named. The tokens beside it are as they were reported."""
    service_tier: str = ""
    """The tier that the answer names; empty where it names none."""
    region: str = ""
    """Where the answer says that it was computed, as Anthropic's `inference_geo`; empty where it does not."""
    model: str = ""
    """Of a part: the upstream's name of the model that used it; empty for the model that was asked for."""
    parts: tuple[Usage, ...] = ()
    """What each inference used, in tokens, where an answer took several; together they are the whole. Each has a price
    of its own: that of its model, and of the length of its own input."""

    @property
    def total(self) -> int:
        return self.input + self.output

    @property
    def cache_writes(self) -> int:
        return self.cache_write + self.cache_write_1h


NOTHING_USED = Usage()
"""The same object for every request, so that it is known without a comparison of all counts."""
