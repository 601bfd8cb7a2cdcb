"""Why a model cannot be used: the error that the client gets, and in it the word for the operator."""

from __future__ import annotations

from gateway.core.endpoints import Endpoint
from gateway.core.errors import ModelUnknown
from gateway.core.snapshot import ConfigSnapshot

SHOWN_NAME = 256
"""Characters of a model's name that an error repeats."""


def model_unknown(asked: str, param: str, snapshot: ConfigSnapshot) -> ModelUnknown:
    """Of a model to which nothing binds the caller. Only the log says whether there is such a model."""
    return ModelUnknown(
        f"The model {asked[:SHOWN_NAME]!r} does not exist, or this key may not use it."
        " GET /v1/models lists what it may use.",
        param=param,
        asked=asked,
        why="model_forbidden" if asked in snapshot.models else "model_unknown",
    )


def model_not_served(model: str, endpoint: Endpoint) -> ModelUnknown:
    """Of a model that the caller may use."""
    return ModelUnknown(
        f"The model {model!r} is not served at {endpoint.path} here: none of its upstreams has this API. Use another"
        " API for it, or another model.",
        param="model",
        asked=model,
        why="model_not_served",
    )
