"""Read the body: whole, as JSON is read; of a form with files only its beginning, however large it is.

Where the path names the model (Azure's deployments), it is written into the body, in place of another one or of none:
whatever is judged later, and whatever the upstream reads, is the path's.
"""

from __future__ import annotations

from functools import cache

import msgspec

from gateway.core.form import Form, FormReader, FormSpans, is_form, model_part
from gateway.core.json_spans import JsonSpans, read_json_spans
from gateway.core.request import Body, IncomingRequest
from gateway.core.request_fields import Fields

BEGINNING_BYTES = 64 * 1024
"""Of a form, what is held in memory: the fields that are read must be in it."""


async def read_body(request: IncomingRequest) -> bytes | Form:
    """The bytes of JSON, or a form. Raises TooLarge, RequestMalformed, FormUnreadable, ClientGone."""
    if request.endpoint.takes_form and is_form(content_type := request.headers.get("content-type", "")):
        return await _read_form(request, content_type)
    body = await request.body.whole()
    return _with_model(read_json_spans(body), request.path_model) if request.path_model else body


async def _read_form(request: IncomingRequest, content_type: str) -> Form:
    assert request.endpoint.fields is not None, "what takes a form says what is read of it"
    reader = FormReader(content_type, _names(request.endpoint.fields))
    beginning = await request.body.beginning(BEGINNING_BYTES)
    reader.feed(beginning)
    fields = FormSpans(beginning, dict(reader.spans))
    length = request.body.length
    following = None if length is None else length - len(beginning)
    is_whole = len(beginning) < BEGINNING_BYTES or following == 0
    if request.path_model:
        beginning = (
            _with_model(fields, request.path_model)
            if "model" in fields.spans
            else (model_part(content_type, request.path_model) + beginning)
        )
        reader = FormReader(content_type, _names(request.endpoint.fields))
        reader.feed(beginning)
        fields = FormSpans(beginning, dict(reader.spans))
    return Form(fields, None if is_whole else _WatchedTail(request.body, reader, following))


def _with_model(members: JsonSpans, model: str) -> bytes:
    return members.changed({"model": members.written(model)})


@cache
def _names(fields: type[Fields]) -> frozenset[str]:
    return frozenset(field.encode_name for field in msgspec.structs.fields(fields))


class _WatchedTail:
    """Implements `BodyTail`: what passes is still looked at for fields that come again."""

    def __init__(self, body: Body, reader: FormReader, length: int | None) -> None:
        self.length = length
        self.taken = False
        self._body = body
        self._reader = reader

    async def piece(self) -> bytes:
        self.taken = True
        piece = await self._body.piece()
        self._reader.feed(piece)
        return piece
