"""What the data plane answers by itself: the models that a key may use, and how its limits stand."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import unquote

import msgspec

from gateway.core.caller import Caller
from gateway.core.endpoints import ENDPOINTS, LIMITS, MODELS, UNKNOWN, Endpoint
from gateway.core.errors import MethodNotAllowed, ModelUnknown, ShuttingDown, UrlUnknown
from gateway.core.limit_status import limit_status_object
from gateway.core.limits import Limit
from gateway.core.target import Model
from gateway.pipeline import Services

Content = Callable[[Services, Caller, str], Awaitable[bytes]]
_ONE_MODEL = MODELS.path + "/"


class Page(msgspec.Struct, frozen=True):
    """`content` gives the JSON for a path, for one caller. Raises ModelUnknown, StoreUnavailable."""

    endpoint: Endpoint
    content: Content


def page_for(method: str, raw_path: str, *, refusing: bool) -> Page:
    """The page at a path. Raises ShuttingDown, UrlUnknown, MethodNotAllowed."""
    if refusing:
        raise ShuttingDown("The gateway is shutting down. Try again: another one will answer.")
    page = _ONE if raw_path.startswith(_ONE_MODEL) else _PAGES.get(raw_path)
    if page is None and raw_path not in ENDPOINTS:
        shown = raw_path[:200]
        raise UrlUnknown(f"There is nothing at {method[:20]} {shown!r}. Is the base URL right? It ends in /v1.")
    if page is None or method != "GET":
        allowed = "GET" if page else "POST"
        raise MethodNotAllowed(f"{raw_path[:200]} takes {allowed}, not {method[:20]}.", allow=allowed)
    return page


def endpoint_at(raw_path: str) -> Endpoint:
    """What the log calls a path."""
    page = _ONE if raw_path.startswith(_ONE_MODEL) else _PAGES.get(raw_path)
    return page.endpoint if page else ENDPOINTS.get(raw_path, UNKNOWN)


async def _models(services: Services, caller: Caller, _raw_path: str) -> bytes:
    listed = [_model_object(model) for model in services.snapshot.models_of(caller)]
    return msgspec.json.encode({"object": "list", "data": listed})


async def _model(services: Services, caller: Caller, raw_path: str) -> bytes:
    asked = unquote(raw_path.removeprefix(_ONE_MODEL))
    model = services.snapshot.model_for(caller, asked)
    if model is None:
        raise ModelUnknown(f"The model {asked[:256]!r} does not exist, or this key may not use it.", param="model")
    return msgspec.json.encode(_model_object(model))


async def _limits(services: Services, caller: Caller, _raw_path: str) -> bytes:
    models = services.snapshot.models_of(caller)
    binding: dict[tuple[object, ...], Limit] = {}
    for model in models:
        binding |= {limit.identity: limit for limit in caller.limits_on(model, "")}
    limit_statuses = await services.store.limit_statuses(list(binding.values()))
    return msgspec.json.encode({"data": [limit_status_object(limit_status) for limit_status in limit_statuses]})


def _model_object(model: Model) -> dict[str, object]:
    return {"id": model.name, "object": "model", "created": model.created, "owned_by": "gateway"}


_ONE = Page(MODELS, _model)
_PAGES = {MODELS.path: Page(MODELS, _models), LIMITS.path: Page(LIMITS, _limits)}
