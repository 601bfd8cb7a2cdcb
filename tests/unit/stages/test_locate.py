from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from gateway.core.endpoints import CREATE_CONVERSATION, OBJECT_ENDPOINTS, RESPONSES, RETRIEVE_RESPONSE
from gateway.core.errors import (
    ConversationUnknown,
    FieldInvalid,
    GatewayError,
    ModelUnknown,
    PreviousResponseUnknown,
    ResponseUnknown,
    StoreUnavailable,
)
from gateway.core.exchange import Exchange
from gateway.core.plain_tally import PlainTally
from gateway.core.request import ParsedRequest
from gateway.core.reservation import Holds, Settlement
from gateway.core.snapshot import Caller, Model, Target
from gateway.core.stored_objects import ObjectKind, ObjectName, StoredObject
from gateway.stages.locate import SECOND_LOOK_S, ObjectDirectory, find_holder, find_subject
from gateway.stages.parse_request import parse_request
from tests.unit.fakes import CALLER, MODEL, Ledgers, body_of, exchange_of, incoming_of, snapshot_with, target

RESPONSE = ObjectName(ObjectKind.RESPONSE, "resp_1")
CONVERSATION = ObjectName(ObjectKind.CONVERSATION, "conv_1")
KEEPS = MODEL.targets[0].upstream.name
OTHERS: Caller = msgspec.structs.replace(CALLER, team="others", key_id="0ther5")


class Knowing:
    """A directory whose store knows these; `waited` are the pauses that it made."""

    def __init__(self, *known: StoredObject, outage: GatewayError | None = None) -> None:
        self.store = Ledgers(outage=outage)
        self.waited: list[float] = []
        self.directory = ObjectDirectory(self.store, self._wait)
        self.learn(*known)

    def learn(self, *known: StoredObject) -> None:
        self.store.settled += [Settlement(each.name.id, 0, Holds(), (), None, created=each) for each in known]

    async def _wait(self, seconds: float) -> None:
        self.waited.append(seconds)
        await asyncio.sleep(0)


def kept(name: ObjectName = RESPONSE, upstream: str = KEEPS, team: str = CALLER.team) -> StoredObject:
    return StoredObject(name, team, upstream, MODEL.name)


def going_on(model: Model = MODEL, **members: Any) -> ParsedRequest:
    body = body_of(model=model.name, input="x", **members)
    return parse_request(body, RESPONSES, CALLER, snapshot_with(model))


def answered(body: bytes) -> Exchange:
    """An exchange whose answer has come, and is not settled."""
    exchange, parsed = exchange_of(body_of(input="x"), endpoint=RESPONSES)
    exchange.target, exchange.status = MODEL.targets[0], 200
    exchange.tally = PlainTally(parsed.endpoint)
    exchange.tally.feed(body)
    exchange.tally.close()
    return exchange


async def test_what_a_team_has_made_is_found_by_its_keys_alone() -> None:
    knowing = Knowing(kept())
    assert await knowing.directory.find(RESPONSE, CALLER.team) == kept()
    assert knowing.waited == []
    assert await knowing.directory.find(RESPONSE, "others") is None


async def test_an_id_of_another_team_takes_as_long_as_one_that_never_was() -> None:
    knowing = Knowing(kept())
    assert await knowing.directory.find(RESPONSE, "others") is None
    assert await knowing.directory.find(ObjectName(ObjectKind.RESPONSE, "resp_2"), "others") is None
    assert knowing.waited == [SECOND_LOOK_S, SECOND_LOOK_S]


async def test_what_is_settled_meanwhile_is_found_at_the_second_look() -> None:
    knowing = Knowing()
    looking = asyncio.create_task(knowing.directory.find(RESPONSE, CALLER.team))
    while not knowing.waited:
        await asyncio.sleep(0)
    knowing.learn(kept())
    assert await looking == kept()


async def test_an_answer_that_is_not_settled_is_known_to_its_process() -> None:
    knowing = Knowing()
    exchange = answered(b'{"id":"resp_1"}')
    knowing.directory.begin(exchange)
    assert await knowing.directory.find(RESPONSE, CALLER.team) == kept()
    knowing.directory.end(exchange)
    assert await knowing.directory.find(RESPONSE, CALLER.team) is None


async def test_what_another_team_has_in_the_store_is_not_taken_by_an_answer_of_the_same_id() -> None:
    knowing = Knowing(kept(team="others"))
    knowing.directory.begin(answered(b'{"id":"resp_1"}'))
    assert await knowing.directory.find(RESPONSE, CALLER.team) is None


@pytest.mark.parametrize("name", ["", "..", "a/b", "resp 1", "résp", "r" * 257])
async def test_what_can_be_no_id_is_not_looked_for(name: str) -> None:
    knowing = Knowing()
    assert await knowing.directory.find(ObjectName(ObjectKind.RESPONSE, name), CALLER.team) is None
    assert knowing.waited == []


async def test_a_store_that_is_out_is_an_error_of_its_own() -> None:
    knowing = Knowing(outage=StoreUnavailable("It is out.", retry_after_ms=1000))
    with pytest.raises(StoreUnavailable, match="which upstream has this response") as told:
        await knowing.directory.find(RESPONSE, CALLER.team)
    assert told.value.retry_after_ms == 1000


