"""Parse the request: what the gateway must know of a request, and nothing more; the bytes stay as they came."""

from __future__ import annotations

import re
from functools import cache

import msgspec

from gateway.core.endpoints import Endpoint
from gateway.core.errors import BodyUnreadable, FieldInvalid, ModelUnknown
from gateway.core.estimate import readable_size
from gateway.core.form import Form
from gateway.core.json_spans import JsonSpans, read_json_spans, refuse_lookalikes
from gateway.core.request import ParsedRequest
from gateway.core.request_fields import Fields
from gateway.core.snapshot import Caller, ConfigSnapshot

_MISSING = re.compile(r"Object missing required field `(.*)`")
_EXPLANATION_MAX = 200
"""Characters of an explanation: it may quote what was sent, however long that is."""


def parse_request(body: bytes | Form, endpoint: Endpoint, caller: Caller, snapshot: ConfigSnapshot) -> ParsedRequest:
    """What the gateway must know of a request. Raises BodyUnreadable, FormUnreadable, FieldInvalid, ModelUnknown."""
    if isinstance(body, bytes):
        members, rest, content_type = read_json_spans(body), None, "application/json"
        fields = _fields(members.readable, endpoint)
        _refuse_second_readings(members, endpoint)
    else:
        members, rest, content_type = body.fields, body.rest, body.content_type
        fields = _fields_of_form(body, endpoint)
    binding = snapshot.binding(caller, fields.model)
    if binding is None:
        raise ModelUnknown(
            f"The model {fields.model!r} does not exist, or this key may not use it. GET /v1/models lists what it may.",
            param="model",
        )
    asked = fields.output_cap
    caps = [cap for cap in (asked, binding.model.max_output_tokens) if cap is not None]
    return ParsedRequest(
        endpoint=endpoint,
        binding=binding,
        asked_model=fields.model,
        stream=fields.streams,
        asks_usage=fields.asks_usage,
        asked_cap=asked,
        output_cap=min(caps, default=None),
        choices=fields.choices,
        user=fields.end_user,
        members=members,
        input_bytes=_input_bytes(members, endpoint),
        rest=rest,
        content_type=content_type,
    )


def _fields(body: bytes, endpoint: Endpoint) -> Fields:
    assert endpoint.fields is not None, "only endpoints with a body are read"
    try:
        return _decoder(endpoint.fields).decode(body)
    except msgspec.ValidationError as error:
        raise _field_error(str(error)) from None
    except RecursionError:
        raise BodyUnreadable("The body is nested too deeply to be read.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BodyUnreadable(f"The body is not valid JSON: {error}.") from None


def _fields_of_form(form: Form, endpoint: Endpoint) -> Fields:
    assert endpoint.fields is not None, "only endpoints with a body are read"
    sent = {name: form.fields.text(name) for name in form.fields.spans}
    try:
        return msgspec.convert(sent, endpoint.fields, strict=False)
    except msgspec.ValidationError as error:
        raise _field_error(str(error)) from None


@cache
def _decoder(fields: type[Fields]) -> msgspec.json.Decoder[Fields]:
    return msgspec.json.Decoder(fields)


def _field_error(explanation: str) -> FieldInvalid:
    """A msgspec explanation ("Expected `int`, got `str` - at `$.max_tokens`") as an error of ours."""
    what, _, place = explanation.rpartition(" - at `$")
    if not what:
        what, place = explanation, "`"
    path = place[:-1].removeprefix(".")
    missing = _MISSING.fullmatch(what)
    if missing:
        path = f"{path}.{missing[1]}" if path else missing[1]
        return FieldInvalid(f"{path!r} is required and was not sent.", param=path)
    reason = f"{what[:1].lower()}{what[1:_EXPLANATION_MAX]}".replace("`", "'")
    return FieldInvalid(f"{path!r} is not valid: {reason}.", param=path or None)


def _refuse_second_readings(members: JsonSpans, endpoint: Endpoint) -> None:
    """Refuse names, of members and of members of objects that are read, in which an upstream could see another request
    than the gateway did."""
    assert endpoint.fields is not None, "only endpoints with a body are read"
    refuse_lookalikes(members.spans, _names_read(endpoint.fields, endpoint.input_members + endpoint.cap_members))
    for member, names in _names_within(endpoint.fields).items():
        inner = members.value(member)
        if inner is not None and inner != b"null":
            refuse_lookalikes(read_json_spans(inner).spans, names)


@cache
def _names_read(fields: type[Fields], more: tuple[str, ...]) -> frozenset[str]:
    return frozenset((*(field.encode_name for field in msgspec.structs.fields(fields)), *more))


@cache
def _names_within(fields: type[Fields]) -> dict[str, frozenset[str]]:
    """The names that are read in members that are objects themselves."""
    within = {}
    for field in msgspec.inspect.type_info(fields).fields:  # type: ignore[attr-defined]  # Of a struct it has some.
        choices = field.type.types if isinstance(field.type, msgspec.inspect.UnionType) else (field.type,)
        for choice in choices:
            if isinstance(choice, msgspec.inspect.StructType):
                within[field.encode_name] = frozenset(each.encode_name for each in choice.fields)
    return within


def _input_bytes(members: JsonSpans, endpoint: Endpoint) -> int:
    return sum(readable_size(text) for name in endpoint.input_members if (text := members.value(name)) is not None)
