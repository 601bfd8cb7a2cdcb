"""Read the body: all of it if it is JSON; of a form with files at least the fields that the gateway judges.

A form is written again (`core/form.py`). A form that is longer than its beginning is passed on as it comes if `model`
is within the beginning; no other field that is read may follow then. If the files come first, as in OpenAI's own curl
example, they wait on disk until the whole form has been read.

If a deployment's path names the model, as Azure's do, the model is written into the body, whether the body has one or
not: what is judged later, and what the upstream reads, is the path's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import msgspec

from gateway.core.endpoints import OTHER_MODELS
from gateway.core.form import Form, FormRewriter, FormSpans, form_type, is_form
from gateway.core.json_spans import JsonSpans, read_json_spans
from gateway.core.request import Body, BodyTail, IncomingRequest
from gateway.core.request_fields import Fields

BEGINNING_BYTES = 64 * 1024
"""Of a form, what is held in memory."""


def available_body(request: IncomingRequest) -> bytes | None:
    """The body, if it can only be JSON and has come, as most have; None if it has to be read. Raises TooLarge."""
    return None if request.endpoint.takes_form or request.path_model else request.body.available()


async def read_body(request: IncomingRequest, new_boundary: Callable[[], str]) -> bytes | Form:
    """The bytes of JSON, or a form, written with a new boundary, which the client must not know.

    Raises what `Body` raises, and FormUnreadable.
    """
    if request.endpoint.takes_form and is_form(content_type := request.headers.get("content-type", "")):
        assert request.endpoint.fields is not None, "what takes a form says what is read of it"
        boundary = new_boundary()
        form = FormRewriter(content_type, _names(request.endpoint.fields), boundary, model=request.path_model)
        return await _read_form(request.body, form, form_type(boundary))
    body = await request.body.whole()
    if request.path_model and not request.endpoint.names_model:
        return _with_model(read_json_spans(body), request.path_model)
    return body


async def _read_form(body: Body, form: FormRewriter, content_type: str) -> Form:
    beginning = await body.beginning(BEGINNING_BYTES)
    files = form.feed(beginning)
    if len(beginning) < BEGINNING_BYTES:
        rest: BodyTail | None = None
        files += form.end()
    elif "model" in form.spans and not form.in_field:
        form.refuse_fields()
        rest = _PassingTail(body, form)
    else:
        rest = await _spooled(body, form, files)
        files = b""
    return Form(FormSpans(bytes(form.fields) + files, dict(form.spans)), rest, content_type)


async def _spooled(body: Body, form: FormRewriter, files: bytes) -> BodyTail:
    spool = await body.spool()
    await spool.write(files)
    while piece := await body.piece():
        await spool.write(form.feed(piece))
    await spool.write(form.end())
    return spool.tail()


def _with_model(members: JsonSpans, model: str) -> bytes:
    return members.changed({"model": members.written(model)})


@cache
def _names(fields: type[Fields]) -> frozenset[str]:
    """The fields of a form that are read, and those that must not be there."""
    return frozenset(field.encode_name for field in msgspec.structs.fields(fields)) | OTHER_MODELS


class _PassingTail:
    """Implements `BodyTail`: each piece is written again as it comes."""

    def __init__(self, body: Body, form: FormRewriter) -> None:
        self.length: int | None = None
        self.taken = False
        self.has_come = False
        self._body = body
        self._form = form

    async def piece(self) -> bytes:
        self.taken = True
        while not self.has_come:
            piece = await self._body.piece()
            self.has_come = not piece
            if written := self._form.feed(piece) if piece else self._form.end():
                return written
        return b""
