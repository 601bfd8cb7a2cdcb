"""Forms with files (multipart/form-data), written out byte by byte."""

from __future__ import annotations

import re

from gateway.demo.truth import ServedRequest
from tests.raw_client import http_head
from tests.whole_gateway import KEY

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


def sent_parts(asked: ServedRequest) -> list[tuple[str, str | None, bytes]]:
    """The parts of a form that a demo upstream got."""
    content_type = asked.header("content-type")
    assert content_type is not None
    return parts_of(asked.body, content_type)


def parts_of(body: bytes, content_type: str) -> list[tuple[str, str | None, bytes]]:
    """Name, file name and content of each part of a form that the gateway wrote, in order."""
    boundary = content_type.removeprefix("multipart/form-data; boundary=")
    assert re.fullmatch(r"[0-9a-f]{64}", boundary), content_type
    begin, *parts, end = body.split(f"--{boundary}".encode())
    assert (begin, end) == (b"", b"--\r\n")
    return [_part_of(part) for part in parts]


def _part_of(part: bytes) -> tuple[str, str | None, bytes]:
    head, _, content = part.partition(b"\r\n\r\n")
    found = re.fullmatch(
        r'\r\nContent-Disposition: form-data; name="([^"]+)"(?:; filename="([^"]*)")?(?:\r\nContent-Type: \S+)?',
        head.decode(),
    )
    assert found is not None, head
    assert content.endswith(b"\r\n")
    return found[1], found[2], content[:-2]


def form_head(size: int | None, path: str = "/v1/audio/transcriptions", **headers: str) -> bytes:
    """The head of a request with a form of so many bytes, or in chunks."""
    framing = {"transfer-encoding": "chunked"} if size is None else {"content-length": str(size)}
    usual = {"host": "gateway", "authorization": f"Bearer {KEY}", "content-type": FORM_TYPE}
    return http_head(f"POST {path} HTTP/1.1", usual | framing | headers)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)
