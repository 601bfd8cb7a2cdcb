"""Parse the request: what the gateway must know of a request, and nothing more; the bytes stay as they came."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

import msgspec

from gateway.core.endpoints import Endpoint
from gateway.core.errors import BodyUnreadable, FieldInvalid, ModelUnknown
from gateway.core.form import Form
from gateway.core.input_size import InputSize, input_size
from gateway.core.json_spans import JsonSpans, read_json_spans, refuse_lookalikes
from gateway.core.pricing import DEARER_TIERS
from gateway.core.request import ParsedRequest
from gateway.core.request_fields import TOKENS_MAX, Fields
from gateway.core.snapshot import Caller, ConfigSnapshot, Model
from gateway.core.usage_report import value_at
from gateway.core.usage_tables import Path

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
    if fields.tier in DEARER_TIERS and not binding.model.knows_price_of(fields.tier):
        raise _tier_without_price(fields, binding.model.name)
    asked = fields.output_cap
    most = binding.model.max_output_tokens
    budget = _thinking_budget(members, fields.thinking_budgets)
    least = endpoint.least_output
    if asked is None or asked > budget:
        # A cap that is not above the budget is the client's own affair: Anthropic's interleaved thinking may exceed it.
        least = max(least, budget + 1)
    _refuse_cap_within_thinking(asked, budget, endpoint, binding.model)
    return ParsedRequest(
        endpoint=endpoint,
        binding=binding,
        asked_model=fields.model,
        stream=fields.streams,
        asks_usage=fields.asks_usage,
        asked_cap=asked,
        output_cap=most if asked is None else asked if most is None else min(asked, most),
        least_output=least,
        thinking_budget=budget,
        choices=fields.choices,
        user=fields.end_user,
        members=members,
        input_size=input_size(members) if endpoint.estimated else InputSize(),
        tier=fields.tier,
        units=fields.units,
        rest=rest,
        content_type=content_type,
    )


def _tier_without_price(fields: Fields, model: str) -> FieldInvalid:
    """It costs more than the prices that are known, so that what it costs could not be charged."""
    tier = fields.tier
    member = "service_tier" if tier == (fields.service_tier or "").lower() else "speed"
    return FieldInvalid(
        f"'{member}' is not valid: the model {model!r} has no price for the service tier {tier!r} here. Leave it out."
        f" Operators: set the model's price.tiers.{tier}.",
        param=member,
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


def _thinking_budget(members: JsonSpans, paths: Sequence[Path]) -> int:
    """Tokens that the model may think, 0 where the request names no number: whether it is sound, the upstream says."""
    if all(path[0] not in members.spans for path in paths):
        return 0
    for name, *inner in paths:
        text = members.value(name)
        if text is None:
            continue
        try:
            value = value_at(msgspec.json.decode(text), tuple(inner))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        if type(value) is int and 0 < value < TOKENS_MAX:
            return value
    return 0


def _refuse_cap_within_thinking(asked: int | None, budget: int, endpoint: Endpoint, model: Model) -> None:
    """Raise FieldInvalid where the model's maximum lowers the client's cap to its thinking budget or below."""
    most = model.max_output_tokens
    if asked is None or most is None or not most <= budget < asked:
        return
    cap = endpoint.cap_members[-1]
    raise FieldInvalid(
        f"The model {model.name!r} may produce {most:,} tokens at most here (its max_output_tokens), and this request"
        f" needs more than its thinking budget of {budget:,}. Lower the thinking budget.",
        param=cap,
    )
