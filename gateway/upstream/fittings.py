"""What all connections of one event loop share, whichever upstream they lead to."""

from __future__ import annotations

import ssl
from functools import cached_property

READ_BYTES = 65_536
"""The most that one read takes from a socket, and so by how much a pause comes late."""

IDLE_SECONDS = 30.0
"""How long a connection waits for its next exchange: half of what servers and balancers commonly
allow (AWS 60 s, nginx 75 s), so that one is seldom closed under a request. Against servers that
allow less (uvicorn 5 s) the second try helps."""


class Fittings:
    """`inlet` is where the event loop puts what it reads. One serves every connection, since its bytes
    are parsed before the loop goes on to the next."""

    def __init__(self, idle_seconds: float) -> None:
        self.idle_seconds = idle_seconds
        self.inlet = memoryview(bytearray(READ_BYTES))

    @cached_property
    def tls(self) -> ssl.SSLContext:
        """Certificates are verified against the system's authorities, or those in $SSL_CERT_FILE. Made
        when it is first needed: the authorities take time to read and memory to hold."""
        context = ssl.create_default_context()
        context.set_alpn_protocols(["http/1.1"])
        return context
