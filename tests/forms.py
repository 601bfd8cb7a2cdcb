"""Forms with files (multipart/form-data), written out byte by byte."""

from __future__ import annotations

BOUNDARY = "gw-form-0123456789"
FORM_TYPE = f"multipart/form-data; boundary={BOUNDARY}"


def field(name: str, value: str | bytes) -> bytes:
    text = value.encode() if isinstance(value, str) else value
    return b'content-disposition: form-data; name="%b"\r\n\r\n%b' % (name.encode(), text)


def file(data: bytes, name: str = "file", filename: str = "speech.wav") -> bytes:
    disposition = f'content-disposition: form-data; name="{name}"; filename="{filename}"\r\n'
    return disposition.encode() + b"content-type: audio/wav\r\n\r\n" + data


def form(*parts: bytes, boundary: str = BOUNDARY) -> bytes:
    dashes = b"--" + boundary.encode()
    return b"".join(dashes + b"\r\n" + part + b"\r\n" for part in parts) + dashes + b"--\r\n"
