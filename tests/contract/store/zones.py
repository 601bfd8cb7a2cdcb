"""Time zones made to order, so that a midnight is never far."""

from __future__ import annotations

import struct
from io import BytesIO
from zoneinfo import ZoneInfo


def zone_whose_midnight_is_at(utc_ms: int) -> ZoneInfo:
    """A zone of one offset in which a day begins at this time (whole seconds), as a TZif file of RFC 8536 tells it."""
    seconds = -(utc_ms // 1000) % 86_400
    offset = seconds if seconds < 43_200 else seconds - 86_400
    header = struct.pack(">4sc15x6l", b"TZif", b"\0", 0, 0, 0, 0, 1, 4)
    return ZoneInfo.from_file(BytesIO(header + struct.pack(">lbb4s", offset, 0, 0, b"TST\0")), key="Test/Made")
