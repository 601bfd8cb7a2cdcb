"""The teams, models, routes and prices of the configuration in force, for operators. Never a secret."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.core.json_object import JsonObject
from gateway.core.parameters import refuse_unknown
from gateway.core.pricing import PRICE_NAMES, UNIT_NAMES, WHOLE_FACTOR, Price, pico_per_written
from gateway.core.snapshot import ConfigSnapshot, Model, Target
from gateway.identity.key_objects import limit_terms
from gateway.pipeline import Services
from gateway.runtime.slices import in_slices
from gateway.store.operator_reports import json_list

_KEYS_AT_ONCE = 2_000
_MODELS_AT_ONCE = 50
_TEAMS_AT_ONCE = 2
"""Each has the names of all models that it may use."""

_ALWAYS_SHOWN = frozenset(("input", "output", "cached_input"))
_WRITTEN_AS = {"character": "million_characters"}
_TEXT_OF = {"audio_output": "output", "image_output": "output"}
"""By field: the one whose price applies if it has none; for all others it is `input`."""


async def teams(services: Services, query: Mapping[str, str]) -> JsonObject:
    refuse_unknown(query, ())
    snapshot = services.snapshot
    keys: dict[str, list[str]] = {team: [] for team in snapshot.teams}
    async for caller in in_slices(snapshot.callers.values(), _KEYS_AT_ONCE):
        keys.setdefault(caller.team, []).append(caller.key_id)
    shown = in_slices(keys.items(), _TEAMS_AT_ONCE)
    return json_list([{"name": name, "keys": ids, **_team_terms(snapshot, name)} async for name, ids in shown])


async def models(services: Services, query: Mapping[str, str]) -> JsonObject:
    refuse_unknown(query, ())
    every = {model.name: model for model in services.snapshot.models.values()}
    return json_list([_model_object(model) async for model in in_slices(every.values(), _MODELS_AT_ONCE)])


def _team_terms(snapshot: ConfigSnapshot, name: str) -> JsonObject:
    terms = snapshot.teams[name]
    return {
        "models": [model.name for model in snapshot.models_of(terms.caller)],
        "owner": terms.owner,
        "cost_center": terms.caller.cost_center,
        "key_limits": [limit_terms(limit) for limit in terms.key_limits],
        "user_limits": [limit_terms(limit) for limit in terms.caller.user_limits],
    }


def _model_object(model: Model) -> JsonObject:
    return {
        "name": model.name,
        "aliases": list(model.aliases),
        "context_window": model.context_window,
        "max_output_tokens": model.max_output_tokens,
        "affinity": model.affinity,
        "routes": [_route_object(target) for target in model.targets],
        "limits": [limit_terms(limit) for limit in model.limits],
    }


def _route_object(target: Target) -> JsonObject:
    return {
        "upstream": target.upstream.name,
        "model": target.model,
        "weight": target.weight,
        "priority": target.priority,
        "price": None if target.price is None else price_terms(target.price),
    }


def price_terms(price: Price) -> JsonObject:
    """The price as the configuration writes it, without fields that cost what text costs, or nothing."""
    found: JsonObject = {}
    for name in PRICE_NAMES:
        amount = getattr(price, name)
        usual = 0 if name in UNIT_NAMES else getattr(price, _TEXT_OF.get(name, "input"))
        if name in _ALWAYS_SHOWN or amount != usual:
            found[_WRITTEN_AS.get(name, name)] = amount / pico_per_written(name)
    if price.above:
        found["above"] = [{"tokens": step.tokens, **price_terms(step.price)} for step in price.above]
    if price.tiers:
        found["tiers"] = {name: price_terms(tier) for name, tier in price.tiers.items()}
    if price.regions:
        found["regions"] = {name: factor / WHOLE_FACTOR for name, factor in price.regions.items()}
    return found
