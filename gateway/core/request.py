"""A request: as it arrives at a listener, and what the gateway reads of it without changing its bytes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from gateway.core.consultations import Consultation
from gateway.core.endpoints import Endpoint
from gateway.core.head_outline import HeadOutline
from gateway.core.input_size import InputSize
from gateway.core.json_spans import JsonSpans
from gateway.core.pricing import NO_PRICES, Price
from gateway.core.snapshot import Binding, Model, Target
from gateway.core.stored_objects import ObjectKind, ObjectName
from gateway.core.usage import NOTHING_USED, Usage


class BodyTail(Protocol):
    """What follows the beginning of a body that is not held in memory. It can be taken once."""

    length: int | None
    """Bytes of all its pieces; None where the client did not say."""
    taken: bool
    """Whether some of it was taken, so that the request cannot be sent again."""
    has_come: bool
    """Whether the client has sent all of it."""

    async def piece(self) -> bytes:
        """The next piece, empty at the end. Raises as `Body` does, and FormUnreadable."""
        ...


class Spool(Protocol):
    """Where a body waits that is too large for memory, and cannot be passed on yet. Raises as `Body` does."""

    async def write(self, data: bytes) -> None: ...

    def tail(self) -> BodyTail:
        """What was written, from its beginning."""
        ...


class Body(Protocol):
    """A request's body, decoded: `available`, `whole`, or its `beginning` and then piece by piece. All raise TooLarge
    past the configured size, EncodingUnsupported, RequestMalformed, ClientGone, and Overloaded where bodies that are
    held take all the memory that they may. `size` counts the bytes that were taken so far; `team` is whose share of the
    memory they take."""

    size: int
    team: str

    def available(self) -> bytes | None:
        """All of it, where nothing has to be waited for; None where `whole` is to be asked."""
        ...

    async def whole(self) -> bytes: ...

    async def beginning(self, size: int) -> bytes:
        """The first `size` bytes or some more, or all, where there are fewer."""
        ...

    async def piece(self) -> bytes:
        """What has come next, empty at the end."""
        ...

    async def spool(self) -> Spool:
        """An empty one, which lasts as long as the request."""
        ...

    def release(self) -> None:
        """Give back its memory: nothing has it any more."""
        ...


class RequestHeaders(Mapping[str, str]):
    """The headers of a request. Names compare without regard to case."""

    @abstractmethod
    def getall(self, name: str) -> Sequence[str]:
        """The values of all lines with this name. Raises KeyError where there is none."""
        ...


class IncomingRequest(msgspec.Struct, frozen=True):
    """`at` is the monotonic second at which the request's head had
    arrived. `path` is as it was sent, without the query; `path_model` is the model that it names, which counts
    in place of the body's."""

    request_id: str
    endpoint: Endpoint
    headers: RequestHeaders
    head: HeadOutline
    """What the names of `headers` say about them."""
    body: Body
    at: float
    method: str = "POST"
    path: str = ""
    query: str = ""
    """As it was sent, without the question mark."""
    path_model: str = ""
    parameters: Mapping[str, str] = msgspec.field(default_factory=dict)
    """All that the path names, decoded."""
    client_ip: str = ""


class ParsedRequest(msgspec.Struct, frozen=True):
    """`output_cap` is what one choice may produce (client's wish under the model's maximum), None if
    neither says. `least_output` is the smallest cap under which the request still works; above the `thinking_budget`,
    where it names one. `input_size` is that of what the model reads, for the estimate."""

    endpoint: Endpoint
    binding: Binding
    asked_model: str
    stream: bool
    asks_usage: bool
    output_cap: int | None
    choices: int
    user: str
    members: JsonSpans
    input_size: InputSize
    tier: str = ""
    """The service tier that the client asks for, empty for none."""
    units: Usage = NOTHING_USED
    """What it asks for and is billed by the piece: images, searches, characters."""
    asked_cap: int | None = None
    """What the client itself asked for, None if it did not say."""
    least_output: int = 1
    thinking_budget: int = 0
    is_array: bool = False
    """Whether the answer is a JSON array that grows while the model writes."""
    rest: BodyTail | None = None
    """What follows the bytes of `members`, where the body is not held in memory."""
    content_type: str = "application/json"
    """The type that the upstream reads the body as: what it was read as here, whatever the client called it. Empty
    where there is no body."""
    continues: tuple[ObjectName, ...] = ()
    """What an upstream keeps and the request goes on from."""
    creates: ObjectKind | None = None
    """What the upstream keeps of its answer."""
    consulted: tuple[Consultation, ...] = ()
    """The models that its tools ask."""

    @property
    def model(self) -> Model:
        return self.binding.model

    def is_served_by(self, target: Target) -> bool:
        """Whether the target's upstream has the models that the request's tools ask, too."""
        return all(each.is_at(target) for each in self.consulted)

    def prices_beside(self, target: Target, usage: Usage) -> Mapping[str, Price]:
        """What other models than the one that was asked for cost at the target's upstream, by the names that the answer
        gives them. One that is not known by its name, as by the date of its version, costs what the most
        expensive costs that the request's tools ask."""
        if not usage.parts:
            return NO_PRICES
        known = self.binding.prices_beside(target)
        routes = [each.model.at(target.upstream) for each in self.consulted]
        prices = [route.price for route in routes if route is not None and route.price is not None]
        if not prices:
            return known
        highest = max(prices, key=lambda price: (price.output, price.input))
        return {**{part.model: highest for part in usage.parts if part.model}, **known}
