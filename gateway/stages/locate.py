"""Locate: finds the upstream that keeps the response or conversation that a request is about, or continues.

Upstreams give ids to responses and conversations, and a client that has an id could ask for what it names. In the
gateway an id belongs to the team whose request made it: the settlement of that request writes the id, its team and its
upstream into the store, where the first writer of an id stays its owner. To any other team the id is unknown, with the
same answer after the same time as for an id that never was.

An id that is not in the store may be on its way there. While an answer is still coming, the process that relays it
knows the id from its tally. Other processes know it when the answer is settled, so an unknown id is looked up once more
after a moment. The store is asked first: a model server that accepts ids from its clients may give one that another
team has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from gateway.core.endpoints import Endpoint
from gateway.core.errors import (
    CallerError,
    ConversationUnknown,
    FieldInvalid,
    ModelUnknown,
    PreviousResponseUnknown,
    ResponseUnknown,
    StoreUnavailable,
)
from gateway.core.exchange import Exchange
from gateway.core.model_errors import model_not_served, model_unknown
from gateway.core.query_rules import parameter
from gateway.core.request import IncomingRequest, ParsedRequest
from gateway.core.snapshot import Binding, Caller, ConfigSnapshot, Model
from gateway.core.stored_objects import ObjectKind, ObjectName, StoredObject, is_object_id
from gateway.store.contract import StoredObjects

SECOND_LOOK_S = 0.1
"""After which an unknown id is looked for once more: to settle takes some milliseconds."""

_SHOWN = 100
"""Characters of an id that an error repeats."""

_MEMBERS = {ObjectKind.RESPONSE: "previous_response_id", ObjectKind.CONVERSATION: "conversation"}
"""Of a request's body, by what they name."""


class ObjectSubject(NamedTuple):
    """What binds a request about something that an upstream keeps, and that upstream; empty: any."""

    binding: Binding
    held_by: str


class ObjectDirectory:
    """Whose an id is, as far as this process can tell."""

    def __init__(self, store: StoredObjects, wait: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._store = store
        self._wait = wait
        self._making: dict[str, Exchange] = {}

    def begin(self, exchange: Exchange) -> None:
        """Its answer may be kept, and is on its way."""
        self._making[exchange.id] = exchange

    def end(self, exchange: Exchange) -> None:
        """It is settled."""
        self._making.pop(exchange.id, None)

    async def find(self, name: ObjectName, team: str) -> StoredObject | None:
        """None where the team has no such object. Raises StoreUnavailable."""
        if not is_object_id(name.id):
            return None
        found = await self._look(name, team)
        if found is None:
            await self._wait(SECOND_LOOK_S)
            found = await self._look(name, team)
        return found

    async def _look(self, name: ObjectName, team: str) -> StoredObject | None:
        try:
            found = await self._store.stored_object(name)
        except StoreUnavailable as error:
            raise StoreUnavailable(
                f"The gateway's store does not answer, so that it is not known which upstream has this {name.kind}."
                " Nothing was forwarded. Try again soon.",
                retry_after_ms=error.retry_after_ms,
            ) from error
        found = found or self._in_the_making(name)
        return found if found is not None and found.team == team else None

    def _in_the_making(self, name: ObjectName) -> StoredObject | None:
        made = (exchange.created for exchange in self._making.values())
        return next((each for each in made if each is not None and each.name == name), None)


async def find_subject(
    request: IncomingRequest, caller: Caller, snapshot: ConfigSnapshot, directory: ObjectDirectory
) -> ObjectSubject:
    """Of a request to an endpoint that is about something that an upstream keeps. Raises ResponseUnknown,
    ConversationUnknown, ModelUnknown, StoreUnavailable."""
    endpoint, named = request.endpoint, request.parameters.get(request.endpoint.object_parameter)
    assert endpoint.about is not None, "other endpoints name a model"
    if named is None:
        return ObjectSubject(_maker(request, caller, snapshot), "")
    unknown = _unknown(ObjectName(endpoint.about, named))
    if not all(is_object_id(value) for value in request.parameters.values()):
        raise unknown
    found = await directory.find(ObjectName(endpoint.about, named), caller.team)
    binding = snapshot.binding(caller, found.model) if found is not None else None
    if found is None or binding is None or not _leads_to(found.upstream, binding.model, endpoint):
        raise unknown
    return ObjectSubject(binding, found.upstream)


async def find_holder(parsed: ParsedRequest, directory: ObjectDirectory) -> str:
    """The upstream that keeps all that the request goes on from. Raises PreviousResponseUnknown, ConversationUnknown,
    FieldInvalid, StoreUnavailable."""
    model, holder = parsed.model, ""
    for name in parsed.continues:
        member = _MEMBERS[name.kind]
        found = await directory.find(name, parsed.binding.caller.team)
        if found is None:
            raise _unknown(name, member)
        if not _leads_to(found.upstream, model, parsed.endpoint):
            raise FieldInvalid(
                f"{member!r} is not valid: the {name.kind} {name.id[:_SHOWN]!r} was made with the model"
                f" {found.model!r}, and no route of {model.name!r} leads to the upstream that keeps it."
                f" Use {found.model!r}.",
                param=member,
            )
        if holder and holder != found.upstream:
            raise FieldInvalid(
                f"{member!r} is not valid: the response and the conversation are kept by different upstreams."
                " Send one of them.",
                param=member,
            )
        holder = found.upstream
    return holder


def _leads_to(upstream: str, model: Model, endpoint: Endpoint) -> bool:
    return any(target.upstream.name == upstream for target in model.serving(endpoint.name))


def _maker(request: IncomingRequest, caller: Caller, snapshot: ConfigSnapshot) -> Binding:
    """Of the model whose upstream is to make a conversation: the one that the query names, or the first that the caller
    may use whose upstream is known to have conversations, or may have them."""
    endpoint = request.endpoint
    asked = parameter(request.query, "model")
    able = [model for model in snapshot.models_of(caller) if model.serving(endpoint.name)]
    able.sort(key=lambda model: all(target.upstream.endpoints is None for target in model.serving(endpoint.name)))
    if not asked and not able:
        message = f"No model that this key may use is served at {endpoint.path}."
        raise ModelUnknown(message, param="model", why="model_not_served")
    binding = snapshot.binding(caller, asked or able[0].name)
    if binding is None:
        raise model_unknown(asked, "model", snapshot)
    if not binding.model.serving(endpoint.name):
        raise model_not_served(binding.model.name, endpoint)
    return binding


def _unknown(name: ObjectName, member: str | None = None) -> CallerError:
    shown = name.id[:_SHOWN]
    message = (
        f"There is no {name.kind} {shown!r} that a key of this team has made here, or it is not kept any more. Check"
        " the id; to continue without it, send the whole conversation as 'input'."
    )
    if name.kind is ObjectKind.CONVERSATION:
        return ConversationUnknown(message, param=member)
    return ResponseUnknown(message) if member is None else PreviousResponseUnknown(message, param=member)
