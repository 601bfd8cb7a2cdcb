"""The APIs that the gateway serves, as tests ask them: one smallest request each, and how each tells an error."""

from __future__ import annotations

import json
from typing import NamedTuple

from tests.whole_gateway import KEY, MODEL, Json, Reply, WholeGateway

TEXT = "Say hello to everybody."


class Api(NamedTuple):
    """`fields` is a body without its model. `cap` names the member that caps an answer, "" where it has no output."""

    name: str
    path: str
    fields: Json
    cap: str = ""
    streams: bool = False

    def body(self, **changes: object) -> Json:
        return {"model": MODEL, **self.fields, **changes}

    async def ask(self, gateway: WholeGateway, *, key: str = KEY, **changes: object) -> Reply:
        return await gateway.post(json.dumps(self.body(**changes)).encode(), path=self.path, key=key)


CHAT = Api("chat", "/v1/chat/completions", {"messages": [{"role": "user", "content": TEXT}]}, "max_tokens", True)
COMPLETIONS = Api("completions", "/v1/completions", {"prompt": TEXT}, "max_tokens", True)
RESPONSES = Api("responses", "/v1/responses", {"input": TEXT}, "max_output_tokens", True)
MESSAGES = Api(
    "messages",
    "/v1/messages",
    {"messages": [{"role": "user", "content": TEXT}], "max_tokens": 100},
    "max_tokens",
    True,
)
EMBEDDINGS = Api("embeddings", "/v1/embeddings", {"input": TEXT})
MODERATIONS = Api("moderations", "/v1/moderations", {"input": TEXT})
RERANK = Api("rerank", "/v1/rerank", {"query": TEXT, "documents": ["hello", "goodbye"]})
IMAGES = Api("images", "/v1/images/generations", {"prompt": TEXT})
SPEECH = Api("speech", "/v1/audio/speech", {"input": TEXT, "voice": "alloy"})

APIS = (CHAT, COMPLETIONS, RESPONSES, MESSAGES, EMBEDDINGS, MODERATIONS, RERANK, IMAGES, SPEECH)
SPEAKING = tuple(api for api in APIS if api.cap)
"""Those whose answers have output, plain or streamed."""


def name_of(value: object) -> str | None:
    """How a test's parameter stands in its name."""
    return value.name if isinstance(value, Api) else None


def told_error(api: Api, reply: Reply) -> Json:
    """The error in an answer, which must have the shape of its API."""
    assert reply.headers["content-type"] == "application/json"
    told = reply.json
    assert told.keys() <= {"type", "error", "limit"}
    assert told.get("type") == ("error" if api is MESSAGES else None)
    error: Json = told["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["message"]
    return error


def error_event(api: Api, event: bytes) -> Json:
    """The error in a stream's last event, which must have the shape of its API."""
    *kind, data, end, rest = event.decode().split("\n")
    assert (end, rest) == ("", "")
    told: Json = json.loads(data.removeprefix("data: "))
    if api is RESPONSES:
        assert (kind, told.pop("type")) == (["event: error"], "error")
        return told
    if api is MESSAGES:
        assert (kind, told["type"]) == (["event: error"], "error")
    else:
        assert kind == []
    error: Json = told["error"]
    return error
