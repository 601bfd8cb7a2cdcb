"""The models that a request's tools ask: which of them it may name, and what is held for them.

A tool may name a model that the key may use, if what that model takes can be charged:

- Anthropic's advisor: the answer reports its tokens by model (`usage.iterations`). It costs what its own model costs.
- The painter of the Responses API: the answer shows each image. It costs the `image` of the model that was asked for.

Everything else that makes an upstream ask another model is refused, since its tokens would be free. Only endpoints that
charge nothing take it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.core.endpoints import Endpoint
from gateway.core.errors import FieldInvalid, ModelUnknown
from gateway.core.json_spans import JsonSpans
from gateway.core.model_errors import model_unknown
from gateway.core.other_models import NamedModel, named_models
from gateway.core.request_fields import TOKENS_MAX
from gateway.core.snapshot import Binding, ConfigSnapshot, Model, Target

_ADVISOR = re.compile(r"advisor_\d{8}\Z")
"""A tool by which a model asks another one
(https://platform.claude.com/docs/en/agents-and-tools/tool-use/advisor-tool)."""

ADVICE_TOKENS = 2_048
"""What an advisor's answer is reserved with where the request does not limit it. Usually it takes up to 1,800."""


MOST = 16
"""Tools of a request that may name a model. An API takes one of a kind."""


class Consultation(msgspec.Struct, frozen=True):
    """Another model that a tool of the request asks. `tool` is the position of the tool, `name` what the client calls
    the model. It is asked `uses` times for `tokens` of output each, as far as the request says; `uses` is 0 where what
    it makes has no tokens."""

    tool: int
    name: str
    model: Model
    uses: int = 0
    tokens: int = 0

    def is_at(self, target: Target) -> bool:
        """Whether the target's upstream has the model."""
        return self.model.at(target.upstream) is not None


def consultations_of(
    members: JsonSpans, binding: Binding, endpoint: Endpoint, snapshot: ConfigSnapshot
) -> tuple[Consultation, ...]:
    """The models that the request's tools ask, each one that the caller may use and that can be charged. Raises
    ModelUnknown, FieldInvalid, BodyUnreadable."""
    found: list[Consultation] = []
    serving = binding.model.serving(endpoint.name)
    for named in named_models(members):
        beside = snapshot.binding(binding.caller, named.name) if named.name is not None else None
        if named.name is not None and beside is None:
            raise model_unknown(named.name, named.place, snapshot)
        if not endpoint.is_free:
            _refuse_uncharged(named, binding.model, endpoint)
        if named.tool is not None and beside is not None:
            if len(found) == MOST:
                raise FieldInvalid(f"More than {MOST} tools name a model. Send fewer.", param="tools")
            found.append(_consultation(named.tool, named, beside.model))
            serving = tuple(filter(found[-1].is_at, serving))
            if not serving:
                raise ModelUnknown(
                    f"The model {named.name!r} is not served by an upstream of {binding.model.name!r} here, which would"
                    " have to ask it. Name another one.",
                    param=named.place,
                    asked=beside.model.name,
                    why="model_not_served",
                )
    return tuple(found)


def _refuse_uncharged(named: NamedModel, asked: Model, endpoint: Endpoint) -> None:
    """Refuse a model that would take tokens, or make images, which the answer does not report or which have no price.
    Raises FieldInvalid."""
    kind = str(named.tool.get("type")) if named.tool is not None else ""
    if endpoint.reports_advisors and _ADVISOR.match(kind):
        return
    if endpoint.reports_images and kind == "image_generation":
        if not asked.prices or any(price.image for price in asked.prices):
            return
        raise FieldInvalid(
            f"{named.place!r} is not valid: the model {asked.name!r} has no price for an image here. Leave it out."
            " Operators: set the model's price.image.",
            param=named.place,
        )
    raise FieldInvalid(
        f"{named.place!r} makes the upstream ask a model whose tokens it does not report, so that they could be neither"
        " limited nor charged. Leave it out.",
        param=named.place,
    )


def _consultation(tool: Mapping[str, Any], named: NamedModel, model: Model) -> Consultation:
    if not _ADVISOR.match(str(tool.get("type"))):
        return Consultation(named.position, named.name or "", model)
    uses, tokens = [
        given if type(given := tool.get(name)) is int and 0 < given < TOKENS_MAX else usual
        for name, usual in (("max_uses", 1), ("max_tokens", ADVICE_TOKENS))
    ]
    return Consultation(named.position, named.name or "", model, uses, tokens)
