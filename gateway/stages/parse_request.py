"""Parse the request: reads what the gateway has to know, and nothing more; the bytes stay as they came."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from functools import cache, lru_cache
from typing import Any

import msgspec

from gateway.core.consultations import consultations_of
from gateway.core.end_users import unnamed_user
from gateway.core.endpoints import GEMINI_PREFIX, OTHER_MODELS, OVERRIDES, Endpoint
from gateway.core.errors import BodyUnreadable, FieldInvalid
from gateway.core.form import Form
from gateway.core.input_size import InputSize, WeighedMember, input_size, weighed_members
from gateway.core.json_object import Path
from gateway.core.json_spans import JsonSpans, MemberNames, NamesRead, read_json_spans
from gateway.core.model_errors import SHOWN_NAME, model_not_served, model_unknown
from gateway.core.other_models import PLACES, SETTINGS
from gateway.core.pricing import DEARER_TIERS
from gateway.core.query_rules import asks_events, parameter
from gateway.core.remembered import remembered
from gateway.core.request import ParsedRequest
from gateway.core.request_fields import TOKENS_MAX, Fields
from gateway.core.snapshot import Binding, Caller, ConfigSnapshot, Model
from gateway.core.usage_report import value_at

_OWN_WORDS = re.compile(r"`(\w+)`: (.*)")
"""An explanation that a class of fields gives itself."""

_NO_CAP = " Leave it out, if you do not want to limit the answer."
_CAP_NEEDED = " Send how many tokens the answer may have at most; this API requires it."
_ADVICE = {
    **dict.fromkeys(("max_tokens", "max_completion_tokens", "max_output_tokens", "maxOutputTokens"), _NO_CAP),
    "role": " The roles of each API are in its reference.",
}
"""What to do, by the member at fault."""

_NO_MODELS = re.compile(rb"null|\[\s*\]")
_MISSING = re.compile(r"Object missing required field `(.*)`")
_EXPLANATION_MAX = 200
"""Characters of an explanation: it may quote what was sent, however long that is."""


def parse_request(
    body: bytes | Form,
    endpoint: Endpoint,
    caller: Caller,
    snapshot: ConfigSnapshot,
    *,
    path_model: str = "",
    query: str = "",
    user: str = "",
) -> ParsedRequest:
    """What the gateway must know of a request; `path_model` is the model that its path names, `user` the end user,
    where more than the body says who it is. Raises BodyUnreadable, FormUnreadable, FieldInvalid, ModelUnknown."""
    if isinstance(body, bytes):
        members, rest, content_type = read_json_spans(body), None, "application/json"
        fields = _fields(members.readable, endpoint)
        outline = _outline_of(members, endpoint)
    else:
        members, rest, content_type = body.fields, body.rest, body.content_type
        fields = _fields_of_form(body, endpoint)
        outline = _outline(type(fields), members.names())
    asked_model = _checked(path_model, members, endpoint.model_paths) if endpoint.names_model else fields.model
    tier, asked, streams = fields.tier(), fields.output_cap(), fields.streams()
    binding = _binding(asked_model, fields, tier, endpoint, caller, snapshot)
    most = binding.model.max_output_tokens
    budget = _thinking_budget(members, fields.thinking_budgets) if outline.may_think else 0
    is_array = streams and endpoint.names_model and not asks_events(query)
    # By position as far as to the tier: so many by name would be passed in a dictionary.
    return ParsedRequest(
        endpoint,
        binding,
        asked_model,
        streams and not is_array,
        fields.asks_usage(),
        most if asked is None else asked if most is None else min(asked, most),
        fields.choices(),
        user or fields.end_user() or unnamed_user(caller.end_user),
        members,
        input_size(members, outline.weighed) if endpoint.estimated else InputSize(),
        tier,
        fields.units(),
        asked_cap=asked,
        least_output=_least_output(asked, budget, endpoint, binding.model) if budget else endpoint.least_output,
        thinking_budget=budget,
        is_array=is_array,
        rest=rest,
        content_type=content_type,
        continues=fields.continues(),
        creates=endpoint.creates if endpoint.creates is not None and fields.is_kept() else None,
        consulted=consultations_of(members, binding, endpoint, snapshot) if outline.may_consult else (),
    )


class _Outline(msgspec.Struct, frozen=True):
    """What the names of a body's members say about it: where it has to be looked into. Programs send the same names
    with every request, so that the outlines of the last ones are remembered."""

    weighed: tuple[WeighedMember, ...]
    within: tuple[tuple[str, NamesRead], ...]
    """The members that are read and may be objects, with the names that are read in them."""
    may_think: bool
    """Whether it can name a thinking budget."""
    may_consult: bool
    """Whether it can name the models that its tools ask."""
    has_other_models: bool
    has_overrides: bool
    may_be_read_otherwise: bool
    """Whether `_refuse_second_readings` has anything to look at."""


def _outline_of(members: JsonSpans, endpoint: Endpoint) -> _Outline:
    """Raises FieldInvalid for names, of the body or within it, in which an upstream could see another request than the
    gateway did."""
    named, fields = members.named, endpoint.fields
    assert named is not None, "it was read"
    assert fields is not None, "only endpoints with a body are read"
    find = _remembered_outline if named.are_remembered else _outline_of_names
    outline = find(endpoint.names_read, fields, named)
    if outline.may_be_read_otherwise:
        _refuse_second_readings(members, outline, endpoint)
    return outline


def _outline_of_names(read: NamesRead, fields: type[Fields], named: MemberNames) -> _Outline:
    read.refuse_lookalikes(named.names)
    return _outline(fields, named.names)


_remembered_outline = lru_cache(256)(_outline_of_names)


def _outline(fields: type[Fields], names: Collection[str]) -> _Outline:
    within = tuple([(name, within) for name, within in _names_within(fields).items() if name in names])
    has_other_models, has_overrides = not OTHER_MODELS.isdisjoint(names), OVERRIDES in names
    return _Outline(
        weighed=weighed_members(names),
        within=within,
        may_think=any(path[0] in names for path in fields.thinking_budgets),
        may_consult=not PLACES.isdisjoint(names),
        has_other_models=has_other_models,
        has_overrides=has_overrides,
        may_be_read_otherwise=has_other_models or has_overrides or bool(within),
    )


def parse_object_request(body: bytes, endpoint: Endpoint, binding: Binding, *, query: str, user: str) -> ParsedRequest:
    """A request about what an upstream keeps, of whose body nothing is judged. Raises BodyUnreadable."""
    content = body if endpoint.method == "POST" else b""
    return ParsedRequest(
        endpoint=endpoint,
        binding=binding.of_requests(),
        asked_model=binding.model.name,
        stream=parameter(query, "stream") == "true",
        asks_usage=False,
        output_cap=None,
        choices=1,
        user=user,
        members=read_json_spans(content) if content else JsonSpans(b"", {}),
        input_size=InputSize(),
        content_type="application/json" if content else "",
        creates=endpoint.creates,
    )


def _binding(
    asked: str, fields: Fields, tier: str, endpoint: Endpoint, caller: Caller, snapshot: ConfigSnapshot
) -> Binding:
    """What binds the caller and the model. Raises ModelUnknown, and FieldInvalid for a tier that has no price."""
    binding = snapshot.binding(caller, asked)
    if binding is None:
        raise model_unknown(asked, "model", snapshot)
    served_by = binding.model.served_by
    if served_by and served_by.get(endpoint.name) == ():
        raise model_not_served(binding.model.name, endpoint)
    if tier and tier in DEARER_TIERS and not binding.model.knows_price_of(tier):
        raise _tier_without_price(fields, binding.model.name)
    return binding.of_requests() if endpoint.is_free else binding


def _tier_without_price(fields: Fields, model: str) -> FieldInvalid:
    """It costs more than the prices that are known, so that what it costs could not be charged."""
    tier = fields.tier()
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
        raise _field_error(str(error), endpoint.fields) from None
    except RecursionError:
        raise BodyUnreadable("The body is nested too deeply to be read. Send it with fewer levels.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BodyUnreadable(f"The body is not valid JSON: {error}.") from None


def _fields_of_form(form: Form, endpoint: Endpoint) -> Fields:
    assert endpoint.fields is not None, "only endpoints with a body are read"
    _refuse_other_models(form.fields)
    sent = {name: form.fields.text(name) for name in form.fields.spans}
    try:
        return msgspec.convert(sent, endpoint.fields, strict=False)
    except msgspec.ValidationError as error:
        raise _field_error(str(error), endpoint.fields) from None


@remembered(64)
def _decoder(fields: type[Fields]) -> msgspec.json.Decoder[Fields]:
    return msgspec.json.Decoder(fields)


def _field_error(explanation: str, fields: type[Fields]) -> FieldInvalid:
    """A msgspec explanation ("Expected `int`, got `str` - at `$.max_tokens`") as an error of ours."""
    what, _, place = explanation.rpartition(" - at `$")
    if not what:
        what, place = explanation, "`"
    path = place[:-1].removeprefix(".")
    own = _OWN_WORDS.fullmatch(what)
    if own:
        return FieldInvalid(f"{own[1]!r} is not valid: {own[2]}.", param=own[1])
    missing = _MISSING.fullmatch(what)
    if missing:
        path = f"{path}.{missing[1]}" if path else missing[1]
        return FieldInvalid(f"{path!r} is required and was not sent.", param=path)
    reason = f"{what[:1].lower()}{what[1:_EXPLANATION_MAX]}".replace("`", "'")
    advice = _ADVICE.get(path.rpartition(".")[2], "")
    if advice is _NO_CAP and any(field.required for field in msgspec.structs.fields(fields) if field.name == path):
        advice = _CAP_NEEDED
    return FieldInvalid(f"{path!r} is not valid: {reason}.{advice}", param=path or None)


def _refuse_second_readings(members: JsonSpans, outline: _Outline, endpoint: Endpoint) -> None:
    """Refuse members, and names within objects that are read, in which an upstream could see another request than the
    gateway did."""
    if outline.has_other_models:
        _refuse_other_models(members)
    if outline.has_overrides:
        _refuse_overrides(members, endpoint.names_read)
    for member, names in outline.within:
        inner = members.value(member)
        if inner is not None and inner.startswith(b"{"):
            names.refuse_lookalikes(read_json_spans(inner).names())


def _refuse_other_models(members: JsonSpans) -> None:
    """Refuse models that the upstream would choose from by itself: the key may not be allowed them, and they would be
    charged as the one that was asked for. Raises FieldInvalid."""
    for name in members.names():
        if name in OTHER_MODELS and not _NO_MODELS.fullmatch(members.value(name) or b"null"):
            raise FieldInvalid(
                f"{name!r} names models for the upstream to choose from, which could be neither limited nor charged as"
                " what they are. Leave it out. Operators: give the model a route for each fallback.",
                param=name,
            )


def _refuse_overrides(members: JsonSpans, read: NamesRead) -> None:
    """Refuse members that an upstream could take in the place of those that were read. Raises FieldInvalid."""
    overrides = members.value(OVERRIDES)
    if overrides is None or not overrides.startswith(b"{"):
        return
    for name in read_json_spans(overrides).names():
        if name in read or name in SETTINGS:
            raise FieldInvalid(
                f"{OVERRIDES!r} has {name[:SHOWN_NAME]!r}, which some upstreams read in place of the request's own."
                f" Send it beside {OVERRIDES!r}.",
                param=f"{OVERRIDES}.{name[:SHOWN_NAME]}",
            )


@cache
def _names_within(fields: type[Fields]) -> dict[str, NamesRead]:
    """The names that are read in members that are objects themselves."""
    within = {}
    for field in msgspec.inspect.type_info(fields).fields:  # type: ignore[attr-defined]  # Of a struct it has some.
        choices = field.type.types if isinstance(field.type, msgspec.inspect.UnionType) else (field.type,)
        for choice in choices:
            if isinstance(choice, msgspec.inspect.StructType):
                within[field.encode_name] = NamesRead(each.encode_name for each in choice.fields)
    return within


def _checked(model: str, members: JsonSpans, paths: Sequence[Path]) -> str:
    """The model that the path names. Raises FieldInvalid where the body names another one: servers differ in which of
    them they obey."""
    for path in paths:
        if path[0] in members.names():
            for name in _texts_at(msgspec.json.decode(members.value(path[0]) or b"null"), path[1:]):
                if name.removeprefix(GEMINI_PREFIX) != model:
                    shown = ".".join(path)
                    raise FieldInvalid(
                        f"{shown!r} names another model than the path: {name[:SHOWN_NAME]!r}.", param=shown
                    )
    return model


def _texts_at(value: Any, path: Path) -> Iterator[str]:
    if not path:
        if value is not None:
            yield value if isinstance(value, str) else "?"
    elif isinstance(value, dict):
        yield from _texts_at(value.get(path[0]), path[1:])
    elif isinstance(value, list) and path[0] == "*":
        for each in value:
            yield from _texts_at(each, path[1:])


def _thinking_budget(members: JsonSpans, paths: tuple[Path, ...]) -> int:
    """Tokens that the model may think, 0 where the request names no number: whether it is sound, the upstream says."""
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


def _least_output(asked: int | None, budget: int, endpoint: Endpoint, model: Model) -> int:
    """The smallest cap under which a request with a thinking budget works. Raises FieldInvalid where the model's
    maximum lowers the client's cap to the budget or below."""
    _refuse_cap_within_thinking(asked, budget, endpoint, model)
    # A cap that is not above the budget is the client's own affair: Anthropic's interleaved thinking may exceed it.
    is_above = asked is None or asked > budget
    return max(endpoint.least_output, budget + 1) if is_above else endpoint.least_output


def _refuse_cap_within_thinking(asked: int | None, budget: int, endpoint: Endpoint, model: Model) -> None:
    most = model.max_output_tokens
    if asked is None or most is None or not most <= budget < asked:
        return
    cap = ".".join(endpoint.cap_paths[0 if endpoint.names_model else -1])
    raise FieldInvalid(
        f"The model {model.name!r} may produce {most:,} tokens at most here (its max_output_tokens), and this request"
        f" needs more than its thinking budget of {budget:,}. Lower the thinking budget.",
        param=cap,
    )