async def test_a_request_goes_on_at_the_upstream_that_keeps_both() -> None:
    both = going_on(previous_response_id="resp_1", conversation={"id": "conv_1"})
    assert await find_holder(both, Knowing(kept(), kept(CONVERSATION)).directory) == KEEPS


async def test_a_request_that_names_nothing_goes_on_from_nothing() -> None:
    nothing: dict[str, Any] = {"previous_response_id": None, "conversation": None}
    for members in ({}, nothing):
        assert going_on(**members).continues == ()


@pytest.mark.parametrize(
    ("members", "error"),
    [
        ({"previous_response_id": "resp_1"}, PreviousResponseUnknown),
        ({"conversation": "conv_1"}, ConversationUnknown),
        ({"conversation": {"id": "conv_1"}}, ConversationUnknown),
    ],
)
async def test_what_nobody_of_the_team_has_made_is_unknown(members: Any, error: type[GatewayError]) -> None:
    directory = Knowing(kept(team="others"), kept(CONVERSATION, team="others")).directory
    with pytest.raises(error) as told:
        await find_holder(going_on(**members), directory)
    assert (told.value.status, told.value.param) == (404, next(iter(members)))


async def test_a_model_without_a_route_to_the_upstream_is_refused() -> None:
    with pytest.raises(FieldInvalid, match="no route of"):
        await find_holder(going_on(previous_response_id="resp_1"), Knowing(kept(upstream="else")).directory)


async def test_two_upstreams_cannot_go_on_together() -> None:
    model = msgspec.structs.replace(MODEL, targets=(*MODEL.targets, target("second")))
    both = going_on(model, previous_response_id="resp_1", conversation="conv_1")
    with pytest.raises(FieldInvalid, match="different upstreams"):
        await find_holder(both, Knowing(kept(), kept(CONVERSATION, "second")).directory)


def about(name: str, query: str = "", **parameters: str) -> Any:
    row = next(row for row in OBJECT_ENDPOINTS if row.name == name)
    return msgspec.structs.replace(incoming_of(b""), endpoint=row, query=query, parameters=parameters)


async def test_a_request_about_a_response_has_its_model_and_upstream() -> None:
    snapshot = snapshot_with(MODEL)
    request = about(RETRIEVE_RESPONSE.name, response_id="resp_1")
    subject = await find_subject(request, CALLER, snapshot, Knowing(kept()).directory)
    assert (subject.binding.model.name, subject.held_by) == (MODEL.name, KEEPS)


@pytest.mark.parametrize("model", [Model("else", ()), msgspec.structs.replace(MODEL, targets=(target("else"),))])
async def test_what_no_route_leads_to_any_more_is_unknown(model: Model) -> None:
    request = about(RETRIEVE_RESPONSE.name, response_id="resp_1")
    with pytest.raises(ResponseUnknown):
        await find_subject(request, CALLER, snapshot_with(model), Knowing(kept()).directory)


async def test_an_item_that_could_lead_elsewhere_is_unknown() -> None:
    request = about("conversations.items.retrieve", conversation_id="conv_1", item_id="../resp_1")
    with pytest.raises(ConversationUnknown):
        await find_subject(request, CALLER, snapshot_with(MODEL), Knowing(kept(CONVERSATION)).directory)


def able(name: str, endpoints: frozenset[str] | None) -> Model:
    upstream = msgspec.structs.replace(target(name).upstream, endpoints=endpoints)
    return Model(name, (Target(upstream, name),))


NAMED = able("named", frozenset({"responses", "conversations"}))
UNNAMED = able("unnamed", None)
WITHOUT = able("without", frozenset({"responses"}))


@pytest.mark.parametrize(
    ("models", "query", "maker"),
    [
        ([UNNAMED, WITHOUT, NAMED], "", "named"),
        ([WITHOUT, UNNAMED], "", "unnamed"),
        ([UNNAMED, WITHOUT, NAMED], "model=unnamed", "unnamed"),
    ],
)
async def test_a_conversation_is_made_where_there_are_conversations(
    models: list[Model], query: str, maker: str
) -> None:
    request, snapshot = about(CREATE_CONVERSATION.name, query), snapshot_with(*models)
    subject = await find_subject(request, CALLER, snapshot, Knowing().directory)
    assert (subject.binding.model.name, subject.held_by) == (maker, "")


@pytest.mark.parametrize(
    ("models", "query", "why"),
    [
        ([UNNAMED, WITHOUT], "model=without", "model_not_served"),
        ([WITHOUT], "", "model_not_served"),
        ([NAMED], "model=unknown", "model_unknown"),
        ([], "", "model_not_served"),
    ],
)
async def test_a_conversation_is_refused_where_there_are_none(models: list[Model], query: str, why: str) -> None:
    request, snapshot = about(CREATE_CONVERSATION.name, query), snapshot_with(*models)
    with pytest.raises(ModelUnknown) as refused:
        await find_subject(request, CALLER, snapshot, Knowing().directory)
    assert refused.value.why == why
