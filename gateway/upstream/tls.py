"""The TLS context of an upstream with its own authority or client certificate."""

from __future__ import annotations

import ssl

from gateway.core.snapshot import UpstreamTls


def client_context(tls: UpstreamTls) -> ssl.SSLContext:
    """Reads the files. Raises OSError, of which ssl.SSLError is one."""
    context = ssl.create_default_context(cafile=tls.ca or None)
    context.set_alpn_protocols(["http/1.1"])
    if tls.cert:
        # With a password given, a key that has another one is an error, and OpenSSL does not ask at the terminal.
        context.load_cert_chain(tls.cert, tls.key or None, password="")
    return context
